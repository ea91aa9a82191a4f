//! The parent's side: starting a child, its socket, its end.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use rustix::io::fcntl_dupfd_cloexec;

/// The hidden first argument of a child; role and number of files follow it.
pub const CHILD_ARGUMENT: &str = "__child";

/// The child's end of the socket pair.
pub(crate) const SOCKET: RawFd = 3;
/// The first of the further files.
pub(crate) const FIRST_FILE: RawFd = 4;
/// More than any child needs, few enough that each descriptor has a bit in one word.
const FILES_MAX: usize = 16;
/// Descriptors that a child may have open at once: those given, and a few of its libraries.
#[cfg(target_os = "linux")]
const OPEN_FILES_MAX: u64 = 64;
/// Half of the scale on top of what the child uses.
const OUT_OF_MEMORY_FIRST: &str = "500";
/// Seccomp filters that make one wall.
const FILTERS_EACH: u64 = 2;

/// Why a child could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// This system has no wall; a child without one is not started.
    #[error("start a walled child: this system has no wall")]
    Unavailable,
    /// More files than a child takes.
    #[error("start a child with {given} files where {FILES_MAX} is the most")]
    TooManyFiles {
        /// How many were given.
        given: usize,
    },
    /// The system refused a socket pair, a descriptor or the program.
    #[error("start a child: {0}")]
    Io(#[from] io::Error),
}

/// Where the child's standard error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stderr {
    /// To the parent's.
    #[default]
    Inherit,
    /// To [`Child::take_stderr`].
    Piped,
    /// Nowhere.
    Null,
}

/// A child to be started.
#[derive(Debug)]
pub struct Spawn {
    role: String,
    program: Option<PathBuf>,
    files: Vec<OwnedFd>,
    stderr: Stderr,
}

impl Spawn {
    /// A child in this role, of this very program, with no files and the parent's standard error.
    pub fn new(role: impl Into<String>) -> Self {
        Self { role: role.into(), program: None, files: Vec::new(), stderr: Stderr::default() }
    }

    /// Starts this program in place of the running one (for tests, whose own binary is a harness).
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Gives the child one more open file, [`crate::file()`] with the next index there.
    ///
    /// Never a datagram socket: its owner can name an address in each message.
    #[must_use]
    pub fn file(mut self, file: impl Into<OwnedFd>) -> Self {
        self.files.push(file.into());
        self
    }

    /// Chooses where the child's standard error goes.
    #[must_use]
    pub fn stderr(mut self, stderr: Stderr) -> Self {
        self.stderr = stderr;
        self
    }

    /// Starts the child. Blocks for a millisecond or two; an async caller uses a blocking thread.
    ///
    /// The child has no environment, `/dev/null` as standard input and output, no descriptor beyond
    /// those given, no core dump, no way to gain privileges, and is killed when this process ends.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; nothing is left behind then.
    pub fn spawn(self) -> Result<Child, SpawnError> {
        if !cfg!(target_os = "linux") {
            return Err(SpawnError::Unavailable);
        }
        if self.files.len() > FILES_MAX {
            return Err(SpawnError::TooManyFiles { given: self.files.len() });
        }
        let gone = || io::Error::other("the thread that starts children is gone");
        let (reply, answer) = sync_channel(1);
        let job: Job = Box::new(move || {
            // Nobody waits any more only if the caller's thread died; the child dies on drop.
            drop(reply.send(self.start()));
        });
        SPAWNER.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    fn start(self) -> Result<Child, SpawnError> {
        let (ours, theirs) = UnixStream::pair()?;
        let count = self.files.len();
        let given = std::iter::once(OwnedFd::from(theirs)).chain(self.files);
        let past = FIRST_FILE + RawFd::try_from(count).unwrap_or(RawFd::MAX - FIRST_FILE);

        // Copies above the places they go to, so that no copy is overwritten before its turn.
        let sources: Vec<OwnedFd> =
            given.map(|file| Ok(fcntl_dupfd_cloexec(file, past)?)).collect::<io::Result<_>>()?;
        let numbers: Vec<RawFd> = sources.iter().map(|source| source.as_raw_fd()).collect();
        // `Command` keeps a pipe for the news that exec failed. With the places filled it can't
        // lie in one of them, where it would be overwritten.
        let filling = fill_below(past)?;

        // The link to the running file, not its path: also after an upgrade it is the same program.
        let program = self.program.unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let mut command = Command::new(program);
        command
            .args([CHILD_ARGUMENT, &self.role, &count.to_string()])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(match self.stderr {
                Stderr::Inherit => Stdio::inherit(),
                Stderr::Piped => Stdio::piped(),
                Stderr::Null => Stdio::null(),
            });
        let parent = std::process::id();
        // SAFETY: between fork and exec in a process with threads only async-signal-safe calls are
        // allowed. `prepare` makes bare system calls, allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || prepare(parent, &numbers)) };
        let child = command.spawn()?;
        drop((filling, sources));
        // When memory runs out a child goes before the node. Not every kernel has this file.
        std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), OUT_OF_MEMORY_FIRST).ok();
        Ok(Child { process: child, socket: ours })
    }
}

/// Holds every free descriptor below `past` until dropped.
fn fill_below(past: RawFd) -> io::Result<Vec<File>> {
    let mut filling = Vec::new();
    loop {
        let file = File::open("/dev/null")?;
        if file.as_raw_fd() >= past {
            return Ok(filling);
        }
        filling.push(file);
    }
}

/// Runs in the child between fork and exec.
#[cfg(target_os = "linux")]
fn prepare(parent: u32, sources: &[RawFd]) -> io::Result<()> {
    fn done(result: libc::c_int) -> io::Result<()> {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
    let limit = |resource, value| {
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: the pointer is to a local that outlives the call.
        done(unsafe { libc::setrlimit(resource, &raw const limit) })
    };

    // SAFETY: bare calls without pointers.
    unsafe {
        done(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        // The parent may have died before the line above; then nobody would send the signal.
        if libc::getppid().cast_unsigned() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
    }
    let mut place = SOCKET;
    for source in sources {
        // SAFETY: bare call; the copy loses close-on-exec, which is what is wanted.
        done(unsafe { libc::dup2(*source, place) })?;
        place += 1;
    }
    close_on_exec_from(place)?;
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_NOFILE, OPEN_FILES_MAX)
}

/// Marks every descriptor from `first` so that exec closes it, `Command`'s own pipe included.
#[cfg(target_os = "linux")]
fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    let first = first.cast_unsigned();
    // SAFETY: bare call without pointers.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    // A kernel before 5.11: one by one, up to the most that can be open.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for descriptor in first..u32::try_from(limit.rlim_max).unwrap_or(1 << 20) {
        // SAFETY: bare call; on a closed descriptor it fails and changes nothing.
        unsafe { libc::fcntl(descriptor.cast_signed(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn prepare(_parent: u32, _sources: &[RawFd]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread that starts all children.
///
/// The parent-death signal comes when the *thread* that forked ends, not the process: a child
/// started from a pool's thread would be killed when the pool shrinks. This thread never ends.
static SPAWNER: LazyLock<Option<SyncSender<Job>>> = LazyLock::new(|| {
    // A start takes about a millisecond, so a short queue is enough; senders wait.
    let (sender, jobs) = sync_channel::<Job>(16);
    let thread = std::thread::Builder::new().name("weft-spawner".to_owned());
    thread.spawn(move || jobs.iter().for_each(|job| job())).ok().map(|_| sender)
});

/// A running child. Dropping it kills it and waits for its end (a few milliseconds).
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    socket: UnixStream,
}

/// What the kernel says of a child, see [`Child::observe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The process can't gain privileges.
    pub no_new_privs: bool,
    /// The walls that it put up: [`crate::enter`] is one, [`crate::narrow`] before it another.
    pub walls: u32,
    /// Its threads.
    pub threads: u32,
    /// Its resident memory, in bytes.
    pub resident_bytes: u64,
}

impl Child {
    /// Starts a child of this very program in this role, see [`Spawn::spawn`].
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; nothing is left behind then.
    pub fn spawn(role: &str, files: Vec<OwnedFd>) -> Result<Self, SpawnError> {
        files.into_iter().fold(Spawn::new(role), Spawn::file).spawn()
    }

    /// The parent's end of the socket, in blocking mode.
    #[must_use]
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// One more owner of the parent's end, for a caller that makes it non-blocking.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn socket_owned(&self) -> io::Result<UnixStream> {
        self.socket.try_clone()
    }

    /// The pipe from its standard error, once, with [`Stderr::Piped`].
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.process.stderr.take()
    }

    /// Its process id, which stays its own until [`Child::wait`] or drop.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Kills it. One that has ended is no error.
    ///
    /// # Errors
    ///
    /// When the system refuses the signal.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When the system can't tell.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait()
    }

    /// How it ended, `None` while it runs.
    ///
    /// # Errors
    ///
    /// When the system can't tell.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// What the kernel, rather than the child, says of it.
    ///
    /// It shows a wall that was forgotten. It is no defence against a child that was taken over
    /// before its wall: that one could put up a filter of its own.
    ///
    /// # Errors
    ///
    /// When `/proc` can't be read, as on systems without one.
    pub fn observe(&self) -> io::Result<Observed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        let small = |name| field(name).and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
        // Kernels before 5.9 don't count filters, only say that there is one.
        let filtering = field("Seccomp:") == Some(2);
        let filters = field("Seccomp_filters:").unwrap_or(FILTERS_EACH);
        Ok(Observed {
            no_new_privs: field("NoNewPrivs:") == Some(1),
            walls: if filtering { u32::try_from(filters / FILTERS_EACH).unwrap_or(0) } else { 0 },
            threads: small("Threads:"),
            resident_bytes: field("VmRSS:").unwrap_or(0).saturating_mul(1024),
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

//! The proof: what a captive would try first, tried.
//!
//! Each attempt must fail with exactly the filter's error number. Failing for another reason (a file
//! that does not exist) proves nothing and is an error, as is getting through. Attempts are chosen
//! so that getting through does no harm.

use std::io;

use libc::{PTRACE_SEIZE, c_int, c_long};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{getppid, test_kill_process};

use super::filter::{HIDDEN, REFUSED};
use super::{Refusal, Wall, WallError};

pub(super) fn all(wall: Wall) -> Result<Vec<Refusal>, WallError> {
    let open = |path, flags| rustix::fs::open(path, flags, Mode::RUSR);
    let socket = |family, kind| rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None);
    let (unix, inet) = (AddressFamily::UNIX, AddressFamily::INET);
    let pair = rustix::net::socketpair(unix, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    // No parent means that it is in another process namespace; 1 stands for whoever that is.
    let parent = getppid().unwrap_or(rustix::process::Pid::INIT);

    let refused = vec![
        safe("open a file", open("/etc/hostname", OFlags::RDONLY))?,
        safe("open its own program", open("/proc/self/exe", OFlags::RDONLY))?,
        safe("open a folder", open("/", OFlags::RDONLY | OFlags::DIRECTORY))?,
        safe("look up a path", rustix::fs::stat("/"))?,
        safe("read a link", rustix::fs::readlink("/proc/self/exe", Vec::new()))?,
        safe("make a file", open("/tmp", OFlags::WRONLY | OFlags::TMPFILE))?,
        safe("make an internet socket", socket(inet, SocketType::STREAM))?,
        safe("make a datagram socket", socket(inet, SocketType::DGRAM))?,
        safe("make a local socket", socket(unix, SocketType::STREAM))?,
        safe("make a socket pair", pair)?,
        safe("signal the parent", test_kill_process(parent))?,
        bare("start a process", fork(), REFUSED)?,
        bare("start a process by clone3", clone3(), HIDDEN)?,
        bare("start a program", exec(), REFUSED)?,
        bare("trace a process", ptrace(parent), REFUSED)?,
        bare("leave a namespace", call1(libc::SYS_unshare, 0), REFUSED)?,
        bare("use io_uring", call1(libc::SYS_io_uring_setup, 0), REFUSED)?,
    ];
    thread(wall, refused)
}

fn thread(wall: Wall, mut refused: Vec<Refusal>) -> Result<Vec<Refusal>, WallError> {
    let attempt = "start a thread";
    let started = std::thread::Builder::new().stack_size(64 << 10).spawn(|| {});
    match (started, wall.allow_threads) {
        (Ok(thread), allowed) => {
            let ended = thread.join();
            if !allowed {
                return Err(WallError::Breach { attempt });
            }
            ended.map_err(|_| WallError::Broken { attempt, source: io::Error::other("panic") })?;
        }
        (Err(source), true) => return Err(WallError::Broken { attempt, source }),
        (Err(source), false) => {
            refused.push(judge(attempt, source.raw_os_error().unwrap_or(0), REFUSED)?);
        }
    }
    Ok(refused)
}

fn safe<T>(attempt: &'static str, outcome: rustix::io::Result<T>) -> Result<Refusal, WallError> {
    match outcome {
        Ok(_) => Err(WallError::Breach { attempt }),
        Err(errno) => judge(attempt, errno.raw_os_error(), REFUSED),
    }
}

fn bare(attempt: &'static str, outcome: c_long, expected: c_int) -> Result<Refusal, WallError> {
    if outcome >= 0 {
        return Err(WallError::Breach { attempt });
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    judge(attempt, errno, expected)
}

fn judge(attempt: &'static str, errno: c_int, expected: c_int) -> Result<Refusal, WallError> {
    if errno == expected {
        return Ok(Refusal { attempt, errno });
    }
    Err(WallError::Unproven { attempt, source: io::Error::from_raw_os_error(errno) })
}

fn call1(call: c_long, argument: c_long) -> c_long {
    // SAFETY: `unshare(0)` does nothing; `io_uring_setup(0, null)` fails without touching memory.
    unsafe { libc::syscall(call, argument, 0) }
}

fn fork() -> c_long {
    // SAFETY: a plain fork by `clone` with no new stack; the process has one thread, and the child
    // ends at once without running anything of this program.
    unsafe {
        let child = libc::syscall(libc::SYS_clone, c_long::from(libc::SIGCHLD), 0, 0, 0, 0);
        if child == 0 {
            libc::_exit(0);
        }
        child
    }
}

fn clone3() -> c_long {
    // SAFETY: with a size of 0 the kernel refuses before it reads the pointer.
    unsafe { libc::syscall(libc::SYS_clone3, 0, 0) }
}

fn exec() -> c_long {
    let none: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: path and lists are valid and end with null; `/` is a folder, so that without a wall
    // this fails (with another error) and never replaces the process.
    unsafe { libc::syscall(libc::SYS_execve, c"/".as_ptr(), none.as_ptr(), none.as_ptr()) }
}

fn ptrace(process: rustix::process::Pid) -> c_long {
    // SAFETY: attaching takes no pointers; `PTRACE_SEIZE` does not stop the process.
    unsafe {
        let process = c_long::from(process.as_raw_nonzero().get());
        libc::syscall(libc::SYS_ptrace, c_long::from(PTRACE_SEIZE), process, 0, 0)
    }
}

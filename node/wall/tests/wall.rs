//! Real children, real tries: the same ones get through without the wall and are refused behind it.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use weft_wall::{Child, Spawn, SpawnError, frame};

const FRAME_MAX: usize = 64 << 10;
const EPERM: &str = "refused 1:";

struct Probe(Child);

impl Probe {
    fn start() -> Self {
        Self(spawn().spawn().expect("the probe starts"))
    }

    fn ask(&self, request: &str) -> String {
        self.tell(request).expect("the probe answers")
    }

    fn tell(&self, request: &str) -> Option<String> {
        let mut socket = self.0.socket();
        frame::write(&mut socket, request.as_bytes(), FRAME_MAX).expect("the request is sent");
        let answer = frame::read(&mut socket, FRAME_MAX).ok()??;
        Some(String::from_utf8(answer).expect("answers are text"))
    }
}

fn spawn() -> Spawn {
    Spawn::new("probe").program(env!("CARGO_BIN_EXE_weft-wall-probe"))
}

/// Everything that a captive must not do, against targets that exist and answer.
struct Targets {
    folder: tempfile::TempDir,
    tcp: TcpListener,
    _unix: UnixListener,
}

impl Targets {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), b"secret").expect("a file");
        let unix = UnixListener::bind(folder.path().join("socket")).expect("a local socket");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a loopback socket");
        Self { folder, tcp, _unix: unix }
    }

    fn tries(&self) -> Vec<String> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        vec![
            format!("read {}", path("secret")),
            "read /proc/self/exe".to_owned(),
            format!("create {}", path("made")),
            format!("tcp {}", self.tcp.local_addr().expect("it is bound")),
            format!("unix {}", path("socket")),
            "exec /bin/true".to_owned(),
            format!("signal {}", std::process::id()),
            "nest".to_owned(),
        ]
    }
}

#[test]
fn every_try_gets_through_without_the_wall_and_none_behind_it() {
    let targets = Targets::new();
    let probe = Probe::start();
    for request in targets.tries() {
        let answer = probe.ask(&request);
        assert!(answer.starts_with("ok"), "{request} without a wall: {answer}");
    }
    assert_eq!(probe.ask("thread"), "ok 42");
    std::fs::remove_file(targets.folder.path().join("made")).expect("it was made");

    let probe = Probe::start();
    let proof = probe.ask("enter");
    assert!(proof.starts_with("ok seccomp"), "{proof}");
    for request in targets.tries() {
        let answer = probe.ask(&request);
        assert!(answer.starts_with("refused"), "{request} behind the wall: {answer}");
        // What goes through a library may carry its own words instead of the error number.
        assert!(answer.starts_with(EPERM) || request == "nest", "{request}: {answer}");
    }
    assert!(probe.ask("thread").starts_with(EPERM));
    assert!(!targets.folder.path().join("made").exists());
}

#[test]
fn the_proof_names_what_was_tried() {
    let proof = Probe::start().ask("enter");
    for attempt in [
        "open a file",
        "open its own program",
        "make an internet socket",
        "make a local socket",
        "signal the parent",
        "start a process",
        "start a process by clone3",
        "start a program",
        "start a thread",
    ] {
        assert!(proof.contains(attempt), "{attempt} is not in: {proof}");
    }
    eprintln!("{proof}");
}

#[test]
fn threads_run_behind_the_wall_only_where_they_were_allowed() {
    let probe = Probe::start();
    assert!(probe.ask("enter threads").starts_with("ok"));
    assert_eq!(probe.ask("thread"), "ok 42");
    assert!(probe.ask("exec /bin/true").starts_with(EPERM));
}

#[test]
fn a_process_that_runs_threads_is_not_walled() {
    let probe = Probe::start();
    assert!(probe.ask("nest").starts_with("ok"));
    let answer = probe.ask("enter");
    assert!(answer.contains("already runs 2 threads"), "{answer}");
}

#[test]
fn the_kernel_says_what_stands() {
    let probe = Probe::start();
    let before = probe.0.observe().expect("the probe runs");
    assert!(before.no_new_privs);
    assert_eq!((before.walls, before.threads), (0, 1));
    probe.ask("enter");
    assert_eq!(probe.0.observe().expect("the probe runs").walls, 1);
}

#[test]
fn a_narrowed_child_reads_what_it_was_given_by_its_path_and_writes_nothing() {
    let targets = Targets::new();
    let given = File::open(targets.folder.path().join("secret")).expect("it exists");
    let probe = Probe(spawn().file(given).spawn().expect("the probe starts"));
    assert_eq!(probe.ask("narrow"), "ok secret");
    // Starting a child starts a thread first, and the wall takes a process with one thread only.
    for request in targets.tries().into_iter().filter(|request| request != "nest") {
        let answer = probe.ask(&request);
        // Without Landlock other files can still be read at this stage; see `narrow`.
        let may_read = request.starts_with("read");
        assert!(may_read || answer.starts_with("refused"), "{request} when narrowed: {answer}");
    }
    assert_eq!(probe.ask("thread"), "ok 42");
    let proof = probe.ask("enter");
    assert!(proof.starts_with("ok seccomp"), "{proof}");
    assert_eq!(probe.0.observe().expect("the probe runs").walls, 2);
    for request in targets.tries() {
        assert!(probe.ask(&request).starts_with("refused"), "{request} behind both walls");
    }
}

#[test]
fn a_child_holds_what_it_was_given_and_nothing_else() {
    // Descriptors that a fork would hand on: with close-on-exec cleared, low and high.
    let leak = File::open("/proc/self/exe").expect("this program exists");
    let high = rustix::io::fcntl_dupfd_cloexec(&leak, 200).expect("a high descriptor");
    for file in [leak.as_raw_fd(), high.as_raw_fd()] {
        // SAFETY: the descriptor is open and owned above; a flag changes no owner.
        assert_eq!(unsafe { libc::fcntl(file, libc::F_SETFD, 0) }, 0);
    }
    let mut given = tempfile::tempfile().expect("a file");
    given.write_all(b"for the child").expect("it takes text");
    std::io::Seek::rewind(&mut given).expect("it goes back");

    let probe = Probe(spawn().file(given).spawn().expect("the probe starts"));
    assert_eq!(probe.ask("descriptors"), "ok [0, 1, 2, 3, 4]");
    assert_eq!(probe.ask("environment"), "ok ");
    assert_eq!(probe.ask("given"), "ok for the child");
    assert!(probe.ask("given").contains("taken before"));
}

#[test]
fn address_space_is_bounded_behind_the_wall() {
    let probe = Probe::start();
    assert!(probe.ask("allocate 268435456").starts_with("ok"));
    assert!(probe.ask("enter-small").starts_with("ok"));
    assert!(probe.ask("allocate 268435456").starts_with("refused"));
    assert!(probe.ask("allocate 1048576").starts_with("ok"));
}

#[test]
fn a_child_that_aborts_is_an_end_with_a_reason_and_no_core() {
    let mut probe = Probe::start();
    probe.ask("enter");
    assert_eq!(probe.tell("abort"), None);
    let status = probe.0.wait().expect("it ended");
    assert_eq!(status.signal(), Some(libc::SIGABRT));
    assert!(!status.core_dumped());
}

#[test]
fn a_child_dies_with_its_parent_and_on_drop() {
    let mut probe = Probe::start();
    let answer = probe.ask("nest");
    let nested = answer.strip_prefix("ok ").expect("a child of the child starts").to_owned();
    assert!(Path::new("/proc").join(&nested).exists());
    probe.0.kill().expect("it can be killed");
    probe.0.wait().expect("it ends");
    wait_gone(&nested);

    let probe = Probe::start();
    let pid = probe.0.pid().to_string();
    assert!(Path::new("/proc").join(&pid).exists());
    drop(probe);
    assert!(!Path::new("/proc").join(&pid).exists(), "dropped, reaped, gone");
}

#[test]
fn a_child_outlives_the_thread_that_asked_for_it() {
    let probe = std::thread::spawn(Probe::start).join().expect("it starts");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(probe.ask("thread"), "ok 42");
}

#[test]
fn a_program_that_is_not_there_is_an_error_not_a_child() {
    let outcome = Spawn::new("probe").program("/nonexistent/program").spawn();
    assert!(matches!(outcome, Err(SpawnError::Io(error))
        if error.kind() == std::io::ErrorKind::NotFound));
}

/// An orphan that was killed stays a zombie until whoever adopts orphans here reaps it.
fn wait_gone(pid: &str) {
    let end = Instant::now() + Duration::from_secs(5);
    let status = Path::new("/proc").join(pid).join("status");
    while std::fs::read_to_string(&status).is_ok_and(|status| !status.contains("State:\tZ")) {
        assert!(Instant::now() < end, "process {pid} outlived its parent");
        std::thread::sleep(Duration::from_millis(5));
    }
}

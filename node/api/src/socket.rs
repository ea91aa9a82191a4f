//! The socket in the node's home.
//!
//! Lines of JSON, each at most [`REQUEST_BYTES_MAX`] long:
//!
//! ```text
//! client                                   node
//!   | {"id":1,"ask":"say","words":"…"} ----->|
//!   |<---------- {"id":1,"reply":{"run":"…"}}|   or {"id":1,"error":{…}}
//!   |<---------- {"id":1,"event":{…}} ...    |
//!   | {"id":2,"ask":"cancel","run":"…"} ---->|   any time, on the same connection
//!   |<---------- {"id":1,"end":true}         |   nothing more comes for that number
//! ```
//!
//! Hanging up closes all that the client still waits for. A line that makes no sense is answered
//! by an error; one that is too long or cut off is, too, and ends the connection.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use weft_core::door::DoorId;

use crate::{
    json,
    message::DoorMessage,
    problem::{ErrorKind, Problem},
    request::{self, REQUEST_BYTES_MAX, Request},
};

/// The socket's name in the home.
pub const SOCKET_NAME: &str = "weft.sock";

/// Held by the node that owns the socket, for as long as it runs.
const LOCK_NAME: &str = "weft.lock";

/// The longest path of a socket that the system takes, in bytes.
const PATH_BYTES_MAX: usize = 107;

/// How many clients are served at once: far more than one person's terminals and scripts.
const CLIENTS_MAX: usize = 128;

/// How many requests may wait for the node's loop; further clients wait themselves.
pub const REQUESTS_WAITING_MAX: usize = 64;

/// How many messages may wait for one request's client. It holds a summary's tokens while a terminal
/// scrolls. The loop sends with `try_send`, and lets go of a client that is further behind.
pub const ANSWERS_WAITING_MAX: usize = 1_024;

/// How many lines may wait to be written to one client; whoever adds one waits.
const LINES_WAITING_MAX: usize = 64;

/// How long a client has to take its last lines.
const FLUSH: Duration = Duration::from_secs(1);

/// How long accepting pauses when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a home's socket lies.
pub fn socket_path(home: &Path) -> PathBuf {
    home.join(SOCKET_NAME)
}

/// What comes through a door to the node's loop.
#[derive(Debug)]
pub enum DoorInput {
    /// Something is asked. Dropping `answers` ends the conversation.
    Asked {
        /// This conversation.
        door: DoorId,
        /// What is asked.
        request: Request,
        /// Takes the answers.
        answers: mpsc::Sender<DoorMessage>,
    },
    /// Whoever asked hung up before the conversation ended.
    Closed {
        /// Which conversation.
        door: DoorId,
    },
}

/// Why a home's socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another node has it.
    #[error("open the control socket: a node is already running in {}", home.display())]
    AlreadyRunning {
        /// The home.
        home: PathBuf,
    },
    /// The system can't name a socket there.
    #[error(
        "open the control socket: {} has {} bytes, and a socket's path at most {PATH_BYTES_MAX}; use a home with a shorter path",
        path.display(), path.as_os_str().len()
    )]
    PathTooLong {
        /// Its path.
        path: PathBuf,
    },
    /// A disk or the system said no.
    #[error("open the control socket: {action} {}: {source}", path.display())]
    Io {
        /// What was done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A home, held: no other process is its node or changes its keys, as long as this lives.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

impl HomeLock {
    /// Takes the home, which must be there.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; a running node is not disturbed.
    pub fn take(home: &Path) -> Result<Self, OpenError> {
        let path = home.join(LOCK_NAME);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io_at("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(OpenError::AlreadyRunning { home: home.to_owned() })
            }
            Err(TryLockError::Error(source)) => Err(OpenError::Io { action: "lock", path, source }),
        }
    }
}

/// A home's socket, held. Dropping it removes the socket.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
    _lock: HomeLock,
}

impl Door {
    /// Takes the home's socket: makes the home where there is none, closes it to other users, and
    /// replaces the socket of a node that died. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; a running node is not disturbed.
    pub fn open(home: &Path) -> Result<Self, OpenError> {
        let path = socket_path(home);
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(OpenError::PathTooLong { path });
        }
        DirBuilder::new().recursive(true).mode(0o700).create(home).map_err(io_at("make", home))?;
        fs::set_permissions(home, Permissions::from_mode(0o700)).map_err(io_at("close", home))?;
        let lock = HomeLock::take(home)?;
        // Whoever holds the lock is the only node here: what lies under the name is a dead one's.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Io { action: "remove", path, source: error });
            }
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path).map_err(io_at("bind", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(io_at("close", &path))?;
        Ok(Self { listener, path, _lock: lock })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // It may be gone already, with its home.
        fs::remove_file(&self.path).ok();
    }
}

fn io_at(action: &'static str, path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { action, path: path.to_owned(), source }
}

/// Serves clients until the node's loop drops its end of `inputs`. Safe to drop: clients are cut
/// off.
pub async fn serve(door: Door, inputs: mpsc::Sender<DoorInput>) {
    let doors = Arc::new(AtomicU64::new(1));
    let seats = Arc::new(Semaphore::new(CLIENTS_MAX));
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = inputs.closed() => return,
            Some(ended) = clients.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    std::panic::resume_unwind(error.into_panic());
                }
                continue;
            }
            accepted = door.listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !is_same_user(&stream) {
            tracing::warn!("turned away a client of another user");
            continue;
        }
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            tracing::warn!("turned away a client: {CLIENTS_MAX} are served already");
            continue;
        };
        let (inputs, doors) = (inputs.clone(), Arc::clone(&doors));
        clients.spawn(async move {
            serve_client(stream, &inputs, &doors).await;
            drop(seat);
        });
    }
}

/// The socket's mode keeps others out already; this holds where a mode means nothing.
fn is_same_user(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::getuid().as_raw())
}

/// Reads requests until the client hangs up. Each is answered by a task of its own.
async fn serve_client(stream: UnixStream, inputs: &mpsc::Sender<DoorInput>, doors: &AtomicU64) {
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let (lines, lines_rx) = mpsc::channel(LINES_WAITING_MAX);
    let mut writing = JoinSet::new();
    writing.spawn(write_lines(writer, lines_rx));
    let mut answering: JoinSet<DoorId> = JoinSet::new();
    let mut open = BTreeSet::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = tokio::select! {
            read = read_line(&mut reader, REQUEST_BYTES_MAX, &mut line) => read,
            // The writer ends when the client no longer reads.
            () = lines.closed() => break,
        };
        match read {
            Ok(true) => {}
            Ok(false) => break,
            Err(problem) => {
                send(&lines, 0, "error", json::problem_fields(&problem)).await;
                break;
            }
        }
        let (id, request) = request::read(&line);
        let request = match request {
            Ok(request) => request,
            Err(problem) => {
                send(&lines, id, "error", json::problem_fields(&problem)).await;
                send(&lines, id, "end", true.into()).await;
                continue;
            }
        };
        forget_ended(&mut answering, &mut open);
        let door = DoorId(doors.fetch_add(1, Ordering::Relaxed));
        let (answers, answers_rx) = mpsc::channel(ANSWERS_WAITING_MAX);
        open.insert(door);
        answering.spawn(answer(door, id, answers_rx, lines.clone()));
        if inputs.send(DoorInput::Asked { door, request, answers }).await.is_err() {
            break;
        }
    }
    forget_ended(&mut answering, &mut open);
    answering.shutdown().await;
    drop(lines);
    for door in open {
        // A loop that is gone has no conversations left.
        inputs.send(DoorInput::Closed { door }).await.ok();
    }
    // The last line may say why; a client that does not read it is not waited for.
    tokio::time::timeout(FLUSH, writing.join_next()).await.ok();
}

/// Takes out the conversations that the node ended.
fn forget_ended(answering: &mut JoinSet<DoorId>, open: &mut BTreeSet<DoorId>) {
    while let Some(ended) = answering.try_join_next() {
        match ended {
            Ok(door) => open.remove(&door),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => continue,
        };
    }
}

/// Passes a conversation's messages on, and says when it has ended.
async fn answer(
    door: DoorId,
    id: u64,
    mut answers: mpsc::Receiver<DoorMessage>,
    lines: mpsc::Sender<String>,
) -> DoorId {
    let mut is_answered = false;
    while let Some(message) = answers.recv().await {
        is_answered = true;
        let (field, value) = json::message(&message);
        send(&lines, id, field, value).await;
    }
    if !is_answered {
        let problem = Problem::new(ErrorKind::NotRunning, "the node gave no answer");
        send(&lines, id, "error", json::problem_fields(&problem)).await;
    }
    send(&lines, id, "end", true.into()).await;
    door
}

/// A writer that is gone takes nothing any more; its client is.
async fn send(lines: &mpsc::Sender<String>, id: u64, field: &str, value: Value) {
    let mut line = json!({"id": id, field: value}).to_string();
    line.push('\n');
    lines.send(line).await.ok();
}

async fn write_lines(mut writer: OwnedWriteHalf, mut lines: mpsc::Receiver<String>) {
    while let Some(line) = lines.recv().await {
        if let Err(error) = writer.write_all(line.as_bytes()).await {
            tracing::debug!(%error, "a client hung up");
            return;
        }
    }
}

/// Reads a line without its end; `false`: there is none any more.
///
/// # Errors
///
/// The line is longer than `bytes_max`, or cut off.
pub(crate) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    bytes_max: usize,
    line: &mut Vec<u8>,
) -> Result<bool, Problem> {
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    match reader.take(limit).read_until(b'\n', line).await {
        Ok(0) => Ok(false),
        Ok(_) if line.pop_if(|byte| *byte == b'\n').is_some() => Ok(true),
        Ok(read) if read > bytes_max => {
            let message = format!("a line has more than {bytes_max} bytes");
            Err(Problem::new(ErrorKind::Usage, message))
        }
        Ok(_) => Err(Problem::new(ErrorKind::Usage, "a line was cut off before its end")),
        Err(error) => {
            Err(Problem::new(ErrorKind::Other, format!("failed to read a line: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;

    use weft_core::door::{Command, Event, Reply};
    use weft_protocol::{host_call::Refusal, id::RunId, run::RunState};

    use super::*;
    use crate::client::{Client, ClientError, Message};

    /// A home with a served door, and the loop's end of it.
    struct House {
        home: tempfile::TempDir,
        inputs: mpsc::Receiver<DoorInput>,
        _serving: JoinSet<()>,
    }

    impl House {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let (sender, inputs) = mpsc::channel(REQUESTS_WAITING_MAX);
            let mut serving = JoinSet::new();
            serving.spawn(serve(Door::open(home.path()).unwrap(), sender));
            Self { home, inputs, _serving: serving }
        }

        async fn client(&self) -> Client {
            Client::connect(self.home.path()).await.unwrap()
        }

        async fn asked(&mut self) -> (DoorId, Request, mpsc::Sender<DoorMessage>) {
            match self.inputs.recv().await.unwrap() {
                DoorInput::Asked { door, request, answers } => (door, request, answers),
                DoorInput::Closed { door } => panic!("{door:?} was closed"),
            }
        }
    }

    #[tokio::test]
    async fn only_this_user_gets_near_the_socket() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().join("new");
        let door = Door::open(&home).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home), 0o700);
        assert_eq!(mode(&socket_path(&home)), 0o600);
        drop(door);
        assert!(!socket_path(&home).exists());
    }

    #[tokio::test]
    async fn a_dead_nodes_socket_is_replaced_and_a_living_ones_is_not() {
        let home = tempfile::tempdir().unwrap();
        drop(StdListener::bind(socket_path(home.path())).unwrap());
        let door = Door::open(home.path()).unwrap();
        let error = Door::open(home.path()).expect_err("one node is enough");
        assert!(matches!(error, OpenError::AlreadyRunning { .. }), "{error}");
        assert!(socket_path(home.path()).exists());
        drop(door);
        Door::open(home.path()).unwrap();
    }

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_named() {
        let home = PathBuf::from("/tmp").join("x".repeat(120));
        assert!(matches!(Door::open(&home), Err(OpenError::PathTooLong { .. })));
        assert!(!home.exists());
    }

    #[tokio::test]
    async fn without_a_node_the_client_says_so() {
        let home = tempfile::tempdir().unwrap();
        let missing = Client::connect(home.path()).await.expect_err("nobody listens");
        assert!(matches!(missing, ClientError::NotRunning { .. }), "{missing}");
        drop(StdListener::bind(socket_path(home.path())).unwrap());
        let dead = Client::connect(home.path()).await.expect_err("nobody listens");
        assert!(matches!(dead, ClientError::NotRunning { .. }), "{dead}");
    }

    #[tokio::test]
    async fn two_clients_talk_at_once_and_each_hears_its_own() {
        let mut house = House::new();
        let (mut first, mut second) = (house.client().await, house.client().await);
        let mut one = first.ask(json!({"ask": "timers"})).await.unwrap();
        let (door_one, request, answers_one) = house.asked().await;
        assert_eq!(request, Request::Core(Command::Timers));
        let mut two = second.ask(json!({"ask": "runs"})).await.unwrap();
        let (door_two, request, answers_two) = house.asked().await;
        assert_eq!(request, Request::Core(Command::Runs));
        assert_ne!(door_one, door_two);
        answers_two.send(DoorMessage::Reply(Reply::Runs(vec![]))).await.unwrap();
        answers_one.send(DoorMessage::Reply(Reply::Done)).await.unwrap();
        drop((answers_one, answers_two));
        assert_eq!(first.next(&mut one).await.unwrap(), Message::Reply(json!({"done": true})));
        assert_eq!(first.next(&mut one).await.unwrap(), Message::End);
        assert_eq!(second.next(&mut two).await.unwrap(), Message::Reply(json!([])));
        assert_eq!(second.next(&mut two).await.unwrap(), Message::End);
    }

    #[tokio::test]
    async fn one_connection_carries_conversations_side_by_side() {
        let mut house = House::new();
        let mut client = house.client().await;
        let mut run = client.ask(json!({"ask": "watch"})).await.unwrap();
        let (_, _, run_answers) = house.asked().await;
        let mut cancel = client.ask(json!({"ask": "close-invitation"})).await.unwrap();
        let (_, request, cancel_answers) = house.asked().await;
        assert_eq!(request, Request::Core(Command::CloseInvitation));
        run_answers.send(DoorMessage::Event(ended())).await.unwrap();
        cancel_answers.send(DoorMessage::Reply(Reply::Done)).await.unwrap();
        drop((run_answers, cancel_answers));
        // Asked in the other order than answered: what belongs to the other is kept for it.
        assert_eq!(client.next(&mut cancel).await.unwrap(), Message::Reply(json!({"done": true})));
        let Message::Event(event) = client.next(&mut run).await.unwrap() else {
            panic!("an event was sent")
        };
        assert_eq!(event["event"], "run-ended");
        assert_eq!(client.next(&mut run).await.unwrap(), Message::End);
    }

    #[tokio::test]
    async fn a_hang_up_closes_what_is_still_open_and_nothing_else() {
        let mut house = House::new();
        let mut client = house.client().await;
        let mut ended = client.ask(json!({"ask": "timers"})).await.unwrap();
        let (_, _, answers) = house.asked().await;
        answers.send(DoorMessage::Reply(Reply::Done)).await.unwrap();
        drop(answers);
        while client.next(&mut ended).await.unwrap() != Message::End {}
        client.ask(json!({"ask": "watch"})).await.unwrap();
        let (watching, _, _answers) = house.asked().await;
        drop(client);
        let closed = house.inputs.recv().await.unwrap();
        assert!(matches!(closed, DoorInput::Closed { door } if door == watching), "{closed:?}");
        assert!(house.inputs.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_refusal_and_silence_are_errors() {
        let mut house = House::new();
        let mut client = house.client().await;
        let mut refused = client.ask(json!({"ask": "verify"})).await.unwrap();
        let (_, _, answers) = house.asked().await;
        let refusal = Reply::Refused { refusal: Refusal::Denied, reason: "not you".into() };
        answers.send(DoorMessage::Reply(refusal)).await.unwrap();
        let said = client.next(&mut refused).await.unwrap();
        assert_eq!(said, Message::Error(Problem::new(ErrorKind::Denied, "not you")));
        let mut silent = client.ask(json!({"ask": "verify"})).await.unwrap();
        drop(house.asked().await);
        let said = client.next(&mut silent).await.unwrap();
        assert!(
            matches!(&said, Message::Error(it) if it.kind == ErrorKind::NotRunning),
            "{said:?}"
        );
        let mut odd = client.ask(json!({"ask": "explode"})).await.unwrap();
        let said = client.next(&mut odd).await.unwrap();
        assert!(matches!(&said, Message::Error(it) if it.kind == ErrorKind::Usage), "{said:?}");
    }

    #[tokio::test]
    async fn a_line_that_is_cut_off_or_no_json_is_answered() {
        let house = House::new();
        for (sent, expected) in [("{\"id\":1", "cut off"), ("nonsense\n", "not JSON")] {
            let mut stream = UnixStream::connect(socket_path(house.home.path())).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            assert!(said.contains(expected), "{sent:?} was answered by {said:?}");
        }
    }

    #[tokio::test]
    async fn lines_have_a_longest_length() {
        for (bytes, expected) in [
            (&b"abc\n"[..], Ok(true)),
            (b"\n", Ok(true)),
            (b"", Ok(false)),
            (b"abcd\n", Ok(true)),
            (b"abcde\n", Err("more than 4 bytes")),
            (b"abc", Err("cut off")),
        ] {
            let mut line = Vec::new();
            match (read_line(&mut &bytes[..], 4, &mut line).await, expected) {
                (Ok(is_line), Ok(expected)) => assert_eq!(is_line, expected, "{bytes:?}"),
                (Err(problem), Err(expected)) => assert!(problem.message.contains(expected)),
                (found, _) => panic!("{bytes:?} gave {found:?}"),
            }
        }
    }

    fn ended() -> Event {
        Event::RunEnded {
            run: RunId::from_bytes([1; 16]),
            state: RunState::Done,
            outputs: vec![],
            failure: None,
            also_on: vec![],
        }
    }
}

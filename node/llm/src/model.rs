//! The node's side: one task that owns the model's process, and a handle to it.
//!
//! The task alone starts, speaks to and ends the process, so a request never meets another one's
//! tokens. Requests wait in a bounded queue. What the handle knows of the state comes over a watch
//! channel and is never older than the task's last step.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::ChildStderr;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use weft_wall::{Child, Spawn, SpawnError, Stderr};

use crate::wire::{Answer, Count, Done, FRAME_MAX, GenerateRequest, Request, encode};

/// The role in which the binary runs [`crate::run_child`].
pub const CHILD_ROLE: &str = "model";

/// Requests that wait. A model answers one in seconds, so more than these would wait for minutes;
/// the asker hears it at once instead.
const QUEUE_MAX: usize = 32;
/// Pieces of text that a slow reader may be behind before the model waits for it.
const EVENTS_MAX: usize = 64;
/// Loading maps the file; even a large one on a slow disk is there by then.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// A cancel is seen within a step (about 0.1 s); a process that has not stopped by then is ended.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// Walls of the process: one to load behind, one to work behind.
const WALLS: u32 = 2;
/// The end of the process's standard error that is kept for the reason of its death, in bytes.
const LAST_WORDS_MAX: usize = 512;
/// Weight of the newest measurement in a speed.
const SPEED_NEWEST: f64 = 0.3;
/// Shorter texts than this say little about speed.
const SPEED_TOKENS_MIN: u32 = 4;

/// How to run a model.
#[derive(Debug, Clone)]
pub struct LlmConfig {
    /// The GGUF file. It need not exist yet.
    pub model_path: PathBuf,
    /// The process ends after this long without a request.
    pub idle_after: Duration,
    /// The most tokens of prompt and answer together; a model that knows less gets less. Memory
    /// grows with it.
    pub context_tokens: u32,
    /// Threads to compute with.
    pub threads: u32,
    /// The program to start in the role [`CHILD_ROLE`]; `None` for the running one.
    pub program: Option<PathBuf>,
    /// What was measured of this file before, as far as it was. What is measured now moves it.
    pub measured: Speeds,
}

/// What was measured of a model on this device, in tokens a second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Speeds {
    /// Of prompts, while they are read; what was remembered of the prompt before does not count.
    pub prompt: Option<f64>,
    /// Of answers, while they are made.
    pub answer: Option<f64>,
}

impl LlmConfig {
    /// This model, ended after five idle minutes, with 4,096 tokens and up to eight threads.
    pub fn new(model_path: impl Into<PathBuf>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            model_path: model_path.into(),
            idle_after: Duration::from_secs(5 * 60),
            context_tokens: 4096,
            // Half: two of these often share a core, and llama.cpp's threads spin while they wait
            // for each other, so one that has no processor of its own holds up all. Beyond eight
            // they wait for memory.
            threads: u32::try_from(processors.div_ceil(2).min(8)).unwrap_or(1),
            program: None,
            measured: Speeds::default(),
        }
    }
}

/// Why there is no text, or no more.
#[derive(Debug, thiserror::Error)]
pub enum LlmError {
    /// The file can't be opened.
    #[error("open the model {}: {source}", path.display())]
    Absent {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Too many requests wait.
    #[error("ask the model: {QUEUE_MAX} requests wait already")]
    Busy,
    /// The process did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The process could not load the file, or not stand behind its wall.
    #[error("start the model: {0}")]
    Start(String),
    /// The prompt leaves no room for the answer; split it.
    #[error("ask the model: the prompt has {tokens} tokens, {max} is the most")]
    TooLong {
        /// Tokens of the prompt, template included.
        tokens: u32,
        /// The most that would have been taken with this request's `max_tokens`.
        max: u32,
    },
    /// The model could not go on with this request.
    #[error("{0}")]
    Model(String),
    /// The process ended in the middle, or had to be ended.
    #[error("hear from the model: its process ended: {0}")]
    Died(String),
    /// The node is shutting down.
    #[error("ask the model: the node is stopping")]
    Stopping,
}

/// A step of an answer.
#[derive(Debug)]
pub enum GenerateEvent {
    /// The next piece of text, whole characters.
    Token(String),
    /// The end. Nothing follows.
    Done(Done),
    /// The end, without success. Nothing follows.
    Failed(LlmError),
}

/// An answer that is being made. Dropping it cancels it.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<GenerateEvent>,
    cancel: CancellationToken,
}

impl Generation {
    /// The next step; `None` after the last. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<GenerateEvent> {
        self.events.recv().await
    }

    /// Stops it. What was made by then still arrives, then [`GenerateEvent::Done`] with
    /// [`crate::End::Cancelled`].
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// The whole text.
    ///
    /// # Errors
    ///
    /// [`LlmError`], and the text up to there is gone.
    pub async fn text(mut self) -> Result<(String, Done), LlmError> {
        let mut text = String::new();
        while let Some(event) = self.next().await {
            match event {
                GenerateEvent::Token(piece) => text.push_str(&piece),
                GenerateEvent::Done(done) => return Ok((text, done)),
                GenerateEvent::Failed(error) => return Err(error),
            }
        }
        Err(LlmError::Stopping)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Where the model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LlmState {
    /// There is no file.
    Absent,
    /// There is a file and no process.
    Idle,
    /// The process loads the file.
    Loading,
    /// The process is there.
    Loaded {
        /// Its process id.
        pid: u32,
        /// Tokens that prompt and answer may have together.
        context_tokens: u32,
        /// What was tried at its wall and refused, in words.
        wall: String,
    },
}

/// The model at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct LlmStatus {
    /// Where it is.
    pub state: LlmState,
    /// Requests that wait, without the one that is being answered.
    pub waiting: usize,
    /// What was measured here, before the first answer as far as it was known at the start.
    pub speeds: Speeds,
}

/// A model on this device. Cheap to clone; the process ends with the last clone.
#[derive(Debug, Clone)]
pub struct Llm {
    commands: mpsc::Sender<Command>,
    seen: watch::Receiver<Seen>,
    model_path: PathBuf,
}

#[derive(Debug)]
enum Command {
    Generate {
        request: GenerateRequest,
        events: mpsc::Sender<GenerateEvent>,
        cancel: CancellationToken,
    },
    Count {
        system: Option<String>,
        prompt: String,
        reply: oneshot::Sender<Result<Count, LlmError>>,
    },
    Unload {
        reply: oneshot::Sender<()>,
    },
}

/// What the task shows.
#[derive(Debug, Clone)]
struct Seen {
    state: LlmState,
    speeds: Speeds,
}

impl Llm {
    /// A model that is not loaded until it is asked. Call it within a Tokio runtime.
    #[must_use]
    pub fn new(config: LlmConfig) -> Self {
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let seen = Seen { state: LlmState::Idle, speeds: config.measured };
        let (show, seen) = watch::channel(seen);
        let model_path = config.model_path.clone();
        tokio::spawn(Actor { config, queue, show, running: None }.run());
        Self { commands, seen, model_path }
    }

    /// Asks. The answer streams from the [`Generation`]; errors come there too.
    ///
    /// # Errors
    ///
    /// [`LlmError::Busy`] and [`LlmError::Stopping`], at once.
    pub fn generate(&self, request: GenerateRequest) -> Result<Generation, LlmError> {
        let (events, answer) = mpsc::channel(EVENTS_MAX);
        let cancel = CancellationToken::new();
        self.send(Command::Generate { request, events, cancel: cancel.clone() })?;
        Ok(Generation { events: answer, cancel })
    }

    /// How long a prompt is, template included, beside the model's context. Loads the model.
    ///
    /// # Errors
    ///
    /// [`LlmError`].
    pub async fn count(&self, system: Option<&str>, prompt: &str) -> Result<Count, LlmError> {
        let (reply, answer) = oneshot::channel();
        let (system, prompt) = (system.map(str::to_owned), prompt.to_owned());
        self.send(Command::Count { system, prompt, reply })?;
        answer.await.map_err(|_| LlmError::Stopping)?
    }

    /// Ends the process once the requests before this one are answered.
    pub async fn unload(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Unload { reply }).await.is_ok() {
            // The task is gone, and the process with it, if nobody replies.
            drop(done.await);
        }
    }

    /// The model now. Looks for the file, so that a fetched one shows at once.
    #[must_use]
    pub fn status(&self) -> LlmStatus {
        let Seen { state, speeds } = self.seen.borrow().clone();
        let is_absent = state == LlmState::Idle && !self.model_path.is_file();
        LlmStatus {
            state: if is_absent { LlmState::Absent } else { state },
            waiting: self.commands.max_capacity() - self.commands.capacity(),
            speeds,
        }
    }

    fn send(&self, command: Command) -> Result<(), LlmError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LlmError::Busy,
            mpsc::error::TrySendError::Closed(_) => LlmError::Stopping,
        })
    }
}

/// The task.
struct Actor {
    config: LlmConfig,
    queue: mpsc::Receiver<Command>,
    show: watch::Sender<Seen>,
    running: Option<Running>,
}

/// A process that has loaded the model and proved its wall.
struct Running {
    child: Child,
    frames: Framed<UnixStream, LengthDelimitedCodec>,
    last_words: JoinHandle<String>,
    idle_at: Instant,
}

/// What came from the process, if anything.
enum Frame {
    Bytes(Bytes),
    /// Something that is no frame.
    Odd,
    /// It closed the socket, by ending.
    End,
    /// Nothing in time.
    Late,
}

impl Actor {
    async fn run(mut self) {
        while let Some(command) = self.next_command().await {
            match command {
                Command::Generate { request, events, cancel } => {
                    // Cancelled while it waited: nobody listens, or nothing is to be loaded for it.
                    if cancel.is_cancelled() && events.is_closed() {
                        continue;
                    }
                    let end = match self.generate(request, &events, &cancel).await {
                        Ok(done) => GenerateEvent::Done(done),
                        Err(error) => GenerateEvent::Failed(error),
                    };
                    // Nobody listens any more: then nobody misses it.
                    drop(events.send(end).await);
                }
                Command::Count { system, prompt, reply } => {
                    drop(reply.send(self.count(system, prompt).await));
                }
                Command::Unload { reply } => {
                    self.end().await;
                    // Whoever asked may have left.
                    reply.send(()).ok();
                }
            }
            if let Some(running) = &mut self.running {
                running.idle_at = Instant::now() + self.config.idle_after;
            }
        }
        self.end().await;
    }

    /// Waits for a command; meanwhile an idle process is ended and a dead one noticed.
    async fn next_command(&mut self) -> Option<Command> {
        loop {
            let Some(running) = &mut self.running else { return self.queue.recv().await };
            tokio::select! {
                biased;
                // It has nothing to say now: it ended, or is not what it should be.
                _ = running.frames.next() => {
                    let reason = self.end().await;
                    tracing::warn!(reason, "the model's process ended while it was idle");
                }
                command = self.queue.recv() => return command,
                () = sleep_until(running.idle_at) => {
                    self.end().await;
                    tracing::debug!("the model was idle and its process ended");
                }
            }
        }
    }

    async fn generate(
        &mut self,
        request: GenerateRequest,
        events: &mpsc::Sender<GenerateEvent>,
        cancel: &CancellationToken,
    ) -> Result<Done, LlmError> {
        self.start().await?;
        self.say(&Request::Generate(request)).await?;
        let mut stop_by = None;
        loop {
            let frame = tokio::select! {
                biased;
                () = cancel.cancelled(), if stop_by.is_none() => {
                    stop_by = Some(Instant::now() + CANCEL_TIMEOUT);
                    self.say(&Request::Cancel).await?;
                    continue;
                }
                frame = self.frame(stop_by) => frame,
            };
            match self.understand(frame).await? {
                Answer::Token(text) => tokio::select! {
                    biased;
                    // The reader is gone, which has cancelled; the loop above sees it.
                    _ = events.send(GenerateEvent::Token(text)) => {}
                    // A reader that cancels but does not read must not hold up the end.
                    () = cancel.cancelled(), if stop_by.is_none() => {}
                },
                Answer::Done(done) => {
                    self.measure(&done);
                    return Ok(done);
                }
                Answer::TooLong { tokens, max } => return Err(LlmError::TooLong { tokens, max }),
                Answer::Failed(reason) => return Err(LlmError::Model(reason)),
                Answer::Ready { .. } | Answer::Counted(_) => return Err(self.out_of_turn().await),
            }
        }
    }

    async fn count(&mut self, system: Option<String>, prompt: String) -> Result<Count, LlmError> {
        self.start().await?;
        self.say(&Request::Count { system, prompt }).await?;
        match self.hear(None).await? {
            Answer::Counted(count) => Ok(count),
            Answer::Failed(reason) => Err(LlmError::Model(reason)),
            Answer::Ready { .. } | Answer::Token(_) | Answer::Done(_) | Answer::TooLong { .. } => {
                Err(self.out_of_turn().await)
            }
        }
    }

    /// Starts the process and loads the model, unless it is there.
    async fn start(&mut self) -> Result<(), LlmError> {
        if self.running.is_some() {
            return Ok(());
        }
        self.show.send_modify(|seen| seen.state = LlmState::Loading);
        let outcome = self.start_now().await;
        if outcome.is_err() {
            self.end().await;
        }
        outcome
    }

    async fn start_now(&mut self) -> Result<(), LlmError> {
        let path = self.config.model_path.clone();
        let program = self.config.program.clone();
        let spawned = spawn_blocking(move || spawn(&path, program)).await;
        let mut child = spawned.map_err(|_| LlmError::Stopping)??;
        let io = |error: io::Error| LlmError::Spawn(SpawnError::Io(error));
        let socket = child.socket_owned().map_err(io)?;
        socket.set_nonblocking(true).map_err(io)?;
        let mut codec = LengthDelimitedCodec::new();
        codec.set_max_frame_length(FRAME_MAX);
        let frames = Framed::new(UnixStream::from_std(socket).map_err(io)?, codec);
        let last_words = tokio::spawn(listen(child.take_stderr()));
        let pid = child.pid();
        let running = Running { child, frames, last_words, idle_at: Instant::now() };
        let running = self.running.insert(running);

        let LlmConfig { context_tokens, threads, .. } = self.config;
        let load = Bytes::from(encode(&Request::Load { context_tokens, threads }));
        // If this fails the process is gone, and reading says why.
        drop(running.frames.send(load).await);
        let limit = Instant::now() + LOAD_TIMEOUT;
        match self.hear(Some(limit)).await? {
            Answer::Ready { context_tokens, wall } => {
                self.require_walls()?;
                tracing::info!(pid, context_tokens, wall, "the model is loaded");
                let state = LlmState::Loaded { pid, context_tokens, wall };
                self.show.send_modify(|seen| seen.state = state);
                Ok(())
            }
            Answer::Failed(reason) => Err(LlmError::Start(reason)),
            Answer::Token(_) | Answer::Done(_) | Answer::TooLong { .. } | Answer::Counted(_) => {
                Err(self.out_of_turn().await)
            }
        }
    }

    /// The child said that it is walled in; the kernel must say so too.
    fn require_walls(&self) -> Result<(), LlmError> {
        let Some(running) = &self.running else { return Ok(()) };
        let observed =
            running.child.observe().map_err(|error| LlmError::Start(error.to_string()))?;
        if observed.walls < WALLS || !observed.no_new_privs {
            return Err(LlmError::Start(format!("wall it in: the system says {observed:?}")));
        }
        Ok(())
    }

    async fn say(&mut self, request: &Request) -> Result<(), LlmError> {
        let frame = encode(request);
        let length = frame.len();
        if length > FRAME_MAX {
            let reason = format!("send {length} bytes where {FRAME_MAX} is the most");
            return Err(LlmError::Model(reason));
        }
        let Some(running) = &mut self.running else { return Err(LlmError::Stopping) };
        match running.frames.send(Bytes::from(frame)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(LlmError::Died(self.end().await)),
        }
    }

    /// The next answer, by then or never.
    async fn hear(&mut self, by: Option<Instant>) -> Result<Answer, LlmError> {
        let frame = self.frame(by).await;
        self.understand(frame).await
    }

    /// Waits for a frame. Dropping the future loses nothing.
    async fn frame(&mut self, by: Option<Instant>) -> Frame {
        let Some(running) = &mut self.running else { return Frame::End };
        let late = async {
            match by {
                Some(by) => sleep_until(by).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            frame = running.frames.next() => match frame {
                Some(Ok(bytes)) => Frame::Bytes(bytes.freeze()),
                Some(Err(_)) => Frame::Odd,
                None => Frame::End,
            },
            () = late => Frame::Late,
        }
    }

    /// A process that ended, babbles or is late is ended here.
    async fn understand(&mut self, frame: Frame) -> Result<Answer, LlmError> {
        match frame {
            Frame::Bytes(bytes) => match minicbor::decode(&bytes) {
                Ok(answer) => Ok(answer),
                Err(_) => Err(self.out_of_turn().await),
            },
            Frame::Odd => Err(self.out_of_turn().await),
            Frame::End => Err(LlmError::Died(self.end().await)),
            Frame::Late => {
                self.end().await;
                Err(LlmError::Died("it did not answer in time".to_owned()))
            }
        }
    }

    async fn out_of_turn(&mut self) -> LlmError {
        self.end().await;
        LlmError::Died("it said what nobody asked".to_owned())
    }

    /// Ends the process, if there is one, and says how it ended.
    async fn end(&mut self) -> String {
        let Some(Running { mut child, frames, last_words, .. }) = self.running.take() else {
            self.show.send_modify(|seen| seen.state = LlmState::Idle);
            return String::new();
        };
        drop(frames);
        // Freeing a model's memory takes the kernel some milliseconds.
        let status = spawn_blocking(move || {
            // One that has ended keeps the status that it ended with.
            child.kill().and_then(|()| child.wait())
        });
        let status = match status.await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => String::new(),
        };
        let words = last_words.await.unwrap_or_default();
        self.show.send_modify(|seen| seen.state = LlmState::Idle);
        if words.is_empty() { status } else { format!("{status}: {words}") }
    }

    fn measure(&self, done: &Done) {
        let read = done.prompt_tokens.saturating_sub(done.reused_tokens);
        let answered = done.millis.saturating_sub(done.prompt_millis);
        self.show.send_modify(|seen| {
            blend(&mut seen.speeds.prompt, read, done.prompt_millis);
            blend(&mut seen.speeds.answer, done.tokens, answered);
        });
    }
}

fn blend(speed: &mut Option<f64>, tokens: u32, millis: u64) {
    if tokens < SPEED_TOKENS_MIN || millis == 0 {
        return;
    }
    let newest = f64::from(tokens) / Duration::from_millis(millis).as_secs_f64();
    *speed = Some(speed.map_or(newest, |old| old + SPEED_NEWEST * (newest - old)));
}

fn spawn(path: &Path, program: Option<PathBuf>) -> Result<Child, LlmError> {
    let absent = |source| LlmError::Absent { path: path.to_owned(), source };
    let file = File::open(path).map_err(absent)?;
    if !file.metadata().map_err(absent)?.is_file() {
        return Err(absent(io::Error::other("it is not a file")));
    }
    let spawn = Spawn::new(CHILD_ROLE).file(file).stderr(Stderr::Piped);
    Ok(program.into_iter().fold(spawn, Spawn::program).spawn()?)
}

/// Reads a process's standard error to its end and keeps the last of it.
async fn listen(stderr: Option<std::process::ChildStderr>) -> String {
    let Some(mut stderr) = stderr.and_then(|it| ChildStderr::from_std(it).ok()) else {
        return String::new();
    };
    let mut last = Vec::new();
    let mut piece = [0; LAST_WORDS_MAX];
    while let Ok(read @ 1..) = stderr.read(&mut piece).await {
        last.extend_from_slice(&piece[..read]);
        last.drain(..last.len().saturating_sub(LAST_WORDS_MAX));
    }
    String::from_utf8_lossy(&last).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_follows_what_is_measured_and_ignores_what_says_nothing() {
        let mut speed = None;
        blend(&mut speed, 3, 1000);
        blend(&mut speed, 30, 0);
        assert_eq!(speed, None);
        blend(&mut speed, 30, 1000);
        assert_eq!(speed, Some(30.0));
        blend(&mut speed, 40, 1000);
        assert_eq!(speed, Some(33.0));
    }

    #[tokio::test]
    async fn what_was_measured_before_is_known_until_it_is_measured_again() {
        let measured = Speeds { prompt: Some(200.0), answer: Some(30.0) };
        let llm = Llm::new(LlmConfig { measured, ..LlmConfig::new("/nonexistent/model.gguf") });
        assert_eq!(llm.status().speeds, measured);
    }

    #[tokio::test]
    async fn a_model_that_is_not_there_is_said_to_be_absent() {
        let llm = Llm::new(LlmConfig::new("/nonexistent/model.gguf"));
        assert_eq!(llm.status().state, LlmState::Absent);
        let generation = llm.generate(GenerateRequest::new("hi")).expect("the queue is empty");
        let error = generation.text().await.expect_err("there is no file");
        assert!(matches!(error, LlmError::Absent { .. }), "{error}");
        assert_eq!(llm.status().state, LlmState::Absent);
    }
}

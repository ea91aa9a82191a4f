//! A child that runs while other things happen.

use std::{
    io::{Read, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{PATIENCE, Transcript, until_within};

/// A child process that is heard while it runs, and killed by its id when this is dropped.
#[derive(Debug)]
pub struct Running {
    said: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Heard,
    stderr: Heard,
}

impl Running {
    /// Starts `command`, which a person would have typed as `said`.
    #[track_caller]
    pub(crate) fn start(mut command: Command, said: String) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {said}: {error}"));
        let stdin = child.stdin.take();
        let stdout = Heard::listen(child.stdout.take());
        let stderr = Heard::listen(child.stderr.take());
        Self { said, child, stdin, stdout, stderr }
    }

    /// Types `text`.
    #[track_caller]
    pub fn type_in(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        // Who does not listen any more shows in what it said.
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).ok();
    }

    /// Ends its input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// What it said so far on standard output.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it said so far on standard error.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The lines of standard output so far, which are JSON.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let stdout = self.stdout();
        let (whole, _) = stdout.rsplit_once('\n').unwrap_or_default();
        let read = |line: &str| match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => panic!("{} said what is not JSON ({error}): {line}", self.said),
        };
        whole.lines().map(read).collect()
    }

    /// Waits until an event of this name came that `is_it`, and gives it.
    #[track_caller]
    pub fn event(&self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.event_within(PATIENCE, name, is_it)
    }

    /// As [`Self::event`], with another patience.
    #[track_caller]
    pub fn event_within(
        &self,
        patience: Duration,
        name: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Value {
        let find = |events: &Vec<Value>| {
            events.iter().find(|it| it["event"] == name && is_it(it)).cloned()
        };
        let what = format!("{} tells {name}", self.said);
        let events = until_within(patience, &what, || self.events(), |it| find(it).is_some());
        find(&events).expect("it was found just now")
    }

    /// Waits until standard output has `text` in it, and gives all of it.
    #[track_caller]
    pub fn hears(&self, text: &str) -> String {
        self.hears_within(PATIENCE, text)
    }

    /// As [`Self::hears`], with another patience.
    #[track_caller]
    pub fn hears_within(&self, patience: Duration, text: &str) -> String {
        let what = format!("{} says {text:?}", self.said);
        until_within(patience, &what, || self.stdout(), |said| said.contains(text))
    }

    /// Sends it a signal, as long as it runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.has_ended() {
            return;
        }
        // Not waited for yet, so the id is still its own.
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("a child has an id"), signal).ok();
    }

    /// Its process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(self) -> Transcript {
        self.end_within(PATIENCE)
    }

    /// Waits for its end, with another patience.
    #[track_caller]
    pub fn end_within(mut self, patience: Duration) -> Transcript {
        self.close_input();
        let what = format!("{} ends", self.said);
        let ended = until_within(
            patience,
            &what,
            || (self.child.try_wait().ok().flatten(), self.stdout(), self.stderr()),
            |(status, ..)| status.is_some(),
        );
        // A grandchild may hold a pipe for ever, so that its end is no condition.
        let deadline = std::time::Instant::now() + Duration::from_secs(2);
        while !(self.stdout.is_whole() && self.stderr.is_whole())
            && std::time::Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(2));
        }
        Transcript {
            said: self.said.clone(),
            stdout: self.stdout(),
            stderr: self.stderr(),
            code: ended.0.and_then(|status| status.code()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What comes out of a pipe.
#[derive(Debug, Default, Clone)]
struct Heard(Arc<Mutex<(Vec<u8>, bool)>>);

impl Heard {
    fn listen(pipe: Option<impl Read + Send + 'static>) -> Self {
        let heard = Self::default();
        let ear = heard.clone();
        thread::spawn(move || {
            let mut pipe = pipe.expect("it is piped");
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                let mut heard = ear.0.lock().unwrap_or_else(PoisonError::into_inner);
                heard.0.extend_from_slice(&chunk[..count]);
            }
            ear.0.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        });
        heard
    }

    fn text(&self) -> String {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&heard.0).into_owned()
    }

    fn is_whole(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

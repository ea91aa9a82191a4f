//! What a node tells those who watch it, with the time at which it came.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// A program that watches a node. Dropping it ends the program.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    events: Receiver<(Instant, Value)>,
    /// What came, for the one who asks why something did not.
    heard: Vec<Value>,
}

impl Watch {
    /// Runs `weft events --json` and returns once it listens.
    pub(crate) fn new(command: &mut Command, within: Duration) -> Result<Self> {
        let mut child = command
            .args(["events", "--json", "--verbose"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start a watch")?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (sender, events) = channel();
        let (said, listening) = channel();
        let watch = Self { child, events, heard: Vec::new() };
        thread::spawn(move || {
            let lines = stdout.into_iter().flat_map(|pipe| BufReader::new(pipe).lines());
            for line in lines.map_while(Result::ok) {
                let came = Instant::now();
                let told = serde_json::from_str(&line).map(|event| sender.send((came, event)));
                if !matches!(told, Ok(Ok(()))) {
                    return;
                }
            }
        });
        thread::spawn(move || {
            let lines = stderr.into_iter().flat_map(|pipe| BufReader::new(pipe).lines());
            // The first word is all that is waited for; the rest must be read, or it blocks.
            for line in lines.map_while(Result::ok) {
                said.send(line).ok();
            }
        });
        listening.recv_timeout(within).context("a watch does not listen")?;
        Ok(watch)
    }

    /// Waits for the first event that is `wanted`, and says when it came. What comes before it is
    /// passed over.
    ///
    /// # Errors
    ///
    /// It does not come in time, or the node ended.
    pub fn wait(
        &mut self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Instant> {
        let deadline = Instant::now() + within;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((came, event)) => {
                    let is_wanted = wanted(&event);
                    self.heard.push(event);
                    if is_wanted {
                        return Ok(came);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("not within {} s: {what}; but {:?}", within.as_secs(), self.heard)
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the watched node ended: {what}"),
            }
        }
    }

    /// Waits until that device is `here` or `away` by the node's word.
    ///
    /// # Errors
    ///
    /// As [`Self::wait`].
    pub fn device(&mut self, state: &str, name: &str, within: Duration) -> Result<Instant> {
        let word = format!("device-{state}");
        self.wait(&format!("the {name} is {state}"), within, |event| {
            event["event"] == *word && event["name"] == *name
        })
    }

    /// Waits until something arrives that another device wrote.
    ///
    /// # Errors
    ///
    /// As [`Self::wait`].
    pub fn arrival(&mut self, within: Duration) -> Result<Instant> {
        self.wait("something arrives from another device", within, |event| {
            event["event"] == "document-changed" && event["remote"] == true
        })
    }

    /// Passes over what came so far, and says what it was.
    pub fn drain(&mut self) -> Vec<Value> {
        let passed: Vec<Value> = self.events.try_iter().map(|(_, event)| event).collect();
        self.heard.extend(passed.iter().cloned());
        passed
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended with its node.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

//! A program that runs beside the measurement, and what it says.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long one may take to end by itself.
const END: Duration = Duration::from_secs(30);

/// How often one is asked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Its lines, with the moments at which they came.
    said: mpsc::Receiver<(Instant, String)>,
}

impl Process {
    /// Starts it. Standard input and output are for [`Self::say`] and [`Self::hear`].
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {shown}"))?;
        let stdout = child.stdout.take().context("it is piped")?;
        let stdin = child.stdin.take();
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if say.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, stdin, said })
    }

    /// Says a line to it.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("it has no input")?;
        writeln!(stdin, "{line}").context("failed to tell a program")
    }

    /// The next line that begins with `word`: when it came, and what follows the word.
    pub(crate) fn hear(&self, word: &str, within: Duration) -> Result<(Instant, String)> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (at, line) = self
                .said
                .recv_timeout(left)
                .with_context(|| format!("failed to hear {word:?} from a program"))?;
            if let Some(rest) = line.strip_prefix(word) {
                return Ok((at, rest.trim().to_owned()));
            }
        }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself, which it should not.
    pub(crate) fn ensure_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("a program ended with {status}"),
            None => Ok(()),
        }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) -> Result<()> {
        end(&mut self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Asks a child to end, and waits until it has; one that does not is killed.
pub(crate) fn end(child: &mut Child) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("a child's id")?, Signal::TERM)?;
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > END {
            child.kill()?;
            child.wait()?;
            bail!("a program did not end");
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_heard_and_ends() {
        let mut cat = Process::start(&mut Command::new("cat")).unwrap();
        cat.say("something else").unwrap();
        cat.say("AT 127.0.0.1:9 key").unwrap();
        let (_, rest) = cat.hear("AT ", Duration::from_secs(10)).unwrap();
        assert_eq!(rest, "127.0.0.1:9 key");
        cat.ensure_runs().unwrap();
        cat.end().unwrap();
    }

    #[test]
    fn one_that_says_nothing_is_not_waited_for_for_ever() {
        let cat = Process::start(&mut Command::new("cat")).unwrap();
        assert!(cat.hear("AT ", Duration::from_millis(10)).is_err());
    }
}

//! Running a program to its end, bounded in time.

use std::{
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How often a child is asked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The exit code; `None` where it was ended by a signal, also for having no time left.
    pub code: Option<i32>,
    /// Whether its time was up.
    pub hung: bool,
    /// What it said on standard output.
    pub stdout: String,
    /// What it said on standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// Runs it to its end, however that is; it is killed when its time is up.
pub(crate) fn end(command: &mut Command, within: Duration) -> Result<Ended> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {command:?}"))?;
    let stdout = read_all(child.stdout.take());
    let stderr = read_all(child.stderr.take());
    let mut hung = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() >= within {
            hung = true;
            child.kill()?;
            break child.wait()?;
        }
        thread::sleep(LOOK_EVERY);
    };
    let took = start.elapsed();
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    Ok(Ended { code: status.code(), hung, stdout, stderr, took })
}

/// Runs it and returns what it said on standard output; it is killed when its time is up.
pub(crate) fn hear(command: &mut Command, within: Duration) -> Result<String> {
    let Ended { code, hung, stdout, stderr, .. } = end(command, within)?;
    match code {
        Some(0) => Ok(stdout),
        _ if hung => {
            bail!("{command:?} did not end within {} s: {stdout}{stderr}", within.as_secs())
        }
        Some(code) => bail!("{command:?} ended with {code}: {stdout}{stderr}"),
        None => bail!("{command:?} was killed: {stdout}{stderr}"),
    }
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is worth showing.
            pipe.read_to_end(&mut bytes).ok();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

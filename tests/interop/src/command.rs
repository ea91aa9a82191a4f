//! A command that is run to its end, or to the end of patience.

use std::{
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What it said on standard output.
///
/// # Errors
///
/// In a sentence: it could not be started, failed, or did not end in time.
pub(crate) fn run(command: &mut Command, patience: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{name} can't be started: {error}"))?;
    let (stdout, stderr) = (hear(child.stdout.take()), hear(child.stderr.take()));
    let deadline = Instant::now() + patience;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            Ok(None) => {
                child.kill().ok();
                child.wait().ok();
                return Err(format!("{name} did not end within {} s", patience.as_secs()));
            }
            Err(error) => return Err(format!("{name} is lost: {error}")),
        }
    };
    let (stdout, stderr) = (stdout.join(), stderr.join());
    let (stdout, stderr) = (stdout.unwrap_or_default(), stderr.unwrap_or_default());
    if status.success() {
        return Ok(stdout);
    }
    let lines: Vec<&str> = stderr.lines().rev().take(30).collect();
    let last: Vec<&str> = lines.into_iter().rev().collect();
    Err(format!("{name} ended with {status}:\n{}", last.join("\n")))
}

fn hear(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut heard = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before it broke is still worth telling.
            pipe.read_to_end(&mut heard).ok();
        }
        String::from_utf8_lossy(&heard).into_owned()
    })
}

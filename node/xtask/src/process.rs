//! Children: shown as typed, bounded in time, heard while they speak.

use std::io::{self, IsTerminal as _, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::term;

/// How often a child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long output is waited for after its program ended: a grandchild may hold the pipe for ever.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long one step of a check may take: longer is a hang.
const STEP_LIMIT: Duration = Duration::from_secs(3_600);

/// So many lines of a failure are told again where all is summed up.
const TOLD_AGAIN: usize = 40;

/// What a child said, and how it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    /// Stdout alone: data.
    pub(crate) stdout: String,
    /// Stdout, then stderr.
    pub(crate) said: String,
}

/// Shows a command as typed, runs it with our output, and returns how it ended.
pub(crate) fn show(command: &mut Command) -> Result<ExitStatus, String> {
    term::say(format_args!("$ {}", spelled(command)));
    command.status().map_err(|error| start_error(command, &error))
}

/// As [`show`], where anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = show(command)?;
    succeeded(command, status)
}

/// As [`show`]. Where nobody watches at a terminal, what it said of failing comes back too, so that
/// the end of a long log tells what failed.
pub(crate) fn follow(command: &mut Command) -> Result<(ExitStatus, String), String> {
    if io::stderr().is_terminal() {
        return Ok((show(command)?, String::new()));
    }
    term::say(format_args!("$ {}", spelled(command)));
    let (status, said) = watch(command, STEP_LIMIT)?;
    Ok((status, failing_lines(&said)))
}

/// As [`follow`], where anything but success is an error.
pub(crate) fn check(command: &mut Command) -> Result<(), String> {
    let (status, told) = follow(command)?;
    succeeded(command, status).map_err(|why| format!("{why}\n{told}").trim_end().to_owned())
}

/// The lines that tell why something failed: errors, failed tests, panics with what they say. The
/// last lines where there are none such.
pub(crate) fn failing_lines(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    let mut told: Vec<&str> = Vec::new();
    let mut of_a_panic = 0;
    for line in &lines {
        let words = line.trim_start();
        let tells = ["FAIL [", "TIMEOUT [", "ABORT [", "SIG", "error"]
            .iter()
            .any(|start| words.starts_with(start));
        if words.contains("panicked at") {
            of_a_panic = 4;
        }
        if words.starts_with("stack backtrace") {
            of_a_panic = 0;
        }
        if (tells || of_a_panic > 0) && !told.contains(line) {
            told.push(line);
        }
        of_a_panic = of_a_panic.max(1) - 1;
    }
    if told.is_empty() {
        told = lines;
    }
    told[told.len().saturating_sub(TOLD_AGAIN)..].join("\n")
}

/// As [`run`], ended after `limit`.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<(), String> {
    term::say(format_args!("$ {}", spelled(command)));
    let mut child = command.spawn().map_err(|error| start_error(command, &error))?;
    let status = wait(command, &mut child, limit)?;
    succeeded(command, status)
}

/// Whether a program is there and answers with success, without a word.
pub(crate) fn answers(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command and collects what it says, unseen, ended after `limit`.
pub(crate) fn hear(command: &mut Command, limit: Duration) -> Result<Answer, String> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| start_error(command, &error))?;
    let (stdout, stderr) = (Heard::default(), Heard::default());
    let listeners = [
        child.stdout.take().map(|pipe| listen(pipe, stdout.clone(), Echo::Silent)),
        child.stderr.take().map(|pipe| listen(pipe, stderr.clone(), Echo::Silent)),
    ];
    let ended = wait(command, &mut child, limit);
    await_last_words(listeners.into_iter().flatten());
    let said = stdout.text() + &stderr.text();
    match ended {
        Ok(status) => Ok(Answer { status, stdout: stdout.text(), said }),
        Err(error) => Err(format!("{error}\n{}", said.trim_end())),
    }
}

/// Runs a command, shows what it says as it comes, and returns all of it, ended after `limit`.
///
/// Stdout and stderr share one pipe: the order between two would be lost, and lines of both be mixed.
pub(crate) fn watch(
    command: &mut Command,
    limit: Duration,
) -> Result<(ExitStatus, String), String> {
    let (pipe, out) = io::pipe().map_err(|error| start_error(command, &error))?;
    let errors = out.try_clone().map_err(|error| start_error(command, &error))?;
    let started = command.stdout(out).stderr(errors).spawn();
    // The command would hold the pipe open after its child is gone.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = started.map_err(|error| start_error(command, &error))?;
    let said = Heard::default();
    let listener = listen(pipe, said.clone(), Echo::Live);
    let ended = wait(command, &mut child, limit);
    await_last_words([listener].into_iter());
    match ended {
        Ok(status) => Ok((status, said.text())),
        Err(error) => Err(format!("{error}\n{}", said.text().trim_end())),
    }
}

/// Asks a child to end, by its id, and ends it when it does not within `patience`.
pub(crate) fn stop(child: &mut Child, patience: Duration) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    // The shell's own `kill`: a bare machine has no other.
    answers(Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]));
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        thread::sleep(LOOK_EVERY);
    }
    child.kill().and_then(|()| child.wait()).ok();
}

/// A command as a person would type it.
pub(crate) fn spelled(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or(&program);
    let words = command.get_args().map(|word| quoted(&word.to_string_lossy()));
    std::iter::once(name.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A word as a shell needs it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else if word.contains(['"', '$', '`', '\\', '!']) {
        format!("'{}'", word.replace('\'', "'\\''"))
    } else {
        format!("\"{word}\"")
    }
}

fn wait(command: &Command, child: &mut Child, limit: Duration) -> Result<ExitStatus, String> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
            Ok(None) => {
                stop(child, Duration::from_secs(2));
                return Err(format!(
                    "`{}` did not end within {} s",
                    spelled(command),
                    limit.as_secs()
                ));
            }
            Err(error) => {
                return Err(format!("failed to wait for `{}`: {error}", spelled(command)));
            }
        }
    }
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<(), String> {
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{}` ended with {status}", spelled(command)))
    }
}

fn start_error(command: &Command, error: &io::Error) -> String {
    format!("failed to start `{}`: {error}", spelled(command))
}

/// Whether a child's words are shown as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Echo {
    Live,
    Silent,
}

/// What came out of a pipe so far.
#[derive(Debug, Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn add(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

fn listen(mut pipe: impl Read + Send + 'static, ear: Heard, echo: Echo) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut chunk) {
            let bytes = &chunk[..count];
            ear.add(bytes);
            if echo == Echo::Live {
                term::pass(bytes);
            }
        }
    })
}

fn await_last_words(listeners: impl Iterator<Item = thread::JoinHandle<()>>) {
    let patience = Instant::now() + LAST_WORDS;
    for listener in listeners {
        while !listener.is_finished() && Instant::now() < patience {
            thread::sleep(LOOK_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn data_and_words_are_told_apart() {
        let mut command = shell("echo words >&2; echo data; exit 3");
        let answer = hear(&mut command, Duration::from_secs(60)).expect("sh runs");
        assert_eq!(answer.status.code(), Some(3));
        assert_eq!(answer.stdout, "data\n");
        assert_eq!(answer.said, "data\nwords\n");
    }

    #[test]
    fn what_is_watched_comes_in_the_order_in_which_it_was_said() {
        let turns = "for i in 1 2 3 4 5 6 7 8 9; do printf out >&1; echo put; echo note >&2; done";
        let began = Instant::now();
        let (status, said) = watch(&mut shell(turns), Duration::from_secs(60)).expect("sh runs");
        assert!(status.success());
        assert_eq!(said, "output\nnote\n".repeat(9));
        assert!(began.elapsed() < LAST_WORDS, "the pipe ends with its program");
    }

    #[test]
    fn what_hangs_is_ended_and_its_words_are_kept() {
        let error = hear(&mut shell("echo so far; exec sleep 600"), Duration::from_secs(1))
            .expect_err("it never ends by itself");
        assert!(error.contains("did not end within 1 s"), "{error}");
        assert!(error.contains("so far"), "{error}");
    }

    #[test]
    fn what_failed_is_told_again() {
        let said = "\
PASS [ 0.1s] weft-core one
thread 'two' panicked at two.rs:7:5:
assertion failed
 left: 1
right: 2
stack backtrace:
   0: begin
FAIL [ 0.2s] weft-core two
FAIL [ 0.2s] weft-core two
error: test run failed";
        let expected = "\
thread 'two' panicked at two.rs:7:5:
assertion failed
 left: 1
right: 2
FAIL [ 0.2s] weft-core two
error: test run failed";
        assert_eq!(failing_lines(said), expected);
        assert_eq!(failing_lines("a\nb"), "a\nb");
    }

    #[test]
    fn a_check_that_fails_says_with_what() {
        let error = check(&mut shell("echo 'error: no such seed'; exit 1"));
        let error = error.expect_err("it ends with 1");
        assert!(error.starts_with("`sh -c"), "{error}");
        if !io::stderr().is_terminal() {
            assert!(error.ends_with("\nerror: no such seed"), "{error}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(&mut Command::new("/nowhere/weft")).expect_err("there is none");
        assert!(error.contains("failed to start `weft`"), "{error}");
        assert!(!answers(&mut Command::new("/nowhere/weft")));
    }

    #[test]
    fn a_child_that_ignores_the_request_is_ended() {
        let mut child =
            shell("trap '' TERM; while :; do sleep 0.1; done").spawn().expect("sh runs");
        stop(&mut child, Duration::from_millis(200));
        assert!(matches!(child.try_wait(), Ok(Some(_))));
    }

    #[test]
    fn commands_are_spelled_as_typed() {
        let mut command = Command::new("/usr/bin/weft");
        command.args(["do", "note that it's friday", "--json", "$x", ""]);
        assert_eq!(spelled(&command), "weft do \"note that it's friday\" --json '$x' \"\"");
    }
}

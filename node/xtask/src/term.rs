//! What a person reads and answers.

use std::fmt::Display;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// Prints one line on stdout. A closed pipe ends nothing: the exit code still tells.
pub(crate) fn say(line: impl Display) {
    writeln!(io::stdout().lock(), "{line}").ok();
}

/// Passes bytes of a child through, as they come.
pub(crate) fn pass(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).ok();
}

/// Prints one message on stderr.
pub(crate) fn complain(message: impl Display) {
    writeln!(io::stderr().lock(), "error: {message}").ok();
}

/// Asks a yes/no question; only `y` and `yes` mean yes, and without a terminal nobody is there to
/// say it.
pub(crate) fn confirms(question: &str) -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    let mut out = io::stdout().lock();
    write!(out, "{question} [y/N] ").and_then(|()| out.flush()).ok();
    let mut answer = String::new();
    match io::stdin().lock().read_line(&mut answer) {
        Ok(_) => matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"),
        Err(_) => false,
    }
}

//! How commands end: well, with a kind of error that was told already, or with an error to tell.

use weft_api::{ClientError, ErrorKind, Problem};

use super::terminal::Terminal;
use crate::daemon::{
    home::{NotInitialised, Taken},
    up::UnknownWord,
};

/// How a command ended. `Some`: not well, and the person was told how.
pub(crate) type Done = Result<Option<ErrorKind>, CommandError>;

/// A person stopped while new recovery words were shown.
#[derive(Debug, thiserror::Error)]
#[error("nothing was made or changed, and the new words on your paper are worth nothing")]
pub(crate) struct Unshown;

/// An error with its kind, what led to it, and what to do about it.
#[derive(Debug)]
pub(crate) struct CommandError {
    kind: ErrorKind,
    error: anyhow::Error,
    hints: Vec<String>,
}

/// The exit code of each kind, as `weft help` lists them.
pub(crate) const fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Other => 1,
        ErrorKind::Usage => 2,
        ErrorKind::NotRunning => 3,
        ErrorKind::NotUnderstood => 4,
        ErrorKind::Denied => 5,
        ErrorKind::Failed => 6,
        ErrorKind::Refused => 7,
        ErrorKind::Expired => 8,
        ErrorKind::AlreadyUsed => 9,
        ErrorKind::CouldNotReach => 10,
        ErrorKind::Uncertain => 11,
        ErrorKind::Fault => 12,
        ErrorKind::NotFound => 13,
        ErrorKind::Locked => 14,
        ErrorKind::Cancelled => 130,
    }
}

impl CommandError {
    /// An error that says what a person sees.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, error: anyhow::Error::msg(message.into()), hints: Vec::new() }
    }

    /// A person's no to a question of ours.
    pub(crate) fn said_no() -> Self {
        Self::new(ErrorKind::Denied, "you said no, and nothing was changed")
    }

    /// A library's error, whose message fits after "failed to".
    pub(crate) fn failed(error: &dyn std::error::Error) -> Self {
        let mut message = format!("failed to {error}");
        // A source whose words are in the message already says nothing new.
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.contains(&cause_text) {
                message.push_str(": ");
                message.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self::new(ErrorKind::Other, message)
    }

    /// The same, of this kind.
    #[must_use]
    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same, with what was being done.
    #[must_use]
    pub(crate) fn while_doing(mut self, what: impl Into<String>) -> Self {
        self.error = self.error.context(what.into());
        self
    }

    /// The same, with one more thing to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What a person is told went wrong, without what led to it.
    pub(crate) fn message(&self) -> String {
        self.error.to_string()
    }

    pub(crate) const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Shows it: words on standard error, and with `--json` an object on standard output.
    pub(super) fn report(&self, terminal: &Terminal) {
        if self.is_unheard() {
            return;
        }
        if terminal.is_json() {
            let problem = Problem {
                kind: self.kind,
                message: format!("{:#}", self.error),
                hint: (!self.hints.is_empty()).then(|| self.hints.join("; ")),
            };
            // The words below say it, too.
            terminal.json(&weft_api::json::problem(&problem)).ok();
        }
        terminal.error(&self.error.to_string());
        for cause in self.error.chain().skip(1) {
            terminal.say(&format!("  because: {cause}"));
        }
        for hint in &self.hints {
            terminal.say(&format!("hint: {hint}"));
        }
    }

    /// Nobody reads standard output any more, as after `weft audit list | head`.
    fn is_unheard(&self) -> bool {
        self.error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        let is_new_home = error.is::<NotInitialised>();
        let is_taken = error.is::<Taken>();
        let is_cancelled = error.is::<Unshown>();
        let error = Self { kind: ErrorKind::Other, error, hints: Vec::new() };
        if is_new_home {
            error.of_kind(ErrorKind::NotFound).hint("begin with weft init, or weft join TICKET")
        } else if is_taken {
            let error = error.of_kind(ErrorKind::Usage);
            error.hint("a home belongs to one fabric; name another with --home DIR")
        } else if is_cancelled {
            error.of_kind(ErrorKind::Cancelled)
        } else {
            error
        }
    }
}

impl From<UnknownWord> for CommandError {
    fn from(error: UnknownWord) -> Self {
        Self::new(ErrorKind::Usage, error.to_string()).hint(error.remedy())
    }
}

impl From<Problem> for CommandError {
    fn from(problem: Problem) -> Self {
        let error = Self::new(problem.kind, problem.message);
        match problem.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::NotRunning { home } => {
                let message = format!("no node is running in {}", home.display());
                let error = Self::new(ErrorKind::NotRunning, message);
                if home.is_dir() {
                    error.hint("run weft up")
                } else {
                    error.hint("begin with weft init, or weft join TICKET; then run weft up")
                }
            }
            ClientError::TooLong { .. } => Self::failed(&error).of_kind(ErrorKind::Usage),
            ClientError::HungUp | ClientError::Garbled(_) | ClientError::Io(_) => {
                Self::failed(&error).hint("the node's own messages say more, or weft status")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::arguments::LONG_HELP;

    #[test]
    fn every_kind_has_its_own_code_and_help_lists_it() {
        let codes: BTreeSet<u8> = ErrorKind::ALL.iter().map(|kind| exit_code(*kind)).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        let listed: BTreeSet<u8> = LONG_HELP
            .lines()
            .skip_while(|line| *line != "Exit codes:")
            .skip(1)
            .map_while(|line| line.split_whitespace().next()?.parse().ok())
            .filter(|code| *code != 0)
            .collect();
        assert_eq!(listed, codes);
    }

    #[test]
    fn without_a_node_the_way_out_is_named() {
        let home = tempfile::tempdir().unwrap();
        let there = CommandError::from(ClientError::NotRunning { home: home.path().into() });
        assert_eq!((exit_code(there.kind()), &*there.hints[0]), (3, "run weft up"));
        let unborn = NotInitialised { home: home.path().into() };
        let unborn = CommandError::from(anyhow::Error::new(unborn).context("failed to start"));
        assert_eq!(unborn.kind(), ErrorKind::NotFound);
        let missing = home.path().join("none");
        let missing = CommandError::from(ClientError::NotRunning { home: missing });
        assert!(missing.hints[0].contains("weft init"), "{missing:?}");
        assert!(missing.hints[0].contains("run weft up"), "{missing:?}");
    }

    #[test]
    fn words_that_were_cut_off_are_void() {
        let error = CommandError::from(anyhow::Error::new(Unshown).context("failed to begin"));
        assert_eq!(exit_code(error.kind()), 130);
    }

    #[test]
    fn a_no_is_denied() {
        assert_eq!(exit_code(CommandError::said_no().kind()), 5);
    }

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("open the box: {0}")]
        struct Inner(#[source] std::io::Error);
        let error = CommandError::failed(&Inner(std::io::Error::other("it is locked")));
        assert_eq!(error.error.to_string(), "failed to open the box: it is locked");
    }
}

//! What went wrong, as a door says it.

use std::{fmt, str::FromStr};

use weft_core::door::Reply;
use weft_protocol::host_call::Refusal;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $word:literal),* $(,)?) => {
        /// Which way something went wrong. The command line's exit code follows from it.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum ErrorKind { $($(#[$doc])* $variant),* }

        impl ErrorKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word that stands for it in JSON.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

kinds! {
    /// Something that no other kind names: a disk, a defect.
    Other = "other",
    /// The request makes no sense.
    Usage = "usage",
    /// No node runs in this home.
    NotRunning = "not-running",
    /// The words mean nothing that this fabric can do.
    NotUnderstood = "not-understood",
    /// A rule or a person said no.
    Denied = "denied",
    /// It was tried and did not work, or no device can do it.
    Failed = "failed",
    /// Pairing: one side said no, or the proof was wrong.
    Refused = "refused",
    /// Pairing: the ticket is too old.
    Expired = "expired",
    /// Pairing: another device redeemed the ticket.
    AlreadyUsed = "already-used",
    /// Pairing: the other side did not answer.
    CouldNotReach = "could-not-reach",
    /// An effect may have happened and may not.
    Uncertain = "uncertain",
    /// A check found that something is not as it must be.
    Fault = "fault",
    /// There is no such thing.
    NotFound = "not-found",
    /// The device is locked, and knows nothing until it is unlocked.
    Locked = "locked",
    /// A person stopped it.
    Cancelled = "cancelled",
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for ErrorKind {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|kind| kind.word() == word).ok_or(())
    }
}

impl From<Refusal> for ErrorKind {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied => Self::Denied,
            Refusal::NotFound => Self::NotFound,
            Refusal::Invalid => Self::Usage,
            Refusal::Failed => Self::Failed,
            Refusal::Cancelled => Self::Cancelled,
        }
    }
}

/// Something that went wrong, for a person and for a program.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Which way.
    pub kind: ErrorKind,
    /// What, as a sentence or a fragment without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The problem that a reply stands for, if it is one.
    pub fn of_reply(reply: &Reply) -> Option<Self> {
        if let Reply::Refused { refusal, reason } = reply {
            Some(Self::new((*refusal).into(), reason))
        } else {
            None
        }
    }
}

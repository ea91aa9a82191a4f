//! Why something gave nothing.

use std::fmt;

/// The kind of an [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Policy or manifest forbids it.
    Denied,
    /// There is no such thing.
    NotFound,
    /// The arguments make no sense.
    Invalid,
    /// It was tried and did not work.
    Failed,
    /// The run was cancelled or ran out of time.
    Cancelled,
}

/// A call or a run that gave nothing, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// Which way.
    pub refusal: Refusal,
    /// A sentence for people.
    pub reason: String,
}

impl Error {
    /// There is no such thing.
    pub fn not_found(reason: impl Into<String>) -> Self {
        Self { refusal: Refusal::NotFound, reason: reason.into() }
    }

    /// The arguments make no sense.
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self { refusal: Refusal::Invalid, reason: reason.into() }
    }

    /// It was tried and did not work.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self { refusal: Refusal::Failed, reason: reason.into() }
    }

    /// The agent has no capability of that name.
    pub fn unknown(capability: &str) -> Self {
        Self::not_found(format!("this agent has no capability {capability:?}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}

//! What a running agent may ask of the node, and what it is told.
//!
//! Crosses the socket between the node and an agent's process. The node decides each call by policy;
//! the agent's process is never believed about who is calling.

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::{
    device::word_enum,
    id::{DocumentId, TimerId},
    manifest::CapabilityName,
    value::Value,
};

/// The most bytes of one call or its answer.
pub const HOST_CALL_BYTES_MAX: usize = 1 << 20;

/// A call out of the sandbox.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum HostCall {
    /// Documents of a kind, the newest first: a list of `{id, content, modified}`.
    #[n(0)]
    DocumentList {
        /// The kind, such as `note`.
        #[n(0)]
        kind: String,
        /// Words that must all stand in the content, without regard to case; empty for any.
        #[n(1)]
        query: String,
        /// At most so many.
        #[n(2)]
        limit: u32,
    },
    /// The content of one document: a map.
    #[n(1)]
    DocumentRead {
        /// Which.
        #[n(0)]
        id: DocumentId,
    },
    /// A new document; gives its id as text. Commits with the step's outcome.
    #[n(2)]
    DocumentCreate {
        /// The kind.
        #[n(0)]
        kind: String,
        /// A map of its fields.
        #[n(1)]
        content: Value,
    },
    /// Sets the given fields of a document, leaving others. Commits with the step's outcome.
    #[n(3)]
    DocumentUpdate {
        /// Which.
        #[n(0)]
        id: DocumentId,
        /// A map of the fields to set; null removes one.
        #[n(1)]
        content: Value,
    },
    /// Deletes a document. Commits with the step's outcome.
    #[n(4)]
    DocumentDelete {
        /// Which.
        #[n(0)]
        id: DocumentId,
    },
    /// A timer that fires once; gives `{id, due}`.
    #[n(5)]
    TimerSet {
        /// When.
        #[n(0)]
        due: Due,
        /// What it is for; may be empty.
        #[n(1)]
        label: String,
    },
    /// Timers that have not fired: a list of `{id, label, due, fires_on}`.
    #[n(6)]
    TimerList,
    /// Takes a timer back; gives whether its device confirmed.
    #[n(7)]
    TimerCancel {
        /// Which.
        #[n(0)]
        id: TimerId,
    },
    /// Another agent's capability, as a child step; gives its output.
    #[n(8)]
    Invoke {
        /// Which; must be among the manifest's `calls`.
        #[n(0)]
        capability: CapabilityName,
        /// A map.
        #[n(1)]
        arguments: Value,
    },
    /// A line for the step's log, shown by `weft run show`.
    #[n(9)]
    Log {
        /// The line.
        #[n(0)]
        line: String,
    },
}

/// When a timer is due, as the person said it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum Due {
    /// After so many milliseconds from now.
    #[n(0)]
    After(#[n(0)] u64),
    /// At a local time of the asking device, ISO 8601 without an offset.
    #[n(1)]
    At(#[n(0)] String),
}

word_enum! {
    /// Why a call gave nothing.
    Refusal, "denied, not-found, invalid, failed, cancelled" {
        /// Policy or manifest forbids it.
        0 Denied = "denied",
        /// There is no such thing.
        1 NotFound = "not-found",
        /// The arguments make no sense.
        2 Invalid = "invalid",
        /// It was tried and did not work.
        3 Failed = "failed",
        /// The run was cancelled or ran out of time.
        4 Cancelled = "cancelled",
    }
}

/// A call that gave nothing, and why.
#[derive(Clone, PartialEq, Eq, Debug, Error, Encode, Decode)]
#[cbor(map)]
#[error("{refusal}: {reason}")]
pub struct HostError {
    /// Which way.
    #[n(0)]
    pub refusal: Refusal,
    /// A sentence for people.
    #[n(1)]
    pub reason: String,
}

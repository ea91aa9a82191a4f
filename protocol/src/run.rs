//! How a step travels: `/weft/run/1`.
//!
//! ```text
//! owner                               executor
//!   | Offer(epoch) ------------------->|   decides again, persists
//!   |<------------------------- Accept |   or Refuse
//!   |<------------------------- Intent |   only at-most-once: persisted, not begun
//!   | IntentAck ---------------------->|   holds on this stream only; decides again, acts
//!   |<------------------ Progress ...  |   at least one a second
//!   |<--------------------------- Done |   persisted
//!   | DoneAck ------------------------>|
//! ```
//!
//! `Cancel` may come at any time and is answered by `Done`. A cut before `IntentAck` makes the executor
//! close the epoch durably and say `NotBegun` on the next stream.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::{
    device::word_enum,
    graph::{Label, Plan, StepId},
    host_call::Refusal,
    id::{DeviceId, Digest, DocumentId, RunId},
    manifest::{CapabilityName, EffectClass},
    time::WallTime,
    value::Value,
};

/// The most bytes of a step's arguments or output that travel within a message.
pub const INLINE_BYTES_MAX: usize = 256 << 10;

/// One try of one step: a later epoch makes the earlier void.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Attempt {
    /// The run.
    #[n(0)]
    pub run: RunId,
    /// The step.
    #[n(1)]
    pub step: StepId,
    /// Counts the tries, from 1.
    #[n(2)]
    pub epoch: u32,
}

/// All that an executor needs to know of a step.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Offer {
    /// Which try of which step.
    #[n(0)]
    pub attempt: Attempt,
    /// Whose run it is.
    #[n(1)]
    pub owner: DeviceId,
    /// What to do.
    #[n(2)]
    pub capability: CapabilityName,
    /// By which agent.
    #[n(3)]
    pub agent: Digest,
    /// With what: a map.
    #[n(4)]
    pub arguments: Value,
    /// Where the arguments come from. The executor may add to them.
    #[n(5)]
    pub labels: BTreeSet<Label>,
    /// What doing it again would do.
    #[n(6)]
    pub effect: EffectClass,
    /// How long the owner waits without hearing anything, in milliseconds.
    #[n(7)]
    pub lease_ms: u32,
    /// How long the step may take, in milliseconds.
    #[n(8)]
    pub deadline_ms: u64,
    /// Capabilities of the agents that called down to this step, the outermost first.
    #[n(9)]
    pub callers: Vec<CapabilityName>,
    /// The local time of the asking device when the run began, ISO 8601 without an offset.
    #[n(10)]
    pub local_time: String,
    /// The time zone of the asking device, as the IANA database names it.
    #[n(11)]
    pub time_zone: String,
    /// A person's consent, signed where it was given.
    #[n(12)]
    pub consent: Option<crate::signed::Signed>,
}

/// A step that gave nothing, and why.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Failure {
    /// Which way.
    #[n(0)]
    pub refusal: Refusal,
    /// A sentence for people.
    #[n(1)]
    pub reason: String,
}

/// How a step ended.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum Outcome {
    /// It gave a value.
    #[n(0)]
    Value {
        /// The value.
        #[n(0)]
        value: Value,
        /// Where it comes from.
        #[n(1)]
        labels: BTreeSet<Label>,
    },
    /// It gave nothing.
    #[n(1)]
    Failed(#[n(0)] Failure),
    /// Its effect may have happened and may not: a person is asked.
    #[n(2)]
    Uncertain,
}

/// A sign of life of a running step.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum Progress {
    /// Still at it.
    #[n(0)]
    Beat,
    /// A piece of the text that the step will give.
    #[n(1)]
    Text(#[n(0)] String),
    /// A line of the agent's log.
    #[n(2)]
    Log(#[n(0)] String),
}

/// A message of `/weft/run/1`.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum RunMessage {
    /// Owner: do this.
    #[n(0)]
    Offer(#[n(0)] Box<Offer>),
    /// Executor: I do.
    #[n(1)]
    Accept(#[n(0)] Attempt),
    /// Executor: I don't.
    #[n(2)]
    Refuse {
        /// Which.
        #[n(0)]
        attempt: Attempt,
        /// Why.
        #[n(1)]
        failure: Failure,
    },
    /// Executor: I am about to do what must not happen twice.
    #[n(3)]
    Intent(#[n(0)] Attempt),
    /// Owner: I know; go.
    #[n(4)]
    IntentAck(#[n(0)] Attempt),
    /// Executor: the epoch is closed, nothing was begun.
    #[n(5)]
    NotBegun(#[n(0)] Attempt),
    /// Executor: still at it.
    #[n(6)]
    Progress {
        /// Which.
        #[n(0)]
        attempt: Attempt,
        /// What is new.
        #[n(1)]
        progress: Progress,
    },
    /// Executor: it ended.
    #[n(7)]
    Done {
        /// Which.
        #[n(0)]
        attempt: Attempt,
        /// How.
        #[n(1)]
        outcome: Outcome,
    },
    /// Owner: I know how it ended.
    #[n(8)]
    DoneAck(#[n(0)] Attempt),
    /// Owner: stop.
    #[n(9)]
    Cancel(#[n(0)] Attempt),
}

word_enum! {
    /// How far a run is.
    RunState, "running, done, failed, cancelled, uncertain" {
        /// Steps are under way or wait.
        0 Running = "running",
        /// All steps gave their value.
        1 Done = "done",
        /// A step failed, and with it those that need it.
        2 Failed = "failed",
        /// A person stopped it.
        3 Cancelled = "cancelled",
        /// An effect may have happened and may not.
        4 Uncertain = "uncertain",
    }
}

/// Why a step runs where it runs: one device that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Candidate {
    /// The device.
    #[n(0)]
    pub device: DeviceId,
    /// Its name then.
    #[n(1)]
    pub name: String,
    /// Its cost in microseconds, lower is better; `None`: it could not be used.
    #[n(2)]
    pub cost: Option<u64>,
    /// What made the cost, or why it could not be used, each a short phrase.
    #[n(3)]
    pub reasons: Vec<String>,
}

/// What is written of a run, in order.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum Journal {
    /// The run began.
    #[n(0)]
    Started {
        /// What was said.
        #[n(0)]
        words: String,
        /// What it means.
        #[n(1)]
        plan: Plan,
        /// When.
        #[n(2)]
        time: WallTime,
        /// As in [`Offer::local_time`].
        #[n(3)]
        local_time: String,
        /// As in [`Offer::time_zone`].
        #[n(4)]
        time_zone: String,
    },
    /// A step was offered.
    #[n(1)]
    Offered {
        /// Which try of which step.
        #[n(0)]
        attempt: Attempt,
        /// To whom.
        #[n(1)]
        executor: DeviceId,
        /// Why there and not elsewhere.
        #[n(2)]
        candidates: Vec<Candidate>,
        /// When.
        #[n(3)]
        time: WallTime,
    },
    /// The executor is about to act.
    #[n(2)]
    IntentKnown {
        /// Which.
        #[n(0)]
        attempt: Attempt,
    },
    /// A step ended.
    #[n(3)]
    Ended {
        /// Which.
        #[n(0)]
        attempt: Attempt,
        /// How.
        #[n(1)]
        outcome: Outcome,
        /// When.
        #[n(2)]
        time: WallTime,
    },
    /// The run ended.
    #[n(4)]
    Finished {
        /// How.
        #[n(0)]
        state: RunState,
        /// When.
        #[n(1)]
        time: WallTime,
    },
    /// A line of an agent's log.
    #[n(5)]
    Logged {
        /// By which step.
        #[n(0)]
        step: StepId,
        /// The line.
        #[n(1)]
        line: String,
    },
}

/// What an executor keeps of a step, so that asking again gives the same answer.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Executed {
    /// The last epoch.
    #[n(0)]
    pub epoch: u32,
    /// How it ended; `None`: begun and not ended.
    #[n(1)]
    pub outcome: Option<Outcome>,
    /// Documents that it wrote.
    #[n(2)]
    pub documents: Vec<DocumentId>,
}

/// The arguments by name.
pub type Arguments = BTreeMap<String, Value>;

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
//! `Cancel` may come at any time; it stops the step and is answered as `Inquire` is. A cut before
//! `IntentAck` makes the executor close the epoch durably; it says `NotBegun`, on the next stream if
//! there is none. After a loss the owner inquires: `Inquire` begins nothing and is answered by `Accept`
//! where the step runs, by `Done` where it ended, and by `NotBegun` where that epoch is closed, which
//! it is from then on. `Open` opens each stream and follows the end of a run: it names the runs that go
//! on, and what the executor keeps of the asker's others is deleted.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::{
    device::word_enum,
    graph::{Label, Plan, StepId},
    host_call::Refusal,
    id::{DeviceId, Digest, RunId},
    manifest::{CapabilityName, EffectClass},
    time::WallTime,
    value::Value,
};

/// The most bytes of a step's arguments or output that travel within a message.
pub const INLINE_BYTES_MAX: usize = 256 << 10;

/// One try of one step: a later epoch makes the earlier void, and so does a later epoch of a step that
/// called down to it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Attempt {
    /// Whose run it is.
    #[n(0)]
    pub owner: DeviceId,
    /// The run.
    #[n(1)]
    pub run: RunId,
    /// The step.
    #[n(2)]
    pub step: StepId,
    /// The epochs of the steps that called down to it, the outermost first.
    #[n(3)]
    pub above: Vec<u32>,
    /// Counts the tries, from 1, anew under each try of the step above.
    #[n(4)]
    pub epoch: u32,
}

impl Attempt {
    /// What orders the tries of one step.
    pub fn order(&self) -> (&[u32], u32) {
        (&self.above, self.epoch)
    }

    /// Whether each step above has its epoch.
    pub fn is_complete(&self) -> bool {
        self.above.len() + 1 == self.step.0.len()
    }
}

/// All that an executor needs to know of a step.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Offer {
    /// Which try of which step.
    #[n(0)]
    pub attempt: Attempt,
    /// What to do.
    #[n(1)]
    pub capability: CapabilityName,
    /// By which agent.
    #[n(2)]
    pub agent: Digest,
    /// With what: a map.
    #[n(3)]
    pub arguments: Value,
    /// Where the arguments come from. The executor may add to them.
    #[n(4)]
    pub labels: BTreeSet<Label>,
    /// What doing it again would do.
    #[n(5)]
    pub effect: EffectClass,
    /// How long the owner waits without hearing anything, in milliseconds.
    #[n(6)]
    pub lease_ms: u32,
    /// How long the step may take, in milliseconds.
    #[n(7)]
    pub deadline_ms: u64,
    /// Capabilities of the agents that called down to this step, the outermost first.
    #[n(8)]
    pub callers: Vec<CapabilityName>,
    /// The local time of the asking device when the run began, ISO 8601 without an offset.
    #[n(9)]
    pub local_time: String,
    /// The time zone of the asking device, as the IANA database names it.
    #[n(10)]
    pub time_zone: String,
    /// A person's consent, signed where it was given.
    #[n(11)]
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
        /// Where all that it tells comes from; a failure's reason may carry what the step read.
        #[n(2)]
        labels: BTreeSet<Label>,
    },
    /// Owner: I know how it ended.
    #[n(8)]
    DoneAck(#[n(0)] Attempt),
    /// Owner: stop, and say how it stands.
    #[n(9)]
    Cancel(#[n(0)] Attempt),
    /// Owner: how does it stand? Nothing is to be begun.
    #[n(10)]
    Inquire(#[n(0)] Attempt),
    /// Owner: of all that I asked you for, the steps of these runs only are not settled. Said when a
    /// stream opens and when a run, or a step that called others, ends.
    #[n(11)]
    Open(#[n(0)] Vec<RunId>),
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
        /// The position of its record in the owner's chain.
        #[n(4)]
        intent: u64,
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

/// What an executor keeps of a step, so that asking again gives the same answer and what must not
/// happen twice does not. Kept for each device that asks, owner, run and step.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Executed {
    /// The device that asked: the owner, or where an agent that called it runs.
    #[n(0)]
    pub from: DeviceId,
    /// The last try.
    #[n(1)]
    pub attempt: Attempt,
    /// What was asked for: capability, agent and arguments, hashed under the fabric's addressing key.
    #[n(2)]
    pub asked: Digest,
    /// What doing it again would do.
    #[n(3)]
    pub effect: EffectClass,
    /// The position of its intent in this device's chain; `None`: it was never decided here.
    #[n(4)]
    pub intent: Option<u64>,
    /// The rules under which it was allowed.
    #[n(5)]
    pub policy: Digest,
    /// How far it came.
    #[n(6)]
    pub stage: Stage,
}

/// How far a step came where it is carried out.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum Stage {
    /// It waits for its owner to know the intent: nothing was begun.
    #[n(0)]
    Intended,
    /// It is about to act or did: without an end after a crash, its effect may have happened.
    #[n(1)]
    Acting,
    /// It acted, and ended.
    #[n(2)]
    Ended {
        /// How.
        #[n(0)]
        outcome: Outcome,
        /// As in [`RunMessage::Done`].
        #[n(1)]
        labels: BTreeSet<Label>,
    },
    /// Nothing was begun, and under this try nothing will be. Says why, where the step was denied or
    /// cancelled rather than cut.
    #[n(3)]
    Closed(#[n(0)] Option<Failure>),
    /// It ended, and the device that asked knows how: what is left until the run is settled, so that
    /// this try never runs again.
    #[n(4)]
    Settled,
}

impl Stage {
    /// Whether no end is written.
    pub const fn is_open(&self) -> bool {
        match self {
            Self::Intended | Self::Acting => true,
            Self::Ended { .. } | Self::Closed(_) | Self::Settled => false,
        }
    }
}

/// The arguments by name.
pub type Arguments = BTreeMap<String, Value>;

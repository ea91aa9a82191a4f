//! What a rule is asked, and what it answers.
//!
//! The same input is decided twice: by the owner before it offers a step, and by the executor, from
//! its own replica, before it acts. Both must allow.

use minicbor::{Decode, Encode};

use crate::{
    device::{Kind, Role, word_enum},
    graph::{Label, StepId},
    id::{DeviceId, Digest, RunId},
    manifest::{CapabilityName, EffectClass},
    time::WallTime,
    value::Value,
};

word_enum! {
    /// Who asks the rule.
    Point, "owner, executor, host-call" {
        /// The run's owner, before it offers the step.
        0 Owner = "owner",
        /// The executor, before it acts.
        1 Executor = "executor",
        /// The executor, for a call of a running agent.
        2 HostCall = "host-call",
    }
}

/// A device as a rule sees it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Subject {
    /// Which.
    #[n(0)]
    pub id: DeviceId,
    /// Its name in the fabric.
    #[n(1)]
    pub name: String,
    /// What machine it is.
    #[n(2)]
    pub kind: Kind,
    /// What it may do.
    #[n(3)]
    pub role: Role,
}

/// The agent that would act, as a rule sees it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Actor {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its identity.
    #[n(1)]
    pub digest: Digest,
    /// Whether the program itself carries it.
    #[n(2)]
    pub embedded: bool,
    /// Kinds of document that its manifest says it reads.
    #[n(3)]
    pub documents_read: Vec<String>,
    /// Kinds of document that its manifest says it writes.
    #[n(4)]
    pub documents_write: Vec<String>,
    /// Whether its manifest says it sets timers.
    #[n(5)]
    pub timers: bool,
    /// What the capability's manifest says it calls.
    #[n(6)]
    pub calls: Vec<CapabilityName>,
}

/// A call out of the sandbox, as a rule sees it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct CallSubject {
    /// One of `documents-read`, `documents-write`, `timers`, `invoke`.
    #[n(0)]
    pub what: String,
    /// The kind of document, or the capability.
    #[n(1)]
    pub target: String,
}

/// What a rule is asked.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Question {
    /// Who asks.
    #[n(0)]
    pub point: Point,
    /// The run.
    #[n(1)]
    pub run: RunId,
    /// The step.
    #[n(2)]
    pub step: StepId,
    /// What would be done.
    #[n(3)]
    pub capability: CapabilityName,
    /// What doing it again would do.
    #[n(4)]
    pub effect: EffectClass,
    /// With what.
    #[n(5)]
    pub arguments: Value,
    /// Where the arguments come from, joined with what the step has read.
    #[n(6)]
    pub labels: Vec<Label>,
    /// By which agent.
    #[n(7)]
    pub agent: Actor,
    /// Whose run it is.
    #[n(8)]
    pub owner: Subject,
    /// Where it would be done.
    #[n(9)]
    pub executor: Subject,
    /// The call, where the point is a host call.
    #[n(10)]
    pub call: Option<CallSubject>,
    /// The asking node's wall clock.
    #[n(11)]
    pub now: WallTime,
}

word_enum! {
    /// What a rule answers. Only `allow` lets anything happen.
    Effect, "allow, ask, deny" {
        /// It may happen.
        0 Allow = "allow",
        /// A person is asked.
        1 Ask = "ask",
        /// It may not happen.
        2 Deny = "deny",
    }
}

/// A rule's answer.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Decision {
    /// Whether it may happen.
    #[n(0)]
    pub effect: Effect,
    /// Why, for people.
    #[n(1)]
    pub reason: String,
    /// What must also be done where it happens.
    #[n(2)]
    pub obligations: Vec<String>,
}

impl Decision {
    /// A no, with its reason.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self { effect: Effect::Deny, reason: reason.into(), obligations: Vec::new() }
    }

    /// Whether it may happen now.
    pub const fn allows(&self) -> bool {
        matches!(self.effect, Effect::Allow)
    }
}

/// The rules, evaluated: pure, so that the same question has the same answer wherever it is asked.
pub trait Policy {
    /// Answers; whatever goes wrong inside is a no.
    fn decide(&self, question: &Question) -> Decision;

    /// The identity of the rules.
    fn digest(&self) -> Digest;
}

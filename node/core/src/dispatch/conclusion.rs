//! How tasks end: what is written of it, and who is told.

use std::collections::BTreeSet;

use weft_protocol::{
    audit::{Body, Ending, Touched},
    codec,
    decision::Decision,
    graph::{Label, StepId},
    host_call::Refusal,
    id::RunId,
    manifest::{CapabilityName, EffectClass},
    run::{Failure, INLINE_BYTES_MAX, Journal, Outcome, RunMessage},
};

use super::{Dispatch, DispatchOutput, Persisting, Phase, Requester, Task, TaskKey};
use crate::{
    audit::keyed_digest,
    env::{Batch, Env, durability_of},
    executor::ending_of,
};

/// How a task ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Concluded {
    /// Who wanted it.
    pub requester: Requester,
    /// Of which run.
    pub run: RunId,
    /// Which step.
    pub step: StepId,
    /// What it did.
    pub capability: CapabilityName,
    /// How.
    pub outcome: Outcome,
    /// Where all that the outcome tells comes from.
    pub labels: BTreeSet<Label>,
}

impl Dispatch {
    /// Ends a task that is on no device: its run's journal says how, before the run can end.
    pub(super) fn conclude_unplaced(
        &mut self,
        task: Task,
        epoch: u32,
        outcome: Outcome,
        env: &Env<'_>,
    ) {
        let key = task.key();
        if key.owner == self.me {
            let (attempt, time) = (task.attempt(epoch), env.now.wall);
            self.journal(&key, Journal::Ended { attempt, outcome: outcome.clone(), time });
            let batch = Batch::ordered(Vec::new());
            self.outputs.push(DispatchOutput::Persist(batch, Persisting::Nothing));
        }
        self.tell_concluded(task, outcome);
    }

    /// Tells who wants a task how it ended.
    pub(super) fn tell_concluded(&mut self, task: Task, outcome: Outcome) {
        self.outputs.push(DispatchOutput::Concluded(Box::new(Concluded {
            requester: task.requester,
            run: task.run,
            step: task.step,
            capability: task.capability,
            outcome,
            labels: task.labels,
        })));
    }

    pub(super) fn fail(
        &mut self,
        key: &TaskKey,
        refusal: Refusal,
        reason: String,
        env: &mut Env<'_>,
    ) {
        self.conclude(key, Outcome::Failed(Failure { refusal, reason }), env);
    }

    /// Persists how a step ended.
    pub(super) fn conclude(&mut self, key: &TaskKey, outcome: Outcome, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        let (ending, output) = match &outcome {
            Outcome::Value { value, .. } => {
                (Ending::Done, Some(keyed_digest(env.addressing_key, value)))
            }
            Outcome::Failed(failure) => (ending_of(failure.refusal), None),
            Outcome::Uncertain => (Ending::Uncertain, None),
        };
        let body = match (it.intent, &outcome) {
            (Some(intent), _) => outcome_of(intent, ending, output),
            // Nothing was offered: the record of what was asked about is complete in itself.
            (None, Outcome::Failed(failure)) => {
                Self::intent(it, Decision::deny(failure.reason.clone()), env)
            }
            (None, Outcome::Value { .. } | Outcome::Uncertain) => {
                Self::intent(it, Decision::deny("it was not offered"), env)
            }
        };
        let (_, writes) = env.chain.append(body, env.now.wall);
        let attempt = it.offer.attempt.clone();
        let batch = Batch { writes, durability: durability_of(it.offer.effect) };
        it.phase = Phase::Concluding(outcome.clone());
        self.journal(key, Journal::Ended { attempt, outcome, time: env.now.wall });
        let next = Persisting::Outcome(key.clone());
        self.outputs.push(DispatchOutput::Persist(batch, next));
    }

    pub(super) fn concluded(&mut self, key: &TaskKey) {
        let concluding =
            self.tasks.get(key).is_some_and(|it| matches!(it.phase, Phase::Concluding(_)));
        if !concluding {
            return;
        }
        let Some(it) = self.tasks.remove(key) else { return };
        let Phase::Concluding(outcome) = it.phase else { return };
        let ack = RunMessage::DoneAck(it.offer.attempt);
        self.outputs.push(DispatchOutput::Tell(it.executor, ack));
        self.tell_concluded(it.task, outcome);
    }
}

/// What is believed of how another device says that a step ended: an output that is larger than any may
/// be is none, though it may have happened.
pub(super) fn bounded(outcome: Outcome, effect: EffectClass) -> Outcome {
    let bytes = match &outcome {
        Outcome::Value { value, .. } => codec::encode(value).len(),
        Outcome::Failed(failure) => failure.reason.len(),
        Outcome::Uncertain => 0,
    };
    match (outcome, effect) {
        (outcome, _) if bytes <= INLINE_BYTES_MAX => outcome,
        (Outcome::Value { .. }, EffectClass::Idempotent | EffectClass::AtMostOnce) => {
            Outcome::Uncertain
        }
        (_, _) => {
            let reason = format!("it ended with {bytes} bytes, over {INLINE_BYTES_MAX}");
            Outcome::Failed(Failure { refusal: Refusal::Failed, reason })
        }
    }
}

pub(super) const fn outcome_of(
    intent: u64,
    ending: Ending,
    output: Option<weft_protocol::id::Digest>,
) -> Body {
    Body::Outcome { intent, ending, output, reads: Touched::NONE, writes: Touched::NONE }
}

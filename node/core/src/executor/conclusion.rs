//! How a step that was admitted ends: with what its agent gave, uncertain, or closed before it began.

use std::collections::BTreeSet;

use weft_protocol::{
    audit::{Body, Ending, Touched},
    codec,
    host_call::Refusal,
    id::Digest,
    manifest::EffectClass,
    row::Durability,
    run::{Failure, INLINE_BYTES_MAX, Outcome, RunMessage, Stage},
    value::Value,
};

use super::{
    Execution, Executor, ExecutorOutput, Persisting, Phase, ending_of, failure,
    kept::{self, StepKey},
};
use crate::{
    audit::keyed_digest,
    env::{Batch, Env, durability_of},
    replica::{self, Edit},
};

/// The most characters of an agent's reason: more than a person reads, and less than a frame.
const REASON_CHARS_MAX: usize = 4_000;

/// How a step ended.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Conclusion {
    /// It acted.
    Ended(Outcome),
    /// It was closed before it acted: denied or cancelled, or cut where there is no failure.
    Closed(Option<Failure>),
}

impl Executor {
    /// Closes a step that has not acted: durably, since it may be offered anew after that.
    pub(super) fn close(&mut self, key: &StepKey, why: Option<Failure>, env: &mut Env<'_>) {
        let ending = why.as_ref().map_or(Ending::Cancelled, |why| ending_of(why.refusal));
        self.end(key, Conclusion::Closed(why), ending, None, None, env);
    }

    /// Ends a step whose effect may have happened.
    pub(super) fn conclude_uncertain(&mut self, key: &StepKey, env: &mut Env<'_>) {
        let conclusion = Conclusion::Ended(Outcome::Uncertain);
        self.end(key, conclusion, Ending::Uncertain, None, None, env);
    }

    /// Ends a step with what its agent gave, and with all that it wrote.
    pub(super) fn conclude(
        &mut self,
        key: &StepKey,
        result: Result<Value, Failure>,
        env: &mut Env<'_>,
    ) {
        let Some(execution) = self.executions.get_mut(key) else { return };
        let result = result.and_then(|value| {
            let bytes = codec::encode(&value).len();
            if bytes > INLINE_BYTES_MAX {
                let reason = format!("its output of {bytes} bytes is over {INLINE_BYTES_MAX}");
                return Err(failure(Refusal::Failed, reason));
            }
            Ok(value)
        });
        let result = result.map_err(|mut failure| {
            failure.reason = failure.reason.chars().take(REASON_CHARS_MAX).collect();
            failure
        });
        let edits = if result.is_ok() { std::mem::take(&mut execution.edits) } else { Vec::new() };
        let documents = edits.iter().map(Edit::document).collect::<Vec<_>>();
        let prepared = if edits.is_empty() {
            Ok(None)
        } else {
            match env.replica.prepare(edits, &env.documents()) {
                Ok(prepared) => Ok(Some(prepared)),
                Err(error) => Err(failure(Refusal::Failed, error.to_string())),
            }
        };
        let (result, prepared) = match (result, prepared) {
            (Ok(value), Ok(prepared)) => (Ok(value), prepared),
            (Err(failure), _) | (Ok(_), Err(failure)) => (Err(failure), None),
        };
        if prepared.is_some() {
            execution.wrote = documents;
        }
        let (ending, output, outcome) = match result {
            Ok(value) => {
                let digest = keyed_digest(env.addressing_key, &value);
                let outcome = Outcome::Value { value, labels: execution.labels.clone() };
                (Ending::Done, Some(digest), outcome)
            }
            Err(failure) => (ending_of(failure.refusal), None, Outcome::Failed(failure)),
        };
        self.end(key, Conclusion::Ended(outcome), ending, output, prepared, env);
    }

    /// Persists an end: its record, what is kept of it, and what it wrote, in one batch.
    fn end(
        &mut self,
        key: &StepKey,
        conclusion: Conclusion,
        ending: Ending,
        output: Option<Digest>,
        prepared: Option<replica::Prepared>,
        env: &mut Env<'_>,
    ) {
        let Some(execution) = self.executions.get_mut(key) else { return };
        let (_, mut writes) = env.chain.append(
            Body::Outcome {
                intent: execution.intent,
                ending,
                output,
                reads: execution.reads,
                writes: if prepared.is_some() { execution.writes } else { Touched::NONE },
            },
            env.now.wall,
        );
        let stage = match &conclusion {
            Conclusion::Ended(outcome) => {
                Stage::Ended { outcome: outcome.clone(), labels: execution.labels.clone() }
            }
            Conclusion::Closed(why) => Stage::Closed(why.clone()),
        };
        writes.push(kept::write(&execution.executed(stage)));
        let durability = match &prepared {
            Some(_) => Durability::Synced,
            None => durability_of(execution.effect),
        };
        let ticket = prepared.map(|prepared| {
            writes.extend(prepared.writes);
            prepared.ticket
        });
        execution.phase = Phase::Committing(conclusion);
        self.outputs.push(ExecutorOutput::Persist(
            Batch { writes, durability },
            Persisting::Outcome(key.clone(), ticket),
        ));
    }

    /// An end is persisted.
    pub(super) fn concluded(&mut self, key: &StepKey, env: &mut Env<'_>) {
        let Some(mut execution) = self.remove(key) else { return };
        if !execution.wrote.is_empty() && key.owner == env.me {
            let wrote = std::mem::take(&mut execution.wrote);
            self.outputs.push(ExecutorOutput::Wrote(key.run, wrote));
        }
        self.say_end(execution, None, env);
        self.act_next(key.from, env);
    }

    /// An end could not be persisted: what may have had its effect is uncertain.
    pub(super) fn not_concluded(&mut self, key: &StepKey, why: String, env: &mut Env<'_>) {
        if let Some(execution) = self.remove(key) {
            self.say_end(execution, Some(why), env);
            self.act_next(key.from, env);
        }
    }

    fn say_end(&mut self, execution: Execution, lost: Option<String>, env: &mut Env<'_>) {
        let Execution { from, offer, phase, labels, effect, next, .. } = execution;
        let Phase::Committing(conclusion) = phase else { return };
        let attempt = offer.attempt;
        let conclusion = match (conclusion, lost) {
            (Conclusion::Ended(outcome), Some(why)) => {
                Conclusion::Ended(unpersisted(outcome, effect, why))
            }
            (conclusion, _) => conclusion,
        };
        let message = match conclusion {
            Conclusion::Ended(outcome) => RunMessage::Done { attempt, outcome, labels },
            Conclusion::Closed(Some(failure)) => {
                let (outcome, labels) = (Outcome::Failed(failure), BTreeSet::new());
                RunMessage::Done { attempt, outcome, labels }
            }
            // Without its end a row that waits for its owner is closed all the same.
            Conclusion::Closed(None) => RunMessage::NotBegun(attempt),
        };
        self.say(from, message);
        if let Some(next) = next {
            self.offered(from, *next, env);
        }
    }
}

/// What is said of an outcome that is not on the disk.
fn unpersisted(outcome: Outcome, effect: EffectClass, why: String) -> Outcome {
    match (outcome, effect) {
        (Outcome::Failed(failure), EffectClass::Idempotent) => Outcome::Failed(failure),
        (_, EffectClass::Idempotent | EffectClass::AtMostOnce) => Outcome::Uncertain,
        (_, EffectClass::Pure | EffectClass::ReadOnly) => {
            Outcome::Failed(failure(Refusal::Failed, why))
        }
    }
}

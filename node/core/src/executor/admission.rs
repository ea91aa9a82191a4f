//! Who may ask for a step, what an asking means beside those before it, and what is admitted.

use std::{collections::BTreeSet, time::Duration};

use weft_protocol::{
    audit::{Body, Ending, Touched},
    decision::{Effect, Point},
    host_call::Refusal,
    id::{DeviceId, Digest, RunId},
    manifest::EffectClass,
    row::{ReadError, Write},
    run::{Attempt, Executed, Failure, Offer, Outcome, Progress, RunMessage, Stage},
};

use super::{
    BEAT, DEADLINE_MAX, Execution, ExecutionId, Executor, ExecutorOutput, Persisting, Phase,
    failure,
    kept::{self, Standing, StepKey},
};
use crate::{
    audit::keyed_digest,
    consent,
    env::{Batch, Env, durability_of},
};

/// The most steps of one other device that run here at a time: more than a plan has side by side. Those
/// of this device wait, however many they are.
const EXECUTIONS_MAX: usize = 64;
/// The most steps of one other device that are kept here: far above what its open runs have, and a few
/// megabytes of what is settled.
const KEPT_MAX: usize = 10_000;

impl Executor {
    pub(super) fn offered(&mut self, from: DeviceId, offer: Offer, env: &mut Env<'_>) {
        let attempt = offer.attempt.clone();
        if let Err(failure) = may_ask(from, &attempt, env) {
            self.refuse(from, attempt, failure);
            return;
        }
        if offer.callers.len() != attempt.above.len() {
            let failure = failure(Refusal::Invalid, "each step above has one capability");
            self.refuse(from, attempt, failure);
            return;
        }
        let asked = kept::asked(&offer, env);
        let key = StepKey::of(from, &attempt);
        if self.executions.contains_key(&key) {
            self.offered_again(&key, offer, asked, env);
            return;
        }
        let mut is_new = false;
        match kept::read(&from, &attempt, env.rows) {
            Ok(None) => is_new = true,
            Ok(Some(kept)) => {
                let standing = kept::standing(&kept, &attempt, Some(asked));
                if matches!(standing, Standing::Ended(..)) && !may_hear(from, &offer, env) {
                    self.withhold(from, attempt, kept.effect);
                    return;
                }
                if standing != Standing::Free {
                    self.answer(from, attempt, kept, standing, env);
                    return;
                }
            }
            Err(error) => {
                self.unreadable(from, attempt, offer.effect, &error);
                return;
            }
        }
        if let Err(failure) = self.admit(from, offer, asked, is_new, env) {
            self.refuse(from, attempt, failure);
        }
    }

    /// A step is asked for that is under way already, for the same device.
    fn offered_again(&mut self, key: &StepKey, offer: Offer, asked: Digest, env: &mut Env<'_>) {
        let Some(running) = self.executions.get_mut(key) else { return };
        let attempt = offer.attempt.clone();
        let later = attempt.order() > running.offer.attempt.order();
        let not_begun = matches!(
            running.phase,
            Phase::Preparing | Phase::AwaitingAck { .. } | Phase::Queued | Phase::Committing(_)
        );
        if attempt.order() < running.offer.attempt.order() {
            let failure = failure(Refusal::Invalid, "a later try of this step is under way");
            self.refuse(key.from, attempt, failure);
        } else if asked != running.asked && (!later || (running.must_happen_once() && !not_begun)) {
            let failure = failure(Refusal::Invalid, "something else is under way as this step");
            self.refuse(key.from, attempt, failure);
        } else if !later {
            match running.phase {
                Phase::Running | Phase::Queued => self.say(key.from, RunMessage::Accept(attempt)),
                Phase::AwaitingAck { .. } => self.say(key.from, RunMessage::Intent(attempt)),
                // It is said when it is persisted.
                Phase::Preparing | Phase::Marking | Phase::Committing(_) => {}
            }
        } else if asked == running.asked && matches!(running.phase, Phase::Running | Phase::Queued)
        {
            // A later try of what is under way takes it over.
            running.labels.extend(offer.labels);
            running.offer.attempt = attempt.clone();
            self.say(key.from, RunMessage::Accept(attempt));
        } else {
            running.next = Some(Box::new(offer));
            self.stop(key, Refusal::Cancelled, "a later try took its place", env);
        }
    }

    /// Says how a try stands, and closes it where nothing was begun.
    pub(super) fn inquired(&mut self, from: DeviceId, attempt: Attempt, env: &mut Env<'_>) {
        if let Err(failure) = may_ask(from, &attempt, env) {
            self.refuse(from, attempt, failure);
            return;
        }
        let key = StepKey::of(from, &attempt);
        if let Some(running) = self.executions.get(&key) {
            if running.offer.attempt != attempt {
                let failure = failure(Refusal::Invalid, "another try of this step is under way");
                self.refuse(from, attempt, failure);
                return;
            }
            let stage = running.stage.clone().map(Progress::Log);
            match running.phase {
                Phase::Running | Phase::Queued | Phase::Marking => {
                    self.say(from, RunMessage::Accept(attempt.clone()));
                    // What it said while the link was cut has got lost.
                    if let Some(progress) = stage {
                        self.say(from, RunMessage::Progress { attempt, progress });
                    }
                }
                Phase::AwaitingAck { .. } => self.close(&key, None, env),
                Phase::Preparing | Phase::Committing(_) => {}
            }
            return;
        }
        let kept = match kept::read(&from, &attempt, env.rows) {
            Ok(kept) => kept,
            Err(error) => {
                self.unreadable(from, attempt, EffectClass::AtMostOnce, &error);
                return;
            }
        };
        let kept = match kept {
            Some(kept) => kept,
            None => {
                if let Err(failure) = self.make_room(from, env) {
                    self.refuse(from, attempt, failure);
                    return;
                }
                self.count(from);
                unknown(from, &attempt)
            }
        };
        let standing = kept::standing(&kept, &attempt, None);
        let rules_moved = kept.policy != env.policy_digest();
        if matches!(standing, Standing::Ended(..)) && rules_moved {
            self.withhold(from, attempt, kept.effect);
        } else if standing == Standing::Free {
            self.answer(from, attempt, kept, Standing::ToClose, env);
        } else {
            self.answer(from, attempt, kept, standing, env);
        }
    }

    /// Answers from what is kept.
    fn answer(
        &mut self,
        from: DeviceId,
        attempt: Attempt,
        kept: Executed,
        standing: Standing,
        env: &mut Env<'_>,
    ) {
        let uncertain = |attempt| RunMessage::Done {
            attempt,
            outcome: Outcome::Uncertain,
            labels: BTreeSet::new(),
        };
        match standing {
            Standing::Free => {}
            Standing::Ended(outcome, labels) => {
                self.say(from, RunMessage::Done { attempt, outcome, labels });
            }
            Standing::Closed(None) => self.say(from, RunMessage::NotBegun(attempt)),
            Standing::Closed(Some(failure)) => {
                let (outcome, labels) = (Outcome::Failed(failure), BTreeSet::new());
                self.say(from, RunMessage::Done { attempt, outcome, labels });
            }
            Standing::ToClose => {
                let message = RunMessage::NotBegun(attempt.clone());
                // An earlier try that ended has its record.
                let intent = kept.intent.filter(|_| kept.stage.is_open());
                let closed = Executed { attempt, intent, stage: Stage::Closed(None), ..kept };
                self.amend(closed, Ending::Cancelled, message, env);
            }
            Standing::ToSettle => {
                let message = uncertain(attempt.clone());
                let stage = Stage::Ended { outcome: Outcome::Uncertain, labels: BTreeSet::new() };
                self.amend(Executed { attempt, stage, ..kept }, Ending::Uncertain, message, env);
            }
            Standing::Forgotten => self.say(from, uncertain(attempt)),
            Standing::Void(why) => self.refuse(from, attempt, failure(Refusal::Invalid, why)),
        }
    }

    /// Writes how a step ended that a crash or a cut had left open, then says it.
    fn amend(
        &mut self,
        executed: Executed,
        ending: Ending,
        message: RunMessage,
        env: &mut Env<'_>,
    ) {
        let mut writes = vec![kept::write(&executed)];
        if let Some(intent) = executed.intent {
            let body = Body::Outcome {
                intent,
                ending,
                output: None,
                reads: Touched::NONE,
                writes: Touched::NONE,
            };
            writes.extend(env.chain.append(body, env.now.wall).1);
        }
        let next = Persisting::Say(executed.from, Box::new(message));
        self.outputs.push(ExecutorOutput::Persist(Batch::synced(writes), next));
    }

    /// The rules moved, and now keep from the asker how it ended.
    fn withhold(&mut self, from: DeviceId, attempt: Attempt, effect: EffectClass) {
        if effect > EffectClass::ReadOnly {
            let (outcome, labels) = (Outcome::Uncertain, BTreeSet::new());
            self.say(from, RunMessage::Done { attempt, outcome, labels });
        } else {
            let why = "the rules no longer allow to say how it ended";
            self.refuse(from, attempt, failure(Refusal::Denied, why));
        }
    }

    /// What is known of a step can't be read: nothing is begun that it might forbid.
    fn unreadable(
        &mut self,
        from: DeviceId,
        attempt: Attempt,
        effect: EffectClass,
        error: &ReadError,
    ) {
        let why = format!("what is known of a step can't be read: {error}");
        self.outputs.push(ExecutorOutput::Warn(why.clone()));
        if effect > EffectClass::ReadOnly {
            let (outcome, labels) = (Outcome::Uncertain, BTreeSet::new());
            self.say(from, RunMessage::Done { attempt, outcome, labels });
        } else {
            self.refuse(from, attempt, failure(Refusal::Failed, why));
        }
    }

    fn admit(
        &mut self,
        from: DeviceId,
        offer: Offer,
        asked: Digest,
        is_new: bool,
        env: &mut Env<'_>,
    ) -> Result<(), Failure> {
        let not_here = |what: String| failure(Refusal::NotFound, what);
        let running = self.executions.keys().filter(|key| key.from == from).count();
        if from != env.me && running >= EXECUTIONS_MAX {
            return Err(failure(Refusal::Failed, "too many steps of that device run here"));
        }
        if is_new {
            self.make_room(from, env)?;
        }
        let agent = env.registry.agent(&offer.agent).cloned().ok_or_else(|| {
            not_here(format!("the agent of {} is not ready here in that version", offer.capability))
        })?;
        let capability =
            agent.manifest.capability(&offer.capability).cloned().ok_or_else(|| {
                not_here(format!("the agent doesn't provide {}", offer.capability))
            })?;
        if let Some(caller) = offer.callers.last() {
            let may = env
                .registry
                .provider(caller)
                .is_some_and(|(_, known)| known.calls.contains(&offer.capability));
            if !may {
                let reason = format!("{caller} doesn't name {} among its calls", offer.capability);
                return Err(failure(Refusal::Denied, reason));
            }
        }
        let input = keyed_digest(env.addressing_key, &offer.arguments);
        let (mut decision, questions) =
            env.decide(Point::Executor, &offer, &from, &env.me, &agent, &capability);
        let mut spent = Vec::new();
        let agreed = decision.effect == Effect::Ask;
        if agreed {
            (decision, spent) = consent::settle(decision, &offer, input, env);
        }
        let allowed = decision.allows();
        if !allowed && from != env.me && !self.denials.denied(from, env.now.mono) {
            let reason =
                format!("{} (too many denials: this one is only counted)", decision.reason);
            return Err(failure(Refusal::Denied, reason));
        }
        let policy = env.policy_digest();
        let (intent, mut writes) = env.chain.append(
            Body::Intent {
                point: Point::Executor,
                run: offer.attempt.run,
                step: offer.attempt.step.clone(),
                device: from,
                agent: agent.digest,
                capability: offer.capability.clone(),
                input,
                decision: decision.clone(),
                policy,
                owner: offer.attempt.owner,
            },
            env.now.wall,
        );
        if !allowed {
            let failure = failure(Refusal::Denied, decision.reason);
            let refusal = Box::new(RunMessage::Refuse { attempt: offer.attempt, failure });
            let refusal = Persisting::Say(from, refusal);
            self.outputs.push(ExecutorOutput::Persist(Batch::ordered(writes), refusal));
            return Ok(());
        }
        writes.extend(spent);
        let effect = offer.effect.max(env.effect_of(&capability));
        self.next += 1;
        let id = ExecutionId(self.next);
        let key = StepKey::of(from, &offer.attempt);
        let ends = env.now.mono + Duration::from_millis(offer.deadline_ms).min(DEADLINE_MAX);
        let execution = Execution {
            id,
            from,
            labels: offer.labels.clone(),
            offer,
            asked,
            effect,
            agent,
            capability,
            questions,
            agreed,
            version: env.version,
            policy,
            intent,
            phase: Phase::Preparing,
            edits: Vec::new(),
            wrote: Vec::new(),
            reads: Touched::NONE,
            writes: Touched::NONE,
            stopped: None,
            next: None,
            host_calls: 0,
            drawn: 0,
            stage: None,
            children: 0,
            ends,
            next_beat: env.now.mono + BEAT,
        };
        // What may happen twice acts as soon as this is persisted.
        let stage = if execution.must_happen_once() { Stage::Intended } else { Stage::Acting };
        writes.push(kept::write(&execution.executed(stage)));
        if is_new {
            self.count(from);
        }
        self.by_id.insert(id, key.clone());
        self.executions.insert(key.clone(), execution);
        let batch = Batch { writes, durability: durability_of(effect) };
        self.outputs.push(ExecutorOutput::Persist(batch, Persisting::Intent(key)));
        Ok(())
    }

    /// Makes sure that one more row may be kept for an asker. They are counted when it first needs one
    /// since the start and whenever it says which runs go on; in between the count only grows, so that
    /// nothing an asker repeats makes room.
    fn make_room(&mut self, from: DeviceId, env: &Env<'_>) -> Result<(), Failure> {
        if from == env.me {
            return Ok(());
        }
        let count = match self.kept.get(&from) {
            Some(count) => *count,
            None => kept::count(&from, env.rows).map_err(|error| {
                let why = format!("what is known of its steps can't be counted: {error}");
                failure(Refusal::Failed, why)
            })?,
        };
        self.kept.insert(from, count);
        if count >= KEPT_MAX {
            let why = format!(
                "{KEPT_MAX} steps of that device are kept here; it has to say first which runs are settled"
            );
            return Err(failure(Refusal::Failed, why));
        }
        Ok(())
    }

    /// Counts a row that is about to be written for an asker.
    fn count(&mut self, from: DeviceId) {
        if let Some(count) = self.kept.get_mut(&from) {
            *count += 1;
        }
    }

    /// The asker has on its disk how a try ended: what is kept of it shrinks to what keeps it from
    /// running again.
    pub(super) fn known(&mut self, from: DeviceId, attempt: &Attempt, env: &Env<'_>) {
        if self.executions.contains_key(&StepKey::of(from, attempt)) {
            return;
        }
        // A row that can't be read is left as it is: it is warned of when it is asked for.
        let Ok(Some(kept)) = kept::read(&from, attempt, env.rows) else { return };
        let writes: Vec<Write> = kept::settle(kept, attempt).into_iter().collect();
        if !writes.is_empty() {
            let batch = Batch::ordered(writes);
            self.outputs.push(ExecutorOutput::Persist(batch, Persisting::Nothing));
        }
    }

    /// Forgets what a device asked for in runs that are settled: it will never ask for it again.
    pub fn forget(&mut self, from: DeviceId, open: &BTreeSet<RunId>, env: &Env<'_>) {
        let rows = match kept::all(&from, env.rows) {
            Ok(rows) => rows,
            Err(error) => {
                let why = format!("what is known of steps can't be cleared: {error}");
                self.outputs.push(ExecutorOutput::Warn(why));
                return;
            }
        };
        let settled = |executed: &Executed| {
            !open.contains(&executed.attempt.run)
                && !self.executions.contains_key(&StepKey::of(from, &executed.attempt))
        };
        let known = rows.len();
        let deletes: Vec<Write> = rows
            .into_iter()
            .filter(|(_, executed)| settled(executed))
            .map(|(row, _)| Write::Delete(row))
            .collect();
        self.kept.insert(from, known - deletes.len());
        if !deletes.is_empty() {
            let batch = Batch::ordered(deletes);
            self.outputs.push(ExecutorOutput::Persist(batch, Persisting::Nothing));
        }
    }
}

/// Whether a device may ask for a step in its owner's name at all.
fn may_ask(from: DeviceId, attempt: &Attempt, env: &Env<'_>) -> Result<(), Failure> {
    let holds_data =
        |device: &DeviceId| env.subject(device).is_some_and(|subject| subject.role.holds_data());
    if !holds_data(&from) {
        return Err(failure(Refusal::Denied, "the asking device may not run commands"));
    }
    if !holds_data(&attempt.owner) {
        return Err(failure(Refusal::Denied, "the run's owner may not run commands"));
    }
    if !attempt.is_complete() {
        return Err(failure(Refusal::Invalid, "each step above has one epoch"));
    }
    if attempt.above.is_empty() && attempt.owner != from {
        return Err(failure(Refusal::Denied, "only a run's owner may ask for its steps"));
    }
    Ok(())
}

/// Whether the rules still let a device have what it asked for.
fn may_hear(from: DeviceId, offer: &Offer, env: &Env<'_>) -> bool {
    let agent = env.registry.installed().find(|agent| agent.digest == offer.agent);
    let known =
        agent.and_then(|agent| Some((agent, agent.manifest.capability(&offer.capability)?)));
    known.is_some_and(|(agent, capability)| {
        let (decision, _) = env.decide(Point::Executor, offer, &from, &env.me, agent, capability);
        decision.effect != Effect::Deny
    })
}

/// What is kept of a step that nothing is known of.
fn unknown(from: DeviceId, attempt: &Attempt) -> Executed {
    Executed {
        from,
        attempt: attempt.clone(),
        asked: Digest::from_bytes([0; 32]),
        effect: EffectClass::Pure,
        intent: None,
        policy: Digest::from_bytes([0; 32]),
        stage: Stage::Intended,
    }
}

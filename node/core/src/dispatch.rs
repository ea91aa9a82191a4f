//! Steps that this device asks for: decided, placed, offered under a lease, and brought to an end.
//!
//! A task comes from a run of this device or from an agent that called a capability while it ran
//! here. Either way it is offered to one device at a time, which may be this one. Losing that device
//! means another try for what may be done again, waiting for what only it may do, and `uncertain`
//! for what must not happen twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ed25519_dalek::SigningKey;
use weft_protocol::{
    audit::{Body, Ending, Touched},
    codec,
    decision::{Decision, Effect, Point},
    graph::{Label, StepId},
    host_call::Refusal,
    id::{DeviceId, RunId},
    manifest::{Capability, CapabilityName, EffectClass},
    run::{Attempt, Candidate, Failure, Journal, Offer, Outcome, Progress, RunMessage},
    time::Timestamp,
    value::Value,
};

use crate::{
    audit::keyed_digest,
    consent,
    env::{Batch, Env, durability_of},
    executor::{CallId, ExecutionId, ending_of},
    placement::{self, Facts, Need},
    registry::Installed,
};

/// An executor that is silent for so long counts as lost: fifteen beats.
const LEASE: Duration = Duration::from_secs(15);
/// So many devices are tried before a step fails.
const TRIES_MAX: u32 = 4;
/// A step that only one device may do waits so long for it to come back.
const WAIT_FOR_DEVICE: Duration = Duration::from_secs(60);

/// Who wants a task done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Requester {
    /// A run of this device.
    Run,
    /// An agent that runs here.
    Call {
        /// Its execution.
        execution: ExecutionId,
        /// The call that waits.
        call: CallId,
    },
}

/// Something to be done.
#[derive(Clone, PartialEq, Debug)]
pub struct Task {
    /// Of which run.
    pub run: RunId,
    /// Which step.
    pub step: StepId,
    /// Whose run it is.
    pub owner: DeviceId,
    /// What.
    pub capability: CapabilityName,
    /// With what: a map.
    pub arguments: Value,
    /// Where the arguments come from.
    pub labels: BTreeSet<Label>,
    /// The device that the words name.
    pub named: Option<DeviceId>,
    /// Why only this device will do.
    pub only_here: Option<&'static str>,
    /// Who wants it.
    pub requester: Requester,
    /// The capabilities that called down to it.
    pub callers: Vec<CapabilityName>,
    /// When it must have ended.
    pub ends: Timestamp,
    /// The asking device's local time when the run began.
    pub local_time: String,
    /// The asking device's time zone.
    pub time_zone: String,
    /// Whether a person can be asked.
    pub can_ask: bool,
}

/// What the dispatcher wants done.
#[derive(Clone, Debug)]
pub enum DispatchOutput {
    /// Persist, then come back with [`Dispatch::persisted`].
    Persist(Batch, Persisting),
    /// Write into the run's journal, in the same batch as what follows.
    Journal(RunId, Journal),
    /// Send to the executor, which may be this device.
    Tell(DeviceId, RunMessage),
    /// A task was placed.
    Placed {
        /// Of which run.
        run: RunId,
        /// Which step.
        step: StepId,
        /// What it does.
        capability: CapabilityName,
        /// Where.
        executor: DeviceId,
        /// Those that were looked at.
        candidates: Vec<Candidate>,
    },
    /// A person is to be asked.
    Ask {
        /// Of which run.
        run: RunId,
        /// Which step.
        step: StepId,
        /// What would be done.
        capability: CapabilityName,
        /// Where.
        executor: DeviceId,
        /// Why it is asked.
        reason: String,
    },
    /// A task says something while it runs.
    Progressed(Requester, RunId, StepId, Progress),
    /// A task ended.
    Concluded(Requester, RunId, StepId, CapabilityName, Outcome),
}

/// What follows a persisted batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Persisting {
    /// The offer is persisted: send it.
    Offer(RunId, StepId),
    /// That the intent is known is persisted: acknowledge it.
    IntentKnown(RunId, StepId),
    /// The outcome is persisted: tell who wants it.
    Outcome(RunId, StepId),
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
enum Phase {
    /// A person is asked.
    Asking { decision: Decision },
    /// The offer is being persisted.
    Preparing,
    /// The offer was sent.
    Offered,
    /// The executor said that it does it.
    Running,
    /// The executor must not have done it twice, and the owner has agreed to its effect.
    Acknowledged,
    /// The executor is away, and no other may do it.
    Waiting { until: Timestamp },
    /// The outcome is being persisted.
    Concluding(Outcome),
}

#[derive(Debug)]
struct Dispatched {
    task: Task,
    offer: Offer,
    agent: Installed,
    capability: Capability,
    executor: DeviceId,
    candidates: Vec<Candidate>,
    phase: Phase,
    intent: u64,
    heard: Timestamp,
    tries: u32,
    excluded: BTreeMap<DeviceId, String>,
}

/// The machine.
#[derive(Debug)]
pub struct Dispatch {
    key: SigningKey,
    tasks: BTreeMap<(RunId, StepId), Dispatched>,
    outputs: Vec<DispatchOutput>,
}

impl Dispatch {
    /// Has nothing to do yet. The key signs consents.
    pub fn new(key: SigningKey) -> Self {
        Self { key, tasks: BTreeMap::new(), outputs: Vec::new() }
    }

    /// What is to be done, in order.
    pub fn poll_outputs(&mut self) -> Vec<DispatchOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// When something is due although nothing comes in.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let due = |it: &Dispatched| match it.phase {
            Phase::Offered | Phase::Running | Phase::Acknowledged => {
                Some(((it.heard + LEASE).min(it.task.ends + BEYOND), "a lease runs out"))
            }
            Phase::Waiting { until } => Some((until, "a device stayed away too long")),
            Phase::Asking { .. } => Some((it.task.ends, "nobody answered")),
            Phase::Preparing | Phase::Concluding(_) => None,
        };
        self.tasks.values().filter_map(due).min_by_key(|(at, _)| *at)
    }

    /// Gives up what is overdue.
    pub fn handle_timeout(&mut self, env: &mut Env<'_>) {
        let now = env.now.mono;
        let keys: Vec<_> = self.tasks.keys().cloned().collect();
        for key in keys {
            let Some(it) = self.tasks.get_mut(&key) else { continue };
            match it.phase {
                Phase::Offered | Phase::Running | Phase::Acknowledged
                    if it.heard + LEASE <= now || it.task.ends + BEYOND <= now =>
                {
                    let cancel = RunMessage::Cancel(it.offer.attempt.clone());
                    self.outputs.push(DispatchOutput::Tell(it.executor, cancel));
                    self.lost(&key, "it fell silent", env);
                }
                Phase::Waiting { until } if until <= now => {
                    let reason = format!("{} stayed away", env.name(&it.executor));
                    self.fail(&key, Refusal::Failed, reason, env);
                }
                Phase::Asking { .. } if it.task.ends <= now => {
                    self.fail(&key, Refusal::Denied, "nobody answered in time".into(), env);
                }
                Phase::Offered
                | Phase::Running
                | Phase::Acknowledged
                | Phase::Waiting { .. }
                | Phase::Asking { .. }
                | Phase::Preparing
                | Phase::Concluding(_) => {}
            }
        }
    }

    /// Where a task would run and what the rules say, without doing anything.
    pub fn explain(task: &Task, env: &Env<'_>) -> placement::Placement {
        match env.registry.provider(&task.capability) {
            Some((agent, capability)) => {
                let offer = offer_of(task, agent, capability, 1, env.now.mono);
                choose(task, &offer, agent, capability, &BTreeMap::new(), env)
            }
            None => placement::Placement { chosen: None, decision: None, candidates: Vec::new() },
        }
    }

    /// Takes a task on.
    pub fn start(&mut self, task: Task, env: &mut Env<'_>) {
        self.resume(task, 1, None, env);
    }

    /// Takes a task on whose earlier tries this node journaled before it was started anew. A step that
    /// writes goes to the same device again.
    pub fn resume(
        &mut self,
        mut task: Task,
        epoch: u32,
        executor: Option<DeviceId>,
        env: &mut Env<'_>,
    ) {
        let Some((agent, capability)) = env.registry.provider(&task.capability) else {
            let failure = Failure {
                refusal: Refusal::NotFound,
                reason: format!("no agent here knows {}", task.capability),
            };
            self.conclude_unplaced(task, Outcome::Failed(failure));
            return;
        };
        let (agent, capability) = (agent.clone(), capability.clone());
        if let Some(executor) = executor
            && capability.effect > EffectClass::ReadOnly
        {
            task.named = Some(executor);
        }
        let offer = offer_of(&task, &agent, &capability, epoch, env.now.mono);
        self.place(
            Dispatched {
                executor: env.me,
                task,
                offer,
                agent,
                capability,
                candidates: Vec::new(),
                phase: Phase::Preparing,
                intent: 0,
                heard: env.now.mono,
                tries: 0,
                excluded: BTreeMap::new(),
            },
            env,
        );
    }

    fn conclude_unplaced(&mut self, task: Task, outcome: Outcome) {
        self.outputs.push(DispatchOutput::Concluded(
            task.requester,
            task.run,
            task.step,
            task.capability,
            outcome,
        ));
    }

    /// Chooses a device, has the rules agree, and persists the offer.
    fn place(&mut self, mut it: Dispatched, env: &mut Env<'_>) {
        it.tries += 1;
        let placement = choose(&it.task, &it.offer, &it.agent, &it.capability, &it.excluded, env);
        it.candidates = placement.candidates;
        let (Some(executor), Some(decision)) = (placement.chosen, placement.decision.clone())
        else {
            let (refusal, reason) = match placement.decision {
                Some(decision) => (Refusal::Denied, decision.reason),
                None => (Refusal::NotFound, nowhere(&it.task, &it.candidates)),
            };
            if refusal == Refusal::Denied {
                let decision = Decision::deny(reason.clone());
                self.record_denial(&it, decision, env);
            }
            self.conclude_unplaced(it.task, Outcome::Failed(Failure { refusal, reason }));
            return;
        };
        it.executor = executor;
        match decision.effect {
            Effect::Ask if it.task.can_ask => {
                self.outputs.push(DispatchOutput::Ask {
                    run: it.task.run,
                    step: it.task.step.clone(),
                    capability: it.task.capability.clone(),
                    executor,
                    reason: decision.reason.clone(),
                });
                it.phase = Phase::Asking { decision };
                self.tasks.insert((it.task.run, it.task.step.clone()), it);
            }
            Effect::Allow => self.offer(it, decision, env),
            Effect::Ask | Effect::Deny => {
                let reason = match decision.effect {
                    Effect::Ask => format!("{}: nobody can be asked here", decision.reason),
                    Effect::Allow | Effect::Deny => decision.reason,
                };
                self.record_denial(&it, Decision::deny(reason.clone()), env);
                let failure = Failure { refusal: Refusal::Denied, reason };
                self.conclude_unplaced(it.task, Outcome::Failed(failure));
            }
        }
    }

    fn intent(it: &Dispatched, decision: Decision, env: &Env<'_>) -> Body {
        Body::Intent {
            point: Point::Owner,
            run: it.task.run,
            step: it.task.step.clone(),
            device: it.executor,
            agent: it.agent.digest,
            capability: it.task.capability.clone(),
            input: keyed_digest(env.addressing_key, &it.offer.arguments),
            decision,
            policy: env.policy_digest(),
        }
    }

    /// A denied intent is complete: nothing follows it.
    fn record_denial(&mut self, it: &Dispatched, decision: Decision, env: &mut Env<'_>) {
        let body = Self::intent(it, decision, env);
        let (_, writes) = env.chain.append(body, env.now.wall);
        self.outputs.push(DispatchOutput::Persist(Batch::ordered(writes), Persisting::Nothing));
    }

    fn offer(&mut self, mut it: Dispatched, decision: Decision, env: &mut Env<'_>) {
        let body = Self::intent(&it, decision, env);
        let (intent, writes) = env.chain.append(body, env.now.wall);
        it.intent = intent;
        it.phase = Phase::Preparing;
        let (run, step) = (it.task.run, it.task.step.clone());
        self.outputs.push(DispatchOutput::Placed {
            run,
            step: step.clone(),
            capability: it.task.capability.clone(),
            executor: it.executor,
            candidates: it.candidates.clone(),
        });
        let entry = Journal::Offered {
            attempt: it.offer.attempt.clone(),
            executor: it.executor,
            candidates: it.candidates.clone(),
            time: env.now.wall,
        };
        self.outputs.push(DispatchOutput::Journal(run, entry));
        let batch = Batch { writes, durability: durability_of(it.offer.effect) };
        let next = Persisting::Offer(run, step.clone());
        self.tasks.insert((run, step), it);
        self.outputs.push(DispatchOutput::Persist(batch, next));
    }

    /// A person answered.
    pub fn consent(&mut self, run: RunId, step: &StepId, yes: bool, env: &mut Env<'_>) -> bool {
        let key = (run, step.clone());
        let asking =
            self.tasks.get(&key).is_some_and(|it| matches!(it.phase, Phase::Asking { .. }));
        if !asking {
            return false;
        }
        let Some(mut it) = self.tasks.remove(&key) else { return false };
        let Phase::Asking { decision } = it.phase else { return false };
        it.phase = Phase::Preparing;
        if yes {
            let arguments = keyed_digest(env.addressing_key, &it.offer.arguments);
            it.offer.consent = Some(consent::give(
                &self.key,
                &it.offer,
                arguments,
                it.executor,
                env.policy_digest(),
                env.now.wall,
            ));
            let reason = format!("{}: a person agreed", decision.reason);
            self.offer(it, Decision { effect: Effect::Allow, reason, ..decision }, env);
        } else {
            let reason = format!("{}: a person said no", decision.reason);
            self.record_denial(&it, Decision::deny(reason.clone()), env);
            let failure = Failure { refusal: Refusal::Denied, reason };
            self.conclude_unplaced(it.task, Outcome::Failed(failure));
        }
        true
    }

    /// A batch is persisted.
    pub fn persisted(&mut self, what: Persisting, env: &mut Env<'_>) {
        match what {
            Persisting::Offer(run, step) => {
                let Some(it) = self.tasks.get_mut(&(run, step)) else { return };
                if !matches!(it.phase, Phase::Preparing) {
                    return;
                }
                it.phase = Phase::Offered;
                it.heard = env.now.mono;
                let offer = RunMessage::Offer(Box::new(it.offer.clone()));
                self.outputs.push(DispatchOutput::Tell(it.executor, offer));
            }
            Persisting::IntentKnown(run, step) => {
                let Some(it) = self.tasks.get_mut(&(run, step)) else { return };
                let ack = RunMessage::IntentAck(it.offer.attempt.clone());
                self.outputs.push(DispatchOutput::Tell(it.executor, ack));
            }
            Persisting::Outcome(run, step) => self.concluded(&(run, step)),
            Persisting::Nothing => {}
        }
    }

    /// A batch could not be persisted: nothing that was to follow happens.
    pub fn persist_failed(&mut self, what: &Persisting, reason: &str) {
        let (Persisting::Offer(run, step)
        | Persisting::IntentKnown(run, step)
        | Persisting::Outcome(run, step)) = what
        else {
            return;
        };
        let Some(it) = self.tasks.remove(&(*run, step.clone())) else { return };
        let failure = Failure {
            refusal: Refusal::Failed,
            reason: format!("the disk took nothing: {reason}"),
        };
        self.conclude_unplaced(it.task, Outcome::Failed(failure));
    }

    fn concluded(&mut self, key: &(RunId, StepId)) {
        let concluding =
            self.tasks.get(key).is_some_and(|it| matches!(it.phase, Phase::Concluding(_)));
        if !concluding {
            return;
        }
        let Some(it) = self.tasks.remove(key) else { return };
        let Phase::Concluding(outcome) = it.phase else { return };
        let ack = RunMessage::DoneAck(it.offer.attempt);
        self.outputs.push(DispatchOutput::Tell(it.executor, ack));
        self.conclude_unplaced(it.task, outcome);
    }

    /// Takes a message of an executor.
    pub fn handle_message(&mut self, from: DeviceId, message: RunMessage, env: &mut Env<'_>) {
        let attempt = match &message {
            RunMessage::Accept(attempt)
            | RunMessage::Refuse { attempt, .. }
            | RunMessage::Intent(attempt)
            | RunMessage::NotBegun(attempt)
            | RunMessage::Progress { attempt, .. }
            | RunMessage::Done { attempt, .. } => attempt.clone(),
            RunMessage::Offer(_)
            | RunMessage::IntentAck(_)
            | RunMessage::DoneAck(_)
            | RunMessage::Cancel(_) => return,
        };
        let key = (attempt.run, attempt.step.clone());
        let Some(it) = self.tasks.get_mut(&key) else {
            // The outcome is known here already; its executor may forget it.
            if matches!(message, RunMessage::Done { .. }) {
                self.outputs.push(DispatchOutput::Tell(from, RunMessage::DoneAck(attempt)));
            }
            return;
        };
        let under_way = matches!(
            it.phase,
            Phase::Offered | Phase::Running | Phase::Acknowledged | Phase::Waiting { .. }
        );
        if it.executor != from || it.offer.attempt != attempt || !under_way {
            return;
        }
        it.heard = env.now.mono;
        match message {
            RunMessage::Accept(_) => {
                if matches!(it.phase, Phase::Offered | Phase::Waiting { .. }) {
                    it.phase = Phase::Running;
                }
            }
            RunMessage::Refuse { failure, .. } => self.refused(&key, failure, env),
            RunMessage::Intent(_) => {
                it.phase = Phase::Acknowledged;
                let entry = Journal::IntentKnown { attempt };
                self.outputs.push(DispatchOutput::Journal(key.0, entry));
                let next = Persisting::IntentKnown(key.0, key.1);
                self.outputs.push(DispatchOutput::Persist(Batch::synced(Vec::new()), next));
            }
            RunMessage::NotBegun(_) => self.again(&key, None, env),
            RunMessage::Progress { progress, .. } => {
                if progress != Progress::Beat {
                    self.outputs.push(DispatchOutput::Progressed(
                        it.task.requester.clone(),
                        it.task.run,
                        it.task.step.clone(),
                        progress,
                    ));
                }
            }
            RunMessage::Done { outcome, .. } => self.conclude(&key, outcome, env),
            RunMessage::Offer(_)
            | RunMessage::IntentAck(_)
            | RunMessage::DoneAck(_)
            | RunMessage::Cancel(_) => {}
        }
    }

    /// An executor does not take a step. A rule's no is final; anything else may go elsewhere.
    fn refused(&mut self, key: &(RunId, StepId), failure: Failure, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get(key) else { return };
        match failure.refusal {
            Refusal::NotFound | Refusal::Invalid if it.tries < TRIES_MAX => {
                let excluded = (it.executor, failure.reason);
                self.again(key, Some(excluded), env);
            }
            Refusal::Denied => {
                let reason = format!("{} refused: {}", env.name(&it.executor), failure.reason);
                self.fail(key, Refusal::Denied, reason, env);
            }
            refusal @ (Refusal::NotFound
            | Refusal::Invalid
            | Refusal::Failed
            | Refusal::Cancelled) => self.fail(key, refusal, failure.reason, env),
        }
    }

    /// Tries once more, under a later epoch.
    fn again(
        &mut self,
        key: &(RunId, StepId),
        excluded: Option<(DeviceId, String)>,
        env: &mut Env<'_>,
    ) {
        let Some(mut it) = self.tasks.remove(key) else { return };
        it.excluded.extend(excluded);
        it.offer.attempt.epoch += 1;
        let left = it.task.ends.since(env.now.mono);
        it.offer.deadline_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        it.phase = Phase::Preparing;
        let (_, writes) = env.chain.append(
            Body::Outcome {
                intent: it.intent,
                ending: Ending::Cancelled,
                output: None,
                reads: Touched::NONE,
                writes: Touched::NONE,
            },
            env.now.wall,
        );
        self.outputs.push(DispatchOutput::Persist(Batch::ordered(writes), Persisting::Nothing));
        self.place(it, env);
    }

    fn fail(&mut self, key: &(RunId, StepId), refusal: Refusal, reason: String, env: &mut Env<'_>) {
        self.conclude(key, Outcome::Failed(Failure { refusal, reason }), env);
    }

    /// Persists how a step ended.
    fn conclude(&mut self, key: &(RunId, StepId), outcome: Outcome, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        let (ending, output) = match &outcome {
            Outcome::Value { value, .. } => {
                (Ending::Done, Some(keyed_digest(env.addressing_key, value)))
            }
            Outcome::Failed(failure) => (ending_of(failure.refusal), None),
            Outcome::Uncertain => (Ending::Uncertain, None),
        };
        let (_, writes) = env.chain.append(
            Body::Outcome {
                intent: it.intent,
                ending,
                output,
                reads: Touched::NONE,
                writes: Touched::NONE,
            },
            env.now.wall,
        );
        let entry = Journal::Ended {
            attempt: it.offer.attempt.clone(),
            outcome: outcome.clone(),
            time: env.now.wall,
        };
        self.outputs.push(DispatchOutput::Journal(key.0, entry));
        let batch = Batch { writes, durability: durability_of(it.offer.effect) };
        it.phase = Phase::Concluding(outcome);
        let next = Persisting::Outcome(key.0, key.1.clone());
        self.outputs.push(DispatchOutput::Persist(batch, next));
    }

    /// An executor is gone or silent.
    fn lost(&mut self, key: &(RunId, StepId), how: &str, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        let acknowledged = matches!(it.phase, Phase::Acknowledged);
        match it.offer.effect {
            EffectClass::Pure | EffectClass::ReadOnly if it.tries < TRIES_MAX => {
                let excluded = (it.executor, how.to_owned());
                self.again(key, Some(excluded), env);
            }
            EffectClass::Pure | EffectClass::ReadOnly => {
                let reason = format!("{}: {how}", env.name(&it.executor));
                self.fail(key, Refusal::Failed, reason, env);
            }
            EffectClass::AtMostOnce if acknowledged => self.conclude(key, Outcome::Uncertain, env),
            EffectClass::Idempotent | EffectClass::AtMostOnce => {
                let until = (env.now.mono + WAIT_FOR_DEVICE).min(it.task.ends);
                it.phase = Phase::Waiting { until };
            }
        }
    }

    /// A device went away.
    pub fn disconnected(&mut self, device: DeviceId, env: &mut Env<'_>) {
        let keys: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, it)| {
                it.executor == device
                    && matches!(it.phase, Phase::Offered | Phase::Running | Phase::Acknowledged)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.lost(&key, "it went away", env);
        }
    }

    /// A device can be asked again: what it was asked for is asked for again, under the same epoch,
    /// so that it says how that stands.
    pub fn connected(&mut self, device: DeviceId, env: &Env<'_>) {
        for it in self.tasks.values_mut().filter(|it| it.executor == device) {
            if matches!(it.phase, Phase::Offered | Phase::Running | Phase::Waiting { .. }) {
                it.phase = Phase::Offered;
                it.heard = env.now.mono;
                let offer = RunMessage::Offer(Box::new(it.offer.clone()));
                self.outputs.push(DispatchOutput::Tell(device, offer));
            }
        }
    }

    /// Stops all tasks that `which` chooses.
    pub fn cancel(&mut self, which: impl Fn(&Task) -> bool, env: &mut Env<'_>) {
        let keys: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, it)| which(&it.task) && !matches!(it.phase, Phase::Concluding(_)))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            let Some(it) = self.tasks.get(&key) else { continue };
            let cancel = RunMessage::Cancel(it.offer.attempt.clone());
            self.outputs.push(DispatchOutput::Tell(it.executor, cancel));
            let outcome = if matches!(it.phase, Phase::Acknowledged) {
                Outcome::Uncertain
            } else {
                Outcome::Failed(Failure { refusal: Refusal::Cancelled, reason: "cancelled".into() })
            };
            self.conclude(&key, outcome, env);
        }
    }

    /// What a device was asked for is void: it was put out.
    pub fn void(&mut self, device: &DeviceId, env: &mut Env<'_>) {
        self.disconnected(*device, env);
        let waiting: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, it)| it.executor == *device && matches!(it.phase, Phase::Waiting { .. }))
            .map(|(key, _)| key.clone())
            .collect();
        for key in waiting {
            let reason = "its device no longer belongs to the fabric".into();
            self.fail(&key, Refusal::Failed, reason, env);
        }
    }
}

/// An executor ends a step at its deadline by itself; the owner gives it so long to say so.
const BEYOND: Duration = Duration::from_secs(2);

fn offer_of(
    task: &Task,
    agent: &Installed,
    capability: &Capability,
    epoch: u32,
    now: Timestamp,
) -> Offer {
    Offer {
        attempt: Attempt { run: task.run, step: task.step.clone(), epoch },
        owner: task.owner,
        capability: task.capability.clone(),
        agent: agent.digest,
        arguments: task.arguments.clone(),
        labels: task.labels.clone(),
        effect: capability.effect,
        lease_ms: u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX),
        deadline_ms: u64::try_from(task.ends.since(now).as_millis()).unwrap_or(u64::MAX),
        callers: task.callers.clone(),
        local_time: task.local_time.clone(),
        time_zone: task.time_zone.clone(),
        consent: None,
    }
}

fn choose(
    task: &Task,
    offer: &Offer,
    agent: &Installed,
    capability: &Capability,
    excluded: &BTreeMap<DeviceId, String>,
    env: &Env<'_>,
) -> placement::Placement {
    let needs_model =
        capability.name.noun() == "llm" || capability.calls.iter().any(|call| call.noun() == "llm");
    let here = if agent.works_on_replica(capability) {
        Some("works on this device's own replica")
    } else {
        None
    };
    let need = Need {
        capability: task.capability.clone(),
        calls: capability.calls.clone(),
        only_here: task.only_here.or(here),
        named: task.named,
        unavailable: capability
            .calls
            .iter()
            .find(|call| {
                !env.neighbours
                    .iter()
                    .any(|it| it.reachable && env.registry.has(&it.subject.id, call))
            })
            .cloned(),
        bytes: codec::encode(&task.arguments).len() as u64,
    };
    let facts: Vec<Facts> = env
        .neighbours
        .iter()
        .map(|it| {
            let device = it.subject.id;
            let (decision, _) = env.decide(Point::Owner, offer, &device, agent, capability);
            Facts {
                device,
                name: it.subject.name.clone(),
                kind: it.subject.kind,
                here: it.here,
                reachable: it.reachable && !excluded.contains_key(&device),
                offers: env.registry.offers(&device, &task.capability, &agent.digest),
                lacks: capability
                    .calls
                    .iter()
                    .filter(|call| !env.registry.has(&device, call))
                    .cloned()
                    .collect(),
                needs_model,
                speed_milli: it.speed_milli,
                round_trip_micros: it.round_trip_micros,
                queue: it.queue,
                battery: it.battery,
                metered: it.metered,
                decision,
            }
        })
        .collect();
    let mut placement = placement::place(&need, &facts);
    for candidate in &mut placement.candidates {
        if let Some(why) = excluded.get(&candidate.device) {
            candidate.reasons = vec![why.clone()];
        }
    }
    placement
}

/// Why no device can do it, device by device.
fn nowhere(task: &Task, candidates: &[Candidate]) -> String {
    let each = candidates
        .iter()
        .map(|candidate| format!("{}: {}", candidate.name, candidate.reasons.join(", ")))
        .collect::<Vec<_>>();
    format!("no device can do {} now ({})", task.capability, each.join("; "))
}

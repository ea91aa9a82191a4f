//! Steps that this device asks for: decided, placed, offered under a lease, and brought to an end.
//!
//! A task comes from a run of this device or from an agent that called a capability while it ran
//! here. Either way it is offered to one device at a time, which may be this one. When the link to that
//! device is cut, it is asked after the step as soon as it is linked again: it says, under the same epoch,
//! that it goes on, how it ended, or that nothing was begun. If it is not back in time, what only reads is
//! tried elsewhere; for what writes only `nothing was begun` leads to another try, and what may have had
//! its effect is `uncertain` (`loss`). A device that is connected is waited for until the stream to it is open
//! (`opening`).

use std::{collections::BTreeMap, time::Duration};

use ed25519_dalek::SigningKey;
use rand_chacha::ChaCha20Rng;
use weft_protocol::{
    audit::{Body, Ending},
    codec,
    decision::{Decision, Effect, Point},
    graph::StepId,
    host_call::Refusal,
    id::{DeviceId, RunId},
    manifest::{Capability, CapabilityName, EffectClass},
    run::{Attempt, Candidate, Failure, Journal, Offer, Outcome, Progress, RunMessage},
    time::{Timestamp, WallTime},
};

use crate::{
    audit::keyed_digest,
    consent,
    env::{Batch, Env, durability_of},
    node::draw,
    placement,
    registry::Installed,
};

mod choice;
mod conclusion;
mod loss;
mod opening;
mod said;
mod task;
mod wait;

pub use conclusion::Concluded;
pub use task::{Requester, Task, TaskKey, Tried};
pub use wait::{Awaited, Wait};

use choice::{choose, nowhere, offer_of};
use conclusion::{bounded, outcome_of};
use said::Said;

/// An executor that is silent for so long counts as lost: fifteen beats.
const LEASE: Duration = Duration::from_secs(15);
/// So many devices are tried before a step fails.
const TRIES_MAX: u32 = 4;

/// What the dispatcher wants done.
#[derive(Clone, Debug)]
pub enum DispatchOutput {
    /// Persist, then come back with [`Dispatch::persisted`].
    Persist(Batch, Persisting),
    /// Write into the journal of a run of this device, in the same batch as what follows.
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
    Concluded(Box<Concluded>),
}

/// What follows a persisted batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Persisting {
    /// The offer is persisted: send it.
    Offer(TaskKey),
    /// That the intent is known is persisted: acknowledge it.
    IntentKnown(TaskKey),
    /// The outcome is persisted: tell who wants it.
    Outcome(TaskKey),
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
enum Phase {
    /// A device is connected that could do it, and the stream to it is about to open.
    Opening { until: Timestamp },
    /// A person is asked.
    Asking { decision: Decision, since: WallTime },
    /// The offer is being persisted.
    Preparing,
    /// The offer was sent.
    Offered,
    /// The executor said that it does it.
    Running,
    /// The executor must not do it twice; that its intent is known is being persisted.
    Acknowledging,
    /// The executor was told to go on with what must not happen twice.
    Acknowledged,
    /// How it stands is not known: the executor is away, or was asked and has not answered.
    Waiting {
        until: Timestamp,
        since: WallTime,
        /// It had not said anything of this try.
        unanswered: bool,
        /// Whoever follows the run was told that it is waited for.
        told: bool,
    },
    /// It was stopped; the executor is to say whether it had its effect.
    Cancelling { until: Timestamp },
    /// The outcome is being persisted.
    Concluding(Outcome),
}

impl Phase {
    /// Whether the executor's word counts.
    const fn is_under_way(&self) -> bool {
        match self {
            Self::Offered
            | Self::Running
            | Self::Acknowledging
            | Self::Acknowledged
            | Self::Waiting { .. }
            | Self::Cancelling { .. } => true,
            Self::Opening { .. } | Self::Asking { .. } | Self::Preparing | Self::Concluding(_) => {
                false
            }
        }
    }
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
    /// The position of its intent; `None`: it was merely asked about.
    intent: Option<u64>,
    /// What was in force when the rules were asked.
    version: u64,
    /// Until when this try waits for a stream to open, where it had to.
    opens_by: Option<Timestamp>,
    /// This try's offer was sent.
    sent: bool,
    /// Under this try the executor may have had its effect.
    may_have_acted: bool,
    /// The executor was asked how this try stands.
    inquired: bool,
    /// It was stopped before this start of the node: its executor is told when it is here.
    stopped: bool,
    heard: Timestamp,
    /// How many bytes its arguments have.
    bytes: u64,
    /// How long the offer may be on its way before its executor can answer.
    carried: Duration,
    tries: u32,
    excluded: BTreeMap<DeviceId, String>,
    said: Said,
}

/// The machine.
#[derive(Debug)]
pub struct Dispatch {
    key: SigningKey,
    me: DeviceId,
    rng: ChaCha20Rng,
    tasks: BTreeMap<TaskKey, Dispatched>,
    outputs: Vec<DispatchOutput>,
}

impl Dispatch {
    /// Has nothing to do yet. The key signs consents, and the generator draws their nonces.
    pub fn new(key: SigningKey, rng: ChaCha20Rng) -> Self {
        let me = DeviceId::from_bytes(key.verifying_key().to_bytes());
        Self { key, me, rng, tasks: BTreeMap::new(), outputs: Vec::new() }
    }

    /// What is to be done, in order.
    pub fn poll_outputs(&mut self) -> Vec<DispatchOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// The runs whose tasks are under way.
    pub fn runs(&self) -> impl Iterator<Item = RunId> {
        self.tasks.keys().map(|key| key.run)
    }

    /// The devices that were asked for something which is not done.
    pub fn asked(&self) -> impl Iterator<Item = DeviceId> {
        let is_open =
            |it: &&Dispatched| matches!(it.phase, Phase::Preparing) || it.phase.is_under_way();
        self.tasks.values().filter(is_open).map(|it| it.executor)
    }

    /// Where a task would run and what the rules say, without doing anything.
    pub fn explain(task: &Task, env: &Env<'_>) -> placement::Placement {
        match env.registry.provider(&task.capability) {
            Some((agent, capability)) => {
                let offer = offer_of(task, agent, capability, 1, env);
                choose(task, &offer, agent, capability, &BTreeMap::new(), env)
            }
            None => placement::Placement { chosen: None, decision: None, candidates: Vec::new() },
        }
    }

    /// Takes a task on.
    pub fn start(&mut self, task: Task, env: &mut Env<'_>) {
        if let Some(it) = self.first(task, 1, env) {
            self.place(it, env);
        }
    }

    /// A task before it is placed; `None`: it ended at once.
    fn first(&mut self, task: Task, epoch: u32, env: &Env<'_>) -> Option<Dispatched> {
        let failure = |refusal, reason| Outcome::Failed(Failure { refusal, reason });
        if self.tasks.contains_key(&task.key()) {
            // No end of the step's: the task that is under way will have that.
            let reason = format!("step {} is under way already", task.step);
            self.tell_concluded(task, failure(Refusal::Invalid, reason));
            return None;
        }
        let Some((agent, capability)) = env.registry.provider(&task.capability) else {
            let reason = format!("no agent here knows {}", task.capability);
            self.conclude_unplaced(task, epoch, failure(Refusal::NotFound, reason), env);
            return None;
        };
        let (agent, capability) = (agent.clone(), capability.clone());
        let offer = offer_of(&task, &agent, &capability, epoch, env);
        let bytes = codec::encode(&task.arguments).len() as u64;
        Some(Dispatched {
            executor: env.me,
            task,
            offer,
            agent,
            capability,
            candidates: Vec::new(),
            phase: Phase::Preparing,
            intent: None,
            version: env.version,
            opens_by: None,
            sent: false,
            may_have_acted: false,
            inquired: false,
            stopped: false,
            heard: env.now.mono,
            bytes,
            carried: Duration::ZERO,
            tries: 0,
            excluded: BTreeMap::new(),
            said: Said::default(),
        })
    }

    /// Writes into the journal of a run of this device; another owner keeps its own.
    fn journal(&mut self, key: &TaskKey, entry: Journal) {
        if key.owner == self.me {
            self.outputs.push(DispatchOutput::Journal(key.run, entry));
        }
    }

    /// Chooses a device, has the rules agree, and persists the offer.
    fn place(&mut self, mut it: Dispatched, env: &mut Env<'_>) {
        it.version = env.version;
        let placement = choose(&it.task, &it.offer, &it.agent, &it.capability, &it.excluded, env);
        it.candidates = placement.candidates;
        let (Some(executor), Some(decision)) = (placement.chosen, placement.decision.clone())
        else {
            if self.waits_for_stream(&mut it, env) {
                self.tasks.insert(it.task.key(), it);
                return;
            }
            let (refusal, reason) = match placement.decision {
                Some(decision) => (Refusal::Denied, decision.reason),
                None => {
                    let last = (it.tries > 0).then_some(it.executor);
                    (Refusal::NotFound, nowhere(&it.task, &it.candidates, last))
                }
            };
            if refusal == Refusal::Denied {
                let decision = Decision::deny(reason.clone());
                self.record_denial(&it, decision, env);
            }
            let epoch = it.offer.attempt.epoch;
            let failed = Outcome::Failed(Failure { refusal, reason });
            self.conclude_unplaced(it.task, epoch, failed, env);
            return;
        };
        it.tries += 1;
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
                it.phase = Phase::Asking { decision, since: env.now.wall };
                self.tasks.insert(it.task.key(), it);
            }
            Effect::Allow => self.offer(it, decision, env),
            Effect::Ask | Effect::Deny => {
                let reason = match decision.effect {
                    Effect::Ask => format!("{}: nobody can be asked here", decision.reason),
                    Effect::Allow | Effect::Deny => decision.reason,
                };
                self.deny(it, reason, env);
            }
        }
    }

    /// A denied intent is complete: nothing follows it.
    fn deny(&mut self, it: Dispatched, reason: String, env: &mut Env<'_>) {
        self.record_denial(&it, Decision::deny(reason.clone()), env);
        let epoch = it.offer.attempt.epoch;
        let failed = Outcome::Failed(Failure { refusal: Refusal::Denied, reason });
        self.conclude_unplaced(it.task, epoch, failed, env);
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
            owner: it.task.owner,
        }
    }

    fn record_denial(&mut self, it: &Dispatched, decision: Decision, env: &mut Env<'_>) {
        let body = Self::intent(it, decision, env);
        let (_, writes) = env.chain.append(body, env.now.wall);
        self.outputs.push(DispatchOutput::Persist(Batch::ordered(writes), Persisting::Nothing));
    }

    fn offer(&mut self, mut it: Dispatched, decision: Decision, env: &mut Env<'_>) {
        let body = Self::intent(&it, decision, env);
        let (intent, writes) = env.chain.append(body, env.now.wall);
        it.intent = Some(intent);
        it.phase = Phase::Preparing;
        self.outputs.push(DispatchOutput::Placed {
            run: it.task.run,
            step: it.task.step.clone(),
            capability: it.task.capability.clone(),
            executor: it.executor,
            candidates: it.candidates.clone(),
        });
        let key = it.task.key();
        let entry = Journal::Offered {
            attempt: it.offer.attempt.clone(),
            executor: it.executor,
            candidates: it.candidates.clone(),
            time: env.now.wall,
            intent,
        };
        self.journal(&key, entry);
        let batch = Batch { writes, durability: durability_of(it.offer.effect) };
        self.tasks.insert(key.clone(), it);
        self.outputs.push(DispatchOutput::Persist(batch, Persisting::Offer(key)));
    }

    /// A person answered for a run of this device. What was asked is decided again where who belongs or
    /// the rules moved since. Gives whether anything was asked.
    pub fn consent(&mut self, run: RunId, step: &StepId, yes: bool, env: &mut Env<'_>) -> bool {
        let key = TaskKey { owner: self.me, run, step: step.clone(), above: Vec::new() };
        let asking =
            self.tasks.get(&key).is_some_and(|it| matches!(it.phase, Phase::Asking { .. }));
        if !asking {
            return false;
        }
        let Some(mut it) = self.tasks.remove(&key) else { return false };
        let Phase::Asking { decision, .. } = std::mem::replace(&mut it.phase, Phase::Preparing)
        else {
            return false;
        };
        if !yes {
            self.deny(it, format!("{}: a person said no", decision.reason), env);
            return true;
        }
        if let Err(reason) = Self::decide_again(&it, true, env) {
            self.deny(it, reason, env);
            return true;
        }
        it.version = env.version;
        let arguments = keyed_digest(env.addressing_key, &it.offer.arguments);
        let nonce = draw(&mut self.rng);
        let given = consent::give(&self.key, &it.offer, arguments, it.executor, nonce, env);
        it.offer.consent = Some(given);
        let reason = format!("{}: a person agreed", decision.reason);
        self.offer(it, Decision { effect: Effect::Allow, reason, ..decision }, env);
        true
    }

    /// Asks the rules once more where who belongs or the rules moved; gives why not, if they say no.
    fn decide_again(it: &Dispatched, agreed: bool, env: &Env<'_>) -> Result<(), String> {
        if it.version == env.version {
            return Ok(());
        }
        let (decision, _) =
            env.decide(Point::Owner, &it.offer, &env.me, &it.executor, &it.agent, &it.capability);
        match decision.effect {
            Effect::Allow => Ok(()),
            Effect::Ask if agreed => Ok(()),
            Effect::Ask | Effect::Deny => Err(decision.reason),
        }
    }

    /// A batch is persisted.
    pub fn persisted(&mut self, what: Persisting, env: &mut Env<'_>) {
        match what {
            Persisting::Offer(key) => self.offer_persisted(&key, env),
            Persisting::IntentKnown(key) => self.intent_known(&key, env),
            Persisting::Outcome(key) => self.concluded(&key),
            Persisting::Nothing => {}
        }
    }

    fn offer_persisted(&mut self, key: &TaskKey, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        if !matches!(it.phase, Phase::Preparing) {
            return;
        }
        if let Err(reason) = Self::decide_again(it, it.offer.consent.is_some(), env) {
            self.fail(key, Refusal::Denied, reason, env);
            return;
        }
        it.phase = Phase::Offered;
        it.heard = env.now.mono;
        let executor = it.executor;
        let neighbour = env.neighbour(&executor);
        if neighbour.is_some_and(|it| !it.reachable) {
            // Its stream closed meanwhile: it is offered when there is another.
            let is_away = neighbour.is_some_and(|it| !it.connected);
            self.parted(key, is_away.then_some("it went away"), env);
            return;
        }
        it.may_have_acted = it.offer.effect == EffectClass::Idempotent;
        it.sent = true;
        let offer = RunMessage::Offer(Box::new(it.offer.clone()));
        self.outputs.push(DispatchOutput::Tell(executor, offer));
        self.carries(key, &executor);
    }

    fn intent_known(&mut self, key: &TaskKey, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        // After a cut nothing is acknowledged: that holds on the stream of the intent only.
        if !matches!(it.phase, Phase::Acknowledging) {
            return;
        }
        if let Err(reason) = Self::decide_again(it, it.offer.consent.is_some(), env) {
            let cancel = RunMessage::Cancel(it.offer.attempt.clone());
            self.outputs.push(DispatchOutput::Tell(it.executor, cancel));
            self.fail(key, Refusal::Denied, reason, env);
            return;
        }
        it.phase = Phase::Acknowledged;
        it.may_have_acted = true;
        let ack = RunMessage::IntentAck(it.offer.attempt.clone());
        self.outputs.push(DispatchOutput::Tell(it.executor, ack));
    }

    /// A batch could not be persisted: nothing that was to follow happens, and what may have had its
    /// effect is uncertain.
    pub fn persist_failed(&mut self, what: &Persisting, reason: &str, env: &Env<'_>) {
        let (Persisting::Offer(key) | Persisting::IntentKnown(key) | Persisting::Outcome(key)) =
            what
        else {
            return;
        };
        let Some(it) = self.tasks.remove(key) else { return };
        if matches!(what, Persisting::IntentKnown(_)) {
            let cancel = RunMessage::Cancel(it.offer.attempt.clone());
            self.outputs.push(DispatchOutput::Tell(it.executor, cancel));
        }
        let lost = Failure {
            refusal: Refusal::Failed,
            reason: format!("the disk took nothing: {reason}"),
        };
        let outcome = match it.phase {
            Phase::Concluding(failed @ Outcome::Failed(_)) => failed,
            Phase::Concluding(_) if it.offer.effect > EffectClass::ReadOnly => Outcome::Uncertain,
            _ if it.may_have_acted => Outcome::Uncertain,
            Phase::Opening { .. }
            | Phase::Asking { .. }
            | Phase::Preparing
            | Phase::Offered
            | Phase::Running
            | Phase::Acknowledging
            | Phase::Acknowledged
            | Phase::Waiting { .. }
            | Phase::Cancelling { .. }
            | Phase::Concluding(_) => Outcome::Failed(lost),
        };
        // A batch that was too large for the disk is refused for itself; this one is not.
        self.conclude_unplaced(it.task, it.offer.attempt.epoch, outcome, env);
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
            | RunMessage::Cancel(_)
            | RunMessage::Inquire(_)
            | RunMessage::Open(_) => return,
        };
        let key = TaskKey::of(&attempt);
        let current = |it: &&mut Dispatched| it.executor == from && it.offer.attempt == attempt;
        let is_known = self.tasks.contains_key(&key);
        let Some(it) = self.tasks.get_mut(&key).filter(current) else {
            let answer = match message {
                // The outcome is known here already; its executor may forget it.
                RunMessage::Done { .. } if !is_known => Some(RunMessage::DoneAck(attempt)),
                // Given up while nobody could tell its device so, and nobody waits for it.
                RunMessage::Accept(_) | RunMessage::Progress { .. } => {
                    Some(RunMessage::Cancel(attempt))
                }
                RunMessage::Done { .. }
                | RunMessage::Refuse { .. }
                | RunMessage::Intent(_)
                | RunMessage::NotBegun(_)
                | RunMessage::Offer(_)
                | RunMessage::IntentAck(_)
                | RunMessage::DoneAck(_)
                | RunMessage::Cancel(_)
                | RunMessage::Inquire(_)
                | RunMessage::Open(_) => None,
            };
            self.outputs.extend(answer.map(|answer| DispatchOutput::Tell(from, answer)));
            return;
        };
        if !it.phase.is_under_way() {
            return;
        }
        it.heard = env.now.mono;
        match message {
            RunMessage::Accept(_) => {
                it.may_have_acted |= it.offer.effect == EffectClass::AtMostOnce;
                if matches!(it.phase, Phase::Offered | Phase::Waiting { .. }) {
                    it.phase = Phase::Running;
                }
            }
            RunMessage::Refuse { failure, .. } => self.refused(&key, failure, env),
            RunMessage::Intent(_) => self.intended(&key, attempt),
            RunMessage::NotBegun(_) => self.not_begun(&key, env),
            RunMessage::Progress { progress, .. } => {
                if let Some(progress) = it.said.take(progress) {
                    self.outputs.push(DispatchOutput::Progressed(
                        it.task.requester.clone(),
                        it.task.run,
                        it.task.step.clone(),
                        progress,
                    ));
                }
            }
            RunMessage::Done { outcome, labels, .. } => {
                it.task.labels.extend(labels);
                let outcome = bounded(outcome, it.offer.effect);
                self.conclude(&key, outcome, env);
            }
            RunMessage::Offer(_)
            | RunMessage::IntentAck(_)
            | RunMessage::DoneAck(_)
            | RunMessage::Cancel(_)
            | RunMessage::Inquire(_)
            | RunMessage::Open(_) => {}
        }
    }

    /// An executor is about to do what must not happen twice, whatever this device thought of it.
    fn intended(&mut self, key: &TaskKey, attempt: Attempt) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        match it.phase {
            Phase::Offered | Phase::Running | Phase::Waiting { .. } => {
                it.phase = Phase::Acknowledging;
                it.offer.effect = EffectClass::AtMostOnce;
                it.may_have_acted = false;
                self.journal(key, Journal::IntentKnown { attempt });
                let next = Persisting::IntentKnown(key.clone());
                self.outputs.push(DispatchOutput::Persist(Batch::synced(Vec::new()), next));
            }
            Phase::Acknowledged => {
                let ack = RunMessage::IntentAck(attempt);
                self.outputs.push(DispatchOutput::Tell(it.executor, ack));
            }
            Phase::Acknowledging
            | Phase::Cancelling { .. }
            | Phase::Opening { .. }
            | Phase::Asking { .. }
            | Phase::Preparing
            | Phase::Concluding(_) => {}
        }
    }

    /// The executor has closed the try: nothing was begun, and nothing will be under it.
    fn not_begun(&mut self, key: &TaskKey, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        it.may_have_acted = false;
        if it.offer.effect == EffectClass::Idempotent {
            // What writes is offered again only to the device that may have begun to write.
            it.task.named = Some(it.executor);
        }
        if matches!(it.phase, Phase::Cancelling { .. }) {
            self.fail(key, Refusal::Cancelled, "cancelled".into(), env);
        } else if it.tries >= TRIES_MAX || it.task.ends <= env.now.mono {
            let reason = format!("{} did not begin it", env.name(&it.executor));
            self.fail(key, Refusal::Failed, reason, env);
        } else {
            self.again(key, None, env);
        }
    }

    /// An executor does not take a step. A rule's no is final; anything else may go elsewhere.
    fn refused(&mut self, key: &TaskKey, failure: Failure, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get(key) else { return };
        let once = it.offer.effect == EffectClass::AtMostOnce;
        if it.may_have_acted && (it.inquired || once) {
            // It does not say how it ended.
            self.conclude(key, Outcome::Uncertain, env);
            return;
        }
        if matches!(it.phase, Phase::Cancelling { .. }) {
            self.fail(key, Refusal::Cancelled, "cancelled".into(), env);
            return;
        }
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
    fn again(&mut self, key: &TaskKey, excluded: Option<(DeviceId, String)>, env: &mut Env<'_>) {
        let Some(mut it) = self.tasks.remove(key) else { return };
        it.excluded.extend(excluded);
        if let Some(intent) = it.intent.take() {
            let body = outcome_of(intent, Ending::Cancelled, None);
            let (_, writes) = env.chain.append(body, env.now.wall);
            let batch = Batch::ordered(writes);
            self.outputs.push(DispatchOutput::Persist(batch, Persisting::Nothing));
        }
        // A yes held for the try before.
        it.offer = offer_of(&it.task, &it.agent, &it.capability, it.offer.attempt.epoch + 1, env);
        it.phase = Phase::Preparing;
        it.opens_by = None;
        it.sent = false;
        it.may_have_acted = false;
        it.inquired = false;
        it.said.cover();
        self.place(it, env);
    }
}

//! Steps that run on this device, whoever owns them.
//!
//! An offer is decided again with this device's rules, manifest and replica (`admission`); the intent
//! is persisted; the agent acts; its writes, the outcome and the outcome's record are one batch
//! (`conclusion`); the owner hears of it when that is persisted. Asking again for the same try gives
//! the same answer, from what is [`kept`].
//!
//! What must not happen twice takes two steps more: the owner must know of the intent, on the stream
//! that carried it, and that the agent is about to act must be on the disk. So whatever a crash or a cut
//! leaves behind says by itself whether the effect may have happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft_protocol::{
    audit::{Body, Ending, Touched},
    decision::{Effect, Point, Question},
    graph::Label,
    host_call::{HostCall, HostError, Refusal},
    id::{DeviceId, Digest, DocumentId, RunId},
    manifest::{AgentKind, Capability, CapabilityName, EffectClass},
    run::{Attempt, Executed, Failure, Offer, Outcome, Progress, RunMessage, Stage},
    time::Timestamp,
    value::Value,
};

use crate::{
    Bounds,
    dispatch::Task,
    env::{Batch, Env},
    registry::Installed,
    replica::{self, Edit},
};

mod admission;
mod conclusion;
mod denials;
mod host_call;
pub mod kept;

use conclusion::Conclusion;
use denials::Denials;
use host_call::Answer;
use kept::StepKey;

/// A running step says that it lives so often; it tells loss from slowness.
const BEAT: Duration = Duration::from_secs(1);
/// The most bytes of a line that is kept to be said once more: what tells how far a step is, is short.
const STAGE_BYTES_MAX: usize = 1 << 10;
/// The most host calls of one execution: enough for any agent that batches, a bound for one that loops.
const HOST_CALLS_MAX: u32 = 10_000;

/// So many agents run at once for one device that asks, where its device does not say otherwise; more of
/// its steps wait. Half as many as the host has at once, so that what they call finds room: what is called
/// never waits, or two could wait for each other.
pub(crate) const RUNNING_MAX: usize = 16;

/// The longest that a step may take, whatever its owner allows.
const DEADLINE_MAX: Duration = Duration::from_secs(3_600);

/// One execution of an agent, as the shell knows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExecutionId(pub u64);

/// One host call of an execution, as the shell numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// What the executor wants done.
#[derive(Clone, Debug)]
pub enum ExecutorOutput {
    /// Persist, then come back with [`Executor::persisted`].
    Persist(Batch, Persisting),
    /// Start an agent.
    Execute {
        /// Under this number.
        execution: ExecutionId,
        /// Which agent.
        agent: Installed,
        /// Which capability.
        capability: CapabilityName,
        /// With what: a map.
        arguments: Value,
        /// For how long at most.
        deadline: Duration,
    },
    /// Stop an agent; nothing it says after this counts.
    Stop(ExecutionId),
    /// Answer a host call.
    Answer {
        /// Of which execution.
        execution: ExecutionId,
        /// Which call.
        call: CallId,
        /// The answer.
        answer: Result<Value, HostError>,
    },
    /// Send to the device that asked for the step, which may be this one.
    Tell(DeviceId, RunMessage),
    /// Carry out a capability that an agent called.
    Dispatch(Box<Task>),
    /// Stop what an agent called.
    CancelChildren(ExecutionId),
    /// A step's documents are persisted.
    Wrote(RunId, Vec<DocumentId>),
    /// Something a person should know.
    Warn(String),
}

/// What follows a persisted batch.
#[derive(Clone, PartialEq, Debug)]
pub enum Persisting {
    /// The intent is persisted: act, or have the owner know first.
    Intent(StepKey),
    /// That it is about to act is persisted: act.
    Mark(StepKey),
    /// The end is persisted: say it.
    Outcome(StepKey, Option<replica::Ticket>),
    /// What is to be said is persisted. It is as true if it is not.
    Say(DeviceId, Box<RunMessage>),
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
enum Phase {
    /// The intent is being persisted.
    Preparing,
    /// The owner must know of the intent before the effect.
    AwaitingAck { until: Timestamp },
    /// The owner knows; that it is about to act is being persisted.
    Marking,
    /// It waits for others of its asker to end.
    Queued,
    /// The agent runs.
    Running,
    /// The end is being persisted.
    Committing(Conclusion),
}

#[derive(Debug)]
struct Execution {
    id: ExecutionId,
    from: DeviceId,
    offer: Offer,
    /// What was asked for, to be held against another asking.
    asked: Digest,
    effect: EffectClass,
    agent: Installed,
    capability: Capability,
    /// What the rules were asked: for the owner, and for the device that asks in its name.
    questions: Vec<Question>,
    /// A person agreed to it, as the rules wanted.
    agreed: bool,
    version: u64,
    policy: Digest,
    intent: u64,
    phase: Phase,
    labels: BTreeSet<Label>,
    edits: Vec<Edit>,
    wrote: Vec<DocumentId>,
    reads: Touched,
    writes: Touched,
    /// It was stopped while something was being persisted that must come first.
    stopped: Option<Failure>,
    /// A later try that takes its place when this has ended.
    next: Option<Box<Offer>>,
    host_calls: u32,
    drawn: u32,
    /// The agent's last line, for whoever asks again how the step stands.
    stage: Option<String>,
    children: u16,
    ends: Timestamp,
    next_beat: Timestamp,
}

impl Execution {
    /// What is kept of it at a stage.
    fn executed(&self, stage: Stage) -> Executed {
        Executed {
            from: self.from,
            attempt: self.offer.attempt.clone(),
            asked: self.asked,
            effect: self.effect,
            intent: Some(self.intent),
            policy: self.policy,
            stage,
        }
    }

    /// Whether it may wait for others: nobody here waits for it, and it has a process of its own.
    fn may_wait(&self) -> bool {
        self.offer.attempt.above.is_empty() && self.agent.manifest.kind == AgentKind::Wasm
    }

    fn is_running_component(&self) -> bool {
        self.may_wait() && matches!(self.phase, Phase::Running)
    }

    fn must_happen_once(&self) -> bool {
        self.effect == EffectClass::AtMostOnce
    }
}

/// The machine.
#[derive(Debug, Default)]
pub struct Executor {
    executions: BTreeMap<StepKey, Execution>,
    by_id: BTreeMap<ExecutionId, StepKey>,
    /// How many rows were kept for each asker since it said last which of its runs go on, at least.
    kept: BTreeMap<DeviceId, usize>,
    denials: Denials,
    bounds: Bounds,
    next: u64,
    outputs: Vec<ExecutorOutput>,
}

impl Executor {
    /// What is to be done, in order.
    pub fn poll_outputs(&mut self) -> Vec<ExecutorOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// Bounds what runs from now on.
    pub(crate) fn bound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Steps that run or are about to.
    pub fn queue(&self) -> u32 {
        u32::try_from(self.executions.len()).unwrap_or(u32::MAX)
    }

    /// The runs whose steps are here: agents of theirs may call on other devices.
    pub fn runs(&self) -> impl Iterator<Item = RunId> {
        self.executions.keys().map(|key| key.run)
    }

    /// The devices for which something is being done here.
    pub fn asking(&self) -> impl Iterator<Item = DeviceId> {
        self.executions.values().map(|it| it.from)
    }

    /// When something is due although nothing comes in.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let due = |it: &Execution| match it.phase {
            Phase::AwaitingAck { until } => Some((until, "nobody acknowledged an intent")),
            Phase::Running | Phase::Queued if it.next_beat < it.ends => {
                Some((it.next_beat, "a running step says that it lives"))
            }
            Phase::Running | Phase::Queued => Some((it.ends, "a step runs out of time")),
            Phase::Preparing | Phase::Marking | Phase::Committing(_) => None,
        };
        let counts = self.denials.poll_timeout().map(|at| (at, "denials are recorded"));
        self.executions.values().filter_map(due).chain(counts).min_by_key(|(at, _)| *at)
    }

    /// Says that running steps live, stops those that ran out of time, and closes those whose owner
    /// does not answer.
    pub fn handle_timeout(&mut self, env: &mut Env<'_>) {
        let now = env.now.mono;
        for (device, count) in self.denials.due(now) {
            let (_, writes) = env.chain.append(Body::Denials { device, count }, env.now.wall);
            let batch = Batch::ordered(writes);
            self.outputs.push(ExecutorOutput::Persist(batch, Persisting::Nothing));
        }
        let (mut late, mut unanswered) = (Vec::new(), Vec::new());
        for (key, execution) in &mut self.executions {
            match execution.phase {
                Phase::AwaitingAck { until } if until <= now => unanswered.push(key.clone()),
                Phase::Running | Phase::Queued if execution.ends <= now => late.push(key.clone()),
                Phase::Running | Phase::Queued if execution.next_beat <= now => {
                    execution.next_beat = now + BEAT;
                    let attempt = execution.offer.attempt.clone();
                    let beat = RunMessage::Progress { attempt, progress: Progress::Beat };
                    self.outputs.push(ExecutorOutput::Tell(execution.from, beat));
                }
                Phase::AwaitingAck { .. }
                | Phase::Running
                | Phase::Queued
                | Phase::Preparing
                | Phase::Marking
                | Phase::Committing(_) => {}
            }
        }
        for key in unanswered {
            self.close(&key, None, env);
        }
        for key in late {
            self.stop(&key, Refusal::Cancelled, "the step ran out of time", env);
        }
    }

    /// Takes a message of the device that asks for a step.
    pub fn handle_message(&mut self, from: DeviceId, message: RunMessage, env: &mut Env<'_>) {
        match message {
            RunMessage::Offer(offer) => self.offered(from, *offer, env),
            RunMessage::IntentAck(attempt) => self.acknowledged(from, &attempt, env),
            RunMessage::Cancel(attempt) => {
                if self.is_current(from, &attempt) {
                    let key = StepKey::of(from, &attempt);
                    self.stop(&key, Refusal::Cancelled, "cancelled", env);
                } else {
                    self.inquired(from, attempt, env);
                }
            }
            RunMessage::Inquire(attempt) => self.inquired(from, attempt, env),
            RunMessage::DoneAck(attempt) => self.known(from, &attempt, env),
            RunMessage::Open(runs) => self.forget(from, &runs.into_iter().collect(), env),
            RunMessage::Accept(_)
            | RunMessage::Refuse { .. }
            | RunMessage::Intent(_)
            | RunMessage::NotBegun(_)
            | RunMessage::Progress { .. }
            | RunMessage::Done { .. } => {}
        }
    }

    fn is_current(&self, from: DeviceId, attempt: &Attempt) -> bool {
        self.executions
            .get(&StepKey::of(from, attempt))
            .is_some_and(|it| it.offer.attempt == *attempt)
    }

    fn say(&mut self, to: DeviceId, message: RunMessage) {
        self.outputs.push(ExecutorOutput::Tell(to, message));
    }

    fn refuse(&mut self, to: DeviceId, attempt: Attempt, failure: Failure) {
        self.say(to, RunMessage::Refuse { attempt, failure });
    }

    /// A batch is persisted.
    pub fn persisted(&mut self, what: Persisting, env: &mut Env<'_>) {
        match what {
            Persisting::Intent(key) => self.begin(&key, env),
            Persisting::Mark(key) => self.marked(&key, env),
            Persisting::Say(to, message) => self.say(to, *message),
            Persisting::Outcome(key, edits) => {
                if let Some(ticket) = edits {
                    env.committed(ticket);
                }
                self.concluded(&key, env);
            }
            Persisting::Nothing => {}
        }
    }

    /// A batch could not be persisted: what was to follow does not happen.
    pub fn persist_failed(&mut self, what: Persisting, reason: &str, env: &mut Env<'_>) {
        let why = format!("the disk took nothing: {reason}");
        match what {
            Persisting::Intent(key) | Persisting::Mark(key) => {
                let Some(execution) = self.remove(&key) else { return };
                let later = execution.next.map(|next| next.attempt);
                for attempt in [Some(execution.offer.attempt), later].into_iter().flatten() {
                    let failure = failure(Refusal::Failed, why.clone());
                    self.refuse(execution.from, attempt, failure);
                }
            }
            Persisting::Say(to, message) => self.say(to, *message),
            Persisting::Outcome(key, edits) => {
                if let Some(ticket) = edits {
                    env.aborted(ticket);
                }
                self.not_concluded(&key, why, env);
            }
            Persisting::Nothing => {}
        }
    }

    fn remove(&mut self, key: &StepKey) -> Option<Execution> {
        let execution = self.executions.remove(key)?;
        self.by_id.remove(&execution.id);
        Some(execution)
    }

    fn begin(&mut self, key: &StepKey, env: &mut Env<'_>) {
        let Some(execution) = self.executions.get_mut(key) else { return };
        if let Some(failure) = execution.stopped.take() {
            self.close(key, Some(failure), env);
            return;
        }
        let attempt = execution.offer.attempt.clone();
        if execution.must_happen_once() {
            let lease = Duration::from_millis(execution.offer.lease_ms.into());
            let until = (env.now.mono + lease).min(execution.ends);
            execution.phase = Phase::AwaitingAck { until };
            self.say(key.from, RunMessage::Intent(attempt));
            return;
        }
        self.say(key.from, RunMessage::Accept(attempt));
        if let Err(failure) = self.decide_again(key, env) {
            self.close(key, Some(failure), env);
            return;
        }
        self.act(key, env);
    }

    /// The owner knows of an intent: once that it is about to act is on the disk, the agent acts.
    fn acknowledged(&mut self, from: DeviceId, attempt: &Attempt, env: &mut Env<'_>) {
        let key = StepKey::of(from, attempt);
        let awaits = self.executions.get(&key).is_some_and(|it| {
            matches!(it.phase, Phase::AwaitingAck { .. }) && it.offer.attempt == *attempt
        });
        if !awaits {
            return;
        }
        if let Err(failure) = self.decide_again(&key, env) {
            self.close(&key, Some(failure), env);
            return;
        }
        let Some(execution) = self.executions.get_mut(&key) else { return };
        execution.phase = Phase::Marking;
        let writes = vec![kept::write(&execution.executed(Stage::Acting))];
        self.outputs.push(ExecutorOutput::Persist(Batch::synced(writes), Persisting::Mark(key)));
    }

    fn marked(&mut self, key: &StepKey, env: &mut Env<'_>) {
        let Some(execution) = self.executions.get_mut(key) else { return };
        let go = match execution.stopped.take() {
            Some(failure) => Err(failure),
            None => self.decide_again(key, env),
        };
        match go {
            Ok(()) => self.act(key, env),
            Err(failure) => self.close(key, Some(failure), env),
        }
    }

    /// Asks the rules once more, where who belongs or the rules moved since they were asked.
    fn decide_again(&self, key: &StepKey, env: &Env<'_>) -> Result<(), Failure> {
        let Some(it) = self.executions.get(key) else { return Ok(()) };
        if it.version == env.version {
            return Ok(());
        }
        let (decision, _) =
            env.decide(Point::Executor, &it.offer, &it.from, &env.me, &it.agent, &it.capability);
        match decision.effect {
            Effect::Allow => Ok(()),
            Effect::Ask if it.agreed => Ok(()),
            Effect::Ask | Effect::Deny => Err(failure(Refusal::Denied, decision.reason)),
        }
    }

    /// Has an agent act, or wait until fewer do for the same asker.
    fn act(&mut self, key: &StepKey, env: &Env<'_>) {
        let occupies = |it: &&Execution| it.from == key.from && it.is_running_component();
        let running = self.executions.values().filter(occupies).count();
        let is_full = running >= self.bounds.agents_running_max;
        let Some(execution) = self.executions.get_mut(key) else { return };
        execution.next_beat = env.now.mono + BEAT;
        if is_full && execution.may_wait() {
            execution.phase = Phase::Queued;
            return;
        }
        execution.phase = Phase::Running;
        self.outputs.push(ExecutorOutput::Execute {
            execution: execution.id,
            agent: execution.agent.clone(),
            capability: execution.capability.name.clone(),
            arguments: execution.offer.arguments.clone(),
            deadline: execution.ends.since(env.now.mono),
        });
    }

    /// Has the step act that waits the longest for others of this asker to end.
    fn act_next(&mut self, from: DeviceId, env: &mut Env<'_>) {
        let queued = self
            .executions
            .iter()
            .filter(|(key, it)| key.from == from && matches!(it.phase, Phase::Queued));
        let Some(key) = queued.min_by_key(|(_, it)| it.id).map(|(key, _)| key.clone()) else {
            return;
        };
        match self.decide_again(&key, env) {
            Ok(()) => self.act(&key, env),
            Err(failure) => self.close(&key, Some(failure), env),
        }
    }

    /// The stream that carried an intent was cut or replaced: an acknowledgement holds on that stream
    /// only, so the try is closed durably and may be offered anew.
    pub fn stream_cut(&mut self, from: DeviceId, env: &mut Env<'_>) {
        let waiting: Vec<_> = self
            .executions
            .iter()
            .filter(|(_, it)| it.from == from && matches!(it.phase, Phase::AwaitingAck { .. }))
            .map(|(key, _)| key.clone())
            .collect();
        for key in waiting {
            self.close(&key, None, env);
        }
    }

    /// An agent ended.
    pub fn executed(
        &mut self,
        execution: ExecutionId,
        result: Result<Value, Failure>,
        env: &mut Env<'_>,
    ) {
        let Some(key) = self.by_id.get(&execution).cloned() else { return };
        if self.executions.get(&key).is_some_and(|it| matches!(it.phase, Phase::Running)) {
            self.outputs.push(ExecutorOutput::CancelChildren(execution));
            self.conclude(&key, result, env);
        }
    }

    /// An agent says something while it runs.
    pub fn progressed(&mut self, execution: ExecutionId, progress: Progress, env: &Env<'_>) {
        let Some(key) = self.by_id.get(&execution) else { return };
        let Some(execution) = self.executions.get_mut(key) else { return };
        if !matches!(execution.phase, Phase::Running) {
            return;
        }
        execution.next_beat = env.now.mono + BEAT;
        if let Progress::Log(line) = &progress {
            execution.stage = (line.len() <= STAGE_BYTES_MAX).then(|| line.clone());
        }
        let attempt = execution.offer.attempt.clone();
        let message = RunMessage::Progress { attempt, progress };
        self.outputs.push(ExecutorOutput::Tell(execution.from, message));
    }

    /// Stops a step. What had not acted is closed, and what may have had its effect is uncertain.
    fn stop(&mut self, key: &StepKey, refusal: Refusal, reason: &str, env: &mut Env<'_>) {
        let Some(execution) = self.executions.get_mut(key) else { return };
        match execution.phase {
            Phase::Running => {
                let id = execution.id;
                let once = execution.must_happen_once();
                self.outputs.push(ExecutorOutput::Stop(id));
                self.outputs.push(ExecutorOutput::CancelChildren(id));
                if once {
                    self.conclude_uncertain(key, env);
                } else {
                    self.conclude(key, Err(failure(refusal, reason)), env);
                }
            }
            Phase::AwaitingAck { .. } | Phase::Queued => {
                self.close(key, Some(failure(refusal, reason)), env);
            }
            Phase::Preparing | Phase::Marking => {
                execution.stopped = Some(failure(refusal, reason));
            }
            // What is being persisted ends by itself within milliseconds.
            Phase::Committing(_) => {}
        }
    }

    /// Stops all that a device asked for, or that is asked for in its name: it was put out or is suspended.
    /// What may have had its effect is uncertain.
    pub fn void(&mut self, device: &DeviceId, env: &mut Env<'_>) {
        let keys: Vec<_> = self
            .executions
            .keys()
            .filter(|key| key.from == *device || key.owner == *device)
            .cloned()
            .collect();
        for key in keys {
            self.stop(&key, Refusal::Denied, "its owner does not belong to the fabric now", env);
        }
    }

    /// A running agent asks for something.
    pub fn host_call(
        &mut self,
        execution: ExecutionId,
        call: CallId,
        request: HostCall,
        env: &mut Env<'_>,
    ) {
        let Some(key) = self.by_id.get(&execution).cloned() else { return };
        let Some(it) = self.executions.get_mut(&key) else { return };
        if !matches!(it.phase, Phase::Running) {
            return;
        }
        it.host_calls += 1;
        let answer = if it.host_calls > HOST_CALLS_MAX {
            Err(error(Refusal::Denied, format!("more than {HOST_CALLS_MAX} calls in one step")))
        } else {
            match it.answer(request, execution, call, env) {
                Ok(Answer::Now(value)) => Ok(value),
                Ok(Answer::Later(task)) => {
                    self.outputs.push(ExecutorOutput::Dispatch(task));
                    return;
                }
                Ok(Answer::Logged(line)) => {
                    self.progressed(execution, Progress::Log(line), env);
                    Ok(Value::Null)
                }
                Err(error) => Err(error),
            }
        };
        self.outputs.push(ExecutorOutput::Answer { execution, call, answer });
    }

    /// What an agent called ended.
    ///
    /// The labels of what it tells become the caller's, also those of a failure: its reason may carry
    /// what the child read.
    pub fn child_concluded(
        &mut self,
        execution: ExecutionId,
        call: CallId,
        outcome: Outcome,
        labels: BTreeSet<Label>,
    ) {
        let Some(it) = self.by_id.get(&execution).and_then(|key| self.executions.get_mut(key))
        else {
            return;
        };
        it.labels.extend(labels);
        let answer = match outcome {
            Outcome::Value { value, labels } => {
                it.labels.extend(labels);
                Ok(value)
            }
            Outcome::Failed(failure) => Err(error(failure.refusal, failure.reason)),
            Outcome::Uncertain => {
                Err(error(Refusal::Failed, "whether it happened is not known".into()))
            }
        };
        self.outputs.push(ExecutorOutput::Answer { execution, call, answer });
    }
}

fn failure(refusal: Refusal, reason: impl Into<String>) -> Failure {
    Failure { refusal, reason: reason.into() }
}

const fn error(refusal: Refusal, reason: String) -> HostError {
    HostError { refusal, reason }
}

/// How a failed step stands in the chain.
pub(crate) const fn ending_of(refusal: Refusal) -> Ending {
    match refusal {
        Refusal::Denied => Ending::Denied,
        Refusal::Cancelled => Ending::Cancelled,
        Refusal::NotFound | Refusal::Invalid | Refusal::Failed => Ending::Failed,
    }
}

//! Steps that run on this device, whoever owns them.
//!
//! An offer is decided again with this device's rules, manifest and replica; the intent is persisted;
//! the agent acts; its writes, the outcome and the outcome's record are one batch; the owner hears of
//! it when that is persisted. Asking again for the same try gives the same answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft_protocol::{
    audit::{Body, Ending, Touched},
    codec,
    decision::{Effect, Point, Question},
    graph::{Label, StepId},
    host_call::{HostCall, HostError, Refusal},
    id::{DeviceId, DocumentId, RunId},
    manifest::{Capability, CapabilityName, EffectClass},
    row::{Durability, ReadError, Row, Table, Write},
    run::{Attempt, Executed, Failure, INLINE_BYTES_MAX, Offer, Outcome, Progress, RunMessage},
    time::Timestamp,
    value::Value,
};

use crate::{
    audit::keyed_digest,
    consent,
    dispatch::Task,
    env::{Batch, Env, durability_of},
    registry::Installed,
    replica::{self, Edit},
};

mod host_call;

use host_call::Answer;

/// A running step says that it lives so often; it tells loss from slowness.
const BEAT: Duration = Duration::from_secs(1);
/// What an executor keeps of a step at most.
const EXECUTED_BYTES_MAX: usize = 1 << 20;
/// The most host calls of one execution: enough for any agent that batches, a bound for one that loops.
const HOST_CALLS_MAX: u32 = 10_000;

/// The most steps of one device that run here at a time: more than a plan has side by side.
const EXECUTIONS_MAX: usize = 64;
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
}

/// What follows a persisted batch.
#[derive(Clone, PartialEq, Debug)]
pub enum Persisting {
    /// The intent is persisted: act.
    Intent(RunId, StepId),
    /// A refusal is persisted: say it.
    Refusal(DeviceId, Attempt, Failure),
    /// The outcome is persisted: say it.
    Outcome(RunId, StepId, Option<replica::Ticket>),
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
enum Phase {
    /// The intent is being persisted.
    Preparing,
    /// The owner must know of the intent before the effect.
    AwaitingAck,
    /// The agent runs.
    Running,
    /// The outcome is being persisted.
    Committing(Outcome),
}

#[derive(Debug)]
struct Execution {
    id: ExecutionId,
    from: DeviceId,
    offer: Offer,
    agent: Installed,
    capability: Capability,
    question: Option<Question>,
    version: u64,
    intent: u64,
    phase: Phase,
    labels: BTreeSet<Label>,
    edits: Vec<Edit>,
    wrote: Vec<DocumentId>,
    reads: Touched,
    writes: Touched,
    /// It was stopped while its intent was being persisted.
    stopped: Option<Failure>,
    host_calls: u32,
    drawn: u32,
    children: u16,
    ends: Timestamp,
    next_beat: Timestamp,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Executor {
    executions: BTreeMap<(RunId, StepId), Execution>,
    by_id: BTreeMap<ExecutionId, (RunId, StepId)>,
    next: u64,
    outputs: Vec<ExecutorOutput>,
}

impl Executor {
    /// What is to be done, in order.
    pub fn poll_outputs(&mut self) -> Vec<ExecutorOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// Steps that run or are about to.
    pub fn queue(&self) -> u32 {
        u32::try_from(self.executions.len()).unwrap_or(u32::MAX)
    }

    /// When something is due although nothing comes in.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let beats = self.executions.values().filter(|it| matches!(it.phase, Phase::Running));
        let beat = beats.clone().map(|it| (it.next_beat, "a running step says that it lives"));
        let end = beats.map(|it| (it.ends, "a step runs out of time"));
        beat.chain(end).min_by_key(|(at, _)| *at)
    }

    /// Says that running steps live, and stops those that ran out of time.
    pub fn handle_timeout(&mut self, env: &mut Env<'_>) {
        let now = env.now.mono;
        let mut late = Vec::new();
        for (key, execution) in &mut self.executions {
            if !matches!(execution.phase, Phase::Running) {
                continue;
            }
            if execution.ends <= now {
                late.push(key.clone());
            } else if execution.next_beat <= now {
                execution.next_beat = now + BEAT;
                let attempt = execution.offer.attempt.clone();
                let beat = RunMessage::Progress { attempt, progress: Progress::Beat };
                self.outputs.push(ExecutorOutput::Tell(execution.from, beat));
            }
        }
        for key in late {
            let reason = "the step ran out of time";
            self.stop(&key, Refusal::Cancelled, reason, env);
        }
    }

    /// Takes a message of the device that asks for a step.
    pub fn handle_message(&mut self, from: DeviceId, message: RunMessage, env: &mut Env<'_>) {
        match message {
            RunMessage::Offer(offer) => self.offered(from, *offer, env),
            RunMessage::IntentAck(attempt) => self.acknowledged(from, &attempt, env),
            RunMessage::Cancel(attempt) => {
                let key = (attempt.run, attempt.step.clone());
                if self.is_current(from, &attempt) {
                    self.stop(&key, Refusal::Cancelled, "cancelled", env);
                }
            }
            // The outcome stays on disk until the run's rows are cleared; nothing is waited for.
            RunMessage::DoneAck(_) => {}
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
            .get(&(attempt.run, attempt.step.clone()))
            .is_some_and(|it| it.from == from && it.offer.attempt == *attempt)
    }

    fn offered(&mut self, from: DeviceId, offer: Offer, env: &mut Env<'_>) {
        let attempt = offer.attempt.clone();
        let key = (attempt.run, attempt.step.clone());
        if let Some(running) = self.executions.get(&key) {
            let answer = if running.from != from || running.offer.attempt.epoch > attempt.epoch {
                let failure = failure(Refusal::Invalid, "a later try of this step is under way");
                RunMessage::Refuse { attempt, failure }
            } else if running.offer.attempt.epoch == attempt.epoch {
                RunMessage::Accept(attempt)
            } else {
                // A later try of the same owner takes over what is under way.
                let running = self.executions.get_mut(&key).expect("it was found above");
                running.offer.attempt.epoch = attempt.epoch;
                RunMessage::Accept(attempt)
            };
            self.outputs.push(ExecutorOutput::Tell(from, answer));
            return;
        }
        match self.remembered(&offer, env) {
            Ok(Some(outcome)) => {
                self.outputs
                    .push(ExecutorOutput::Tell(from, RunMessage::Done { attempt, outcome }));
                return;
            }
            Ok(None) => {}
            Err(error) => {
                let failure = failure(Refusal::Failed, format!("the store failed: {error}"));
                self.refuse(from, attempt, failure);
                return;
            }
        }
        match self.admit(from, offer, env) {
            Ok(()) => {}
            Err(failure) => self.refuse(from, attempt, failure),
        }
    }

    fn refuse(&mut self, to: DeviceId, attempt: Attempt, failure: Failure) {
        self.outputs.push(ExecutorOutput::Tell(to, RunMessage::Refuse { attempt, failure }));
    }

    /// The outcome of an earlier try, where there is one that must stand.
    fn remembered(&self, offer: &Offer, env: &Env<'_>) -> Result<Option<Outcome>, ReadError> {
        let Some(executed) = read_executed(&offer.attempt, env)? else { return Ok(None) };
        Ok(match executed.outcome {
            Some(outcome @ Outcome::Value { .. }) => Some(outcome),
            Some(outcome) if executed.epoch >= offer.attempt.epoch => Some(outcome),
            // A failed try may be tried again under a later epoch.
            Some(_) => None,
            None if offer.effect == EffectClass::AtMostOnce => Some(Outcome::Uncertain),
            None => None,
        })
    }

    fn admit(&mut self, from: DeviceId, offer: Offer, env: &mut Env<'_>) -> Result<(), Failure> {
        let not_here = |what: String| failure(Refusal::NotFound, what);
        if !env.subject(&from).is_some_and(|asking| asking.role.holds_data()) {
            return Err(failure(Refusal::Denied, "the asking device may not run commands"));
        }
        if offer.callers.is_empty() && offer.owner != from {
            return Err(failure(Refusal::Denied, "only a run's owner may ask for its steps"));
        }
        if self.executions.values().filter(|it| it.from == from).count() >= EXECUTIONS_MAX {
            return Err(failure(Refusal::Failed, "too many steps of that device run here"));
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
        let (mut decision, question) =
            env.decide(Point::Executor, &offer, &env.me, &agent, &capability);
        if decision.effect == Effect::Ask {
            let digest = keyed_digest(env.addressing_key, &offer.arguments);
            decision = consent::settle(decision, &offer, digest, env);
        }
        let allowed = decision.allows();
        let (intent, mut writes) = env.chain.append(
            Body::Intent {
                point: Point::Executor,
                run: offer.attempt.run,
                step: offer.attempt.step.clone(),
                device: offer.owner,
                agent: agent.digest,
                capability: offer.capability.clone(),
                input: keyed_digest(env.addressing_key, &offer.arguments),
                decision: decision.clone(),
                policy: env.policy_digest(),
            },
            env.now.wall,
        );
        if !allowed {
            let failure = failure(Refusal::Denied, decision.reason);
            let refusal = Persisting::Refusal(from, offer.attempt, failure);
            self.outputs.push(ExecutorOutput::Persist(Batch::ordered(writes), refusal));
            return Ok(());
        }
        let effect = offer.effect.max(capability.effect);
        let executed =
            Executed { epoch: offer.attempt.epoch, outcome: None, documents: Vec::new() };
        writes.push(write_executed(&offer.attempt, &executed));
        self.next += 1;
        let id = ExecutionId(self.next);
        let key = (offer.attempt.run, offer.attempt.step.clone());
        let ends = env.now.mono + Duration::from_millis(offer.deadline_ms).min(DEADLINE_MAX);
        let execution = Execution {
            id,
            from,
            labels: offer.labels.clone(),
            offer,
            agent,
            capability,
            question,
            version: env.version,
            intent,
            phase: Phase::Preparing,
            edits: Vec::new(),
            wrote: Vec::new(),
            reads: Touched::NONE,
            writes: Touched::NONE,
            stopped: None,
            host_calls: 0,
            drawn: 0,
            children: 0,
            ends,
            next_beat: env.now.mono + BEAT,
        };
        self.by_id.insert(id, key.clone());
        self.executions.insert(key.clone(), execution);
        let batch = Batch { writes, durability: durability_of(effect) };
        self.outputs.push(ExecutorOutput::Persist(batch, Persisting::Intent(key.0, key.1)));
        Ok(())
    }

    /// A batch is persisted.
    pub fn persisted(&mut self, what: Persisting, env: &mut Env<'_>) {
        match what {
            Persisting::Intent(run, step) => self.begin(&(run, step), env),
            Persisting::Refusal(to, attempt, failure) => self.refuse(to, attempt, failure),
            Persisting::Outcome(run, step, edits) => {
                if let Some(ticket) = edits {
                    env.committed(ticket);
                }
                let Some(execution) = self.remove(&(run, step)) else { return };
                let Phase::Committing(outcome) = execution.phase else { return };
                if !execution.wrote.is_empty() {
                    self.outputs.push(ExecutorOutput::Wrote(run, execution.wrote));
                }
                let attempt = execution.offer.attempt;
                let done = RunMessage::Done { attempt, outcome };
                self.outputs.push(ExecutorOutput::Tell(execution.from, done));
            }
            Persisting::Nothing => {}
        }
    }

    /// A batch could not be persisted: what was to follow does not happen.
    pub fn persist_failed(&mut self, what: Persisting, reason: &str, env: &mut Env<'_>) {
        let why = format!("the disk took nothing: {reason}");
        match what {
            Persisting::Intent(run, step) => {
                if let Some(execution) = self.remove(&(run, step)) {
                    let failure = failure(Refusal::Failed, why);
                    self.refuse(execution.from, execution.offer.attempt, failure);
                }
            }
            Persisting::Refusal(to, attempt, failure) => self.refuse(to, attempt, failure),
            Persisting::Outcome(run, step, edits) => {
                if let Some(ticket) = edits {
                    env.aborted(ticket);
                }
                if let Some(execution) = self.remove(&(run, step)) {
                    let outcome = Outcome::Failed(failure(Refusal::Failed, why));
                    let done = RunMessage::Done { attempt: execution.offer.attempt, outcome };
                    self.outputs.push(ExecutorOutput::Tell(execution.from, done));
                }
            }
            Persisting::Nothing => {}
        }
    }

    fn remove(&mut self, key: &(RunId, StepId)) -> Option<Execution> {
        let execution = self.executions.remove(key)?;
        self.by_id.remove(&execution.id);
        Some(execution)
    }

    fn begin(&mut self, key: &(RunId, StepId), env: &mut Env<'_>) {
        let Some(execution) = self.executions.get_mut(key) else { return };
        if let Some(failure) = execution.stopped.take() {
            self.conclude(key, Err(failure), env);
            return;
        }
        let attempt = execution.offer.attempt.clone();
        if execution.offer.effect.max(execution.capability.effect) == EffectClass::AtMostOnce {
            execution.phase = Phase::AwaitingAck;
            self.outputs.push(ExecutorOutput::Tell(execution.from, RunMessage::Intent(attempt)));
            return;
        }
        self.outputs.push(ExecutorOutput::Tell(execution.from, RunMessage::Accept(attempt)));
        self.act(key, env);
    }

    fn acknowledged(&mut self, from: DeviceId, attempt: &Attempt, env: &mut Env<'_>) {
        let key = (attempt.run, attempt.step.clone());
        let awaits = self
            .executions
            .get(&key)
            .is_some_and(|it| matches!(it.phase, Phase::AwaitingAck) && it.from == from);
        if awaits && self.is_current(from, attempt) {
            self.act(&key, env);
        }
    }

    /// The stream that carried an intent was cut: an acknowledgement holds on that stream only, so
    /// the try is closed durably and may be offered anew.
    pub fn stream_cut(&mut self, from: DeviceId, env: &mut Env<'_>) {
        let waiting: Vec<_> = self
            .executions
            .iter()
            .filter(|(_, it)| it.from == from && matches!(it.phase, Phase::AwaitingAck))
            .map(|(key, _)| key.clone())
            .collect();
        for key in waiting {
            self.stop(&key, Refusal::Cancelled, "not begun", env);
        }
    }

    /// Acts, unless who belongs or the rules moved and now say no.
    fn act(&mut self, key: &(RunId, StepId), env: &mut Env<'_>) {
        let Some(execution) = self.executions.get_mut(key) else { return };
        if execution.version != env.version {
            let (decision, _) = env.decide(
                Point::Executor,
                &execution.offer,
                &env.me,
                &execution.agent,
                &execution.capability,
            );
            if decision.effect == Effect::Deny {
                self.conclude(key, Err(failure(Refusal::Denied, decision.reason)), env);
                return;
            }
        }
        execution.phase = Phase::Running;
        execution.next_beat = env.now.mono + BEAT;
        self.outputs.push(ExecutorOutput::Execute {
            execution: execution.id,
            agent: execution.agent.clone(),
            capability: execution.capability.name.clone(),
            arguments: execution.offer.arguments.clone(),
            deadline: execution.ends.since(env.now.mono),
        });
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
        execution.next_beat = env.now.mono + BEAT;
        let attempt = execution.offer.attempt.clone();
        let message = RunMessage::Progress { attempt, progress };
        self.outputs.push(ExecutorOutput::Tell(execution.from, message));
    }

    /// Stops a step and concludes it as failed.
    fn stop(&mut self, key: &(RunId, StepId), refusal: Refusal, reason: &str, env: &mut Env<'_>) {
        let Some(execution) = self.executions.get_mut(key) else { return };
        match execution.phase {
            Phase::Running => {
                let id = execution.id;
                self.outputs.push(ExecutorOutput::Stop(id));
                self.outputs.push(ExecutorOutput::CancelChildren(id));
                self.conclude(key, Err(failure(refusal, reason)), env);
            }
            Phase::AwaitingAck => self.conclude(key, Err(failure(refusal, reason)), env),
            Phase::Preparing => execution.stopped = Some(failure(refusal, reason)),
            // What is being persisted ends by itself within milliseconds.
            Phase::Committing(_) => {}
        }
    }

    /// Stops all that a device asked for: it was put out.
    pub fn void(&mut self, device: &DeviceId, env: &mut Env<'_>) {
        let keys: Vec<_> = self
            .executions
            .iter()
            .filter(|(_, it)| it.from == *device || it.offer.owner == *device)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.stop(&key, Refusal::Denied, "its owner no longer belongs to the fabric", env);
        }
    }

    /// Persists how a step ended, with all that it wrote.
    fn conclude(
        &mut self,
        key: &(RunId, StepId),
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
        let edits = if result.is_ok() { std::mem::take(&mut execution.edits) } else { Vec::new() };
        let documents = edits.iter().map(edited).collect::<Vec<_>>();
        let writes_something = !edits.is_empty();
        let prepared = if writes_something {
            match env.replica.prepare(edits, &env.documents()) {
                Ok(prepared) => Ok(Some(prepared)),
                Err(error) => Err(failure(Refusal::Failed, error.to_string())),
            }
        } else {
            Ok(None)
        };
        let (result, prepared) = match (result, prepared) {
            (Ok(value), Ok(prepared)) => (Ok(value), prepared),
            (Err(failure), _) | (Ok(_), Err(failure)) => (Err(failure), None),
        };
        let (ending, output, outcome) = match result {
            Ok(value) => {
                let digest = keyed_digest(env.addressing_key, &value);
                let outcome = Outcome::Value { value, labels: execution.labels.clone() };
                (Ending::Done, Some(digest), outcome)
            }
            Err(failure) => (ending_of(failure.refusal), None, Outcome::Failed(failure)),
        };
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
        let executed = Executed {
            epoch: execution.offer.attempt.epoch,
            outcome: Some(outcome.clone()),
            documents,
        };
        writes.push(write_executed(&execution.offer.attempt, &executed));
        let effect = execution.offer.effect.max(execution.capability.effect);
        let durability = if writes_something { Durability::Synced } else { durability_of(effect) };
        let ticket = prepared.map(|prepared| {
            execution.wrote = executed.documents;
            writes.extend(prepared.writes);
            prepared.ticket
        });
        execution.phase = Phase::Committing(outcome);
        self.outputs.push(ExecutorOutput::Persist(
            Batch { writes, durability },
            Persisting::Outcome(key.0, key.1.clone(), ticket),
        ));
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
    pub fn child_concluded(&mut self, execution: ExecutionId, call: CallId, outcome: Outcome) {
        let Some(it) = self.by_id.get(&execution).and_then(|key| self.executions.get_mut(key))
        else {
            return;
        };
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

fn executed_row(attempt: &Attempt) -> Row {
    let scope = [b"executed:", attempt.run.as_bytes().as_slice()].concat();
    Row::named(Table::Run, &scope, attempt.step.to_string().as_bytes())
}

fn write_executed(attempt: &Attempt, executed: &Executed) -> Write {
    Write::Put(executed_row(attempt), codec::encode(executed))
}

fn read_executed(attempt: &Attempt, env: &Env<'_>) -> Result<Option<Executed>, ReadError> {
    let Some(bytes) = env.rows.get(&executed_row(attempt))? else { return Ok(None) };
    codec::decode(&bytes, EXECUTED_BYTES_MAX)
        .map(Some)
        .map_err(|error| ReadError { table: Table::Run, why: error.to_string() })
}

fn failure(refusal: Refusal, reason: impl Into<String>) -> Failure {
    Failure { refusal, reason: reason.into() }
}

const fn error(refusal: Refusal, reason: String) -> HostError {
    HostError { refusal, reason }
}

const fn edited(edit: &Edit) -> DocumentId {
    match edit {
        Edit::Create { id, .. } | Edit::Update { id, .. } | Edit::Delete { id } => *id,
    }
}

/// How a failed step stands in the chain.
pub(crate) const fn ending_of(refusal: Refusal) -> Ending {
    match refusal {
        Refusal::Denied => Ending::Denied,
        Refusal::Cancelled => Ending::Cancelled,
        Refusal::NotFound | Refusal::Invalid | Refusal::Failed => Ending::Failed,
    }
}

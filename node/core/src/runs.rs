//! Runs of this device: a plan carried out step by step, journaled, with a view for other devices.
//!
//! Steps start as soon as those that they depend on have ended well, so independent ones run side by
//! side. The journal is rows of the store, written in the same batch as what it tells of; the view is
//! a document of kind `run`, written at the start and the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft_protocol::{
    document::DocumentKind,
    graph::{Argument, Label, Plan, Step, StepId, StepIndex},
    host_call::Refusal,
    id::{DeviceId, DocumentId, RunId},
    manifest::{EffectClass, JsonType},
    row::{Durability, ReadError, Write},
    run::{Attempt, Failure, Journal, Outcome, RunState},
    time::WallTime,
    value::Value,
};

use crate::{
    dispatch::{Requester, Task, Tried},
    door::{DoorId, RunView},
    env::{Batch, Env, durability_of},
    placement,
    replica::{self, Edit},
};

mod journal;

pub use journal::read_journal;
pub(crate) use journal::read_with;

/// How long a step may take: a model on a phone needs minutes for a long text.
const STEP_DEADLINE: Duration = Duration::from_secs(600);

/// What a person asks to be carried out.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// What was said.
    pub words: String,
    /// What it means.
    pub plan: Plan,
    /// The files that the words name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The asking device's local time.
    pub local_time: String,
    /// Its time zone.
    pub time_zone: String,
    /// Whether a person can be asked at the door.
    pub can_ask: bool,
    /// The device that each named step is bound to.
    pub named: BTreeMap<StepIndex, DeviceId>,
}

/// What the machine wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum RunsOutput {
    /// Persist, then come back with [`Runs::persisted`].
    Persist(Batch, Persisting),
    /// Carry out a step.
    Dispatch {
        /// What.
        task: Box<Task>,
        /// How it was tried before this start of the node.
        tried: Option<Tried>,
    },
    /// Write into the journal of a run, at the latest with its end.
    Journal(Write),
    /// Stop what is under way.
    CancelTasks(RunId),
    /// The run and its first entry are persisted.
    Started(Option<DoorId>, RunId),
    /// The run could not be started.
    NotStarted(Option<DoorId>, String),
    /// The run ended, and that is persisted.
    Ended {
        /// The door that asked.
        door: Option<DoorId>,
        /// Which.
        run: RunId,
        /// How.
        state: RunState,
        /// What the steps that nothing else takes gave.
        outputs: Vec<(StepIndex, Value)>,
        /// Why it did not end well.
        failure: Option<String>,
        /// Documents that the run may have written.
        wrote: bool,
        /// The devices that were asked for its steps.
        asked: BTreeSet<DeviceId>,
    },
}

/// What follows a persisted batch.
#[derive(Clone, PartialEq, Debug)]
pub enum Persisting {
    /// The run's start.
    Start(RunId, replica::Ticket),
    /// The run's end.
    Finish(RunId, Option<replica::Ticket>),
}

#[derive(Debug)]
enum StepState {
    Waiting,
    UnderWay,
    Ended(Outcome),
}

#[derive(Debug)]
struct Run {
    door: Option<DoorId>,
    request: Request,
    started: WallTime,
    steps: BTreeMap<StepIndex, StepState>,
    entries: u64,
    /// The devices that were asked for its steps.
    asked: BTreeSet<DeviceId>,
    cancelled: bool,
    finished: Option<RunState>,
    /// Why its end is not on the disk.
    left_open: Option<String>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Runs {
    runs: BTreeMap<RunId, Run>,
    outputs: Vec<RunsOutput>,
}

impl Runs {
    /// What is to be done, in order.
    pub fn poll_outputs(&mut self) -> Vec<RunsOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// Runs under way.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether no run is under way.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether a run of that id is under way.
    pub fn contains(&self, run: &RunId) -> bool {
        self.runs.contains_key(run)
    }

    /// The door that watches a run.
    pub fn door(&self, run: &RunId) -> Option<DoorId> {
        self.runs.get(run).and_then(|run| run.door)
    }

    /// The runs under way.
    pub fn open(&self) -> impl Iterator<Item = RunId> {
        self.runs.keys().copied()
    }

    /// A door is gone; its runs go on. Gives which.
    pub fn door_closed(&mut self, door: DoorId) -> BTreeSet<RunId> {
        let mut its = BTreeSet::new();
        for (id, run) in self.runs.iter_mut().filter(|(_, run)| run.door == Some(door)) {
            run.door = None;
            run.request.can_ask = false;
            its.insert(*id);
        }
        its
    }

    /// Starts a run under an id that was drawn for it.
    pub fn start(&mut self, run: RunId, door: Option<DoorId>, request: Request, env: &mut Env<'_>) {
        let missing = request
            .plan
            .steps
            .iter()
            .flat_map(paths)
            .find(|path| !request.files.contains_key(path.as_str()));
        if let Some(path) = missing {
            let why = format!("the file {path} was not handed over");
            self.outputs.push(RunsOutput::NotStarted(door, why));
            return;
        }
        let started = Journal::Started {
            words: request.words.clone(),
            plan: request.plan.clone(),
            time: env.now.wall,
            local_time: request.local_time.clone(),
            time_zone: request.time_zone.clone(),
        };
        let view = view_of(&request.words, RunState::Running, &env.me, env.now.wall, None);
        let create = Edit::Create { id: document_id(run), kind: DocumentKind::RUN, content: view };
        let prepared = match env.replica.prepare(vec![create], &env.documents()) {
            Ok(prepared) => prepared,
            Err(error) => {
                self.outputs.push(RunsOutput::NotStarted(door, error.to_string()));
                return;
            }
        };
        let steps =
            request.plan.steps.iter().map(|step| (step.index, StepState::Waiting)).collect();
        let mut state = Run {
            door,
            request,
            started: env.now.wall,
            steps,
            entries: 0,
            asked: BTreeSet::new(),
            cancelled: false,
            finished: None,
            left_open: None,
        };
        let mut writes = prepared.writes;
        writes.extend([state.entry(run, &started), journal::open(run)]);
        self.runs.insert(run, state);
        self.outputs.push(RunsOutput::Persist(
            Batch { writes, durability: Durability::Synced },
            Persisting::Start(run, prepared.ticket),
        ));
    }

    /// Takes up the runs that a start of this node before this one left unfinished. Gives what could not
    /// be read of them.
    ///
    /// # Errors
    ///
    /// Which runs are open cannot be read.
    pub fn resume(&mut self, env: &mut Env<'_>) -> Result<Vec<String>, ReadError> {
        let mut unreadable = Vec::new();
        for open in journal::open_runs(env.rows)? {
            let run = open.run;
            let found = journal::find(run, env.rows);
            let say = |error: &ReadError| format!("of run {}, {error}", run.short());
            unreadable.extend(found.unreadable.iter().map(say));
            self.take_up(open, found, env);
        }
        Ok(unreadable)
    }

    /// Of a run that was stopped only the steps that were offered are taken up, to be stopped too.
    fn take_up(&mut self, open: journal::Open, found: journal::Found, env: &mut Env<'_>) {
        let journal::Open { run, stopped } = open;
        let mut tried: BTreeMap<StepIndex, Tried> = BTreeMap::new();
        let mut taken_up: Option<Run> = None;
        let unreadable = !found.unreadable.is_empty();
        for entry in found.entries {
            match (entry, &mut taken_up) {
                (Journal::Started { words, plan, time, local_time, time_zone }, it @ None) => {
                    let steps =
                        plan.steps.iter().map(|step| (step.index, StepState::Waiting)).collect();
                    let named = named(&plan, env);
                    let files = BTreeMap::new();
                    let request = Request {
                        words,
                        plan,
                        files,
                        local_time,
                        time_zone,
                        can_ask: false,
                        named,
                    };
                    *it = Some(Run {
                        door: None,
                        request,
                        started: time,
                        steps,
                        entries: found.next,
                        asked: BTreeSet::new(),
                        cancelled: stopped,
                        finished: None,
                        left_open: None,
                    });
                }
                (Journal::Offered { attempt, executor, intent, .. }, Some(it)) => {
                    it.asked.insert(executor);
                    if attempt.step.0.len() == 1 {
                        let Attempt { step, epoch, .. } = attempt;
                        let effect = it.effect(step.root());
                        let acknowledged = false;
                        let new = Tried { epoch, executor, intent, effect, acknowledged, stopped };
                        tried.insert(step.root(), new);
                    }
                }
                (Journal::IntentKnown { attempt }, Some(_)) if attempt.step.0.len() == 1 => {
                    if let Some(tried) = tried.get_mut(&attempt.step.root()) {
                        tried.acknowledged |= tried.epoch == attempt.epoch;
                    }
                }
                (Journal::Ended { attempt, outcome, .. }, Some(it))
                    if attempt.step.0.len() == 1 =>
                {
                    it.steps.insert(attempt.step.root(), StepState::Ended(outcome));
                }
                (Journal::Finished { .. }, _) => return,
                (
                    Journal::Started { .. }
                    | Journal::Offered { .. }
                    | Journal::IntentKnown { .. }
                    | Journal::Ended { .. }
                    | Journal::Logged { .. },
                    _,
                ) => {}
            }
        }
        let Some(mut it) = taken_up else {
            // Without its beginning nothing of it can go on; its view says so.
            self.lose(run, found.next, env);
            return;
        };
        if unreadable {
            // What can't be read may have told of any step that has no end.
            for step in &it.request.plan.steps {
                let open = !matches!(it.steps.get(&step.index), Some(StepState::Ended(_)));
                if open && step.effect > EffectClass::ReadOnly {
                    it.steps.insert(step.index, StepState::Ended(Outcome::Uncertain));
                }
            }
        }
        for step in it.request.plan.steps.iter().filter(|step| step.device.is_some()) {
            if let Some(tried) = tried.get(&step.index) {
                it.request.named.entry(step.index).or_insert(tried.executor);
            }
        }
        self.runs.insert(run, it);
        self.advance_with(run, &tried, env);
    }

    /// Ends a run whose beginning can't be read.
    fn lose(&mut self, run: RunId, entries: u64, env: &mut Env<'_>) {
        let state = RunState::Uncertain;
        let finished = Journal::Finished { state, time: env.now.wall };
        let mut writes = vec![journal::entry(run, entries, &finished), journal::close(run)];
        let content = Value::map([
            ("state", Value::from(state.word())),
            ("ended", Value::Int(env.now.wall.unix_millis())),
        ]);
        let update = Edit::Update { id: document_id(run), content };
        let ticket = env.replica.prepare(vec![update], &env.documents()).ok().map(|prepared| {
            writes.extend(prepared.writes);
            prepared.ticket
        });
        self.outputs
            .push(RunsOutput::Persist(Batch::ordered(writes), Persisting::Finish(run, ticket)));
    }

    /// A journal entry of a run of this device, to be written with what it tells of.
    pub fn journal(&mut self, run: &RunId, entry: &Journal) -> Option<Write> {
        let it = self.runs.get_mut(run)?;
        if let Journal::Offered { executor, .. } = entry {
            it.asked.insert(*executor);
        }
        Some(it.entry(*run, entry))
    }

    /// A batch is persisted.
    pub fn persisted(&mut self, what: Persisting, env: &mut Env<'_>) {
        match what {
            Persisting::Start(run, ticket) => {
                env.committed(ticket);
                let door = self.door(&run);
                self.outputs.push(RunsOutput::Started(door, run));
                self.advance(run, env);
            }
            Persisting::Finish(run, ticket) => {
                if let Some(ticket) = ticket {
                    env.committed(ticket);
                }
                self.finished(run);
            }
        }
    }

    /// A batch could not be persisted. `is_nowhere`: it is on no disk; else the next start may find it.
    ///
    /// What the next start takes up again is told as uncertain, whatever its steps came to here: it is done then.
    pub fn persist_failed(
        &mut self,
        what: Persisting,
        reason: &str,
        is_nowhere: bool,
        env: &mut Env<'_>,
    ) {
        match what {
            Persisting::Start(run, ticket) => {
                env.aborted(ticket);
                if is_nowhere {
                    let door = self.runs.remove(&run).and_then(|run| run.door);
                    let why = format!("the disk took nothing: {reason}");
                    self.outputs.push(RunsOutput::NotStarted(door, why));
                } else {
                    let door = self.door(&run);
                    self.outputs.push(RunsOutput::Started(door, run));
                    self.left_open(run, reason);
                }
            }
            Persisting::Finish(run, ticket) => {
                if let Some(ticket) = ticket {
                    env.aborted(ticket);
                }
                match self.runs.get(&run).and_then(|run| run.finished) {
                    // All that it did is kept; the next start takes it up and finds that.
                    Some(RunState::Done) => self.finished(run),
                    Some(_) | None => self.left_open(run, reason),
                }
            }
        }
    }

    /// Ends a run here that the disk may have as one that goes on.
    fn left_open(&mut self, id: RunId, reason: &str) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.finished = Some(RunState::Uncertain);
        run.left_open = Some(format!("{reason}; when weft starts anew it may be done after all"));
        self.finished(id);
    }

    fn finished(&mut self, id: RunId) {
        let Some(run) = self.runs.remove(&id) else { return };
        let Some(state) = run.finished else { return };
        let taken: BTreeSet<StepIndex> =
            run.request.plan.steps.iter().flat_map(Step::dependencies).collect();
        let mut outputs = Vec::new();
        let mut failure = run.left_open;
        for (index, step) in &run.steps {
            match step {
                StepState::Ended(Outcome::Value { value, .. }) if !taken.contains(index) => {
                    outputs.push((*index, value.clone()));
                }
                StepState::Ended(Outcome::Failed(why)) if failure.is_none() => {
                    failure = Some(why.reason.clone());
                }
                StepState::Ended(Outcome::Uncertain) if failure.is_none() => {
                    failure = Some("whether it happened is not known".to_owned());
                }
                StepState::Ended(_) | StepState::Waiting | StepState::UnderWay => {}
            }
        }
        let effect = run.request.plan.steps.iter().map(|step| step.effect).max();
        self.outputs.push(RunsOutput::Ended {
            door: run.door,
            run: id,
            state,
            outputs,
            failure,
            wrote: effect >= Some(EffectClass::Idempotent),
            asked: run.asked,
        });
    }

    /// A step of a run ended.
    pub fn step_ended(&mut self, run: RunId, step: &StepId, outcome: Outcome, env: &mut Env<'_>) {
        let Some(state) = self.runs.get_mut(&run) else { return };
        state.steps.insert(step.root(), StepState::Ended(outcome));
        self.advance(run, env);
    }

    /// Stops a run. Gives what must be on the disk before anybody is told that it is stopped; `None`:
    /// there is no such run.
    pub fn cancel(&mut self, run: RunId, env: &mut Env<'_>) -> Option<Batch> {
        let state = self.runs.get_mut(&run)?;
        state.cancelled = true;
        // A run whose end is being persisted is off the index, and stays off.
        let mark = state.finished.is_none().then(|| journal::stop(run));
        self.outputs.push(RunsOutput::CancelTasks(run));
        self.advance(run, env);
        Some(Batch::synced(mark.into_iter().collect()))
    }

    fn advance(&mut self, run: RunId, env: &mut Env<'_>) {
        self.advance_with(run, &BTreeMap::new(), env);
    }

    /// Starts what can start, and ends the run when nothing is under way any more.
    fn advance_with(&mut self, id: RunId, tried: &BTreeMap<StepIndex, Tried>, env: &mut Env<'_>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.finished.is_some() {
            return;
        }
        for step in run.ready() {
            let tried = tried.get(&step.index).copied();
            if run.cancelled && tried.is_none() {
                continue;
            }
            match run.task(id, &step, env) {
                Ok(task) => {
                    run.steps.insert(step.index, StepState::UnderWay);
                    let task = Box::new(task);
                    self.outputs.push(RunsOutput::Dispatch { task, tried });
                }
                Err(failure) => {
                    let outcome = if tried.is_some_and(|tried| tried.may_have_acted()) {
                        Outcome::Uncertain
                    } else {
                        Outcome::Failed(failure)
                    };
                    let attempt = Attempt {
                        owner: env.me,
                        run: id,
                        step: step.index.into(),
                        above: Vec::new(),
                        epoch: tried.map_or(1, |tried| tried.epoch),
                    };
                    let time = env.now.wall;
                    let ended = Journal::Ended { attempt, outcome: outcome.clone(), time };
                    self.outputs.push(RunsOutput::Journal(run.entry(id, &ended)));
                    run.steps.insert(step.index, StepState::Ended(outcome));
                }
            }
        }
        if run.steps.values().any(|step| matches!(step, StepState::UnderWay)) {
            return;
        }
        let state = run.conclusion();
        run.finished = Some(state);
        let finished = Journal::Finished { state, time: env.now.wall };
        let mut writes = vec![run.entry(id, &finished), journal::close(id)];
        let content = view_of(&run.request.words, state, &env.me, run.started, Some(env.now.wall));
        let update = Edit::Update { id: document_id(id), content };
        // A view that can't be written is no reason to lose the run's end.
        let ticket = env.replica.prepare(vec![update], &env.documents()).ok().map(|prepared| {
            writes.extend(prepared.writes);
            prepared.ticket
        });
        // What did not happen must not happen after it was said, though the power goes then.
        let durability = match state {
            RunState::Failed | RunState::Cancelled => run.durability(),
            RunState::Done | RunState::Uncertain | RunState::Running => Durability::Ordered,
        };
        let batch = Batch { writes, durability };
        self.outputs.push(RunsOutput::Persist(batch, Persisting::Finish(id, ticket)));
    }
}

impl Run {
    fn entry(&mut self, run: RunId, entry: &Journal) -> Write {
        let number = self.entries;
        self.entries += 1;
        journal::entry(run, number, entry)
    }

    /// That of what its steps may do.
    fn durability(&self) -> Durability {
        let effect = self.request.plan.steps.iter().map(|step| step.effect).max();
        durability_of(effect.unwrap_or(EffectClass::Pure))
    }

    fn effect(&self, index: StepIndex) -> EffectClass {
        let step = self.request.plan.steps.iter().find(|step| step.index == index);
        step.map_or(EffectClass::AtMostOnce, |step| step.effect)
    }

    /// The steps that wait for nothing any more.
    fn ready(&self) -> Vec<Step> {
        let done = |index: &StepIndex| {
            matches!(self.steps.get(index), Some(StepState::Ended(Outcome::Value { .. })))
        };
        self.request
            .plan
            .steps
            .iter()
            .filter(|step| matches!(self.steps.get(&step.index), Some(StepState::Waiting)))
            .filter(|step| step.dependencies().iter().all(done))
            .cloned()
            .collect()
    }

    /// How it ended. What a person stopped too late is done, and what may have happened is uncertain.
    fn conclusion(&self) -> RunState {
        let outcomes = self.steps.values();
        if outcomes.clone().any(|step| matches!(step, StepState::Ended(Outcome::Uncertain))) {
            return RunState::Uncertain;
        }
        if outcomes.clone().all(|step| matches!(step, StepState::Ended(Outcome::Value { .. }))) {
            return RunState::Done;
        }
        if self.cancelled { RunState::Cancelled } else { RunState::Failed }
    }

    fn task(&self, run: RunId, step: &Step, env: &Env<'_>) -> Result<Task, Failure> {
        let named = self.request.named.get(&step.index).copied();
        if let (Some(word), None) = (&step.device, named) {
            let reason = format!("which device {word:?} means is not known any more");
            return Err(Failure { refusal: Refusal::NotFound, reason });
        }
        let mut labels = BTreeSet::new();
        let mut arguments = BTreeMap::new();
        let mut only_here = None;
        for (name, argument) in &step.arguments {
            let value = match argument {
                Argument::Literal(value) => value.clone(),
                Argument::Output(index) => {
                    let Some(StepState::Ended(Outcome::Value { value, labels: from })) =
                        self.steps.get(index)
                    else {
                        return Err(invalid(format!("step {index} gave nothing")));
                    };
                    labels.extend(from.iter().copied());
                    fit(value, step, name, env)
                }
                Argument::Path(path) => {
                    let bytes = self.request.files.get(path).ok_or_else(|| {
                        invalid(format!(
                            "the file {path} is no longer at hand since the node was started anew"
                        ))
                    })?;
                    labels.insert(Label::Private);
                    only_here = Some("its file is on this device");
                    file(path, bytes.clone())
                }
            };
            arguments.insert(name.clone(), value);
        }
        Ok(Task {
            run,
            step: step.index.into(),
            owner: env.me,
            above: Vec::new(),
            capability: step.capability.clone(),
            arguments: Value::Map(arguments),
            labels,
            named,
            only_here,
            requester: Requester::Run,
            callers: Vec::new(),
            ends: env.now.mono + STEP_DEADLINE,
            local_time: self.request.local_time.clone(),
            time_zone: self.request.time_zone.clone(),
            can_ask: self.request.can_ask,
        })
    }
}

/// The devices that a plan's words name, as far as each still names one.
fn named(plan: &Plan, env: &Env<'_>) -> BTreeMap<StepIndex, DeviceId> {
    let subjects: Vec<_> = env.neighbours.iter().map(|it| it.subject.clone()).collect();
    plan.steps
        .iter()
        .filter_map(|step| {
            let word = step.device.as_deref()?;
            Some((step.index, placement::device_named(&subjects, word).ok()?))
        })
        .collect()
}

/// A file as an argument: its name as said, and its bytes.
pub fn file(name: &str, bytes: Vec<u8>) -> Value {
    Value::map([("name", Value::from(name)), ("bytes", Value::Bytes(bytes))])
}

/// An output as the taking step's schema wants it: where text is wanted, a map gives its `text`.
fn fit(value: &Value, step: &Step, name: &str, env: &Env<'_>) -> Value {
    let wants_text = env
        .registry
        .provider(&step.capability)
        .and_then(|(_, capability)| capability.arguments.properties.get(name))
        .is_some_and(|property| property.json_type == JsonType::String);
    if !wants_text || value.as_text().is_some() {
        return value.clone();
    }
    match value.get("text") {
        Some(text) => text.clone(),
        None => Value::Text(value.to_string()),
    }
}

fn invalid(reason: String) -> Failure {
    Failure { refusal: Refusal::Invalid, reason }
}

/// The paths that a step names.
pub fn paths(step: &Step) -> impl Iterator<Item = &String> {
    step.arguments.values().filter_map(|argument| match argument {
        Argument::Path(path) => Some(path),
        Argument::Literal(_) | Argument::Output(_) => None,
    })
}

/// The document that shows a run.
pub const fn document_id(run: RunId) -> DocumentId {
    DocumentId::from_bytes(*run.as_bytes())
}

fn view_of(
    words: &str,
    state: RunState,
    owner: &DeviceId,
    started: WallTime,
    ended: Option<WallTime>,
) -> Value {
    Value::map([
        ("words", Value::from(words)),
        ("state", Value::from(state.word())),
        ("owner", Value::Text(owner.to_string())),
        ("started", Value::Int(started.unix_millis())),
        ("ended", ended.map_or(Value::Null, |ended| Value::Int(ended.unix_millis()))),
    ])
}

/// The run that a document shows.
pub fn view(
    id: DocumentId,
    content: &Value,
    name: impl Fn(&DeviceId) -> String,
) -> Option<RunView> {
    let time = |field| Some(WallTime::from_unix_millis(content.get(field)?.as_int()?));
    Some(RunView {
        run: RunId::from_bytes(*id.as_bytes()),
        words: content.get("words")?.as_text()?.to_owned(),
        state: content.get("state")?.as_text()?.parse().ok()?,
        owner: name(&content.get("owner")?.as_text()?.parse().ok()?),
        started: time("started")?,
        ended: time("ended"),
    })
}

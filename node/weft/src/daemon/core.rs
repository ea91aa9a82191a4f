//! The node's loop: the one task that owns the core, and carries out what it wants.
//!
//! It runs on a thread of its own, since reading rows blocks. What comes in: batches that are
//! persisted, then steps and doors, then the network. Nothing that it waits for waits for it: the
//! network always takes commands, the writer only waits for its disk, and a door or a step that does
//! not take its answer is let go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    task::AbortHandle,
};
use weft_api::{
    DoorInput, DoorMessage, ErrorKind, Keys, ModelView, PlanView, Problem, Request, Say, ShellView,
};
use weft_core::{
    Context, Input, Node, Output, Ticket,
    door::{Command, DoorId, Event, Reply},
    executor::{CallId, ExecutionId},
    links::StreamId,
};
use weft_engine::Rules;
use weft_host::Host;
use weft_intent::Unclear;
use weft_llm::{Llm, LlmState, Speeds};
use weft_net::{NetHandle, Reach, Turn};
use weft_protocol::{presence::ModelReady, row::Durability};
use weft_store::{Batch, Store, WriteError, Writer};

use super::{
    agents::{self, Answer, FromStep, Step},
    clock, contact, lock,
    machine::Readings,
    pages::{self, Pages},
    pairing::Endpoint,
    rest::{self, Rest, Rested},
    rotate::Key,
    speeds,
    words::{Meaning, Words, not_understood},
};

/// The loop wakes at least so often, so that a wall clock that was set shows.
const WAKE_AT_LEAST: Duration = Duration::from_secs(30);

/// The parts that the loop joins.
pub(super) struct Parts {
    pub(super) node: Node,
    pub(super) rules: Rules,
    pub(super) store: Arc<Store>,
    pub(super) net: NetHandle,
    pub(super) host: Host,
    pub(super) llm: Llm,
    pub(super) model: ModelFile,
    pub(super) readings: Readings,
    /// Why no child can be walled in on this system.
    pub(super) wall_failure: Option<String>,
    pub(super) pages: Pages,
    pub(super) rests_apart: Duration,
    pub(super) reach: Reach,
    pub(super) keys: Keys,
    /// Tells the process to end as a keyed one, and to begin anew without keys.
    pub(super) lock: mpsc::Sender<()>,
    pub(super) key: Key,
    /// Tells the process to begin anew under the next key.
    pub(super) rotated: mpsc::Sender<()>,
    pub(super) handle: Handle,
}

/// What comes into the loop.
pub(super) struct Inboxes {
    pub(super) doors: mpsc::Receiver<DoorInput>,
    pub(super) net: mpsc::Receiver<weft_net::Event>,
    pub(super) stop: mpsc::Receiver<()>,
}

/// The file of the model.
#[derive(Clone, Debug)]
pub(super) struct ModelFile {
    pub(super) name: String,
    pub(super) path: std::path::PathBuf,
}

/// How long the network has to close its connections: a little more than it takes at worst.
const STOP_TIME: Duration = Duration::from_secs(2);

/// Steps and pairing connections that wait for the loop.
const STEPS_WAITING: usize = 256;

struct Core {
    node: Node,
    words: Words,
    rules: Rules,
    store: Arc<Store>,
    writer: Writer,
    persisted: std_mpsc::Sender<(Ticket, Result<(), WriteError>)>,
    completions: std_mpsc::Receiver<(Ticket, Result<(), WriteError>)>,
    wake: Arc<Notify>,
    net: NetHandle,
    /// What the network is told when this turn of the loop is over.
    turn: Turn,
    host: Host,
    llm: Llm,
    model: ModelFile,
    speeds_told: Speeds,
    readings: Readings,
    wall_failure: Option<String>,
    rest: Rest,
    pages: Pages,
    reach: Reach,
    keys: Keys,
    lock: mpsc::Sender<()>,
    key: Key,
    rotated: mpsc::Sender<()>,
    handle: Handle,
    steps: mpsc::Sender<FromStep>,
    executions: BTreeMap<ExecutionId, AbortHandle>,
    calls: BTreeMap<(ExecutionId, CallId), Answer>,
    next_call: u64,
    endpoints: BTreeMap<u64, Endpoint>,
    doors: BTreeMap<DoorId, DoorState>,
    watchers: BTreeSet<DoorId>,
}

/// A conversation with a door.
struct DoorState {
    answers: mpsc::Sender<DoorMessage>,
    /// The plan whose explanation is awaited.
    plan: Option<PlanView>,
}

/// Runs until it is told to stop, then hands the store back.
pub(super) async fn run(parts: Parts, mut inboxes: Inboxes) -> Arc<Store> {
    let (persisted, completions) = std_mpsc::channel();
    let (steps, mut from_steps) = mpsc::channel(STEPS_WAITING);
    let wake = Arc::new(Notify::new());
    let Parts {
        node,
        rules,
        store,
        net,
        host,
        llm,
        model,
        readings,
        wall_failure,
        pages,
        rests_apart,
        reach,
        keys,
        lock,
        key,
        rotated,
        handle,
    } = parts;
    let mut core = Core {
        words: Words::new(&node),
        node,
        rules,
        writer: store.writer(),
        store,
        persisted,
        completions,
        wake: wake.clone(),
        net,
        turn: Turn::default(),
        host,
        speeds_told: llm.status().speeds,
        llm,
        model,
        readings,
        wall_failure,
        rest: Rest::after_start(clock::now().mono, rests_apart),
        pages,
        reach,
        keys,
        lock,
        key,
        rotated,
        handle,
        steps,
        executions: BTreeMap::new(),
        calls: BTreeMap::new(),
        next_call: 0,
        endpoints: BTreeMap::new(),
        doors: BTreeMap::new(),
        watchers: BTreeSet::new(),
    };
    core.carry_out().await;
    if let Some(why) = core.wall_failure.clone() {
        core.feed(Input::NoWall { why }).await;
    }
    core.look_for_model().await;
    core.read_machine().await;
    loop {
        let now = clock::now();
        let sleep = match core.node.poll_timeout(now) {
            Some((at, _)) => at.since(now.mono).min(WAKE_AT_LEAST),
            None => WAKE_AT_LEAST,
        };
        let sleep = core.rest.at(core.is_idle()).map_or(sleep, |at| at.since(now.mono).min(sleep));
        tokio::select! {
            biased;
            _ = inboxes.stop.recv() => break,
            () = wake.notified() => core.carry_out().await,
            Some(from) = from_steps.recv() => core.on_step(from).await,
            Some(input) = inboxes.doors.recv() => core.on_door(input).await,
            event = inboxes.net.recv() => match event {
                Some(event) => core.on_net(event).await,
                None => break,
            },
            () = tokio::time::sleep(sleep) => core.on_timeout().await,
        }
    }
    let store = core.stop().await;
    // Others hear at once that this node goes, where the network has the time to say so; its events end last.
    let ended = async { while inboxes.net.recv().await.is_some() {} };
    if tokio::time::timeout(STOP_TIME, ended).await.is_err() {
        tracing::debug!("the network did not end in time");
    }
    store
}

impl Core {
    /// Hands an input to the core, and carries out what it wants.
    async fn feed(&mut self, input: Input) {
        let context = Context { now: clock::now(), rows: self.store.as_ref(), policy: &self.rules };
        self.node.handle_input(input, context);
        self.carry_out().await;
    }

    /// Whether neither a person nor an agent waits for anything here. Who only watches does not.
    fn is_idle(&self) -> bool {
        self.executions.is_empty() && self.doors.keys().all(|door| self.watchers.contains(door))
    }

    async fn on_timeout(&mut self) {
        self.read_machine().await;
        if let Some(from) = self.rest.begins(clock::now().mono, self.is_idle()) {
            self.pages.give_back();
            if from == Rested::Work {
                pages::trim();
            }
        }
        let context = Context { now: clock::now(), rows: self.store.as_ref(), policy: &self.rules };
        self.node.handle_timeout(context);
        self.carry_out().await;
    }

    async fn on_step(&mut self, from: FromStep) {
        self.rest.worked(clock::now().mono);
        match from {
            FromStep::Call(execution, request) => {
                self.next_call += 1;
                let call = CallId(self.next_call);
                self.calls.insert((execution, call), request.reply);
                self.feed(Input::HostCall { execution, call, request: request.call }).await;
            }
            FromStep::Input(input) => {
                if let Input::Executed { execution, .. } = &input {
                    self.executions.remove(execution);
                    self.calls.retain(|(of, _), _| of != execution);
                }
                let may_move_speed = matches!(input, Input::Executed { .. });
                let is_wall_missed = if let Input::NoWall { why } = &input {
                    self.wall_failure = Some(why.clone());
                    true
                } else {
                    false
                };
                self.feed(input).await;
                if is_wall_missed {
                    self.look_for_model().await;
                }
                if may_move_speed {
                    self.tell_speeds().await;
                }
            }
        }
    }

    async fn on_net(&mut self, event: weft_net::Event) {
        use weft_net::Event as Net;
        let spoken = if let Net::Frame { stream, .. } = &event {
            self.node.spoken_on(StreamId(stream.0))
        } else {
            None
        };
        if rest::is_work(&event, spoken) {
            self.rest.worked(clock::now().mono);
        } else {
            self.rest.passed(clock::now().mono);
        }
        let input = match event {
            Net::Listening { addresses } => {
                self.readings.network_changed();
                Input::Listening { addresses }
            }
            Net::Sighted { device, addresses } => Input::Sighted { device, addresses },
            Net::Connected { device, address, .. } => Input::Connected { device, address },
            Net::Disconnected { device, .. } => Input::Disconnected { device },
            Net::StreamOpened { stream, device, protocol, .. } => {
                Input::StreamOpened { stream: StreamId(stream.0), device, protocol }
            }
            Net::Frame { stream, bytes } => Input::Frame { stream: StreamId(stream.0), bytes },
            Net::Moving { stream } => Input::Moving { stream: StreamId(stream.0) },
            Net::StreamClosed { stream, .. } => Input::StreamClosed { stream: StreamId(stream.0) },
            Net::RoundTrip { device, rtt } => Input::RoundTrip {
                device,
                micros: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
            },
            Net::DialFailed { device, reason } => {
                tracing::debug!(%device, %reason, "a device was not reached");
                Input::DialFailed { device, attempts: contact::attempts(reason) }
            }
            Net::Reach(report) => Input::Reach(report),
            Net::StrangerTurnedAway { address, why } => {
                tracing::debug!(address, %why, "a stranger was turned away");
                Input::StrangerTurnedAway
            }
        };
        self.feed(input).await;
    }

    async fn on_door(&mut self, input: DoorInput) {
        self.rest.worked(clock::now().mono);
        match input {
            DoorInput::Asked { door, request, answers } => {
                self.doors.insert(door, DoorState { answers, plan: None });
                match request {
                    Request::Core(command) => {
                        if command == Command::Watch {
                            self.watchers.insert(door);
                        }
                        self.feed(Input::Command { door, command }).await;
                    }
                    Request::Say(say) => self.say(door, say).await,
                    Request::Models => {
                        let models = self.models();
                        self.tell(door, DoorMessage::Models(models), true).await;
                    }
                    Request::ModelChanged => {
                        self.look_for_model().await;
                        self.tell(door, DoorMessage::Reply(Reply::Done), true).await;
                    }
                    Request::Rotate => self.rotate(door).await,
                    Request::Lock => {
                        let message = match lock::refusal(self.keys) {
                            Some(problem) => DoorMessage::Error(problem),
                            None => {
                                // Whoever asks a second time is too late.
                                self.lock.try_send(()).ok();
                                DoorMessage::Reply(Reply::Done)
                            }
                        };
                        self.tell(door, message, true).await;
                    }
                    Request::Unlock(_) => {
                        let problem = Problem::new(ErrorKind::Usage, "this device is not locked");
                        self.tell(door, DoorMessage::Error(problem), true).await;
                    }
                }
            }
            DoorInput::Closed { door } => self.door_closed(door).await,
        }
    }

    /// Draws the next key and has the core say it; the answer is the core's.
    async fn rotate(&mut self, door: DoorId) {
        let context = Context { now: clock::now(), rows: self.store.as_ref(), policy: &self.rules };
        if let Err((refusal, reason)) = self.node.may_rotate(context) {
            return self.reply(door, Reply::Refused { refusal, reason }).await;
        }
        match self.key.propose() {
            Ok(next) => self.feed(Input::Rotate { door, next: Box::new(next) }).await,
            Err(error) => {
                let problem = Problem::new(ErrorKind::Other, format!("failed to {error}"));
                self.tell(door, DoorMessage::Error(problem), true).await;
            }
        }
    }

    async fn door_closed(&mut self, door: DoorId) {
        self.watchers.remove(&door);
        if self.doors.remove(&door).is_some() {
            Box::pin(self.feed(Input::DoorClosed { door })).await;
        }
    }

    async fn say(&mut self, door: DoorId, say: Say) {
        let meaning = match self.words.read(&say, &self.node) {
            Ok(meaning) => meaning,
            Err(problem) => return self.tell(door, DoorMessage::Error(problem), true).await,
        };
        match meaning {
            Meaning::Plan(plan) if say.plan_only => {
                let view = Meaning::Plan(plan.clone()).view();
                if let Some(state) = self.doors.get_mut(&door) {
                    state.plan = Some(view);
                }
                let command = Command::Explain { plan };
                self.feed(Input::Command { door, command }).await;
            }
            Meaning::Plan(plan) => {
                let command = Command::Do {
                    words: say.words,
                    plan,
                    files: say.files,
                    local_time: say.local_time,
                    time_zone: say.time_zone,
                    can_ask: say.can_ask,
                };
                self.feed(Input::Command { door, command }).await;
            }
            Meaning::Nothing { why: Unclear::TooLong, .. } => {
                let problem = Problem::new(ErrorKind::Usage, "that is over 2,000 characters")
                    .hint("say less at once, or put the text into a file");
                self.tell(door, DoorMessage::Error(problem), true).await;
            }
            Meaning::Nothing { .. } if say.plan_only => {
                self.tell(door, DoorMessage::Plan(meaning.view()), true).await;
            }
            Meaning::Nothing { why, nearest } => {
                let problem = not_understood(why, &nearest);
                self.tell(door, DoorMessage::Error(problem), true).await;
            }
        }
    }

    /// Says something to a door; one that does not take it is let go.
    async fn tell(&mut self, door: DoorId, message: DoorMessage, is_last: bool) {
        let Some(state) = self.doors.get(&door) else { return };
        let taken = state.answers.try_send(message).is_ok();
        if !taken {
            self.door_closed(door).await;
        } else if is_last {
            self.doors.remove(&door);
        }
    }

    async fn reply(&mut self, door: DoorId, reply: Reply) {
        let is_last = !self.watchers.contains(&door)
            && !matches!(
                reply,
                Reply::RunStarted { .. } | Reply::Invited { .. } | Reply::InvitedByCode { .. }
            );
        let plan = self.doors.get_mut(&door).and_then(|state| state.plan.take());
        if matches!(reply, Reply::Rotated { .. }) {
            // There is one rotation at most.
            self.rotated.try_send(()).ok();
        }
        let message = match (reply, plan) {
            (Reply::Explained(explanations), Some(view)) => {
                DoorMessage::Plan(PlanView { explanations, ..view })
            }
            (Reply::Refused { refusal, reason }, Some(_)) => {
                DoorMessage::Error(Problem::new(refusal.into(), reason))
            }
            (Reply::Status(status), _) => DoorMessage::Status { status, keys: self.keys },
            (Reply::Checkup(checkup), _) => {
                DoorMessage::Checkup { checkup, shell: self.shell_view() }
            }
            (Reply::Agents(agents), _) => {
                DoorMessage::Reply(Reply::Agents(self.words.exemplify(agents)))
            }
            (reply, _) => DoorMessage::Reply(reply),
        };
        self.tell(door, message, is_last).await;
    }

    async fn event(&mut self, door: Option<DoorId>, event: Event) {
        let is_last = matches!(event, Event::RunEnded { .. } | Event::InvitationEnded { .. });
        match door {
            Some(door) => {
                let watches = self.watchers.contains(&door);
                self.tell(door, DoorMessage::Event(event), is_last && !watches).await;
            }
            None => {
                for door in self.watchers.clone() {
                    self.tell(door, DoorMessage::Event(event.clone()), false).await;
                }
            }
        }
    }

    /// Carries out what the core wants, in order, and what it wants of batches that are persisted already,
    /// as those are that only have to be ordered. The network hears of it at once, or of a full turn of it.
    async fn carry_out(&mut self) {
        loop {
            if let Some(output) = self.node.poll_output() {
                self.carry_out_one(output).await;
            } else if let Ok((ticket, result)) = self.completions.try_recv() {
                let input = match result {
                    Ok(()) => Input::Persisted(ticket),
                    Err(error) => Input::PersistFailed(ticket, error.to_string()),
                };
                let (now, rows) = (clock::now(), self.store.as_ref());
                self.node.handle_input(input, Context { now, rows, policy: &self.rules });
            } else {
                break;
            }
            if self.turn.is_full() {
                self.tell_network().await;
            }
        }
        self.tell_network().await;
    }

    async fn tell_network(&mut self) {
        if !self.turn.is_empty() {
            self.rest.passed(clock::now().mono);
        }
        if self.net.give(&mut self.turn).await.is_err() {
            tracing::error!("the network has stopped");
        }
    }

    async fn carry_out_one(&mut self, output: Output) {
        use weft_net::Command as Net;
        match output {
            Output::Members(members) => self.turn.add(Net::Members(members)),
            Output::Remember { device, addresses } => {
                self.turn.add(Net::Remember { device, addresses });
            }
            Output::Relays(relays) => self.turn.add(Net::Relays(relays)),
            Output::Admit { device } => self.turn.add(Net::Admit { device }),
            Output::Watch { device, is_watched } => {
                self.turn.add(Net::Watch { device, is_watched });
            }
            Output::Disconnect { device } => self.turn.add(Net::Disconnect { device }),
            Output::Send { stream, bytes } => {
                let stream = weft_net::StreamId(stream.0);
                self.turn.add(Net::Send { stream, frame: bytes });
            }
            Output::Persist { ticket, writes, durability } => {
                let (persisted, wake) = (self.persisted.clone(), self.wake.clone());
                self.writer.submit(Batch { writes, durability }, move |result| {
                    // A loop that has ended does not want to know.
                    drop(persisted.send((ticket, result)));
                    wake.notify_one();
                });
            }
            Output::Execute { execution, agent, capability, arguments, deadline } => {
                let step = Step { execution, agent, capability, arguments, deadline };
                let (host, llm, out) = (self.host.clone(), self.llm.clone(), self.steps.clone());
                let task = self.handle.spawn(agents::run(step, host, llm, out));
                self.executions.insert(execution, task.abort_handle());
            }
            Output::StopExecution(execution) => {
                if let Some(task) = self.executions.remove(&execution) {
                    task.abort();
                }
                self.calls.retain(|(of, _), _| *of != execution);
            }
            Output::AnswerCall { execution, call, answer } => {
                if let Some(reply) = self.calls.remove(&(execution, call)) {
                    // An agent that has died does not want to know.
                    drop(reply.send(answer));
                }
            }
            Output::OpenPairing { endpoint, seed, announced } => {
                let _runtime = self.handle.enter();
                let steps = self.steps.clone();
                let opened = Endpoint::open(endpoint, seed, self.reach, announced, steps);
                self.endpoints.insert(endpoint, opened);
            }
            Output::SendPairing { endpoint, link, bytes } => {
                if let Some(endpoint) = self.endpoints.get_mut(&endpoint) {
                    endpoint.send(link, bytes);
                }
            }
            Output::ClosePairingLink { endpoint, link } => {
                if let Some(endpoint) = self.endpoints.get_mut(&endpoint) {
                    endpoint.close(link);
                }
            }
            Output::ClosePairing { endpoint } => drop(self.endpoints.remove(&endpoint)),
            Output::Reply { door, reply } => self.reply(door, reply).await,
            Output::Event { door, event } => self.event(door, event).await,
            Output::Log { text } => tracing::debug!(text, "the core says"),
        }
    }

    /// Reads the machine where that is due, and tells the core.
    async fn read_machine(&mut self) {
        let now = clock::now().mono;
        for input in self.readings.due(now) {
            self.feed(input).await;
        }
        self.readings.look_at_network(now, &self.handle, &self.steps);
    }

    /// Looks whether the model's file is there, and tells the core.
    async fn look_for_model(&mut self) {
        // Nor does a model run without a wall.
        let models = if self.wall_failure.is_none() && self.model.path.is_file() {
            let speed_milli = speeds::milli(self.llm.status().speeds.answer);
            vec![ModelReady { name: self.model.name.clone(), speed_milli }]
        } else {
            Vec::new()
        };
        self.feed(Input::Models(models)).await;
    }

    /// Keeps the model's speeds for the next start, and tells the core, where they moved.
    async fn tell_speeds(&mut self) {
        let speeds = self.llm.status().speeds;
        let Some(write) = speeds::write(&self.model, speeds, self.speeds_told) else { return };
        self.speeds_told = speeds;
        let batch = Batch { writes: vec![write], durability: Durability::Ordered };
        self.writer.submit(batch, |result| {
            if let Err(error) = result {
                tracing::debug!(%error, "a model's speed is not known after the next start");
            }
        });
        Box::pin(self.look_for_model()).await;
    }

    /// What a checkup needs of the shell.
    fn shell_view(&self) -> ShellView {
        ShellView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_loopback: self.reach == Reach::Loopback,
            is_multicast: self.reach == Reach::Lan,
            store_failure: self.store.failure().map(|error| error.to_string()),
            is_reserve_held: self.store.reserve_held(),
            wall_failure: self.wall_failure.clone(),
        }
    }

    fn models(&self) -> Vec<ModelView> {
        let Ok(metadata) = std::fs::metadata(&self.model.path) else { return Vec::new() };
        let status = self.llm.status();
        let state = match status.state {
            LlmState::Absent => "absent",
            LlmState::Idle => "idle",
            LlmState::Loading => "loading",
            LlmState::Loaded { .. } => "ready",
        };
        vec![ModelView {
            name: self.model.name.clone(),
            path: self.model.path.display().to_string(),
            bytes: metadata.len(),
            state: state.to_owned(),
            tokens_per_second: status.speeds.answer,
            prompt_tokens_per_second: status.speeds.prompt,
        }]
    }

    /// Ends what runs, and closes the network.
    async fn stop(mut self) -> Arc<Store> {
        for task in std::mem::take(&mut self.executions).into_values() {
            task.abort();
        }
        self.turn.add(weft_net::Command::Stop);
        self.tell_network().await;
        self.store
    }
}

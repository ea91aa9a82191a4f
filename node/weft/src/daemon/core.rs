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
    DoorInput, DoorMessage, ErrorKind, Keys, ModelView, PlanView, Problem, Request, Say,
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
use weft_llm::{Llm, LlmState};
use weft_net::{NetHandle, Reach};
use weft_probe::Probe;
use weft_protocol::{presence::ModelReady, time::Timestamp};
use weft_store::{Batch, Store, WriteError, Writer};

use super::{
    agents::{self, Answer, FromStep, Step},
    clock, lock,
    pairing::Endpoint,
    rotate::Key,
    words::{Meaning, Words, not_understood},
};

/// The loop wakes at least so often, so that a wall clock that was set shows.
const WAKE_AT_LEAST: Duration = Duration::from_secs(30);
/// Charge moves slowly.
const BATTERY_EVERY: Duration = Duration::from_secs(60);
/// A model's speed is told anew when it moved by so much, in percent.
const SPEED_MOVED_PERCENT: u64 = 20;

/// The parts that the loop joins.
pub(super) struct Parts {
    pub(super) node: Node,
    pub(super) rules: Rules,
    pub(super) store: Arc<Store>,
    pub(super) net: NetHandle,
    pub(super) host: Host,
    pub(super) llm: Llm,
    pub(super) model: ModelFile,
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

/// Steps and pairing connections that wait for the loop.
const STEPS_WAITING: usize = 256;

struct Core {
    node: Node,
    words: Words,
    rules: Rules,
    store: Arc<Store>,
    writer: Writer,
    persisted: std_mpsc::Sender<(Ticket, Result<(), WriteError>)>,
    wake: Arc<Notify>,
    net: NetHandle,
    host: Host,
    llm: Llm,
    model: ModelFile,
    speed_told: u64,
    reach: Reach,
    keys: Keys,
    lock: mpsc::Sender<()>,
    key: Key,
    rotated: mpsc::Sender<()>,
    handle: Handle,
    probe: Probe,
    battery_read: Timestamp,
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
    let (persisted, mut completions) = std_mpsc::channel();
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
        wake: wake.clone(),
        net,
        host,
        llm,
        model,
        speed_told: 0,
        reach,
        keys,
        lock,
        key,
        rotated,
        handle,
        probe: Probe::default(),
        battery_read: Timestamp::ZERO,
        steps,
        executions: BTreeMap::new(),
        calls: BTreeMap::new(),
        next_call: 0,
        endpoints: BTreeMap::new(),
        doors: BTreeMap::new(),
        watchers: BTreeSet::new(),
    };
    core.carry_out().await;
    core.look_for_model().await;
    core.read_battery().await;
    loop {
        let now = clock::now();
        let sleep = match core.node.poll_timeout(now) {
            Some((at, _)) => at.since(now.mono).min(WAKE_AT_LEAST),
            None => WAKE_AT_LEAST,
        };
        tokio::select! {
            biased;
            _ = inboxes.stop.recv() => break,
            () = wake.notified() => core.take_completions(&mut completions).await,
            Some(from) = from_steps.recv() => core.on_step(from).await,
            Some(input) = inboxes.doors.recv() => core.on_door(input).await,
            event = inboxes.net.recv() => match event {
                Some(event) => core.on_net(event).await,
                None => break,
            },
            () = tokio::time::sleep(sleep) => core.on_timeout().await,
        }
    }
    core.stop().await
}

impl Core {
    /// Hands an input to the core, and carries out what it wants.
    async fn feed(&mut self, input: Input) {
        let context = Context { now: clock::now(), rows: self.store.as_ref(), policy: &self.rules };
        self.node.handle_input(input, context);
        self.carry_out().await;
    }

    async fn on_timeout(&mut self) {
        if clock::now().mono.since(self.battery_read) >= BATTERY_EVERY {
            self.read_battery().await;
        }
        let context = Context { now: clock::now(), rows: self.store.as_ref(), policy: &self.rules };
        self.node.handle_timeout(context);
        self.carry_out().await;
    }

    async fn take_completions(
        &mut self,
        completions: &mut std_mpsc::Receiver<(Ticket, Result<(), WriteError>)>,
    ) {
        while let Ok((ticket, result)) = completions.try_recv() {
            let input = match result {
                Ok(()) => Input::Persisted(ticket),
                Err(error) => Input::PersistFailed(ticket, error.to_string()),
            };
            self.feed(input).await;
        }
    }

    async fn on_step(&mut self, from: FromStep) {
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
                self.feed(input).await;
                if may_move_speed {
                    self.tell_speed().await;
                }
            }
        }
    }

    async fn on_net(&mut self, event: weft_net::Event) {
        use weft_net::Event as Net;
        let input = match event {
            Net::Listening { addresses } => Input::Listening { addresses },
            Net::Sighted { device, addresses } => Input::Sighted { device, addresses },
            Net::Connected { device, address, .. } => Input::Connected { device, address },
            Net::Disconnected { device, .. } => Input::Disconnected { device },
            Net::StreamOpened { stream, device, protocol, .. } => {
                Input::StreamOpened { stream: StreamId(stream.0), device, protocol }
            }
            Net::Frame { stream, bytes } => Input::Frame { stream: StreamId(stream.0), bytes },
            Net::StreamClosed { stream, .. } => Input::StreamClosed { stream: StreamId(stream.0) },
            Net::RoundTrip { device, rtt } => Input::RoundTrip {
                device,
                micros: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
            },
            Net::DialFailed { device, reason } => {
                tracing::debug!(%device, %reason, "a device was not reached");
                return;
            }
            Net::StrangerTurnedAway { address, why } => {
                tracing::debug!(address, %why, "a stranger was turned away");
                Input::StrangerTurnedAway
            }
        };
        self.feed(input).await;
    }

    async fn on_door(&mut self, input: DoorInput) {
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

    /// Carries out what the core wants, in order.
    async fn carry_out(&mut self) {
        while let Some(output) = self.node.poll_output() {
            self.carry_out_one(output).await;
        }
    }

    async fn carry_out_one(&mut self, output: Output) {
        use weft_net::Command as Net;
        match output {
            Output::Members(members) => self.command(Net::Members(members)).await,
            Output::Remember { device, addresses } => {
                self.command(Net::Remember { device, addresses }).await;
            }
            Output::Admit { device } => self.command(Net::Admit { device }).await,
            Output::Disconnect { device } => self.command(Net::Disconnect { device }).await,
            Output::Send { stream, bytes } => {
                let stream = weft_net::StreamId(stream.0);
                self.command(Net::Send { stream, frame: bytes }).await;
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

    async fn command(&self, command: weft_net::Command) {
        if self.net.send(command).await.is_err() {
            tracing::error!("the network has stopped");
        }
    }

    async fn read_battery(&mut self) {
        self.battery_read = clock::now().mono;
        self.feed(Input::Battery(self.probe.battery())).await;
    }

    /// Looks whether the model's file is there, and tells the core.
    async fn look_for_model(&mut self) {
        let models = if self.model.path.is_file() {
            vec![ModelReady { name: self.model.name.clone(), speed_milli: self.speed() }]
        } else {
            Vec::new()
        };
        self.speed_told = self.speed();
        self.feed(Input::Models(models)).await;
    }

    fn speed(&self) -> u64 {
        let measured = self.llm.status().tokens_per_second.unwrap_or(0.0);
        // The greatest speed fits many times; a negative one does not exist.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let milli = (measured * 1_000.0).clamp(0.0, 1e12) as u64;
        milli
    }

    async fn tell_speed(&mut self) {
        let (speed, told) = (self.speed(), self.speed_told);
        if speed.abs_diff(told) * 100 > told.max(1) * SPEED_MOVED_PERCENT {
            Box::pin(self.look_for_model()).await;
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
            tokens_per_second: status.tokens_per_second,
        }]
    }

    /// Ends what runs, and closes the network.
    async fn stop(mut self) -> Arc<Store> {
        for task in std::mem::take(&mut self.executions).into_values() {
            task.abort();
        }
        self.command(weft_net::Command::Stop).await;
        self.store
    }
}

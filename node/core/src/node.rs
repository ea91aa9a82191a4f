//! One node: its machines, and the routes between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use thiserror::Error;
use weft_protocol::{
    audit::{AuditMessage, Body, Head},
    codec,
    decision::{Policy, Subject},
    device::Kind,
    document::{DocumentKind, StartNonce},
    frame::{FRAME_BYTES_MAX, Protocol},
    graph::StepIndex,
    host_call::{HostCall, HostError, Refusal},
    id::{BootId, DeviceId, DocumentId, EndpointId, RunId, SegmentId, TimerId},
    manifest::CapabilityName,
    presence::{ModelReady, PresenceMessage},
    row::{Durability, ReadError, Rows, Write},
    run::{Failure, Journal, Progress, RunMessage},
    sync::SyncMessage,
    time::{Now, Timestamp},
    value::Value,
};
use weft_trust::secret::DeviceSecret;

use crate::{
    audit::{self, Chain},
    dispatch::{self, Dispatch, DispatchOutput, Requester, Task},
    door::{Command, DoorId, Event, Reply},
    env::{Batch, Env, Neighbour},
    executor::{self, CallId, ExecutionId, Executor, ExecutorOutput},
    invitation::{InvitationOutput, Invitations},
    links::{Links, StreamId},
    membership::{self, Membership, MembershipOutput},
    presence::PresenceTable,
    registry::{Installed, Registry},
    replica::{self, Replica},
    runs::{self, Runs, RunsOutput},
    schedule::{self, Schedule},
    witness::Witnesses,
};

/// A batch that was handed out to be persisted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// What is handed in with each input.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Both clocks.
    pub now: Now,
    /// What is persisted.
    pub rows: &'a dyn Rows,
    /// The rules.
    pub policy: &'a dyn Policy,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}

/// What happened outside.
#[derive(Debug)]
pub enum Input {
    /// Where others can dial this node now.
    Listening {
        /// Multiaddrs.
        addresses: Vec<String>,
    },
    /// A member was seen on the local network.
    Sighted {
        /// Which.
        device: DeviceId,
        /// Multiaddrs.
        addresses: Vec<String>,
    },
    /// A connection serves a device now.
    Connected {
        /// Which.
        device: DeviceId,
        /// The address in use.
        address: String,
    },
    /// The connection is gone.
    Disconnected {
        /// Whose.
        device: DeviceId,
    },
    /// A stream serves: the peer's hello came.
    StreamOpened {
        /// Which.
        stream: StreamId,
        /// The peer.
        device: DeviceId,
        /// What is spoken on it.
        protocol: Protocol,
    },
    /// A frame came.
    Frame {
        /// On which stream.
        stream: StreamId,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// A stream is closed.
    StreamClosed {
        /// Which.
        stream: StreamId,
    },
    /// A ping was answered.
    RoundTrip {
        /// By whom.
        device: DeviceId,
        /// After how long, in microseconds.
        micros: u64,
    },
    /// A stranger was cut or refused.
    StrangerTurnedAway,
    /// A batch is persisted, as its durability wanted.
    Persisted(Ticket),
    /// A batch was not persisted, and no later one will be.
    PersistFailed(Ticket, String),
    /// A running agent asks for something.
    HostCall {
        /// Which agent.
        execution: ExecutionId,
        /// Which of its calls.
        call: CallId,
        /// For what.
        request: HostCall,
    },
    /// A running agent says something.
    Progressed {
        /// Which agent.
        execution: ExecutionId,
        /// What.
        progress: Progress,
    },
    /// An agent ended.
    Executed {
        /// Which agent.
        execution: ExecutionId,
        /// How.
        result: Result<Value, Failure>,
    },
    /// Models that answer here now.
    Models(Vec<ModelReady>),
    /// The endpoint for an invitation listens.
    PairingListening {
        /// Where.
        addresses: Vec<String>,
    },
    /// The endpoint for an invitation could not be opened.
    PairingFailed {
        /// Why.
        reason: String,
    },
    /// A device came to the endpoint.
    PairingConnected {
        /// Under which number.
        link: u64,
        /// Its endpoint.
        remote: EndpointId,
    },
    /// A frame came from it.
    PairingFrame {
        /// Under which number.
        link: u64,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// It is gone.
    PairingClosed {
        /// Under which number.
        link: u64,
    },
    /// A door asks for something.
    Command {
        /// Which.
        door: DoorId,
        /// For what.
        command: Command,
    },
    /// A door is gone.
    DoorClosed {
        /// Which.
        door: DoorId,
    },
}

/// What is to be done outside, in order.
#[derive(Debug)]
pub enum Output {
    /// Who belongs; all others are strangers.
    Members(BTreeSet<DeviceId>),
    /// Where a device was last heard of.
    Remember {
        /// Which.
        device: DeviceId,
        /// Multiaddrs.
        addresses: Vec<String>,
    },
    /// All protocols may be opened with a device.
    Admit {
        /// Which.
        device: DeviceId,
    },
    /// Close the connection to a device.
    Disconnect {
        /// Which.
        device: DeviceId,
    },
    /// Send a frame.
    Send {
        /// On which stream.
        stream: StreamId,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// Persist a batch, and say so.
    Persist {
        /// The batch's number.
        ticket: Ticket,
        /// Its writes.
        writes: Vec<Write>,
        /// When they count.
        durability: Durability,
    },
    /// Start an agent.
    Execute {
        /// Under this number.
        execution: ExecutionId,
        /// Which.
        agent: Box<Installed>,
        /// Its capability.
        capability: CapabilityName,
        /// With what: a map.
        arguments: Value,
        /// For how long at most.
        deadline: std::time::Duration,
    },
    /// Stop an agent.
    StopExecution(ExecutionId),
    /// Answer an agent's call.
    AnswerCall {
        /// Which agent.
        execution: ExecutionId,
        /// Which of its calls.
        call: CallId,
        /// The answer.
        answer: Result<Value, HostError>,
    },
    /// Open an endpoint for an invitation.
    OpenPairing {
        /// Its throw-away key's seed.
        seed: [u8; 32],
    },
    /// Send a frame on the endpoint.
    SendPairing {
        /// Under which number.
        link: u64,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// Close one connection of the endpoint.
    ClosePairingLink {
        /// Under which number.
        link: u64,
    },
    /// Close the endpoint.
    ClosePairing,
    /// Answer a door.
    Reply {
        /// Which.
        door: DoorId,
        /// The answer.
        reply: Reply,
    },
    /// Tell a door; with none, all doors that watch.
    Event {
        /// Which; `None`: all that watch.
        door: Option<DoorId>,
        /// What.
        event: Event,
    },
    /// A device was set aside because what it sent or stored is damaged; for the log.
    Log {
        /// What.
        text: String,
    },
}

/// What a node starts from.
#[derive(Debug)]
pub struct NodeConfig {
    /// The device's keys.
    pub secret: DeviceSecret,
    /// Which start of the node this is; persisted before the node is made.
    pub boot: BootId,
    /// Seeds every id and nonce that the node draws.
    pub seed: [u8; 32],
    /// The agents that this node can run.
    pub agents: Vec<Installed>,
}

/// Why a node cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The rows cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The statements do not make a fabric to which this device belongs.
    #[error(transparent)]
    Membership(#[from] membership::OpenError),
}

/// What follows when a batch is persisted.
#[derive(Debug)]
enum After {
    Executor(executor::Persisting),
    Dispatch(dispatch::Persisting),
    Runs(runs::Persisting),
    Replica(replica::Ticket),
    Membership,
    Invitation,
    Timers(Vec<schedule::DueTimer>),
    Shown(Head),
    Nothing,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    me: DeviceId,
    boot: BootId,
    rng: ChaCha20Rng,
    membership: Membership,
    invitations: Invitations,
    links: Links,
    presence: PresenceTable,
    registry: Registry,
    replica: Replica,
    schedule: Schedule,
    chain: Chain,
    witnesses: Witnesses,
    runs: Runs,
    dispatch: Dispatch,
    executor: Executor,
    pending: BTreeMap<Ticket, After>,
    tickets: u64,
    version: u64,
    strangers: u64,
    strangers_since: Timestamp,
    warnings: Vec<String>,
    journal: Vec<Write>,
    wrote: BTreeMap<RunId, Vec<DocumentId>>,
    settling: Vec<Settling>,
    outputs: VecDeque<Output>,
}

/// A run that ended, whose answer waits until other devices have what it wrote.
#[derive(Debug)]
struct Settling {
    until: Timestamp,
    door: Option<DoorId>,
    event: Event,
    documents: Vec<DocumentId>,
}

/// An answer waits so long to say which other devices have what was written: a few round trips on a
/// local network, and less than a person notices.
const SETTLE: std::time::Duration = std::time::Duration::from_millis(150);

/// Strangers are recorded as one count so often.
const STRANGERS_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

macro_rules! environment {
    ($node:ident, $context:expr, $neighbours:ident) => {
        Env {
            now: $context.now,
            rows: $context.rows,
            policy: $context.policy,
            registry: &$node.registry,
            chain: &mut $node.chain,
            replica: &mut $node.replica,
            members: &$node.membership,
            neighbours: &$neighbours,
            me: $node.me,
            version: $node.version,
            addressing_key: $node.membership.addressing_key(),
        }
    };
}

macro_rules! documents {
    ($node:ident, $context:expr) => {
        replica::Context {
            now: $context.now,
            rows: $context.rows,
            members: &$node.membership,
        }
    };
}

mod answers;

impl Node {
    /// Takes up what is persisted.
    ///
    /// # Errors
    ///
    /// The rows cannot be read, or hold no fabric to which this device belongs.
    pub fn start(config: NodeConfig, context: Context<'_>) -> Result<Self, StartError> {
        let NodeConfig { secret, boot, seed, agents } = config;
        let mut rng = ChaCha20Rng::from_seed(seed);
        let (me, key) = (secret.id(), secret.signing().clone());
        let entropy = ChaCha20Rng::from_seed(draw(&mut rng));
        let membership = Membership::open(secret, entropy, context.rows)?;
        let fabric = membership.fabric();
        let chain = Chain::open(key.clone(), SegmentId::from_bytes(draw(&mut rng)), context.rows)?;
        let start_nonce = StartNonce(draw(&mut rng));
        let replica = Replica::new(key.clone(), &fabric, start_nonce, context.rows)?;
        let mut node = Self {
            me,
            boot,
            rng,
            membership,
            invitations: Invitations::default(),
            links: Links::default(),
            presence: PresenceTable::new(key.clone(), boot),
            registry: Registry::new(agents),
            replica,
            schedule: Schedule::open(context.rows)?,
            chain,
            witnesses: Witnesses::open(me, context.rows)?,
            runs: Runs::default(),
            dispatch: Dispatch::new(key),
            executor: Executor::default(),
            pending: BTreeMap::new(),
            tickets: 0,
            version: 0,
            strangers: 0,
            strangers_since: context.now.mono,
            warnings: Vec::new(),
            journal: Vec::new(),
            wrote: BTreeMap::new(),
            settling: Vec::new(),
            outputs: VecDeque::new(),
        };
        let writes = node.chain.start(boot, None, context.now.wall);
        node.persist(Batch::synced(writes), After::Nothing);
        node.outputs.push_back(Output::Members(node.membership.others()));
        for (device, addresses) in node.membership.remembered(context.rows)? {
            node.outputs.push_back(Output::Remember { device, addresses });
        }
        node.registry.set_dormant("llm", true);
        node.read_registry(context);
        for listed in node.replica.list(&DocumentKind::TIMER, "", usize::MAX, context.rows) {
            let timer = TimerId::from_bytes(*listed.id.as_bytes());
            node.schedule.changed(timer, Some(&listed.content));
        }
        node.offer_agents(context);
        let neighbours = node.neighbours();
        let mut env = environment!(node, context, neighbours);
        node.runs.resume(&mut env)?;
        node.pump(context);
        Ok(node)
    }

    /// This device.
    pub fn me(&self) -> DeviceId {
        self.me
    }

    /// Which start this is.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// Who belongs.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The documents.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The agents.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What is to be done outside, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] has something to do although nothing comes in, and why.
    pub fn poll_timeout(&self, now: Now) -> Option<(Timestamp, &'static str)> {
        let strangers = (self.strangers > 0)
            .then(|| (self.strangers_since + STRANGERS_EVERY, "strangers are recorded"));
        let presence = self.presence.poll_timeout().map(|at| (at, "presence is renewed"));
        let timer = self.schedule.poll_timeout(now).map(|at| (at, "a timer is due"));
        let head = self.witnesses.poll_timeout(&self.chain).map(|at| (at, "a head is shown"));
        let settling = self.settling.iter().map(|it| it.until).min();
        let settling = settling.map(|at| (at, "other devices may have what was written"));
        [
            strangers,
            presence,
            timer,
            head,
            settling,
            self.membership.poll_timeout(),
            self.dispatch.poll_timeout(),
            self.executor.poll_timeout(),
            self.invitations.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, context: Context<'_>) {
        let now = context.now;
        let neighbours = self.neighbours();
        let mut env = environment!(self, context, neighbours);
        self.executor.handle_timeout(&mut env);
        self.dispatch.handle_timeout(&mut env);
        self.membership.handle_timeout(now);
        self.invitations.handle_timeout(now, &mut self.membership);
        self.timers_due(now);
        if self.strangers > 0 && self.strangers_since + STRANGERS_EVERY <= now.mono {
            let count = std::mem::take(&mut self.strangers);
            let (_, writes) = self.chain.append(Body::Strangers { count }, now.wall);
            self.persist(Batch::ordered(writes), After::Nothing);
        }
        if let Some(head) = self.witnesses.due(&self.chain, now.mono) {
            self.persist(Batch::synced(Vec::new()), After::Shown(head));
        }
        self.pump(context);
    }

    /// Takes what happened outside.
    pub fn handle_input(&mut self, input: Input, context: Context<'_>) {
        let now = context.now;
        match input {
            Input::Listening { addresses } => self.presence.own_mut().addresses = addresses,
            Input::Sighted { device, addresses } => {
                self.outputs.push_back(Output::Remember { device, addresses });
            }
            Input::Connected { device, address } => {
                self.links.connected(device, address, now.wall);
                self.invitations.met(&device, now, &mut self.membership);
                if let Some(subject) = self.membership.subject(&device) {
                    self.tell_watchers(Event::DeviceHere { name: subject.name });
                }
            }
            Input::Disconnected { device } => self.disconnected(device, context),
            Input::StreamOpened { stream, device, protocol } => {
                self.links.opened(stream, device, protocol);
                self.stream_opened(device, protocol, context);
            }
            Input::Frame { stream, bytes } => {
                if let Some((device, protocol)) = self.links.stream(stream) {
                    self.frame(device, protocol, &bytes, context);
                }
            }
            Input::StreamClosed { stream } => {
                if let Some((device, protocol)) = self.links.closed(stream) {
                    self.stream_closed(device, protocol, context);
                }
            }
            Input::RoundTrip { device, micros } => self.links.measured(&device, micros),
            Input::StrangerTurnedAway => {
                if self.strangers == 0 {
                    self.strangers_since = now.mono;
                }
                self.strangers += 1;
            }
            Input::Persisted(ticket) => {
                if let Some(after) = self.pending.remove(&ticket) {
                    self.persisted(after, context);
                }
            }
            Input::PersistFailed(ticket, reason) => {
                if let Some(after) = self.pending.remove(&ticket) {
                    self.persist_failed(after, &reason, context);
                }
            }
            Input::HostCall { execution, call, request } => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.executor.host_call(execution, call, request, &mut env);
            }
            Input::Progressed { execution, progress } => {
                let neighbours = self.neighbours();
                let env = environment!(self, context, neighbours);
                self.executor.progressed(execution, progress, &env);
            }
            Input::Executed { execution, result } => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.executor.executed(execution, result, &mut env);
            }
            Input::Models(models) => {
                let changed = self.registry.set_dormant("llm", models.is_empty());
                self.presence.own_mut().models = models;
                if changed {
                    self.offer_agents(context);
                }
            }
            Input::PairingListening { addresses } => {
                self.invitations.listening(&addresses, now, &self.membership, &mut self.rng);
            }
            Input::PairingFailed { reason } => self.invitations.failed(&reason),
            Input::PairingConnected { link, remote } => {
                self.invitations.connected(link, remote, now, &mut self.membership);
            }
            Input::PairingFrame { link, bytes } => {
                self.invitations.frame(link, &bytes, now, &mut self.membership);
            }
            Input::PairingClosed { link } => {
                self.invitations.closed(link, now, &mut self.membership);
            }
            Input::Command { door, command } => self.command(door, command, context),
            Input::DoorClosed { door } => {
                self.runs.door_closed(door);
                self.invitations.door_closed(door, now, &mut self.membership);
            }
        }
        self.pump(context);
    }

    /// Carries outputs of machines to the next machine, or out, until nothing is left.
    fn pump(&mut self, context: Context<'_>) {
        loop {
            let mut idle = true;
            for output in self.runs.poll_outputs() {
                idle = false;
                self.on_runs(output, context);
            }
            for output in self.dispatch.poll_outputs() {
                idle = false;
                self.on_dispatch(output, context);
            }
            for output in self.executor.poll_outputs() {
                idle = false;
                self.on_executor(output, context);
            }
            while let Some(output) = self.replica.poll_output() {
                idle = false;
                self.on_replica(output, context);
            }
            for output in self.membership.poll_outputs() {
                idle = false;
                self.on_membership(output, context);
            }
            for output in self.invitations.poll_outputs() {
                idle = false;
                self.on_invitation(output, context);
            }
            if idle {
                break;
            }
        }
        self.settle(context.now);
        self.presence.own_mut().queue = self.executor.queue();
        if let Some(message) = self.presence.poll(context.now) {
            self.broadcast(Protocol::Presence, &codec::encode(&message), None);
        }
    }

    /// Answers for runs whose documents all connected devices have, or that waited long enough.
    fn settle(&mut self, now: Now) {
        let speaking = self.links.speaking(Protocol::Sync);
        for mut settling in std::mem::take(&mut self.settling) {
            let has_all = |device: &&DeviceId| {
                let mut documents = settling.documents.iter();
                documents.all(|document| self.replica.has_latest(device, document))
            };
            let having: Vec<&DeviceId> = speaking.iter().filter(has_all).collect();
            let complete = having.len() == speaking.len();
            if settling.until > now.mono && !complete {
                self.settling.push(settling);
                continue;
            }
            if let Event::RunEnded { also_on, .. } = &mut settling.event
                && !settling.documents.is_empty()
            {
                *also_on = having.into_iter().map(|device| self.name(device)).collect();
                also_on.sort();
            }
            let Settling { door, event, .. } = settling;
            self.outputs.push_back(Output::Event { door, event });
        }
    }

    fn persist(&mut self, batch: Batch, after: After) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.pending.insert(ticket, after);
        let Batch { writes, durability } = batch;
        self.outputs.push_back(Output::Persist { ticket, writes, durability });
    }

    fn persisted(&mut self, after: After, context: Context<'_>) {
        let neighbours = self.neighbours();
        let mut env = environment!(self, context, neighbours);
        match after {
            After::Executor(what) => self.executor.persisted(what, &mut env),
            After::Dispatch(what) => self.dispatch.persisted(what, &mut env),
            After::Runs(what) => self.runs.persisted(what, &mut env),
            After::Replica(ticket) => {
                env.committed(ticket);
                self.offer_agents(context);
            }
            After::Membership => {}
            After::Invitation => {
                let contacts = self.contacts(context.now);
                self.invitations.persisted(true, contacts, context.now, &mut self.membership);
            }
            After::Timers(due) => {
                for due in due {
                    self.tell_watchers(Event::TimerDue {
                        id: due.timer.id,
                        label: due.timer.label,
                        due: due.timer.due,
                        late_ms: u64::try_from(due.late.as_millis()).unwrap_or(u64::MAX),
                    });
                }
            }
            After::Shown(_) => {
                if let Some(head) = self.chain.signed_head() {
                    let message = codec::encode(&AuditMessage::Head(head));
                    self.broadcast(Protocol::Audit, &message, None);
                }
            }
            After::Nothing => {}
        }
    }

    fn persist_failed(&mut self, after: After, reason: &str, context: Context<'_>) {
        let text = format!("nothing can be written to the disk any more: {reason}");
        if !self.warnings.contains(&text) {
            self.warnings.push(text.clone());
            self.tell_watchers(Event::Warning { text });
        }
        let neighbours = self.neighbours();
        let mut env = environment!(self, context, neighbours);
        match after {
            After::Executor(what) => self.executor.persist_failed(what, reason, &mut env),
            After::Dispatch(what) => self.dispatch.persist_failed(&what, reason),
            After::Runs(what) => self.runs.persist_failed(what, reason, &mut env),
            After::Replica(ticket) => env.aborted(ticket),
            After::Invitation => {
                let contacts = self.contacts(context.now);
                self.invitations.persisted(false, contacts, context.now, &mut self.membership);
            }
            After::Membership | After::Timers(_) | After::Shown(_) | After::Nothing => {}
        }
    }

    fn on_runs(&mut self, output: RunsOutput, context: Context<'_>) {
        match output {
            RunsOutput::Persist(batch, what) => self.persist(batch, After::Runs(what)),
            RunsOutput::Dispatch { task, resumed } => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                match resumed {
                    Some((epoch, executor)) => {
                        self.dispatch.resume(*task, epoch, Some(executor), &mut env);
                    }
                    None => self.dispatch.start(*task, &mut env),
                }
            }
            RunsOutput::CancelTasks(run) => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.dispatch.cancel(
                    |task| task.run == run && task.requester == Requester::Run,
                    &mut env,
                );
            }
            RunsOutput::Started(door, run) => {
                if let Some(door) = door {
                    self.reply(door, Reply::RunStarted { run });
                }
            }
            RunsOutput::NotStarted(door, reason) => {
                if let Some(door) = door {
                    self.reply(door, Reply::Refused { refusal: Refusal::Failed, reason });
                }
            }
            RunsOutput::Ended { door, run, state, outputs, failure, wrote } => {
                let documents = self.wrote.remove(&run).unwrap_or_default();
                let wait = if wrote { SETTLE } else { std::time::Duration::ZERO };
                let event =
                    Event::RunEnded { run, state, outputs, failure, also_on: Vec::new() };
                let until = context.now.mono + wait;
                self.settling.push(Settling { until, door, event, documents });
            }
        }
    }

    fn on_dispatch(&mut self, output: DispatchOutput, context: Context<'_>) {
        match output {
            DispatchOutput::Persist(mut batch, what) => {
                batch.writes.append(&mut self.journal);
                self.persist(batch, After::Dispatch(what));
            }
            DispatchOutput::Journal(run, entry) => {
                self.journal.extend(self.runs.journal(&run, &entry));
            }
            DispatchOutput::Tell(device, message) => self.tell(device, message, context),
            DispatchOutput::Placed { run, step, capability, executor, candidates } => {
                let device = self.name(&executor);
                let event = Event::StepPlaced { run, step, capability, device, candidates };
                self.tell_run(&run, event);
            }
            DispatchOutput::Ask { run, step, capability, executor, reason } => {
                let device = self.name(&executor);
                self.tell_run(&run, Event::Asked { run, step, capability, device, reason });
            }
            DispatchOutput::Progressed(requester, run, step, progress) => match requester {
                Requester::Run => {
                    if let Progress::Log(line) = &progress {
                        let entry = Journal::Logged { step: step.clone(), line: line.clone() };
                        self.journal.extend(self.runs.journal(&run, &entry));
                    }
                    self.tell_run(&run, Event::StepProgressed { run, step, progress });
                }
                Requester::Call { execution, .. } => {
                    let neighbours = self.neighbours();
                    let env = environment!(self, context, neighbours);
                    self.executor.progressed(execution, progress, &env);
                }
            },
            DispatchOutput::Concluded(requester, run, step, capability, outcome) => {
                match requester {
                    Requester::Run => {
                        let ended = outcome.clone();
                        let event = Event::StepEnded {
                            run,
                            step: step.clone(),
                            capability,
                            outcome: ended,
                        };
                        self.tell_run(&run, event);
                        let neighbours = self.neighbours();
                        let mut env = environment!(self, context, neighbours);
                        self.runs.step_ended(run, &step, outcome, &mut env);
                    }
                    Requester::Call { execution, call } => {
                        self.executor.child_concluded(execution, call, outcome);
                    }
                }
            }
        }
    }

    fn on_executor(&mut self, output: ExecutorOutput, context: Context<'_>) {
        match output {
            ExecutorOutput::Persist(batch, what) => self.persist(batch, After::Executor(what)),
            ExecutorOutput::Execute { execution, agent, capability, arguments, deadline } => {
                self.outputs.push_back(Output::Execute {
                    execution,
                    agent: Box::new(agent),
                    capability,
                    arguments,
                    deadline,
                });
            }
            ExecutorOutput::Stop(execution) => {
                self.outputs.push_back(Output::StopExecution(execution));
            }
            ExecutorOutput::Answer { execution, call, answer } => {
                self.outputs.push_back(Output::AnswerCall { execution, call, answer });
            }
            ExecutorOutput::Tell(device, message) => self.tell(device, message, context),
            ExecutorOutput::Dispatch(task) => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.dispatch.start(*task, &mut env);
            }
            ExecutorOutput::Wrote(run, documents) => {
                if self.runs.contains(&run) {
                    self.wrote.entry(run).or_default().extend(documents);
                }
            }
            ExecutorOutput::CancelChildren(execution) => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.dispatch.cancel(
                    |task| {
                        matches!(task.requester, Requester::Call { execution: of, .. } if of == execution)
                    },
                    &mut env,
                );
            }
        }
    }

    fn on_replica(&mut self, output: replica::Output, context: Context<'_>) {
        match output {
            replica::Output::Send { peer, message } => {
                self.send(&peer, Protocol::Sync, message.encode());
            }
            replica::Output::Persist { ticket, writes, durability } => {
                self.persist(Batch { writes, durability }, After::Replica(ticket));
            }
            replica::Output::Changed { document, kind, remote } => {
                if kind == DocumentKind::REGISTRY {
                    self.read_registry(context);
                } else if kind == DocumentKind::TIMER {
                    self.timer_changed(document, context);
                }
                let kind = kind.as_str().to_owned();
                self.tell_watchers(Event::DocumentChanged { id: document, kind, remote });
            }
            replica::Output::PeerSynced(_) => {}
            replica::Output::SetAside { document, reason } => {
                let text = format!("document {document} was set aside: {reason}");
                self.warnings.push(text.clone());
                self.tell_watchers(Event::Warning { text });
            }
        }
    }

    fn on_membership(&mut self, output: MembershipOutput, context: Context<'_>) {
        match output {
            MembershipOutput::Send(device, bytes) => self.send(&device, Protocol::Trust, bytes),
            MembershipOutput::Admit(device) => {
                self.outputs.push_back(Output::Admit { device });
            }
            MembershipOutput::TurnAway(device, why) => {
                self.strangers += 1;
                self.outputs.push_back(Output::Log { text: format!("{device}: {why}") });
                self.outputs.push_back(Output::Disconnect { device });
            }
            MembershipOutput::Learned { statements, mut writes } => {
                for statement in statements {
                    let body = Body::Trust { statement };
                    writes.extend(self.chain.append(body, context.now.wall).1);
                }
                self.version += 1;
                self.persist(Batch::synced(writes), After::Membership);
                self.devices_changed(context);
            }
            MembershipOutput::Persist(writes) => {
                self.persist(Batch::synced(writes), After::Nothing);
            }
        }
    }

    fn on_invitation(&mut self, output: InvitationOutput, context: Context<'_>) {
        match output {
            InvitationOutput::Open { seed } => {
                self.outputs.push_back(Output::OpenPairing { seed });
            }
            InvitationOutput::Opened { door, ticket, expires } => {
                self.reply(door, Reply::Invited { ticket, expires });
            }
            InvitationOutput::Refused { door, reason } => {
                self.reply(door, Reply::Refused { refusal: Refusal::Failed, reason });
            }
            InvitationOutput::Send { link, bytes } => {
                self.outputs.push_back(Output::SendPairing { link, bytes });
            }
            InvitationOutput::CloseLink { link } => {
                self.outputs.push_back(Output::ClosePairingLink { link });
            }
            InvitationOutput::Close => self.outputs.push_back(Output::ClosePairing),
            InvitationOutput::Persist(writes) => {
                self.persist(Batch::synced(writes), After::Invitation);
            }
            InvitationOutput::Met { door, event } => {
                self.outputs.push_back(Output::Event { door, event });
            }
            InvitationOutput::Ended { door, outcome, name, action, remember } => {
                let (_, writes) =
                    self.chain.append(Body::Operator { action }, context.now.wall);
                self.persist(Batch::ordered(writes), After::Nothing);
                if let Some((device, addresses)) = remember {
                    let write = membership::remember(&device, &addresses);
                    self.persist(Batch::ordered(vec![write]), After::Nothing);
                    self.outputs.push_back(Output::Remember { device, addresses });
                }
                let event = Event::InvitationEnded { outcome, name };
                if door.is_some() {
                    self.outputs.push_back(Output::Event { door, event: event.clone() });
                }
                self.tell_watchers(event);
            }
        }
    }

    /// Who belongs moved: connections, leases and other devices' changes follow at once.
    fn devices_changed(&mut self, context: Context<'_>) {
        self.outputs.push_back(Output::Members(self.membership.others()));
        let gone: Vec<DeviceId> = self
            .membership
            .gone()
            .into_iter()
            .filter(|device| self.links.of(device).is_some() || self.presence.of(device).is_some())
            .collect();
        for device in gone {
            self.presence.forget(&device);
            self.void(device, context);
        }
        self.feed_replica(replica::Input::MembersChanged, context);
        self.tell_watchers(Event::DevicesChanged);
    }

    /// What a device that was put out had asked for, or was asked for, is void.
    fn void(&mut self, device: DeviceId, context: Context<'_>) {
        let documents = documents!(self, context);
        let writes = self.replica.revoked(&device, &documents);
        match writes {
            Ok(writes) if !writes.is_empty() => {
                self.persist(Batch::synced(writes), After::Nothing);
            }
            Ok(_) => {}
            Err(error) => self.outputs.push_back(Output::Log { text: error.to_string() }),
        }
        let neighbours = self.neighbours();
        let mut env = environment!(self, context, neighbours);
        self.executor.void(&device, &mut env);
        self.dispatch.void(&device, &mut env);
    }

    fn disconnected(&mut self, device: DeviceId, context: Context<'_>) {
        if !self.links.disconnected(&device, context.now.wall) {
            return;
        }
        self.membership.closed(&device);
        self.feed_replica(replica::Input::Closed(device), context);
        let neighbours = self.neighbours();
        let mut env = environment!(self, context, neighbours);
        self.executor.stream_cut(device, &mut env);
        self.dispatch.disconnected(device, &mut env);
        if let Some(subject) = self.membership.subject(&device) {
            self.tell_watchers(Event::DeviceAway { name: subject.name });
        }
    }

    fn stream_opened(&mut self, device: DeviceId, protocol: Protocol, context: Context<'_>) {
        if protocol == Protocol::Trust {
            self.membership.opened(device, context.now);
            return;
        }
        if self.membership.subject(&device).is_none() {
            return;
        }
        match protocol {
            Protocol::Presence => {
                let greeting = self.presence.greeting(context.now);
                self.send(&device, Protocol::Presence, codec::encode(&greeting));
            }
            Protocol::Sync => self.feed_replica(replica::Input::Opened(device), context),
            Protocol::Run => {
                let neighbours = self.neighbours();
                let env = environment!(self, context, neighbours);
                self.dispatch.connected(device, &env);
            }
            Protocol::Audit => {
                if let Some(greeting) = self.witnesses.greeting(&device, &self.chain) {
                    self.send(&device, Protocol::Audit, codec::encode(&greeting));
                }
                let own_is_shown = self.chain.head() == self.witnesses.shown();
                if own_is_shown && let Some(head) = self.chain.signed_head() {
                    let message = AuditMessage::Head(head);
                    self.send(&device, Protocol::Audit, codec::encode(&message));
                }
            }
            Protocol::Trust | Protocol::Blob | Protocol::Llm => {}
        }
    }

    fn stream_closed(&mut self, device: DeviceId, protocol: Protocol, context: Context<'_>) {
        match protocol {
            Protocol::Trust => self.membership.closed(&device),
            Protocol::Sync => self.feed_replica(replica::Input::Closed(device), context),
            Protocol::Run => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.executor.stream_cut(device, &mut env);
                self.dispatch.disconnected(device, &mut env);
            }
            Protocol::Presence | Protocol::Blob | Protocol::Llm | Protocol::Audit => {}
        }
    }

    /// What a remote sends wrongly is logged and dropped; only trust is heard from strangers.
    fn frame(
        &mut self,
        device: DeviceId,
        protocol: Protocol,
        bytes: &[u8],
        context: Context<'_>,
    ) {
        if protocol == Protocol::Trust {
            self.membership.frame(device, bytes, context.now);
            return;
        }
        let Some(subject) = self.membership.subject(&device) else { return };
        let handled = match protocol {
            Protocol::Presence => codec::decode(bytes, FRAME_BYTES_MAX)
                .map(|message| self.heard(device, message)),
            Protocol::Sync => SyncMessage::decode(bytes).map(|message| {
                self.feed_replica(replica::Input::Message(device, message), context);
            }),
            Protocol::Run => codec::decode(bytes, FRAME_BYTES_MAX)
                .map(|message| self.run_message(device, message, context)),
            Protocol::Audit => codec::decode(bytes, FRAME_BYTES_MAX).map(|message| {
                let seen = self.witnesses.handle_message(
                    device,
                    &subject.name,
                    &message,
                    &self.chain,
                );
                if !seen.writes.is_empty() {
                    self.persist(Batch::ordered(seen.writes), After::Nothing);
                }
                if let Some(answer) = seen.answer {
                    self.send(&device, Protocol::Audit, codec::encode(&answer));
                }
                if let Some(text) = seen.warning {
                    self.warn(text);
                }
            }),
            Protocol::Trust | Protocol::Blob | Protocol::Llm => Ok(()),
        };
        if let Err(error) = handled {
            let text = format!("{} sent what is no {protocol} message: {error}", subject.name);
            self.outputs.push_back(Output::Log { text });
        }
    }

    fn heard(&mut self, from: DeviceId, message: PresenceMessage) {
        let membership = &self.membership;
        let news = self.presence.learn(message, |device| membership.subject(device).is_some());
        if news.is_empty() {
            return;
        }
        for (presence, _) in &news {
            let device = presence.device;
            let addresses = presence.addresses.clone();
            let write = membership::remember(&device, &addresses);
            self.persist(Batch::ordered(vec![write]), After::Nothing);
            self.outputs.push_back(Output::Remember { device, addresses });
        }
        let records = news.into_iter().map(|(_, signed)| signed).collect();
        let message = codec::encode(&PresenceMessage::Records(records));
        self.broadcast(Protocol::Presence, &message, Some(from));
    }

    fn run_message(&mut self, from: DeviceId, message: RunMessage, context: Context<'_>) {
        let neighbours = self.neighbours();
        let mut env = environment!(self, context, neighbours);
        match message {
            RunMessage::Offer(_)
            | RunMessage::IntentAck(_)
            | RunMessage::DoneAck(_)
            | RunMessage::Cancel(_) => self.executor.handle_message(from, message, &mut env),
            RunMessage::Accept(_)
            | RunMessage::Refuse { .. }
            | RunMessage::Intent(_)
            | RunMessage::NotBegun(_)
            | RunMessage::Progress { .. }
            | RunMessage::Done { .. } => self.dispatch.handle_message(from, message, &mut env),
        }
    }

    /// A message of a run, to another device or to this one.
    fn tell(&mut self, device: DeviceId, message: RunMessage, context: Context<'_>) {
        if device == self.me {
            self.run_message(device, message, context);
        } else {
            self.send(&device, Protocol::Run, codec::encode(&message));
        }
    }

    /// Sends where the protocol is spoken; elsewhere what is said is said again when it is.
    fn send(&mut self, device: &DeviceId, protocol: Protocol, bytes: Vec<u8>) {
        if let Some(stream) = self.links.to(device, protocol) {
            self.outputs.push_back(Output::Send { stream, bytes });
        }
    }

    fn broadcast(&mut self, protocol: Protocol, bytes: &[u8], except: Option<DeviceId>) {
        for device in self.links.speaking(protocol) {
            if Some(device) != except && self.membership.subject(&device).is_some() {
                self.send(&device, protocol, bytes.to_vec());
            }
        }
    }

    fn timers_due(&mut self, now: Now) {
        let due = self.schedule.poll(now);
        if due.is_empty() {
            return;
        }
        let writes = due.iter().map(|due| due.write.clone()).collect();
        self.persist(Batch::synced(writes), After::Timers(due));
    }

    fn feed_replica(&mut self, input: replica::Input, context: Context<'_>) {
        let documents = documents!(self, context);
        self.replica.handle_input(input, &documents);
    }

    fn timer_changed(&mut self, id: DocumentId, context: Context<'_>) {
        let content = self.replica.read(&id, context.rows).ok().flatten();
        let timer = TimerId::from_bytes(*id.as_bytes());
        self.schedule.changed(timer, content.as_ref());
    }

    fn read_registry(&mut self, context: Context<'_>) {
        let id = DocumentId::singleton(&self.membership.fabric(), &DocumentKind::REGISTRY);
        if let Ok(Some(content)) = self.replica.read(&id, context.rows) {
            self.registry.read(&content);
        }
        self.registry.set_own(self.me);
    }

    /// Writes what this device offers into the registry, if that changed.
    fn offer_agents(&mut self, context: Context<'_>) {
        self.registry.set_own(self.me);
        let id = DocumentId::singleton(&self.membership.fabric(), &DocumentKind::REGISTRY);
        let (field, offer) = self.registry.own_offer(&self.me);
        let current = self.replica.read(&id, context.rows).ok().flatten();
        if current.as_ref().and_then(|current| current.get(&field)) == Some(&offer) {
            return;
        }
        let edit = replica::Edit::Update { id, content: Value::map([(field, offer)]) };
        match self.replica.prepare(vec![edit], &documents!(self, context)) {
            Ok(prepared) => {
                let batch = Batch::ordered(prepared.writes);
                self.persist(batch, After::Replica(prepared.ticket));
            }
            Err(error) => {
                let text = format!("the registry can't be written: {error}");
                self.outputs.push_back(Output::Log { text });
            }
        }
    }

    /// All devices that belong, as placement and rules see them.
    fn neighbours(&self) -> Vec<Neighbour> {
        self.membership
            .subjects()
            .map(|subject| {
                let device = subject.id;
                let here = device == self.me;
                let presence = self.presence.of(&device);
                let own = self.presence.own();
                let (queue, battery, metered, models) = match presence {
                    _ if here => (own.queue, own.battery, own.metered, own.models.as_slice()),
                    Some(it) => (it.queue, it.battery, it.metered, it.models.as_slice()),
                    None => (0, None, false, [].as_slice()),
                };
                Neighbour {
                    here,
                    reachable: here || self.links.to(&device, Protocol::Run).is_some(),
                    round_trip_micros: self.links.of(&device).and_then(|it| it.round_trip_micros),
                    queue,
                    battery,
                    metered,
                    speed_milli: models.iter().map(|model| model.speed_milli).max().unwrap_or(0),
                    subject,
                }
            })
            .collect()
    }

    fn name(&self, device: &DeviceId) -> String {
        self.membership.subject(device).map_or_else(|| device.short(), |subject| subject.name)
    }

    fn reply(&mut self, door: DoorId, reply: Reply) {
        self.outputs.push_back(Output::Reply { door, reply });
    }

    fn tell_watchers(&mut self, event: Event) {
        self.outputs.push_back(Output::Event { door: None, event });
    }

    fn tell_run(&mut self, run: &RunId, event: Event) {
        if let Some(door) = self.runs.door(run) {
            self.outputs.push_back(Output::Event { door: Some(door), event });
        }
    }

    fn warn(&mut self, text: String) {
        if !self.warnings.contains(&text) {
            self.warnings.push(text.clone());
            self.tell_watchers(Event::Warning { text });
        }
    }
}

/// Draws bytes.
pub(crate) fn draw<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// The device that a word of the command names: by name, else by kind if only one is of it.
fn device_named(subjects: &[Subject], word: &str) -> Result<DeviceId, String> {
    let by_name: Vec<&Subject> =
        subjects.iter().filter(|subject| subject.name.eq_ignore_ascii_case(word)).collect();
    let kind: Option<Kind> = word.parse().ok();
    let by_kind: Vec<&Subject> =
        subjects.iter().filter(|subject| Some(subject.kind) == kind).collect();
    match (by_name.as_slice(), by_kind.as_slice()) {
        ([one], _) | ([], [one]) => Ok(one.id),
        ([], []) => {
            let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
            Err(format!("there is no device {word:?}; there are {}", names.join(", ")))
        }
        (_, _) => Err(format!("several devices are called {word:?}; use the id of one")),
    }
}

/// The devices that the words bind steps to.
type Named = BTreeMap<StepIndex, DeviceId>;

//! One node: its machines, and the routes between them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use weft_protocol::{
    audit::{Body, Head},
    codec,
    document::{DocumentKind, StartNonce},
    frame::Protocol,
    graph::StepIndex,
    host_call::Refusal,
    id::{BootId, DeviceId, DocumentId, RunId, SegmentId, StatementId, TimerId},
    row::{Row, Table, Write},
    time::{Now, Timestamp},
    value::Value,
};

use crate::{
    Bounds, Context, Input, NodeConfig, Output, StartError,
    audit::{Chain, Lineage},
    contact::Contacts,
    dispatch::{self, Dispatch, Requester, Task},
    door::{DoorId, Event, Reply},
    env::{Batch, Env, Neighbour},
    executor::{self, Executor},
    invitation::Invitations,
    links::{Links, StreamId},
    membership::Membership,
    presence::PresenceTable,
    reach::Reach,
    registry::Registry,
    replica::{self, Replica},
    runs::{self, Runs},
    schedule::{self, Schedule},
    skew::Skew,
    witness::Witnesses,
};

/// What follows when a batch is persisted.
#[derive(Debug)]
enum After {
    Executor(executor::Persisting),
    Dispatch(dispatch::Persisting),
    Runs(runs::Persisting),
    Replica(replica::Ticket),
    Membership(Vec<StatementId>),
    Invitation(u64),
    Timers(Vec<schedule::DueTimer>),
    /// A door waits for it.
    Done(DoorId),
    Rotated,
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
    /// Devices that belonged and do not now.
    gone: BTreeSet<DeviceId>,
    /// Those of them that are out for good.
    out: BTreeSet<DeviceId>,
    links: Links,
    contacts: Contacts,
    skew: Skew,
    presence: PresenceTable,
    reach: Reach,
    registry: Registry,
    replica: Replica,
    /// Where each device was last heard of, as it lies on the disk.
    addresses: BTreeMap<DeviceId, Vec<String>>,
    schedule: Schedule,
    chain: Chain,
    witnesses: Witnesses,
    runs: Runs,
    dispatch: Dispatch,
    executor: Executor,
    handover: Handover,
    version: u64,
    strangers: u64,
    strangers_since: Timestamp,
    warnings: Vec<String>,
    journal: JournalTail,
    wrote: BTreeMap<RunId, Vec<DocumentId>>,
    /// The devices that were asked for steps of another owner's runs, by agents that run here.
    asked: BTreeMap<RunId, BTreeSet<DeviceId>>,
    settling: Settling,
    /// Another key is taking the place of this device's.
    rotation: Option<Rotation>,
    outputs: VecDeque<Output>,
}

/// The most warnings that are kept for status.
const WARNINGS_MAX: usize = 32;

/// Strangers are recorded as one count so often.
const STRANGERS_EVERY: Duration = Duration::from_secs(60);

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
        replica::Context { now: $context.now, rows: $context.rows, members: &$node.membership }
    };
}

mod answers;
mod checkup;
mod departure;
mod devices;
mod handover;
mod journal;
mod peers;
mod root;
mod rotation;
mod routes;
mod settling;

use handover::Handover;
use journal::JournalTail;
use rotation::Rotation;
use settling::Settling;

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
        let lineage = Lineage::new(me, &membership.graph().former(&me));
        let segment = SegmentId::from_bytes(draw(&mut rng));
        let chain = Chain::open_last(key.clone(), segment, &lineage, context.rows)?;
        let start_nonce = StartNonce(draw(&mut rng));
        let nonces = ChaCha20Rng::from_seed(draw(&mut rng));
        let replica = Replica::new(key.clone(), &fabric, start_nonce, context.rows)?;
        let mut node = Self {
            me,
            boot,
            rng,
            gone: BTreeSet::new(),
            out: BTreeSet::new(),
            membership,
            invitations: Invitations::default(),
            links: Links::open(context.rows)?,
            contacts: Contacts::default(),
            skew: Skew::default(),
            presence: PresenceTable::new(key.clone(), boot),
            reach: Reach::default(),
            registry: Registry::new(agents),
            replica,
            addresses: BTreeMap::new(),
            schedule: Schedule::open(context.rows)?,
            chain,
            witnesses: Witnesses::open(me, context.rows)?,
            runs: Runs::default(),
            dispatch: Dispatch::new(key, nonces),
            executor: Executor::default(),
            handover: Handover::default(),
            version: 0,
            strangers: 0,
            strangers_since: context.now.mono,
            warnings: Vec::new(),
            journal: JournalTail::default(),
            wrote: BTreeMap::new(),
            asked: BTreeMap::new(),
            settling: Settling::default(),
            rotation: None,
            outputs: VecDeque::new(),
        };
        let is_first_start = node.chain.head().is_none();
        let mut writes = node.chain.start(boot, context.now.wall);
        if is_first_start {
            let unrecorded = node.unrecorded();
            writes.extend(node.record_statements(&unrecorded, context.now.wall));
        }
        // On the disk before anything is written under it, so that no later start can draw it unseen.
        let row = Row::named(Table::Node, &[], b"start nonce");
        writes.push(Write::Put(row, start_nonce.0.to_vec()));
        node.persist(Batch::synced(writes), After::Nothing);
        (node.gone, node.out) = (node.gone_now(), node.out_now());
        node.adopt_late(context);
        node.outputs.push_back(Output::Members(node.served()));
        for (device, addresses) in node.membership.remembered(context.rows)? {
            node.addresses.insert(device, addresses.clone());
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
        for unreadable in node.runs.resume(&mut env)? {
            node.warn(unreadable);
        }
        node.settle_kept(me, context);
        node.settle_former(context);
        node.pump(context);
        Ok(node)
    }

    /// Bounds what this node has at once from now on.
    pub fn bound(&mut self, bounds: Bounds) {
        self.executor.bound(bounds);
        self.replica.bound(bounds.documents_loaded_max);
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

    /// How this node is reached from outside.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The agents.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What is spoken on a stream.
    pub fn spoken_on(&self, stream: StreamId) -> Option<Protocol> {
        self.links.stream(stream).map(|(_, protocol)| protocol)
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
        let checkpoint = self.chain.poll_timeout().map(|at| (at, "a checkpoint is due"));
        [
            strangers,
            presence,
            timer,
            head,
            checkpoint,
            self.journal.poll_timeout(),
            self.settling.poll_timeout(),
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
        self.skew.look(now);
        let neighbours = self.neighbours();
        let mut env = environment!(self, context, neighbours);
        self.executor.handle_timeout(&mut env);
        self.dispatch.handle_timeout(&mut env);
        self.membership.handle_timeout(now);
        self.invitations.handle_timeout(now, &mut self.membership);
        self.timers_due(now);
        // One whose word is too old by now relays for nobody.
        self.find_relays();
        if self.strangers > 0 && self.strangers_since + STRANGERS_EVERY <= now.mono {
            let count = std::mem::take(&mut self.strangers);
            let (_, writes) = self.chain.append(Body::Strangers { count }, now.wall);
            self.persist(Batch::ordered(writes), After::Nothing);
        }
        if let Some(entries) = self.journal.due(now.mono) {
            self.persist(Batch::ordered(entries), After::Nothing);
        }
        let checkpoint = self.chain.handle_timeout(now);
        if !checkpoint.is_empty() {
            self.persist(Batch::ordered(checkpoint), After::Nothing);
        }
        self.pump(context);
        // After all records of this turn were handed over: a head is shown as the disk has it.
        if let Some(head) = self.witnesses.due(&self.chain, now.mono) {
            self.persist(Batch::synced(Vec::new()), After::Shown(head));
            self.hand_over(now);
        }
    }

    /// Takes what happened outside.
    pub fn handle_input(&mut self, input: Input, context: Context<'_>) {
        let now = context.now;
        self.skew.look(now);
        match input {
            Input::Listening { addresses } => self.presence.own_mut().addresses = addresses,
            Input::Sighted { device, addresses } => {
                if self.membership.subject(&device).is_some() {
                    self.contacts.sighted(device, now.wall);
                }
                self.outputs.push_back(Output::Remember { device, addresses });
            }
            Input::Connected { device, address } => {
                let was_here = self.links.of(&device).is_some();
                if !was_here && self.membership.state().devices.contains_key(&device) {
                    self.presence.met(device, now.mono);
                }
                self.links.connected(device, address, now.wall);
                self.contacts.connected(&device);
                self.hear(device, now, true);
                self.invitations.met(&device, now, &mut self.membership);
                if let Some(subject) = self.membership.subject(&device).filter(|_| !was_here) {
                    self.tell_watchers(Event::DeviceHere { name: subject.name });
                }
            }
            Input::Disconnected { device } => self.disconnected(device, context),
            Input::StreamOpened { stream, device, protocol } => {
                let replaced = self.links.to(&device, protocol).is_some_and(|old| old != stream);
                if replaced && protocol == Protocol::Run {
                    self.stream_closed(device, protocol, context);
                }
                self.links.opened(stream, device, protocol);
                self.stream_opened(device, protocol, context);
            }
            Input::Frame { stream, bytes } => {
                if let Some((device, protocol)) = self.links.stream(stream) {
                    // What comes late on a run stream that was replaced was cut off, and heads on a later
                    // stream are of a later start.
                    let late = self.links.to(&device, protocol) != Some(stream);
                    if !(late && matches!(protocol, Protocol::Run | Protocol::Audit)) {
                        self.frame(device, protocol, &bytes, context);
                    }
                }
            }
            Input::Moving { stream } => {
                if let Some((device, Protocol::Run)) = self.links.stream(stream) {
                    self.dispatch.moving(device, now.mono);
                }
            }
            Input::StreamClosed { stream } => {
                if let Some((device, protocol)) = self.links.closed(stream) {
                    self.stream_closed(device, protocol, context);
                }
            }
            Input::RoundTrip { device, micros } => {
                self.links.measured(&device, micros);
                if self.links.of(&device).is_some() {
                    self.hear(device, now, false);
                }
            }
            Input::DialFailed { device, attempts } => {
                if self.membership.subject(&device).is_some() {
                    self.contacts.failed(device, attempts, now.wall);
                }
            }
            Input::StrangerTurnedAway => {
                self.stranger(now);
            }
            Input::Persisted(ticket) => {
                for after in self.handover.written(ticket, &mut self.chain) {
                    self.persisted(after, context);
                }
            }
            Input::PersistFailed(ticket, reason) => {
                if let Some(refused) = self.handover.refused(ticket) {
                    self.disk_failed(&reason, refused.is_too_large);
                    for after in refused.after {
                        self.persist_failed(after, &reason, refused.is_nowhere, context);
                    }
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
            Input::NoWall { why } => {
                if self.registry.set_unwalled() {
                    self.offer_agents(context);
                }
                self.warn(format!(
                    "no agent runs on this device, since there is no wall for it ({why}); other devices do \
                     what agents are asked for"
                ));
            }
            Input::Models(models) => {
                let changed = self.registry.set_dormant("llm", models.is_empty());
                self.presence.own_mut().models = models;
                if changed {
                    self.offer_agents(context);
                }
            }
            Input::Reach(report) => {
                self.reach.learn(*report, now.wall);
                self.presence.own_mut().relays = self.reach.relays();
            }
            Input::Battery(battery) => self.presence.own_mut().battery = battery,
            Input::Metered(metered) => self.presence.own_mut().metered = metered,
            Input::Machine(machine) => self.presence.own_mut().machine = Some(machine),
            Input::PairingListening { endpoint, addresses } => {
                let (membership, rng) = (&self.membership, &mut self.rng);
                self.invitations.listening(endpoint, &addresses, now, membership, rng);
            }
            Input::PairingFailed { endpoint, reason } => {
                self.invitations.failed(endpoint, &reason);
            }
            Input::PairingConnected { endpoint, link, remote } => {
                let membership = &mut self.membership;
                self.invitations.connected(endpoint, link, remote, now, membership);
            }
            Input::PairingFrame { endpoint, link, bytes } => {
                self.invitations.frame(endpoint, link, &bytes, now, &mut self.membership);
            }
            Input::PairingClosed { endpoint, link } => {
                self.invitations.closed(endpoint, link, now, &mut self.membership);
            }
            Input::Command { door, command } => self.command(door, command, context),
            Input::Rotate { door, next } => self.rotate(door, &next, context),
            Input::DoorClosed { door } => {
                let runs = self.runs.door_closed(door);
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.dispatch.door_closed(&runs, &mut env);
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
        self.settle_asked(context);
        self.hand_over(context.now);
        self.settle(context.now);
        let mut watched: BTreeSet<DeviceId> =
            self.dispatch.asked().chain(self.executor.asking()).collect();
        watched.remove(&self.me);
        for (device, is_watched) in self.links.watch(watched) {
            self.outputs.push_back(Output::Watch { device, is_watched });
        }
        self.presence.own_mut().queue = self.executor.queue();
        if let Some(message) = self.presence.poll(context.now) {
            self.broadcast(Protocol::Presence, &codec::encode(&message), None);
        }
    }

    /// Answers for runs whose documents all connected devices have, or that waited long enough.
    fn settle(&mut self, now: Now) {
        let speaking = self.links.speaking(Protocol::Sync);
        let has =
            |device: &DeviceId, document: &DocumentId| self.replica.has_latest(device, document);
        let name = |device: &DeviceId| name(&self.membership, device);
        for (door, event) in self.settling.settled(&speaking, has, name, now.mono) {
            if door.is_some() {
                self.outputs.push_back(Output::Event { door, event: event.clone() });
            }
            self.tell_watchers(event);
        }
    }

    /// Has a batch persisted when this input is done with.
    fn persist(&mut self, batch: Batch, after: After) {
        self.handover.take(batch, vec![after]);
    }

    /// Hands to the disk what this input gave to persist.
    fn hand_over(&mut self, now: Now) {
        self.outputs.extend(self.handover.hand_over(&mut self.chain, now.mono));
    }

    fn persisted(&mut self, after: After, context: Context<'_>) {
        let neighbours = self.neighbours();
        let mut env = environment!(self, context, neighbours);
        match after {
            After::Executor(what) => self.executor.persisted(what, &mut env),
            After::Dispatch(what) => self.dispatch.persisted(what, &mut env),
            After::Runs(what) => self.runs.persisted(what, &mut env),
            After::Replica(ticket) => env.committed(ticket),
            After::Membership(statements) => self.membership.stored(&statements, context.now),
            After::Invitation(endpoint) => {
                let contacts = self.contacts(context.now);
                let membership = &mut self.membership;
                self.invitations.persisted(endpoint, true, contacts, context.now, membership);
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
            After::Shown(head) => {
                let message = self.witnesses.synced(head, &self.chain);
                self.broadcast(Protocol::Audit, &codec::encode(&message), None);
            }
            After::Done(door) => self.reply(door, Reply::Done),
            After::Rotated => self.rotated(context),
            After::Nothing => {}
        }
    }

    /// Warns of a batch that was not written.
    fn disk_failed(&mut self, reason: &str, is_too_large: bool) {
        if is_too_large {
            self.warn(format!("something was too large to be kept: {reason}"));
            return;
        }
        let text = format!(
            "nothing can be written to the disk any more: {reason}; nothing new is kept here until it is mended and weft starts anew"
        );
        if !self.warnings.contains(&text) {
            self.warnings.push(text.clone());
            self.tell_watchers(Event::Warning { text });
        }
    }

    /// `is_nowhere`: the batch is on no disk; else the next start may find it.
    fn persist_failed(
        &mut self,
        after: After,
        reason: &str,
        is_nowhere: bool,
        context: Context<'_>,
    ) {
        let neighbours = self.neighbours();
        let mut env = environment!(self, context, neighbours);
        match after {
            After::Executor(what) => self.executor.persist_failed(what, reason, &mut env),
            After::Dispatch(what) => self.dispatch.persist_failed(&what, reason, &env),
            After::Runs(what) => self.runs.persist_failed(what, reason, is_nowhere, &mut env),
            After::Replica(ticket) => env.aborted(ticket),
            After::Invitation(endpoint) => {
                let contacts = self.contacts(context.now);
                let membership = &mut self.membership;
                self.invitations.persisted(endpoint, false, contacts, context.now, membership);
            }
            After::Done(door) => {
                let found =
                    if is_nowhere { "" } else { "; the next start may find that it was kept" };
                let reason = format!("{reason}{found}");
                self.reply(door, Reply::Refused { refusal: Refusal::Failed, reason });
            }
            After::Rotated => self.rotation_failed(reason),
            After::Membership(statements) => {
                if self.membership.refused(&statements) {
                    self.version += 1;
                    self.devices_changed(Vec::new(), Vec::new(), context);
                }
            }
            After::Timers(_) | After::Shown(_) | After::Nothing => {}
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
        // What this device offered under its former keys goes with them.
        let former = self.former().into_iter().map(|key| self.registry.own_offer(&key).0);
        let former =
            former.filter(|field| current.as_ref().is_some_and(|it| it.get(field).is_some()));
        let fields = former.map(|field| (field, Value::Null)).chain([(field, offer)]);
        let edit = replica::Edit::Update { id, content: Value::map(fields.collect::<Vec<_>>()) };
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
                let presence = self.presence.fresh(&device);
                let own = self.presence.own();
                let (queue, battery, metered, models, machine) = match presence {
                    _ if here => {
                        (own.queue, own.battery, own.metered, own.models.as_slice(), own.machine)
                    }
                    Some(it) => {
                        (it.queue, it.battery, it.metered, it.models.as_slice(), it.machine)
                    }
                    None => (0, None, false, [].as_slice(), None),
                };
                Neighbour {
                    here,
                    connected: here || self.links.of(&device).is_some(),
                    reachable: here || self.links.to(&device, Protocol::Run).is_some(),
                    round_trip_micros: self.links.of(&device).and_then(|it| it.round_trip_micros),
                    queue,
                    battery,
                    metered,
                    load_percent: machine.and_then(|it| it.load_percent),
                    speed_milli: models.iter().map(|model| model.speed_milli).max().unwrap_or(0),
                    subject,
                }
            })
            .collect()
    }

    /// A member was heard.
    fn hear(&mut self, device: DeviceId, now: Now, is_new: bool) {
        if self.membership.subject(&device).is_none() {
            return;
        }
        if let Some(write) = self.links.hear(device, now.wall, is_new) {
            self.persist(Batch::ordered(vec![write]), After::Nothing);
        }
    }

    fn name(&self, device: &DeviceId) -> String {
        name(&self.membership, device)
    }

    fn reply(&mut self, door: DoorId, reply: Reply) {
        self.outputs.push_back(Output::Reply { door, reply });
    }

    fn tell_watchers(&mut self, event: Event) {
        self.outputs.push_back(Output::Event { door: None, event });
    }

    fn tell_run(&mut self, run: &RunId, event: Event) {
        if let Some(door) = self.runs.door(run) {
            self.outputs.push_back(Output::Event { door: Some(door), event: event.clone() });
        }
        self.tell_watchers(event);
    }

    /// Counts somebody who was turned away.
    fn stranger(&mut self, now: Now) {
        if self.strangers == 0 {
            self.strangers_since = now.mono;
        }
        self.strangers += 1;
    }

    fn warn(&mut self, text: String) {
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&text) {
            self.warnings.push(text.clone());
            self.tell_watchers(Event::Warning { text });
        }
    }
}

/// What a device is called, or was when it had an earlier key.
fn name(membership: &Membership, device: &DeviceId) -> String {
    let device = &membership.state().successor(device);
    membership.subject(device).map_or_else(|| device.short(), |subject| subject.name)
}

/// Draws bytes.
pub(crate) fn draw<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// The devices that the words bind steps to.
type Named = BTreeMap<StepIndex, DeviceId>;

#[cfg(test)]
mod tests;

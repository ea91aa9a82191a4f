//! The task that owns the main swarm.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm,
    core::ConnectedPoint,
    identify, mdns,
    multiaddr::Protocol as Part,
    ping,
    swarm::{
        ConnectionId, DialError, ListenError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};
use weft_protocol::{
    frame::Protocol,
    id::{BootId, DeviceId},
    time::Timestamp,
};

use crate::{
    Command, Config, DialFailure, Disconnection, Event, Reach, StartError, TurnedAway, address,
    gate::{Access, GateEvent, Negotiated, OPEN_TIMEOUT, Refusal},
    peer,
    redial::{self, Redial},
    rivals::{self, BootRank, Rival},
    stream::{Outgoing, Report, StreamActor, StreamEnd, StreamId},
    swarm::{self, Behaviour, BehaviourEvent},
};

/// How long a stranger has to prove that it belongs.
const STRANGER_TIME: Duration = Duration::from_secs(5);

/// How long a stream waits for trust to be merged here.
const HELD_TIME: Duration = Duration::from_secs(5);

/// How long a connection that is closed on purpose stays up for what was queued: a few round
/// trips on a LAN. Nothing that it says is heard any more.
const LINGER: Duration = Duration::from_millis(100);

/// How long [`Command::Stop`] waits for the connections to close.
const STOP_TIME: Duration = Duration::from_secs(1);

/// The wait before a stream that ended is opened again, doubled each time up to the maximum.
const REOPEN_MIN: Duration = Duration::from_millis(250);
const REOPEN_MAX: Duration = Duration::from_secs(30);

/// A stream that lasted so long starts anew with [`REOPEN_MIN`].
const REOPEN_RESET_AFTER: Duration = Duration::from_secs(30);

/// Addresses of one device that are dialled: two transports on four interfaces, v4 and v6.
const ADDRESSES_MAX: usize = 16;

/// Starts of one device that are told apart: enough for a clone of its disk that keeps coming.
const BOOTS_MAX: usize = 16;

/// Frames from all streams on their way to the loop. Few, since each may be a large one; a full
/// channel holds back the readers, and with them the peers.
const REPORTS_MAX: usize = 32;

/// While so many events wait, nothing is taken from the network: the node stands still, and what
/// it can't be told of must not happen.
const EVENTS_MAX: usize = 1024;

/// Events that tell of strangers and sightings are dropped while so many wait, since anybody on
/// the network makes them.
const OTHERS_EVENTS_MAX: usize = 64;

/// A protocol's name as libp2p wants it.
pub(crate) fn name(protocol: Protocol) -> StreamProtocol {
    StreamProtocol::try_from_owned(protocol.name()).expect("protocol names begin with a slash")
}

fn protocol_of(name: &StreamProtocol) -> Option<Protocol> {
    Protocol::SPOKEN.into_iter().find(|protocol| protocol.name() == name.as_ref())
}

/// What falls due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Timer {
    Greeting(ConnectionId),
    Stranger(ConnectionId),
    Held(StreamId),
    Reopen(ConnectionId, Protocol),
    Close(ConnectionId),
}

#[derive(Debug)]
struct Connection {
    device: DeviceId,
    address: Multiaddr,
    /// Whether this node dialled.
    dialled: bool,
    order: u64,
    access: Arc<Access>,
    member: bool,
    boot: Option<(BootId, BootRank)>,
    /// Whether it is the one that serves its device.
    current: bool,
    admitted: bool,
    streams: BTreeMap<Protocol, StreamId>,
    reopened: BTreeMap<Protocol, u32>,
}

#[derive(Debug)]
struct Stream {
    connection: ConnectionId,
    protocol: Protocol,
    since: Instant,
    outgoing: Outgoing,
    release: Option<oneshot::Sender<()>>,
    task: AbortHandle,
    boot: Option<BootId>,
    /// Whether the node was told of it.
    opened: bool,
}

/// The task's state.
pub(crate) struct NetActor {
    local: DeviceId,
    boot: BootId,
    reach: Reach,
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    outbox: VecDeque<Event>,
    reports: mpsc::Receiver<Report>,
    report_sender: mpsc::Sender<Report>,
    tasks: JoinSet<()>,
    started: Instant,
    timers: BTreeMap<(Instant, u64), Timer>,
    /// Numbers connections, streams, timers and starts in the order in which they came.
    sequence: u64,
    members: BTreeSet<DeviceId>,
    remembered: HashMap<DeviceId, Vec<Multiaddr>>,
    sighted: HashMap<DeviceId, VecDeque<Multiaddr>>,
    redial: Redial,
    connections: HashMap<ConnectionId, Connection>,
    streams: HashMap<StreamId, Stream>,
    boots: HashMap<DeviceId, VecDeque<(BootId, u64)>>,
    listening: Vec<String>,
}

#[expect(clippy::large_enum_variant, reason = "one lives for one turn of the loop")]
enum Input {
    Swarm(SwarmEvent<BehaviourEvent>),
    Report(Report),
}

impl NetActor {
    /// Listens.
    pub(crate) fn new(
        config: Config,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, StartError> {
        let key = peer::keypair(config.seed);
        let local = peer::key(&key.public().to_peer_id()).expect("an Ed25519 key stands in its id");
        let mut swarm = swarm::main(key, config.mdns && config.reach == Reach::Lan)?;
        swarm::listen(&mut swarm, config.reach, config.port)?;
        let (report_sender, reports) = mpsc::channel(REPORTS_MAX);
        Ok(Self {
            local: DeviceId::from_bytes(local),
            boot: config.boot,
            reach: config.reach,
            swarm,
            commands,
            events,
            outbox: VecDeque::new(),
            reports,
            report_sender,
            tasks: JoinSet::new(),
            started: Instant::now(),
            timers: BTreeMap::new(),
            sequence: 0,
            members: BTreeSet::new(),
            remembered: HashMap::new(),
            sighted: HashMap::new(),
            redial: Redial::default(),
            connections: HashMap::new(),
            streams: HashMap::new(),
            boots: HashMap::new(),
            listening: Vec::new(),
        })
    }

    /// Runs until it is stopped or nobody listens.
    pub(crate) async fn run(mut self) {
        let events = self.events.clone();
        loop {
            while let Some(device) = self.redial.poll_output() {
                self.dial(device);
            }
            let due = self.due();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None | Some(Command::Stop) => break,
                    Some(command) => self.on_command(command),
                },
                Some(task) = self.tasks.join_next() => {
                    if let Err(error) = task && let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
                () = sleep_until(due) => self.on_time(),
                permit = events.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => permit.send(self.outbox.pop_front().expect("it is not empty")),
                    Err(_) => break,
                },
                input = network(&mut self.swarm, &mut self.reports, self.outbox.is_empty()),
                    if self.outbox.len() < EVENTS_MAX =>
                {
                    match input {
                        Input::Swarm(event) => self.on_swarm_event(event),
                        Input::Report(report) => self.on_report(report),
                    }
                }
            }
        }
        self.stop().await;
    }

    /// Lets the streams send what is queued, then closes.
    async fn stop(mut self) {
        self.streams.clear();
        let lingered = Instant::now() + LINGER;
        loop {
            tokio::select! {
                () = sleep_until(lingered) => break,
                _ = self.swarm.select_next_some() => {}
            }
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // It may have gone in the meantime.
            self.swarm.disconnect_peer_id(peer).ok();
        }
        let deadline = Instant::now() + STOP_TIME;
        while self.swarm.connected_peers().next().is_some() {
            tokio::select! {
                () = sleep_until(deadline) => return,
                _ = self.swarm.select_next_some() => {}
            }
        }
    }

    // Commands

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Members(members) => self.on_members(members),
            Command::Remember { device, addresses } => self.on_remember(device, &addresses),
            Command::Dial { device } => self.on_dial(device),
            Command::Admit { device } => self.on_admit(device),
            Command::Send { stream, frame } => {
                if let Some(entry) = self.streams.get(&stream)
                    && let Err(end) = entry.outgoing.send(frame)
                {
                    self.on_stream_end(stream, end);
                }
            }
            Command::CloseStream { stream } => self.on_stream_end(stream, StreamEnd::Local),
            Command::Disconnect { device } => {
                if let Some(id) = self.current(device) {
                    self.leave(id, Disconnection::Closed, true);
                }
            }
            Command::Stop => {}
        }
    }

    fn on_members(&mut self, mut members: BTreeSet<DeviceId>) {
        members.remove(&self.local);
        let peers = members.iter().filter_map(|device| peer::peer_id(device.as_bytes())).collect();
        self.swarm.behaviour_mut().gate.set_members(peers);
        self.sighted.retain(|device, _| members.contains(device));
        self.boots.retain(|device, _| {
            members.contains(device) || self.connections.values().any(|c| c.device == *device)
        });
        self.redial_input(redial::Input::Members(members.clone()));
        self.members = members;
        for id in self.connection_ids(|_| true) {
            let connection = &self.connections[&id];
            let belongs = self.members.contains(&connection.device);
            match (connection.member, belongs) {
                (true, false) => self.leave(id, Disconnection::NotMember, true),
                (false, true) => self.promote(id),
                (true, true) | (false, false) => {}
            }
        }
    }

    /// A stranger became a member on the connection that it has.
    fn promote(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        debug_assert!(connection.access.is_member(), "the gate promotes before this task");
        connection.member = true;
        let device = connection.device;
        if connection.current {
            let address = connection.address.to_string();
            self.outbox.push_back(Event::Connected { device, address, member: true });
        }
        self.redial_input(redial::Input::Connected(device));
    }

    fn on_remember(&mut self, device: DeviceId, addresses: &[String]) {
        let parsed: Vec<Multiaddr> = addresses
            .iter()
            .filter_map(|text| address::parse(text, self.reach))
            .take(ADDRESSES_MAX)
            .collect();
        let known = self.remembered.entry(device).or_default();
        let is_new = parsed.iter().any(|address| !known.contains(address));
        *known = parsed;
        if is_new {
            self.redial_input(redial::Input::Reachable(device));
        }
    }

    fn on_dial(&mut self, device: DeviceId) {
        let reason = if !self.members.contains(&device) {
            DialFailure::NotMember
        } else if self.addresses(device).is_empty() {
            DialFailure::NoAddress
        } else {
            self.redial_input(redial::Input::Reachable(device));
            return;
        };
        self.outbox.push_back(Event::DialFailed { device, reason });
    }

    fn on_admit(&mut self, device: DeviceId) {
        let Some(id) = self.current(device) else { return };
        let connection = self.connections.get_mut(&id).expect("the current one exists");
        if !connection.member || connection.admitted {
            return;
        }
        connection.admitted = true;
        self.redial_input(redial::Input::Settled(device));
        self.release(id);
        if self.local < device {
            for protocol in Protocol::SPOKEN {
                self.open(id, protocol);
            }
        }
    }

    // Dialling

    fn addresses(&self, device: DeviceId) -> Vec<Multiaddr> {
        let sighted = self.sighted.get(&device).into_iter().flatten();
        let remembered = self.remembered.get(&device).into_iter().flatten();
        let mut addresses: Vec<Multiaddr> = Vec::new();
        for address in sighted.chain(remembered) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        addresses
    }

    fn dial(&mut self, device: DeviceId) {
        if self.connections.values().any(|connection| connection.device == device) {
            return;
        }
        let Some(peer) = peer::peer_id(device.as_bytes()) else {
            let why = "its id is no key".to_owned();
            self.on_dial_failed(device, DialFailure::Unreachable { why });
            return;
        };
        let opts = DialOpts::peer_id(peer)
            .addresses(self.addresses(device))
            // Neither a connection that is on its way out nor a dial to where the peer no longer is
            // must hold up the next; how many dials there are is for `redial` to say.
            .condition(PeerCondition::Always)
            .build();
        match self.swarm.dial(opts) {
            Ok(()) => {}
            Err(DialError::NoAddresses) => self.on_dial_failed(device, DialFailure::NoAddress),
            Err(error) => {
                self.on_dial_failed(device, DialFailure::Unreachable { why: error.to_string() });
            }
        }
    }

    fn on_dial_failed(&mut self, device: DeviceId, reason: DialFailure) {
        if self.connections.values().any(|connection| connection.device == device) {
            // The peer was quicker.
            return;
        }
        self.outbox.push_back(Event::DialFailed { device, reason });
        self.redial_input(redial::Input::Failed(device));
    }

    fn redial_input(&mut self, input: redial::Input) {
        let now = self.now();
        self.redial.handle_input(input, now);
    }

    fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.started.elapsed()
    }

    // Time

    fn due(&self) -> Instant {
        let redial = self.redial.poll_timeout().map(|at| self.started + at.since(Timestamp::ZERO));
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        let idle = Instant::now() + Duration::from_secs(3600);
        [redial, timer].into_iter().flatten().min().unwrap_or(idle)
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            let timer = entry.remove();
            self.on_timer(timer);
        }
        let now = self.now();
        self.redial.handle_timeout(now);
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Greeting(id) => {
                if self.connections.get(&id).is_some_and(|c| c.member && c.boot.is_none()) {
                    let why = "no hello in time".to_owned();
                    self.leave(id, Disconnection::Violation { why }, false);
                }
            }
            Timer::Stranger(id) => {
                if self.connections.get(&id).is_some_and(|connection| !connection.member) {
                    self.turn_away(id, TurnedAway::TimeUp);
                }
            }
            Timer::Held(stream) => {
                if self.streams.get(&stream).is_some_and(|entry| !entry.opened) {
                    self.on_stream_end(stream, StreamEnd::NotAdmitted);
                }
            }
            Timer::Reopen(id, protocol) => {
                if self.connections.get(&id).is_some_and(|c| c.may_open(protocol)) {
                    self.open(id, protocol);
                }
            }
            Timer::Close(id) => {
                self.swarm.close_connection(id);
            }
        }
    }

    fn after(&mut self, delay: Duration, timer: Timer) {
        let sequence = self.next();
        self.timers.insert((Instant::now() + delay, sequence), timer);
    }

    fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    // The swarm

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events may grow; what is not named has no meaning here"
    )]
    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(connection_id, &peer_id, endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                let why = cause.map_or_else(|| "closed".to_owned(), |cause| cause.to_string());
                if let Some(device) = self.forget(connection_id, Disconnection::Lost { why }, false)
                {
                    self.settle(device);
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                if let Some(key) = peer::key(&peer) {
                    let reason = DialFailure::Unreachable { why: error.to_string() };
                    self.on_dial_failed(DeviceId::from_bytes(key), reason);
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, %error, "connection refused");
                if let ListenError::Denied { cause } = error
                    && let Some(refusal) = cause.downcast_ref::<Refusal>()
                {
                    let why = match refusal {
                        Refusal::TooMany => TurnedAway::TooMany,
                        Refusal::TooManyFromAddress => TurnedAway::TooManyFromAddress,
                    };
                    self.tell_of_others(Event::StrangerTurnedAway {
                        address: send_back_addr.to_string(),
                        why,
                    });
                }
            }
            SwarmEvent::NewListenAddr { .. }
            | SwarmEvent::ExpiredListenAddr { .. }
            | SwarmEvent::ListenerClosed { .. } => self.on_listeners(),
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener failed once");
            }
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gate(event) => self.on_gate_event(event),
            BehaviourEvent::Ping(ping::Event { connection, result, .. }) => {
                self.on_ping(connection, result);
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(peers)) => self.on_sighted(peers),
            BehaviourEvent::Mdns(mdns::Event::Expired(peers)) => {
                for (peer, address) in peers {
                    if let Some(key) = peer::key(&peer)
                        && let Some(address) = address::parse(&address.to_string(), self.reach)
                        && let Some(known) = self.sighted.get_mut(&DeviceId::from_bytes(key))
                    {
                        known.retain(|other| *other != address);
                    }
                }
            }
            BehaviourEvent::Identify(
                identify::Event::Received { .. }
                | identify::Event::Sent { .. }
                | identify::Event::Pushed { .. }
                | identify::Event::Error { .. },
            ) => {}
            BehaviourEvent::Limits(never) | BehaviourEvent::Memory(never) => match never {},
        }
    }

    fn on_listeners(&mut self) {
        let mut addresses: Vec<String> = self
            .swarm
            .listeners()
            .filter(|address| address::is_worth_telling(address, self.reach))
            .map(ToString::to_string)
            .collect();
        addresses.sort();
        addresses.dedup();
        if addresses != self.listening {
            let is_new = addresses.iter().any(|address| !self.listening.contains(address));
            if is_new && !self.listening.is_empty() {
                self.redial_input(redial::Input::Moved);
            }
            self.listening.clone_from(&addresses);
            self.outbox.push_back(Event::Listening { addresses });
        }
    }

    fn on_sighted(&mut self, peers: Vec<(PeerId, Multiaddr)>) {
        let mut fresh: BTreeMap<DeviceId, Vec<String>> = BTreeMap::new();
        for (peer, address) in peers {
            let Some(device) = peer::key(&peer).map(DeviceId::from_bytes) else { continue };
            if !self.members.contains(&device) {
                continue;
            }
            let Some(address) = address::parse(&address.to_string(), self.reach) else { continue };
            let known = self.sighted.entry(device).or_default();
            known.retain(|other| *other != address);
            known.push_front(address.clone());
            known.truncate(ADDRESSES_MAX);
            fresh.entry(device).or_default().push(address.to_string());
        }
        for (device, addresses) in fresh {
            self.tell_of_others(Event::Sighted { device, addresses });
            self.redial_input(redial::Input::Reachable(device));
        }
    }

    fn on_ping(&mut self, id: ConnectionId, result: Result<Duration, ping::Failure>) {
        let Some(connection) = self.connections.get(&id) else { return };
        match result {
            Ok(rtt) if connection.member && connection.current => {
                self.outbox.push_back(Event::RoundTrip { device: connection.device, rtt });
            }
            Ok(_) | Err(ping::Failure::Unsupported) => {}
            Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                let why = "no answer to a ping".to_owned();
                self.leave(id, Disconnection::Lost { why }, false);
            }
        }
    }

    // Connections

    fn on_established(&mut self, id: ConnectionId, peer: &PeerId, endpoint: ConnectedPoint) {
        let device = peer::key(peer).map(DeviceId::from_bytes);
        let access = self.swarm.behaviour().gate.access(id);
        let (Some(device), Some(access)) = (device, access) else {
            self.swarm.close_connection(id);
            return;
        };
        let (mut address, dialled) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (address, true),
            ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, false),
        };
        if let Some(Part::P2p(_)) = address.iter().last() {
            address.pop();
        }
        let member = self.members.contains(&device);
        if dialled && !member {
            // It left while it was dialled.
            self.swarm.close_connection(id);
            return;
        }
        if member {
            // It may have become a member between the gate and here.
            access.promote();
        }
        let connection = Connection {
            device,
            address,
            dialled,
            order: self.next(),
            access,
            member,
            boot: None,
            current: false,
            admitted: false,
            streams: BTreeMap::new(),
            reopened: BTreeMap::new(),
        };
        self.connections.insert(id, connection);
        if member {
            self.redial_input(redial::Input::Connected(device));
            self.after(OPEN_TIMEOUT, Timer::Greeting(id));
        } else {
            self.after(STRANGER_TIME, Timer::Stranger(id));
        }
        if dialled {
            self.open(id, Protocol::Trust);
        }
    }

    fn turn_away(&mut self, id: ConnectionId, why: TurnedAway) {
        let Some(connection) = self.connections.get(&id) else { return };
        let address = connection.address.to_string();
        self.leave(id, Disconnection::Stranger(why), true);
        self.tell_of_others(Event::StrangerTurnedAway { address, why });
    }

    /// Closes a connection, after [`LINGER`] where what is queued shall still go out. For the node
    /// it is gone at once.
    fn leave(&mut self, id: ConnectionId, reason: Disconnection, lingers: bool) {
        let Some(device) = self.forget(id, reason, lingers) else { return };
        if lingers {
            self.after(LINGER, Timer::Close(id));
        } else {
            self.swarm.close_connection(id);
        }
        self.settle(device);
    }

    /// Takes a connection and its streams off the books and tells the node.
    fn forget(
        &mut self,
        id: ConnectionId,
        reason: Disconnection,
        lingers: bool,
    ) -> Option<DeviceId> {
        let connection = self.connections.remove(&id)?;
        for stream in connection.streams.into_values() {
            self.remove_stream(stream, StreamEnd::Disconnected, lingers);
        }
        let device = connection.device;
        if connection.current {
            self.outbox.push_back(Event::Disconnected { device, reason });
        }
        Some(device)
    }

    /// Decides which connection to `device` serves, after any of them changed.
    fn settle(&mut self, device: DeviceId) {
        let preferred = self.local.min(device);
        let rivals: Vec<Rival<ConnectionId>> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.device == device)
            .map(|(&id, connection)| Rival {
                id,
                is_preferred: (preferred == self.local) == connection.dialled,
                order: connection.order,
                boot: connection.boot.map(|(_, rank)| rank),
            })
            .collect();
        if rivals.is_empty() {
            if !self.members.contains(&device) {
                self.boots.remove(&device);
            }
            self.redial_input(redial::Input::Lost(device));
            return;
        }
        let choice = rivals::choose(&rivals, self.current(device));
        for id in choice.close {
            self.forget(id, Disconnection::Replaced, false);
            self.swarm.close_connection(id);
        }
        if let Some(id) = choice.keep {
            let connection = self.connections.get_mut(&id).expect("it was among the rivals");
            if !connection.current {
                connection.current = true;
                let address = connection.address.to_string();
                let member = connection.member;
                self.outbox.push_back(Event::Connected { device, address, member });
                self.release(id);
            }
        }
    }

    fn current(&self, device: DeviceId) -> Option<ConnectionId> {
        self.connections
            .iter()
            .find(|(_, connection)| connection.current && connection.device == device)
            .map(|(&id, _)| id)
    }

    fn connection_ids(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<ConnectionId> {
        let mut ids: Vec<(u64, ConnectionId)> = self
            .connections
            .iter()
            .filter(|(_, connection)| wanted(connection))
            .map(|(&id, connection)| (connection.order, id))
            .collect();
        ids.sort_by_key(|(order, _)| *order);
        ids.into_iter().map(|(_, id)| id).collect()
    }

    // Streams

    /// Opens a protocol on a connection where it is not open.
    fn open(&mut self, id: ConnectionId, protocol: Protocol) {
        if let Some(connection) = self.connections.get(&id)
            && !connection.streams.contains_key(&protocol)
        {
            self.swarm.behaviour_mut().gate.open(id, name(protocol));
        }
    }

    fn on_gate_event(&mut self, event: GateEvent) {
        let id = event.connection;
        let Some(protocol) = protocol_of(&event.protocol) else { return };
        let Some(connection) = self.connections.get(&id) else { return };
        let opens = connection.opens(self.local, protocol);
        match event.outcome {
            Negotiated::Outbound(stream) => self.start_stream(id, protocol, stream),
            Negotiated::Inbound(stream) if !opens => self.start_stream(id, protocol, stream),
            Negotiated::Inbound(_) => {
                tracing::debug!(device = %connection.device, %protocol, "opened by the wrong side");
            }
            Negotiated::Failed(why) => {
                tracing::debug!(device = %connection.device, %protocol, %why, "not opened");
                if protocol == Protocol::Trust && connection.boot.is_none() {
                    let why = format!("trust does not open: {why}");
                    self.leave(id, Disconnection::Violation { why }, false);
                } else {
                    self.reopen_later(id, protocol, None);
                }
            }
        }
    }

    fn start_stream(&mut self, id: ConnectionId, protocol: Protocol, stream: libp2p::Stream) {
        let stream_id = StreamId(self.next());
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (actor, outgoing, release) = StreamActor::new(
            stream_id,
            self.boot,
            Arc::clone(&connection.access),
            self.report_sender.clone(),
        );
        let replaced = connection.streams.insert(protocol, stream_id);
        let entry = Stream {
            connection: id,
            protocol,
            since: Instant::now(),
            outgoing,
            release: Some(release),
            task: self.tasks.spawn(actor.run(stream)),
            boot: None,
            opened: false,
        };
        self.streams.insert(stream_id, entry);
        if let Some(older) = replaced {
            self.remove_stream(older, StreamEnd::Replaced, false);
        }
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Greeted { stream, boot } => self.on_greeted(stream, boot),
            Report::Frame { stream, bytes } => {
                // What was under way when the stream closed is not heard.
                if self.streams.get(&stream).is_some_and(|entry| entry.opened) {
                    self.outbox.push_back(Event::Frame { stream, bytes });
                }
            }
            Report::Ended { stream, end } => self.on_stream_end(stream, end),
        }
    }

    fn on_greeted(&mut self, stream: StreamId, boot: BootId) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        entry.boot = Some(boot);
        let id = entry.connection;
        let Some(connection) = self.connections.get(&id) else { return };
        let device = connection.device;
        match connection.boot {
            None => {
                let rank = self.rank(device, boot);
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.boot = Some((boot, rank));
                }
                self.settle(device);
            }
            Some((known, _)) if known == boot => {}
            Some(_) => {
                let why = "it says two boot ids on one connection".to_owned();
                self.leave(id, Disconnection::Violation { why }, false);
                return;
            }
        }
        self.release(id);
        let waits = self.streams.get(&stream).is_some_and(|entry| !entry.opened);
        if waits {
            self.after(HELD_TIME, Timer::Held(stream));
        }
    }

    fn rank(&mut self, device: DeviceId, boot: BootId) -> BootRank {
        let known = self.boots.get(&device).into_iter().flatten();
        if let Some((_, heard)) = known.copied().find(|(other, _)| *other == boot) {
            return BootRank { counter: boot.counter, heard };
        }
        let heard = self.next();
        let boots = self.boots.entry(device).or_default();
        boots.push_back((boot, heard));
        if boots.len() > BOOTS_MAX {
            boots.pop_front();
        }
        BootRank { counter: boot.counter, heard }
    }

    /// Tells the node of the streams that may be used now, and lets them read.
    fn release(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        if !connection.current {
            return;
        }
        for (&protocol, stream) in &connection.streams {
            if protocol != Protocol::Trust && !connection.admitted {
                continue;
            }
            let Some(entry) = self.streams.get_mut(stream) else { continue };
            if let Some(boot) = entry.boot
                && let Some(release) = entry.release.take()
            {
                entry.opened = true;
                self.outbox.push_back(Event::StreamOpened {
                    stream: *stream,
                    device: connection.device,
                    protocol,
                    member: connection.member,
                    boot,
                });
                // The task may have ended, which its report will say.
                release.send(()).ok();
            }
        }
    }

    /// Ends one stream while its connection stays, and arranges for the next.
    fn on_stream_end(&mut self, stream: StreamId, end: StreamEnd) {
        let Some(entry) = self.streams.get(&stream) else { return };
        let (id, protocol, since) = (entry.connection, entry.protocol, entry.since);
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.streams.get(&protocol) == Some(&stream)
        {
            connection.streams.remove(&protocol);
        }
        let too_many = end == StreamEnd::TooManyBytes;
        let drains = end == StreamEnd::Local;
        self.remove_stream(stream, end, drains);
        if too_many {
            self.turn_away(id, TurnedAway::TooManyBytes);
        } else if self.connections.get(&id).is_some_and(|c| c.member && c.boot.is_none()) {
            let why = "no hello".to_owned();
            self.leave(id, Disconnection::Violation { why }, false);
        } else {
            self.reopen_later(id, protocol, Some(since));
        }
    }

    fn reopen_later(&mut self, id: ConnectionId, protocol: Protocol, since: Option<Instant>) {
        let local = self.local;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.opens(local, protocol) {
            return;
        }
        let times = connection.reopened.entry(protocol).or_default();
        if since.is_some_and(|since| since.elapsed() >= REOPEN_RESET_AFTER) {
            *times = 0;
        }
        let delay = REOPEN_MIN.saturating_mul(1 << (*times).min(16)).min(REOPEN_MAX);
        *times += 1;
        self.after(delay, Timer::Reopen(id, protocol));
    }

    /// Takes a stream off the books and tells the node; its task sends what is queued or ends.
    fn remove_stream(&mut self, stream: StreamId, reason: StreamEnd, drains: bool) {
        let Some(entry) = self.streams.remove(&stream) else { return };
        if !drains {
            entry.task.abort();
        }
        if entry.opened {
            self.outbox.push_back(Event::StreamClosed { stream, reason });
        }
    }

    /// Tells of what anybody on the network can cause, unless much waits already.
    fn tell_of_others(&mut self, event: Event) {
        if self.outbox.len() < OTHERS_EVENTS_MAX {
            self.outbox.push_back(event);
        } else {
            tracing::debug!(?event, "left out");
        }
    }
}

impl Connection {
    /// Whether this side opens `protocol` on it.
    fn opens(&self, local: DeviceId, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Trust => self.dialled,
            Protocol::Presence
            | Protocol::Sync
            | Protocol::Run
            | Protocol::Blob
            | Protocol::Llm
            | Protocol::Audit => local < self.device,
        }
    }

    /// Whether `protocol` may be opened on it now.
    fn may_open(&self, protocol: Protocol) -> bool {
        protocol == Protocol::Trust || self.admitted
    }
}

/// The next thing from outside. Swarm and streams take turns by chance, so that neither starves
/// the other; streams wait while the node has not taken the events before.
async fn network(
    swarm: &mut Swarm<Behaviour>,
    reports: &mut mpsc::Receiver<Report>,
    takes_reports: bool,
) -> Input {
    tokio::select! {
        event = swarm.select_next_some() => Input::Swarm(event),
        Some(report) = reports.recv(), if takes_reports => Input::Report(report),
    }
}

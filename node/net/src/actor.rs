//! The task that owns the main swarm: its loop, what is asked of it, what falls due.

mod connections;
mod dialling;
mod reaching;
mod streams;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm,
    core::transport::ListenerId,
    identify, mdns, ping, relay,
    swarm::{ConnectionId, ListenError, SwarmEvent},
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use weft_protocol::{
    frame::Protocol,
    id::{BootId, DeviceId},
    reach,
    time::Timestamp,
};

use self::{
    connections::Connection,
    dialling::{Dialling, Purpose},
    streams::Stream,
};
use crate::{
    Command, Config, Disconnection, Event, Reach, StartError, TurnedAway, address,
    allowance::Allowances,
    book::AddressBook,
    gate::Refusal,
    liveness::Liveness,
    mapping::{self, Mapping},
    muxer::TooManyStreams,
    peer,
    reach::Findings,
    redial::{self, Redial},
    reserve::{self, Reserve},
    rivals::Starts,
    stream::{Report, StreamEnd, StreamId},
    swarm::{self, Behaviour, BehaviourEvent, Tests},
    upgrade::Upgrade,
    vicinity::Vicinity,
    watch,
};

/// How long a connection that is left stays up, so that what is queued for it goes out: many round trips
/// on a LAN. Nothing that it says is heard any more.
const LINGER: Duration = Duration::from_millis(100);

/// How long [`Command::Stop`] waits for the connections to close.
const STOP_TIME: Duration = Duration::from_secs(1);

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
    Circuits(u64),
    Moved,
    MovedOn,
}

/// The task's state.
pub(crate) struct NetActor {
    local: DeviceId,
    boot: BootId,
    reach: Reach,
    vicinity: Vicinity,
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    outbox: VecDeque<Event>,
    reports: mpsc::Receiver<Report>,
    report_sender: mpsc::Sender<Report>,
    tasks: JoinSet<()>,
    started: Instant,
    timers: BTreeMap<(Instant, u64), Timer>,
    /// Numbers connections, streams and timers in the order in which they came.
    sequence: u64,
    members: BTreeSet<DeviceId>,
    book: AddressBook,
    redial: Redial,
    liveness: Liveness,
    /// Fires when this node's own network may be back.
    returned: Arc<Notify>,
    /// While it is not long ago that the network moved: whether it did again.
    moved: Option<bool>,
    /// All connections that are up, whatever for.
    established: HashMap<ConnectionId, DeviceId>,
    /// Those that serve their devices, or may come to.
    connections: HashMap<ConnectionId, Connection>,
    streams: HashMap<StreamId, Stream>,
    starts: Starts,
    allowances: Allowances,
    listening: Vec<String>,
    /// Dials of this task's own.
    dials: HashMap<ConnectionId, Purpose>,
    attempts: BTreeMap<u64, Dialling>,
    /// Connections that are there to make another.
    errands: HashSet<ConnectionId>,
    findings: Findings,
    /// Has the router pass on what comes from outside.
    mapping: Option<Mapping>,
    /// The external addresses that the swarm was given.
    public: BTreeSet<Multiaddr>,
    reported: reach::Report,
    reserve: Reserve,
    /// How often somebody came to a listener wrongly, before there was a connection.
    misheard: u64,
    /// The addresses of the listeners that are no relay's.
    heard_at: HashSet<(ListenerId, Multiaddr)>,
    /// Which relay each listener of a circuit asked.
    places: HashMap<ListenerId, DeviceId>,
    upgrade: Upgrade,
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
        let tests: Tests = reaching::is_worth_testing;
        let tests = (config.reach == Reach::Lan).then_some(tests);
        Self::testing(config, tests, commands, events)
    }

    /// The same, where members dial each other back at what `tests` says.
    pub(crate) fn testing(
        config: Config,
        tests: Option<Tests>,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, StartError> {
        let key = peer::keypair(config.seed);
        let local = peer::key(&key.public().to_peer_id()).expect("an Ed25519 key stands in its id");
        let is_wide = config.reach == Reach::Lan;
        let besides = swarm::Besides { mdns: config.mdns && is_wide, tests };
        let vicinity = Vicinity::new(config.reach);
        let mut swarm = swarm::main(key, besides, vicinity.clone())?;
        swarm::listen(&mut swarm, config.reach, config.port)?;
        let announced = config.announce.iter().filter_map(|it| address::parse(it, config.reach));
        let announced = announced.filter(|it| !address::is_relayed(it)).collect();
        let (report_sender, reports) = mpsc::channel(REPORTS_MAX);
        let (mut tasks, returned) = (JoinSet::new(), Arc::new(Notify::new()));
        if config.reach == Reach::Lan {
            tasks.spawn(watch::watch(Arc::clone(&returned)));
        }
        Ok(Self {
            local: DeviceId::from_bytes(local),
            boot: config.boot,
            reach: config.reach,
            vicinity,
            swarm,
            commands,
            events,
            outbox: VecDeque::new(),
            reports,
            report_sender,
            tasks,
            started: Instant::now(),
            timers: BTreeMap::new(),
            sequence: 0,
            members: BTreeSet::new(),
            book: AddressBook::default(),
            redial: Redial::default(),
            liveness: Liveness::default(),
            returned,
            moved: None,
            established: HashMap::new(),
            connections: HashMap::new(),
            streams: HashMap::new(),
            starts: Starts::default(),
            allowances: Allowances::default(),
            listening: Vec::new(),
            dials: HashMap::new(),
            attempts: BTreeMap::new(),
            errands: HashSet::new(),
            findings: Findings::new(config.reach, config.relays, announced),
            mapping: (config.upnp && is_wide).then(Mapping::new),
            public: BTreeSet::new(),
            reported: reach::Report::default(),
            reserve: Reserve::default(),
            misheard: 0,
            heard_at: HashSet::new(),
            places: HashMap::new(),
            upgrade: Upgrade::default(),
        })
    }

    /// What tells it that its own network came back.
    #[cfg(test)]
    pub(crate) fn returned(&self) -> Arc<Notify> {
        Arc::clone(&self.returned)
    }

    /// Runs until it is stopped or nobody listens.
    pub(crate) async fn run(mut self) {
        let events = self.events.clone();
        loop {
            while let Some(dial) = self.redial.poll_output() {
                self.dial(dial);
            }
            self.watch_connections();
            self.reach_out();
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
                () = self.returned.notified() => self.on_moved(),
                said = mapped(&mut self.mapping) => self.on_mapped(said),
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
        let unmapped = self.mapping.take().map(Mapping::end);
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
                () = sleep_until(deadline) => break,
                _ = self.swarm.select_next_some() => {}
            }
        }
        if let Some(unmapped) = unmapped {
            unmapped.await;
        }
        // For libp2p a connection of QUIC is closed before the packet that says so is sent.
        sleep_until(Instant::now() + LINGER).await;
    }

    // Commands

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Members(members) => self.on_members(members),
            Command::Remember { device, addresses } => self.on_remember(device, &addresses),
            Command::Dial { device } => self.on_dial(device),
            Command::Admit { device } => self.on_admit(device),
            Command::Relays(relays) => {
                self.reserve_input(reserve::Input::Relays(relays));
            }
            Command::Watch { device, is_watched } => self.on_watch(device, is_watched),
            Command::Send { stream, frame } => {
                match self.streams.get(&stream).map(|entry| entry.outgoing.send(frame)) {
                    Some(Ok(())) => self.on_sent(stream),
                    Some(Err(end)) => self.on_stream_end(stream, end),
                    None => {}
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
        self.swarm.behaviour_mut().set_members(peers);
        self.book.retain_sighted(&members);
        let connected: BTreeSet<DeviceId> = self.connections.values().map(|c| c.device).collect();
        let is_known = |device: &DeviceId| members.contains(device) || connected.contains(device);
        self.starts.retain(is_known);
        self.allowances.retain(is_known);
        self.redial_input(redial::Input::Members(members.clone()));
        let former = std::mem::replace(&mut self.members, members);
        self.end_the_rest(&former);
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

    /// Closes at once what is there with those who left besides the connections that serve: errands, tests, and
    /// what is on its way out.
    fn end_the_rest(&mut self, former: &BTreeSet<DeviceId>) {
        let left = |device: &DeviceId| former.contains(device) && !self.members.contains(device);
        let rest: Vec<ConnectionId> = self
            .established
            .iter()
            .filter(|(id, device)| left(device) && !self.connections.contains_key(id))
            .map(|(id, _)| *id)
            .collect();
        for id in rest {
            self.swarm.close_connection(id);
        }
    }

    /// A stranger became a member on the connection that it has.
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

    // Time

    fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.started.elapsed()
    }

    fn due(&self) -> Instant {
        let redial = self.redial.poll_timeout().map(|at| self.started + at.since(Timestamp::ZERO));
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        let idle = Instant::now() + Duration::from_secs(3600);
        let silence =
            self.liveness.poll_timeout().map(|at| self.started + at.since(Timestamp::ZERO));
        let machines = [self.reserve.poll_timeout(), self.upgrade.poll_timeout()];
        let machines =
            machines.into_iter().flatten().min().map(|at| self.started + at.since(Timestamp::ZERO));
        [redial, timer, silence, machines].into_iter().flatten().min().unwrap_or(idle)
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
        self.liveness.handle_timeout(now);
        self.reserve.handle_timeout(now);
        self.upgrade.handle_timeout(now);
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
            Timer::Circuits(attempt) => self.on_circuits_due(attempt),
            Timer::Moved => self.on_moved_lately(),
            Timer::MovedOn => self.on_moved_on(),
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
                if let Some(key) = peer::key(&peer_id) {
                    self.established.insert(connection_id, DeviceId::from_bytes(key));
                }
                self.on_established(connection_id, &peer_id, endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                self.errands.remove(&connection_id);
                self.established.remove(&connection_id);
                if cause.as_ref().is_some_and(|it| TooManyStreams::led_to(it)) {
                    self.turn_away(connection_id, TurnedAway::TooManyStreams);
                }
                let why = cause.map_or_else(|| "closed".to_owned(), |cause| cause.to_string());
                if let Some(device) = self.forget(connection_id, Disconnection::Lost { why }, false)
                {
                    self.settle(device);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_error(connection_id, &error);
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
            SwarmEvent::NewListenAddr { listener_id, address } => {
                if self.places.contains_key(&listener_id) {
                    self.on_reserved(listener_id);
                } else {
                    self.heard_at.insert((listener_id, address));
                    self.on_listeners();
                }
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                self.on_listener_closed(listener_id, reason);
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                self.heard_at.remove(&(listener_id, address));
                self.vicinity.look();
                self.on_listeners();
            }
            SwarmEvent::ListenerError { error, .. } => self.on_listener_error(&error),
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
                    {
                        self.book.expire(DeviceId::from_bytes(key), &address);
                    }
                }
            }
            BehaviourEvent::Identify(identify::Event::Received { connection_id, info, .. }) => {
                self.on_heard(connection_id);
                self.on_identified(connection_id, &info);
            }
            BehaviourEvent::Identify(identify::Event::Sent { connection_id, .. }) => {
                self.on_heard(connection_id);
            }
            BehaviourEvent::Identify(
                identify::Event::Pushed { .. } | identify::Event::Error { .. },
            )
            | BehaviourEvent::Circuits(
                relay::client::Event::ReservationReqAccepted { .. }
                | relay::client::Event::OutboundCircuitEstablished { .. }
                | relay::client::Event::InboundCircuitEstablished { .. },
            ) => {}
            BehaviourEvent::Relay(event) => self.on_carrying(event),
            BehaviourEvent::Dcutr(event) => self.on_punched(event),
            BehaviourEvent::Tested(event) => self.on_tested(event),
            BehaviourEvent::Tests(event) => {
                tracing::debug!(?event, "dialled back for a member");
            }
            BehaviourEvent::Limits(never) | BehaviourEvent::Memory(never) => match never {},
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

/// What the router does now, after it was asked.
async fn mapped(mapping: &mut Option<Mapping>) -> mapping::Said {
    match mapping {
        Some(mapping) => mapping.changed().await,
        None => std::future::pending().await,
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

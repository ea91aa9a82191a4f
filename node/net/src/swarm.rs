//! Building a swarm: transports, limits, listeners.

use std::{collections::HashSet, io, num::NonZeroU8, time::Duration};

use futures::{StreamExt as _, future::Either};
use libp2p::{
    PeerId, StreamProtocol, Swarm, SwarmBuilder, Transport as _, TransportError, autonat,
    connection_limits,
    core::{
        muxing::StreamMuxerBox,
        transport::{OptionalTransport, OrTransport},
        upgrade::Version,
    },
    dcutr, identify,
    identity::Keypair,
    mdns, memory_connection_limits, noise, ping, quic, relay,
    swarm::{ConnectionId, FromSwarm, NetworkBehaviour, behaviour::toggle::Toggle},
    tcp::{self, tokio::TcpStream},
    yamux,
};
use rustix::net::sockopt;
use thiserror::Error;
use tokio::{sync::oneshot, time::timeout};
use weft_protocol::frame::Protocol;

use crate::{
    Reach, address,
    allowance::Rate,
    fault::QuicError,
    gate::{Gate, Terms},
    guarded::{Asking, Guarded},
    muxer::{Bounded, Members},
    names::Names,
    quiet::Quiet,
    vicinity::Vicinity,
};

/// Handshakes from outside at once; one source has half of them at most.
const PENDING_IN_MAX: u32 = 32;

/// Dials at once, whoever called for them: to each of twenty devices one to its addresses, one through
/// relays and one for a direct connection in its place.
const PENDING_OUT_MAX: u32 = 64;

/// What a member has this node dial back: an honest one asks once for each address that it is seen under,
/// ten at once at most, and anew where its network is another.
const TESTS: Asking = Asking { rate: Rate::each_hour(32, 60), is_for_itself: true };

/// What a member has this node dial at the same time as it does: three tries after each of `upgrade`'s waits.
const PUNCHES: Asking = Asking { rate: Rate::each_hour(32, 60), is_for_itself: false };

/// The protocol of AutoNAT's servers (libp2p's specification of AutoNAT v2).
const TESTS_PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");

/// How long a handshake may take on TCP, which also bounds a dial to where nobody answers; QUIC's has
/// fewer round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const QUIC_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to one peer: one, two dials at once, and a dead one that is not noticed yet; through a
/// relay the same, and what was dialled to find out whether it can be.
const CONNECTIONS_FOR_PEER_MAX: u32 = 8;

/// Connections in all: twenty devices and the strangers with room to spare.
const CONNECTIONS_MAX: u32 = 128;

/// Strangers at once. Each costs a handshake, a stream of 320 KiB that is heard, and until it is cut
/// what its few streams have under way ([`QUIC_CONNECTION_WINDOW_BYTES`] at worst): 133 MiB in all.
const STRANGERS_MAX: usize = 16;

/// Strangers at once from one source address.
const STRANGERS_FOR_IP_MAX: usize = 4;

/// Streams of one connection: seven protocols, identify and ping, each twice while one replaces
/// the other, doubled; and with a relay a circuit to each of the other devices.
const STREAMS_MAX: u32 = 64;

/// Devices of one person, as far as a relay provides for them.
const DEVICES_MAX: usize = 20;

/// Places that a relay keeps: one for each device, and one more on a connection that is about to go.
const RESERVATIONS_MAX: usize = 2 * DEVICES_MAX;

/// Circuits that a relay carries: one between any two devices.
const CIRCUITS_MAX: usize = DEVICES_MAX * (DEVICES_MAX - 1) / 2;

/// How long a circuit may last: the longest that the protocol can say, 136 years.
const CIRCUIT_TIME: Duration = Duration::from_secs(u32::MAX as u64);

/// Inbound streams of one connection that are negotiated at once.
const NEGOTIATING_MAX: usize = 16;

/// What one QUIC stream may have under way: the largest frame and one being read.
const QUIC_STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// What one QUIC connection may have under way: 8 MiB fill 100 ms of a 640 Mbit/s link.
const QUIC_CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// How often an idle connection says that it lives, and after how much silence its peer is gone.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// QUIC says so itself, for TCP the kernel does.
    keep_alive: Duration,
    /// Noticed after `keep_alive` and this at most.
    silence_max: Duration,
}

/// The main swarm's: loss is noticed within 28 s, and what is lost on the way is said again some seven
/// times meanwhile. It outlives a cable that is out for a quarter of a minute. One exchange wakes each side
/// twice on QUIC, which is a fifth of a wake-up in a second for each peer, and not at all on TCP. Where
/// something is under way, [`liveness`](crate::liveness) asks sooner.
const IDLE: Patience =
    Patience { keep_alive: Duration::from_secs(10), silence_max: Duration::from_secs(18) };

/// That of a swarm that is up for a few minutes, while a person waits for it.
const WAITED_FOR: Patience =
    Patience { keep_alive: Duration::from_secs(4), silence_max: Duration::from_secs(6) };

/// How soon after a packet another is sent on QUIC while a person waits. A packet that was lost is missed when a
/// later one is acknowledged; where none comes, only a timer misses it, and that waits twice as long each time.
const QUIC_FOLLOWS: Duration = Duration::from_millis(50);

/// How often the kernel asks again on TCP in the time that silence may last, and so often in vain where
/// it counts rather than looks at the time.
const TCP_KEEP_ALIVES_MAX: u32 = 3;

/// How often the round trip is measured. It moves seldom, and each measurement wakes both sides some six
/// times.
const PING_INTERVAL: Duration = Duration::from_secs(120);

/// An answer to a ping that takes longer has failed. Whether a peer lives is asked elsewhere.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The share of the machine's memory over which no connection is taken. It looks at this process
/// alone, and only when somebody connects; what one connection may hold is bounded by its streams.
const MEMORY_SHARE_MAX: f64 = 0.8;

/// How long a short-lived swarm stays up for the last frames after its owner is gone.
pub(crate) const LINGER: Duration = Duration::from_millis(500);

/// How often a port that was free is chosen anew because somebody took it meanwhile.
const PORT_TRIES_MAX: usize = 16;

/// Why a network did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Another program listens there.
    #[error("listen on port {port}: it is taken; end the other program or choose another port")]
    PortTaken {
        /// The port, of UDP or TCP.
        port: u16,
    },
    /// The system refuses to listen.
    #[error("listen on {address}")]
    Listen {
        /// The multiaddr.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A transport or mDNS could not be set up.
    #[error("set up {what}")]
    SetUp {
        /// Which part.
        what: &'static str,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How often a device that is to be found asks the local network anew who is there.
pub(crate) const ASKS_SELDOM: Duration = Duration::from_secs(300);

/// How often one does that searches for a device while a person waits: a question or an answer that was
/// lost is made good within a blink.
pub(crate) const ASKS_OFTEN: Duration = Duration::from_millis(250);

/// The behaviours of the main swarm. The gate is last: what it let pass no other refuses.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    ping: ping::Behaviour,
    pub(crate) identify: Quiet,
    mdns: Toggle<mdns::tokio::Behaviour>,
    /// Carries others' connections.
    pub(crate) relay: Guarded<relay::Behaviour>,
    /// Is carried by relays.
    circuits: Guarded<relay::client::Behaviour>,
    pub(crate) dcutr: Guarded<dcutr::Behaviour>,
    /// Has members dial back.
    pub(crate) tested: Toggle<Guarded<autonat::v2::client::Behaviour>>,
    /// Dials back.
    pub(crate) tests: Toggle<Guarded<autonat::v2::server::Behaviour>>,
    pub(crate) gate: Gate,
}

impl Behaviour {
    /// A stranger became a member on the connection that it has.
    pub(crate) fn promote(&mut self, connection: ConnectionId) {
        self.relay.promote(connection);
        self.circuits.promote(connection);
        self.dcutr.promote(connection);
        if let Some(tested) = self.tested.as_mut() {
            tested.promote(connection);
        }
        if let Some(tests) = self.tests.as_mut() {
            tests.promote(connection);
        }
    }

    /// Replaces the members. On a connection of one that is no longer among them nothing is offered any more
    /// but what a stranger is.
    pub(crate) fn set_members(&mut self, members: HashSet<PeerId>) {
        self.gate.set_members(members);
        self.relay.demote();
        self.circuits.demote();
        self.dcutr.demote();
        if let Some(tested) = self.tested.as_mut() {
            tested.demote();
        }
        if let Some(tests) = self.tests.as_mut() {
            tests.demote();
        }
    }

    /// Whether a connection was dialled to show a member that it can be.
    pub(crate) fn is_test(&self, connection: ConnectionId) -> bool {
        self.tests.as_ref().is_some_and(|tests| tests.dialled(connection))
    }
}

/// What the part that has members dial back is told of, of what is about no connection.
pub(crate) type Tests = fn(&FromSwarm<'_>) -> bool;

/// What the main swarm does besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Besides {
    /// Whether the local network is told.
    pub(crate) mdns: bool,
    /// Whether members dial back, and which addresses are tested.
    pub(crate) tests: Option<Tests>,
}

/// Builds the main swarm, which does not listen yet.
pub(crate) fn main(
    key: Keypair,
    besides: Besides,
    vicinity: Vicinity,
) -> Result<Swarm<Behaviour>, StartError> {
    let mdns = besides.mdns.then(|| mdns(&key, ASKS_SELDOM)).transpose()?;
    let local = key.public().to_peer_id();
    let names = |protocols: &[Protocol]| protocols.iter().map(|p| crate::actor::name(*p)).collect();
    let gate = Gate::new(Terms {
        member: names(&Protocol::SPOKEN),
        stranger: names(&[Protocol::Trust]),
        strangers_max: STRANGERS_MAX,
        strangers_for_ip_max: STRANGERS_FOR_IP_MAX,
    })
    .with_door(PENDING_IN_MAX as usize / 2);
    let members = gate.members();
    let guarded = || members.clone();
    let (circuits, relayed) = relay::client::new(local);
    let behaviour = Behaviour {
        limits: limits(CONNECTIONS_MAX),
        memory: memory_connection_limits::Behaviour::with_max_percentage(MEMORY_SHARE_MAX),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
        ),
        identify: Quiet::new(
            identify::Config::new("weft/1".to_owned(), key.public())
                .with_agent_version(concat!("weft/", env!("CARGO_PKG_VERSION")).to_owned())
                .with_hide_listen_addrs(true)
                .with_cache_size(0),
        ),
        mdns: Toggle::from(mdns),
        relay: Guarded::new(carrier(local), guarded()).direct_only().hearing(|event| {
            // A place at another relay is no place to be a relay at.
            !matches!(event, FromSwarm::ExternalAddrConfirmed(it) if address::is_relayed(it.addr))
        }),
        circuits: Guarded::new(relayed, guarded()),
        dcutr: Guarded::new(dcutr::Behaviour::new(local), guarded()).asked_for(PUNCHES),
        tested: Toggle::from(besides.tests.map(|hears| {
            Guarded::new(Default::default(), guarded())
                .direct_only()
                .hearing(hears)
                .served_by(TESTS_PROTOCOL)
        })),
        tests: Toggle::from(
            besides.tests.map(|_| {
                Guarded::new(Default::default(), guarded()).direct_only().asked_for(TESTS)
            }),
        ),
        gate,
    };
    assemble(key, behaviour, Some(Fabric { members, circuits, vicinity }))
}

/// What carries others' connections, once it is told to.
fn carrier(local: PeerId) -> relay::Behaviour {
    let mut relay = relay::Behaviour::new(
        local,
        relay::Config {
            max_reservations: RESERVATIONS_MAX,
            max_reservations_per_peer: CONNECTIONS_FOR_PEER_MAX as usize,
            reservation_rate_limiters: Vec::new(),
            max_circuits: CIRCUITS_MAX,
            max_circuits_per_peer: DEVICES_MAX,
            max_circuit_duration: CIRCUIT_TIME,
            // No limit.
            max_circuit_bytes: 0,
            circuit_src_rate_limiters: Vec::new(),
            ..relay::Config::default()
        },
    );
    relay.set_status(Some(relay::Status::Disable));
    relay
}

/// What finds others on the local network, and is found by them. It asks again after `again`.
pub(crate) fn mdns(key: &Keypair, again: Duration) -> Result<mdns::tokio::Behaviour, StartError> {
    let config = mdns::Config { query_interval: again, ..mdns::Config::default() };
    mdns::tokio::Behaviour::new(config, key.public().into())
        .map_err(|error| StartError::SetUp { what: "mDNS", source: error.into() })
}

/// Carries a swarm's streams until its owner, who holds the other end, is gone.
pub(crate) async fn carry<B: NetworkBehaviour>(mut swarm: Swarm<B>, closed: oneshot::Receiver<()>) {
    tokio::select! {
        () = run(&mut swarm) => {}
        _ = closed => {}
    }
    linger(swarm).await;
}

/// Carries what was sent last, then ends.
pub(crate) async fn linger<B: NetworkBehaviour>(mut swarm: Swarm<B>) {
    // That the time is up is the way in which it ends.
    timeout(LINGER, run(&mut swarm)).await.unwrap_or(());
}

async fn run<B: NetworkBehaviour>(swarm: &mut Swarm<B>) {
    loop {
        swarm.select_next_some().await;
    }
}

/// The limits on connections, whoever makes them.
pub(crate) fn limits(connections_max: u32) -> connection_limits::Behaviour {
    connection_limits::Behaviour::new(
        connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING_IN_MAX))
            .with_max_pending_outgoing(Some(PENDING_OUT_MAX))
            .with_max_established_per_peer(Some(CONNECTIONS_FOR_PEER_MAX))
            .with_max_established(Some(connections_max)),
    )
}

/// Builds a swarm over QUIC and TCP, on which all have the same room.
pub(crate) fn build<B: NetworkBehaviour>(
    key: Keypair,
    behaviour: B,
) -> Result<Swarm<B>, StartError> {
    assemble(key, behaviour, None)
}

/// What the main swarm's transports know, and a short-lived one's do not.
struct Fabric {
    /// Whoever is not among them may open few streams.
    members: Members,
    /// The way through relays.
    circuits: relay::client::Transport,
    /// What is dialled at all.
    vicinity: Vicinity,
}

/// Why a transport could not be set up.
type SetUp = Box<dyn std::error::Error + Send + Sync>;

/// Builds a swarm over QUIC and TCP, and that of a fabric over relays too.
fn assemble<B: NetworkBehaviour>(
    key: Keypair,
    behaviour: B,
    fabric: Option<Fabric>,
) -> Result<Swarm<B>, StartError> {
    let (members, circuits, vicinity) = match fabric {
        Some(it) => (Some(it.members), Some(it.circuits), Some(it.vicinity)),
        None => (None, None, None),
    };
    let yamux = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_MAX as usize);
        config
    };
    // The builder's own TCP hands out no socket to set options on.
    let bounds = members.clone();
    let patience = if members.is_some() { IDLE } else { WAITED_FOR };
    let tcp = |key: &Keypair| -> Result<_, noise::Error> {
        let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .map(move |stream, _| watched(stream, patience))
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(key)?)
            .multiplex(yamux())
            .map(move |(peer, muxer), _| (peer, Bounded::new(muxer, peer, bounds)));
        Ok(transport)
    };
    let quic = |key: &Keypair| {
        let mut config = quic::Config::new(key);
        config.handshake_timeout = QUIC_HANDSHAKE_TIMEOUT;
        config.max_idle_timeout =
            u32::try_from(patience.silence_max.as_millis()).unwrap_or(u32::MAX);
        let is_waited_for = members.is_none();
        config.keep_alive_interval = if is_waited_for { QUIC_FOLLOWS } else { patience.keep_alive };
        config.max_concurrent_stream_limit = STREAMS_MAX;
        config.max_stream_data = QUIC_STREAM_WINDOW_BYTES;
        config.max_connection_data = QUIC_CONNECTION_WINDOW_BYTES;
        let bounds = members.clone();
        quic::tokio::Transport::new(config)
            .map(move |(peer, muxer), _| (peer, Bounded::new(muxer, peer, bounds)))
            .map_err(QuicError::from)
    };
    let direct = |key: &Keypair| -> Result<_, SetUp> {
        let either = OrTransport::new(quic(key), tcp(key)?);
        let either = either.map(|either, _| match either {
            Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
            Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        });
        Ok(Names::new(either, vicinity))
    };
    // Between two devices nobody reads along: what a relay carries is a connection like any other.
    let relayed = |key: &Keypair| -> Result<_, SetUp> {
        let bounds = members.clone();
        let noise = noise::Config::new(key)?;
        Ok(circuits.map_or_else(OptionalTransport::none, |circuits| {
            let transport = circuits
                .upgrade(Version::V1Lazy)
                .authenticate(noise)
                .multiplex(yamux())
                .map(move |(peer, muxer), _| (peer, Bounded::new(muxer, peer, bounds)));
            OptionalTransport::some(transport)
        }))
    };
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(relayed)
        .map_err(|error| StartError::SetUp { what: "Noise", source: error.into() })?
        .with_other_transport(direct)
        .map_err(|error| StartError::SetUp { what: "Noise", source: error.into() })?
        .with_behaviour(move |_| behaviour)
        .map_err(|error| StartError::SetUp { what: "behaviours", source: Box::new(error) })?
        .with_swarm_config(|config| {
            config
                .with_smart_dial()
                .with_dial_concurrency_factor(NonZeroU8::MAX)
                .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
        })
        .with_connection_timeout(HANDSHAKE_TIMEOUT)
        .build();
    Ok(swarm)
}

/// Has the kernel notice that the peer is gone, where nothing is said and where nothing is answered; and say what
/// was lost again at even times, not after twice as long each time: what is said here is short, and far between.
fn watched(stream: TcpStream, patience: Patience) -> TcpStream {
    let socket = &stream.0;
    let set = sockopt::set_socket_keepalive(socket, true)
        .and_then(|()| sockopt::set_tcp_keepidle(socket, patience.keep_alive))
        .and_then(|()| {
            let again = patience.silence_max / TCP_KEEP_ALIVES_MAX;
            sockopt::set_tcp_keepintvl(socket, again)
        })
        .and_then(|()| sockopt::set_tcp_keepcnt(socket, TCP_KEEP_ALIVES_MAX));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let set = set.and_then(|()| {
        let millis = u32::try_from(patience.silence_max.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(socket, millis)?;
        sockopt::set_tcp_thin_linear_timeouts(socket, true)
    });
    if let Err(error) = set {
        // The peer may have hung up already; else its end is noticed by pings.
        tracing::debug!(%error, "a connection is not watched");
    }
    stream
}

/// Listens on `port`, or on one that is free for UDP and TCP where it is 0.
pub(crate) fn listen<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    reach: Reach,
    port: u16,
) -> Result<(), StartError> {
    if port != 0 {
        return try_listen(swarm, reach, port);
    }
    let mut outcome = Ok(());
    for _ in 0..PORT_TRIES_MAX {
        let address = || address::interface(reach).to_string();
        let chosen = std::net::TcpListener::bind((address::interface(reach), 0))
            .and_then(|listener| listener.local_addr())
            .map_err(|source| StartError::Listen { address: address(), source })?;
        outcome = try_listen(swarm, reach, chosen.port());
        if !matches!(outcome, Err(StartError::PortTaken { .. })) {
            break;
        }
    }
    outcome
}

fn try_listen<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    reach: Reach,
    port: u16,
) -> Result<(), StartError> {
    let ip = address::interface(reach);
    let taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    // libp2p listens on TCP with SO_REUSEPORT, under which two programs of one user share a port
    // without a word; a plain socket tells.
    match std::net::TcpListener::bind((ip, port)) {
        Ok(probe) => drop(probe),
        Err(error) if taken(&error) => return Err(StartError::PortTaken { port }),
        Err(source) => {
            return Err(StartError::Listen { address: format!("{ip} port {port}"), source });
        }
    }
    let mut listeners = Vec::new();
    for (address, is_optional) in address::listening(reach, port) {
        let source = match swarm.listen_on(address.clone()) {
            Ok(listener) => {
                listeners.push(listener);
                continue;
            }
            Err(TransportError::Other(source)) => source,
            Err(TransportError::MultiaddrNotSupported(address)) => {
                io::Error::other(format!("{address} has no transport"))
            }
        };
        if is_optional {
            tracing::debug!(%address, error = %source, "no listener there");
            continue;
        }
        for listener in listeners {
            swarm.remove_listener(listener);
        }
        // The transports wrap what the system said in errors of their own.
        let text = source.to_string();
        if taken(&source) || text.contains("in use") {
            return Err(StartError::PortTaken { port });
        }
        return Err(StartError::Listen { address: address.to_string(), source });
    }
    Ok(())
}

//! Building a swarm: transports, limits, listeners.

use std::{io, num::NonZeroU8, time::Duration};

use futures::StreamExt as _;
use libp2p::{
    Swarm, SwarmBuilder, Transport as _, TransportError, connection_limits,
    core::upgrade::Version,
    identify,
    identity::Keypair,
    mdns, memory_connection_limits, noise, ping, quic,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    tcp::{self, tokio::TcpStream},
    yamux,
};
use rustix::net::sockopt;
use thiserror::Error;
use tokio::{sync::oneshot, time::timeout};
use weft_protocol::frame::Protocol;

use crate::{
    Reach, address,
    gate::{Gate, Terms},
    muxer::{Bounded, Members},
};

/// Handshakes from outside at once; one source has half of them at most.
const PENDING_IN_MAX: u32 = 32;

/// How long a handshake may take on TCP, which also bounds a dial to where nobody answers; QUIC's has
/// fewer round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const QUIC_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to one peer: one, two dials at once, and a dead one that is not noticed yet.
const CONNECTIONS_FOR_PEER_MAX: u32 = 4;

/// Connections in all: twenty devices and the strangers with room to spare.
const CONNECTIONS_MAX: u32 = 128;

/// Strangers at once. Each costs a handshake, a stream of 320 KiB that is heard, and until it is cut
/// what its few streams have under way ([`QUIC_CONNECTION_WINDOW_BYTES`] at worst): 133 MiB in all.
const STRANGERS_MAX: usize = 16;

/// Strangers at once from one source address.
const STRANGERS_FOR_IP_MAX: usize = 4;

/// Streams of one connection: seven protocols, identify and ping, each twice while one replaces
/// the other, doubled.
const STREAMS_MAX: u32 = 64;

/// Inbound streams of one connection that are negotiated at once.
const NEGOTIATING_MAX: usize = 16;

/// What one QUIC stream may have under way: the largest frame and one being read.
const QUIC_STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// What one QUIC connection may have under way: 8 MiB fill 100 ms of a 640 Mbit/s link.
const QUIC_CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// How often an idle connection says that it lives; QUIC does so itself, for TCP the kernel does.
/// One exchange wakes an idle node twice on QUIC, which is half a wake-up in a second for each
/// peer, and not at all on TCP.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// A peer that answers nothing for so long is gone. On an idle connection that is noticed after
/// [`KEEP_ALIVE`] and this at most, so 10 s, and what is lost on the way is said again some seven
/// times meanwhile. It outlives a cable that is out for five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(6);

/// How often the kernel asks again on TCP, and how often in vain where it counts rather than looks
/// at the time: together less than [`SILENCE_MAX`].
const TCP_KEEP_ALIVE_AGAIN: Duration = Duration::from_secs(1);
const TCP_KEEP_ALIVES_MAX: u32 = 2;

/// How often the round trip is measured.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// An answer to a ping that takes longer has failed. libp2p keeps the first failure to itself, so a
/// TCP peer whose kernel lives while its program stands still is given up after the second, some
/// 40 s later; on QUIC it is silent, and gone like any other.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

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

/// The behaviours of the main swarm. The gate is last: what it let pass no other refuses.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) gate: Gate,
}

/// Builds the main swarm, which does not listen yet.
pub(crate) fn main(key: Keypair, mdns: bool) -> Result<Swarm<Behaviour>, StartError> {
    let mdns = mdns.then(|| self::mdns(&key)).transpose()?;
    let names = |protocols: &[Protocol]| protocols.iter().map(|p| crate::actor::name(*p)).collect();
    let gate = Gate::new(Terms {
        member: names(&Protocol::SPOKEN),
        stranger: names(&[Protocol::Trust]),
        strangers_max: STRANGERS_MAX,
        strangers_for_ip_max: STRANGERS_FOR_IP_MAX,
    })
    .with_door(PENDING_IN_MAX as usize / 2);
    let members = gate.members();
    let behaviour = Behaviour {
        limits: limits(CONNECTIONS_MAX),
        memory: memory_connection_limits::Behaviour::with_max_percentage(MEMORY_SHARE_MAX),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
        ),
        identify: identify::Behaviour::new(
            identify::Config::new("weft/1".to_owned(), key.public())
                .with_agent_version(concat!("weft/", env!("CARGO_PKG_VERSION")).to_owned())
                .with_hide_listen_addrs(true)
                .with_cache_size(0),
        ),
        mdns: Toggle::from(mdns),
        gate,
    };
    assemble(key, behaviour, Some(members))
}

/// What finds others on the local network, and is found by them.
pub(crate) fn mdns(key: &Keypair) -> Result<mdns::tokio::Behaviour, StartError> {
    mdns::tokio::Behaviour::new(mdns::Config::default(), key.public().into())
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

/// Builds a swarm over QUIC and TCP. Whoever is not among the members may open few streams.
fn assemble<B: NetworkBehaviour>(
    key: Keypair,
    behaviour: B,
    members: Option<Members>,
) -> Result<Swarm<B>, StartError> {
    let yamux = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_MAX as usize);
        config
    };
    // The builder's own TCP hands out no socket to set options on.
    let bounds = members.clone();
    let tcp = |key: &Keypair| {
        let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .map(|stream, _| watched(stream))
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(key)?)
            .multiplex(yamux())
            .map(move |(peer, muxer), _| (peer, Bounded::new(muxer, peer, bounds)));
        Ok(transport)
    };
    let quic = |key: &Keypair| {
        let mut config = quic::Config::new(key);
        config.handshake_timeout = QUIC_HANDSHAKE_TIMEOUT;
        config.max_idle_timeout = u32::try_from(SILENCE_MAX.as_millis()).unwrap_or(u32::MAX);
        config.keep_alive_interval = KEEP_ALIVE;
        config.max_concurrent_stream_limit = STREAMS_MAX;
        config.max_stream_data = QUIC_STREAM_WINDOW_BYTES;
        config.max_connection_data = QUIC_CONNECTION_WINDOW_BYTES;
        quic::tokio::Transport::new(config)
            .map(move |(peer, muxer), _| (peer, Bounded::new(muxer, peer, members)))
    };
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(quic)
        .map_err(|never| match never {})?
        .with_other_transport(tcp)
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

/// Has the kernel notice that the peer is gone, where nothing is said and where nothing is answered.
fn watched(stream: TcpStream) -> TcpStream {
    let socket = &stream.0;
    let set = sockopt::set_socket_keepalive(socket, true)
        .and_then(|()| sockopt::set_tcp_keepidle(socket, KEEP_ALIVE))
        .and_then(|()| sockopt::set_tcp_keepintvl(socket, TCP_KEEP_ALIVE_AGAIN))
        .and_then(|()| sockopt::set_tcp_keepcnt(socket, TCP_KEEP_ALIVES_MAX));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let set = set.and_then(|()| {
        let millis = u32::try_from(SILENCE_MAX.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(socket, millis)
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

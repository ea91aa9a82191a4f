//! The pairing endpoint: a second swarm with a throw-away key that speaks only `/weft/pair/1`.
//!
//! It is open while an invitation is, so that nobody who holds a ticket ever touches the main
//! swarm. The transport's handshake proves both ends' [`EndpointId`]s; everything else about
//! trust is said in the frames, and decided by who reads them.
//!
//! One connection carries one stream, opened by who dials. Frames take [`PAIR_FRAME_BYTES_MAX`]
//! at most.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, connection_limits,
    multiaddr::Protocol,
    swarm::{ConnectionId, DialError, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::{
    codec::Framed,
    compat::{Compat, FuturesAsyncReadCompatExt as _},
};
use weft_protocol::id::EndpointId;

use crate::{
    Reach, StartError, address,
    frame::{FrameCodec, FrameError, Limit},
    gate::{Gate, GateEvent, Negotiated, OPEN_TIMEOUT, Terms},
    peer, swarm,
};

/// The most bytes of one frame of pairing.
pub const PAIR_FRAME_BYTES_MAX: usize = 64 << 10;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/weft/pair/1");

/// Connections at once. One joiner is expected; the rest is whoever else is on the network.
const CONNECTIONS_MAX: u32 = 16;

/// Connections at once from one IP address, so that one stranger does not fill the endpoint.
const CONNECTIONS_FOR_IP_MAX: usize = 4;

/// How long the listeners may take to report where they listen.
const LISTEN_TIME: Duration = Duration::from_secs(2);

/// Listeners report their interfaces one after another; after so long without one that was all.
const LISTEN_QUIET: Duration = Duration::from_millis(100);

/// How long a swarm stays up for the last frames after its owner is gone.
const LINGER: Duration = Duration::from_millis(500);

/// How long [`PairStream::finish`] waits for the other end.
const FINISH_TIME: Duration = Duration::from_secs(2);

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    gate: Gate,
}

fn build(seed: [u8; 32], offered: Vec<StreamProtocol>) -> Result<Swarm<Behaviour>, StartError> {
    let behaviour = Behaviour {
        limits: swarm::limits(CONNECTIONS_MAX),
        gate: Gate::new(Terms {
            member: Vec::new(),
            stranger: offered,
            strangers_max: CONNECTIONS_MAX as usize,
            strangers_for_ip_max: CONNECTIONS_FOR_IP_MAX,
        }),
    };
    swarm::build(peer::keypair(seed), behaviour)
}

/// An open pairing endpoint. Dropping it ends its swarm, and with it all its streams.
#[derive(Debug)]
pub struct PairListener {
    /// The endpoint's name, as the ticket says it.
    pub id: EndpointId,
    /// Where it can be dialled: multiaddrs, QUIC over IPv4 first.
    pub addresses: Vec<String>,
    /// Who came. A stream that finds it full is closed.
    pub incoming: mpsc::Receiver<PairStream>,
    /// Closes when dropped.
    _open: oneshot::Sender<()>,
}

impl PairListener {
    /// Listens on a port of its own with the key of `seed`.
    ///
    /// Dropping the future listens no longer.
    ///
    /// # Errors
    ///
    /// The system refuses a socket.
    pub async fn open(seed: [u8; 32], reach: Reach) -> Result<Self, StartError> {
        let mut swarm = build(seed, vec![PROTOCOL])?;
        swarm::listen(&mut swarm, reach, 0)?;
        let id = endpoint_id(swarm.local_peer_id()).expect("an Ed25519 key stands in its id");
        let addresses = listening(&mut swarm, reach).await;
        let (arrivals, incoming) = mpsc::channel(CONNECTIONS_MAX as usize);
        let (open, closed) = oneshot::channel();
        tokio::spawn(serve(swarm, id, arrivals, closed));
        Ok(Self { id, addresses, incoming, _open: open })
    }
}

async fn listening(swarm: &mut Swarm<Behaviour>, reach: Reach) -> Vec<String> {
    let deadline = Instant::now() + LISTEN_TIME;
    let mut quiet = deadline;
    // Nobody was told of the endpoint yet, so what else happens meanwhile has no meaning.
    while let Ok(event) = timeout_at(quiet.min(deadline), swarm.select_next_some()).await {
        if matches!(event, SwarmEvent::NewListenAddr { .. }) {
            quiet = Instant::now() + LISTEN_QUIET;
        }
    }
    let mut addresses: Vec<&Multiaddr> =
        swarm.listeners().filter(|address| address::is_worth_telling(address, reach)).collect();
    addresses.sort_by_key(|address| {
        let is_tcp = address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
        (address::ip(address).is_some_and(|ip| ip.is_ipv6()), is_tcp)
    });
    addresses.into_iter().map(ToString::to_string).collect()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "libp2p's events may grow; what is not named has no meaning here"
)]
async fn serve(
    mut swarm: Swarm<Behaviour>,
    local: EndpointId,
    arrivals: mpsc::Sender<PairStream>,
    mut closed: oneshot::Receiver<()>,
) {
    let mut peers: HashMap<ConnectionId, EndpointId> = HashMap::new();
    // Connections that have not opened their stream; the sequence orders those of one instant.
    let mut silent: BTreeMap<(Instant, u64), ConnectionId> = BTreeMap::new();
    let mut sequence = 0;
    loop {
        let idle = || Instant::now() + Duration::from_secs(3600);
        let due = silent.first_key_value().map_or_else(idle, |((at, _), _)| *at);
        let event = tokio::select! {
            biased;
            _ = &mut closed => break,
            () = sleep_until(due) => {
                if let Some((_, id)) = silent.pop_first() {
                    swarm.close_connection(id);
                }
                continue;
            }
            event = swarm.select_next_some() => event,
        };
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                if let Some(remote) = endpoint_id(&peer_id) {
                    peers.insert(connection_id, remote);
                    sequence += 1;
                    silent.insert((Instant::now() + OPEN_TIMEOUT, sequence), connection_id);
                } else {
                    swarm.close_connection(connection_id);
                }
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => {
                peers.remove(&connection_id);
                silent.retain(|_, id| *id != connection_id);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gate(GateEvent {
                connection,
                outcome: Negotiated::Inbound(stream),
                ..
            })) => {
                if let Some(&remote) = peers.get(&connection) {
                    silent.retain(|_, id| *id != connection);
                    let stream = PairStream::new(local, remote, stream, None);
                    if arrivals.try_send(stream).is_err() {
                        tracing::debug!("too many at the pairing endpoint");
                        swarm.close_connection(connection);
                    }
                }
            }
            _ => {}
        }
    }
    linger(swarm).await;
}

/// Carries what was sent last, then ends.
async fn linger(mut swarm: Swarm<Behaviour>) {
    let carry = async {
        loop {
            swarm.select_next_some().await;
        }
    };
    // That the time is up is the way in which it ends.
    timeout(LINGER, carry).await.unwrap_or(());
}

/// Why a pairing endpoint was not reached.
#[derive(Debug, Error)]
pub enum PairDialError {
    /// None of the addresses can be dialled from here.
    #[error("dial the pairing endpoint: none of its addresses can be dialled from here")]
    NoAddress,
    /// Somebody else answers there.
    #[error("dial the pairing endpoint: another one answers at its address")]
    OtherEndpoint,
    /// It does not answer.
    #[error("dial the pairing endpoint: {why}")]
    Unreachable {
        /// What the transport said.
        why: String,
    },
    /// It does not speak the protocol of pairing.
    #[error("open the pairing stream: {why}")]
    Refused {
        /// What it said.
        why: String,
    },
    /// The time is up.
    #[error("dial the pairing endpoint: no answer in time")]
    TimedOut,
    /// No swarm could be made.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Dials the endpoint `target` at all `addresses`, with the key of `seed` as its own.
///
/// Dropping the future dials no longer.
///
/// # Errors
///
/// It was not reached within `patience`, or is not who it should be.
pub async fn pair_dial(
    seed: [u8; 32],
    target: EndpointId,
    addresses: &[String],
    patience: Duration,
) -> Result<PairStream, PairDialError> {
    let mut swarm = build(seed, Vec::new())?;
    let dialled = timeout(patience, dial(&mut swarm, target, addresses)).await;
    let (stream, local) = dialled.map_err(|_| PairDialError::TimedOut)??;
    let (open, closed) = oneshot::channel();
    tokio::spawn(async move {
        let carry = async {
            loop {
                swarm.select_next_some().await;
            }
        };
        tokio::select! {
            () = carry => {}
            _ = closed => {}
        }
        linger(swarm).await;
    });
    Ok(PairStream::new(local, target, stream, Some(open)))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "libp2p's events and errors may grow; what is not named ends in the patience"
)]
async fn dial(
    swarm: &mut Swarm<Behaviour>,
    target: EndpointId,
    addresses: &[String],
) -> Result<(libp2p::Stream, EndpointId), PairDialError> {
    let failed = |error: DialError| match error {
        DialError::NoAddresses => PairDialError::NoAddress,
        DialError::WrongPeerId { .. } => PairDialError::OtherEndpoint,
        other => PairDialError::Unreachable { why: other.to_string() },
    };
    let local = endpoint_id(swarm.local_peer_id()).expect("an Ed25519 key stands in its id");
    let peer = peer::peer_id(target.as_bytes()).ok_or(PairDialError::OtherEndpoint)?;
    // A ticket names where it was made: on a LAN that includes this very machine.
    let addresses: Vec<_> =
        addresses.iter().filter_map(|text| address::parse(text, Reach::Lan)).collect();
    if addresses.is_empty() {
        return Err(PairDialError::NoAddress);
    }
    swarm.dial(DialOpts::peer_id(peer).addresses(addresses).build()).map_err(failed)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                swarm.behaviour_mut().gate.open(connection_id, PROTOCOL);
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(failed(error)),
            SwarmEvent::ConnectionClosed { cause, .. } => {
                let why = cause.map_or_else(|| "closed".to_owned(), |cause| cause.to_string());
                return Err(PairDialError::Unreachable { why });
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gate(event)) => match event.outcome {
                Negotiated::Outbound(stream) => return Ok((stream, local)),
                Negotiated::Failed(why) => return Err(PairDialError::Refused { why }),
                Negotiated::Inbound(_) => {}
            },
            _ => {}
        }
    }
}

/// Why a frame of pairing was not sent.
#[derive(Debug, Error)]
pub enum PairSendError {
    /// It is longer than [`PAIR_FRAME_BYTES_MAX`].
    #[error("send a frame of {len} bytes: at most {PAIR_FRAME_BYTES_MAX} are taken")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// The other end is gone.
    #[error("send to the pairing endpoint: {why}")]
    Gone {
        /// What the transport said.
        why: String,
    },
}

/// One stream between two pairing endpoints.
#[derive(Debug)]
pub struct PairStream {
    /// This end.
    pub local: EndpointId,
    /// The other end, proven by the transport's handshake.
    pub remote: EndpointId,
    framed: Framed<Compat<libp2p::Stream>, FrameCodec>,
    /// Keeps the dialler's swarm; the listener's has its own life.
    _open: Option<oneshot::Sender<()>>,
}

impl PairStream {
    fn new(
        local: EndpointId,
        remote: EndpointId,
        stream: libp2p::Stream,
        open: Option<oneshot::Sender<()>>,
    ) -> Self {
        let codec = FrameCodec::new(Limit::Frame(PAIR_FRAME_BYTES_MAX));
        Self { local, remote, framed: Framed::new(stream.compat(), codec), _open: open }
    }

    /// Sends a frame. Dropping the future may leave half of one sent: the stream is then of no
    /// further use.
    ///
    /// # Errors
    ///
    /// The frame is too long, or the other end is gone.
    pub async fn send(&mut self, frame: Vec<u8>) -> Result<(), PairSendError> {
        self.framed.send(frame).await.map_err(|error| match error {
            FrameError::TooLong { len, .. } => PairSendError::TooLong { len },
            other @ (FrameError::TooManyBytes | FrameError::Io(_)) => {
                PairSendError::Gone { why: other.to_string() }
            }
        })
    }

    /// The next frame; `None` once the other end closed, sent too long a frame, or is gone.
    ///
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Vec<u8>> {
        match self.framed.next().await? {
            Ok(frame) => Some(frame),
            Err(error) => {
                tracing::debug!(%error, "pairing stream ends");
                None
            }
        }
    }

    /// Closes this end and waits, two seconds at most, until the other end closed as well, so that
    /// what was sent last has arrived.
    pub async fn finish(mut self) {
        let finishing = async {
            if self.framed.close().await.is_ok() {
                while self.recv().await.is_some() {}
            }
        };
        // The other end may be gone or stay silent; nothing can be done about either.
        timeout(FINISH_TIME, finishing).await.unwrap_or(());
    }
}

fn endpoint_id(peer: &PeerId) -> Option<EndpointId> {
    peer::key(peer).map(EndpointId::from_bytes)
}

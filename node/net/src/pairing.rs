//! The pairing endpoint: a second swarm with a throw-away key that speaks only `/weft/pair/1`.
//!
//! It is open while an invitation is, so that nobody who holds a ticket ever touches the main
//! swarm. The transport's handshake proves both ends' [`EndpointId`]s; everything else about
//! trust is said in the frames, and decided by who reads them.
//!
//! An endpoint that is announced answers mDNS, so that who has a code and no address finds it by
//! [`pair_find`].
//!
//! One connection carries one stream, opened by who dials. Frames take [`PAIRING_FRAME_BYTES_MAX`]
//! at most.

mod search;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, connection_limits, mdns,
    multiaddr::Protocol,
    swarm::{ConnectionId, NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle},
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
use weft_protocol::{
    id::EndpointId,
    pairing::{PAIRING_FRAME_BYTES_MAX, PAIRING_PROTOCOL},
};

use self::search::Search;
use crate::{
    Reach, StartError, address,
    frame::{FrameCodec, FrameError, Limit},
    gate::{Gate, GateEvent, Negotiated, OPEN_TIMEOUT, Terms},
    peer, swarm,
};

const PROTOCOL: StreamProtocol = StreamProtocol::new(PAIRING_PROTOCOL);

/// Connections at once. One joiner is expected; the rest is whoever else is on the network.
const CONNECTIONS_MAX: u32 = 16;

/// Connections at once from one IP address, so that one stranger does not fill the endpoint.
const CONNECTIONS_FOR_IP_MAX: usize = 4;

/// How long the listeners may take to report where they listen.
const LISTEN_TIME: Duration = Duration::from_secs(2);

/// Listeners report their interfaces one after another; after so long without one that was all.
const LISTEN_QUIET: Duration = Duration::from_millis(100);

/// How long [`PairStream::finish`] waits for the other end.
const FINISH_TIME: Duration = Duration::from_secs(2);

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    gate: Gate,
}

/// `mdns`: whether it answers and asks the local network, and how often it asks.
fn build(
    seed: [u8; 32],
    offered: Vec<StreamProtocol>,
    mdns: Option<Duration>,
) -> Result<Swarm<Behaviour>, StartError> {
    let key = peer::keypair(seed);
    let mdns = mdns.map(|again| swarm::mdns(&key, again)).transpose()?;
    let behaviour = Behaviour {
        limits: swarm::limits(CONNECTIONS_MAX),
        mdns: Toggle::from(mdns),
        gate: Gate::new(Terms {
            member: Vec::new(),
            stranger: offered,
            strangers_max: CONNECTIONS_MAX as usize,
            strangers_for_ip_max: CONNECTIONS_FOR_IP_MAX,
        }),
    };
    swarm::build(key, behaviour)
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
        Self::listen(seed, reach, false).await
    }

    /// The same, and the local network is told of it while it is open; not on [`Reach::Loopback`].
    ///
    /// # Errors
    ///
    /// The system refuses a socket.
    pub async fn announce(seed: [u8; 32], reach: Reach) -> Result<Self, StartError> {
        Self::listen(seed, reach, reach == Reach::Lan).await
    }

    async fn listen(seed: [u8; 32], reach: Reach, mdns: bool) -> Result<Self, StartError> {
        let mut swarm = build(seed, vec![PROTOCOL], mdns.then_some(swarm::ASKS_SELDOM))?;
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
    swarm::linger(swarm).await;
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
    #[error("dial the pairing endpoint: nobody answers at its addresses")]
    Unreachable {
        /// What the transport said, for those who look for a fault.
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
    let peer = peer::peer_id(target.as_bytes()).ok_or(PairDialError::OtherEndpoint)?;
    let search = Search::at_endpoint(peer, addresses, |id| *id == target)?;
    reach(build(seed, Vec::new(), None)?, search, patience).await
}

/// Finds an endpoint that `is_it` takes, at `addresses` or, where there are none, on the local
/// network, and connects to it with the key of `seed` as its own.
///
/// Dropping the future looks no longer.
///
/// # Errors
///
/// None was reached within `patience`, or none of those at the addresses is it.
pub async fn pair_find(
    seed: [u8; 32],
    is_it: impl Fn(&EndpointId) -> bool,
    addresses: &[String],
    patience: Duration,
) -> Result<PairStream, PairDialError> {
    let search = Search::around(addresses, is_it)?;
    let asks = addresses.is_empty().then_some(swarm::ASKS_OFTEN);
    reach(build(seed, Vec::new(), asks)?, search, patience).await
}

/// Searches; the stream's swarm lives as long as the stream does.
async fn reach<F: Fn(&EndpointId) -> bool>(
    mut swarm: Swarm<Behaviour>,
    search: Search<F>,
    patience: Duration,
) -> Result<PairStream, PairDialError> {
    let local = endpoint_id(swarm.local_peer_id()).expect("an Ed25519 key stands in its id");
    let found = timeout(patience, search.run(&mut swarm)).await;
    let (stream, remote) = found.map_err(|_| PairDialError::TimedOut)??;
    let (open, closed) = oneshot::channel();
    tokio::spawn(swarm::carry(swarm, closed));
    Ok(PairStream::new(local, remote, stream, Some(open)))
}

/// Why a frame of pairing was not sent.
#[derive(Debug, Error)]
pub enum PairSendError {
    /// It is longer than [`PAIRING_FRAME_BYTES_MAX`].
    #[error("send a frame of {len} bytes: at most {PAIRING_FRAME_BYTES_MAX} are taken")]
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
        let codec = FrameCodec::new(Limit::Frame(PAIRING_FRAME_BYTES_MAX));
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::{
        io::{AsyncReadExt as _, copy, copy_bidirectional},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn an_endpoint_is_found_at_an_address_without_its_name() {
        let mut listener = PairListener::announce([1; 32], Reach::Loopback).await.unwrap();
        let (wanted, addresses) = (listener.id, listener.addresses.clone());
        let found = tokio::spawn(async move {
            pair_find([2; 32], |id| *id == wanted, &addresses, PATIENCE).await.unwrap()
        });
        let mut theirs = listener.incoming.recv().await.expect("it comes");
        theirs.send(b"hello".to_vec()).await.unwrap();
        let mut ours = found.await.unwrap();
        assert_eq!((ours.remote, theirs.remote), (listener.id, ours.local));
        assert_eq!(ours.recv().await, Some(b"hello".to_vec()));
    }

    /// A way to a listener on which the first to come is carried `bytes` far and then hears nothing more.
    async fn stalling(to: &str, bytes: u64) -> String {
        let port = to.rsplit('/').next().and_then(|port| port.parse().ok()).unwrap();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let way = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("/ip4/127.0.0.1/tcp/{}", way.local_addr().unwrap().port());
        tokio::spawn(async move {
            let mut is_first = true;
            while let Ok((mut near, _)) = way.accept().await {
                let stalls = std::mem::take(&mut is_first);
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    if !stalls {
                        return drop(copy_bidirectional(&mut near, &mut far).await);
                    }
                    let (near_reads, mut near_writes) = near.split();
                    let (mut far_reads, mut far_writes) = far.split();
                    let mut said = near_reads.take(bytes);
                    let there = copy(&mut said, &mut far_writes);
                    let back = copy(&mut far_reads, &mut near_writes);
                    drop(tokio::join!(there, back));
                    std::future::pending::<()>().await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn what_hangs_is_not_waited_for() {
        // Before the handshake, within it, and on the way to the stream.
        for bytes in [0, 60, 200, 320] {
            let mut listener = PairListener::open([1; 32], Reach::Loopback).await.unwrap();
            let tcp = listener.addresses.iter().find(|it| it.contains("/tcp/")).unwrap();
            let at = [stalling(tcp, bytes).await];
            let wanted = listener.id;
            let found =
                tokio::spawn(async move { pair_dial([2; 32], wanted, &at, PATIENCE).await });
            listener.incoming.recv().await.expect("it comes");
            let found = found.await.unwrap();
            assert!(found.is_ok(), "after {bytes} bytes: {found:?}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_meant_is_left_at_once() {
        let listener = PairListener::open([1; 32], Reach::Loopback).await.unwrap();
        let refused = pair_find([2; 32], |_| false, &listener.addresses, PATIENCE).await;
        assert!(matches!(refused, Err(PairDialError::OtherEndpoint)), "{refused:?}");
    }

    #[tokio::test]
    async fn where_nobody_listens_is_nobody_found() {
        let listener = PairListener::open([1; 32], Reach::Loopback).await.unwrap();
        let tcp: Vec<_> =
            listener.addresses.iter().filter(|it| it.contains("/tcp/")).cloned().collect();
        drop(listener);
        tokio::time::sleep(2 * swarm::LINGER).await;
        let refused = pair_find([2; 32], |_| true, &tcp, PATIENCE).await;
        assert!(matches!(refused, Err(PairDialError::Unreachable { .. })), "{refused:?}");
        let refused = pair_find([2; 32], |_| true, &["/dns/x".to_owned()], PATIENCE).await;
        assert!(matches!(refused, Err(PairDialError::NoAddress)), "{refused:?}");
    }
}

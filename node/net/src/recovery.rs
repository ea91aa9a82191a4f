//! The recovery client: a machine that belongs to no fabric reaches a device that does.
//!
//! A short-lived swarm under the machine's future device key, which listens nowhere and offers
//! nothing. It dials addresses without knowing who is there, and opens `/weft/trust/1` as the
//! stranger that it is; the transport's handshake proves both ends' [`DeviceId`]s. Everything else
//! is said in the frames, and decided by who reads them.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Swarm, connection_limits, mdns,
    multiaddr::Protocol as Part,
    swarm::{NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
};
use thiserror::Error;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tokio_util::{
    codec::Framed,
    compat::{Compat, FuturesAsyncReadCompatExt as _},
};
use weft_protocol::{
    codec::{decode, encode},
    frame::{FRAME_BYTES_MAX, Hello, Protocol},
    id::{BootId, DeviceId},
};

use crate::{
    Reach, StartError, actor, address,
    frame::{FrameCodec, FrameError, Limit},
    gate::{Gate, GateEvent, Negotiated, Terms},
    peer,
    stream::HELLO_BYTES_MAX,
    swarm,
};

/// Connections at once: one for each address of one machine, and more.
const CONNECTIONS_MAX: u32 = 32;

/// The most addresses that are dialled at once.
const ADDRESSES_MAX: usize = 16;

/// The most devices that [`sight`] tells of.
const SIGHTED_MAX: usize = 64;

/// Why no device was reached.
#[derive(Debug, Error)]
pub enum ReachError {
    /// What was given is no address, or none that may be dialled from here.
    #[error("reach {address:?}: it is neither HOST:PORT nor an address of a device")]
    NoAddress {
        /// What was given.
        address: String,
    },
    /// Nobody answers there.
    #[error("reach a device: {why}")]
    Unreachable {
        /// What the transport said.
        why: String,
    },
    /// Somebody answers, and is no device.
    #[error("reach a device: what answers there is none: {why}")]
    NoDevice {
        /// What it said.
        why: String,
    },
    /// The time is up.
    #[error("reach a device: no answer in time")]
    TimedOut,
    /// No swarm could be made.
    #[error(transparent)]
    Start(#[from] StartError),
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    gate: Gate,
}

/// The addresses that a person means: a multiaddr, or a host and its port by QUIC and by TCP.
///
/// # Errors
///
/// It is neither, the name is unknown, or this reach does not include it.
pub async fn resolve(given: &str, reach: Reach) -> Result<Vec<String>, ReachError> {
    let none = || ReachError::NoAddress { address: given.to_owned() };
    if given.starts_with('/') {
        return address::parse(given, reach).map(|it| vec![it.to_string()]).ok_or_else(none);
    }
    let found = tokio::net::lookup_host(given).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::InvalidInput {
            none()
        } else {
            ReachError::Unreachable { why: format!("{given}: {error}") }
        }
    })?;
    let both = |socket: SocketAddr| {
        let (ip, port) = (Multiaddr::from(socket.ip()), socket.port());
        let quic = ip.clone().with(Part::Udp(port)).with(Part::QuicV1);
        [quic, ip.with(Part::Tcp(port))]
    };
    let addresses: Vec<String> = found
        .flat_map(both)
        .map(|address| address.to_string())
        .filter(|address| address::parse(address, reach).is_some())
        .take(ADDRESSES_MAX)
        .collect();
    if addresses.is_empty() { Err(none()) } else { Ok(addresses) }
}

/// Opens trust with whichever device answers first at one of `addresses`, under the key of `seed`,
/// saying hello as `boot`.
///
/// Dropping the future dials no longer.
///
/// # Errors
///
/// No device was reached within `patience`.
pub async fn reach(
    seed: [u8; 32],
    boot: BootId,
    addresses: &[String],
    reach: Reach,
    patience: Duration,
) -> Result<TrustStream, ReachError> {
    let behaviour = Behaviour {
        limits: swarm::limits(CONNECTIONS_MAX),
        gate: Gate::new(Terms {
            member: Vec::new(),
            stranger: Vec::new(),
            strangers_max: 0,
            strangers_for_ip_max: 0,
        }),
    };
    let mut swarm = swarm::build(peer::keypair(seed), behaviour)?;
    let deadline = Instant::now() + patience;
    let dialled = timeout_at(deadline, dial(&mut swarm, addresses, reach)).await;
    let (stream, remote, at) = dialled.map_err(|_| ReachError::TimedOut)??;
    let local = device(swarm.local_peer_id()).expect("an Ed25519 key stands in its id");
    let (open, closed) = oneshot::channel();
    tokio::spawn(swarm::carry(swarm, closed));
    let codec = FrameCodec::new(Limit::Frame(FRAME_BYTES_MAX));
    let framed = Framed::new(stream.compat(), codec);
    let mut stream = TrustStream { local, remote, address: at, framed, _open: open };
    match timeout_at(deadline, stream.greet(boot)).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(why)) => Err(ReachError::NoDevice { why }),
        Err(_) => Err(ReachError::TimedOut),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "libp2p's events may grow; what is not named ends in the patience"
)]
async fn dial(
    swarm: &mut Swarm<Behaviour>,
    addresses: &[String],
    reach: Reach,
) -> Result<(libp2p::Stream, DeviceId, String), ReachError> {
    let parsed = addresses.iter().take(ADDRESSES_MAX);
    let mut dials = HashMap::new();
    let mut last = None;
    for target in parsed.filter_map(|text| address::parse(text, reach)) {
        let dial = DialOpts::unknown_peer_id().address(target.clone()).build();
        let id = dial.connection_id();
        match swarm.dial(dial) {
            Ok(()) => {
                dials.insert(id, target);
            }
            Err(error) => last = Some(error.to_string()),
        }
    }
    let mut devices = HashMap::new();
    // One whose connection ended or refused is out; the others may still answer.
    while !dials.is_empty() {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                if let Some(remote) = device(&peer_id) {
                    devices.insert(connection_id, remote);
                    let protocol = actor::name(Protocol::Trust);
                    swarm.behaviour_mut().gate.open(connection_id, protocol);
                } else {
                    last = Some("its key is not a device's".to_owned());
                    dials.remove(&connection_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                last = Some(error.to_string());
                dials.remove(&connection_id);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                last = Some(cause.map_or_else(|| "closed".to_owned(), |it| it.to_string()));
                dials.remove(&connection_id);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gate(GateEvent {
                connection, outcome, ..
            })) => match outcome {
                Negotiated::Outbound(stream) => {
                    let (Some(target), Some(remote)) =
                        (dials.remove(&connection), devices.remove(&connection))
                    else {
                        continue;
                    };
                    for other in dials.into_keys() {
                        swarm.close_connection(other);
                    }
                    return Ok((stream, remote, target.to_string()));
                }
                Negotiated::Failed(why) => {
                    last = Some(format!("it does not speak of trust: {why}"));
                    dials.remove(&connection);
                }
                Negotiated::Inbound(_) => {}
            },
            _ => {}
        }
    }
    Err(match last {
        Some(why) => ReachError::Unreachable { why },
        None => ReachError::NoAddress { address: addresses.join(" ") },
    })
}

/// One trust stream with a device. Dropping it ends its connection.
#[derive(Debug)]
pub struct TrustStream {
    /// This end.
    pub local: DeviceId,
    /// The other end, proven by the transport's handshake.
    pub remote: DeviceId,
    /// Where it answered: a multiaddr.
    pub address: String,
    framed: Framed<Compat<libp2p::Stream>, FrameCodec>,
    _open: oneshot::Sender<()>,
}

impl TrustStream {
    async fn greet(&mut self, boot: BootId) -> Result<(), String> {
        let hello = Hello { boot };
        self.send(encode(&hello)).await?;
        let frame = self.recv().await.ok_or("it hung up")?;
        decode::<Hello>(&frame, HELLO_BYTES_MAX).map(drop).map_err(|error| error.to_string())
    }

    /// Sends a frame. Dropping the future may leave half of one sent: the stream is then of no
    /// further use.
    ///
    /// # Errors
    ///
    /// What the transport said: the other end is gone.
    pub async fn send(&mut self, frame: Vec<u8>) -> Result<(), String> {
        self.framed.send(frame).await.map_err(|error: FrameError| error.to_string())
    }

    /// The next frame; `None` once the other end closed, sent too long a frame, or is gone.
    ///
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Vec<u8>> {
        match self.framed.next().await? {
            Ok(frame) => Some(frame),
            Err(error) => {
                tracing::debug!(%error, "trust stream ends");
                None
            }
        }
    }
}

/// Looks for devices on the local network by mDNS for as long as `time` says, and tells each with
/// its addresses.
///
/// # Errors
///
/// The system refuses a socket.
pub async fn sight(
    seed: [u8; 32],
    time: Duration,
) -> Result<BTreeMap<DeviceId, Vec<String>>, StartError> {
    let key = peer::keypair(seed);
    let behaviour = swarm::mdns(&key, swarm::ASKS_OFTEN)?;
    let mut swarm = swarm::build(key, behaviour)?;
    let deadline = Instant::now() + time;
    let mut sighted: BTreeMap<DeviceId, Vec<String>> = BTreeMap::new();
    while let Ok(event) = timeout_at(deadline, swarm.select_next_some()).await {
        let SwarmEvent::Behaviour(mdns::Event::Discovered(peers)) = event else { continue };
        for (peer, found) in peers {
            let known = sighted.len();
            if let (Some(device), Some(found)) =
                (device(&peer), address::parse(&found.to_string(), Reach::Lan))
                && (known < SIGHTED_MAX || sighted.contains_key(&device))
            {
                let addresses = sighted.entry(device).or_default();
                let found = found.to_string();
                if addresses.len() < ADDRESSES_MAX && !addresses.contains(&found) {
                    addresses.push(found);
                }
            }
        }
    }
    Ok(sighted)
}

fn device(peer: &PeerId) -> Option<DeviceId> {
    peer::key(peer).map(DeviceId::from_bytes)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::{Command, Config, Event, Net};

    const PATIENCE: Duration = Duration::from_secs(20);
    const BOOT: BootId = BootId { counter: 0, random: 3 };

    async fn node(seed: u8) -> (crate::NetHandle, tokio::sync::mpsc::Receiver<Event>, Vec<String>) {
        let config = Config::loopback([seed; 32], BootId { counter: 1, random: 7 });
        let (net, mut events) = Net::start(config).await.unwrap();
        let listening = async {
            loop {
                if let Some(Event::Listening { addresses }) = events.recv().await
                    && addresses.len() >= 2
                {
                    return addresses;
                }
            }
        };
        let addresses = timeout(PATIENCE, listening).await.unwrap();
        (net, events, addresses)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stranger_speaks_of_trust_with_a_device_that_it_knows_nothing_of() {
        let (net, mut events, addresses) = node(1).await;
        for address in addresses {
            let mut stream =
                reach([2; 32], BOOT, std::slice::from_ref(&address), Reach::Loopback, PATIENCE)
                    .await
                    .unwrap();
            let me = peer::key(&peer::keypair([2; 32]).public().to_peer_id()).unwrap();
            assert_eq!(stream.local, DeviceId::from_bytes(me));
            assert_eq!(stream.address, address);
            stream.send(vec![7; 100]).await.unwrap();
            let answer = async {
                loop {
                    if let Event::Frame { stream, bytes } = events.recv().await.unwrap() {
                        net.send(Command::Send { stream, frame: vec![8; bytes.len()] })
                            .await
                            .unwrap();
                        return;
                    }
                }
            };
            timeout(PATIENCE, answer).await.unwrap();
            assert_eq!(timeout(PATIENCE, stream.recv()).await.unwrap(), Some(vec![8; 100]));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_answers_first_is_taken_and_nobody_is_an_error() {
        let (_net, _events, addresses) = node(3).await;
        let dead = "/ip4/127.0.0.1/tcp/1".to_owned();
        let both = [dead.clone(), addresses[0].clone()];
        let stream = reach([4; 32], BOOT, &both, Reach::Loopback, PATIENCE).await.unwrap();
        assert_eq!(stream.address, addresses[0]);
        let nobody = reach([4; 32], BOOT, &[dead], Reach::Loopback, PATIENCE).await.unwrap_err();
        assert!(matches!(nobody, ReachError::Unreachable { .. }), "{nobody}");
        let outside = ["/ip4/192.0.2.1/tcp/1".to_owned()];
        let nobody = reach([4; 32], BOOT, &outside, Reach::Loopback, PATIENCE).await.unwrap_err();
        assert!(matches!(nobody, ReachError::NoAddress { .. }), "{nobody}");
    }

    #[tokio::test]
    async fn a_host_and_its_port_are_tried_both_ways() {
        let found = resolve("127.0.0.1:4001", Reach::Loopback).await.unwrap();
        assert_eq!(found, ["/ip4/127.0.0.1/udp/4001/quic-v1", "/ip4/127.0.0.1/tcp/4001"]);
        let found = resolve("/ip4/127.0.0.1/tcp/9", Reach::Loopback).await.unwrap();
        assert_eq!(found, ["/ip4/127.0.0.1/tcp/9"]);
        for bad in ["", "nonsense", "127.0.0.1", "/ip4/127.0.0.1", "192.0.2.1:9"] {
            let error = resolve(bad, Reach::Loopback).await.unwrap_err();
            assert!(matches!(error, ReachError::NoAddress { .. }), "{bad}: {error}");
        }
    }
}

//! The adapter to libp2p: frames between the devices of one person.
//!
//! [`Net`] starts one task that owns the main swarm. It listens on QUIC and on TCP (Noise, Yamux)
//! at one port number, lets members in, and gives strangers identify, ping and one bounded stream
//! of trust; [`pairing`] is the second, short-lived endpoint with a throw-away key, and [`recovery`]
//! dials devices for a machine that has nothing but the recovery words. No type of libp2p leaves this
//! crate: devices are [`DeviceId`]s, addresses are multiaddrs as text.
//!
//! One walk through the loop: a [`Command`] changes what is wanted (members, addresses, a frame to
//! send); what falls due fires (a stranger's time is up, a member is dialled again); what streams
//! and swarm report becomes an [`Event`]. A connection begins with the dialler's `/weft/trust/1`.
//! Both sides say hello with their boot id, from which each decides alone which of several
//! connections to a device serves; that one is [`Event::Connected`], and its trust stream the
//! first [`Event::StreamOpened`]. When the node has merged trust it sends [`Command::Admit`], and
//! the device with the smaller id opens the other protocols. A stream that ends while its
//! connection lives is opened again by whoever opened it; a connection that is lost is dialled
//! again by both sides. When this machine's own network comes back or is another, or the machine
//! has slept, whoever is not connected is dialled at once, and whoever is must give a sign of life.
//! A device with which something is under way ([`Command::Watch`]) is asked for one once a second passed
//! without, and given up after three; what is idle is looked after seldom (`liveness`).
//!
//! Where no direct way is known, others lead (`reserve`, `reach`). A node that is reached for certain, at
//! an address that is its own, mapped by its router (UPnP) or named by a person, carries other members'
//! connections (Circuit Relay v2); the node hears from presence who does ([`Command::Relays`]), and two of
//! those that are connected keep a place for this one. A dial goes to the direct addresses first, and
//! through relays a quarter of a second later. What is relayed is end to end a connection like any other,
//! and a direct one takes its place as soon as there is one: both ends dial each other at once (DCUtR),
//! and again after waits that grow (`upgrade`). What members see of this node, and whether they can dial it
//! back (AutoNAT v2), becomes [`Event::Reach`]. All of this is for members; for strangers it is not there
//! (`guarded`).
//!
//! Where to dial is said by others, of whom one may be in wrong hands. So what is dialled is bounded, whoever
//! named it: which addresses (`vicinity`), what a member may have this node dial for it (`guarded`), and how
//! often what is said of a device ends the wait for it (`hearsay`).
//!
//! What anybody may take of this node is bounded before it is anybody's turn: handshakes and
//! strangers, in all and from each address (`gate`, `arrivals`), a stranger's streams and bytes
//! (`muxer`, `frame`), and of members, too, the frames of each protocol (`allowance`).
//!
//! What goes slow goes alone: each stream has its own task and a bounded queue, a full queue
//! closes that stream, and events to a slow node hold back what the streams read, never a command.
//! Commands are always taken, so a node may wait for its `send` without a cycle.
//!
//! Deliberately not here: what frames mean, who belongs, what is remembered across starts. Identify tells
//! no addresses to anybody and is not believed any (`quiet`); they travel in presence. Names are the
//! system's to resolve (`names`).
//!
//! The TLS under QUIC writes its session keys to the file that the environment variable
//! `SSLKEYLOGFILE` names. The program must remove that variable before its first thread starts;
//! a library can't.

mod actor;
mod address;
mod allowance;
mod arrivals;
mod attempt;
mod book;
mod fault;
mod frame;
mod gate;
mod guarded;
mod hearsay;
#[cfg(any(target_os = "linux", target_os = "android", test))]
mod interfaces;
mod liveness;
mod mapping;
mod muxer;
mod names;
pub mod pairing;
mod peer;
mod quiet;
mod reach;
pub mod recovery;
mod redial;
mod reopen;
mod reserve;
mod rivals;
mod stream;
mod swarm;
mod turn;
#[cfg(test)]
mod tests;
mod upgrade;
mod vicinity;
mod watch;

use std::{collections::BTreeSet, fmt, time::Duration};

use thiserror::Error;
use tokio::sync::mpsc;
use weft_protocol::{
    attempt::Attempt,
    frame::Protocol,
    id::{BootId, DeviceId},
    reach::Report,
};

pub use crate::{
    stream::{StreamEnd, StreamId},
    swarm::StartError,
    turn::Turn,
};

/// Commands that wait for the task. It takes them at once whatever else goes on, so a few
/// scheduling delays' worth of frames is enough.
const COMMANDS_MAX: usize = 256;

/// Events that wait for the node. Few, since each may hold a frame of
/// [`FRAME_BYTES_MAX`](weft_protocol::frame::FRAME_BYTES_MAX).
const EVENTS_MAX: usize = 64;

/// How far a node reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// 127.0.0.1 only, nothing multicast.
    Loopback,
    /// All interfaces.
    Lan,
}

/// What a node's network starts from.
#[derive(Clone)]
pub struct Config {
    /// The device key's seed.
    pub seed: [u8; 32],
    /// Which start of the node this is.
    pub boot: BootId,
    /// How far it reaches.
    pub reach: Reach,
    /// Whether it is found and finds by mDNS; not on [`Reach::Loopback`].
    pub mdns: bool,
    /// The port for UDP and TCP; 0 chooses one that is free for both.
    pub port: u16,
    /// Whether the router is asked to pass on what comes from outside (UPnP); not on
    /// [`Reach::Loopback`].
    pub upnp: bool,
    /// Whether it carries other members' connections, where others reach it for certain.
    pub relays: bool,
    /// Multiaddrs under which others reach it, as a person named them. Those that can't be dialled are left
    /// out.
    pub announce: Vec<String>,
}

impl Config {
    /// A node on 127.0.0.1 at a free port: nothing is multicast, nobody is relayed.
    pub fn loopback(seed: [u8; 32], boot: BootId) -> Self {
        Self {
            seed,
            boot,
            reach: Reach::Loopback,
            mdns: false,
            port: 0,
            upnp: false,
            relays: false,
            announce: Vec::new(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("boot", &self.boot)
            .field("reach", &self.reach)
            .field("mdns", &self.mdns)
            .field("port", &self.port)
            .field("upnp", &self.upnp)
            .field("relays", &self.relays)
            .field("announce", &self.announce)
            .finish_non_exhaustive()
    }
}

/// What the node asks of the network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Replaces the members. Whoever left is disconnected at once and a stranger from then on;
    /// a connected stranger who came is a member on the connection that it has.
    Members(BTreeSet<DeviceId>),
    /// Replaces the addresses under which a device is dialled; those that can't be are left out.
    Remember {
        /// The device.
        device: DeviceId,
        /// Multiaddrs, of which the first sixteen direct ones and eight through relays count.
        addresses: Vec<String>,
    },
    /// Dials a member now, without waiting for its turn; nothing where it is connected.
    Dial {
        /// The device.
        device: DeviceId,
    },
    /// Trust was merged on both sides of the connection that serves now: all protocols may be
    /// opened on it. Ends with the connection; a stranger is not admitted.
    Admit {
        /// The device.
        device: DeviceId,
    },
    /// Replaces the members that carry others' connections: of those that are connected, two are asked to
    /// carry this node's.
    Relays(BTreeSet<DeviceId>),
    /// Whether something is under way with a device: while it is, the device's loss is noticed within
    /// 3 s rather than 30 s. Holds for whichever connection serves it, until it is said anew.
    Watch {
        /// The device.
        device: DeviceId,
        /// Whether something is.
        is_watched: bool,
    },
    /// Queues a frame; one for a stream that is closed is dropped.
    Send {
        /// The stream.
        stream: StreamId,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Closes a stream once what is queued was sent. A control stream is opened again after a
    /// while.
    CloseStream {
        /// The stream.
        stream: StreamId,
    },
    /// Closes the connection once what is queued was sent. A member is dialled again.
    Disconnect {
        /// The device.
        device: DeviceId,
    },
    /// Closes everything and ends the task; the receiver of events ends last.
    Stop,
}

/// What the network tells the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Where others can dial this node now.
    Listening {
        /// Multiaddrs.
        addresses: Vec<String>,
    },
    /// A member was seen by mDNS; it is dialled.
    Sighted {
        /// The device.
        device: DeviceId,
        /// Multiaddrs.
        addresses: Vec<String>,
    },
    /// A connection serves a device now. Comes again, with `member`, when a connected stranger
    /// became one, and with another address when a direct connection took a relayed one's place, whose
    /// streams were closed before.
    Connected {
        /// The device.
        device: DeviceId,
        /// The dialled address, or the one it came from.
        address: String,
        /// Whether it is a member.
        member: bool,
    },
    /// The connection that served is gone; its streams were closed before.
    Disconnected {
        /// The device.
        device: DeviceId,
        /// Why.
        reason: Disconnection,
    },
    /// A stream serves: the peer's hello came.
    StreamOpened {
        /// The stream.
        stream: StreamId,
        /// The peer.
        device: DeviceId,
        /// What is spoken on it.
        protocol: Protocol,
        /// Whether the peer is a member.
        member: bool,
        /// Which start of the peer speaks.
        boot: BootId,
    },
    /// A frame came.
    Frame {
        /// The stream.
        stream: StreamId,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// A long frame is on its way in: more of it came. Told once in a second.
    Moving {
        /// The stream.
        stream: StreamId,
    },
    /// A stream that was opened is closed.
    StreamClosed {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: StreamEnd,
    },
    /// A member answered a ping: the first of its connection, or one that took noticeably more or less
    /// than what was told last.
    RoundTrip {
        /// The device.
        device: DeviceId,
        /// How long it took.
        rtt: Duration,
    },
    /// What is known of how this node is reached has changed.
    Reach(Box<Report>),
    /// A dial came to nothing; the next one follows by itself.
    DialFailed {
        /// The device.
        device: DeviceId,
        /// Why.
        reason: DialFailure,
    },
    /// A stranger was cut or refused. Under a flood some are left out.
    StrangerTurnedAway {
        /// Where it came from.
        address: String,
        /// Why.
        why: TurnedAway,
    },
}

/// Why a connection no longer serves.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Disconnection {
    /// The peer closed it, or it does not answer.
    #[error("lost: {why}")]
    Lost {
        /// What the transport said.
        why: String,
    },
    /// `Disconnect` was asked for.
    #[error("closed here")]
    Closed,
    /// The device is no longer a member.
    #[error("no longer a member")]
    NotMember,
    /// Another connection to the device serves: of a newer start, or the right one of two dials.
    #[error("replaced by another connection")]
    Replaced,
    /// A stranger that did not prove itself.
    #[error("a stranger: {0}")]
    Stranger(#[from] TurnedAway),
    /// The peer breaks the protocol.
    #[error("the peer breaks the protocol: {why}")]
    Violation {
        /// How.
        why: String,
    },
}

/// Why a device was not reached.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum DialFailure {
    /// Only members are dialled.
    #[error("not a member")]
    NotMember,
    /// No address of it is known, or none that this node's reach takes.
    #[error("no address known")]
    NoAddress,
    /// None of its addresses answered as that device.
    #[error("{why}")]
    Unreachable {
        /// What the transport said.
        why: String,
        /// How each address answered, as far as any was dialled.
        attempts: Vec<Attempt>,
    },
}

/// Why a stranger was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TurnedAway {
    /// It did not prove in time that it belongs.
    #[error("time is up")]
    TimeUp,
    /// It sent more than a stranger may.
    #[error("too many bytes")]
    TooManyBytes,
    /// It sent more frames than an honest peer does.
    #[error("too many frames")]
    TooManyFrames,
    /// It opened more streams than a stranger has any use for.
    #[error("too many streams")]
    TooManyStreams,
    /// What it sends is no message.
    #[error("what it sends is no message")]
    Malformed,
    /// Too many strangers are connected.
    #[error("too many strangers")]
    TooMany,
    /// Too many strangers are connected from its address.
    #[error("too many strangers from one address")]
    TooManyFromAddress,
}

/// Whether an address may be announced to others by a node of this reach: a direct one that they could dial.
pub fn may_be_announced(address: &str, reach: Reach) -> bool {
    address::parse(address, reach).is_some_and(|it| !address::is_relayed(&it))
}

/// The network has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("reach the network: it has stopped")]
pub struct Stopped;

/// Gives commands to the network; cheap to clone. When the last one is dropped the network stops.
#[derive(Clone, Debug)]
pub struct NetHandle {
    commands: mpsc::Sender<Command>,
}

impl NetHandle {
    /// Gives a command. Dropping the future gives none.
    ///
    /// # Errors
    ///
    /// The network has stopped.
    pub async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    /// Gives a command from a thread that is no task, waiting as [`Self::send`] does.
    ///
    /// # Errors
    ///
    /// The network has stopped.
    ///
    /// # Panics
    ///
    /// On a thread that runs tasks.
    pub fn blocking_send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.blocking_send(command).map_err(|_| Stopped)
    }
}

/// The network of one node.
#[derive(Debug)]
pub struct Net;

impl Net {
    /// Listens, and spawns the task that owns the swarm.
    ///
    /// # Errors
    ///
    /// A port is taken, or the system refuses a socket.
    #[expect(clippy::unused_async, reason = "it spawns, so it must be called within a runtime")]
    pub async fn start(config: Config) -> Result<(NetHandle, mpsc::Receiver<Event>), StartError> {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (events, outbox) = mpsc::channel(EVENTS_MAX);
        let actor = actor::NetActor::new(config, inbox, events)?;
        tokio::spawn(actor.run());
        Ok((NetHandle { commands }, outbox))
    }
}

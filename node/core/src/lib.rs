//! The behaviour of a node: machines without I/O, clock or entropy, and their composition.
//!
//! A [`Node`] takes an [`Input`] together with a [`Context`] (both clocks, the rows that are persisted,
//! the rules) and gives [`Output`]s: frames to send, batches to persist, agents to start, answers to
//! doors. One walk through the loop: the shell hands an input over, the node routes it to the machine
//! whose concern it is, that machine's outputs go to the next machine or out, until nothing is left;
//! then the shell carries the outputs out and comes back with what they gave. So a fabric of many
//! nodes runs inside one test on virtual time, from a seed.
//!
//! The machines, in the order in which a command meets them: [`runs`] carries a plan out step by step,
//! [`dispatch`] decides and places each step by [`placement`], [`executor`] decides again and runs it,
//! [`replica`] keeps and synchronises what it wrote, [`audit`] chains the records, [`witness`] shows
//! them to other devices. Beside them: [`membership`] says who belongs, [`presence`] who is here,
//! [`registry`] what can be done, [`schedule`] when a timer is due.
//!
//! Deliberately not here: sockets, disks, processes, models, words (`weft-intent`), and rules
//! (`weft-engine`, behind [`weft_protocol::decision::Policy`]).

pub mod door;
pub mod env;
pub mod node;

pub mod clock;
pub mod consent;
pub mod dispatch;
pub mod executor;
pub mod placement;
pub mod runs;

pub mod document;
pub mod replica;

pub mod audit;
pub mod witness;

pub mod checkup;
pub mod contact;
pub mod invitation;
pub mod links;
pub mod membership;
pub mod presence;
pub mod reach;
pub mod registry;
pub mod schedule;
pub mod skew;
pub mod trust_log;

pub use node::Node;

use std::{collections::BTreeSet, time::Duration};

use thiserror::Error;
use weft_protocol::{
    attempt::Attempt,
    decision::Policy,
    frame::Protocol,
    host_call::{HostCall, HostError},
    id::{BootId, DeviceId, EndpointId},
    manifest::CapabilityName,
    presence::{Machine, ModelReady},
    reach::Report,
    row::{Durability, ReadError, Rows, Write},
    run::{Failure, Progress},
    time::Now,
    value::Value,
};
use weft_trust::secret::DeviceSecret;

use crate::{
    door::{Command, DoorId, Event, Reply},
    executor::{CallId, ExecutionId},
    links::StreamId,
    registry::Installed,
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
    /// A long frame is on its way in: more of it came.
    Moving {
        /// On which stream.
        stream: StreamId,
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
    /// A dial to a device came to nothing.
    DialFailed {
        /// To which.
        device: DeviceId,
        /// What was tried; empty: no address is known that could be.
        attempts: Vec<Attempt>,
    },
    /// A stranger was cut or refused.
    StrangerTurnedAway,
    /// What the network found out of how this node is reached.
    Reach(Box<Report>),
    /// A batch is persisted, as its durability wanted.
    Persisted(Ticket),
    /// A batch was not persisted: a row of it is more than a disk takes ([`Write::check`]), or the disk
    /// failed, and no later one will be.
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
    /// There is no wall here behind which agents could run.
    NoWall {
        /// Why.
        why: String,
    },
    /// Models that answer here now.
    Models(Vec<ModelReady>),
    /// Charge in percent; `None`: not on battery.
    Battery(Option<u8>),
    /// Whether this device's network costs money.
    Metered(bool),
    /// What this machine has, and how busy it is. However often it comes, others are told seldom of what
    /// moves all the time.
    Machine(Machine),
    /// The endpoint for an invitation listens.
    PairingListening {
        /// Which.
        endpoint: u64,
        /// Where.
        addresses: Vec<String>,
    },
    /// The endpoint for an invitation could not be opened.
    PairingFailed {
        /// Which.
        endpoint: u64,
        /// Why.
        reason: String,
    },
    /// A device came to the endpoint.
    PairingConnected {
        /// Of which endpoint.
        endpoint: u64,
        /// Under which number.
        link: u64,
        /// Its endpoint.
        remote: EndpointId,
    },
    /// A frame came from it.
    PairingFrame {
        /// Of which endpoint.
        endpoint: u64,
        /// Under which number.
        link: u64,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// It is gone.
    PairingClosed {
        /// Of which endpoint.
        endpoint: u64,
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
    /// A door asks for another key in the place of this device's. The next key's seed is on the disk, and is
    /// used from the next start on if the rows then hold the statement that says so.
    Rotate {
        /// The door; [`door::Reply::Rotated`] answers it.
        door: DoorId,
        /// The next key.
        next: Box<DeviceSecret>,
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
    /// Whether something is under way with a device, so that its loss is to be noticed soon. Said only
    /// when it changes.
    Watch {
        /// Which.
        device: DeviceId,
        /// Whether something is.
        is_watched: bool,
    },
    /// The members that carry others' connections. Said only when it changes.
    Relays(BTreeSet<DeviceId>),
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
        deadline: Duration,
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
        /// Under this number.
        endpoint: u64,
        /// Its throw-away key's seed.
        seed: [u8; 32],
        /// Whether the local network is told of it: a code does not say where it is.
        announced: bool,
    },
    /// Send a frame on the endpoint.
    SendPairing {
        /// Of which endpoint.
        endpoint: u64,
        /// Under which number.
        link: u64,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// Close one connection of the endpoint.
    ClosePairingLink {
        /// Of which endpoint.
        endpoint: u64,
        /// Under which number.
        link: u64,
    },
    /// Close an endpoint.
    ClosePairing {
        /// Which.
        endpoint: u64,
    },
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

/// What a node may have at once, as its device allows ([`Node::bound`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Steps of agents that run for one device that asks; more of them wait.
    pub agents_running_max: usize,
    /// Documents that stay in memory although nobody works on them.
    pub documents_loaded_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            agents_running_max: executor::RUNNING_MAX,
            documents_loaded_max: replica::LOADED_MAX,
        }
    }
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

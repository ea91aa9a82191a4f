//! Why a step of an agent gave nothing.

use std::time::Duration;

use minicbor::{Decode, Encode};
use thiserror::Error;
use weft_protocol::host_call::HostError;

/// Why an agent gave no output.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AgentError {
    /// The agent itself says why.
    #[error("run the agent: {0}")]
    Refused(HostError),
    /// The component imports what its manifest was not granted.
    #[error("load the agent: it imports {interface}, which its manifest was not granted")]
    Import {
        /// The interface as the component names it.
        interface: String,
    },
    /// The bytes are no component, or not one of `weft:agent`.
    #[error("load the agent: {reason}")]
    Component {
        /// What is wrong with it.
        reason: String,
    },
    /// The agent wanted more memory than it was granted.
    #[error("run the agent: it needs more than {mib} MiB of memory")]
    Memory {
        /// What it was granted.
        mib: u32,
    },
    /// The agent computed for longer than it was granted.
    #[error("run the agent: it used its {millis} ms of processor time")]
    Processor {
        /// What it was granted.
        millis: u32,
    },
    /// The agent broke off.
    #[error("run the agent: it broke off: {reason}")]
    Trap {
        /// How.
        reason: String,
    },
    /// The output is larger than is taken, or no JSON.
    #[error("run the agent: its output {reason}")]
    Output {
        /// What is wrong with it.
        reason: String,
    },
    /// The agent made more host calls than one step may.
    #[error("run the agent: it made more than {max} host calls")]
    Calls {
        /// How many are taken.
        max: u32,
    },
    /// The step did not end in time.
    #[error("run the agent: it did not end within {0:?}")]
    Deadline(Duration),
    /// The agent's process ended.
    #[error("run the agent: its process ended: {reason}")]
    Died {
        /// How.
        reason: String,
    },
    /// The agent's process could not be started.
    #[error("start the agent's process: {reason}")]
    Start {
        /// What failed.
        reason: String,
    },
    /// There is no wall for the agent's process on this device, nor will there be at the next try.
    #[error("wall in the agent's process: {reason}")]
    Wall {
        /// What failed.
        reason: String,
    },
    /// As many agents run as this device takes.
    #[error("start the agent's process: {max} are running")]
    Busy {
        /// How many are taken.
        max: usize,
    },
}

/// What an agent's process says where there is no output. The node adds the limits, which it knows.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) enum Stop {
    #[n(0)]
    Import(#[n(0)] String),
    #[n(1)]
    Component(#[n(0)] String),
    #[n(2)]
    Memory,
    #[n(3)]
    Processor,
    #[n(4)]
    Trap(#[n(0)] String),
    #[n(5)]
    Output(#[n(0)] String),
    #[n(6)]
    Refused(#[n(0)] HostError),
    #[n(7)]
    Wall(#[n(0)] String),
}

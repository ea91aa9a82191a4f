//! What the node says to a door.

use weft_core::door::{Checkup, Event, Explanation, Reply, Status};
use weft_protocol::graph::Plan;

use crate::problem::Problem;

/// One thing that the node says in answer to a request: first a reply or an error, then events.
/// The conversation ends when the node drops the channel.
#[derive(Clone, PartialEq, Debug)]
pub enum DoorMessage {
    /// The core's answer. [`Reply::Refused`] goes out as an error.
    Reply(Reply),
    /// The core's status, with what only the shell knows.
    Status {
        /// What the core knows.
        status: Box<Status>,
        /// How the device's keys are kept.
        keys: Keys,
    },
    /// The state of a device that is locked: its store is closed, so that nothing else is known.
    Locked {
        /// How the device's keys are kept.
        keys: Keys,
    },
    /// The core's facts for a checkup, with the shell's.
    Checkup {
        /// The core's.
        checkup: Box<Checkup>,
        /// The shell's.
        shell: ShellView,
    },
    /// What words mean; the answer to a [`Say`](crate::Say) that asks for the plan only.
    Plan(PlanView),
    /// Models whose files lie here.
    Models(Vec<ModelView>),
    /// Something happened.
    Event(Event),
    /// It did not work.
    Error(Problem),
}

/// What only a node's shell knows, for a checkup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShellView {
    /// The program's version.
    pub version: String,
    /// Whether the node is reached from this machine only.
    pub is_loopback: bool,
    /// Whether it is found and finds others by multicast.
    pub is_multicast: bool,
    /// Why nothing can be written to the store any more.
    pub store_failure: Option<String>,
    /// Whether space on the disk is kept back for the audit.
    pub is_reserve_held: bool,
    /// Why agents can't be walled in here; `None`: they can, or nobody tried.
    pub wall_failure: Option<String>,
}

/// A plan, with where its steps would run.
#[derive(Clone, PartialEq, Debug)]
pub struct PlanView {
    /// The plan; without steps where the words mean nothing.
    pub plan: Plan,
    /// Where each step would run and what the rules say, as [`Reply::Explained`] has it; empty where
    /// nobody was asked.
    pub explanations: Vec<Explanation>,
    /// The nearest things that could have been said, best first; for a plan without steps.
    pub nearest: Vec<String>,
}

/// How the keys of a device lie on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// In a file that only this user may read, wrapped by nothing.
    File,
    /// Under a passphrase that a person types.
    Passphrase,
    /// Under a key that lies in the system's keychain.
    Keychain,
    /// Under a secret that systemd hands to the service.
    Credential,
}

impl Keys {
    /// The word that stands for it in JSON and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Passphrase => "passphrase",
            Self::Keychain => "keychain",
            Self::Credential => "credential",
        }
    }
}

/// A model on this device.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelView {
    /// Its file's name.
    pub name: String,
    /// Where the file lies.
    pub path: String,
    /// The file's length.
    pub bytes: u64,
    /// `idle`, `loading`, `ready` or `failed: ` and why.
    pub state: String,
    /// Of answers, measured here; `None` before the first answer.
    pub tokens_per_second: Option<f64>,
    /// Of prompts, measured here; `None` before the first answer.
    pub prompt_tokens_per_second: Option<f64>,
}

//! Who belongs to a fabric, and how one comes to.
//!
//! Each device holds the fabric's signed statements in a [`graph`]; what they add up to is a pure
//! function of their set ([`state`]), so all devices that hold the same statements agree without
//! asking anybody. [`author`] makes statements, [`exchange`] makes two devices' graphs equal,
//! [`keyring`] opens the fabric's keys that statements carry, [`pairing`] brings a new device in,
//! [`recovery`] lets a person with 24 words speak as the root that outranks them all.
//!
//! Deliberately not here: clocks, entropy, disks and sockets. Time, seeds and keys are handed in.
//! Nothing here persists, sends or asks; the machines say what is to be done and are told when it
//! is. Nothing here decides what a member may do beyond belonging: that is policy.
//!
//! One walk through: a device comes into reach. Its connection's [`exchange::Exchange`] sends the
//! ids that this graph holds, and gets the other's; each side sends what the other lacks.
//! `Learned` statements are stored, entered with [`graph::Graph::insert`], and the machine is told
//! that the graph has changed. When both hold the same set, and the set says that both belong, it
//! says `Merged`, and the other protocols may open. If a `Revoke` came along, the new state names
//! who is out, and the shell closes its connections.

pub mod graph;
pub mod state;

pub mod keyring;
pub mod secret;

pub mod author;
pub mod exchange;

pub mod pairing;
pub mod recovery;

mod bits;

#[cfg(test)]
mod replica;

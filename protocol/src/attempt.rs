//! How a dial ended, address by address.
//!
//! It goes from a node's network to its core and is never sent.

/// One address that was dialled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The multiaddr, without the device's own id at its end.
    pub address: String,
    /// How it ended.
    pub ending: Ending,
}

/// How a dial to one address ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The machine answered that nobody listens there.
    Refused,
    /// Nothing came back in time.
    NoAnswer,
    /// This machine knows no way there.
    NoRoute,
    /// Another device answered.
    OtherDevice,
    /// Something else, in the system's or the transport's words.
    Other(String),
}

//! What a joiner's machine is told and wants.

use weft_protocol::{
    id::EndpointId,
    pairing::{Contacts, PairingMessage, Party},
};

use super::{Answer, Outcome, Prompt};
use crate::graph::Graph;

/// What happens to the joiner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JoinerInput {
    /// There is a connection; the transport has checked whose end the other is.
    Connected(EndpointId),
    /// There is none, or no longer.
    Disconnected,
    /// The inviter says something.
    Message(PairingMessage),
    /// The person, or `--yes`, has answered the prompt.
    Answer(Answer),
    /// What was joined is on disk; the inviter is told where this device can be met.
    Stored(Contacts),
    /// It could not be written.
    NotStored,
    /// The person gives up.
    Cancel,
}

/// What the joiner wants done.
#[derive(Debug)]
pub enum JoinerOutput {
    /// Connect to an endpoint that [`Joiner::takes`](super::Joiner::takes): with a ticket, its
    /// own at its addresses.
    Dial,
    /// Send this.
    Send(PairingMessage),
    /// Close the connection, once what was sent before is out.
    Close,
    /// Ask the person; a new prompt replaces the one before.
    Ask(Prompt),
    /// Write all of it to disk, then say [`JoinerInput::Stored`].
    Store(Box<Joined>),
    /// It has ended so. Only `Close` follows, and before it what the inviter is to hear.
    Ended(Outcome),
}

/// What a joined device has to store.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The fabric, in which this device belongs.
    pub graph: Graph,
    /// Who invited.
    pub inviter: Party,
    /// Where the inviter can be met, and whom it knows.
    pub contacts: Contacts,
}

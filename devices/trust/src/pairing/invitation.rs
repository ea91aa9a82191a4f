//! What an invitation offers, and what its machine is told and wants.

use weft_protocol::{
    device::Kind,
    id::{DeviceId, EndpointId},
    pairing::{Contacts, PairingMessage},
    signed::Signed,
    statement::Name,
    ticket::Ticket,
};

use super::{Answer, Outcome, Prompt};
use crate::author::NewDevice;

/// Names a connection to the pairing endpoint; the shell counts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConnectionId(pub u64);

/// What an invitation offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invitation {
    /// What the joiner was given; with a code nobody is, and its secret is of no use.
    pub ticket: Ticket,
    /// The fabric's name.
    pub fabric: Name,
    /// This device's name.
    pub name: Name,
    /// This device's kind.
    pub kind: Kind,
}

/// What happens to the inviter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InviterInput {
    /// Somebody connected; the transport has checked its endpoint id.
    Connected(ConnectionId, EndpointId),
    /// It says something.
    Message(ConnectionId, PairingMessage),
    /// It is gone.
    Disconnected(ConnectionId),
    /// The redemption is on disk, or could not be written.
    Redeemed(bool),
    /// A person, or `--yes`, has answered the prompt.
    Answer(Answer),
    /// The `Add` and the keys are on disk.
    Admitted {
        /// All statements of the fabric, parents first.
        statements: Vec<Signed>,
        /// Where this device can be met.
        contacts: Contacts,
    },
    /// The `Add` could not be made or written.
    NotAdmitted,
    /// The admitted device was met on the main network: it has stored all.
    Met,
    /// The person closes the invitation.
    Cancel,
    /// A newer invitation takes its place.
    Replace,
}

/// What the inviter wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InviterOutput {
    /// Send this.
    Send(ConnectionId, PairingMessage),
    /// Close the connection, once what was sent before is out.
    Close(ConnectionId),
    /// Write that the ticket is spent, then say [`InviterInput::Redeemed`].
    Redeem(Redemption),
    /// Ask the person; a new prompt replaces the one before.
    Ask(Prompt),
    /// Make and store the `Add`, then say [`InviterInput::Admitted`].
    Admit(NewDevice),
    /// The joiner is there, and knows these.
    Learned(DeviceId, Contacts),
    /// It has ended so. The endpoint goes on answering.
    Ended(Outcome),
    /// Close the endpoint. The last output.
    CloseEndpoint,
}

/// That a ticket or a code is spent, for the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Redemption {
    /// The ticket's endpoint.
    pub endpoint: EndpointId,
    /// Who redeemed it, or burnt it by a wrong guess.
    pub device: DeviceId,
}

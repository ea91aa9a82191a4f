//! What the joining side has in hand: a ticket, or a code and the one proof that is made of it.

use weft_protocol::{
    device::Role,
    id::{DeviceId, Digest, EndpointId},
    pairing::{Nonce, PairingMessage, Share},
    ticket::{FabricPrefix, TicketSecret},
};

use crate::pairing::Code;

/// What this side has in hand.
#[derive(Debug)]
pub(super) enum Means {
    Ticket(Terms),
    /// A code, and the proof of it once that was sent.
    Code(Code, Option<Box<Proof>>),
}

/// What a ticket says, or an exchange under a code gives.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) fabric: FabricPrefix,
    pub(super) role: Role,
    pub(super) endpoint: EndpointId,
    pub(super) secret: TicketSecret,
}

/// The answer to a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Offer {
    pub(super) share: Share,
    pub(super) fabric: FabricPrefix,
    pub(super) role: Role,
    pub(super) nonce: Nonce,
    pub(super) device: DeviceId,
}

/// The one proof that this side makes of a code.
///
/// Whoever answers a code may only pretend to have it. The proof that it then hears lets it check
/// one guess, and a second proof, over another share of either side, would let it check another.
/// So one exchange is ever proved. A connection that is lost after that is made again with the
/// same endpoint alone: this side says the bytes that it has said before, and the proof only to the
/// very offer that it answers, so that there is nothing new in it to check a guess by. An inviter
/// that has the code makes the same offer to the same opening. Anything else ends the pairing: a
/// code that was typed once is good for one guess on this side, too.
#[derive(Debug)]
pub(super) struct Proof {
    /// What this side began with.
    pub(super) opening: PairingMessage,
    pub(super) offer: Offer,
    pub(super) terms: Terms,
    pub(super) transcript: Digest,
    /// What was sent.
    pub(super) message: PairingMessage,
}

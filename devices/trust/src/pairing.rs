//! Pairing: how a device with a ticket becomes a device of the fabric.
//!
//! Two machines, [`Inviter`] and [`Joiner`]; the messages between them are in
//! [`weft_protocol::pairing`]. Each phase is a variant that holds only what is true then.
//!
//! What makes it safe: the connection reaches exactly the endpoint that the ticket names, because
//! the transport checks its key; both sides prove the ticket's secret and their device keys over
//! everything said before; both persons see four words that follow from it, and the other's name.
//! The first proof burns the ticket, on disk, before anybody is asked. A photograph of the ticket
//! is worthless after that, and before that it shows a strange name on the inviter's screen.
//!
//! A [`Code`] instead of a ticket is a phase before that, not another way in: an `exchange` under
//! the code gives both sides the secret that a ticket would have carried, and the first proof that
//! does not fit burns the code, on disk, and ends the invitation. The joiner, which proves itself
//! first, does so once: to one endpoint, over one exchange.

mod code;
mod exchange;
mod invitation;
mod inviter;
mod joiner;
mod joining;

use ed25519_dalek::SigningKey;
use weft_protocol::{
    device::{Kind, Role},
    id::{DeviceId, Digest, EndpointId},
    pairing::{Ending, Nonce, Party, Share},
    signed::{Domain, Signed},
    statement::Name,
    ticket::TicketSecret,
};

use crate::{recovery::four_words, secret::DeviceSecret};

pub use self::{
    code::{Code, ParseCodeError},
    invitation::{ConnectionId, Invitation, InviterInput, InviterOutput, Redemption},
    inviter::{ANSWER_TIME, Inviter},
    joiner::{Joiner, REACH_TIME},
    joining::{Joined, JoinerInput, JoinerOutput},
};

/// How a pairing ended, the same on both sides but for [`Outcome::CouldNotReach`]. A [`Reason`]
/// says more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// The device belongs, and both disks know.
    Paired,
    /// A person said no, or a proof was wrong.
    Refused,
    /// The invitation was over first.
    Expired,
    /// Another device had redeemed the ticket.
    AlreadyUsed,
    /// The other side did not answer, or went away and did not come back.
    CouldNotReach,
}

impl From<Ending> for Outcome {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Refused | Ending::WrongCode => Self::Refused,
            Ending::Expired | Ending::Replaced | Ending::Closed => Self::Expired,
            Ending::AlreadyUsed => Self::AlreadyUsed,
        }
    }
}

/// Why a pairing was refused or expired.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// The person at this device said no, or gave up.
    SaidNo,
    /// The other device's person did.
    OtherSaidNo,
    /// A proof did not fit.
    WrongProof,
    /// Another code was given: here, or by whoever was first. It is burnt.
    WrongCode,
    /// This side has proved the code to an endpoint that did not come back, or began anew.
    CodeSpent,
    /// A disk did not take it.
    NotStored,
    /// The time was up.
    TimeUp,
    /// A newer invitation took its place.
    Replaced,
    /// The inviting person closed the invitation before anybody came.
    Closed,
}

impl Reason {
    /// What a person reads, without a full stop.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::SaidNo => "you said no",
            Self::OtherSaidNo => "somebody said no on the other device",
            Self::WrongProof => "the proof was wrong",
            Self::WrongCode => "wrong code, and a code takes one guess; ask for a new one",
            Self::CodeSpent => "a code is shown to one device once, and it was; ask for a new code",
            Self::NotStored => "it could not be written to the disk",
            Self::TimeUp => "an invitation is good for two minutes",
            Self::Replaced => "replaced by a newer invitation",
            Self::Closed => "the invitation was closed",
        }
    }

    /// What the other side is told.
    const fn ending(self) -> Ending {
        match self {
            Self::SaidNo
            | Self::OtherSaidNo
            | Self::WrongProof
            | Self::CodeSpent
            | Self::NotStored => Ending::Refused,
            Self::WrongCode => Ending::WrongCode,
            Self::TimeUp => Ending::Expired,
            Self::Replaced => Ending::Replaced,
            Self::Closed => Ending::Closed,
        }
    }
}

/// What a person is shown before the answer, which is no unless it is yes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prompt {
    /// The same on both screens.
    pub words: [&'static str; 4],
    /// The other device's name.
    pub name: Name,
    /// The other device's kind.
    pub kind: Kind,
    /// The fabric's name.
    pub fabric: Name,
    /// The most that the joiner becomes.
    pub role: Role,
}

/// A person's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Not this device.
    No,
    /// A person compared the words.
    Yes,
    /// Nobody was asked (`--yes`): the ticket alone decides, and grants no `admin`.
    Unasked,
}

/// What a tag proves. Each has its own key, so none passes for another.
#[derive(Clone, Copy)]
enum Tag {
    Joiner,
    Inviter,
    Confirm,
    Stored,
}

impl Tag {
    fn hash(self, secret: &TicketSecret, digest: &Digest) -> blake3::Hash {
        let context = match self {
            Self::Joiner => "weft pairing joiner tag v1",
            Self::Inviter => "weft pairing inviter tag v1",
            Self::Confirm => "weft pairing confirm tag v1",
            Self::Stored => "weft pairing stored tag v1",
        };
        let key = zeroize::Zeroizing::new(blake3::derive_key(context, secret.expose()));
        blake3::keyed_hash(&key, digest.as_bytes())
    }

    fn make(self, secret: &TicketSecret, digest: &Digest) -> Digest {
        Digest::from_bytes(*self.hash(secret, digest).as_bytes())
    }

    /// Compares in constant time.
    fn proves(self, tag: &Digest, secret: &TicketSecret, digest: &Digest) -> bool {
        self.hash(secret, digest) == *tag.as_bytes()
    }
}

fn sign(key: &SigningKey, digest: &Digest) -> [u8; 64] {
    Signed::from_bytes(Domain::Pairing, digest.as_bytes().to_vec(), key).signature
}

fn signs(author: DeviceId, signature: [u8; 64], digest: &Digest) -> bool {
    let signed = Signed { bytes: digest.as_bytes().to_vec(), author, signature };
    signed.verify(Domain::Pairing).is_ok()
}

/// What this side says it is.
fn party(secret: &DeviceSecret, name: Name, kind: Kind) -> Party {
    Party { device: secret.id(), agreement: secret.agreement().public(), name, kind }
}

fn words(acceptance: &Digest) -> [&'static str; 4] {
    four_words(&Digest::from_bytes(blake3::derive_key(
        "weft pairing words v1",
        acceptance.as_bytes(),
    )))
}

/// Draws nonces, and seeds of exchanges, one after another from a seed.
struct Nonces {
    seed: zeroize::Zeroizing<[u8; 32]>,
    drawn: u64,
}

impl Nonces {
    fn new(seed: [u8; 32]) -> Self {
        Self { seed: zeroize::Zeroizing::new(seed), drawn: 0 }
    }

    fn next(&mut self) -> Nonce {
        Nonce::from_bytes(self.draw("weft pairing nonce v1"))
    }

    /// A seed for the joiner's half of one exchange under a code.
    fn next_seed(&mut self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.draw("weft pairing exchange seed v1"))
    }

    fn draw(&mut self, context: &str) -> [u8; 32] {
        self.drawn += 1;
        let material =
            zeroize::Zeroizing::new([&self.seed[..], &self.drawn.to_be_bytes()].concat());
        blake3::derive_key(context, &material)
    }

    /// The inviter's nonce, and the seed of its half of the exchange, for one opening of one endpoint.
    /// They are the same for the same, so that a joiner whose connection was lost hears the offer
    /// that it has proved itself over.
    fn for_opening(
        &self,
        joiner: &EndpointId,
        share: &Share,
        commitment: &Digest,
    ) -> (Nonce, zeroize::Zeroizing<[u8; 32]>) {
        let opening = [&joiner.as_bytes()[..], share.as_bytes(), commitment.as_bytes()];
        let material = zeroize::Zeroizing::new([&self.seed[..], &opening.concat()].concat());
        let nonce = blake3::derive_key("weft pairing offer nonce v1", &material);
        let seed = blake3::derive_key("weft pairing offer seed v1", &material);
        (Nonce::from_bytes(nonce), zeroize::Zeroizing::new(seed))
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces(..)")
    }
}

#[cfg(test)]
mod tests;

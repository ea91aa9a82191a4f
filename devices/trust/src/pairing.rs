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

mod inviter;
mod joiner;

use ed25519_dalek::SigningKey;
use weft_protocol::{
    device::{Kind, Role},
    id::{DeviceId, Digest},
    pairing::{Ending, Nonce, Party},
    signed::{Domain, Signed},
    statement::Name,
    ticket::TicketSecret,
};

use crate::{recovery::four_words, secret::DeviceSecret};

pub use self::{
    inviter::{
        ANSWER_TIME, ConnectionId, Invitation, Inviter, InviterInput, InviterOutput, Redemption,
    },
    joiner::{Joined, Joiner, JoinerInput, JoinerOutput, REACH_TIME},
};

/// How a pairing ended, the same on both sides but for [`Outcome::CouldNotReach`].
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
            Ending::Refused => Self::Refused,
            Ending::Expired => Self::Expired,
            Ending::AlreadyUsed => Self::AlreadyUsed,
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

/// Draws one nonce after another from a seed.
struct Nonces {
    seed: zeroize::Zeroizing<[u8; 32]>,
    drawn: u64,
}

impl Nonces {
    fn new(seed: [u8; 32]) -> Self {
        Self { seed: zeroize::Zeroizing::new(seed), drawn: 0 }
    }

    fn next(&mut self) -> Nonce {
        self.drawn += 1;
        let material =
            zeroize::Zeroizing::new([&self.seed[..], &self.drawn.to_be_bytes()].concat());
        Nonce::from_bytes(blake3::derive_key("weft pairing nonce v1", &material))
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces(..)")
    }
}

#[cfg(test)]
mod tests;

//! Pairing: how a device that holds a ticket becomes a device of the fabric.
//!
//! The joiner dials the ticket's endpoint, which only exists for this, and speaks `/weft/pair/1`:
//!
//! ```text
//! joiner  → Hello      the ticket's fabric, a commitment to the joiner's nonce
//! inviter → Challenge  its nonce, its device key
//! joiner  → Prove      the nonce, who it is, a proof of ticket and device key
//! inviter → Accept     who it is, the fabric's name, a proof of ticket and device key
//!           both screens show four words and the other's name; both persons say yes
//! joiner  → Confirm    yes
//! inviter → Statements the fabric's statements, in as many messages as they need
//! inviter → Welcome    all are sent; where the inviter is, and whom it knows
//! joiner  → Stored     all are on disk; where the joiner is, and whom it knows
//! inviter → Done       seen
//! ```
//!
//! With a short code instead of a ticket two messages are others, and the rest is the same:
//!
//! ```text
//! joiner  → Code       its share of a key exchange under the code, the commitment
//! inviter → Offer      its share, what a ticket says of the fabric, its nonce, its device key
//! ```
//!
//! The key that both shares give under one code stands where the ticket's secret stands, and the
//! proofs are what confirms it. A wrong proof burns the code.
//!
//! Instead of its next message either side may send `End` with the reason. Proofs cover the
//! [`Transcript`], so that nothing in it can have been changed on the way.

use minicbor::{Decode, Encode};

use crate::{
    codec,
    device::{Kind, Role, word_enum},
    id::{AgreementKey, DeviceId, Digest, EndpointId},
    signed::Signed,
    statement::Name,
    ticket::FabricPrefix,
};

/// The libp2p protocol name.
pub const PAIRING_PROTOCOL: &str = "/weft/pair/1";

/// The version of the messages, in the first of each side.
pub const PAIRING_VERSION: u16 = 1;

/// The most bytes of one frame.
pub const PAIRING_FRAME_BYTES_MAX: usize = 64 << 10;

/// The most addresses that a side says it is at.
pub const MAIN_ADDRESSES_MAX: usize = 16;

/// The most presence records that a side passes on.
pub const PRESENCES_MAX: usize = 64;

/// The most bytes of [`Contacts`]: half a frame, so that what is around them fits too.
const CONTACTS_BYTES_MAX: usize = PAIRING_FRAME_BYTES_MAX / 2;

/// What the two sides say; one frame each.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum PairingMessage {
    /// Opens.
    #[n(0)]
    Hello {
        /// [`PAIRING_VERSION`].
        #[n(0)]
        version: u16,
        /// The fabric that the ticket names.
        #[n(1)]
        fabric: FabricPrefix,
        /// The hash of the joiner's nonce, which it shows after it has seen the other's: neither
        /// side can pick a nonce that gives certain words.
        #[n(2)]
        commitment: Digest,
    },
    /// Asks for the proof.
    #[n(1)]
    Challenge {
        /// The inviter's nonce.
        #[n(0)]
        nonce: Nonce,
        /// The inviter's device key.
        #[n(1)]
        device: DeviceId,
    },
    /// Redeems the ticket.
    #[n(2)]
    Prove {
        /// The joiner's nonce.
        #[n(0)]
        nonce: Nonce,
        /// Who joins.
        #[n(1)]
        party: Party,
        /// That the joiner has the ticket.
        #[n(2)]
        tag: Digest,
        /// The [`Transcript`]'s hash, signed by the joiner's device key under
        /// [`Domain::Pairing`](crate::signed::Domain::Pairing).
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        signature: [u8; 64],
    },
    /// The ticket is redeemed, and burnt.
    #[n(3)]
    Accept {
        /// The fabric's name.
        #[n(0)]
        fabric: Name,
        /// Who invites.
        #[n(1)]
        party: Party,
        /// That the inviter has the ticket.
        #[n(2)]
        tag: Digest,
        /// The [`Acceptance`]'s hash, signed by the inviter's device key.
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        signature: [u8; 64],
    },
    /// The joiner's person says yes.
    #[n(4)]
    Confirm {
        /// That it is the same joiner.
        #[n(0)]
        tag: Digest,
    },
    /// A part of the fabric's statements, parents first.
    #[n(5)]
    Statements {
        /// As they came from their authors.
        #[n(0)]
        statements: Vec<Signed>,
    },
    /// All statements are sent.
    #[n(6)]
    Welcome {
        /// Where the inviter's fabric can be met.
        #[n(0)]
        contacts: Contacts,
    },
    /// All of it is on the joiner's disk.
    #[n(7)]
    Stored {
        /// That it is the same joiner.
        #[n(0)]
        tag: Digest,
        /// Where the joiner can be met.
        #[n(1)]
        contacts: Contacts,
    },
    /// The inviter has seen `Stored`.
    #[n(8)]
    Done,
    /// It ends here.
    #[n(9)]
    End {
        /// Why.
        #[n(0)]
        ending: Ending,
    },
    /// Opens with a code instead of a ticket.
    #[n(10)]
    Code {
        /// [`PAIRING_VERSION`].
        #[n(0)]
        version: u16,
        /// The joiner's share.
        #[n(1)]
        share: Share,
        /// As in `Hello`.
        #[n(2)]
        commitment: Digest,
    },
    /// Asks for the proof, and says what a ticket would have said.
    #[n(11)]
    Offer {
        /// The inviter's share.
        #[n(0)]
        share: Share,
        /// The beginning of the fabric's id.
        #[n(1)]
        fabric: FabricPrefix,
        /// The most that the joiner may become.
        #[n(2)]
        role: Role,
        /// The inviter's nonce.
        #[n(3)]
        nonce: Nonce,
        /// The inviter's device key.
        #[n(4)]
        device: DeviceId,
    },
}

word_enum! {
    /// How a pairing ends that does not end in `paired`.
    Ending, "refused, expired, already used, replaced, closed, wrong code" {
        /// One of the two persons said no, or the proof was wrong.
        0 Refused = "refused",
        /// Too late.
        1 Expired = "expired",
        /// Another device has redeemed the ticket.
        2 AlreadyUsed = "already used",
        /// A newer invitation was opened.
        3 Replaced = "replaced",
        /// The inviting person closed the invitation.
        4 Closed = "closed",
        /// Somebody gave another code, and a code takes one guess.
        5 WrongCode = "wrong code",
    }
}

/// Bytes drawn for one pairing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct Nonce(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    [u8; 32],
);

impl Nonce {
    /// Takes drawn bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What stands for the nonce until it is shown.
    pub fn commitment(&self) -> Digest {
        Digest::from_bytes(blake3::derive_key("weft pairing commitment v1", &self.0))
    }
}

/// One side's part of the key exchange under a code (SPAKE2 over Ed25519's group): a byte for the
/// side, and a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct Share(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    [u8; 33],
);

impl Share {
    /// Takes what the exchange gave.
    pub const fn from_bytes(bytes: [u8; 33]) -> Self {
        Self(bytes)
    }

    /// What goes into the exchange.
    pub const fn as_bytes(&self) -> &[u8; 33] {
        &self.0
    }
}

/// Who a side says it is.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Party {
    /// Its device key.
    #[n(0)]
    pub device: DeviceId,
    /// Its agreement key.
    #[n(1)]
    pub agreement: AgreementKey,
    /// Its name.
    #[n(2)]
    pub name: Name,
    /// Its kind.
    #[n(3)]
    pub kind: Kind,
}

/// Where a side can be met on the main network, and what it knows of others.
#[derive(Clone, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Contacts {
    /// Its own addresses, as multiaddrs; at most [`MAIN_ADDRESSES_MAX`].
    #[n(0)]
    pub addresses: Vec<String>,
    /// The newest presence records that it knows; at most [`PRESENCES_MAX`], and no more than
    /// fit into half a frame.
    #[n(1)]
    pub presences: Vec<Signed>,
}

impl Contacts {
    /// The same without what is beyond the bounds.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.addresses.truncate(MAIN_ADDRESSES_MAX);
        self.presences.truncate(PRESENCES_MAX);
        while codec::encode(&self).len() > CONTACTS_BYTES_MAX {
            if self.presences.pop().is_none() && self.addresses.pop().is_none() {
                break;
            }
        }
        self
    }
}

/// Everything that both sides must agree on when the joiner proves itself.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Transcript {
    /// [`PAIRING_VERSION`].
    #[n(0)]
    pub version: u16,
    /// From the ticket.
    #[n(1)]
    pub fabric: FabricPrefix,
    /// From the ticket: the most that the joiner may become.
    #[n(2)]
    pub role: Role,
    /// The inviter's end of the connection, and from the ticket.
    #[n(3)]
    pub inviter_endpoint: EndpointId,
    /// The joiner's end of the connection.
    #[n(4)]
    pub joiner_endpoint: EndpointId,
    /// The inviter's nonce.
    #[n(5)]
    pub inviter_nonce: Nonce,
    /// The joiner's nonce.
    #[n(6)]
    pub joiner_nonce: Nonce,
    /// The inviter's device key.
    #[n(7)]
    pub inviter: DeviceId,
    /// Who joins.
    #[n(8)]
    pub joiner: Party,
}

impl Transcript {
    /// Its hash.
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(blake3::derive_key("weft pairing transcript v1", &codec::encode(self)))
    }
}

/// Everything that both sides must agree on when the inviter proves itself.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Acceptance {
    /// The hash of the [`Transcript`].
    #[n(0)]
    pub transcript: Digest,
    /// The fabric's name.
    #[n(1)]
    pub fabric: Name,
    /// Who invites.
    #[n(2)]
    pub inviter: Party,
}

impl Acceptance {
    /// Its hash, from which the four words come.
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(blake3::derive_key("weft pairing acceptance v1", &codec::encode(self)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::{frame::FRAME_BYTES_MAX, id::FabricId};

    #[test]
    fn every_message_round_trips() {
        for message in messages() {
            let bytes = codec::encode(&message);
            assert_eq!(codec::decode::<PairingMessage>(&bytes, FRAME_BYTES_MAX), Ok(message));
        }
    }

    #[test]
    fn the_hash_covers_each_field() {
        let base = transcript();
        let other = EndpointId::from_bytes([99; 32]);
        let changed = [
            Transcript { version: 2, ..base.clone() },
            Transcript { role: Role::Admin, ..base.clone() },
            Transcript { inviter_endpoint: other, ..base.clone() },
            Transcript { joiner_endpoint: other, ..base.clone() },
            Transcript { inviter_nonce: Nonce([99; 32]), ..base.clone() },
            Transcript { joiner_nonce: Nonce([99; 32]), ..base.clone() },
            Transcript { inviter: DeviceId::from_bytes([99; 32]), ..base.clone() },
            Transcript { joiner: Party { kind: Kind::Server, ..party() }, ..transcript() },
        ];
        for changed in changed {
            assert_ne!(changed.digest(), base.digest(), "{changed:?}");
        }
    }

    #[test]
    fn contacts_beyond_the_bounds_are_left_out() {
        let many = Contacts {
            addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned(); 1_000],
            presences: vec![],
        };
        assert_eq!(many.bounded().addresses.len(), MAIN_ADDRESSES_MAX);
    }

    #[test]
    fn contacts_fit_into_a_frame_however_large_they_are() {
        let record = Signed {
            bytes: vec![0; crate::presence::PRESENCE_BYTES_MAX],
            author: DeviceId::from_bytes([1; 32]),
            signature: [1; 64],
        };
        let contacts = Contacts {
            addresses: vec!["/dns/".to_owned() + &"x".repeat(4_000); MAIN_ADDRESSES_MAX],
            presences: vec![record; PRESENCES_MAX],
        };
        let bounded = contacts.bounded();
        assert!(!bounded.addresses.is_empty());
        let message = PairingMessage::Welcome { contacts: bounded };
        assert!(codec::encode(&message).len() <= PAIRING_FRAME_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn survives_arbitrary_bytes(bytes: Vec<u8>) {
            drop(codec::decode::<PairingMessage>(&bytes, FRAME_BYTES_MAX));
        }

        /// Bytes near a message's: what is read of them can be written and read again.
        #[test]
        fn survives_damaged_messages(
            which in 0usize..12, changes in vec((any::<usize>(), any::<u8>()), 1..4),
            cut in option::of(any::<usize>()), more in vec(any::<u8>(), 0..4),
        ) {
            let mut bytes = codec::encode(&messages()[which]);
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut % (bytes.len() + 1));
            }
            bytes.extend(more);
            if let Ok(message) = codec::decode::<PairingMessage>(&bytes, FRAME_BYTES_MAX) {
                let again = codec::encode(&message);
                prop_assert_eq!(codec::decode(&again, FRAME_BYTES_MAX), Ok(message));
            }
        }

        #[test]
        fn each_cut_of_a_message_is_none(which in 0usize..12, cut: usize) {
            let bytes = codec::encode(&messages()[which]);
            let cut = cut % bytes.len();
            prop_assert!(codec::decode::<PairingMessage>(&bytes[..cut], FRAME_BYTES_MAX).is_err());
        }
    }

    fn party() -> Party {
        Party {
            device: DeviceId::from_bytes([1; 32]),
            agreement: AgreementKey::from_bytes([2; 32]),
            name: "phone".parse().unwrap(),
            kind: Kind::Phone,
        }
    }

    fn transcript() -> Transcript {
        Transcript {
            version: PAIRING_VERSION,
            fabric: FabricId::from_bytes([1; 32]).into(),
            role: Role::Member,
            inviter_endpoint: EndpointId::from_bytes([3; 32]),
            joiner_endpoint: EndpointId::from_bytes([4; 32]),
            inviter_nonce: Nonce([5; 32]),
            joiner_nonce: Nonce([6; 32]),
            inviter: DeviceId::from_bytes([7; 32]),
            joiner: party(),
        }
    }

    fn messages() -> Vec<PairingMessage> {
        let tag = Digest::of(b"tag");
        let nonce = Nonce([5; 32]);
        let fabric: Name = "home".parse().unwrap();
        let contacts =
            Contacts { addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()], presences: vec![] };
        vec![
            PairingMessage::Hello {
                version: PAIRING_VERSION,
                fabric: FabricId::from_bytes([1; 32]).into(),
                commitment: nonce.commitment(),
            },
            PairingMessage::Challenge { nonce, device: DeviceId::from_bytes([1; 32]) },
            PairingMessage::Prove { nonce, party: party(), tag, signature: [9; 64] },
            PairingMessage::Accept { fabric, party: party(), tag, signature: [9; 64] },
            PairingMessage::Confirm { tag },
            PairingMessage::Statements { statements: vec![] },
            PairingMessage::Welcome { contacts: contacts.clone() },
            PairingMessage::Stored { tag, contacts },
            PairingMessage::Done,
            PairingMessage::End { ending: Ending::AlreadyUsed },
            PairingMessage::Code {
                version: PAIRING_VERSION,
                share: Share([65; 33]),
                commitment: nonce.commitment(),
            },
            PairingMessage::Offer {
                share: Share([66; 33]),
                fabric: FabricId::from_bytes([1; 32]).into(),
                role: Role::Admin,
                nonce,
                device: DeviceId::from_bytes([1; 32]),
            },
        ]
    }
}

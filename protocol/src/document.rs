//! Documents: what they are called, who vouches for their changes, and what is left of deleted ones.
//!
//! A document is a set of Automerge changes. Changes are unsigned, so each carries an actor id that
//! derives from one start of one device, and the device signs a [`Vouch`] for its newest change with
//! each flush. A deletion is a signed [`Tombstone`] that names the changes which it buries; a change
//! that it does not name brings the document back.

use std::{borrow::Cow, fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, bytes::ByteArray, decode};
use thiserror::Error;

use crate::{
    codec,
    id::{ActorId, DeviceId, Digest, DocumentId, FabricId},
    signed::Signed,
    time::WallTime,
};

/// The most bytes of one change on the wire; larger things are blobs.
///
/// Leaves room in a frame for the vouches and the heads that go with it.
pub const CHANGE_BYTES_MAX: usize = 768 << 10;

/// The most bytes of a signed [`Vouch`].
pub const VOUCH_BYTES_MAX: usize = 256;

/// The most bytes of a signed [`Tombstone`].
pub const TOMBSTONE_BYTES_MAX: usize = 64 << 10;

/// What a document is for: one lower-case word.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode)]
#[cbor(transparent)]
pub struct DocumentKind(#[n(0)] Cow<'static, str>);

impl DocumentKind {
    /// The ids of the singletons.
    pub const ROOT: Self = Self(Cow::Borrowed("root"));
    /// Agents, their versions, which device offers and has installed what.
    pub const REGISTRY: Self = Self(Cow::Borrowed("registry"));
    /// Aliases; policy bundles by hash.
    pub const SETTINGS: Self = Self(Cow::Borrowed("settings"));
    /// A note.
    pub const NOTE: Self = Self(Cow::Borrowed("note"));
    /// A timer set.
    pub const TIMER: Self = Self(Cow::Borrowed("timer"));
    /// The view of a run.
    pub const RUN: Self = Self(Cow::Borrowed("run"));

    /// Kinds of which a fabric has exactly one document.
    pub const SINGLETONS: [Self; 3] = [Self::ROOT, Self::REGISTRY, Self::SETTINGS];

    /// Kinds that the program itself knows: of these, a thousand documents need no word each.
    pub const KNOWN: [Self; 6] =
        [Self::ROOT, Self::REGISTRY, Self::SETTINGS, Self::NOTE, Self::TIMER, Self::RUN];

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a fabric has exactly one document of this kind.
    pub fn is_singleton(&self) -> bool {
        Self::SINGLETONS.contains(self)
    }
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The text is not one lower-case word.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("read {0:?} as a kind of document: expected 1 to 32 of a-z, 0-9 and hyphens")]
pub struct ParseKindError(String);

impl FromStr for DocumentKind {
    type Err = ParseKindError;

    fn from_str(text: &str) -> Result<Self, ParseKindError> {
        if let Some(known) = Self::KNOWN.into_iter().find(|kind| kind.0 == text) {
            return Ok(known);
        }
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(letter) {
            Ok(Self(Cow::Owned(text.to_owned())))
        } else {
            Err(ParseKindError(text.chars().take(80).collect()))
        }
    }
}

impl<'b, C> Decode<'b, C> for DocumentKind {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.str()?.parse().map_err(|_| decode::Error::message("a kind of document"))
    }
}

impl DocumentId {
    /// The id of the only document of `kind` in `fabric`, the same on each of its devices.
    pub fn singleton(fabric: &FabricId, kind: &DocumentKind) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("weft 2026 singleton document v1");
        hasher.update(fabric.as_bytes()).update(kind.as_str().as_bytes());
        Self::from_bytes(first_16(&hasher))
    }
}

/// Drawn at each start of a node and persisted before anything is sent, so that no start writes under
/// the actor id of another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct StartNonce(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 16],
);

impl ActorId {
    /// The author of the changes that `device` makes in the start that drew `start`: the first
    /// sixteen bytes of BLAKE3(device key ‖ start nonce).
    pub fn of(device: &DeviceId, start: &StartNonce) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(device.as_bytes()).update(&start.0);
        Self::from_bytes(first_16(&hasher))
    }
}

fn first_16(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// One epoch of a document: what indexes, messages and rows are about.
///
/// The order is that of [`DocumentKey::to_bytes`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(map)]
pub struct DocumentKey {
    /// Which document.
    #[n(0)]
    pub document: DocumentId,
    /// How often its history was rolled over; 0 so far for every document.
    #[n(1)]
    pub epoch: u32,
}

impl DocumentKey {
    /// The length of [`DocumentKey::to_bytes`].
    pub const LEN: usize = 20;

    /// The last key that there can be.
    pub const MAX: Self = Self { document: DocumentId::from_bytes([0xff; 16]), epoch: u32::MAX };

    /// The first epoch of `document`.
    pub const fn first(document: DocumentId) -> Self {
        Self { document, epoch: 0 }
    }

    /// Id, then epoch with its most significant byte first.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(self.document.as_bytes());
        bytes[16..].copy_from_slice(&self.epoch.to_be_bytes());
        bytes
    }

    /// The opposite of [`DocumentKey::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (document, epoch) = bytes.split_at_checked(16)?;
        Some(Self {
            document: DocumentId::from_bytes(document.try_into().ok()?),
            epoch: u32::from_be_bytes(epoch.try_into().ok()?),
        })
    }
}

/// A [`DocumentKey`] as bytes, where many are sent: 16 of them in the first epoch, otherwise 20.
pub mod packed_key {
    use minicbor::{
        Decoder, Encoder, decode::Error as DecodeError, encode::Error as EncodeError, encode::Write,
    };

    use super::{DocumentId, DocumentKey};

    /// Encodes the bytes.
    ///
    /// # Errors
    ///
    /// The writer's own.
    pub fn encode<C, W: Write>(
        key: &DocumentKey,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        let bytes = key.to_bytes();
        let len = if key.epoch == 0 { DocumentId::LEN } else { DocumentKey::LEN };
        e.bytes(&bytes[..len])?.ok()
    }

    /// Decodes them.
    ///
    /// # Errors
    ///
    /// Neither 16 bytes nor 20 of a later epoch.
    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<DocumentKey, DecodeError> {
        let bytes = d.bytes()?;
        let key = if let Ok(id) = bytes.try_into() {
            Some(DocumentKey::first(DocumentId::from_bytes(id)))
        } else {
            DocumentKey::from_bytes(bytes).filter(|key| key.epoch != 0)
        };
        key.ok_or_else(|| DecodeError::message("the key of a document"))
    }
}

/// The SHA-256 hash by which Automerge names a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ChangeHash(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

impl fmt::Debug for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ChangeHash({:02x}{:02x}{:02x}{:02x})",
            self.0[0], self.0[1], self.0[2], self.0[3]
        )
    }
}

/// That a device made changes: those of one actor among the ancestors of `hash`, and `hash` itself.
///
/// Signed under [`crate::signed::Domain::Vouch`]. Its author is `device`, or, after `device` was put out or
/// suspended or another key took its place, a device that *adopts* the changes, having applied them before it heard of
/// that. An adoption carries `own`, so that nobody puts words into the mouth of a device that is out. What
/// it can't show is when they were applied: a member that adopts what the device signed later does no more
/// than it could by writing the same in its own name.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Vouch {
    /// Which document.
    #[n(0)]
    pub key: DocumentKey,
    /// Whose start the actor is.
    #[n(1)]
    pub device: DeviceId,
    /// Which start; with `device` it gives the actor.
    #[n(2)]
    pub start: StartNonce,
    /// The number of the newest change among the actor's, from 1.
    #[n(3)]
    pub seq: u64,
    /// The newest change.
    #[n(4)]
    pub hash: ChangeHash,
    /// Of an adoption: the signature of `device` under the same without this field.
    #[n(5)]
    pub own: Option<ByteArray<64>>,
}

impl Vouch {
    /// Whose changes are vouched for.
    pub fn actor(&self) -> ActorId {
        ActorId::of(&self.device, &self.start)
    }

    /// Of an adoption: what `device` signed itself. Its signature is not checked by this.
    pub fn original(&self) -> Option<Signed> {
        let signature = **self.own.as_ref()?;
        let bytes = codec::encode(&Self { own: None, ..self.clone() });
        Some(Signed { bytes, author: self.device, signature })
    }

    /// The same as an adoption of what `signed` says, which is this vouch: with the signature of `device`,
    /// where the two are enough to tell what it signed.
    #[must_use]
    pub fn adopted(&self, signed: &Signed) -> Self {
        let own = (signed.author == self.device).then(|| ByteArray::from(signed.signature));
        let adopted = Self { own: own.or(self.own), ..self.clone() };
        let is_told = signed.author != self.device
            || adopted.original().is_some_and(|original| original == *signed);
        if is_told { adopted } else { Self { own: None, ..adopted } }
    }
}

/// How many changes of each actor there are. Ordered, each actor once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct Clock(#[n(0)] pub std::collections::BTreeMap<ActorId, u64>);

impl Clock {
    /// Whether every change counted by `other` is counted here.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(actor, seq)| self.0.get(actor).is_some_and(|own| own >= seq))
    }

    /// Counts what either counts.
    pub fn join(&mut self, other: &Self) {
        for (actor, seq) in &other.0 {
            let own = self.0.entry(*actor).or_default();
            *own = (*own).max(*seq);
        }
    }
}

/// The deletion of a document, signed under [`crate::signed::Domain::Tombstone`].
///
/// It buries the changes that its author had. A change that is not among them was made by somebody
/// who did not know of the deletion, and brings the document back.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Tombstone {
    /// Which document.
    #[n(0)]
    pub key: DocumentKey,
    /// What it was.
    #[n(1)]
    pub kind: DocumentKind,
    /// Which changes are buried.
    #[n(2)]
    pub buried: Clock,
    /// When, by the author's wall clock.
    #[n(3)]
    pub time: WallTime,
}

/// What the index says of a document. Two devices hold the same of it exactly if this is equal.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct IndexState {
    /// The newest changes, ordered; none if it is deleted.
    #[n(0)]
    pub heads: Vec<ChangeHash>,
    /// The changes that tombstones bury; empty if there was never one.
    #[n(1)]
    pub buried: Clock,
}

impl IndexState {
    /// The BLAKE3 hash that is compared.
    pub fn digest(&self) -> Digest {
        Digest::of(&codec::encode(self))
    }

    /// Whether nothing is left of the document but tombstones.
    pub fn is_deleted(&self) -> bool {
        self.heads.is_empty()
    }

    /// Whether somebody deleted it while somebody else wrote to it.
    pub fn is_revived(&self) -> bool {
        !self.heads.is_empty() && !self.buried.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::signed::Domain;

    #[test]
    fn an_adoption_carries_what_the_device_signed_and_fits() {
        let (phone, laptop) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let device = DeviceId::from_bytes(phone.verifying_key().to_bytes());
        let vouch = Vouch {
            key: DocumentKey { document: DocumentId::from_bytes([3; 16]), epoch: u32::MAX },
            device,
            start: StartNonce([4; 16]),
            seq: u64::MAX,
            hash: ChangeHash([5; 32]),
            own: None,
        };
        let signed = Signed::new(Domain::Vouch, &vouch, &phone);
        assert_eq!(vouch.original(), None);
        let adopted = vouch.adopted(&signed);
        assert_eq!(adopted.original().as_ref(), Some(&signed));
        let adoption = Signed::new(Domain::Vouch, &adopted, &laptop);
        assert!(adoption.bytes.len() <= VOUCH_BYTES_MAX, "{} bytes", adoption.bytes.len());
        let opened: Vouch = adoption.open(Domain::Vouch, VOUCH_BYTES_MAX).unwrap();
        assert_eq!(opened, adopted);
        // One that is adopted in turn shows the same; what a later version signed can't be told.
        assert_eq!(opened.adopted(&adoption), adopted);
        let later = Signed { bytes: [signed.bytes.as_slice(), &[0]].concat(), ..signed };
        assert_eq!(vouch.adopted(&later).own, None);
    }

    #[test]
    fn kinds_are_words() {
        assert_eq!("note".parse::<DocumentKind>(), Ok(DocumentKind::NOTE));
        assert_eq!(
            "recipe".parse::<DocumentKind>().map(|kind| kind.to_string()),
            Ok("recipe".into())
        );
        for text in ["", "Note", "a b", &"x".repeat(33)] {
            assert!(text.parse::<DocumentKind>().is_err(), "{text}");
        }
        assert!(codec::decode::<DocumentKind>(&codec::encode(&"No"), 16).is_err());
    }

    #[test]
    fn keys_order_as_their_bytes() {
        let key = |byte, epoch| DocumentKey { document: DocumentId::from_bytes([byte; 16]), epoch };
        let keys = [key(0, 0), key(0, 1), key(0, 256), key(1, 0), key(255, u32::MAX)];
        for pair in keys.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes());
        }
        assert_eq!(DocumentKey::from_bytes(&keys[2].to_bytes()), Some(keys[2]));
        assert_eq!(DocumentKey::from_bytes(&[0; 19]), None);
    }

    #[test]
    fn singletons_differ_by_fabric_and_name() {
        let (one, other) = (FabricId::from_bytes([1; 32]), FabricId::from_bytes([2; 32]));
        let id = DocumentId::singleton(&one, &DocumentKind::REGISTRY);
        assert_eq!(id, DocumentId::singleton(&one, &"registry".parse().unwrap()));
        assert_ne!(id, DocumentId::singleton(&one, &DocumentKind::SETTINGS));
        assert_ne!(id, DocumentId::singleton(&other, &DocumentKind::REGISTRY));
    }

    #[test]
    fn clocks_cover_and_join() {
        let actor = |byte| ActorId::from_bytes([byte; 16]);
        let mut one = Clock([(actor(1), 3)].into());
        let other = Clock([(actor(1), 2), (actor(2), 1)].into());
        assert!(!one.covers(&other) && one.covers(&Clock::default()));
        one.join(&other);
        assert!(one.covers(&other));
        assert_eq!(one, Clock([(actor(1), 3), (actor(2), 1)].into()));
    }
}

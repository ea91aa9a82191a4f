//! What nodes say about documents on `/weft/sync/1`.
//!
//! ```text
//! A                                     B
//! | Ranges[all: Fingerprint]            |   A has the smaller device id
//! |------------------------------------>|
//! |        Ranges[Same, Fingerprint, …] |   equal: done. Otherwise narrower ranges, until few
//! |<------------------------------------|   entries are left in each
//! | Ranges[Entries]                     |
//! |------------------------------------>|
//! |    Ranges[Differ], Documents[…]     |   whoever reads a list starts on those that differ
//! |<------------------------------------|
//! | Documents[changes, vouches]         |   Automerge's sync protocol, for each document
//! |<----------------------------------->|
//! | Ranges[all: Check]                  |   when a side has nothing left to do
//! |<----------------------------------->|
//! ```
//!
//! After that, whoever has something new says so unasked, in one message.

use minicbor::{Decode, Encode};

use crate::{
    codec::{self, DecodeError},
    document::{ChangeHash, DocumentKey, DocumentKind},
    frame::FRAME_BYTES_MAX,
    id::Digest,
    signed::Signed,
};

/// The most bytes that a document's parts may add up to, inflated, before they are applied.
pub const ASSEMBLED_BYTES_MAX: usize = 16 << 20;

/// How many bytes of documents are put into one message; one document may exceed it, a frame never.
pub const MESSAGE_BYTES_GOAL: usize = 192 << 10;

/// A message of this protocol.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum SyncMessage {
    /// What the index says about ranges of documents. Each answers a range that the other sent, or
    /// a part of it.
    #[n(0)]
    Ranges(#[n(0)] Vec<Range>),
    /// Messages of Automerge's sync protocol.
    #[n(1)]
    Documents(#[n(0)] Vec<DocumentMessage>),
    /// What was deleted.
    #[n(2)]
    Tombstones {
        /// Signed [`crate::document::Tombstone`]s.
        #[n(0)]
        tombstones: Vec<Signed>,
        /// Of these documents the sender has nothing left.
        #[n(1)]
        gone: Vec<DocumentKey>,
    },
    /// Documents on which the sender has nothing more to say in this session until one of their
    /// copies changes, though they differ: changes are parked, or its copy is set aside.
    #[n(3)]
    Rest(#[n(0)] Vec<DocumentKey>),
}

impl SyncMessage {
    /// The bytes of a frame.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    ///
    /// Longer than a frame, or not a message.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, FRAME_BYTES_MAX)
    }
}

/// A bound of a range: any first bytes of a [`DocumentKey`]. Empty means the start as a lower bound
/// and the end as an upper one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct KeyPrefix(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub Vec<u8>,
);

/// What a node has of the documents from one key to another.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Range {
    /// The first key.
    #[n(0)]
    pub from: KeyPrefix,
    /// The key behind the last.
    #[n(1)]
    pub to: KeyPrefix,
    /// What it has.
    #[n(2)]
    pub summary: Summary,
}

/// What a node has of a range.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum Summary {
    /// Asks: entries that add up to this.
    #[n(0)]
    Fingerprint(#[n(0)] Fingerprint),
    /// Answers: the same as the other.
    #[n(1)]
    Same,
    /// Answers and asks: exactly these.
    #[n(2)]
    Entries(#[n(0)] Vec<IndexEntry>),
    /// Answers: of those on either list, these differ.
    #[n(3)]
    Differ(#[n(0)] Vec<DocumentKey>),
    /// Tells: entries that add up to this, and nothing left to do. Answered by nothing.
    #[n(4)]
    Check(#[n(0)] Fingerprint),
}

/// What entries add up to: the first 16 bytes of BLAKE3(sum modulo 2^256 of the BLAKE3 hashes of all
/// (key ‖ state digest) ‖ count), as in negentropy's range-based set reconciliation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct Fingerprint(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 16],
);

/// One document of an index.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct IndexEntry {
    /// Which.
    #[n(0)]
    pub key: DocumentKey,
    /// What it is.
    #[n(1)]
    pub kind: DocumentKind,
    /// The first 16 bytes of [`crate::document::IndexState::digest`].
    #[n(2)]
    pub state: Fingerprint,
}

impl From<Digest> for Fingerprint {
    fn from(digest: Digest) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_bytes()[..16]);
        Self(bytes)
    }
}

/// A message of Automerge's sync protocol about one document, or a part of one.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct DocumentMessage {
    /// Which document.
    #[n(0)]
    pub key: DocumentKey,
    /// What it is, so that the receiver can begin with the same skeleton.
    #[n(1)]
    pub kind: DocumentKind,
    /// Changes that the receiver may lack.
    #[n(2)]
    pub changes: Vec<Chunk>,
    /// Signed [`crate::document::Vouch`]es for them.
    #[n(3)]
    pub vouches: Vec<Signed>,
    /// What the sender has and wants; not there while more parts follow.
    #[n(4)]
    pub advance: Option<Advance>,
}

/// A change as Automerge writes it: a change chunk, deflated or not.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct Chunk(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub Vec<u8>,
);

/// What the sender has and wants.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Advance {
    /// Its newest changes.
    #[n(0)]
    pub heads: Vec<ChangeHash>,
    /// Changes that it asks for by hash.
    #[n(1)]
    pub need: Vec<ChangeHash>,
    /// A summary of what it has, by which the receiver knows what it lacks.
    #[n(2)]
    pub have: Option<Have>,
    /// Whether the sender has not heard from the receiver about this document and waits for it.
    #[n(3)]
    pub asks: bool,
}

/// A summary of changes.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Have {
    /// Changes that both had when they last met.
    #[n(0)]
    pub last_sync: Vec<ChangeHash>,
    /// A Bloom filter of the changes since then, as Automerge writes it.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub bloom: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::DocumentId;

    fn message() -> SyncMessage {
        let key = DocumentKey::first(DocumentId::from_bytes([1; 16]));
        SyncMessage::Documents(vec![DocumentMessage {
            key,
            kind: DocumentKind::NOTE,
            changes: vec![Chunk(vec![1, 2, 3])],
            vouches: vec![],
            advance: Some(Advance {
                heads: vec![ChangeHash([3; 32])],
                need: vec![],
                have: Some(Have { last_sync: vec![], bloom: vec![9; 4] }),
                asks: true,
            }),
        }])
    }

    #[test]
    fn round_trips() {
        assert_eq!(SyncMessage::decode(&message().encode()), Ok(message()));
        let range = |summary| Range { from: KeyPrefix(vec![]), to: KeyPrefix(vec![8]), summary };
        let ranges = SyncMessage::Ranges(vec![
            range(Summary::Same),
            range(Summary::Check(Fingerprint([4; 16]))),
        ]);
        assert_eq!(SyncMessage::decode(&ranges.encode()), Ok(ranges));
    }

    proptest! {
        #[test]
        fn survives_arbitrary_bytes(bytes: Vec<u8>) {
            drop(SyncMessage::decode(&bytes));
        }

        #[test]
        fn survives_mutated_messages(at: prop::sample::Index, byte: u8) {
            let mut bytes = message().encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            drop(SyncMessage::decode(&bytes));
        }
    }
}

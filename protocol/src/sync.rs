//! What nodes say about documents on `/weft/sync/1`.
//!
//! ```text
//! A                                     B
//! | Ranges[all: Fingerprint]            |   A has the smaller device id
//! |------------------------------------>|
//! |        Ranges[Same, Fingerprint, …] |   equal: done. Otherwise narrower ranges, until few
//! |<------------------------------------|   entries are left in each
//! | Ranges[Entries]                     |   hashes, without keys
//! |------------------------------------>|
//! |              Ranges[Differ[heads]…] |   B's of these, with their heads, and which of A's it
//! |<------------------------------------|   does not know
//! | Documents[changes, vouches]         |   what B lacks, where A has all that B has; A's heads
//! |------------------------------------>|   where it has not
//! |    Documents[changes, vouches] Took |   what A lacks; if neither has all of the other's, both
//! |<------------------------------------|   go on with Automerge's sync protocol
//! | Took                                |
//! |------------------------------------>|
//! | Ranges[all: Check]                  |   when a side has nothing left to do
//! |<----------------------------------->|
//! ```
//!
//! After that, whoever has something new says so unasked, in one message. When nothing is being compared
//! either side may ask about everything anew; of two such questions that of the smaller id counts.

use minicbor::{Decode, Decoder, Encode, decode};

use crate::{
    codec::{self, DecodeError},
    document::{ChangeHash, DocumentKey, DocumentKind, IndexState, StartNonce, Vouch, packed_key},
    frame::FRAME_BYTES_MAX,
    id::{DeviceId, Digest},
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
    Ranges(
        #[n(0)]
        #[cbor(with = "chained")]
        Vec<Range>,
    ),
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
    /// Documents of which the sender has now what the receiver told it last, each by its
    /// [`IndexState::stub`].
    #[n(4)]
    Took(
        #[n(0)]
        #[cbor(with = "packed")]
        Vec<Stub>,
    ),
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Encode)]
#[cbor(transparent)]
pub struct KeyPrefix(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub Vec<u8>,
);

/// No longer than a key: a node keeps the bounds of what it asks.
impl<'b, C> Decode<'b, C> for KeyPrefix {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let position = d.position();
        let bytes = d.bytes()?;
        if bytes.len() > DocumentKey::LEN {
            return Err(decode::Error::message("a bound longer than a key").at(position));
        }
        Ok(Self(bytes.to_vec()))
    }
}

/// What a node has of the documents from one key to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first key.
    pub from: KeyPrefix,
    /// The key behind the last.
    pub to: KeyPrefix,
    /// What it has.
    pub summary: Summary,
}

/// Ranges, of which most begin where the one before ends and ask: `[to, summary]`, or
/// `[to, summary, from]`, where bytes are a fingerprint.
mod chained {
    use minicbor::{
        Decode as _, Decoder, Encode as _, Encoder, data::Type, decode::Error as DecodeError,
        encode::Error as EncodeError, encode::Write,
    };

    use super::{KeyPrefix, Range, Stub, Summary};

    pub(super) fn encode<C, W: Write>(
        ranges: &Vec<Range>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        let start = KeyPrefix::default();
        let mut last = &start;
        e.array(ranges.len() as u64)?;
        for range in ranges {
            let follows = range.from == *last;
            e.array(if follows { 2 } else { 3 })?;
            range.to.encode(e, ctx)?;
            match &range.summary {
                Summary::Fingerprint(stub) => stub.encode(e, ctx)?,
                Summary::Same
                | Summary::Entries(_)
                | Summary::Differ { .. }
                | Summary::Check(_) => range.summary.encode(e, ctx)?,
            }
            if !follows {
                range.from.encode(e, ctx)?;
            }
            last = &range.to;
        }
        Ok(())
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Vec<Range>, DecodeError> {
        let indefinite = || DecodeError::message("an indefinite length");
        let mut ranges: Vec<Range> = Vec::new();
        for _ in 0..d.array()?.ok_or_else(indefinite)? {
            let len = d.array()?.ok_or_else(indefinite)?;
            let to = KeyPrefix::decode(d, ctx)?;
            let summary = if d.datatype()? == Type::Bytes {
                Summary::Fingerprint(Stub::decode(d, ctx)?)
            } else {
                Summary::decode(d, ctx)?
            };
            let last = ranges.last().map(|range| range.to.clone()).unwrap_or_default();
            let from = if len > 2 { KeyPrefix::decode(d, ctx)? } else { last };
            for _ in 3..len {
                d.skip()?;
            }
            ranges.push(Range { from, to, summary });
        }
        Ok(ranges)
    }
}

/// What a node has of a range.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(flat)]
pub enum Summary {
    /// Asks: entries that add up to this.
    #[n(0)]
    Fingerprint(#[n(0)] Stub),
    /// Answers: the same as the other.
    #[n(1)]
    Same,
    /// Answers and asks: exactly these, in any order.
    #[n(2)]
    Entries(
        #[n(0)]
        #[cbor(with = "packed")]
        Vec<Stub>,
    ),
    /// Answers [`Summary::Entries`].
    #[n(3)]
    Differ {
        /// The sender's entries that are not on the list.
        #[n(0)]
        entries: Vec<IndexEntry>,
        /// Those on the list that the sender has not.
        #[n(1)]
        #[cbor(with = "packed")]
        lacking: Vec<Stub>,
    },
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

impl Fingerprint {
    /// Enough of it for a question.
    pub fn stub(&self) -> Stub {
        Stub::of(&self.0)
    }
}

/// The first 8 bytes of a hash.
///
/// Two states of a document that share it are taken for one until the document changes again; the next
/// [`Summary::Check`] tells that something differs, not what. By accident that does not happen. On
/// purpose it takes a device that may write the document, and keeps nothing but its own change back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct Stub(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 8],
);

impl Stub {
    /// Of at least 8 bytes of a hash.
    ///
    /// # Panics
    ///
    /// Fewer.
    pub fn of(hash: &[u8]) -> Self {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash[..8]);
        Self(bytes)
    }
}

/// Stubs, one behind the other.
mod packed {
    use minicbor::{
        Decoder, Encoder, decode::Error as DecodeError, encode::Error as EncodeError, encode::Write,
    };

    use super::Stub;

    pub(super) fn encode<C, W: Write>(
        stubs: &[Stub],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(&stubs.iter().flat_map(|stub| stub.0).collect::<Vec<_>>())?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<Stub>, DecodeError> {
        let (stubs, rest) = d.bytes()?.as_chunks();
        if !rest.is_empty() {
            return Err(DecodeError::message("a part of a hash"));
        }
        Ok(stubs.iter().copied().map(Stub).collect())
    }
}

/// One document of an index.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct IndexEntry {
    /// Which.
    #[n(0)]
    #[cbor(with = "packed_key")]
    pub key: DocumentKey,
    /// What it is.
    #[n(1)]
    pub kind: DocumentKind,
    /// Its newest changes, ordered; none if it is deleted. Not there if they are many.
    #[n(2)]
    pub heads: Option<Vec<ChangeHash>>,
}

impl IndexState {
    /// What names a document with its heads or, if it is deleted, with what is buried.
    pub fn stub(&self, key: &DocumentKey) -> Stub {
        let told = if self.is_deleted() {
            codec::encode(&self.buried)
        } else {
            codec::encode(&self.heads)
        };
        Stub::of(Digest::of(&[key.to_bytes().as_slice(), &told].concat()).as_bytes())
    }
}

/// A message about one document, or a part of one: changes, and a message of Automerge's sync protocol.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct DocumentMessage {
    /// Which document.
    #[n(0)]
    #[cbor(with = "packed_key")]
    pub key: DocumentKey,
    /// What it is, so that the receiver can begin with the same skeleton.
    #[n(1)]
    pub kind: DocumentKind,
    /// Changes that the receiver may lack.
    #[n(2)]
    pub changes: Vec<Chunk>,
    /// Vouches for them.
    #[n(3)]
    pub vouches: Vec<SentVouch>,
    /// What the sender has and wants; not there while more parts follow.
    #[n(4)]
    pub advance: Option<Advance>,
}

/// A signed [`Vouch`] without what the receiver can tell from the changes that come with it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(flat)]
pub enum SentVouch {
    /// All of it.
    #[n(0)]
    Whole(#[n(0)] Signed),
    /// By the device that made the changes, for the newest of them in this message by its number.
    #[n(1)]
    Newest {
        /// The device.
        #[n(0)]
        device: DeviceId,
        /// Its start.
        #[n(1)]
        start: StartNonce,
        /// Its signature.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        signature: [u8; 64],
    },
    /// The same, where device and start are those of an earlier [`SentVouch::Newest`] of this frame.
    #[n(2)]
    Again {
        /// Which of those, from 0.
        #[n(0)]
        start: u32,
        /// The signature.
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        signature: [u8; 64],
    },
}

impl SentVouch {
    /// The shortest form for a vouch that is sent with changes of which `newest` is its actor's last.
    pub fn new(vouch: &Vouch, signed: &Signed, newest: Option<(u64, ChangeHash)>) -> Self {
        let short = vouch.device == signed.author
            && newest == Some((vouch.seq, vouch.hash))
            && codec::encode(vouch) == signed.bytes;
        if short {
            let (device, start, signature) = (vouch.device, vouch.start, signed.signature);
            Self::Newest { device, start, signature }
        } else {
            Self::Whole(signed.clone())
        }
    }

    /// Names a start by its number if it is among those that this frame named already.
    pub fn shorten(&mut self, starts: &mut Vec<(DeviceId, StartNonce)>) {
        if let Self::Newest { device, start, signature } = self {
            let named = (*device, *start);
            match starts.iter().position(|start| *start == named).map(u32::try_from) {
                Some(Ok(start)) => *self = Self::Again { start, signature: *signature },
                Some(Err(_)) | None => starts.push(named),
            }
        }
    }

    /// The opposite of [`SentVouch::shorten`]. None if there is no such start.
    #[must_use]
    pub fn lengthen(self, starts: &mut Vec<(DeviceId, StartNonce)>) -> Option<Self> {
        match &self {
            Self::Whole(_) => {}
            Self::Newest { device, start, .. } => starts.push((*device, *start)),
            Self::Again { start, signature } => {
                let (device, start) = *starts.get(usize::try_from(*start).ok()?)?;
                return Some(Self::Newest { device, start, signature: *signature });
            }
        }
        Some(self)
    }
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
#[cbor(array)]
pub struct Advance {
    /// Whether the sender has not heard from the receiver about this document and waits for it.
    #[n(0)]
    pub asks: bool,
    /// Changes that it asks for by hash.
    #[n(1)]
    pub need: Vec<ChangeHash>,
    /// Its newest changes. Not there: those of the changes in this message on which no other depends.
    #[n(2)]
    pub heads: Option<Vec<ChangeHash>>,
    /// A summary of what it has, by which a receiver that does not know its heads knows what it lacks.
    #[n(3)]
    pub have: Option<Have>,
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
            vouches: vec![
                SentVouch::Newest {
                    device: DeviceId::from_bytes([5; 32]),
                    start: StartNonce([6; 16]),
                    signature: [7; 64],
                },
                SentVouch::Again { start: 0, signature: [8; 64] },
            ],
            advance: Some(Advance {
                asks: true,
                need: vec![],
                heads: Some(vec![ChangeHash([3; 32])]),
                have: Some(Have { last_sync: vec![], bloom: vec![9; 4] }),
            }),
        }])
    }

    #[test]
    fn round_trips() {
        assert_eq!(SyncMessage::decode(&message().encode()), Ok(message()));
        let range = |from: &[u8], to: &[u8], summary| Range {
            from: KeyPrefix(from.to_vec()),
            to: KeyPrefix(to.to_vec()),
            summary,
        };
        let entry = IndexEntry {
            key: DocumentKey { document: DocumentId::from_bytes([2; 16]), epoch: 3 },
            kind: DocumentKind::NOTE,
            heads: None,
        };
        let ranges = SyncMessage::Ranges(vec![
            range(&[], &[8], Summary::Same),
            range(&[8], &[9], Summary::Fingerprint(Stub([4; 8]))),
            range(&[9, 1], &[9, 2], Summary::Entries(vec![Stub([4; 8])])),
            range(&[9, 2], &[], Summary::Differ { entries: vec![entry], lacking: vec![] }),
            range(&[], &[], Summary::Check(Fingerprint([4; 16]))),
        ]);
        assert_eq!(SyncMessage::decode(&ranges.encode()), Ok(ranges));
    }

    #[test]
    fn a_part_of_a_range_takes_thirteen_bytes() {
        let range = |at: u8| Range {
            from: KeyPrefix(vec![at, 0]),
            to: KeyPrefix(vec![at + 1, 0]),
            summary: Summary::Fingerprint(Stub([4; 8])),
        };
        let ranges = |count| SyncMessage::Ranges((0..count).map(range).collect()).encode().len();
        assert_eq!(ranges(20) - ranges(10), 130);
    }

    #[test]
    fn a_bound_is_no_longer_than_a_key() {
        let range = |len| Range {
            from: KeyPrefix::default(),
            to: KeyPrefix(vec![1; len]),
            summary: Summary::Same,
        };
        let decoded = |len| SyncMessage::decode(&SyncMessage::Ranges(vec![range(len)]).encode());
        assert_eq!(decoded(DocumentKey::LEN), Ok(SyncMessage::Ranges(vec![range(20)])));
        assert!(decoded(DocumentKey::LEN + 1).is_err());
    }

    #[test]
    fn starts_are_named_once() {
        let vouch = |start| SentVouch::Newest {
            device: DeviceId::from_bytes([5; 32]),
            start: StartNonce([start; 16]),
            signature: [start; 64],
        };
        let long = [vouch(1), vouch(2), vouch(1), vouch(2)];
        let mut starts = Vec::new();
        let short = long.clone().map(|mut vouch| {
            vouch.shorten(&mut starts);
            vouch
        });
        assert!(matches!(short[3], SentVouch::Again { start: 1, .. }));
        let mut starts = Vec::new();
        assert_eq!(short.map(|vouch| vouch.lengthen(&mut starts)), long.map(Some));
        let stray = SentVouch::Again { start: 9, signature: [0; 64] };
        assert_eq!(stray.lengthen(&mut starts), None);
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

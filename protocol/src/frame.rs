//! Frames: how messages follow each other on a stream.
//!
//! A frame is a length of four bytes, most significant first, and that many bytes, which are one
//! deterministic CBOR item. Each stream opens with a [`Hello`] from both sides.

use minicbor::{Decode, Encode};

use crate::{device::word_enum, id::BootId};

/// The most bytes of one frame; larger things travel as blobs.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// The most bytes of statements that one peer may send on `/weft/trust/1` before it is known to
/// belong.
pub const STRANGER_BYTES_MAX: usize = 64 << 10;

/// The most bytes of ids with which such a peer may name the statements that it holds: room for
/// those of 64 devices that all said as much as they may.
pub const STRANGER_IDS_BYTES_MAX: usize = 256 << 10;

word_enum! {
    /// A protocol of the main swarm.
    Protocol, "trust, presence, sync, run, blob, llm, audit" {
        /// Who belongs. Comes before any other stream.
        0 Trust = "trust",
        /// Who is here.
        1 Presence = "presence",
        /// Documents.
        2 Sync = "sync",
        /// Steps of runs.
        3 Run = "run",
        /// Bytes by hash.
        4 Blob = "blob",
        /// Streams of a model.
        5 Llm = "llm",
        /// Heads and records of audit chains.
        6 Audit = "audit",
    }
}

impl Protocol {
    /// Those that are spoken now.
    pub const SPOKEN: [Self; 5] = [Self::Trust, Self::Presence, Self::Sync, Self::Run, Self::Audit];

    /// The libp2p protocol name.
    pub fn name(self) -> String {
        format!("/weft/{}/1", self.word())
    }
}

/// The first frame on every stream, from both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Which start of the node speaks.
    #[n(0)]
    pub boot: BootId,
}

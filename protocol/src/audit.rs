//! Audit records: what each device did or refused, chained and signed.
//!
//! Each record names the digest of the one before it, so that a change, a gap or a swap shows. An
//! intent stands before the effect, an outcome after it; neither is ever changed. Each start of a
//! node opens a segment that names the head before it. Each record is signed; a checkpoint's signature
//! also covers those of the records since the one before it in its segment, so that a long chain is
//! checked by hashes and one signature in a hundred.

use std::time::Duration;

use minicbor::{Decode, Decoder, Encode};

use crate::{
    decision::{Decision, Point},
    device::word_enum,
    graph::StepId,
    id::{BootId, DeviceId, Digest, RunId, SegmentId, StatementId},
    manifest::CapabilityName,
    signed::Signed,
    time::WallTime,
};

/// The most bytes of one record.
pub const RECORD_BYTES_MAX: usize = 4 << 10;

/// A checkpoint follows after so many records at the latest.
pub const CHECKPOINT_RECORDS: u64 = 100;

/// A checkpoint follows after so long at the latest, where there is a record for it to cover.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

/// The newest record of a chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// Whose chain.
    #[n(0)]
    pub device: DeviceId,
    /// Which start of it.
    #[n(1)]
    pub segment: SegmentId,
    /// The position in the whole chain, from 0.
    #[n(2)]
    pub position: u64,
    /// The record.
    #[n(3)]
    pub digest: Digest,
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Record {
    /// Which start of the node wrote it.
    #[n(0)]
    pub segment: SegmentId,
    /// Its place within the segment, from 0.
    #[n(1)]
    pub sequence: u64,
    /// Its place in the whole chain, from 0.
    #[n(2)]
    pub position: u64,
    /// The record before it, of this or the last segment.
    #[n(3)]
    pub previous: Option<Digest>,
    /// The writer's wall clock.
    #[n(4)]
    pub time: WallTime,
    /// What it says.
    #[n(5)]
    pub body: Body,
}

word_enum! {
    /// How a step ended, as the chain keeps it.
    Ending, "done, failed, denied, cancelled, uncertain" {
        /// It gave a value.
        0 Done = "done",
        /// It was tried and did not work.
        1 Failed = "failed",
        /// It was refused at the second decision.
        2 Denied = "denied",
        /// It was stopped.
        3 Cancelled = "cancelled",
        /// Its effect may have happened and may not.
        4 Uncertain = "uncertain",
    }
}

/// What was read and written while a step ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Touched {
    /// How many documents.
    #[n(0)]
    pub count: u64,
    /// The running hash over their ids, in order.
    #[n(1)]
    pub hash: Digest,
}

impl Touched {
    /// Nothing yet.
    pub const NONE: Self = Self { count: 0, hash: Digest::from_bytes([0; 32]) };

    /// Adds one document, or whatever its id stands for.
    pub fn add(&mut self, id: &[u8]) {
        let bytes = [self.hash.as_bytes().as_slice(), id].concat();
        *self = Self { count: self.count + 1, hash: Digest::of(&bytes) };
    }
}

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum Body {
    /// The node started.
    #[n(0)]
    Segment {
        /// Which start.
        #[n(0)]
        boot: BootId,
        /// A head of this chain that another device had countersigned and this disk does not hold: it
        /// was set back. Where that head is ahead, this record stands right behind it, and those
        /// between are missing.
        #[n(1)]
        recovered: Option<Head>,
        /// In the first record of a key that took another's place: the end of that key's chain.
        #[n(2)]
        former: Option<Head>,
    },
    /// Something is about to be done, or was refused.
    #[n(1)]
    Intent {
        /// As owner, as executor, or for a call.
        #[n(0)]
        point: Point,
        /// The run.
        #[n(1)]
        run: RunId,
        /// The step.
        #[n(2)]
        step: StepId,
        /// The other side: the executor where this device asks, else the device that asks.
        #[n(3)]
        device: DeviceId,
        /// The agent.
        #[n(4)]
        agent: Digest,
        /// What.
        #[n(5)]
        capability: CapabilityName,
        /// The canonical arguments, hashed under the fabric's addressing key.
        #[n(6)]
        input: Digest,
        /// What the rules said.
        #[n(7)]
        decision: Decision,
        /// Which rules.
        #[n(8)]
        policy: Digest,
        /// Whose run it is.
        #[n(9)]
        owner: DeviceId,
    },
    /// How it ended.
    #[n(2)]
    Outcome {
        /// The position of its intent.
        #[n(0)]
        intent: u64,
        /// How.
        #[n(1)]
        ending: Ending,
        /// The output, hashed under the fabric's addressing key.
        #[n(2)]
        output: Option<Digest>,
        /// Documents read.
        #[n(3)]
        reads: Touched,
        /// Documents written.
        #[n(4)]
        writes: Touched,
    },
    /// All before this is bound by one signature.
    #[n(3)]
    Checkpoint {
        /// The hash of the signatures of the records since the last checkpoint of this segment.
        #[n(0)]
        signatures: Digest,
    },
    /// A statement of the trust graph was learned or made.
    #[n(4)]
    Trust {
        /// Which.
        #[n(0)]
        statement: StatementId,
        /// What it said, as a sentence with the names of then; none in records of older programs.
        #[n(1)]
        said: Option<String>,
    },
    /// A person did something that no run covers.
    #[n(5)]
    Operator {
        /// What, in a word or two, without content.
        #[n(0)]
        action: String,
    },
    /// Strangers were turned away in the last minute.
    #[n(6)]
    Strangers {
        /// How many.
        #[n(0)]
        count: u64,
    },
    /// What was to stand here was more than a disk takes: nothing that belonged to it was written.
    #[n(7)]
    Withdrawn,
    /// Offers of one device were denied in the last minute beyond those that have a record each.
    #[n(8)]
    Denials {
        /// Whose.
        #[n(0)]
        device: DeviceId,
        /// How many.
        #[n(1)]
        count: u64,
    },
}

/// What of a [`Body`] decides how a chain goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyKind {
    /// It begins a segment.
    Segment,
    /// It covers the signatures before it.
    Checkpoint,
    /// Anything else, also what a later release adds.
    Other,
}

/// What chains a record to the one before it, read without the rest of it.
///
/// It decodes from the bytes of a [`Record`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Decode)]
#[cbor(map)]
pub struct Link {
    /// Which start of the node wrote it.
    #[n(0)]
    pub segment: SegmentId,
    /// Its place within the segment, from 0.
    #[n(1)]
    pub sequence: u64,
    /// Its place in the whole chain, from 0.
    #[n(2)]
    pub position: u64,
    /// The record before it.
    #[n(3)]
    pub previous: Option<Digest>,
    /// What kind of thing it says.
    #[n(5)]
    #[cbor(decode_with = "body_kind")]
    pub kind: BodyKind,
}

/// Reads the number of a [`Body`]'s variant and passes over its fields.
fn body_kind<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<BodyKind, minicbor::decode::Error> {
    d.array()?;
    let kind = match d.u32()? {
        0 => BodyKind::Segment,
        3 => BodyKind::Checkpoint,
        _ => BodyKind::Other,
    };
    d.skip()?;
    Ok(kind)
}

/// A message of `/weft/audit/1`.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum AuditMessage {
    /// My newest head that is on disk: a [`SignedHead`](crate::witness::SignedHead).
    #[n(0)]
    Head(#[n(0)] Signed),
    /// Your head, countersigned by me: a [`Witness`](crate::witness::Witness).
    #[n(1)]
    Witness(#[n(0)] Signed),
    /// Send me records of that device from that position on.
    #[n(2)]
    Want {
        /// Whose.
        #[n(0)]
        device: DeviceId,
        /// From where.
        #[n(1)]
        position: u64,
    },
    /// Records, in order.
    #[n(3)]
    Records {
        /// Whose.
        #[n(0)]
        device: DeviceId,
        /// The position of the first.
        #[n(1)]
        position: u64,
        /// Each a signed [`Record`].
        #[n(2)]
        records: Vec<Signed>,
    },
    /// Two heads that show a chain to be forked: a [`Fork`](crate::witness::Fork).
    #[n(4)]
    Fork(#[n(0)] Signed, #[n(1)] Signed),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn a_link_is_read_from_every_kind_of_record() {
        let bodies = [
            (
                Body::Segment {
                    boot: BootId { counter: 1, random: 2 },
                    recovered: None,
                    former: None,
                },
                BodyKind::Segment,
            ),
            (Body::Checkpoint { signatures: Digest::of(b"") }, BodyKind::Checkpoint),
            (Body::Operator { action: "device revoke".into() }, BodyKind::Other),
            (Body::Withdrawn, BodyKind::Other),
        ];
        for (body, kind) in bodies {
            let record = Record {
                segment: SegmentId::from_bytes([1; 16]),
                sequence: 2,
                position: 3,
                previous: Some(Digest::of(b"before")),
                time: WallTime::from_unix_millis(-4),
                body,
            };
            let Record { segment, sequence, position, previous, .. } = record;
            let link = codec::decode(&codec::encode(&record), RECORD_BYTES_MAX);
            assert_eq!(link, Ok(Link { segment, sequence, position, previous, kind }));
        }
    }
}

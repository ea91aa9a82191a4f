//! The audit chain of this device: appending records, and checking them.
//!
//! [`Chain`] makes the writes of a record; whoever decides an effect puts them into the same batch as
//! the journal's, so that record and effect intent are one transaction. [`verify`] needs public keys
//! only.

use ed25519_dalek::SigningKey;
use thiserror::Error;
use weft_protocol::{
    audit::{Body, CHECKPOINT_RECORDS, Head, RECORD_BYTES_MAX, Record},
    codec,
    id::{BootId, DeviceId, Digest, SegmentId},
    row::{Item, ReadError, Row, Rows, Table, Write},
    signed::{Domain, Signed},
    time::WallTime,
    value::Value,
};

/// How many rows are read at once when a chain is checked, so that a long one needs little memory.
const VERIFY_ROWS: usize = 4_096;

/// The longest reason that a record keeps, in characters: what else a record holds is far smaller.
const REASON_CHARS_MAX: usize = 500;

/// This device's chain.
#[derive(Debug)]
pub struct Chain {
    key: SigningKey,
    device: DeviceId,
    segment: SegmentId,
    sequence: u64,
    position: u64,
    previous: Option<Digest>,
    since_checkpoint: u64,
}

impl Chain {
    /// Continues the chain that lies in `rows` with a new segment.
    ///
    /// # Errors
    ///
    /// The chain's end cannot be read.
    pub fn open(key: SigningKey, segment: SegmentId, rows: &dyn Rows) -> Result<Self, ReadError> {
        let device = DeviceId::from_bytes(key.verifying_key().to_bytes());
        let (position, previous) = match newest(rows)? {
            Some((position, signed)) => (position + 1, Some(signed.digest())),
            None => (0, None),
        };
        Ok(Self { key, device, segment, sequence: 0, position, previous, since_checkpoint: 0 })
    }

    /// Opens the segment: the first record of a start.
    pub fn start(&mut self, boot: BootId, recovered: Option<Head>, time: WallTime) -> Vec<Write> {
        self.append(Body::Segment { boot, recovered }, time).1
    }

    /// Appends a record, and a checkpoint where one is due. Gives the record's position.
    pub fn append(&mut self, body: Body, time: WallTime) -> (u64, Vec<Write>) {
        let position = self.position;
        let mut writes = vec![self.record(body, time)];
        self.since_checkpoint += 1;
        if self.since_checkpoint >= CHECKPOINT_RECORDS {
            writes.push(self.record(Body::Checkpoint, time));
            self.since_checkpoint = 0;
        }
        (position, writes)
    }

    fn record(&mut self, mut body: Body, time: WallTime) -> Write {
        if let Body::Intent { decision, .. } = &mut body {
            decision.reason = decision.reason.chars().take(REASON_CHARS_MAX).collect();
        }
        let record = Record {
            segment: self.segment,
            sequence: self.sequence,
            position: self.position,
            previous: self.previous,
            time,
            body,
        };
        let signed = Signed::new(Domain::Audit, &record, &self.key);
        let write =
            Write::Put(Row::numbered(Table::Audit, &[], self.position), codec::encode(&signed));
        self.previous = Some(signed.digest());
        self.sequence += 1;
        self.position += 1;
        write
    }

    /// The newest record.
    pub fn head(&self) -> Option<Head> {
        self.previous.map(|digest| Head {
            device: self.device,
            segment: self.segment,
            position: self.position - 1,
            digest,
        })
    }

    /// The newest record, signed, for other devices to countersign.
    pub fn signed_head(&self) -> Option<Signed> {
        self.head().map(|head| Signed::new(Domain::Witness, &head, &self.key))
    }

    /// Signs another device's head.
    pub fn countersign(&self, head: &Head) -> Signed {
        Signed::new(Domain::Witness, head, &self.key)
    }
}

/// The newest record in `rows`.
fn newest(rows: &dyn Rows) -> Result<Option<(u64, Signed)>, ReadError> {
    let Some((position, bytes)) = rows.last(Table::Audit, &[])? else { return Ok(None) };
    let signed = codec::decode(&bytes, RECORD_BYTES_MAX * 2).map_err(|error| ReadError {
        table: Table::Audit,
        why: format!("record {position}: {error}"),
    })?;
    Ok(Some((position, signed)))
}

/// The hash of a value under the fabric's addressing key, as records carry it.
pub fn keyed_digest(addressing_key: &[u8; 32], value: &Value) -> Digest {
    let hash = blake3::keyed_hash(addressing_key, &codec::encode(value));
    Digest::from_bytes(*hash.as_bytes())
}

/// What is wrong with a chain, and where.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Fault {
    /// A record is not there.
    #[error("record {0} is missing")]
    Missing(u64),
    /// A record's bytes are not a record.
    #[error("record {position} can't be read: {why}")]
    Unreadable {
        /// Which.
        position: u64,
        /// Why.
        why: String,
    },
    /// A record was not signed by this device, or was changed.
    #[error("record {0} was changed: its signature doesn't match")]
    Forged(u64),
    /// A record does not name the one before it.
    #[error("record {0} doesn't follow the one before it")]
    Unchained(u64),
    /// A record says that it stands elsewhere.
    #[error("record {at} says that it is record {says}")]
    Moved {
        /// Where it stands.
        at: u64,
        /// Where it says it stands.
        says: u64,
    },
    /// Another device countersigned a record that is not in the chain.
    #[error("record {0} isn't the one that another device countersigned")]
    Rewritten(u64),
    /// Another device countersigned a record past the end.
    #[error("the chain ends before record {0}, which another device countersigned")]
    CutOff(u64),
}

impl Fault {
    /// The record that is wrong.
    pub const fn position(&self) -> u64 {
        match self {
            Self::Missing(position)
            | Self::Unreadable { position, .. }
            | Self::Forged(position)
            | Self::Unchained(position)
            | Self::Moved { at: position, .. }
            | Self::Rewritten(position)
            | Self::CutOff(position) => *position,
        }
    }
}

/// What checking found: so many records, and their head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// How many records.
    pub records: u64,
    /// The newest.
    pub head: Option<Head>,
}

/// Checks a chain that is handed over record by record. Needs the device's public key only.
#[derive(Debug)]
pub struct Verifier {
    device: DeviceId,
    witnessed: Vec<Head>,
    previous: Option<(SegmentId, u64, Digest)>,
    checked: Checked,
}

impl Verifier {
    /// Checks the chain of `device` against heads that others countersigned.
    pub fn new(device: DeviceId, witnessed: Vec<Head>) -> Self {
        Self { device, witnessed, previous: None, checked: Checked::default() }
    }

    /// Checks the next record.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn record(&mut self, position: u64, bytes: &[u8]) -> Result<Record, Fault> {
        let at = self.checked.records;
        if position != at {
            return Err(Fault::Missing(at));
        }
        let unreadable = |why: String| Fault::Unreadable { position, why };
        let signed: Signed = codec::decode(bytes, RECORD_BYTES_MAX * 2)
            .map_err(|error| unreadable(error.to_string()))?;
        if signed.author != self.device || signed.verify(Domain::Audit).is_err() {
            return Err(Fault::Forged(position));
        }
        let record: Record = codec::decode(&signed.bytes, RECORD_BYTES_MAX)
            .map_err(|error| unreadable(error.to_string()))?;
        if record.position != position {
            return Err(Fault::Moved { at: position, says: record.position });
        }
        let digest = signed.digest();
        let follows = record.previous == self.previous.map(|(_, _, digest)| digest)
            && match self.previous {
                Some((segment, sequence, _)) if segment == record.segment => {
                    record.sequence == sequence + 1
                }
                Some(_) | None => record.sequence == 0,
            };
        if !follows {
            return Err(Fault::Unchained(position));
        }
        if self.witnessed.iter().any(|head| head.position == position && head.digest != digest) {
            return Err(Fault::Rewritten(position));
        }
        self.previous = Some((record.segment, record.sequence, digest));
        self.checked = Checked {
            records: at + 1,
            head: Some(Head { device: self.device, segment: record.segment, position, digest }),
        };
        Ok(record)
    }

    /// Ends the check.
    ///
    /// # Errors
    ///
    /// The chain is shorter than what others countersigned.
    pub fn finish(self) -> Result<Checked, Fault> {
        match self.witnessed.iter().map(|head| head.position).max() {
            Some(position) if position >= self.checked.records => Err(Fault::CutOff(position)),
            Some(_) | None => Ok(self.checked),
        }
    }
}

/// Checks the whole chain of `device` in `rows` against heads that others countersigned.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn verify(device: DeviceId, witnessed: Vec<Head>, rows: &dyn Rows) -> Result<Checked, Fault> {
    let mut verifier = Verifier::new(device, witnessed);
    loop {
        let from = verifier.checked.records;
        let batch = rows
            .scan_from(Table::Audit, &[], from, VERIFY_ROWS)
            .map_err(|error| Fault::Unreadable { position: from, why: error.to_string() })?;
        if batch.is_empty() {
            return verifier.finish();
        }
        for (position, bytes) in batch {
            verifier.record(position, &bytes)?;
        }
    }
}

/// The heads of this device's chain that others countersigned, newest for each witness.
///
/// # Errors
///
/// The rows cannot be read.
pub fn witnessed(device: DeviceId, rows: &dyn Rows) -> Result<Vec<(DeviceId, Head)>, ReadError> {
    let mut heads = Vec::new();
    for (item, bytes) in rows.scan(Table::Witness, device.as_bytes())? {
        let Item::Named(witness) = item else { continue };
        let Ok(witness) = <[u8; 32]>::try_from(witness.as_slice()) else { continue };
        let witness = DeviceId::from_bytes(witness);
        let Ok(signed) = codec::decode::<Signed>(&bytes, RECORD_BYTES_MAX) else { continue };
        if signed.author != witness {
            continue;
        }
        if let Ok(head) = signed.open::<Head>(Domain::Witness, RECORD_BYTES_MAX)
            && head.device == device
        {
            heads.push((witness, head));
        }
    }
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use weft_protocol::row::MemoryRows;

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[9; 32])
    }

    fn device() -> DeviceId {
        DeviceId::from_bytes(key().verifying_key().to_bytes())
    }

    fn action(n: u64) -> Body {
        Body::Operator { action: format!("action {n}") }
    }

    fn chain(records: u64) -> (MemoryRows, Chain) {
        let mut rows = MemoryRows::default();
        let mut chain = Chain::open(key(), SegmentId::from_bytes([1; 16]), &rows).unwrap();
        rows.apply(chain.start(BootId { counter: 1, random: 7 }, None, WallTime::default()));
        for n in 0..records {
            rows.apply(chain.append(action(n), WallTime::default()).1);
        }
        (rows, chain)
    }

    #[test]
    fn a_chain_verifies_over_starts_and_checkpoints() {
        let (mut rows, first) = chain(250);
        let mut second = Chain::open(key(), SegmentId::from_bytes([2; 16]), &rows).unwrap();
        rows.apply(second.start(BootId { counter: 2, random: 8 }, None, WallTime::default()));
        let checked = verify(device(), first.head().into_iter().collect(), &rows).unwrap();
        assert_eq!(checked.records, 1 + 250 + 2 + 1);
        assert_eq!(checked.head, second.head());
    }

    #[test]
    fn each_kind_of_tampering_is_named() {
        let (rows, chain) = chain(20);
        let row = |position| Row::numbered(Table::Audit, &[], position);
        let original = rows.clone();
        let get = |position| original.get(&row(position)).unwrap().unwrap();
        let head = chain.head().unwrap();

        let mut missing = rows.clone();
        missing.apply([Write::Delete(row(7))]);
        assert_eq!(verify(device(), vec![], &missing), Err(Fault::Missing(7)));

        let mut swapped = rows.clone();
        swapped.apply([Write::Put(row(7), get(8)), Write::Put(row(8), get(7))]);
        assert_eq!(verify(device(), vec![], &swapped), Err(Fault::Moved { at: 7, says: 8 }));

        let mut changed = rows.clone();
        let mut signed: Signed = codec::decode(&get(7), 8192).unwrap();
        let mut record: Record = codec::decode(&signed.bytes, 8192).unwrap();
        record.body = action(99);
        signed.bytes = codec::encode(&record);
        changed.apply([Write::Put(row(7), codec::encode(&signed))]);
        assert_eq!(verify(device(), vec![], &changed), Err(Fault::Forged(7)));

        let mut resigned = rows.clone();
        let record = Signed::new(Domain::Audit, &record, &key());
        resigned.apply([Write::Put(row(7), codec::encode(&record))]);
        assert_eq!(verify(device(), vec![], &resigned), Err(Fault::Unchained(8)));

        let mut cut = rows.clone();
        cut.apply([Write::Delete(row(20))]);
        assert!(verify(device(), vec![], &cut).is_ok());
        assert_eq!(verify(device(), vec![head], &cut), Err(Fault::CutOff(20)));

        let mut rewritten = rows;
        let mut last: Record =
            codec::decode(&codec::decode::<Signed>(&get(20), 8192).unwrap().bytes, 8192).unwrap();
        last.body = action(99);
        let last = Signed::new(Domain::Audit, &last, &key());
        rewritten.apply([Write::Put(row(20), codec::encode(&last))]);
        assert!(verify(device(), vec![], &rewritten).is_ok());
        assert_eq!(verify(device(), vec![head], &rewritten), Err(Fault::Rewritten(20)));
    }
}

//! The audit chain of this device: appending records, and checking them.
//!
//! [`Chain`] makes the writes of a record; whoever decides an effect puts them into the same batch as
//! the journal's, so that record and effect intent are one transaction. Batches are handed to the disk
//! in the order of their records, and one that no disk takes is found before ([`Chain::withdraw`]), so
//! that what lies on a disk is at any moment the chain's beginning without a gap. [`verify`] needs
//! public keys only.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use weft_protocol::{
    audit::{Body, CHECKPOINT_EVERY, CHECKPOINT_RECORDS, Head, RECORD_BYTES_MAX, Record},
    codec,
    id::{BootId, DeviceId, Digest, SegmentId},
    row::{Item, ReadError, Row, Rows, Table, Write},
    signed::{Domain, Signed},
    time::{Now, Timestamp, WallTime},
    value::Value,
    witness::{SignedHead, Witness},
};

mod lineage;
mod verifier;

pub use lineage::{Found, Lineage};
pub use verifier::{Checked, Fault, Setback, Signatures, Verifier, verify};

/// The longest text that a record keeps, in characters: what else a record holds is far smaller.
const TEXT_CHARS_MAX: usize = 500;

/// This device's chain.
#[derive(Debug)]
pub struct Chain {
    key: SigningKey,
    device: DeviceId,
    /// Where its rows lie.
    scope: Vec<u8>,
    /// The end of the chain of the key whose place this one took, where nothing is appended yet.
    former: Option<Head>,
    end: End,
    /// The end when the last batches were handed over.
    handed_over: End,
    /// How many records were made since then.
    appended: usize,
    /// Since when records were handed over that no checkpoint covers.
    uncovered_since: Option<Timestamp>,
    /// The newest record that the disk has acknowledged.
    stored: Option<Head>,
}

/// Where the next record goes, and what it follows.
#[derive(Clone, Debug)]
struct End {
    segment: SegmentId,
    sequence: u64,
    position: u64,
    previous: Option<Digest>,
    /// How many records of this segment no checkpoint covers.
    uncovered: u64,
    /// Over their signatures.
    signatures: blake3::Hasher,
}

impl Chain {
    /// Continues the chain that lies in `rows` with a new segment.
    ///
    /// # Errors
    ///
    /// The chain's end cannot be read.
    pub fn open(key: SigningKey, segment: SegmentId, rows: &dyn Rows) -> Result<Self, ReadError> {
        let device = DeviceId::from_bytes(key.verifying_key().to_bytes());
        Self::open_last(key, segment, &Lineage::new(device, &[]), rows)
    }

    /// Continues the chain of the last key of `lineage`, which is `key`; where it has none yet, it is begun
    /// behind the chain of the key before.
    ///
    /// # Errors
    ///
    /// The end of one of the two cannot be read.
    pub fn open_last(
        key: SigningKey,
        segment: SegmentId,
        lineage: &Lineage,
        rows: &dyn Rows,
    ) -> Result<Self, ReadError> {
        let device = DeviceId::from_bytes(key.verifying_key().to_bytes());
        let scope = lineage.scope().to_vec();
        let stored = newest(&scope, rows)?.map(|head| Head { device, ..head });
        let former = match lineage.scope_before().filter(|_| stored.is_none()) {
            Some(scope) => newest(scope, rows)?,
            None => None,
        };
        let (position, previous) = match stored {
            Some(head) => (head.position + 1, Some(head.digest)),
            None => (0, None),
        };
        let signatures = blake3::Hasher::new();
        let end = End { segment, sequence: 0, position, previous, uncovered: 0, signatures };
        let handed_over = end.clone();
        let (appended, uncovered_since) = (0, None);
        Ok(Self { key, device, scope, former, end, handed_over, appended, uncovered_since, stored })
    }

    /// Opens the segment: the first record of a start.
    pub fn start(&mut self, boot: BootId, time: WallTime) -> Vec<Write> {
        let former = self.former.take();
        self.append(Body::Segment { boot, recovered: None, former }, time).1
    }

    /// Opens another segment because the disk was set back: it lacks `lost`, a head that this device
    /// showed and another one countersigned.
    ///
    /// Where the lost head is ahead, the chain goes on right behind it: a position is never used for a
    /// second time after others have seen what stood there.
    pub fn recover(
        &mut self,
        segment: SegmentId,
        boot: BootId,
        lost: Head,
        time: WallTime,
    ) -> Vec<Write> {
        let mut writes = Vec::new();
        if self.end.uncovered > 0 {
            writes.push(self.checkpoint(time));
        }
        let position = self.end.position.max(lost.position + 1);
        let previous = self.end.previous;
        let signatures = blake3::Hasher::new();
        self.end = End { segment, sequence: 0, position, previous, uncovered: 0, signatures };
        writes.extend(
            self.append(Body::Segment { boot, recovered: Some(lost), former: None }, time).1,
        );
        writes
    }

    /// Appends a record, and a checkpoint where one is due. Gives the record's position.
    ///
    /// The writes belong into one batch, which is handed to the disk before any that holds a later
    /// record.
    pub fn append(&mut self, body: Body, time: WallTime) -> (u64, Vec<Write>) {
        let position = self.end.position;
        let mut writes = vec![self.seal(body, time)];
        if self.end.uncovered >= CHECKPOINT_RECORDS {
            writes.push(self.checkpoint(time));
        }
        (position, writes)
    }

    fn checkpoint(&mut self, time: WallTime) -> Write {
        self.seal(Body::Checkpoint { signatures: self.end.signed_so_far() }, time)
    }

    fn seal(&mut self, body: Body, time: WallTime) -> Write {
        self.appended += 1;
        let row = Row::numbered(Table::Audit, &self.scope, self.end.position);
        Write::Put(row, self.end.seal(body, time, &self.key))
    }

    /// When a checkpoint is due although few records were appended.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.uncovered_since.map(|since| since + CHECKPOINT_EVERY)
    }

    /// The checkpoint that is due by time, if one is.
    pub fn handle_timeout(&mut self, now: Now) -> Vec<Write> {
        if self.poll_timeout().is_none_or(|due| due > now.mono) {
            return Vec::new();
        }
        self.uncovered_since = None;
        vec![self.checkpoint(now.wall)]
    }

    /// Takes back the records of batches that no disk takes, before anything was handed over.
    ///
    /// `batches` are all writes since [`Self::handed_over`] was called last, each batch with whether it
    /// is to be withdrawn. Gives the records that stand in for those withdrawn, and removes these from
    /// their batches; all later ones are made anew, since each names the one before it.
    pub fn withdraw(&mut self, batches: &mut [(&mut Vec<Write>, bool)]) -> Vec<Write> {
        let mut records: BTreeMap<u64, (&mut Vec<u8>, bool)> = BTreeMap::new();
        for (writes, withdrawn) in batches.iter_mut() {
            for write in writes.iter_mut() {
                if let Some((position, value)) = record_of(write) {
                    records.insert(position, (value, *withdrawn));
                }
            }
        }
        self.end = self.handed_over.clone();
        for (position, (value, withdrawn)) in records {
            let record = read(position, value).expect("this turn's records were made here").1;
            let body = if matches!(record.body, Body::Checkpoint { .. }) {
                Body::Checkpoint { signatures: self.end.signed_so_far() }
            } else if withdrawn {
                Body::Withdrawn
            } else {
                record.body
            };
            if self.end.segment != record.segment {
                self.end.uncovered = 0;
                self.end.signatures = blake3::Hasher::new();
            }
            let (segment, sequence) = (record.segment, record.sequence);
            self.end = End { segment, sequence, position, ..self.end.clone() };
            *value = self.end.seal(body, record.time, &self.key);
        }
        let mut stand_ins = Vec::new();
        for (writes, _) in batches.iter_mut().filter(|(_, withdrawn)| *withdrawn) {
            let (records, others): (Vec<_>, Vec<_>) =
                std::mem::take(*writes).into_iter().partition(|it| position_of(it).is_some());
            **writes = others;
            stand_ins.extend(records);
        }
        stand_ins
    }

    /// How many records were made since [`Self::handed_over`] was called last.
    pub const fn appended(&self) -> usize {
        self.appended
    }

    /// All that was appended was handed to the disk, in order.
    pub fn handed_over(&mut self, now: Timestamp) {
        self.appended = 0;
        self.handed_over = self.end.clone();
        let is_uncovered = self.end.uncovered > 0;
        self.uncovered_since = if is_uncovered { self.uncovered_since.or(Some(now)) } else { None };
    }

    /// The disk has acknowledged all up to that record.
    pub const fn stored(&mut self, head: Head) {
        self.stored = Some(head);
    }

    /// The newest record that the disk has acknowledged.
    pub const fn stored_head(&self) -> Option<Head> {
        self.stored
    }

    /// The head that the chain had at a position; `None`: it has no record there.
    ///
    /// # Errors
    ///
    /// The record cannot be read.
    pub fn head_at(&self, position: u64, rows: &dyn Rows) -> Result<Option<Head>, ReadError> {
        let Some(bytes) = rows.get(&Row::numbered(Table::Audit, &self.scope, position))? else {
            return Ok(None);
        };
        let (signed, record) = read(position, &bytes)?;
        Ok(Some(head_of(&signed, &record)))
    }

    /// The newest record.
    pub fn head(&self) -> Option<Head> {
        // Nothing was appended to the segment yet: the head is of an earlier one.
        if self.end.sequence == 0 {
            return self.stored;
        }
        self.end.previous.map(|digest| Head {
            device: self.device,
            segment: self.end.segment,
            position: self.end.position - 1,
            digest,
        })
    }

    /// Signs a head of this chain, for other devices to countersign.
    pub fn sign(&self, head: Head) -> SignedHead {
        SignedHead::new(head, &self.key)
    }

    /// Signs another device's head.
    pub fn countersign(&self, head: SignedHead) -> Witness {
        Witness::new(head, &self.key)
    }
}

impl End {
    /// Makes the next record, signed, as it lies on the disk.
    fn seal(&mut self, mut body: Body, time: WallTime, key: &SigningKey) -> Vec<u8> {
        let cut = |text: &mut String| *text = text.chars().take(TEXT_CHARS_MAX).collect();
        if let Body::Intent { decision, .. } = &mut body {
            cut(&mut decision.reason);
        } else if let Body::Operator { action: text } | Body::Trust { said: Some(text), .. } =
            &mut body
        {
            cut(text);
        }
        let is_checkpoint = matches!(body, Body::Checkpoint { .. });
        let record = Record {
            segment: self.segment,
            sequence: self.sequence,
            position: self.position,
            previous: self.previous,
            time,
            body,
        };
        let signed = Signed::new(Domain::Audit, &record, key);
        self.previous = Some(signed.digest());
        self.sequence += 1;
        self.position += 1;
        if is_checkpoint {
            self.uncovered = 0;
            self.signatures = blake3::Hasher::new();
        } else {
            self.uncovered += 1;
            self.signatures.update(&signed.signature);
        }
        codec::encode(&signed)
    }

    /// The hash of the signatures that a checkpoint here covers.
    fn signed_so_far(&self) -> Digest {
        Digest::from_bytes(*self.signatures.finalize().as_bytes())
    }
}

/// The position of the record that a write puts, if it puts one.
pub fn position_of(write: &Write) -> Option<u64> {
    match write {
        Write::Put(Row { table: Table::Audit, item: Item::Numbered(position), .. }, _) => {
            Some(*position)
        }
        Write::Put(..) | Write::Delete(_) => None,
    }
}

fn record_of(write: &mut Write) -> Option<(u64, &mut Vec<u8>)> {
    let position = position_of(write)?;
    match write {
        Write::Put(_, value) => Some((position, value)),
        Write::Delete(_) => None,
    }
}

/// Reads a record as it lies on the disk.
///
/// # Errors
///
/// Its bytes are not a record.
pub fn read(position: u64, bytes: &[u8]) -> Result<(Signed, Record), ReadError> {
    let unreadable = |error: codec::DecodeError| ReadError {
        table: Table::Audit,
        why: format!("record {position}: {error}"),
    };
    let signed: Signed = codec::decode(bytes, RECORD_BYTES_MAX * 2).map_err(unreadable)?;
    let record = codec::decode(&signed.bytes, RECORD_BYTES_MAX).map_err(unreadable)?;
    Ok((signed, record))
}

/// The head that a record makes.
fn head_of(signed: &Signed, record: &Record) -> Head {
    Head {
        device: signed.author,
        segment: record.segment,
        position: record.position,
        digest: signed.digest(),
    }
}

/// The newest record of the chain that lies in `scope`.
fn newest(scope: &[u8], rows: &dyn Rows) -> Result<Option<Head>, ReadError> {
    let Some((position, bytes)) = rows.last(Table::Audit, scope)? else { return Ok(None) };
    let (signed, record) = read(position, &bytes)?;
    Ok(Some(Head { position, ..head_of(&signed, &record) }))
}

/// The hash of a value under the fabric's addressing key, as records carry it.
pub fn keyed_digest(addressing_key: &[u8; 32], value: &Value) -> Digest {
    let hash = blake3::keyed_hash(addressing_key, &codec::encode(value));
    Digest::from_bytes(*hash.as_bytes())
}

#[cfg(test)]
mod tests;

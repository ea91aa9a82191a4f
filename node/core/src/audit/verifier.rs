//! Checking a chain with nothing but public keys.
//!
//! Each record names the hash of the one before it, so one signature vouches for all that leads up to
//! it. The checkpoints' signatures are checked, and each covers those of the records before it; records
//! that no checkpoint covers yet are checked by their own. Where anything does not fit, the signatures
//! that were taken on trust until then are checked one by one, so that the fault names the record that
//! was changed and not the one that shows it.

use std::{fmt, mem};

use thiserror::Error;
use weft_protocol::{
    audit::{Body, BodyKind, CHECKPOINT_RECORDS, Head, Link, RECORD_BYTES_MAX, Record},
    codec,
    id::{DeviceId, Digest, SegmentId},
    row::{Rows, Table},
    signed::{Domain, Signed},
};

/// How many rows are read at once when a chain is checked, so that a long one needs little memory.
const VERIFY_ROWS: usize = 4_096;

/// So many signatures are taken on trust at most: a chain that has no checkpoint where one belongs is
/// checked by the records' own.
const UNCOVERED_MAX: usize = CHECKPOINT_RECORDS as usize * 2;

/// Which signatures are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signatures {
    /// Those of checkpoints, and of what no checkpoint covers.
    Checkpoints,
    /// Those of all records.
    Every,
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
    /// A record that was added after another key took the place of the one that signed it.
    #[error("record {0} was added after the key was replaced")]
    Outlived(u64),
    /// The chain of the key that took this one's place does not say where this chain ends.
    #[error("the chain of the key that took this one's place doesn't name its end")]
    Unnamed,
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
            | Self::CutOff(position)
            | Self::Outlived(position) => *position,
            Self::Unnamed => 0,
        }
    }
}

/// A place where the chain itself says that its disk was set back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setback {
    /// The record that says so.
    pub at: u64,
    /// The head that another device had countersigned, and this disk had lost.
    pub lost: Head,
    /// The first and last record that are missing; `None`: others stand in their places.
    pub missing: Option<(u64, u64)>,
}

impl fmt::Display for Setback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.missing {
            Some((first, last)) if first == last => write!(f, "record {first} is missing")?,
            Some((first, last)) => write!(f, "records {first} to {last} are missing")?,
            None => write!(f, "records up to {} were written anew", self.lost.position)?,
        }
        write!(f, ": the disk was set back; recovered at record {}", self.at)
    }
}

/// What checking found: so many records, and their head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// How many records.
    pub records: u64,
    /// The newest.
    pub head: Option<Head>,
    /// Where the disk was set back, as the chain says itself.
    pub setbacks: Vec<Setback>,
    /// The end of the former key's chain, as the first record of this one names it.
    pub former: Option<Head>,
}

/// Checks a chain that is handed over record by record. Needs the device's public key only.
#[derive(Debug)]
pub struct Verifier {
    device: DeviceId,
    signatures: Signatures,
    /// Countersigned heads that were not met yet, the furthest first.
    ahead: Vec<Head>,
    /// Countersigned heads in whose place another record stands, or none, and what is wrong then.
    unmatched: Vec<(Head, Fault)>,
    next: u64,
    previous: Option<(SegmentId, u64, Digest)>,
    /// Records of this segment whose signatures are taken on trust.
    uncovered: Vec<(u64, Signed)>,
    /// Over the signatures that the next checkpoint covers.
    covering: blake3::Hasher,
    checked: Checked,
}

impl Verifier {
    /// Checks the chain of `device` against heads that others countersigned.
    pub fn new(device: DeviceId, mut witnessed: Vec<Head>, signatures: Signatures) -> Self {
        witnessed.sort_unstable_by_key(|head| std::cmp::Reverse(head.position));
        Self {
            device,
            signatures,
            ahead: witnessed,
            unmatched: Vec::new(),
            next: 0,
            previous: None,
            uncovered: Vec::new(),
            covering: blake3::Hasher::new(),
            checked: Checked::default(),
        }
    }

    /// Checks the next record.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or with one before it whose signature was taken on trust until now.
    pub fn record(&mut self, position: u64, bytes: &[u8]) -> Result<(), Fault> {
        let signed: Signed = match codec::decode(bytes, RECORD_BYTES_MAX * 2) {
            Ok(signed) => signed,
            Err(_) if position != self.next => return self.fault(Fault::Missing(self.next), None),
            Err(error) => {
                let why = error.to_string();
                return self.fault(Fault::Unreadable { position, why }, None);
            }
        };
        match self.chained(position, &signed) {
            Ok(link) => self.take(link, signed),
            Err(fault) => self.fault(fault, Some((position, &signed))),
        }
    }

    /// Whether a record stands where it should, behind the one before it.
    fn chained(&mut self, position: u64, signed: &Signed) -> Result<Link, Fault> {
        let at = self.next;
        let unreadable = |error: codec::DecodeError| {
            if position == at {
                Fault::Unreadable { position, why: error.to_string() }
            } else {
                Fault::Missing(at)
            }
        };
        if signed.author != self.device {
            return Err(if position == at { Fault::Forged(position) } else { Fault::Missing(at) });
        }
        let link: Link = codec::decode(&signed.bytes, RECORD_BYTES_MAX).map_err(unreadable)?;
        let (lost, former) = match link.kind {
            BodyKind::Segment => {
                let record: Record =
                    codec::decode(&signed.bytes, RECORD_BYTES_MAX).map_err(unreadable)?;
                if let Body::Segment { recovered, former, .. } = record.body {
                    (recovered, former)
                } else {
                    (None, None)
                }
            }
            BodyKind::Checkpoint | BodyKind::Other => (None, None),
        };
        // Only a record behind a lost head may stand further on, and only its own device may say so.
        let is_recovery = lost.is_some_and(|lost| lost.position.checked_add(1) == Some(position))
            && link.position == position
            && position > at;
        if position != at && !(is_recovery && signed.verify(Domain::Audit).is_ok()) {
            return Err(Fault::Missing(at));
        }
        if link.position != position {
            return Err(Fault::Moved { at: position, says: link.position });
        }
        let follows = link.previous == self.previous.map(|(_, _, digest)| digest)
            && match self.previous {
                Some((segment, sequence, _)) if segment == link.segment => {
                    link.sequence == sequence + 1 && position == at
                }
                Some(_) | None => link.sequence == 0,
            };
        if !follows {
            return Err(Fault::Unchained(position));
        }
        if position == 0 {
            self.checked.former = former;
        }
        if let Some(lost) = lost {
            let missing = (position > at).then(|| (at, position - 1));
            self.checked.setbacks.push(Setback { at: position, lost, missing });
        }
        Ok(link)
    }

    /// Takes in a record that stands where it should.
    fn take(&mut self, link: Link, signed: Signed) -> Result<(), Fault> {
        let (position, digest) = (link.position, signed.digest());
        if self.previous.is_some_and(|(segment, _, _)| segment != link.segment) {
            self.settle()?;
            self.covering = blake3::Hasher::new();
        }
        let is_checkpoint = link.kind == BodyKind::Checkpoint;
        let is_checked = is_checkpoint || self.signatures == Signatures::Every;
        if is_checked && signed.verify(Domain::Audit).is_err() {
            return self.fault(Fault::Forged(position), None);
        }
        if is_checkpoint {
            if !self.is_covered_by(&signed) {
                return self.fault(Fault::Unchained(position), None);
            }
            self.uncovered.clear();
            self.covering = blake3::Hasher::new();
        } else {
            self.covering.update(&signed.signature);
            if self.signatures == Signatures::Checkpoints {
                self.uncovered.push((position, signed));
                if self.uncovered.len() >= UNCOVERED_MAX {
                    self.settle()?;
                }
            }
        }
        while let Some(head) = self.ahead.pop_if(|head| head.position <= position) {
            if head.position == position && head.digest == digest {
                continue;
            }
            let rewritten = head.position == position;
            if rewritten && head.segment == link.segment {
                return self.fault(Fault::Rewritten(position), None);
            }
            let fault = if rewritten { Fault::Rewritten } else { Fault::Missing };
            self.unmatched.push((head, fault(head.position)));
        }
        self.next = position + 1;
        self.previous = Some((link.segment, link.sequence, digest));
        self.checked.records += 1;
        self.checked.head =
            Some(Head { device: self.device, segment: link.segment, position, digest });
        Ok(())
    }

    /// Whether a checkpoint covers just the signatures that were met.
    fn is_covered_by(&self, checkpoint: &Signed) -> bool {
        let record: Result<Record, _> = codec::decode(&checkpoint.bytes, RECORD_BYTES_MAX);
        let met = Digest::from_bytes(*self.covering.finalize().as_bytes());
        record.is_ok_and(|it| it.body == Body::Checkpoint { signatures: met })
    }

    /// Checks the signatures that were taken on trust.
    fn settle(&mut self) -> Result<(), Fault> {
        let mut uncovered = mem::take(&mut self.uncovered).into_iter();
        match uncovered.find(|(_, signed)| signed.verify(Domain::Audit).is_err()) {
            Some((position, _)) => Err(Fault::Forged(position)),
            None => Ok(()),
        }
    }

    /// Names the first record that was changed; where none was, the fault as it was found.
    fn fault(&mut self, found: Fault, at: Option<(u64, &Signed)>) -> Result<(), Fault> {
        self.settle()?;
        match at {
            Some((position, signed))
                if position == self.next && signed.verify(Domain::Audit).is_err() =>
            {
                Err(Fault::Forged(position))
            }
            Some(_) | None => Err(found),
        }
    }

    /// Ends the check.
    ///
    /// # Errors
    ///
    /// The last records were changed, or what others countersigned is not in the chain, which does not
    /// say itself that it was lost.
    pub fn finish(mut self) -> Result<Checked, Fault> {
        self.settle()?;
        let is_owned_up_to = |head: &Head| {
            self.checked
                .setbacks
                .iter()
                .any(|it| it.lost.segment == head.segment && it.lost.position >= head.position)
        };
        if let Some((_, fault)) = self.unmatched.iter().find(|(head, _)| !is_owned_up_to(head)) {
            return Err(fault.clone());
        }
        match self.ahead.iter().find(|head| !is_owned_up_to(head)) {
            Some(head) => Err(Fault::CutOff(head.position)),
            None => Ok(self.checked),
        }
    }
}

/// Checks the whole chain of `device`, a home's first key, in `rows` against heads that others countersigned.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn verify(
    device: DeviceId,
    witnessed: Vec<Head>,
    rows: &dyn Rows,
    signatures: Signatures,
) -> Result<Checked, Fault> {
    verify_in(Verifier::new(device, witnessed, signatures), &[], rows)
}

/// Checks the whole chain that lies in `scope`.
pub(super) fn verify_in(
    mut verifier: Verifier,
    scope: &[u8],
    rows: &dyn Rows,
) -> Result<Checked, Fault> {
    loop {
        let from = verifier.next;
        let batch = rows
            .scan_from(Table::Audit, scope, from, VERIFY_ROWS)
            .map_err(|error| Fault::Unreadable { position: from, why: error.to_string() })?;
        if batch.is_empty() {
            return verifier.finish();
        }
        for (position, bytes) in batch {
            verifier.record(position, &bytes)?;
        }
    }
}

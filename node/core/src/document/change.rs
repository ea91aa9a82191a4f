//! A change that came from outside: bounded, inflated, parsed, and not yet believed.
//!
//! Automerge inflates without a limit, and a run-length column of ten bytes can stand for 2^60
//! operations. Both are checked here before its parser sees a chunk, by the format at
//! <https://automerge.org/automerge-binary-format-spec/>.

use std::io::Read as _;

use flate2::read::DeflateDecoder;
use thiserror::Error;
use weft_protocol::{
    document::ChangeHash,
    id::ActorId,
    sync::{ASSEMBLED_BYTES_MAX, Chunk},
    time::WallTime,
};

use super::catch;

/// The most operations of one change: far above what a frame of typed text needs, far below what
/// takes a second to apply.
const OPERATIONS_MAX: u64 = 1 << 17;

/// Where operation counters end, so that a change cannot use them up: Automerge keeps them in 32 bits.
const COUNTER_MAX: u64 = 1 << 31;

/// The most changes that one change may name as its direct ancestors.
const DEPENDENCIES_MAX: usize = 4_096;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHANGE: u8 = 1;
const DEFLATED_CHANGE: u8 = 2;

/// Why bytes are not a change that may be applied.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ChunkError {
    /// Not the format.
    #[error("read a change: {0}")]
    Malformed(&'static str),
    /// It would grow beyond what a document may be.
    #[error("inflate a change: over {ASSEMBLED_BYTES_MAX} bytes together")]
    TooLarge,
    /// Automerge refused it.
    #[error("parse a change: {0}")]
    Refused(String),
}

/// A parsed change.
#[derive(Clone, Debug)]
pub struct Change {
    pub(super) inner: automerge::Change,
    hash: ChangeHash,
    actor: ActorId,
    deps: Vec<ChangeHash>,
}

impl Change {
    /// Parses a chunk, and takes what it inflates to from `budget`.
    ///
    /// # Errors
    ///
    /// Malformed, or over a bound.
    pub fn parse(chunk: &[u8], budget: &mut usize) -> Result<Self, ChunkError> {
        let raw = inflate(chunk, budget)?;
        let refused = |why: String| ChunkError::Refused(why);
        let inner = catch(|| automerge::Change::try_from(raw.as_slice()))
            .map_err(|panic| refused(panic.to_string()))?
            .map_err(|error| refused(error.to_string()))?;
        if inner.hash().0[..4] != raw[4..8] {
            return Err(ChunkError::Malformed("its checksum does not match"));
        }
        if inner.start_op().get() + inner.len() as u64 > COUNTER_MAX || inner.seq() == 0 {
            return Err(ChunkError::Malformed("a counter is out of range"));
        }
        if inner.deps().len() > DEPENDENCIES_MAX {
            return Err(ChunkError::Malformed("too many dependencies"));
        }
        Self::from_inner(inner).ok_or(ChunkError::Malformed("its actor id is not 16 bytes long"))
    }

    pub(super) fn from_inner(inner: automerge::Change) -> Option<Self> {
        Some(Self {
            hash: ChangeHash(inner.hash().0),
            actor: ActorId::from_bytes(inner.actor_id().to_bytes().try_into().ok()?),
            deps: inner.deps().iter().map(|hash| ChangeHash(hash.0)).collect(),
            inner,
        })
    }

    /// The name of the change.
    pub fn hash(&self) -> ChangeHash {
        self.hash
    }

    /// Who is said to have made it.
    pub fn actor(&self) -> ActorId {
        self.actor
    }

    /// Its number among the actor's, from 1.
    pub fn seq(&self) -> u64 {
        self.inner.seq()
    }

    /// Its direct ancestors.
    pub fn deps(&self) -> &[ChangeHash] {
        &self.deps
    }

    /// The number that its first operation must have: one more than the greatest of its ancestors.
    pub(super) fn start_op(&self) -> u64 {
        self.inner.start_op().get()
    }

    /// The number of its last operation.
    pub(super) fn last_op(&self) -> u64 {
        (self.start_op() + self.inner.len() as u64).saturating_sub(1)
    }

    /// When, by its author's wall clock. Weft writes milliseconds into Automerge's time.
    pub fn time(&self) -> WallTime {
        WallTime::from_unix_millis(self.inner.timestamp())
    }

    /// The chunk as it is stored: not deflated.
    pub fn bytes(&self) -> &[u8] {
        self.inner.raw_bytes()
    }

    /// The chunk as it is sent: deflated where that helps.
    pub fn to_chunk(&self) -> Chunk {
        let mut inner = self.inner.clone();
        let deflated = inner.bytes();
        let raw = self.bytes();
        Chunk(if deflated.len() < raw.len() { deflated.into_owned() } else { raw.to_vec() })
    }
}

/// The change chunk in `chunk`, inflated if it is deflated, with its columns checked.
fn inflate(chunk: &[u8], budget: &mut usize) -> Result<Vec<u8>, ChunkError> {
    let mut header = Cursor(chunk);
    if header.take(4)? != MAGIC {
        return Err(ChunkError::Malformed("not a chunk"));
    }
    let checksum = header.take(4)?;
    let kind = header.take(1)?[0];
    let len = header.length()?;
    let body = header.take(len)?;
    if !header.0.is_empty() {
        return Err(ChunkError::Malformed("bytes after the end"));
    }
    let inflated = match kind {
        CHANGE => body.to_vec(),
        DEFLATED_CHANGE => {
            let mut inflated = Vec::new();
            DeflateDecoder::new(body)
                .take(*budget as u64 + 1)
                .read_to_end(&mut inflated)
                .map_err(|_| ChunkError::Malformed("it does not inflate"))?;
            inflated
        }
        _ => return Err(ChunkError::Malformed("not a change")),
    };
    *budget = budget.checked_sub(inflated.len()).ok_or(ChunkError::TooLarge)?;
    check(&inflated)?;
    let mut raw = [&MAGIC, checksum, &[CHANGE]].concat();
    write_uleb(&mut raw, inflated.len() as u64);
    raw.extend(inflated);
    Ok(raw)
}

fn write_uleb(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Checks that no column of a change's body stands for more than [`OPERATIONS_MAX`] rows.
fn check(body: &[u8]) -> Result<(), ChunkError> {
    let mut cursor = Cursor(body);
    let dependencies = cursor.length()?;
    cursor.take(dependencies.saturating_mul(32))?;
    cursor.blob()?;
    cursor.uleb()?;
    cursor.uleb()?;
    cursor.sleb()?;
    cursor.blob()?;
    for _ in 0..cursor.uleb()? {
        cursor.blob()?;
    }
    let mut columns = Vec::new();
    for _ in 0..cursor.uleb()? {
        columns.push((cursor.uleb()?, cursor.length()?));
    }
    for (specification, len) in columns {
        if specification & 8 != 0 {
            return Err(ChunkError::Malformed("a column of a change is deflated"));
        }
        Column { cursor: Cursor(cursor.take(len)?), rows: 0 }.check(specification & 7)?;
    }
    Ok(())
}

/// A column while its rows are counted.
struct Column<'a> {
    cursor: Cursor<'a>,
    rows: u64,
}

impl Column<'_> {
    fn check(mut self, kind: u64) -> Result<(), ChunkError> {
        match kind {
            // Groups: each value counts rows of other columns.
            0 => {
                let mut members = 0;
                self.runs(|cursor, times| {
                    let count = cursor.uleb()?.saturating_mul(times);
                    members = Self::add(members, count)?;
                    Ok(())
                })
            }
            // Actors, integers, metadata of values; a signed difference is as long.
            1..=3 | 6 => self.runs(|cursor, _| cursor.uleb().map(drop)),
            4 => {
                while !self.cursor.0.is_empty() {
                    self.rows = Self::add(self.rows, self.cursor.uleb()?)?;
                }
                Ok(())
            }
            5 => self.runs(|cursor, _| cursor.blob()),
            // The bytes of values, whose lengths their metadata give.
            _ => Ok(()),
        }
    }

    fn add(sum: u64, more: u64) -> Result<u64, ChunkError> {
        let sum = sum.saturating_add(more);
        if sum > OPERATIONS_MAX {
            return Err(ChunkError::Malformed("too many operations"));
        }
        Ok(sum)
    }

    /// Goes through run-length encoded values: `read` takes one and is told how often it stands.
    fn runs(
        &mut self,
        mut read: impl FnMut(&mut Cursor<'_>, u64) -> Result<(), ChunkError>,
    ) -> Result<(), ChunkError> {
        while !self.cursor.0.is_empty() {
            let count = self.cursor.sleb()?;
            let rows = if count == 0 { self.cursor.uleb()? } else { count.unsigned_abs() };
            self.rows = Self::add(self.rows, rows)?;
            match count {
                0 => {}
                1.. => read(&mut self.cursor, rows)?,
                _ => {
                    for _ in 0..rows {
                        read(&mut self.cursor, 1)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Bytes that are being read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    const SHORT: ChunkError = ChunkError::Malformed("cut short");

    fn take(&mut self, len: usize) -> Result<&'a [u8], ChunkError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Self::SHORT)?;
        self.0 = rest;
        Ok(head)
    }

    /// The bits of a LEB128 number, how many there are, and whether the last group's sign bit is set.
    fn leb(&mut self) -> Result<(u64, u32, bool), ChunkError> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = self.take(1)?[0];
            if shift > 63 {
                return Err(ChunkError::Malformed("a number is too long"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok((value, shift, byte & 0x40 != 0));
            }
        }
    }

    fn uleb(&mut self) -> Result<u64, ChunkError> {
        self.leb().map(|(value, ..)| value)
    }

    fn sleb(&mut self) -> Result<i64, ChunkError> {
        let (value, shift, negative) = self.leb()?;
        let sign = if negative && shift < 64 { u64::MAX << shift } else { 0 };
        Ok((value | sign).cast_signed())
    }

    fn length(&mut self) -> Result<usize, ChunkError> {
        usize::try_from(self.uleb()?).map_err(|_| Self::SHORT)
    }

    fn blob(&mut self) -> Result<(), ChunkError> {
        let len = self.length()?;
        self.take(len).map(drop)
    }
}

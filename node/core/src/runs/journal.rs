//! The rows of a run: its journal, in order, and that it has not ended.
//!
//! A run that is under way has a row in the index of open runs, written with its start and deleted with
//! its end, so that a start of the node reads no journal of a run that ended. The row says also that a
//! person stopped the run: that is on the disk before anybody is told.

use weft_protocol::{
    codec,
    id::RunId,
    row::{Item, ReadError, Row, Rows, Table, Write},
    run::Journal,
};

/// The most bytes of a journal entry: a plan with its arguments, or an outcome.
const JOURNAL_BYTES_MAX: usize = 1 << 20;
/// So many entries are read at once.
const CHUNK: usize = 256;
/// The most entries that are shown of a run.
const SHOWN_MAX: usize = 10_000;
/// The scope of the index of open runs.
const OPEN: &[u8] = b"open";
/// The row of a run that goes on.
const GOES_ON: u8 = 1;
/// The row of a run that a person stopped.
const STOPPED: u8 = 2;

/// A run that has not ended, as the index has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Open {
    pub(super) run: RunId,
    /// A person stopped it.
    pub(super) stopped: bool,
}

/// A journal as a start of the node finds it.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What could be read, in order.
    pub(super) entries: Vec<Journal>,
    /// The number of the next entry.
    pub(super) next: u64,
    /// What could not be read.
    pub(super) unreadable: Vec<ReadError>,
}

/// Writes an entry.
pub(super) fn entry(run: RunId, number: u64, entry: &Journal) -> Write {
    Write::Put(Row::numbered(Table::Run, run.as_bytes(), number), codec::encode(entry))
}

/// Enters a run into the index.
pub(super) fn open(run: RunId) -> Write {
    Write::Put(Row::named(Table::Run, OPEN, run.as_bytes()), vec![GOES_ON])
}

/// Notes in the index that a run was stopped.
pub(super) fn stop(run: RunId) -> Write {
    Write::Put(Row::named(Table::Run, OPEN, run.as_bytes()), vec![STOPPED])
}

/// Takes a run off the index.
pub(super) fn close(run: RunId) -> Write {
    Write::Delete(Row::named(Table::Run, OPEN, run.as_bytes()))
}

/// The runs that have not ended.
pub(super) fn open_runs(rows: &dyn Rows) -> Result<Vec<Open>, ReadError> {
    let rows = rows.scan(Table::Run, OPEN)?;
    let open = |(item, value): (Item, Vec<u8>)| match item {
        Item::Named(name) => {
            let run = RunId::from_bytes(<[u8; 16]>::try_from(name).ok()?);
            Some(Open { run, stopped: value == [STOPPED] })
        }
        Item::Numbered(_) => None,
    };
    Ok(rows.into_iter().filter_map(open).collect())
}

/// Reads all that can be read of a run.
pub(super) fn find(run: RunId, rows: &dyn Rows) -> Found {
    let mut found = Found::default();
    match rows.last(Table::Run, run.as_bytes()) {
        Ok(last) => found.next = last.map_or(0, |(number, _)| number + 1),
        Err(error) => {
            found.unreadable.push(error);
            return found;
        }
    }
    let mut number = 0;
    while number < found.next {
        let read = match rows.scan_from(Table::Run, run.as_bytes(), number, CHUNK) {
            Ok(read) if read.is_empty() => break,
            Ok(read) => read,
            Err(error) => {
                found.unreadable.push(error);
                break;
            }
        };
        for (at, bytes) in read {
            number = at + 1;
            match decode(at, &bytes) {
                Ok(entry) => found.entries.push(entry),
                Err(error) => found.unreadable.push(error),
            }
        }
    }
    found
}

/// A run's journal, in order.
///
/// # Errors
///
/// The rows cannot be read.
pub fn read_journal(run: RunId, rows: &dyn Rows) -> Result<Vec<Journal>, ReadError> {
    read_with(run, &[], rows)
}

/// A run's journal, in order, with the entries of `tail` that are about to be written.
pub(crate) fn read_with(
    run: RunId,
    tail: &[Write],
    rows: &dyn Rows,
) -> Result<Vec<Journal>, ReadError> {
    let written = rows.scan_from(Table::Run, run.as_bytes(), 0, SHOWN_MAX)?;
    let room = SHOWN_MAX - written.len().min(SHOWN_MAX);
    let unwritten = tail.iter().filter_map(|write| match write {
        Write::Put(Row { scope, item: Item::Numbered(number), .. }, bytes)
            if scope == run.as_bytes() =>
        {
            Some(decode(*number, bytes))
        }
        Write::Put(..) | Write::Delete(_) => None,
    });
    written
        .iter()
        .map(|(number, bytes)| decode(*number, bytes))
        .chain(unwritten.take(room))
        .collect()
}

fn decode(number: u64, bytes: &[u8]) -> Result<Journal, ReadError> {
    codec::decode(bytes, JOURNAL_BYTES_MAX).map_err(|error| ReadError {
        table: Table::Run,
        why: format!("journal entry {number}: {error}"),
    })
}

//! Rows of the encrypted store: what the core asks a disk to keep.
//!
//! A row is named by a table, a scope within it, and an item within the scope. The store hides
//! table, scope and hashed items behind a keyed hash; ordered items keep their number, so that a
//! scope can be read from one number on.

use std::{collections::BTreeMap, ops::Bound};

use thiserror::Error;

use crate::device::word_enum;

word_enum! {
    /// What a row is about.
    Table, "node, trust, key, document, change, vouch, parked, index, peer, run, timer, audit, witness, blob, policy, setting" {
        /// This node: boot counter, name, ports.
        0 Node = "node",
        /// Statements of the trust graph.
        1 Trust = "trust",
        /// Keys of the fabric, opened for this device.
        2 Key = "key",
        /// Saved documents.
        3 Document = "document",
        /// Changes not yet in a saved document.
        4 Change = "change",
        /// Vouches for changes.
        5 Vouch = "vouch",
        /// Changes that nobody vouches for yet.
        6 Parked = "parked",
        /// Document id to hash of its heads, and tombstones.
        7 Index = "index",
        /// What is remembered of other devices: addresses, shared heads.
        8 Peer = "peer",
        /// Journals of runs.
        9 Run = "run",
        /// Timers that this device fires.
        10 Timer = "timer",
        /// The audit chain.
        11 Audit = "audit",
        /// Heads of other devices' chains, countersigned.
        12 Witness = "witness",
        /// Bytes by hash.
        13 Blob = "blob",
        /// Policy bundles by digest.
        14 Policy = "policy",
        /// Pairing: invitations that were redeemed or ran out.
        15 Setting = "setting",
    }
}

/// Which row of a scope.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Item {
    /// Found by its exact name, which the disk does not show.
    Named(Vec<u8>),
    /// Found by its number, in order; the disk shows the number.
    Numbered(u64),
}

/// Where a row lies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Row {
    /// What it is about.
    pub table: Table,
    /// Rows that are read together: a document, a run. May be empty.
    pub scope: Vec<u8>,
    /// Which of them.
    pub item: Item,
}

impl Row {
    /// A row found by name.
    pub fn named(table: Table, scope: &[u8], name: &[u8]) -> Self {
        Self { table, scope: scope.to_vec(), item: Item::Named(name.to_vec()) }
    }

    /// A row found by number.
    pub fn numbered(table: Table, scope: &[u8], number: u64) -> Self {
        Self { table, scope: scope.to_vec(), item: Item::Numbered(number) }
    }
}

/// One change to the store. All changes of a batch happen, or none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Sets a row.
    Put(Row, Vec<u8>),
    /// Removes a row; a row that is not there is no error.
    Delete(Row),
}

/// The longest scope and the longest name, in bytes: ids and hashes are 32, file names at most 255.
pub const NAME_BYTES_MAX: usize = 4_096;

/// The longest value, in bytes: what a sync message may carry.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// A row that no store takes.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("write a row of table {table}: {what} has {len} bytes, at most {max} are taken")]
pub struct TooLarge {
    /// Where it was to lie.
    pub table: Table,
    /// Which part is too large.
    pub what: &'static str,
    /// Its length in bytes.
    pub len: usize,
    /// The limit in bytes.
    pub max: usize,
}

impl Write {
    /// Checks that a store takes this: the one rule for whoever asks and for whoever writes.
    ///
    /// # Errors
    ///
    /// A part of the row is too large.
    pub fn check(&self) -> Result<(), TooLarge> {
        let (row, value): (&Row, &[u8]) = match self {
            Self::Put(row, value) => (row, value),
            Self::Delete(row) => (row, &[]),
        };
        let name = match &row.item {
            Item::Named(name) => name.len(),
            Item::Numbered(_) => 0,
        };
        for (what, len, max) in [
            ("its scope", row.scope.len(), NAME_BYTES_MAX),
            ("its name", name, NAME_BYTES_MAX),
            ("its value", value.len(), VALUE_BYTES_MAX),
        ] {
            if len > max {
                return Err(TooLarge { table: row.table, what, len, max });
            }
        }
        Ok(())
    }
}

/// When a batch counts as persisted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Durability {
    /// As soon as it is ordered; on disk with the next synced batch or within 50 ms.
    Ordered,
    /// Only after fsync.
    Synced,
}

/// A row that is there but cannot be read: it is damaged, or the disk failed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("read a row of table {table}: {why}")]
pub struct ReadError {
    /// Where.
    pub table: Table,
    /// What went wrong.
    pub why: String,
}

/// A view of the rows that are persisted, handed to a machine with an input.
///
/// Reading is a pure function of what was written before, so a run on simulated rows replays.
/// Writing is an output. A batch is seen by readers once it is persisted in its [`Durability`].
pub trait Rows {
    /// The value of a row.
    ///
    /// # Errors
    ///
    /// The row is damaged, or the disk failed.
    fn get(&self, row: &Row) -> Result<Option<Vec<u8>>, ReadError>;

    /// The rows of a scope; numbered ones in order, after any named ones.
    ///
    /// # Errors
    ///
    /// As [`Rows::get`].
    fn scan(&self, table: Table, scope: &[u8]) -> Result<Vec<(Item, Vec<u8>)>, ReadError>;

    /// At most `limit` numbered rows of a scope, in order, from `number` on.
    ///
    /// # Errors
    ///
    /// As [`Rows::get`].
    fn scan_from(
        &self,
        table: Table,
        scope: &[u8],
        number: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, ReadError>;

    /// The numbered row of a scope with the greatest number.
    ///
    /// # Errors
    ///
    /// As [`Rows::get`].
    fn last(&self, table: Table, scope: &[u8]) -> Result<Option<(u64, Vec<u8>)>, ReadError>;

    /// All rows of a table, of every scope.
    ///
    /// # Errors
    ///
    /// As [`Rows::get`].
    fn scan_table(&self, table: Table) -> Result<Vec<(Row, Vec<u8>)>, ReadError>;
}

/// Rows in memory: what the simulator and tests read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MemoryRows(BTreeMap<Row, Vec<u8>>);

impl MemoryRows {
    /// Applies a batch.
    pub fn apply(&mut self, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            match write {
                Write::Put(row, value) => drop(self.0.insert(row, value)),
                Write::Delete(row) => drop(self.0.remove(&row)),
            }
        }
    }
}

impl Rows for MemoryRows {
    fn get(&self, row: &Row) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.0.get(row).cloned())
    }

    fn scan(&self, table: Table, scope: &[u8]) -> Result<Vec<(Item, Vec<u8>)>, ReadError> {
        let first = Row::named(table, scope, &[]);
        let rows = self.0.range((Bound::Included(first), Bound::Unbounded));
        Ok(rows
            .take_while(|(row, _)| row.table == table && row.scope == scope)
            .map(|(row, value)| (row.item.clone(), value.clone()))
            .collect())
    }

    fn scan_from(
        &self,
        table: Table,
        scope: &[u8],
        number: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        let first = Row::numbered(table, scope, number);
        let rows = self.0.range((Bound::Included(first), Bound::Unbounded));
        Ok(rows
            .take_while(|(row, _)| row.table == table && row.scope == scope)
            .filter_map(|(row, value)| match row.item {
                Item::Numbered(number) => Some((number, value.clone())),
                Item::Named(_) => None,
            })
            .take(limit)
            .collect())
    }

    fn last(&self, table: Table, scope: &[u8]) -> Result<Option<(u64, Vec<u8>)>, ReadError> {
        let first = Row::numbered(table, scope, 0);
        let last = Row::numbered(table, scope, u64::MAX);
        let row = self.0.range(first..=last).next_back();
        Ok(row.and_then(|(row, value)| match row.item {
            Item::Numbered(number) => Some((number, value.clone())),
            Item::Named(_) => None,
        }))
    }

    fn scan_table(&self, table: Table) -> Result<Vec<(Row, Vec<u8>)>, ReadError> {
        let rows = self.0.iter().filter(|(row, _)| row.table == table);
        Ok(rows.map(|(row, value)| (row.clone(), value.clone())).collect())
    }
}

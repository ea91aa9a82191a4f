//! The shelf: documents that are in memory, how they are read from rows and written to them, and those
//! that cannot be used.

use std::collections::BTreeMap;

use thiserror::Error;
use weft_protocol::{
    codec,
    document::{ChangeHash, DocumentKey, DocumentKind},
    id::ActorId,
    row::{ReadError, Row, Rows, Table, Write},
    sync::Chunk,
};

use super::{
    index::{self, Entry},
    vouching::{self, Vouches},
    writing::Pending,
};
use crate::document::{Change, Document, DocumentError};

/// After so many rows of changes a document is saved as one row.
const CHANGE_ROWS_MAX: u64 = 64;

/// How many documents that are not busy stay loaded, where the device does not say otherwise. A small one
/// takes 17 kB and 20 µs to load; long histories take longer, and are what this is for.
pub(crate) const LOADED_MAX: usize = 32;

/// Of how many kinds the skeletons are kept: more than there are. A peer may name any other.
const SKELETONS_MAX: usize = 256;

/// Why a document is not to be had.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LoadError {
    /// A row cannot be read.
    #[error(transparent)]
    Rows(#[from] ReadError),
    /// Its rows do not make a document.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// A document in memory, with what is being written of it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) document: Document,
    pub(super) vouches: Vouches,
    used: u64,
}

impl Loaded {
    /// The rows for changes that were just applied, and what the index is to say.
    pub(super) fn record(
        &self,
        key: &DocumentKey,
        entry: &mut Entry,
        changes: &[Change],
    ) -> Result<Vec<Write>, DocumentError> {
        let scope = key.to_bytes();
        let mut writes = Vec::new();
        if entry.rows + 1 >= CHANGE_ROWS_MAX {
            writes.push(Write::Put(saved_row(key), self.document.save()?));
            writes.extend(
                (0..entry.rows).map(|row| Write::Delete(Row::numbered(Table::Change, &scope, row))),
            );
            entry.rows = 0;
        } else {
            let chunks: Vec<_> =
                changes.iter().map(|change| Chunk(change.bytes().to_vec())).collect();
            let row = Row::numbered(Table::Change, &scope, entry.rows);
            writes.push(Write::Put(row, codec::encode(&chunks)));
            entry.rows += 1;
        }
        let (modified, actor) = self.document.newest()?;
        entry.state.heads = self.document.heads();
        entry.changes += changes.len() as u64;
        entry.modified = modified;
        entry.author = self
            .vouches
            .iter()
            .find(|((of, _), _)| *of == actor)
            .map(|(_, (vouch, _))| vouch.device);
        writes.push(entry.write(key));
        Ok(writes)
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Shelf {
    actor: ActorId,
    skeletons: BTreeMap<DocumentKind, ChangeHash>,
    loaded: BTreeMap<DocumentKey, Loaded>,
    aside: BTreeMap<DocumentKey, String>,
    loaded_max: usize,
    uses: u64,
    loads: u64,
}

impl Shelf {
    pub(super) fn new(actor: ActorId) -> Self {
        Self {
            actor,
            skeletons: BTreeMap::new(),
            loaded: BTreeMap::new(),
            aside: BTreeMap::new(),
            loaded_max: LOADED_MAX,
            uses: 0,
            loads: 0,
        }
    }

    /// Bounds how many documents that are not busy stay loaded.
    pub(super) fn bound(&mut self, loaded_max: usize) {
        self.loaded_max = loaded_max;
    }

    pub(super) fn get(&self, key: &DocumentKey) -> Option<&Loaded> {
        self.loaded.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &DocumentKey) -> Option<&mut Loaded> {
        self.loaded.get_mut(key)
    }

    /// Forgets what is in memory of a document.
    pub(super) fn remove(&mut self, key: &DocumentKey) {
        self.loaded.remove(key);
    }

    /// How many documents were loaded from rows.
    pub(super) fn loads(&self) -> u64 {
        self.loads
    }

    /// Why a document is set aside, if it is.
    pub(super) fn aside(&self, key: &DocumentKey) -> Option<&str> {
        self.aside.get(key).map(String::as_str)
    }

    /// Sets a document aside until the next start. False if it was already.
    pub(super) fn set_aside(&mut self, key: &DocumentKey, reason: String) -> bool {
        self.loaded.remove(key);
        self.aside.insert(*key, reason).is_none()
    }

    pub(super) fn skeleton(&mut self, kind: &DocumentKind) -> ChangeHash {
        if let Some(skeleton) = self.skeletons.get(kind) {
            return *skeleton;
        }
        let skeleton = Document::skeleton(kind).map_or(ChangeHash([0; 32]), |it| it.hash());
        if self.skeletons.len() < SKELETONS_MAX {
            self.skeletons.insert(kind.clone(), skeleton);
        }
        skeleton
    }

    /// Makes sure that a document is in memory: as its rows say, and then `pending`.
    pub(super) fn load<'a>(
        &mut self,
        key: &DocumentKey,
        kind: &DocumentKind,
        pending: impl Iterator<Item = &'a Pending>,
        rows: &dyn Rows,
    ) -> Result<(), LoadError> {
        self.uses += 1;
        if let Some(loaded) = self.loaded.get_mut(key) {
            loaded.used = self.uses;
            return Ok(());
        }
        self.loads += 1;
        let (mut document, mut vouches) = self.read(key, kind, rows)?;
        for pending in pending {
            if pending.entry.state.is_deleted() {
                document = Document::new(kind, self.actor)?;
            }
            document.apply(pending.changes.clone())?;
            pending.amend(&mut vouches)?;
        }
        self.loaded.insert(*key, Loaded { document, vouches, used: self.uses });
        Ok(())
    }

    /// Reads a document from its rows.
    pub(super) fn read(
        &self,
        key: &DocumentKey,
        kind: &DocumentKind,
        rows: &dyn Rows,
    ) -> Result<(Document, Vouches), LoadError> {
        // The persisted entry, which fits the other rows also while a batch is under way.
        let entry = index::read(key, rows)?;
        let Some(entry) = entry.filter(|entry| !entry.state.is_deleted()) else {
            return Ok((Document::new(kind, self.actor)?, Vouches::new()));
        };
        let scope = key.to_bytes();
        let saved = rows.get(&saved_row(key))?;
        let count = usize::try_from(entry.rows).unwrap_or(usize::MAX);
        let mut changes = Vec::new();
        let change_rows = rows.scan_from(Table::Change, &scope, 0, count)?;
        let damaged = |why: String| DocumentError::Damaged(why);
        if change_rows.len() != count {
            return Err(damaged("a row of changes is missing".to_owned()).into());
        }
        for (_, value) in change_rows {
            let chunks: Vec<Chunk> =
                codec::decode(&value, usize::MAX).map_err(|error| damaged(error.to_string()))?;
            for chunk in chunks {
                let mut budget = usize::MAX;
                let change = Change::parse(&chunk.0, &mut budget);
                changes.push(change.map_err(|error| damaged(error.to_string()))?);
            }
        }
        let document = Document::load(kind, self.actor, saved.as_deref(), changes)?;
        if document.heads() != entry.state.heads {
            return Err(damaged("its heads are not those of the index".to_owned()).into());
        }
        Ok((document, vouching::load(key, rows)?))
    }

    /// Takes out what was not used for longest, until only so many are left that are not `busy`.
    pub(super) fn trim(&mut self, busy: usize, is_busy: impl Fn(&DocumentKey) -> bool) {
        while self.loaded.len() > self.loaded_max.saturating_add(busy) {
            let idle = self.loaded.iter().filter(|(key, _)| !is_busy(key));
            let Some((key, _)) = idle.min_by_key(|(_, loaded)| loaded.used) else { break };
            let key = *key;
            self.loaded.remove(&key);
        }
    }

    #[cfg(test)]
    pub(super) fn skeletons(&self) -> usize {
        self.skeletons.len()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.loaded.len()
    }
}

/// Where the saved document lies.
pub(super) fn saved_row(key: &DocumentKey) -> Row {
    Row::named(Table::Document, &key.to_bytes(), b"saved")
}

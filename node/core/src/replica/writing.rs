//! Writing: batches of rows that are handed out and not yet persisted.
//!
//! A document of which one is under way is *busy*: what peers ask and tell of it waits.

use std::collections::BTreeMap;

use weft_protocol::{
    document::{ChangeHash, DocumentKey, DocumentKind},
    id::DeviceId,
    row::{Durability, ReadError, Row, Table, Write},
};

use super::{
    graves::Grave,
    index::Entry,
    vouching::{self, Vouches},
};
use crate::document::Change;

/// How many tombstones of a busy document are kept until it is free. Others come again when the next
/// session compares.
const TOMBSTONES_WAITING_MAX: usize = 16;

/// Names a batch of writes, made here or come from peers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

/// A document of which writes are under way.
#[derive(Debug)]
pub(super) struct Busy {
    /// The heads that peers know of.
    pub(super) announced: Vec<ChangeHash>,
    /// Whether a batch of it was persisted meanwhile, so that there is something to announce.
    pub(super) is_news: bool,
    /// In the order in which they are persisted.
    pending: Vec<Pending>,
    /// What peers said meanwhile of its deletion, and whether nothing is left of it there.
    pub(super) graves: Vec<(DeviceId, Vec<Grave>, bool)>,
    /// That what is parked is to be looked at again.
    pub(super) review: Option<DocumentKind>,
}

/// What one batch does to a document.
#[derive(Debug)]
pub(super) struct Pending {
    /// None if it failed and a later one repeats it.
    pub(super) ticket: Option<Ticket>,
    pub(super) remote: bool,
    pub(super) entry: Entry,
    /// Not in the rows yet.
    pub(super) changes: Vec<Change>,
    pub(super) writes: Vec<Write>,
}

impl Pending {
    /// Changes the vouches of the document as the batch does.
    pub(super) fn amend(&self, vouches: &mut Vouches) -> Result<(), ReadError> {
        if self.entry.state.is_deleted() {
            vouches.clear();
        }
        for write in &self.writes {
            if let Write::Put(Row { table: Table::Vouch, .. }, value) = write {
                let (vouch, signed) = vouching::decode(value)?;
                vouches.insert((vouch.actor(), signed.author), (vouch, signed));
            }
        }
        Ok(())
    }
}

/// Writes that are being gathered while an input is handled.
#[derive(Debug, Default)]
struct Batch {
    ticket: Option<Ticket>,
    writes: Vec<Write>,
    documents: bool,
}

/// All batches.
#[derive(Debug, Default)]
pub(super) struct Writing {
    busy: BTreeMap<DocumentKey, Busy>,
    batch: Batch,
    tickets: u64,
    /// Which documents a ticket is about.
    written: BTreeMap<Ticket, Vec<DocumentKey>>,
}

impl Writing {
    pub(super) fn is_busy(&self, key: &DocumentKey) -> bool {
        self.busy.contains_key(key)
    }

    /// The documents that are busy.
    pub(super) fn keys(&self) -> impl Iterator<Item = &DocumentKey> {
        self.busy.keys()
    }

    /// How many documents are busy.
    pub(super) fn len(&self) -> usize {
        self.busy.len()
    }

    /// What the index will say of a busy document.
    pub(super) fn entry(&self, key: &DocumentKey) -> Option<&Entry> {
        Some(&self.busy.get(key)?.pending.last()?.entry)
    }

    /// What is under way for a document, in order.
    pub(super) fn pending(&self, key: &DocumentKey) -> impl Iterator<Item = &Pending> {
        self.busy.get(key).into_iter().flat_map(|busy| &busy.pending)
    }

    /// The writes that are under way for a document.
    pub(super) fn repeat(&self, key: &DocumentKey) -> impl Iterator<Item = Write> {
        self.pending(key).flat_map(|pending| pending.writes.iter().cloned())
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// A new ticket about these documents.
    pub(super) fn open(&mut self, keys: Vec<DocumentKey>) -> Ticket {
        let ticket = self.ticket();
        self.written.insert(ticket, keys);
        ticket
    }

    /// Makes a document busy. `announced` are its heads in the index.
    pub(super) fn add(&mut self, key: DocumentKey, announced: Vec<ChangeHash>, pending: Pending) {
        let busy = self.busy.entry(key).or_insert(Busy {
            announced,
            is_news: false,
            pending: Vec::new(),
            graves: Vec::new(),
            review: None,
        });
        busy.pending.push(pending);
    }

    fn batch_ticket(&mut self) -> Ticket {
        if let Some(ticket) = self.batch.ticket {
            return ticket;
        }
        let ticket = self.ticket();
        self.batch.ticket = Some(ticket);
        ticket
    }

    /// Adds rows to the batch of this input that no document waits for.
    pub(super) fn write_aside(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.batch_ticket();
            self.batch.writes.extend(writes);
        }
    }

    /// Adds what came from a peer to the batch of this input.
    pub(super) fn write_remote(
        &mut self,
        key: &DocumentKey,
        announced: Vec<ChangeHash>,
        entry: Entry,
        changes: Vec<Change>,
        writes: Vec<Write>,
    ) {
        let ticket = self.batch_ticket();
        self.batch.documents = true;
        self.batch.writes.extend(writes.iter().cloned());
        self.written.entry(ticket).or_default().push(*key);
        let pending = Pending { ticket: Some(ticket), remote: true, entry, changes, writes };
        self.add(*key, announced, pending);
    }

    /// The batch of this input, if there is one.
    pub(super) fn take_batch(&mut self) -> Option<(Ticket, Vec<Write>, Durability)> {
        let batch = std::mem::take(&mut self.batch);
        // What peers are told that this device has must outlive a crash.
        let durability = if batch.documents { Durability::Synced } else { Durability::Ordered };
        batch.ticket.map(|ticket| (ticket, batch.writes, durability))
    }

    /// The documents of a batch that ended.
    pub(super) fn close(&mut self, ticket: Ticket) -> Vec<DocumentKey> {
        self.written.remove(&ticket).unwrap_or_default()
    }

    /// What a persisted batch did to a document, unless a later one was persisted before.
    pub(super) fn persisted(&mut self, key: &DocumentKey, ticket: Ticket) -> Option<Pending> {
        let busy = self.busy.get_mut(key)?;
        let at = busy.pending.iter().position(|it| it.ticket == Some(ticket))?;
        busy.is_news = true;
        busy.pending.drain(..=at).next_back()
    }

    /// Notes that a batch failed. Whether what is in memory of a document is thereby not to be written
    /// any more: true if no later batch repeats it.
    pub(super) fn failed(&mut self, key: &DocumentKey, ticket: Ticket) -> bool {
        let Some(busy) = self.busy.get_mut(key) else { return false };
        for pending in busy.pending.iter_mut().filter(|it| it.ticket == Some(ticket)) {
            pending.ticket = None;
        }
        let before = busy.pending.len();
        while busy.pending.last().is_some_and(|last| last.ticket.is_none()) {
            busy.pending.pop();
        }
        busy.pending.len() < before
    }

    /// Makes a document free if nothing of it is under way any more.
    pub(super) fn free(&mut self, key: &DocumentKey) -> Option<Busy> {
        if !self.busy.get(key)?.pending.is_empty() {
            return None;
        }
        self.busy.remove(key)
    }

    /// Keeps tombstones of a busy document until it is free. False if it is not busy.
    pub(super) fn defer_graves(
        &mut self,
        key: &DocumentKey,
        peer: DeviceId,
        graves: &[Grave],
        gone: bool,
    ) -> bool {
        let Some(busy) = self.busy.get_mut(key) else { return false };
        if busy.graves.len() < TOMBSTONES_WAITING_MAX {
            busy.graves.push((peer, graves.to_vec(), gone));
        }
        true
    }

    /// Has what is parked of a busy document looked at when it is free. False if it is not busy.
    pub(super) fn defer_review(&mut self, key: &DocumentKey, kind: &DocumentKind) -> bool {
        let Some(busy) = self.busy.get_mut(key) else { return false };
        busy.review = Some(kind.clone());
        true
    }
}

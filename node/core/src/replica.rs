//! The replica: this device's copy of the fabric's documents, and how it becomes equal to others'.
//!
//! ```text
//! a step's edits ── prepare ──► rows to write ── Persisted ──► Changed, and to all open peers
//! a peer's frame ── Message ──► parse ► vouched? ► apply ──► Persist ── Persisted ──► answer, …
//!                                          └► no: park until a vouch or a trust statement comes
//! ```
//!
//! Rows are read as a pure view that comes with each input; rows to write are an output. Nothing is
//! told to a peer before it is persisted: a document of which a batch is under way is *busy*, its
//! messages wait, and only when it is free is it announced. Batches are to be persisted in the order
//! in which they were handed out.
//!
//! Only the index is kept in memory, and of the documents those that are spoken of. Deliberately not
//! here: who belongs and who may write ([`Members`]), the rolling over of long histories.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
};

use ed25519_dalek::SigningKey;
use weft_protocol::{
    document::{ChangeHash, DocumentKey, DocumentKind, StartNonce},
    id::{DeviceId, DocumentId, FabricId},
    row::{Durability, ReadError, Rows, Write},
    sync::SyncMessage,
    time::Now,
};

mod edit;
mod listing;
mod index;
mod packed;
mod shelf;
mod writing;
mod session;
mod conversation;
mod arrival;
mod vouching;
mod parking;
mod graves;
mod adoption;

pub use edit::{Edit, EditError, Prepared};
pub use listing::Listed;
pub(crate) use shelf::LOADED_MAX;
pub use shelf::LoadError;
pub use writing::Ticket;

use adoption::Adoptions;
use edit::Author;
use index::{Entry, Index, Seen};
use parking::Parking;
use session::{EXCHANGES_MAX, Session};
use shelf::Shelf;
use writing::{Busy, Pending, Writing};

use crate::document::Change;

/// Who may do what, as trust says at this moment.
pub trait Members {
    /// Whether changes of `device` to this document are to be applied.
    fn may_write(&self, device: &DeviceId, document: &DocumentId, kind: &DocumentKind) -> bool;

    /// Whether `device` belonged and does not now: it was put out, another key took its place, or it is
    /// suspended. Then others vouch for what it wrote.
    fn is_gone(&self, device: &DeviceId) -> bool;
}

/// What is handed in with each input.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Both clocks.
    pub now: Now,
    /// What is persisted.
    pub rows: &'a dyn Rows,
    /// Who may do what.
    pub members: &'a dyn Members,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}

/// What happens to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// A stream of `/weft/sync/1` to a member is open on both sides.
    Opened(DeviceId),
    /// It ended.
    Closed(DeviceId),
    /// A message came on it.
    Message(DeviceId, SyncMessage),
    /// A batch, from [`Output::Persist`], [`Replica::prepare`] or [`Replica::adopt`], is persisted.
    Persisted(Ticket),
    /// It is not, and will not be.
    PersistFailed(Ticket),
    /// Trust moved: what is parked is looked at again.
    MembersChanged,
}

/// What a replica wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send on the stream to `peer`.
    Send {
        /// To whom.
        peer: DeviceId,
        /// What.
        message: SyncMessage,
    },
    /// Write, then answer with [`Input::Persisted`] or [`Input::PersistFailed`].
    Persist {
        /// Names the batch.
        ticket: Ticket,
        /// All or none.
        writes: Vec<Write>,
        /// When it counts as persisted.
        durability: Durability,
    },
    /// A document has new content, or none any more.
    Changed {
        /// Which.
        document: DocumentId,
        /// What it is.
        kind: DocumentKind,
        /// Whether it came from a peer.
        remote: bool,
    },
    /// The peer has the same of every document.
    PeerSynced(DeviceId),
    /// A document cannot be used until the node starts again.
    SetAside {
        /// Which.
        document: DocumentId,
        /// Why, for people.
        reason: String,
    },
}

/// Counts since the start, for status and tests.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Documents loaded from rows.
    pub loads: u64,
    /// Messages of peers that were refused: malformed, forged, out of bounds.
    pub refused: u64,
    /// Changes that are parked now.
    pub parked: usize,
    /// Parked changes that were dropped because a peer had too many.
    pub dropped: u64,
}

/// The machine.
#[derive(Debug)]
pub struct Replica {
    author: Author,
    singletons: BTreeMap<DocumentId, DocumentKind>,
    index: Index,
    parking: Parking,
    shelf: Shelf,
    writing: Writing,
    adoptions: Adoptions,
    sessions: BTreeMap<DeviceId, Session>,
    outputs: VecDeque<Output>,
    refused: u64,
}

impl Replica {
    /// A replica over what is persisted. `start` must be new and persisted before the first edit is:
    /// two starts that share one write under the same actor id, which wedges sync for good.
    ///
    /// Reads the index and what is parked, no documents.
    ///
    /// # Errors
    ///
    /// Those rows are damaged.
    pub fn new(
        signing: SigningKey,
        fabric: &FabricId,
        start: StartNonce,
        rows: &dyn Rows,
    ) -> Result<Self, ReadError> {
        let author = Author::new(signing, start);
        let singletons = DocumentKind::SINGLETONS
            .into_iter()
            .map(|kind| (DocumentId::singleton(fabric, &kind), kind))
            .collect();
        Ok(Self {
            singletons,
            index: Index::load(rows)?,
            parking: Parking::load(rows)?,
            shelf: Shelf::new(author.actor()),
            writing: Writing::default(),
            adoptions: Adoptions::default(),
            sessions: BTreeMap::new(),
            outputs: VecDeque::new(),
            refused: 0,
            author,
        })
    }

    /// Bounds how many documents stay in memory although nobody works on them.
    pub(crate) fn bound(&mut self, loaded_max: usize) {
        self.shelf.bound(loaded_max);
    }

    /// Takes an input.
    pub fn handle_input(&mut self, input: Input, context: &Context<'_>) {
        match input {
            Input::Opened(peer) => {
                let mut session = Session::new();
                if self.author.device < peer {
                    session.ranges.push(self.index.question());
                }
                self.sessions.insert(peer, session);
            }
            Input::Closed(peer) => drop(self.sessions.remove(&peer)),
            Input::Message(peer, message) => self.on_message(peer, message, context),
            Input::Persisted(ticket) => self.on_persisted(ticket, context),
            Input::PersistFailed(ticket) => self.on_persist_failed(ticket, context),
            Input::MembersChanged => {
                for (key, kind) in self.parking.documents() {
                    self.review(&key, &kind, context);
                }
            }
        }
        self.finish(context);
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        Counts {
            loads: self.shelf.loads(),
            refused: self.refused,
            parked: self.parking.len(),
            dropped: self.parking.dropped(),
        }
    }

    fn on_persisted(&mut self, ticket: Ticket, context: &Context<'_>) {
        let adopted = self.adoptions.take(ticket);
        for key in self.writing.close(ticket) {
            let Some(done) = self.writing.persisted(&key, ticket) else { continue };
            let Pending { entry, remote, .. } = done;
            let kind = entry.kind.clone();
            self.index.insert(key, entry);
            self.outputs.push_back(Output::Changed { document: key.document, kind, remote });
            self.free(&key, context);
        }
        self.tell_adopted(&adopted);
    }

    fn on_persist_failed(&mut self, ticket: Ticket, context: &Context<'_>) {
        drop(self.adoptions.take(ticket));
        for key in self.writing.close(ticket) {
            if self.writing.failed(&key, ticket) {
                self.shelf.remove(&key);
                for session in self.sessions.values_mut() {
                    if session.exchanges.contains_key(&key) {
                        session.let_rest(key);
                    }
                }
            }
            self.free(&key, context);
        }
    }

    /// Announces a document when nothing of it is under way any more, if there is anything new, and takes
    /// its messages. What could not be written is not asked for again: it rests until it changes or another
    /// session begins, since a disk that is full stays so until the next start.
    fn free(&mut self, key: &DocumentKey, context: &Context<'_>) {
        let Some(Busy { announced, is_news, graves, review, .. }) = self.writing.free(key) else {
            return;
        };
        if is_news {
            self.announce(key, &announced, context);
        }
        for (peer, graves, gone) in graves {
            self.on_graves(peer, *key, graves, gone, context);
        }
        if let Some(kind) = review {
            self.review(key, &kind, context);
        }
        let peers: Vec<_> = self.sessions.keys().copied().collect();
        for peer in peers {
            while !self.writing.is_busy(key) {
                let session = self.sessions.get_mut(&peer);
                let Some(message) = session.and_then(|session| session.take_deferred(key)) else {
                    break;
                };
                self.on_document(peer, message, context);
            }
        }
    }

    /// Ends the handling of an input.
    fn finish(&mut self, context: &Context<'_>) {
        let peers: Vec<_> = self.sessions.keys().copied().collect();
        for peer in &peers {
            while let Some(session) = self.sessions.get_mut(peer)
                && session.exchanges.len() < EXCHANGES_MAX
                && let Some((key, want)) = session.take_wanted()
            {
                self.start(*peer, key, want, context);
            }
        }
        if let Some((ticket, writes, durability)) = self.writing.take_batch() {
            self.outputs.push_back(Output::Persist { ticket, writes, durability });
        }
        let total = self.index.total();
        for (peer, session) in &mut self.sessions {
            if !session.ask_anew(self.index.question()) && session.is_idle() {
                session.say_check(total);
            }
            for message in session.flush() {
                self.outputs.push_back(Output::Send { peer: *peer, message });
            }
            if session.their_check == Some(total) && session.meet(total) {
                self.outputs.push_back(Output::PeerSynced(*peer));
            }
        }
        self.shelf.trim(self.writing.len(), |key| self.writing.is_busy(key));
    }

    /// What the index says, with what is being written.
    fn entry(&self, key: &DocumentKey) -> Option<Cow<'_, Entry>> {
        self.writing.entry(key).map(Cow::Borrowed).or_else(|| self.index.get(key))
    }

    fn announced(&mut self, key: &DocumentKey, kind: &DocumentKind) -> Vec<ChangeHash> {
        let skeleton = self.shelf.skeleton(kind);
        self.index.heads(key, skeleton)
    }

    /// Whether a document of this kind may have this id.
    fn fits(&self, key: &DocumentKey, kind: &DocumentKind) -> bool {
        let right = match self.singletons.get(&key.document) {
            Some(own) => own == kind,
            None => !kind.is_singleton(),
        };
        let written = self.writing.entry(key).map(|entry| &entry.kind);
        let known = written.or_else(|| self.index.see(key).map(Seen::kind));
        right && key.epoch == 0 && known.is_none_or(|known| known == kind)
    }

    /// Makes sure that a document is loaded, with what is being written of it. Sets it aside if its
    /// rows are damaged, and gives the reason.
    fn load(
        &mut self,
        key: &DocumentKey,
        kind: &DocumentKind,
        rows: &dyn Rows,
    ) -> Result<(), String> {
        let pending = self.writing.pending(key);
        self.shelf.load(key, kind, pending, rows).map_err(|error| {
            self.set_aside(key, error.to_string());
            error.to_string()
        })?;
        if let Some(loaded) = self.shelf.get_mut(key) {
            for (vouch, signed) in self.adoptions.of(key) {
                let voucher = (vouch.actor(), signed.author);
                loaded.vouches.insert(voucher, (vouch.clone(), signed.clone()));
            }
        }
        Ok(())
    }

    fn set_aside(&mut self, key: &DocumentKey, reason: String) {
        tracing::warn!(document = %key.document, reason, "document set aside");
        for session in self.sessions.values_mut() {
            if session.exchanges.contains_key(key) {
                session.let_rest(*key);
            }
        }
        if self.shelf.set_aside(key, reason.clone()) {
            self.outputs.push_back(Output::SetAside { document: key.document, reason });
        }
    }

    /// Adds what came from a peer to the batch of this input.
    fn write_remote(
        &mut self,
        key: &DocumentKey,
        entry: Entry,
        changes: Vec<Change>,
        writes: Vec<Write>,
    ) {
        let announced = self.announced(key, &entry.kind);
        self.writing.write_remote(key, announced, entry, changes, writes);
    }

    fn refuse(&mut self, peer: &DeviceId, key: &DocumentKey, why: &str) {
        self.violation(*peer, format!("document {}: {why}", key.document));
        if let Some(session) = self.sessions.get_mut(peer) {
            session.let_rest(*key);
        }
    }

    fn violation(&mut self, peer: DeviceId, reason: String) {
        tracing::debug!(%peer, reason, "refused");
        self.refused += 1;
    }
}

#[cfg(test)]
mod tests;

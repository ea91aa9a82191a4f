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

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ed25519_dalek::SigningKey;
use thiserror::Error;
use weft_protocol::{
    codec,
    document::{
        CHANGE_BYTES_MAX, ChangeHash, Clock, DocumentKey, DocumentKind, StartNonce,
        TOMBSTONE_BYTES_MAX, Tombstone, Vouch,
    },
    id::{ActorId, DeviceId, DocumentId, FabricId},
    row::{Durability, ReadError, Row, Rows, Table, Write},
    signed::{Domain, Signed},
    sync::{Chunk, Summary, SyncMessage},
    time::{Now, WallTime},
    value::Value,
};

use crate::document::{Change, Document, DocumentError, Exchange, exchange::Next};

mod index;
mod parking;
mod session;
mod vouching;

use index::{Entry, Index};
use parking::Parking;
use session::{Assembled, EXCHANGES_ASKED_MAX, EXCHANGES_MAX, Session, Want};
use vouching::Vouches;

/// After so many rows of changes a document is saved as one row.
const CHANGE_ROWS_MAX: u64 = 64;

/// How many documents that are not busy stay loaded. A small one takes 17 kB and 20 µs to load; long
/// histories take longer, and are what this is for.
const LOADED_MAX: usize = 32;

/// How many tombstones of a busy document are kept until it is free. Others come again when the next
/// session compares.
const TOMBSTONES_WAITING_MAX: usize = 16;

/// From so many changes on, what a peer has of a document is remembered: below, the Bloom filter of
/// all changes is no longer than a hash.
const SHARED_HEADS_CHANGES_MIN: u64 = 64;

/// Who may do what, as trust says at this moment.
pub trait Members {
    /// Whether changes of `device` to this document are to be applied.
    fn may_write(&self, device: &DeviceId, document: &DocumentId, kind: &DocumentKind) -> bool;

    /// Whether `device` was revoked.
    fn is_revoked(&self, device: &DeviceId) -> bool;
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

/// Names a batch of writes, made here or come from peers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

/// What happens to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// A stream of `/weft/sync/1` to a member is open on both sides.
    Opened(DeviceId),
    /// It ended.
    Closed(DeviceId),
    /// A message came on it.
    Message(DeviceId, SyncMessage),
    /// A batch, from [`Output::Persist`] or [`Replica::prepare`], is persisted.
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

/// A change that a step makes.
#[derive(Clone, PartialEq, Debug)]
pub enum Edit {
    /// A new document. One that is there with the same content is left as it is.
    Create {
        /// Its id, which derives from the run and the step.
        id: DocumentId,
        /// What it is.
        kind: DocumentKind,
        /// A map of its fields.
        content: Value,
    },
    /// Sets fields, leaving others; a null removes one. Singletons need no `Create`.
    Update {
        /// Which.
        id: DocumentId,
        /// A map of the fields to set.
        content: Value,
    },
    /// Deletes a document.
    Delete {
        /// Which.
        id: DocumentId,
    },
}

impl Edit {
    /// The document that is edited.
    pub fn document(&self) -> DocumentId {
        match self {
            Self::Create { id, .. } | Self::Update { id, .. } | Self::Delete { id } => *id,
        }
    }
}

/// Edits as rows, to be written in one transaction with whatever the caller adds.
///
/// [`Input::Persisted`] or [`Input::PersistFailed`] with the ticket must follow. Batches that are prepared
/// meanwhile for the same documents repeat these writes, so that each stands by itself: should this one
/// fail and one of those not, its edits are there all the same.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Prepared {
    /// Names the batch.
    pub ticket: Ticket,
    /// What to write. Empty if nothing differed.
    pub writes: Vec<Write>,
    /// The ids of [`Edit::Create`], in order.
    pub created: Vec<DocumentId>,
}

/// Why edits were not made. None of them was.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum EditError {
    /// There is no such document.
    #[error("edit document {0}: there is none")]
    NotFound(DocumentId),
    /// There is one with other content or of another kind.
    #[error("create document {0}: there is another")]
    Exists(DocumentId),
    /// It was there and was deleted.
    #[error("create document {0}: it was deleted")]
    Deleted(DocumentId),
    /// It was set aside.
    #[error("edit document {id}: it is set aside: {reason}")]
    SetAside {
        /// Which.
        id: DocumentId,
        /// Why.
        reason: String,
    },
    /// The id is that of a singleton of another kind, or a singleton would be deleted.
    #[error("edit document {0}: the fabric has exactly one of its kind")]
    Singleton(DocumentId),
    /// The change does not fit into a message; larger things are blobs.
    #[error("edit document {0}: over {CHANGE_BYTES_MAX} bytes")]
    TooLarge(DocumentId),
    /// The content is no map, or Automerge refused.
    #[error("edit document {id}")]
    Document {
        /// Which.
        id: DocumentId,
        /// Why.
        source: DocumentError,
    },
}

/// A document as it is listed.
#[derive(Clone, PartialEq, Debug)]
pub struct Listed {
    /// Which.
    pub id: DocumentId,
    /// A map of its fields.
    pub content: Value,
    /// When its newest change was made, by its author's clock.
    pub modified: WallTime,
    /// The device that made it.
    pub author: Option<DeviceId>,
    /// Whether somebody deleted it while somebody else wrote to it.
    pub revived: bool,
}

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

#[derive(Debug)]
struct Loaded {
    document: Document,
    vouches: Vouches,
    used: u64,
}

/// A document of which writes are under way.
#[derive(Debug)]
struct Busy {
    /// The heads that peers know of.
    announced: Vec<ChangeHash>,
    /// In the order in which they are persisted.
    pending: Vec<Pending>,
}

/// What one batch does to a document.
#[derive(Debug)]
struct Pending {
    /// None if it failed and a later one repeats it.
    ticket: Option<Ticket>,
    remote: bool,
    entry: Entry,
    /// Not in the rows yet.
    changes: Vec<Change>,
    writes: Vec<Write>,
}

/// A tombstone whose signature was checked.
type Grave = (Tombstone, Signed);

/// Writes that are being gathered while an input is handled.
#[derive(Debug, Default)]
struct Batch {
    ticket: Option<Ticket>,
    writes: Vec<Write>,
    documents: bool,
}

/// What one `prepare` does to a document.
#[derive(Debug)]
struct Draft {
    entry: Entry,
    changes: Vec<Change>,
    deleted: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Replica {
    me: DeviceId,
    signing: SigningKey,
    start: StartNonce,
    actor: ActorId,
    singletons: BTreeMap<DocumentId, DocumentKind>,
    index: Index,
    parking: Parking,
    skeletons: BTreeMap<DocumentKind, ChangeHash>,
    loaded: BTreeMap<DocumentKey, Loaded>,
    busy: BTreeMap<DocumentKey, Busy>,
    aside: BTreeMap<DocumentKey, String>,
    review_when_free: BTreeMap<DocumentKey, DocumentKind>,
    graves_when_free: BTreeMap<DocumentKey, Vec<(DeviceId, Vec<Grave>, bool)>>,
    sessions: BTreeMap<DeviceId, Session>,
    batch: Batch,
    tickets: u64,
    /// Which documents a ticket is about.
    written: BTreeMap<Ticket, Vec<DocumentKey>>,
    outputs: VecDeque<Output>,
    uses: u64,
    loads: u64,
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
        let me = DeviceId::from_bytes(signing.verifying_key().to_bytes());
        let singletons = DocumentKind::SINGLETONS
            .into_iter()
            .map(|kind| (DocumentId::singleton(fabric, &kind), kind))
            .collect();
        Ok(Self {
            me,
            signing,
            start,
            actor: ActorId::of(&me, &start),
            singletons,
            index: Index::load(rows)?,
            parking: Parking::load(rows)?,
            skeletons: BTreeMap::new(),
            loaded: BTreeMap::new(),
            busy: BTreeMap::new(),
            aside: BTreeMap::new(),
            review_when_free: BTreeMap::new(),
            graves_when_free: BTreeMap::new(),
            sessions: BTreeMap::new(),
            batch: Batch::default(),
            tickets: 0,
            written: BTreeMap::new(),
            outputs: VecDeque::new(),
            uses: 0,
            loads: 0,
            refused: 0,
        })
    }

    /// Takes an input.
    pub fn handle_input(&mut self, input: Input, context: &Context<'_>) {
        match input {
            Input::Opened(peer) => {
                let mut session = Session::new();
                if self.me < peer {
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

    /// Makes edits, as one change and one vouch for each document.
    ///
    /// # Errors
    ///
    /// One of them cannot be made; then none is.
    pub fn prepare(
        &mut self,
        edits: Vec<Edit>,
        context: &Context<'_>,
    ) -> Result<Prepared, EditError> {
        let mut drafts = BTreeMap::new();
        let touched: Vec<_> =
            edits.iter().map(|edit| DocumentKey::first(edit.document())).collect();
        let created = edits
            .iter()
            .filter(|edit| matches!(edit, Edit::Create { .. }))
            .map(Edit::document)
            .collect();
        let written = edits
            .into_iter()
            .try_for_each(|edit| self.draft(edit, &mut drafts, context))
            .and_then(|()| {
                drafts.retain(|_, draft| draft.deleted || !draft.changes.is_empty());
                let mut written = Vec::new();
                for (key, draft) in &mut drafts {
                    written.push(self.write_draft(key, draft)?);
                }
                Ok(written)
            });
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                for key in touched {
                    self.loaded.remove(&key);
                }
                return Err(error);
            }
        };
        let ticket = self.ticket();
        self.written.insert(ticket, drafts.keys().copied().collect());
        let mut writes = Vec::new();
        for ((key, draft), own) in drafts.into_iter().zip(written) {
            if draft.deleted {
                self.loaded.remove(&key);
            }
            let announced = self.announced(&key, &draft.entry.kind);
            let busy = self.busy.entry(key).or_insert(Busy { announced, pending: Vec::new() });
            writes.extend(busy.pending.iter().flat_map(|pending| pending.writes.iter().cloned()));
            writes.extend(own.iter().cloned());
            busy.pending.push(Pending {
                ticket: Some(ticket),
                remote: false,
                entry: draft.entry,
                changes: draft.changes,
                writes: own,
            });
        }
        Ok(Prepared { ticket, writes, created })
    }

    /// The content of a document; none if there is no such document.
    ///
    /// # Errors
    ///
    /// Its rows are damaged.
    pub fn read(&self, id: &DocumentId, rows: &dyn Rows) -> Result<Option<Value>, LoadError> {
        let key = DocumentKey::first(*id);
        let Some(entry) = self.index.get(&key).filter(|entry| !entry.state.is_deleted()) else {
            return Ok(None);
        };
        Ok(Some(self.read_content(&key, &entry.kind, rows)?))
    }

    fn read_content(
        &self,
        key: &DocumentKey,
        kind: &DocumentKind,
        rows: &dyn Rows,
    ) -> Result<Value, LoadError> {
        match self.loaded.get(key) {
            Some(loaded) if !self.busy.contains_key(key) => Ok(loaded.document.content()?),
            Some(_) | None => Ok(self.load_rows(key, kind, rows)?.0.content()?),
        }
    }

    /// Documents of a kind, the newest first. `query` is words that must all stand in the content,
    /// without regard to case. Documents that cannot be read are left out.
    pub fn list(
        &self,
        kind: &DocumentKind,
        query: &str,
        limit: usize,
        rows: &dyn Rows,
    ) -> Vec<Listed> {
        let words: Vec<_> = query.split_whitespace().map(str::to_lowercase).collect();
        let mut entries: Vec<_> = self
            .index
            .iter()
            .filter(|(_, entry)| entry.kind == *kind && !entry.state.is_deleted())
            .collect();
        entries.sort_by_key(|(key, entry)| (std::cmp::Reverse(entry.modified), **key));
        entries
            .into_iter()
            .filter_map(|(key, entry)| {
                let content = self.read_content(key, kind, rows).ok()?;
                let text = if words.is_empty() { String::new() } else { text(&content) };
                words.iter().all(|word| text.contains(word)).then(|| Listed {
                    id: key.document,
                    content,
                    modified: entry.modified,
                    author: entry.author,
                    revived: entry.state.is_revived(),
                })
            })
            .take(limit)
            .collect()
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.index.iter().filter(|(_, entry)| !entry.state.is_deleted()).count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The kind of a document that is there.
    pub fn kind(&self, id: &DocumentId) -> Option<&DocumentKind> {
        let entry = self.index.get(&DocumentKey::first(*id))?;
        (!entry.state.is_deleted()).then_some(&entry.kind)
    }

    /// The newest changes of a document, ordered; none if there is no such document.
    pub fn heads(&self, id: &DocumentId) -> Vec<ChangeHash> {
        let entry = self.index.get(&DocumentKey::first(*id));
        entry.map(|entry| entry.state.heads.clone()).unwrap_or_default()
    }

    /// Whether a connected peer is known to have what is here of a document, persisted.
    pub fn has_latest(&self, peer: &DeviceId, id: &DocumentId) -> bool {
        let key = DocumentKey::first(*id);
        !self.busy.contains_key(&key)
            && self.sessions.get(peer).is_some_and(|session| session.is_settled(&key))
    }

    /// A hash of all documents' states: equal replicas have equal ones.
    pub fn fingerprint(&self) -> weft_protocol::sync::Fingerprint {
        self.index.total()
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        Counts {
            loads: self.loads,
            refused: self.refused,
            parked: self.parking.len(),
            dropped: self.parking.dropped(),
        }
    }

    /// Vouches in the place of a device that is being revoked for what it wrote and this node has
    /// applied, so that nobody's own edits on top are lost. To be written in the transaction that
    /// stores the `Revoke`.
    ///
    /// # Errors
    ///
    /// A row of the vouches is damaged.
    pub fn revoked(
        &mut self,
        device: &DeviceId,
        context: &Context<'_>,
    ) -> Result<Vec<Write>, ReadError> {
        let mut writes = Vec::new();
        for (_, value) in context.rows.scan_table(Table::Vouch)? {
            let (vouch, signed) = vouching::decode(&value)?;
            if vouch.device != *device || signed.author != *device {
                continue;
            }
            let adopted = Signed::new(Domain::Vouch, &vouch, &self.signing);
            writes.push(vouching::write(&vouch, &adopted));
            if let Some(loaded) = self.loaded.get_mut(&vouch.key) {
                loaded.vouches.insert((vouch.actor(), self.me), (vouch, adopted));
            }
        }
        Ok(writes)
    }

    // Edits.

    fn draft(
        &mut self,
        edit: Edit,
        drafts: &mut BTreeMap<DocumentKey, Draft>,
        context: &Context<'_>,
    ) -> Result<(), EditError> {
        let id = edit.document();
        let key = DocumentKey::first(id);
        if let Some(reason) = self.aside.get(&key) {
            return Err(EditError::SetAside { id, reason: reason.clone() });
        }
        let there = match drafts.get(&key) {
            Some(draft) => Some(&draft.entry),
            None => self.entry(&key),
        };
        let singleton = self.singletons.get(&id).cloned();
        let deleted = there.is_some_and(|entry| entry.state.is_deleted());
        let kind = match &edit {
            Edit::Create { kind, .. } => {
                if singleton.as_ref().is_some_and(|own| own != kind)
                    || (singleton.is_none() && kind.is_singleton())
                {
                    return Err(EditError::Singleton(id));
                }
                if deleted {
                    return Err(EditError::Deleted(id));
                }
                if there.is_some_and(|entry| entry.kind != *kind) {
                    return Err(EditError::Exists(id));
                }
                kind.clone()
            }
            Edit::Update { .. } | Edit::Delete { .. } => match there {
                Some(entry) if !deleted => entry.kind.clone(),
                Some(_) | None => singleton.clone().ok_or(EditError::NotFound(id))?,
            },
        };
        let is_new = there.is_none();
        let base = there.cloned().unwrap_or_else(|| Entry::new(kind.clone()));
        self.load(&key, &kind, context.rows)
            .map_err(|reason| EditError::SetAside { id, reason })?;
        let actor = ActorId::of(&self.me, &self.start_for(&key, &base.state.buried));
        let document = &mut self.loaded.get_mut(&key).expect("it was just loaded").document;
        document.set_actor(actor);
        let failed = |source| EditError::Document { id, source };
        let draft =
            drafts.entry(key).or_insert(Draft { entry: base, changes: vec![], deleted: false });
        match edit {
            Edit::Create { content, .. } if !is_new => {
                if document.content().map_err(failed)? != without_nulls(content) {
                    return Err(EditError::Exists(id));
                }
            }
            Edit::Create { content, .. } | Edit::Update { content, .. } => {
                if let Some(change) = document.edit(&content, context.now.wall).map_err(failed)? {
                    if change.to_chunk().0.len() > CHANGE_BYTES_MAX {
                        return Err(EditError::TooLarge(id));
                    }
                    draft.changes.push(change);
                    draft.entry.state.heads = document.heads();
                }
            }
            Edit::Delete { .. } => {
                if singleton.is_some() {
                    return Err(EditError::Singleton(id));
                }
                let mut buried = document.clock().map_err(failed)?;
                buried.join(&draft.entry.state.buried);
                let time = context.now.wall;
                let tombstone = Tombstone { key, kind, buried: buried.clone(), time };
                let signed = Signed::new(Domain::Tombstone, &tombstone, &self.signing);
                if signed.bytes.len() > TOMBSTONE_BYTES_MAX {
                    return Err(EditError::TooLarge(id));
                }
                draft.entry.state.heads.clear();
                draft.entry.state.buried = buried;
                draft.entry.graves = vec![signed];
                draft.entry.modified = time;
                draft.entry.author = Some(self.me);
                draft.deleted = true;
            }
        }
        Ok(())
    }

    /// The start nonce under which a document is edited. One that was deleted and came back may lack
    /// this start's changes from before, whose numbers must not be given again.
    fn start_for(&self, key: &DocumentKey, buried: &Clock) -> StartNonce {
        if buried.0.is_empty() {
            return self.start;
        }
        let mut hasher =
            blake3::Hasher::new_derive_key("weft 2026 start nonce after a deletion v1");
        hasher.update(&self.start.0).update(&key.to_bytes()).update(&codec::encode(buried));
        let mut nonce = [0; 16];
        hasher.finalize_xof().fill(&mut nonce);
        StartNonce(nonce)
    }

    fn write_draft(
        &mut self,
        key: &DocumentKey,
        draft: &mut Draft,
    ) -> Result<Vec<Write>, EditError> {
        if draft.deleted {
            let mut writes = self.write_burial(key, &mut draft.entry);
            writes.push(draft.entry.write(key));
            return Ok(writes);
        }
        let Some(newest) = draft.changes.last() else { return Ok(Vec::new()) };
        let vouch = Vouch {
            key: *key,
            device: self.me,
            start: self.start_for(key, &draft.entry.state.buried),
            seq: newest.seq(),
            hash: newest.hash(),
        };
        let signed = Signed::new(Domain::Vouch, &vouch, &self.signing);
        let mut writes = vec![vouching::write(&vouch, &signed)];
        let loaded = self.loaded.get_mut(key).expect("an edited document is loaded");
        loaded.vouches.insert((vouch.actor(), self.me), (vouch, signed));
        let recorded = self.record(key, &mut draft.entry, &draft.changes);
        writes.extend(recorded.map_err(|source| EditError::Document { id: key.document, source })?);
        Ok(writes)
    }

    /// The rows of a document that was deleted.
    fn write_burial(&mut self, key: &DocumentKey, entry: &mut Entry) -> Vec<Write> {
        let scope = key.to_bytes();
        let mut writes = vec![Write::Delete(saved_row(key))];
        writes.extend(
            (0..entry.rows).map(|row| Write::Delete(Row::numbered(Table::Change, &scope, row))),
        );
        if let Some(loaded) = self.loaded.get(key) {
            let vouchers = loaded.vouches.keys();
            writes.extend(vouchers.map(|voucher| Write::Delete(vouching::row(key, voucher))));
        }
        self.parking.clear(key, &mut writes);
        (entry.rows, entry.changes) = (0, 0);
        writes
    }

    /// The rows for changes that were just applied, and what the index is to say.
    fn record(
        &self,
        key: &DocumentKey,
        entry: &mut Entry,
        changes: &[Change],
    ) -> Result<Vec<Write>, DocumentError> {
        let loaded = self.loaded.get(key).expect("a recorded document is loaded");
        let scope = key.to_bytes();
        let mut writes = Vec::new();
        if entry.rows + 1 >= CHANGE_ROWS_MAX {
            writes.push(Write::Put(saved_row(key), loaded.document.save()?));
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
        let (modified, actor) = loaded.document.newest()?;
        entry.state.heads = loaded.document.heads();
        entry.changes += changes.len() as u64;
        entry.modified = modified;
        entry.author = loaded
            .vouches
            .iter()
            .find(|((of, _), _)| *of == actor)
            .map(|(_, (vouch, _))| vouch.device);
        writes.push(entry.write(key));
        Ok(writes)
    }

    // Loading.

    /// What the index says, with what is being written.
    fn entry(&self, key: &DocumentKey) -> Option<&Entry> {
        let pending = self.busy.get(key).and_then(|busy| busy.pending.last());
        pending.map(|pending| &pending.entry).or_else(|| self.index.get(key))
    }

    fn announced(&mut self, key: &DocumentKey, kind: &DocumentKind) -> Vec<ChangeHash> {
        let skeleton = self.skeleton(kind);
        self.index.heads(key, skeleton)
    }

    fn skeleton(&mut self, kind: &DocumentKind) -> ChangeHash {
        *self.skeletons.entry(kind.clone()).or_insert_with(|| {
            Document::skeleton(kind).map_or(ChangeHash([0; 32]), |change| change.hash())
        })
    }

    fn load_rows(
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

    /// Makes sure that a document is loaded, with what is being written of it. Sets it aside if its
    /// rows are damaged, and gives the reason.
    fn load(
        &mut self,
        key: &DocumentKey,
        kind: &DocumentKind,
        rows: &dyn Rows,
    ) -> Result<(), String> {
        self.uses += 1;
        if let Some(loaded) = self.loaded.get_mut(key) {
            loaded.used = self.uses;
            return Ok(());
        }
        self.loads += 1;
        let mut loaded = self.load_rows(key, kind, rows);
        for pending in self.busy.get(key).into_iter().flat_map(|busy| &busy.pending) {
            if let Ok((document, _)) = &mut loaded
                && let Err(error) = document.apply(pending.changes.clone())
            {
                loaded = Err(error.into());
            }
        }
        match loaded {
            Ok((document, vouches)) => {
                let loaded = Loaded { document, vouches, used: self.uses };
                self.loaded.insert(*key, loaded);
                Ok(())
            }
            Err(error) => {
                self.set_aside(key, error.to_string());
                Err(error.to_string())
            }
        }
    }

    fn set_aside(&mut self, key: &DocumentKey, reason: String) {
        tracing::warn!(document = %key.document, reason, "document set aside");
        self.loaded.remove(key);
        for session in self.sessions.values_mut() {
            if session.exchanges.contains_key(key) {
                session.let_rest(*key);
            }
        }
        if self.aside.insert(*key, reason.clone()).is_none() {
            self.outputs.push_back(Output::SetAside { document: key.document, reason });
        }
    }

    // Writing.

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn batch_ticket(&mut self) -> Ticket {
        if let Some(ticket) = self.batch.ticket {
            return ticket;
        }
        let ticket = self.ticket();
        self.batch.ticket = Some(ticket);
        ticket
    }

    /// Adds what came from a peer to the batch of this input.
    fn write_remote(
        &mut self,
        key: &DocumentKey,
        entry: Entry,
        changes: Vec<Change>,
        writes: Vec<Write>,
    ) {
        let ticket = self.batch_ticket();
        let announced = self.announced(key, &entry.kind);
        self.batch.documents = true;
        self.batch.writes.extend(writes.iter().cloned());
        self.written.entry(ticket).or_default().push(*key);
        let busy = self.busy.entry(*key).or_insert(Busy { announced, pending: Vec::new() });
        busy.pending.push(Pending { ticket: Some(ticket), remote: true, entry, changes, writes });
    }

    fn on_persisted(&mut self, ticket: Ticket, context: &Context<'_>) {
        for key in self.written.remove(&ticket).unwrap_or_default() {
            let Some(busy) = self.busy.get_mut(&key) else { continue };
            let Some(at) = busy.pending.iter().position(|it| it.ticket == Some(ticket)) else {
                continue;
            };
            let Some(done) = busy.pending.drain(..=at).next_back() else { continue };
            let Pending { entry, remote, .. } = done;
            let kind = entry.kind.clone();
            self.index.insert(key, entry);
            self.outputs.push_back(Output::Changed { document: key.document, kind, remote });
            self.free(&key, context);
        }
    }

    fn on_persist_failed(&mut self, ticket: Ticket, context: &Context<'_>) {
        for key in self.written.remove(&ticket).unwrap_or_default() {
            let Some(busy) = self.busy.get_mut(&key) else { continue };
            for pending in busy.pending.iter_mut().filter(|it| it.ticket == Some(ticket)) {
                pending.ticket = None;
            }
            let before = busy.pending.len();
            while busy.pending.last().is_some_and(|last| last.ticket.is_none()) {
                busy.pending.pop();
            }
            if busy.pending.len() < before {
                self.loaded.remove(&key);
                for session in self.sessions.values_mut() {
                    if session.exchanges.contains_key(&key) {
                        session.let_rest(key);
                    }
                }
            }
            self.free(&key, context);
        }
    }

    /// Announces a document when nothing of it is under way any more, and takes its messages.
    fn free(&mut self, key: &DocumentKey, context: &Context<'_>) {
        if self.busy.get(key).is_none_or(|busy| !busy.pending.is_empty()) {
            return;
        }
        let Some(busy) = self.busy.remove(key) else { return };
        self.announce(key, &busy.announced, context);
        for (peer, graves, gone) in self.graves_when_free.remove(key).unwrap_or_default() {
            self.on_graves(peer, *key, graves, gone, context);
        }
        if let Some(kind) = self.review_when_free.remove(key) {
            self.review(key, &kind, context);
        }
        let peers: Vec<_> = self.sessions.keys().copied().collect();
        for peer in peers {
            while !self.busy.contains_key(key) {
                let session = self.sessions.get_mut(&peer);
                let Some(message) = session.and_then(|session| session.take_deferred(key)) else {
                    break;
                };
                self.on_document(peer, message, context);
            }
        }
    }

    // Sessions.

    fn on_message(&mut self, peer: DeviceId, message: SyncMessage, context: &Context<'_>) {
        if !self.sessions.contains_key(&peer) {
            return;
        }
        match message {
            SyncMessage::Ranges(ranges) => {
                for range in ranges {
                    self.on_range(&peer, range);
                }
            }
            SyncMessage::Documents(messages) => {
                for message in messages {
                    let key = message.key;
                    let Some(session) = self.sessions.get_mut(&peer) else { return };
                    match session.assemble(message) {
                        Ok(Some(message)) => self.on_document(peer, message, context),
                        Ok(None) => {}
                        Err(error) => {
                            self.refuse(&peer, &key, &error.to_string());
                        }
                    }
                }
            }
            SyncMessage::Tombstones { tombstones, gone } => {
                let gone: BTreeSet<_> = gone.into_iter().collect();
                let mut graves: BTreeMap<DocumentKey, Vec<Grave>> = BTreeMap::new();
                for signed in tombstones {
                    match signed.open::<Tombstone>(Domain::Tombstone, TOMBSTONE_BYTES_MAX) {
                        Ok(tombstone) => {
                            graves.entry(tombstone.key).or_default().push((tombstone, signed));
                        }
                        Err(error) => self.violation(peer, error.to_string()),
                    }
                }
                for (key, graves) in graves {
                    self.on_graves(peer, key, graves, gone.contains(&key), context);
                }
            }
            SyncMessage::Rest(keys) => {
                let Some(session) = self.sessions.get_mut(&peer) else { return };
                for key in keys.into_iter().take(index::DIFFERING_MAX) {
                    if session.exchanges.remove(&key).is_some() {
                        session.differs.insert(key);
                    }
                }
            }
        }
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

    fn on_range(&mut self, peer: &DeviceId, range: weft_protocol::sync::Range) {
        let Some(session) = self.sessions.get_mut(peer) else { return };
        if let Summary::Check(total) = range.summary {
            session.their_check = Some(total);
            return;
        }
        if !session.resolve(&range) {
            return self.violation(*peer, "a range answers no question".to_owned());
        }
        let compared = self.index.compare(range);
        session.say_ranges(compared.replies);
        session.differ(compared.differ);
        for (key, kind, lacks) in compared.start {
            if !session.exchanges.contains_key(&key) {
                session.wanted.insert(key, Want { kind, lacks });
            }
        }
    }

    /// Whether a document of this kind may have this id.
    fn fits(&self, key: &DocumentKey, kind: &DocumentKind) -> bool {
        let right = match self.singletons.get(&key.document) {
            Some(own) => own == kind,
            None => !kind.is_singleton(),
        };
        right && key.epoch == 0 && self.entry(key).is_none_or(|entry| entry.kind == *kind)
    }

    fn start(&mut self, peer: DeviceId, key: DocumentKey, want: Want, context: &Context<'_>) {
        if self.aside.contains_key(&key) || !self.fits(&key, &want.kind) {
            self.refuse(&peer, &key, "its kind is another, or it is set aside");
            return;
        }
        let skeleton = self.skeleton(&want.kind);
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if let Some(entry) = self.index.get(&key) {
            session.say_graves(&key, entry);
            if entry.state.is_deleted() {
                session.differs.insert(key);
                return;
            }
        }
        let exchange = if want.lacks {
            Exchange::known(&[skeleton], false)
        } else {
            Exchange::unknown(&shared_heads(&peer, &key, context.rows))
        };
        session.exchanges.insert(key, exchange);
        self.advance(peer, key, &want.kind, context);
    }

    /// What the peer is known to have of a document on which nothing is under way.
    fn assume(
        &mut self,
        peer: &DeviceId,
        key: &DocumentKey,
        kind: &DocumentKind,
        heads: &[ChangeHash],
        context: &Context<'_>,
    ) -> Exchange {
        let skeleton = self.skeleton(kind);
        let Some(session) = self.sessions.get_mut(peer) else { return Exchange::unknown(&[]) };
        if session.lacks.remove(key) {
            Exchange::known(&[skeleton], false)
        } else if session.is_settled(key) {
            Exchange::known(heads, true)
        } else {
            session.wanted.remove(key);
            Exchange::unknown(&shared_heads(peer, key, context.rows))
        }
    }

    /// Tells all peers of what is new.
    fn announce(&mut self, key: &DocumentKey, announced: &[ChangeHash], context: &Context<'_>) {
        let Some(entry) = self.index.get(key).cloned() else { return };
        let peers: Vec<_> = self.sessions.keys().copied().collect();
        for peer in peers {
            let Some(session) = self.sessions.get_mut(&peer) else { continue };
            session.say_graves(key, &entry);
            if entry.state.is_deleted() {
                session.exchanges.remove(key);
                session.differs.remove(key);
                continue;
            }
            if !session.exchanges.contains_key(key) {
                if session.exchanges.len() >= EXCHANGES_MAX {
                    session.wanted.insert(*key, Want { kind: entry.kind.clone(), lacks: false });
                    continue;
                }
                let exchange = self.assume(&peer, key, &entry.kind, announced, context);
                if let Some(session) = self.sessions.get_mut(&peer) {
                    session.exchanges.insert(*key, exchange);
                }
            }
            self.advance(peer, *key, &entry.kind, context);
        }
    }

    /// Says the next thing about a document to a peer, if there is one and it may be said.
    fn advance(
        &mut self,
        peer: DeviceId,
        key: DocumentKey,
        kind: &DocumentKind,
        context: &Context<'_>,
    ) {
        if self.busy.contains_key(&key) || self.load(&key, kind, context.rows).is_err() {
            return;
        }
        let (Some(loaded), Some(session)) = (self.loaded.get(&key), self.sessions.get_mut(&peer))
        else {
            return;
        };
        let document = &loaded.document;
        let (held, lacking) = self.parking.needs(&key, |hash| document.has(hash));
        while let Some(exchange) = session.exchanges.get_mut(&key) {
            match document.next_message(exchange, &held, &lacking) {
                Ok(Next::Say(advance, changes)) => {
                    let actors: BTreeSet<_> = changes.iter().map(Change::actor).collect();
                    let vouches = loaded
                        .vouches
                        .iter()
                        .filter(|((actor, _), _)| actors.contains(actor))
                        .map(|(_, (_, signed))| signed.clone())
                        .collect();
                    session.say(key, kind, &changes, vouches, advance);
                }
                Ok(Next::Wait) => return,
                Ok(Next::Stuck) => session.let_rest(key),
                Ok(Next::Settled) => {
                    let shared = exchange.shared_heads();
                    session.settle(&key);
                    let entry = self.index.get(&key);
                    let is_long =
                        entry.is_some_and(|entry| entry.changes >= SHARED_HEADS_CHANGES_MIN);
                    if is_long && shared_heads(&peer, &key, context.rows) != shared {
                        let row = shared_row(&peer, &key);
                        self.write_aside(vec![Write::Put(row, codec::encode(&shared))]);
                    }
                    return;
                }
                Err(error) => return self.set_aside(&key, error.to_string()),
            }
        }
    }

    fn on_document(&mut self, peer: DeviceId, message: Assembled, context: &Context<'_>) {
        let (key, kind) = (message.key, message.kind.clone());
        if self.aside.contains_key(&key) || !self.fits(&key, &kind) {
            self.refuse(&peer, &key, "its kind is another, or it is set aside");
            return;
        }
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if self.busy.contains_key(&key) {
            if !session.defer(message) {
                self.refuse(&peer, &key, "too many messages wait");
            }
            return;
        }
        if let Some(entry) = self.index.get(&key) {
            session.say_graves(&key, entry);
            if entry.state.is_deleted() && message.changes.is_empty() {
                // Who has more than what is buried will send all of it.
                session.exchanges.remove(&key);
                if message.advance.asks {
                    session.say_gone(&key, entry);
                }
                return;
            }
        }
        let is_new = !session.exchanges.contains_key(&key);
        if is_new && session.exchanges.len() >= EXCHANGES_ASKED_MAX {
            self.refuse(&peer, &key, "too many documents at a time");
            return;
        }
        if is_new {
            let heads = self.announced(&key, &kind);
            let exchange = self.assume(&peer, &key, &kind, &heads, context);
            if let Some(session) = self.sessions.get_mut(&peer) {
                session.exchanges.insert(key, exchange);
            }
        }
        if self.load(&key, &kind, context.rows).is_err() {
            return;
        }
        if self.integrate(&key, &kind, Some((peer, message)), context) {
            self.advance(peer, key, &kind, context);
        }
    }

    /// Looks again at what is parked for a document.
    fn review(&mut self, key: &DocumentKey, kind: &DocumentKind, context: &Context<'_>) {
        if self.busy.contains_key(key) {
            self.review_when_free.insert(*key, kind.clone());
        } else if !self.aside.contains_key(key)
            && self.fits(key, kind)
            && self.load(key, kind, context.rows).is_ok()
        {
            self.integrate(key, kind, None, context);
        }
    }

    /// Applies what came and what is parked, as far as it is vouched for, and parks the rest. False if
    /// that failed, or the document stays deleted.
    fn integrate(
        &mut self,
        key: &DocumentKey,
        kind: &DocumentKind,
        incoming: Option<(DeviceId, Assembled)>,
        context: &Context<'_>,
    ) -> bool {
        let Some(loaded) = self.loaded.get_mut(key) else { return false };
        let document = &mut loaded.document;
        let mut violations = Vec::new();
        let mut pool = self.parking.changes(key);
        let mut vouches = self.parking.vouches(key);
        if let Some((peer, message)) = &incoming {
            for change in &message.changes {
                if !document.has(&change.hash()) {
                    pool.insert(change.hash(), change.clone());
                }
            }
            for signed in &message.vouches {
                if loaded.vouches.values().any(|(_, stored)| stored == signed) {
                    continue;
                }
                match vouching::open(signed, key) {
                    Ok(vouch) => {
                        let voucher = (vouch.actor(), signed.author);
                        if vouches.get(&voucher).is_none_or(|(old, _)| old.seq < vouch.seq) {
                            vouches.insert(voucher, (vouch, signed.clone()));
                        }
                    }
                    Err(error) => violations.push((*peer, error.to_string())),
                }
            }
        }
        let mut believed = Vouches::new();
        let mut refused = Vec::new();
        for (voucher, (vouch, signed)) in &vouches {
            let applied = document.change(&vouch.hash).ok().flatten();
            match vouching::names(vouch, pool.get(&vouch.hash).or(applied.as_ref())) {
                Err(error) => {
                    let peer = incoming.as_ref().map_or(signed.author, |(peer, _)| *peer);
                    violations.push((peer, error.to_string()));
                    refused.push(*voucher);
                }
                Ok(true) if vouching::is_believed(vouch, &signed.author, kind, context.members) => {
                    believed.insert(*voucher, (vouch.clone(), signed.clone()));
                }
                Ok(_) => {}
            }
        }
        for (peer, reason) in violations {
            tracing::debug!(%peer, reason, "vouch refused");
            self.refused += 1;
        }
        let admitted =
            vouching::admitted(document, &pool, believed.values().map(|(vouch, _)| vouch));

        let peer = incoming.as_ref().map(|(peer, _)| *peer);
        let session = peer.and_then(|peer| self.sessions.get_mut(&peer));
        let exchange = session.and_then(|session| session.exchanges.get_mut(key));
        let applied = match (&incoming, exchange) {
            (Some((_, message)), Some(exchange)) => {
                document.receive(exchange, &message.advance, admitted.clone())
            }
            _ => document.apply(admitted.clone()),
        };
        let mut writes = Vec::new();
        match applied {
            Ok(()) => {}
            Err(error @ DocumentError::Panicked { .. }) => {
                self.set_aside(key, error.to_string());
                return false;
            }
            Err(error) => {
                // What is in memory may be half of it. What was refused once will be again.
                self.loaded.remove(key);
                self.parking.release(key, &admitted, &refused, &mut writes);
                self.write_aside(writes);
                if let Some(peer) = peer {
                    self.refuse(&peer, key, &error.to_string());
                }
                return false;
            }
        }

        // Vouches are kept for what is applied; the rest waits.
        let mut done = refused;
        for (voucher, (vouch, signed)) in believed {
            if document.has(&vouch.hash) {
                done.push(voucher);
                if loaded.vouches.get(&voucher).is_none_or(|(old, _)| old.seq < vouch.seq) {
                    writes.push(vouching::write(&vouch, &signed));
                    loaded.vouches.insert(voucher, (vouch, signed));
                }
            }
        }
        let mut parked = Vec::new();
        if let Some((peer, message)) = &incoming {
            for change in &message.changes {
                if !document.has(&change.hash()) {
                    self.parking.park_change(*key, kind, change, *peer, &mut parked);
                }
            }
            for (voucher, (vouch, signed)) in &vouches {
                if !done.contains(voucher) && !document.has(&vouch.hash) {
                    self.parking.park_vouch(*key, kind, vouch, signed, *peer, &mut parked);
                }
            }
        }
        self.parking.release(key, &admitted, &done, &mut parked);
        self.write_aside(parked);
        if admitted.is_empty() {
            self.write_aside(writes);
            return true;
        }
        self.keep_applied(key, kind, peer, admitted, writes)
    }

    /// Records changes that came from a peer and were applied. False if they are all buried.
    fn keep_applied(
        &mut self,
        key: &DocumentKey,
        kind: &DocumentKind,
        peer: Option<DeviceId>,
        changes: Vec<Change>,
        mut writes: Vec<Write>,
    ) -> bool {
        let mut entry = self.index.get(key).cloned().unwrap_or_else(|| Entry::new(kind.clone()));
        if entry.state.is_deleted() && !entry.graves.is_empty() {
            let clock = self.loaded.get(key).map(|loaded| loaded.document.clock());
            if let Some(Ok(clock)) = clock
                && entry.state.buried.covers(&clock)
            {
                self.loaded.remove(key);
                if let Some(session) = peer.and_then(|peer| self.sessions.get_mut(&peer)) {
                    if self.parking.changes(key).is_empty() {
                        session.exchanges.remove(key);
                        session.say_gone(key, &entry);
                    } else {
                        session.let_rest(*key);
                    }
                }
                return false;
            }
        }
        match self.record(key, &mut entry, &changes) {
            Ok(recorded) => {
                writes.extend(recorded);
                self.write_remote(key, entry, changes, writes);
                true
            }
            Err(error) => {
                self.set_aside(key, error.to_string());
                false
            }
        }
    }

    /// Adds rows to the batch of this input that no document waits for.
    fn write_aside(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.batch_ticket();
            self.batch.writes.extend(writes);
        }
    }

    fn on_graves(
        &mut self,
        peer: DeviceId,
        key: DocumentKey,
        graves: Vec<Grave>,
        gone: bool,
        context: &Context<'_>,
    ) {
        if self.busy.contains_key(&key) {
            let waiting = self.graves_when_free.entry(key).or_default();
            if waiting.len() < TOMBSTONES_WAITING_MAX {
                waiting.push((peer, graves, gone));
            }
            return;
        }
        let mut heard = Clock::default();
        let mut entry = self.index.get(&key).cloned();
        let mut is_news = false;
        let mut newest = None;
        for (tombstone, signed) in graves {
            let (kind, author) = (tombstone.kind, signed.author);
            let allowed = !kind.is_singleton()
                && self.fits(&key, &kind)
                && context.members.may_write(&author, &key.document, &kind);
            if !allowed {
                self.violation(peer, format!("{author} may not delete document {}", key.document));
                continue;
            }
            heard.join(&tombstone.buried);
            let entry = entry.get_or_insert_with(|| Entry::new(kind));
            if !entry.graves.is_empty() && entry.state.buried.covers(&tombstone.buried) {
                continue;
            }
            is_news = true;
            newest = newest.max(Some((tombstone.time, author)));
            entry.graves.retain(|grave| {
                codec::decode::<Tombstone>(&grave.bytes, TOMBSTONE_BYTES_MAX)
                    .is_ok_and(|grave| !tombstone.buried.covers(&grave.buried))
            });
            entry.graves.push(signed);
            entry.state.buried.join(&tombstone.buried);
        }
        let (Some(mut entry), Some(session)) = (entry, self.sessions.get_mut(&peer)) else {
            return;
        };
        session.graves_heard(key, &heard);
        let mut writes = Vec::new();
        let was_live = !entry.state.is_deleted();
        if was_live && is_news {
            if self.load(&key, &entry.kind, context.rows).is_err() {
                return;
            }
            match self.loaded.get(&key).map(|loaded| loaded.document.clock()) {
                Some(Ok(clock)) if entry.state.buried.covers(&clock) => {
                    entry.state.heads.clear();
                    writes = self.write_burial(&key, &mut entry);
                    self.loaded.remove(&key);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return self.set_aside(&key, error.to_string()),
                None => return,
            }
        }
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let is_live = !entry.state.is_deleted();
        if is_live && gone {
            // It comes back there, from the beginning.
            session.exchanges.remove(&key);
            session.lacks.insert(key);
        } else if is_live || gone {
            session.say_graves(&key, &entry);
        } else {
            session.say_gone(&key, &entry);
        }
        if !is_live {
            session.exchanges.remove(&key);
            session.differs.remove(&key);
        }
        if !is_news {
            if is_live && gone {
                let heads = entry.state.heads.clone();
                let exchange = self.assume(&peer, &key, &entry.kind, &heads, context);
                if let Some(session) = self.sessions.get_mut(&peer) {
                    session.exchanges.insert(key, exchange);
                }
                self.advance(peer, key, &entry.kind, context);
            }
            return;
        }
        if let Some((time, author)) = newest
            && !is_live
        {
            (entry.modified, entry.author) = (time, Some(author));
        }
        writes.push(entry.write(&key));
        self.write_remote(&key, entry, Vec::new(), writes);
    }

    /// Ends the handling of an input.
    fn finish(&mut self, context: &Context<'_>) {
        let peers: Vec<_> = self.sessions.keys().copied().collect();
        for peer in &peers {
            while let Some(session) = self.sessions.get_mut(peer)
                && session.exchanges.len() < EXCHANGES_MAX
                && let Some((key, want)) = session.wanted.pop_first()
            {
                self.start(*peer, key, want, context);
            }
        }
        let batch = std::mem::take(&mut self.batch);
        if let Some(ticket) = batch.ticket {
            // What peers are told that this device has must outlive a crash.
            let durability = if batch.documents { Durability::Synced } else { Durability::Ordered };
            self.outputs.push_back(Output::Persist { ticket, writes: batch.writes, durability });
        }
        let total = self.index.total();
        for (peer, session) in &mut self.sessions {
            if session.is_idle() {
                session.say_check(total);
            }
            for message in session.flush() {
                self.outputs.push_back(Output::Send { peer: *peer, message });
            }
            if session.their_check == Some(total) && session.synced != Some(total) {
                session.synced = Some(total);
                self.outputs.push_back(Output::PeerSynced(*peer));
            }
        }
        while self.loaded.len() > LOADED_MAX + self.busy.len() {
            let idle = self.loaded.iter().filter(|(key, _)| !self.busy.contains_key(key));
            let Some((key, _)) = idle.min_by_key(|(_, loaded)| loaded.used) else { break };
            let key = *key;
            self.loaded.remove(&key);
        }
    }
}

fn saved_row(key: &DocumentKey) -> Row {
    Row::named(Table::Document, &key.to_bytes(), b"saved")
}

fn shared_row(peer: &DeviceId, key: &DocumentKey) -> Row {
    Row::named(Table::Peer, &[b"shared".as_slice(), peer.as_bytes()].concat(), &key.to_bytes())
}

/// Changes that a peer had when it was last the same. An unreadable row only costs time.
fn shared_heads(peer: &DeviceId, key: &DocumentKey, rows: &dyn Rows) -> Vec<ChangeHash> {
    let value = rows.get(&shared_row(peer, key)).ok().flatten().unwrap_or_default();
    codec::decode(&value, 1 << 16).unwrap_or_default()
}

/// What a document has after it was created with `content`.
fn without_nulls(mut content: Value) -> Value {
    if let Value::Map(fields) = &mut content {
        fields.retain(|_, value| !matches!(value, Value::Null));
    }
    content
}

/// All text in a value, in lower case, a line for each.
fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_lowercase(),
        Value::Int(int) => int.to_string(),
        Value::Null | Value::Bool(_) | Value::Float(_) | Value::Bytes(_) => String::new(),
        Value::List(values) => values.iter().map(text).collect::<Vec<_>>().join("\n"),
        Value::Map(fields) => fields.values().map(text).collect::<Vec<_>>().join("\n"),
    }
}

#[cfg(test)]
mod tests;

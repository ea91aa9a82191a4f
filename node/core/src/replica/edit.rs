//! Edits: what a step does to documents here, as rows to write in one transaction.

use std::{borrow::Cow, collections::BTreeMap};

use ed25519_dalek::SigningKey;
use thiserror::Error;
use weft_protocol::{
    codec,
    document::{
        CHANGE_BYTES_MAX, Clock, DocumentKey, DocumentKind, StartNonce, TOMBSTONE_BYTES_MAX,
        Tombstone, Vouch,
    },
    id::{ActorId, DeviceId, DocumentId},
    row::Write,
    signed::{Domain, Signed},
    time::WallTime,
    value::Value,
};

use super::{
    Context, Replica,
    index::Entry,
    vouching,
    writing::{Pending, Ticket},
};
use crate::document::{Change, DocumentError};

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
/// [`Persisted`](super::Input::Persisted) or [`PersistFailed`](super::Input::PersistFailed) with the
/// ticket must follow. Batches that are prepared meanwhile for the same documents repeat these writes,
/// so that each stands by itself: should this one fail and one of those not, its edits are there all
/// the same.
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

/// Under whose name this device writes.
#[derive(Debug)]
pub(super) struct Author {
    pub(super) device: DeviceId,
    pub(super) signing: SigningKey,
    start: StartNonce,
}

impl Author {
    pub(super) fn new(signing: SigningKey, start: StartNonce) -> Self {
        let device = DeviceId::from_bytes(signing.verifying_key().to_bytes());
        Self { device, signing, start }
    }

    pub(super) fn actor(&self) -> ActorId {
        ActorId::of(&self.device, &self.start)
    }

    /// Signs for the newest of its own changes.
    fn vouch(&self, key: &DocumentKey, buried: &Clock, newest: &Change) -> (Vouch, Signed) {
        let vouch = Vouch {
            key: *key,
            device: self.device,
            start: self.start_for(key, buried),
            seq: newest.seq(),
            hash: newest.hash(),
            own: None,
        };
        let signed = Signed::new(Domain::Vouch, &vouch, &self.signing);
        (vouch, signed)
    }

    fn bury(&self, key: &DocumentKey, kind: DocumentKind, buried: Clock, time: WallTime) -> Signed {
        let tombstone = Tombstone { key: *key, kind, buried, time };
        Signed::new(Domain::Tombstone, &tombstone, &self.signing)
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
}

/// What one `prepare` does to a document.
#[derive(Debug)]
struct Draft {
    entry: Entry,
    changes: Vec<Change>,
    deleted: bool,
}

impl Replica {
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
                    self.shelf.remove(&key);
                }
                return Err(error);
            }
        };
        let ticket = self.writing.open(drafts.keys().copied().collect());
        let mut writes = Vec::new();
        for ((key, draft), own) in drafts.into_iter().zip(written) {
            if draft.deleted {
                self.shelf.remove(&key);
            }
            let announced = self.announced(&key, &draft.entry.kind);
            writes.extend(self.writing.repeat(&key));
            writes.extend(own.iter().cloned());
            self.writing.add(
                key,
                announced,
                Pending {
                    ticket: Some(ticket),
                    remote: false,
                    entry: draft.entry,
                    changes: draft.changes,
                    writes: own,
                },
            );
        }
        Ok(Prepared { ticket, writes, created })
    }

    fn draft(
        &mut self,
        edit: Edit,
        drafts: &mut BTreeMap<DocumentKey, Draft>,
        context: &Context<'_>,
    ) -> Result<(), EditError> {
        let id = edit.document();
        let key = DocumentKey::first(id);
        if let Some(reason) = self.shelf.aside(&key) {
            return Err(EditError::SetAside { id, reason: reason.to_owned() });
        }
        let there = match drafts.get(&key) {
            Some(draft) => Some(Cow::Borrowed(&draft.entry)),
            None => self.entry(&key),
        };
        let singleton = self.singletons.get(&id).cloned();
        let deleted = there.as_ref().is_some_and(|entry| entry.state.is_deleted());
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
                if there.as_ref().is_some_and(|entry| entry.kind != *kind) {
                    return Err(EditError::Exists(id));
                }
                kind.clone()
            }
            Edit::Update { .. } | Edit::Delete { .. } => match &there {
                Some(entry) if !deleted => entry.kind.clone(),
                Some(_) | None => singleton.clone().ok_or(EditError::NotFound(id))?,
            },
        };
        let is_new = there.is_none();
        let base = there.map_or_else(|| Entry::new(kind.clone()), Cow::into_owned);
        self.load(&key, &kind, context.rows)
            .map_err(|reason| EditError::SetAside { id, reason })?;
        let start = self.author.start_for(&key, &base.state.buried);
        let actor = ActorId::of(&self.author.device, &start);
        let document = &mut self.shelf.get_mut(&key).expect("it was just loaded").document;
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
                let signed = self.author.bury(&key, kind, buried.clone(), time);
                if signed.bytes.len() > TOMBSTONE_BYTES_MAX {
                    return Err(EditError::TooLarge(id));
                }
                draft.entry.state.heads.clear();
                draft.entry.state.buried = buried;
                draft.entry.graves = vec![signed];
                draft.entry.modified = time;
                draft.entry.author = Some(self.author.device);
                draft.deleted = true;
            }
        }
        Ok(())
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
        let (vouch, signed) = self.author.vouch(key, &draft.entry.state.buried, newest);
        let mut writes = vec![vouching::write(&vouch, &signed)];
        let loaded = self.shelf.get_mut(key).expect("an edited document is loaded");
        loaded.vouches.insert((vouch.actor(), self.author.device), (vouch, signed));
        let recorded = loaded.record(key, &mut draft.entry, &draft.changes);
        writes.extend(recorded.map_err(|source| EditError::Document { id: key.document, source })?);
        Ok(writes)
    }
}

/// What a document has after it was created with `content`.
fn without_nulls(mut content: Value) -> Value {
    if let Value::Map(fields) = &mut content {
        fields.retain(|_, value| !matches!(value, Value::Null));
    }
    content
}

//! A document: the only place that knows Automerge.
//!
//! ```text
//! rows ──► Document::load ──► edit ──► Change ──► a row, a vouch
//!                        └──► apply ◄── Change::parse ◄── a peer
//! ```
//!
//! The actor id and the time of a change are handed in, and nothing here iterates in an order that
//! differs from run to run, so the same inputs give the same bytes. Automerge has had panics on odd
//! input: each call into it is caught here and becomes [`DocumentError::Panicked`], after which the
//! document must be thrown away and read anew. Whether a change may be applied is not decided here.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use automerge::{
    Automerge, AutomergeError, ObjType, ROOT, ReadDoc as _, transaction::CommitOptions,
    transaction::Transactable as _,
};
use thiserror::Error;
use weft_protocol::{
    document::{ChangeHash, Clock, DocumentKind},
    id::ActorId,
    time::WallTime,
    value::Value,
};

mod change;
mod content;
pub(crate) mod exchange;

pub use change::{Change, ChunkError};
pub(crate) use exchange::Exchange;

/// The version of the skeletons that [`Document::new`] begins with.
const SKELETON_VERSION: i64 = 1;

/// The field that says what a document is. Fields that begin with `@` are the fabric's own.
const KIND_FIELD: &str = "@kind";
const VERSION_FIELD: &str = "@version";

/// So many kinds' skeletons are kept ready: those of the fabric's own documents and of a few agents. Another
/// kind's is made when it is needed.
const SKELETONS_MAX: usize = 32;

thread_local! {
    /// What [`Document::new`] begins with, by kind: the same whoever makes it, and made only once.
    static SKELETONS: RefCell<BTreeMap<DocumentKind, (Automerge, ChangeHash)>> = RefCell::default();
}

/// How far a change's first operation may be numbered beyond its ancestors' last.
const OPERATION_GAP_MAX: u64 = 1 << 20;

/// Why something could not be done with a document.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum DocumentError {
    /// Automerge panicked; what is in memory is not to be used again.
    #[error("use a document: Automerge panicked: {why}")]
    Panicked {
        /// The panic's message.
        why: String,
    },
    /// Automerge refused.
    #[error("{during} a document: {why}")]
    Refused {
        /// What was tried: `load`, `edit`, `read`, `apply changes to`.
        during: &'static str,
        /// Automerge's message.
        why: String,
    },
    /// A row of it does not hold what it should.
    #[error("load a document: {0}")]
    Damaged(String),
    /// The content to write is not a map, or has a field that is the fabric's own.
    #[error("write to a document: {0}")]
    Content(&'static str),
}

/// Runs `call`, which calls into Automerge.
fn catch<T>(call: impl FnOnce() -> T) -> Result<T, DocumentError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let why = panic
            .downcast_ref::<&str>()
            .map(|why| (*why).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "without a message".to_owned());
        DocumentError::Panicked { why }
    })
}

fn refused(during: &'static str) -> impl FnOnce(AutomergeError) -> DocumentError {
    move |error| DocumentError::Refused { during, why: error.to_string() }
}

/// A loaded document.
#[derive(Debug)]
pub struct Document {
    inner: Automerge,
    skeleton: ChangeHash,
}

impl Document {
    /// A document that has nothing but its kind's skeleton, which is the same bytes everywhere.
    ///
    /// # Errors
    ///
    /// Automerge panicked.
    pub fn new(kind: &DocumentKind, actor: ActorId) -> Result<Self, DocumentError> {
        let ready = SKELETONS.with_borrow(|ready| ready.get(kind).cloned());
        let (inner, skeleton) = match ready {
            Some(ready) => ready,
            None => {
                let change = Self::skeleton(kind)?;
                let skeleton = change.hash();
                let mut document = Self { inner: empty(actor), skeleton };
                document.apply(vec![change])?;
                let made = (document.inner, skeleton);
                SKELETONS.with_borrow_mut(|ready| {
                    if ready.len() < SKELETONS_MAX {
                        ready.insert(kind.clone(), made.clone());
                    }
                });
                made
            }
        };
        let mut document = Self { inner, skeleton };
        document.set_actor(actor);
        Ok(document)
    }

    /// Loads what was saved and the changes stored since.
    ///
    /// # Errors
    ///
    /// The bytes are damaged, or Automerge panicked.
    pub fn load(
        kind: &DocumentKind,
        actor: ActorId,
        saved: Option<&[u8]>,
        changes: Vec<Change>,
    ) -> Result<Self, DocumentError> {
        let mut document = Self::new(kind, actor)?;
        if let Some(saved) = saved {
            let inner = catch(|| Automerge::load(saved))?.map_err(refused("load"))?;
            document.inner = inner.with_actor(actor.as_bytes().into());
            if !document.has(&document.skeleton) {
                return Err(DocumentError::Damaged("it is of another kind".to_owned()));
            }
        }
        document.apply(changes)?;
        Ok(document)
    }

    /// The change with which each document of `kind` begins.
    ///
    /// # Errors
    ///
    /// Automerge panicked.
    pub fn skeleton(kind: &DocumentKind) -> Result<Change, DocumentError> {
        let mut hasher = blake3::Hasher::new_derive_key("weft 2026 document skeleton v1");
        hasher.update(kind.as_str().as_bytes());
        let mut actor = [0; 16];
        hasher.finalize_xof().fill(&mut actor);
        // Maps to which several devices add entries must be one object on all of them.
        let maps: &[&str] = match kind.as_str() {
            "root" => &["documents"],
            "registry" => &["agents", "devices"],
            "settings" => &["aliases", "policies"],
            _ => &[],
        };
        let mut inner = empty(ActorId::from_bytes(actor));
        let change = catch(|| {
            let mut transaction = inner.transaction();
            transaction.put(ROOT, KIND_FIELD, kind.as_str())?;
            transaction.put(ROOT, VERSION_FIELD, SKELETON_VERSION)?;
            for map in maps {
                transaction.put_object(ROOT, *map, ObjType::Map)?;
            }
            transaction.commit_with(CommitOptions::default().with_time(0));
            Ok(inner.get_last_local_change())
        })?
        .map_err(refused("edit"))?;
        Ok(change.and_then(Change::from_inner).expect("a skeleton has operations"))
    }

    /// The hash of the skeleton, which needs no vouch.
    pub fn skeleton_hash(&self) -> ChangeHash {
        self.skeleton
    }

    /// Makes later edits those of `actor`.
    pub fn set_actor(&mut self, actor: ActorId) {
        self.inner.set_actor(actor.as_bytes().into());
    }

    /// Sets the fields of `content`, leaving others; a null removes one. Maps and lists are merged
    /// into those that are there, so that what others add to them meanwhile stays. Gives the change,
    /// or none if nothing differed.
    ///
    /// # Errors
    ///
    /// `content` is no map or has a field that begins with `@`; Automerge refused or panicked.
    pub fn edit(
        &mut self,
        content: &Value,
        time: WallTime,
    ) -> Result<Option<Change>, DocumentError> {
        let Value::Map(fields) = content else {
            return Err(DocumentError::Content("its content must be a map"));
        };
        if fields.keys().any(|field| field.starts_with('@')) {
            return Err(DocumentError::Content("fields that begin with @ are the fabric's own"));
        }
        let hash = catch(|| {
            let mut transaction = self.inner.transaction();
            for (field, value) in fields {
                if let Err(error) = content::set_field(&mut transaction, field, value) {
                    transaction.rollback();
                    return Err(error);
                }
            }
            let options = CommitOptions::default().with_time(time.unix_millis());
            Ok(transaction.commit_with(options).0)
        })?
        .map_err(refused("edit"))?;
        hash.map(|hash| {
            self.change(&ChangeHash(hash.0))?.ok_or_else(|| DocumentError::Refused {
                during: "edit",
                why: "the change is missing".to_owned(),
            })
        })
        .transpose()
    }

    /// The fields, without the fabric's own. Of concurrent values the one that Automerge chooses.
    ///
    /// # Errors
    ///
    /// Automerge refused or panicked.
    pub fn content(&self) -> Result<Value, DocumentError> {
        let content = catch(|| content::read(&self.inner))?.map_err(refused("read"))?;
        let Value::Map(mut fields) = content else { return Ok(content) };
        fields.retain(|field, _| !field.starts_with('@'));
        Ok(Value::Map(fields))
    }

    /// The newest changes, ordered.
    pub fn heads(&self) -> Vec<ChangeHash> {
        let mut heads: Vec<_> =
            self.inner.get_heads().into_iter().map(|hash| ChangeHash(hash.0)).collect();
        heads.sort();
        heads
    }

    /// Whether a change is applied.
    pub fn has(&self, hash: &ChangeHash) -> bool {
        self.inner.get_change_meta_by_hash(&automerge::ChangeHash(hash.0)).is_some()
    }

    /// A change that is applied.
    ///
    /// # Errors
    ///
    /// Automerge panicked.
    pub fn change(&self, hash: &ChangeHash) -> Result<Option<Change>, DocumentError> {
        let inner = catch(|| self.inner.get_change_by_hash(&automerge::ChangeHash(hash.0)))?;
        Ok(inner.and_then(Change::from_inner))
    }

    /// How many changes each actor has made, without the skeleton. Takes time in the number of changes.
    ///
    /// # Errors
    ///
    /// Automerge panicked.
    pub fn clock(&self) -> Result<Clock, DocumentError> {
        catch(|| {
            let mut clock = BTreeMap::new();
            for change in self.inner.get_changes_meta(&[]) {
                if change.hash.0 == self.skeleton.0 {
                    continue;
                }
                let Ok(actor) = change.actor.to_bytes().try_into() else { continue };
                let seq: &mut u64 = clock.entry(ActorId::from_bytes(actor)).or_default();
                *seq = (*seq).max(change.seq);
            }
            Clock(clock)
        })
    }

    /// The time and the actor of the newest change.
    ///
    /// # Errors
    ///
    /// Automerge panicked.
    pub fn newest(&self) -> Result<(WallTime, ActorId), DocumentError> {
        let mut newest = (WallTime::default(), ActorId::from_bytes([0; 16]));
        for hash in self.heads() {
            if let Some(change) = self.change(&hash)? {
                newest = newest.max((change.time(), change.actor()));
            }
        }
        Ok(newest)
    }

    /// Applies changes as one batch. Those that are there already are passed over; each dependency
    /// must be there or in the batch.
    ///
    /// # Errors
    ///
    /// A dependency is missing, numbers do not fit, or Automerge refused or panicked. The document
    /// must then be read anew.
    pub fn apply(&mut self, changes: Vec<Change>) -> Result<(), DocumentError> {
        let refuse =
            |why: &str| DocumentError::Refused { during: "apply changes to", why: why.to_owned() };
        let mut last_ops = BTreeMap::new();
        for change in &changes {
            let mut last = 0;
            for dep in change.deps() {
                last = last.max(match last_ops.get(dep) {
                    Some(last) => *last,
                    None => self.last_op(dep).ok_or_else(|| refuse("a dependency is missing"))?,
                });
            }
            if change.start_op() <= last || change.start_op() > last + 1 + OPERATION_GAP_MAX {
                return Err(refuse("operations are not numbered after their ancestors'"));
            }
            last_ops.insert(change.hash(), change.last_op());
        }
        let expected: BTreeSet<_> = last_ops.into_keys().collect();
        catch(|| self.inner.apply_changes(changes.into_iter().map(|change| change.inner)))?
            .map_err(refused("apply changes to"))?;
        if expected.iter().any(|hash| !self.has(hash)) {
            return Err(refuse("a change is missing afterwards"));
        }
        Ok(())
    }

    fn last_op(&self, hash: &ChangeHash) -> Option<u64> {
        Some(self.inner.get_change_meta_by_hash(&automerge::ChangeHash(hash.0))?.max_op)
    }

    /// All of it as one row.
    ///
    /// # Errors
    ///
    /// Automerge panicked.
    pub fn save(&self) -> Result<Vec<u8>, DocumentError> {
        catch(|| self.inner.save())
    }
}

fn empty(actor: ActorId) -> Automerge {
    Automerge::new().with_actor(actor.as_bytes().into())
}

#[cfg(test)]
mod tests;

//! Vouching: which of the changes that came were made by somebody who may write the document.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use weft_protocol::{
    codec,
    document::{ChangeHash, DocumentKey, DocumentKind, VOUCH_BYTES_MAX, Vouch},
    id::{ActorId, DeviceId},
    row::{Item, ReadError, Row, Rows, Table, Write},
    signed::{Domain, Signed, SignedError},
};

use super::Members;
use crate::document::{Change, Document};

/// Whose changes, by whose word.
pub(super) type Voucher = (ActorId, DeviceId);

/// The vouches of a document, the newest of each voucher for each actor.
pub(super) type Vouches = BTreeMap<Voucher, (Vouch, Signed)>;

/// Why a vouch is refused for ever. One that is merely not yet believed is parked.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum VouchError {
    /// Its signature or its encoding is wrong.
    #[error("open a vouch")]
    Signed(#[from] SignedError),
    /// It is about another document, or names a change of another actor.
    #[error("use a vouch: it is not for these changes")]
    NotForThese,
}

/// Checks the signature of a vouch for changes of `key`.
pub(super) fn open(signed: &Signed, key: &DocumentKey) -> Result<Vouch, VouchError> {
    let vouch: Vouch = signed.open(Domain::Vouch, VOUCH_BYTES_MAX)?;
    if vouch.key != *key {
        return Err(VouchError::NotForThese);
    }
    Ok(vouch)
}

/// Whether `author` is believed: it made the changes itself, or whoever made them was revoked.
pub(super) fn is_believed(
    vouch: &Vouch,
    author: &DeviceId,
    kind: &DocumentKind,
    members: &dyn Members,
) -> bool {
    (vouch.device == *author || members.is_revoked(&vouch.device))
        && members.may_write(author, &vouch.key.document, kind)
}

/// Of `pool`, the changes that may be applied to `document`, ancestors first: each is vouched for,
/// and all its dependencies are there or among them.
///
/// A vouch covers its actor's changes among the ancestors of the change that it names.
pub(super) fn admitted<'a>(
    document: &Document,
    pool: &BTreeMap<ChangeHash, Change>,
    vouches: impl Iterator<Item = &'a Vouch>,
) -> Vec<Change> {
    let mut covered = BTreeSet::new();
    for vouch in vouches {
        let actor = vouch.actor();
        let mut seen = BTreeSet::new();
        let mut next = vec![vouch.hash];
        while let Some(hash) = next.pop() {
            let Some(change) = pool.get(&hash) else { continue };
            if !seen.insert(hash) {
                continue;
            }
            if change.actor() == actor {
                covered.insert(hash);
            }
            next.extend(change.deps());
        }
    }
    let mut waiting: BTreeMap<ChangeHash, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<ChangeHash, Vec<ChangeHash>> = BTreeMap::new();
    let mut ready = BTreeSet::new();
    for hash in &covered {
        let open: BTreeSet<_> = pool[hash].deps().iter().filter(|dep| !document.has(dep)).collect();
        for dep in &open {
            dependents.entry(**dep).or_default().push(*hash);
        }
        if open.is_empty() {
            ready.insert(*hash);
        } else {
            waiting.insert(*hash, open.len());
        }
    }
    let mut admitted = Vec::new();
    while let Some(hash) = ready.pop_first() {
        admitted.push(pool[&hash].clone());
        for dependent in dependents.remove(&hash).unwrap_or_default() {
            if let Some(open) = waiting.get_mut(&dependent) {
                *open -= 1;
                if *open == 0 {
                    ready.insert(dependent);
                }
            }
        }
    }
    admitted
}

/// Checks that the change which a vouch names, if it is known, is one of its actor's.
pub(super) fn names(vouch: &Vouch, change: Option<&Change>) -> Result<bool, VouchError> {
    match change {
        None => Ok(false),
        Some(change) if change.actor() == vouch.actor() && change.seq() == vouch.seq => Ok(true),
        Some(_) => Err(VouchError::NotForThese),
    }
}

/// The row of a vouch.
pub(super) fn write(vouch: &Vouch, signed: &Signed) -> Write {
    Write::Put(row(&vouch.key, &(vouch.actor(), signed.author)), codec::encode(signed))
}

pub(super) fn row(key: &DocumentKey, (actor, author): &Voucher) -> Row {
    let name = [actor.as_bytes().as_slice(), author.as_bytes()].concat();
    Row::named(Table::Vouch, &key.to_bytes(), &name)
}

/// The stored vouches of a document. Their signatures were checked when they were stored.
pub(super) fn load(key: &DocumentKey, rows: &dyn Rows) -> Result<Vouches, ReadError> {
    let mut vouches = Vouches::new();
    for (item, value) in rows.scan(Table::Vouch, &key.to_bytes())? {
        if let Item::Named(_) = item {
            let (vouch, signed) = decode(&value)?;
            vouches.insert((vouch.actor(), signed.author), (vouch, signed));
        }
    }
    Ok(vouches)
}

/// Reads a stored vouch.
pub(super) fn decode(value: &[u8]) -> Result<(Vouch, Signed), ReadError> {
    let damaged =
        |error: codec::DecodeError| ReadError { table: Table::Vouch, why: error.to_string() };
    let signed: Signed = codec::decode(value, 2 * VOUCH_BYTES_MAX).map_err(damaged)?;
    let vouch = codec::decode(&signed.bytes, VOUCH_BYTES_MAX).map_err(damaged)?;
    Ok((vouch, signed))
}

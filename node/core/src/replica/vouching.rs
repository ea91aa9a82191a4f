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

use super::{
    Members,
    parking::{PARKED_BYTES_MAX, PARKED_MAX},
};
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
    if let Some(original) = vouch.original() {
        original.verify(Domain::Vouch)?;
    }
    Ok(vouch)
}

/// Whether `author` is believed: it made the changes itself, or whoever made them is gone, and signed for
/// the very same. That signature is in the vouch; one of an older version has it beside it, among
/// `beside`.
pub(super) fn is_believed(
    vouch: &Vouch,
    author: &DeviceId,
    kind: &DocumentKind,
    beside: [&Vouches; 2],
    members: &dyn Members,
) -> bool {
    if !members.may_write(author, &vouch.key.document, kind) {
        return false;
    }
    if vouch.device == *author {
        return true;
    }
    let is_same = |(own, _): &(Vouch, Signed)| (own.seq, own.hash) == (vouch.seq, vouch.hash);
    let signed = |of: &Vouches| of.get(&(vouch.actor(), vouch.device)).is_some_and(is_same);
    members.is_gone(&vouch.device) && (vouch.own.is_some() || beside.into_iter().any(signed))
}

/// Of `pool`, the changes that may be applied to `document`, ancestors first: each is vouched for,
/// and all its dependencies are there or among them.
///
/// A vouch covers its actor's changes among the ancestors of the change that it names: each of them
/// names the one before. It covers all or none, so that whatever is applied can be shown to be its
/// device's, also when the device is out and nobody has more of it; unless there is so much that it would
/// not find room while it waits for the rest.
pub(super) fn admitted<'a>(
    document: &Document,
    pool: &BTreeMap<ChangeHash, Change>,
    vouches: impl Iterator<Item = &'a Vouch>,
) -> Vec<Change> {
    let mut chains: Vec<_> =
        vouches.map(|vouch| chain(pool, vouch)).filter(|chain| !chain.is_empty()).collect();
    let bytes: usize = pool.values().map(|change| change.bytes().len()).sum();
    let may_wait = pool.len() <= PARKED_MAX / 4 && bytes <= PARKED_BYTES_MAX / 4;
    loop {
        let admitted = applicable(document, pool, chains.iter().flatten().copied().collect());
        let there: BTreeSet<_> = admitted.iter().collect();
        let before = chains.len();
        // The first is the one that the vouch names.
        chains.retain(|chain| there.contains(&chain[0]));
        if chains.len() == before || !may_wait {
            return admitted.iter().map(|hash| pool[hash].clone()).collect();
        }
    }
}

/// What a vouch covers of `pool`, the newest first.
fn chain(pool: &BTreeMap<ChangeHash, Change>, vouch: &Vouch) -> Vec<ChangeHash> {
    let actor = vouch.actor();
    let own = |hash: &ChangeHash| pool.get(hash).filter(|change| change.actor() == actor);
    let mut chain = Vec::new();
    let mut next = own(&vouch.hash);
    while let Some(change) = next {
        chain.push(change.hash());
        next = change.deps().iter().filter_map(own).find(|before| before.seq() + 1 == change.seq());
    }
    chain
}

/// Those of `covered` whose dependencies are there or among them, ancestors first.
fn applicable(
    document: &Document,
    pool: &BTreeMap<ChangeHash, Change>,
    covered: BTreeSet<ChangeHash>,
) -> Vec<ChangeHash> {
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
        admitted.push(hash);
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

//! Graves: tombstones that peers sent, and what becomes of the documents that they bury.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use weft_protocol::{
    codec,
    document::{Clock, DocumentKey, TOMBSTONE_BYTES_MAX, Tombstone},
    id::DeviceId,
    row::{Row, Table, Write},
    signed::{Domain, Signed},
};

use super::{Context, Replica, index::Entry, shelf, vouching};

/// The most bytes of the tombstones of one document: they travel together, in a frame.
const GRAVES_BYTES_MAX: usize = 512 << 10;

/// A tombstone whose signature was checked.
pub(super) type Grave = (Tombstone, Signed);

impl Replica {
    /// Takes tombstones. Of the documents in `gone` the peer has nothing left.
    pub(super) fn on_tombstones(
        &mut self,
        peer: DeviceId,
        tombstones: Vec<Signed>,
        gone: Vec<DocumentKey>,
        context: &Context<'_>,
    ) {
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

    pub(super) fn on_graves(
        &mut self,
        peer: DeviceId,
        key: DocumentKey,
        graves: Vec<Grave>,
        gone: bool,
        context: &Context<'_>,
    ) {
        if self.writing.defer_graves(&key, peer, &graves, gone) {
            return;
        }
        let mut heard = Clock::default();
        let mut entry = self.index.get(&key).map(Cow::into_owned);
        let mut is_news = false;
        let mut is_refused = false;
        let mut newest = None;
        for (tombstone, signed) in graves {
            let (kind, author) = (tombstone.kind, signed.author);
            let allowed = !kind.is_singleton()
                && self.fits(&key, &kind)
                && context.members.may_write(&author, &key.document, &kind);
            if !allowed {
                self.violation(peer, format!("{author} may not delete document {}", key.document));
                is_refused = true;
                continue;
            }
            let known = entry.as_ref().filter(|entry| !entry.graves.is_empty());
            if known.is_some_and(|entry| entry.state.buried.covers(&tombstone.buried)) {
                heard.join(&tombstone.buried);
                continue;
            }
            let bytes = known.map_or(0, |it| it.graves.iter().map(|it| it.bytes.len()).sum());
            if bytes + signed.bytes.len() > GRAVES_BYTES_MAX {
                self.violation(peer, format!("document {} has too many tombstones", key.document));
                is_refused = true;
                continue;
            }
            heard.join(&tombstone.buried);
            let entry = entry.get_or_insert_with(|| Entry::new(kind));
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
        if is_refused && !is_news {
            // The peer would say the same to whatever is said to it.
            return session.let_rest(key);
        }
        session.graves_heard(key, &heard);
        let mut writes = Vec::new();
        let was_live = !entry.state.is_deleted();
        if was_live && is_news {
            if self.load(&key, &entry.kind, context.rows).is_err() {
                return;
            }
            match self.shelf.get(&key).map(|loaded| loaded.document.clock()) {
                Some(Ok(clock)) if entry.state.buried.covers(&clock) => {
                    entry.state.heads.clear();
                    writes = self.write_burial(&key, &mut entry);
                    self.shelf.remove(&key);
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
        } else if is_live {
            session.say_graves(&key, &entry);
        } else if !gone {
            // The peer has more than what is buried: it is to send all of it.
            session.exchanges.remove(&key);
            session.differs_buried(&key);
            session.say_gone(&key, &entry);
        } else {
            if heard == entry.state.buried {
                session.differs_no_more(&key);
            }
            if !is_news {
                session.bury(&key, &entry);
            }
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

    /// The rows of a document that was deleted.
    pub(super) fn write_burial(&mut self, key: &DocumentKey, entry: &mut Entry) -> Vec<Write> {
        let scope = key.to_bytes();
        let mut writes = vec![Write::Delete(shelf::saved_row(key))];
        writes.extend(
            (0..entry.rows).map(|row| Write::Delete(Row::numbered(Table::Change, &scope, row))),
        );
        if let Some(loaded) = self.shelf.get(key) {
            let vouchers = loaded.vouches.keys();
            writes.extend(vouchers.map(|voucher| Write::Delete(vouching::row(key, voucher))));
        }
        self.parking.clear(key, &mut writes);
        (entry.rows, entry.changes) = (0, 0);
        writes
    }
}

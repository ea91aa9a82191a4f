//! Arrivals: changes that came from a peer or were parked, applied as far as they are vouched for.

use std::borrow::Cow;

use weft_protocol::{
    document::{DocumentKey, DocumentKind, Vouch},
    id::DeviceId,
    row::Write,
    signed::Signed,
};

use super::{
    Context, Replica,
    index::Entry,
    session::Assembled,
    vouching::{self, Voucher, Vouches},
};
use crate::document::{Change, DocumentError};

impl Replica {
    /// Looks again at what is parked for a document.
    pub(super) fn review(&mut self, key: &DocumentKey, kind: &DocumentKind, context: &Context<'_>) {
        if !self.writing.defer_review(key, kind)
            && self.shelf.aside(key).is_none()
            && self.fits(key, kind)
            && self.load(key, kind, context.rows).is_ok()
        {
            self.integrate(key, kind, None, context);
        }
    }

    /// Applies what came and what is parked, as far as it is vouched for, and parks the rest. False if
    /// that failed, or the document stays deleted.
    pub(super) fn integrate(
        &mut self,
        key: &DocumentKey,
        kind: &DocumentKind,
        incoming: Option<(DeviceId, Assembled)>,
        context: &Context<'_>,
    ) -> bool {
        let Some(loaded) = self.shelf.get_mut(key) else { return false };
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
                Ok(true) => {
                    let beside = [&vouches, &loaded.vouches];
                    let author = &signed.author;
                    if vouching::is_believed(vouch, author, kind, beside, context.members) {
                        believed.insert(*voucher, (vouch.clone(), signed.clone()));
                    }
                }
                Ok(false) => {}
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
                document.receive(exchange, &message.told, admitted.clone())
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
                self.shelf.remove(key);
                self.parking.release(key, &admitted, &refused, &mut writes);
                self.writing.write_aside(writes);
                if let Some(peer) = peer {
                    self.refuse(&peer, key, &error.to_string());
                }
                return false;
            }
        }

        // Vouches are kept for what is applied; the rest waits.
        let mut done = refused;
        for (voucher, (vouch, signed)) in believed {
            if !document.has(&vouch.hash) {
                continue;
            }
            done.push(voucher);
            let actor = vouch.actor();
            let knows = |vouches: &Vouches, author: &DeviceId| {
                vouches.get(&(actor, *author)).is_some_and(|(known, _)| known.seq >= vouch.seq)
            };
            let is_adoption = vouch.device != signed.author;
            // Where this device has adopted the same, its own word is enough.
            let adopted = is_adoption && knows(&loaded.vouches, &self.author.device);
            let is_kept = !adopted && !knows(&loaded.vouches, &signed.author);
            // What the device signed itself counts again if it turns out not to be out.
            let original =
                vouch.original().filter(|_| is_adoption && !knows(&loaded.vouches, &vouch.device));
            let own = original.map(|signed| (Vouch { own: None, ..vouch.clone() }, signed));
            for (vouch, signed) in own.into_iter().chain(is_kept.then_some((vouch, signed))) {
                writes.push(vouching::write(&vouch, &signed));
                loaded.vouches.insert((actor, signed.author), (vouch, signed));
            }
        }
        let needless = |(vouch, _): &(Vouch, Signed)| document.has(&vouch.hash);
        let needless =
            vouches.iter().filter(|(voucher, it)| !done.contains(voucher) && needless(it));
        let needless: Vec<Voucher> = needless.map(|(voucher, _)| *voucher).collect();
        done.extend(needless);
        let mut parked = Vec::new();
        if let Some((peer, message)) = &incoming {
            for change in &message.changes {
                if !document.has(&change.hash()) {
                    self.parking.park_change(*key, kind, change, *peer, &mut parked);
                }
            }
            for (voucher, (vouch, signed)) in &vouches {
                if !done.contains(voucher) {
                    self.parking.park_vouch(*key, kind, vouch, signed, *peer, &mut parked);
                }
            }
        }
        self.parking.release(key, &admitted, &done, &mut parked);
        self.writing.write_aside(parked);
        if admitted.is_empty() {
            self.writing.write_aside(writes);
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
        let mut entry =
            self.index.get(key).map_or_else(|| Entry::new(kind.clone()), Cow::into_owned);
        if entry.state.is_deleted() && !entry.graves.is_empty() {
            let clock = self.shelf.get(key).map(|loaded| loaded.document.clock());
            if let Some(Ok(clock)) = clock
                && entry.state.buried.covers(&clock)
            {
                self.shelf.remove(key);
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
        let loaded = self.shelf.get(key).expect("a recorded document is loaded");
        match loaded.record(key, &mut entry, &changes) {
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
}

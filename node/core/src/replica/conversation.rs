//! Conversations: what is said to a peer about documents, and what is taken from it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use weft_protocol::{
    codec,
    document::{ChangeHash, Clock, DocumentKey, DocumentKind, IndexState},
    id::DeviceId,
    row::{Row, Rows, Table, Write},
    sync::{Range, Stub, Summary, SyncMessage},
};

use super::{
    Context, Replica,
    index::{self, Theirs, Want},
    session::{Assembled, EXCHANGES_ASKED_MAX, EXCHANGES_MAX, WAITING_BYTES},
};
use crate::document::{
    Change, Exchange,
    exchange::{Next, Told},
};

/// From so many changes on, what a peer has of a document is remembered: below, the Bloom filter of
/// all changes is no longer than a hash.
const SHARED_HEADS_CHANGES_MIN: u64 = 64;

impl Replica {
    pub(super) fn on_message(
        &mut self,
        peer: DeviceId,
        message: SyncMessage,
        context: &Context<'_>,
    ) {
        if !self.sessions.contains_key(&peer) {
            return;
        }
        match message {
            SyncMessage::Ranges(ranges) => {
                for range in ranges {
                    self.on_range(&peer, range, context);
                }
            }
            SyncMessage::Documents(messages) => {
                let mut starts = Vec::new();
                for message in messages {
                    let key = message.key;
                    let Some(session) = self.sessions.get_mut(&peer) else { return };
                    match session.assemble(message, &mut starts) {
                        Ok(Some(message)) => self.on_document(peer, message, context),
                        Ok(None) => {}
                        Err(error) => {
                            self.refuse(&peer, &key, &error.to_string());
                        }
                    }
                }
            }
            SyncMessage::Tombstones { tombstones, gone } => {
                self.on_tombstones(peer, tombstones, gone, context);
            }
            SyncMessage::Took(took) => self.on_took(peer, took, context),
            SyncMessage::Rest(keys) => {
                let Some(session) = self.sessions.get_mut(&peer) else { return };
                for key in keys.into_iter().take(index::DIFFERING_MAX) {
                    if session.exchanges.contains_key(&key) {
                        session.rested(key);
                    }
                }
            }
        }
    }

    fn on_range(&mut self, peer: &DeviceId, range: Range, context: &Context<'_>) {
        let Some(session) = self.sessions.get_mut(peer) else { return };
        if let Summary::Check(total) = range.summary {
            session.their_check = Some(total);
            return;
        }
        let is_about_all = range.from.0.is_empty() && range.to.0.is_empty();
        let asks = matches!(range.summary, Summary::Fingerprint(_));
        if is_about_all && asks && !session.asked_anew(*peer < self.author.device) {
            return;
        }
        if !session.resolve(&range) {
            return self.violation(*peer, "a range answers no question".to_owned());
        }
        let (shelf, writing) = (&mut self.shelf, &self.writing);
        let compared = self.index.compare(range, |key, entry| {
            if entry.state.is_deleted() || writing.is_busy(key) {
                return Vec::new();
            }
            let loaded = shelf.load(key, &entry.kind, std::iter::empty(), context.rows);
            let older = loaded.ok().and_then(|()| Some(shelf.get(key)?.document.older_heads()));
            shelf.trim(writing.len(), |key| writing.is_busy(key));
            older.unwrap_or_default()
        });
        session.say_ranges(compared.replies);
        for key in &compared.differ {
            if let Some(entry) = self.index.see(key).filter(|seen| seen.is_deleted()) {
                session.say_graves(key, &entry.entry());
            }
        }
        let is_deleted =
            |key: &&DocumentKey| self.index.see(key).is_some_and(|seen| seen.is_deleted());
        let buried: Vec<_> = compared.differ.iter().filter(is_deleted).copied().collect();
        session.differ(compared.start, compared.differ);
        session.buried.extend(buried.into_iter().filter(|key| session.differs.contains(key)));
    }

    pub(super) fn start(
        &mut self,
        peer: DeviceId,
        key: DocumentKey,
        want: Want,
        context: &Context<'_>,
    ) {
        if self.shelf.aside(&key).is_some() || !self.fits(&key, &want.kind) {
            self.refuse(&peer, &key, "its kind is another, or it is set aside");
            return;
        }
        let heads = match want.theirs {
            Theirs::Heads(heads) => Some(heads),
            Theirs::Nothing => Some(vec![self.shelf.skeleton(&want.kind)]),
            Theirs::Unknown => None,
        };
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if let Some(entry) = self.index.get(&key) {
            if entry.state.is_deleted() {
                return session.bury(&key, &entry);
            }
            session.say_graves(&key, &entry);
        }
        if heads.as_ref().is_some_and(Vec::is_empty) {
            // The peer deleted it, and sends its tombstones.
            session.differs.insert(key);
            return;
        }
        // What a busy document has is not told yet.
        let is_busy = self.writing.is_busy(&key);
        if !is_busy && self.load(&key, &want.kind, context.rows).is_err() {
            return;
        }
        let document = self.shelf.get(&key).map(|loaded| &loaded.document);
        let knows = |heads: &Vec<ChangeHash>| {
            !is_busy && document.is_some_and(|it| heads.iter().all(|hash| it.has(hash)))
        };
        let exchange = match heads.filter(knows) {
            Some(heads) => Exchange::known(&heads, false),
            None => Exchange::unknown(&shared_heads(&peer, &key, context.rows)),
        };
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        session.exchanges.insert(key, exchange);
        self.advance(peer, key, &want.kind, context);
    }

    /// What the peer is known to have of a document on which nothing is under way.
    pub(super) fn assume(
        &mut self,
        peer: &DeviceId,
        key: &DocumentKey,
        kind: &DocumentKind,
        heads: &[ChangeHash],
        context: &Context<'_>,
    ) -> Exchange {
        let skeleton = self.shelf.skeleton(kind);
        let Some(session) = self.sessions.get_mut(peer) else { return Exchange::unknown(&[]) };
        if session.lacks.remove(key) {
            Exchange::known(&[skeleton], false)
        } else if session.is_settled(key) {
            Exchange::known(heads, true)
        } else {
            session.want_no_more(key);
            Exchange::unknown(&shared_heads(peer, key, context.rows))
        }
    }

    /// Tells all peers of what is new.
    pub(super) fn announce(
        &mut self,
        key: &DocumentKey,
        announced: &[ChangeHash],
        context: &Context<'_>,
    ) {
        let Some(entry) = self.index.get(key).map(Cow::into_owned) else { return };
        let peers: Vec<_> = self.sessions.keys().copied().collect();
        for peer in peers {
            let Some(session) = self.sessions.get_mut(&peer) else { continue };
            if entry.state.is_deleted() {
                session.bury(key, &entry);
                continue;
            }
            session.say_graves(key, &entry);
            if !session.exchanges.contains_key(key) {
                if session.exchanges.len() >= EXCHANGES_MAX {
                    let want = Want { kind: entry.kind.clone(), theirs: Theirs::Unknown };
                    session.want(*key, want);
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
    pub(super) fn advance(
        &mut self,
        peer: DeviceId,
        key: DocumentKey,
        kind: &DocumentKind,
        context: &Context<'_>,
    ) {
        if self.writing.is_busy(&key) || self.load(&key, kind, context.rows).is_err() {
            return;
        }
        let (Some(loaded), Some(session)) = (self.shelf.get(&key), self.sessions.get_mut(&peer))
        else {
            return;
        };
        let document = &loaded.document;
        let (held, lacking) = self.parking.needs(&key, |hash| document.has(hash));
        while let Some(exchange) = session.exchanges.get_mut(&key) {
            match document.next_message(exchange, &held, &lacking) {
                Ok(Next::Say(told, changes))
                    if changes.is_empty()
                        && told.need.is_empty()
                        && !told.asks
                        && exchange.has(&told.heads)
                        && let Some(entry) = self.index.get(&key) =>
                {
                    session.say_took(&key, &entry);
                }
                Ok(Next::Say(told, changes)) => {
                    let actors: BTreeSet<_> = changes.iter().map(Change::actor).collect();
                    let vouches = loaded
                        .vouches
                        .iter()
                        .filter(|((actor, _), _)| actors.contains(actor))
                        .map(|(_, (vouch, signed))| (vouch, signed))
                        .collect();
                    session.say(key, kind, &changes, vouches, told);
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
                        self.writing.write_aside(vec![Write::Put(row, codec::encode(&shared))]);
                    }
                    return;
                }
                Err(error) => return self.set_aside(&key, error.to_string()),
            }
        }
    }

    /// Takes the peer's word that it has what it was told, where that is what it was told last.
    fn on_took(&mut self, peer: DeviceId, took: Vec<Stub>, context: &Context<'_>) {
        let Some(session) = self.sessions.get(&peer) else { return };
        let told = session.exchanges.iter().map(|(key, exchange)| {
            (*key, IndexState { heads: exchange.told_heads(), buried: Clock::default() })
        });
        let told = told.filter(|(_, state)| !state.is_deleted());
        let buried = session.buried.iter().filter_map(|key| {
            let entry = self.index.get(key).filter(|entry| entry.state.is_deleted())?;
            Some((*key, entry.state.clone()))
        });
        let named: BTreeMap<_, _> =
            told.chain(buried).map(|(key, state)| (state.stub(&key), (key, state))).collect();
        for (key, state) in took.iter().filter_map(|stub| named.get(stub)) {
            self.took(peer, *key, state, context);
        }
    }

    fn took(
        &mut self,
        peer: DeviceId,
        key: DocumentKey,
        state: &IndexState,
        context: &Context<'_>,
    ) {
        let (Some(entry), Some(session)) = (self.index.get(&key), self.sessions.get_mut(&peer))
        else {
            return;
        };
        let is_busy = self.writing.is_busy(&key);
        if state.is_deleted() {
            if entry.state.is_deleted() && !is_busy {
                session.settle(&key);
            }
            return;
        }
        let is_short = entry.changes < SHARED_HEADS_CHANGES_MIN;
        if is_short && state.heads == entry.state.heads && !is_busy {
            session.settle(&key);
            return;
        }
        let told = Told { heads: state.heads.clone(), need: Vec::new(), have: None, asks: false };
        let kind = entry.kind.clone();
        let (changes, vouches) = (Vec::new(), Vec::new());
        let message = Assembled { key, kind, changes, vouches, told, bytes: WAITING_BYTES };
        self.on_document(peer, message, context);
    }

    pub(super) fn on_document(
        &mut self,
        peer: DeviceId,
        message: Assembled,
        context: &Context<'_>,
    ) {
        let (key, kind) = (message.key, message.kind.clone());
        if self.shelf.aside(&key).is_some() || !self.fits(&key, &kind) {
            self.refuse(&peer, &key, "its kind is another, or it is set aside");
            return;
        }
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if self.writing.is_busy(&key) {
            if !session.defer(message) {
                self.refuse(&peer, &key, "too many messages wait");
            }
            return;
        }
        if let Some(entry) = self.index.get(&key) {
            session.say_graves(&key, &entry);
            if entry.state.is_deleted() && message.changes.is_empty() {
                // Who has more than what is buried will send all of it.
                session.exchanges.remove(&key);
                if message.told.asks {
                    session.say_gone(&key, &entry);
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
}

fn shared_row(peer: &DeviceId, key: &DocumentKey) -> Row {
    Row::named(Table::Peer, &[b"shared".as_slice(), peer.as_bytes()].concat(), &key.to_bytes())
}

/// Changes that a peer had when it was last the same. An unreadable row only costs time.
pub(super) fn shared_heads(peer: &DeviceId, key: &DocumentKey, rows: &dyn Rows) -> Vec<ChangeHash> {
    let value = rows.get(&shared_row(peer, key)).ok().flatten().unwrap_or_default();
    codec::decode(&value, 1 << 16).unwrap_or_default()
}

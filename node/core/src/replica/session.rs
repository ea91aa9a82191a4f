//! A session: what is going on with one peer from its stream's opening to its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weft_protocol::{
    codec,
    document::{ChangeHash, Clock, DocumentKey, DocumentKind, StartNonce, VOUCH_BYTES_MAX, Vouch},
    id::{ActorId, DeviceId, Digest},
    signed::Signed,
    sync::{
        ASSEMBLED_BYTES_MAX, Advance, DocumentMessage, Fingerprint, Have, IndexEntry, KeyPrefix,
        MESSAGE_BYTES_GOAL, Range, SentVouch, Stub, Summary, SyncMessage,
    },
};

use super::index::{Entry, Want};
use crate::document::{Change, ChunkError, Exchange, exchange::Told};

/// How many documents a session works on at a time of its own accord. Each is loaded when it is
/// spoken of, and has at most one message under way.
pub(super) const EXCHANGES_MAX: usize = 128;

/// How many it works on when the peer begins them.
pub(super) const EXCHANGES_ASKED_MAX: usize = 1_024;

/// How many open questions about ranges a peer may cause; about what 50,000 differing of 10^6 need.
const UNRESOLVED_MAX: usize = 1 << 16;

/// How many vouches may come with one message.
const VOUCHES_MAX: usize = 8_192;

/// How many documents wait to be started: what 50,000 differing need. What is more is found again by
/// another question, when these are done.
const WANTED_MAX: usize = 1 << 16;

/// What a message that waits takes at least.
pub(super) const WAITING_BYTES: usize = 256;

/// On how many documents that were not known to differ a session gives up and remembers it: far above
/// what damage or disagreement leads to. A peer that names others is not believed to have the same.
const RESTED_MAX: usize = 1 << 16;

/// A message about a document with all its parts.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) key: DocumentKey,
    pub(super) kind: DocumentKind,
    pub(super) changes: Vec<Change>,
    pub(super) vouches: Vec<Signed>,
    pub(super) told: Told,
    /// What it takes, in bytes.
    pub(super) bytes: usize,
}

/// The parts so far.
#[derive(Debug)]
struct Partial {
    key: DocumentKey,
    changes: Vec<Change>,
    vouches: Vec<SentVouch>,
    budget: usize,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Session {
    /// Ranges about which the peer has yet to say something, by their first key.
    unresolved: BTreeMap<KeyPrefix, KeyPrefix>,
    wanted: BTreeMap<DocumentKey, Want>,
    /// Something differs that is nowhere noted, since too much does.
    missed: bool,
    /// Whether a document became the same since the last question about all.
    progressed: bool,
    /// A document that is in none of `exchanges`, `wanted`, `differs` and `unresolved` is the same
    /// on both sides, and both know, unless something was missed.
    pub(super) exchanges: BTreeMap<DocumentKey, Exchange>,
    pub(super) differs: BTreeSet<DocumentKey>,
    /// Those of `differs` that are deleted here: what a peer says that it took is looked for in these.
    pub(super) buried: BTreeSet<DocumentKey>,
    /// How many documents were added to `differs` because one side gave up on them.
    rested: usize,
    /// Documents that became the same while they were being compared: that they differ, said of an
    /// earlier moment, is then no news.
    met: BTreeSet<DocumentKey>,
    /// Documents that the peer deleted and this node has.
    pub(super) lacks: BTreeSet<DocumentKey>,
    partial: Option<Partial>,
    /// Messages for documents of which a batch is not persisted yet.
    inbox: BTreeMap<DocumentKey, VecDeque<Assembled>>,
    inbox_bytes: usize,
    /// The buried clocks that the peer was told.
    graves_told: BTreeMap<DocumentKey, Digest>,
    pub(super) their_check: Option<Fingerprint>,
    check_told: Option<Fingerprint>,
    /// The total at which both were last the same.
    pub(super) synced: Option<Fingerprint>,
    pub(super) ranges: Vec<Range>,
    /// All of a document's are sent together.
    tombstones: Vec<(DocumentKey, Vec<Signed>)>,
    gone: BTreeSet<DocumentKey>,
    documents: Vec<DocumentMessage>,
    took: Vec<Stub>,
    rest: BTreeSet<DocumentKey>,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            unresolved: everything(),
            wanted: BTreeMap::new(),
            missed: false,
            progressed: false,
            exchanges: BTreeMap::new(),
            differs: BTreeSet::new(),
            buried: BTreeSet::new(),
            rested: 0,
            met: BTreeSet::new(),
            lacks: BTreeSet::new(),
            partial: None,
            inbox: BTreeMap::new(),
            inbox_bytes: 0,
            graves_told: BTreeMap::new(),
            their_check: None,
            check_told: None,
            synced: None,
            ranges: Vec::new(),
            tombstones: Vec::new(),
            gone: BTreeSet::new(),
            documents: Vec::new(),
            took: Vec::new(),
            rest: BTreeSet::new(),
        }
    }

    /// Takes a range of the peer's as an answer, to one question or to several of which each begins where
    /// the one before ends. False if nothing was asked about it.
    pub(super) fn resolve(&mut self, range: &Range) -> bool {
        let ends_before =
            |to: &KeyPrefix| !to.0.is_empty() && (range.to.0.is_empty() || *to < range.to);
        let mut from = range.from.clone();
        if !range.to.0.is_empty() && from >= range.to {
            return false;
        }
        loop {
            let Some(to) = self.unresolved.remove(&from) else { return false };
            if to == range.to {
                return true;
            }
            if !ends_before(&to) {
                self.unresolved.insert(range.to.clone(), to);
                return true;
            }
            from = to;
        }
    }

    /// Sends ranges, and expects answers to those that ask.
    pub(super) fn say_ranges(&mut self, ranges: Vec<Range>) {
        for range in ranges {
            let asks = match range.summary {
                Summary::Fingerprint(_) | Summary::Entries(_) => true,
                Summary::Same | Summary::Differ { .. } | Summary::Check(_) => false,
            };
            if asks && self.unresolved.len() < UNRESOLVED_MAX {
                self.unresolved.insert(range.from.clone(), range.to.clone());
            } else if asks {
                // Its answer will be to no question.
                self.missed = true;
            }
            match self.ranges.last_mut() {
                Some(last)
                    if last.summary == Summary::Same
                        && range.summary == Summary::Same
                        && last.to == range.from
                        && !range.from.0.is_empty() =>
                {
                    last.to = range.to;
                }
                Some(_) | None => self.ranges.push(range),
            }
        }
    }

    /// Whether both sides are known to have the same of it.
    pub(super) fn is_settled(&self, key: &DocumentKey) -> bool {
        !self.missed
            && !self.exchanges.contains_key(key)
            && !self.differs.contains(key)
            && !self.wanted.contains_key(key)
            && !self.is_compared(key)
    }

    /// Whether the peer has yet to say something about a range that this is in.
    fn is_compared(&self, key: &DocumentKey) -> bool {
        let key = KeyPrefix(key.to_bytes().to_vec());
        let last = self.unresolved.range(..=&key).next_back();
        last.is_some_and(|(_, to)| to.0.is_empty() || key < *to)
    }

    /// Ends an exchange: both have the same, and know.
    pub(super) fn settle(&mut self, key: &DocumentKey) {
        self.exchanges.remove(key);
        self.differs_no_more(key);
        self.progressed = true;
        if self.is_compared(key) && self.met.len() < UNRESOLVED_MAX {
            self.met.insert(*key);
        }
    }

    /// Notes that a document differs that is deleted here.
    pub(super) fn differs_buried(&mut self, key: &DocumentKey) {
        self.differs.insert(*key);
        self.buried.insert(*key);
    }

    pub(super) fn differs_no_more(&mut self, key: &DocumentKey) {
        self.differs.remove(key);
        self.buried.remove(key);
    }

    /// Notes a document that is to be started.
    pub(super) fn want(&mut self, key: DocumentKey, want: Want) {
        if self.wanted.len() < WANTED_MAX || self.wanted.contains_key(&key) {
            self.wanted.insert(key, want);
        } else {
            self.missed = true;
        }
    }

    /// Takes the next document that is to be started.
    pub(super) fn take_wanted(&mut self) -> Option<(DocumentKey, Want)> {
        self.wanted.pop_first()
    }

    /// A document is started in another way.
    pub(super) fn want_no_more(&mut self, key: &DocumentKey) {
        self.wanted.remove(key);
    }

    /// Asks about everything anew, where something was missed, nothing is under way any more, and asking
    /// leads further than the time before.
    pub(super) fn ask_anew(&mut self, question: Range) -> bool {
        let asks = self.missed && self.progressed && self.is_idle();
        if asks {
            self.begin_anew();
            self.ranges.push(question);
        }
        asks
    }

    /// Makes ready for the peer's question about everything. False if this device has asked the same and
    /// its question goes first.
    pub(super) fn asked_anew(&mut self, peer_is_first: bool) -> bool {
        let is_free = self.unresolved.is_empty();
        if is_free {
            self.begin_anew();
        }
        is_free || peer_is_first
    }

    fn begin_anew(&mut self) {
        self.unresolved = everything();
        (self.missed, self.progressed) = (false, false);
    }

    /// Takes what differed when one side told the other of an earlier moment: what is started here, and
    /// what the peer starts.
    pub(super) fn differ(&mut self, start: Vec<(DocumentKey, Want)>, keys: Vec<DocumentKey>) {
        for (key, want) in start {
            if !self.exchanges.contains_key(&key) && !self.met.contains(&key) {
                self.want(key, want);
            }
        }
        self.differs.extend(keys.into_iter().filter(|key| !self.met.contains(key)));
        if self.unresolved.is_empty() {
            self.met.clear();
        }
    }

    /// Both have the same of everything.
    pub(super) fn meet(&mut self, total: Fingerprint) -> bool {
        self.differs.clear();
        self.buried.clear();
        self.missed = false;
        self.synced.replace(total) != Some(total)
    }

    /// Gives up on a document until one of the copies changes.
    pub(super) fn let_rest(&mut self, key: DocumentKey) {
        self.wanted.remove(&key);
        while self.take_deferred(&key).is_some() {}
        self.rested(key);
        self.rest.insert(key);
    }

    /// Notes that one side gave up on a document, which is not the same on both.
    pub(super) fn rested(&mut self, key: DocumentKey) {
        self.exchanges.remove(&key);
        if self.rested < RESTED_MAX && self.differs.insert(key) {
            self.rested += 1;
        }
    }

    /// Takes a message or a part. Gives the whole when it is complete.
    ///
    /// # Errors
    ///
    /// A change is malformed or over a bound; what had come of the document is dropped.
    pub(super) fn assemble(
        &mut self,
        message: DocumentMessage,
        starts: &mut Vec<(DeviceId, StartNonce)>,
    ) -> Result<Option<Assembled>, ChunkError> {
        let key = message.key;
        let mut partial =
            self.partial.take().filter(|partial| partial.key == key).unwrap_or(Partial {
                key,
                changes: vec![],
                vouches: vec![],
                budget: ASSEMBLED_BYTES_MAX,
            });
        let fits = |vouch: &SentVouch| match vouch {
            SentVouch::Whole(signed) => signed.bytes.len() <= VOUCH_BYTES_MAX,
            SentVouch::Newest { .. } | SentVouch::Again { .. } => true,
        };
        let vouches = message.vouches.into_iter().filter_map(|vouch| vouch.lengthen(starts));
        let vouches: Vec<_> = vouches.filter(fits).collect();
        for chunk in &message.changes {
            partial.changes.push(Change::parse(&chunk.0, &mut partial.budget)?);
        }
        partial.vouches.extend(vouches);
        partial.vouches.truncate(VOUCHES_MAX);
        let Some(advance) = message.advance else {
            self.partial = Some(partial);
            return Ok(None);
        };
        let Partial { changes, vouches, budget, .. } = partial;
        let newest = newest(&changes);
        let open = |vouch: SentVouch| match vouch {
            SentVouch::Whole(signed) => Some(signed),
            SentVouch::Newest { device, start, signature } => {
                let (seq, hash) = *newest.get(&ActorId::of(&device, &start))?;
                let vouch = Vouch { key, device, start, seq, hash, own: None };
                Some(Signed { bytes: codec::encode(&vouch), author: device, signature })
            }
            SentVouch::Again { .. } => None,
        };
        let vouches: Vec<_> = vouches.into_iter().filter_map(open).collect();
        let told = Told {
            heads: advance.heads.unwrap_or_else(|| tips(&changes)),
            need: advance.need,
            have: advance.have,
            asks: advance.asks,
        };
        let bytes = ASSEMBLED_BYTES_MAX - budget
            + vouches.len() * SIGNED_BYTES
            + told_bytes(&told.heads, &told.need, told.have.as_ref())
            + WAITING_BYTES;
        Ok(Some(Assembled { key, kind: message.kind, changes, vouches, told, bytes }))
    }

    /// Keeps a message until its document is free. False if there are too many.
    pub(super) fn defer(&mut self, message: Assembled) -> bool {
        if self.inbox_bytes + message.bytes > ASSEMBLED_BYTES_MAX
            || self.inbox.len() >= EXCHANGES_ASKED_MAX
        {
            return false;
        }
        self.inbox_bytes += message.bytes;
        self.inbox.entry(message.key).or_default().push_back(message);
        true
    }

    /// The next message that was kept for a document.
    pub(super) fn take_deferred(&mut self, key: &DocumentKey) -> Option<Assembled> {
        let messages = self.inbox.get_mut(key)?;
        let message = messages.pop_front();
        if messages.is_empty() {
            self.inbox.remove(key);
        }
        self.inbox_bytes -= message.as_ref().map_or(0, |message| message.bytes);
        message
    }

    /// Sends a document's tombstones unless the peer knows of what they bury. Whether it did.
    pub(super) fn say_graves(&mut self, key: &DocumentKey, entry: &Entry) -> bool {
        let buried = Digest::of(&codec::encode(&entry.state.buried));
        let says =
            !entry.graves.is_empty() && self.graves_told.insert(*key, buried) != Some(buried);
        if says {
            self.tombstones.push((*key, entry.graves.clone()));
            if entry.state.is_deleted() {
                self.gone.insert(*key);
            }
        }
        says
    }

    /// Sends a document's tombstones, and that nothing is left of it here, though the peer may know.
    pub(super) fn say_gone(&mut self, key: &DocumentKey, entry: &Entry) {
        if !self.gone.contains(key) {
            self.graves_told.remove(key);
            self.say_graves(key, entry);
        }
    }

    /// Ends what is under way about a document that is deleted here. The peer's answer to the tombstones
    /// ends it there, and here if it has nothing left either.
    pub(super) fn bury(&mut self, key: &DocumentKey, entry: &Entry) {
        self.exchanges.remove(key);
        self.wanted.remove(key);
        if self.say_graves(key, entry) {
            self.differs_buried(key);
        } else {
            if self.differs.contains(key) {
                self.buried.insert(*key);
            }
            self.say_took(key, entry);
        }
    }

    /// Says that a document is here as the peer told it.
    pub(super) fn say_took(&mut self, key: &DocumentKey, entry: &Entry) {
        self.took.push(entry.state.stub(key));
    }

    /// Notes what the peer itself said is buried.
    pub(super) fn graves_heard(&mut self, key: DocumentKey, buried: &Clock) {
        self.graves_told.insert(key, Digest::of(&codec::encode(buried)));
    }

    /// Sends a message about a document, in as many parts as it needs.
    pub(super) fn say(
        &mut self,
        key: DocumentKey,
        kind: &DocumentKind,
        changes: &[Change],
        vouches: Vec<(&Vouch, &Signed)>,
        told: Told,
    ) {
        let part = || DocumentMessage {
            key,
            kind: kind.clone(),
            changes: Vec::new(),
            vouches: Vec::new(),
            advance: None,
        };
        let (mut last, mut size) = (part(), 0);
        for change in changes {
            let chunk = change.to_chunk();
            if size > 0 && size + chunk.0.len() > MESSAGE_BYTES_GOAL {
                self.documents.push(std::mem::replace(&mut last, part()));
                size = 0;
            }
            size += chunk.0.len();
            last.changes.push(chunk);
        }
        let newest = newest(changes);
        for (vouch, signed) in vouches {
            if size > 0 && size + SIGNED_BYTES > MESSAGE_BYTES_GOAL {
                self.documents.push(std::mem::replace(&mut last, part()));
                size = 0;
            }
            size += SIGNED_BYTES;
            let newest = newest.get(&vouch.actor()).copied();
            last.vouches.push(SentVouch::new(vouch, signed, newest));
        }
        let implied = !changes.is_empty() && tips(changes) == told.heads;
        last.advance = Some(Advance {
            asks: told.asks,
            need: told.need,
            heads: (!implied).then_some(told.heads),
            have: told.have,
        });
        self.documents.push(last);
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.unresolved.is_empty()
            && self.wanted.is_empty()
            && self.exchanges.is_empty()
            && self.inbox.is_empty()
            && self.partial.is_none()
    }

    /// As if it had been told of more than it notes.
    #[cfg(test)]
    pub(super) fn miss(&mut self) {
        (self.missed, self.progressed) = (true, true);
    }

    /// Whether nothing is under way and all is known to be the same.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_idle() && self.differs.is_empty() && self.lacks.is_empty() && self.met.is_empty()
    }

    /// Tells the peer the total, once.
    pub(super) fn say_check(&mut self, total: Fingerprint) {
        if self.check_told != Some(total) {
            self.check_told = Some(total);
            let all = KeyPrefix::default;
            self.ranges.push(Range { from: all(), to: all(), summary: Summary::Check(total) });
        }
    }

    /// The messages that came up, in the order in which they are to be sent.
    pub(super) fn flush(&mut self) -> Vec<SyncMessage> {
        let mut messages = Vec::new();
        let (checks, ranges): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ranges)
            .into_iter()
            .partition(|range| matches!(range.summary, Summary::Check(_)));
        let tombstones = std::mem::take(&mut self.tombstones);
        let gone = std::mem::take(&mut self.gone);
        let rest: Vec<_> = std::mem::take(&mut self.rest).into_iter().collect();
        pack(ranges, range_bytes, SyncMessage::Ranges, &mut messages);
        let buries = |of: Vec<(DocumentKey, Vec<Signed>)>| {
            let keys: BTreeSet<_> = of.iter().map(|(key, _)| *key).collect();
            let gone = keys.intersection(&gone).copied().collect();
            let tombstones = of.into_iter().flat_map(|(_, tombstones)| tombstones).collect();
            SyncMessage::Tombstones { tombstones, gone }
        };
        pack(tombstones, graves_bytes, buries, &mut messages);
        let documents = |mut documents: Vec<DocumentMessage>| {
            let mut starts = Vec::new();
            let vouches = documents.iter_mut().flat_map(|document| &mut document.vouches);
            vouches.for_each(|vouch| vouch.shorten(&mut starts));
            SyncMessage::Documents(documents)
        };
        pack(std::mem::take(&mut self.documents), bytes, documents, &mut messages);
        pack(std::mem::take(&mut self.took), |_| 8, SyncMessage::Took, &mut messages);
        pack(rest, |_| 24, SyncMessage::Rest, &mut messages);
        pack(checks, range_bytes, SyncMessage::Ranges, &mut messages);
        messages
    }
}

/// The range of all documents, about which something is to be said.
fn everything() -> BTreeMap<KeyPrefix, KeyPrefix> {
    [Default::default()].into()
}

/// What a signed vouch takes at most on the wire.
const SIGNED_BYTES: usize = 368;

/// Each actor's newest change of these: its number and its name.
fn newest(changes: &[Change]) -> BTreeMap<ActorId, (u64, ChangeHash)> {
    let mut newest = BTreeMap::new();
    for change in changes {
        let last = newest.entry(change.actor()).or_insert((0, change.hash()));
        *last = (*last).max((change.seq(), change.hash()));
    }
    newest
}

/// Those on which no other depends, ordered.
fn tips(changes: &[Change]) -> Vec<ChangeHash> {
    let mut tips: BTreeSet<_> = changes.iter().map(Change::hash).collect();
    for change in changes {
        for dep in change.deps() {
            tips.remove(dep);
        }
    }
    tips.into_iter().collect()
}

fn range_bytes(range: &Range) -> usize {
    64 + match &range.summary {
        Summary::Entries(stubs) => stubs.len() * 8,
        Summary::Differ { entries, lacking } => {
            let heads = |entry: &IndexEntry| entry.heads.as_ref().map_or(0, Vec::len);
            entries.iter().map(|entry| 64 + heads(entry) * 34).sum::<usize>() + lacking.len() * 8
        }
        Summary::Fingerprint(_) | Summary::Same | Summary::Check(_) => 0,
    }
}

fn bytes(message: &DocumentMessage) -> usize {
    let advance = message.advance.as_ref().map_or(0, |advance| {
        let heads = advance.heads.as_deref().unwrap_or_default();
        told_bytes(heads, &advance.need, advance.have.as_ref())
    });
    let changes: usize = message.changes.iter().map(|chunk| chunk.0.len() + 8).sum();
    96 + advance + changes + message.vouches.len() * SIGNED_BYTES
}

fn graves_bytes((_, tombstones): &(DocumentKey, Vec<Signed>)) -> usize {
    24 + tombstones.iter().map(|signed| 128 + signed.bytes.len()).sum::<usize>()
}

fn told_bytes(heads: &[ChangeHash], need: &[ChangeHash], have: Option<&Have>) -> usize {
    let have = have.map_or(0, |have| have.bloom.len() + have.last_sync.len() * 36);
    have + (heads.len() + need.len()) * 36
}

/// Puts things into as few messages as the goal allows.
fn pack<T>(
    things: Vec<T>,
    size: impl Fn(&T) -> usize,
    message: impl Fn(Vec<T>) -> SyncMessage,
    messages: &mut Vec<SyncMessage>,
) {
    let (mut packed, mut total) = (Vec::new(), 0);
    for thing in things {
        let size = size(&thing);
        if !packed.is_empty() && total + size > MESSAGE_BYTES_GOAL {
            messages.push(message(std::mem::take(&mut packed)));
            total = 0;
        }
        total += size;
        packed.push(thing);
    }
    if !packed.is_empty() {
        messages.push(message(packed));
    }
}

//! The index: what each document's state is, with nothing loaded, and how two of them are compared.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use minicbor::{Decode, Encode};
use weft_protocol::{
    codec,
    document::{ChangeHash, DocumentKey, DocumentKind, IndexState},
    id::DeviceId,
    row::{Item, ReadError, Row, Rows, Table, VALUE_BYTES_MAX, Write},
    signed::Signed,
    sync::{Fingerprint, IndexEntry, KeyPrefix, Range, Stub, Summary},
    time::WallTime,
};

use super::packed::{Packed, Shared};

/// The most bytes of a row of the index: all that a disk takes. Tombstones with long clocks come from
/// other devices, and what was written must be read when the node starts.
const ENTRY_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// A range with at most so many entries is listed: listing costs 8 bytes an entry, asking again costs
/// 13 for each part and half a round trip.
const LISTED_MAX: usize = 8;

/// How many entries of a peer's list are looked at.
const LISTED_TAKEN_MAX: usize = 256;

/// Of a document with more heads they are not told before they are asked for.
const HEADS_TOLD_MAX: usize = 8;

/// Into how many parts a range is split at most.
const PARTS_MAX: usize = 16;

/// How many keys a range that answers may list, so that it fits into a frame.
pub(super) const DIFFERING_MAX: usize = 4_096;

/// A document's row in the index.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct Entry {
    #[n(0)]
    pub(super) kind: DocumentKind,
    #[n(1)]
    pub(super) state: IndexState,
    /// Rows of changes that lie beside the saved document, numbered from 0.
    #[n(2)]
    pub(super) rows: u64,
    /// Changes in its history.
    #[n(3)]
    pub(super) changes: u64,
    /// When the newest change or tombstone was made, by its author's clock.
    #[n(4)]
    pub(super) modified: WallTime,
    /// Who made it.
    #[n(5)]
    pub(super) author: Option<DeviceId>,
    /// Signed tombstones, none of which another covers.
    #[n(6)]
    pub(super) graves: Vec<Signed>,
}

impl Entry {
    pub(super) fn new(kind: DocumentKind) -> Self {
        Self {
            kind,
            state: IndexState { heads: Vec::new(), buried: Default::default() },
            rows: 0,
            changes: 0,
            modified: WallTime::default(),
            author: None,
            graves: Vec::new(),
        }
    }

    pub(super) fn write(&self, key: &DocumentKey) -> Write {
        Write::Put(row(key), codec::encode(self))
    }
}

fn row(key: &DocumentKey) -> Row {
    Row::named(Table::Index, &[], &key.to_bytes())
}

/// What the rows say of a document.
pub(super) fn read(key: &DocumentKey, rows: &dyn Rows) -> Result<Option<Entry>, ReadError> {
    rows.get(&row(key))?.map(|value| decode(&value)).transpose()
}

fn decode(value: &[u8]) -> Result<Entry, ReadError> {
    codec::decode(value, ENTRY_BYTES_MAX)
        .map_err(|error| ReadError { table: Table::Index, why: error.to_string() })
}

/// A sum modulo 2^256, least significant byte first.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Sum([u8; 32]);

impl Sum {
    fn of(key: &DocumentKey, state: &IndexState) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&key.to_bytes()).update(state.digest().as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    fn add(&mut self, other: &Self) {
        let mut carry = 0;
        for (byte, other) in self.0.iter_mut().zip(other.0) {
            let sum = u16::from(*byte) + u16::from(other) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
    }

    fn subtract(&mut self, other: &Self) {
        let mut complement = Self(other.0.map(|byte| !byte));
        let mut one = Self::default();
        one.0[0] = 1;
        complement.add(&one);
        self.add(&complement);
    }

    /// What stands for an entry in a list.
    fn stub(&self) -> Stub {
        Stub::of(&self.0)
    }

    fn fingerprint(&self, count: usize) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(&(count as u64).to_be_bytes());
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Fingerprint(bytes)
    }
}

/// All documents, by key.
#[derive(Debug)]
pub(super) struct Index {
    entries: BTreeMap<DocumentKey, (Packed, Sum)>,
    shared: Shared,
    total: Sum,
}

/// An entry, seen where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    packed: &'a Packed,
    shared: &'a Shared,
}

impl<'a> Seen<'a> {
    pub(super) fn kind(self) -> &'a DocumentKind {
        self.packed.kind(self.shared)
    }

    pub(super) fn heads(self) -> &'a [ChangeHash] {
        self.packed.heads()
    }

    pub(super) fn graves(self) -> &'a [Signed] {
        self.packed.graves()
    }

    pub(super) fn is_deleted(self) -> bool {
        self.packed.is_deleted()
    }

    pub(super) fn modified(self) -> WallTime {
        self.packed.modified()
    }

    pub(super) fn entry(self) -> Cow<'a, Entry> {
        self.packed.unpack(self.shared)
    }
}

/// What a peer's range led to.
#[derive(Default, Debug)]
pub(super) struct Compared {
    /// To be sent back.
    pub(super) replies: Vec<Range>,
    /// What differs and is started here.
    pub(super) start: Vec<(DocumentKey, Want)>,
    /// What differs and is started by the peer.
    pub(super) differ: Vec<DocumentKey>,
}

/// A document that is to be started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Want {
    pub(super) kind: DocumentKind,
    pub(super) theirs: Theirs,
}

/// What the peer said of its copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Theirs {
    Unknown,
    /// It has none.
    Nothing,
    /// Its heads; none if it deleted it.
    Heads(Vec<ChangeHash>),
}

impl Index {
    pub(super) fn load(rows: &dyn Rows) -> Result<Self, ReadError> {
        let (mut total, mut shared) = (Sum::default(), Shared::default());
        let mut entries = Vec::new();
        for (item, value) in rows.scan(Table::Index, &[])? {
            let Item::Named(name) = item else { continue };
            let key = DocumentKey::from_bytes(&name).ok_or_else(|| ReadError {
                table: Table::Index,
                why: "a name that is no key".to_owned(),
            })?;
            let entry = decode(&value)?;
            let sum = Sum::of(&key, &entry.state);
            total.add(&sum);
            entries.push((key, (Packed::pack(entry, &mut shared), sum)));
        }
        // Out of a list the tree is made with full nodes; one by one, in order, they are half empty.
        Ok(Self { entries: entries.into_iter().collect(), shared, total })
    }

    pub(super) fn insert(&mut self, key: DocumentKey, entry: Entry) {
        let sum = Sum::of(&key, &entry.state);
        self.total.add(&sum);
        let packed = Packed::pack(entry, &mut self.shared);
        if let Some((_, old)) = self.entries.insert(key, (packed, sum)) {
            self.total.subtract(&old);
        }
    }

    pub(super) fn see(&self, key: &DocumentKey) -> Option<Seen<'_>> {
        self.entries.get(key).map(|(packed, _)| self.seen(packed))
    }

    pub(super) fn get(&self, key: &DocumentKey) -> Option<Cow<'_, Entry>> {
        self.see(key).map(Seen::entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&DocumentKey, Seen<'_>)> {
        self.entries.iter().map(|(key, (packed, _))| (key, self.seen(packed)))
    }

    fn seen<'a>(&'a self, packed: &'a Packed) -> Seen<'a> {
        Seen { packed, shared: &self.shared }
    }

    /// The heads that a document has here: its skeleton's if it was never written to.
    pub(super) fn heads(&self, key: &DocumentKey, skeleton: ChangeHash) -> Vec<ChangeHash> {
        self.see(key)
            .filter(|seen| !seen.is_deleted())
            .map_or_else(|| vec![skeleton], |seen| seen.heads().to_vec())
    }

    pub(super) fn total(&self) -> Fingerprint {
        self.total.fingerprint(self.entries.len())
    }

    fn range(
        &self,
        from: &KeyPrefix,
        to: &KeyPrefix,
    ) -> impl Iterator<Item = (&DocumentKey, &(Packed, Sum))> + Clone {
        let (from, to) = (padded(from), (!to.0.is_empty()).then(|| padded(to)));
        let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
        // A range that ends before it starts would panic.
        let empty = to.is_some_and(|to| to <= from);
        let lower = if empty { Bound::Excluded(DocumentKey::MAX) } else { Bound::Included(from) };
        let upper = if empty { Bound::Unbounded } else { upper };
        self.entries.range((lower, upper))
    }

    /// The question about all documents with which a session opens.
    pub(super) fn question(&self) -> Range {
        Range {
            from: KeyPrefix::default(),
            to: KeyPrefix::default(),
            summary: Summary::Fingerprint(self.total().stub()),
        }
    }

    /// Compares what a peer says of a range with what is here. `older` gives heads that a document had
    /// before: if the peer is where this node was, all that it lacks is known.
    pub(super) fn compare(
        &self,
        range: Range,
        mut older: impl FnMut(&DocumentKey, &Entry) -> Vec<Vec<ChangeHash>>,
    ) -> Compared {
        let mut compared = Compared::default();
        match range.summary {
            // What a peer may ask at any time costs no walk where both have the same.
            Summary::Fingerprint(theirs)
                if range.from.0.is_empty()
                    && range.to.0.is_empty()
                    && theirs == self.total().stub() =>
            {
                compared.replies.push(Range { summary: Summary::Same, ..range });
            }
            Summary::Fingerprint(theirs) => {
                let entries: Vec<_> = self.range(&range.from, &range.to).collect();
                if fingerprint(entries.iter().map(|(_, (_, sum))| sum)).stub() == theirs {
                    compared.replies.push(Range { summary: Summary::Same, ..range });
                } else if entries.len() <= LISTED_MAX {
                    let stubs = entries.iter().map(|(_, (_, sum))| sum.stub());
                    let summary = Summary::Entries(stubs.collect());
                    compared.replies.push(Range { summary, ..range });
                } else {
                    compared.replies = split(&entries, range.from, range.to);
                }
            }
            Summary::Entries(mut theirs) => {
                theirs.truncate(LISTED_TAKEN_MAX);
                let mut lacking: BTreeSet<_> = theirs.into_iter().collect();
                let mut own = Vec::new();
                for (key, (packed, sum)) in self.range(&range.from, &range.to) {
                    if !lacking.remove(&sum.stub()) {
                        own.push((*key, self.seen(packed)));
                    }
                }
                own.retain(|(key, seen)| {
                    if lacking.is_empty() {
                        return true;
                    }
                    let entry = seen.entry();
                    let is_there = |heads: &Vec<ChangeHash>| {
                        let buried = entry.state.buried.clone();
                        let state = IndexState { heads: heads.clone(), buried };
                        lacking.remove(&Sum::of(key, &state).stub())
                    };
                    let older = older(key, &entry);
                    let Some(heads) = older.into_iter().find(is_there) else { return true };
                    let (kind, theirs) = (entry.kind.clone(), Theirs::Heads(heads));
                    compared.start.push((*key, Want { kind, theirs }));
                    false
                });
                if lacking.is_empty() {
                    // The peer has none of these: no need to wait for its saying so.
                    let want = |kind| Want { kind, theirs: Theirs::Nothing };
                    let start = own.into_iter().map(|(key, seen)| (key, want(seen.kind().clone())));
                    compared.start.extend(start);
                    compared.replies.push(Range { summary: Summary::Same, ..range });
                } else {
                    compared.differ = own.iter().map(|(key, _)| *key).collect();
                    compared.replies = differing(&own, &lacking, &range.from, &range.to);
                }
            }
            Summary::Differ { entries, lacking } => {
                let theirs: BTreeMap<_, _> = entries
                    .into_iter()
                    .filter(|entry| {
                        let key = entry.key.to_bytes();
                        key.as_slice() >= range.from.0.as_slice()
                            && (range.to.0.is_empty() || key.as_slice() < range.to.0.as_slice())
                    })
                    .map(|entry| (entry.key, entry))
                    .collect();
                for (key, (packed, sum)) in self.range(&range.from, &range.to) {
                    if lacking.contains(&sum.stub()) && !theirs.contains_key(key) {
                        let kind = packed.kind(&self.shared).clone();
                        let want = Want { kind, theirs: Theirs::Nothing };
                        compared.start.push((*key, want));
                    }
                }
                for (key, entry) in theirs {
                    let heads = entry.heads.filter(|heads| heads.len() <= HEADS_TOLD_MAX);
                    let theirs = heads.map_or(Theirs::Unknown, Theirs::Heads);
                    compared.start.push((key, Want { kind: entry.kind, theirs }));
                }
            }
            Summary::Same | Summary::Check(_) => {}
        }
        compared
    }
}

fn padded(prefix: &KeyPrefix) -> DocumentKey {
    let mut bytes = [0; DocumentKey::LEN];
    for (byte, prefix) in bytes.iter_mut().zip(&prefix.0) {
        *byte = *prefix;
    }
    DocumentKey::from_bytes(&bytes).expect("the length is that of a key")
}

fn fingerprint<'a>(sums: impl Iterator<Item = &'a Sum>) -> Fingerprint {
    let (mut total, mut count) = (Sum::default(), 0);
    for sum in sums {
        total.add(sum);
        count += 1;
    }
    total.fingerprint(count)
}

/// Questions about about equally many entries each.
fn split(entries: &[(&DocumentKey, &(Packed, Sum))], from: KeyPrefix, to: KeyPrefix) -> Vec<Range> {
    let parts = (entries.len() / 6).clamp(2, PARTS_MAX);
    let mut ranges = Vec::new();
    let mut lower = from;
    for part in 1..=parts {
        let (first, end) = (entries.len() * (part - 1) / parts, entries.len() * part / parts);
        let upper =
            if part == parts { to.clone() } else { between(entries[end - 1].0, entries[end].0) };
        let sums = entries[first..end].iter().map(|(_, (_, sum))| sum);
        let summary = Summary::Fingerprint(fingerprint(sums).stub());
        ranges.push(Range { from: lower, to: upper.clone(), summary });
        lower = upper;
    }
    ranges
}

/// Answers that list what differs, each short enough for a frame. Each says also what is lacking, which
/// may lie in any of them.
fn differing(
    own: &[(DocumentKey, Seen<'_>)],
    lacking: &BTreeSet<Stub>,
    from: &KeyPrefix,
    to: &KeyPrefix,
) -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut lower = from.clone();
    let mut chunks = own.chunks(DIFFERING_MAX).peekable();
    loop {
        let chunk = chunks.next().unwrap_or_default();
        let upper = chunks
            .peek()
            .map_or_else(|| to.clone(), |next| between(&chunk[chunk.len() - 1].0, &next[0].0));
        let entries = chunk.iter().map(|(key, seen)| IndexEntry {
            key: *key,
            kind: seen.kind().clone(),
            heads: (seen.heads().len() <= HEADS_TOLD_MAX).then(|| seen.heads().to_vec()),
        });
        let summary = Summary::Differ {
            entries: entries.collect(),
            lacking: lacking.iter().copied().collect(),
        };
        ranges.push(Range { from: lower, to: upper.clone(), summary });
        lower = upper;
        if chunks.peek().is_none() {
            return ranges;
        }
    }
}

/// The shortest prefix that is greater than `before` and not greater than `after`.
fn between(before: &DocumentKey, after: &DocumentKey) -> KeyPrefix {
    let (before, after) = (before.to_bytes(), after.to_bytes());
    let common = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    KeyPrefix(after[..=common.min(DocumentKey::LEN - 1)].to_vec())
}

#[cfg(test)]
mod tests {
    use weft_protocol::id::DocumentId;

    use super::*;

    fn entry(byte: u8) -> Entry {
        let mut entry = Entry::new(DocumentKind::NOTE);
        entry.state.heads = vec![ChangeHash([byte; 32])];
        entry
    }

    fn key(number: u32) -> DocumentKey {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(&number.to_be_bytes()).as_bytes()[..16]);
        DocumentKey::first(DocumentId::from_bytes(bytes))
    }

    fn index(numbers: impl Iterator<Item = u32>) -> Index {
        let mut index =
            Index { entries: BTreeMap::new(), shared: Shared::default(), total: Sum::default() };
        for number in numbers {
            index.insert(key(number), entry(1));
        }
        index
    }

    #[test]
    fn the_total_does_not_depend_on_the_order_of_changes() {
        let mut one = index(0..50);
        one.insert(key(3), entry(9));
        one.insert(key(3), entry(1));
        assert_eq!(one.total(), index((0..50).rev()).total());
        assert_eq!(one.total(), fingerprint(one.entries.values().map(|(_, sum)| sum)));
        one.insert(key(3), entry(9));
        assert_ne!(one.total(), index(0..50).total());
    }

    #[test]
    fn comparing_finds_exactly_what_differs() {
        let mut one = index((0..1_000).filter(|number| number % 100 != 7));
        let mut other = index((0..1_000).filter(|number| number % 100 != 8));
        one.insert(key(500), entry(2));
        other.insert(key(600), entry(3));
        let mut expected: Vec<_> = (0..10).flat_map(|n| [n * 100 + 7, n * 100 + 8]).collect();
        expected.extend([500, 600]);
        let mut expected: Vec<_> = expected.into_iter().map(key).collect();
        expected.sort();

        let mut questions = vec![one.question()];
        let (mut started, mut told) = (Vec::new(), Vec::new());
        for round in 0.. {
            assert!(round < 12, "it ends");
            let side = if round % 2 == 0 { &other } else { &one };
            let mut replies = Vec::new();
            for range in questions {
                let compared = side.compare(range, |_, _| Vec::new());
                replies.extend(compared.replies);
                started.extend(compared.start.into_iter().map(|(key, ..)| key));
                told.extend(compared.differ);
            }
            questions = replies;
            if questions.is_empty() {
                break;
            }
        }
        started.sort();
        assert_eq!(started, expected, "each is started by one of them");
        assert!(told.iter().all(|key| started.contains(key)));
        assert!(told.contains(&key(500)) && told.contains(&key(600)));
    }

    #[test]
    fn odd_ranges_are_empty() {
        let index = index(0..20);
        let prefix = |bytes: &[u8]| KeyPrefix(bytes.to_vec());
        assert_eq!(index.range(&prefix(&[9]), &prefix(&[3])).count(), 0);
        assert_eq!(index.range(&prefix(&[9]), &prefix(&[9])).count(), 0);
        assert_eq!(index.range(&prefix(&[]), &prefix(&[0; 40])).count(), 0);
        assert_eq!(index.range(&prefix(&[]), &prefix(&[])).count(), 20);
    }

    #[test]
    fn long_answers_are_cut() {
        let index = index(0..10_000);
        let own: Vec<_> = index.iter().map(|(key, seen)| (*key, seen)).collect();
        let all = KeyPrefix::default;
        let ranges = differing(&own, &BTreeSet::new(), &all(), &all());
        assert_eq!(ranges.len(), 3);
        assert!(ranges.windows(2).all(|pair| pair[0].to == pair[1].from));
        assert_eq!(differing(&[], &BTreeSet::new(), &all(), &all()).len(), 1);
    }
}

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::{
    document::{ChangeHash, Clock, IndexState, Tombstone, Vouch},
    frame::FRAME_BYTES_MAX,
    row::{MemoryRows, Row, Table},
    signed::{Domain, Signed},
    sync::{
        ASSEMBLED_BYTES_MAX, Chunk, DocumentMessage, KeyPrefix, Range, SentVouch, Stub, Summary,
    },
    time::{Timestamp, WallTime},
    value::Value,
};

use super::{
    conversation::shared_heads,
    index::{Theirs, Want},
    session::{Assembled, WAITING_BYTES},
    shelf::{LOADED_MAX, saved_row},
    *,
};
use crate::document::exchange::Told;

mod adoption;

/// A generator of which a seed gives the same numbers everywhere (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn index(&mut self, len: usize) -> usize {
        self.roll(len as u64) as usize
    }
}

#[derive(Clone, Default)]
struct Everybody {
    may_not: BTreeSet<DeviceId>,
    revoked: BTreeSet<DeviceId>,
}

impl Members for Everybody {
    fn may_write(&self, device: &DeviceId, _: &DocumentId, _: &DocumentKind) -> bool {
        !self.may_not.contains(device) && !self.revoked.contains(device)
    }

    fn is_gone(&self, device: &DeviceId) -> bool {
        self.revoked.contains(device)
    }
}

fn fabric() -> FabricId {
    FabricId::from_bytes([7; 32])
}

fn note(number: u64) -> DocumentId {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&blake3::hash(&number.to_be_bytes()).as_bytes()[..16]);
    DocumentId::from_bytes(bytes)
}

fn fields(entries: &[(&str, &str)]) -> Value {
    Value::map(entries.iter().map(|(key, value)| (*key, Value::from(*value))))
}

fn create(number: u64, text: &str) -> Edit {
    Edit::Create { id: note(number), kind: DocumentKind::NOTE, content: fields(&[("text", text)]) }
}

fn update(number: u64, field: &str, text: &str) -> Edit {
    Edit::Update { id: note(number), content: fields(&[(field, text)]) }
}

struct Node {
    signing: SigningKey,
    me: DeviceId,
    starts: u8,
    replica: Replica,
    rows: MemoryRows,
    /// Batches that are handed out and not persisted, in order.
    writing: VecDeque<(Ticket, Vec<Write>)>,
    members: Everybody,
    synced: BTreeSet<DeviceId>,
    changed: Vec<(DocumentId, bool)>,
    aside: Vec<DocumentId>,
    wall: i64,
}

impl Node {
    fn new(number: u8, rows: MemoryRows) -> Self {
        let signing = SigningKey::from_bytes(&[number + 1; 32]);
        let start = StartNonce([0; 16]);
        let replica = Replica::new(signing.clone(), &fabric(), start, &rows).unwrap();
        Self {
            me: replica.author.device,
            signing,
            starts: 0,
            replica,
            rows,
            writing: VecDeque::new(),
            members: Everybody::default(),
            synced: BTreeSet::new(),
            changed: Vec::new(),
            aside: Vec::new(),
            wall: i64::from(number),
        }
    }

    /// Loses what is not persisted.
    fn restart(&mut self) {
        self.starts += 1;
        self.writing.clear();
        self.synced.clear();
        let start = StartNonce([self.starts; 16]);
        self.replica = Replica::new(self.signing.clone(), &fabric(), start, &self.rows).unwrap();
    }

    fn with<T>(&mut self, call: impl FnOnce(&mut Replica, &Context<'_>) -> T) -> T {
        let now = Now { mono: Timestamp::ZERO, wall: WallTime::from_unix_millis(self.wall) };
        let context = Context { now, rows: &self.rows, members: &self.members };
        call(&mut self.replica, &context)
    }

    fn handle(&mut self, input: Input) {
        self.with(|replica, context| replica.handle_input(input, context));
    }

    fn prepare(&mut self, edits: Vec<Edit>) -> Result<Prepared, EditError> {
        self.wall += 1_000;
        self.with(|replica, context| replica.prepare(edits, context))
    }

    /// Prepares edits and hands them to the disk.
    fn edit(&mut self, edits: Vec<Edit>) -> Result<(), EditError> {
        let prepared = self.prepare(edits)?;
        self.writing.push_back((prepared.ticket, prepared.writes));
        Ok(())
    }

    /// Hears that a device is out, adopts what it made, and hands that to the disk.
    fn hear_revoke(&mut self, device: DeviceId) {
        self.members.revoked.insert(device);
        let adopted = self.with(|replica, context| replica.adopt(&device, context)).unwrap();
        self.writing.push_back((adopted.ticket, adopted.writes));
        self.handle(Input::MembersChanged);
    }

    fn persist_one(&mut self) -> bool {
        let Some((ticket, writes)) = self.writing.pop_front() else { return false };
        self.rows.apply(writes);
        self.handle(Input::Persisted(ticket));
        true
    }

    fn content(&self, number: u64) -> Option<Value> {
        self.replica.read(&note(number), &self.rows).unwrap()
    }
}

/// Nodes, and streams between them that keep their order.
struct Fabric {
    nodes: Vec<Node>,
    wires: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    bytes: usize,
    range_bytes: usize,
    /// Of the changes themselves, as they are sent.
    change_bytes: usize,
    messages: usize,
    trace: blake3::Hasher,
}

impl Fabric {
    fn new(count: u8) -> Self {
        Self::over((0..count).map(|number| Node::new(number, MemoryRows::default())).collect())
    }

    fn over(nodes: Vec<Node>) -> Self {
        Self {
            nodes,
            wires: BTreeMap::new(),
            bytes: 0,
            range_bytes: 0,
            change_bytes: 0,
            messages: 0,
            trace: blake3::Hasher::new(),
        }
    }

    fn open(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.wires.insert((from, to), VecDeque::new());
            let peer = self.nodes[to].me;
            self.nodes[from].handle(Input::Opened(peer));
        }
        self.collect();
    }

    fn open_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in 0..a {
                if !self.wires.contains_key(&(a, b)) {
                    self.open(a, b);
                }
            }
        }
    }

    /// What is on the way is lost.
    fn close(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            if self.wires.remove(&(from, to)).is_some() {
                let peer = self.nodes[to].me;
                self.nodes[from].handle(Input::Closed(peer));
            }
        }
        self.collect();
    }

    fn restart(&mut self, at: usize) {
        for other in 0..self.nodes.len() {
            self.close(at, other);
        }
        self.nodes[at].restart();
    }

    fn collect(&mut self) {
        for from in 0..self.nodes.len() {
            while let Some(output) = self.nodes[from].replica.poll_output() {
                match output {
                    Output::Send { peer, message } => {
                        let to = self.nodes.iter().position(|node| node.me == peer).unwrap();
                        let bytes = message.encode();
                        assert!(bytes.len() <= FRAME_BYTES_MAX, "{} bytes", bytes.len());
                        self.bytes += bytes.len();
                        if matches!(message, SyncMessage::Ranges(_)) {
                            self.range_bytes += bytes.len();
                        }
                        if let SyncMessage::Documents(documents) = &message {
                            let chunks = documents.iter().flat_map(|document| &document.changes);
                            self.change_bytes += chunks.map(|chunk| chunk.0.len()).sum::<usize>();
                        }
                        self.messages += 1;
                        self.trace.update(&bytes);
                        if let Some(wire) = self.wires.get_mut(&(from, to)) {
                            wire.push_back(bytes);
                        }
                    }
                    Output::Persist { ticket, writes, .. } => {
                        self.nodes[from].writing.push_back((ticket, writes));
                    }
                    Output::Changed { document, remote, .. } => {
                        self.nodes[from].changed.push((document, remote));
                    }
                    Output::PeerSynced(peer) => {
                        self.nodes[from].synced.insert(peer);
                    }
                    Output::SetAside { document, .. } => self.nodes[from].aside.push(document),
                }
            }
        }
    }

    /// Lets `change` alter what is on the way from one to another.
    fn tamper(&mut self, from: usize, to: usize, mut change: impl FnMut(&mut SyncMessage)) {
        for bytes in self.wires.get_mut(&(from, to)).unwrap() {
            let mut message = SyncMessage::decode(bytes).unwrap();
            change(&mut message);
            *bytes = message.encode();
        }
    }

    fn deliver_one(&mut self, from: usize, to: usize) -> bool {
        let Some(bytes) = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        let message = SyncMessage::decode(&bytes).unwrap();
        let peer = self.nodes[from].me;
        self.nodes[to].handle(Input::Message(peer, message));
        self.collect();
        true
    }

    fn persist_one(&mut self, at: usize) -> bool {
        let did = self.nodes[at].persist_one();
        self.collect();
        did
    }

    /// Lets everything happen that is under way.
    fn settle(&mut self) {
        self.collect();
        for round in 0.. {
            assert!(round < 2_000, "it comes to rest");
            let mut moved = false;
            for at in 0..self.nodes.len() {
                while self.persist_one(at) {
                    moved = true;
                }
            }
            let wires: Vec<_> = self.wires.keys().copied().collect();
            for (from, to) in wires {
                moved |= self.deliver_one(from, to);
            }
            if !moved {
                return;
            }
        }
    }

    /// As [`Fabric::settle`], but messages from one node to another are altered first.
    fn settle_tampered(&mut self, from: usize, to: usize, change: impl Fn(&mut SyncMessage)) {
        for _ in 0..100 {
            for at in 0..self.nodes.len() {
                while self.persist_one(at) {}
            }
            self.tamper(from, to, &change);
            let wires: Vec<_> = self.wires.keys().copied().collect();
            for (from, to) in wires {
                self.deliver_one(from, to);
            }
        }
        assert!(self.wires.values().all(VecDeque::is_empty), "it comes to rest");
    }

    fn edit(&mut self, at: usize, edits: Vec<Edit>) {
        self.nodes[at].edit(edits).unwrap();
        self.settle();
    }

    fn contents(&self, at: usize) -> BTreeMap<DocumentId, (IndexState, Option<Value>)> {
        let node = &self.nodes[at];
        node.replica
            .index
            .iter()
            .map(|(key, entry)| {
                let content = node.replica.read(&key.document, &node.rows).unwrap();
                (key.document, (entry.state.clone(), content))
            })
            .collect()
    }

    /// All have the same, and those that are connected know it of each other.
    fn assert_equal_and_known(&self, what: &str) {
        self.assert_equal(what);
        for (from, to) in self.wires.keys() {
            let (node, peer) = (&self.nodes[*from], self.nodes[*to].me);
            let entries = node.replica.index.iter();
            for (key, _) in entries.filter(|(_, entry)| !entry.state.is_deleted()) {
                let knows = node.replica.has_latest(&peer, &key.document);
                assert!(knows, "{what}: {from} of {to}: {:?}", node.replica.sessions[&peer]);
            }
        }
    }

    fn assert_equal(&self, what: &str) {
        for at in 1..self.nodes.len() {
            assert_eq!(self.contents(0), self.contents(at), "{what}: nodes 0 and {at}");
            let (one, other) = (&self.nodes[0].replica, &self.nodes[at].replica);
            assert_eq!(one.fingerprint(), other.fingerprint(), "{what}");
        }
    }
}

#[test]
fn a_note_written_here_is_read_there() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.settle();
    fabric.edit(0, vec![create(1, "milk")]);
    assert_eq!(fabric.nodes[1].content(1), Some(fields(&[("text", "milk")])));
    assert_eq!(fabric.nodes[0].changed, [(note(1), false)]);
    assert_eq!(fabric.nodes[1].changed, [(note(1), true)]);
    let listed = fabric.nodes[1].replica.list(&DocumentKind::NOTE, "MIL", 9, &fabric.nodes[1].rows);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].author, Some(fabric.nodes[0].me));
    assert!(fabric.nodes[0].replica.has_latest(&fabric.nodes[1].me, &note(1)));
    fabric.assert_equal("after a note");
}

#[test]
fn notes_written_apart_meet() {
    let mut fabric = Fabric::new(3);
    fabric.edit(0, vec![create(1, "one"), create(2, "two")]);
    fabric.edit(1, vec![create(3, "three")]);
    fabric.open(0, 1);
    fabric.open(1, 2);
    fabric.settle();
    fabric.assert_equal("through the middle");
    assert_eq!(fabric.nodes[2].content(1), Some(fields(&[("text", "one")])));
    assert!(fabric.nodes[0].synced.contains(&fabric.nodes[1].me));
    assert!(fabric.nodes[2].synced.contains(&fabric.nodes[1].me));
}

#[test]
fn concurrent_fields_merge_and_one_value_wins_everywhere() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "start")]);
    fabric.close(0, 1);
    fabric.edit(0, vec![update(1, "left", "a"), update(1, "text", "from 0")]);
    fabric.edit(1, vec![update(1, "right", "b"), update(1, "text", "from 1")]);
    fabric.open(0, 1);
    fabric.settle();
    fabric.assert_equal("after the merge");
    let content = fabric.nodes[0].content(1).unwrap();
    assert_eq!(content.get("left"), Some(&"a".into()));
    assert_eq!(content.get("right"), Some(&"b".into()));
}

/// One run of a fabric under faults, and what came of it.
fn faults(seed: u64) -> (blake3::Hash, usize) {
    let mut dice = Dice(seed);
    let count = 2 + dice.roll(3) as u8;
    let mut fabric = Fabric::new(count);
    let registry = DocumentId::singleton(&self::fabric(), &DocumentKind::REGISTRY);
    for step in 0..150 + dice.roll(150) {
        let at = dice.index(fabric.nodes.len());
        let other = dice.index(fabric.nodes.len());
        match dice.roll(20) {
            0..=5 => {
                let number = dice.roll(8);
                let text = format!("{step}");
                let field = ["text", "left", "right"][dice.index(3)];
                let edit = match dice.roll(10) {
                    0..=2 => create(number, &text),
                    3..=7 => update(number, field, &text),
                    8 => Edit::Delete { id: note(number) },
                    _ => Edit::Update {
                        id: registry,
                        content: Value::map([("agents", fields(&[(field, &text)]))]),
                    },
                };
                drop(fabric.nodes[at].edit(vec![edit]));
                fabric.collect();
            }
            6..=10 => drop(fabric.persist_one(at)),
            11..=16 => drop(fabric.deliver_one(at, other)),
            17 if at != other && !fabric.wires.contains_key(&(at, other)) => fabric.open(at, other),
            18 if at != other && dice.roll(3) == 0 => fabric.close(at, other),
            19 if dice.roll(3) == 0 => fabric.restart(at),
            _ => {}
        }
    }
    fabric.open_all();
    fabric.settle();
    fabric.assert_equal_and_known(&format!("seed {seed}"));
    for node in &fabric.nodes {
        let under_way: Vec<_> =
            node.replica.sessions.values().filter(|session| !session.is_at_rest()).collect();
        assert!(under_way.is_empty(), "seed {seed}: {under_way:#?}");
    }
    for node in &fabric.nodes {
        assert!(node.aside.is_empty(), "seed {seed}");
        assert_eq!(node.replica.counts().refused, 0, "seed {seed}");
        assert_eq!(node.replica.counts().parked, 0, "seed {seed}");
        assert_eq!(node.synced.len(), fabric.nodes.len() - 1, "seed {seed}");
        assert!(node.replica.writing.len() == 0, "seed {seed}");
    }
    for at in 0..fabric.nodes.len() {
        let before = fabric.contents(at);
        fabric.restart(at);
        assert_eq!(fabric.contents(at), before, "seed {seed}: what is persisted is what is told");
    }
    (fabric.trace.finalize(), fabric.messages)
}

#[test]
fn replicas_converge_whatever_was_lost() {
    for seed in 0..200 {
        faults(seed);
    }
}

#[test]
fn a_seed_gives_the_same_messages() {
    for seed in [1, 7, 42] {
        assert_eq!(faults(seed), faults(seed));
    }
    assert_ne!(faults(1).0, faults(2).0);
}

#[test]
fn nothing_is_told_before_it_is_persisted() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.settle();
    let before = fabric.messages;
    fabric.nodes[0].edit(vec![create(1, "milk")]).unwrap();
    fabric.collect();
    assert_eq!(fabric.messages, before);
    assert_eq!(fabric.nodes[0].content(1), None);
    fabric.persist_one(0);
    assert!(fabric.messages > before);

    fabric.deliver_one(0, 1);
    let before = fabric.messages;
    assert_eq!(fabric.nodes[1].content(1), None);
    fabric.persist_one(1);
    assert!(fabric.messages > before, "the answer comes with the disk's");
    fabric.settle();
    fabric.assert_equal("at the end");
}

#[test]
fn an_edit_that_fails_leaves_nothing() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "kept")]);
    let prepared = fabric.nodes[0].prepare(vec![update(1, "text", "lost")]).unwrap();
    fabric.nodes[0].handle(Input::PersistFailed(prepared.ticket));
    assert_eq!(fabric.nodes[0].content(1), Some(fields(&[("text", "kept")])));
    fabric.edit(0, vec![update(1, "more", "new")]);
    fabric.assert_equal("after the next edit");
    assert_eq!(fabric.nodes[1].content(1), Some(fields(&[("text", "kept"), ("more", "new")])));
}

#[test]
fn an_edit_on_top_of_one_that_fails_stands() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "start")]);
    let first = fabric.nodes[0].prepare(vec![update(1, "left", "a")]).unwrap();
    let second = fabric.nodes[0].prepare(vec![update(1, "right", "b")]).unwrap();
    fabric.nodes[0].handle(Input::PersistFailed(first.ticket));
    fabric.nodes[0].rows.apply(second.writes);
    fabric.nodes[0].handle(Input::Persisted(second.ticket));
    fabric.settle();
    fabric.assert_equal("at the end");
    assert_eq!(fabric.nodes[1].content(1).unwrap().get("right"), Some(&"b".into()));
    fabric.restart(0);
    assert_eq!(fabric.contents(0), fabric.contents(1));
}

#[test]
fn a_remote_batch_that_fails_comes_again() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.settle();
    fabric.nodes[0].edit(vec![create(1, "milk")]).unwrap();
    fabric.persist_one(0);
    fabric.deliver_one(0, 1);
    let (ticket, _) = fabric.nodes[1].writing.pop_front().unwrap();
    fabric.nodes[1].handle(Input::PersistFailed(ticket));
    fabric.settle();
    assert_eq!(fabric.nodes[1].content(1), None);
    fabric.close(0, 1);
    fabric.open(0, 1);
    fabric.settle();
    fabric.assert_equal("in the next session");
}

#[test]
fn edits_say_why_they_are_not_made() {
    let mut fabric = Fabric::new(1);
    fabric.edit(0, vec![create(1, "milk")]);
    let node = &mut fabric.nodes[0];
    let again = node.prepare(vec![create(1, "milk")]).unwrap();
    assert_eq!((again.writes, again.created), (vec![], vec![note(1)]));
    let registry = DocumentId::singleton(&self::fabric(), &DocumentKind::REGISTRY);
    let is = |edit: Edit, expected: EditError, node: &mut Node| {
        assert_eq!(node.prepare(vec![create(9, "other"), edit]), Err(expected));
    };
    is(create(1, "eggs"), EditError::Exists(note(1)), node);
    is(update(2, "text", "x"), EditError::NotFound(note(2)), node);
    is(Edit::Delete { id: note(2) }, EditError::NotFound(note(2)), node);
    is(Edit::Delete { id: registry }, EditError::Singleton(registry), node);
    let content = Value::map::<String>([]);
    let odd = Edit::Create { id: note(3), kind: DocumentKind::REGISTRY, content };
    is(odd, EditError::Singleton(note(3)), node);
    // Bytes that do not deflate.
    let noise: Vec<u8> =
        (0..40_000u32).flat_map(|n| *blake3::hash(&n.to_be_bytes()).as_bytes()).collect();
    let large = Edit::Update { id: note(1), content: Value::map([("blob", Value::Bytes(noise))]) };
    is(large, EditError::TooLarge(note(1)), node);
    let own = update(1, "@kind", "registry");
    assert!(matches!(node.prepare(vec![own]), Err(EditError::Document { .. })));
    assert_eq!(node.content(1), Some(fields(&[("text", "milk")])));
    assert_eq!(node.content(9), None);
}

#[test]
fn an_edit_that_is_refused_while_another_is_written_loses_no_vouch() {
    let mut fabric = Fabric::new(2);
    fabric.edit(0, vec![create(1, "milk")]);
    fabric.nodes[0].edit(vec![update(1, "more", "and eggs")]).unwrap();
    assert_eq!(fabric.nodes[0].prepare(vec![create(1, "x")]), Err(EditError::Exists(note(1))));
    fabric.edit(0, vec![update(1, "last", "and bread")]);
    fabric.nodes[0].edit(vec![update(1, "last", "and cream")]).unwrap();
    assert_eq!(fabric.nodes[0].prepare(vec![create(1, "x")]), Err(EditError::Exists(note(1))));
    fabric.open(0, 1);
    fabric.settle();
    fabric.assert_equal("with all vouches");
    assert_eq!(fabric.nodes[1].replica.counts().parked, 0);
}

#[test]
fn a_deletion_reaches_whoever_was_away() {
    let mut fabric = Fabric::new(3);
    fabric.open_all();
    fabric.edit(0, vec![create(1, "milk"), create(2, "eggs")]);
    fabric.close(0, 2);
    fabric.close(1, 2);
    fabric.edit(0, vec![Edit::Delete { id: note(1) }]);
    assert_eq!(fabric.nodes[1].content(1), None);
    fabric.restart(1);
    fabric.open(1, 2);
    fabric.settle();
    assert_eq!(fabric.nodes[2].content(1), None);
    assert!(
        fabric.nodes[2].replica.list(&DocumentKind::NOTE, "", 9, &fabric.nodes[2].rows).len() == 1
    );
    fabric.open_all();
    fabric.settle();
    fabric.assert_equal("after the deletion");
    for node in &fabric.nodes {
        let key = DocumentKey::first(note(1)).to_bytes();
        for table in [Table::Change, Table::Document, Table::Vouch, Table::Parked] {
            assert_eq!(node.rows.scan(table, &key).unwrap(), [], "nothing of it stays");
        }
        assert_eq!(node.replica.len(), 1);
    }
    assert_eq!(fabric.nodes[0].prepare(vec![create(1, "milk")]), Err(EditError::Deleted(note(1))));
}

#[test]
fn a_session_settles_after_deletions_though_others_differ() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "milk"), create(2, "eggs")]);
    fabric.close(0, 1);
    // What is never settled keeps the totals apart.
    let author = fabric.nodes[0].me;
    fabric.nodes[1].members.may_not.insert(author);
    fabric.edit(0, vec![create(3, "not for the other")]);
    fabric.edit(1, vec![Edit::Delete { id: note(1) }]);
    fabric.open(0, 1);
    fabric.settle();
    fabric.edit(1, vec![Edit::Delete { id: note(2) }]);
    assert_ne!(fabric.nodes[0].replica.fingerprint(), fabric.nodes[1].replica.fingerprint());
    for (at, peer) in [(0, 1), (1, 0)] {
        let session = &fabric.nodes[at].replica.sessions[&fabric.nodes[peer].me];
        for number in 1..=2 {
            assert!(session.is_settled(&DocumentKey::first(note(number))), "{at}: {session:#?}");
        }
        assert!(!session.is_settled(&DocumentKey::first(note(3))) || at == 1, "{session:#?}");
    }
}

#[test]
fn a_concurrent_edit_brings_a_document_back() {
    let mut fabric = Fabric::new(3);
    fabric.open_all();
    fabric.edit(0, vec![create(1, "milk")]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        fabric.close(a, b);
    }
    fabric.edit(0, vec![Edit::Delete { id: note(1) }]);
    fabric.edit(1, vec![update(1, "more", "and eggs")]);
    fabric.edit(2, vec![Edit::Delete { id: note(1) }]);
    fabric.open_all();
    fabric.settle();
    fabric.assert_equal("after the conflict");
    let node = &fabric.nodes[2];
    let listed = node.replica.list(&DocumentKind::NOTE, "", 9, &node.rows);
    assert!(listed[0].revived);
    assert_eq!(listed[0].content, fields(&[("text", "milk"), ("more", "and eggs")]));
}

/// Its author has none of its own buried changes any more, and does not give their numbers again.
#[test]
fn a_document_that_came_back_is_edited_by_who_deleted_it() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "milk")]);
    fabric.close(0, 1);
    fabric.edit(1, vec![create(2, "eggs"), update(1, "more", "and eggs")]);
    fabric.edit(0, vec![update(1, "text", "cream"), Edit::Delete { id: note(1) }]);
    fabric.open(0, 1);
    fabric.settle();
    fabric.edit(0, vec![update(1, "last", "after all")]);
    fabric.assert_equal("after the edit");
    let expected = fields(&[("text", "milk"), ("more", "and eggs"), ("last", "after all")]);
    assert_eq!(fabric.nodes[1].content(1), Some(expected));
}

#[test]
fn two_that_start_offline_make_one_registry() {
    let mut fabric = Fabric::new(2);
    let id = DocumentId::singleton(&self::fabric(), &DocumentKind::REGISTRY);
    for (at, agent) in ["notes", "timer"].into_iter().enumerate() {
        let content = Value::map([("agents", fields(&[(agent, "1.0")]))]);
        fabric.edit(at, vec![Edit::Update { id, content }]);
    }
    fabric.open(0, 1);
    fabric.settle();
    fabric.assert_equal("after they met");
    let content = fabric.nodes[0].replica.read(&id, &fabric.nodes[0].rows).unwrap().unwrap();
    assert_eq!(content.get("agents"), Some(&fields(&[("notes", "1.0"), ("timer", "1.0")])));
}

#[test]
fn what_nobody_vouches_for_is_parked_until_somebody_does() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.settle();
    fabric.nodes[0].edit(vec![create(1, "milk")]).unwrap();
    fabric.settle_tampered(0, 1, |message| {
        if let SyncMessage::Documents(documents) = message {
            documents.iter_mut().for_each(|document| document.vouches.clear());
        }
    });
    assert_eq!(fabric.nodes[1].content(1), None);
    assert_eq!(fabric.nodes[1].replica.counts().parked, 1);
    assert!(!fabric.nodes[0].replica.has_latest(&fabric.nodes[1].me, &note(1)));
    fabric.restart(1);
    assert_eq!(fabric.nodes[1].replica.counts().parked, 1, "it outlives a restart");
    fabric.open(0, 1);
    fabric.settle();
    fabric.assert_equal("with the vouch");
    assert_eq!(fabric.nodes[1].replica.counts().parked, 0);
}

#[test]
fn what_a_device_may_not_write_is_parked_until_it_may() {
    let mut fabric = Fabric::new(3);
    let author = fabric.nodes[0].me;
    fabric.nodes[1].members.may_not.insert(author);
    fabric.open(0, 1);
    fabric.open(1, 2);
    fabric.settle();
    fabric.edit(0, vec![create(1, "milk")]);
    fabric.edit(1, vec![create(2, "eggs")]);
    assert_eq!(fabric.nodes[1].content(1), None);
    assert_eq!(fabric.nodes[2].content(1), None, "it is not passed on");
    assert_eq!(fabric.nodes[0].content(2), Some(fields(&[("text", "eggs")])), "others go on");
    fabric.restart(1);
    fabric.nodes[1].members.may_not.clear();
    fabric.open(1, 2);
    fabric.nodes[1].handle(Input::MembersChanged);
    fabric.settle();
    assert_eq!(fabric.nodes[2].content(1), Some(fields(&[("text", "milk")])));
}

/// Signs vouches of node 0's anew, so that they say something else.
fn forge(message: &mut SyncMessage, change: impl Fn(&mut Vouch), key: &SigningKey) {
    if let SyncMessage::Documents(documents) = message {
        for document in documents {
            let changes = document.changes.iter();
            let mut changes = changes.map(|chunk| Change::parse(&chunk.0, &mut 1_000_000).unwrap());
            for sent in &mut document.vouches {
                let SentVouch::Newest { device, start, .. } = *sent else {
                    panic!("{sent:?} is not short")
                };
                let newest = changes.next().expect("each is vouched for by one");
                let (seq, hash) = (newest.seq(), newest.hash());
                let mut vouch = Vouch { key: document.key, device, start, seq, hash, own: None };
                change(&mut vouch);
                *sent = SentVouch::Whole(Signed::new(Domain::Vouch, &vouch, key));
            }
        }
    }
}

#[test]
fn forged_vouches_are_refused() {
    let author = SigningKey::from_bytes(&[1; 32]);
    let other = SigningKey::from_bytes(&[2; 32]);
    type Tamper<'a> = Box<dyn Fn(&mut SyncMessage) + 'a>;
    let cases: [(&str, Tamper<'_>); 4] = [
        ("a member vouches for another's", Box::new(|message| forge(message, |_| {}, &other))),
        (
            "a number that is not the change's",
            Box::new(|message| forge(message, |vouch| vouch.seq += 1, &author)),
        ),
        (
            "another document's",
            Box::new(|message| forge(message, |vouch| vouch.key.epoch += 1, &author)),
        ),
        (
            "a broken signature",
            Box::new(|message| {
                if let SyncMessage::Documents(documents) = message {
                    for sent in documents.iter_mut().flat_map(|document| &mut document.vouches) {
                        if let SentVouch::Newest { signature, .. } = sent {
                            signature[3] ^= 1;
                        }
                    }
                }
            }),
        ),
    ];
    for (what, change) in cases {
        let mut fabric = Fabric::new(2);
        fabric.open(0, 1);
        fabric.settle();
        fabric.nodes[0].edit(vec![create(1, "milk")]).unwrap();
        fabric.settle_tampered(0, 1, change);
        assert_eq!(fabric.nodes[1].content(1), None, "{what}");
        assert_eq!(fabric.nodes[1].replica.counts().parked, 1, "{what}");
    }
}

#[test]
fn what_a_revoked_device_wrote_before_is_kept_by_the_word_of_who_had_it() {
    let mut fabric = Fabric::new(3);
    let thief = fabric.nodes[0].me;
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "milk")]);
    fabric.edit(1, vec![update(1, "more", "on top")]);
    fabric.close(0, 1);
    fabric.edit(0, vec![update(1, "late", "nobody has it")]);
    for at in [1, 2] {
        fabric.nodes[at].hear_revoke(thief);
    }
    fabric.settle();
    fabric.restart(1);
    fabric.open(1, 2);
    fabric.settle();
    let expected = fields(&[("text", "milk"), ("more", "on top")]);
    assert_eq!(fabric.nodes[2].content(1), Some(expected.clone()));
    fabric.open(0, 2);
    fabric.settle();
    assert_eq!(fabric.nodes[2].content(1), Some(expected), "what nobody had stays out");
    assert!(fabric.nodes[2].replica.counts().parked > 0);
}

#[test]
fn a_peer_cannot_park_without_end() {
    let mut fabric = Fabric::new(2);
    let author = fabric.nodes[0].me;
    fabric.nodes[1].members.may_not.insert(author);
    for round in 0..12 {
        let text = "x".repeat(1_000);
        let noise = (0..450_000u32 / 32)
            .flat_map(|n| *blake3::hash(&(n + round * 1_000_000).to_be_bytes()).as_bytes())
            .collect();
        let content = Value::map([("text", text.into()), ("noise", Value::Bytes(noise))]);
        let edit = Edit::Create { id: note(u64::from(round)), kind: DocumentKind::NOTE, content };
        fabric.edit(0, vec![edit]);
    }
    fabric.open(0, 1);
    fabric.settle();
    let counts = fabric.nodes[1].replica.counts();
    assert_eq!((counts.parked, counts.dropped > 0), (9, true), "4 MiB of 450 kB each");
    let rows = fabric.nodes[1].rows.scan_table(Table::Parked).unwrap();
    let bytes: usize = rows.iter().map(|(_, value)| value.len()).sum();
    assert!(bytes < 5 << 20, "{bytes}");
}

#[test]
fn a_large_change_that_is_parked_is_read_at_the_next_start() {
    let mut fabric = Fabric::new(2);
    let author = fabric.nodes[0].me;
    fabric.nodes[1].members.may_not.insert(author);
    // It is sent deflated, and parked as it is.
    let content = Value::map([("zeros", Value::Bytes(vec![0; 3 << 20]))]);
    fabric.edit(0, vec![Edit::Create { id: note(1), kind: DocumentKind::NOTE, content }]);
    fabric.open(0, 1);
    fabric.settle();
    assert_eq!(fabric.nodes[1].replica.counts().parked, 1);
    fabric.restart(1);
    assert_eq!(fabric.nodes[1].replica.counts().parked, 1);
}

#[test]
fn a_document_with_many_long_tombstones_is_read_at_the_next_start() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.settle();
    let peer = fabric.nodes[1].me;
    let key = DocumentKey::first(note(1));
    for round in 0..25_u32 {
        let actor = |n: u32| {
            let mut id = [0; 16];
            id.copy_from_slice(&blake3::hash(&(round << 16 | n).to_be_bytes()).as_bytes()[..16]);
            (weft_protocol::id::ActorId::from_bytes(id), 1)
        };
        let tombstone = Tombstone {
            key,
            kind: DocumentKind::NOTE,
            buried: Clock((0..2_500).map(actor).collect()),
            time: WallTime::default(),
        };
        let tombstones = vec![Signed::new(Domain::Tombstone, &tombstone, &fabric.nodes[1].signing)];
        let message = SyncMessage::Tombstones { tombstones, gone: vec![key] };
        fabric.nodes[0].handle(Input::Message(peer, message));
        fabric.collect();
        while fabric.persist_one(0) {}
    }
    fabric.settle();
    let entry = fabric.nodes[0].replica.index.get(&key).unwrap().clone();
    let bytes: usize = entry.graves.iter().map(|grave| grave.bytes.len()).sum();
    assert!((450 << 10..=512 << 10).contains(&bytes), "{bytes}");
    fabric.restart(0);
    assert_eq!(fabric.nodes[0].replica.index.get(&key), Some(&entry));
}

#[test]
fn what_a_revoked_device_deleted_stays_deleted() {
    for may_adopt in [true, false] {
        let mut fabric = Fabric::new(3);
        let thief = fabric.nodes[0].me;
        fabric.open_all();
        fabric.edit(1, vec![create(1, "milk")]);
        fabric.close(0, 2);
        fabric.close(1, 2);
        fabric.edit(0, vec![Edit::Delete { id: note(1) }]);
        fabric.close(0, 1);
        for at in [1, 2] {
            if may_adopt {
                fabric.nodes[at].hear_revoke(thief);
            } else {
                fabric.nodes[at].members.revoked.insert(thief);
                fabric.nodes[at].handle(Input::MembersChanged);
            }
        }
        fabric.settle();
        fabric.restart(1);
        fabric.open(1, 2);
        fabric.settle();
        let left = fabric.nodes[2].content(1);
        assert_eq!(left.is_none(), may_adopt, "or it is let rest there");
        assert_eq!(fabric.nodes[1].content(1), None);
    }
}

#[test]
fn a_message_names_the_deleted_documents_whose_tombstones_it_holds() {
    let mut session = Session::new();
    let signing = SigningKey::from_bytes(&[1; 32]);
    let mut entry = Entry::new(DocumentKind::NOTE);
    for grave in [1, 2] {
        entry.graves.push(Signed::from_bytes(Domain::Tombstone, vec![grave; 30_000], &signing));
    }
    for number in 0..20 {
        session.say_graves(&DocumentKey::first(note(number)), &entry);
    }
    let mut named = 0;
    let messages = session.flush();
    assert!(messages.len() > 5, "{}", messages.len());
    for message in messages {
        let SyncMessage::Tombstones { tombstones, gone } = message else { panic!("{message:?}") };
        assert_eq!(tombstones.len(), gone.len() * 2);
        named += gone.len();
    }
    assert_eq!(named, 20);
}

#[test]
fn what_a_peer_has_a_session_keep_is_bounded() {
    let mut session = Session::new();
    let key = DocumentKey::first(note(1));
    let empty = || Assembled {
        key,
        kind: DocumentKind::NOTE,
        changes: vec![],
        vouches: vec![],
        told: Told { heads: vec![], need: vec![], have: None, asks: false },
        bytes: WAITING_BYTES,
    };
    let waiting_max = ASSEMBLED_BYTES_MAX / WAITING_BYTES;
    for _ in 0..2 {
        let waiting = (0..=waiting_max).take_while(|_| session.defer(empty())).count();
        assert_eq!(waiting, waiting_max);
        // What waited for a document that is given up counts no longer.
        session.let_rest(key);
    }
    for number in 0..100_000 {
        session.let_rest(DocumentKey::first(note(number)));
    }
    assert!(session.differs.len() <= 1 << 16, "{}", session.differs.len());

    let advance =
        weft_protocol::sync::Advance { asks: false, need: vec![], heads: None, have: None };
    let part = |bytes, advance| DocumentMessage {
        key,
        kind: DocumentKind::NOTE,
        changes: vec![],
        vouches: vec![SentVouch::Whole(Signed::from_bytes(
            Domain::Vouch,
            vec![0; bytes],
            &SigningKey::from_bytes(&[1; 32]),
        ))],
        advance,
    };
    assert!(session.assemble(part(250, None), &mut Vec::new()).unwrap().is_none());
    let whole = session.assemble(part(900_000, Some(advance)), &mut Vec::new()).unwrap().unwrap();
    assert_eq!(whole.vouches.len(), 1, "no vouch is so long");
    assert!(whole.bytes > WAITING_BYTES + 250, "{}", whole.bytes);
}

#[test]
fn kinds_that_a_peer_makes_up_are_not_kept() {
    let mut node = Node::new(0, MemoryRows::default());
    for number in 0..1_000 {
        let kind = format!("kind-{number}").parse().unwrap();
        let skeleton = node.replica.shelf.skeleton(&kind);
        assert_eq!(node.replica.shelf.skeleton(&kind), skeleton);
    }
    assert!(node.replica.shelf.skeletons() <= 256);
}

#[test]
fn a_device_restored_from_a_backup_is_no_wedge() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "milk")]);
    let backup = fabric.nodes[0].rows.clone();
    fabric.edit(0, vec![update(1, "text", "eggs"), create(2, "later")]);
    fabric.nodes[0].rows = backup;
    fabric.restart(0);
    fabric.edit(0, vec![update(1, "more", "after the backup")]);
    fabric.open(0, 1);
    fabric.settle();
    fabric.assert_equal("after the backup");
    let expected = fields(&[("text", "eggs"), ("more", "after the backup")]);
    assert_eq!(fabric.nodes[0].content(1), Some(expected));
    assert_eq!(fabric.nodes[0].content(2), Some(fields(&[("text", "later")])));
}

#[test]
fn long_histories_are_saved_and_travel_in_parts() {
    let mut fabric = Fabric::new(2);
    fabric.edit(0, vec![create(1, "start")]);
    for round in 0..200 {
        let noise = (0..100u32)
            .flat_map(|n| *blake3::hash(&(n + round * 1_000).to_be_bytes()).as_bytes())
            .collect();
        let content = Value::map([("noise", Value::Bytes(noise))]);
        fabric.edit(0, vec![Edit::Update { id: note(1), content }]);
    }
    let key = DocumentKey::first(note(1));
    let rows = fabric.nodes[0].rows.scan(Table::Change, &key.to_bytes()).unwrap();
    assert!(rows.len() < 64, "{}", rows.len());
    assert!(fabric.nodes[0].rows.get(&saved_row(&key)).unwrap().is_some());
    fabric.open(0, 1);
    fabric.settle();
    fabric.assert_equal("600 kB of changes");
    assert!(fabric.messages > 5);
    fabric.restart(0);
    fabric.open(0, 1);
    fabric.settle();
    fabric.edit(1, vec![update(1, "text", "end")]);
    fabric.assert_equal("after a restart");
    let peer = fabric.nodes[0].me;
    fabric.close(0, 1);
    let shared = shared_heads(&peer, &key, &fabric.nodes[1].rows);
    assert!(!shared.is_empty(), "it is remembered what the peer has");
}

#[test]
fn a_damaged_document_is_set_aside_and_others_go_on() {
    let mut fabric = Fabric::new(2);
    fabric.edit(0, vec![create(1, "milk"), create(2, "eggs")]);
    let scope = DocumentKey::first(note(1)).to_bytes();
    let row = Row::numbered(Table::Change, &scope, 0);
    let mut value = fabric.nodes[0].rows.get(&row).unwrap().unwrap();
    let at = value.len() - 9;
    value[at] ^= 0x20;
    fabric.nodes[0].rows.apply([Write::Put(row, value)]);
    fabric.restart(0);
    fabric.open(0, 1);
    fabric.settle();
    assert_eq!(fabric.nodes[0].aside, [note(1)]);
    assert_eq!(fabric.nodes[1].content(1), None);
    assert_eq!(fabric.nodes[1].content(2), Some(fields(&[("text", "eggs")])));
    let edit = fabric.nodes[0].prepare(vec![update(1, "text", "x")]);
    assert!(matches!(edit, Err(EditError::SetAside { .. })));
    fabric.edit(0, vec![update(2, "more", "and bread")]);
    assert_eq!(fabric.nodes[0].content(2), fabric.nodes[1].content(2));
}

#[test]
fn what_a_hostile_peer_sends_harms_nobody_else() {
    let mut fabric = Fabric::new(3);
    fabric.open_all();
    fabric.edit(0, vec![create(1, "milk")]);
    let hostile = fabric.nodes[2].me;
    let key = DocumentKey::first(note(1));
    let heads = fabric.nodes[0].replica.heads(&note(1));
    let have =
        |bloom: &[u8]| Some(weft_protocol::sync::Have { last_sync: vec![], bloom: bloom.to_vec() });
    let message = |changes: Vec<Vec<u8>>, bloom: &[u8]| {
        SyncMessage::Documents(vec![DocumentMessage {
            key,
            kind: DocumentKind::NOTE,
            changes: changes.into_iter().map(Chunk).collect(),
            vouches: vec![],
            advance: Some(weft_protocol::sync::Advance {
                heads: Some(heads.clone()),
                need: vec![ChangeHash([9; 32])],
                have: have(bloom),
                asks: false,
            }),
        }])
    };
    let mut of_another_kind = message(vec![], &[]);
    if let SyncMessage::Documents(documents) = &mut of_another_kind {
        documents[0].kind = DocumentKind::RUN;
    }
    let range = Range {
        from: KeyPrefix(vec![3]),
        to: KeyPrefix(vec![1]),
        summary: Summary::Fingerprint(Stub([0; 8])),
    };
    let refused = [
        message(vec![vec![1, 2, 3]], &[]),
        // 5 probes of no bits, and 2^31 probes.
        message(vec![], &[1, 0, 5]),
        message(vec![], &[1, 10, 0x80, 0x80, 0x80, 0x80, 8, 0xff, 0xff]),
        of_another_kind,
        SyncMessage::Ranges(vec![range]),
        SyncMessage::Tombstones {
            tombstones: vec![Signed::new(Domain::Vouch, &7u64, &SigningKey::from_bytes(&[3; 32]))],
            gone: vec![key],
        },
    ];
    for (at, message) in refused.into_iter().enumerate() {
        fabric.nodes[0].handle(Input::Message(hostile, message));
        assert_eq!(fabric.nodes[0].replica.counts().refused, at as u64 + 1);
    }
    fabric.settle();
    fabric.edit(1, vec![update(1, "more", "and eggs")]);
    assert_eq!(fabric.nodes[0].content(1), fabric.nodes[1].content(1));
    assert!(fabric.nodes[0].content(1).unwrap().get("more").is_some());
}

#[test]
fn mutated_messages_never_panic() {
    let mut fabric = Fabric::new(2);
    fabric.edit(0, vec![create(1, "milk"), create(2, "eggs")]);
    fabric.edit(1, vec![create(3, "bread")]);
    fabric.open(0, 1);
    let mut frames = Vec::new();
    for _ in 0..20 {
        for at in 0..2 {
            while fabric.persist_one(at) {}
        }
        for (from, to) in [(0, 1), (1, 0)] {
            frames.extend(fabric.wires[&(from, to)].iter().cloned());
            fabric.deliver_one(from, to);
        }
    }
    assert!(frames.len() >= 4);
    let mut dice = Dice(5);
    let mut handled = 0;
    let mut victim = Node::new(2, MemoryRows::default());
    let peer = fabric.nodes[0].me;
    for round in 0..4_000 {
        let mut bytes = frames[dice.index(frames.len())].clone();
        for _ in 0..=dice.roll(3) {
            let at = dice.index(bytes.len());
            bytes[at] = dice.roll(256) as u8;
        }
        if round % 50 == 0 {
            victim.handle(Input::Opened(peer));
        }
        if let Ok(message) = SyncMessage::decode(&bytes) {
            handled += 1;
            victim.handle(Input::Message(peer, message));
            while let Some(output) = victim.replica.poll_output() {
                if let Output::Persist { ticket, writes, .. } = output {
                    victim.rows.apply(writes);
                    victim.handle(Input::Persisted(ticket));
                }
            }
        }
    }
    assert!(handled > 500, "{handled}");
}

/// A node with a hundred times so many notes.
fn large(number: u8, hundreds: u64) -> Node {
    let mut node = Node::new(0, MemoryRows::default());
    for chunk in 0..hundreds {
        let notes = (0..100).map(|n| create(chunk * 100 + n, "a sentence of a few words"));
        node.edit(notes.collect()).unwrap();
        node.persist_one();
    }
    Node::new(number, node.rows)
}

#[test]
fn ten_thousand_equal_notes_cost_a_few_hundred_bytes() {
    let one = large(0, 100);
    let other = Node::new(1, one.rows.clone());
    let mut fabric = Fabric::over(vec![one, other]);
    fabric.open(0, 1);
    fabric.settle();
    assert!(fabric.nodes[0].synced.len() == 1 && fabric.nodes[1].synced.len() == 1);
    assert!(fabric.bytes < 1_024, "{} bytes", fabric.bytes);
    for node in &fabric.nodes {
        assert_eq!(node.replica.len(), 10_000);
        assert_eq!(node.replica.counts().loads, 0);
    }
    println!("10,000 equal: {} bytes, {} messages", fabric.bytes, fabric.messages);
}

#[test]
fn a_hundred_changes_on_each_side_of_ten_thousand_meet() {
    let one = large(0, 100);
    let other = Node::new(1, one.rows.clone());
    let mut fabric = Fabric::over(vec![one, other]);
    fabric.restart(0);
    fabric.restart(1);
    for n in 0..100 {
        fabric.edit(0, vec![update(n * 97, "text", "changed on the one side")]);
        fabric.edit(1, vec![update(n * 89 + 1, "text", "changed on the other side")]);
    }
    let loads: Vec<_> = fabric.nodes.iter().map(|node| node.replica.counts().loads).collect();
    fabric.open(0, 1);
    fabric.settle();
    assert_eq!(fabric.nodes[0].replica.fingerprint(), fabric.nodes[1].replica.fingerprint());
    for (node, before) in fabric.nodes.iter().zip(&loads) {
        assert!(node.replica.counts().loads - before <= 2_000);
        assert!(node.replica.shelf.len() <= LOADED_MAX);
    }
    let loads =
        fabric.nodes.iter().zip(loads).map(|(node, before)| node.replica.counts().loads - before);
    println!(
        "100 + 100 of 10,000: {} bytes ({} of them ranges, {} changes), {} messages, {} loads",
        fabric.bytes,
        fabric.range_bytes,
        fabric.change_bytes,
        fabric.messages,
        loads.sum::<u64>(),
    );
    assert!(fabric.bytes <= 3 * fabric.change_bytes, "{} bytes", fabric.bytes);
}

#[test]
fn an_empty_device_gets_many_notes_in_few_batches() {
    let mut fabric = Fabric::over(vec![large(0, 20), Node::new(1, MemoryRows::default())]);
    fabric.open(0, 1);
    fabric.settle();
    assert_eq!(fabric.nodes[0].replica.fingerprint(), fabric.nodes[1].replica.fingerprint());
    assert_eq!(fabric.nodes[1].replica.len(), 2_000);
    println!("2,000 to an empty device: {} bytes, {} messages", fabric.bytes, fabric.messages);
    assert!(fabric.messages < 100, "{} messages", fabric.messages);
}

#[test]
fn what_is_settled_before_a_comparison_ends_stays_settled() {
    let mut fabric = Fabric::new(3);
    // Who has the lesser id asks.
    let asks = usize::from(fabric.nodes[1].me < fabric.nodes[0].me);
    let (lists, third) = (1 - asks, 2);
    fabric.open(asks, third);
    fabric.open(lists, third);
    fabric.settle();
    fabric.edit(third, vec![create(1, "one")]);
    fabric.nodes[asks].edit(vec![create(2, "so that they differ")]).unwrap();
    assert!(fabric.persist_one(asks));
    fabric.open(asks, lists);
    let change = |fabric: &mut Fabric, text: &str| {
        fabric.nodes[third].edit(vec![update(1, "text", text)]).unwrap();
        while fabric.persist_one(third) {}
        for at in [asks, lists] {
            while fabric.deliver_one(third, at) {}
            while fabric.persist_one(at) {}
            while fabric.deliver_one(at, third) {}
        }
    };
    // Two changes come to both from the third, one before the list is made and one after.
    change(&mut fabric, "two");
    assert!(fabric.deliver_one(lists, asks), "that there is a change");
    assert!(fabric.deliver_one(asks, lists), "the question");
    change(&mut fabric, "three");
    // Who made the list knows that all is settled before it hears that the list differs.
    while fabric.deliver_one(asks, lists) {}
    fabric.settle();
    fabric.assert_equal_and_known("after two changes");
}

/// A note to be asked about.
fn wanted(number: u64) -> (DocumentKey, Want) {
    let want = Want { kind: DocumentKind::NOTE, theirs: Theirs::Unknown };
    (DocumentKey::first(note(number)), want)
}

#[test]
fn what_a_peer_has_a_session_want_is_bounded_and_asked_for_anew() {
    let total = Index::load(&MemoryRows::default()).unwrap().question();
    let mut session = Session::new();
    let all = || Range { from: KeyPrefix::default(), to: KeyPrefix::default(), ..total.clone() };
    assert!(session.resolve(&all()));
    session.differ((0..100_000).map(wanted).collect(), Vec::new());
    let known = DocumentKey::first(note(100_000));
    assert!(!session.is_settled(&known), "it may be one of those that are nowhere noted");
    let keys: Vec<_> = std::iter::from_fn(|| session.take_wanted()).map(|(key, _)| key).collect();
    assert_eq!(keys.len(), 1 << 16);
    keys.iter().for_each(|key| session.let_rest(*key));
    assert!(!session.ask_anew(all()), "nothing became the same, and nothing would now");
    session.settle(&keys[0]);
    assert!(session.ask_anew(all()));
    assert!(!session.is_idle(), "an answer is awaited");
    assert!(!session.ask_anew(all()));
}

#[test]
fn what_was_missed_is_found_by_whichever_side_asks_anew() {
    for sides in [&[0][..], &[1], &[0, 1]] {
        let mut fabric = Fabric::new(2);
        fabric.open(0, 1);
        fabric.settle();
        for at in 0..2 {
            // What is written now is told to nobody.
            let peer = fabric.nodes[1 - at].me;
            let session = fabric.nodes[at].replica.sessions.remove(&peer).unwrap();
            let notes = (0..40).map(|number| create(100 * at as u64 + number, "one")).collect();
            fabric.nodes[at].edit(notes).unwrap();
            while fabric.persist_one(at) {}
            fabric.nodes[at].replica.sessions.insert(peer, session);
        }
        for at in sides {
            let peer = fabric.nodes[1 - at].me;
            fabric.nodes[*at].replica.sessions.get_mut(&peer).unwrap().miss();
        }
        for node in &mut fabric.nodes {
            node.handle(Input::MembersChanged);
        }
        fabric.collect();
        fabric.settle();
        fabric.assert_equal_and_known("after another question");
        for node in &fabric.nodes {
            assert_eq!((node.replica.len(), node.replica.counts().refused), (80, 0));
        }
    }
}

#[test]
fn deletions_are_settled_by_what_the_peer_took() {
    let mut fabric = Fabric::new(2);
    let notes: Vec<_> = (0..50).map(|number| create(number, "one")).collect();
    fabric.edit(0, notes);
    fabric.open(0, 1);
    fabric.settle();
    let deletions = (0..50).map(|number| Edit::Delete { id: note(number) }).collect();
    fabric.nodes[0].edit(deletions).unwrap();
    while fabric.persist_one(0) {}
    let peer = fabric.nodes[1].me;
    let session = &fabric.nodes[0].replica.sessions[&peer];
    assert_eq!((session.buried.len(), session.differs.len()), (50, 50));
    fabric.settle();
    let session = &fabric.nodes[0].replica.sessions[&peer];
    assert_eq!((session.buried.len(), session.differs.len()), (0, 0));
    fabric.assert_equal_and_known("after the deletions");
}

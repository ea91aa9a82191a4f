use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::{
    document::{IndexState, Vouch},
    frame::FRAME_BYTES_MAX,
    row::{MemoryRows, Table},
    signed::{Domain, Signed},
    sync::{DocumentMessage, KeyPrefix, Range, SentVouch},
    time::{Timestamp, WallTime},
    value::Value,
};

use super::*;

mod convergence;
mod editing;
mod disk;
mod sessions;
mod vouches;
mod parking;
mod deletion;
mod adoption;
mod bounds;
mod hostility;
mod traffic;

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
    /// Until the next start.
    is_disk_full: bool,
    /// How many batches the disk did not take.
    refused_writes: usize,
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
            is_disk_full: false,
            refused_writes: 0,
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
        self.is_disk_full = false;
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
        if self.is_disk_full {
            self.refused_writes += 1;
            self.handle(Input::PersistFailed(ticket));
        } else {
            self.rows.apply(writes);
            self.handle(Input::Persisted(ticket));
        }
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
            .map(|(key, seen)| {
                let content = node.replica.read(&key.document, &node.rows).unwrap();
                (key.document, (seen.entry().into_owned().state, content))
            })
            .collect()
    }

    /// All have the same, and those that are connected know it of each other.
    fn assert_equal_and_known(&self, what: &str) {
        self.assert_equal(what);
        for (from, to) in self.wires.keys() {
            let (node, peer) = (&self.nodes[*from], self.nodes[*to].me);
            let entries = node.replica.index.iter();
            for (key, _) in entries.filter(|(_, seen)| !seen.is_deleted()) {
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

use std::iter;

use weft_protocol::{
    decision::{Decision, Effect, Policy, Question},
    device::Kind,
    id::Digest,
    row::{Durability, MemoryRows, Rows as _, VALUE_BYTES_MAX},
    time::WallTime,
};
use weft_trust::{
    author::{NewFabric, genesis},
    secret::DeviceSecret,
};

use super::*;
use crate::{
    audit::{self, Signatures, verify},
    door::Command,
};

struct AllowAll;

impl Policy for AllowAll {
    fn decide(&self, _: &Question) -> Decision {
        Decision { effect: Effect::Allow, reason: "all is allowed".into(), obligations: vec![] }
    }

    fn digest(&self) -> Digest {
        Digest::of(b"all is allowed")
    }
}

/// A device alone, and its disk.
struct Alone {
    node: Node,
    rows: MemoryRows,
    boots: u64,
    replies: Vec<Reply>,
}

/// All is allowed, five seconds after the start.
pub(super) fn context(rows: &MemoryRows) -> Context<'_> {
    let now = Now { mono: Timestamp::from_millis(5_000), wall: WallTime::default() };
    Context { now, rows, policy: &AllowAll }
}

fn started(boots: u64, rows: &MemoryRows) -> Node {
    let boot = BootId { counter: boots, random: boots };
    let seed = [u8::try_from(boots).unwrap(); 32];
    let secret = DeviceSecret::from_seed(&[1; 32]);
    Node::start(NodeConfig { secret, boot, seed, agents: vec![] }, context(rows)).unwrap()
}

impl Alone {
    fn new() -> Self {
        let secret = DeviceSecret::from_seed(&[1; 32]);
        let new = NewFabric {
            name: &"home".parse().unwrap(),
            root: None,
            device: &secret,
            device_name: &"laptop".parse().unwrap(),
            kind: Kind::Laptop,
        };
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let mut rows = MemoryRows::default();
        rows.apply(crate::membership::store(&[genesis(new, WallTime::default(), &mut rng)]));
        let mut it = Self { node: started(1, &rows), rows, boots: 1, replies: vec![] };
        it.settle();
        it
    }

    fn restart(&mut self) {
        self.boots += 1;
        self.node = started(self.boots, &self.rows);
        self.settle();
    }

    /// Carries everything out on a disk that refuses a batch with too large a row, and goes on.
    fn settle(&mut self) {
        self.node.pump(context(&self.rows));
        while let Some(output) = self.node.poll_output() {
            if let Output::Persist { ticket, writes, .. } = output {
                let input = match writes.iter().try_for_each(Write::check) {
                    Ok(()) => {
                        self.rows.apply(writes);
                        Input::Persisted(ticket)
                    }
                    Err(error) => Input::PersistFailed(ticket, error.to_string()),
                };
                self.node.handle_input(input, context(&self.rows));
            } else if let Output::Reply { reply, .. } = output {
                self.replies.push(reply);
            }
        }
    }

    fn record(&mut self, action: &str) -> Vec<Write> {
        let body = Body::Operator { action: action.into() };
        self.node.chain.append(body, WallTime::default()).1
    }

    /// What persons did, and what was withdrawn, in the order of the chain on the disk.
    fn actions(&self) -> Vec<String> {
        let head = self.node.chain.stored_head();
        for signatures in [Signatures::Checkpoints, Signatures::Every] {
            let heads = head.into_iter().collect();
            let checked = verify(self.node.me, heads, &self.rows, signatures).unwrap();
            assert_eq!(checked.head, head, "the disk holds what is claimed, and no more");
        }
        let rows = self.rows.scan_from(Table::Audit, &[], 0, usize::MAX).unwrap();
        let bodies = rows.into_iter().map(|(at, it)| audit::read(at, &it).unwrap().1.body);
        let word = |body| match body {
            Body::Operator { action } => Some(action),
            Body::Withdrawn => Some("withdrawn".into()),
            Body::Segment { .. }
            | Body::Intent { .. }
            | Body::Outcome { .. }
            | Body::Checkpoint { .. }
            | Body::Trust { .. }
            | Body::Strangers { .. }
            | Body::Denials { .. } => None,
        };
        bodies.filter_map(word).collect()
    }
}

fn too_large() -> Write {
    Write::Put(Row::named(Table::Run, b"run", b"step"), vec![0; VALUE_BYTES_MAX + 1])
}

#[test]
fn a_batch_that_no_disk_takes_leaves_no_gap_and_no_claim() {
    let mut it = Alone::new();
    let (one, two, three) = (it.record("one"), it.record("two"), it.record("three"));
    it.node.persist(Batch::ordered(one), After::Nothing);
    let two = two.into_iter().chain(iter::once(too_large())).collect();
    it.node.persist(Batch::synced(two), After::Done(DoorId(7)));
    it.node.persist(Batch::ordered(three), After::Nothing);
    it.settle();
    assert_eq!(it.actions(), ["one", "withdrawn", "three"]);
    let refused = it.replies.pop();
    assert!(
        matches!(&refused, Some(Reply::Refused { reason, .. }) if reason.contains("its value")),
        "{refused:?}"
    );
    assert_eq!(it.rows.get(&Row::named(Table::Run, b"run", b"step")), Ok(None));

    // The disk goes on, and so does the chain, also after a start.
    let four = it.record("four");
    it.node.persist(Batch::ordered(four), After::Nothing);
    it.settle();
    it.node.handle_input(
        Input::Command { door: DoorId(8), command: Command::Status },
        context(&it.rows),
    );
    it.settle();
    let Some(Reply::Status(status)) = it.replies.pop() else { panic!("it answers") };
    assert_eq!(status.audit_head, it.node.chain.stored_head());
    let [warning] = status.warnings.as_slice() else { panic!("{:?}", status.warnings) };
    assert!(warning.contains("too large") && !warning.contains("any more"), "{warning}");
    it.restart();
    let five = it.record("five");
    it.node.persist(Batch::ordered(five), After::Nothing);
    it.settle();
    assert_eq!(it.actions(), ["one", "withdrawn", "three", "four", "five"]);
}

#[test]
fn batches_whose_records_are_not_in_order_become_one() {
    let mut it = Alone::new();
    let (one, two, three) = (it.record("one"), it.record("two"), it.record("three"));
    it.node.persist(Batch::ordered([three, one].concat()), After::Nothing);
    it.node.persist(Batch::synced(vec![too_large()]), After::Done(DoorId(7)));
    it.node.persist(Batch::synced(two), After::Done(DoorId(8)));
    it.node.pump(context(&it.rows));
    let mut batches = Vec::new();
    for output in &it.node.outputs {
        if let Output::Persist { writes, durability, .. } = output {
            batches.push((writes.len(), *durability));
        }
    }
    assert_eq!(batches, [(3, Durability::Synced), (1, Durability::Synced)]);
    it.settle();
    assert_eq!(it.actions(), ["one", "two", "three"]);
    let done = it.replies.iter().filter(|reply| matches!(reply, Reply::Done)).count();
    assert_eq!((done, it.replies.len()), (1, 2));
}

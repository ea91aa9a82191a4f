use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use weft_protocol::{
    audit::Body,
    id::{BootId, Digest, SegmentId},
    row::MemoryRows,
    signed::Domain,
    time::WallTime,
};

use super::*;
use crate::audit::{Checked, Fault, Signatures, verify};

struct Node {
    key: SigningKey,
    rows: MemoryRows,
    chain: Chain,
    witnesses: Witnesses,
    id: DeviceId,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

const BOOT: BootId = BootId { counter: 1, random: 1 };

fn node(seed: u8) -> Node {
    Node::on(seed, seed, MemoryRows::default())
}

impl Node {
    /// Starts a device on a disk.
    fn on(seed: u8, segment: u8, mut rows: MemoryRows) -> Self {
        let key = key(seed);
        let id = DeviceId::from_bytes(key.verifying_key().to_bytes());
        let segment = SegmentId::from_bytes([segment; 16]);
        let mut chain = Chain::open(key.clone(), segment, &rows).unwrap();
        rows.apply(chain.start(BOOT, WallTime::default()));
        let witnesses = Witnesses::open(id, &rows).unwrap();
        Self { key, rows, chain, witnesses, id }
    }

    fn act(&mut self, records: usize) {
        for _ in 0..records {
            self.says("something");
        }
    }

    fn says(&mut self, action: &str) {
        let body = Body::Operator { action: action.into() };
        let (_, writes) = self.chain.append(body, WallTime::default());
        self.rows.apply(writes);
    }

    fn hear(&mut self, from: DeviceId, message: AuditMessage) -> Seen {
        self.hear_in(from, message, 0xff)
    }

    /// What is owned up to opens that segment.
    fn hear_in(&mut self, from: DeviceId, message: AuditMessage, segment: u8) -> Seen {
        let (chain, rows) = (&self.chain, &self.rows);
        let seen = self.witnesses.handle_message(from, "other", message, |_| true, chain, rows);
        self.rows.apply(seen.writes.clone());
        if let Some(lost) = seen.lost {
            let segment = SegmentId::from_bytes([segment; 16]);
            let writes = self.chain.recover(segment, BOOT, lost, WallTime::default());
            self.rows.apply(writes);
        }
        seen
    }

    /// Shows its head to another device, and hears what that one says of it.
    fn show(&mut self, other: &mut Self) -> (Seen, Seen) {
        let head = self.head();
        let seen = other.hear(self.id, head);
        let answer = seen.answer.clone().map(|answer| self.hear(other.id, answer));
        (seen, answer.unwrap_or_default())
    }

    fn signed_head(&self) -> SignedHead {
        self.chain.sign(self.chain.head().unwrap())
    }

    fn head(&self) -> AuditMessage {
        AuditMessage::Head(self.signed_head().signed().clone())
    }

    fn witnessed(&self) -> Witnessed {
        witnessed(self.id, &self.rows).unwrap()
    }

    fn verify(&self) -> Result<Checked, Fault> {
        let heads = self.witnessed().heads.into_iter().map(|(_, head)| head).collect();
        verify(self.id, heads, &self.rows, Signatures::Checkpoints)
    }
}

#[test]
fn a_chain_that_is_cut_after_it_was_seen_is_named() {
    let (mut laptop, mut server) = (node(1), node(2));
    laptop.act(1);
    laptop.show(&mut server);
    let head = laptop.chain.head().unwrap();
    assert_eq!(laptop.witnessed(), Witnessed { heads: vec![(server.id, head)], bogus: vec![] });
    assert!(laptop.verify().is_ok());
    laptop.rows.apply([Write::Delete(Row::numbered(Table::Audit, &[], 1))]);
    assert_eq!(laptop.verify(), Err(Fault::CutOff(1)));
}

#[test]
fn nobody_is_framed_with_a_head_that_it_never_showed() {
    let (mut laptop, server) = (node(1), node(2));
    let head = Head { position: 900, digest: Digest::of(b"never"), ..laptop.chain.head().unwrap() };
    let by_itself = Signed::new(Domain::Head, &head, &server.key);
    let bare = Signed::new(Domain::Witness, &head, &server.key);
    let around = Signed::new(Domain::Witness, &by_itself, &server.key);
    for framed in [by_itself, bare, around.clone()] {
        assert_eq!(laptop.hear(server.id, AuditMessage::Witness(framed)), Seen::default());
    }
    // A true one, by another than who brings it.
    let witness = Witness::new(laptop.signed_head(), &key(3)).signed().clone();
    assert_eq!(laptop.hear(server.id, AuditMessage::Witness(witness)), Seen::default());
    assert!(laptop.verify().is_ok());

    // On the disk, however it came there, it is named and not believed.
    let row = Row::named(Table::Witness, laptop.id.as_bytes(), server.id.as_bytes());
    laptop.rows.apply([Write::Put(row, codec::encode(&around))]);
    assert_eq!(laptop.witnessed(), Witnessed { heads: vec![], bogus: vec![server.id] });
    assert!(laptop.verify().is_ok());
    assert!(Witnesses::open(laptop.id, &laptop.rows).is_ok());
}

#[test]
fn of_each_witness_the_furthest_head_is_kept() {
    let (mut laptop, mut server) = (node(1), node(2));
    laptop.act(1);
    let early = server.hear(laptop.id, laptop.head()).answer.unwrap();
    laptop.act(1);
    laptop.show(&mut server);
    let far = laptop.witnessed();
    assert_eq!(laptop.hear(server.id, early.clone()), Seen::default());
    assert_eq!(laptop.witnessed(), far);
    // Also after a start.
    laptop.witnesses = Witnesses::open(laptop.id, &laptop.rows).unwrap();
    assert_eq!(laptop.hear(server.id, early), Seen::default());
    assert_eq!(laptop.witnessed(), far);
}

#[test]
fn a_head_of_somebody_else_is_not_signed() {
    let (laptop, mut server, phone) = (node(1), node(2), node(3));
    assert_eq!(server.hear(phone.id, laptop.head()), Seen::default());
}

#[test]
fn a_head_that_is_shown_again_is_answered_and_not_written_again() {
    let (mut laptop, mut server) = (node(1), node(2));
    laptop.show(&mut server);
    let (seen, heard) = laptop.show(&mut server);
    assert!(seen.writes.is_empty() && seen.answer.is_some(), "{seen:?}");
    assert_eq!(heard, Seen::default());
}

#[test]
fn a_fork_is_kept_as_a_proof_that_all_others_take() {
    let (mut laptop, mut server, mut phone) = (node(1), node(2), node(3));
    laptop.act(2);
    laptop.show(&mut server);
    laptop.act(1);
    laptop.show(&mut server);
    // The same start with the same key, whose chain goes another way: at an earlier place.
    let mut copy = node(1);
    copy.says("something else");
    copy.act(1);
    let seen = server.hear(copy.id, copy.head());
    let fork = seen.fork.expect("a fork");
    assert_eq!((fork.device(), fork.position(), seen.answer), (laptop.id, 2, None));
    assert_eq!(seen.writes.len(), 1);

    // It is passed on once, proves itself, and is there after a start.
    assert_eq!(phone.hear(server.id, told(&fork)).fork.as_ref(), Some(&fork));
    assert_eq!(phone.hear(server.id, told(&fork)), Seen::default());
    assert_eq!(server.hear(copy.id, copy.head()), Seen::default());
    let again = Witnesses::open(phone.id, &phone.rows).unwrap();
    assert_eq!(again.forks().collect::<Vec<_>>(), [&fork]);
    assert!(again.greeting(&server.id, &phone.chain).contains(&told(&fork)));
    // Its owner hears of it too.
    assert_eq!(laptop.hear(server.id, told(&fork)).fork.as_ref(), Some(&fork));

    // One made up by a member is none.
    let [one, _] = fork.heads();
    let forged = Head { digest: Digest::of(b"never"), ..*one.head() };
    let forged = Signed::new(Domain::Head, &forged, &server.key);
    let made_up = AuditMessage::Fork(one.signed().clone(), forged);
    assert_eq!(node(4).hear(server.id, made_up), Seen::default());
}

#[test]
fn a_chain_that_is_shown_otherwise_to_another_device_is_found_when_the_two_meet() {
    let (laptop, mut server, mut phone) = (node(1), node(2), node(3));
    server.hear(laptop.id, laptop.head());
    let mut copy = node(1);
    copy.chain =
        Chain::open(key(1), SegmentId::from_bytes([1; 16]), &MemoryRows::default()).unwrap();
    copy.rows.apply(copy.chain.start(BOOT, WallTime::from_unix_millis(5)));
    phone.hear(copy.id, copy.head());
    let greeting = server.witnesses.greeting(&phone.id, &server.chain);
    let forks: Vec<_> =
        greeting.into_iter().filter_map(|it| phone.hear(server.id, it).fork).collect();
    assert_eq!(forks.len(), 1);
    assert_eq!((forks[0].device(), forks[0].position()), (laptop.id, 0));
}

#[test]
fn a_head_that_this_device_signed_for_another_record_proves_its_key_to_be_elsewhere() {
    let (mut laptop, mut server) = (node(1), node(2));
    let mut thief = node(1);
    laptop.act(2);
    thief.says("something else");
    let witness = server.hear(thief.id, thief.head()).answer.unwrap();
    let seen = laptop.hear(server.id, witness);
    assert_eq!(seen.fork.map(|fork| (fork.device(), fork.position())), Some((laptop.id, 1)));
    assert_eq!(seen.lost, None);
}

#[test]
fn a_device_whose_disk_was_set_back_hears_of_it_and_goes_on() {
    let (mut laptop, mut server, mut phone) = (node(1), node(2), node(3));
    laptop.act(9);
    laptop.show(&mut server);
    let old = laptop.rows.clone();
    laptop.act(5);
    laptop.show(&mut phone);
    laptop.act(5);
    laptop.show(&mut server);

    let mut laptop = Node::on(1, 9, old);
    laptop.act(1);
    assert!(laptop.verify().is_ok(), "nobody has told it yet");
    let (seen, heard) = laptop.show(&mut server);
    assert!(seen.warning.unwrap().contains("set back"));
    assert_eq!(seen.fork, None);
    assert_eq!(heard.lost.map(|lost| lost.position), Some(19));
    assert!(heard.warning.unwrap().contains("set back"));
    let checked = laptop.verify().unwrap();
    // Records 10 and 11 were written anew; a checkpoint closes their segment.
    assert_eq!(checked.setbacks[0].missing, Some((13, 19)));
    assert_eq!(checked.head.map(|head| head.position), Some(20));

    // It is said once, also when another device saw less, and the others go along.
    let greeting = phone.witnesses.greeting(&laptop.id, &phone.chain).remove(0);
    let heard = laptop.hear(phone.id, greeting);
    assert_eq!((heard.lost, heard.warning, heard.writes.len()), (None, None, 1));
    for other in [&mut server, &mut phone] {
        let (seen, heard) = laptop.show(other);
        assert_eq!((seen.warning, seen.fork, heard.lost), (None, None, None));
    }
    assert_eq!(laptop.verify().unwrap().setbacks.len(), 1);
}

#[test]
fn a_head_that_comes_late_is_no_disk_that_was_set_back() {
    let (mut laptop, mut server) = (node(1), node(2));
    laptop.act(2);
    let late = laptop.head();
    laptop.act(2);
    server.hear(laptop.id, laptop.head());
    let seen = server.hear(laptop.id, late);
    assert_eq!((seen.warning, seen.fork), (None, None));
    assert!(seen.answer.is_some(), "it hears how far it was seen");
}

#[test]
fn a_device_that_wrote_past_what_it_lost_before_it_heard_owns_up_all_the_same() {
    let (mut laptop, mut server) = (node(1), node(2));
    let old = laptop.rows.clone();
    laptop.act(5);
    laptop.show(&mut server);
    let mut laptop = Node::on(1, 9, old);
    laptop.act(30);
    for message in server.witnesses.greeting(&laptop.id, &server.chain) {
        laptop.hear(server.id, message);
    }
    let (seen, _) = laptop.show(&mut server);
    assert_eq!((seen.warning, seen.fork), (None, None));
    let checked = laptop.verify().unwrap();
    assert_eq!(checked.setbacks.len(), 1);
    assert_eq!((checked.setbacks[0].lost.position, checked.setbacks[0].missing), (5, None));
}

/// Lets a device say that its newest head is on its disk.
fn durable(node: &mut Node) {
    let head = node.chain.head().unwrap();
    node.witnesses.synced(head, &node.chain);
}

/// A device and a copy of its disk, which come by turns: what the witness and the two say of it.
#[test]
fn a_copy_of_a_disk_that_runs_beside_it_is_told_from_a_disk_that_was_set_back() {
    let (mut laptop, mut server) = (node(1), node(2));
    laptop.act(3);
    let image = laptop.rows.clone();
    laptop.act(3);
    durable(&mut laptop);
    laptop.show(&mut server);

    // The copy can't know at its start: it may be a disk that was set back.
    let mut copy = Node::on(1, 9, image);
    durable(&mut copy);
    let (seen, heard) = copy.show(&mut server);
    assert_eq!(
        (seen.copied, heard.copied, heard.lost.map(|it| it.position)),
        (None, None, Some(6))
    );
    durable(&mut copy);
    let (seen, heard) = copy.show(&mut server);
    assert_eq!((seen.copied, heard.copied, heard.lost), (None, None, None));

    // But who ran before it and runs still is another machine, and the copy hears of that in turn.
    laptop.act(1);
    durable(&mut laptop);
    let (seen, heard) = laptop.show(&mut server);
    assert_eq!((seen.copied, seen.warning), (Some(laptop.id), None));
    assert_eq!((heard.copied, heard.lost, heard.warning), (Some(laptop.id), None, None));
    assert!(heard.writes.is_empty(), "what the other wrote is nothing that this chain must have");
    for node in [&mut laptop, &mut server] {
        let write = node.witnesses.copied(copy.id, WallTime::from_unix_millis(7));
        node.rows.apply([write]);
    }
    laptop.act(5);
    durable(&mut laptop);
    laptop.show(&mut server);
    let (seen, heard) = copy.show(&mut server);
    assert_eq!((seen.copied, heard.copied, heard.lost), (None, Some(copy.id), None));

    // From then on neither owns up to what the other does, also after a start.
    let rows = laptop.rows.clone();
    let mut laptop = Node::on(1, 10, rows);
    let copies: Vec<_> = laptop.witnesses.copies().map(|(id, since)| (*id, since)).collect();
    assert_eq!(copies, [(laptop.id, WallTime::from_unix_millis(7))]);
    copy.act(40);
    copy.show(&mut server);
    for _ in 0..3 {
        let (seen, heard) = laptop.show(&mut server);
        assert_eq!((seen.copied, seen.warning), (None, None));
        assert_eq!((heard.copied, heard.lost, heard.warning), (None, None, None));
    }
    assert!(laptop.verify().is_ok());
}

proptest! {
    /// Starts of one machine, its disk set back as often as may be, and witnesses that come and go.
    #[test]
    fn one_machine_is_never_taken_for_two(
        turns in proptest::collection::vec((0usize..5, 0usize..4, 0usize..2), 1..24),
    ) {
        let mut laptop = node(1);
        let mut others = [node(2), node(3)];
        let mut images = vec![laptop.rows.clone()];
        for (number, (turn, records, other)) in turns.into_iter().enumerate() {
            let segment = u8::try_from(number).unwrap() + 20;
            match turn {
                0 => images.push(laptop.rows.clone()),
                1 => laptop = Node::on(1, segment, laptop.rows),
                2 => laptop = Node::on(1, segment, images[records % images.len()].clone()),
                _ => laptop.act(records),
            }
            let other = &mut others[other];
            for message in other.witnesses.greeting(&laptop.id, &other.chain) {
                let id = other.id;
                prop_assert_eq!(laptop.hear_in(id, message, segment).copied, None);
            }
            durable(&mut laptop);
            let head = laptop.head();
            let seen = other.hear(laptop.id, head);
            prop_assert_eq!(seen.copied, None);
            if let Some(answer) = seen.answer {
                prop_assert_eq!(laptop.hear_in(other.id, answer, segment + 100).copied, None);
            }
        }
    }
}

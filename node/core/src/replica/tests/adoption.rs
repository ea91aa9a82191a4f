//! What is left of a device that is out: what others had applied, in its own words.

use weft_protocol::{document::VOUCH_BYTES_MAX, id::ActorId};

use super::*;
use crate::document::Document;

fn milk() -> Value {
    fields(&[("text", "milk")])
}

#[test]
fn what_was_applied_and_not_yet_written_is_kept_too() {
    // How many batches of node 1 are on its disk when it hears of the revocation, and by what it is followed.
    for crash in [false, true] {
        let mut fabric = Fabric::new(3);
        let thief = fabric.nodes[0].me;
        fabric.open(0, 1);
        fabric.settle();
        fabric.nodes[0].edit(vec![create(1, "milk")]).unwrap();
        while fabric.persist_one(0) {}
        while fabric.deliver_one(0, 1) {}
        assert!(!fabric.nodes[1].writing.is_empty(), "it is applied, and not written");
        fabric.nodes[1].hear_revoke(thief);
        fabric.nodes[2].hear_revoke(thief);
        fabric.close(0, 1);
        if crash {
            // The batch that brought the change is lost, that of the adoption stands by itself.
            let (ticket, _) = fabric.nodes[1].writing.pop_front().unwrap();
            fabric.nodes[1].handle(Input::PersistFailed(ticket));
        }
        fabric.settle();
        fabric.restart(1);
        assert_eq!(fabric.nodes[1].content(1), Some(milk()));
        fabric.open(1, 2);
        fabric.settle();
        assert_eq!(fabric.nodes[2].content(1), Some(milk()), "crash: {crash}");
        fabric.assert_equal("by the word of node 1");
    }
}

#[test]
fn a_deletion_that_is_not_yet_written_is_kept_too() {
    let mut fabric = Fabric::new(3);
    let thief = fabric.nodes[0].me;
    fabric.open_all();
    fabric.edit(1, vec![create(1, "milk"), create(2, "eggs")]);
    fabric.close(0, 2);
    fabric.close(1, 2);
    fabric.nodes[0].edit(vec![Edit::Delete { id: note(1) }]).unwrap();
    while fabric.persist_one(0) {}
    while fabric.deliver_one(0, 1) {}
    assert!(!fabric.nodes[1].writing.is_empty(), "it is buried, and not written");
    fabric.nodes[1].hear_revoke(thief);
    fabric.nodes[2].hear_revoke(thief);
    fabric.close(0, 1);
    fabric.settle();
    fabric.restart(1);
    assert_eq!(fabric.nodes[1].content(1), None);
    fabric.open(1, 2);
    fabric.settle();
    assert_eq!(fabric.nodes[2].content(1), None);
    fabric.assert_equal("by the word of node 1");
    assert_eq!(fabric.nodes[1].aside, [], "its rows fit");
}

#[test]
fn who_holds_a_change_hears_the_word_for_it_on_the_stream_that_is_open() {
    let mut fabric = Fabric::new(3);
    let thief = fabric.nodes[0].me;
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "milk")]);
    fabric.close(0, 1);
    fabric.nodes[2].hear_revoke(thief);
    fabric.open(1, 2);
    fabric.settle();
    assert_eq!(fabric.nodes[2].content(1), None, "nobody vouches for it whose word counts");
    fabric.nodes[1].hear_revoke(thief);
    fabric.settle();
    assert_eq!(fabric.nodes[2].content(1), Some(milk()));
    fabric.assert_equal_and_known("without another meeting");
}

#[test]
fn an_adoption_outlives_who_made_it() {
    let mut fabric = Fabric::new(4);
    let (thief, other) = (fabric.nodes[0].me, fabric.nodes[1].me);
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "milk")]);
    fabric.close(0, 1);
    (1..4).for_each(|at| fabric.nodes[at].hear_revoke(thief));
    fabric.open(1, 2);
    fabric.settle();
    fabric.close(1, 2);
    (2..4).for_each(|at| fabric.nodes[at].hear_revoke(other));
    fabric.settle();
    fabric.open(2, 3);
    fabric.settle();
    assert_eq!(fabric.nodes[3].content(1), Some(milk()));
    // The device turns out to belong: what it signed itself is still there.
    fabric.nodes.push(Node::new(4, MemoryRows::default()));
    fabric.open(3, 4);
    fabric.settle();
    assert_eq!(fabric.nodes[4].content(1), Some(milk()));
}

/// A change in the name of `device`, and what vouches for it.
fn in_the_name_of(device: DeviceId) -> (Change, Vouch) {
    let start = StartNonce([9; 16]);
    let mut document = Document::new(&DocumentKind::NOTE, ActorId::of(&device, &start)).unwrap();
    let change = document.edit(&fields(&[("text", "said")]), WallTime::default()).unwrap().unwrap();
    let key = DocumentKey::first(note(1));
    let (seq, hash) = (change.seq(), change.hash());
    (change, Vouch { key, device, start, seq, hash, own: None })
}

fn message(change: &Change, vouches: &[Signed]) -> SyncMessage {
    SyncMessage::Documents(vec![DocumentMessage {
        key: DocumentKey::first(note(1)),
        kind: DocumentKind::NOTE,
        changes: vec![change.to_chunk()],
        vouches: vouches.iter().cloned().map(SentVouch::Whole).collect(),
        advance: Some(weft_protocol::sync::Advance {
            asks: false,
            need: vec![],
            heads: None,
            have: None,
        }),
    }])
}

#[test]
fn nobody_puts_words_into_the_mouth_of_a_device_that_is_out() {
    let [thief, liar] = [1, 2].map(|byte| SigningKey::from_bytes(&[byte; 32]));
    let device = DeviceId::from_bytes(thief.verifying_key().to_bytes());
    let (change, vouch) = in_the_name_of(device);
    let genuine = Signed::new(Domain::Vouch, &vouch, &thief);
    let by = |vouch: &Vouch| Signed::new(Domain::Vouch, vouch, &liar);
    let own = |signature: [u8; 64]| Vouch { own: Some(signature.into()), ..vouch.clone() };
    let older = Vouch { seq: 0, ..vouch.clone() };
    let of_older = Signed::new(Domain::Vouch, &older, &thief);
    let elsewhere = Vouch { key: DocumentKey::first(note(2)), ..vouch.clone() };
    let of_elsewhere = Signed::new(Domain::Vouch, &elsewhere, &thief);
    let cases: [(&str, Vec<Signed>, bool); 8] = [
        ("the liar's word alone", vec![by(&vouch)], false),
        ("its own signature instead", vec![by(&own(by(&vouch).signature))], false),
        ("one of the device's for another number", vec![by(&own(of_older.signature))], false),
        ("one for another document", vec![by(&own(of_elsewhere.signature))], false),
        ("one for another number beside it", vec![by(&vouch), of_older], false),
        ("the device's word alone, which is out", vec![genuine.clone()], false),
        ("both in one", vec![by(&vouch.adopted(&genuine))], true),
        ("both, as an older version has it", vec![by(&vouch), genuine.clone()], true),
    ];
    for (what, vouches, is_believed) in cases {
        let mut node = Node::new(2, MemoryRows::default());
        let peer = DeviceId::from_bytes(liar.verifying_key().to_bytes());
        node.hear_revoke(device);
        node.handle(Input::Opened(peer));
        node.handle(Input::Message(peer, message(&change, &vouches)));
        assert_eq!(node.replica.counts().parked, usize::from(!is_believed), "{what}");
    }
    let adoption = by(&vouch.adopted(&genuine));
    assert!(adoption.bytes.len() <= VOUCH_BYTES_MAX);
    // While the device belongs, nobody else vouches for it.
    let mut node = Node::new(2, MemoryRows::default());
    let peer = DeviceId::from_bytes(liar.verifying_key().to_bytes());
    node.handle(Input::Opened(peer));
    node.handle(Input::Message(peer, message(&change, &[adoption])));
    assert_eq!(node.replica.counts().parked, 1);
}

#[test]
fn what_was_adopted_before_adoptions_carried_the_devices_word_is_still_passed_on() {
    let mut fabric = Fabric::new(3);
    let thief = fabric.nodes[0].me;
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "milk")]);
    fabric.close(0, 1);
    (1..3).for_each(|at| fabric.nodes[at].hear_revoke(thief));
    fabric.settle();
    // Node 1's adoption as it was stored then.
    let key = DocumentKey::first(note(1));
    let vouches = vouching::load(&key, &fabric.nodes[1].rows).unwrap();
    let me = fabric.nodes[1].me;
    let (vouch, _) = vouches.values().find(|(_, signed)| signed.author == me).unwrap();
    let old = Vouch { own: None, ..vouch.clone() };
    let signed = Signed::new(Domain::Vouch, &old, &fabric.nodes[1].signing);
    fabric.nodes[1].rows.apply([vouching::write(&old, &signed)]);
    fabric.restart(1);
    fabric.open(1, 2);
    fabric.settle();
    assert_eq!(fabric.nodes[2].content(1), Some(milk()));
}

/// How many changes of a device's first start a node has of a note, with what it is writing.
fn applied(node: &mut Node, number: u64, device: DeviceId) -> u64 {
    let key = DocumentKey::first(note(number));
    node.with(|replica, context| {
        replica.load(&key, &DocumentKind::NOTE, context.rows).unwrap();
        let clock = replica.shelf.get(&key).unwrap().document.clock().unwrap();
        clock.0.get(&ActorId::of(&device, &StartNonce([0; 16]))).copied().unwrap_or(0)
    })
}

const NOTES: u64 = 4;

/// One run in which three devices hear at different moments that a fourth is out, which goes on writing.
fn put_out(seed: u64) {
    let mut dice = Dice(seed);
    let mut fabric = Fabric::new(4);
    let thief = fabric.nodes[0].me;
    fabric.open_all();
    // What of each note a device had applied when it heard.
    let mut had: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    let mut written = [0; 4];
    for step in 0..120 + dice.roll(80) {
        let at = dice.index(4);
        let number = dice.roll(NOTES);
        match dice.roll(16) {
            0..=3 => {
                let edit = match fabric.nodes[at].replica.entry(&DocumentKey::first(note(number))) {
                    Some(_) => update(number, ["a", "b"][dice.index(2)], &step.to_string()),
                    None => create(number, "begun"),
                };
                // An edit of a note that another has begun meanwhile may be refused.
                if fabric.nodes[at].edit(vec![edit]).is_ok() && at == 0 {
                    written[number as usize] += 1;
                }
            }
            4..=6 => drop(fabric.persist_one(at)),
            7..=12 => drop(fabric.deliver_one(at, dice.index(4))),
            13 if at != 0 && step > 60 && !had.contains_key(&at) => {
                let node = &mut fabric.nodes[at];
                had.insert(at, (0..NOTES).map(|number| applied(node, number, thief)).collect());
                node.hear_revoke(thief);
            }
            14 if at != 0 => {
                fabric.restart(at);
                // What it heard and did not write, it has not heard.
                let node = &mut fabric.nodes[at];
                if !Replica::has_adopted(&thief, &node.rows).unwrap() {
                    node.members.revoked.clear();
                    had.remove(&at);
                }
            }
            _ => fabric.open_all(),
        }
        fabric.collect();
    }
    for at in 1..4 {
        had.entry(at).or_insert_with(|| {
            let node = &mut fabric.nodes[at];
            let has = (0..NOTES).map(|number| applied(node, number, thief)).collect();
            node.hear_revoke(thief);
            has
        });
    }
    // It shows all that it has to everybody, and then is away.
    fabric.open_all();
    fabric.settle();
    (1..4).for_each(|at| fabric.close(0, at));
    fabric.nodes.remove(0);
    let wires = std::mem::take(&mut fabric.wires);
    assert!(wires.values().all(VecDeque::is_empty));
    fabric.open_all();
    fabric.settle();
    fabric.assert_equal(&format!("seed {seed}"));
    for number in 0..NOTES {
        let most = had.values().map(|of| of[number as usize]).max();
        for node in &mut fabric.nodes {
            let has = applied(node, number, thief);
            assert_eq!(Some(has), most, "seed {seed}, note {number}: of {written:?}, {had:?}");
        }
    }
}

#[test]
fn what_is_kept_of_a_device_is_what_others_had_when_they_heard() {
    (0..150).for_each(put_out);
}

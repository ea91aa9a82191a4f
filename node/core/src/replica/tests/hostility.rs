//! Messages that no honest peer sends.

use weft_protocol::sync::{Chunk, Stub, Summary};

use super::*;

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

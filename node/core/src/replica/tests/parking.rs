//! Parked changes, until somebody vouches or allows them.

use super::*;

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

//! The disk: what is written before it is told, and read at the next start.

use weft_protocol::row::Row;

use super::*;
use crate::replica::{conversation::shared_heads, shelf::saved_row};

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
fn a_full_disk_is_not_asked_again_and_again() {
    let mut fabric = Fabric::new(3);
    fabric.edit(2, vec![create(0, "from before")]);
    fabric.open_all();
    fabric.settle();
    fabric.nodes[1].is_disk_full = true;
    let edits: Vec<_> = (1..=10).map(|number| create(number, "milk")).collect();
    fabric.edit(0, edits);
    fabric.edit(0, vec![update(1, "text", "eggs")]);
    fabric.edit(2, vec![update(0, "text", "from after"), Edit::Delete { id: note(2) }]);
    // Each of the two others tells of each of twelve changes and a deletion, once.
    let refused = fabric.nodes[1].refused_writes;
    assert!((1..=26).contains(&refused), "{refused} batches");
    assert_eq!(fabric.nodes[1].content(0), Some(fields(&[("text", "from before")])));
    assert_eq!(fabric.contents(0), fabric.contents(2), "the others go on");
    fabric.restart(1);
    fabric.open_all();
    fabric.settle();
    fabric.assert_equal("when there is room again");
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

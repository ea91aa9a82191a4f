//! Traffic: what many notes cost on the wire.

use super::*;
use crate::replica::shelf::LOADED_MAX;

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

//! Convergence of what is written apart, whatever is lost on the way.

use super::*;

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

//! Edits that are refused or that fail.

use super::*;

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

//! Sessions: what two have settled, and what they ask for anew.

use super::*;
use crate::replica::index::{Theirs, Want};

#[test]
fn what_is_settled_before_a_comparison_ends_stays_settled() {
    let mut fabric = Fabric::new(3);
    // Who has the lesser id asks.
    let asks = usize::from(fabric.nodes[1].me < fabric.nodes[0].me);
    let (lists, third) = (1 - asks, 2);
    fabric.open(asks, third);
    fabric.open(lists, third);
    fabric.settle();
    fabric.edit(third, vec![create(1, "one")]);
    fabric.nodes[asks].edit(vec![create(2, "so that they differ")]).unwrap();
    assert!(fabric.persist_one(asks));
    fabric.open(asks, lists);
    let change = |fabric: &mut Fabric, text: &str| {
        fabric.nodes[third].edit(vec![update(1, "text", text)]).unwrap();
        while fabric.persist_one(third) {}
        for at in [asks, lists] {
            while fabric.deliver_one(third, at) {}
            while fabric.persist_one(at) {}
            while fabric.deliver_one(at, third) {}
        }
    };
    // Two changes come to both from the third, one before the list is made and one after.
    change(&mut fabric, "two");
    assert!(fabric.deliver_one(lists, asks), "that there is a change");
    assert!(fabric.deliver_one(asks, lists), "the question");
    change(&mut fabric, "three");
    // Who made the list knows that all is settled before it hears that the list differs.
    while fabric.deliver_one(asks, lists) {}
    fabric.settle();
    fabric.assert_equal_and_known("after two changes");
}

/// A note to be asked about.
fn wanted(number: u64) -> (DocumentKey, Want) {
    let want = Want { kind: DocumentKind::NOTE, theirs: Theirs::Unknown };
    (DocumentKey::first(note(number)), want)
}

#[test]
fn what_a_peer_has_a_session_want_is_bounded_and_asked_for_anew() {
    let total = Index::load(&MemoryRows::default()).unwrap().question();
    let mut session = Session::new();
    let all = || Range { from: KeyPrefix::default(), to: KeyPrefix::default(), ..total.clone() };
    assert!(session.resolve(&all()));
    session.differ((0..100_000).map(wanted).collect(), Vec::new());
    let known = DocumentKey::first(note(100_000));
    assert!(!session.is_settled(&known), "it may be one of those that are nowhere noted");
    let keys: Vec<_> = std::iter::from_fn(|| session.take_wanted()).map(|(key, _)| key).collect();
    assert_eq!(keys.len(), 1 << 16);
    keys.iter().for_each(|key| session.let_rest(*key));
    assert!(!session.ask_anew(all()), "nothing became the same, and nothing would now");
    session.settle(&keys[0]);
    assert!(session.ask_anew(all()));
    assert!(!session.is_idle(), "an answer is awaited");
    assert!(!session.ask_anew(all()));
}

#[test]
fn what_was_missed_is_found_by_whichever_side_asks_anew() {
    for sides in [&[0][..], &[1], &[0, 1]] {
        let mut fabric = Fabric::new(2);
        fabric.open(0, 1);
        fabric.settle();
        for at in 0..2 {
            // What is written now is told to nobody.
            let peer = fabric.nodes[1 - at].me;
            let session = fabric.nodes[at].replica.sessions.remove(&peer).unwrap();
            let notes = (0..40).map(|number| create(100 * at as u64 + number, "one")).collect();
            fabric.nodes[at].edit(notes).unwrap();
            while fabric.persist_one(at) {}
            fabric.nodes[at].replica.sessions.insert(peer, session);
        }
        for at in sides {
            let peer = fabric.nodes[1 - at].me;
            fabric.nodes[*at].replica.sessions.get_mut(&peer).unwrap().miss();
        }
        for node in &mut fabric.nodes {
            node.handle(Input::MembersChanged);
        }
        fabric.collect();
        fabric.settle();
        fabric.assert_equal_and_known("after another question");
        for node in &fabric.nodes {
            assert_eq!((node.replica.len(), node.replica.counts().refused), (80, 0));
        }
    }
}

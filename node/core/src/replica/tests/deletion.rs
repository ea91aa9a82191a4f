//! Deletions, what comes back after one included.

use weft_protocol::document::{Clock, Tombstone};

use super::*;

#[test]
fn a_deletion_reaches_whoever_was_away() {
    let mut fabric = Fabric::new(3);
    fabric.open_all();
    fabric.edit(0, vec![create(1, "milk"), create(2, "eggs")]);
    fabric.close(0, 2);
    fabric.close(1, 2);
    fabric.edit(0, vec![Edit::Delete { id: note(1) }]);
    assert_eq!(fabric.nodes[1].content(1), None);
    fabric.restart(1);
    fabric.open(1, 2);
    fabric.settle();
    assert_eq!(fabric.nodes[2].content(1), None);
    assert!(
        fabric.nodes[2].replica.list(&DocumentKind::NOTE, "", 9, &fabric.nodes[2].rows).len() == 1
    );
    fabric.open_all();
    fabric.settle();
    fabric.assert_equal("after the deletion");
    for node in &fabric.nodes {
        let key = DocumentKey::first(note(1)).to_bytes();
        for table in [Table::Change, Table::Document, Table::Vouch, Table::Parked] {
            assert_eq!(node.rows.scan(table, &key).unwrap(), [], "nothing of it stays");
        }
        assert_eq!(node.replica.len(), 1);
    }
    assert_eq!(fabric.nodes[0].prepare(vec![create(1, "milk")]), Err(EditError::Deleted(note(1))));
}

#[test]
fn a_session_settles_after_deletions_though_others_differ() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "milk"), create(2, "eggs")]);
    fabric.close(0, 1);
    // What is never settled keeps the totals apart.
    let author = fabric.nodes[0].me;
    fabric.nodes[1].members.may_not.insert(author);
    fabric.edit(0, vec![create(3, "not for the other")]);
    fabric.edit(1, vec![Edit::Delete { id: note(1) }]);
    fabric.open(0, 1);
    fabric.settle();
    fabric.edit(1, vec![Edit::Delete { id: note(2) }]);
    assert_ne!(fabric.nodes[0].replica.fingerprint(), fabric.nodes[1].replica.fingerprint());
    for (at, peer) in [(0, 1), (1, 0)] {
        let session = &fabric.nodes[at].replica.sessions[&fabric.nodes[peer].me];
        for number in 1..=2 {
            assert!(session.is_settled(&DocumentKey::first(note(number))), "{at}: {session:#?}");
        }
        assert!(!session.is_settled(&DocumentKey::first(note(3))) || at == 1, "{session:#?}");
    }
}

#[test]
fn deletions_are_settled_by_what_the_peer_took() {
    let mut fabric = Fabric::new(2);
    let notes: Vec<_> = (0..50).map(|number| create(number, "one")).collect();
    fabric.edit(0, notes);
    fabric.open(0, 1);
    fabric.settle();
    let deletions = (0..50).map(|number| Edit::Delete { id: note(number) }).collect();
    fabric.nodes[0].edit(deletions).unwrap();
    while fabric.persist_one(0) {}
    let peer = fabric.nodes[1].me;
    let session = &fabric.nodes[0].replica.sessions[&peer];
    assert_eq!((session.buried.len(), session.differs.len()), (50, 50));
    fabric.settle();
    let session = &fabric.nodes[0].replica.sessions[&peer];
    assert_eq!((session.buried.len(), session.differs.len()), (0, 0));
    fabric.assert_equal_and_known("after the deletions");
}

#[test]
fn a_concurrent_edit_brings_a_document_back() {
    let mut fabric = Fabric::new(3);
    fabric.open_all();
    fabric.edit(0, vec![create(1, "milk")]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        fabric.close(a, b);
    }
    fabric.edit(0, vec![Edit::Delete { id: note(1) }]);
    fabric.edit(1, vec![update(1, "more", "and eggs")]);
    fabric.edit(2, vec![Edit::Delete { id: note(1) }]);
    fabric.open_all();
    fabric.settle();
    fabric.assert_equal("after the conflict");
    let node = &fabric.nodes[2];
    let listed = node.replica.list(&DocumentKind::NOTE, "", 9, &node.rows);
    assert!(listed[0].revived);
    assert_eq!(listed[0].content, fields(&[("text", "milk"), ("more", "and eggs")]));
}

/// Its author has none of its own buried changes any more, and does not give their numbers again.
#[test]
fn a_document_that_came_back_is_edited_by_who_deleted_it() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "milk")]);
    fabric.close(0, 1);
    fabric.edit(1, vec![create(2, "eggs"), update(1, "more", "and eggs")]);
    fabric.edit(0, vec![update(1, "text", "cream"), Edit::Delete { id: note(1) }]);
    fabric.open(0, 1);
    fabric.settle();
    fabric.edit(0, vec![update(1, "last", "after all")]);
    fabric.assert_equal("after the edit");
    let expected = fields(&[("text", "milk"), ("more", "and eggs"), ("last", "after all")]);
    assert_eq!(fabric.nodes[1].content(1), Some(expected));
}

#[test]
fn a_document_with_many_long_tombstones_is_read_at_the_next_start() {
    let mut fabric = Fabric::new(2);
    fabric.open(0, 1);
    fabric.settle();
    let peer = fabric.nodes[1].me;
    let key = DocumentKey::first(note(1));
    for round in 0..25_u32 {
        let actor = |n: u32| {
            let mut id = [0; 16];
            id.copy_from_slice(&blake3::hash(&(round << 16 | n).to_be_bytes()).as_bytes()[..16]);
            (weft_protocol::id::ActorId::from_bytes(id), 1)
        };
        let tombstone = Tombstone {
            key,
            kind: DocumentKind::NOTE,
            buried: Clock((0..2_500).map(actor).collect()),
            time: WallTime::default(),
        };
        let tombstones = vec![Signed::new(Domain::Tombstone, &tombstone, &fabric.nodes[1].signing)];
        let message = SyncMessage::Tombstones { tombstones, gone: vec![key] };
        fabric.nodes[0].handle(Input::Message(peer, message));
        fabric.collect();
        while fabric.persist_one(0) {}
    }
    fabric.settle();
    let entry = fabric.nodes[0].replica.index.get(&key).unwrap().into_owned();
    let bytes: usize = entry.graves.iter().map(|grave| grave.bytes.len()).sum();
    assert!((450 << 10..=512 << 10).contains(&bytes), "{bytes}");
    fabric.restart(0);
    assert_eq!(fabric.nodes[0].replica.index.get(&key), Some(Cow::Owned(entry)));
}

#[test]
fn what_a_revoked_device_deleted_stays_deleted() {
    for may_adopt in [true, false] {
        let mut fabric = Fabric::new(3);
        let thief = fabric.nodes[0].me;
        fabric.open_all();
        fabric.edit(1, vec![create(1, "milk")]);
        fabric.close(0, 2);
        fabric.close(1, 2);
        fabric.edit(0, vec![Edit::Delete { id: note(1) }]);
        fabric.close(0, 1);
        for at in [1, 2] {
            if may_adopt {
                fabric.nodes[at].hear_revoke(thief);
            } else {
                fabric.nodes[at].members.revoked.insert(thief);
                fabric.nodes[at].handle(Input::MembersChanged);
            }
        }
        fabric.settle();
        fabric.restart(1);
        fabric.open(1, 2);
        fabric.settle();
        let left = fabric.nodes[2].content(1);
        assert_eq!(left.is_none(), may_adopt, "or it is let rest there");
        assert_eq!(fabric.nodes[1].content(1), None);
    }
}

#[test]
fn a_message_names_the_deleted_documents_whose_tombstones_it_holds() {
    let mut session = Session::new();
    let signing = SigningKey::from_bytes(&[1; 32]);
    let mut entry = Entry::new(DocumentKind::NOTE);
    for grave in [1, 2] {
        entry.graves.push(Signed::from_bytes(Domain::Tombstone, vec![grave; 30_000], &signing));
    }
    for number in 0..20 {
        session.say_graves(&DocumentKey::first(note(number)), &entry);
    }
    let mut named = 0;
    let messages = session.flush();
    assert!(messages.len() > 5, "{}", messages.len());
    for message in messages {
        let SyncMessage::Tombstones { tombstones, gone } = message else { panic!("{message:?}") };
        assert_eq!(tombstones.len(), gone.len() * 2);
        named += gone.len();
    }
    assert_eq!(named, 20);
}

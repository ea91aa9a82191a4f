//! Bounds of what a peer has a replica keep.

use weft_protocol::sync::ASSEMBLED_BYTES_MAX;

use super::*;
use crate::{
    document::exchange::Told,
    replica::session::{Assembled, WAITING_BYTES},
};

#[test]
fn what_a_peer_has_a_session_keep_is_bounded() {
    let mut session = Session::new();
    let key = DocumentKey::first(note(1));
    let empty = || Assembled {
        key,
        kind: DocumentKind::NOTE,
        changes: vec![],
        vouches: vec![],
        told: Told { heads: vec![], need: vec![], have: None, asks: false },
        bytes: WAITING_BYTES,
    };
    let waiting_max = ASSEMBLED_BYTES_MAX / WAITING_BYTES;
    for _ in 0..2 {
        let waiting = (0..=waiting_max).take_while(|_| session.defer(empty())).count();
        assert_eq!(waiting, waiting_max);
        // What waited for a document that is given up counts no longer.
        session.let_rest(key);
    }
    for number in 0..100_000 {
        session.let_rest(DocumentKey::first(note(number)));
    }
    assert!(session.differs.len() <= 1 << 16, "{}", session.differs.len());

    let advance =
        weft_protocol::sync::Advance { asks: false, need: vec![], heads: None, have: None };
    let part = |bytes, advance| DocumentMessage {
        key,
        kind: DocumentKind::NOTE,
        changes: vec![],
        vouches: vec![SentVouch::Whole(Signed::from_bytes(
            Domain::Vouch,
            vec![0; bytes],
            &SigningKey::from_bytes(&[1; 32]),
        ))],
        advance,
    };
    assert!(session.assemble(part(250, None), &mut Vec::new()).unwrap().is_none());
    let whole = session.assemble(part(900_000, Some(advance)), &mut Vec::new()).unwrap().unwrap();
    assert_eq!(whole.vouches.len(), 1, "no vouch is so long");
    assert!(whole.bytes > WAITING_BYTES + 250, "{}", whole.bytes);
}

#[test]
fn kinds_that_a_peer_makes_up_are_not_kept() {
    let mut node = Node::new(0, MemoryRows::default());
    for number in 0..1_000 {
        let kind = format!("kind-{number}").parse().unwrap();
        let skeleton = node.replica.shelf.skeleton(&kind);
        assert_eq!(node.replica.shelf.skeleton(&kind), skeleton);
    }
    assert!(node.replica.shelf.skeletons() <= 256);
}

#[test]
fn as_many_documents_stay_loaded_as_the_device_allows() {
    for loaded_max in [0, 3, 12] {
        let mut node = Node::new(0, MemoryRows::default());
        node.replica.bound(loaded_max);
        for number in 0..20 {
            node.edit(vec![create(number, "a sentence")]).unwrap();
            node.persist_one();
        }
        assert_eq!(node.replica.shelf.len(), loaded_max);
        assert_eq!(node.replica.len(), 20, "none is lost by that");
    }
}

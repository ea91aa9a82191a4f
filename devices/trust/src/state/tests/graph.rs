//! The graph: what enters, what waits and what is refused.

use super::*;
use crate::graph::{Inserted, StatementError};

#[test]
fn the_graph_refuses_what_can_never_enter() {
    let mut laptop = laptop();
    let foreign = first(None).force(StatementBody::Unknown(99));
    assert!(matches!(laptop.graph.insert(foreign), Err(StatementError::OtherFabric { .. })));
    let mut stranger = laptop.seen_by(TABLET);
    let signed = stranger.force(StatementBody::Unknown(99));
    assert!(matches!(laptop.graph.insert(signed.clone()), Err(StatementError::Stranger { .. })));
    let mut forged = signed;
    forged.author = laptop.id();
    assert!(matches!(laptop.graph.insert(forged), Err(StatementError::Forged(_))));
    let genesis = laptop.graph.statements().next().unwrap().clone();
    assert_eq!(laptop.graph.insert(genesis), Ok(Inserted::Known));
}

#[test]
fn waiting_statements_are_bounded_and_enter_when_their_parents_come() {
    let mut laptop = laptop();
    let mut ahead = laptop.clone();
    ahead.add(PHONE, Role::Admin);
    for number in 0..4 {
        ahead.rename(PHONE, &format!("phone {number}"));
    }
    let mut late: Vec<Signed> = ahead.graph.statements().cloned().collect();
    let first = late.remove(1);
    for signed in late.drain(1..).rev() {
        assert_eq!(laptop.graph.insert(signed), Ok(Inserted::Parked));
    }
    assert_eq!(laptop.graph.missing().len(), 1);
    let Ok(Inserted::Added(added)) = laptop.graph.insert(first) else { panic!("it is good") };
    assert_eq!(added.len(), 5);
    assert_eq!(laptop.state(), ahead.state());
    // Nobody fills the memory with statements whose parents never come.
    let mut other = laptop.clone();
    for number in 0..=crate::graph::PARKED_MAX {
        let dep = StatementId::from_bytes([u8::try_from(number % 256).unwrap(); 32]);
        let time = number as u16;
        let signed = other.force_at(vec![dep], StatementBody::Unknown(1_000 + time));
        let result = laptop.graph.insert(signed);
        if number < crate::graph::PARKED_MAX {
            assert_eq!(result, Ok(Inserted::Parked));
        } else {
            assert_eq!(result, Err(StatementError::ParkedFull));
        }
    }
}

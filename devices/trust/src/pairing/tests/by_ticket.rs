//! Pairing by a ticket: its outcomes.

use expect_test::expect;
use weft_protocol::{
    codec,
    id::AgreementKey,
    pairing::PAIRING_FRAME_BYTES_MAX,
    signed::Signed,
    statement::{KeyId, KeyName, Rename, Revoke, SealedKey},
};

use super::*;
use crate::keyring::Keyring;

#[test]
fn two_devices_pair_when_both_persons_say_yes() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    room.settle();
    assert_eq!(room.outcomes, [Outcome::Paired]);
    assert_eq!(room.outcome(0), Some(Outcome::Paired));
    let (ours, theirs) = (&room.prompts[0], &room.guests[0].prompts[0]);
    assert_eq!(ours.words, theirs.words);
    assert_eq!((ours.name.as_str(), ours.kind), ("phone", Kind::Phone));
    assert_eq!((theirs.name.as_str(), theirs.kind), ("laptop", Kind::Laptop));
    assert_eq!(theirs.fabric, name("home"));
    let joined = room.guests[0].joined.as_ref().unwrap();
    assert_eq!(joined.graph.state(), room.replica.state());
    assert_eq!(joined.contacts, contacts("/ip4/10.0.0.1/tcp/1"));
    assert_eq!(room.learned, [contacts("/ip4/10.0.0.2/tcp/1")]);
    let device = room.replica.device(PHONE);
    assert_eq!((device.role, device.confirmed), (Role::Member, true));
    let mut keyring = Keyring::new(secret(PHONE).agreement().clone());
    keyring.learn(&joined.graph);
    assert_eq!(keyring.lacking(joined.graph.state()), []);
}

#[test]
fn a_large_fabric_pairs_too() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    for number in 0..1_000 {
        let renamed = Rename { device: None, name: name(&format!("home {number}")) };
        room.replica.force(renamed.into());
    }
    // And two of the largest statements that there are, which follow each other.
    let filler = SealedKey {
        to: AgreementKey::from_bytes([1; 32]),
        which: KeyName::Addressing(KeyId::of(&[1; 32])),
        ephemeral: AgreementKey::from_bytes([1; 32]),
        ciphertext: [1; 48],
    };
    for _ in 0..2 {
        let generation = room.replica.next_generation();
        let sealed = vec![filler; 190];
        room.replica.force(Revoke { device: secret(THIEF).id(), generation, sealed }.into());
    }
    let len = |signed: &Signed| codec::encode(signed).len();
    let bytes: usize = room.replica.graph.statements().map(len).sum();
    assert!(bytes > 4 * PAIRING_FRAME_BYTES_MAX, "{bytes} bytes");
    let largest = room.replica.graph.statements().map(len).max().unwrap();
    assert!(largest > 25 << 10, "{largest} bytes");
    room.settle();
    assert_eq!(room.outcomes, [Outcome::Paired]);
    assert_eq!(room.outcome(0), Some(Outcome::Paired));
    let joined = room.guests[0].joined.as_ref().unwrap();
    assert_eq!(joined.graph.set_digest(), room.replica.graph.set_digest());
    assert_eq!(joined.graph.ids().count(), 1_004);
}

#[test]
fn the_words_stay_as_they_are() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    room.settle();
    expect!["benefit treat party license"].assert_eq(&room.prompts[0].words.join(" "));
}

#[test]
fn an_inviters_no_is_refused_on_both() {
    let mut room = Room::new(Role::Member, Persons { inviter: Answer::No, ..BOTH_YES });
    room.settle();
    assert_eq!(room.outcomes, [Outcome::Refused]);
    assert_eq!(room.outcome(0), Some(Outcome::Refused));
    assert_eq!(room.admitted, 0);
}

#[test]
fn a_joiners_no_is_refused_on_both() {
    let mut room = Room::new(Role::Member, Persons { joiner: Answer::No, ..BOTH_YES });
    room.settle();
    assert_eq!(room.outcomes, [Outcome::Refused]);
    assert_eq!(room.outcome(0), Some(Outcome::Refused));
    assert_eq!(room.admitted, 0);
}

#[test]
fn admin_is_given_by_a_person_only() {
    let mut room = Room::new(Role::Admin, BOTH_YES);
    room.settle();
    assert_eq!(room.replica.device(PHONE).role, Role::Admin);
    let mut room = Room::new(Role::Admin, Persons { inviter: Answer::Unasked, ..BOTH_YES });
    room.settle();
    assert_eq!(room.outcomes, [Outcome::Paired]);
    let device = room.replica.device(PHONE);
    assert_eq!((device.role, device.confirmed), (Role::Member, false));
}

#[test]
fn a_wrong_secret_is_refused_and_the_invitation_stays_open() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    let secret = TicketSecret::from_bytes([10; 16]);
    let wrong = Ticket { secret, ..room.ticket.clone() };
    let thief = room.enter(THIEF, wrong, Answer::Yes);
    room.guests.swap(0, thief);
    room.settle();
    assert_eq!(room.outcome(0), Some(Outcome::Refused));
    assert_eq!(room.outcome(1), Some(Outcome::Paired));
    assert_eq!(room.redemptions.len(), 1);
    assert_eq!(room.prompts.len(), 1, "nobody is asked about the wrong one");
}

#[test]
fn a_photographed_ticket_is_already_used_at_its_second_redemption() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    room.settle();
    let thief = room.enter(THIEF, room.ticket.clone(), Answer::Yes);
    room.settle();
    assert_eq!(room.outcome(thief), Some(Outcome::AlreadyUsed));
    // Also while the first is still asked about, and after the expiry.
    room.pass(Duration::from_secs(200));
    let late = room.enter(THIEF, room.ticket.clone(), Answer::Yes);
    room.settle();
    assert_eq!(room.outcome(late), Some(Outcome::AlreadyUsed));
    assert_eq!(room.admitted, 1);
    assert_eq!(room.outcomes, [Outcome::Paired]);
}

#[test]
fn a_thief_who_is_first_shows_other_words_and_leaves_the_owner_already_used() {
    let mut room = Room::new(Role::Member, Persons { inviter: Answer::No, ..BOTH_YES });
    let thief = room.enter(THIEF, room.ticket.clone(), Answer::Yes);
    room.guests.swap(0, thief);
    room.settle();
    assert_eq!(room.outcome(0), Some(Outcome::Refused));
    assert_eq!(room.outcome(1), Some(Outcome::AlreadyUsed));
    assert!(room.guests[1].prompts.is_empty(), "the owner's screen shows no words at all");
    assert_eq!(room.admitted, 0);
}

#[test]
fn nobody_comes_and_the_invitation_expires() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    room.guests.clear();
    room.pass(Duration::from_secs(121));
    assert_eq!(room.outcomes, [Outcome::Expired]);
    let late = room.enter(PHONE, room.ticket.clone(), Answer::Yes);
    room.settle();
    assert_eq!(room.outcome(late), Some(Outcome::Expired));
    // Ten minutes later nobody answers any more.
    room.pass(Duration::from_secs(601));
    assert!(room.closed);
    let later = room.enter(PHONE, room.ticket.clone(), Answer::Yes);
    room.pass(Duration::from_secs(60));
    assert_eq!(room.outcome(later), Some(Outcome::CouldNotReach));
}

#[test]
fn a_full_disk_refuses_and_adds_nobody() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    room.disk_full = true;
    room.settle();
    assert_eq!(room.outcomes, [Outcome::Refused]);
    assert_eq!(room.outcome(0), Some(Outcome::Refused));
    assert_eq!(room.admitted, 0);
}

#[test]
fn a_lost_last_answer_heals() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    room.act();
    while let Some((id, to_guest, message)) = room.wire.pop_front() {
        if matches!(message, PairingMessage::Welcome { .. }) && room.guests[0].prompts.len() == 1 {
            room.cut(id);
        } else {
            room.deliver(id, to_guest, message);
        }
        room.act();
    }
    assert_eq!(room.outcome(0), None);
    room.pass(Duration::from_secs(2));
    assert_eq!(room.outcome(0), Some(Outcome::Paired));
    assert_eq!(room.outcomes, [Outcome::Paired]);
    assert_eq!(room.admitted, 1, "the same device gets the same answer");
    assert_eq!(room.redemptions.len(), 1);
}

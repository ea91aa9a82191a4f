//! Many at the door at once.

use super::*;

#[test]
fn a_crowd_at_the_door_is_bounded_and_the_guest_still_pairs() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    for number in 0..7 {
        let id = ConnectionId(1_000 + number);
        room.inviter.handle_input(InviterInput::Connected(id, endpoint(THIEF)), room.now);
    }
    room.settle();
    assert_eq!(room.outcome(0), Some(Outcome::Paired));
    let mut closed = 0;
    for number in 0..100 {
        let id = ConnectionId(2_000 + number);
        room.inviter.handle_input(InviterInput::Connected(id, endpoint(THIEF)), room.now);
        while let Some(output) = room.inviter.poll_output() {
            closed += usize::from(output == InviterOutput::Close(id));
        }
    }
    assert!(closed >= 92, "{closed}");
}

#[test]
fn who_connects_and_says_nothing_does_not_keep_the_guest_out() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    let guest = room.guests.remove(0);
    for number in 0..8 {
        let id = ConnectionId(1_000 + number);
        room.inviter.handle_input(InviterInput::Connected(id, endpoint(THIEF)), room.now);
        if number % 2 == 0 {
            let fabric = room.ticket.fabric;
            let commitment = Digest::of(b"never shown");
            let hello = PairingMessage::Hello { version: 1, fabric, commitment };
            room.inviter.handle_input(InviterInput::Message(id, hello), room.now);
        }
    }
    room.guests.push(guest);
    room.settle();
    assert_eq!(room.outcome(0), None, "there is no place");
    room.pass(Duration::from_secs(15));
    assert_eq!(room.outcome(0), Some(Outcome::Paired));
}

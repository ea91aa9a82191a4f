use std::{collections::VecDeque, time::Duration};

use expect_test::expect;
use proptest::{collection::vec, prelude::*};
use weft_protocol::{
    device::Role,
    id::EndpointId,
    pairing::{Contacts, PairingMessage},
    ticket::Ticket,
    time::Now,
};

use super::*;
use crate::{
    keyring::Keyring,
    replica::{NOON, Replica, laptop, name, secret},
};

const PHONE: u8 = 2;
const THIEF: u8 = 66;

/// What the persons answer.
#[derive(Clone, Copy)]
struct Persons {
    inviter: Answer,
    joiner: Answer,
}

const BOTH_YES: Persons = Persons { inviter: Answer::Yes, joiner: Answer::Yes };

/// One joining device and its connection.
struct Guest {
    joiner: Joiner,
    endpoint: EndpointId,
    /// The connection that is up.
    connection: Option<ConnectionId>,
    answer: Answer,
    prompts: Vec<Prompt>,
    joined: Option<Joined>,
    outcome: Option<Outcome>,
}

/// An inviter, those who join, and the messages between them, which a test may lose or change.
struct Room {
    replica: Replica,
    inviter: Inviter,
    ticket: Ticket,
    guests: Vec<Guest>,
    connections: u64,
    answer: Answer,
    prompts: Vec<Prompt>,
    outcomes: Vec<Outcome>,
    learned: Vec<Contacts>,
    redemptions: Vec<Redemption>,
    admitted: usize,
    disk_full: bool,
    closed: bool,
    now: Now,
    /// What is on its way: to the guest or to the inviter, by connection.
    wire: VecDeque<(ConnectionId, bool, PairingMessage)>,
    /// Everything that was ever sent to the inviter.
    seen: Vec<PairingMessage>,
}

fn endpoint(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 32])
}

fn invitation(ticket: &Ticket) -> Invitation {
    Invitation {
        ticket: ticket.clone(),
        fabric: name("home"),
        name: name("laptop"),
        kind: Kind::Laptop,
    }
}

fn contacts(at: &str) -> Contacts {
    Contacts { addresses: vec![at.to_owned()], presences: vec![] }
}

impl Room {
    fn new(role: Role, persons: Persons) -> Self {
        let replica = laptop();
        let ticket = Ticket {
            fabric: replica.graph.fabric().into(),
            endpoint: endpoint(100),
            addresses: vec![],
            secret: TicketSecret::from_bytes([9; 16]),
            valid_s: 120,
            role,
        };
        let now = Now::default();
        let mut room = Self {
            inviter: Inviter::new(invitation(&ticket), secret(1), [1; 32], now),
            replica,
            ticket: ticket.clone(),
            guests: Vec::new(),
            connections: 0,
            answer: persons.inviter,
            prompts: Vec::new(),
            outcomes: Vec::new(),
            learned: Vec::new(),
            redemptions: Vec::new(),
            admitted: 0,
            disk_full: false,
            closed: false,
            now,
            wire: VecDeque::new(),
            seen: Vec::new(),
        };
        room.enter(PHONE, ticket, persons.joiner);
        room
    }

    /// Another device comes with a ticket.
    fn enter(&mut self, number: u8, ticket: Ticket, answer: Answer) -> usize {
        let own = endpoint(number);
        let secret = secret(number);
        let joiner =
            Joiner::new(ticket, secret, name("phone"), Kind::Phone, own, [number; 32], self.now);
        self.guests.push(Guest {
            joiner,
            endpoint: own,
            connection: None,
            answer,
            prompts: Vec::new(),
            joined: None,
            outcome: None,
        });
        self.guests.len() - 1
    }

    /// Does what the machines want, without delivering a message.
    fn act(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.inviter.poll_output() {
                idle = false;
                self.do_for_inviter(output);
            }
            for at in 0..self.guests.len() {
                while let Some(output) = self.guests[at].joiner.poll_output() {
                    idle = false;
                    self.do_for_joiner(at, output);
                }
            }
            if idle {
                return;
            }
        }
    }

    fn do_for_inviter(&mut self, output: InviterOutput) {
        let now = self.now;
        match output {
            InviterOutput::Send(id, message) => self.wire.push_back((id, true, message)),
            InviterOutput::Close(id) => self.close_after_wire(id),
            InviterOutput::Redeem(redemption) => {
                assert_eq!(self.admitted, 0, "the ticket is burnt before the device is added");
                self.redemptions.push(redemption);
                self.inviter.handle_input(InviterInput::Redeemed(!self.disk_full), now);
            }
            InviterOutput::Ask(prompt) => {
                assert!(!self.redemptions.is_empty(), "nobody is asked before the ticket is burnt");
                self.prompts.push(prompt);
                self.inviter.handle_input(InviterInput::Answer(self.answer), now);
            }
            InviterOutput::Admit(new) => {
                self.admitted += 1;
                self.replica.say(|author, rng| author.add(new, NOON, rng));
                let statements = self.replica.graph.statements().cloned().collect();
                let contacts = contacts("/ip4/10.0.0.1/tcp/1");
                self.inviter.handle_input(InviterInput::Admitted { statements, contacts }, now);
            }
            InviterOutput::Learned(_, contacts) => self.learned.push(contacts),
            InviterOutput::Ended(outcome) => self.outcomes.push(outcome),
            InviterOutput::CloseEndpoint => self.closed = true,
        }
    }

    fn do_for_joiner(&mut self, at: usize, output: JoinerOutput) {
        let now = self.now;
        match output {
            JoinerOutput::Dial => {
                if self.closed {
                    self.guests[at].joiner.handle_input(JoinerInput::Disconnected, now);
                    return;
                }
                self.connections += 1;
                let id = ConnectionId(self.connections);
                let guest = &mut self.guests[at];
                guest.connection = Some(id);
                self.inviter.handle_input(InviterInput::Connected(id, guest.endpoint), now);
                let reached = self.ticket.endpoint;
                guest.joiner.handle_input(JoinerInput::Connected(reached), now);
            }
            JoinerOutput::Send(message) => {
                self.seen.push(message.clone());
                if let Some(id) = self.guests[at].connection {
                    self.wire.push_back((id, false, message));
                }
            }
            JoinerOutput::Close => {
                if let Some(id) = self.guests[at].connection {
                    self.close_after_wire(id);
                }
            }
            JoinerOutput::Ask(prompt) => {
                let guest = &mut self.guests[at];
                guest.prompts.push(prompt);
                guest.joiner.handle_input(JoinerInput::Answer(guest.answer), now);
            }
            JoinerOutput::Store(joined) => {
                let guest = &mut self.guests[at];
                guest.joined = Some(*joined);
                let contacts = contacts("/ip4/10.0.0.2/tcp/1");
                guest.joiner.handle_input(JoinerInput::Stored(contacts), now);
            }
            JoinerOutput::Ended(outcome) => {
                assert_eq!(self.guests[at].outcome.replace(outcome), None, "it ends once");
            }
        }
    }

    /// A close is seen behind what was sent before.
    fn close_after_wire(&mut self, id: ConnectionId) {
        while let Some(at) = self.wire.iter().position(|(other, ..)| *other == id) {
            if let Some((id, to_guest, message)) = self.wire.remove(at) {
                self.deliver(id, to_guest, message);
            }
        }
        self.cut(id);
    }

    fn cut(&mut self, id: ConnectionId) {
        self.wire.retain(|(other, ..)| *other != id);
        self.inviter.handle_input(InviterInput::Disconnected(id), self.now);
        for guest in &mut self.guests {
            if guest.connection == Some(id) {
                guest.connection = None;
                guest.joiner.handle_input(JoinerInput::Disconnected, self.now);
            }
        }
    }

    fn deliver(&mut self, id: ConnectionId, to_guest: bool, message: PairingMessage) {
        let now = self.now;
        if to_guest {
            if let Some(guest) = self.guests.iter_mut().find(|g| g.connection == Some(id)) {
                guest.joiner.handle_input(JoinerInput::Message(message), now);
            }
        } else {
            self.inviter.handle_input(InviterInput::Message(id, message), now);
        }
    }

    /// Delivers all messages until nothing moves.
    fn settle(&mut self) {
        self.act();
        while let Some((id, to_guest, message)) = self.wire.pop_front() {
            self.deliver(id, to_guest, message);
            self.act();
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            self.settle();
            let own = self.inviter.poll_timeout();
            let theirs = self.guests.iter().filter_map(|guest| guest.joiner.poll_timeout());
            let next = theirs.chain(own).map(|(at, _)| at).min();
            match next.filter(|next| *next <= end) {
                Some(next) => self.now.mono = next,
                None => break,
            }
            self.inviter.handle_timeout(self.now);
            for guest in &mut self.guests {
                guest.joiner.handle_timeout(self.now);
            }
        }
        self.now.mono = end;
        self.settle();
    }

    fn outcome(&self, at: usize) -> Option<Outcome> {
        self.guests[at].outcome
    }
}

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

#[test]
fn a_replayed_conversation_pairs_nobody() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    room.settle();
    let recorded = room.seen.clone();
    let mut again = Room::new(Role::Member, BOTH_YES);
    again.guests.clear();
    let id = ConnectionId(1);
    again.inviter = Inviter::new(invitation(&again.ticket), secret(1), [77; 32], again.now);
    again.inviter.handle_input(InviterInput::Connected(id, endpoint(PHONE)), again.now);
    for message in recorded {
        again.inviter.handle_input(InviterInput::Message(id, message), again.now);
        again.act();
    }
    assert_eq!(again.redemptions, []);
    assert_eq!(again.admitted, 0);
    assert_eq!(again.outcomes, []);
}

#[test]
fn a_man_in_the_middle_with_the_public_part_never_pairs() {
    // He has all of the ticket but the secret, and runs an endpoint of his own towards the phone.
    for number in 0..50u8 {
        let mut room = Room::new(Role::Member, BOTH_YES);
        let public = Ticket {
            secret: TicketSecret::from_bytes([number.wrapping_add(50); 16]),
            ..room.ticket.clone()
        };
        // Towards the laptop he plays the phone.
        let him = room.enter(THIEF, public.clone(), Answer::Yes);
        let phone = room.guests.remove(0);
        let him = him - 1;
        room.settle();
        assert_eq!(room.outcome(him), Some(Outcome::Refused));
        // Towards the phone he plays the laptop: another endpoint, which the phone does not take,
        let mut joiner = phone.joiner;
        while joiner.poll_output().is_some() {}
        joiner.handle_input(JoinerInput::Connected(endpoint(THIEF)), room.now);
        assert!(matches!(joiner.poll_output(), Some(JoinerOutput::Close)));
        // and if the transport were fooled, the proof fails.
        joiner.handle_input(JoinerInput::Connected(room.ticket.endpoint), room.now);
        let mut fake = Inviter::new(invitation(&public), secret(THIEF), [number; 32], room.now);
        let id = ConnectionId(7);
        fake.handle_input(InviterInput::Connected(id, endpoint(PHONE)), room.now);
        let mut ended = None;
        for _ in 0..20 {
            while let Some(output) = joiner.poll_output() {
                match output {
                    JoinerOutput::Send(message) => {
                        fake.handle_input(InviterInput::Message(id, message), room.now);
                    }
                    JoinerOutput::Ended(outcome) => ended = Some(outcome),
                    JoinerOutput::Ask(_) => panic!("a wrong proof is never asked about"),
                    JoinerOutput::Store(_) => panic!("nothing is stored"),
                    JoinerOutput::Dial | JoinerOutput::Close => {}
                }
            }
            // He skips his own checks and goes straight to the acceptance.
            if let Phase::Proved { transcript } = proved(&joiner) {
                let party = party(&secret(THIEF), name("laptop"), Kind::Laptop);
                joiner.handle_input(
                    JoinerInput::Message(PairingMessage::Accept {
                        fabric: name("home"),
                        party,
                        tag: transcript,
                        signature: sign(secret(THIEF).signing(), &transcript),
                    }),
                    room.now,
                );
            }
            while let Some(output) = fake.poll_output() {
                if let InviterOutput::Send(_, message @ PairingMessage::Challenge { .. }) = output {
                    joiner.handle_input(JoinerInput::Message(message), room.now);
                }
            }
        }
        assert_eq!(ended, Some(Outcome::Refused));
    }
}

enum Phase {
    Proved { transcript: Digest },
    Other,
}

fn proved(joiner: &Joiner) -> Phase {
    joiner.transcript().map_or(Phase::Other, |transcript| Phase::Proved { transcript })
}

#[test]
fn a_relayed_pairing_fails_because_the_ends_are_bound() {
    // Somebody who has the secret forwards every byte between two connections of his own: the
    // ends that each side sees are his, so the proofs are over different things.
    let mut room = Room::new(Role::Member, BOTH_YES);
    room.act();
    room.guests[0].endpoint = endpoint(THIEF);
    let id = ConnectionId(1);
    room.inviter.handle_input(InviterInput::Disconnected(id), room.now);
    room.inviter.handle_input(InviterInput::Connected(id, endpoint(THIEF)), room.now);
    room.settle();
    assert_eq!(room.outcome(0), Some(Outcome::Refused));
    assert_eq!(room.admitted, 0);
}

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

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Drop,
    Duplicate,
    Swap,
    Cut,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Drop),
        1 => Just(Fault::Duplicate),
        1 => Just(Fault::Swap),
        2 => Just(Fault::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever the network does, it ends on both sides, at most one device is added, and a joiner
    /// that says `paired` is in the fabric.
    #[test]
    fn a_bad_network_pairs_nobody_wrongly(faults in vec(fault(), 0..60)) {
        let mut room = Room::new(Role::Member, BOTH_YES);
        let mut faults = faults.into_iter();
        for _ in 0..600 {
            room.act();
            let fault = faults.next().unwrap_or(Fault::None);
            let Some((id, to_guest, message)) = room.wire.pop_front() else {
                room.pass(Duration::from_secs(1));
                continue;
            };
            match fault {
                Fault::None => room.deliver(id, to_guest, message),
                Fault::Drop => {}
                Fault::Duplicate => {
                    room.deliver(id, to_guest, message.clone());
                    room.deliver(id, to_guest, message);
                }
                Fault::Swap => room.wire.push_back((id, to_guest, message)),
                Fault::Cut => room.cut(id),
            }
        }
        room.pass(Duration::from_secs(900));
        prop_assert!(room.outcome(0).is_some());
        prop_assert_eq!(room.outcomes.len(), 1);
        prop_assert!(room.admitted <= 1);
        prop_assert!(room.redemptions.len() <= 1);
        if room.outcome(0) == Some(Outcome::Paired) {
            prop_assert_eq!(room.replica.standing(PHONE), "active");
            prop_assert!(room.guests[0].joined.is_some());
        }
        if room.outcomes == [Outcome::Paired] {
            prop_assert_eq!(room.outcome(0), Some(Outcome::Paired));
        }
    }

    /// A connection that only breaks heals, as long as it breaks less often than it is made.
    #[test]
    fn a_connection_that_is_cut_once_still_pairs(at in 0usize..12) {
        let mut room = Room::new(Role::Member, BOTH_YES);
        room.act();
        let mut delivered = 0;
        while let Some((id, to_guest, message)) = room.wire.pop_front() {
            if delivered == at {
                room.cut(id);
            } else {
                room.deliver(id, to_guest, message);
            }
            delivered += 1;
            room.act();
        }
        room.pass(Duration::from_secs(10));
        prop_assert_eq!(room.outcome(0), Some(Outcome::Paired));
        prop_assert_eq!(room.admitted, 1);
    }
}

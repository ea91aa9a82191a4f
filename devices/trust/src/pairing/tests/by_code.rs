//! Pairing by a short code: the same, and one guess.

use super::*;

/// A code for the same endpoint, with other words.
fn other_code(room: &Room) -> Code {
    Code::new(&room.ticket.endpoint, [10; 8])
}

#[test]
fn two_devices_pair_by_a_code() {
    let mut room = Room::by_code(Role::Member, BOTH_YES);
    room.settle();
    assert_eq!(room.outcomes, [Outcome::Paired]);
    assert_eq!(room.outcome(0), Some(Outcome::Paired));
    let (ours, theirs) = (&room.prompts[0], &room.guests[0].prompts[0]);
    assert_eq!(ours.words, theirs.words);
    assert_eq!((ours.role, theirs.role), (Role::Member, Role::Member));
    let device = room.replica.device(PHONE);
    assert_eq!((device.role, device.confirmed), (Role::Member, true));
}

#[test]
fn a_code_gives_admin_by_a_persons_yes_alone() {
    let mut room = Room::by_code(Role::Admin, BOTH_YES);
    room.settle();
    assert_eq!(room.guests[0].prompts[0].role, Role::Admin);
    assert_eq!(room.replica.device(PHONE).role, Role::Admin);
    let mut room = Room::by_code(Role::Admin, Persons { inviter: Answer::Unasked, ..BOTH_YES });
    room.settle();
    assert_eq!(room.replica.device(PHONE).role, Role::Member);
}

#[test]
fn a_wrong_code_is_burnt_on_disk_and_ends_it_on_both_sides() {
    let mut room = Room::by_code(Role::Member, BOTH_YES);
    let right = room.code.clone().unwrap();
    let wrong = other_code(&room);
    room.guests.clear();
    let thief = room.enter_with_code(THIEF, wrong, Answer::Yes);
    room.settle();
    assert_eq!(room.outcomes, [Outcome::Refused]);
    assert_eq!(room.inviter.reason(), Some(Reason::WrongCode));
    assert_eq!(room.outcome(thief), Some(Outcome::Refused));
    assert_eq!(room.guests[thief].joiner.reason(), Some(Reason::WrongCode));
    assert_eq!(room.redemptions.len(), 1, "it is burnt on disk");
    assert_eq!(room.prompts, [], "nobody is asked");
    // From then on the right one is worth nothing, to whomever it is.
    for number in [THIEF, PHONE] {
        let late = room.enter_with_code(number, right.clone(), Answer::Yes);
        room.settle();
        assert_eq!(room.outcome(late), Some(Outcome::Refused));
        assert_eq!(room.guests[late].joiner.reason(), Some(Reason::WrongCode));
    }
    assert_eq!(room.admitted, 0);
}

#[test]
fn of_many_guesses_at_once_one_is_checked() {
    let mut room = Room::by_code(Role::Member, BOTH_YES);
    let right = room.code.clone().unwrap();
    let wrong = other_code(&room);
    room.guests.clear();
    // Five connect and are offered the exchange before the first of them proves anything; the last
    // guess of them is right.
    for number in 0..5 {
        let code = if number == 4 { right.clone() } else { wrong.clone() };
        room.enter_with_code(100 + number, code, Answer::Yes);
    }
    room.settle();
    assert_eq!(room.redemptions.len(), 1);
    assert_eq!(room.admitted, 0);
    for guest in 0..5 {
        assert_eq!(room.guests[guest].joiner.reason(), Some(Reason::WrongCode), "guess {guest}");
    }
}

#[test]
fn a_code_that_is_redeemed_is_already_used_to_others() {
    let mut room = Room::by_code(Role::Member, BOTH_YES);
    room.settle();
    assert_eq!(room.outcomes, [Outcome::Paired]);
    for code in [room.code.clone().unwrap(), other_code(&room)] {
        let late = room.enter_with_code(THIEF, code, Answer::Yes);
        room.settle();
        assert_eq!(room.outcome(late), Some(Outcome::AlreadyUsed));
    }
    assert_eq!(room.admitted, 1);
}

#[test]
fn a_ticket_opens_no_invitation_by_code_and_a_code_none_by_ticket() {
    let mut room = Room::by_code(Role::Member, BOTH_YES);
    room.guests.clear();
    let guest = room.enter(PHONE, room.ticket.clone(), Answer::Yes);
    room.settle();
    assert_eq!(room.outcome(guest), Some(Outcome::Refused));
    assert!(room.redemptions.is_empty() && room.outcomes.is_empty());

    let mut room = Room::new(Role::Member, BOTH_YES);
    room.guests.clear();
    let code = other_code(&room);
    let guest = room.enter_with_code(PHONE, code, Answer::Yes);
    room.settle();
    assert_eq!(room.outcome(guest), Some(Outcome::Refused));
    assert!(room.redemptions.is_empty() && room.outcomes.is_empty());
}

#[test]
fn another_endpoint_than_the_codes_is_not_talked_to() {
    let mut room = Room::by_code(Role::Member, BOTH_YES);
    let mut joiner = room.guests.remove(0).joiner;
    while joiner.poll_output().is_some() {}
    joiner.handle_input(JoinerInput::Connected(endpoint(THIEF)), room.now);
    assert!(matches!(joiner.poll_output(), Some(JoinerOutput::Close)));
    assert!(joiner.poll_output().is_none());
}

/// Somebody at an endpoint whose number fits, who has a joiner prove itself and then cuts.
struct Pretender {
    joiner: Joiner,
    now: Now,
    /// The openings, offers and proofs that passed.
    openings: Vec<PairingMessage>,
    proofs: Vec<PairingMessage>,
    dials: usize,
    outcome: Option<Outcome>,
}

impl Pretender {
    fn new() -> Self {
        let mut room = Room::by_code(Role::Member, BOTH_YES);
        let joiner = room.guests.remove(0).joiner;
        let (openings, proofs) = (Vec::new(), Vec::new());
        Self { joiner, now: room.now, openings, proofs, dials: 0, outcome: None }
    }

    /// What he offers to one who opens, by a guess at the code.
    fn offer(guess: u8) -> PairingMessage {
        let (phone, own) = (endpoint(PHONE), endpoint(100));
        let guess = Code::new(&own, [guess; 8]);
        let (_, share) = exchange::Exchange::inviter(&guess, &phone, &own, &[1; 32]);
        PairingMessage::Offer {
            share,
            fabric: laptop().graph.fabric().into(),
            role: Role::Member,
            nonce: Nonce::from_bytes([7; 32]),
            device: secret(THIEF).id(),
        }
    }

    /// Goes on until it ends. `at` is the endpoint that answers the dial of that number, `guess` what
    /// it answers with; with none it cuts at once.
    fn run(&mut self, at: impl Fn(usize) -> EndpointId, guess: impl Fn(usize) -> Option<u8>) {
        for _ in 0..1_000 {
            while let Some(output) = self.joiner.poll_output() {
                match output {
                    JoinerOutput::Dial => {
                        self.dials += 1;
                        let reached = JoinerInput::Connected(at(self.dials));
                        self.joiner.handle_input(reached, self.now);
                    }
                    JoinerOutput::Send(opening @ PairingMessage::Code { .. }) => {
                        self.openings.push(opening);
                        let answer = match guess(self.dials) {
                            Some(guess) => JoinerInput::Message(Self::offer(guess)),
                            None => JoinerInput::Disconnected,
                        };
                        self.joiner.handle_input(answer, self.now);
                    }
                    JoinerOutput::Send(proof @ PairingMessage::Prove { .. }) => {
                        self.proofs.push(proof);
                        self.joiner.handle_input(JoinerInput::Disconnected, self.now);
                    }
                    JoinerOutput::Send(PairingMessage::End { .. }) | JoinerOutput::Close => {}
                    JoinerOutput::Ended(how) => self.outcome = Some(how),
                    other @ (JoinerOutput::Send(_)
                    | JoinerOutput::Ask(_)
                    | JoinerOutput::Store(_)) => {
                        panic!("he gets no further, and here is {other:?}")
                    }
                }
            }
            let Some((at, _)) = self.joiner.poll_timeout() else { return };
            self.now.mono = at;
            self.joiner.handle_timeout(self.now);
        }
    }
}

#[test]
fn who_only_pretends_to_have_the_code_checks_one_guess() {
    // With another guess at each try: the second offer is not the one that was proved.
    let mut he = Pretender::new();
    he.run(|_| endpoint(100), |dial| u8::try_from(dial).ok());
    assert_eq!((he.dials, he.proofs.len(), he.outcome), (2, 1, Some(Outcome::Refused)));
    assert_eq!(he.joiner.reason(), Some(Reason::CodeSpent));
    assert!(Reason::CodeSpent.sentence().ends_with("ask for a new code"));
}

#[test]
fn who_pretends_and_repeats_his_offer_hears_the_same_bytes_again() {
    let mut he = Pretender::new();
    he.run(|_| endpoint(100), |_| Some(1));
    assert!(he.proofs.len() > 10, "it tries to heal for a while: {}", he.proofs.len());
    he.openings.dedup();
    he.proofs.dedup();
    assert_eq!((he.openings.len(), he.proofs.len()), (1, 1), "and says nothing new");
    assert_eq!(he.outcome, Some(Outcome::CouldNotReach));
    assert_eq!(he.joiner.reason(), Some(Reason::CodeSpent));
}

#[test]
fn a_code_that_was_proved_to_one_endpoint_is_shown_to_no_other() {
    // As many endpoints as somebody likes have its number.
    let right = endpoint(100);
    let code = Code::new(&right, [9; 8]);
    let twin = (0..=u64::MAX)
        .map(|number| EndpointId::from_bytes(blake3::derive_key("twin", &number.to_be_bytes())))
        .find(|twin| code.is_of(twin))
        .expect("one of ten thousand is");
    let mut he = Pretender::new();
    he.run(|dial| if dial == 1 { right } else { twin }, |_| Some(1));
    assert_eq!((he.openings.len(), he.proofs.len()), (1, 1));
    assert!(he.dials > 2, "it looks for the one it knows: {}", he.dials);
    assert!(he.joiner.takes(&right) && !he.joiner.takes(&twin));
    assert_eq!(he.outcome, Some(Outcome::CouldNotReach));
    // Before a proof either may be the one that is meant, and each exchange is a new one.
    let mut he = Pretender::new();
    he.run(|dial| if dial == 3 { twin } else { right }, |dial| (dial == 3).then_some(1));
    assert_eq!((he.openings.len(), he.proofs.len()), (3, 1));
    assert!(he.joiner.takes(&twin) && !he.joiner.takes(&right));
}

#[test]
fn an_inviter_makes_the_same_offer_to_the_same_opening_alone() {
    let mut room = Room::by_code(Role::Member, BOTH_YES);
    room.act();
    let (_, _, opening) = room.wire.pop_front().expect("the phone opens");
    let PairingMessage::Code { version, share, .. } = opening else { panic!("by its code") };
    let commitment = Digest::of(b"another nonce");
    let other = PairingMessage::Code { version, share, commitment };
    let mut connections = 10;
    let mut offer = |from: u8, opening: &PairingMessage| {
        connections += 1;
        let id = ConnectionId(connections);
        room.inviter.handle_input(InviterInput::Connected(id, endpoint(from)), room.now);
        room.inviter.handle_input(InviterInput::Message(id, opening.clone()), room.now);
        match room.inviter.poll_output() {
            Some(InviterOutput::Send(to, PairingMessage::Offer { share, nonce, .. })) => {
                assert_eq!(to, id);
                (share, nonce)
            }
            other => panic!("it offers the exchange, and here is {other:?}"),
        }
    };
    let first = offer(PHONE, &opening);
    assert_eq!(offer(PHONE, &opening), first);
    for (share, nonce) in [offer(THIEF, &opening), offer(PHONE, &other)] {
        assert!(share != first.0 && nonce != first.1);
    }
}

#[test]
fn a_newer_invitation_and_a_closed_one_are_told_as_such() {
    for (input, reason) in
        [(InviterInput::Replace, Reason::Replaced), (InviterInput::Cancel, Reason::Closed)]
    {
        for begin in [Room::new, Room::by_code] {
            let mut room = begin(Role::Member, BOTH_YES);
            room.inviter.handle_input(input.clone(), room.now);
            room.settle();
            assert_eq!(room.outcomes, [Outcome::Expired]);
            assert_eq!(room.inviter.reason(), Some(reason));
            assert_eq!(room.outcome(0), Some(Outcome::Expired));
            assert_eq!(room.guests[0].joiner.reason(), Some(reason));
        }
    }
}

#[test]
fn an_invitation_that_is_replaced_while_persons_are_asked_says_so_to_both() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    room.act();
    while let Some((id, to_guest, message)) = room.wire.pop_front() {
        if matches!(message, PairingMessage::Confirm { .. }) {
            room.inviter.handle_input(InviterInput::Replace, room.now);
        }
        room.deliver(id, to_guest, message);
        room.act();
    }
    assert_eq!(room.outcomes, [Outcome::Expired]);
    assert_eq!(room.inviter.reason(), Some(Reason::Replaced));
    assert_eq!(room.outcome(0), Some(Outcome::Expired));
    assert_eq!(room.guests[0].joiner.reason(), Some(Reason::Replaced));
    assert_eq!(room.admitted, 0);
}

#[test]
fn each_side_says_who_said_no() {
    let mut room = Room::new(Role::Member, Persons { inviter: Answer::No, ..BOTH_YES });
    room.settle();
    assert_eq!(room.inviter.reason(), Some(Reason::SaidNo));
    assert_eq!(room.guests[0].joiner.reason(), Some(Reason::OtherSaidNo));
    let mut room = Room::new(Role::Member, Persons { joiner: Answer::No, ..BOTH_YES });
    room.settle();
    assert_eq!(room.inviter.reason(), Some(Reason::OtherSaidNo));
    assert_eq!(room.guests[0].joiner.reason(), Some(Reason::SaidNo));
}

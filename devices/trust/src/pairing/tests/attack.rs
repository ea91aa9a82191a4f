//! Somebody between the two, and somebody with a photograph.

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use weft_protocol::{id::AgreementKey, pairing::Share};

use super::*;

/// How often each attack is tried.
const TRIES: u32 = 1_000;

/// How many moves he makes in one try.
const MOVES: usize = 40;

/// Draws what the attacker does.
struct Dice(ChaCha20Rng);

impl Dice {
    fn new(seed: u32) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed.into()))
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.0.next_u32()).unwrap_or(0) % end
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// He carries every byte between phone and laptop as if no transport checked whom they talk to, may
/// connect to the laptop himself, and knows all but the secret. He has a device of his own.
struct Middleman {
    room: Room,
    dice: Dice,
    /// All that was ever said, on any connection, and in an earlier pairing of the same two.
    heard: Vec<PairingMessage>,
    /// His own connections to the laptop.
    own: Vec<ConnectionId>,
    /// What he takes for the secret.
    guess: TicketSecret,
}

impl Middleman {
    fn new(mut room: Room, seed: u32, earlier: &[PairingMessage]) -> Self {
        let mut dice = Dice::new(seed);
        let guess = TicketSecret::from_bytes(dice.bytes());
        // Whoever has read all of it knows what an earlier pairing said.
        let heard = earlier.to_vec();
        let mut own = Vec::new();
        for number in 0..2 {
            let id = ConnectionId(1_000 + number);
            let end = if dice.below(2) == 0 { endpoint(THIEF) } else { endpoint(PHONE) };
            room.inviter.handle_input(InviterInput::Connected(id, end), room.now);
            own.push(id);
        }
        Self { room, dice, heard, own, guess }
    }

    /// A message on its way, a while ago, or of his own making.
    fn some_message(&mut self) -> PairingMessage {
        let nonce = Nonce::from_bytes(self.dice.bytes());
        let digest = Digest::from_bytes(self.dice.bytes());
        let him = secret(THIEF);
        let party = Party {
            device: him.id(),
            agreement: if self.dice.below(2) == 0 {
                him.agreement().public()
            } else {
                AgreementKey::from_bytes(self.dice.bytes())
            },
            name: name(if self.dice.below(2) == 0 { "phone" } else { "laptop" }),
            kind: Kind::Phone,
        };
        let fabric = self.room.ticket.fabric;
        let kinds = [Tag::Joiner, Tag::Inviter, Tag::Confirm, Tag::Stored];
        let kind = kinds[self.dice.below(kinds.len())];
        let tag = kind.make(&self.guess, &digest);
        let signature = sign(him.signing(), &digest);
        let version = weft_protocol::pairing::PAIRING_VERSION;
        let mut share = [0; 33];
        share[0] = if self.dice.below(2) == 0 { b'A' } else { b'B' };
        share[1..].copy_from_slice(&self.dice.bytes::<32>());
        let share = Share::from_bytes(share);
        match self.dice.below(12) {
            0 => PairingMessage::Hello { version, fabric, commitment: nonce.commitment() },
            1 => PairingMessage::Challenge { nonce, device: him.id() },
            2 => PairingMessage::Prove { nonce, party, tag, signature },
            3 => PairingMessage::Accept { fabric: name("home"), party, tag, signature },
            4 => PairingMessage::Confirm { tag },
            5 => PairingMessage::Stored { tag, contacts: contacts("/ip4/10.6.6.6/tcp/1") },
            6 => PairingMessage::Welcome { contacts: contacts("/ip4/10.6.6.6/tcp/1") },
            7 => {
                let theirs = self.room.replica.graph.statements().cloned().collect();
                PairingMessage::Statements { statements: theirs }
            }
            8 => PairingMessage::Code { version, share, commitment: nonce.commitment() },
            9 => {
                let role = Role::Admin;
                PairingMessage::Offer { share, fabric, role, nonce, device: him.id() }
            }
            10 => PairingMessage::Done,
            _ => match self.heard.len() {
                0 => PairingMessage::Done,
                len => self.heard[self.dice.below(len)].clone(),
            },
        }
    }

    /// One side's share under a guess at the code.
    fn share_of_guess(
        &mut self,
        side: fn(&Code, &EndpointId, &EndpointId, &[u8; 32]) -> (exchange::Exchange, Share),
    ) -> Share {
        let inviter = self.room.ticket.endpoint;
        let guess = Code::new(&inviter, self.dice.bytes());
        side(&guess, &endpoint(PHONE), &inviter, &self.dice.bytes()).1
    }

    /// Puts his own into a message that passes by.
    fn forge(&mut self, message: PairingMessage) -> PairingMessage {
        let him = secret(THIEF);
        let drawn = Nonce::from_bytes(self.dice.bytes());
        let other = Digest::from_bytes(self.dice.bytes());
        match message {
            PairingMessage::Hello { version, fabric, .. } => {
                PairingMessage::Hello { version, fabric, commitment: drawn.commitment() }
            }
            PairingMessage::Challenge { nonce, device } => match self.dice.below(2) {
                0 => PairingMessage::Challenge { nonce: drawn, device },
                _ => PairingMessage::Challenge { nonce, device: him.id() },
            },
            PairingMessage::Prove { nonce, party, tag, signature } => match self.dice.below(3) {
                0 => PairingMessage::Prove {
                    nonce,
                    party: Party { device: him.id(), ..party },
                    tag,
                    signature: sign(him.signing(), &other),
                },
                1 => {
                    let agreement = him.agreement().public();
                    let party = Party { agreement, ..party };
                    PairingMessage::Prove { nonce, party, tag, signature }
                }
                _ => PairingMessage::Prove { nonce, party, tag: other, signature },
            },
            PairingMessage::Accept { fabric, party, tag, .. } => PairingMessage::Accept {
                fabric,
                party: Party { device: him.id(), ..party },
                tag,
                signature: sign(him.signing(), &other),
            },
            PairingMessage::Code { version, commitment, .. } => {
                let share = self.share_of_guess(exchange::Exchange::joiner);
                PairingMessage::Code { version, share, commitment }
            }
            PairingMessage::Offer { fabric, nonce, share, role, device } => {
                let own = self.share_of_guess(exchange::Exchange::inviter);
                match self.dice.below(3) {
                    0 => PairingMessage::Offer { share: own, fabric, role, nonce, device },
                    1 => PairingMessage::Offer { share, fabric, role, nonce, device: him.id() },
                    _ => {
                        let role = Role::Admin;
                        PairingMessage::Offer { share, fabric, role, nonce, device }
                    }
                }
            }
            PairingMessage::Confirm { .. } => PairingMessage::Confirm { tag: other },
            other @ (PairingMessage::Statements { .. }
            | PairingMessage::Welcome { .. }
            | PairingMessage::Stored { .. }
            | PairingMessage::Done
            | PairingMessage::End { .. }) => other,
        }
    }

    /// One try: both persons say yes to whatever they are shown.
    fn attack(mut self) -> Room {
        // Most of the time he lets pass; how often he does not differs from try to try.
        let patience = 1 + self.dice.below(8);
        for _ in 0..MOVES {
            self.room.act();
            if self.dice.below(patience) > 0 {
                self.relay();
                continue;
            }
            match self.dice.below(8) {
                0 => drop(self.room.wire.pop_front()),
                1 => {
                    let front = self.room.wire.front().cloned();
                    self.room.wire.extend(front);
                }
                2 => {
                    if let Some(front) = self.room.wire.pop_front() {
                        self.room.wire.push_back(front);
                    }
                }
                // Back to whom it came from.
                3 => {
                    if let Some((id, to_guest, message)) = self.room.wire.pop_front() {
                        self.room.deliver(id, !to_guest, message);
                    }
                }
                4 => {
                    if let Some((id, to_guest, message)) = self.room.wire.pop_front() {
                        let forged = self.forge(message);
                        self.room.deliver(id, to_guest, forged);
                    }
                }
                // To either of them, on a connection of theirs.
                5 => {
                    let message = self.some_message();
                    if let Some(id) = self.room.guests[0].connection {
                        let to_guest = self.dice.below(2) == 0;
                        self.room.deliver(id, to_guest, message);
                    }
                }
                // To the laptop, on a connection of his own.
                6 => {
                    let message = self.some_message();
                    let id = self.own[self.dice.below(2)];
                    self.room.deliver(id, false, message);
                }
                // What the phone says to the laptop goes through his own connection.
                _ => {
                    if let Some((_, false, message)) = self.room.wire.pop_front() {
                        let id = self.own[self.dice.below(2)];
                        self.room.deliver(id, false, message);
                    }
                }
            }
        }
        self.room.pass(Duration::from_secs(900));
        self.room
    }

    fn relay(&mut self) {
        if let Some((id, to_guest, message)) = self.room.wire.pop_front() {
            self.heard.push(message.clone());
            // What the laptop says on his connections he keeps.
            if !self.own.contains(&id) {
                self.room.deliver(id, to_guest, message);
            }
        }
    }
}

/// He is in no fabric, and the phone in none of his; what both are shown is what is so.
fn assert_he_gained_nothing(room: &Room, seed: u32) {
    let him = secret(THIEF).id();
    assert!(room.replica.state().member(&him).is_none(), "try {seed}: he belongs");
    assert!(room.admitted <= 1, "try {seed}");
    for guest in &room.guests {
        if let Some(joined) = &guest.joined {
            assert_eq!(joined.inviter.device, secret(1).id(), "try {seed}");
            assert_eq!(joined.graph.fabric(), room.replica.graph.fabric(), "try {seed}");
        }
        let shown = guest.prompts.iter().map(|prompt| prompt.words);
        for words in shown {
            assert!(room.prompts.iter().any(|prompt| prompt.words == words), "try {seed}");
        }
        if guest.outcome == Some(Outcome::Paired) {
            assert_eq!(room.replica.standing(PHONE), "active", "try {seed}");
        }
    }
    for prompt in &room.prompts {
        assert_eq!((prompt.name.as_str(), prompt.kind), ("phone", Kind::Phone), "try {seed}");
    }
}

#[test]
fn of_a_thousand_middlemen_none_pairs() {
    for (how, begin) in [("ticket", Room::new as fn(_, _) -> _), ("code", Room::by_code)] {
        let mut before = begin(Role::Member, BOTH_YES);
        before.settle();
        let earlier = before.seen;
        let (mut paired, mut ended) = (0, 0);
        for seed in 0..TRIES {
            let room = Middleman::new(begin(Role::Member, BOTH_YES), seed, &earlier).attack();
            assert_he_gained_nothing(&room, seed);
            if room.outcomes == [Outcome::Paired] {
                paired += 1;
            } else {
                ended += 1;
            }
        }
        println!("by {how}: {TRIES} tries, phone and laptop paired in {paired}, in {ended} nobody");
        assert!(paired > 0, "he also lets some pass, or this shows nothing");
        assert!(ended > 0, "he also spoils some, or this shows nothing");
    }
}

#[test]
fn a_photograph_is_worth_nothing_after_the_first_redemption() {
    let mut room = Room::new(Role::Member, BOTH_YES);
    // The first is at the laptop, and its person thinks.
    room.act();
    while room.redemptions.is_empty() {
        let (id, to_guest, message) = room.wire.pop_front().expect("the phone redeems");
        room.deliver(id, to_guest, message);
        while let Some(output) = room.inviter.poll_output() {
            if !matches!(output, InviterOutput::Ask(_)) {
                room.do_for_inviter(output);
            }
        }
        for at in 0..room.guests.len() {
            while let Some(output) = room.guests[at].joiner.poll_output() {
                room.do_for_joiner(at, output);
            }
        }
    }
    let mut got_in = 0;
    for at in 0..TRIES {
        if at == TRIES / 3 {
            room.inviter.handle_input(InviterInput::Answer(Answer::Yes), room.now);
            room.settle();
            assert_eq!(room.outcomes, [Outcome::Paired]);
        }
        if at == TRIES * 2 / 3 {
            room.pass(Duration::from_secs(150));
        }
        let number = u8::try_from(3 + at % 200).unwrap();
        let thief = room.enter(number, room.ticket.clone(), Answer::Yes);
        room.settle();
        let guest = room.guests.swap_remove(thief);
        assert_eq!(guest.outcome, Some(Outcome::AlreadyUsed), "try {at}");
        assert_eq!(guest.prompts, [], "try {at}");
        got_in += u32::from(guest.joined.is_some());
    }
    println!("{TRIES} devices with a photograph of a redeemed ticket: {got_in} got in");
    assert_eq!((got_in, room.admitted), (0, 1));
}

#[test]
fn who_relays_with_a_photograph_shows_words_that_differ() {
    // He has the secret, and stands between: towards the phone he is a laptop, towards the laptop a
    // phone, as if no transport checked whom each talks to.
    let mut same = 0;
    for seed in 0..TRIES {
        let drawn = |side: &str| {
            blake3::derive_key("weft test", &[side.as_bytes(), &seed.to_be_bytes()].concat())
        };
        let never = Persons { inviter: Answer::No, joiner: Answer::No };
        let mut towards_laptop = Room::new(Role::Member, never);
        towards_laptop.guests.clear();
        let ticket = towards_laptop.ticket.clone();
        towards_laptop.inviter =
            Inviter::new(invitation(&ticket), secret(1), drawn("laptop"), towards_laptop.now);
        let joiner = Joiner::new(
            ticket,
            secret(THIEF),
            name("phone"),
            Kind::Phone,
            endpoint(THIEF),
            drawn("towards the laptop"),
            towards_laptop.now,
        );
        towards_laptop.seat(joiner, endpoint(THIEF), Answer::No);
        towards_laptop.settle();

        let mut towards_phone = Room::new(Role::Member, never);
        let ticket = towards_phone.ticket.clone();
        towards_phone.inviter = Inviter::new(
            invitation(&ticket),
            secret(THIEF),
            drawn("towards the phone"),
            towards_phone.now,
        );
        towards_phone.settle();

        let at_laptop = towards_laptop.prompts[0].words;
        let at_phone = towards_phone.guests[0].prompts[0].words;
        same += u32::from(at_laptop == at_phone);
    }
    println!("{TRIES} relays with the secret: the words were the same in {same}");
    assert_eq!(same, 0);
}

#[test]
fn who_is_first_with_a_photograph_shows_a_name_that_is_not_the_phones() {
    let mut room = Room::new(Role::Member, Persons { inviter: Answer::No, ..BOTH_YES });
    room.guests.clear();
    let joiner = Joiner::new(
        room.ticket.clone(),
        secret(THIEF),
        name("burglar"),
        Kind::Laptop,
        endpoint(THIEF),
        [THIEF; 32],
        room.now,
    );
    room.seat(joiner, endpoint(THIEF), Answer::Yes);
    let phone = room.enter(PHONE, room.ticket.clone(), Answer::Yes);
    room.settle();
    assert_eq!(room.prompts.len(), 1);
    assert_eq!(room.prompts[0].name, name("burglar"));
    assert_eq!(room.guests[phone].prompts, [], "no words stand on the phone");
    assert_eq!(room.outcome(phone), Some(Outcome::AlreadyUsed));
    assert_eq!(room.admitted, 0);
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
            if let Some(transcript) = joiner.transcript() {
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

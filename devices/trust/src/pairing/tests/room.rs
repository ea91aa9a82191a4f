//! A room with an inviter and those who join, and a network that a test may spoil.

use std::{collections::VecDeque, time::Duration};

use weft_protocol::{
    codec,
    device::Role,
    id::EndpointId,
    pairing::{Contacts, PAIRING_FRAME_BYTES_MAX, PairingMessage},
    ticket::Ticket,
    time::Now,
};

use crate::{
    pairing::*,
    replica::{NOON, Replica, laptop, name, secret},
};

pub(super) const PHONE: u8 = 2;
pub(super) const THIEF: u8 = 66;

/// What the persons answer.
#[derive(Clone, Copy)]
pub(super) struct Persons {
    pub(super) inviter: Answer,
    pub(super) joiner: Answer,
}

pub(super) const BOTH_YES: Persons = Persons { inviter: Answer::Yes, joiner: Answer::Yes };

/// One joining device and its connection.
pub(super) struct Guest {
    pub(super) joiner: Joiner,
    pub(super) endpoint: EndpointId,
    /// The connection that is up.
    pub(super) connection: Option<ConnectionId>,
    pub(super) answer: Answer,
    pub(super) prompts: Vec<Prompt>,
    pub(super) joined: Option<Joined>,
    pub(super) outcome: Option<Outcome>,
}

/// An inviter, those who join, and the messages between them, which a test may lose or change.
pub(super) struct Room {
    pub(super) replica: Replica,
    pub(super) inviter: Inviter,
    pub(super) ticket: Ticket,
    pub(super) code: Option<Code>,
    pub(super) guests: Vec<Guest>,
    pub(super) connections: u64,
    pub(super) answer: Answer,
    pub(super) prompts: Vec<Prompt>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) learned: Vec<Contacts>,
    pub(super) redemptions: Vec<Redemption>,
    pub(super) admitted: usize,
    pub(super) disk_full: bool,
    pub(super) closed: bool,
    pub(super) now: Now,
    /// What is on its way: to the guest or to the inviter, by connection.
    pub(super) wire: VecDeque<(ConnectionId, bool, PairingMessage)>,
    /// Everything that was ever sent to the inviter.
    pub(super) seen: Vec<PairingMessage>,
}

pub(super) fn endpoint(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 32])
}

pub(super) fn invitation(ticket: &Ticket) -> Invitation {
    Invitation {
        ticket: ticket.clone(),
        fabric: name("home"),
        name: name("laptop"),
        kind: Kind::Laptop,
    }
}

pub(super) fn contacts(at: &str) -> Contacts {
    Contacts { addresses: vec![at.to_owned()], presences: vec![] }
}

/// What is sent must be taken: a longer frame ends the connection.
fn fits(message: &PairingMessage) {
    let len = codec::encode(message).len();
    assert!(len <= PAIRING_FRAME_BYTES_MAX, "{len} bytes");
}

impl Room {
    pub(super) fn new(role: Role, persons: Persons) -> Self {
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
            code: None,
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

    /// The same by a code.
    pub(super) fn by_code(role: Role, persons: Persons) -> Self {
        let mut room = Self::new(role, persons);
        let code = Code::new(&room.ticket.endpoint, [9; 8]);
        let invitation = invitation(&room.ticket);
        room.inviter = Inviter::with_code(invitation, code.clone(), secret(1), [1; 32], room.now);
        room.guests.clear();
        room.enter_with_code(PHONE, code.clone(), persons.joiner);
        room.code = Some(code);
        room
    }

    /// Another device comes with a code.
    pub(super) fn enter_with_code(&mut self, number: u8, code: Code, answer: Answer) -> usize {
        let own = endpoint(number);
        let (named, seed) = (name("phone"), [number; 32]);
        let joiner =
            Joiner::with_code(code, secret(number), named, Kind::Phone, own, seed, self.now);
        self.seat(joiner, own, answer)
    }

    /// Another device comes with a ticket.
    pub(super) fn enter(&mut self, number: u8, ticket: Ticket, answer: Answer) -> usize {
        let own = endpoint(number);
        let secret = secret(number);
        let joiner =
            Joiner::new(ticket, secret, name("phone"), Kind::Phone, own, [number; 32], self.now);
        self.seat(joiner, own, answer)
    }

    pub(super) fn seat(&mut self, joiner: Joiner, endpoint: EndpointId, answer: Answer) -> usize {
        self.guests.push(Guest {
            joiner,
            endpoint,
            connection: None,
            answer,
            prompts: Vec::new(),
            joined: None,
            outcome: None,
        });
        self.guests.len() - 1
    }

    /// Does what the machines want, without delivering a message.
    pub(super) fn act(&mut self) {
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

    pub(super) fn do_for_inviter(&mut self, output: InviterOutput) {
        let now = self.now;
        match output {
            InviterOutput::Send(id, message) => {
                fits(&message);
                self.wire.push_back((id, true, message));
            }
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

    pub(super) fn do_for_joiner(&mut self, at: usize, output: JoinerOutput) {
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
                fits(&message);
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
    pub(super) fn close_after_wire(&mut self, id: ConnectionId) {
        while let Some(at) = self.wire.iter().position(|(other, ..)| *other == id) {
            if let Some((id, to_guest, message)) = self.wire.remove(at) {
                self.deliver(id, to_guest, message);
            }
        }
        self.cut(id);
    }

    pub(super) fn cut(&mut self, id: ConnectionId) {
        self.wire.retain(|(other, ..)| *other != id);
        self.inviter.handle_input(InviterInput::Disconnected(id), self.now);
        for guest in &mut self.guests {
            if guest.connection == Some(id) {
                guest.connection = None;
                guest.joiner.handle_input(JoinerInput::Disconnected, self.now);
            }
        }
    }

    pub(super) fn deliver(&mut self, id: ConnectionId, to_guest: bool, message: PairingMessage) {
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
    pub(super) fn settle(&mut self) {
        self.act();
        while let Some((id, to_guest, message)) = self.wire.pop_front() {
            self.deliver(id, to_guest, message);
            self.act();
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
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

    pub(super) fn outcome(&self, at: usize) -> Option<Outcome> {
        self.guests[at].outcome
    }
}

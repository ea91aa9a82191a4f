//! The open invitation of this node: its endpoint, its ticket, and the device that comes.
//!
//! Composes the inviting machine of `weft-trust`. At most one invitation is open; one that is over
//! stays for as long as its endpoint answers latecomers, or until the next is opened.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng as _;
use weft_protocol::{
    codec,
    device::Role,
    frame::FRAME_BYTES_MAX,
    id::{DeviceId, EndpointId},
    pairing::{Contacts, PairingMessage},
    row::{Row, Table, Write},
    statement::Name,
    ticket::{ADDRESSES_MAX, FabricPrefix, Ticket, TicketSecret},
    time::{Now, Timestamp, WallTime},
};
use weft_trust::pairing::{
    Answer, ConnectionId, Invitation, Inviter, InviterInput, InviterOutput, Outcome, Prompt,
    Redemption,
};

use crate::{
    door::{DoorId, Event},
    membership::Membership,
};

/// How long a ticket may be redeemed, in seconds.
const VALID_S: u16 = 120;

/// What the machine wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum InvitationOutput {
    /// Open an endpoint.
    Open {
        /// Its throw-away key's seed.
        seed: [u8; 32],
    },
    /// The invitation is open.
    Opened {
        /// The door that asked.
        door: DoorId,
        /// The ticket, as text.
        ticket: String,
        /// When it ends.
        expires: WallTime,
    },
    /// The invitation could not be opened.
    Refused {
        /// The door that asked.
        door: DoorId,
        /// Why.
        reason: String,
    },
    /// Send a frame.
    Send {
        /// On which connection.
        link: u64,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// Close a connection.
    CloseLink {
        /// Which.
        link: u64,
    },
    /// Close the endpoint.
    Close,
    /// Persist, then come back with [`Invitations::persisted`]. Whatever the membership wanted to
    /// persist goes first.
    Persist(Vec<Write>),
    /// A device came; a person is asked at the door.
    Met {
        /// The door that asked.
        door: Option<DoorId>,
        /// What to show.
        event: Event,
    },
    /// The invitation ended.
    Ended {
        /// The door that asked.
        door: Option<DoorId>,
        /// How, in a word.
        outcome: String,
        /// Who joined.
        name: Option<String>,
        /// What the audit chain says of it.
        action: String,
        /// Where the joiner can be met.
        remember: Option<(DeviceId, Vec<String>)>,
    },
}

/// What is being persisted.
#[derive(Debug)]
enum Waiting {
    Redemption,
    Admission,
}

#[derive(Debug)]
struct Open {
    door: Option<DoorId>,
    role: Role,
    confirmed_by_itself: bool,
    seed: [u8; 32],
    inviter: Option<Inviter>,
    waiting: Option<Waiting>,
    joiner: Option<Name>,
    learned: Option<(DeviceId, Vec<String>)>,
    ended: bool,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Invitations {
    open: Option<Open>,
    outputs: Vec<InvitationOutput>,
}

impl Invitations {
    /// What is to be done, in order.
    pub fn poll_outputs(&mut self) -> Vec<InvitationOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        self.open.as_ref()?.inviter.as_ref()?.poll_timeout()
    }

    /// Takes that time has passed.
    pub fn handle_timeout(&mut self, now: Now, membership: &mut Membership) {
        if let Some(inviter) = self.inviter() {
            inviter.handle_timeout(now);
        }
        self.drain(now, membership);
    }

    fn inviter(&mut self) -> Option<&mut Inviter> {
        self.open.as_mut()?.inviter.as_mut()
    }

    /// Opens an invitation.
    pub fn open(
        &mut self,
        door: DoorId,
        role: Role,
        confirmed_by_itself: bool,
        rng: &mut ChaCha20Rng,
    ) {
        if self.open.as_ref().is_some_and(|open| !open.ended) {
            let reason = "an invitation is open already; wait for its end".to_owned();
            self.outputs.push(InvitationOutput::Refused { door, reason });
            return;
        }
        if self.open.take().is_some() {
            self.outputs.push(InvitationOutput::Close);
        }
        let seed = super::node::draw(rng);
        self.open = Some(Open {
            door: Some(door),
            role,
            confirmed_by_itself,
            seed,
            inviter: None,
            waiting: None,
            joiner: None,
            learned: None,
            ended: false,
        });
        self.outputs.push(InvitationOutput::Open { seed });
    }

    /// The endpoint listens.
    pub fn listening(
        &mut self,
        addresses: &[String],
        now: Now,
        membership: &Membership,
        rng: &mut ChaCha20Rng,
    ) {
        let Some(open) = &mut self.open else { return };
        if open.inviter.is_some() {
            return;
        }
        let state = membership.state();
        let Some(me) = state.member(&membership.me()) else {
            self.failed("this device does not belong to the fabric");
            return;
        };
        let key = SigningKey::from_bytes(&open.seed).verifying_key();
        let ticket = Ticket {
            fabric: FabricPrefix::from(membership.fabric()),
            endpoint: EndpointId::from_bytes(key.to_bytes()),
            addresses: addresses
                .iter()
                .filter_map(|address| address.parse().ok())
                .take(ADDRESSES_MAX)
                .collect(),
            secret: TicketSecret::from_bytes(super::node::draw(rng)),
            valid_s: VALID_S,
            role: open.role,
        };
        let text = ticket.to_string();
        let invitation =
            Invitation { ticket, fabric: state.name.clone(), name: me.name.clone(), kind: me.kind };
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        open.inviter = Some(Inviter::new(invitation, membership.secret().clone(), seed, now));
        if let Some(door) = open.door {
            let expires = now.wall + Duration::from_secs(VALID_S.into());
            self.outputs.push(InvitationOutput::Opened { door, ticket: text, expires });
        }
    }

    /// The endpoint could not be opened, or the disk failed.
    pub fn failed(&mut self, reason: &str) {
        let Some(open) = &self.open else { return };
        if open.inviter.is_none() {
            if let Some(door) = open.door {
                let reason = reason.to_owned();
                self.outputs.push(InvitationOutput::Refused { door, reason });
            }
            self.open = None;
        }
    }

    /// Somebody connected.
    pub fn connected(
        &mut self,
        link: u64,
        remote: EndpointId,
        now: Now,
        membership: &mut Membership,
    ) {
        self.feed(InviterInput::Connected(ConnectionId(link), remote), now, membership);
    }

    /// A frame came. What is no message closes the connection.
    pub fn frame(&mut self, link: u64, bytes: &[u8], now: Now, membership: &mut Membership) {
        match codec::decode::<PairingMessage>(bytes, FRAME_BYTES_MAX) {
            Ok(message) => {
                self.feed(InviterInput::Message(ConnectionId(link), message), now, membership);
            }
            Err(_) => {
                self.outputs.push(InvitationOutput::CloseLink { link });
                self.closed(link, now, membership);
            }
        }
    }

    /// A connection is gone.
    pub fn closed(&mut self, link: u64, now: Now, membership: &mut Membership) {
        self.feed(InviterInput::Disconnected(ConnectionId(link)), now, membership);
    }

    /// A person answered. Gives whether one was asked.
    pub fn confirm(&mut self, yes: bool, now: Now, membership: &mut Membership) -> bool {
        if self.open.as_ref().is_none_or(|open| open.ended || open.joiner.is_none()) {
            return false;
        }
        let answer = if yes { Answer::Yes } else { Answer::No };
        self.feed(InviterInput::Answer(answer), now, membership);
        true
    }

    /// A person closes the invitation.
    pub fn close(&mut self, now: Now, membership: &mut Membership) {
        self.feed(InviterInput::Cancel, now, membership);
    }

    /// A device was met on the main network: if it is the joiner, it has stored all.
    pub fn met(&mut self, device: &DeviceId, now: Now, membership: &mut Membership) {
        let is_admitted =
            membership.state().member(device).is_some_and(|known| self.joiner_is(&known.name));
        if is_admitted {
            self.feed(InviterInput::Met, now, membership);
        }
    }

    fn joiner_is(&self, name: &Name) -> bool {
        self.open.as_ref().and_then(|open| open.joiner.as_ref()) == Some(name)
    }

    /// A door is gone. An invitation that a person watched cannot be confirmed any more.
    pub fn door_closed(&mut self, door: DoorId, now: Now, membership: &mut Membership) {
        let Some(open) = &mut self.open else { return };
        if open.door == Some(door) {
            open.door = None;
            if !open.confirmed_by_itself {
                self.close(now, membership);
            }
        }
    }

    /// What the machine asked for is persisted, or was not.
    pub fn persisted(
        &mut self,
        ok: bool,
        contacts: Contacts,
        now: Now,
        membership: &mut Membership,
    ) {
        let Some(waiting) = self.open.as_mut().and_then(|open| open.waiting.take()) else {
            return;
        };
        let input = match waiting {
            Waiting::Redemption => InviterInput::Redeemed(ok),
            Waiting::Admission if ok => InviterInput::Admitted {
                statements: membership.graph().statements().cloned().collect(),
                contacts,
            },
            Waiting::Admission => InviterInput::NotAdmitted,
        };
        self.feed(input, now, membership);
    }

    fn feed(&mut self, input: InviterInput, now: Now, membership: &mut Membership) {
        if let Some(inviter) = self.inviter() {
            inviter.handle_input(input, now);
        }
        self.drain(now, membership);
    }

    fn drain(&mut self, now: Now, membership: &mut Membership) {
        while let Some(output) = self.inviter().and_then(Inviter::poll_output) {
            match output {
                InviterOutput::Send(ConnectionId(link), message) => {
                    let bytes = codec::encode(&message);
                    self.outputs.push(InvitationOutput::Send { link, bytes });
                }
                InviterOutput::Close(ConnectionId(link)) => {
                    self.outputs.push(InvitationOutput::CloseLink { link });
                }
                InviterOutput::Redeem(redemption) => {
                    self.wait(Waiting::Redemption, vec![redeemed(redemption)]);
                }
                InviterOutput::Ask(prompt) => self.ask(prompt, now),
                InviterOutput::Admit(new) => match membership.add(new, now) {
                    Ok(_) => self.wait(Waiting::Admission, Vec::new()),
                    Err(_) => {
                        if let Some(inviter) = self.inviter() {
                            inviter.handle_input(InviterInput::NotAdmitted, now);
                        }
                    }
                },
                InviterOutput::Learned(device, contacts) => {
                    if let Some(open) = &mut self.open {
                        open.learned = Some((device, contacts.addresses));
                    }
                }
                InviterOutput::Ended(outcome) => self.ended(outcome),
                InviterOutput::CloseEndpoint => {
                    self.open = None;
                    self.outputs.push(InvitationOutput::Close);
                }
            }
        }
    }

    fn wait(&mut self, waiting: Waiting, writes: Vec<Write>) {
        if let Some(open) = &mut self.open {
            open.waiting = Some(waiting);
            self.outputs.push(InvitationOutput::Persist(writes));
        }
    }

    fn ask(&mut self, prompt: Prompt, now: Now) {
        let Some(open) = &mut self.open else { return };
        open.joiner = Some(prompt.name.clone());
        let answer = match (open.confirmed_by_itself, open.door) {
            (true, _) => Some(Answer::Unasked),
            (false, None) => Some(Answer::No),
            (false, Some(_)) => None,
        };
        if let Some(answer) = answer {
            if let Some(inviter) = &mut open.inviter {
                inviter.handle_input(InviterInput::Answer(answer), now);
            }
            return;
        }
        let event = Event::InvitationMet {
            name: prompt.name.as_str().to_owned(),
            kind: prompt.kind,
            words: prompt.words.map(str::to_owned),
            role: prompt.role,
        };
        self.outputs.push(InvitationOutput::Met { door: open.door, event });
    }

    fn ended(&mut self, outcome: Outcome) {
        let Some(open) = &mut self.open else { return };
        open.ended = true;
        let paired = outcome == Outcome::Paired;
        let joiner = open.joiner.as_ref().filter(|_| paired);
        let word = word(outcome);
        let unconfirmed = if paired && open.confirmed_by_itself { ", unconfirmed" } else { "" };
        self.outputs.push(InvitationOutput::Ended {
            door: open.door,
            outcome: word.to_owned(),
            name: joiner.map(|name| name.as_str().to_owned()),
            action: format!("invite: {word}{unconfirmed}"),
            remember: open.learned.take().filter(|_| paired),
        });
    }
}

/// The word for an outcome, the same on both sides.
pub const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Paired => "paired",
        Outcome::Refused => "refused",
        Outcome::Expired => "expired",
        Outcome::AlreadyUsed => "already-used",
        Outcome::CouldNotReach => "could-not-reach",
    }
}

fn redeemed(redemption: Redemption) -> Write {
    let row = Row::named(Table::Setting, b"redeemed", redemption.endpoint.as_bytes());
    Write::Put(row, redemption.device.as_bytes().to_vec())
}

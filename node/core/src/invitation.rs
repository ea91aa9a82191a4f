//! The open invitation of this node: its endpoint, its ticket, and the device that comes.
//!
//! Composes the inviting machine of `weft-trust`. At most one invitation is open; those that are over
//! stay for as long as their endpoints answer latecomers.

use std::{collections::BTreeMap, time::Duration};

use ed25519_dalek::SigningKey;
use rand_chacha::ChaCha20Rng;
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
    Answer, Code, ConnectionId, Invitation, Inviter, InviterInput, InviterOutput, Outcome, Prompt,
    Reason, Redemption,
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
        /// Under this number.
        endpoint: u64,
        /// Its throw-away key's seed.
        seed: [u8; 32],
        /// Whether the local network is told of it.
        announced: bool,
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
    /// The invitation by code is open.
    OpenedByCode {
        /// The door that asked.
        door: DoorId,
        /// The code, as text.
        code: String,
        /// Where the endpoint listens.
        addresses: Vec<String>,
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
        /// Of which endpoint.
        endpoint: u64,
        /// On which connection.
        link: u64,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// Close a connection.
    CloseLink {
        /// Of which endpoint.
        endpoint: u64,
        /// Which.
        link: u64,
    },
    /// Close an endpoint.
    Close {
        /// Which.
        endpoint: u64,
    },
    /// Persist, then come back with [`Invitations::persisted`]. Whatever the membership wanted to
    /// persist goes first.
    Persist {
        /// For which endpoint.
        endpoint: u64,
        /// What.
        writes: Vec<Write>,
    },
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
        /// Why it was refused or has expired.
        reason: Option<String>,
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

/// What is offered to the device that comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The most that it may become.
    pub role: Role,
    /// Whether this side confirms by itself.
    pub confirmed_by_itself: bool,
    /// Whether a short code is shown instead of a ticket.
    pub by_code: bool,
}

#[derive(Debug)]
struct Open {
    door: Option<DoorId>,
    offer: Offer,
    seed: [u8; 32],
    inviter: Option<Inviter>,
    waiting: Option<Waiting>,
    joiner: Option<Name>,
    /// Who is being added.
    admitted: Option<DeviceId>,
    learned: Option<(DeviceId, Vec<String>)>,
}

/// Invitations that are over and still answer latecomers; the oldest is closed for a further one.
const OVER_MAX: usize = 8;

/// The machine.
#[derive(Debug, Default)]
pub struct Invitations {
    /// By the number of their endpoint.
    invitations: BTreeMap<u64, Open>,
    /// The one that is not over.
    current: Option<u64>,
    next: u64,
    outputs: Vec<InvitationOutput>,
}

impl Invitations {
    /// What is to be done, in order.
    pub fn poll_outputs(&mut self) -> Vec<InvitationOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let inviters = self.invitations.values().filter_map(|it| it.inviter.as_ref());
        inviters.filter_map(Inviter::poll_timeout).min_by_key(|(at, _)| *at)
    }

    /// Takes that time has passed.
    pub fn handle_timeout(&mut self, now: Now, membership: &mut Membership) {
        for endpoint in self.endpoints() {
            if let Some(inviter) = self.inviter(endpoint) {
                inviter.handle_timeout(now);
            }
            self.drain(endpoint, now, membership);
        }
    }

    /// Whether an invitation waits for a device.
    pub const fn is_open(&self) -> bool {
        self.current.is_some()
    }

    fn endpoints(&self) -> Vec<u64> {
        self.invitations.keys().copied().collect()
    }

    fn inviter(&mut self, endpoint: u64) -> Option<&mut Inviter> {
        self.invitations.get_mut(&endpoint)?.inviter.as_mut()
    }

    /// Opens an invitation. The last one who invites is the one who waits: an older invitation, whose
    /// ticket may be lost, ends, unless its device is being added at this moment.
    pub fn open(
        &mut self,
        door: DoorId,
        offer: Offer,
        now: Now,
        membership: &mut Membership,
        rng: &mut ChaCha20Rng,
    ) {
        if let Some(before) = self.current {
            self.feed(before, InviterInput::Replace, now, membership);
        }
        if self.current.is_some() {
            let reason = "a device is just being added; try again in a moment".to_owned();
            self.outputs.push(InvitationOutput::Refused { door, reason });
            return;
        }
        if self.invitations.len() >= OVER_MAX
            && let Some((endpoint, _)) = self.invitations.pop_first()
        {
            self.outputs.push(InvitationOutput::Close { endpoint });
        }
        let endpoint = self.next;
        self.next += 1;
        self.current = Some(endpoint);
        let seed = super::node::draw(rng);
        let open = Open {
            door: Some(door),
            offer,
            seed,
            inviter: None,
            waiting: None,
            joiner: None,
            admitted: None,
            learned: None,
        };
        self.invitations.insert(endpoint, open);
        let announced = offer.by_code;
        self.outputs.push(InvitationOutput::Open { endpoint, seed, announced });
    }

    /// An endpoint listens.
    pub fn listening(
        &mut self,
        endpoint: u64,
        addresses: &[String],
        now: Now,
        membership: &Membership,
        rng: &mut ChaCha20Rng,
    ) {
        let state = membership.state();
        let Some(me) = state.member(&membership.me()) else {
            self.failed(endpoint, "this device does not belong to the fabric");
            return;
        };
        let Some(open) = self.invitations.get_mut(&endpoint) else { return };
        if open.inviter.is_some() {
            return;
        }
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
            role: open.offer.role,
        };
        let text = ticket.to_string();
        let code = Code::new(&ticket.endpoint, super::node::draw(rng));
        let invitation =
            Invitation { ticket, fabric: state.name.clone(), name: me.name.clone(), kind: me.kind };
        let seed = super::node::draw(rng);
        let (secret, expires) =
            (membership.secret().clone(), now.wall + Duration::from_secs(VALID_S.into()));
        open.inviter = Some(if open.offer.by_code {
            Inviter::with_code(invitation, code.clone(), secret, seed, now)
        } else {
            Inviter::new(invitation, secret, seed, now)
        });
        let Some(door) = open.door else { return };
        self.outputs.push(if open.offer.by_code {
            let (code, addresses) = (code.to_string(), addresses.to_vec());
            InvitationOutput::OpenedByCode { door, code, addresses, expires }
        } else {
            InvitationOutput::Opened { door, ticket: text, expires }
        });
    }

    /// An endpoint could not be opened.
    pub fn failed(&mut self, endpoint: u64, reason: &str) {
        let is_new = self.invitations.get(&endpoint).is_some_and(|open| open.inviter.is_none());
        if !is_new {
            return;
        }
        if let Some(door) = self.invitations.remove(&endpoint).and_then(|open| open.door) {
            let reason = reason.to_owned();
            self.outputs.push(InvitationOutput::Refused { door, reason });
        }
        self.current = self.current.filter(|current| *current != endpoint);
    }

    /// Somebody connected.
    pub fn connected(
        &mut self,
        endpoint: u64,
        link: u64,
        remote: EndpointId,
        now: Now,
        membership: &mut Membership,
    ) {
        let input = InviterInput::Connected(ConnectionId(link), remote);
        self.feed(endpoint, input, now, membership);
    }

    /// A frame came. What is no message closes the connection.
    pub fn frame(
        &mut self,
        endpoint: u64,
        link: u64,
        bytes: &[u8],
        now: Now,
        membership: &mut Membership,
    ) {
        match codec::decode::<PairingMessage>(bytes, FRAME_BYTES_MAX) {
            Ok(message) => {
                let input = InviterInput::Message(ConnectionId(link), message);
                self.feed(endpoint, input, now, membership);
            }
            Err(_) => {
                self.outputs.push(InvitationOutput::CloseLink { endpoint, link });
                self.closed(endpoint, link, now, membership);
            }
        }
    }

    /// A connection is gone.
    pub fn closed(&mut self, endpoint: u64, link: u64, now: Now, membership: &mut Membership) {
        let input = InviterInput::Disconnected(ConnectionId(link));
        self.feed(endpoint, input, now, membership);
    }

    /// A person answered, on a screen that named `role`. Gives whether that was asked.
    pub fn confirm(
        &mut self,
        yes: bool,
        role: Role,
        now: Now,
        membership: &mut Membership,
    ) -> bool {
        let Some(endpoint) = self.current else { return false };
        let open = self.invitations.get(&endpoint);
        let Some(open) = open.filter(|open| open.joiner.is_some()) else { return false };
        // Nobody grants more than was on the screen.
        if yes && open.offer.role != role {
            return false;
        }
        let answer = if yes { Answer::Yes } else { Answer::No };
        self.feed(endpoint, InviterInput::Answer(answer), now, membership);
        true
    }

    /// A person closes the invitation.
    pub fn close(&mut self, now: Now, membership: &mut Membership) {
        if let Some(endpoint) = self.current {
            self.feed(endpoint, InviterInput::Cancel, now, membership);
        }
    }

    /// A device was met on the main network: if it is the joiner, it has stored all.
    pub fn met(&mut self, device: &DeviceId, now: Now, membership: &mut Membership) {
        let Some(endpoint) = self.current else { return };
        let admitted = self.invitations.get(&endpoint).and_then(|open| open.admitted);
        if admitted == Some(*device) {
            self.feed(endpoint, InviterInput::Met, now, membership);
        }
    }

    /// A door is gone. An invitation that a person watched cannot be confirmed any more.
    pub fn door_closed(&mut self, door: DoorId, now: Now, membership: &mut Membership) {
        for endpoint in self.endpoints() {
            let Some(open) = self.invitations.get_mut(&endpoint) else { continue };
            if open.door != Some(door) {
                continue;
            }
            open.door = None;
            if !open.offer.confirmed_by_itself && self.current == Some(endpoint) {
                self.close(now, membership);
            }
        }
    }

    /// What an invitation asked for is persisted, or was not.
    pub fn persisted(
        &mut self,
        endpoint: u64,
        ok: bool,
        contacts: Contacts,
        now: Now,
        membership: &mut Membership,
    ) {
        let open = self.invitations.get_mut(&endpoint);
        let Some(open) = open else { return };
        let Some(waiting) = open.waiting.take() else { return };
        let is_told = |device| membership.told().state().devices.contains_key(&device);
        let input = match waiting {
            Waiting::Redemption => InviterInput::Redeemed(ok),
            Waiting::Admission if ok && open.admitted.is_some_and(is_told) => {
                InviterInput::Admitted {
                    statements: membership.told().statements().cloned().collect(),
                    contacts,
                }
            }
            Waiting::Admission => InviterInput::NotAdmitted,
        };
        self.feed(endpoint, input, now, membership);
    }

    fn feed(&mut self, endpoint: u64, input: InviterInput, now: Now, membership: &mut Membership) {
        if let Some(inviter) = self.inviter(endpoint) {
            inviter.handle_input(input, now);
        }
        self.drain(endpoint, now, membership);
    }

    fn drain(&mut self, endpoint: u64, now: Now, membership: &mut Membership) {
        while let Some(output) = self.inviter(endpoint).and_then(Inviter::poll_output) {
            match output {
                InviterOutput::Send(ConnectionId(link), message) => {
                    let bytes = codec::encode(&message);
                    self.outputs.push(InvitationOutput::Send { endpoint, link, bytes });
                }
                InviterOutput::Close(ConnectionId(link)) => {
                    self.outputs.push(InvitationOutput::CloseLink { endpoint, link });
                }
                InviterOutput::Redeem(redemption) => {
                    self.wait(endpoint, Waiting::Redemption, vec![redeemed(redemption)]);
                }
                InviterOutput::Ask(prompt) => self.ask(endpoint, prompt, now),
                InviterOutput::Admit(new) => match membership.add(new.clone(), now) {
                    Ok(()) => {
                        if let Some(open) = self.invitations.get_mut(&endpoint) {
                            open.admitted = Some(new.device);
                        }
                        self.wait(endpoint, Waiting::Admission, Vec::new());
                    }
                    Err(_) => {
                        if let Some(inviter) = self.inviter(endpoint) {
                            inviter.handle_input(InviterInput::NotAdmitted, now);
                        }
                    }
                },
                InviterOutput::Learned(device, contacts) => {
                    if let Some(open) = self.invitations.get_mut(&endpoint) {
                        open.learned = Some((device, contacts.addresses));
                    }
                }
                InviterOutput::Ended(outcome) => self.ended(endpoint, outcome, membership),
                InviterOutput::CloseEndpoint => {
                    self.invitations.remove(&endpoint);
                    self.outputs.push(InvitationOutput::Close { endpoint });
                }
            }
        }
    }

    fn wait(&mut self, endpoint: u64, waiting: Waiting, writes: Vec<Write>) {
        if let Some(open) = self.invitations.get_mut(&endpoint) {
            open.waiting = Some(waiting);
            self.outputs.push(InvitationOutput::Persist { endpoint, writes });
        }
    }

    fn ask(&mut self, endpoint: u64, prompt: Prompt, now: Now) {
        let Some(open) = self.invitations.get_mut(&endpoint) else { return };
        open.joiner = Some(prompt.name.clone());
        let answer = match (open.offer.confirmed_by_itself, open.door) {
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

    fn ended(&mut self, endpoint: u64, outcome: Outcome, membership: &Membership) {
        self.current = self.current.filter(|current| *current != endpoint);
        let Some(open) = self.invitations.get_mut(&endpoint) else { return };
        let paired = outcome == Outcome::Paired;
        // Its name is another than it asked for where that was taken.
        let joiner = open.admitted.filter(|_| paired);
        let joiner = joiner.and_then(|device| membership.state().member(&device));
        let reason = open.inviter.as_ref().and_then(Inviter::reason).map(Reason::sentence);
        let word = word(outcome);
        // It may have stored all and not been heard; whether it joins at all, a person knows.
        let unheard = open.admitted.filter(|_| outcome == Outcome::CouldNotReach);
        let unheard = unheard.and_then(|device| membership.state().member(&device)).map(|device| {
            let name = device.name.as_str();
            format!(
                "{name} was added and was not heard from since; if it does not come, run \
                 `weft device revoke {name}` before it is invited again"
            )
        });
        let reason = reason.map(str::to_owned).or(unheard);
        let more = match &reason {
            Some(reason) => format!(": {reason}"),
            None if paired && open.offer.confirmed_by_itself => ", unconfirmed".to_owned(),
            None => String::new(),
        };
        self.outputs.push(InvitationOutput::Ended {
            door: open.door.take(),
            outcome: word.to_owned(),
            name: joiner.map(|device| device.name.as_str().to_owned()),
            reason,
            action: format!("invite: {word}{more}"),
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

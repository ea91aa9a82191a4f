//! The inviting side of a pairing.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use weft_protocol::{
    codec,
    device::{Kind, Role},
    frame::FRAME_BYTES_MAX,
    id::{DeviceId, Digest, EndpointId},
    pairing::{
        Acceptance, Contacts, Ending, Nonce, PAIRING_VERSION, PairingMessage, Party, Transcript,
    },
    signed::Signed,
    statement::Name,
    ticket::Ticket,
    time::{Now, Timestamp},
};

use super::{Answer, Nonces, Outcome, Prompt, Tag, party, sign, signs, words};
use crate::{author::NewDevice, secret::DeviceSecret};

/// How long the endpoint still answers after its end, so that a late joiner learns why.
pub const ANSWER_TIME: Duration = Duration::from_secs(600);

/// How long after the expiry an admitted device may take to say that it has stored all.
const STORE_TIME: Duration = Duration::from_secs(60);

/// The most connections at a time. One joins; the others are mistakes or strangers.
const CONNECTIONS_MAX: usize = 8;

/// The largest message with statements: half a frame, so that the list around them fits too.
const CHUNK_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;

/// Names a connection to the pairing endpoint; the shell counts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConnectionId(pub u64);

/// What an invitation offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invitation {
    /// What the joiner was given.
    pub ticket: Ticket,
    /// The fabric's name.
    pub fabric: Name,
    /// This device's name.
    pub name: Name,
    /// This device's kind.
    pub kind: Kind,
}

/// What happens to the inviter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InviterInput {
    /// Somebody connected; the transport has checked its endpoint id.
    Connected(ConnectionId, EndpointId),
    /// It says something.
    Message(ConnectionId, PairingMessage),
    /// It is gone.
    Disconnected(ConnectionId),
    /// The redemption is on disk, or could not be written.
    Redeemed(bool),
    /// A person, or `--yes`, has answered the prompt.
    Answer(Answer),
    /// The `Add` and the keys are on disk.
    Admitted {
        /// All statements of the fabric, parents first.
        statements: Vec<Signed>,
        /// Where this device can be met.
        contacts: Contacts,
    },
    /// The `Add` could not be made or written.
    NotAdmitted,
    /// The admitted device was met on the main network: it has stored all.
    Met,
    /// The person closes the invitation.
    Cancel,
}

/// What the inviter wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InviterOutput {
    /// Send this.
    Send(ConnectionId, PairingMessage),
    /// Close the connection, once what was sent before is out.
    Close(ConnectionId),
    /// Write that the ticket is spent, then say [`InviterInput::Redeemed`].
    Redeem(Redemption),
    /// Ask the person; a new prompt replaces the one before.
    Ask(Prompt),
    /// Make and store the `Add`, then say [`InviterInput::Admitted`].
    Admit(NewDevice),
    /// The joiner is there, and knows these.
    Learned(DeviceId, Contacts),
    /// It has ended so. The endpoint goes on answering.
    Ended(Outcome),
    /// Close the endpoint. The last output.
    CloseEndpoint,
}

/// That a ticket is spent, for the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Redemption {
    /// The ticket's endpoint.
    pub endpoint: EndpointId,
    /// Who redeemed it.
    pub device: DeviceId,
}

/// The inviting side: one for each ticket.
#[derive(Debug)]
pub struct Inviter {
    invitation: Invitation,
    secret: DeviceSecret,
    nonces: Nonces,
    expires: Timestamp,
    connections: BTreeMap<ConnectionId, Connection>,
    phase: Phase,
    outputs: VecDeque<InviterOutput>,
}

#[derive(Debug)]
struct Connection {
    endpoint: EndpointId,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// It has said nothing.
    Connected,
    /// It was sent a nonce.
    Challenged { commitment: Digest, nonce: Nonce },
    /// It has proved itself.
    Proved,
}

#[derive(Debug)]
enum Phase {
    /// Nobody has redeemed the ticket.
    Open,
    /// The redemption is on its way to the disk.
    Redeeming(Guest),
    /// Persons are asked.
    Asking { guest: Guest, ours: Option<Answer>, theirs: bool },
    /// The `Add` is on its way to the disk.
    Admitting(Guest),
    /// The joiner is to store what it got.
    Admitted(Guest, Welcome),
    /// It has ended.
    Over { outcome: Outcome, until: Timestamp, guest: Option<(Guest, Option<Welcome>)> },
    /// The endpoint is closed.
    Closed,
}

/// Who has redeemed the ticket.
#[derive(Clone, Debug)]
struct Guest {
    party: Party,
    /// Where it is; none while it is away.
    connection: Option<ConnectionId>,
    transcript: Digest,
    acceptance: Digest,
}

/// What an admitted device is given.
#[derive(Clone, Debug)]
struct Welcome {
    statements: Vec<Signed>,
    contacts: Contacts,
}

impl Inviter {
    /// Opens an invitation of this device. `seed` is drawn for it alone.
    pub fn new(invitation: Invitation, secret: DeviceSecret, seed: [u8; 32], now: Now) -> Self {
        let valid = Duration::from_secs(invitation.ticket.valid_s.into());
        Self {
            invitation,
            secret,
            nonces: Nonces::new(seed),
            expires: now.mono + valid,
            connections: BTreeMap::new(),
            phase: Phase::Open,
            outputs: VecDeque::new(),
        }
    }

    /// How it ended, once it has.
    pub const fn outcome(&self) -> Option<Outcome> {
        match &self.phase {
            Phase::Over { outcome, .. } => Some(*outcome),
            Phase::Open
            | Phase::Redeeming(_)
            | Phase::Asking { .. }
            | Phase::Admitting(_)
            | Phase::Admitted(..)
            | Phase::Closed => None,
        }
    }

    /// Takes what happened.
    pub fn handle_input(&mut self, input: InviterInput, now: Now) {
        self.handle_timeout(now);
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        match input {
            InviterInput::Connected(id, endpoint) => {
                if self.connections.len() < CONNECTIONS_MAX {
                    self.connections.insert(id, Connection { endpoint, step: Step::Connected });
                } else {
                    self.outputs.push_back(InviterOutput::Close(id));
                }
            }
            InviterInput::Disconnected(id) => {
                self.connections.remove(&id);
                if let Some(guest) = self.guest_mut().filter(|guest| guest.connection == Some(id)) {
                    guest.connection = None;
                }
            }
            InviterInput::Message(id, message) => self.handle_message(id, message, now),
            InviterInput::Redeemed(written) => self.handle_redeemed(written, now),
            InviterInput::Answer(answer) => {
                if let Phase::Asking { ours, .. } = &mut self.phase {
                    *ours = Some(answer);
                    self.decide(now);
                }
            }
            InviterInput::Admitted { statements, contacts } => {
                if let Phase::Admitting(guest) = &self.phase {
                    let guest = guest.clone();
                    let welcome = Welcome { statements, contacts };
                    self.welcome(&guest, &welcome);
                    self.phase = Phase::Admitted(guest, welcome);
                }
            }
            InviterInput::NotAdmitted => {
                if matches!(self.phase, Phase::Admitting(_)) {
                    self.end(Outcome::Refused, now);
                }
            }
            InviterInput::Met => {
                if matches!(self.phase, Phase::Admitted(..)) {
                    self.end(Outcome::Paired, now);
                }
            }
            InviterInput::Cancel => {
                if matches!(self.phase, Phase::Open | Phase::Redeeming(_) | Phase::Asking { .. }) {
                    self.end(Outcome::Refused, now);
                }
            }
        }
    }

    /// Takes that time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let due = self.poll_timeout().is_some_and(|(at, _)| at <= now.mono);
        if !due {
            return;
        }
        match &self.phase {
            Phase::Open | Phase::Redeeming(_) | Phase::Asking { .. } => {
                self.end(Outcome::Expired, now);
            }
            Phase::Admitted(..) => self.end(Outcome::CouldNotReach, now),
            Phase::Over { .. } => {
                self.phase = Phase::Closed;
                for id in std::mem::take(&mut self.connections).into_keys() {
                    self.outputs.push_back(InviterOutput::Close(id));
                }
                self.outputs.push_back(InviterOutput::CloseEndpoint);
            }
            Phase::Admitting(_) | Phase::Closed => {}
        }
    }

    /// When [`Self::handle_timeout`] is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        match &self.phase {
            Phase::Open | Phase::Redeeming(_) | Phase::Asking { .. } => {
                Some((self.expires, "the invitation expires"))
            }
            Phase::Admitted(..) => {
                Some((self.expires + STORE_TIME, "the joiner stores what it got"))
            }
            Phase::Over { until, .. } => Some((*until, "the pairing endpoint closes")),
            Phase::Admitting(_) | Phase::Closed => None,
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<InviterOutput> {
        self.outputs.pop_front()
    }

    fn handle_message(&mut self, id: ConnectionId, message: PairingMessage, now: Now) {
        let is_guest = self.guest_mut().is_some_and(|guest| guest.connection == Some(id));
        let Some(connection) = self.connections.get(&id) else { return };
        match (&connection.step, message) {
            (Step::Connected, PairingMessage::Hello { version, fabric, commitment }) => {
                let ending =
                    if version != PAIRING_VERSION || fabric != self.invitation.ticket.fabric {
                        Some(Ending::Refused)
                    } else {
                        self.late_answer(now)
                    };
                if let Some(ending) = ending {
                    self.turn_away(id, ending);
                    return;
                }
                let nonce = self.nonces.next();
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.step = Step::Challenged { commitment, nonce };
                }
                self.send(id, PairingMessage::Challenge { nonce, device: self.secret.id() });
            }
            (
                Step::Challenged { commitment, nonce },
                PairingMessage::Prove { nonce: joiner_nonce, party, tag, signature },
            ) => {
                let transcript = Transcript {
                    version: PAIRING_VERSION,
                    fabric: self.invitation.ticket.fabric,
                    role: self.invitation.ticket.role,
                    inviter_endpoint: self.invitation.ticket.endpoint,
                    joiner_endpoint: connection.endpoint,
                    inviter_nonce: *nonce,
                    joiner_nonce,
                    inviter: self.secret.id(),
                    joiner: party.clone(),
                }
                .digest();
                let proved = joiner_nonce.commitment() == *commitment
                    && Tag::Joiner.proves(&tag, &self.invitation.ticket.secret, &transcript)
                    && signs(party.device, signature, &transcript)
                    && party.device != self.secret.id();
                if proved {
                    self.handle_proof(id, party, transcript);
                } else {
                    self.turn_away(id, Ending::Refused);
                }
            }
            (Step::Proved, message) if is_guest => {
                self.handle_guest_message(id, message, now);
            }
            (Step::Connected | Step::Challenged { .. } | Step::Proved, _) => {
                self.turn_away(id, Ending::Refused);
            }
        }
    }

    /// Somebody with the ticket has proved who it is.
    fn handle_proof(&mut self, id: ConnectionId, party: Party, transcript: Digest) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.step = Step::Proved;
        }
        let acceptance = Acceptance {
            transcript,
            fabric: self.invitation.fabric.clone(),
            inviter: self.party(),
        }
        .digest();
        let device = party.device;
        if self.guest_mut().is_some_and(|guest| guest.party != party) {
            self.turn_away(id, Ending::AlreadyUsed);
            return;
        }
        if let Some(guest) = self.guest_mut() {
            guest.transcript = transcript;
            guest.acceptance = acceptance;
            if let Some(before) = guest.connection.replace(id)
                && before != id
            {
                self.connections.remove(&before);
                self.outputs.push_back(InviterOutput::Close(before));
            }
        }
        let connection = Some(id);
        let new_guest = || Guest { party, connection, transcript, acceptance };
        match &mut self.phase {
            Phase::Open => {
                self.phase = Phase::Redeeming(new_guest());
                let endpoint = self.invitation.ticket.endpoint;
                self.outputs.push_back(InviterOutput::Redeem(Redemption { endpoint, device }));
            }
            Phase::Redeeming(_) => {}
            Phase::Asking { ours, theirs, .. } => {
                // The words are new, so both are asked anew.
                (*ours, *theirs) = (None, false);
                self.accept(true);
            }
            Phase::Admitting(_) => self.accept(false),
            Phase::Admitted(guest, welcome) => {
                let (guest, welcome) = (guest.clone(), welcome.clone());
                self.accept(false);
                self.welcome(&guest, &welcome);
            }
            Phase::Over { guest: Some((guest, Some(welcome))), .. } => {
                let (guest, welcome) = (guest.clone(), welcome.clone());
                self.accept(false);
                self.welcome(&guest, &welcome);
            }
            Phase::Over { outcome, .. } => {
                let ending =
                    if *outcome == Outcome::Expired { Ending::Expired } else { Ending::Refused };
                self.turn_away(id, ending);
            }
            Phase::Closed => {}
        }
    }

    fn handle_guest_message(&mut self, id: ConnectionId, message: PairingMessage, now: Now) {
        let secret = &self.invitation.ticket.secret;
        match (&mut self.phase, message) {
            (Phase::Asking { guest, theirs, .. }, PairingMessage::Confirm { tag })
                if Tag::Confirm.proves(&tag, secret, &guest.acceptance) =>
            {
                *theirs = true;
                self.decide(now);
            }
            (
                Phase::Redeeming(_) | Phase::Asking { .. },
                PairingMessage::End { ending: Ending::Refused },
            ) => {
                self.end(Outcome::Refused, now);
            }
            // A second Confirm after a new connection: the answer is on its way already.
            (
                Phase::Admitting(_) | Phase::Admitted(..) | Phase::Over { .. },
                PairingMessage::Confirm { .. },
            ) => {}
            (Phase::Admitted(guest, _), PairingMessage::Stored { tag, contacts })
                if Tag::Stored.proves(&tag, secret, &guest.acceptance) =>
            {
                let device = guest.party.device;
                self.send(id, PairingMessage::Done);
                self.outputs.push_back(InviterOutput::Learned(device, contacts));
                self.end(Outcome::Paired, now);
            }
            (Phase::Over { outcome: Outcome::Paired, .. }, PairingMessage::Stored { .. }) => {
                self.send(id, PairingMessage::Done)
            }
            _ => self.turn_away(id, Ending::Refused),
        }
    }

    fn handle_redeemed(&mut self, written: bool, now: Now) {
        let Phase::Redeeming(guest) = &self.phase else { return };
        if written {
            let guest = guest.clone();
            self.phase = Phase::Asking { guest, ours: None, theirs: false };
            self.accept(true);
        } else {
            self.end(Outcome::Refused, now);
        }
    }

    /// Goes on when both have answered, or one has said no.
    fn decide(&mut self, now: Now) {
        let Phase::Asking { guest, ours, theirs } = &self.phase else { return };
        let confirmed = match ours {
            None => return,
            Some(Answer::No) => {
                self.end(Outcome::Refused, now);
                return;
            }
            Some(Answer::Yes) => true,
            Some(Answer::Unasked) => false,
        };
        if !theirs {
            return;
        }
        let guest = guest.clone();
        let ceiling = self.invitation.ticket.role;
        let new = NewDevice {
            device: guest.party.device,
            agreement: guest.party.agreement,
            name: guest.party.name.clone(),
            kind: guest.party.kind,
            role: if confirmed { ceiling } else { ceiling.max(Role::Member) },
            confirmed,
        };
        self.phase = Phase::Admitting(guest);
        self.outputs.push_back(InviterOutput::Admit(new));
    }

    /// Proves this side to the guest, and asks the person if that is still open.
    fn accept(&mut self, ask: bool) {
        let Some(guest) = self.guest_mut().cloned() else { return };
        if let Some(id) = guest.connection {
            let secret = &self.invitation.ticket.secret;
            let message = PairingMessage::Accept {
                fabric: self.invitation.fabric.clone(),
                party: self.party(),
                tag: Tag::Inviter.make(secret, &guest.acceptance),
                signature: sign(self.secret.signing(), &guest.acceptance),
            };
            self.send(id, message);
        }
        if ask {
            self.outputs.push_back(InviterOutput::Ask(Prompt {
                words: words(&guest.acceptance),
                name: guest.party.name,
                kind: guest.party.kind,
                fabric: self.invitation.fabric.clone(),
                role: self.invitation.ticket.role,
            }));
        }
    }

    /// Sends an admitted guest what it is to store.
    fn welcome(&mut self, guest: &Guest, welcome: &Welcome) {
        let Some(id) = guest.connection else { return };
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        for signed in &welcome.statements {
            let len = codec::encode(signed).len();
            if !chunk.is_empty() && bytes + len > CHUNK_BYTES_MAX {
                let statements = std::mem::take(&mut chunk);
                self.send(id, PairingMessage::Statements { statements });
                bytes = 0;
            }
            bytes += len;
            chunk.push(signed.clone());
        }
        self.send(id, PairingMessage::Statements { statements: chunk });
        self.send(id, PairingMessage::Welcome { contacts: welcome.contacts.clone() });
    }

    /// Ends; from now on only late answers are given.
    fn end(&mut self, outcome: Outcome, now: Now) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let (guest, welcome) = match phase {
            Phase::Open | Phase::Closed | Phase::Over { .. } => (None, None),
            Phase::Redeeming(guest) | Phase::Asking { guest, .. } | Phase::Admitting(guest) => {
                (Some(guest), None)
            }
            Phase::Admitted(guest, welcome) => (Some(guest), Some(welcome)),
        };
        let at = guest.as_ref().and_then(|guest| guest.connection);
        let until = now.mono + ANSWER_TIME;
        self.phase = Phase::Over { outcome, until, guest: guest.map(|guest| (guest, welcome)) };
        let ending = match outcome {
            Outcome::Refused => Some(Ending::Refused),
            Outcome::Expired => Some(Ending::Expired),
            Outcome::Paired | Outcome::AlreadyUsed | Outcome::CouldNotReach => None,
        };
        if let Some((at, ending)) = at.zip(ending) {
            self.turn_away(at, ending);
        }
        self.outputs.push_back(InviterOutput::Ended(outcome));
    }

    /// What everybody is told once it is over, or none if a proof may still change it.
    fn late_answer(&self, now: Now) -> Option<Ending> {
        match &self.phase {
            Phase::Over { outcome: Outcome::Expired, .. } | Phase::Closed => Some(Ending::Expired),
            Phase::Over { guest: None, .. } => Some(Ending::Expired),
            Phase::Over { .. } if now.mono >= self.expires => Some(Ending::AlreadyUsed),
            Phase::Over { .. }
            | Phase::Open
            | Phase::Redeeming(_)
            | Phase::Asking { .. }
            | Phase::Admitting(_)
            | Phase::Admitted(..) => None,
        }
    }

    fn guest_mut(&mut self) -> Option<&mut Guest> {
        match &mut self.phase {
            Phase::Open | Phase::Closed => None,
            Phase::Redeeming(guest)
            | Phase::Asking { guest, .. }
            | Phase::Admitting(guest)
            | Phase::Admitted(guest, _) => Some(guest),
            Phase::Over { guest, .. } => guest.as_mut().map(|(guest, _)| guest),
        }
    }

    fn party(&self) -> Party {
        party(&self.secret, self.invitation.name.clone(), self.invitation.kind)
    }

    fn send(&mut self, id: ConnectionId, message: PairingMessage) {
        self.outputs.push_back(InviterOutput::Send(id, message));
    }

    fn turn_away(&mut self, id: ConnectionId, ending: Ending) {
        self.send(id, PairingMessage::End { ending });
        self.outputs.push_back(InviterOutput::Close(id));
        self.connections.remove(&id);
        if let Some(guest) = self.guest_mut().filter(|guest| guest.connection == Some(id)) {
            guest.connection = None;
        }
    }
}

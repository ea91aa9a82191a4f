//! The inviting side of a pairing.

mod connection;
mod guest;
mod phase;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use weft_protocol::{
    pairing::{Ending, PairingMessage},
    time::{Now, Timestamp},
};

use self::{
    connection::{Connection, Step},
    guest::Welcome,
    phase::Phase,
};
use super::{
    Code, Nonces, Outcome, Reason,
    invitation::{ConnectionId, Invitation, InviterInput, InviterOutput},
};
use crate::secret::DeviceSecret;

/// How long the endpoint still answers after its end, so that a late joiner learns why.
pub const ANSWER_TIME: Duration = Duration::from_secs(600);

/// How long whoever connects may take to prove itself: a program does, no person is asked for it.
const PROVE_TIME: Duration = Duration::from_secs(10);

/// The most connections at a time. One joins; the others are mistakes or strangers.
const CONNECTIONS_MAX: usize = 8;

/// The inviting side: one for each ticket or code.
#[derive(Debug)]
pub struct Inviter {
    invitation: Invitation,
    /// What opens it instead of the ticket's secret.
    code: Option<Code>,
    secret: DeviceSecret,
    nonces: Nonces,
    expires: Timestamp,
    connections: BTreeMap<ConnectionId, Connection>,
    phase: Phase,
    outputs: VecDeque<InviterOutput>,
}

impl Inviter {
    /// Opens an invitation of this device. `seed` is drawn for it alone.
    pub fn new(invitation: Invitation, secret: DeviceSecret, seed: [u8; 32], now: Now) -> Self {
        let valid = Duration::from_secs(invitation.ticket.valid_s.into());
        Self {
            invitation,
            code: None,
            secret,
            nonces: Nonces::new(seed),
            expires: now.mono + valid,
            connections: BTreeMap::new(),
            phase: Phase::Open,
            outputs: VecDeque::new(),
        }
    }

    /// Opens an invitation that a code redeems, and no ticket does.
    pub fn with_code(
        invitation: Invitation,
        code: Code,
        secret: DeviceSecret,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        Self { code: Some(code), ..Self::new(invitation, secret, seed, now) }
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
                    let until = now.mono + PROVE_TIME;
                    self.connections
                        .insert(id, Connection { endpoint, until, step: Step::Connected });
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
                    self.end(Outcome::Refused, Some(Reason::NotStored), now);
                }
            }
            InviterInput::Met => {
                if matches!(self.phase, Phase::Admitted(..)) {
                    self.end(Outcome::Paired, None, now);
                }
            }
            InviterInput::Cancel => match &self.phase {
                Phase::Open => self.end(Outcome::Expired, Some(Reason::Closed), now),
                Phase::Redeeming(_) | Phase::Asking { .. } => {
                    self.end(Outcome::Refused, Some(Reason::SaidNo), now);
                }
                Phase::Burning(_)
                | Phase::Admitting(_)
                | Phase::Admitted(..)
                | Phase::Over { .. }
                | Phase::Closed => {}
            },
            InviterInput::Replace => {
                if matches!(self.phase, Phase::Open | Phase::Redeeming(_) | Phase::Asking { .. }) {
                    self.end(Outcome::Expired, Some(Reason::Replaced), now);
                }
            }
        }
    }

    /// Takes that time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let late: Vec<_> = self.unproven().filter(|(_, at)| *at <= now.mono).collect();
        for (id, _) in late {
            self.connections.remove(&id);
            self.outputs.push_back(InviterOutput::Close(id));
        }
        if self.phase_timeout().is_none_or(|(at, _)| at > now.mono) {
            return;
        }
        match &self.phase {
            Phase::Open | Phase::Redeeming(_) | Phase::Asking { .. } => {
                self.end(Outcome::Expired, Some(Reason::TimeUp), now);
            }
            Phase::Admitted(..) => self.end(Outcome::CouldNotReach, None, now),
            Phase::Over { .. } => {
                self.phase = Phase::Closed;
                for id in std::mem::take(&mut self.connections).into_keys() {
                    self.outputs.push_back(InviterOutput::Close(id));
                }
                self.outputs.push_back(InviterOutput::CloseEndpoint);
            }
            Phase::Burning(_) | Phase::Admitting(_) | Phase::Closed => {}
        }
    }

    /// When [`Self::handle_timeout`] is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let unproven = self.unproven().map(|(_, at)| (at, "whoever connected proves itself"));
        unproven.chain(self.phase_timeout()).min_by_key(|(at, _)| *at)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<InviterOutput> {
        self.outputs.pop_front()
    }

    fn handle_redeemed(&mut self, written: bool, now: Now) {
        match &self.phase {
            // Whether the disk took it or not, the code is of no use any more.
            Phase::Burning(id) => {
                let id = *id;
                self.turn_away(id, Ending::WrongCode);
                self.end(Outcome::Refused, Some(Reason::WrongCode), now);
            }
            Phase::Redeeming(guest) if written => {
                let guest = guest.clone();
                self.phase = Phase::Asking { guest, ours: None, theirs: false };
                self.accept(true);
            }
            Phase::Redeeming(_) => self.end(Outcome::Refused, Some(Reason::NotStored), now),
            Phase::Open
            | Phase::Asking { .. }
            | Phase::Admitting(_)
            | Phase::Admitted(..)
            | Phase::Over { .. }
            | Phase::Closed => {}
        }
    }

    /// Ends; from now on only late answers are given.
    fn end(&mut self, outcome: Outcome, reason: Option<Reason>, now: Now) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let (guest, welcome) = match phase {
            Phase::Open | Phase::Burning(_) | Phase::Closed | Phase::Over { .. } => (None, None),
            Phase::Redeeming(guest) | Phase::Asking { guest, .. } | Phase::Admitting(guest) => {
                (Some(guest), None)
            }
            Phase::Admitted(guest, welcome) => (Some(guest), Some(welcome)),
        };
        let at = guest.as_ref().and_then(|guest| guest.connection);
        let until = now.mono + ANSWER_TIME;
        let guest = guest.map(|guest| (guest, welcome));
        self.phase = Phase::Over { outcome, reason, until, guest };
        if let Some((at, reason)) = at.zip(reason) {
            self.turn_away(at, reason.ending());
        }
        self.outputs.push_back(InviterOutput::Ended(outcome));
    }

    fn send(&mut self, id: ConnectionId, message: PairingMessage) {
        self.outputs.push_back(InviterOutput::Send(id, message));
    }
}

//! Who connects, until it has proved itself.

use weft_protocol::{
    id::{Digest, EndpointId},
    pairing::{Ending, Nonce, PAIRING_VERSION, PairingMessage, Share, Transcript},
    ticket::{Ticket, TicketSecret},
    time::{Now, Timestamp},
};

use super::{Inviter, guest::Guest, phase::Phase};
use crate::pairing::{
    Reason, Tag,
    exchange::Exchange,
    invitation::{ConnectionId, InviterOutput, Redemption},
    signs,
};

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) endpoint: EndpointId,
    /// When it must have proved itself.
    pub(super) until: Timestamp,
    pub(super) step: Step,
}

#[derive(Debug)]
pub(super) enum Step {
    /// It has said nothing.
    Connected,
    /// It was sent a nonce. Who knows the secret has the ticket, or the code.
    Challenged { commitment: Digest, nonce: Nonce, secret: TicketSecret },
    /// It has proved itself.
    Proved,
}

impl Inviter {
    /// Connections that have not proved themselves, and when they must have.
    pub(super) fn unproven(&self) -> impl Iterator<Item = (ConnectionId, Timestamp)> {
        let unproven = self.connections.iter().filter(|(_, it)| !matches!(it.step, Step::Proved));
        unproven.map(|(id, it)| (*id, it.until))
    }

    pub(super) fn handle_message(&mut self, id: ConnectionId, message: PairingMessage, now: Now) {
        let is_guest = self.guest_mut().is_some_and(|guest| guest.connection == Some(id));
        let late_answer = self.late_answer(now);
        let guest_endpoint = self.guest_mut().map(|guest| guest.endpoint);
        let Some(connection) = self.connections.get(&id) else { return };
        match (&connection.step, message) {
            (Step::Connected, PairingMessage::Hello { version, fabric, commitment }) => {
                let is_ours = version == PAIRING_VERSION
                    && fabric == self.invitation.ticket.fabric
                    && self.code.is_none();
                let ending = if is_ours { late_answer } else { Some(Ending::Refused) };
                if let Some(ending) = ending {
                    self.turn_away(id, ending);
                    return;
                }
                let nonce = self.nonces.next();
                let secret = self.invitation.ticket.secret.clone();
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.step = Step::Challenged { commitment, nonce, secret };
                }
                self.send(id, PairingMessage::Challenge { nonce, device: self.secret.id() });
            }
            (Step::Connected, PairingMessage::Code { version, share, commitment }) => {
                let endpoint = connection.endpoint;
                match self.offer(endpoint, version, (&share, &commitment), now) {
                    Ok((offer, nonce, secret)) => {
                        if let Some(connection) = self.connections.get_mut(&id) {
                            connection.step = Step::Challenged { commitment, nonce, secret };
                        }
                        self.send(id, offer);
                    }
                    Err(ending) => self.turn_away(id, ending),
                }
            }
            (Step::Challenged { .. }, PairingMessage::Prove { .. })
                if let Some(ending) = late_answer =>
            {
                self.turn_away(id, ending);
            }
            // A code that is spent checks no further guess, not even of whom it was offered to before.
            (Step::Challenged { .. }, PairingMessage::Prove { .. })
                if self.code.is_some()
                    && guest_endpoint.is_some_and(|endpoint| endpoint != connection.endpoint) =>
            {
                self.turn_away(id, Ending::AlreadyUsed);
            }
            (
                Step::Challenged { commitment, nonce, secret },
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
                    && Tag::Joiner.proves(&tag, secret, &transcript)
                    && signs(party.device, signature, &transcript)
                    && party.device != self.secret.id();
                if proved {
                    let (endpoint, secret) = (connection.endpoint, secret.clone());
                    let acceptance = self.acceptance(transcript);
                    let connection = Some(id);
                    let guest = Guest { party, endpoint, secret, connection, acceptance };
                    self.handle_proof(id, guest);
                } else if self.code.is_some() && matches!(self.phase, Phase::Open) {
                    self.phase = Phase::Burning(id);
                    let redemption = Redemption {
                        endpoint: self.invitation.ticket.endpoint,
                        device: party.device,
                    };
                    self.outputs.push_back(InviterOutput::Redeem(redemption));
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

    /// What a joiner with a code is told, the inviter's nonce, and the secret of both.
    ///
    /// Once somebody has redeemed the code only that endpoint may try again: a guess must not be
    /// checked against a code that is spent.
    fn offer(
        &mut self,
        joiner: EndpointId,
        version: u16,
        (theirs, commitment): (&Share, &Digest),
        now: Now,
    ) -> Result<(PairingMessage, Nonce, TicketSecret), Ending> {
        let code = self.code.clone().filter(|_| version == PAIRING_VERSION);
        let code = code.ok_or(Ending::Refused)?;
        if let Some(ending) = self.late_answer(now) {
            return Err(ending);
        }
        if self.guest_mut().is_some_and(|guest| guest.endpoint != joiner) {
            return Err(Ending::AlreadyUsed);
        }
        let (nonce, seed) = self.nonces.for_opening(&joiner, theirs, commitment);
        let Ticket { endpoint, fabric, role, .. } = self.invitation.ticket;
        let (exchange, share) = Exchange::inviter(&code, &joiner, &endpoint, &seed);
        let secret = exchange.finish(theirs).ok_or(Ending::Refused)?;
        let device = self.secret.id();
        Ok((PairingMessage::Offer { share, fabric, role, nonce, device }, nonce, secret))
    }

    /// Somebody with the ticket has proved who it is.
    fn handle_proof(&mut self, id: ConnectionId, proven: Guest) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.step = Step::Proved;
        }
        let device = proven.party.device;
        if self.guest_mut().is_some_and(|guest| guest.party != proven.party) {
            self.turn_away(id, Ending::AlreadyUsed);
            return;
        }
        if let Some(guest) = self.guest_mut() {
            let before = guest.connection;
            *guest = proven.clone();
            if let Some(before) = before.filter(|before| *before != id) {
                self.connections.remove(&before);
                self.outputs.push_back(InviterOutput::Close(before));
            }
        }
        match &mut self.phase {
            Phase::Open => {
                self.phase = Phase::Redeeming(proven);
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
            Phase::Over { reason, .. } => {
                let ending = reason.map_or(Ending::Refused, Reason::ending);
                self.turn_away(id, ending);
            }
            Phase::Burning(_) | Phase::Closed => {}
        }
    }

    pub(super) fn turn_away(&mut self, id: ConnectionId, ending: Ending) {
        self.send(id, PairingMessage::End { ending });
        self.outputs.push_back(InviterOutput::Close(id));
        self.connections.remove(&id);
        if let Some(guest) = self.guest_mut().filter(|guest| guest.connection == Some(id)) {
            guest.connection = None;
        }
    }
}

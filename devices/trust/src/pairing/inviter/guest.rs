//! Who has redeemed the ticket or the code, from its proof until it has stored all.

use weft_protocol::{
    device::Role,
    id::{Digest, EndpointId},
    pairing::{Acceptance, Contacts, Ending, PAIRING_FRAME_BYTES_MAX, PairingMessage, Party},
    signed::Signed,
    statement::STATEMENT_BYTES_MAX,
    ticket::TicketSecret,
    time::Now,
};

use super::{Inviter, phase::Phase};
use crate::{
    author::NewDevice,
    exchange::packed,
    pairing::{
        Answer, Outcome, Prompt, Reason, Tag,
        invitation::{ConnectionId, InviterOutput},
        party, sign, words,
    },
};

/// The most bytes of statements in one message, unless there is but one: half a frame, so that
/// what is around them fits too.
const CHUNK_BYTES_MAX: usize = PAIRING_FRAME_BYTES_MAX / 2;

/// Who has redeemed the ticket.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) party: Party,
    pub(super) endpoint: EndpointId,
    pub(super) secret: TicketSecret,
    /// Where it is; none while it is away.
    pub(super) connection: Option<ConnectionId>,
    pub(super) acceptance: Digest,
}

/// What an admitted device is given.
#[derive(Clone, Debug)]
pub(super) struct Welcome {
    pub(super) statements: Vec<Signed>,
    pub(super) contacts: Contacts,
}

impl Inviter {
    pub(super) fn handle_guest_message(
        &mut self,
        id: ConnectionId,
        message: PairingMessage,
        now: Now,
    ) {
        match (&mut self.phase, message) {
            (Phase::Asking { guest, theirs, .. }, PairingMessage::Confirm { tag })
                if Tag::Confirm.proves(&tag, &guest.secret, &guest.acceptance) =>
            {
                *theirs = true;
                self.decide(now);
            }
            (
                Phase::Redeeming(_) | Phase::Asking { .. },
                PairingMessage::End { ending: Ending::Refused },
            ) => {
                self.end(Outcome::Refused, Some(Reason::OtherSaidNo), now);
            }
            // A second Confirm after a new connection: the answer is on its way already.
            (
                Phase::Admitting(_) | Phase::Admitted(..) | Phase::Over { .. },
                PairingMessage::Confirm { .. },
            ) => {}
            (Phase::Admitted(guest, _), PairingMessage::Stored { tag, contacts })
                if Tag::Stored.proves(&tag, &guest.secret, &guest.acceptance) =>
            {
                let device = guest.party.device;
                self.send(id, PairingMessage::Done);
                self.outputs.push_back(InviterOutput::Learned(device, contacts.bounded()));
                self.end(Outcome::Paired, None, now);
            }
            (Phase::Over { outcome: Outcome::Paired, .. }, PairingMessage::Stored { .. }) => {
                self.send(id, PairingMessage::Done)
            }
            _ => self.turn_away(id, Ending::Refused),
        }
    }

    /// Goes on when both have answered, or one has said no.
    pub(super) fn decide(&mut self, now: Now) {
        let Phase::Asking { guest, ours, theirs } = &self.phase else { return };
        let confirmed = match ours {
            None => return,
            Some(Answer::No) => {
                self.end(Outcome::Refused, Some(Reason::SaidNo), now);
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
    pub(super) fn accept(&mut self, ask: bool) {
        let Some(guest) = self.guest_mut().cloned() else { return };
        if let Some(id) = guest.connection {
            let message = PairingMessage::Accept {
                fabric: self.invitation.fabric.clone(),
                party: self.party(),
                tag: Tag::Inviter.make(&guest.secret, &guest.acceptance),
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
    pub(super) fn welcome(&mut self, guest: &Guest, welcome: &Welcome) {
        const { assert!(STATEMENT_BYTES_MAX <= CHUNK_BYTES_MAX) }
        let Some(id) = guest.connection else { return };
        for statements in packed(&welcome.statements, CHUNK_BYTES_MAX) {
            self.send(id, PairingMessage::Statements { statements });
        }
        self.send(id, PairingMessage::Welcome { contacts: welcome.contacts.clone().bounded() });
    }

    pub(super) fn acceptance(&self, transcript: Digest) -> Digest {
        let fabric = self.invitation.fabric.clone();
        Acceptance { transcript, fabric, inviter: self.party() }.digest()
    }

    fn party(&self) -> Party {
        party(&self.secret, self.invitation.name.clone(), self.invitation.kind)
    }
}

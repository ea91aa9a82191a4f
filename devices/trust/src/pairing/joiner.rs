//! The joining side of a pairing.

use std::{collections::VecDeque, time::Duration};

use weft_protocol::{
    codec,
    device::Kind,
    id::{Digest, EndpointId},
    pairing::{
        Acceptance, Contacts, Ending, Nonce, PAIRING_VERSION, PairingMessage, Party, Transcript,
    },
    signed::Signed,
    statement::Name,
    ticket::Ticket,
    time::{Now, Timestamp},
};

use super::{Answer, Nonces, Outcome, Prompt, Tag, party, sign, signs, words};
use crate::{graph::Graph, secret::DeviceSecret};

/// How long the endpoint may be unreachable, at first and after a cut.
pub const REACH_TIME: Duration = Duration::from_secs(20);

/// How long one answer of the other program, not of its person, may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How long after a failure the endpoint is dialled again.
const REDIAL_TIME: Duration = Duration::from_millis(500);

/// How much longer than the ticket says this side waits: the inviter's clock decides.
const GRACE_TIME: Duration = Duration::from_secs(60);

/// The most bytes of statements that are taken: many times what a fabric comes to.
const STATEMENTS_BYTES_MAX: usize = 8 << 20;

/// What happens to the joiner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JoinerInput {
    /// There is a connection; the transport has checked whose end the other is.
    Connected(EndpointId),
    /// There is none, or no longer.
    Disconnected,
    /// The inviter says something.
    Message(PairingMessage),
    /// The person, or `--yes`, has answered the prompt.
    Answer(Answer),
    /// What was joined is on disk; the inviter is told where this device can be met.
    Stored(Contacts),
    /// It could not be written.
    NotStored,
    /// The person gives up.
    Cancel,
}

/// What the joiner wants done.
#[derive(Debug)]
pub enum JoinerOutput {
    /// Connect to the ticket's endpoint at its addresses.
    Dial,
    /// Send this.
    Send(PairingMessage),
    /// Close the connection, once what was sent before is out.
    Close,
    /// Ask the person; a new prompt replaces the one before.
    Ask(Prompt),
    /// Write all of it to disk, then say [`JoinerInput::Stored`].
    Store(Box<Joined>),
    /// It has ended so. Only `Close` follows, and before it what the inviter is to hear.
    Ended(Outcome),
}

/// What a joined device has to store.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The fabric, in which this device belongs.
    pub graph: Graph,
    /// Who invited.
    pub inviter: Party,
    /// Where the inviter can be met, and whom it knows.
    pub contacts: Contacts,
}

/// The joining side.
#[derive(Debug)]
pub struct Joiner {
    ticket: Ticket,
    secret: DeviceSecret,
    party: Party,
    endpoint: EndpointId,
    nonces: Nonces,
    gives_up: Timestamp,
    /// The inviter to whom the person has said yes already, on an earlier connection.
    agreed: Option<Party>,
    phase: Phase,
    outputs: VecDeque<JoinerOutput>,
}

#[derive(Debug)]
enum Phase {
    /// There is no connection: one is being made, or is made again at `redial`.
    Away { since: Timestamp, redial: Option<Timestamp> },
    /// `Hello` is sent.
    Greeted { nonce: Nonce, until: Timestamp },
    /// `Prove` is sent. The inviter's disk may be slow.
    Proved { transcript: Digest, inviter: weft_protocol::id::DeviceId, until: Timestamp },
    /// The person is asked.
    Asking { host: Host },
    /// The person has said yes.
    Confirmed { host: Host, received: Vec<Signed>, bytes: usize },
    /// All has come and is on its way to the disk.
    Storing { host: Host },
    /// Paired. The inviter is to hear of it before the connection is closed.
    Leaving { until: Timestamp },
    /// It has ended.
    Over,
}

/// Who invites.
#[derive(Clone, Debug)]
struct Host {
    party: Party,
    acceptance: Digest,
}

impl Joiner {
    /// Begins with a ticket. `endpoint` is this side's throw-away key, `seed` is drawn for it alone.
    pub fn new(
        ticket: Ticket,
        secret: DeviceSecret,
        name: Name,
        kind: Kind,
        endpoint: EndpointId,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        let waits = Duration::from_secs(ticket.valid_s.into()) + GRACE_TIME;
        Self {
            party: party(&secret, name, kind),
            ticket,
            secret,
            endpoint,
            nonces: Nonces::new(seed),
            gives_up: now.mono + waits,
            agreed: None,
            phase: Phase::Away { since: now.mono, redial: None },
            outputs: VecDeque::from([JoinerOutput::Dial]),
        }
    }

    /// Takes what happened.
    pub fn handle_input(&mut self, input: JoinerInput, now: Now) {
        match input {
            JoinerInput::Connected(endpoint) => self.handle_connected(endpoint, now),
            JoinerInput::Disconnected => match &self.phase {
                Phase::Away { since, .. } => {
                    let since = *since;
                    self.phase = Phase::Away { since, redial: Some(now.mono + REDIAL_TIME) };
                }
                Phase::Greeted { .. }
                | Phase::Proved { .. }
                | Phase::Asking { .. }
                | Phase::Confirmed { .. } => self.lose(now),
                Phase::Storing { .. } | Phase::Over => {}
                Phase::Leaving { .. } => self.phase = Phase::Over,
            },
            JoinerInput::Message(message) => self.handle_message(message, now),
            JoinerInput::Answer(answer) => self.handle_answer(answer),
            JoinerInput::Stored(contacts) => {
                if let Phase::Storing { host } = &self.phase {
                    let tag = Tag::Stored.make(&self.ticket.secret, &host.acceptance);
                    self.send(PairingMessage::Stored { tag, contacts });
                    self.outputs.push_back(JoinerOutput::Ended(Outcome::Paired));
                    self.phase = Phase::Leaving { until: now.mono + ANSWER_TIME };
                }
            }
            JoinerInput::NotStored => {
                if matches!(self.phase, Phase::Storing { .. }) {
                    self.end(Outcome::Refused);
                }
            }
            JoinerInput::Cancel => match &self.phase {
                Phase::Storing { .. } | Phase::Leaving { .. } | Phase::Over => {}
                Phase::Away { .. } => self.end(Outcome::Refused),
                Phase::Greeted { .. }
                | Phase::Proved { .. }
                | Phase::Asking { .. }
                | Phase::Confirmed { .. } => self.refuse(),
            },
        }
    }

    /// Takes that time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.poll_timeout().is_none_or(|(at, _)| at > now.mono) {
            return;
        }
        match &mut self.phase {
            Phase::Over | Phase::Storing { .. } => {}
            Phase::Leaving { .. } => self.leave(),
            Phase::Away { since, .. }
                if now.mono >= *since + REACH_TIME || now.mono >= self.gives_up =>
            {
                self.end(Outcome::CouldNotReach);
            }
            Phase::Away { redial, .. } => {
                *redial = None;
                self.outputs.push_back(JoinerOutput::Dial);
            }
            _ if now.mono >= self.gives_up => self.end(Outcome::CouldNotReach),
            Phase::Greeted { .. }
            | Phase::Proved { .. }
            | Phase::Asking { .. }
            | Phase::Confirmed { .. } => {
                self.outputs.push_back(JoinerOutput::Close);
                self.lose(now);
            }
        }
    }

    /// When [`Self::handle_timeout`] is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let own = match &self.phase {
            Phase::Over | Phase::Storing { .. } => return None,
            Phase::Leaving { until } => return Some((*until, "the inviter hears the end")),
            Phase::Away { since, redial } => {
                let ends = *since + REACH_TIME;
                let at = redial.map_or(ends, |redial| redial.min(ends));
                Some((at, "the inviter is reached"))
            }
            Phase::Greeted { until, .. } | Phase::Proved { until, .. } => {
                Some((*until, "the inviter answers"))
            }
            Phase::Asking { .. } | Phase::Confirmed { .. } => None,
        };
        let last = (self.gives_up, "the pairing ends");
        Some(own.filter(|(at, _)| *at < last.0).unwrap_or(last))
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<JoinerOutput> {
        self.outputs.pop_front()
    }

    /// What the proof covers, while it is out.
    #[cfg(test)]
    pub(super) const fn transcript(&self) -> Option<Digest> {
        if let Phase::Proved { transcript, .. } = &self.phase { Some(*transcript) } else { None }
    }

    fn handle_connected(&mut self, endpoint: EndpointId, now: Now) {
        let Phase::Away { .. } = &self.phase else { return };
        if endpoint != self.ticket.endpoint {
            self.outputs.push_back(JoinerOutput::Close);
            return;
        }
        let nonce = self.nonces.next();
        self.phase = Phase::Greeted { nonce, until: now.mono + ANSWER_TIME };
        self.send(PairingMessage::Hello {
            version: PAIRING_VERSION,
            fabric: self.ticket.fabric,
            commitment: nonce.commitment(),
        });
    }

    fn handle_message(&mut self, message: PairingMessage, now: Now) {
        if let PairingMessage::End { ending } = message {
            self.handle_end(ending);
            return;
        }
        match (&mut self.phase, message) {
            (Phase::Greeted { nonce, .. }, PairingMessage::Challenge { nonce: theirs, device }) => {
                let transcript = Transcript {
                    version: PAIRING_VERSION,
                    fabric: self.ticket.fabric,
                    role: self.ticket.role,
                    inviter_endpoint: self.ticket.endpoint,
                    joiner_endpoint: self.endpoint,
                    inviter_nonce: theirs,
                    joiner_nonce: *nonce,
                    inviter: device,
                    joiner: self.party.clone(),
                }
                .digest();
                let message = PairingMessage::Prove {
                    nonce: *nonce,
                    party: self.party.clone(),
                    tag: Tag::Joiner.make(&self.ticket.secret, &transcript),
                    signature: sign(self.secret.signing(), &transcript),
                };
                let until = now.mono + ANSWER_TIME;
                self.phase = Phase::Proved { transcript, inviter: device, until };
                self.send(message);
            }
            (
                Phase::Proved { transcript, inviter, .. },
                PairingMessage::Accept { fabric, party, tag, signature },
            ) => {
                let acceptance = Acceptance {
                    transcript: *transcript,
                    fabric: fabric.clone(),
                    inviter: party.clone(),
                }
                .digest();
                let proved = party.device == *inviter
                    && Tag::Inviter.proves(&tag, &self.ticket.secret, &acceptance)
                    && signs(party.device, signature, &acceptance);
                if !proved {
                    self.refuse();
                    return;
                }
                let prompt = Prompt {
                    words: words(&acceptance),
                    name: party.name.clone(),
                    kind: party.kind,
                    fabric,
                    role: self.ticket.role,
                };
                self.phase = Phase::Asking { host: Host { party, acceptance } };
                self.outputs.push_back(JoinerOutput::Ask(prompt));
            }
            // The answer to a yes that was said before the connection was lost.
            (Phase::Asking { host }, PairingMessage::Statements { statements })
                if self.agreed.as_ref() == Some(&host.party) =>
            {
                let host = host.clone();
                self.phase = Phase::Confirmed { host, received: Vec::new(), bytes: 0 };
                self.receive(statements);
            }
            (Phase::Confirmed { .. }, PairingMessage::Statements { statements }) => {
                self.receive(statements);
            }
            (Phase::Confirmed { host, received, .. }, PairingMessage::Welcome { contacts }) => {
                let (host, received) = (host.clone(), std::mem::take(received));
                match self.joined(&host, received, contacts) {
                    Some(joined) => {
                        self.phase = Phase::Storing { host };
                        self.outputs.push_back(JoinerOutput::Store(Box::new(joined)));
                    }
                    None => self.refuse(),
                }
            }
            (Phase::Leaving { .. }, PairingMessage::Done) => self.leave(),
            (
                Phase::Away { .. } | Phase::Storing { .. } | Phase::Leaving { .. } | Phase::Over,
                _,
            ) => {}
            (
                Phase::Greeted { .. }
                | Phase::Proved { .. }
                | Phase::Asking { .. }
                | Phase::Confirmed { .. },
                _,
            ) => self.refuse(),
        }
    }

    fn handle_end(&mut self, ending: Ending) {
        match &self.phase {
            Phase::Greeted { .. }
            | Phase::Proved { .. }
            | Phase::Asking { .. }
            | Phase::Confirmed { .. } => {
                self.end(ending.into());
            }
            Phase::Away { .. } | Phase::Storing { .. } | Phase::Leaving { .. } | Phase::Over => {}
        }
    }

    fn handle_answer(&mut self, answer: Answer) {
        let Phase::Asking { host } = &self.phase else { return };
        match answer {
            Answer::No => self.refuse(),
            Answer::Yes | Answer::Unasked => {
                let host = host.clone();
                let tag = Tag::Confirm.make(&self.ticket.secret, &host.acceptance);
                self.agreed = Some(host.party.clone());
                self.phase = Phase::Confirmed { host, received: Vec::new(), bytes: 0 };
                self.send(PairingMessage::Confirm { tag });
            }
        }
    }

    fn receive(&mut self, statements: Vec<Signed>) {
        let Phase::Confirmed { received, bytes, .. } = &mut self.phase else { return };
        *bytes += statements.iter().map(|signed| codec::encode(signed).len()).sum::<usize>();
        received.extend(statements);
        if *bytes > STATEMENTS_BYTES_MAX {
            self.refuse();
        }
    }

    /// Checks what came: from `Genesis`, of the ticket's fabric, with this device in it.
    fn joined(&self, host: &Host, received: Vec<Signed>, contacts: Contacts) -> Option<Joined> {
        let graph = Graph::from_statements(received).ok()?;
        let device = graph.state().member(&self.party.device)?;
        let added_by = graph.get(&device.added)?.author;
        let good = self.ticket.fabric.is_of(&graph.fabric())
            && device.agreement == self.party.agreement
            // Roles are ordered from the most to the least.
            && device.role >= self.ticket.role
            && added_by == host.party.device;
        good.then_some(Joined { graph, inviter: host.party.clone(), contacts })
    }

    /// The connection is lost; the same answer can still be had.
    fn lose(&mut self, now: Now) {
        self.phase = Phase::Away { since: now.mono, redial: Some(now.mono + REDIAL_TIME) };
    }

    fn leave(&mut self) {
        self.phase = Phase::Over;
        self.outputs.push_back(JoinerOutput::Close);
    }

    fn refuse(&mut self) {
        self.send(PairingMessage::End { ending: Ending::Refused });
        self.end(Outcome::Refused);
    }

    fn end(&mut self, outcome: Outcome) {
        self.phase = Phase::Over;
        self.outputs.push_back(JoinerOutput::Ended(outcome));
        self.outputs.push_back(JoinerOutput::Close);
    }

    fn send(&mut self, message: PairingMessage) {
        self.outputs.push_back(JoinerOutput::Send(message));
    }
}

//! The joining side of a pairing.

mod means;

use std::{collections::VecDeque, time::Duration};

use weft_protocol::{
    device::Kind,
    id::{DeviceId, Digest, EndpointId},
    pairing::{
        Acceptance, Contacts, Ending, Nonce, PAIRING_VERSION, PairingMessage, Party, Share,
        Transcript,
    },
    signed::Signed,
    statement::Name,
    ticket::Ticket,
    time::{Now, Timestamp},
};

use self::means::{Means, Offer, Proof, Terms};
use super::{
    Answer, Code, Nonces, Outcome, Prompt, Reason, Tag,
    exchange::Exchange,
    joining::{Joined, JoinerInput, JoinerOutput},
    party, sign, signs, words,
};
use crate::{
    exchange::bytes_of,
    graph::{GRAPH_BYTES_MAX, Graph},
    secret::DeviceSecret,
};

/// How long the endpoint may be unreachable, at first and after a cut.
pub const REACH_TIME: Duration = Duration::from_secs(20);

/// How long one answer of the other program, not of its person, may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How long after a failure the endpoint is dialled again.
const REDIAL_TIME: Duration = Duration::from_millis(500);

/// How long a code is good for, which it does not say itself.
const CODE_TIME: Duration = Duration::from_secs(120);

/// How much longer than the ticket says this side waits: the inviter's clock decides.
const GRACE_TIME: Duration = Duration::from_secs(60);

/// The joining side.
#[derive(Debug)]
pub struct Joiner {
    means: Means,
    secret: DeviceSecret,
    party: Party,
    endpoint: EndpointId,
    nonces: Nonces,
    gives_up: Timestamp,
    /// The inviter to whom the person has said yes already, on an earlier connection.
    agreed: Option<Party>,
    /// Why it was refused or has expired.
    reason: Option<Reason>,
    phase: Phase,
    outputs: VecDeque<JoinerOutput>,
}

#[derive(Debug)]
enum Phase {
    /// There is no connection: one is being made, or is made again at `redial`.
    Away { since: Timestamp, redial: Option<Timestamp> },
    /// `Hello` is sent.
    Greeted { nonce: Nonce, until: Timestamp },
    /// `Code` is sent.
    Exchanging {
        exchange: Exchange,
        share: Share,
        endpoint: EndpointId,
        nonce: Nonce,
        until: Timestamp,
    },
    /// `Code` is sent as before, on a new connection to whom the proof was sent.
    Resuming { until: Timestamp },
    /// `Prove` is sent. The inviter's disk may be slow.
    Proved { terms: Terms, transcript: Digest, inviter: DeviceId, until: Timestamp },
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
    terms: Terms,
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
        let valid = Duration::from_secs(ticket.valid_s.into());
        let Ticket { fabric, endpoint: reached, secret: shared, role, .. } = ticket;
        let terms = Terms { fabric, role, endpoint: reached, secret: shared };
        Self::begin((Means::Ticket(terms), valid), secret, name, kind, endpoint, seed, now)
    }

    /// Begins with a code.
    pub fn with_code(
        code: Code,
        secret: DeviceSecret,
        name: Name,
        kind: Kind,
        endpoint: EndpointId,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        Self::begin((Means::Code(code, None), CODE_TIME), secret, name, kind, endpoint, seed, now)
    }

    fn begin(
        (means, valid): (Means, Duration),
        secret: DeviceSecret,
        name: Name,
        kind: Kind,
        endpoint: EndpointId,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        Self {
            means,
            party: party(&secret, name, kind),
            secret,
            endpoint,
            nonces: Nonces::new(seed),
            gives_up: now.mono + valid + GRACE_TIME,
            agreed: None,
            reason: None,
            phase: Phase::Away { since: now.mono, redial: None },
            outputs: VecDeque::from([JoinerOutput::Dial]),
        }
    }

    /// Why it was refused or has expired, once it has.
    pub const fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Whether this side talks to that endpoint. With a code it is any whose number fits, until this
    /// side has proved the code to one.
    pub fn takes(&self, endpoint: &EndpointId) -> bool {
        match &self.means {
            Means::Ticket(terms) => terms.endpoint == *endpoint,
            Means::Code(code, None) => code.is_of(endpoint),
            Means::Code(_, Some(proof)) => proof.terms.endpoint == *endpoint,
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
                | Phase::Exchanging { .. }
                | Phase::Resuming { .. }
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
                    let tag = Tag::Stored.make(&host.terms.secret, &host.acceptance);
                    self.send(PairingMessage::Stored { tag, contacts: contacts.bounded() });
                    self.outputs.push_back(JoinerOutput::Ended(Outcome::Paired));
                    self.phase = Phase::Leaving { until: now.mono + ANSWER_TIME };
                }
            }
            JoinerInput::NotStored => {
                if matches!(self.phase, Phase::Storing { .. }) {
                    self.reason = Some(Reason::NotStored);
                    self.end(Outcome::Refused);
                }
            }
            JoinerInput::Cancel => match &self.phase {
                Phase::Storing { .. } | Phase::Leaving { .. } | Phase::Over => {}
                Phase::Away { .. } => {
                    self.reason = Some(Reason::SaidNo);
                    self.end(Outcome::Refused);
                }
                Phase::Greeted { .. }
                | Phase::Exchanging { .. }
                | Phase::Resuming { .. }
                | Phase::Proved { .. }
                | Phase::Asking { .. }
                | Phase::Confirmed { .. } => self.refuse(Reason::SaidNo),
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
                self.give_up();
            }
            Phase::Away { redial, .. } => {
                *redial = None;
                self.outputs.push_back(JoinerOutput::Dial);
            }
            _ if now.mono >= self.gives_up => self.give_up(),
            Phase::Greeted { .. }
            | Phase::Exchanging { .. }
            | Phase::Resuming { .. }
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
            Phase::Greeted { until, .. }
            | Phase::Exchanging { until, .. }
            | Phase::Resuming { until }
            | Phase::Proved { until, .. } => Some((*until, "the inviter answers")),
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
        let Phase::Away { since, .. } = self.phase else { return };
        if !self.takes(&endpoint) {
            self.outputs.push_back(JoinerOutput::Close);
            self.phase = Phase::Away { since, redial: Some(now.mono + REDIAL_TIME) };
            return;
        }
        let until = now.mono + ANSWER_TIME;
        match &self.means {
            Means::Ticket(terms) => {
                let fabric = terms.fabric;
                let nonce = self.nonces.next();
                self.phase = Phase::Greeted { nonce, until };
                self.send(PairingMessage::Hello {
                    version: PAIRING_VERSION,
                    fabric,
                    commitment: nonce.commitment(),
                });
            }
            Means::Code(code, None) => {
                let seed = self.nonces.next_seed();
                let (exchange, share) = Exchange::joiner(code, &self.endpoint, &endpoint, &seed);
                let nonce = self.nonces.next();
                self.phase = Phase::Exchanging { exchange, share, endpoint, nonce, until };
                self.send(opening(share, &nonce));
            }
            Means::Code(_, Some(proof)) => {
                let opening = proof.opening.clone();
                self.phase = Phase::Resuming { until };
                self.send(opening);
            }
        }
    }

    fn handle_message(&mut self, message: PairingMessage, now: Now) {
        if let PairingMessage::End { ending } = message {
            self.handle_end(ending);
            return;
        }
        if let PairingMessage::Offer { share, fabric, role, nonce, device } = message {
            self.handle_offer(Offer { share, fabric, role, nonce, device }, now);
            return;
        }
        match (&mut self.phase, message) {
            (Phase::Greeted { nonce, .. }, PairingMessage::Challenge { nonce: theirs, device }) => {
                let nonce = *nonce;
                if let Means::Ticket(terms) = &self.means {
                    let terms = terms.clone();
                    let (transcript, message) = self.proof(&terms, (nonce, theirs), device);
                    self.prove(terms, transcript, device, message, now);
                }
            }
            (
                Phase::Proved { terms, transcript, inviter, .. },
                PairingMessage::Accept { fabric, party, tag, signature },
            ) => {
                let acceptance = Acceptance {
                    transcript: *transcript,
                    fabric: fabric.clone(),
                    inviter: party.clone(),
                }
                .digest();
                let proved = party.device == *inviter
                    && Tag::Inviter.proves(&tag, &terms.secret, &acceptance)
                    && signs(party.device, signature, &acceptance);
                if !proved {
                    self.refuse(match self.means {
                        Means::Ticket(_) => Reason::WrongProof,
                        Means::Code(..) => Reason::WrongCode,
                    });
                    return;
                }
                let terms = terms.clone();
                let prompt = Prompt {
                    words: words(&acceptance),
                    name: party.name.clone(),
                    kind: party.kind,
                    fabric,
                    role: terms.role,
                };
                self.phase = Phase::Asking { host: Host { terms, party, acceptance } };
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
                    None => self.refuse(Reason::WrongProof),
                }
            }
            (Phase::Leaving { .. }, PairingMessage::Done) => self.leave(),
            (
                Phase::Away { .. } | Phase::Storing { .. } | Phase::Leaving { .. } | Phase::Over,
                _,
            ) => {}
            (
                Phase::Greeted { .. }
                | Phase::Exchanging { .. }
                | Phase::Resuming { .. }
                | Phase::Proved { .. }
                | Phase::Asking { .. }
                | Phase::Confirmed { .. },
                _,
            ) => self.refuse(Reason::WrongProof),
        }
    }

    /// The answer to a code: whether it was the same one shows in the proofs.
    fn handle_offer(&mut self, offer: Offer, now: Now) {
        let since = now.mono;
        match std::mem::replace(&mut self.phase, Phase::Away { since, redial: None }) {
            Phase::Exchanging { exchange, share, endpoint, nonce, .. } => {
                let (Some(secret), Means::Code(_, proof)) =
                    (exchange.finish(&offer.share), &self.means)
                else {
                    self.refuse(Reason::WrongProof);
                    return;
                };
                assert!(proof.is_none(), "a code is proved once");
                let Offer { fabric, role, device, .. } = offer;
                let terms = Terms { fabric, role, endpoint, secret };
                let (transcript, message) = self.proof(&terms, (nonce, offer.nonce), device);
                if let Means::Code(_, proof) = &mut self.means {
                    let (terms, message) = (terms.clone(), message.clone());
                    let opening = opening(share, &nonce);
                    *proof = Some(Box::new(Proof { opening, offer, terms, transcript, message }));
                }
                self.prove(terms, transcript, device, message, now);
            }
            Phase::Resuming { .. } => match &self.means {
                Means::Code(_, Some(proof)) if proof.offer == offer => {
                    let (terms, message) = (proof.terms.clone(), proof.message.clone());
                    self.prove(terms, proof.transcript, offer.device, message, now);
                }
                Means::Code(..) | Means::Ticket(_) => self.refuse(Reason::CodeSpent),
            },
            before @ (Phase::Away { .. }
            | Phase::Storing { .. }
            | Phase::Leaving { .. }
            | Phase::Over) => {
                self.phase = before;
            }
            Phase::Greeted { .. }
            | Phase::Proved { .. }
            | Phase::Asking { .. }
            | Phase::Confirmed { .. } => self.refuse(Reason::WrongProof),
        }
    }

    /// The proof of the secret and of this device's key over all that was said, and what it covers.
    fn proof(
        &self,
        terms: &Terms,
        (ours, theirs): (Nonce, Nonce),
        inviter: DeviceId,
    ) -> (Digest, PairingMessage) {
        let transcript = Transcript {
            version: PAIRING_VERSION,
            fabric: terms.fabric,
            role: terms.role,
            inviter_endpoint: terms.endpoint,
            joiner_endpoint: self.endpoint,
            inviter_nonce: theirs,
            joiner_nonce: ours,
            inviter,
            joiner: self.party.clone(),
        }
        .digest();
        let message = PairingMessage::Prove {
            nonce: ours,
            party: self.party.clone(),
            tag: Tag::Joiner.make(&terms.secret, &transcript),
            signature: sign(self.secret.signing(), &transcript),
        };
        (transcript, message)
    }

    fn prove(
        &mut self,
        terms: Terms,
        transcript: Digest,
        inviter: DeviceId,
        message: PairingMessage,
        now: Now,
    ) {
        let until = now.mono + ANSWER_TIME;
        self.phase = Phase::Proved { terms, transcript, inviter, until };
        self.send(message);
    }

    fn handle_end(&mut self, ending: Ending) {
        match &self.phase {
            Phase::Greeted { .. }
            | Phase::Exchanging { .. }
            | Phase::Resuming { .. }
            | Phase::Proved { .. }
            | Phase::Asking { .. }
            | Phase::Confirmed { .. } => {
                let has_met = matches!(self.phase, Phase::Asking { .. } | Phase::Confirmed { .. });
                self.reason = match ending {
                    Ending::Refused if has_met => Some(Reason::OtherSaidNo),
                    Ending::Refused => Some(Reason::WrongProof),
                    Ending::Expired => Some(Reason::TimeUp),
                    Ending::AlreadyUsed => None,
                    Ending::Replaced => Some(Reason::Replaced),
                    Ending::Closed => Some(Reason::Closed),
                    Ending::WrongCode => Some(Reason::WrongCode),
                };
                self.end(ending.into());
            }
            Phase::Away { .. } | Phase::Storing { .. } | Phase::Leaving { .. } | Phase::Over => {}
        }
    }

    fn handle_answer(&mut self, answer: Answer) {
        let Phase::Asking { host } = &self.phase else { return };
        match answer {
            Answer::No => self.refuse(Reason::SaidNo),
            Answer::Yes | Answer::Unasked => {
                let host = host.clone();
                let tag = Tag::Confirm.make(&host.terms.secret, &host.acceptance);
                self.agreed = Some(host.party.clone());
                self.phase = Phase::Confirmed { host, received: Vec::new(), bytes: 0 };
                self.send(PairingMessage::Confirm { tag });
            }
        }
    }

    fn receive(&mut self, statements: Vec<Signed>) {
        let Phase::Confirmed { received, bytes, .. } = &mut self.phase else { return };
        *bytes += bytes_of(&statements);
        received.extend(statements);
        if *bytes > GRAPH_BYTES_MAX {
            self.refuse(Reason::WrongProof);
        }
    }

    /// Checks what came: from `Genesis`, of the ticket's fabric, with this device in it.
    fn joined(&self, host: &Host, received: Vec<Signed>, contacts: Contacts) -> Option<Joined> {
        let graph = Graph::from_statements(received).ok()?;
        let device = graph.state().member(&self.party.device)?;
        let added_by = graph.get(&device.added)?.author;
        let good = host.terms.fabric.is_of(&graph.fabric())
            && device.agreement == self.party.agreement
            // Roles are ordered from the most to the least.
            && device.role >= host.terms.role
            && added_by == host.party.device;
        good.then_some(Joined { graph, inviter: host.party.clone(), contacts: contacts.bounded() })
    }

    /// The connection is lost; the same answer can still be had.
    fn lose(&mut self, now: Now) {
        self.phase = Phase::Away { since: now.mono, redial: Some(now.mono + REDIAL_TIME) };
    }

    /// Nobody answers any more.
    fn give_up(&mut self) {
        if matches!(self.means, Means::Code(_, Some(_))) {
            self.reason = Some(Reason::CodeSpent);
        }
        self.end(Outcome::CouldNotReach);
    }

    fn leave(&mut self) {
        self.phase = Phase::Over;
        self.outputs.push_back(JoinerOutput::Close);
    }

    fn refuse(&mut self, reason: Reason) {
        self.reason = Some(reason);
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

/// What this side begins with that has a code.
fn opening(share: Share, nonce: &Nonce) -> PairingMessage {
    PairingMessage::Code { version: PAIRING_VERSION, share, commitment: nonce.commitment() }
}

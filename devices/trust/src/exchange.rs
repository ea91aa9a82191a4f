//! The exchange: makes two devices' graphs equal, on `/weft/trust/1`.
//!
//! One machine for each peer, over the node's one [`Graph`], which is handed in with each input.
//! The messages are in [`weft_protocol::statement`]. What the machine needs from outside:
//!
//! - [`Output::Learned`]: store the statements, [`Graph::insert`] each, then say
//!   [`Input::Changed`] to the exchanges of all peers.
//! - [`Output::SealFor`]: seal with the keyring, answer with [`Input::Keys`].
//!
//! A peer that the graph does not list, or lists as revoked, may present statements that prove
//! otherwise: at most [`STRANGER_BYTES_MAX`] of them, within [`PROOF_TIME`]. They are tried on a
//! copy, and learned only if the peer then belongs or is suspended: one that is out writes nothing
//! into anybody's graph. This side tells it nothing before it has named the fabric, unless this
//! side dialled.
//!
//! A peer that the graph has never heard of may instead prove, once, that it holds the recovery
//! words ([`TrustMessage::Recover`], see [`crate::recovery`]). Then it is given all statements.
//! Whoever tries that with other words is cut as any stranger is, and one that was put out can't do
//! it at all, so that what it once proved is of no use to whoever has it now.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use weft_protocol::{
    codec,
    frame::{FRAME_BYTES_MAX, STRANGER_BYTES_MAX, STRANGER_IDS_BYTES_MAX},
    id::{AgreementKey, DeviceId, Digest, StatementId},
    signed::Signed,
    statement::{KeyName, SealedKey, StatementBody, TrustMessage},
    time::{Now, Timestamp},
};

use crate::{
    graph::{Graph, statement_id},
    recovery,
    state::{Standing, Verdict},
};

/// How long a peer that is not listed has to prove that it belongs.
pub const PROOF_TIME: Duration = Duration::from_secs(5);

/// How long two devices of one fabric may take to hold the same statements.
pub const MERGE_TIME: Duration = Duration::from_secs(30);

/// The largest `Statements` message that is sent: what a stranger may present in all, so that the
/// proof of a device that the other has not heard of fits into the first.
const CHUNK_BYTES_MAX: usize = STRANGER_BYTES_MAX;

/// What happens to the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The peer says something.
    Message(TrustMessage),
    /// The graph has changed.
    Changed,
    /// Keys of the fabric are lacking here: the peer is asked for them.
    Want(Vec<KeyName>),
    /// The answer to [`Output::SealFor`].
    Keys(Vec<SealedKey>),
}

/// What the machine wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send this to the peer.
    Send(TrustMessage),
    /// Statements that this graph lacks, parents first.
    Learned(Vec<Signed>),
    /// Both hold the same statements and the peer belongs: other protocols may open.
    Merged,
    /// The peer lacks these keys, and may have them.
    SealFor {
        /// The peer's agreement key.
        to: AgreementKey,
        /// Which it asks for.
        keys: Vec<KeyName>,
    },
    /// Keys that this device asked for.
    Sealed(Vec<SealedKey>),
    /// Close the connection, once what was sent before is out. The last output.
    TurnedAway(Reason),
}

/// Why a peer is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It is of another fabric.
    OtherFabric,
    /// It has not proved that it belongs.
    Stranger,
    /// It is out. It was given its `Revoke`.
    Revoked,
    /// It sent more than it may.
    TooMuch,
    /// It said what cannot be said then.
    OutOfTurn,
    /// It took too long.
    TooLate,
}

/// The exchange with one peer.
#[derive(Debug)]
pub struct Exchange {
    me: DeviceId,
    peer: DeviceId,
    phase: Phase,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Phase {
    /// The graph does not list the peer as belonging.
    Proving(Proving),
    /// It does.
    Merging(Merging),
    /// Turned away.
    Ended,
}

#[derive(Debug)]
struct Proving {
    until: Timestamp,
    /// Whether this side has said what it holds.
    introduced: bool,
    /// What the peer said it holds.
    named: Option<BTreeSet<StatementId>>,
    /// A copy of the graph with what the peer presented; none before it has presented anything, so that
    /// whoever merely connects costs nothing.
    trial: Option<Box<Graph>>,
    presented: Vec<Signed>,
    bytes: usize,
    /// Whether it was given what puts out the key that it had before, and so this one.
    is_told: bool,
    /// The last set that the peer said it holds.
    heard: Option<Digest>,
}

#[derive(Debug)]
struct Merging {
    /// By when both must hold the same; none once they did.
    until: Option<Timestamp>,
    /// Whether other protocols may be open.
    merged: bool,
    /// What the peer holds, as far as is known; none until it has said.
    theirs: Option<BTreeSet<StatementId>>,
    /// The last set that this side said it holds.
    said: Option<Digest>,
    /// The last set that the peer said it holds.
    heard: Option<Digest>,
}

impl Proving {
    /// The graph with what the peer presented.
    fn trial<'a>(&'a self, graph: &'a Graph) -> &'a Graph {
        self.trial.as_deref().unwrap_or(graph)
    }
}

impl Exchange {
    /// Begins on `me` with a peer to whom there is a connection. `dialled`: by this side.
    pub fn new(me: DeviceId, peer: DeviceId, dialled: bool, graph: &Graph, now: Now) -> Self {
        let mut exchange = Self { me, peer, phase: Phase::Ended, outputs: VecDeque::new() };
        if listed(&peer, graph) {
            exchange.merge(None, None, false, graph, now);
        } else {
            if dialled {
                exchange.send(have(graph));
            }
            exchange.phase = Phase::Proving(Proving {
                until: now.mono + PROOF_TIME,
                introduced: dialled,
                named: None,
                trial: None,
                presented: Vec::new(),
                bytes: 0,
                is_told: false,
                heard: None,
            });
        }
        exchange
    }

    /// Whether both hold the same statements and the peer belongs.
    pub fn is_merged(&self) -> bool {
        matches!(&self.phase, Phase::Merging(Merging { merged: true, .. }))
    }

    /// Takes what happened.
    pub fn handle_input(&mut self, input: Input, graph: &Graph, now: Now) {
        match input {
            Input::Message(message) => self.handle_message(message, graph),
            Input::Changed => self.handle_changed(graph, now),
            Input::Want(keys) => {
                if self.is_merged() && !keys.is_empty() {
                    self.send(TrustMessage::Want { keys });
                }
            }
            Input::Keys(sealed) => {
                if self.is_merged() && !sealed.is_empty() {
                    self.send(TrustMessage::Keys { sealed });
                }
            }
        }
    }

    /// Takes that time has passed.
    pub fn handle_timeout(&mut self, graph: &Graph, now: Now) {
        if self.poll_timeout().is_some_and(|(at, _)| at <= now.mono) {
            let reason = match &self.phase {
                Phase::Proving(_) => self.unlisted_reason(graph),
                Phase::Merging(_) | Phase::Ended => Reason::TooLate,
            };
            self.turn_away(reason);
        }
    }

    /// When [`Self::handle_timeout`] is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        match &self.phase {
            Phase::Proving(proving) => Some((proving.until, "a peer proves that it belongs")),
            Phase::Merging(merging) => Some((merging.until?, "a peer's statements arrive")),
            Phase::Ended => None,
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn handle_message(&mut self, message: TrustMessage, graph: &Graph) {
        match &mut self.phase {
            Phase::Ended => {}
            Phase::Proving(proving) => match message {
                TrustMessage::Have { fabric, ids } => {
                    if fabric == graph.fabric() {
                        self.introduce(ids.into_iter().collect(), graph);
                    } else {
                        self.turn_away(Reason::OtherFabric);
                    }
                }
                TrustMessage::Statements { statements } => self.try_proof(statements, graph),
                TrustMessage::Merged { set } => {
                    proving.heard = Some(set);
                    // It has presented all that it holds.
                    if !listed(&self.peer, proving.trial(graph)) {
                        let reason = self.unlisted_reason(graph);
                        self.turn_away(reason);
                    }
                }
                TrustMessage::Recover { proof } => self.answer_recovery(&proof, graph),
                TrustMessage::Want { .. } | TrustMessage::Keys { .. } => {
                    self.turn_away(Reason::OutOfTurn);
                }
            },
            Phase::Merging(merging) => match message {
                TrustMessage::Have { fabric, ids } => {
                    if fabric != graph.fabric() {
                        self.turn_away(Reason::OtherFabric);
                    } else if merging.theirs.is_some() {
                        self.turn_away(Reason::OutOfTurn);
                    } else {
                        merging.theirs = Some(ids.into_iter().collect());
                        self.bring_up(graph);
                    }
                }
                TrustMessage::Statements { statements } => {
                    let Some(theirs) = &mut merging.theirs else {
                        self.turn_away(Reason::OutOfTurn);
                        return;
                    };
                    theirs.extend(statements.iter().map(statement_id));
                    let new: Vec<Signed> = statements
                        .into_iter()
                        .filter(|signed| !graph.contains(&statement_id(signed)))
                        .collect();
                    if !new.is_empty() {
                        self.outputs.push_back(Output::Learned(new));
                    }
                }
                TrustMessage::Merged { set } => {
                    merging.heard = Some(set);
                    self.bring_up(graph);
                }
                TrustMessage::Want { keys } => {
                    let device = graph.state().member(&self.peer);
                    if let Some(device) = device.filter(|device| device.role.holds_data()) {
                        self.outputs.push_back(Output::SealFor { to: device.agreement, keys });
                    }
                }
                TrustMessage::Keys { sealed } => self.outputs.push_back(Output::Sealed(sealed)),
                // Whoever belongs is given all statements without the words.
                TrustMessage::Recover { .. } => self.turn_away(Reason::OutOfTurn),
            },
        }
    }

    fn handle_changed(&mut self, graph: &Graph, now: Now) {
        let listed = listed(&self.peer, graph);
        match &mut self.phase {
            Phase::Ended => {}
            Phase::Proving(proving) if listed => {
                let (named, heard) = (proving.named.take(), proving.heard);
                let introduced = proving.introduced;
                self.merge(named, heard, introduced, graph, now);
            }
            Phase::Proving(proving) => {
                let Some(trial) = &mut proving.trial else { return };
                // The peer may prove itself with what was presented on top of what came since.
                **trial = graph.clone();
                for signed in &proving.presented {
                    drop(trial.insert(signed.clone()));
                }
            }
            Phase::Merging(_) if listed => self.bring_up(graph),
            Phase::Merging(merging) => {
                let theirs = merging.theirs.take().unwrap_or_default();
                self.give_revoke(&theirs, graph);
                let reason = self.unlisted_reason(graph);
                self.turn_away(reason);
            }
        }
    }

    /// A peer that is not listed has named the fabric and what it holds.
    fn introduce(&mut self, ids: BTreeSet<StatementId>, graph: &Graph) {
        let Phase::Proving(proving) = &mut self.phase else { return };
        if proving.named.is_some() {
            self.turn_away(Reason::OutOfTurn);
            return;
        }
        if ids.len() * StatementId::LEN > STRANGER_IDS_BYTES_MAX {
            self.turn_away(Reason::TooMuch);
            return;
        }
        let nothing_new = ids.iter().all(|id| graph.contains(id));
        let introduced = std::mem::replace(&mut proving.introduced, true);
        proving.named = Some(ids.clone());
        if !introduced {
            self.send(have(graph));
        }
        self.give_revoke(&ids, graph);
        if nothing_new {
            let reason = self.unlisted_reason(graph);
            self.turn_away(reason);
        }
    }

    /// Gives all statements to a peer that holds the recovery words, if it does.
    fn answer_recovery(&mut self, proof: &Signed, graph: &Graph) {
        let (me, peer) = (self.me, self.peer);
        let Phase::Proving(proving) = &mut self.phase else { return };
        if proving.introduced {
            self.turn_away(Reason::OutOfTurn);
            return;
        }
        let is_new = !graph.state().devices.contains_key(&peer);
        let root = graph.state().root;
        if !is_new || !root.is_some_and(|root| recovery::proves(proof, root.key, peer, me)) {
            self.turn_away(Reason::Stranger);
            return;
        }
        proving.introduced = true;
        self.send(have(graph));
        for message in chunks(graph.statements().collect()) {
            self.send(message);
        }
        self.send(TrustMessage::Merged { set: graph.set_digest() });
    }

    /// Tries whether what the peer presents proves that it belongs.
    fn try_proof(&mut self, statements: Vec<Signed>, graph: &Graph) {
        let peer = self.peer;
        let Phase::Proving(proving) = &mut self.phase else { return };
        proving.bytes += bytes_of(&statements);
        if proving.named.is_none() {
            self.turn_away(Reason::OutOfTurn);
            return;
        }
        // The frame and the list around the statements are not theirs.
        if proving.bytes > STRANGER_BYTES_MAX {
            self.turn_away(Reason::TooMuch);
            return;
        }
        let trial = proving.trial.get_or_insert_with(|| Box::new(graph.clone()));
        for signed in statements {
            if trial.insert(signed.clone()).is_ok() {
                proving.presented.push(signed);
            }
        }
        // Nobody's word about others is taken from a peer that has not proved itself. One that is
        // out although all of this is so has proved nothing: it would but fill the graph, and freeze
        // others with what it dates back.
        if listed(&peer, trial) {
            let known = |signed: &&Signed| !graph.contains(&statement_id(signed));
            let learned: Vec<Signed> = proving.presented.iter().filter(known).cloned().collect();
            if !learned.is_empty() {
                self.outputs.push_back(Output::Learned(learned));
            }
            return;
        }
        // A key that took the place of one that is out is out with it, and hears of that.
        let is_news =
            graph.state().revocation(&peer).is_none() && trial.state().revocation(&peer).is_some();
        if is_news && !std::mem::replace(&mut proving.is_told, true) {
            let named = proving.named.iter().flatten().copied().collect();
            for message in revocation(&peer, &named, trial) {
                self.send(message);
            }
        }
    }

    /// Begins to make the graphs equal with a peer that belongs, or is suspended.
    fn merge(
        &mut self,
        theirs: Option<BTreeSet<StatementId>>,
        heard: Option<Digest>,
        introduced: bool,
        graph: &Graph,
        now: Now,
    ) {
        if !introduced {
            self.send(have(graph));
        }
        let until = Some(now.mono + MERGE_TIME);
        let (merged, said) = (false, None);
        self.phase = Phase::Merging(Merging { until, merged, theirs, said, heard });
        self.bring_up(graph);
    }

    /// Sends what the peer lacks, and says what is here when nothing of the peer's is lacking.
    fn bring_up(&mut self, graph: &Graph) {
        let member = graph.state().member(&self.peer).is_some();
        let Phase::Merging(merging) = &mut self.phase else { return };
        let Some(theirs) = &mut merging.theirs else { return };
        let lacking: Vec<&Signed> =
            graph.statements().filter(|signed| !theirs.contains(&statement_id(signed))).collect();
        let messages = chunks(lacking);
        theirs.extend(graph.ids());
        let complete = theirs.iter().all(|id| graph.contains(id));
        let set = graph.set_digest();
        let say = complete && merging.said != Some(set);
        if say {
            merging.said = Some(set);
        }
        let equal = complete && merging.heard == Some(set);
        if equal {
            merging.until = None;
        }
        // One that is suspended gets all statements, and nothing else.
        let newly = equal && member && !merging.merged;
        merging.merged = member && (merging.merged || newly);
        for message in messages {
            self.send(message);
        }
        if say {
            self.send(TrustMessage::Merged { set });
        }
        if newly {
            self.outputs.push_back(Output::Merged);
        }
    }

    /// Gives a revoked peer what proves that it is.
    fn give_revoke(&mut self, theirs: &BTreeSet<StatementId>, graph: &Graph) {
        for message in revocation(&self.peer, theirs, graph) {
            self.send(message);
        }
    }

    fn unlisted_reason(&self, graph: &Graph) -> Reason {
        let by_trial = match &self.phase {
            Phase::Proving(proving) => proving.trial(graph).state().revocation(&self.peer),
            Phase::Merging(_) | Phase::Ended => None,
        };
        match graph.state().revocation(&self.peer).or(by_trial) {
            Some(_) => Reason::Revoked,
            None => Reason::Stranger,
        }
    }

    fn turn_away(&mut self, reason: Reason) {
        self.phase = Phase::Ended;
        self.outputs.push_back(Output::TurnedAway(reason));
    }

    fn send(&mut self, message: TrustMessage) {
        self.outputs.push_back(Output::Send(message));
    }
}

/// Whether a statement can decide which others count.
fn settles(graph: &Graph, id: &StatementId) -> bool {
    graph.state().verdicts.get(id) == Some(&Verdict::Counts)
        && graph.body(id).is_some_and(|body| match body {
            StatementBody::Revoke(_)
            | StatementBody::SetRole(_)
            | StatementBody::Keep(_)
            | StatementBody::Rotate(_)
            | StatementBody::RootRotate(_)
            | StatementBody::Epoch(_) => true,
            StatementBody::Genesis(_)
            | StatementBody::Add(_)
            | StatementBody::Require(_)
            | StatementBody::Cosign(_)
            | StatementBody::Rename(_)
            | StatementBody::Unknown(_) => false,
        })
}

/// Whether the peer belongs, or is suspended: it gets and gives all statements.
fn listed(peer: &DeviceId, graph: &Graph) -> bool {
    graph.state().devices.get(peer).is_some_and(|device| match device.standing {
        Standing::Active | Standing::Suspended { .. } => true,
        Standing::Revoked { .. } => false,
    })
}

/// What proves to a revoked peer that it is, of what it does not hold.
fn revocation(peer: &DeviceId, theirs: &BTreeSet<StatementId>, graph: &Graph) -> Vec<TrustMessage> {
    let Some(revoke) = graph.state().revocation(peer) else { return Vec::new() };
    let known: Vec<StatementId> = theirs.iter().copied().collect();
    let proves = |proof: &[StatementId]| {
        graph.state_at(&[&known, proof].concat()).revocation(peer).is_some()
    };
    let mut proof = vec![revoke];
    // It may know of something against its `Revoke`; then it is given what settled that.
    if !proves(&proof) {
        proof.extend(graph.ids().filter(|id| settles(graph, id)));
    }
    let proof: BTreeSet<StatementId> =
        proof.iter().flat_map(|id| graph.ancestry(id)).map(statement_id).collect();
    let lacking = graph.statements().filter(|signed| {
        let id = statement_id(signed);
        proof.contains(&id) && !theirs.contains(&id)
    });
    chunks(lacking.collect())
}

fn have(graph: &Graph) -> TrustMessage {
    TrustMessage::Have { fabric: graph.fabric(), ids: graph.ids().copied().collect() }
}

/// Packs statements into messages, in their order.
fn chunks(statements: Vec<&Signed>) -> Vec<TrustMessage> {
    const { assert!(CHUNK_BYTES_MAX < FRAME_BYTES_MAX) }
    let packed = packed(statements, CHUNK_BYTES_MAX);
    packed.into_iter().map(|statements| TrustMessage::Statements { statements }).collect()
}

/// Packs statements, in their order, so that none but a single one takes more than so many
/// bytes.
pub(crate) fn packed<'a>(
    statements: impl IntoIterator<Item = &'a Signed>,
    bytes_max: usize,
) -> Vec<Vec<Signed>> {
    let mut packs: Vec<Vec<Signed>> = Vec::new();
    let mut bytes = 0;
    for signed in statements {
        let len = bytes_of(std::slice::from_ref(signed));
        match packs.last_mut().filter(|_| bytes + len <= bytes_max) {
            Some(pack) => pack.push(signed.clone()),
            None => {
                packs.push(vec![signed.clone()]);
                bytes = 0;
            }
        }
        bytes += len;
    }
    packs
}

/// How many bytes statements take in a message.
pub(crate) fn bytes_of(statements: &[Signed]) -> usize {
    statements.iter().map(|signed| codec::encode(signed).len()).sum()
}

#[cfg(test)]
mod tests;

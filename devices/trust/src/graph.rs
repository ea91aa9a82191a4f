//! The graph: all statements of one fabric that are here.
//!
//! A statement enters when its signature holds, its parents are here and its author is or was a
//! device of the fabric as the statement itself knew it. Each of these follows from the statement
//! and its ancestors alone, so two graphs that were offered the same statements hold the same,
//! whatever the order. What they add up to is [`State`].

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use weft_protocol::{
    codec::DecodeError,
    id::{DeviceId, Digest, FabricId, StatementId},
    signed::{Domain, Signed, SignedError},
    statement::{DEPS_MAX, STATEMENT_BYTES_MAX, Statement, StatementBody},
};

use crate::{
    bits::Bits,
    state::{self, Claim, State},
};

/// The most statements that wait for a parent. A peer sends parents first, so honest ones are few.
pub const PARKED_MAX: usize = 256;

/// The most bytes of statements that wait for a parent.
pub const PARKED_BYTES_MAX: usize = 1 << 20;

/// The most bytes of statements that a new device takes of a fabric: many times what 64 devices
/// come to, and what a score of members that mean harm make of it within their bounds.
pub const GRAPH_BYTES_MAX: usize = 16 << 20;

/// The most statements that a device which is no admin makes, under all keys that it had in turn,
/// those by which it replaced one not counted. It may name itself, and nothing else; without a
/// bound one member could make the graph so large that no other device takes it, and recovery with
/// it impossible for ever. Only what is in a statement's past is counted, so all agree.
pub const OWN_MAX: usize = 64;

/// The largest such statement, in bytes: a name, and as many parents as there may be.
pub const OWN_BYTES_MAX: usize = 4 << 10;

/// How often such a device replaces its key. It stays possible when [`OWN_MAX`] is reached.
pub const ROTATIONS_MAX: usize = 16;

/// The most statements of one key, an admin's or the root's too: more than a person says in a life.
/// The key may still be replaced then.
pub const KEY_STATEMENTS_MAX: u64 = 4096;

/// Why a statement does not enter.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StatementError {
    /// The signature is not its author's.
    #[error("take a statement: {0}")]
    Forged(#[source] SignedError),
    /// It is signed and no statement.
    #[error("take a statement of {author:?}: {source}")]
    Malformed {
        /// Who signed it.
        author: DeviceId,
        /// What is wrong with the bytes.
        source: DecodeError,
    },
    /// Its fields contradict each other or the author's statement before it.
    #[error("take a statement of {author:?}: {why}")]
    Inconsistent {
        /// Who signed it.
        author: DeviceId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It is about another fabric.
    #[error("take a statement of {author:?}: it is of another fabric")]
    OtherFabric {
        /// Who signed it.
        author: DeviceId,
    },
    /// Its author was never a device of the fabric in its past.
    #[error("take a statement of {author:?}: it never belonged to the fabric")]
    Stranger {
        /// Who signed it.
        author: DeviceId,
    },
    /// Its author is no admin, and has said as much as such a device may.
    #[error("take a statement of {author:?}: it is no admin and has said too much")]
    TooOften {
        /// Who signed it.
        author: DeviceId,
    },
    /// Its author's key has made [`KEY_STATEMENTS_MAX`] statements.
    #[error("take a statement of {author:?}: its key has made {KEY_STATEMENTS_MAX}")]
    Spent {
        /// Who signed it.
        author: DeviceId,
    },
    /// Its parents are not here, and no more statements can wait.
    #[error("keep a statement that waits for another: {PARKED_MAX} wait already")]
    ParkedFull,
    /// There is no `Genesis` among the statements.
    #[error("begin a fabric: its first statement is missing")]
    NoGenesis,
}

/// What became of a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// It entered, and with it those that had waited for it.
    Added(Vec<StatementId>),
    /// It is here already.
    Known,
    /// It waits for a parent.
    Parked,
}

/// All statements of one fabric that are here.
#[derive(Clone, Debug)]
pub struct Graph {
    fabric: FabricId,
    /// Parents first.
    entries: Vec<Entry>,
    places: BTreeMap<StatementId, usize>,
    parked: BTreeMap<StatementId, Signed>,
    parked_bytes: usize,
    state: State,
}

/// A statement in its place.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: StatementId,
    pub(crate) signed: Signed,
    pub(crate) author: DeviceId,
    pub(crate) seq: u64,
    /// The place of the author's statement before.
    pub(crate) prev: Option<usize>,
    pub(crate) body: StatementBody,
    /// The length of the longest way down to `Genesis`. With the id it orders any set of
    /// statements, parents first.
    pub(crate) depth: u64,
    /// All its ancestors, without itself.
    pub(crate) past: Bits,
    /// What its author might do, by its ancestors alone.
    pub(crate) claim: Claim,
}

impl Entry {
    /// Whether it puts `key` in its author's place, if it counts.
    fn replaces_by(&self, key: &DeviceId) -> bool {
        matches!(&self.body, StatementBody::Rotate(rotate) if rotate.device == *key)
            && self.claim.is_some()
    }
}

impl Graph {
    /// Begins with `Genesis`.
    ///
    /// # Errors
    ///
    /// It is forged, malformed or not a `Genesis`.
    pub fn new(genesis: Signed) -> Result<Self, StatementError> {
        let (statement, body) = read(&genesis)?;
        let inconsistent = |why| StatementError::Inconsistent { author: genesis.author, why };
        let StatementBody::Genesis(first) = &body else { return Err(StatementError::NoGenesis) };
        if statement.fabric.is_some()
            || statement.seq != 0
            || statement.prev.is_some()
            || !statement.deps.is_empty()
        {
            return Err(inconsistent("a first statement refers to others"));
        }
        if first.generation.number != 0 {
            return Err(inconsistent("the first data key is not the first"));
        }
        if first.root.is_some_and(|root| root.key == genesis.author) {
            return Err(inconsistent("the first device is the root"));
        }
        let id = statement_id(&genesis);
        let fabric = FabricId::from_bytes(*id.as_bytes());
        let entry = Entry {
            id,
            author: genesis.author,
            signed: genesis,
            seq: 0,
            prev: None,
            body,
            depth: 0,
            past: Bits::default(),
            claim: Claim::GENESIS,
        };
        let entries = vec![entry];
        let state = state::evaluate(fabric, &entries, None);
        Ok(Self {
            fabric,
            entries,
            places: BTreeMap::from([(id, 0)]),
            parked: BTreeMap::new(),
            parked_bytes: 0,
            state,
        })
    }

    /// Builds the graph of statements in any order. What does not enter is left out.
    ///
    /// # Errors
    ///
    /// There is no `Genesis` among them, or it is not good.
    pub fn from_statements(
        statements: impl IntoIterator<Item = Signed>,
    ) -> Result<Self, StatementError> {
        let mut waiting: Vec<Signed> = statements.into_iter().collect();
        let is_genesis =
            |signed: &Signed| matches!(read(signed), Ok((_, StatementBody::Genesis(_))));
        let first = waiting.iter().position(is_genesis).ok_or(StatementError::NoGenesis)?;
        let mut graph = Self::new(waiting.swap_remove(first))?;
        loop {
            let before = waiting.len();
            waiting.retain(|signed| match parents(signed) {
                Some(parents) if parents.iter().all(|id| graph.contains(id)) => {
                    // One bad statement leaves the others as they are.
                    drop(graph.insert(signed.clone()));
                    false
                }
                Some(_) => true,
                None => false,
            });
            if waiting.len() == before {
                return Ok(graph);
            }
        }
    }

    /// Offers a statement.
    ///
    /// # Errors
    ///
    /// Why it can never enter, or that too many wait already.
    pub fn insert(&mut self, signed: Signed) -> Result<Inserted, StatementError> {
        let id = statement_id(&signed);
        if self.contains(&id) {
            return Ok(Inserted::Known);
        }
        if self.parked.contains_key(&id) {
            return Ok(Inserted::Parked);
        }
        let (statement, body) = read(&signed)?;
        self.check(&signed, &statement, &body)?;
        if self.lacks_parent(&statement) {
            let bytes = self.parked_bytes + signed.bytes.len();
            if self.parked.len() >= PARKED_MAX || bytes > PARKED_BYTES_MAX {
                return Err(StatementError::ParkedFull);
            }
            self.parked_bytes = bytes;
            self.parked.insert(id, signed);
            return Ok(Inserted::Parked);
        }
        self.place(id, signed, statement, body)?;
        let mut added = vec![id];
        while let Some(signed) = self.unpark() {
            let id = statement_id(&signed);
            let Ok((statement, body)) = read(&signed) else { continue };
            if self.place(id, signed, statement, body).is_ok() {
                added.push(id);
            }
        }
        Ok(Inserted::Added(added))
    }

    /// The fabric.
    pub const fn fabric(&self) -> FabricId {
        self.fabric
    }

    /// What the statements add up to.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// What the statements up to `heads` add up to: the state as one knew it who knew these.
    ///
    /// Ids that are not here are passed over.
    pub fn state_at(&self, heads: &[StatementId]) -> State {
        let mut within = Bits::default();
        within.insert(0);
        for place in heads.iter().filter_map(|id| self.places.get(id)) {
            within.union(&self.entries[*place].past);
            within.insert(*place);
        }
        state::evaluate(self.fabric, &self.entries, Some(&within))
    }

    /// Whether the statement is here.
    pub fn contains(&self, id: &StatementId) -> bool {
        self.places.contains_key(id)
    }

    /// The statement, if it is here.
    pub fn get(&self, id: &StatementId) -> Option<&Signed> {
        self.places.get(id).map(|place| &self.entries[*place].signed)
    }

    /// What the statement says, if it is here.
    pub fn body(&self, id: &StatementId) -> Option<&StatementBody> {
        self.places.get(id).map(|place| &self.entries[*place].body)
    }

    /// The keys that a device had before this one, the newest first: those in whose place each stepped by a
    /// `Rotate` with its consent. Whether these count is not asked, so that the answer for a key never
    /// changes once it is here: what lies on a disk is found by it.
    pub fn former(&self, device: &DeviceId) -> Vec<DeviceId> {
        let mut former = Vec::new();
        let mut key = *device;
        // A key consents to one succession, and none is brought in that was there before.
        while let Some(before) = self.entries.iter().find(|entry| entry.replaces_by(&key)) {
            key = before.author;
            former.push(key);
        }
        former
    }

    /// The ids of all statements, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &StatementId> {
        self.places.keys()
    }

    /// The hash of the set: equal where two devices hold the same statements.
    pub fn set_digest(&self) -> Digest {
        let ids: Vec<u8> = self.ids().flat_map(|id| *id.as_bytes()).collect();
        Digest::of(&ids)
    }

    /// The statements that no other names as its parent, sorted.
    pub fn heads(&self) -> Vec<StatementId> {
        let mut named = Bits::default();
        for entry in &self.entries {
            named.union(&entry.past);
        }
        let heads = self.places.iter().filter(|(_, place)| !named.contains(**place));
        heads.map(|(id, _)| *id).collect()
    }

    /// The statements that waiting ones name and that are not here, sorted.
    pub fn missing(&self) -> BTreeSet<StatementId> {
        let named = self.parked.values().filter_map(parents).flatten();
        named.filter(|id| !self.contains(id) && !self.parked.contains_key(id)).collect()
    }

    /// All statements, parents first, in an order that the set alone decides.
    pub fn statements(&self) -> impl Iterator<Item = &Signed> {
        let mut order: Vec<&Entry> = self.entries.iter().collect();
        order.sort_by_key(|entry| (entry.depth, entry.id));
        order.into_iter().map(|entry| &entry.signed)
    }

    /// A statement and all that it rests on, parents first; nothing if it is not here.
    pub fn ancestry(&self, id: &StatementId) -> Vec<&Signed> {
        let Some(top) = self.places.get(id) else { return Vec::new() };
        let past = &self.entries[*top].past;
        let mut order: Vec<usize> =
            (0..self.entries.len()).filter(|at| at == top || past.contains(*at)).collect();
        order.sort_by_key(|at| (self.entries[*at].depth, self.entries[*at].id));
        order.into_iter().map(|at| &self.entries[at].signed).collect()
    }

    /// How many statements `author` made, and its newest.
    pub fn newest_of(&self, author: &DeviceId) -> Option<(u64, StatementId)> {
        newest(self.entries.iter(), author)
    }

    /// As [`Self::newest_of`], among `heads` and what they rest on.
    pub(crate) fn newest_of_within(
        &self,
        author: &DeviceId,
        heads: &[StatementId],
    ) -> Option<(u64, StatementId)> {
        let mut within = Bits::default();
        for place in heads.iter().filter_map(|id| self.places.get(id)) {
            within.union(&self.entries[*place].past);
            within.insert(*place);
        }
        newest(self.entries_in(&within), author)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn entries_in<'a>(&'a self, places: &'a Bits) -> impl Iterator<Item = &'a Entry> {
        let within = self.entries.iter().enumerate().filter(|(place, _)| places.contains(*place));
        within.map(|(_, entry)| entry)
    }

    /// How many statements within `past` the author made without being an admin, under all keys that
    /// it had in turn: those by which it replaced one, and the others.
    fn said_within(&self, past: &Bits, author: DeviceId) -> (usize, usize) {
        let rotations = || {
            let within = self.entries_in(past);
            within.filter(|it| it.claim.is_some() && matches!(it.body, StatementBody::Rotate(_)))
        };
        let mut keys = BTreeSet::from([author]);
        let mut waiting = vec![author];
        while let Some(key) = waiting.pop() {
            let before = rotations().filter(|it| it.replaces_by(&key)).map(|it| it.author);
            waiting.extend(before.filter(|before| keys.insert(*before)));
        }
        let rotations = rotations().filter(|it| keys.contains(&it.author)).count();
        let own = self
            .entries_in(past)
            .filter(|it| keys.contains(&it.author) && !it.claim.leads())
            .count();
        (own.saturating_sub(rotations), rotations)
    }

    /// What a statement by itself must fulfil.
    fn check(
        &self,
        signed: &Signed,
        statement: &Statement,
        body: &StatementBody,
    ) -> Result<(), StatementError> {
        let author = signed.author;
        let inconsistent = |why| Err(StatementError::Inconsistent { author, why });
        if matches!(body, StatementBody::Genesis(_)) || statement.fabric != Some(self.fabric) {
            return Err(StatementError::OtherFabric { author });
        }
        if statement.deps.is_empty() || statement.deps.len() > DEPS_MAX {
            return inconsistent("it names no parent, or too many");
        }
        if !statement.deps.is_sorted_by(|a, b| a < b) {
            return inconsistent("its parents repeat or are out of order");
        }
        if (statement.seq == 0) == statement.prev.is_some() {
            return inconsistent("its place among its author's statements contradicts itself");
        }
        if statement.seq == 0 && author == self.entries[0].author {
            return inconsistent("its author's first statement is another");
        }
        Ok(())
    }

    fn lacks_parent(&self, statement: &Statement) -> bool {
        statement.deps.iter().chain(&statement.prev).any(|id| !self.contains(id))
    }

    /// Takes a waiting statement whose parents have come, the smallest id first.
    fn unpark(&mut self) -> Option<Signed> {
        let ready = |signed: &Signed| {
            parents(signed).is_some_and(|parents| parents.iter().all(|id| self.contains(id)))
        };
        let id = self.parked.iter().find(|(_, signed)| ready(signed)).map(|(id, _)| *id)?;
        let signed = self.parked.remove(&id)?;
        self.parked_bytes -= signed.bytes.len();
        Some(signed)
    }

    /// Enters a statement whose parents are here.
    fn place(
        &mut self,
        id: StatementId,
        signed: Signed,
        statement: Statement,
        body: StatementBody,
    ) -> Result<(), StatementError> {
        let author = signed.author;
        let prev = statement.prev.map(|prev| self.places[&prev]);
        if prev.is_some_and(|prev| {
            let prev = &self.entries[prev];
            prev.author != author || prev.seq.checked_add(1) != Some(statement.seq)
        }) {
            let why = "it does not follow its author's statement before";
            return Err(StatementError::Inconsistent { author, why });
        }
        let (mut past, mut depth) = (Bits::default(), 0);
        for parent in statement.deps.iter().map(|id| self.places[id]).chain(prev) {
            past.union(&self.entries[parent].past);
            past.insert(parent);
            depth = depth.max(self.entries[parent].depth + 1);
        }
        let state = if past.len() == self.entries.len() {
            &self.state
        } else {
            &state::evaluate(self.fabric, &self.entries, Some(&past))
        };
        if !state.has_known(&author) {
            return Err(StatementError::Stranger { author });
        }
        let seq = statement.seq;
        let claim = state::claim(state, &self.entries, &self.places, &past, author, &body);
        let succeeds = claim.is_some()
            && matches!(body, StatementBody::Rotate(_) | StatementBody::RootRotate(_));
        let spent = KEY_STATEMENTS_MAX + if succeeds { ROTATIONS_MAX as u64 } else { 0 };
        if seq >= spent {
            return Err(StatementError::Spent { author });
        }
        // What a newer program makes of an author is not known here.
        let leads = state.is_admin(&author) || state.is_root(&author);
        if !leads && state.update_needed.is_none() {
            let (own, rotations) = self.said_within(&past, author);
            let allowed = if succeeds {
                rotations < ROTATIONS_MAX
            } else {
                own < OWN_MAX && signed.bytes.len() <= OWN_BYTES_MAX
            };
            if !allowed {
                return Err(StatementError::TooOften { author });
            }
        }
        self.places.insert(id, self.entries.len());
        self.entries.push(Entry { id, signed, author, seq, prev, body, depth, past, claim });
        self.state = state::evaluate(self.fabric, &self.entries, None);
        Ok(())
    }
}

/// The id by which statements refer to this one.
pub fn statement_id(signed: &Signed) -> StatementId {
    StatementId::from_bytes(*signed.digest().as_bytes())
}

/// The ids that a statement rests on, without checking its signature; none if it is no statement.
fn parents(signed: &Signed) -> Option<Vec<StatementId>> {
    let statement: Statement =
        weft_protocol::codec::decode(&signed.bytes, STATEMENT_BYTES_MAX).ok()?;
    Some(statement.deps.into_iter().chain(statement.prev).collect())
}

/// The number and the id of the author's newest among `entries`.
fn newest<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    author: &DeviceId,
) -> Option<(u64, StatementId)> {
    let own = entries.filter(|entry| entry.author == *author);
    own.map(|entry| (entry.seq, entry.id)).max()
}

fn read(signed: &Signed) -> Result<(Statement, StatementBody), StatementError> {
    let author = signed.author;
    let statement: Statement =
        signed.open(Domain::Statement, STATEMENT_BYTES_MAX).map_err(|error| match error {
            SignedError::Forged { .. } => StatementError::Forged(error),
            SignedError::Decode(source) => StatementError::Malformed { author, source },
        })?;
    let body = statement.body().map_err(|source| StatementError::Malformed { author, source })?;
    Ok((statement, body))
}

#[cfg(test)]
mod tests;

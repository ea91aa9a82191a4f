//! Heads of audit chains: shown to other devices, countersigned, and held against each other.
//!
//! A device signs and shows its newest head that is on disk. Whoever sees it signs that back and keeps
//! it, so that a chain that is rewritten, cut or forked afterwards is named by the others. A device that
//! is shown a head of its own that it lacks was set back, and owns up to it in its chain; two heads for
//! one place of a segment are a fork, whose proof is kept and goes to all devices.
//!
//! A disk that was set back and a copy of a disk look alike at a start. They differ by what comes later:
//! starts of one machine follow each other. So another machine runs with a device's key where
//!
//! - a witness that has countersigned what the device wrote since its start shows it a later head which
//!   the device never wrote (`Witnesses::is_after_own`);
//! - a device shows the head of a start after another start has taken its place (`Witnesses::is_over`).
//!
//! Neither of the two can know that it is the real one. Both say so, and own up to nothing any more: the
//! other goes on, and each owning up would be the other's next lost head.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use weft_protocol::{
    audit::{AuditMessage, Head},
    codec,
    id::DeviceId,
    row::{Item, ReadError, Row, Rows, Table, Write},
    signed::Signed,
    time::{Timestamp, WallTime},
    witness::{Fork, SignedHead, WITNESS_BYTES_MAX, Witness},
};

use crate::audit::Chain;

/// Heads are shown at most so often: a burst of records is one head.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// So many heads of each other device are held against what is said of its chain: the last minute of a
/// busy one.
const RECENT_MAX: usize = 64;

/// The row of a chain's scope that holds the proof of its being forked.
const FORK: &[u8] = b"fork";

/// The row of a chain's scope that says since when another machine is known to run with its key.
const COPIED: &[u8] = b"copied";

/// The most bytes of a stored time.
const TIME_BYTES_MAX: usize = 16;

/// What came of a message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// To persist, without waiting.
    pub writes: Vec<Write>,
    /// To answer.
    pub answer: Option<AuditMessage>,
    /// A chain is forked, which was not known here: all other devices are to be told.
    pub fork: Option<Fork>,
    /// A head of this device's own chain that its disk has lost: the chain must own up to it
    /// ([`Chain::recover`]) in the transaction of the writes.
    pub lost: Option<Head>,
    /// Another machine runs with the key of that device, which was not known here:
    /// [`Witnesses::copied`] follows.
    pub copied: Option<DeviceId>,
    /// What a person should know.
    pub warning: Option<String>,
}

/// The machine.
#[derive(Debug)]
pub struct Witnesses {
    me: DeviceId,
    /// The furthest head of each other device that was seen here.
    others: BTreeMap<DeviceId, SignedHead>,
    /// The last heads of each other device that were seen here since the start.
    recent: BTreeMap<DeviceId, VecDeque<SignedHead>>,
    /// The last head of each start of another device that a later one took the place of, as seen here since
    /// the start.
    over: BTreeMap<DeviceId, VecDeque<Head>>,
    /// The furthest head of this device that each other device countersigned.
    mine: BTreeMap<DeviceId, Head>,
    /// The furthest position of what this device wrote since its start that each other device
    /// countersigned.
    own: BTreeMap<DeviceId, u64>,
    /// Lost heads that the chain has owned up to since the start.
    recovered: Vec<Head>,
    /// The chains that are forked.
    forks: BTreeMap<DeviceId, Fork>,
    /// The devices with whose key another machine runs, and since when that is known.
    copies: BTreeMap<DeviceId, WallTime>,
    /// The head that is being made durable, or was.
    asked: Option<Head>,
    asked_at: Timestamp,
    /// The newest head that is on disk for sure: only this one leaves the device.
    durable: Option<SignedHead>,
}

impl Witnesses {
    /// Reads what was seen before. What does not hold is passed over; [`witnessed`] names it.
    ///
    /// # Errors
    ///
    /// The rows cannot be read.
    pub fn open(me: DeviceId, rows: &dyn Rows) -> Result<Self, ReadError> {
        let (mut others, mut mine, mut forks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut copies = BTreeMap::new();
        for (row, bytes) in rows.scan_table(Table::Witness)? {
            if row.item == Item::Named(FORK.to_vec()) {
                forks.extend(Fork::decode(&bytes).map(|fork| (fork.device(), fork)));
            } else if row.item == Item::Named(COPIED.to_vec()) {
                let device = row.scope.try_into().map(DeviceId::from_bytes);
                copies.extend(device.ok().zip(codec::decode(&bytes, TIME_BYTES_MAX).ok()));
            } else if let Some(witness) = read(&row.scope, &row.item, &bytes) {
                let head = *witness.head().head();
                if head.device == me {
                    mine.insert(witness.by(), head);
                } else if witness.by() == me {
                    others.insert(head.device, witness.head().clone());
                }
            }
        }
        Ok(Self {
            me,
            others,
            recent: BTreeMap::new(),
            over: BTreeMap::new(),
            mine,
            own: BTreeMap::new(),
            recovered: Vec::new(),
            forks,
            copies,
            asked: None,
            asked_at: Timestamp::ZERO,
            durable: None,
        })
    }

    /// Whether the chain has a head that was not shown yet, and when it may be.
    pub fn poll_timeout(&self, chain: &Chain) -> Option<Timestamp> {
        (chain.head() != self.asked).then(|| self.asked_at + SHOW_EVERY)
    }

    /// The head to make durable now, if one is due; [`Self::synced`] follows when it is.
    pub fn due(&mut self, chain: &Chain, now: Timestamp) -> Option<Head> {
        let head = chain.head()?;
        if Some(head) == self.asked || self.asked_at + SHOW_EVERY > now {
            return None;
        }
        self.asked = Some(head);
        self.asked_at = now;
        Some(head)
    }

    /// A head is on disk, with all before it. Gives what to tell all devices.
    pub fn synced(&mut self, head: Head, chain: &Chain) -> AuditMessage {
        let head = self.durable.insert(chain.sign(head));
        AuditMessage::Head(head.signed().clone())
    }

    /// What to say to a device that came: the furthest heads that were seen here, of its chain first,
    /// the proofs of forks, and this device's own head.
    pub fn greeting(&self, device: &DeviceId, chain: &Chain) -> Vec<AuditMessage> {
        let its = self.others.get(device);
        let others = self.others.iter().filter(|(of, _)| *of != device).map(|(_, head)| head);
        let witnesses = its.into_iter().chain(others).map(|head| countersigned(head, chain));
        let forks = self.forks.values().map(told);
        let own = self.durable.iter().map(|head| AuditMessage::Head(head.signed().clone()));
        witnesses.chain(forks).chain(own).collect()
    }

    /// The chains that are known to be forked, with the proof.
    pub fn forks(&self) -> impl Iterator<Item = &Fork> {
        self.forks.values()
    }

    /// The devices with whose key another machine runs, and since when that is known.
    pub fn copies(&self) -> impl Iterator<Item = (&DeviceId, WallTime)> {
        self.copies.iter().map(|(device, since)| (device, *since))
    }

    /// Another machine runs with the key of a device. Gives what keeps that in mind.
    pub fn copied(&mut self, device: DeviceId, now: WallTime) -> Write {
        self.copies.insert(device, now);
        let row = Row::named(Table::Witness, device.as_bytes(), COPIED);
        Write::Put(row, codec::encode(&now))
    }

    /// Takes in another device's head, its countersignature of a head, or the proof of a fork.
    ///
    /// `is_member` says of whose chains anything is kept.
    pub fn handle_message(
        &mut self,
        from: DeviceId,
        from_name: &str,
        message: AuditMessage,
        is_member: impl Fn(&DeviceId) -> bool,
        chain: &Chain,
        rows: &dyn Rows,
    ) -> Seen {
        match message {
            AuditMessage::Head(signed) => match SignedHead::open(signed) {
                Ok(head) if head.head().device == from => self.head(from_name, head, chain),
                Ok(_) | Err(_) => Seen::default(),
            },
            AuditMessage::Witness(signed) => match Witness::open(signed) {
                Ok(witness) if witness.by() != from => Seen::default(),
                Ok(witness) if witness.head().head().device == self.me => {
                    self.witnessed(from_name, witness, chain, rows)
                }
                // Somebody else's head, as that device saw it: it may be another one than was seen here.
                Ok(witness) => {
                    let fork = self.fork_with(witness.head());
                    fork.map(|fork| self.learn(fork)).unwrap_or_default()
                }
                Err(_) => Seen::default(),
            },
            AuditMessage::Fork(one, other) => match Fork::open(one, other) {
                Some(fork) if fork.device() == self.me || is_member(&fork.device()) => {
                    self.learn(fork)
                }
                Some(_) | None => Seen::default(),
            },
            // Bodies go to servers in a later release; a node that asks is not answered.
            AuditMessage::Want { .. } | AuditMessage::Records { .. } => Seen::default(),
        }
    }

    /// Another device shows the head of its own chain.
    fn head(&mut self, name: &str, shown: SignedHead, chain: &Chain) -> Seen {
        if let Some(fork) = self.fork_with(&shown) {
            return self.learn(fork);
        }
        let head = *shown.head();
        let is_known_copy = self.copies.contains_key(&head.device);
        let copied = Some(head.device).filter(|_| self.is_over(&head) && !is_known_copy);
        let is_copy = is_known_copy || copied.is_some();
        if let Some(known) = self.others.get(&head.device) {
            let answer = Some(countersigned(known, chain));
            // A disk that is set back goes on in another segment; in the same one an earlier head is late.
            let is_late =
                head.segment == known.head().segment && head.position <= known.head().position;
            if is_late {
                return Seen { answer, ..Seen::default() };
            }
            let known = *known.head();
            if head.position <= known.position {
                let warning = (!is_copy).then(|| {
                    format!(
                        "the audit chain of {name} ends at record {}, and record {} of it was seen here before: its disk was set back",
                        head.position, known.position
                    )
                });
                return Seen { answer, copied, warning, ..Seen::default() };
            }
            if head.segment != known.segment {
                let over = self.over.entry(head.device).or_default();
                if over.len() >= RECENT_MAX {
                    over.pop_front();
                }
                over.push_back(known);
            }
        }
        let recent = self.recent.entry(head.device).or_default();
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(shown.clone());
        let witness = chain.countersign(shown.clone());
        self.others.insert(head.device, shown);
        let row = Row::named(Table::Witness, head.device.as_bytes(), self.me.as_bytes());
        Seen {
            writes: vec![Write::Put(row, codec::encode(witness.signed()))],
            answer: Some(AuditMessage::Witness(witness.signed().clone())),
            copied,
            ..Seen::default()
        }
    }

    /// Whether a start that shows this head was seen to be followed by another start. Whoever shows it runs
    /// now: a head is heard only on the newest stream with its device, which no machine opened that is gone.
    fn is_over(&self, head: &Head) -> bool {
        let mut over = self.over.get(&head.device).into_iter().flatten();
        let current = self.others.get(&head.device).map(|known| known.head().segment);
        current != Some(head.segment) && over.any(|it| it.segment == head.segment)
    }

    /// Whether a witness saw this head after one that this device wrote since its start: it countersigns
    /// what is further than what it saw, so that this one is further, and came to it later.
    fn is_after_own(&self, by: &DeviceId, head: &Head) -> bool {
        self.own.get(by).is_some_and(|own| *own < head.position)
    }

    /// Another device has seen a head that this one signed.
    fn witnessed(&mut self, name: &str, witness: Witness, chain: &Chain, rows: &dyn Rows) -> Seen {
        let head = *witness.head().head();
        let own = match chain.head_at(head.position, rows) {
            Ok(own) => own,
            Err(error) => return Seen { warning: Some(error.to_string()), ..Seen::default() },
        };
        let mut seen = Seen::default();
        let by = witness.by();
        let is_known_copy = self.copies.contains_key(&self.me);
        match own {
            Some(own) if own.digest == head.digest => {
                let durable = self.durable.as_ref().map(|it| it.head().segment);
                if durable == Some(head.segment) {
                    let own = self.own.entry(by).or_default();
                    *own = head.position.max(*own);
                }
            }
            Some(own) if own.segment == head.segment => {
                let own = chain.sign(Head { digest: own.digest, ..head });
                if let Some(fork) = Fork::of(own, witness.head().clone()) {
                    return self.learn(fork);
                }
            }
            Some(_) | None if self.is_owned_up_to(&head) => {}
            // Not this machine's, so nothing that its chain must have.
            Some(_) | None if is_known_copy || self.is_after_own(&by, &head) => {
                seen.copied = Some(self.me).filter(|_| !is_known_copy);
                return seen;
            }
            Some(_) | None => {
                self.recovered.push(head);
                seen.lost = Some(head);
                let end = chain.head().map_or(0, |own| own.position);
                seen.warning = Some(format!(
                    "{name} has seen record {} of this device's audit chain, which is not on its disk any more: this disk was set back; the chain had {end} as its last record",
                    head.position
                ));
            }
        }
        if self.mine.get(&by).is_none_or(|known| known.position < head.position) {
            self.mine.insert(by, head);
            let row = Row::named(Table::Witness, self.me.as_bytes(), by.as_bytes());
            seen.writes.push(Write::Put(row, codec::encode(witness.signed())));
        }
        seen
    }

    /// Whether the chain has said that it lost that head: one of the same start, as far or further.
    ///
    /// A countersigned head that is kept was found in the chain, or owned up to when it was stored.
    fn is_owned_up_to(&self, head: &Head) -> bool {
        let mut known = self.recovered.iter().chain(self.mine.values());
        known.any(|it| it.segment == head.segment && it.position >= head.position)
    }

    /// The proof that a head is another one than was seen here.
    fn fork_with(&self, head: &SignedHead) -> Option<Fork> {
        let device = &head.head().device;
        let recent = self.recent.get(device).into_iter().flatten();
        let known = self.others.get(device).into_iter().chain(recent);
        known.map(|known| Fork::of(known.clone(), head.clone())).find_map(|fork| fork)
    }

    fn learn(&mut self, fork: Fork) -> Seen {
        if self.forks.contains_key(&fork.device()) {
            return Seen::default();
        }
        self.forks.insert(fork.device(), fork.clone());
        let row = Row::named(Table::Witness, fork.device().as_bytes(), FORK);
        Seen { writes: vec![Write::Put(row, fork.encode())], fork: Some(fork), ..Seen::default() }
    }
}

fn countersigned(head: &SignedHead, chain: &Chain) -> AuditMessage {
    AuditMessage::Witness(chain.countersign(head.clone()).signed().clone())
}

/// The proof of a fork, for other devices.
pub fn told(fork: &Fork) -> AuditMessage {
    let [one, other] = fork.heads();
    AuditMessage::Fork(one.signed().clone(), other.signed().clone())
}

/// The witness that lies in a row; `None`: it does not hold, or lies elsewhere than it should.
fn read(scope: &[u8], item: &Item, bytes: &[u8]) -> Option<Witness> {
    let signed: Signed = codec::decode(bytes, WITNESS_BYTES_MAX).ok()?;
    let witness = Witness::open(signed).ok()?;
    let is_here = witness.head().head().device.as_bytes() == scope
        && *item == Item::Named(witness.by().as_bytes().to_vec());
    is_here.then_some(witness)
}

/// What others countersigned of a chain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Witnessed {
    /// By whom, and the furthest head for each.
    pub heads: Vec<(DeviceId, Head)>,
    /// Who is said to have, without both signatures to show for it.
    pub bogus: Vec<DeviceId>,
}

/// The heads of a device's chain that others countersigned, as they lie in `rows`.
///
/// # Errors
///
/// The rows cannot be read.
pub fn witnessed(device: DeviceId, rows: &dyn Rows) -> Result<Witnessed, ReadError> {
    let mut found = Witnessed::default();
    for (item, bytes) in rows.scan(Table::Witness, device.as_bytes())? {
        let Item::Named(name) = &item else { continue };
        let Ok(by) = <[u8; 32]>::try_from(name.as_slice()) else { continue };
        let by = DeviceId::from_bytes(by);
        match read(device.as_bytes(), &item, &bytes) {
            Some(witness) => found.heads.push((by, *witness.head().head())),
            None => found.bogus.push(by),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;

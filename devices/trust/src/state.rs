//! The state of a fabric: a pure function of the set of its statements.
//!
//! Two passes. When a statement enters, its **claim** is settled: what its author might do, judged
//! by the statement's own ancestors. That never changes again. When the whole set is evaluated,
//! each statement with a claim either **counts** or does not, because of what others said
//! concurrently:
//!
//! - The root's statements always count; after a `RootRotate` those of the old root count that it
//!   knew. Of two concurrent ones, that with the smaller id stands.
//! - An `Epoch` of the root voids what is neither among the ancestors of its heads nor a descendant.
//! - A *removal* (a `Revoke`, or a `SetRole` to less) puts aside whatever its subject said that is
//!   not in the removal's past. If the removal counts, the subject is revoked (or is less) and what
//!   was put aside is void. If it does not count itself, its author having been removed too, the
//!   subject is *suspended* and what was put aside is *frozen*, until a `Keep` that counts answers
//!   it. So two admins who remove each other both freeze, and nobody gains.
//! - Two statements with one sequence number by one author are a fork: somebody else has its key.
//!   The author is suspended, and its statements from there on are frozen, until a `Keep` names
//!   the side that stands.
//! - What rests on a statement that does not count does not count: a device added by a thief adds
//!   nobody.
//!
//! Where a rule must choose, it chooses the less: the lower of two concurrent roles, suspension
//! over standing. A `Keep` answers all removals of that subject by that author which do not count
//! and were not made in its knowledge, so that a thief cannot freeze the same device twice by
//! dating back.
//!
//! Several admins signing one change (`Require`, `Cosign`) is not built: a `Require` of more than
//! one admin that counts stops the evaluation, as an unknown kind does, and is never taken lightly.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::{
    device::{Kind, Role},
    id::{AgreementKey, DeviceId, FabricId, StatementId},
    signed::Domain,
    statement::{Generation, KeyId, KeyName, Name, RootKeys, SealedKey, StatementBody, Succession},
};

use crate::{bits::Bits, graph::Entry};

/// The largest [`Succession`], in bytes.
const SUCCESSION_BYTES_MAX: usize = 256;

/// Who belongs to a fabric, and as what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// The fabric.
    pub fabric: FabricId,
    /// Its name.
    pub name: Name,
    /// Its root; none: there is no recovery.
    pub root: Option<RootKeys>,
    /// All devices that ever belonged, those that are out included.
    pub devices: BTreeMap<DeviceId, Device>,
    /// Which addressing key is the fabric's.
    pub addressing: KeyId,
    /// All data keys of statements that count.
    pub generations: BTreeSet<Generation>,
    /// The data key that writes: the greatest that was never sealed to a device which is out. If
    /// there is none, the greatest.
    pub writing: Generation,
    /// The writing key was sealed to this device, which is out: an admin should revoke it once
    /// more, which makes a new key. Comes of two concurrent `Revoke`s.
    pub exposed_to: Option<DeviceId>,
    /// A statement of this kind counts and this program does not know what it means. Nobody is a
    /// member until the program is updated.
    pub update_needed: Option<u16>,
    /// What became of each statement.
    pub verdicts: BTreeMap<StatementId, Verdict>,
    /// All keys that were root in turn.
    roots: BTreeSet<DeviceId>,
}

/// A device, as the statements have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its name. Concurrent statements may give two devices one name.
    pub name: Name,
    /// Its kind.
    pub kind: Kind,
    /// Its role.
    pub role: Role,
    /// Whether it belongs.
    pub standing: Standing,
    /// Its agreement key.
    pub agreement: AgreementKey,
    /// The statement that brought it in.
    pub added: StatementId,
    /// Whether a person compared the words when it came in.
    pub confirmed: bool,
}

/// Whether a device belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It does.
    Active,
    /// Nobody can say. It is served nothing but `/weft/trust/1`.
    Suspended {
        /// What a `Keep` must name; or the statement that brought the device in, if that is what
        /// is in doubt.
        cause: StatementId,
    },
    /// It is out, for good.
    Revoked {
        /// The `Revoke`, or the `Rotate` by which another key took its place.
        by: StatementId,
    },
}

/// What became of a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is so.
    Counts,
    /// Its author, or what it rests on, is suspended.
    Frozen,
    /// Its author, or what it rests on, was revoked without having known of it.
    Void,
    /// Its author had no right to it.
    Powerless,
}

impl State {
    /// The device, if it belongs.
    pub fn member(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.get(id).filter(|device| self.update_needed.is_none() && device.is_active())
    }

    /// All devices that belong.
    pub fn members(&self) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.devices.iter().filter(|(id, _)| self.member(id).is_some())
    }

    /// All devices that belong and may change who does.
    pub fn admins(&self) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.members().filter(|(_, device)| device.role == Role::Admin)
    }

    /// Whether the device belongs and may change who does.
    pub fn is_admin(&self, id: &DeviceId) -> bool {
        self.member(id).is_some_and(|device| device.role == Role::Admin)
    }

    /// Whether the device may write documents.
    pub fn may_write(&self, id: &DeviceId) -> bool {
        self.member(id).is_some_and(|device| device.role.holds_data())
    }

    /// Whether the key is the root's now.
    pub fn is_root(&self, id: &DeviceId) -> bool {
        self.root.is_some_and(|root| root.key == *id)
    }

    /// The statement that put the device out, if one did.
    pub fn revocation(&self, id: &DeviceId) -> Option<StatementId> {
        match self.devices.get(id)?.standing {
            Standing::Revoked { by } => Some(by),
            Standing::Active | Standing::Suspended { .. } => None,
        }
    }

    /// Whoever should have the fabric's keys: the members that hold data, and root.
    pub fn key_holders(&self) -> BTreeSet<AgreementKey> {
        let holders = self.members().filter(|(_, device)| device.role.holds_data());
        holders.map(|(_, device)| device.agreement).chain(self.root.map(|r| r.agreement)).collect()
    }

    /// A name that no member has: `wanted`, or that with a number.
    pub fn free_name(&self, wanted: &Name) -> Name {
        let taken: BTreeSet<&Name> = self.members().map(|(_, device)| &device.name).collect();
        if !taken.contains(wanted) {
            return wanted.clone();
        }
        // Seven bytes are kept for the number.
        let mut stem = wanted.as_str();
        while stem.len() > weft_protocol::statement::NAME_BYTES_MAX - 7 {
            stem = &stem[..stem.floor_char_boundary(stem.len() - 1)];
        }
        (2u32..)
            .filter_map(|number| format!("{}-{number}", stem.trim_end()).parse().ok())
            .find(|name| !taken.contains(name))
            .expect("there are more numbers than devices")
    }

    /// The number of the next data key.
    pub(crate) fn next_generation(&self) -> Option<u32> {
        let newest = self.generations.last().map_or(0, |generation| generation.number);
        newest.checked_add(1)
    }

    /// Whether the key is or was a device or the root.
    pub(crate) fn has_known(&self, id: &DeviceId) -> bool {
        self.devices.contains_key(id) || self.roots.contains(id)
    }
}

impl Device {
    /// Whether it belongs.
    pub const fn is_active(&self) -> bool {
        matches!(self.standing, Standing::Active)
    }

    /// Whether nobody can say whether it belongs.
    pub const fn is_suspended(&self) -> bool {
        matches!(self.standing, Standing::Suspended { .. })
    }
}

/// By what right a statement was made, as its ancestors have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    by: By,
    /// Whether it takes something from its subject.
    removal: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// None.
    Nobody,
    /// An active device, about itself. So is `Genesis`.
    Oneself,
    /// An active admin.
    Admin,
    /// The root.
    Root,
}

impl Claim {
    pub(crate) const GENESIS: Self = Self { by: By::Oneself, removal: false };
    const NONE: Self = Self { by: By::Nobody, removal: false };
}

/// Settles the claim of a statement of `author` whose ancestors are `past` and add up to `state`.
pub(crate) fn claim(
    state: &State,
    entries: &[Entry],
    places: &BTreeMap<StatementId, usize>,
    past: &Bits,
    author: DeviceId,
    body: &StatementBody,
) -> Claim {
    if state.update_needed.is_some() {
        return Claim::NONE;
    }
    let right = if state.is_root(&author) {
        By::Root
    } else if state.is_admin(&author) {
        By::Admin
    } else if state.member(&author).is_some() {
        By::Oneself
    } else {
        return Claim::NONE;
    };
    let known = |id: &StatementId| places.get(id).copied().filter(|place| past.contains(*place));
    let next = |generation: &Generation| state.next_generation() == Some(generation.number);
    let ordinary = |by| Claim { by, removal: false };
    let leads = matches!(right, By::Root | By::Admin);
    let granted = match body {
        StatementBody::Genesis(_) => None,
        StatementBody::Add(add) => {
            (leads && !state.has_known(&add.device)).then_some(ordinary(right))
        }
        StatementBody::Revoke(revoke) => {
            (leads && next(&revoke.generation) && !state.roots.contains(&revoke.device))
                .then_some(Claim { by: right, removal: true })
        }
        StatementBody::Rotate(rotate) => {
            let expected =
                Succession { fabric: state.fabric, old: author, agreement: rotate.agreement };
            let consents = rotate.consent.author == rotate.device
                && rotate
                    .consent
                    .open::<Succession>(Domain::Pairing, SUCCESSION_BYTES_MAX)
                    .is_ok_and(|succession| succession == expected);
            (right != By::Root && consents && !state.has_known(&rotate.device))
                .then_some(ordinary(By::Oneself))
        }
        StatementBody::RootRotate(rotate) => {
            (right == By::Root && !state.has_known(&rotate.root.key)).then_some(ordinary(right))
        }
        StatementBody::Epoch(epoch) => (right == By::Root
            && !epoch.heads.is_empty()
            && epoch.heads.iter().all(|head| known(head).is_some()))
        .then_some(ordinary(right)),
        StatementBody::Require(_) | StatementBody::Cosign(_) | StatementBody::Unknown(_) => {
            leads.then_some(ordinary(right))
        }
        StatementBody::SetRole(set) => state
            .devices
            .get(&set.device)
            .filter(|device| leads && device.is_active())
            .filter(|device| {
                let loses_data = device.role.holds_data() && !set.role.holds_data();
                set.generation.as_ref().map_or(!loses_data, next)
            })
            // Roles are ordered from the most to the least.
            .map(|device| Claim { by: right, removal: set.role > device.role }),
        StatementBody::Rename(rename) => match rename.device {
            Some(device) if device == author && right != By::Root => Some(ordinary(By::Oneself)),
            Some(device) => {
                (leads && state.devices.contains_key(&device)).then_some(ordinary(right))
            }
            None => leads.then_some(ordinary(right)),
        },
        StatementBody::Keep(keep) => {
            let suspended = state.devices.get(&keep.device).is_some_and(Device::is_suspended);
            known(&keep.cause)
                .filter(|_| leads && suspended)
                .filter(|cause| {
                    let refused = state.verdicts.get(&keep.cause) != Some(&Verdict::Counts);
                    (refused && removed(&entries[*cause]) == Some(&keep.device))
                        || (entries[*cause].author == keep.device
                            && (0..entries.len())
                                .any(|at| past.contains(at) && is_fork(entries, at, *cause)))
                })
                .map(|_| ordinary(right))
        }
    };
    granted.unwrap_or(Claim::NONE)
}

/// Whether two statements of one author have one sequence number.
fn is_fork(entries: &[Entry], one: usize, other: usize) -> bool {
    one != other
        && entries[one].author == entries[other].author
        && entries[one].seq == entries[other].seq
}

/// Whom the statement takes something from, if it claims to.
fn removed(entry: &Entry) -> Option<&DeviceId> {
    if !entry.claim.removal {
        return None;
    }
    match &entry.body {
        StatementBody::Revoke(revoke) => Some(&revoke.device),
        StatementBody::SetRole(set) => Some(&set.device),
        StatementBody::Genesis(_)
        | StatementBody::Add(_)
        | StatementBody::Rotate(_)
        | StatementBody::RootRotate(_)
        | StatementBody::Epoch(_)
        | StatementBody::Require(_)
        | StatementBody::Cosign(_)
        | StatementBody::Rename(_)
        | StatementBody::Keep(_)
        | StatementBody::Unknown(_) => None,
    }
}

/// Whom the statement brings in, if it may.
fn introduced(entry: &Entry) -> Option<&DeviceId> {
    match &entry.body {
        StatementBody::Genesis(_) => Some(&entry.author),
        StatementBody::Add(add) => Some(&add.device),
        StatementBody::Rotate(rotate) => Some(&rotate.device),
        StatementBody::Revoke(_)
        | StatementBody::RootRotate(_)
        | StatementBody::Epoch(_)
        | StatementBody::Require(_)
        | StatementBody::Cosign(_)
        | StatementBody::SetRole(_)
        | StatementBody::Rename(_)
        | StatementBody::Keep(_)
        | StatementBody::Unknown(_) => None,
    }
    .filter(|_| entry.claim.by != By::Nobody)
}

/// Whom the statement brings in or gives a role, if it may.
fn granted_to(entry: &Entry) -> Option<&DeviceId> {
    if let StatementBody::SetRole(set) = &entry.body {
        return Some(&set.device).filter(|_| entry.claim.by != By::Nobody);
    }
    introduced(entry)
}

/// The data key that the statement makes, and what it seals.
fn keys(body: &StatementBody) -> (Option<Generation>, &[SealedKey]) {
    match body {
        StatementBody::Genesis(genesis) => (Some(genesis.generation), &genesis.sealed),
        StatementBody::Add(add) => (None, &add.sealed),
        StatementBody::Revoke(revoke) => (Some(revoke.generation), &revoke.sealed),
        StatementBody::Rotate(rotate) => (None, &rotate.sealed),
        StatementBody::RootRotate(rotate) => (None, &rotate.sealed),
        StatementBody::SetRole(set) => (set.generation, &set.sealed),
        StatementBody::Keep(keep) => (None, &keep.sealed),
        StatementBody::Epoch(_)
        | StatementBody::Require(_)
        | StatementBody::Cosign(_)
        | StatementBody::Rename(_)
        | StatementBody::Unknown(_) => (None, &[]),
    }
}

/// All keys that a statement seals.
pub(crate) fn sealed(body: &StatementBody) -> &[SealedKey] {
    keys(body).1
}

/// Adds up the statements, or those `within`, which hold their ancestors too.
pub(crate) fn evaluate(fabric: FabricId, entries: &[Entry], within: Option<&Bits>) -> State {
    let mut order: Vec<usize> =
        (0..entries.len()).filter(|at| within.is_none_or(|within| within.contains(*at))).collect();
    order.sort_by_key(|at| (entries[*at].depth, entries[*at].id));
    Evaluation::new(entries, order).state(fabric)
}

/// The evaluation of one set.
struct Evaluation<'a> {
    entries: &'a [Entry],
    /// The set, parents first.
    order: Vec<usize>,
    /// The roots in turn.
    roots: Vec<RootKeys>,
    /// Void for what the root said: of a root that is none, or outside an `Epoch`.
    overruled: Bits,
    /// Removals, with those whom they remove.
    removals: Vec<(usize, DeviceId)>,
    /// `Rotate`s: each ends what its author says, as a removal does.
    rotations: Vec<usize>,
    /// What brings each device in or sets its role, parents first.
    grants: BTreeMap<DeviceId, Vec<usize>>,
    /// `Keep`s that count.
    kept: BTreeSet<usize>,
    /// Removals that once were answered by a `Keep` and then counted after all.
    pinned: BTreeSet<usize>,
}

/// Why statements do not count, in one round.
struct Round {
    verdicts: BTreeMap<usize, Verdict>,
    /// Devices with a fork that no `Keep` answers, and the fork's first side.
    forks: BTreeMap<DeviceId, usize>,
}

impl<'a> Evaluation<'a> {
    fn new(entries: &'a [Entry], order: Vec<usize>) -> Self {
        let mut evaluation = Self {
            entries,
            order,
            roots: Vec::new(),
            overruled: Bits::default(),
            removals: Vec::new(),
            rotations: Vec::new(),
            grants: BTreeMap::new(),
            kept: BTreeSet::new(),
            pinned: BTreeSet::new(),
        };
        evaluation.follow_roots();
        evaluation.follow_epochs();
        for at in &evaluation.order {
            let entry = &entries[*at];
            if let Some(device) = granted_to(entry) {
                evaluation.grants.entry(*device).or_default().push(*at);
            }
            if let Some(subject) = removed(entry) {
                evaluation.removals.push((*at, *subject));
            } else if matches!(entry.body, StatementBody::Rotate(_))
                && entry.claim.by == By::Oneself
                && !evaluation.overruled.contains(*at)
            {
                evaluation.rotations.push(*at);
            }
        }
        evaluation
    }

    /// Whether `later` rests on `earlier`, or is it.
    fn rests_on(&self, later: usize, earlier: usize) -> bool {
        later == earlier || self.entries[later].past.contains(earlier)
    }

    fn of_root(&self, at: usize) -> bool {
        self.entries[at].claim.by == By::Root
    }

    /// Finds the roots in turn, and overrules what other keys said as root.
    fn follow_roots(&mut self) {
        let StatementBody::Genesis(genesis) = &self.entries[0].body else {
            unreachable!("a graph begins with Genesis")
        };
        let mut ends: Vec<(DeviceId, Option<usize>)> = Vec::new();
        let mut root = genesis.root;
        while let Some(keys) = root.take() {
            let rotations = self.order.iter().copied().filter(|at| {
                let entry = &self.entries[*at];
                self.of_root(*at)
                    && entry.author == keys.key
                    && matches!(entry.body, StatementBody::RootRotate(_))
            });
            let first = rotations.min_by_key(|at| self.entries[*at].id);
            self.roots.push(keys);
            ends.push((keys.key, first));
            if let Some(StatementBody::RootRotate(rotate)) = first.map(|at| &self.entries[at].body)
            {
                let again = ends.iter().any(|(key, _)| *key == rotate.root.key);
                root = (!again).then_some(rotate.root);
            }
        }
        for at in &self.order {
            if !self.of_root(*at) {
                continue;
            }
            let end = ends.iter().find(|(key, _)| *key == self.entries[*at].author);
            let valid = match end {
                Some((_, Some(end))) => self.rests_on(*end, *at),
                Some((_, None)) => true,
                None => false,
            };
            if !valid {
                self.overruled.insert(*at);
            }
        }
    }

    /// Overrules what stands beside the `Epoch`s.
    fn follow_epochs(&mut self) {
        for epoch in self.order.clone() {
            let StatementBody::Epoch(body) = &self.entries[epoch].body else { continue };
            if !self.of_root(epoch) || self.overruled.contains(epoch) {
                continue;
            }
            let heads: Vec<usize> = (self.order.iter().copied())
                .filter(|at| body.heads.contains(&self.entries[*at].id))
                .collect();
            for at in self.order.clone() {
                let before = heads.iter().any(|head| self.rests_on(*head, at));
                if !self.of_root(at) && !before && !self.rests_on(at, epoch) {
                    self.overruled.insert(at);
                }
            }
        }
    }

    /// Goes on in rounds: each lets more `Keep`s count, until none is left.
    fn settle(&mut self) -> Round {
        loop {
            let round = self.round();
            let counts = |at: &usize| round.verdicts.get(at) == Some(&Verdict::Counts);
            let mut changed = false;
            for (at, _) in &self.removals {
                if counts(at) && self.answered(*at) {
                    changed |= self.pinned.insert(*at);
                }
            }
            for at in &self.order {
                let StatementBody::Keep(keep) = &self.entries[*at].body else { continue };
                let Some(cause) = self.place(&keep.cause) else { continue };
                // A removal that counts is not to be answered.
                let open = removed(&self.entries[cause]) != Some(&keep.device) || !counts(&cause);
                if counts(at) && open {
                    changed |= self.kept.insert(*at);
                }
            }
            if !changed {
                return round;
            }
        }
    }

    fn place(&self, id: &StatementId) -> Option<usize> {
        self.order.iter().copied().find(|at| self.entries[*at].id == *id)
    }

    /// The `Keep`s that count, with who stays and their cause.
    fn answers(&self) -> impl Iterator<Item = (usize, &DeviceId, usize)> {
        self.kept.iter().filter_map(|at| {
            let StatementBody::Keep(keep) = &self.entries[*at].body else { return None };
            Some((*at, &keep.device, self.place(&keep.cause)?))
        })
    }

    /// Whether a `Keep` that counts answers the removal.
    fn answered(&self, removal: usize) -> bool {
        let entry = &self.entries[removal];
        !self.pinned.contains(&removal)
            && self.answers().any(|(keep, device, cause)| {
                let cause = &self.entries[cause];
                removed(entry) == Some(device)
                    && removed(cause) == Some(device)
                    && cause.author == entry.author
                    && !entry.past.contains(keep)
            })
    }

    /// One round, with the `Keep`s that are known to count.
    fn round(&self) -> Round {
        let removals: Vec<(usize, DeviceId)> =
            self.removals.iter().copied().filter(|(at, _)| !self.answered(*at)).collect();
        // What puts each statement aside.
        let mut aside: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for at in &self.order {
            let entry = &self.entries[*at];
            let by_removal = removals.iter().filter(|(removal, subject)| {
                let whole = matches!(self.entries[*removal].body, StatementBody::Revoke(_));
                *subject == entry.author && (whole || entry.claim.by == By::Admin)
            });
            let by_rotation =
                self.rotations.iter().filter(|at| self.entries[**at].author == entry.author);
            let causes: Vec<usize> = by_removal
                .map(|(removal, _)| *removal)
                .chain(by_rotation.copied())
                .filter(|cause| !self.of_root(*at) && !self.rests_on(*cause, *at))
                .collect();
            if !causes.is_empty() {
                aside.insert(*at, causes);
            }
        }
        let (lost, forks) = self.forks(&aside);
        let frozen_by_fork = |at: usize| {
            let entry = &self.entries[at];
            let fork = forks.get(&entry.author).filter(|_| !self.of_root(at));
            fork.is_some_and(|side| entry.seq >= self.entries[*side].seq)
        };
        let mut counting = Bits::default();
        for at in &self.order {
            let out = self.overruled.contains(*at)
                || aside.contains_key(at)
                || lost.contains(*at)
                || frozen_by_fork(*at);
            if !out && self.has_right(*at, &counting) {
                counting.insert(*at);
            }
        }
        let mut verdicts = BTreeMap::new();
        for at in &self.order {
            let entry = &self.entries[*at];
            let verdict = if counting.contains(*at) {
                Verdict::Counts
            } else if entry.claim.by == By::Nobody {
                Verdict::Powerless
            } else if self.overruled.contains(*at) || lost.contains(*at) {
                Verdict::Void
            } else if let Some(causes) = aside.get(at) {
                let final_cause = causes.iter().any(|cause| counting.contains(*cause));
                if final_cause { Verdict::Void } else { Verdict::Frozen }
            } else if frozen_by_fork(*at) {
                Verdict::Frozen
            } else {
                // It rests on what does not count.
                let frozen = self.grants(&entry.author).any(|grant| {
                    entry.past.contains(grant) && verdicts.get(&grant) == Some(&Verdict::Frozen)
                });
                if frozen { Verdict::Frozen } else { Verdict::Void }
            };
            verdicts.insert(*at, verdict);
        }
        Round { verdicts, forks }
    }

    /// The sides of forks that lost to a `Keep`, and the forks that none answers.
    fn forks(&self, aside: &BTreeMap<usize, Vec<usize>>) -> (Bits, BTreeMap<DeviceId, usize>) {
        let standing: Vec<usize> = self
            .answers()
            .filter(|(_, device, cause)| self.entries[*cause].author == **device)
            .map(|(_, _, cause)| cause)
            .collect();
        let mut lost = Bits::default();
        for at in &self.order {
            let loses = standing.iter().any(|side| is_fork(self.entries, *side, *at));
            let follows = self.entries[*at].prev.is_some_and(|prev| lost.contains(prev));
            if (loses && !standing.contains(at)) || follows {
                lost.insert(*at);
            }
        }
        let mut sides: BTreeMap<(DeviceId, u64), usize> = BTreeMap::new();
        let mut forks: BTreeMap<DeviceId, usize> = BTreeMap::new();
        for at in &self.order {
            let entry = &self.entries[*at];
            // What a revoked device is made to have said afterwards proves nothing new.
            let after_revoke = aside.get(at).is_some_and(|causes| {
                causes
                    .iter()
                    .any(|cause| matches!(self.entries[*cause].body, StatementBody::Revoke(_)))
            });
            let ignored = self.of_root(*at) || after_revoke || lost.contains(*at);
            if ignored {
                continue;
            }
            if let Some(first) = sides.get(&(entry.author, entry.seq)) {
                let least = forks.entry(entry.author).or_insert(*first);
                if entry.seq < self.entries[*least].seq {
                    *least = *first;
                }
            } else {
                sides.insert((entry.author, entry.seq), *at);
            }
        }
        (lost, forks)
    }

    /// Whether what gave the author its right still counts.
    fn has_right(&self, at: usize, counting: &Bits) -> bool {
        let entry = &self.entries[at];
        let known = |other: usize| entry.past.contains(other) && counting.contains(other);
        match entry.claim.by {
            By::Nobody => false,
            By::Root => true,
            By::Oneself if entry.past.len() == 0 => true,
            By::Oneself => self.role(&entry.author, &known).is_some(),
            By::Admin => self.role(&entry.author, &known) == Some(Role::Admin),
        }
    }

    /// What brings the device in or sets its role.
    fn grants(&self, device: &DeviceId) -> impl Iterator<Item = usize> {
        self.grants.get(device).into_iter().flatten().copied()
    }

    /// The role of a device by those statements that `holds` lets through.
    fn role(&self, device: &DeviceId, holds: &dyn Fn(usize) -> bool) -> Option<Role> {
        let grants: Vec<usize> = self.grants(device).filter(|at| holds(*at)).collect();
        // A role needs a device that was brought in.
        grants.iter().find(|at| introduced(&self.entries[**at]).is_some())?;
        let newest = grants
            .iter()
            .filter(|at| !grants.iter().any(|later| later != *at && self.rests_on(*later, **at)));
        newest.filter_map(|at| self.role_in(*at, holds)).max()
    }

    /// The role that one statement gives.
    fn role_in(&self, at: usize, holds: &dyn Fn(usize) -> bool) -> Option<Role> {
        let entry = &self.entries[at];
        match &entry.body {
            StatementBody::Genesis(_) => Some(Role::Admin),
            StatementBody::Add(add) if add.confirmed => Some(add.role),
            StatementBody::Add(add) => Some(add.role.max(Role::Member)),
            StatementBody::SetRole(set) => Some(set.role),
            StatementBody::Rotate(_) => {
                self.role(&entry.author, &|other| entry.past.contains(other) && holds(other))
            }
            StatementBody::Revoke(_)
            | StatementBody::RootRotate(_)
            | StatementBody::Epoch(_)
            | StatementBody::Require(_)
            | StatementBody::Cosign(_)
            | StatementBody::Rename(_)
            | StatementBody::Keep(_)
            | StatementBody::Unknown(_) => None,
        }
    }

    fn state(mut self, fabric: FabricId) -> State {
        let round = self.settle();
        let counts = |at: &usize| round.verdicts.get(at) == Some(&Verdict::Counts);
        let StatementBody::Genesis(genesis) = &self.entries[0].body else {
            unreachable!("a graph begins with Genesis")
        };
        let mut state = State {
            fabric,
            name: genesis.fabric.clone(),
            root: self.roots.last().copied(),
            devices: BTreeMap::new(),
            addressing: genesis.addressing,
            generations: BTreeSet::new(),
            writing: genesis.generation,
            exposed_to: None,
            update_needed: None,
            verdicts: round
                .verdicts
                .iter()
                .map(|(at, verdict)| (self.entries[*at].id, *verdict))
                .collect(),
            roots: self.roots.iter().map(|root| root.key).collect(),
        };
        for at in &self.order {
            let entry = &self.entries[*at];
            if let Some(device) = introduced(entry) {
                self.introduce(&mut state, &round, *at, device);
            }
            if !counts(at) {
                continue;
            }
            state.generations.extend(keys(&entry.body).0);
            match &entry.body {
                StatementBody::Rename(rename) => match &rename.device {
                    None => state.name = rename.name.clone(),
                    Some(device) => {
                        if let Some(device) = state.devices.get_mut(device) {
                            device.name = rename.name.clone();
                        }
                    }
                },
                StatementBody::Unknown(kind) => state.update_needed = Some(*kind),
                StatementBody::Require(require) => {
                    if require.admins > 1 {
                        state.update_needed = Some(entry.body.kind());
                    }
                }
                StatementBody::Genesis(_)
                | StatementBody::Add(_)
                | StatementBody::Revoke(_)
                | StatementBody::Rotate(_)
                | StatementBody::RootRotate(_)
                | StatementBody::Epoch(_)
                | StatementBody::Cosign(_)
                | StatementBody::SetRole(_)
                | StatementBody::Keep(_) => {}
            }
        }
        self.choose_generation(&mut state);
        state
    }

    /// Lists a device by the statement at `at`, which brings it in.
    fn introduce(&self, state: &mut State, round: &Round, at: usize, id: &DeviceId) {
        let entry = &self.entries[at];
        let verdict = round.verdicts[&at];
        let counts = |at: &usize| round.verdicts.get(at) == Some(&Verdict::Counts);
        let listed = state.devices.get(id).map(|device| device.added);
        let listed_counts = listed.and_then(|id| state.verdicts.get(&id)) == Some(&Verdict::Counts);
        let standing = self.standing(round, id);
        // One that a thief brought in never belonged, unless somebody has spoken of it since.
        let shown = verdict != Verdict::Void || matches!(standing, Standing::Revoked { .. });
        if listed_counts || (listed.is_some() && verdict != Verdict::Counts) || !shown {
            return;
        }
        let standing = match standing {
            Standing::Active if verdict != Verdict::Counts => {
                Standing::Suspended { cause: entry.id }
            }
            Standing::Active | Standing::Suspended { .. } | Standing::Revoked { .. } => standing,
        };
        let (name, kind, agreement, confirmed) = match &entry.body {
            StatementBody::Genesis(body) => (body.name.clone(), body.kind, body.agreement, true),
            StatementBody::Add(body) => {
                (body.name.clone(), body.kind, body.agreement, body.confirmed)
            }
            StatementBody::Rotate(body) => {
                let Some(old) = state.devices.get(&entry.author) else { return };
                (old.name.clone(), old.kind, body.agreement, old.confirmed)
            }
            StatementBody::Revoke(_)
            | StatementBody::RootRotate(_)
            | StatementBody::Epoch(_)
            | StatementBody::Require(_)
            | StatementBody::Cosign(_)
            | StatementBody::SetRole(_)
            | StatementBody::Rename(_)
            | StatementBody::Keep(_)
            | StatementBody::Unknown(_) => unreachable!("it brings nobody in"),
        };
        let role = self
            .role(id, &|at| counts(&at))
            .or_else(|| self.role(id, &|_| true))
            .expect("the statement at hand brings it in");
        let added = entry.id;
        let device = Device { name, kind, role, standing, agreement, added, confirmed };
        state.devices.insert(*id, device);
    }

    /// What others say of a device that was brought in.
    fn standing(&self, round: &Round, id: &DeviceId) -> Standing {
        let counts = |at: &usize| round.verdicts.get(at) == Some(&Verdict::Counts);
        let name = |at: &usize| self.entries[*at].id;
        let against = || self.removals.iter().filter(|(_, subject)| subject == id);
        let revoked = against()
            .map(|(at, _)| at)
            .find(|at| counts(at) && matches!(self.entries[**at].body, StatementBody::Revoke(_)));
        let replaced =
            self.rotations.iter().find(|at| self.entries[**at].author == *id && counts(at));
        let doubted = against().map(|(at, _)| at).find(|at| !counts(at) && !self.answered(**at));
        if let Some(by) = revoked.or(replaced) {
            Standing::Revoked { by: name(by) }
        } else if let Some(cause) = doubted.or_else(|| round.forks.get(id)) {
            Standing::Suspended { cause: name(cause) }
        } else {
            Standing::Active
        }
    }

    /// Chooses the data key that writes.
    fn choose_generation(&self, state: &mut State) {
        let replaced =
            |by: &StatementId| self.rotations.iter().any(|at| self.entries[*at].id == *by);
        let out: BTreeMap<AgreementKey, DeviceId> = state
            .devices
            .iter()
            .filter(|(_, device)| match &device.standing {
                Standing::Revoked { by } => !replaced(by),
                Standing::Active => !device.role.holds_data(),
                Standing::Suspended { .. } => false,
            })
            .map(|(id, device)| (device.agreement, *id))
            .collect();
        let mut exposed: BTreeMap<Generation, DeviceId> = BTreeMap::new();
        for at in &self.order {
            let entry = &self.entries[*at];
            for sealed in sealed(&entry.body) {
                if let (KeyName::Data(generation), Some(device)) =
                    (sealed.which, out.get(&sealed.to))
                {
                    exposed.insert(generation, *device);
                }
            }
        }
        let fresh = state.generations.iter().rev().find(|one| !exposed.contains_key(*one));
        let greatest = fresh.or_else(|| state.generations.last());
        if let Some(writing) = greatest {
            state.writing = *writing;
            state.exposed_to = exposed.get(writing).copied();
        }
    }
}

#[cfg(test)]
mod tests;

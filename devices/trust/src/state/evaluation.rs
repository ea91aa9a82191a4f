//! An evaluation: which statements of one set count, in rounds.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::{
    device::Role,
    id::{DeviceId, FabricId, StatementId},
    statement::{RootKeys, StatementBody},
};

use super::{
    State, Verdict,
    claim::By,
    effect::{Change, Effect, granted_to, introduced, is_fork, removed},
};
use crate::{bits::Bits, graph::Entry};

/// Adds up the statements, or those `within`, which hold their ancestors too.
pub(crate) fn evaluate(fabric: FabricId, entries: &[Entry], within: Option<&Bits>) -> State {
    let mut order: Vec<usize> =
        (0..entries.len()).filter(|at| within.is_none_or(|within| within.contains(*at))).collect();
    order.sort_by_key(|at| (entries[*at].depth, entries[*at].id));
    Evaluation::new(entries, order).state(fabric)
}

/// The evaluation of one set.
pub(super) struct Evaluation<'a> {
    pub(super) entries: &'a [Entry],
    /// The set, parents first.
    pub(super) order: Vec<usize>,
    /// The roots in turn.
    pub(super) roots: Vec<RootKeys>,
    /// Void for what the root said: of a root that is none, or outside an `Epoch`.
    overruled: Bits,
    /// Removals, with those whom they remove.
    pub(super) removals: Vec<(usize, DeviceId)>,
    /// `Rotate`s: each ends what its author says, as a removal does.
    pub(super) rotations: Vec<usize>,
    /// What brings each device in or sets its role, parents first.
    grants: BTreeMap<DeviceId, Vec<usize>>,
    /// `Keep`s that count.
    kept: BTreeSet<usize>,
    /// Removals that once were answered by a `Keep` and then counted after all.
    pinned: BTreeSet<usize>,
}

/// Why statements do not count, in one round.
pub(super) struct Round {
    pub(super) verdicts: BTreeMap<usize, Verdict>,
    /// Devices with a fork that no `Keep` answers, and the fork's first side.
    pub(super) forks: BTreeMap<DeviceId, usize>,
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
    pub(super) fn settle(&mut self) -> Round {
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
    pub(super) fn answered(&self, removal: usize) -> bool {
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
        let lost = self.lost();
        // What puts each statement aside.
        let mut aside: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for at in &self.order {
            let entry = &self.entries[*at];
            let by_removal = removals.iter().filter(|(removal, subject)| {
                let whole = matches!(self.entries[*removal].body, StatementBody::Revoke(_));
                *subject == entry.author && (whole || entry.claim.by == By::Admin)
            });
            let by_rotation = self
                .rotations
                .iter()
                .filter(|at| self.entries[**at].author == entry.author && !lost.contains(**at));
            let causes: Vec<usize> = by_removal
                .map(|(removal, _)| *removal)
                .chain(by_rotation.copied())
                .filter(|cause| !self.of_root(*at) && !self.rests_on(*cause, *at))
                .collect();
            if !causes.is_empty() {
                aside.insert(*at, causes);
            }
        }
        let forks = self.forks(&aside, &lost);
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

    /// The sides of forks that lost to a `Keep`, with what follows on them.
    fn lost(&self) -> Bits {
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
        lost
    }

    /// The forks that no `Keep` answers, with their first sides.
    fn forks(&self, aside: &BTreeMap<usize, Vec<usize>>, lost: &Bits) -> BTreeMap<DeviceId, usize> {
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
        forks
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
    pub(super) fn role(&self, device: &DeviceId, holds: &dyn Fn(usize) -> bool) -> Option<Role> {
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
        match Effect::of(entry).change? {
            Change::Adds { role, .. } | Change::SetsRole { role, .. } => Some(role),
            Change::Succeeds { .. } => {
                self.role(&entry.author, &|other| entry.past.contains(other) && holds(other))
            }
            Change::Revokes { .. } => None,
        }
    }
}

//! The roster: what the statements that count make of the fabric, its devices and its keys.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::{
    id::{AgreementKey, DeviceId, FabricId, StatementId},
    statement::{Generation, KeyName, StatementBody},
};

use super::{
    Device, Standing, State, Verdict,
    effect::{Change, Effect, introduced},
    evaluation::{Evaluation, Round},
};

impl Evaluation<'_> {
    /// Settles the evaluation, and lists what it comes to.
    pub(super) fn state(mut self, fabric: FabricId) -> State {
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
            successors: BTreeMap::new(),
        };
        for at in &self.order {
            let entry = &self.entries[*at];
            if let Some(device) = introduced(entry) {
                self.introduce(&mut state, &round, *at, device);
            }
            if !counts(at) {
                continue;
            }
            let effect = Effect::of(entry);
            if let Some(Change::Succeeds { device, .. }) = effect.change {
                state.successors.insert(entry.author, *device);
            }
            state.generations.extend(effect.generation);
            match effect.rename {
                Some((None, name)) => state.name = name.clone(),
                Some((Some(device), name)) => {
                    if let Some(device) = state.devices.get_mut(device) {
                        device.name = name.clone();
                    }
                }
                None => {}
            }
            state.update_needed = effect.update_needed.or(state.update_needed);
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
        let mut standing = self.standing(round, id);
        // A key that took the place of one which was put out unseen is out by the same word, so that it is
        // told why.
        if verdict == Verdict::Void
            && matches!(standing, Standing::Active)
            && matches!(entry.body, StatementBody::Rotate(_))
            && let Standing::Revoked { by } = self.standing(round, &entry.author)
            && !self.rotations.iter().any(|at| self.entries[*at].id == by)
        {
            standing = Standing::Revoked { by };
        }
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
        let (name, kind, agreement, confirmed) = match Effect::of(entry).change {
            Some(Change::Adds { name, kind, agreement, confirmed, .. }) => {
                (name.clone(), kind, agreement, confirmed)
            }
            Some(Change::Succeeds { agreement, .. }) => {
                let Some(old) = state.devices.get(&entry.author) else { return };
                (old.name.clone(), old.kind, agreement, old.confirmed)
            }
            Some(Change::SetsRole { .. } | Change::Revokes { .. }) | None => {
                unreachable!("it brings nobody in")
            }
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
            for sealed in Effect::of(entry).sealed {
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

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
    statement::{Generation, KeyId, Name, RootKeys},
};

pub(crate) use self::{
    claim::{Claim, claim},
    effect::Effect,
    evaluation::evaluate,
};

mod claim;
mod effect;
mod evaluation;
mod roster;

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
    /// By which key each was replaced.
    successors: BTreeMap<DeviceId, DeviceId>,
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

    /// The key under which a device goes on: the last of those that took each other's place, from `id` on;
    /// `id` itself if none did. Whether it still belongs is not said.
    pub fn successor(&self, id: &DeviceId) -> DeviceId {
        let mut last = *id;
        // No key is ever brought in twice, so this ends.
        while let Some(next) = self.successors.get(&last) {
            last = *next;
        }
        last
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

#[cfg(test)]
mod tests;

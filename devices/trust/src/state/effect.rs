//! An effect: what a statement does if it counts. Here alone every kind says what that is.

use weft_protocol::{
    device::{Kind, Role},
    id::{AgreementKey, DeviceId},
    statement::{Generation, Name, SealedKey, StatementBody},
};

use super::claim::By;
use crate::graph::Entry;

/// What a statement does if it counts.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Effect<'a> {
    /// What becomes of a device.
    pub(super) change: Option<Change<'a>>,
    /// A name for that device, or for the fabric.
    pub(super) rename: Option<(Option<&'a DeviceId>, &'a Name)>,
    /// The data key that it makes.
    pub(super) generation: Option<Generation>,
    /// The keys that it seals.
    pub(crate) sealed: &'a [SealedKey],
    /// Its kind, if this program does not know what that means.
    pub(super) update_needed: Option<u16>,
}

/// What becomes of a device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    /// It comes in.
    Adds {
        device: &'a DeviceId,
        name: &'a Name,
        kind: Kind,
        role: Role,
        agreement: AgreementKey,
        confirmed: bool,
    },
    /// It comes in with all that the author was, who goes.
    Succeeds { device: &'a DeviceId, agreement: AgreementKey },
    /// It has this role.
    SetsRole { device: &'a DeviceId, role: Role },
    /// It is out.
    Revokes { device: &'a DeviceId },
}

impl<'a> Effect<'a> {
    pub(crate) fn of(entry: &'a Entry) -> Self {
        let none = Self::default();
        match &entry.body {
            StatementBody::Genesis(genesis) => Self {
                change: Some(Change::Adds {
                    device: &entry.author,
                    name: &genesis.name,
                    kind: genesis.kind,
                    role: Role::Admin,
                    agreement: genesis.agreement,
                    confirmed: true,
                }),
                generation: Some(genesis.generation),
                sealed: &genesis.sealed,
                ..none
            },
            StatementBody::Add(add) => Self {
                change: Some(Change::Adds {
                    device: &add.device,
                    name: &add.name,
                    kind: add.kind,
                    role: if add.confirmed { add.role } else { add.role.max(Role::Member) },
                    agreement: add.agreement,
                    confirmed: add.confirmed,
                }),
                sealed: &add.sealed,
                ..none
            },
            StatementBody::Revoke(revoke) => Self {
                change: Some(Change::Revokes { device: &revoke.device }),
                generation: Some(revoke.generation),
                sealed: &revoke.sealed,
                ..none
            },
            StatementBody::Rotate(rotate) => Self {
                change: Some(Change::Succeeds {
                    device: &rotate.device,
                    agreement: rotate.agreement,
                }),
                sealed: &rotate.sealed,
                ..none
            },
            StatementBody::SetRole(set) => Self {
                change: Some(Change::SetsRole { device: &set.device, role: set.role }),
                generation: set.generation,
                sealed: &set.sealed,
                ..none
            },
            StatementBody::Rename(rename) => {
                Self { rename: Some((rename.device.as_ref(), &rename.name)), ..none }
            }
            StatementBody::RootRotate(rotate) => Self { sealed: &rotate.sealed, ..none },
            StatementBody::Keep(keep) => Self { sealed: &keep.sealed, ..none },
            StatementBody::Require(require) if require.admins > 1 => {
                Self { update_needed: Some(entry.body.kind()), ..none }
            }
            StatementBody::Unknown(kind) => Self { update_needed: Some(*kind), ..none },
            StatementBody::Epoch(_) | StatementBody::Require(_) | StatementBody::Cosign(_) => none,
        }
    }
}

/// Whom the statement takes something from, if it claims to.
pub(super) fn removed(entry: &Entry) -> Option<&DeviceId> {
    match Effect::of(entry).change? {
        Change::Revokes { device } | Change::SetsRole { device, .. } => Some(device),
        Change::Adds { .. } | Change::Succeeds { .. } => None,
    }
    .filter(|_| entry.claim.removal)
}

/// Whom the statement brings in, if it may.
pub(super) fn introduced(entry: &Entry) -> Option<&DeviceId> {
    match Effect::of(entry).change? {
        Change::Adds { device, .. } | Change::Succeeds { device, .. } => Some(device),
        Change::SetsRole { .. } | Change::Revokes { .. } => None,
    }
    .filter(|_| entry.claim.by != By::Nobody)
}

/// Whom the statement brings in or gives a role, if it may.
pub(super) fn granted_to(entry: &Entry) -> Option<&DeviceId> {
    match Effect::of(entry).change? {
        Change::Adds { device, .. }
        | Change::Succeeds { device, .. }
        | Change::SetsRole { device, .. } => Some(device),
        Change::Revokes { .. } => None,
    }
    .filter(|_| entry.claim.by != By::Nobody)
}

/// Whether two statements of one author have one sequence number.
pub(super) fn is_fork(entries: &[Entry], one: usize, other: usize) -> bool {
    one != other
        && entries[one].author == entries[other].author
        && entries[one].seq == entries[other].seq
}

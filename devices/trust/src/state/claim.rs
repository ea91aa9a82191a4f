//! A claim: by what right a statement was made, as its ancestors have it.

use std::collections::BTreeMap;

use weft_protocol::{
    id::{DeviceId, StatementId},
    signed::Domain,
    statement::{Generation, StatementBody, Succession},
};

use super::{
    Device, State, Verdict,
    effect::{is_fork, removed},
};
use crate::{bits::Bits, graph::Entry};

/// The largest [`Succession`], in bytes.
const SUCCESSION_BYTES_MAX: usize = 256;

/// By what right a statement was made, as its ancestors have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    pub(super) by: By,
    /// Whether it takes something from its subject.
    pub(super) removal: bool,
}

/// The right itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
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

    /// Whether its author might say it as an admin or as the root.
    pub(crate) fn leads(self) -> bool {
        matches!(self.by, By::Admin | By::Root)
    }

    /// Whether its author might say it.
    pub(crate) fn is_some(self) -> bool {
        self.by != By::Nobody
    }
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

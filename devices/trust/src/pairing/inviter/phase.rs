//! How far an invitation is.

use std::time::Duration;

use weft_protocol::{
    pairing::Ending,
    time::{Now, Timestamp},
};

use super::{
    Inviter,
    guest::{Guest, Welcome},
};
use crate::pairing::{Answer, Outcome, Reason, invitation::ConnectionId};

/// How long after the expiry an admitted device may take to say that it has stored all.
const STORE_TIME: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) enum Phase {
    /// Nobody has redeemed the ticket.
    Open,
    /// A wrong guess at the code is on its way to the disk; whose it was is told then.
    Burning(ConnectionId),
    /// The redemption is on its way to the disk.
    Redeeming(Guest),
    /// Persons are asked.
    Asking { guest: Guest, ours: Option<Answer>, theirs: bool },
    /// The `Add` is on its way to the disk.
    Admitting(Guest),
    /// The joiner is to store what it got.
    Admitted(Guest, Welcome),
    /// It has ended.
    Over {
        outcome: Outcome,
        reason: Option<Reason>,
        until: Timestamp,
        guest: Option<(Guest, Option<Welcome>)>,
    },
    /// The endpoint is closed.
    Closed,
}

impl Inviter {
    /// Why it was refused or has expired, once it has.
    pub const fn reason(&self) -> Option<Reason> {
        if let Phase::Over { reason, .. } = &self.phase { *reason } else { None }
    }

    /// How it ended, once it has.
    pub const fn outcome(&self) -> Option<Outcome> {
        match &self.phase {
            Phase::Over { outcome, .. } => Some(*outcome),
            Phase::Open
            | Phase::Burning(_)
            | Phase::Redeeming(_)
            | Phase::Asking { .. }
            | Phase::Admitting(_)
            | Phase::Admitted(..)
            | Phase::Closed => None,
        }
    }

    pub(super) fn phase_timeout(&self) -> Option<(Timestamp, &'static str)> {
        match &self.phase {
            Phase::Open | Phase::Redeeming(_) | Phase::Asking { .. } => {
                Some((self.expires, "the invitation expires"))
            }
            Phase::Admitted(..) => {
                Some((self.expires + STORE_TIME, "the joiner stores what it got"))
            }
            Phase::Over { until, .. } => Some((*until, "the pairing endpoint closes")),
            Phase::Burning(_) | Phase::Admitting(_) | Phase::Closed => None,
        }
    }

    /// What everybody is told once it is over, or none if a proof may still change it.
    pub(super) fn late_answer(&self, now: Now) -> Option<Ending> {
        match &self.phase {
            Phase::Closed => Some(Ending::Expired),
            Phase::Over { outcome: Outcome::Expired, reason, .. }
            | Phase::Over { guest: None, reason, .. } => {
                Some(reason.map_or(Ending::Expired, Reason::ending))
            }
            Phase::Over { .. } if now.mono >= self.expires => Some(Ending::AlreadyUsed),
            Phase::Burning(_) => Some(Ending::WrongCode),
            Phase::Over { .. }
            | Phase::Open
            | Phase::Redeeming(_)
            | Phase::Asking { .. }
            | Phase::Admitting(_)
            | Phase::Admitted(..) => None,
        }
    }

    pub(super) fn guest_mut(&mut self) -> Option<&mut Guest> {
        match &mut self.phase {
            Phase::Open | Phase::Burning(_) | Phase::Closed => None,
            Phase::Redeeming(guest)
            | Phase::Asking { guest, .. }
            | Phase::Admitting(guest)
            | Phase::Admitted(guest, _) => Some(guest),
            Phase::Over { guest, .. } => guest.as_mut().map(|(guest, _)| guest),
        }
    }
}

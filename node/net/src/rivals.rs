//! Which of several connections to one device stays.
//!
//! The newest start of the device wins: a node that was killed and came back closes what its
//! predecessor left. Of connections to the same start, the newest wins as well, since nobody dials
//! whom it is connected with: whoever comes again has lost the older one, of which this end may
//! not know yet; that holds for a relayed connection that comes after a direct one as well. Of
//! connections that came up at once, within [`AT_ONCE`], a direct one stays before a relayed one; where
//! both ends dialled, the one dialled by the device with the smaller id. Both ends see the same
//! connections and so decide the same way, each on its own. Should they differ over what was at
//! once, both connections close and the devices dial anew.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use weft_protocol::{
    id::{BootId, DeviceId},
    time::Timestamp,
};

/// Two connections that came up within so long of each other were dialled at once: a handshake
/// between two devices that are busy or far from each other.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);

/// Starts of one device that are told apart: enough for a clone of its disk that keeps coming.
const STARTS_MAX: usize = 16;

/// How new a start of a device is, greater is newer: its counter, then which of several starts
/// with that counter was heard of last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct BootRank {
    pub(crate) counter: u64,
    pub(crate) heard: u64,
}

/// The starts of each device that were heard of.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    heard: HashMap<DeviceId, VecDeque<(BootId, u64)>>,
    sequence: u64,
}

impl Starts {
    /// Ranks a start, which is the newest of its counter where it was not heard of before.
    pub(crate) fn rank(&mut self, device: DeviceId, boot: BootId) -> BootRank {
        let known = self.heard.entry(device).or_default();
        if let Some((_, heard)) = known.iter().copied().find(|(other, _)| *other == boot) {
            return BootRank { counter: boot.counter, heard };
        }
        self.sequence += 1;
        known.push_back((boot, self.sequence));
        if known.len() > STARTS_MAX {
            known.pop_front();
        }
        BootRank { counter: boot.counter, heard: self.sequence }
    }

    /// Forgets the starts of all other devices.
    pub(crate) fn retain(&mut self, stays: impl Fn(&DeviceId) -> bool) {
        self.heard.retain(|device, _| stays(device));
    }
}

/// One connection to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rival<Id> {
    pub(crate) id: Id,
    /// Whether no relay lies between.
    pub(crate) is_direct: bool,
    /// Whether the device with the smaller id dialled.
    pub(crate) is_preferred: bool,
    /// Since when it is up.
    pub(crate) since: Timestamp,
    /// Which connection of this node it is, in the order in which they came up.
    pub(crate) order: u64,
    /// The start that its hello named; `None` until it came.
    pub(crate) boot: Option<BootRank>,
}

/// What becomes of them; connections in neither field wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Choice<Id> {
    pub(crate) keep: Option<Id>,
    pub(crate) close: Vec<Id>,
}

/// Chooses among all connections to one device, of which `current` serves now.
///
/// Without a current one, a greeted connection waits while a preferred one has not greeted yet:
/// of two dials at once the right one is served from the start.
pub(crate) fn choose<Id: Copy + PartialEq>(
    rivals: &[Rival<Id>],
    current: Option<Id>,
) -> Choice<Id> {
    let greeted = || rivals.iter().filter_map(|rival| Some((rival, rival.boot?)));
    let newest = greeted().map(|(rival, boot)| (boot, rival.since)).max();
    let best = newest.and_then(|(newest_boot, newest_since)| {
        greeted()
            .filter(|(rival, boot)| {
                *boot == newest_boot && newest_since.since(rival.since) <= AT_ONCE
            })
            .max_by_key(|(rival, _)| (rival.is_direct, rival.is_preferred, rival.order))
    });
    let Some((best, _)) = best else { return Choice { keep: None, close: Vec::new() } };
    let close = greeted().filter(|(rival, _)| rival.id != best.id).map(|(rival, _)| rival.id);
    let awaited = rivals.iter().any(|rival| {
        rival.is_preferred && rival.is_direct == best.is_direct && rival.boot.is_none()
    });
    let keep = current.is_some() || best.is_preferred || !awaited;
    Choice { keep: keep.then_some(best.id), close: close.collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: Option<BootRank> = Some(BootRank { counter: 1, heard: 0 });
    const NEW: Option<BootRank> = Some(BootRank { counter: 2, heard: 1 });

    /// All at once, in the order of their ids.
    fn rival(id: u64, is_preferred: bool, boot: Option<BootRank>) -> Rival<u64> {
        rival_at(id, id, is_preferred, boot)
    }

    fn rival_at(millis: u64, id: u64, is_preferred: bool, boot: Option<BootRank>) -> Rival<u64> {
        let since = Timestamp::from_millis(millis);
        Rival { id, is_direct: true, is_preferred, since, order: id, boot }
    }

    #[track_caller]
    fn check(rivals: &[Rival<u64>], current: Option<u64>, keep: Option<u64>, close: &[u64]) {
        assert_eq!(choose(rivals, current), Choice { keep, close: close.to_vec() });
    }

    #[test]
    fn nothing_serves_before_it_greets() {
        check(&[], None, None, &[]);
        check(&[rival(1, true, None)], None, None, &[]);
        check(&[rival(1, false, OLD)], None, Some(1), &[]);
    }

    #[test]
    fn a_newer_start_closes_the_older_whoever_dialled() {
        check(&[rival(1, true, OLD), rival(2, false, NEW)], Some(1), Some(2), &[1]);
        check(&[rival(1, false, NEW), rival(2, true, OLD)], Some(1), Some(1), &[2]);
        check(&[rival(1, false, NEW), rival_at(60_000, 2, true, OLD)], Some(1), Some(1), &[2]);
        let clone = Some(BootRank { counter: 1, heard: 1 });
        check(&[rival(1, true, OLD), rival(2, true, clone)], Some(1), Some(2), &[1]);
    }

    #[test]
    fn of_two_dials_at_once_the_preferred_stays_on_both_ends() {
        let both = [rival(1, false, OLD), rival(2, true, OLD)];
        check(&both, None, Some(2), &[1]);
        check(&[both[1], both[0]], Some(1), Some(2), &[1]);
        check(&[rival(1, true, OLD), rival(2, false, OLD)], Some(1), Some(1), &[2]);
    }

    #[test]
    fn whoever_comes_again_has_lost_the_older_one() {
        let older = rival_at(0, 1, true, OLD);
        check(&[older, rival_at(1_000, 2, false, OLD)], Some(1), Some(1), &[2]);
        check(&[older, rival_at(1_001, 2, false, OLD)], Some(1), Some(2), &[1]);
        check(&[older, rival_at(1_001, 2, false, None)], Some(1), Some(1), &[]);
    }

    #[test]
    fn a_direct_connection_takes_a_relayed_ones_place() {
        let relayed = |millis, id, is_preferred| Rival {
            is_direct: false,
            ..rival_at(millis, id, is_preferred, OLD)
        };
        let direct = |millis, id| rival_at(millis, id, false, OLD);
        check(&[relayed(0, 1, true), direct(60_000, 2)], Some(1), Some(2), &[1]);
        check(&[relayed(0, 1, true), direct(10, 2)], Some(1), Some(2), &[1]);
        check(&[direct(0, 1), relayed(1_000, 2, true)], Some(1), Some(1), &[2]);
        // Nobody dials through a relay whom it is connected with.
        check(&[direct(0, 1), relayed(1_001, 2, true)], Some(1), Some(2), &[1]);
        // Nor does a direct one wait for one through a relay.
        let silent = Rival { boot: None, ..relayed(0, 2, true) };
        check(&[direct(0, 1), silent], None, Some(1), &[]);
    }

    #[test]
    fn a_greeted_connection_waits_for_the_preferred_one() {
        check(&[rival(1, false, OLD), rival(2, true, None)], None, None, &[]);
        check(&[rival(1, false, OLD), rival(2, true, None)], Some(1), Some(1), &[]);
    }

    #[test]
    fn of_two_by_one_dialler_the_newer_stays() {
        check(&[rival(1, true, OLD), rival(2, true, OLD)], Some(1), Some(2), &[1]);
    }

    proptest! {
        #[test]
        fn one_greeted_connection_is_left_whatever_the_order_of_asking(
            drawn in prop::collection::vec(
                (0_u64..4_000, any::<(bool, bool)>(), prop::option::of((0_u64..3, 0_u64..3))),
                0..5,
            ),
        ) {
            let mut rivals: Vec<Rival<u64>> = (0..).zip(&drawn).map(|(id, (at, (preferred, is_direct), boot))| {
                let boot = boot.map(|(counter, heard)| BootRank { counter, heard });
                Rival { is_direct: *is_direct, ..rival_at(*at, id, *preferred, boot) }
            }).collect();
            let choice = choose(&rivals, Some(0));
            let greeted = rivals.iter().filter(|rival| rival.boot.is_some()).count();
            prop_assert_eq!(choice.keep.is_some(), greeted > 0);
            prop_assert_eq!(choice.close.len(), greeted.saturating_sub(1));
            if let Some(kept) = choice.keep {
                prop_assert!(!choice.close.contains(&kept));
                let newest = rivals.iter().filter_map(|rival| rival.boot).max();
                prop_assert_eq!(rivals.iter().find(|rival| rival.id == kept).unwrap().boot, newest);
            }
            rivals.reverse();
            prop_assert_eq!(choose(&rivals, Some(0)).keep, choice.keep);
        }
    }

    #[test]
    fn a_start_not_heard_of_before_is_newer_than_those_with_its_counter() {
        let device = DeviceId::from_bytes([1; 32]);
        let boot = |counter, random| BootId { counter, random };
        let mut starts = Starts::default();
        let first = starts.rank(device, boot(1, 7));
        let clone = starts.rank(device, boot(1, 8));
        assert!(clone > first);
        assert_eq!(starts.rank(device, boot(1, 7)), first);
        assert!(starts.rank(device, boot(2, 0)) > clone);
        starts.retain(|_| false);
        assert!(starts.rank(device, boot(1, 7)) > clone);
    }
}

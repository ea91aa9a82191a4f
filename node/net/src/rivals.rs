//! Which of several connections to one device stays.
//!
//! The newest start of the device wins: a node that was killed and came back closes what its
//! predecessor left. Of two connections to the same start, the one dialled by the device with the
//! smaller id stays, and of two by the same dialler the newer; both ends see the same connections
//! and so decide the same way, each on its own.

/// How new a start of a device is, greater is newer: its counter, then which of several starts
/// with that counter was heard of last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct BootRank {
    pub(crate) counter: u64,
    pub(crate) heard: u64,
}

/// One connection to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rival<Id> {
    pub(crate) id: Id,
    /// Whether the device with the smaller id dialled.
    pub(crate) is_preferred: bool,
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
    let best = greeted().max_by_key(|(rival, boot)| (*boot, rival.is_preferred, rival.order));
    let Some((best, _)) = best else { return Choice { keep: None, close: Vec::new() } };
    let close = greeted().filter(|(rival, _)| rival.id != best.id).map(|(rival, _)| rival.id);
    let awaited = rivals.iter().any(|rival| rival.is_preferred && rival.boot.is_none());
    let keep = current.is_some() || best.is_preferred || !awaited;
    Choice { keep: keep.then_some(best.id), close: close.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Option<BootRank> = Some(BootRank { counter: 1, heard: 0 });
    const NEW: Option<BootRank> = Some(BootRank { counter: 2, heard: 1 });

    fn rival(id: u64, is_preferred: bool, boot: Option<BootRank>) -> Rival<u64> {
        Rival { id, is_preferred, order: id, boot }
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
        let clone = Some(BootRank { counter: 1, heard: 1 });
        check(&[rival(1, true, OLD), rival(2, true, clone)], Some(1), Some(2), &[1]);
    }

    #[test]
    fn of_two_dials_at_once_the_preferred_stays_on_both_ends() {
        let both = [rival(1, false, OLD), rival(2, true, OLD)];
        check(&both, None, Some(2), &[1]);
        check(&[both[1], both[0]], Some(1), Some(2), &[1]);
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
}

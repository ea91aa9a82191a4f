//! When a node rests after work: memory that the work left behind is given back then, and not while a
//! person is at it.
//!
//! Work is what a person, an agent or the documents had done here. What devices say without being asked
//! (presence, heads of chains, round trips) passes: with twenty of them something comes every second, and the
//! rest after work must not wait for them to be silent. What it touches is given back every two minutes.

use std::time::Duration;

use weft_protocol::{frame::Protocol, time::Timestamp};

/// No work came for so long: who types commands one after the other pays for them only once.
const QUIET: Duration = Duration::from_secs(10);
/// Work that does not stop is rested from so long after its begin: memory that it needs is back in a
/// millisecond.
const LATEST: Duration = Duration::from_secs(5 * 60);
/// So long after the first that passes. What devices say touches some 5 MB of the program within seconds and 12 MB
/// in five minutes, as measured with 10,000 notes and two other devices; to give them back takes 6 to 8 ms of the
/// processor. Once a minute that is most of what an idle node uses of it; every two minutes all of it is about
/// 10 ms a minute.
const PASSING: Duration = Duration::from_secs(2 * 60);

/// What came in since the node rested last.
#[derive(Debug)]
pub(super) struct Rest {
    /// When the first came of what passes.
    passed: Option<Timestamp>,
    work: Option<Work>,
}

#[derive(Clone, Copy, Debug)]
struct Work {
    since: Timestamp,
    last: Timestamp,
}

impl Rest {
    /// A node that starts has worked.
    pub(super) fn after_start(now: Timestamp) -> Self {
        Self { passed: None, work: Some(Work { since: now, last: now }) }
    }

    /// Something was done here.
    pub(super) fn worked(&mut self, now: Timestamp) {
        let since = self.work.map_or(now, |work| work.since);
        self.work = Some(Work { since, last: now });
    }

    /// Something was heard that asks for nothing.
    pub(super) fn passed(&mut self, now: Timestamp) {
        self.passed.get_or_insert(now);
    }

    /// Whether it rests now; it is asked for once. `is_idle`: nobody waits for anything here.
    pub(super) fn begins(&mut self, now: Timestamp, is_idle: bool) -> bool {
        let begins = self.at(is_idle).is_some_and(|at| at <= now);
        if begins {
            *self = Self { passed: None, work: None };
        }
        begins
    }

    /// When it is to rest, if anything came.
    pub(super) fn at(&self, is_idle: bool) -> Option<Timestamp> {
        let Some(Work { since, last }) = self.work else {
            let wait = if is_idle { PASSING } else { LATEST };
            return self.passed.map(|since| since + wait);
        };
        let latest = since + LATEST;
        Some(if is_idle { latest.min(last + QUIET) } else { latest })
    }
}

/// Whether what came from the network is work; `spoken` is the protocol of a frame's stream.
pub(super) fn is_work(event: &weft_net::Event, spoken: Option<Protocol>) -> bool {
    use weft_net::Event as Net;
    match spoken {
        Some(Protocol::Trust | Protocol::Sync | Protocol::Run | Protocol::Blob | Protocol::Llm) => {
            true
        }
        Some(Protocol::Presence | Protocol::Audit) => false,
        // Handshakes and greetings go through much of the program.
        None => matches!(event, Net::Connected { .. } | Net::StreamOpened { .. }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_node_rests_once_after_work() {
        let mut rest = Rest::after_start(at(0));
        assert_eq!(rest.at(true), Some(at(10)));
        assert!(!rest.begins(at(9), true));
        rest.worked(at(9));
        assert!(!rest.begins(at(11), true) && rest.begins(at(19), true));
        assert!(!rest.begins(at(100), true) && rest.at(true).is_none(), "nothing was done since");
        rest.worked(at(100));
        assert!(!rest.begins(at(109), true) && rest.begins(at(110), true));
    }

    #[test]
    fn many_devices_that_only_say_that_they_are_there_keep_none_from_resting() {
        // Twenty devices: a renewal each minute, and an answered ping each fifteen seconds.
        let mut rest = Rest::after_start(at(0));
        let mut begun = Vec::new();
        for second in 0..3_600 {
            let renewals = u32::from(second % 3 == 0);
            for _ in 0..renewals + 1 {
                rest.passed(at(second));
            }
            if rest.begins(at(second), true) {
                begun.push(second);
            }
        }
        assert_eq!(begun.first(), Some(&10), "ten seconds after its start");
        assert!((27..=30).contains(&begun.len()), "about every two minutes: {begun:?}");
    }

    #[test]
    fn what_passes_is_rested_from_two_minutes_later_and_where_nothing_passes_nothing_is() {
        let mut rest = Rest::after_start(at(0));
        assert!(rest.begins(at(10), true));
        assert_eq!(rest.at(true), None);
        rest.passed(at(100));
        rest.passed(at(150));
        assert_eq!(rest.at(true), Some(at(220)));
        rest.worked(at(215));
        assert_eq!(rest.at(true), Some(at(225)), "whoever works is not disturbed by it");
        assert!(!rest.begins(at(220), true) && rest.begins(at(225), true));
        assert_eq!(rest.at(true), None);
    }

    #[test]
    fn whoever_waits_for_something_is_not_disturbed_for_a_while() {
        let mut rest = Rest::after_start(at(0));
        assert!(!rest.begins(at(299), false) && rest.at(false) == Some(at(300)));
        assert!(rest.begins(at(300), false));
    }

    #[test]
    fn only_what_has_something_done_here_is_work() {
        let frame = weft_net::Event::Frame { stream: weft_net::StreamId(1), bytes: Vec::new() };
        let works: Vec<Protocol> = Protocol::SPOKEN
            .into_iter()
            .filter(|protocol| is_work(&frame, Some(*protocol)))
            .collect();
        assert_eq!(works, [Protocol::Trust, Protocol::Sync, Protocol::Run]);
        assert!(!is_work(&frame, None), "its stream is closed");
    }

    /// What happens to a node.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Passes,
        Works,
    }

    proptest! {
        #[test]
        fn the_rest_comes_in_time_whatever_passes(
            steps in proptest::collection::vec(
                (0..20_000_u64, prop_oneof![4 => Just(Step::Passes), 1 => Just(Step::Works)]),
                1..400,
            ),
            is_idle in any::<bool>(),
        ) {
            let mut now = Timestamp::ZERO;
            let mut rest = Rest::after_start(now);
            let (mut since, mut last) = (Some(now), now);
            let mut passed = None;
            for (millis, step) in steps {
                let next = now + Duration::from_millis(millis);
                // The node's loop wakes when the rest is due.
                while let Some(due) = rest.at(is_idle).filter(|due| *due <= next) {
                    let expected = match (since, passed) {
                        (Some(begun), _) if is_idle => (begun + LATEST).min(last + QUIET),
                        (Some(begun), _) => begun + LATEST,
                        (None, Some(first)) if is_idle => first + PASSING,
                        (None, Some(first)) => first + LATEST,
                        (None, None) => return Err(TestCaseError::fail("nothing came")),
                    };
                    prop_assert_eq!(due, expected);
                    prop_assert!(rest.begins(due, is_idle));
                    prop_assert!(rest.at(is_idle).is_none(), "it never spins");
                    (since, passed) = (None, None);
                }
                now = next;
                match step {
                    Step::Works => {
                        rest.worked(now);
                        last = now;
                        since = since.or(Some(now));
                    }
                    Step::Passes => {
                        rest.passed(now);
                        passed = passed.or(Some(now));
                    }
                }
                let came = since.is_some() || passed.is_some();
                prop_assert_eq!(rest.at(is_idle).is_some(), came);
            }
        }
    }
}

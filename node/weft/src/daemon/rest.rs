//! When a node rests after work: memory that the work left behind is given back then, and not while a
//! person is at it.
//!
//! Work is what a person, an agent or the documents had done here. What devices say without being asked, this
//! one among them (presence, heads of chains), passes: with twenty of them something comes every second, and the rest
//! after work must not wait for them to be silent. It touches some 8 MB of the program at once, as measured with 10,000
//! notes and two other devices, and to touch that again is about a third of what a resting phone uses of the
//! processor. So a node rests as soon as all was said, where its last rest is long enough ago.

use std::time::Duration;

use weft_protocol::{frame::Protocol, time::Timestamp};

/// No work came for so long: who types commands one after the other pays for them only once.
const QUIET: Duration = Duration::from_secs(10);
/// Work that does not stop is rested from so long after its begin: memory that it needs is back in a
/// millisecond.
const LATEST: Duration = Duration::from_secs(5 * 60);
/// After so long without another word all was said for now.
const SAID: Duration = Duration::from_secs(3);
/// Words that follow one another are rested from so long after the first.
const SAID_LATEST: Duration = Duration::from_secs(10);

/// What came in since the node rested last.
#[derive(Debug)]
pub(super) struct Rest {
    /// Rests from what passes begin at least so long after the one before.
    apart: Duration,
    /// When the node rested last, or started.
    rested: Timestamp,
    passed: Option<Passed>,
    work: Option<Work>,
}

/// Words that passed since the last rest.
#[derive(Clone, Copy, Debug)]
struct Passed {
    /// The first, or when it may be rested from, if that is later.
    since: Timestamp,
    last: Timestamp,
}

/// What a node rests from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rested {
    Work,
    /// What devices say without being asked.
    Passing,
}

#[derive(Clone, Copy, Debug)]
struct Work {
    since: Timestamp,
    last: Timestamp,
}

impl Rest {
    /// A node that starts has worked.
    pub(super) fn after_start(now: Timestamp, apart: Duration) -> Self {
        let work = Some(Work { since: now, last: now });
        Self { apart, rested: now, passed: None, work }
    }

    /// Something was done here.
    pub(super) fn worked(&mut self, now: Timestamp) {
        let since = self.work.map_or(now, |work| work.since);
        self.work = Some(Work { since, last: now });
    }

    /// Something was said, or heard that asks for nothing.
    pub(super) fn passed(&mut self, now: Timestamp) {
        let may = self.rested + self.apart;
        let since = self.passed.map_or(now.max(may), |passed| passed.since);
        self.passed = Some(Passed { since, last: now });
    }

    /// From what it rests now, if it does; it is asked for once. `is_idle`: nobody waits for anything here.
    pub(super) fn begins(&mut self, now: Timestamp, is_idle: bool) -> Option<Rested> {
        self.at(is_idle).filter(|at| *at <= now)?;
        let from = if self.work.is_some() { Rested::Work } else { Rested::Passing };
        *self = Self { apart: self.apart, rested: now, passed: None, work: None };
        Some(from)
    }

    /// When it is to rest, if anything came.
    pub(super) fn at(&self, is_idle: bool) -> Option<Timestamp> {
        let Some(Work { since, last }) = self.work else {
            return self.passed.map(|Passed { since, last }| match is_idle {
                true => (since + SAID_LATEST).min(since.max(last) + SAID),
                false => since + LATEST,
            });
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

    const APART: Duration = Duration::from_secs(50);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_node_rests_once_after_work() {
        let mut rest = Rest::after_start(at(0), APART);
        assert_eq!(rest.at(true), Some(at(10)));
        assert_eq!(rest.begins(at(9), true), None);
        rest.worked(at(9));
        assert_eq!(rest.begins(at(11), true), None);
        assert_eq!(rest.begins(at(19), true), Some(Rested::Work));
        assert_eq!(rest.begins(at(100), true), None, "nothing was done since");
        assert_eq!(rest.at(true), None);
        rest.worked(at(100));
        assert_eq!(rest.begins(at(109), true), None);
        assert_eq!(rest.begins(at(110), true), Some(Rested::Work));
    }

    #[test]
    fn many_devices_that_only_say_that_they_are_there_keep_none_from_resting() {
        // Twenty devices: a renewal each minute, and an answered ping each fifteen seconds.
        let mut rest = Rest::after_start(at(0), APART);
        let mut begun = Vec::new();
        for second in 0..3_600 {
            let renewals = u32::from(second % 3 == 0);
            for _ in 0..renewals + 1 {
                rest.passed(at(second));
            }
            if let Some(from) = rest.begins(at(second), true) {
                begun.push((second, from));
            }
        }
        assert_eq!(begun[0], (10, Rested::Work), "ten seconds after its start");
        assert!(begun[1..].iter().all(|(_, from)| *from == Rested::Passing), "{begun:?}");
        let mut gaps = begun.windows(2).map(|pair| pair[1].0 - pair[0].0);
        // Something comes every second: never three seconds of silence.
        assert!(gaps.all(|gap| gap == 60), "{begun:?}");
    }

    #[test]
    fn a_node_rests_as_soon_as_the_others_said_that_they_are_there() {
        let rests = |apart, said: &[u64]| {
            let mut rest = Rest::after_start(at(0), Duration::from_secs(apart));
            let mut begun = Vec::new();
            for second in 0..=300 {
                if said.contains(&(second % 60)) {
                    rest.passed(at(second));
                }
                if rest.begins(at(second), true).is_some() {
                    begun.push(second);
                }
            }
            begun
        };
        assert_eq!(rests(20, &[40, 41]), [10, 44, 104, 164, 224, 284], "together");
        assert_eq!(rests(20, &[40, 42, 44, 46, 48]), [10, 50, 110, 170, 230, 290], "in a row");
        assert_eq!(
            rests(20, &[10, 40]),
            [10, 43, 73, 103, 133, 163, 193, 223, 253, 283],
            "in turn"
        );
        assert_eq!(rests(120, &[40, 41]), [10, 133, 256], "seldom");
    }

    #[test]
    fn what_passes_is_rested_from_and_where_nothing_passes_nothing_is() {
        let mut rest = Rest::after_start(at(0), APART);
        assert_eq!(rest.begins(at(10), true), Some(Rested::Work));
        assert_eq!(rest.at(true), None);
        rest.passed(at(100));
        rest.passed(at(102));
        assert_eq!(rest.at(true), Some(at(105)));
        rest.worked(at(104));
        assert_eq!(rest.at(true), Some(at(114)), "whoever works is not disturbed by it");
        assert_eq!(rest.begins(at(105), true), None);
        assert_eq!(rest.begins(at(114), true), Some(Rested::Work));
        assert_eq!(rest.at(true), None);
        rest.passed(at(120));
        assert_eq!(rest.at(true), Some(at(167)), "the device that said it says no more");
        assert_eq!(rest.begins(at(167), true), Some(Rested::Passing));
    }

    #[test]
    fn whoever_waits_for_something_is_not_disturbed_for_a_while() {
        let mut rest = Rest::after_start(at(0), APART);
        assert_eq!(rest.begins(at(299), false), None);
        assert_eq!(rest.at(false), Some(at(300)));
        assert_eq!(rest.begins(at(300), false), Some(Rested::Work));
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
        /// Somebody begins to wait for something here, or nobody does any more.
        Waits(bool),
    }

    proptest! {
        #[test]
        fn the_rest_comes_in_time_whatever_passes(
            steps in proptest::collection::vec(
                (0..20_000_u64, prop_oneof![
                    8 => Just(Step::Passes),
                    1 => Just(Step::Works),
                    1 => any::<bool>().prop_map(Step::Waits),
                ]),
                1..400,
            ),
        ) {
            let mut now = Timestamp::ZERO;
            let mut rest = Rest::after_start(now, APART);
            let mut rested = now;
            let (mut worked, mut passed) = (vec![now], Vec::new());
            let mut is_idle = true;
            // The node's loop wakes when the rest is due, and looks at each second.
            for (millis, step) in steps {
                let next = now + Duration::from_millis(millis);
                while now < next {
                    let due = rest.at(is_idle).map_or(next, |at| at.max(now));
                    now = due.min(next).min(now + Duration::from_secs(1));
                    let from = rest.begins(now, is_idle);
                    let first = worked.first().or(passed.first()).copied();
                    match from {
                        Some(from) => {
                            let is_work = !worked.is_empty();
                            prop_assert_eq!(from == Rested::Work, is_work);
                            prop_assert!(first.is_some(), "nothing came");
                            prop_assert!(is_work || now >= rested + APART + SAID);
                            prop_assert!(rest.at(is_idle).is_none(), "it never spins");
                            let last = worked.last().copied().unwrap_or(now);
                            let is_late = first.is_some_and(|first| now >= first + LATEST);
                            prop_assert!(!is_work || is_late || is_idle && now >= last + QUIET);
                            rested = now;
                            worked.clear();
                            passed.clear();
                        }
                        None => {
                            let latest = first.map(|first| first.max(rested + APART) + LATEST);
                            prop_assert!(latest.is_none_or(|latest| now <= latest), "it rests at last");
                            let soon = passed.first().map(|at| (rested + APART).max(*at) + SAID_LATEST);
                            let is_due = is_idle && worked.is_empty() && soon.is_some_and(|at| at <= now);
                            prop_assert!(!is_due, "it rests soon");
                        }
                    }
                }
                match step {
                    Step::Works => {
                        rest.worked(now);
                        worked.push(now);
                    }
                    Step::Passes => {
                        rest.passed(now);
                        passed.push(now);
                    }
                    Step::Waits(waits) => is_idle = !waits,
                }
                let came = !worked.is_empty() || !passed.is_empty();
                prop_assert_eq!(rest.at(is_idle).is_some(), came);
            }
        }
    }
}

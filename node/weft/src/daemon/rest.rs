//! When a node rests after work: memory that the work left behind is given back then, and not while a
//! person is at it.

use std::time::Duration;

use weft_protocol::time::Timestamp;

/// Nothing came for so long: who types commands one after the other pays for them only once.
const QUIET: Duration = Duration::from_secs(10);
/// What comes to a node at rest is a frame of presence now and then. So many are work.
const WORK_MIN: u32 = 100;

/// What came in since the node rested last.
#[derive(Debug)]
pub(super) struct Rest {
    work: u32,
    last: Timestamp,
}

impl Rest {
    /// A node that starts has worked.
    pub(super) fn after_start(now: Timestamp) -> Self {
        Self { work: WORK_MIN, last: now }
    }

    /// Something came from outside: a frame, a sighting.
    pub(super) fn heard(&mut self, now: Timestamp) {
        self.work = self.work.saturating_add(1);
        self.last = now;
    }

    /// A person or an agent had something done.
    pub(super) fn worked(&mut self, now: Timestamp) {
        self.work = WORK_MIN;
        self.last = now;
    }

    /// Whether it rests now, after work; it is asked for once.
    pub(super) fn begins(&mut self, now: Timestamp) -> bool {
        let begins = self.work >= WORK_MIN && now.since(self.last) >= QUIET;
        if begins {
            self.work = 0;
        }
        begins
    }

    /// When it may rest, if it has worked.
    pub(super) fn at(&self) -> Option<Timestamp> {
        (self.work >= WORK_MIN).then(|| self.last + QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_node_rests_once_after_work() {
        let mut rest = Rest::after_start(at(0));
        assert_eq!(rest.at(), Some(at(10)));
        assert!(!rest.begins(at(9)));
        rest.heard(at(9));
        assert!(!rest.begins(at(11)) && rest.begins(at(19)));
        assert!(!rest.begins(at(100)) && rest.at().is_none(), "nothing was done since");
        rest.worked(at(100));
        assert!(!rest.begins(at(109)) && rest.begins(at(110)));
    }

    #[test]
    fn presence_alone_is_no_work_for_long() {
        let mut rest = Rest::after_start(at(0));
        assert!(rest.begins(at(10)));
        let begun = (1..=400).filter(|n| {
            rest.heard(at(15 * n));
            rest.begins(at(15 * n + 14))
        });
        assert_eq!(begun.count(), 4, "in 100 minutes with one frame in 15 seconds");
    }
}

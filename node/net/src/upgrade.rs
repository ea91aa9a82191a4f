//! When a relayed connection is tried for a direct one again.
//!
//! A relayed connection is upgraded when it comes up, if the routers on the way allow it. Where that
//! failed, it is tried again after waits that grow, and at once when something changed: this node's
//! network, or an address of the device that was not known, the latter as often as [`Hearsay`] allows.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use weft_protocol::{id::DeviceId, time::Timestamp};

use crate::hearsay::Hearsay;

/// The waits: what was missing at first (an observation, an address in presence) is there seconds later,
/// and what routers forbid they forbid for long.
const WAITS: [Duration; 5] = [
    Duration::from_secs(3),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1_800),
];

/// What comes within so long of a try has that try for an answer.
const TRY_TIME: Duration = Duration::from_secs(2);

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// A relayed connection serves the device.
    Relayed(DeviceId),
    /// A direct one does, or none.
    Settled(DeviceId),
    /// An address of the device became known, or it was sighted.
    Reachable(DeviceId),
    /// This node's own network is another.
    Moved,
}

#[derive(Clone, Copy, Debug)]
struct Try {
    until: Timestamp,
    last: Option<Timestamp>,
    failures: usize,
}

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct Upgrade {
    relayed: BTreeMap<DeviceId, Try>,
    hearsay: Hearsay,
    tries: VecDeque<DeviceId>,
}

impl Upgrade {
    pub(crate) fn handle_input(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Relayed(device) => {
                // One that comes again and again is tried no sooner than one that stays.
                let failures = if self.hearsay.loss(device, now) { 0 } else { WAITS.len() - 1 };
                let first = Try { until: now + WAITS[failures], last: None, failures };
                self.relayed.insert(device, first);
            }
            Input::Settled(device) => {
                self.relayed.remove(&device);
                self.tries.retain(|other| *other != device);
            }
            Input::Reachable(device) => {
                if let Some(it) = self.relayed.get_mut(&device)
                    && self.hearsay.news(device, now)
                {
                    it.hurry(now);
                }
            }
            Input::Moved => {
                self.hearsay.clear();
                self.relayed.values_mut().for_each(|it| it.hurry(now));
            }
        }
        self.handle_timeout(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        for (&device, it) in &mut self.relayed {
            if it.until <= now {
                it.failures = (it.failures + 1).min(WAITS.len() - 1);
                it.last = Some(now);
                it.until = now + WAITS[it.failures];
                self.tries.push_back(device);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.relayed.values().map(|it| it.until).min()
    }

    /// The next device to be tried.
    pub(crate) fn poll_output(&mut self) -> Option<DeviceId> {
        self.tries.pop_front()
    }
}

impl Try {
    fn hurry(&mut self, now: Timestamp) {
        self.failures = 0;
        let soonest = self.last.map_or(now, |last| (last + TRY_TIME).max(now));
        self.until = self.until.min(soonest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: DeviceId = DeviceId::from_bytes([1; 32]);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_waits_grow_up_to_half_an_hour() {
        let mut upgrade = Upgrade::default();
        upgrade.handle_input(Input::Relayed(A), at(0));
        assert_eq!(upgrade.poll_output(), None);
        let mut tried = Vec::new();
        for _ in 0..6 {
            let due = upgrade.poll_timeout().unwrap();
            upgrade.handle_timeout(due);
            assert_eq!(upgrade.poll_output(), Some(A));
            tried.push(due.since(Timestamp::ZERO).as_secs());
        }
        assert_eq!(tried, [3, 18, 78, 378, 2_178, 3_978]);
        upgrade.handle_input(Input::Settled(A), at(5_000_000));
        assert_eq!(upgrade.poll_timeout(), None);
    }

    #[test]
    fn a_new_network_or_address_is_tried_at_once_but_not_again_and_again() {
        let mut upgrade = Upgrade::default();
        upgrade.handle_input(Input::Reachable(A), at(0));
        upgrade.handle_input(Input::Relayed(A), at(0));
        upgrade.handle_input(Input::Moved, at(100));
        assert_eq!(upgrade.poll_output(), Some(A));
        for millis in [200, 300, 400] {
            upgrade.handle_input(Input::Reachable(A), at(millis));
            assert_eq!(upgrade.poll_output(), None);
        }
        assert_eq!(upgrade.poll_timeout(), Some(at(2_100)));
    }

    #[test]
    fn whoever_names_address_after_address_is_tried_seldom() {
        let mut upgrade = Upgrade::default();
        upgrade.handle_input(Input::Relayed(A), at(0));
        let mut tried = 0;
        for second in 1..=3_600 {
            upgrade.handle_input(Input::Reachable(A), at(second * 1_000));
            while upgrade.poll_output().is_some() {
                tried += 1;
            }
        }
        // Without a bound it would be every other second.
        assert!((24..200).contains(&tried), "{tried}");
    }

    proptest! {
        /// Whatever happens, a device is tried at most once in [`TRY_TIME`], and while it is relayed it is
        /// tried again some time.
        #[test]
        fn tries_lie_apart_and_never_end(steps in prop::collection::vec((0_u8..4, 1_u64..3_000), 0..100)) {
            let mut upgrade = Upgrade::default();
            let (mut now, mut relayed, mut last) = (0, false, None::<u64>);
            for (step, wait) in steps {
                now += wait;
                match step {
                    0 => { relayed = true; last = None; upgrade.handle_input(Input::Relayed(A), at(now)); }
                    1 => { relayed = false; upgrade.handle_input(Input::Settled(A), at(now)); }
                    2 => upgrade.handle_input(Input::Reachable(A), at(now)),
                    _ => upgrade.handle_input(Input::Moved, at(now)),
                }
                while upgrade.poll_output().is_some() {
                    prop_assert!(relayed);
                    prop_assert!(last.is_none_or(|last| now - last >= 2_000), "{last:?} then {now}");
                    last = Some(now);
                }
                prop_assert_eq!(upgrade.poll_timeout().is_some(), relayed);
            }
        }
    }
}

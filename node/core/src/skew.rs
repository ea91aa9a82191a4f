//! How this device's wall clock stands beside those of the others, and whether it was set.
//!
//! Each presence record tells its device's wall clock. Between its signing and its arrival lies some
//! time, never less than none, so of the newest few the one that is furthest ahead is nearest to the
//! truth. Only records that come from their device itself count: one that was passed on may be old.
//! Nothing is decided by it; it is for a person whose timers fire at odd times.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use weft_protocol::{
    id::DeviceId,
    time::{Now, WallTime},
};

/// So many of the newest records of a device are looked at: of one that has nothing new to tell they are three
/// minutes from the first to the last ([`RENEW`](crate::presence::RENEW)), of one that has, less.
const RECORDS: usize = 4;

/// Of two clocks that both count on, one was set if they come apart by so much between two looks. A
/// network's time moves a clock by less.
const JUMP: Duration = Duration::from_secs(2);

/// This device's wall clock was set while the node ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockSet {
    /// When, by the clock as it was set.
    pub at: WallTime,
    /// By how much, forward, in milliseconds.
    pub forward_ms: i64,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Skew {
    looked: Option<Now>,
    set: Option<ClockSet>,
    /// How far each device's clock was ahead of this one's, in milliseconds, the newest last.
    ahead: BTreeMap<DeviceId, VecDeque<i64>>,
}

impl Skew {
    /// Looks at both clocks of this device.
    pub fn look(&mut self, now: Now) {
        let before = self.looked.replace(now).unwrap_or(now);
        let passed = i64::try_from(now.mono.since(before.mono).as_millis()).unwrap_or(i64::MAX);
        let shown = now.wall.unix_millis().saturating_sub(before.wall.unix_millis());
        let forward_ms = shown.saturating_sub(passed);
        if u128::from(forward_ms.unsigned_abs()) > JUMP.as_millis() {
            self.set = Some(ClockSet { at: now.wall, forward_ms });
            // They were measured with another clock.
            self.ahead.clear();
        }
    }

    /// A device said what its clock shows.
    pub fn heard(&mut self, device: DeviceId, theirs: WallTime, now: WallTime) {
        let ahead = self.ahead.entry(device).or_default();
        ahead.push_back(theirs.unix_millis().saturating_sub(now.unix_millis()));
        if ahead.len() > RECORDS {
            ahead.pop_front();
        }
    }

    /// How far a device's clock is ahead of this one's, in milliseconds; `None`: it has not said.
    pub fn ahead_ms(&self, device: &DeviceId) -> Option<i64> {
        self.ahead.get(device)?.iter().copied().max()
    }

    /// When this device's clock was last set while the node ran, and by how much.
    pub fn set(&self) -> Option<ClockSet> {
        self.set
    }

    /// Forgets a device that no longer belongs.
    pub fn forget(&mut self, device: &DeviceId) {
        self.ahead.remove(device);
    }
}

#[cfg(test)]
mod tests {
    use weft_protocol::time::Timestamp;

    use super::*;

    const PHONE: DeviceId = DeviceId::from_bytes([2; 32]);

    fn now(mono_ms: u64, wall_ms: i64) -> Now {
        Now { mono: Timestamp::from_millis(mono_ms), wall: WallTime::from_unix_millis(wall_ms) }
    }

    #[test]
    fn a_clock_that_is_set_is_told_from_one_that_counts() {
        let mut skew = Skew::default();
        // The machine slept an hour, and the network's time moved the clock a little.
        for (mono, wall) in
            [(0, 9_000), (10, 9_010), (3_600_010, 3_609_900), (3_600_020, 3_609_905)]
        {
            skew.look(now(mono, wall));
        }
        assert_eq!(skew.set(), None);
        skew.heard(PHONE, WallTime::from_unix_millis(1), WallTime::from_unix_millis(0));
        skew.look(now(3_601_000, 9_000));
        let set = skew.set().expect("it was set");
        assert_eq!((set.at.unix_millis(), set.forward_ms), (9_000, -3_601_885));
        assert_eq!(skew.ahead_ms(&PHONE), None, "measured with the clock as it was");
    }

    #[test]
    fn of_the_newest_records_the_one_that_took_least_counts() {
        let mut skew = Skew::default();
        let mut heard = |theirs: i64| {
            skew.heard(PHONE, WallTime::from_unix_millis(theirs), WallTime::from_unix_millis(0));
            skew.ahead_ms(&PHONE)
        };
        let took = [-9_000, -20, -400, -30_000, -900, -900];
        let best = took.map(&mut heard);
        assert_eq!(best, [-9_000, -20, -20, -20, -20, -400].map(Some));
        skew.forget(&PHONE);
        assert_eq!(skew.ahead_ms(&PHONE), None);
    }
}

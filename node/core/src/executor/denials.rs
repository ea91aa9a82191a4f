//! Which denials have a record of their own.
//!
//! Each denied offer is worth a record, until somebody makes a thousand of them: then the chain would be
//! the asker's to fill. What is over a device's allowance is denied all the same, and recorded as one
//! count a minute.

use std::{collections::BTreeMap, time::Duration};

use weft_protocol::{id::DeviceId, time::Timestamp};

/// Denials of one device with a record each, one after the other: a plan has at most 64 steps.
const BURST: u64 = 64;

/// So long until one more has.
const EACH: Duration = Duration::from_secs(1);

/// The others are recorded as a count so often.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// What each device has left.
#[derive(Debug, Default)]
pub(super) struct Denials(BTreeMap<DeviceId, Left>);

#[derive(Debug)]
struct Left {
    records: u64,
    /// Since when it has so many.
    at: Timestamp,
    /// Those without a record of their own, and since when there are any.
    counted: u64,
    since: Timestamp,
}

impl Denials {
    /// Counts a denial; whether it has a record of its own.
    pub(super) fn denied(&mut self, device: DeviceId, now: Timestamp) -> bool {
        let full = || Left { records: BURST, at: now, counted: 0, since: now };
        let left = self.0.entry(device).or_insert_with(full);
        let earned = now.since(left.at).as_secs() / EACH.as_secs();
        if left.records + earned >= BURST {
            (left.records, left.at) = (BURST, now);
        } else {
            left.records += earned;
            left.at = left.at + EACH.saturating_mul(u32::try_from(earned).unwrap_or(u32::MAX));
        }
        if left.records > 0 {
            left.records -= 1;
            return true;
        }
        if left.counted == 0 {
            left.since = now;
        }
        left.counted += 1;
        false
    }

    /// When a count is to be recorded.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let counted = self.0.values().filter(|left| left.counted > 0);
        counted.map(|left| left.since + COUNT_EVERY).min()
    }

    /// The counts that are to be recorded now.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<(DeviceId, u64)> {
        let counted = self.0.iter_mut().filter(|(_, left)| left.counted > 0);
        counted
            .filter(|(_, left)| left.since + COUNT_EVERY <= now)
            .map(|(device, left)| (*device, std::mem::take(&mut left.counted)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Timestamp = |seconds| Timestamp::ZERO + Duration::from_secs(seconds);

    #[test]
    fn a_flood_of_denials_is_some_records_and_a_count_a_minute() {
        let (a, b) = (DeviceId::from_bytes([1; 32]), DeviceId::from_bytes([2; 32]));
        let mut denials = Denials::default();
        let recorded = (0..10_000).filter(|_| denials.denied(a, AT(0))).count();
        assert_eq!(recorded, 64);
        assert!(denials.denied(b, AT(0)), "another device has its own");
        assert_eq!(denials.poll_timeout(), Some(AT(60)));
        assert_eq!(denials.due(AT(59)), []);
        assert_eq!(denials.due(AT(60)), [(a, 9_936)]);
        assert_eq!((denials.due(AT(61)), denials.poll_timeout()), (vec![], None));
        // What was earned meanwhile is no more than it was.
        let recorded = (0..1_000).filter(|_| denials.denied(a, AT(90))).count();
        assert_eq!(recorded, 64);
        assert!(denials.denied(a, AT(91)));
        assert!(!denials.denied(a, AT(91)));
    }
}

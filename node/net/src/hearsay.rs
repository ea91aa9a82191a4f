//! How often what others say hurries this node.
//!
//! A new address of a device ends the wait for it: so a device is back at once. One that fell into wrong
//! hands could name another address each second, and come and go as often, and everybody would dial without
//! end. So each device has an allowance of both; beyond it, what is said is taken note of and waits its turn.

use std::collections::BTreeMap;

use weft_protocol::{id::DeviceId, time::Timestamp};

use crate::allowance::{Bucket, Rate};

/// Addresses that become known, and sightings. A device that starts or changes its network says some three
/// times where it is, as it finds out; one on its way does so a few times in an hour. Only whoever has no
/// direct connection with it counts.
const NEWS: Rate = Rate::each_hour(24, 24);

/// Connections that had settled and are lost: a router that restarts, a train in tunnels.
const LOSSES: Rate = Rate::each_hour(64, 60);

#[derive(Clone, Copy, Debug)]
struct Account {
    news: Bucket,
    losses: Bucket,
}

/// What each device has left.
#[derive(Debug, Default)]
pub(crate) struct Hearsay(BTreeMap<DeviceId, Account>);

impl Hearsay {
    /// Counts something new of a device; whether it hurries this node.
    pub(crate) fn news(&mut self, device: DeviceId, now: Timestamp) -> bool {
        self.account(device, now).news.take(now)
    }

    /// Counts the loss of a connection that had settled; whether it hurries this node.
    pub(crate) fn loss(&mut self, device: DeviceId, now: Timestamp) -> bool {
        self.account(device, now).losses.take(now)
    }

    /// Forgets all other devices.
    pub(crate) fn retain(&mut self, kept: impl Fn(&DeviceId) -> bool) {
        self.0.retain(|device, _| kept(device));
    }

    /// Forgets all: where this node is now, nobody has said anything yet.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    fn account(&mut self, device: DeviceId, now: Timestamp) -> &mut Account {
        let new = || Account { news: Bucket::new(NEWS, now), losses: Bucket::new(LOSSES, now) };
        self.0.entry(device).or_insert_with(new)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AT: fn(u64) -> Timestamp = |seconds| Timestamp::ZERO + Duration::from_secs(seconds);
    const ONE: DeviceId = DeviceId::from_bytes([1; 32]);
    const OTHER: DeviceId = DeviceId::from_bytes([2; 32]);

    #[test]
    fn whoever_says_much_is_heard_seldom_and_others_as_before() {
        let mut hearsay = Hearsay::default();
        let heard = (0..100).filter(|_| hearsay.news(ONE, AT(0))).count();
        assert_eq!(heard, 24);
        assert!(hearsay.news(OTHER, AT(0)));
        assert!(hearsay.loss(ONE, AT(0)));
        assert!(!hearsay.news(ONE, AT(149)));
        assert!(hearsay.news(ONE, AT(150)));
        hearsay.retain(|device| *device == ONE);
        assert!(!hearsay.news(ONE, AT(150)));
        hearsay.clear();
        assert!(hearsay.news(ONE, AT(150)));
    }
}

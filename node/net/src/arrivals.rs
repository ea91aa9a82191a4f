//! How many strangers come from where: a bounded book of source addresses.

use std::{collections::BTreeMap, net::IpAddr};

use weft_protocol::time::Timestamp;

use crate::allowance::{Bucket, Rate};

/// Strangers that one source may send one after the other. A device that was added while this one was
/// away comes as one, and backs off from 250 ms; a household that shares an address has twenty.
const ARRIVALS: Rate = Rate::each_second(32, 1);

/// Sources that are remembered one by one. Full buckets are forgotten first; when none is, whoever
/// else comes shares one bucket.
const SOURCES_MAX: usize = 1_024;

/// The strangers of each source.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    sources: BTreeMap<IpAddr, Bucket>,
    others: Option<Bucket>,
}

impl Arrivals {
    /// Counts a stranger that arrived from what [`address::source`](crate::address::source) calls one
    /// place; whether it may stay.
    pub(crate) fn arrived(&mut self, source: IpAddr, now: Timestamp) -> bool {
        if !self.sources.contains_key(&source) {
            if self.sources.len() >= SOURCES_MAX {
                self.sources.retain(|_, bucket| !bucket.is_full(now));
            }
            if self.sources.len() >= SOURCES_MAX {
                let others = self.others.get_or_insert_with(|| Bucket::new(ARRIVALS, now));
                return others.take(now);
            }
        }
        let bucket = self.sources.entry(source);
        bucket.or_insert_with(|| Bucket::new(ARRIVALS, now)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AT: fn(u64) -> Timestamp = |seconds| Timestamp::ZERO + Duration::from_secs(seconds);

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    #[test]
    fn who_comes_again_and_again_waits_and_others_do_not() {
        let mut arrivals = Arrivals::default();
        for _ in 0..ARRIVALS.burst {
            assert!(arrivals.arrived(v4(1), AT(0)));
        }
        assert!(!arrivals.arrived(v4(1), AT(0)));
        assert!(arrivals.arrived(v4(2), AT(0)));
        assert!(arrivals.arrived(v4(1), AT(1)));
        assert!(!arrivals.arrived(v4(1), AT(1)));
    }

    #[test]
    fn a_flood_of_addresses_fills_a_book_that_does_not_grow() {
        let mut arrivals = Arrivals::default();
        let came = (0..5_000).filter(|n| arrivals.arrived(v4(*n), AT(0))).count();
        assert_eq!(came, SOURCES_MAX + ARRIVALS.burst as usize);
        assert_eq!(arrivals.sources.len(), SOURCES_MAX);
        // A minute later those who left nothing owing have made room.
        assert!(arrivals.arrived(v4(200_000), AT(60)));
        assert_eq!(arrivals.sources.len(), 1);
    }
}

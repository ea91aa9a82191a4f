//! How much one peer may send: token buckets, by device and protocol.
//!
//! A pure machine; the time is handed in. What exceeds closes the stream: who keeps to the
//! protocols never comes near, since each bucket has room for the largest burst of an honest peer
//! many times over. Bytes need no bucket of their own, as what is not read yet holds its sender
//! back; frames do, as each costs a decision however small it is.

use std::{collections::BTreeMap, time::Duration};

use weft_protocol::{frame::Protocol, id::DeviceId, time::Timestamp};

/// What a bucket holds when it is full, and what flows back into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    each_hour: u32,
}

impl Rate {
    pub(crate) const fn each_second(burst: u32, flow: u32) -> Self {
        Self { burst, each_hour: flow * 3_600 }
    }

    pub(crate) const fn each_hour(burst: u32, flow: u32) -> Self {
        Self { burst, each_hour: flow }
    }
}

/// Trust travels in messages of up to 64 KiB each. The largest graph that is taken has 16 MiB, and a
/// statement 32 KiB at most, so that each message but the last is half full at least: 512, and the few
/// around them. That of 20 devices over years is a handful. A change is one.
const TRUST: Rate = Rate::each_second(576, 8);

/// Each of 20 devices renews its record each minute and when it changes, and each passes on what it
/// hears once.
const PRESENCE: Rate = Rate::each_second(256, 32);

/// Each of 20 devices shows a head and countersigns those of the others at most once a second.
const AUDIT: Rate = Rate::each_second(2_048, 128);

/// 64 steps with a beat a second each, and what a model says word by word, told in frames.
const RUN: Rate = Rate::each_second(8_192, 2_048);

/// 10,000 documents that all differ, one frame for each on the way there and back.
const SYNC: Rate = Rate::each_second(32_768, 4_096);

/// Nobody speaks these yet.
const UNSPOKEN: Rate = Rate::each_second(16, 1);

/// Streams that a peer opens. An honest one opens each protocol once, and again at waits that double
/// up to 30 s.
const OPENS: Rate = Rate::each_second(64, 2);

const fn rate_of(protocol: Protocol) -> Rate {
    match protocol {
        Protocol::Trust => TRUST,
        Protocol::Presence => PRESENCE,
        Protocol::Sync => SYNC,
        Protocol::Run => RUN,
        Protocol::Audit => AUDIT,
        Protocol::Blob | Protocol::Llm => UNSPOKEN,
    }
}

/// Into so many parts a token is divided: at one token an hour, one flows in a millisecond, so that slow
/// rates lose nothing.
const PARTS: u64 = 3_600_000;

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    parts: u64,
    at: Timestamp,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(rate: Rate, now: Timestamp) -> Self {
        Self { rate, parts: u64::from(rate.burst) * PARTS, at: now }
    }

    /// Takes one token, or says that there is none.
    pub(crate) fn take(&mut self, now: Timestamp) -> bool {
        self.fill(now);
        match self.parts.checked_sub(PARTS) {
            Some(left) => {
                self.parts = left;
                true
            }
            None => false,
        }
    }

    /// Whether it is as a new one would be, so that it need not be kept.
    pub(crate) fn is_full(&mut self, now: Timestamp) -> bool {
        self.fill(now);
        self.parts == u64::from(self.rate.burst) * PARTS
    }

    fn fill(&mut self, now: Timestamp) {
        let millis = now.since(self.at).as_millis();
        if millis == 0 {
            // What is less than a millisecond stays in `at`.
            return;
        }
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let flowed = millis.saturating_mul(u64::from(self.rate.each_hour));
        let full = u64::from(self.rate.burst) * PARTS;
        self.parts = self.parts.saturating_add(flowed).min(full);
        self.at = self.at + Duration::from_millis(millis);
    }
}

/// What a peer has left.
#[derive(Debug)]
struct Account {
    opens: Bucket,
    frames: BTreeMap<Protocol, Bucket>,
    /// How often it sent more than it may.
    exceeded: u64,
}

/// Of each device: what it may still send.
///
/// It outlives streams, and of a member connections too, so that nobody gains by opening new ones. Of
/// a stranger it lasts as long as it is connected: what it may send is bounded otherwise.
#[derive(Debug, Default)]
pub(crate) struct Allowances(BTreeMap<DeviceId, Account>);

impl Allowances {
    /// Counts one frame.
    ///
    /// # Errors
    ///
    /// It is one too many; how often that was said of this device.
    pub(crate) fn frame(
        &mut self,
        device: DeviceId,
        protocol: Protocol,
        now: Timestamp,
    ) -> Result<(), u64> {
        let account = self.account(device, now);
        let bucket = account.frames.entry(protocol);
        let has = bucket.or_insert_with(|| Bucket::new(rate_of(protocol), now)).take(now);
        account.judge(has)
    }

    /// Counts one stream that the device opened.
    ///
    /// # Errors
    ///
    /// It is one too many; how often that was said of this device.
    pub(crate) fn open(&mut self, device: DeviceId, now: Timestamp) -> Result<(), u64> {
        let account = self.account(device, now);
        let has = account.opens.take(now);
        account.judge(has)
    }

    /// Forgets all other devices.
    pub(crate) fn retain(&mut self, kept: impl Fn(&DeviceId) -> bool) {
        self.0.retain(|device, _| kept(device));
    }

    fn account(&mut self, device: DeviceId, now: Timestamp) -> &mut Account {
        self.0.entry(device).or_insert_with(|| Account {
            opens: Bucket::new(OPENS, now),
            frames: BTreeMap::new(),
            exceeded: 0,
        })
    }
}

impl Account {
    fn judge(&mut self, has: bool) -> Result<(), u64> {
        if has {
            return Ok(());
        }
        self.exceeded += 1;
        Err(self.exceeded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: fn(u64) -> Timestamp = |millis| Timestamp::ZERO + Duration::from_millis(millis);

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(Rate::each_second(3, 2), AT(0));
        let taken = [0, 0, 0, 0, 499, 500, 500, 999, 1_000, 60_000, 60_000, 60_000, 60_000];
        let given: Vec<bool> = taken.map(|at| bucket.take(AT(at))).to_vec();
        let (yes, no) = (true, false);
        assert_eq!(given, [yes, yes, yes, no, no, yes, no, no, yes, yes, yes, yes, no]);
        assert!(!bucket.is_full(AT(60_000)));
        assert!(bucket.is_full(AT(61_500)));
    }

    #[test]
    fn a_flood_on_one_protocol_leaves_the_others_and_other_devices_alone() {
        let (a, b) = (DeviceId::from_bytes([1; 32]), DeviceId::from_bytes([2; 32]));
        let mut allowances = Allowances::default();
        for _ in 0..PRESENCE.burst {
            assert_eq!(allowances.frame(a, Protocol::Presence, AT(0)), Ok(()));
        }
        assert_eq!(allowances.frame(a, Protocol::Presence, AT(0)), Err(1));
        assert_eq!(allowances.frame(a, Protocol::Presence, AT(0)), Err(2));
        assert_eq!(allowances.frame(a, Protocol::Sync, AT(0)), Ok(()));
        assert_eq!(allowances.frame(b, Protocol::Presence, AT(0)), Ok(()));
        // To be somebody else for a moment does not help a device that is kept.
        allowances.retain(|device| *device == a);
        assert_eq!(allowances.frame(a, Protocol::Presence, AT(0)), Err(3));
        assert_eq!(allowances.frame(a, Protocol::Presence, AT(1_000)), Ok(()));
    }

    #[test]
    fn ten_thousand_documents_that_differ_are_no_flood() {
        let device = DeviceId::from_bytes([1; 32]);
        let mut allowances = Allowances::default();
        for _ in 0..20_000 {
            assert_eq!(allowances.frame(device, Protocol::Sync, AT(0)), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_flowed_back(
            burst in 1u32..50,
            each_second in 0u32..50,
            steps in proptest::collection::vec(0u64..400, 1..200),
        ) {
            let mut bucket = Bucket::new(Rate::each_second(burst, each_second), AT(0));
            let (mut now, mut given) = (0, 0);
            for step in steps {
                now += step;
                given += u64::from(bucket.take(AT(now)));
                let most = u64::from(burst) * 1_000 + now * u64::from(each_second);
                prop_assert!(given * 1_000 <= most, "{given} of {most} thousandths");
            }
        }
    }
}

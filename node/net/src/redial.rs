//! When to dial the members that are not connected.
//!
//! A member is dialled at once when it becomes one, when a new address of it is known, when it is
//! sighted and when a connection that had settled is lost; after a failure the wait doubles, from
//! [`BACKOFF_MIN`] to [`BACKOFF_MAX`]. A connection that ends before it settled counts as a
//! failure, so that a peer which accepts and hangs up is not dialled in a loop. A dial to an address
//! that leads nowhere takes seconds to fail, so what becomes known meanwhile is dialled beside it;
//! once, since anybody on the network can make sightings. How often what others say, or their coming and
//! going, brings a dial before its turn is for [`Hearsay`]: beyond that the waits go on as they would. When
//! this node's own network comes back, what is under way was said into nothing: it is given up and dialled
//! anew.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use weft_protocol::{id::DeviceId, time::Timestamp};

use crate::hearsay::Hearsay;

/// The wait after the first failure: a node that restarts is back within a second.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// The longest wait: a device that is off for days costs a few packets in five minutes.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// A connection that lasted so long had settled, whatever was said on it.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// Who belongs now.
    Members(BTreeSet<DeviceId>),
    /// Somebody named an address that was not known, or the device was sighted.
    Reachable(DeviceId),
    /// It is to be dialled now.
    Wanted(DeviceId),
    /// This node's own network came back or is another: what could not be reached may be near now.
    Moved,
    /// A connection is up, whoever dialled.
    Connected(DeviceId),
    /// The connection serves: trust was merged on both sides.
    Settled(DeviceId),
    /// The last connection is gone.
    Lost(DeviceId),
    /// A dial came to nothing.
    Failed(DeviceId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No address is known.
    Unreachable,
    Waiting {
        until: Timestamp,
    },
    Dialling {
        /// Dials whose end is still to come, those among them that were given up.
        under_way: u32,
    },
    Connected {
        since: Timestamp,
        settled: bool,
    },
}

/// A device to dial, at all its addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dial {
    pub(crate) device: DeviceId,
    /// Whether the dials to it that are under way are given up.
    pub(crate) anew: bool,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    state: State,
    has_address: bool,
    failures: u32,
}

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct Redial {
    members: BTreeMap<DeviceId, Member>,
    /// Devices with an address that are not members, or not yet.
    reachable: BTreeSet<DeviceId>,
    hearsay: Hearsay,
    dials: VecDeque<Dial>,
}

impl Redial {
    pub(crate) fn handle_input(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Members(devices) => self.on_members(&devices, now),
            Input::Reachable(device) => self.on_reachable(device, true, now),
            Input::Wanted(device) => self.on_reachable(device, false, now),
            Input::Moved => self.on_moved(now),
            Input::Connected(device) => {
                if let Some(member) = self.members.get_mut(&device)
                    && !matches!(member.state, State::Connected { .. })
                {
                    member.state = State::Connected { since: now, settled: false };
                }
            }
            Input::Settled(device) => {
                if let Some(member) = self.members.get_mut(&device)
                    && let State::Connected { settled, .. } = &mut member.state
                {
                    *settled = true;
                }
            }
            Input::Lost(device) => self.on_lost(device, now),
            Input::Failed(device) => {
                if let Some(member) = self.members.get_mut(&device)
                    && let State::Dialling { under_way } = &mut member.state
                {
                    *under_way = under_way.saturating_sub(1);
                    if *under_way == 0 {
                        member.fail(now);
                    }
                }
            }
        }
        self.handle_timeout(now);
    }

    /// Makes due what waits until `now` or before.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        for (&device, member) in &mut self.members {
            if let State::Waiting { until } = member.state
                && until <= now
            {
                member.state = State::Dialling { under_way: 1 };
                self.dials.push_back(Dial { device, anew: false });
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.members
            .values()
            .filter_map(|member| match member.state {
                State::Waiting { until } => Some(until),
                State::Unreachable | State::Dialling { .. } | State::Connected { .. } => None,
            })
            .min()
    }

    /// The next dial.
    pub(crate) fn poll_output(&mut self) -> Option<Dial> {
        self.dials.pop_front()
    }

    fn on_members(&mut self, devices: &BTreeSet<DeviceId>, now: Timestamp) {
        let reachable = &mut self.reachable;
        self.members.retain(|device, member| {
            let stays = devices.contains(device);
            if !stays && member.has_address {
                reachable.insert(*device);
            }
            stays
        });
        self.dials.retain(|dial| devices.contains(&dial.device));
        self.hearsay.retain(|device| devices.contains(device));
        for &device in devices {
            self.members.entry(device).or_insert_with(|| {
                let has_address = reachable.remove(&device);
                let state =
                    if has_address { State::Waiting { until: now } } else { State::Unreachable };
                Member { state, has_address, failures: 0 }
            });
        }
    }

    fn on_reachable(&mut self, device: DeviceId, is_hearsay: bool, now: Timestamp) {
        let Some(member) = self.members.get_mut(&device) else {
            self.reachable.insert(device);
            return;
        };
        member.has_address = true;
        let mut hurries = || !is_hearsay || self.hearsay.news(device, now);
        match member.state {
            State::Unreachable => member.state = State::Waiting { until: now },
            State::Waiting { .. } => {
                if hurries() {
                    member.failures = 0;
                    member.state = State::Waiting { until: now };
                }
            }
            State::Dialling { under_way } => {
                if under_way < 2 && hurries() {
                    member.state = State::Dialling { under_way: under_way + 1 };
                    self.dials.push_back(Dial { device, anew: false });
                }
            }
            State::Connected { .. } => {}
        }
    }

    fn on_moved(&mut self, now: Timestamp) {
        self.hearsay.clear();
        for (&device, member) in &mut self.members {
            match &mut member.state {
                State::Waiting { until } => *until = now,
                State::Dialling { under_way } => {
                    *under_way = under_way.saturating_add(1);
                    self.dials.push_back(Dial { device, anew: true });
                }
                State::Unreachable | State::Connected { .. } => continue,
            }
            member.failures = 0;
        }
    }

    fn on_lost(&mut self, device: DeviceId, now: Timestamp) {
        let Some(member) = self.members.get_mut(&device) else { return };
        let State::Connected { since, settled } = member.state else { return };
        if !member.has_address {
            member.state = State::Unreachable;
        } else if (settled || now.since(since) >= SETTLED_AFTER) && self.hearsay.loss(device, now) {
            member.failures = 0;
            member.state = State::Waiting { until: now };
        } else {
            member.fail(now);
        }
    }
}

impl Member {
    fn fail(&mut self, now: Timestamp) {
        let wait = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + wait };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEVICE: DeviceId = DeviceId::from_bytes([1; 32]);
    const OTHER: DeviceId = DeviceId::from_bytes([2; 32]);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn members(devices: &[DeviceId]) -> Input {
        Input::Members(devices.iter().copied().collect())
    }

    /// Feeds the inputs and yields what is dialled after each.
    fn dials(redial: &mut Redial, inputs: Vec<(u64, Input)>) -> Vec<(u64, DeviceId)> {
        let mut dialled = Vec::new();
        for (millis, input) in inputs {
            redial.handle_input(input, at(millis));
            while let Some(dial) = redial.poll_output() {
                assert!(!dial.anew, "{dial:?}");
                dialled.push((millis, dial.device));
            }
        }
        dialled
    }

    #[test]
    fn a_member_is_dialled_once_it_has_an_address_in_either_order() {
        let first = vec![(0, members(&[DEVICE])), (5, Input::Reachable(DEVICE))];
        assert_eq!(dials(&mut Redial::default(), first), [(5, DEVICE)]);
        let second = vec![(0, Input::Reachable(DEVICE)), (5, members(&[DEVICE, OTHER]))];
        assert_eq!(dials(&mut Redial::default(), second), [(5, DEVICE)]);
    }

    #[test]
    fn failures_double_the_wait_up_to_five_minutes() {
        let mut redial = Redial::default();
        let start = vec![(0, members(&[DEVICE])), (0, Input::Reachable(DEVICE))];
        assert_eq!(dials(&mut redial, start), [(0, DEVICE)]);
        let (mut now, mut waits) = (at(0), Vec::new());
        for _ in 0..13 {
            redial.handle_input(Input::Failed(DEVICE), now);
            assert_eq!(redial.poll_output(), None);
            let due = redial.poll_timeout().unwrap();
            waits.push(due.since(now).as_millis());
            redial.handle_timeout(due);
            assert_eq!(redial.poll_output(), Some(Dial { device: DEVICE, anew: false }));
            now = due;
        }
        assert_eq!(
            waits,
            [
                250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000,
                300_000, 300_000
            ]
        );
    }

    #[test]
    fn a_settled_connection_is_dialled_again_at_once_and_another_after_a_wait() {
        let mut redial = Redial::default();
        let settled = vec![
            (0, members(&[DEVICE])),
            (0, Input::Reachable(DEVICE)),
            (10, Input::Connected(DEVICE)),
            (20, Input::Settled(DEVICE)),
            (30, Input::Lost(DEVICE)),
        ];
        assert_eq!(dials(&mut redial, settled), [(0, DEVICE), (30, DEVICE)]);
        let hung_up = vec![(40, Input::Connected(DEVICE)), (50, Input::Lost(DEVICE))];
        assert_eq!(dials(&mut redial, hung_up), []);
        assert_eq!(redial.poll_timeout(), Some(at(300)));
    }

    #[test]
    fn a_connection_that_lasted_has_settled() {
        let mut redial = Redial::default();
        let lasted = vec![
            (0, members(&[DEVICE])),
            (0, Input::Reachable(DEVICE)),
            (0, Input::Connected(DEVICE)),
            (10_000, Input::Lost(DEVICE)),
        ];
        assert_eq!(dials(&mut redial, lasted), [(0, DEVICE), (10_000, DEVICE)]);
    }

    #[test]
    fn a_sighting_ends_the_wait_and_a_connected_member_is_not_dialled() {
        let mut redial = Redial::default();
        let inputs = vec![
            (0, members(&[DEVICE])),
            (0, Input::Reachable(DEVICE)),
            (0, Input::Failed(DEVICE)),
            (100, Input::Reachable(DEVICE)),
            (110, Input::Connected(DEVICE)),
            (120, Input::Reachable(DEVICE)),
            (130, Input::Failed(DEVICE)),
        ];
        assert_eq!(dials(&mut redial, inputs), [(0, DEVICE), (100, DEVICE)]);
        assert_eq!(redial.poll_timeout(), None);
    }

    #[test]
    fn what_becomes_known_during_a_dial_is_dialled_beside_it_once() {
        let mut redial = Redial::default();
        let inputs = vec![
            (0, members(&[DEVICE])),
            (0, Input::Reachable(DEVICE)),
            (100, Input::Reachable(DEVICE)),
            (110, Input::Reachable(DEVICE)),
        ];
        assert_eq!(dials(&mut redial, inputs), [(0, DEVICE), (100, DEVICE)]);
        // The first failure leaves the second dial under way, and is not waited for.
        redial.handle_input(Input::Failed(DEVICE), at(5_000));
        assert_eq!(redial.poll_timeout(), None);
        redial.handle_input(Input::Failed(DEVICE), at(5_100));
        assert_eq!(redial.poll_timeout(), Some(at(5_350)));
    }

    #[test]
    fn whoever_names_address_after_address_is_dialled_as_often_as_others() {
        let mut redial = Redial::default();
        redial.handle_input(members(&[DEVICE, OTHER]), at(0));
        redial.handle_input(Input::Reachable(DEVICE), at(0));
        assert!(redial.poll_output().is_some());
        let mut dialled = 0;
        for second in 1..=3_600 {
            redial.handle_input(Input::Failed(DEVICE), at(second * 1_000));
            redial.handle_input(Input::Reachable(DEVICE), at(second * 1_000));
            while redial.poll_output().is_some() {
                dialled += 1;
            }
        }
        // Without a bound it would be one in each second.
        assert!((24..400).contains(&dialled), "{dialled}");
        // Another is heard, and so is who wishes it.
        redial.handle_input(Input::Reachable(OTHER), at(3_600_000));
        assert_eq!(redial.poll_output(), Some(Dial { device: OTHER, anew: false }));
        redial.handle_input(Input::Failed(DEVICE), at(3_600_000));
        redial.handle_input(Input::Wanted(DEVICE), at(3_600_000));
        assert_eq!(redial.poll_output(), Some(Dial { device: DEVICE, anew: false }));
    }

    #[test]
    fn whoever_comes_and_goes_without_end_is_waited_for_longer_and_longer() {
        let mut redial = Redial::default();
        redial.handle_input(members(&[DEVICE]), at(0));
        redial.handle_input(Input::Reachable(DEVICE), at(0));
        let mut dialled = 0;
        for second in 0..3_600 {
            let now = at(second * 1_000);
            redial.handle_input(Input::Connected(DEVICE), now);
            redial.handle_input(Input::Settled(DEVICE), now);
            redial.handle_input(Input::Lost(DEVICE), now);
            while redial.poll_output().is_some() {
                dialled += 1;
            }
        }
        assert!((64..200).contains(&dialled), "{dialled}");
    }

    #[test]
    fn a_new_network_ends_every_wait() {
        let mut redial = Redial::default();
        let inputs = vec![
            (0, Input::Reachable(DEVICE)),
            (0, members(&[DEVICE, OTHER])),
            (0, Input::Failed(DEVICE)),
            (100, Input::Moved),
        ];
        assert_eq!(dials(&mut redial, inputs), [(0, DEVICE), (100, DEVICE)]);
        // The waits after it begin with the shortest.
        assert_eq!(dials(&mut redial, vec![(200, Input::Failed(DEVICE))]), []);
        assert_eq!(redial.poll_timeout(), Some(at(450)));
    }

    #[test]
    fn a_new_network_gives_up_what_is_under_way_and_leaves_whoever_is_connected() {
        let mut redial = Redial::default();
        let start = vec![
            (0, members(&[DEVICE, OTHER])),
            (0, Input::Reachable(DEVICE)),
            (0, Input::Reachable(OTHER)),
            (10, Input::Connected(OTHER)),
        ];
        assert_eq!(dials(&mut redial, start), [(0, DEVICE), (0, OTHER)]);
        redial.handle_input(Input::Moved, at(100));
        assert_eq!(redial.poll_output(), Some(Dial { device: DEVICE, anew: true }));
        assert_eq!(redial.poll_output(), None);
        // The end of the one that was given up is not the end of the other.
        redial.handle_input(Input::Failed(DEVICE), at(101));
        assert_eq!(redial.poll_timeout(), None);
        redial.handle_input(Input::Failed(DEVICE), at(5_000));
        assert_eq!(redial.poll_timeout(), Some(at(5_250)));
    }

    proptest! {
        /// Whatever happens, a member with an address that is not connected is either waited for
        /// or being dialled: it is never forgotten.
        #[test]
        fn a_member_with_an_address_is_never_forgotten(steps in prop::collection::vec(0_u8..8, 0..60)) {
            let mut redial = Redial::default();
            redial.handle_input(members(&[DEVICE]), at(0));
            redial.handle_input(Input::Reachable(DEVICE), at(0));
            prop_assert!(redial.poll_output().is_some());
            let (mut under_way, mut connected) = (1_u32, false);
            for (now, step) in (1..).map(|n| at(n * 100)).zip(steps) {
                match step {
                    0 => redial.handle_input(Input::Moved, now),
                    1 => redial.handle_input(Input::Reachable(DEVICE), now),
                    2 if under_way > 0 => {
                        under_way -= 1;
                        redial.handle_input(Input::Failed(DEVICE), now);
                    }
                    3 => {
                        connected = true;
                        redial.handle_input(Input::Connected(DEVICE), now);
                    }
                    4 if connected => redial.handle_input(Input::Settled(DEVICE), now),
                    5 if connected => {
                        connected = false;
                        redial.handle_input(Input::Lost(DEVICE), now);
                    }
                    6 => redial.handle_input(Input::Wanted(DEVICE), now),
                    _ => redial.handle_timeout(now),
                }
                while redial.poll_output().is_some() {
                    prop_assert!(!connected, "a connected member was dialled");
                    under_way += 1;
                }
                prop_assert!(connected || under_way > 0 || redial.poll_timeout().is_some());
            }
        }

        /// Whatever a device says, and however often it comes and goes, it is dialled no more often than its
        /// allowance makes of it: each time that it hurries this node, the waits begin with the shortest, and
        /// eleven later they are the longest.
        #[test]
        fn nobody_is_made_to_dial_without_end(
            steps in prop::collection::vec((0_u8..6, 0_u64..5_000), 0..1_500),
        ) {
            let mut redial = Redial::default();
            redial.handle_input(members(&[DEVICE]), at(0));
            redial.handle_input(Input::Reachable(DEVICE), at(0));
            let (mut now, mut dialled, mut under_way) = (0, 0, 0_u32);
            for (step, wait) in steps {
                now += wait;
                match step {
                    0 | 1 => redial.handle_input(Input::Reachable(DEVICE), at(now)),
                    2 if under_way > 0 => {
                        under_way -= 1;
                        redial.handle_input(Input::Failed(DEVICE), at(now));
                    }
                    3 => {
                        for input in
                            [Input::Connected(DEVICE), Input::Settled(DEVICE), Input::Lost(DEVICE)]
                        {
                            redial.handle_input(input, at(now));
                        }
                    }
                    4 => {
                        redial.handle_input(Input::Connected(DEVICE), at(now));
                        redial.handle_input(Input::Lost(DEVICE), at(now));
                    }
                    _ => redial.handle_timeout(at(now)),
                }
                while redial.poll_output().is_some() {
                    dialled += 1;
                    under_way += 1;
                }
            }
            // What it has at first, and what flows back: of news and of losses.
            let hurried = (24 + 64) + now * (24 + 60) / 3_600_000 + 1;
            let most = 12 * hurried + now / 300_000 + 1;
            prop_assert!(dialled <= most, "{dialled} of {most} in {now} ms");
        }
    }

    #[test]
    fn whoever_left_is_not_dialled_until_it_is_back() {
        let mut redial = Redial::default();
        let inputs = vec![
            (0, members(&[DEVICE])),
            (0, Input::Reachable(DEVICE)),
            (0, Input::Failed(DEVICE)),
            (10, members(&[])),
        ];
        assert_eq!(dials(&mut redial, inputs), [(0, DEVICE)]);
        assert_eq!(redial.poll_timeout(), None);
        redial.handle_input(members(&[DEVICE]), at(400));
        assert_eq!(redial.poll_output(), Some(Dial { device: DEVICE, anew: false }));
    }
}

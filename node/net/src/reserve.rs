//! On which relays this node asks for a place, so that it can be reached through them.
//!
//! Members that relay are known by their presence; only one that is connected directly can be asked. Up
//! to [`PLACES_MAX`] places are held at once, and fewer where this node can be reached without. A relay
//! keeps a place as long as the connection lives that it was asked on; when it is lost, it is asked for
//! again on the next connection, at once. A relay that refuses, or that keeps a place only for a moment, is
//! asked again after a wait that doubles, and the next relay at once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use weft_protocol::{id::DeviceId, time::Timestamp};

/// Places held at once: when one relay goes, others still find this node through the second.
pub(crate) const PLACES_MAX: usize = 2;

/// The wait after a relay refused, doubled each time up to the maximum.
const WAIT_MIN: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(300);

/// A place that was kept for so long was meant.
const KEPT_MIN: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// Which members relay.
    Relays(BTreeSet<DeviceId>),
    /// A device is connected directly.
    Connected(DeviceId),
    /// No direct connection to the device is left.
    Disconnected(DeviceId),
    /// It keeps a place for this node.
    Reserved(DeviceId),
    /// It refused, or no longer keeps the place.
    Lost(DeviceId),
    /// How many places are wanted.
    Wanted(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It may be asked from then on.
    Free { from: Timestamp },
    /// It was asked.
    Asked,
    /// It keeps a place.
    Held { since: Timestamp },
}

#[derive(Clone, Copy, Debug)]
struct Relay {
    state: State,
    refusals: u32,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Reserve {
    relays: BTreeSet<DeviceId>,
    /// Devices that are connected directly.
    connected: BTreeMap<DeviceId, Relay>,
    wanted: usize,
    asked: VecDeque<DeviceId>,
}

impl Default for Reserve {
    fn default() -> Self {
        Self {
            relays: BTreeSet::new(),
            connected: BTreeMap::new(),
            wanted: PLACES_MAX,
            asked: VecDeque::new(),
        }
    }
}

impl Reserve {
    pub(crate) fn handle_input(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Relays(relays) => self.relays = relays,
            Input::Connected(device) => {
                let fresh = Relay { state: State::Free { from: now }, refusals: 0 };
                self.connected.entry(device).or_insert(fresh);
            }
            Input::Disconnected(device) => {
                self.connected.remove(&device);
                self.asked.retain(|other| *other != device);
            }
            Input::Reserved(device) => {
                if let Some(relay) = self.connected.get_mut(&device)
                    && !matches!(relay.state, State::Held { .. })
                {
                    relay.state = State::Held { since: now };
                }
            }
            Input::Lost(device) => {
                if let Some(relay) = self.connected.get_mut(&device) {
                    *relay = match relay.state {
                        // It was kept until now, so this is news and no refusal.
                        State::Held { since } if now.since(since) >= KEPT_MIN => {
                            Relay { state: State::Free { from: now }, refusals: 0 }
                        }
                        State::Held { .. } | State::Asked | State::Free { .. } => {
                            let wait = WAIT_MIN.saturating_mul(1 << relay.refusals.min(16));
                            Relay {
                                state: State::Free { from: now + wait.min(WAIT_MAX) },
                                refusals: relay.refusals.saturating_add(1),
                            }
                        }
                    };
                }
            }
            Input::Wanted(wanted) => self.wanted = wanted.min(PLACES_MAX),
        }
        self.handle_timeout(now);
    }

    /// Asks whom it is time to ask.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        while self.wants_more() {
            let candidates = self.connected.iter_mut().filter(|(device, relay)| {
                self.relays.contains(device)
                    && matches!(relay.state, State::Free { from } if from <= now)
            });
            let Some((&device, relay)) = candidates.min_by_key(|(_, relay)| relay.refusals) else {
                return;
            };
            relay.state = State::Asked;
            self.asked.push_back(device);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        if !self.wants_more() {
            return None;
        }
        self.connected
            .iter()
            .filter_map(|(device, relay)| match relay.state {
                State::Free { from } if self.relays.contains(device) => Some(from),
                State::Free { .. } | State::Asked | State::Held { .. } => None,
            })
            .min()
    }

    /// The next relay to be asked for a place.
    pub(crate) fn poll_output(&mut self) -> Option<DeviceId> {
        self.asked.pop_front()
    }

    fn wants_more(&self) -> bool {
        let taken = |relay: &&Relay| matches!(relay.state, State::Asked | State::Held { .. });
        self.connected.values().filter(taken).count() < self.wanted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: DeviceId = DeviceId::from_bytes([1; 32]);
    const B: DeviceId = DeviceId::from_bytes([2; 32]);
    const C: DeviceId = DeviceId::from_bytes([3; 32]);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// Feeds the inputs and yields who is asked after each.
    fn asked(reserve: &mut Reserve, inputs: Vec<(u64, Input)>) -> Vec<(u64, DeviceId)> {
        let mut asked = Vec::new();
        for (millis, input) in inputs {
            reserve.handle_input(input, at(millis));
            while let Some(device) = reserve.poll_output() {
                asked.push((millis, device));
            }
        }
        asked
    }

    fn relays(devices: &[DeviceId]) -> Input {
        Input::Relays(devices.iter().copied().collect())
    }

    #[test]
    fn a_relay_is_asked_once_it_is_both_known_and_connected() {
        let first = vec![(0, relays(&[A])), (5, Input::Connected(A)), (6, Input::Connected(B))];
        assert_eq!(asked(&mut Reserve::default(), first), [(5, A)]);
        let second = vec![(0, Input::Connected(A)), (5, relays(&[A])), (6, relays(&[A]))];
        assert_eq!(asked(&mut Reserve::default(), second), [(5, A)]);
    }

    #[test]
    fn two_are_held_and_the_next_takes_the_place_of_one_that_is_gone() {
        let mut reserve = Reserve::default();
        let inputs = vec![
            (0, relays(&[A, B, C])),
            (1, Input::Connected(A)),
            (2, Input::Connected(B)),
            (3, Input::Connected(C)),
            (4, Input::Reserved(A)),
            (5, Input::Reserved(B)),
            (6, Input::Disconnected(A)),
        ];
        assert_eq!(asked(&mut reserve, inputs), [(1, A), (2, B), (6, C)]);
        assert_eq!(asked(&mut reserve, vec![(7, Input::Connected(A))]), []);
        assert_eq!(reserve.poll_timeout(), None);
    }

    #[test]
    fn whoever_refuses_is_asked_last_and_after_a_wait_that_doubles() {
        let mut reserve = Reserve::default();
        let inputs = vec![
            (0, relays(&[A, B])),
            (0, Input::Wanted(1)),
            (0, Input::Connected(A)),
            (0, Input::Connected(B)),
            (1, Input::Lost(A)),
        ];
        assert_eq!(asked(&mut reserve, inputs), [(0, A), (1, B)]);
        assert_eq!(asked(&mut reserve, vec![(2, Input::Lost(B))]), []);
        assert_eq!(reserve.poll_timeout(), Some(at(501)));
        reserve.handle_timeout(at(501));
        assert_eq!(reserve.poll_output(), Some(A));
        reserve.handle_input(Input::Lost(A), at(600));
        assert_eq!(reserve.poll_output(), Some(B));
        assert_eq!(asked(&mut reserve, vec![(601, Input::Lost(B))]), []);
        assert_eq!(reserve.poll_timeout(), Some(at(1_600)));
    }

    #[test]
    fn a_place_that_was_kept_is_asked_for_again_at_once() {
        let mut reserve = Reserve::default();
        let inputs = vec![
            (0, relays(&[A])),
            (0, Input::Connected(A)),
            (1, Input::Reserved(A)),
            (60_001, Input::Lost(A)),
            (60_010, Input::Reserved(A)),
            (60_020, Input::Disconnected(A)),
            (60_030, Input::Connected(A)),
        ];
        assert_eq!(asked(&mut reserve, inputs), [(0, A), (60_001, A), (60_030, A)]);
    }

    #[test]
    fn a_relay_that_gives_places_and_takes_them_back_is_asked_ever_more_seldom() {
        let mut reserve = Reserve::default();
        let start = vec![(0, relays(&[A])), (0, Input::Connected(A))];
        assert_eq!(asked(&mut reserve, start), [(0, A)]);
        let (mut now, mut waits) = (at(1), Vec::new());
        for _ in 0..4 {
            reserve.handle_input(Input::Reserved(A), now);
            reserve.handle_input(Input::Lost(A), now);
            assert_eq!(reserve.poll_output(), None);
            let due = reserve.poll_timeout().unwrap();
            waits.push(due.since(now).as_millis());
            reserve.handle_timeout(due);
            assert_eq!(reserve.poll_output(), Some(A));
            now = due;
        }
        assert_eq!(waits, [500, 1_000, 2_000, 4_000]);
    }

    proptest! {
        /// Whatever happens, no more places are asked for than are wanted, nobody is asked who is not a
        /// connected relay or who was asked already, and while a place is wanted no relay is forgotten.
        #[test]
        fn places_are_few_and_no_relay_is_forgotten(steps in prop::collection::vec((0_u8..7, 0_u8..3), 0..80)) {
            let mut reserve = Reserve::default();
            let device = |n: u8| DeviceId::from_bytes([n + 1; 32]);
            let (mut connected, mut known) = (BTreeSet::new(), BTreeSet::new());
            let (mut taken, mut wanted) = (BTreeSet::new(), PLACES_MAX);
            for (now, (step, n)) in (1..).map(|n| at(n * 100)).zip(steps) {
                let who = device(n);
                match step {
                    0 => { connected.insert(who); reserve.handle_input(Input::Connected(who), now); }
                    1 => {
                        connected.remove(&who);
                        taken.remove(&who);
                        reserve.handle_input(Input::Disconnected(who), now);
                    }
                    2 => { known = (0..=n).map(device).collect(); reserve.handle_input(Input::Relays(known.clone()), now); }
                    3 if taken.contains(&who) => reserve.handle_input(Input::Reserved(who), now),
                    4 if taken.remove(&who) => reserve.handle_input(Input::Lost(who), now),
                    5 => { wanted = n.into(); reserve.handle_input(Input::Wanted(wanted), now); }
                    _ => reserve.handle_timeout(now),
                }
                while let Some(asked) = reserve.poll_output() {
                    prop_assert!(connected.contains(&asked) && known.contains(&asked));
                    prop_assert!(taken.insert(asked), "it was asked already");
                    prop_assert!(taken.len() <= PLACES_MAX);
                }
                let free = connected.intersection(&known).any(|relay| !taken.contains(relay));
                prop_assert!(taken.len() >= wanted || !free || reserve.poll_timeout().is_some());
            }
        }
    }
}

//! How this node is reached from outside, and which members carry others' connections.
//!
//! The network finds out and reports; this machine keeps the newest report, knows since when each relay
//! holds a place for this node, and says which members are to be asked for one: those whose presence says
//! that they relay.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::{
    id::DeviceId,
    reach::{Report, Reservation},
    time::WallTime,
};

/// The machine.
#[derive(Debug, Default)]
pub struct Reach {
    report: Report,
    since: BTreeMap<DeviceId, WallTime>,
    relays: BTreeSet<DeviceId>,
}

impl Reach {
    /// The network found out something.
    pub fn learn(&mut self, report: Report, now: WallTime) {
        let held: BTreeSet<DeviceId> = report.reservations.iter().map(|it| it.relay).collect();
        self.since.retain(|relay, _| held.contains(relay));
        for relay in held {
            self.since.entry(relay).or_insert(now);
        }
        self.report = report;
    }

    /// What the network knows.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The relays through which this node can be reached, and since when.
    pub fn reservations(&self) -> impl Iterator<Item = (&Reservation, WallTime)> {
        self.report.reservations.iter().filter_map(|it| Some((it, *self.since.get(&it.relay)?)))
    }

    /// Whether this node carries other members' connections.
    pub fn relays(&self) -> bool {
        self.report.service.is_some()
    }

    /// Takes which members relay, as their presence says. Gives them where they are others than before.
    pub fn found(&mut self, relays: BTreeSet<DeviceId>) -> Option<BTreeSet<DeviceId>> {
        (relays != self.relays).then(|| {
            self.relays.clone_from(&relays);
            relays
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: DeviceId = DeviceId::from_bytes([1; 32]);
    const ROUTER: DeviceId = DeviceId::from_bytes([2; 32]);

    fn at(seconds: i64) -> WallTime {
        WallTime::from_unix_millis(seconds * 1_000)
    }

    fn held(relays: &[DeviceId]) -> Report {
        let reservation = |relay: &DeviceId| Reservation { relay: *relay, addresses: Vec::new() };
        Report { reservations: relays.iter().map(reservation).collect(), ..Report::default() }
    }

    #[test]
    fn a_place_is_as_old_as_its_first_report_in_a_row() {
        let mut reach = Reach::default();
        let since = |reach: &Reach| -> Vec<(DeviceId, WallTime)> {
            reach.reservations().map(|(it, since)| (it.relay, since)).collect()
        };
        reach.learn(held(&[SERVER]), at(1));
        reach.learn(held(&[SERVER, ROUTER]), at(2));
        assert_eq!(since(&reach), [(SERVER, at(1)), (ROUTER, at(2))]);
        reach.learn(held(&[ROUTER]), at(3));
        reach.learn(held(&[SERVER, ROUTER]), at(4));
        assert_eq!(since(&reach), [(SERVER, at(4)), (ROUTER, at(2))]);
    }

    #[test]
    fn the_same_relays_are_said_once() {
        let mut reach = Reach::default();
        assert_eq!(reach.found(BTreeSet::new()), None);
        assert_eq!(reach.found([SERVER].into()), Some([SERVER].into()));
        assert_eq!(reach.found([SERVER].into()), None);
        assert_eq!(reach.found(BTreeSet::new()), Some(BTreeSet::new()));
    }
}

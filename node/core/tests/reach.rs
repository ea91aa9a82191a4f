//! Who carries others' connections: real cores without a network, one of which is said to be a relay.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeSet;

use weft_core::Input;
use weft_protocol::{
    id::DeviceId,
    reach::{Report, Reservation, Service},
};

mod support;

use support::{ALLOW, Fabric};

/// A device's network finds out that it can carry others' connections, or no longer can.
fn says(fabric: &mut Fabric, device: usize, relays: bool) {
    let service = relays.then(Service::default);
    fabric.feed(device, Input::Reach(Box::new(Report { service, ..Report::default() })));
    fabric.settle();
}

#[test]
fn all_hear_of_a_relay_also_those_that_it_does_not_know_and_until_it_is_none() {
    let mut fabric = Fabric::new(3, &[], ALLOW);
    fabric.meet(0, 1);
    fabric.meet(1, 2);
    let relay: BTreeSet<DeviceId> = [fabric.id(2)].into();
    says(&mut fabric, 2, true);
    assert_eq!(fabric.devices[1].relays, relay);
    assert_eq!(fabric.devices[0].relays, relay, "by presence that was passed on");
    assert_eq!(fabric.devices[2].relays, BTreeSet::new(), "nobody is a relay for itself");
    says(&mut fabric, 2, false);
    for device in 0..3 {
        assert_eq!(fabric.devices[device].relays, BTreeSet::new());
    }
}

#[test]
fn a_device_that_was_revoked_carries_nobody() {
    let mut fabric = Fabric::met(3, &[], ALLOW);
    says(&mut fabric, 2, true);
    assert_eq!(fabric.devices[1].relays.len(), 1);
    fabric.revoke(0, 2);
    fabric.settle();
    for device in 0..2 {
        assert_eq!(fabric.devices[device].relays, BTreeSet::new());
    }
}

#[test]
fn a_place_at_a_relay_has_the_time_at_which_it_was_got() {
    let mut fabric = Fabric::met(2, &[], ALLOW);
    let relay = fabric.id(1);
    let reservations = vec![Reservation { relay, addresses: Vec::new() }];
    let report = Report { reservations, ..Report::default() };
    let got = fabric.now.wall;
    fabric.feed(0, Input::Reach(Box::new(report.clone())));
    fabric.wait(std::time::Duration::from_secs(9));
    fabric.feed(
        0,
        Input::Reach(Box::new(Report {
            confirmed: vec!["/ip4/203.0.113.1/tcp/1".into()],
            ..report
        })),
    );
    let (place, since) = fabric.devices[0].node.reach().reservations().next().unwrap();
    assert_eq!((place.relay, since), (relay, got));
    assert_eq!(fabric.devices[0].node.reach().report().confirmed.len(), 1);
}

//! Devices that are gone, of which others still speak: real cores without a network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use weft_core::{Input, door::Command, door::Reply};
use weft_protocol::{
    codec,
    frame::Protocol,
    id::BootId,
    presence::{Presence, PresenceMessage},
    reach::{Report, Service},
    signed::{Domain, Signed},
    version::Version,
};

mod support;

use support::{ALLOW, Fabric, Sent};

impl Fabric {
    fn rest(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.wait(Duration::from_secs(1));
        }
    }

    /// How many devices a device holds to carry others' connections.
    fn relays(&self, device: usize) -> usize {
        self.devices[device].relays.len()
    }
}

#[test]
fn a_relay_that_is_gone_is_forgotten_in_time_also_by_one_that_only_ever_heard_of_it() {
    let mut fabric = Fabric::new(3, &[], ALLOW);
    fabric.meet(0, 1);
    fabric.meet(1, 2);
    let report = Report { service: Some(Service::default()), ..Report::default() };
    fabric.feed(2, Input::Reach(Box::new(report)));
    fabric.settle();
    assert_eq!([fabric.relays(0), fabric.relays(1)], [1, 1]);
    fabric.part_from_all(2);
    // The two that are left start anew in turn, and tell each other what they know.
    for round in 0..4 {
        fabric.rest(40);
        let device = round % 2;
        fabric.restart(device);
        fabric.devices[device].relays.clear();
        fabric.meet(0, 1);
        assert_eq!(fabric.relays(device), 1, "after {} s it may still come back", 40 * (round + 1));
    }
    fabric.rest(25);
    assert_eq!([fabric.relays(0), fabric.relays(1)], [0, 0]);
    for device in [0, 1, 0] {
        fabric.restart(device);
        fabric.meet(0, 1);
        fabric.rest(2);
        assert_eq!([fabric.relays(0), fabric.relays(1)], [0, 0], "its word is as old as before");
    }
    fabric.meet(0, 2);
    fabric.rest(1);
    assert_eq!([fabric.relays(0), fabric.relays(1)], [1, 1]);
}

#[test]
fn a_relay_that_is_connected_stays_one_over_a_sleep() {
    let mut fabric = Fabric::met(2, &[], ALLOW);
    let report = Report { service: Some(Service::default()), ..Report::default() };
    fabric.feed(1, Input::Reach(Box::new(report)));
    fabric.settle();
    assert_eq!(fabric.relays(0), 1);
    // The laptop's own word comes late, and nothing of the server's for an hour.
    fabric.lose = Some(|sent| sent.from == 1);
    fabric.wait(Duration::from_secs(3_600));
    assert_eq!(fabric.relays(0), 1);
    fabric.part(0, 1);
    fabric.wait(Duration::from_secs(1));
    assert_eq!(fabric.relays(0), 0);
}

#[test]
fn each_device_says_which_version_it_runs() {
    let mut fabric = Fabric::met(3, &[], ALLOW);
    let versions = |fabric: &mut Fabric| -> Vec<Option<Version>> {
        let Reply::Devices(views) = fabric.ask(0, Command::Devices) else { panic!("it lists") };
        let mut views: Vec<_> = views.into_iter().map(|it| (it.name, it.version)).collect();
        views.sort();
        views.into_iter().map(|(_, version)| version).collect()
    };
    let this = Some(Version::of_this_program());
    assert_eq!(versions(&mut fabric), [this; 3], "laptop, phone, server");
    // The phone runs an older program, and the server one that does not say which.
    for (device, version) in [(2, Some(Version { major: 0, minor: 0, patch: 9 })), (1, None)] {
        let presence = Presence {
            device: fabric.id(device),
            boot: BootId { counter: 99, random: 0 },
            sequence: 1,
            addresses: Vec::new(),
            queue: 0,
            battery: None,
            metered: false,
            models: Vec::new(),
            time: fabric.now.wall,
            relays: false,
            machine: None,
            connected: Vec::new(),
            version,
        };
        let key = fabric.devices[device].secret.signing().clone();
        let said = PresenceMessage::of_now(Signed::new(Domain::Presence, &presence, &key));
        let bytes = codec::encode(&said);
        assert!(fabric.deliver(&Sent { from: device, to: 0, protocol: Protocol::Presence, bytes }));
    }
    let older = "0.0.9".parse().ok();
    assert_eq!(versions(&mut fabric), [this, older, None]);
}

//! Who is here: real cores without a network, that come, go, fall and start anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one kind of event")]

use std::time::Duration;

use weft_core::{
    Input,
    door::{Command, DeviceView, Event, Reply},
};
use weft_protocol::{
    codec,
    frame::{FRAME_BYTES_MAX, Protocol},
    presence::{Machine, ModelReady, Presence, PresenceMessage},
    row::{Rows as _, Table},
    run::{Progress, RunState},
    signed::Domain,
};

mod support;

use support::{ALLOW, Fabric, Sent};

impl Fabric {
    /// How a device sees another.
    fn seen(&mut self, by: usize, device: usize) -> DeviceView {
        let Reply::Devices(views) = self.ask(by, Command::Devices) else { panic!("it lists") };
        let id = self.id(device);
        let mut found: Vec<DeviceView> = views.into_iter().filter(|it| it.id == id).collect();
        assert_eq!(found.len(), 1, "each device is shown once: {found:?}");
        found.remove(0)
    }

    fn states(&mut self, by: usize) -> Vec<String> {
        (0..self.devices.len()).map(|device| self.seen(by, device).state).collect()
    }

    /// The records of presence that were sent since this was asked last: from whom, to whom, of whom.
    fn told(&mut self) -> Vec<(usize, usize, usize)> {
        let sent: Vec<Sent> = std::mem::take(&mut self.sent);
        let mut records = Vec::new();
        for it in sent.into_iter().filter(|it| it.protocol == Protocol::Presence) {
            let PresenceMessage::Records { records: signed, .. } =
                codec::decode(&it.bytes, FRAME_BYTES_MAX).unwrap();
            for signed in signed {
                let of = signed.open::<Presence>(Domain::Presence, 1 << 16).unwrap().device;
                let of = (0..self.devices.len()).find(|device| self.id(*device) == of).unwrap();
                records.push((it.from, it.to, of));
            }
        }
        records
    }

    fn rest(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.wait(Duration::from_secs(1));
        }
    }
}

#[test]
fn nothing_of_presence_is_ever_on_a_disk_but_addresses_and_when_a_device_was_heard() {
    let mut fabric = Fabric::met(3, &[], ALLOW);
    fabric.rest(5);
    let before = fabric.devices[0].rows.clone();
    // All that changes while devices stay connected, and the renewals of a quarter of an hour.
    fabric.feed(1, Input::Battery(Some(77)));
    fabric.feed(1, Input::Metered(true));
    fabric.feed(1, Input::Models(vec![ModelReady { name: "small".into(), speed_milli: 7_000 }]));
    fabric.feed(
        1,
        Input::Machine(Machine {
            cores: 2,
            load_percent: Some(50),
            memory_bytes: Some(1 << 30),
            storage_free_bytes: Some(1 << 40),
        }),
    );
    fabric.settle();
    fabric.rest(5);
    assert_eq!(fabric.seen(0, 1).models, ["small"], "it was heard");
    assert!(fabric.devices[0].rows == before, "what it says of itself is written nowhere");
    fabric.rest(15 * 60);
    let after = &fabric.devices[0].rows;
    for table in [Table::Node, Table::Document, Table::Index, Table::Peer] {
        let known = before.scan_table(table).unwrap();
        for (row, bytes) in after.scan_table(table).unwrap() {
            let is_heard = table == Table::Peer && row.scope == b"heard";
            assert!(is_heard || known.contains(&(row.clone(), bytes)), "{row:?}");
        }
    }
}

#[test]
fn a_device_that_was_killed_and_started_anew_is_no_ghost() {
    let mut fabric = Fabric::met(3, &[], ALLOW);
    fabric.rest(5);
    assert_eq!(fabric.states(0), ["here", "here", "here"]);
    for round in 0..4 {
        // The others hear that it was away; it starts anew each time, and its word before is gone.
        fabric.crash(2);
        fabric.rest(2);
        assert_eq!(fabric.seen(0, 2).state, "away", "round {round}");
        fabric.meet(2, 0);
        assert_eq!(fabric.seen(0, 2).state, "here", "round {round}");
        fabric.rest(5);
        // The server is not connected with it, and knows that this device is.
        let seen = fabric.seen(1, 2);
        assert_eq!((seen.state.as_str(), seen.via), ("near", vec!["laptop".to_owned()]));
    }
    // Killed for good. What all say of it grows no younger by being passed on to one that starts anew.
    fabric.part_from_all(2);
    fabric.rest(5);
    assert_eq!(fabric.seen(0, 2).state, "away");
    assert_eq!(fabric.seen(1, 2).state, "away");
    fabric.restart(1);
    fabric.meet(0, 1);
    fabric.rest(5);
    let seen = fabric.seen(1, 2);
    assert_eq!((seen.state.as_str(), seen.via.len(), seen.models.len()), ("away", 0, 0));
    // Nobody here knows when it went.
    assert!(seen.since.is_none() && seen.last_heard.is_some());
}

#[test]
fn a_device_that_another_one_sees_is_near_until_that_one_says_otherwise_or_is_gone_itself() {
    let mut fabric = Fabric::new(3, &[], ALLOW);
    fabric.meet(0, 1);
    fabric.meet(1, 2);
    fabric.rest(2);
    let via = |view: DeviceView| (view.state, view.via);
    let near = ("near".to_owned(), vec!["server".to_owned()]);
    assert_eq!(via(fabric.seen(0, 2)), near);
    assert_eq!(via(fabric.seen(2, 0)), near);
    assert_eq!(fabric.seen(0, 2).address, None, "it is not connected here");
    fabric.part(1, 2);
    fabric.rest(2);
    assert_eq!(fabric.seen(0, 2).state, "never seen");
    // It comes back there, and then the one that says so is gone.
    fabric.meet(1, 2);
    fabric.rest(2);
    assert_eq!(via(fabric.seen(0, 2)), near);
    fabric.part(0, 1);
    assert_eq!(fabric.states(0), ["here", "away", "never seen"]);
}

#[test]
fn a_device_that_goes_is_near_nowhere_while_not_all_have_noticed() {
    let mut fabric = Fabric::met(3, &[], ALLOW);
    fabric.rest(100);
    // It falls silent; the laptop gives it up first, and the server some seconds later.
    fabric.lose = Some(|sent| sent.from == 2);
    fabric.rest(20);
    let heard = fabric.seen(0, 2).last_heard;
    fabric.part(0, 2);
    for _ in 0..14 {
        let seen = fabric.seen(0, 2);
        assert_eq!((seen.state.as_str(), seen.via.len()), ("away", 0));
        fabric.rest(1);
    }
    assert_eq!(fabric.seen(1, 2).state, "here", "nobody has told it");
    fabric.part(1, 2);
    fabric.rest(3);
    assert_eq!((fabric.seen(0, 2).state, fabric.seen(1, 2).state), ("away".into(), "away".into()));
    // When it was heard is not when it was given up, and stays so over a start.
    let seen = fabric.seen(0, 2);
    assert_eq!(seen.last_heard, heard);
    assert!(seen.since > heard, "{seen:?}");
    fabric.restart(0);
    assert_eq!(fabric.seen(0, 2).last_heard, heard);
}

#[test]
fn a_device_that_only_this_one_has_lost_is_near_as_soon_as_one_of_them_has_said_more() {
    let mut fabric = Fabric::met(3, &[], ALLOW);
    fabric.rest(100);
    fabric.part(0, 2);
    assert_eq!(fabric.seen(0, 2).state, "away", "by no word from before");
    // The phone tells the server with whom it is connected now, and the server hands that on.
    fabric.rest(65);
    let seen = fabric.seen(0, 2);
    assert_eq!((seen.state.as_str(), seen.via), ("near", vec!["server".to_owned()]));
}

#[test]
fn one_that_hangs_while_its_connection_stays_is_not_believed_for_long() {
    let mut fabric = Fabric::new(3, &[], ALLOW);
    fabric.meet(0, 1);
    fabric.meet(1, 2);
    fabric.rest(2);
    assert_eq!(fabric.seen(0, 2).state, "near");
    // Nothing comes from the server any more, and nobody says that it is gone.
    fabric.lose = Some(|sent| sent.from == 1);
    fabric.rest(2 * 60);
    assert_eq!(fabric.seen(0, 2).state, "near", "two renewals may get lost");
    fabric.rest(2 * 60);
    assert_eq!(fabric.seen(0, 2).state, "never seen");
}

#[test]
fn an_idle_fabric_says_one_record_a_minute_to_each_and_passes_nothing_on() {
    let mut fabric = Fabric::met(5, &[], ALLOW);
    fabric.rest(65);
    fabric.told();
    fabric.rest(60);
    let mut records = fabric.told();
    records.sort_unstable();
    let everybody = |from| (0..5).filter(move |to| *to != from).map(move |to| (from, to, from));
    let expected: Vec<_> = (0..5).flat_map(everybody).collect();
    assert_eq!(records, expected, "each its own, to each");
}

#[test]
fn what_is_new_reaches_those_who_are_not_connected_with_its_author_once() {
    // A chain: laptop, server, phone.
    let mut fabric = Fabric::new(3, &[], ALLOW);
    fabric.meet(0, 1);
    fabric.meet(1, 2);
    fabric.rest(5);
    fabric.told();
    fabric.feed(0, Input::Metered(true));
    fabric.settle();
    assert_eq!(fabric.told(), [(0, 1, 0), (1, 2, 0)]);
}

#[test]
fn a_step_on_another_device_is_watched_on_both_and_said_once() {
    let mut fabric = Fabric::met(3, &[], ALLOW);
    let (laptop, server) = (fabric.id(0), fabric.id(1));
    assert!(fabric.devices.iter().all(|device| device.watches.is_empty()));
    for capability in ["echo.say", "echo.write", "echo.once"] {
        fabric.have_done(0, capability, 1);
        assert_eq!(fabric.devices[0].watches, [(server, true)], "{capability}");
        assert_eq!(fabric.devices[1].watches, [(laptop, true)], "{capability}");
        fabric.rest(3);
        assert_eq!(fabric.devices[0].watches.len(), 1, "{capability}: said once");
        fabric.finish(1, Ok("done".into()));
        assert_eq!(fabric.devices[0].watches, [(server, true), (server, false)], "{capability}");
        assert_eq!(fabric.devices[1].watches, [(laptop, true), (laptop, false)], "{capability}");
        fabric.devices.iter_mut().for_each(|device| device.watches.clear());
    }
    assert!(fabric.devices[2].watches.is_empty());
    // What runs here is nobody else's.
    fabric.have_done(0, "echo.say", 0);
    fabric.finish(0, Ok("done".into()));
    assert_eq!(fabric.devices[0].watches, []);
}

#[test]
fn a_device_that_is_lost_stays_watched_while_something_is_open_and_the_person_hears_why() {
    let mut fabric = Fabric::met(2, &[], ALLOW);
    let server = fabric.id(1);
    fabric.have_done(0, "echo.write", 1);
    fabric.part(0, 1);
    assert_eq!(fabric.devices[0].watches, [(server, true)]);
    let logs = |fabric: &Fabric| -> Vec<String> {
        let said = fabric.devices[0].events.iter().filter_map(|event| match event {
            Event::StepProgressed { progress: Progress::Log(line), .. } => Some(line.clone()),
            _ => None,
        });
        said.collect()
    };
    assert_eq!(logs(&fabric), ["server: it went away; waiting for it, 60 s at most"]);
    // It comes back, and the call goes on.
    fabric.meet(0, 1);
    assert_eq!(logs(&fabric)[1..], ["server is here again"]);
    assert_eq!(fabric.ended(0), None);
    fabric.finish(1, Ok("done".into()));
    assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
    assert_eq!(fabric.devices[0].watches, [(server, true), (server, false)]);
    // It goes for good: the run fails, and says why.
    fabric.have_done(0, "echo.write", 1);
    fabric.part(0, 1);
    fabric.rest(61);
    let (state, why) = fabric.ended(0).unwrap();
    assert_eq!(state, RunState::Uncertain, "{why:?}");
    assert_eq!(fabric.devices[0].watches.last(), Some(&(server, false)));
}

//! What a device says of who belongs: it counts here at once, and nobody hears of it before it is on the
//! disk, so that no crash makes a fork of an honest device.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use weft_core::{
    Input,
    door::{Command, DoorId, Reply},
};
use weft_protocol::{
    device::Role,
    host_call::Refusal,
    id::{Digest, StatementId},
    row::{Item, Rows as _, Table},
};
use weft_trust::graph::statement_id;

mod support;

use support::{ALLOW, Disk, Fabric};

const LAPTOP: usize = 0;
const SERVER: usize = 1;
const PHONE: usize = 2;
const TABLET: usize = 3;

fn tell(fabric: &mut Fabric, device: usize, command: Command) {
    fabric.feed(device, Input::Command { door: DoorId(2), command });
    fabric.settle();
}

/// The statements that a device knows.
fn set(fabric: &Fabric, device: usize) -> Digest {
    fabric.devices[device].node.membership().graph().set_digest()
}

fn rename(name: &str) -> Command {
    Command::Rename { device: None, name: name.parse().unwrap() }
}

/// Everything that a person changes, in a fabric in which the laptop, the server and the phone are admins,
/// and in one in which the server stands and the other two have put each other out.
fn changes() -> Vec<(Fabric, usize, Command)> {
    let whole = || Fabric::met(4, &[SERVER, PHONE], ALLOW);
    let device = || "tablet".to_owned();
    let mut duel = whole();
    duel.part_from_all(LAPTOP);
    duel.part_from_all(PHONE);
    duel.revoke(PHONE, LAPTOP);
    duel.revoke(LAPTOP, PHONE);
    duel.meet(SERVER, LAPTOP);
    duel.meet(SERVER, PHONE);
    vec![
        (whole(), LAPTOP, Command::Revoke { device: device() }),
        (whole(), LAPTOP, rename("hut")),
        (
            whole(),
            LAPTOP,
            Command::SetRole { device: device(), role: Role::Admin, confirmed: true },
        ),
        (duel, SERVER, Command::Keep { device: "phone".into() }),
    ]
}

#[test]
fn what_is_said_is_told_when_it_is_on_the_disk_and_not_before() {
    for (mut fabric, by, command) in changes() {
        let others: Vec<usize> = (0..4).filter(|other| *other != by).collect();
        fabric.part(by, TABLET);
        fabric.devices[by].disk = Disk::Slow;
        let before: Vec<Digest> = others.iter().map(|other| set(&fabric, *other)).collect();
        let said = format!("{command:?}");
        tell(&mut fabric, by, command);
        // Nor does one hear of it that comes meanwhile.
        fabric.meet(by, TABLET);
        let after: Vec<Digest> = others.iter().map(|other| set(&fabric, *other)).collect();
        assert_eq!(before, after, "{said}");
        assert!(!before.contains(&set(&fabric, by)), "{said}: here it counts");
        assert!(fabric.devices[by].replies.is_empty(), "{said}");
        fabric.flush(by);
        assert!(matches!(fabric.devices[by].replies[..], [Reply::Done]), "{said}");
        fabric.meet_all();
        assert_eq!(set(&fabric, SERVER), set(&fabric, LAPTOP), "{said}");
    }
}

#[test]
fn a_device_is_out_before_the_disk_has_turned_and_hears_of_it_after() {
    let mut fabric = Fabric::met(4, &[], ALLOW);
    let phone = fabric.id(PHONE);
    fabric.devices[LAPTOP].disk = Disk::Slow;
    tell(&mut fabric, LAPTOP, Command::Revoke { device: "phone".into() });
    assert!(!fabric.devices[LAPTOP].served.contains(&phone));
    assert!(!fabric.serve_each_other(LAPTOP, PHONE));
    fabric.meet(LAPTOP, PHONE);
    assert!(!fabric.serve_each_other(LAPTOP, PHONE), "it comes again, and is not let in");
    let knows = |fabric: &Fabric, device: usize| {
        fabric.devices[device].node.membership().state().revocation(&phone).is_some()
    };
    assert!(!knows(&fabric, SERVER) && !knows(&fabric, PHONE));
    fabric.flush(LAPTOP);
    fabric.meet(LAPTOP, PHONE);
    assert!(knows(&fabric, SERVER) && knows(&fabric, PHONE));
}

#[test]
fn what_a_crash_takes_nobody_has_heard_and_the_next_word_is_no_fork() {
    for (mut fabric, by, command) in changes() {
        let said = format!("{command:?}");
        let before = set(&fabric, by);
        fabric.devices[by].disk = Disk::Slow;
        tell(&mut fabric, by, command);
        fabric.restart(by);
        assert_eq!(set(&fabric, by), before, "{said}: it is forgotten");
        fabric.flush(by);
        tell(&mut fabric, by, rename("another word"));
        fabric.meet_all();
        for device in 0..4 {
            let (id, state) = (fabric.id(by), fabric.devices[device].node.membership().state());
            assert!(state.member(&id).is_some(), "{said}: {device} doubts it");
            assert_eq!(state.name.as_str(), "another word", "{said}");
        }
    }
}

#[test]
fn what_the_disk_refuses_counts_no_more_and_was_told_to_nobody() {
    for (mut fabric, by, command) in changes() {
        let said = format!("{command:?}");
        let before: Vec<_> = (0..4).map(|device| set(&fabric, device)).collect();
        let served = fabric.devices[by].served.clone();
        fabric.devices[by].disk = Disk::Slow;
        tell(&mut fabric, by, command);
        // And what was said behind it.
        tell(&mut fabric, by, rename("hall"));
        fabric.refuse_held(by);
        let after: Vec<_> = (0..4).map(|device| set(&fabric, device)).collect();
        assert_eq!(before, after, "{said}");
        assert_eq!(fabric.devices[by].served, served, "{said}");
        let is_refused =
            |reply: &Reply| matches!(reply, Reply::Refused { refusal: Refusal::Failed, .. });
        let replies = &fabric.devices[by].replies;
        assert!(replies.len() == 2 && replies.iter().all(is_refused), "{said}: {replies:?}");
    }
}

/// The statements on a device's disk.
fn stored(fabric: &Fabric, device: usize) -> BTreeSet<StatementId> {
    let rows = fabric.devices[device].rows.scan(Table::Trust, &[]).unwrap();
    let ids = rows.into_iter().map(|(item, _)| match item {
        Item::Named(id) => StatementId::from_bytes(id.try_into().unwrap()),
        Item::Numbered(number) => panic!("a statement {number}"),
    });
    ids.collect()
}

/// What others know of a device's statements lies on its own disk.
fn nobody_knows_more_than_its_author(fabric: &Fabric) -> Result<(), TestCaseError> {
    for author in 0..fabric.devices.len() {
        let (key, own) = (fabric.id(author), stored(fabric, author));
        for other in (0..fabric.devices.len()).filter(|other| *other != author) {
            for signed in fabric.devices[other].node.membership().graph().statements() {
                let is_safe = signed.author != key || own.contains(&statement_id(signed));
                prop_assert!(is_safe, "{other} knows what {author} may forget");
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Says(usize),
    Writes(usize, usize),
    Crashes(usize),
    Refuses(usize),
    Meet(usize, usize),
    Part(usize, usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let pair = || (0..3usize, 1..3usize).prop_map(|(a, by)| (a, (a + by) % 3));
    prop_oneof![
        4 => (0..2usize).prop_map(Happening::Says),
        4 => (0..3usize, 1..8usize).prop_map(|(device, count)| Happening::Writes(device, count)),
        2 => (0..3usize).prop_map(Happening::Crashes),
        1 => (0..3usize).prop_map(Happening::Refuses),
        3 => pair().prop_map(|(a, b)| Happening::Meet(a, b)),
        1 => pair().prop_map(|(a, b)| Happening::Part(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_crash_and_no_broken_disk_makes_a_fork(
        happenings in proptest::collection::vec(happening(), 1..24),
    ) {
        let mut fabric = Fabric::met(3, &[SERVER], ALLOW);
        fabric.devices.iter_mut().for_each(|it| it.disk = Disk::Slow);
        for (number, happening) in happenings.into_iter().enumerate() {
            match happening {
                Happening::Says(device) => {
                    tell(&mut fabric, device, rename(&format!("home {number}")));
                }
                Happening::Writes(device, count) => fabric.write_held(device, count),
                // What a disk has refused once it takes no more before the next start.
                Happening::Refuses(device) => {
                    fabric.refuse_held(device);
                    nobody_knows_more_than_its_author(&fabric)?;
                    fabric.restart(device);
                }
                Happening::Crashes(device) => fabric.restart(device),
                Happening::Meet(a, b) => fabric.meet(a, b),
                Happening::Part(a, b) => fabric.part(a, b),
            }
            nobody_knows_more_than_its_author(&fabric)?;
        }
        (0..3).for_each(|device| fabric.flush(device));
        (0..3).for_each(|device| fabric.part_from_all(device));
        fabric.meet_all();
        let sets: BTreeSet<Digest> = (0..3).map(|device| set(&fabric, device)).collect();
        prop_assert_eq!(sets.len(), 1, "all know the same");
        let state = fabric.devices[PHONE].node.membership().state();
        prop_assert!(state.devices.values().all(|device| device.is_active()));
    }
}

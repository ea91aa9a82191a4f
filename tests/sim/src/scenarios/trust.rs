//! Stories of devices that are put out, doubted, set back and copied.

use weft_core::audit;
use weft_protocol::{
    audit::Body,
    id::DeviceId,
    row::{Rows as _, Table},
};
use weft_trust::{recovery::speech::Wish, state::Standing};

use super::{calm, take_notes, what_is_wrong};
use crate::{admin::word, checkers::replicas::active, network::SECOND, world::World};

fn pass(world: &mut World, seconds: u64) {
    let end = world.time + seconds * SECOND;
    world.go_until(|world| world.time >= end);
}

/// A calm fabric that has recovery words.
fn calm_with_words(seed: u64) -> World {
    let mut worlds = (seed..).map(calm);
    let mut world = worlds.find(|world| world.root.is_some()).expect("some seed has words");
    world.decisions.leaves_open = true;
    world
}

/// How the machines that belong see a device.
fn seen(world: &mut World, device: &DeviceId) -> Vec<&'static str> {
    world.take_stock();
    let nodes = active(&world.hosts).map(|(_, node)| node);
    let mut words: Vec<_> = nodes
        .map(|node| {
            let device = node.membership().state().devices.get(device);
            device.map_or("unknown", |device| word(&device.standing))
        })
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// What is wrong but for what an older disk or a copy of one brings with it by itself.
fn what_else_is_wrong(world: &World) -> Vec<String> {
    let expected = ["audit", "effects", "once", "timers", "notes", "runs"];
    let found = world.failures.0.iter().filter(|it| !expected.contains(&it.checker));
    found.map(|it| format!("{}: {}", it.checker, it.what)).collect()
}

fn finish(world: &mut World) {
    world.heal();
    world.run();
    world.finish();
}

#[test]
fn two_admins_who_put_each_other_out_are_both_in_doubt_until_the_words_keep_one() {
    let mut world = calm_with_words(0);
    let (one, two) = (world.hosts[0].id, world.hosts[1].id);
    world.duel(5 * SECOND);
    pass(&mut world, 12);
    assert_eq!(
        (seen(&mut world, &one), seen(&mut world, &two)),
        (vec!["suspended"], vec!["suspended"])
    );

    let root = world.root.take().unwrap();
    let wish = Wish { keep: vec![one], ..Wish::default() };
    assert!(world.speak_as_root(2, &root, &wish));
    pass(&mut world, 8);
    assert_eq!((seen(&mut world, &one), seen(&mut world, &two)), (vec!["active"], vec!["revoked"]));
    finish(&mut world);
    assert_eq!(what_is_wrong(&world), Vec::<String>::new());
}

#[test]
fn a_device_that_is_put_out_is_barred_by_those_who_were_away_when_they_hear_of_it() {
    let mut world = calm_with_words(3);
    let out = world.hosts[2].id;
    // One machine can reach only that which is about to be put out, and that reaches nobody else.
    for other in (0..world.hosts.len()).filter(|other| ![2, 3].contains(other)) {
        world.bar(3, other, 20 * SECOND);
        world.bar(2, other, 20 * SECOND);
    }
    pass(&mut world, 1);
    assert!(world.put_out(0, 2));
    pass(&mut world, 3);
    let served = |world: &World, at: usize| world.hosts[at].members.contains(&out);
    assert!(served(&world, 3) && !served(&world, 1) && !served(&world, 4));
    take_notes(&mut world, 1);
    pass(&mut world, 22);
    assert!(!served(&world, 3));
    finish(&mut world);
    assert_eq!(what_is_wrong(&world), Vec::<String>::new());
}

#[test]
fn an_admin_that_speaks_again_with_an_older_disk_is_in_doubt_until_it_is_kept() {
    let mut world = calm_with_words(5);
    let admin = world.hosts[0].id;
    let image = world.hosts[0].disk.durable().clone();
    assert!(world.put_out(0, 2));
    pass(&mut world, 5);
    world.set_back(0, image);
    for other in 1..world.hosts.len() {
        world.bar(0, other, 10 * SECOND);
    }
    pass(&mut world, 1);
    // It has forgotten what it said, and says something else in its place.
    assert!(world.put_out(0, 3));
    pass(&mut world, 20);
    assert_eq!(seen(&mut world, &admin), ["suspended"]);

    world.keep(1, admin);
    pass(&mut world, 10);
    assert_eq!(seen(&mut world, &admin), ["active"]);
    finish(&mut world);
    assert_eq!(what_else_is_wrong(&world), Vec::<String>::new());
}

/// The persons of two machines have notes taken, one after the other.
fn write_by_turns(world: &mut World, machines: [usize; 2], times: usize) {
    for number in 0..times {
        let at = machines[number % 2];
        if world.hosts[at].is_up() {
            let words = format!("note that {number} is written by one of two");
            let plan = world.plan(at, &words);
            world.give(at, words, plan, Default::default());
        }
        pass(world, 4);
    }
}

/// How often a machine's chain says that its disk was set back.
fn times_owned_up(world: &World, at: usize) -> usize {
    let rows = world.hosts[at].disk.durable();
    let records = rows.scan_from(Table::Audit, &[], 0, usize::MAX).unwrap();
    let bodies = records.into_iter().map(|(at, it)| audit::read(at, &it).unwrap().1.body);
    bodies.filter(|body| matches!(body, Body::Segment { recovered: Some(_), .. })).count()
}

#[test]
fn a_device_that_gets_another_key_goes_on_as_the_same_wherever_the_power_goes() {
    let mut renewed = 0;
    for millis in [None, Some(0), Some(1), Some(3), Some(6), Some(20), Some(100)] {
        let mut world = calm_with_words(7);
        take_notes(&mut world, 2);
        pass(&mut world, 3);
        let former = world.hosts[0].id;
        world.rotate(0, false);
        assert!(world.hosts[0].next.is_some(), "nothing is under way");
        if let Some(millis) = millis {
            let end = world.time + millis * 1_000;
            world.go_until(|world| world.time >= end);
            world.crash(0);
            world.start(0);
        }
        pass(&mut world, 5);
        let words = "note that it goes on as before";
        let plan = world.plan(0, words);
        world.give(0, words.into(), plan, Default::default());
        pass(&mut world, 3);
        let device = world.hosts[0].id;
        assert_eq!(seen(&mut world, &device), ["active"], "after {millis:?} ms");
        if device != former {
            assert_eq!(seen(&mut world, &former), ["revoked"], "after {millis:?} ms");
            renewed += 1;
        }
        finish(&mut world);
        assert_eq!(what_is_wrong(&world), Vec::<String>::new(), "after {millis:?} ms");
    }
    assert!((3..7).contains(&renewed), "early nobody has heard of the new key: {renewed}");
}

#[test]
fn a_copy_of_a_disk_that_runs_beside_it_is_found_out_and_the_others_stay_whole() {
    for seed in [0, 1, 2, 3] {
        let mut world = calm_with_words(seed * 10);
        take_notes(&mut world, 2);
        let copied = 2;
        let device = world.hosts[copied].id;
        let copy = world.copy(copied);
        write_by_turns(&mut world, [copied, copy], 8);
        // That one of the two says so whose chain the other's has passed, and so does who hears both.
        let told = what_is_wrong(&world);
        for found in
            ["another machine runs with this device's key", "another machine runs with the key of"]
        {
            assert!(told.iter().any(|it| it.contains(found)), "seed {seed}: {told:#?}");
        }
        // And from then on neither owns up to what the other writes.
        let owned_up = |world: &World| [copied, copy].map(|at| times_owned_up(world, at));
        let before = owned_up(&world);
        write_by_turns(&mut world, [copied, copy], 6);
        world.crash(copied);
        world.start(copied);
        write_by_turns(&mut world, [copied, copy], 4);
        assert_eq!(owned_up(&world), before, "seed {seed}");
        assert!(world.put_out(0, copied));
        world.hosts[copy].put_out = true;
        pass(&mut world, 5);
        let standing = world.hosts[0].node.as_ref().unwrap().membership().state();
        assert!(matches!(standing.devices[&device].standing, Standing::Revoked { .. }));
        finish(&mut world);
        assert_eq!(what_else_is_wrong(&world), Vec::<String>::new(), "seed {seed}");
    }
}

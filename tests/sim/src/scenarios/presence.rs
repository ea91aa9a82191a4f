//! Stories of who is here.

use super::{calm, what_is_wrong};
use crate::{network::SECOND, world::World};

fn pass(world: &mut World, seconds: u64) {
    let end = world.time + seconds * SECOND;
    world.go_until(|world| world.time >= end);
}

/// How a machine shows another.
fn shown(world: &mut World, at: usize, other: usize) -> (String, Vec<String>) {
    let id = world.hosts[other].id;
    let seen = world.look_at(at).expect("it is on");
    let view = seen.devices.into_iter().find(|view| view.id == id).expect("it belongs");
    (view.state, view.via)
}

#[test]
fn what_changes_on_a_machine_is_known_to_all_within_seconds() {
    let mut world = calm(2);
    world.look_at_rest(false);
    for _ in 0..30 {
        let at = world.dice.facts.index(5);
        world.change(at);
        world.change(at);
        pass(&mut world, 3);
        world.look_at_rest(false);
    }
    assert_eq!(what_is_wrong(&world), Vec::<String>::new());
}

#[test]
fn two_that_cannot_reach_each_other_see_each_other_through_a_third_until_that_is_gone() {
    let mut world = calm(2);
    for other in [1, 3, 4].into_iter().chain(5..world.hosts.len()) {
        world.bar(0, other, 400 * SECOND);
    }
    pass(&mut world, 12);
    let through_the_phone = ("near".to_owned(), vec!["phone".to_owned()]);
    for other in [1, 3, 4] {
        assert_eq!(shown(&mut world, 0, other), through_the_phone, "{other}");
        assert_eq!(shown(&mut world, other, 0), through_the_phone, "{other}");
    }
    world.look_around();
    world.network.noticed_within = Some(30 * SECOND);
    world.crash(2);
    pass(&mut world, 33);
    for other in [1, 3, 4] {
        assert_eq!(shown(&mut world, 0, other).0, "away");
        assert_eq!(shown(&mut world, other, 0).0, "away");
    }
    world.look_around();
    assert_eq!(what_is_wrong(&world), Vec::<String>::new());
}

#[test]
fn a_machine_that_is_killed_again_and_again_is_no_ghost() {
    for seed in [2, 5] {
        let mut world = calm(seed);
        for round in 0..8 {
            world.network.noticed_within = Some(if round % 2 == 0 { 1 } else { 4 * SECOND });
            world.crash(2);
            pass(&mut world, 1 + round % 3);
            world.start(2);
            world.look_around();
            pass(&mut world, 7);
            world.look_at_rest(false);
        }
        assert_eq!(what_is_wrong(&world), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn one_that_falls_silent_for_good_is_away_at_all_however_its_word_is_passed_around() {
    for seed in [2, 5, 8] {
        let mut world = calm(seed);
        world.look_at_rest(false);
        world.fall_silent();
        assert_eq!(what_is_wrong(&world), Vec::<String>::new(), "seed {seed}");
    }
}

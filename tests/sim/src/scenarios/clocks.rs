//! Stories of clocks that are wrong.

use super::{calm, what_is_wrong};
use crate::{checkers::clocks::TOLD_WITHIN, network::SECOND, world::World};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn pass(world: &mut World, seconds: u64) {
    let end = world.time + seconds * SECOND;
    world.go_until(|world| world.time >= end);
}

/// How far a machine says that another's clock is ahead, in minutes.
fn ahead(world: &mut World, at: usize, other: usize) -> Option<i64> {
    let id = world.hosts[other].id;
    let ahead = world.look_at(at)?.contact(&id)?.ahead_ms?;
    Some((ahead + MINUTE / 2).div_euclid(MINUTE))
}

#[test]
fn a_clock_that_is_wrong_is_told_of_the_device_whose_it_is_by_all() {
    let mut world = calm(2);
    let skews = [0, 3 * HOUR, -20 * MINUTE, 0, 5 * 24 * HOUR];
    for (at, skew) in skews.into_iter().enumerate() {
        world.set_clock(at, skew);
    }
    world.look_around();
    pass(&mut world, TOLD_WITHIN / SECOND);
    for at in 0..5 {
        for other in (0..5).filter(|other| *other != at) {
            let expected = (skews[other] - skews[at]) / MINUTE;
            assert_eq!(ahead(&mut world, at, other), Some(expected), "{other} at {at}");
        }
    }
    world.look_at_rest(true);
    assert_eq!(what_is_wrong(&world), Vec::<String>::new());
}

#[test]
fn whoever_is_here_is_here_however_clocks_jump_back_and_forth() {
    for seed in [2, 5, 8] {
        let mut world = calm(seed);
        for round in 0..20_i64 {
            let at = world.dice.facts.index(5);
            let skew = world.dice.facts.between(0, 48) as i64 * HOUR - 24 * HOUR;
            world.set_clock(at, if round % 3 == 0 { 0 } else { skew });
            if round % 5 == 4 {
                world.crash(at);
                pass(&mut world, 1);
                world.start(at);
            }
            pass(&mut world, 9);
            world.look_at_rest(false);
        }
        // A node whose clock is off by hours rests as well, and says no more of itself.
        world.fall_silent();
        assert_eq!(what_is_wrong(&world), Vec::<String>::new(), "seed {seed}");
    }
}

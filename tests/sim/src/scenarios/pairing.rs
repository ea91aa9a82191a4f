//! Stories of devices that join.

use weft_protocol::device::Role;
use weft_trust::pairing::Outcome;

use super::{calm, what_is_wrong};
use crate::{fault::Moment, network::SECOND, pairing::Attempt, world::World};

/// A calm fabric beside which two machines belong to none, and their numbers.
fn calm_beside_two(seed: u64) -> (World, [usize; 2]) {
    for seed in seed.. {
        let mut world = calm(seed);
        let new: Vec<usize> =
            (0..world.hosts.len()).filter(|at| !world.hosts[*at].joined).collect();
        if let [one, two] = new[..] {
            world.pairings.smooth = true;
            world.decisions.leaves_open = true;
            return (world, [one, two]);
        }
    }
    unreachable!("some seed has two machines that are new")
}

fn pass(world: &mut World, seconds: u64) {
    let end = world.time + seconds * SECOND;
    world.go_until(|world| world.time >= end);
}

/// Goes on until all is over and at rest, and looks at everything.
fn rest(world: &mut World) {
    let end = world.time + 250 * SECOND;
    world.go_until(|world| world.time >= end || world.pairings.are_over());
    world.heal();
    world.run();
    world.finish();
}

fn outcomes(world: &World) -> Vec<Option<Outcome>> {
    world.pairings.attempts.iter().map(|it| it.outcome).collect()
}

fn belongs(world: &World, host: usize) -> bool {
    let id = world.hosts[host].id;
    let state = world.checks.trust.state().expect("stock was taken");
    state.member(&id).is_some()
}

#[test]
fn a_device_that_joins_is_known_to_all() {
    let (mut world, [new, _]) = calm_beside_two(0);
    world.open_invitation(0, new, Role::Member, false);
    rest(&mut world);
    assert_eq!(what_is_wrong(&world), Vec::<String>::new());
    assert_eq!(outcomes(&world), [Some(Outcome::Paired)]);
    assert!(belongs(&world, new));
}

#[test]
fn a_pairing_comes_to_the_same_on_both_sides_wherever_the_power_goes() {
    for at_the_inviter in [true, false] {
        let mut paired = 0;
        for nth in 1..=8 {
            let (mut world, [new, _]) = calm_beside_two(0);
            world.open_invitation(0, new, Role::Member, false);
            let end = if at_the_inviter { 0 } else { new };
            world.hosts[end].doom = Some((Moment::SentPairing, nth));
            rest(&mut world);
            let story = format!("inviter {at_the_inviter}, frame {nth}: {:?}", outcomes(&world));
            assert_eq!(what_is_wrong(&world), Vec::<String>::new(), "{story}");
            paired += usize::from(world.hosts[new].joined);
            let stored = |it: &Attempt| it.stored;
            assert_eq!(
                world.hosts[new].joined,
                world.pairings.attempts.iter().any(stored),
                "{story}"
            );
        }
        assert!(paired > 0, "late enough it is paired");
    }
}

#[test]
fn a_pairing_whose_connection_is_cut_anywhere_goes_on_from_there() {
    for frames in 1..=9 {
        let (mut world, [new, _]) = calm_beside_two(0);
        world.open_invitation(0, new, Role::Member, false);
        let end = world.time + 30 * SECOND;
        world.go_until(|world| world.pairings.frames >= frames || world.time > end);
        assert!(world.pairings.frames >= frames, "a pairing has nine frames");
        world.cut_newest_pairing();
        rest(&mut world);
        let story = format!("frame {frames}: {:?}", outcomes(&world));
        assert_eq!(what_is_wrong(&world), Vec::<String>::new(), "{story}");
        assert_eq!(outcomes(&world), [Some(Outcome::Paired)], "frame {frames}");
        assert_eq!(world.pairings.invitations[0].ended, ["paired"], "frame {frames}");
    }
}

#[test]
fn a_ticket_that_two_devices_hold_brings_in_the_first() {
    let (mut world, [one, two]) = calm_beside_two(0);
    world.open_invitation(0, one, Role::Member, true);
    let end = world.time + 10 * SECOND;
    world.go_until(|world| !world.pairings.attempts.is_empty() || world.time > end);
    world.join(two, 0);
    rest(&mut world);
    assert_eq!(what_is_wrong(&world), Vec::<String>::new());
    let both = [belongs(&world, one), belongs(&world, two)];
    assert_eq!(both.into_iter().filter(|belongs| *belongs).count(), 1);
    assert!(outcomes(&world).contains(&Some(Outcome::AlreadyUsed)), "{:?}", outcomes(&world));
}

#[test]
fn a_ticket_that_is_two_minutes_old_is_expired() {
    let (mut world, [one, two]) = calm_beside_two(0);
    world.pairings.nobody_joins = true;
    world.open_invitation(0, one, Role::Member, false);
    pass(&mut world, 125);
    world.pairings.nobody_joins = false;
    world.join(two, 0);
    rest(&mut world);
    assert_eq!(what_is_wrong(&world), Vec::<String>::new());
    assert_eq!(outcomes(&world), [Some(Outcome::Expired)]);
    assert!(!belongs(&world, two));
}

//! Stories of links that go under a step.

use weft_core::door::DoorId;
use weft_protocol::{graph::Plan, manifest::EffectClass, run::RunState, value::Value};

use super::{calm, what_is_wrong};
use crate::{
    network::SECOND,
    sever::{How, Sever},
    workload::direct,
    world::World,
};

const ALL: [How; 3] = [How::Stream, How::Link, How::Upgrade];

/// A step of each class that another device is to do, and that says when it is done.
fn steps() -> [Plan; 3] {
    let text = |name, text: &str| vec![(name, Value::from(text))];
    [
        direct("llm.generate", text("prompt", "why?"), EffectClass::ReadOnly),
        direct("notes.save", text("text", "it is so"), EffectClass::Idempotent),
        direct("valve.open", vec![("number", Value::Int(1))], EffectClass::AtMostOnce),
    ]
}

/// Has the server do a step for the laptop. Whoever is asked says yes, and no agent fails.
fn ask(world: &mut World, mut plan: Plan) -> DoorId {
    plan.steps[0].device = Some("server".to_owned());
    world.give(0, "do it".into(), plan, Default::default())
}

fn pass(world: &mut World, door: DoorId, seconds: u64) {
    pass_until(world, door, seconds, |_| false);
}

fn pass_until(world: &mut World, door: DoorId, seconds: u64, is_so: fn(&World) -> bool) {
    let end = world.time + seconds * SECOND;
    while world.time < end && world.asks[&door].ended.is_empty() && !is_so(world) {
        let next = world.time + SECOND / 500;
        world.go_until(|world| world.time >= next);
        world.consent(door, true);
        for host in &mut world.hosts {
            host.plays.values_mut().for_each(|play| play.ends_well());
        }
    }
}

/// How a step ends under which a link goes after so many frames, and how often it was begun.
fn severed(seed: u64, plan: Plan, after: u32, how: How) -> (Option<RunState>, usize, bool) {
    let mut world = calm(seed);
    // What is cut is noticed soon, as where something is under way.
    world.network.noticed_within = Some(2 * SECOND);
    world.network.sever = Some(Sever { after, how });
    let door = ask(&mut world, plan);
    pass(&mut world, door, 100);
    let was_severed = world.network.sever.is_none();
    let begun = world.checks.effects.log().len();
    let state = world.asks[&door].ended.first().map(|(_, state)| *state);
    assert_eq!(what_is_wrong(&world), Vec::<String>::new(), "{how:?} after {after}");
    (state, begun, was_severed)
}

#[test]
fn a_step_under_which_its_link_goes_and_comes_back_is_done_once() {
    let mut severed_at_all = 0;
    for plan in steps() {
        for how in ALL {
            for after in 1..=6 {
                for seed in [3, 9] {
                    let (state, begun, was_severed) = severed(seed, plan.clone(), after, how);
                    let what = &plan.steps[0].capability;
                    let story = format!("{what}, {how:?} after {after} frames, seed {seed}");
                    assert_eq!(state, Some(RunState::Done), "{story}");
                    assert_eq!(begun, 1, "{story}");
                    severed_at_all += usize::from(was_severed);
                }
            }
        }
    }
    assert!(severed_at_all > 60, "links go under steps: {severed_at_all}");
}

#[test]
fn a_step_whose_device_stays_away_ends_with_the_reason() {
    for (plan, expected) in steps().into_iter().zip([
        &[RunState::Failed][..],
        &[RunState::Failed, RunState::Uncertain],
        &[RunState::Failed, RunState::Uncertain],
    ]) {
        for after in 0..=4 {
            let mut world = calm(3);
            world.network.noticed_within = Some(2 * SECOND);
            let what = plan.steps[0].capability.clone();
            let door = ask(&mut world, plan.clone());
            if after == 0 {
                // While it is being done.
                pass_until(&mut world, door, 30, |world| !world.hosts[3].plays.is_empty());
                assert!(!world.hosts[3].plays.is_empty(), "{what}");
            } else {
                world.network.sever = Some(Sever { after, how: How::Link });
                pass_until(&mut world, door, 30, |world| world.network.sever.is_none());
            }
            world.bar(0, 3, 500 * SECOND);
            pass(&mut world, door, 200);
            let ended = &world.asks[&door].ended;
            let states: Vec<RunState> = ended.iter().map(|(_, state)| *state).collect();
            let is_over =
                states.len() == 1 && (expected.contains(&states[0]) || states[0] == RunState::Done);
            assert!(is_over, "{what}, after {after} frames: {states:?}");
            let begun = world.checks.effects.log().len();
            let is_true = match plan.steps[0].effect {
                // What was begun there may have happened, which is no failure.
                EffectClass::AtMostOnce => begun == 0 || states[0] != RunState::Failed,
                EffectClass::Pure | EffectClass::ReadOnly | EffectClass::Idempotent => true,
            };
            assert!(begun <= 1 && is_true, "{what}, after {after} frames: {begun}, {states:?}");
            assert_eq!(what_is_wrong(&world), Vec::<String>::new(), "{what}");
        }
    }
}

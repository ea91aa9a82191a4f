//! Two devices, their cores joined without a network: what crosses between owner and executor.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use weft_core::{
    Input,
    door::{Command, DoorId, Event, Reply},
};
use weft_protocol::{
    audit::{Body, Ending},
    decision::Effect,
    host_call::Refusal,
    manifest::EffectClass,
    run::{Failure, RunState},
    value::Value,
};

mod support;

#[path = "two_devices/once.rs"]
mod once;

#[path = "two_devices/cuts.rs"]
mod cuts;

#[path = "two_devices/stops.rs"]
mod stops;

#[path = "two_devices/denials.rs"]
mod denials;

#[path = "two_devices/limits.rs"]
mod limits;

#[path = "two_devices/opening.rs"]
mod opening;

#[path = "two_devices/telling.rs"]
mod telling;

#[path = "two_devices/journals.rs"]
mod journals;

use support::{ALLOW, Fabric, Rules, step};

/// The laptop (0) and the server (1), connected; the phone is a member, too.
fn connected(laptop: Rules, server: Rules) -> Fabric {
    let mut fabric = Fabric::pair(3, [laptop, server]);
    fabric.meet(0, 1);
    fabric
}

impl Fabric {
    /// The laptop's person wants it said on the server.
    fn say_on_server(&mut self, can_ask: bool) {
        self.do_on_server("echo.say", EffectClass::ReadOnly, can_ask);
    }

    /// The laptop's person wants something done on the server.
    fn do_on_server(&mut self, capability: &str, effect: EffectClass, can_ask: bool) {
        let step = step(1, capability, effect, Some("server"));
        self.carry_out_steps(0, vec![step], can_ask);
    }
}

#[test]
fn a_step_runs_where_the_words_say_and_both_chains_tell_of_it() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.say_on_server(false);
    assert!(matches!(fabric.devices[0].replies[..], [Reply::RunStarted { .. }]));
    assert_eq!(fabric.devices[1].executions[0].1.get("text"), Some(&Value::from("hello")));
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
    assert_eq!(fabric.steps(0), ["owner allow", "done"]);
    assert_eq!(fabric.steps(1), ["executor allow", "done"]);
}

#[test]
fn what_the_executors_rules_deny_does_not_run_though_the_owners_allow_it() {
    let deny = Rules { executor: Effect::Deny, ..ALLOW };
    let mut fabric = connected(ALLOW, deny);
    fabric.say_on_server(false);
    assert_eq!(fabric.devices[1].begun, 0);
    let (state, failure) = fabric.ended(0).unwrap();
    assert_eq!(state, RunState::Failed);
    assert!(failure.unwrap().contains("server refused: the rules say deny"));
    assert_eq!(fabric.steps(0), ["owner allow", "denied"]);
    assert_eq!(fabric.steps(1), ["executor deny"]);
}

#[test]
fn what_the_owners_rules_deny_is_never_offered() {
    let deny = Rules { owner: Effect::Deny, ..ALLOW };
    let mut fabric = connected(deny, ALLOW);
    fabric.say_on_server(false);
    assert_eq!(fabric.devices[1].begun, 0);
    assert_eq!(fabric.ended(0).unwrap().0, RunState::Failed);
    assert_eq!(fabric.steps(0), ["owner deny"]);
    assert!(fabric.steps(1).is_empty());
}

#[test]
fn what_is_asked_runs_after_a_persons_yes_and_not_after_a_no() {
    let ask = Rules { owner: Effect::Ask, executor: Effect::Ask, ..ALLOW };
    for yes in [true, false] {
        let mut fabric = connected(ask, ask);
        fabric.say_on_server(true);
        let Some(Event::Asked { run, step, .. }) = fabric.devices[0].events.last().cloned() else {
            panic!("nobody was asked: {:?}", fabric.devices[0].events);
        };
        fabric.feed(
            0,
            Input::Command { door: DoorId(1), command: Command::Consent { run, step, yes } },
        );
        fabric.settle();
        if yes {
            fabric.finish(1, Ok("hello".into()));
            assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
            assert_eq!(fabric.steps(1), ["executor allow", "done"]);
        } else {
            assert_eq!(fabric.devices[1].begun, 0);
            assert_eq!(fabric.ended(0).unwrap().0, RunState::Failed);
            assert_eq!(fabric.steps(0), ["owner deny"]);
        }
    }
}

#[test]
fn what_is_asked_is_denied_where_nobody_can_be_asked() {
    let ask = Rules { owner: Effect::Ask, executor: Effect::Ask, ..ALLOW };
    let mut fabric = connected(ask, ask);
    fabric.say_on_server(false);
    assert_eq!(fabric.ended(0).unwrap().0, RunState::Failed);
    assert_eq!(fabric.devices[1].begun, 0);
}

#[test]
fn an_executor_does_not_take_an_owners_word_for_a_persons_yes() {
    // The owner's rules allow, so nobody is asked; the executor's rules want a person.
    let ask = Rules { executor: Effect::Ask, ..ALLOW };
    let mut fabric = connected(ALLOW, ask);
    fabric.say_on_server(true);
    assert_eq!(fabric.devices[1].begun, 0);
    assert!(fabric.ended(0).unwrap().1.unwrap().contains("nobody was asked"));
}

#[test]
fn a_cancelled_run_stops_on_the_executor() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.say_on_server(false);
    let Some(Reply::RunStarted { run }) = fabric.devices[0].replies.first().cloned() else {
        panic!("the run did not start");
    };
    fabric.feed(0, Input::Command { door: DoorId(1), command: Command::Cancel { run } });
    fabric.settle();
    assert_eq!(fabric.ended(0).unwrap().0, RunState::Cancelled);
    assert_eq!(fabric.devices[1].stopped.len(), 1);
    assert_eq!(fabric.steps(1), ["executor allow", "cancelled"]);
}

#[test]
fn an_executor_that_goes_away_ends_the_step_with_the_reason() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.say_on_server(false);
    let (late, _) = fabric.devices[1].executions[0].clone();
    fabric.part(0, 1);
    fabric.wait(Duration::from_secs(10));
    let (state, failure) = fabric.ended(0).unwrap();
    assert_eq!(state, RunState::Failed);
    assert!(failure.unwrap().contains("server: "), "the reason names the device");
    // The late outcome of the device that went away changes nothing.
    fabric.feed(1, Input::Executed { execution: late, result: Ok("hello".into()) });
    fabric.settle();
    fabric.meet(0, 1);
    assert_eq!(fabric.steps(0), ["owner allow", "cancelled"]);
}

#[test]
fn an_executor_that_falls_silent_counts_as_lost_after_its_lease() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.say_on_server(false);
    fabric.lose = Some(|_| true);
    for _ in 0..14 {
        fabric.wait(Duration::from_secs(1));
    }
    assert_eq!(fabric.ended(0), None, "the lease still runs");
    fabric.wait(Duration::from_secs(2));
    assert_eq!(fabric.ended(0).unwrap().0, RunState::Failed);
}

#[test]
fn an_agents_failure_is_the_steps_and_has_its_reason() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.say_on_server(false);
    let failure = Failure { refusal: Refusal::Failed, reason: "it broke".into() };
    fabric.finish(1, Err(failure));
    assert_eq!(fabric.ended(0), Some((RunState::Failed, Some("it broke".into()))));
    assert!(
        fabric
            .records(1)
            .iter()
            .any(|body| { matches!(body, Body::Outcome { ending: Ending::Failed, .. }) })
    );
}

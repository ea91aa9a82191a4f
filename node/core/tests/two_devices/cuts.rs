//! Links that are cut in the middle of a step that only reads: it goes on where it is, and elsewhere only when
//! its device stays away.

use std::time::Duration;

use weft_core::{Input, door::Event};
use weft_protocol::{
    frame::Protocol,
    graph::{Argument, Step},
    manifest::EffectClass,
    run::{Outcome, Progress, RunMessage, RunState},
    value::Value,
};

use super::{ALLOW, Fabric, connected, step};

/// The server is in the middle of a step that the words bind to it.
fn saying() -> Fabric {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.say_on_server(false);
    assert_eq!(fabric.devices[1].begun, 1);
    fabric
}

/// The server is in the middle of a step that the laptop could do as well: it was busy when it was asked for.
fn saying_anywhere() -> Fabric {
    let mut fabric = connected(ALLOW, ALLOW);
    let here = step(1, "echo.say", EffectClass::ReadOnly, Some("laptop"));
    fabric.carry_out_steps(0, vec![here], false);
    let anywhere = step(1, "echo.say", EffectClass::ReadOnly, None);
    fabric.carry_out_steps(0, vec![anywhere], false);
    assert_eq!(fabric.begun(), [1, 1]);
    fabric
}

impl Fabric {
    /// How many executions were begun on the laptop and on the server.
    pub(super) fn begun(&self) -> [usize; 2] {
        [0, 1].map(|device| self.devices[device].begun)
    }

    /// What the person of the laptop was told meanwhile.
    pub(super) fn told(&self) -> Vec<&str> {
        let lines = self.devices[0].events.iter().filter_map(|event| {
            let Event::StepProgressed { progress: Progress::Log(line), .. } = event else {
                return None;
            };
            Some(line.as_str())
        });
        lines.collect()
    }

    /// Seconds pass, one after the other.
    pub(super) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.wait(Duration::from_secs(1));
        }
    }

    /// The server's agent ends, and nobody hears of it yet.
    fn end_unheard(&mut self) {
        let (execution, _) = self.devices[1].executions.pop().expect("it runs");
        self.feed(1, Input::Executed { execution, result: Ok("hello".into()) });
        self.settle();
    }

    fn inquiries(&self) -> usize {
        let is_inquiry = |message| matches!(message, RunMessage::Inquire(_));
        self.sent
            .iter()
            .filter_map(super::support::Sent::run)
            .filter(|it| is_inquiry(it.clone()))
            .count()
    }
}

#[test]
fn a_step_goes_on_over_the_stream_that_takes_the_place_of_its_own() {
    for mut fabric in [saying(), saying_anywhere()] {
        let begun = fabric.begun();
        for _ in 0..3 {
            fabric.pass(1);
            fabric.open(0, 1, Protocol::Run);
            fabric.settle();
        }
        assert_eq!(fabric.inquiries(), 3, "the server is asked each time");
        fabric.pass(30);
        assert_eq!((fabric.begun(), fabric.ended(0)), (begun, None));
        fabric.finish(1, Ok("hello".into()));
        assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
        assert_eq!(fabric.steps(1), ["executor allow", "done"]);
        assert_eq!(fabric.told(), Vec::<&str>::new(), "it is nothing to speak of");
    }
}

#[test]
fn what_ended_while_the_link_was_cut_is_handed_over_when_it_is_back() {
    // Whether the agent ends before the server knows that its words go nowhere, or after.
    for early in [true, false] {
        let mut fabric = saying();
        if early {
            fabric.lose = Some(|_| true);
            fabric.end_unheard();
            fabric.lose = None;
            fabric.open(0, 1, Protocol::Run);
            fabric.settle();
        } else {
            fabric.part(0, 1);
            fabric.end_unheard();
            fabric.pass(2);
            assert_eq!(fabric.ended(0), None);
            fabric.meet(0, 1);
            assert_eq!(
                fabric.told(),
                ["server: it went away; waiting for it, 10 s at most", "server is here again"]
            );
        }
        assert_eq!(fabric.ended(0), Some((RunState::Done, None)), "early: {early}");
        assert_eq!(fabric.devices[1].begun, 1);
        assert_eq!(fabric.steps(0), ["owner allow", "done"]);
    }
}

#[test]
fn a_large_answer_that_was_cut_is_handed_over_whole() {
    let mut fabric = saying();
    fabric.lose = Some(|_| true);
    let text = "it is long ".repeat(20_000);
    let (execution, _) = fabric.devices[1].executions.pop().unwrap();
    fabric.feed(1, Input::Executed { execution, result: Ok(Value::from(text.as_str())) });
    fabric.settle();
    fabric.lose = None;
    fabric.open(0, 1, Protocol::Run);
    fabric.settle();
    let given = fabric.devices[0].events.iter().find_map(|event| {
        let Event::StepEnded { outcome: Outcome::Value { value, .. }, .. } = event else {
            return None;
        };
        Some(value)
    });
    assert_eq!(given, Some(&Value::from(text.as_str())));
    assert_eq!(fabric.begun(), [0, 1]);
}

#[test]
fn an_offer_that_was_cut_on_its_way_is_made_again_to_the_same_device() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.lose = Some(|sent| matches!(sent.run(), Some(RunMessage::Offer(_))));
    fabric.say_on_server(false);
    assert_eq!(fabric.begun(), [0, 0]);
    fabric.lose = None;
    fabric.open(0, 1, Protocol::Run);
    fabric.settle();
    assert_eq!(fabric.begun(), [0, 1]);
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
    assert_eq!(fabric.steps(0), ["owner allow", "done"], "it is the same try");
}

#[test]
fn a_device_that_lost_its_power_begins_anew_when_it_is_back() {
    let mut fabric = saying();
    fabric.crash(1);
    fabric.pass(1);
    fabric.meet(0, 1);
    assert_eq!(fabric.devices[1].begun, 2, "before and after");
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
    assert_eq!(fabric.steps(0), ["owner allow", "cancelled", "owner allow", "done"]);
}

#[test]
fn a_device_that_stays_away_is_waited_for_until_nobody_else_can_do_it_either() {
    let mut fabric = saying();
    fabric.part(0, 1);
    fabric.pass(9);
    assert_eq!(fabric.ended(0), None);
    fabric.pass(1);
    let (state, why) = fabric.ended(0).unwrap();
    assert_eq!(state, RunState::Failed);
    assert!(why.unwrap().contains("server: it went away"));
}

#[test]
fn what_another_can_do_as_well_is_done_there_soon() {
    let mut fabric = saying_anywhere();
    fabric.part(0, 1);
    fabric.pass(4);
    assert_eq!(fabric.begun(), [1, 1], "the server may be back at once");
    fabric.pass(1);
    assert_eq!(fabric.begun(), [2, 1]);
    fabric.meet(0, 1);
    fabric.end_unheard();
    fabric.finish(0, Ok("hello".into()));
    assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
}

#[test]
fn who_was_silent_for_long_before_the_cut_is_not_waited_for_as_long() {
    let mut fabric = saying_anywhere();
    fabric.lose = Some(|_| true);
    fabric.pass(3);
    fabric.part(0, 1);
    fabric.pass(1);
    assert_eq!(fabric.begun(), [1, 1]);
    fabric.pass(1);
    assert_eq!(fabric.begun(), [2, 1], "within five seconds of its last word");
}

#[test]
fn an_answer_that_does_not_come_over_the_new_link_ends_the_wait() {
    let mut fabric = saying();
    fabric.part(0, 1);
    fabric.pass(9);
    fabric.lose = Some(|sent| sent.from == 1);
    fabric.meet(0, 1);
    fabric.pass(4);
    assert_eq!(fabric.ended(0), None, "it has its time to answer");
    fabric.pass(2);
    assert_eq!(fabric.ended(0).map(|(state, _)| state), Some(RunState::Failed));
}

#[test]
fn a_step_that_is_stopped_while_its_device_is_away_stays_stopped() {
    let mut fabric = saying();
    fabric.part(0, 1);
    fabric.cancel();
    assert_eq!(fabric.ended(0).map(|(state, _)| state), Some(RunState::Cancelled));
    fabric.meet(0, 1);
    fabric.pass(12);
    assert_eq!(fabric.begun(), [0, 1]);
}

#[test]
fn what_is_long_on_its_way_there_has_the_time_of_a_slow_line() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.lose = Some(|_| true);
    let text = Argument::Literal("it is long ".repeat(10_000).as_str().into());
    let long = Step {
        arguments: [("text".to_owned(), text)].into(),
        ..step(1, "echo.say", EffectClass::ReadOnly, Some("server"))
    };
    fabric.carry_out_steps(0, vec![long], false);
    fabric.pass(15 + 110_000 / 4_096 - 1);
    assert_eq!(fabric.ended(0), None);
    fabric.pass(2);
    let (state, why) = fabric.ended(0).unwrap();
    assert_eq!(state, RunState::Failed);
    assert!(why.unwrap().contains("server: it fell silent"));
}

#[test]
fn whose_answer_is_on_its_way_is_not_silent() {
    let mut fabric = saying();
    fabric.lose = Some(|_| true);
    let stream = fabric.run_stream();
    for _ in 0..60 {
        fabric.pass(1);
        fabric.feed(0, Input::Moving { stream });
    }
    assert_eq!(fabric.ended(0), None);
    fabric.lose = None;
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
}

#[test]
fn a_machine_that_slept_does_not_take_itself_for_silent() {
    let mut fabric = connected(ALLOW, ALLOW);
    let here = step(1, "echo.say", EffectClass::ReadOnly, Some("laptop"));
    fabric.carry_out_steps(0, vec![here], false);
    fabric.wait(Duration::from_secs(200));
    assert_eq!((fabric.begun(), fabric.ended(0)), ([1, 0], None));
    assert!(fabric.devices[0].stopped.is_empty());
    fabric.finish(0, Ok("hello".into()));
    assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
}

#[test]
fn what_nobody_waits_for_any_more_is_stopped_when_its_device_is_back() {
    let mut fabric = saying();
    fabric.part(0, 1);
    fabric.cancel();
    assert_eq!(fabric.ended(0).map(|(state, _)| state), Some(RunState::Cancelled));
    assert!(fabric.devices[1].stopped.is_empty(), "nobody could tell it");
    fabric.meet(0, 1);
    fabric.pass(2);
    assert_eq!(fabric.devices[1].stopped.len(), 1);
}

#[test]
fn what_was_given_up_for_another_device_is_stopped_where_it_was() {
    let mut fabric = saying_anywhere();
    fabric.part(0, 1);
    fabric.pass(5);
    assert_eq!(fabric.begun(), [2, 1]);
    fabric.meet(0, 1);
    fabric.pass(2);
    assert_eq!(fabric.devices[1].stopped.len(), 1);
    fabric.finish(0, Ok("hello".into()));
    assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
}

#[test]
fn a_step_goes_on_while_its_owner_starts_anew() {
    for early in [true, false] {
        let mut fabric = saying();
        fabric.restart(0);
        assert_eq!(fabric.state(), None, "the server may be back at once");
        if early {
            fabric.end_unheard();
        }
        fabric.meet(0, 1);
        if !early {
            fabric.pass(3);
            assert_eq!(fabric.state(), None);
            fabric.finish(1, Ok("hello".into()));
        }
        assert_eq!(fabric.state(), Some(RunState::Done));
        assert_eq!(fabric.begun(), [0, 1]);
    }
}

#[test]
fn an_owner_that_starts_anew_and_meets_nobody_ends_the_step_with_the_reason() {
    let mut fabric = saying();
    fabric.restart(0);
    fabric.pass(9);
    assert_eq!(fabric.state(), None);
    fabric.pass(2);
    assert_eq!(fabric.state(), Some(RunState::Failed));
}

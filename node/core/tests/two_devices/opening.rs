//! Steps begun while the server is connected and the stream to it is not open: between one connection and
//! the next that takes its place, and at the beginning of the first.

use weft_core::{
    Input,
    door::{Command, DoorId, Event},
};
use weft_protocol::{
    decision::Effect,
    frame::Protocol,
    graph::StepId,
    manifest::EffectClass,
    run::{RunMessage, RunState},
};

use super::{
    ALLOW, Fabric, Rules, connected, step,
    support::{Disk, Sent},
};

/// The stream of runs is closed on both sides, and the devices stay connected.
fn in_between(laptop: Rules) -> Fabric {
    let mut fabric = connected(laptop, ALLOW);
    fabric.close();
    fabric
}

impl Fabric {
    fn close(&mut self) {
        let stream = self.run_stream();
        self.feed(0, Input::StreamClosed { stream });
        self.feed(1, Input::StreamClosed { stream });
        self.settle();
    }

    fn reopen(&mut self) {
        self.open(0, 1, Protocol::Run);
        self.settle();
    }

    fn offers(&self) -> usize {
        let is_offer = |sent: &&Sent| matches!(sent.run(), Some(RunMessage::Offer(_)));
        self.sent.iter().filter(is_offer).count()
    }

    /// The step was offered once, and is done.
    fn is_done_once(&mut self) {
        assert_eq!((self.offers(), self.begun()), (1, [0, 1]));
        self.finish(1, Ok("hello".into()));
        assert_eq!(self.ended(0), Some((RunState::Done, None)));
        assert_eq!(self.steps(0), ["owner allow", "done"]);
        assert_eq!(self.steps(1), ["executor allow", "done"]);
    }
}

#[test]
fn a_step_is_offered_once_when_the_stream_to_its_device_opens() {
    for capability in ["echo.say", "echo.write", "echo.once"] {
        let mut fabric = in_between(ALLOW);
        let effect = super::support::agent::effect(capability);
        fabric.do_on_server(capability, effect, false);
        fabric.pass(2);
        assert_eq!((fabric.offers(), fabric.ended(0)), (0, None), "{capability}");
        fabric.reopen();
        fabric.is_done_once();
        assert!(fabric.told().is_empty(), "it is nothing to speak of");
    }
}

#[test]
fn a_device_whose_stream_does_not_open_in_time_is_away() {
    let mut fabric = in_between(ALLOW);
    fabric.say_on_server(false);
    fabric.pass(2);
    assert_eq!(fabric.ended(0), None);
    fabric.pass(1);
    let (state, why) = fabric.ended(0).unwrap();
    assert_eq!(state, RunState::Failed);
    assert!(why.unwrap().contains("server: away"));
    fabric.reopen();
    assert_eq!(fabric.offers(), 0, "it ended");
}

#[test]
fn a_device_that_goes_meanwhile_is_offered_nothing_and_one_that_is_away_is_not_waited_for() {
    let mut fabric = in_between(ALLOW);
    fabric.say_on_server(false);
    fabric.part(0, 1);
    fabric.pass(3);
    assert_eq!(fabric.ended(0).map(|(state, _)| state), Some(RunState::Failed));
    fabric.say_on_server(false);
    let failed = fabric.devices[0].events.iter().filter(|it| matches!(it, Event::RunEnded { .. }));
    assert_eq!((failed.count(), fabric.offers()), (2, 0), "the second at once");
}

#[test]
fn what_another_device_can_do_does_not_wait() {
    let mut fabric = in_between(ALLOW);
    let anywhere = step(1, "echo.say", EffectClass::ReadOnly, None);
    fabric.carry_out_steps(0, vec![anywhere], false);
    assert_eq!(fabric.begun(), [1, 0]);
}

#[test]
fn a_step_that_is_stopped_while_it_waits_for_a_stream_is_not_offered() {
    let mut fabric = in_between(ALLOW);
    fabric.say_on_server(false);
    fabric.cancel();
    assert_eq!(fabric.ended(0).map(|(state, _)| state), Some(RunState::Cancelled));
    fabric.reopen();
    assert_eq!(fabric.offers(), 0);
}

#[test]
fn a_stream_that_closes_while_an_offer_is_being_written_does_not_lose_it() {
    for is_away in [false, true] {
        let mut fabric = connected(ALLOW, ALLOW);
        fabric.devices[0].disk = Disk::Slow;
        fabric.do_on_server("echo.write", EffectClass::Idempotent, false);
        fabric.write_held(0, 1);
        let mut said = vec![];
        if is_away {
            fabric.part(0, 1);
            fabric.flush(0);
            said = vec!["server: it went away; waiting for it, 60 s at most"];
            assert_eq!(fabric.told(), said);
            fabric.pass(20);
            fabric.meet(0, 1);
            said.push("server is here again");
        } else {
            fabric.close();
            fabric.flush(0);
            fabric.pass(2);
            fabric.reopen();
        }
        assert_eq!(fabric.told(), said);
        fabric.is_done_once();
    }
}

#[test]
fn what_was_never_sent_did_not_happen() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.devices[0].disk = Disk::Slow;
    fabric.do_on_server("echo.write", EffectClass::Idempotent, false);
    fabric.write_held(0, 1);
    fabric.part(0, 1);
    fabric.flush(0);
    fabric.pass(60);
    let (state, why) = fabric.ended(0).unwrap();
    assert_eq!((state, why.as_deref()), (RunState::Failed, Some("server stayed away")));
}

#[test]
fn a_persons_yes_holds_for_an_offer_that_could_not_be_sent_yet() {
    let ask = Rules { owner: Effect::Ask, ..ALLOW };
    let mut fabric = connected(ask, ALLOW);
    fabric.say_on_server(true);
    fabric.close();
    let command = Command::Consent { run: fabric.run(), step: StepId(vec![1]), yes: true };
    fabric.feed(0, Input::Command { door: DoorId(1), command });
    fabric.settle();
    assert_eq!(fabric.offers(), 0);
    fabric.reopen();
    assert_eq!((fabric.offers(), fabric.begun()), (1, [0, 1]));
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
    let asked = fabric.devices[0].events.iter().filter(|it| matches!(it, Event::Asked { .. }));
    assert_eq!(asked.count(), 1);
}

//! A device on which no agent can run, since there is no wall for it: real cores without a network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one kind of event")]

use weft_core::{
    Input,
    door::{Command, Event, Reply},
};
use weft_protocol::{manifest::EffectClass, run::RunState};

mod support;

use support::{ALLOW, Fabric};

impl Fabric {
    /// The devices that offer the agent, as a device sees it.
    fn offered_by(&mut self, device: usize) -> Vec<String> {
        let Reply::Agents(mut agents) = self.ask(device, Command::Agents) else {
            panic!("it lists")
        };
        let mut devices = agents.remove(0).devices;
        devices.sort();
        devices
    }

    /// Why a step was not given to a device.
    fn passed_over(&self, device: usize, name: &str) -> Option<String> {
        self.devices[device].events.iter().rev().find_map(|event| match event {
            Event::StepPlaced { candidates, .. } => {
                let other = candidates.iter().find(|it| it.name == name && it.cost.is_none())?;
                Some(other.reasons.join("; "))
            }
            _ => None,
        })
    }
}

#[test]
fn a_device_without_a_wall_offers_no_agent_and_is_sent_no_step_of_one() {
    let mut fabric = Fabric::met(3, &[], ALLOW);
    assert_eq!(fabric.offered_by(0), ["laptop", "phone", "server"]);
    fabric.feed(2, Input::NoWall { why: "this system has none".into() });
    fabric.settle();
    for device in 0..3 {
        assert_eq!(fabric.offered_by(device), ["laptop", "server"], "as device {device} sees it");
    }
    // Named, it says why not.
    fabric.have_done(0, "echo.say", 2);
    let (state, why) = fabric.ended(0).expect("it ends at once");
    assert_eq!(state, RunState::Failed, "{why:?}");
    assert!(why.is_some_and(|why| why.contains("doesn't have echo.say")));
    assert_eq!(fabric.devices[2].begun, 0);
    // Its own person's steps go to a device that has a wall.
    fabric.have_done(2, "echo.say", 1);
    fabric.finish(1, Ok("done".into()));
    assert_eq!(fabric.ended(2), Some((RunState::Done, None)));
    assert_eq!(fabric.passed_over(2, "phone").as_deref(), Some("the words name another device"));
    // Also those that a device does on its own replica, if it can.
    let step = support::step(1, "echo.write", EffectClass::Idempotent, None);
    fabric.carry_out_steps(2, vec![step.clone()], false);
    let begun = |fabric: &Fabric| fabric.devices.iter().map(|it| it.begun).collect::<Vec<_>>();
    let elsewhere = begun(&fabric);
    assert_eq!((elsewhere[0] + elsewhere[1], elsewhere[2]), (2, 0), "{elsewhere:?}");
    fabric.carry_out_steps(0, vec![step], false);
    assert_eq!(begun(&fabric), [elsewhere[0] + 1, elsewhere[1], 0], "here, as before");
    let Reply::Status(status) = fabric.ask(2, Command::Status) else { panic!("it says") };
    let said = &status.warnings;
    assert!(said.iter().any(|it| it.contains("no wall for it (this system has none)")), "{said:?}");
}

#[test]
fn what_nobody_named_goes_where_there_is_a_wall() {
    let mut fabric = Fabric::pair(2, [ALLOW, ALLOW]);
    fabric.meet(0, 1);
    fabric.feed(0, Input::NoWall { why: "this system has none".into() });
    fabric.settle();
    let step = support::step(1, "echo.say", EffectClass::ReadOnly, None);
    fabric.carry_out_steps(0, vec![step], false);
    assert_eq!((fabric.devices[0].begun, fabric.devices[1].begun), (0, 1));
    let why = fabric.passed_over(0, "laptop");
    assert_eq!(why.as_deref(), Some("doesn't have echo.say"));
}

//! Stops: what a person stopped stays stopped, also when the owner loses its power right after.

use std::time::Duration;

use weft_core::{
    Input, Output,
    door::{Command, DoorId, Reply},
};
use weft_protocol::{
    graph::{Step, StepIndex},
    manifest::EffectClass,
    row::{Durability, Row, Rows as _, Table},
    run::{Outcome, RunState},
};

use super::{ALLOW, Fabric, connected, step};

/// A run of two steps on the server, the second after the first, that its person stopped while the
/// server did not hear it, and of which the laptop lost its power when the person had been told.
fn stopped_and_crashed(capability: &str, effect: EffectClass) -> Fabric {
    let mut fabric = connected(ALLOW, ALLOW);
    let second = Step {
        after: [StepIndex(1)].into(),
        ..step(2, "echo.write", EffectClass::Idempotent, Some("server"))
    };
    fabric.carry_out_steps(0, vec![step(1, capability, effect, Some("server")), second], false);
    assert_eq!(fabric.devices[1].begun, 1);
    fabric.lose = Some(|_| true);
    fabric.cancel();
    assert_eq!(fabric.devices[0].replies.last(), Some(&Reply::Done));
    assert_eq!(fabric.state(), None, "the server has not said how it stands");
    fabric.crash(0);
    fabric.lose = None;
    fabric
}

#[test]
fn a_stop_is_on_the_disk_before_the_person_is_told() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.do_on_server("echo.write", EffectClass::Idempotent, false);
    let run = fabric.run();
    fabric.feed(0, Input::Command { door: DoorId(2), command: Command::Cancel { run } });
    let mut synced = Vec::new();
    while let Some(output) = fabric.devices[0].node.poll_output() {
        assert!(!matches!(output, Output::Reply { .. }), "told too early: {output:?}");
        if let Output::Persist { ticket, writes, durability: Durability::Synced } = output {
            fabric.devices[0].rows.apply(writes);
            synced.push(ticket);
        }
    }
    let row = Row::named(Table::Run, b"open", run.as_bytes());
    assert_eq!(fabric.devices[0].rows.get(&row).unwrap(), Some(vec![2]));
    for ticket in synced {
        fabric.feed(0, Input::Persisted(ticket));
    }
    fabric.settle();
    assert_eq!(fabric.devices[0].replies.last(), Some(&Reply::Done));
}

#[test]
fn a_stopped_run_does_not_go_on_after_a_crash() {
    let cases = [
        ("echo.write", EffectClass::Idempotent, RunState::Cancelled),
        ("echo.once", EffectClass::AtMostOnce, RunState::Uncertain),
    ];
    for (capability, effect, expected) in cases {
        let mut fabric = stopped_and_crashed(capability, effect);
        fabric.meet(0, 1);
        assert_eq!(fabric.devices[1].stopped.len(), 1, "{capability}: the server was told");
        assert_eq!(fabric.state(), Some(expected), "{capability}");
        assert_eq!(fabric.devices[1].begun, 1, "{capability}: the next step never began");
        let open = fabric.devices[0].rows.scan(Table::Run, b"open").unwrap();
        assert_eq!(open, [], "{capability}: nothing is taken up again");
    }
}

#[test]
fn what_ended_before_the_server_heard_of_the_stop_is_believed_and_nothing_follows_it() {
    let mut fabric = stopped_and_crashed("echo.write", EffectClass::Idempotent);
    fabric.finish(1, Ok("hello".into()));
    fabric.meet(0, 1);
    let (state, outcome) = fabric.ended_last().unwrap();
    assert_eq!(state, RunState::Cancelled);
    assert!(matches!(outcome, Some(Outcome::Value { .. })), "{outcome:?}");
    assert_eq!(fabric.devices[1].begun, 1);
}

#[test]
fn a_stopped_step_of_which_nothing_is_heard_after_a_crash_is_uncertain() {
    let mut fabric = stopped_and_crashed("echo.once", EffectClass::AtMostOnce);
    fabric.wait(Duration::from_secs(59));
    assert_eq!(fabric.state(), None, "its device is waited for");
    fabric.wait(Duration::from_secs(2));
    assert_eq!(fabric.state(), Some(RunState::Uncertain));
}

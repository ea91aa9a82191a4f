//! Replays: whatever a peer said, said once more, also on another connection, after a start and after the
//! peer was put out, has no second effect.
//!
//! One message is left out, `Open`, by which a peer says itself that it will not ask again for what is not on
//! its list: what was kept of that is deleted, and an asking after that is a new one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use weft_core::door::Command;
use weft_protocol::{
    row::{Rows as _, Table},
    run::RunMessage,
    value::Value,
};

mod support;

use support::{ALLOW, Fabric, Sent};

const LAPTOP: usize = 0;
const SERVER: usize = 1;
const PHONE: usize = 2;

/// What can be seen of a device from outside: agents begun, notes, statements, and how steps ended.
#[derive(PartialEq, Eq, Debug)]
struct Effects {
    begun: usize,
    notes: Vec<String>,
    statements: usize,
    steps: Vec<String>,
    ended: usize,
    spent: usize,
}

fn effects(fabric: &mut Fabric, device: usize) -> Effects {
    let notes = fabric.notes(device);
    let it = &fabric.devices[device];
    Effects {
        begun: it.begun,
        notes,
        statements: it.node.membership().graph().statements().count(),
        steps: fabric.steps(device),
        ended: it
            .events
            .iter()
            .filter(|event| format!("{event:?}").starts_with("RunEnded"))
            .count(),
        spent: it.rows.scan(Table::Run, b"consent").unwrap().len(),
    }
}

/// Says everything again that the phone said, and holds what the server did against what it had done.
fn replay(fabric: &mut Fabric, frames: &[Sent], when: &str) -> usize {
    let before = effects(fabric, SERVER);
    let mut said = 0;
    for sent in frames {
        // Some of it makes the server turn the phone away, which comes again.
        fabric.meet(sent.from, sent.to);
        said += usize::from(fabric.deliver(sent));
        fabric.settle();
        // What an agent is asked for twice, it does twice: it must not be asked.
        let it = &fabric.devices[SERVER];
        assert!(it.executions.is_empty(), "{when}: something begins: {sent:?}");
    }
    fabric.wait(Duration::from_secs(1));
    assert_eq!(effects(fabric, SERVER), before, "{when}");
    fabric.meet_all();
    said
}

#[test]
fn what_a_peer_said_is_not_done_twice() {
    let mut fabric = Fabric::met(3, &[PHONE], ALLOW);
    fabric.lose = Some(|sent| sent.from == PHONE && forgets(sent));
    let mut points = 0;
    let mut said = 0;
    for round in 0..6 {
        for capability in ["echo.write", "echo.once"] {
            fabric.have_done(PHONE, capability, SERVER);
            fabric.finish(SERVER, Ok(Value::from("hello")));
            // What was said so far, said again right away.
            let frames = by_phone(&fabric);
            said += replay(&mut fabric, &frames, &format!("{capability}, round {round}"));
            points += 1;
        }
        fabric.note(PHONE, &format!("note {round}"));
        fabric.have_done(SERVER, "echo.once", PHONE);
        fabric.finish(PHONE, Ok(Value::from("hello")));
        let frames = by_phone(&fabric);
        said += replay(&mut fabric, &frames, &format!("after round {round}"));
        // On another connection, which the phone's own frames of before never were on.
        fabric.part(SERVER, PHONE);
        fabric.meet(SERVER, PHONE);
        said += replay(&mut fabric, &frames, &format!("after a reconnect, round {round}"));
        if round == 2 {
            fabric.restart(SERVER);
            fabric.meet_all();
            said += replay(&mut fabric, &frames, "after a start of the server");
        }
        points += 2;
    }
    let rename = Command::Rename { device: Some("server".into()), name: "cellar".parse().unwrap() };
    fabric.ask(PHONE, rename);
    let frames = by_phone(&fabric);
    said += replay(&mut fabric, &frames, "after a rename");
    assert!(said > 2_000, "{said} frames at {points} points");

    // Put out, it is not heard at all.
    fabric.revoke(LAPTOP, PHONE);
    let before = effects(&mut fabric, SERVER);
    assert_eq!(before.notes.len(), 6, "what it had written stays");
    fabric.meet(SERVER, PHONE);
    replay(&mut fabric, &frames, "after it was put out");
    // Nor is it heard where somebody else says it.
    let by_laptop: Vec<Sent> =
        frames.iter().map(|sent| Sent { from: LAPTOP, ..sent.clone() }).collect();
    let said = replay(&mut fabric, &by_laptop, "by another member, after it was put out");
    assert!(said > 100, "{said} frames");
}

fn forgets(sent: &Sent) -> bool {
    matches!(sent.run(), Some(RunMessage::Open(_)))
}

/// What the phone has said to the server.
fn by_phone(fabric: &Fabric) -> Vec<Sent> {
    let said = fabric.sent.iter().filter(|sent| (sent.from, sent.to) == (PHONE, SERVER));
    let mut frames: Vec<Sent> = said.filter(|sent| !forgets(sent)).cloned().collect();
    frames.sort();
    frames.dedup();
    frames
}

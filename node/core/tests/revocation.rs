//! What a revocation does on every device that it reaches: to connections, leases, documents, keys, and to
//! the device itself; and that a suspension does as much and takes nothing away.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for what it names")]

use std::time::Duration;

use weft_core::{
    Input,
    door::{Command, DoorId, Event, Reply},
};
use weft_protocol::{
    decision::Effect,
    device::Role,
    frame::Protocol,
    host_call::{Due, HostCall, Refusal},
    manifest::EffectClass,
    row::{Rows as _, Table},
    run::{Failure, RunState},
    statement::Generation,
    time::WallTime,
    value::Value,
};
use weft_trust::author::Author;

mod support;

use support::{ALLOW, Disk, Fabric, Rules, Sent, secret, step};

const LAPTOP: usize = 0;
const SERVER: usize = 1;
const PHONE: usize = 2;
const TABLET: usize = 3;

/// Frames that were sent to a device from a moment on.
fn heard(fabric: &Fabric, from: usize, device: usize) -> Vec<&Sent> {
    fabric.sent[from..].iter().filter(|sent| sent.to == device).collect()
}

#[test]
fn everybody_who_is_reached_bars_it_in_the_same_moment() {
    let mut fabric = Fabric::met(5, &[], ALLOW);
    let before = (fabric.now, fabric.sent.len());
    fabric.revoke(LAPTOP, PHONE);
    assert_eq!(fabric.now, before.0, "no time has passed");
    for device in [LAPTOP, SERVER, TABLET, 4] {
        let phone = fabric.id(PHONE);
        let state = fabric.devices[device].node.membership().state();
        assert!(state.revocation(&phone).is_some());
        assert!(!fabric.devices[device].served.contains(&phone), "dial and accept are barred");
        assert!(!fabric.are_connected(device, PHONE), "connections are closed");
    }
    let trust_alone = |sent: &&Sent| sent.protocol == Protocol::Trust;
    assert!(heard(&fabric, before.1, PHONE).iter().all(trust_alone), "it hears why, and no more");
    // It comes again, to one that was there and to one that was not.
    for device in [LAPTOP, SERVER] {
        fabric.meet(device, PHONE);
        fabric.wait(Duration::from_secs(6));
        assert!(!fabric.serve_each_other(device, PHONE));
    }
}

#[test]
fn who_was_away_hears_it_before_anything_else() {
    let mut fabric = Fabric::met(4, &[], ALLOW);
    fabric.part_from_all(SERVER);
    fabric.revoke(LAPTOP, PHONE);
    fabric.meet(SERVER, TABLET);
    let phone = fabric.id(PHONE);
    assert!(fabric.devices[SERVER].node.membership().state().revocation(&phone).is_some());
    fabric.meet(SERVER, PHONE);
    assert!(!fabric.serve_each_other(SERVER, PHONE));
}

#[test]
fn its_steps_stop_where_they_run_and_it_hears_nothing_of_them() {
    // What is asked for, and how it ends in the chain of the device that did it.
    let cases = [("echo.say", "denied"), ("echo.write", "denied"), ("echo.once", "uncertain")];
    for (capability, ending) in cases {
        let mut fabric = Fabric::met(3, &[], ALLOW);
        fabric.have_done(PHONE, capability, SERVER);
        let running = fabric.devices[SERVER].executions.clone();
        assert_eq!(running.len(), 1, "{capability}");
        if capability == "echo.write" {
            let content = Value::map([("text", Value::from("too late"))]);
            fabric.call(SERVER, 1, HostCall::DocumentCreate { kind: "note".into(), content });
        }
        let before = fabric.sent.len();
        fabric.revoke(LAPTOP, PHONE);
        assert_eq!(fabric.devices[SERVER].stopped, [running[0].0], "{capability}: it is killed");
        assert_eq!(fabric.steps(SERVER), ["executor allow", ending], "{capability}");
        // What it says all the same counts no more.
        let (execution, _) = running[0];
        fabric.feed(SERVER, Input::Executed { execution, result: Ok("done".into()) });
        fabric.settle();
        assert_eq!(fabric.steps(SERVER), ["executor allow", ending], "{capability}");
        assert!(fabric.notes(SERVER).is_empty(), "{capability}");
        let runs = |sent: &&Sent| sent.protocol == Protocol::Run;
        assert!(!heard(&fabric, before, PHONE).iter().any(runs), "{capability}");
    }
}

#[test]
fn what_it_asked_for_and_waits_is_dropped() {
    let mut fabric = Fabric::met(3, &[], ALLOW);
    let steps = (1..=20).map(|n| step(n, "echo.say", EffectClass::ReadOnly, Some("server")));
    fabric.carry_out_steps(PHONE, steps.collect(), false);
    assert_eq!(fabric.devices[SERVER].begun, 16, "others wait until fewer run");
    fabric.revoke(LAPTOP, PHONE);
    assert_eq!(fabric.devices[SERVER].stopped.len(), 16);
    fabric.wait(Duration::from_secs(60));
    assert_eq!(fabric.devices[SERVER].begun, 16, "none of those that waited begins");
    let endings = fabric.steps(SERVER);
    assert_eq!(endings.iter().filter(|word| *word == "denied").count(), 20, "{endings:?}");
}

#[test]
fn what_its_agents_called_elsewhere_stops_too() {
    let mut fabric = Fabric::met(4, &[], ALLOW);
    fabric.have_done(PHONE, "echo.pass", SERVER);
    // The tablet is to do it: the server has enough to do.
    let arguments = Value::map([("text", Value::from("hello"))]);
    let capability = "echo.write".parse().unwrap();
    fabric.call(SERVER, 1, HostCall::Invoke { capability, arguments });
    let begun =
        |fabric: &Fabric| fabric.devices.iter().map(|it| it.executions.len()).sum::<usize>();
    assert_eq!(begun(&fabric), 2, "the step and what it called");
    fabric.revoke(LAPTOP, PHONE);
    assert_eq!(begun(&fabric), 0);
    for device in [LAPTOP, SERVER, TABLET] {
        let steps = fabric.steps(device);
        let intents = steps.iter().filter(|word| word.contains(' ')).count();
        assert_eq!(steps.len(), 2 * intents, "each has an end: {steps:?}");
    }
}

#[test]
fn what_runs_there_is_lost() {
    let cases = [
        ("echo.say", RunState::Failed),
        ("echo.write", RunState::Uncertain),
        ("echo.once", RunState::Uncertain),
    ];
    for (capability, state) in cases {
        let mut fabric = Fabric::met(3, &[], ALLOW);
        fabric.have_done(LAPTOP, capability, PHONE);
        assert_eq!(fabric.devices[PHONE].executions.len(), 1);
        fabric.revoke(LAPTOP, PHONE);
        fabric.wait(Duration::from_secs(1));
        let (ended, failure) = fabric.ended(LAPTOP).expect("at once");
        assert_eq!(ended, state, "{capability}: {failure:?}");
        assert!(fabric.devices[PHONE].executions.is_empty(), "it stops there, too");
    }
}

#[test]
fn what_it_agreed_to_is_void() {
    let mut fabric = Fabric::met(3, &[], Rules::all(Effect::Ask));
    let once = || vec![step(1, "echo.once", EffectClass::AtMostOnce, Some("server"))];
    fabric.carry_out_steps(PHONE, once(), true);
    let asked = fabric.devices[PHONE].events.iter().find_map(|event| match event {
        Event::Asked { run, step, .. } => Some((*run, step.clone())),
        _ => None,
    });
    let (run, step) = asked.expect("a person is asked");
    // The yes reaches the server, which waits for the word to go.
    fabric.lose = Some(|sent| sent.protocol == Protocol::Run && sent.from == SERVER);
    let from = fabric.sent.len();
    let command = Command::Consent { run, step, yes: true };
    fabric.feed(PHONE, Input::Command { door: DoorId(1), command });
    fabric.settle();
    assert_eq!(fabric.steps(SERVER), ["executor allow"], "the yes was taken");
    let offers: Vec<Sent> = fabric.sent[from..].to_vec();
    fabric.lose = None;
    fabric.revoke(LAPTOP, PHONE);
    assert_eq!(fabric.steps(SERVER), ["executor allow", "denied"]);
    assert_eq!(fabric.devices[SERVER].begun, 0);
    // Whoever says the same once more is not heard.
    fabric.meet(SERVER, PHONE);
    for sent in offers.iter().filter(|sent| sent.to == SERVER) {
        fabric.deliver(sent);
        fabric.settle();
    }
    assert_eq!(fabric.devices[SERVER].begun, 0);
}

#[test]
fn its_timers_say_that_it_is_put_out_and_who_may_move_them() {
    let mut fabric = Fabric::met(3, &[], ALLOW);
    fabric.have_done(PHONE, "echo.write", PHONE);
    let set = HostCall::TimerSet { due: Due::After(3_600_000), label: "bread".into() };
    fabric.call(PHONE, 1, set);
    fabric.finish(PHONE, Ok(Value::Null));
    let fires_on = |fabric: &mut Fabric, device| {
        let Reply::Timers(timers) = fabric.ask(device, Command::Timers) else { panic!("it lists") };
        timers.iter().map(|timer| timer.fires_on.clone()).collect::<Vec<_>>()
    };
    assert_eq!(fires_on(&mut fabric, SERVER), ["phone"]);
    fabric.revoke(LAPTOP, PHONE);
    assert_eq!(fires_on(&mut fabric, SERVER), ["phone (put out: set it anew on another device)"]);
    // It is shown on every other screen all the same.
    fabric.wait(Duration::from_secs(3_601));
    assert!(fires_on(&mut fabric, SERVER).is_empty(), "it was shown");
}

#[test]
fn what_was_applied_and_not_yet_written_is_kept_and_later_changes_are_not() {
    let mut fabric = Fabric::met(4, &[], ALLOW);
    fabric.part_from_all(TABLET);
    fabric.part(LAPTOP, PHONE);
    fabric.devices[SERVER].disk = Disk::Slow;
    fabric.note(PHONE, "just before");
    assert!(!fabric.devices[SERVER].held.is_empty());
    fabric.part_from_all(PHONE);
    fabric.revoke(LAPTOP, PHONE);
    let phone = fabric.id(PHONE);
    assert!(fabric.devices[SERVER].node.membership().state().revocation(&phone).is_some());
    // The adoption is in the batch that stores the Revoke.
    let stores = |table| {
        let held = fabric.devices[SERVER].held.iter();
        let puts = |writes: &[weft_protocol::row::Write]| {
            writes.iter().any(|write| {
                matches!(write, weft_protocol::row::Write::Put(row, _) if row.table == table)
            })
        };
        held.enumerate().filter(|(_, (_, writes))| puts(writes)).map(|(at, _)| at).max()
    };
    assert_eq!(stores(Table::Vouch), stores(Table::Trust));
    fabric.flush(SERVER);
    fabric.note(PHONE, "after");
    fabric.meet(SERVER, TABLET);
    fabric.meet(PHONE, TABLET);
    for device in [LAPTOP, SERVER, TABLET] {
        assert_eq!(fabric.notes(device), ["just before"], "device {device}");
    }
}

#[test]
fn the_data_key_changes_and_reaches_whoever_was_away_and_whoever_came_meanwhile() {
    let mut fabric = Fabric::met(3, &[SERVER], ALLOW);
    let writing = |fabric: &Fabric, device: usize| -> Generation {
        fabric.devices[device].node.membership().state().writing
    };
    let old = writing(&fabric, LAPTOP);
    fabric.part_from_all(SERVER);
    fabric.revoke(LAPTOP, PHONE);
    let new = writing(&fabric, LAPTOP);
    assert!(new > old);
    let has = |fabric: &Fabric, device: usize| {
        let membership = fabric.devices[device].node.membership();
        let name = weft_protocol::statement::KeyName::Data(new);
        membership.keyring().get(&name).is_some()
    };
    assert!(has(&fabric, LAPTOP));
    assert!(!has(&fabric, PHONE), "it is not sealed to the one that is out");
    // The server, which has not heard, adds a device: the new key is sealed to neither.
    let statements: Vec<_> =
        fabric.devices[SERVER].node.membership().graph().statements().cloned().collect();
    let add = support::add(&statements, &secret(2), 3, Role::Member);
    fabric.push(secret(4), &[statements, vec![add]].concat(), ALLOW);
    fabric.settle();
    fabric.meet(TABLET, SERVER);
    assert!(!has(&fabric, SERVER) && !has(&fabric, TABLET));
    fabric.meet(LAPTOP, SERVER);
    assert!(has(&fabric, SERVER), "with the statement");
    assert_eq!(writing(&fabric, TABLET), new);
    fabric.part(TABLET, SERVER);
    fabric.meet(TABLET, SERVER);
    assert!(has(&fabric, TABLET), "from one who holds it");
    assert_eq!(
        fabric.devices[TABLET]
            .node
            .membership()
            .keyring()
            .lacking(fabric.devices[TABLET].node.membership().state()),
        []
    );
}

#[test]
fn the_device_itself_hears_it_and_ends() {
    let mut fabric = Fabric::met(3, &[], ALLOW);
    fabric.note(PHONE, "before");
    fabric.have_done(PHONE, "echo.say", PHONE);
    fabric.revoke(LAPTOP, PHONE);
    let it = &fabric.devices[PHONE];
    assert!(it.served.is_empty(), "it asks nobody and serves nobody");
    assert!(it.executions.is_empty(), "its own steps have ended");
    let Reply::Status(status) = fabric.ask(PHONE, Command::Status) else { panic!("it answers") };
    let standing = status.standing.expect("it knows");
    assert_eq!((standing.state, standing.by.as_str()), ("revoked", "laptop"));
    assert_eq!(standing.at, Some(WallTime::default()));
    assert!(standing.remedy.contains("join"), "{}", standing.remedy);
    assert_eq!(fabric.notes(PHONE), ["before"], "it can be read");
    fabric.have_done(PHONE, "echo.say", PHONE);
    let reply = fabric.devices[PHONE].replies.pop();
    let Some(Reply::Refused { refusal: Refusal::Denied, reason }) = reply else {
        panic!("{reply:?}");
    };
    assert!(
        reason.starts_with("this device is revoked and may not run commands: laptop"),
        "{reason}"
    );
    fabric.restart(PHONE);
    assert!(fabric.devices[PHONE].served.is_empty(), "after a start, too");
}

/// The laptop and the phone, both admins, revoke each other: nobody can say who is the thief. The server,
/// an admin too, and the tablet hear of both.
fn duel() -> Fabric {
    let mut fabric = Fabric::met(4, &[SERVER, PHONE], ALLOW);
    fabric.note(PHONE, "before");
    fabric.part_from_all(LAPTOP);
    fabric.part_from_all(PHONE);
    fabric.note(PHONE, "nobody has it");
    fabric.revoke(PHONE, LAPTOP);
    fabric.revoke(LAPTOP, PHONE);
    fabric
}

fn suspended(fabric: &Fabric, by: usize, device: usize) -> bool {
    let id = fabric.id(device);
    fabric.devices[by].node.membership().state().devices[&id].is_suspended()
}

#[test]
fn a_suspended_device_is_served_nothing_and_loses_nothing() {
    let mut fabric = duel();
    fabric.meet(SERVER, LAPTOP);
    fabric.meet(SERVER, PHONE);
    fabric.wait(Duration::from_secs(1));
    assert!(suspended(&fabric, SERVER, LAPTOP) && suspended(&fabric, SERVER, PHONE));
    assert!(suspended(&fabric, TABLET, PHONE), "it heard from the server");
    assert!(!fabric.serve_each_other(SERVER, PHONE));
    fabric.meet(SERVER, PHONE);
    fabric.meet(TABLET, PHONE);
    assert!(!fabric.serve_each_other(SERVER, PHONE) && !fabric.serve_each_other(TABLET, PHONE));
    assert_eq!(fabric.notes(SERVER), ["before"], "what it wrote is there");
    let adopted = |fabric: &Fabric| {
        let (server, phone) = (fabric.id(SERVER), fabric.id(PHONE));
        let rows = fabric.devices[SERVER].rows.scan_table(Table::Vouch).unwrap();
        let vouches = rows.into_iter().map(|(_, value)| {
            let signed: weft_protocol::signed::Signed =
                weft_protocol::codec::decode(&value, 4_096).unwrap();
            let vouch: weft_protocol::document::Vouch =
                weft_protocol::codec::decode(&signed.bytes, 4_096).unwrap();
            (vouch.device, signed.author)
        });
        vouches.filter(|it| *it == (phone, server)).count()
    };
    let before = adopted(&fabric);
    assert!(before > 0, "those who stand hold the same meanwhile");
    let reply = fabric.ask(SERVER, Command::Keep { device: "phone".into() });
    assert!(matches!(reply, Reply::Done), "{reply:?}");
    assert!(!suspended(&fabric, SERVER, PHONE));
    fabric.meet(SERVER, PHONE);
    fabric.meet(TABLET, PHONE);
    assert!(fabric.serve_each_other(SERVER, PHONE), "all goes on as before");
    for device in [SERVER, PHONE, TABLET] {
        assert_eq!(fabric.notes(device), ["before", "nobody has it"], "device {device}");
    }
    assert_eq!(adopted(&fabric), before, "its own word counts again");
    fabric.have_done(PHONE, "echo.say", SERVER);
    fabric.finish(SERVER, Ok("hello".into()));
    assert_eq!(fabric.ended(PHONE), Some((RunState::Done, None)));
}

#[test]
fn what_somebody_had_of_a_suspended_device_is_on_all_that_stand() {
    let mut fabric = Fabric::met(4, &[SERVER, PHONE], ALLOW);
    // The tablet has the phone's note, and hears of the duel; the server has not.
    fabric.part_from_all(SERVER);
    fabric.part_from_all(LAPTOP);
    fabric.note(PHONE, "the tablet has it");
    fabric.part_from_all(PHONE);
    fabric.revoke(PHONE, LAPTOP);
    fabric.revoke(LAPTOP, PHONE);
    fabric.meet(SERVER, LAPTOP);
    fabric.meet(SERVER, PHONE);
    fabric.part_from_all(PHONE);
    fabric.meet(TABLET, SERVER);
    assert!(suspended(&fabric, TABLET, PHONE));
    assert_eq!(fabric.notes(TABLET), ["the tablet has it"], "nothing is lost");
    assert_eq!(fabric.notes(SERVER), ["the tablet has it"], "by the tablet's word");
    let reply = fabric.ask(SERVER, Command::Keep { device: "phone".into() });
    assert!(matches!(reply, Reply::Done), "{reply:?}");
    // By the Keep of one the Revoke of the other counts: what was adopted stays.
    let laptop = fabric.id(LAPTOP);
    assert!(fabric.devices[SERVER].node.membership().state().revocation(&laptop).is_some());
    for device in [SERVER, TABLET] {
        assert_eq!(fabric.notes(device), ["the tablet has it"], "device {device}");
        assert_eq!(fabric.devices[device].node.replica().counts().parked, 0);
    }
}

#[test]
fn what_a_key_wrote_before_it_was_replaced_counts_for_ever() {
    let mut fabric = Fabric::met(4, &[], ALLOW);
    fabric.part_from_all(TABLET);
    fabric.note(PHONE, "both have it");
    fabric.have_done(PHONE, "echo.write", PHONE);
    let set = HostCall::TimerSet { due: Due::After(3_600_000), label: "bread".into() };
    fabric.call(PHONE, 1, set);
    fabric.finish(PHONE, Ok(Value::Null));
    fabric.part_from_all(PHONE);
    fabric.note(PHONE, "the phone alone has it");
    // The phone's disk goes on under another key.
    let (old, new) = (secret(3), secret(13));
    let membership = fabric.devices[PHONE].node.membership();
    let mut rng = <rand_chacha::ChaCha20Rng as rand_core::SeedableRng>::from_seed([5; 32]);
    let author = Author::new(membership.graph(), membership.keyring(), old.signing());
    let rotate = author.rotate(&new, WallTime::default(), &mut rng).unwrap();
    fabric.devices[PHONE].rows.apply(weft_core::membership::store(&[rotate]));
    fabric.devices[PHONE].secret = new;
    fabric.restart(PHONE);
    fabric.meet(PHONE, LAPTOP);
    assert!(fabric.serve_each_other(PHONE, LAPTOP), "it belongs under its new key");
    fabric.meet(LAPTOP, TABLET);
    for device in [LAPTOP, SERVER, TABLET, PHONE] {
        let expected = ["both have it", "the phone alone has it"];
        assert_eq!(fabric.notes(device), expected, "device {device}");
    }
    // What it wrote is said to be its own; nobody else moves its timers.
    let Reply::Timers(timers) = fabric.ask(TABLET, Command::Timers) else { panic!("it lists") };
    assert_eq!(timers[0].fires_on, "phone");
    fabric.note(PHONE, "under the new one");
    assert_eq!(fabric.notes(TABLET).len(), 3);
    // Another device passes the old ones on, when the phone is gone and put out in turn.
    fabric.revoke(LAPTOP, PHONE);
    let statements: Vec<_> =
        fabric.devices[LAPTOP].node.membership().graph().statements().cloned().collect();
    let add = support::add(&statements, &secret(1), 4, Role::Member);
    fabric.push(secret(5), &[statements, vec![add]].concat(), ALLOW);
    fabric.settle();
    fabric.meet(4, TABLET);
    assert_eq!(fabric.notes(4).len(), 3, "{:?}", fabric.notes(4));
}

#[test]
fn a_failure_there_is_no_answer_here() {
    // The device that is out says how a step ended, in a frame that was on its way.
    let mut fabric = Fabric::met(3, &[], ALLOW);
    fabric.have_done(LAPTOP, "echo.once", PHONE);
    fabric.lose = Some(|sent| sent.protocol == Protocol::Run && sent.from == PHONE);
    let from = fabric.sent.len();
    let failure = Failure { refusal: Refusal::Failed, reason: "it broke".into() };
    fabric.finish(PHONE, Err(failure));
    let late: Vec<Sent> =
        fabric.sent[from..].iter().filter(|sent| sent.protocol == Protocol::Run).cloned().collect();
    assert!(!late.is_empty());
    fabric.lose = None;
    fabric.revoke(LAPTOP, PHONE);
    fabric.wait(Duration::from_secs(1));
    assert_eq!(fabric.ended(LAPTOP).unwrap().0, RunState::Uncertain);
    fabric.meet(LAPTOP, PHONE);
    for sent in &late {
        fabric.deliver(sent);
    }
    fabric.settle();
    assert_eq!(fabric.steps(LAPTOP), ["owner allow", "uncertain"]);
}

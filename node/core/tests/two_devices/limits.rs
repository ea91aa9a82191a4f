//! Limits: what one device may have another keep and run, and what is forgotten when it is settled.

use std::{collections::BTreeMap, time::Duration};

use weft_core::{
    Bounds, Input,
    audit::keyed_digest,
    consent::Consent,
    door::{Command, DoorId, Event, Reply},
    executor::{CallId, ExecutionId, kept},
};
use weft_protocol::{
    codec,
    decision::{Effect, Policy as _},
    host_call::{HostCall, Refusal},
    id::{Digest, RunId},
    manifest::EffectClass,
    row::Write,
    run::{Attempt, Executed, Offer, RunMessage, RunState, Stage},
    signed::{Domain, Signed},
    time::WallTime,
    value::Value,
};

use super::{
    ALLOW, Fabric, Rules, connected,
    once::{PHONE, offered},
    step,
    support::secret,
};

/// So many steps of one device are kept.
const KEPT_MAX: u32 = 10_000;

fn run_of(number: u32) -> RunId {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    RunId::from_bytes(bytes)
}

/// A step of the phone's that it knows the end of.
fn settled(attempt: Attempt) -> Executed {
    Executed {
        from: secret(3).id(),
        attempt,
        asked: Digest::of(b"something"),
        effect: EffectClass::AtMostOnce,
        intent: None,
        policy: ALLOW.digest(),
        stage: Stage::Settled,
    }
}

#[test]
fn a_device_that_asks_without_end_is_refused_until_it_says_what_is_settled() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.phone();
    let offer = |fabric: &Fabric, number| fabric.offer(3, run_of(number), &[1], "it", "echo.write");
    let first = offer(&fabric, 0).attempt;
    let rows = (1..KEPT_MAX).map(|number| {
        let attempt = Attempt { run: run_of(number), ..first.clone() };
        Write::Put(kept::row(&secret(3).id(), &attempt), codec::encode(&settled(attempt)))
    });
    let rows: Vec<_> = rows.collect();
    fabric.devices[1].rows.apply(rows);

    let inquire = |attempt: &Attempt| RunMessage::Inquire(attempt.clone());
    assert!(matches!(fabric.hand(PHONE, &inquire(&first))[..], [RunMessage::NotBegun(_)]));
    assert_eq!(fabric.kept(3).len(), KEPT_MAX as usize);
    let more = offer(&fabric, KEPT_MAX);
    for message in
        [inquire(&more.attempt), RunMessage::Cancel(more.attempt.clone()), offered(&more)]
    {
        let answers = fabric.hand(PHONE, &message);
        let [RunMessage::Refuse { failure, .. }] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(failure.refusal, Refusal::Failed);
        assert!(failure.reason.contains("10000 steps of that device"), "{failure:?}");
    }
    assert_eq!(fabric.kept(3).len(), KEPT_MAX as usize);
    assert!(matches!(fabric.hand(PHONE, &inquire(&first))[..], [RunMessage::NotBegun(_)]));
    // What another device asks for has its own count.
    let laptop = fabric.run_stream();
    let other = fabric.offer(1, run_of(0), &[1], "it", "echo.say");
    assert!(matches!(fabric.hand(laptop, &offered(&other))[..], [RunMessage::Accept(_)]));
    // One run goes on, the others are settled.
    fabric.hand(PHONE, &RunMessage::Open(vec![first.run]));
    assert_eq!(fabric.kept(3).len(), 1);
    assert!(matches!(fabric.hand(PHONE, &inquire(&more.attempt))[..], [RunMessage::NotBegun(_)]));
}

#[test]
fn this_devices_own_steps_wait_for_each_other_however_many_they_are() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.part(0, 1);
    for _ in 0..70 {
        fabric.carry_out_steps(0, vec![step(1, "echo.say", EffectClass::ReadOnly, None)], false);
    }
    assert_eq!(fabric.devices[0].begun, 16);
    for _ in 0..20 {
        fabric.wait(Duration::from_secs(1));
    }
    assert_eq!(fabric.ended(0), None, "who waits says that it lives");
    // The last of them is stopped before it begins.
    let Some(Reply::RunStarted { run }) = fabric.devices[0].replies.last().cloned() else {
        panic!("the run did not start");
    };
    fabric.feed(0, Input::Command { door: DoorId(2), command: Command::Cancel { run } });
    fabric.settle();
    for begun in 17..=69 {
        fabric.finish(0, Ok("hello".into()));
        assert_eq!(fabric.devices[0].begun, begun);
    }
    for _ in 0..16 {
        fabric.finish(0, Ok("hello".into()));
    }
    let ended = |expected| {
        let events = fabric.devices[0].events.iter();
        let is_so =
            |event: &&Event| matches!(event, Event::RunEnded { state, .. } if *state == expected);
        events.filter(is_so).count()
    };
    assert_eq!((ended(RunState::Done), ended(RunState::Cancelled)), (69, 1));
    assert_eq!(fabric.devices[0].stopped, [], "what never began is not stopped");
}

#[test]
fn a_device_that_allows_two_agents_at_once_has_the_third_wait() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.part(0, 1);
    let bounds = Bounds { agents_running_max: 2, ..Bounds::default() };
    fabric.devices[0].node.bound(bounds);
    for _ in 0..5 {
        fabric.carry_out_steps(0, vec![step(1, "echo.say", EffectClass::ReadOnly, None)], false);
    }
    for (ended, begun) in [(0, 2), (1, 3), (2, 4), (3, 5), (4, 5), (5, 5)] {
        assert_eq!(fabric.devices[0].begun, begun, "after {ended} ended");
        if ended < 5 {
            fabric.finish(0, Ok("hello".into()));
        }
    }
}

#[test]
fn a_yes_that_holds_for_longer_than_one_may_is_none() {
    let ask = Rules { executor: Effect::Ask, ..ALLOW };
    for (minutes, holds) in [(9, true), (11, false), (i64::MAX / 60_000, false)] {
        let mut fabric = connected(ALLOW, ask);
        let laptop = fabric.run_stream();
        let offer = fabric.offer(1, run_of(1), &[1], "hello", "echo.say");
        let node = &fabric.devices[1].node;
        let consent = Consent {
            attempt: offer.attempt.clone(),
            arguments: keyed_digest(node.membership().addressing_key(), &offer.arguments),
            executor: node.me(),
            policy: ask.digest(),
            expires: WallTime::from_unix_millis(minutes * 60_000),
            nonce: [1; 16].into(),
        };
        let consent = Signed::new(Domain::Consent, &consent, secret(1).signing());
        let offer = Offer { consent: Some(consent), ..offer };
        let answers = fabric.hand(laptop, &offered(&offer));
        if holds {
            assert!(matches!(answers[..], [RunMessage::Accept(_)]), "{answers:?}");
        } else {
            let [RunMessage::Refuse { failure, .. }] = &answers[..] else { panic!("{answers:?}") };
            assert!(failure.reason.contains("longer than one may"), "{failure:?}");
        }
    }
}

/// The laptop's step runs on the server, and what it calls runs on the laptop.
fn calls_back() -> (Fabric, Offer) {
    let mut fabric = connected(ALLOW, ALLOW);
    let offer = fabric.offer(1, run_of(1), &[1], "hello", "echo.pass");
    let laptop = fabric.run_stream();
    fabric.hand(laptop, &offered(&offer));
    call(&mut fabric);
    assert_eq!((fabric.devices[0].begun, fabric.devices[1].begun), (1, 1));
    (fabric, offer)
}

fn call(fabric: &mut Fabric) -> ExecutionId {
    let (execution, _) = fabric.devices[1].executions.last().cloned().unwrap();
    let arguments = BTreeMap::from([("text".into(), Value::from("hello"))]);
    let capability = "echo.write".parse().unwrap();
    let request = HostCall::Invoke { capability, arguments: Value::Map(arguments) };
    fabric.feed(1, Input::HostCall { execution, call: CallId(1), request });
    fabric.settle();
    execution
}

#[test]
fn a_later_try_calls_although_what_the_one_before_called_is_still_being_stopped() {
    let (mut fabric, offer) = calls_back();
    // The laptop tells that it is busy once that has lasted.
    fabric.wait(Duration::from_secs(2));
    // The server stops what it called, and the laptop does not hear of it.
    fabric.lose = Some(|sent| matches!(sent.run(), Some(RunMessage::Cancel(_))));
    let laptop = fabric.run_stream();
    fabric.hand(laptop, &RunMessage::Cancel(offer.attempt.clone()));
    let later = Offer { attempt: Attempt { epoch: 2, ..offer.attempt.clone() }, ..offer };
    assert!(matches!(fabric.hand(laptop, &offered(&later))[..], [RunMessage::Accept(_)]));
    assert_eq!(fabric.devices[1].begun, 2);
    call(&mut fabric);
    assert_eq!(fabric.devices[1].answers, [], "it is under way, under the later try");
    assert_eq!(fabric.devices[1].begun, 3, "the laptop is busy with what is being stopped");
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.devices[1].answers, [Ok("hello".into())]);
    // What the try before had called ends, and answers nobody.
    fabric.finish(0, Ok("hello".into()));
    fabric.wait(Duration::from_secs(6));
    assert_eq!(fabric.devices[1].answers.len(), 1);
}

#[test]
fn what_was_called_is_forgotten_when_the_step_that_called_it_ends() {
    let (mut fabric, _) = calls_back();
    fabric.finish(0, Ok("hello".into()));
    let kept = fabric.kept_on(0, 2);
    assert!(matches!(kept[..], [Executed { stage: Stage::Settled, .. }]), "{kept:?}");
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.kept_on(0, 2), []);
}

//! What must not happen twice: through cuts, crashes and stops on either side, and with a third device
//! that knows a run's id.

use std::{collections::BTreeMap, time::Duration};

use weft_core::{
    Input, Output,
    door::{Command, DoorId, Reply},
    links::StreamId,
    runs,
};
use weft_protocol::{
    audit::Body,
    codec,
    decision::Effect,
    document::{ChangeHash, DocumentKey, StartNonce, Vouch},
    frame::Protocol,
    graph::StepId,
    host_call::{HostCall, Refusal},
    id::{DocumentId, RunId},
    manifest::{CapabilityName, EffectClass},
    row::{Row, Rows as _, Table, Write},
    run::{Attempt, Executed, Journal, Offer, Outcome, RunMessage, RunState, Stage},
    signed::{Domain, Signed},
    value::Value,
};

use super::{ALLOW, Fabric, Rules, connected, support::secret};

/// The stream on which the phone, whose core is not here, speaks to the server of runs.
pub(super) const PHONE: StreamId = StreamId(9_000);

fn once() -> Fabric {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.do_on_server("echo.once", EffectClass::AtMostOnce, false);
    fabric
}

impl Fabric {
    pub(super) fn run(&self) -> RunId {
        match self.devices[0].replies.first() {
            Some(Reply::RunStarted { run }) => *run,
            other => panic!("the run did not start: {other:?}"),
        }
    }

    pub(super) fn state(&self) -> Option<RunState> {
        self.ended_last().map(|(state, _)| state)
    }

    /// How the run ended, also where its door was lost.
    pub(super) fn ended_last(&self) -> Option<(RunState, Option<Outcome>)> {
        let journal = runs::read_journal(self.run(), &self.devices[0].rows).unwrap();
        let outcome = journal.iter().rev().find_map(|entry| match entry {
            Journal::Ended { outcome, .. } => Some(outcome.clone()),
            Journal::Started { .. }
            | Journal::Offered { .. }
            | Journal::IntentKnown { .. }
            | Journal::Finished { .. }
            | Journal::Logged { .. } => None,
        });
        match journal.last() {
            Some(Journal::Finished { state, .. }) => Some((*state, outcome)),
            _ => None,
        }
    }

    pub(super) fn cancel(&mut self) {
        let command = Command::Cancel { run: self.run() };
        self.feed(0, Input::Command { door: DoorId(2), command });
        self.settle();
    }

    /// What the server keeps of steps that a device asked it for.
    pub(super) fn kept(&self, n: u8) -> Vec<Executed> {
        self.kept_on(1, n)
    }

    pub(super) fn kept_on(&self, device: usize, n: u8) -> Vec<Executed> {
        let scope = [b"executed:", secret(n).id().as_bytes().as_slice()].concat();
        let rows = self.devices[device].rows.scan(Table::Run, &scope).unwrap();
        rows.into_iter().map(|(_, bytes)| codec::decode(&bytes, 1 << 20).unwrap()).collect()
    }

    /// The phone comes to the server.
    pub(super) fn phone(&mut self) {
        let device = secret(3).id();
        self.feed(1, Input::Connected { device, address: "there".into() });
        self.feed(1, Input::StreamOpened { stream: PHONE, device, protocol: Protocol::Run });
        self.settle();
    }

    /// Hands the server a message on a stream, and gives what it says on that stream.
    pub(super) fn hand(&mut self, stream: StreamId, message: &RunMessage) -> Vec<RunMessage> {
        self.devices[1].said.clear();
        self.forges = true;
        self.feed(1, Input::Frame { stream, bytes: codec::encode(message) });
        self.settle();
        let heard = self.devices[1].said.iter().filter(|(to, ..)| *to == stream);
        heard.map(|(_, bytes)| codec::decode(bytes, 1 << 20).unwrap()).collect()
    }

    /// The stream on which the laptop speaks to the server of runs.
    pub(super) fn run_stream(&self) -> StreamId {
        self.stream(0, 1, Protocol::Run).expect("they are connected")
    }

    pub(super) fn offer(
        &self,
        n: u8,
        run: RunId,
        step: &[u16],
        text: &str,
        capability: &str,
    ) -> Offer {
        let installed = self.devices[1].node.registry().installed().next().unwrap();
        let above = vec![1; step.len() - 1];
        Offer {
            attempt: Attempt {
                owner: secret(n).id(),
                run,
                step: StepId(step.to_vec()),
                above: above.clone(),
                epoch: 1,
            },
            capability: capability.parse().unwrap(),
            agent: installed.digest,
            arguments: Value::map([("text", Value::from(text))]),
            labels: [].into(),
            effect: EffectClass::ReadOnly,
            lease_ms: 15_000,
            deadline_ms: 60_000,
            callers: above.iter().map(|_| "echo.relay".parse().unwrap()).collect(),
            local_time: "1970-01-01T00:00:00".into(),
            time_zone: "UTC".into(),
            consent: None,
        }
    }
}

pub(super) fn offered(offer: &Offer) -> RunMessage {
    RunMessage::Offer(Box::new(offer.clone()))
}

fn refusal(answers: &[RunMessage]) -> Option<Refusal> {
    match answers {
        [RunMessage::Refuse { failure, .. }] => Some(failure.refusal),
        _ => None,
    }
}

#[test]
fn what_must_happen_once_happens_once_and_leaves_nothing_behind() {
    let mut fabric = once();
    assert_eq!(fabric.devices[1].begun, 1);
    let kept = fabric.kept(1);
    assert!(matches!(kept.as_slice(), [Executed { stage: Stage::Acting, .. }]), "{kept:?}");
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.state(), Some(RunState::Done));
    assert_eq!(fabric.steps(1), ["executor allow", "done"]);
    assert_eq!(fabric.kept(1), [], "the run is settled");
}

#[test]
fn a_cut_before_the_acknowledgement_closes_the_try_and_another_runs() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.lose = Some(|sent| matches!(sent.run(), Some(RunMessage::IntentAck(_))));
    fabric.do_on_server("echo.once", EffectClass::AtMostOnce, false);
    let kept = fabric.kept(1);
    assert!(matches!(kept.as_slice(), [Executed { stage: Stage::Intended, .. }]), "{kept:?}");
    fabric.part(0, 1);
    let kept = fabric.kept(1);
    assert!(matches!(kept.as_slice(), [Executed { stage: Stage::Closed(None), .. }]), "{kept:?}");
    assert_eq!(fabric.devices[1].begun, 0);
    fabric.lose = None;
    fabric.meet(0, 1);
    assert_eq!(fabric.devices[1].begun, 1, "under the next epoch");
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.state(), Some(RunState::Done));
    assert_eq!(fabric.steps(1), ["executor allow", "cancelled", "executor allow", "done"]);
}

#[test]
fn a_stream_in_place_of_the_one_that_carried_the_intent_is_a_cut() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.lose = Some(|sent| matches!(sent.run(), Some(RunMessage::IntentAck(_))));
    fabric.do_on_server("echo.once", EffectClass::AtMostOnce, false);
    fabric.lose = None;
    fabric.open(0, 1, Protocol::Run);
    fabric.settle();
    assert_eq!(fabric.devices[1].begun, 1);
    let epochs: Vec<_> = fabric.kept(1).into_iter().map(|kept| kept.attempt.epoch).collect();
    assert_eq!(epochs, [2], "the first try was closed");
}

#[test]
fn an_intent_that_nobody_acknowledges_is_closed_when_its_lease_ends() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.lose = Some(|sent| {
        matches!(
            sent.run(),
            Some(RunMessage::IntentAck(_) | RunMessage::Cancel(_) | RunMessage::NotBegun(_))
        )
    });
    fabric.do_on_server("echo.once", EffectClass::AtMostOnce, false);
    fabric.wait(Duration::from_secs(14));
    assert!(matches!(fabric.kept(1)[0].stage, Stage::Intended));
    fabric.wait(Duration::from_secs(2));
    assert!(matches!(fabric.kept(1)[0].stage, Stage::Closed(None)));
    assert_eq!(fabric.devices[1].begun, 0);
}

#[test]
fn an_executor_that_lost_its_power_before_the_acknowledgement_says_not_begun() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.lose = Some(|sent| matches!(sent.run(), Some(RunMessage::IntentAck(_))));
    fabric.do_on_server("echo.once", EffectClass::AtMostOnce, false);
    fabric.lose = None;
    fabric.restart(1);
    fabric.meet(0, 1);
    assert_eq!(fabric.devices[1].begun, 1, "under the next epoch");
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.state(), Some(RunState::Done));
}

#[test]
fn an_executor_that_lost_its_power_while_it_acted_leaves_it_uncertain() {
    let mut fabric = once();
    fabric.restart(1);
    fabric.meet(0, 1);
    assert_eq!(fabric.ended_last(), Some((RunState::Uncertain, Some(Outcome::Uncertain))));
    assert_eq!(fabric.devices[1].begun, 1);
    assert_eq!(fabric.steps(1), ["executor allow", "uncertain"]);
}

#[test]
fn an_owner_that_lost_its_power_hears_how_it_ended() {
    for early in [true, false] {
        let mut fabric = once();
        fabric.restart(0);
        if early {
            fabric.finish(1, Ok("hello".into()));
        }
        fabric.meet(0, 1);
        if !early {
            assert_eq!(fabric.state(), None);
            fabric.finish(1, Ok("hello".into()));
        }
        assert_eq!(fabric.state(), Some(RunState::Done));
        assert_eq!(fabric.devices[1].begun, 1);
        assert_eq!(fabric.kept(1), []);
    }
}

#[test]
fn an_owner_that_lost_its_power_and_hears_nothing_says_that_it_is_uncertain() {
    let mut fabric = once();
    fabric.restart(0);
    fabric.wait(Duration::from_secs(59));
    assert_eq!(fabric.state(), None);
    fabric.wait(Duration::from_secs(2));
    assert_eq!(fabric.ended_last().unwrap().0, RunState::Uncertain);
}

#[test]
fn a_device_that_comes_back_in_time_says_how_it_ended() {
    let mut fabric = once();
    fabric.part(0, 1);
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.state(), None, "it is waited for");
    fabric.meet(0, 1);
    assert_eq!(fabric.state(), Some(RunState::Done));
}

#[test]
fn a_stopped_step_that_acts_is_uncertain_and_one_that_only_writes_is_stopped() {
    let cases = [
        ("echo.once", EffectClass::AtMostOnce, RunState::Uncertain),
        ("echo.write", EffectClass::Idempotent, RunState::Cancelled),
    ];
    for (capability, effect, expected) in cases {
        let mut fabric = connected(ALLOW, ALLOW);
        fabric.do_on_server(capability, effect, false);
        fabric.cancel();
        assert_eq!(fabric.devices[1].stopped.len(), 1);
        assert_eq!(fabric.state(), Some(expected), "{capability}");
    }
}

#[test]
fn a_stop_that_is_never_answered_does_not_say_that_nothing_happened() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.do_on_server("echo.write", EffectClass::Idempotent, false);
    fabric.lose = Some(|_| true);
    fabric.cancel();
    assert_eq!(fabric.state(), None);
    fabric.wait(Duration::from_secs(6));
    assert_eq!(fabric.state(), Some(RunState::Uncertain));
}

#[test]
fn what_another_device_asked_for_is_not_told_and_not_touched() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.phone();
    let run = RunId::from_bytes([5; 16]);
    let laptop = fabric.run_stream();
    let offer = fabric.offer(1, run, &[1], "hello", "echo.say");
    assert!(matches!(fabric.hand(laptop, &offered(&offer))[..], [RunMessage::Accept(_)]));
    let other = Offer { arguments: Value::map([("text", Value::from("other"))]), ..offer.clone() };

    // The phone, in the laptop's name: as the owner, and as if an agent of the laptop's ran on it.
    assert_eq!(refusal(&fabric.hand(PHONE, &offered(&offer))), Some(Refusal::Denied));
    let inquire = RunMessage::Inquire(offer.attempt.clone());
    assert_eq!(refusal(&fabric.hand(PHONE, &inquire)), Some(Refusal::Denied));
    let forged = Offer { callers: vec!["echo.relay".parse().unwrap()], ..offer.clone() };
    assert_eq!(refusal(&fabric.hand(PHONE, &offered(&forged))), Some(Refusal::Denied));
    // The laptop, for something else under the same try: while it runs, and after.
    assert_eq!(refusal(&fabric.hand(laptop, &offered(&other))), Some(Refusal::Invalid));
    fabric.lose = Some(|sent| matches!(sent.run(), Some(RunMessage::Done { .. })));
    fabric.finish(1, Ok("a secret".into()));
    assert_eq!(refusal(&fabric.hand(laptop, &offered(&other))), Some(Refusal::Invalid));
    assert_eq!(refusal(&fabric.hand(PHONE, &offered(&offer))), Some(Refusal::Denied));
    assert!(fabric.hand(PHONE, &RunMessage::DoneAck(offer.attempt.clone())).is_empty());
    assert!(fabric.hand(PHONE, &RunMessage::Open(vec![])).is_empty());
    // What the laptop asked for is there as it was.
    let answers = fabric.hand(laptop, &offered(&offer));
    assert!(matches!(answers[..], [RunMessage::Done { outcome: Outcome::Value { .. }, .. }]));
    assert_eq!(fabric.devices[1].begun, 1);
}

#[test]
fn a_step_under_a_later_try_of_its_caller_is_another_and_a_stranger_meets_neither() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.phone();
    let run = RunId::from_bytes([5; 16]);
    let laptop = fabric.run_stream();
    let mut offer = fabric.offer(1, run, &[1, 1], "hello", "echo.say");
    fabric.hand(laptop, &offered(&offer));
    fabric.finish(1, Ok("for the laptop".into()));
    // The same step, asked for by the phone, on which the laptop's agent might run: it is done anew.
    assert!(matches!(fabric.hand(PHONE, &offered(&offer))[..], [RunMessage::Accept(_)]));
    fabric.finish(1, Ok("for the phone".into()));
    offer.attempt.above = vec![2];
    assert!(matches!(fabric.hand(laptop, &offered(&offer))[..], [RunMessage::Accept(_)]));
    assert_eq!(fabric.devices[1].begun, 3);
    offer.attempt.above = vec![1];
    assert_eq!(refusal(&fabric.hand(laptop, &offered(&offer))), Some(Refusal::Invalid));
}

#[test]
fn a_device_that_asks_in_anothers_name_must_be_allowed_itself() {
    let barred = Rules { barred: Some("phone"), ..ALLOW };
    let mut fabric = connected(ALLOW, barred);
    fabric.phone();
    let run = RunId::from_bytes([5; 16]);
    let offer = fabric.offer(1, run, &[1, 1], "hello", "echo.say");
    assert_eq!(refusal(&fabric.hand(PHONE, &offered(&offer))), Some(Refusal::Denied));
    let laptop = fabric.run_stream();
    assert!(matches!(fabric.hand(laptop, &offered(&offer))[..], [RunMessage::Accept(_)]));
    // The record names who asked beside whose run it is.
    let asked = |body| {
        let Body::Intent { device, owner, decision, .. } = body else { return None };
        Some((device, owner, decision.effect))
    };
    let asked: Vec<_> = fabric.records(1).into_iter().filter_map(asked).collect();
    let (laptop, phone) = (secret(1).id(), secret(3).id());
    assert_eq!(asked, [(phone, laptop, Effect::Deny), (laptop, laptop, Effect::Allow)]);
}

#[test]
fn what_is_kept_is_not_told_against_the_rules() {
    let mut fabric = connected(ALLOW, ALLOW);
    let run = RunId::from_bytes([5; 16]);
    let laptop = fabric.run_stream();
    let offer = fabric.offer(1, run, &[1], "hello", "echo.say");
    fabric.hand(laptop, &offered(&offer));
    fabric.lose = Some(|sent| matches!(sent.run(), Some(RunMessage::Done { .. })));
    fabric.finish(1, Ok("a secret".into()));
    fabric.devices[1].rules.executor = Effect::Deny;
    assert_eq!(refusal(&fabric.hand(laptop, &offered(&offer))), Some(Refusal::Denied));
}

#[test]
fn a_try_that_its_owner_knows_the_end_of_never_runs_again() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.do_on_server("echo.write", EffectClass::Idempotent, false);
    let run = fabric.run();
    let mut offer = fabric.offer(1, run, &[1], "hello", "echo.write");
    fabric.lose = Some(|sent| matches!(sent.run(), Some(RunMessage::Open(_))));
    fabric.finish(1, Ok("hello".into()));
    let [Executed { stage: Stage::Settled, .. }] = fabric.kept(1)[..] else {
        panic!("its last try is kept: {:?}", fabric.kept(1));
    };
    fabric.lose = None;
    let laptop = fabric.run_stream();
    fabric.hand(laptop, &offered(&offer));
    assert_eq!(fabric.devices[1].begun, 1);
    offer.attempt.epoch = 0;
    fabric.hand(laptop, &offered(&offer));
    assert_eq!(fabric.devices[1].begun, 1);
    fabric.part(0, 1);
    fabric.meet(0, 1);
    assert_eq!(fabric.kept(1), [], "each new stream says which runs are not settled");
}

#[test]
fn a_yes_is_spent_by_the_step_that_it_was_given_for() {
    let ask = Rules { owner: Effect::Ask, executor: Effect::Ask, ..ALLOW };
    let mut fabric = connected(ask, ask);
    fabric.do_on_server("echo.say", EffectClass::ReadOnly, true);
    let from = fabric.sent.len();
    let run = fabric.run();
    let yes = Command::Consent { run, step: StepId(vec![1]), yes: true };
    fabric.feed(0, Input::Command { door: DoorId(1), command: yes });
    fabric.settle();
    assert_eq!(fabric.devices[1].begun, 1);
    let offer = fabric.sent[from..].iter().rev().find_map(|sent| match sent.run() {
        Some(RunMessage::Offer(offer)) => Some(*offer),
        _ => None,
    });
    let offer = offer.expect("it was offered");
    // The power goes while it runs: the try may run again, and the yes is spent.
    fabric.restart(1);
    fabric.lose = Some(|sent| sent.run().is_some());
    fabric.meet(0, 1);
    let laptop = fabric.run_stream();
    let answers = fabric.hand(laptop, &offered(&offer));
    let [RunMessage::Refuse { failure, .. }] = &answers[..] else { panic!("{answers:?}") };
    assert!(failure.reason.contains("the consent was spent"), "{failure:?}");
    // Under another epoch it is for something else.
    let mut later = offer;
    later.attempt.epoch += 1;
    let answers = fabric.hand(laptop, &offered(&later));
    let [RunMessage::Refuse { failure, .. }] = &answers[..] else { panic!("{answers:?}") };
    assert!(failure.reason.contains("for something else"), "{failure:?}");
    assert_eq!(fabric.devices[1].begun, 1);
}

#[test]
fn what_is_agreed_to_late_is_decided_again() {
    let ask = Rules { owner: Effect::Ask, ..ALLOW };
    let mut fabric = connected(ask, ALLOW);
    fabric.say_on_server(true);
    let run = fabric.run();
    fabric.devices[0].rules.owner = Effect::Deny;
    let revoke = Command::Revoke { device: "phone".into() };
    fabric.feed(0, Input::Command { door: DoorId(2), command: revoke });
    fabric.settle();
    let yes = Command::Consent { run, step: StepId(vec![1]), yes: true };
    fabric.feed(0, Input::Command { door: DoorId(1), command: yes });
    fabric.settle();
    assert_eq!(fabric.devices[1].begun, 0);
    assert_eq!(fabric.state(), Some(RunState::Failed));
    assert_eq!(fabric.steps(0), ["owner deny"]);
}

#[test]
fn what_is_asked_is_denied_when_the_door_closes_or_its_device_is_put_out() {
    let door = |fabric: &mut Fabric| fabric.feed(0, Input::DoorClosed { door: DoorId(1) });
    let revoke = |fabric: &mut Fabric| {
        let command = Command::Revoke { device: "server".into() };
        fabric.feed(0, Input::Command { door: DoorId(2), command });
    };
    for happens in [door as fn(&mut Fabric), revoke] {
        let mut fabric = connected(Rules { owner: Effect::Ask, ..ALLOW }, ALLOW);
        fabric.say_on_server(true);
        happens(&mut fabric);
        fabric.settle();
        assert_eq!(fabric.state(), Some(RunState::Failed));
        assert_eq!(fabric.steps(0), ["owner deny"], "a complete record, and no outcome without it");
    }
}

#[test]
fn a_stopped_agent_calls_nobody() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.do_on_server("echo.relay", EffectClass::ReadOnly, false);
    let (execution, _) = fabric.devices[1].executions[0].clone();
    fabric.cancel();
    let capability: CapabilityName = "echo.say".parse().unwrap();
    let request = HostCall::Invoke { capability, arguments: Value::Map(BTreeMap::new()) };
    let call = weft_core::executor::CallId(1);
    fabric.feed(1, Input::HostCall { execution, call, request });
    fabric.settle();
    assert_eq!(fabric.devices[1].begun, 1);
    assert_eq!(fabric.steps(1), ["executor allow", "cancelled"]);
}

#[test]
fn a_journal_that_cant_be_read_ends_its_run_as_uncertain_and_is_told() {
    let mut fabric = once();
    let run = fabric.run();
    let rows = fabric.devices[0].rows.scan_from(Table::Run, run.as_bytes(), 0, 10).unwrap();
    let (last, _) = rows.last().unwrap();
    let row = Row::numbered(Table::Run, run.as_bytes(), *last);
    fabric.devices[0].rows.apply([Write::Put(row, vec![0xff])]);
    fabric.restart(0);
    fabric.feed(0, Input::Command { door: DoorId(2), command: Command::Status });
    fabric.settle();
    let Some(Reply::Status(status)) = fabric.devices[0].replies.last() else { panic!("no status") };
    assert!(status.warnings.iter().any(|it| it.contains("journal entry")), "{:?}", status.warnings);
    assert_eq!(status.runs, 0);
    let last = fabric.devices[0].rows.last(Table::Run, run.as_bytes()).unwrap().unwrap().1;
    let last: Journal = codec::decode(&last, 1 << 20).unwrap();
    assert!(matches!(last, Journal::Finished { state: RunState::Uncertain, .. }), "{last:?}");
}

#[test]
fn the_end_of_a_failed_call_says_where_its_reason_comes_from() {
    let mut fabric = connected(ALLOW, ALLOW);
    let laptop = fabric.run_stream();
    let run = RunId::from_bytes([5; 16]);
    let offer = fabric.offer(1, run, &[1, 1], "hello", "echo.say");
    let labels = [weft_protocol::graph::Label::Private].into();
    let offer = Offer { labels, ..offer };
    fabric.hand(laptop, &offered(&offer));
    fabric.devices[1].said.clear();
    let failure = weft_protocol::run::Failure { refusal: Refusal::Failed, reason: "it".into() };
    fabric.finish(1, Err(failure));
    let heard = fabric.devices[1].said.iter().filter(|(to, ..)| *to == laptop);
    let done = heard.map(|(_, bytes)| codec::decode(bytes, 1 << 20)).find_map(|it| match it {
        Ok(RunMessage::Done { labels, .. }) => Some(labels),
        _ => None,
    });
    assert_eq!(done, Some([weft_protocol::graph::Label::Private].into()));
}

#[test]
fn what_the_rules_come_to_ask_about_is_not_done_without_a_yes() {
    let mut fabric = connected(ALLOW, ALLOW);
    let laptop = fabric.run_stream();
    let offer = fabric.offer(1, RunId::from_bytes([5; 16]), &[1], "hello", "echo.once");
    assert!(matches!(fabric.hand(laptop, &offered(&offer))[..], [RunMessage::Intent(_)]));
    fabric.devices[1].rules.executor = Effect::Ask;
    let revoke = Command::Revoke { device: "phone".into() };
    fabric.feed(0, Input::Command { door: DoorId(2), command: revoke });
    fabric.settle();
    let answers = fabric.hand(laptop, &RunMessage::IntentAck(offer.attempt));
    let [RunMessage::Done { outcome: Outcome::Failed(failure), .. }] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(failure.refusal, Refusal::Denied);
    assert_eq!(fabric.devices[1].begun, 0);
    assert_eq!(fabric.steps(1), ["executor allow", "denied"]);
}

#[test]
fn a_try_that_never_came_is_closed_without_a_second_end_of_the_one_before() {
    let mut fabric = connected(ALLOW, ALLOW);
    let laptop = fabric.run_stream();
    let offer = fabric.offer(1, RunId::from_bytes([5; 16]), &[1], "hello", "echo.write");
    fabric.hand(laptop, &offered(&offer));
    fabric.finish(1, Ok("hello".into()));
    let later = Attempt { epoch: 2, ..offer.attempt };
    let answers = fabric.hand(laptop, &RunMessage::Inquire(later));
    assert!(matches!(answers[..], [RunMessage::NotBegun(_)]), "{answers:?}");
    assert_eq!(fabric.steps(1), ["executor allow", "done"]);
    assert_eq!(fabric.kept(1)[0].intent, None);
}

#[test]
fn an_output_that_is_too_large_is_none_though_its_step_may_have_had_its_effect() {
    let cases = [
        ("echo.say", EffectClass::ReadOnly, RunState::Failed),
        ("echo.write", EffectClass::Idempotent, RunState::Uncertain),
    ];
    for (capability, effect, expected) in cases {
        let mut fabric = connected(ALLOW, ALLOW);
        fabric.do_on_server(capability, effect, false);
        let offer = fabric.offer(1, fabric.run(), &[1], "hello", capability);
        let value = Value::from("x".repeat(300 << 10));
        let outcome = Outcome::Value { value, labels: [].into() };
        let done = RunMessage::Done { attempt: offer.attempt, outcome, labels: [].into() };
        let stream = fabric.run_stream();
        fabric.feed(0, Input::Frame { stream, bytes: codec::encode(&done) });
        fabric.settle();
        assert_eq!(fabric.state(), Some(expected), "{capability}");
    }
}

#[test]
fn a_reason_that_fits_into_no_frame_is_cut() {
    let mut fabric = once();
    let reason = "x".repeat(2 << 20);
    fabric.finish(1, Err(weft_protocol::run::Failure { refusal: Refusal::Failed, reason }));
    let Some((RunState::Failed, Some(Outcome::Failed(failure)))) = fabric.ended_last() else {
        panic!("it has no end");
    };
    assert_eq!(failure.reason.len(), 4_000);
}

#[test]
fn what_a_device_that_is_put_out_wrote_is_vouched_for_in_the_batch_that_puts_it_out() {
    let mut fabric = connected(ALLOW, ALLOW);
    let vouch = Vouch {
        key: DocumentKey::first(DocumentId::from_bytes([5; 16])),
        device: secret(3).id(),
        start: StartNonce([1; 16]),
        seq: 1,
        hash: ChangeHash([2; 32]),
        own: None,
    };
    let vouch = codec::encode(&Signed::new(Domain::Vouch, &vouch, secret(3).signing()));
    let row = Row::named(Table::Vouch, &[5; 20], b"the phone's");
    fabric.devices[0].rows.apply([Write::Put(row, vouch)]);
    let revoke = Command::Revoke { device: "phone".into() };
    fabric.feed(0, Input::Command { door: DoorId(2), command: revoke });
    let mut batches = Vec::new();
    while let Some(output) = fabric.devices[0].node.poll_output() {
        if let Output::Persist { writes, .. } = output {
            let tables = writes.iter().filter_map(|write| match write {
                Write::Put(row, _) => Some(row.table),
                Write::Delete(_) => None,
            });
            batches.push(tables.collect::<Vec<_>>());
        }
    }
    let holds = |table| batches.iter().filter(|batch| batch.contains(&table)).count();
    assert_eq!((holds(Table::Vouch), holds(Table::Trust)), (1, 1), "{batches:?}");
    let one = |batch: &&Vec<Table>| batch.contains(&Table::Vouch) && batch.contains(&Table::Trust);
    assert!(batches.iter().any(|batch| one(&batch)), "{batches:?}");
}

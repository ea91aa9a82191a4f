//! What a run says of itself to whoever asks: why a step that was on no device ended, what it waits for, and
//! how far it is.

use std::{collections::BTreeMap, time::Duration};

use weft_core::{
    Input,
    door::{Command, DoorId, Reply, WaitView, WaitsFor},
    runs,
};
use weft_protocol::{
    decision::Effect,
    graph::{Argument, Plan, Route, Step, StepId, StepIndex},
    host_call::{HostCall, Refusal},
    manifest::EffectClass,
    row::{Item, Row, Table, Write},
    run::{Failure, Journal, Outcome, RunState},
};

use super::{ALLOW, Fabric, Rules, connected, step, support::Disk};

impl Fabric {
    /// What the laptop tells of its newest run.
    fn shown(&mut self) -> (Vec<Journal>, Vec<WaitView>) {
        let command = Command::Run { prefix: String::new() };
        let Reply::Run { journal, waits, .. } = self.ask(0, command) else { panic!("it tells") };
        (journal, waits)
    }

    /// The lines of its journal.
    fn lines(&mut self) -> Vec<String> {
        let line = |entry| match entry {
            Journal::Logged { line, .. } => Some(line),
            Journal::Started { .. }
            | Journal::Offered { .. }
            | Journal::IntentKnown { .. }
            | Journal::Ended { .. }
            | Journal::Finished { .. } => None,
        };
        self.shown().0.into_iter().filter_map(line).collect()
    }

    /// How the steps of a run ended, and the run, as its journal on the disk has it.
    fn ends(&self) -> (Vec<(StepId, u32, Outcome)>, Vec<RunState>) {
        let (mut steps, mut run) = (vec![], vec![]);
        for entry in runs::read_journal(self.run(), &self.devices[0].rows).unwrap() {
            match entry {
                Journal::Ended { attempt, outcome, .. } => {
                    assert!(run.is_empty(), "the run had ended");
                    steps.push((attempt.step, attempt.epoch, outcome));
                }
                Journal::Finished { state, .. } => run.push(state),
                Journal::Started { .. }
                | Journal::Offered { .. }
                | Journal::IntentKnown { .. }
                | Journal::Logged { .. } => {}
            }
        }
        (steps, run)
    }

    /// The only step failed for a reason that says so much, once, and so did the run.
    fn failed_once(&self, refusal: Refusal, says: &str) {
        let (steps, run) = self.ends();
        let [(step, 1, Outcome::Failed(Failure { refusal: of, reason }))] = &*steps else {
            panic!("{steps:?}");
        };
        assert_eq!((step, of), (&StepId(vec![1]), &refusal));
        assert!(reason.contains(says), "{reason}");
        assert_eq!(run, [RunState::Failed]);
    }

    /// How many entries of journals each batch has that the laptop's disk was handed and has not taken.
    fn held_entries(&self) -> Vec<usize> {
        let is_entry = |write: &&Write| {
            matches!(write, Write::Put(Row { table: Table::Run, item: Item::Numbered(_), .. }, _))
        };
        let held = self.devices[0].held.iter();
        let counts = held.map(|(_, writes)| writes.iter().filter(is_entry).count());
        counts.filter(|count| *count > 0).collect()
    }

    fn agent_says(&mut self, line: &str) {
        self.call(1, 0, HostCall::Log { line: line.into() });
    }
}

#[test]
fn why_a_step_was_on_no_device_is_kept_whenever_the_power_goes() {
    let mut batches = 0;
    for written in 0.. {
        let mut fabric = connected(ALLOW, ALLOW);
        fabric.part(0, 1);
        fabric.devices[0].disk = Disk::Slow;
        fabric.say_on_server(false);
        for _ in 0..written {
            batches = batches.max(fabric.devices[0].held.len());
            fabric.write_held(0, 1);
        }
        let is_all = fabric.devices[0].held.is_empty();
        fabric.devices[0].disk = Disk::Works;
        if written > 0 {
            fabric.crash(0);
            fabric.failed_once(Refusal::NotFound, "no device can do echo.say now (");
            let (journal, waits) = fabric.shown();
            assert!(matches!(journal.last(), Some(Journal::Finished { .. })), "{journal:?}");
            assert_eq!(waits, []);
        }
        if is_all {
            break;
        }
    }
    assert!(batches > 1, "the power goes between the step's end and the run's, too");
}

#[test]
fn a_no_is_kept_with_its_reason() {
    let deny = Rules { owner: Effect::Deny, ..ALLOW };
    let ask = Rules { owner: Effect::Ask, ..ALLOW };
    let cases = [
        (deny, false, "the rules say deny"),
        (ask, false, "nobody can be asked here"),
        (ask, true, "a person said no"),
    ];
    for (rules, can_ask, says) in cases {
        let mut fabric = connected(rules, ALLOW);
        fabric.say_on_server(can_ask);
        if can_ask {
            let command = Command::Consent { run: fabric.run(), step: StepId(vec![1]), yes: false };
            fabric.feed(0, Input::Command { door: DoorId(1), command });
            fabric.settle();
        }
        fabric.failed_once(Refusal::Denied, says);
        fabric.restart(0);
        fabric.failed_once(Refusal::Denied, says);
    }
}

#[test]
fn why_a_step_could_not_be_begun_is_kept_too() {
    let mut fabric = connected(ALLOW, ALLOW);
    let text = ("text".to_owned(), Argument::Path("./letter".into()));
    let second = Step {
        arguments: [text].into(),
        after: [StepIndex(1)].into(),
        ..step(2, "echo.say", EffectClass::ReadOnly, Some("laptop"))
    };
    let first = step(1, "echo.write", EffectClass::Idempotent, Some("server"));
    let command = Command::Do {
        words: "as it was said".into(),
        plan: Plan::new(Route::Phrases, vec![first, second]).unwrap(),
        files: BTreeMap::from([("./letter".into(), b"dear".to_vec())]),
        local_time: "1970-01-01T00:00:00".into(),
        time_zone: "UTC".into(),
        can_ask: false,
    };
    fabric.feed(0, Input::Command { door: DoorId(1), command });
    fabric.settle();
    // The file is not kept, and the laptop is started anew before it is needed.
    fabric.restart(0);
    fabric.meet(0, 1);
    fabric.finish(1, Ok("hello".into()));
    let (steps, run) = fabric.ends();
    assert_eq!(run, [RunState::Failed]);
    assert_eq!(steps.len(), 2);
    let Outcome::Failed(failure) = &steps[1].2 else { panic!("{steps:?}") };
    assert!(failure.reason.contains("./letter is no longer at hand"), "{failure:?}");
}

#[test]
fn whoever_asks_hears_what_a_run_waits_for_and_since_when() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.do_on_server("echo.write", EffectClass::Idempotent, false);
    assert_eq!(fabric.shown().1, []);
    fabric.pass(3);
    let since = fabric.now.wall;
    fabric.part(0, 1);
    let wait = |what, most| WaitView {
        step: StepId(vec![1]),
        capability: "echo.write".parse().unwrap(),
        device: "server".into(),
        what,
        since,
        most: Duration::from_secs(most),
    };
    assert_eq!(fabric.shown().1, [wait(WaitsFor::Device, 60)]);
    fabric.pass(20);
    assert_eq!(fabric.shown().1, [wait(WaitsFor::Device, 40)]);
    // It is here, and does not say how the step stands.
    fabric.lose = Some(|sent| sent.from == 1);
    fabric.meet(0, 1);
    assert_eq!(fabric.shown().1, [wait(WaitsFor::Word, 40)]);
    fabric.part(0, 1);
    fabric.lose = None;
    fabric.meet(0, 1);
    assert_eq!(fabric.shown().1, []);
}

#[test]
fn a_run_that_was_taken_up_waits_since_the_start() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.do_on_server("echo.write", EffectClass::Idempotent, false);
    fabric.crash(0);
    let (_, waits) = fabric.shown();
    assert_eq!(waits.len(), 1);
    assert_eq!((waits[0].what, waits[0].since), (WaitsFor::Device, fabric.now.wall));
}

#[test]
fn whoever_asks_hears_that_a_person_is_asked() {
    let ask = Rules { owner: Effect::Ask, ..ALLOW };
    let mut fabric = connected(ask, ALLOW);
    fabric.say_on_server(true);
    fabric.pass(2);
    let (_, waits) = fabric.shown();
    assert_eq!((waits.len(), waits[0].what, &*waits[0].device), (1, WaitsFor::Yes, "server"));
    assert_eq!(fabric.now.wall.unix_millis() - waits[0].since.unix_millis(), 2_000);
}

#[test]
fn what_a_run_says_is_told_at_once_and_written_at_most_once_a_second() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.say_on_server(false);
    fabric.devices[0].disk = Disk::Slow;
    for line in 0..50 {
        fabric.agent_says(&format!("part {line}"));
    }
    assert!(fabric.held_entries().is_empty(), "nothing is written for it");
    assert_eq!(fabric.lines().len(), 50);
    fabric.pass(1);
    assert_eq!(fabric.held_entries(), [50]);
    fabric.flush(0);
    fabric.devices[0].disk = Disk::Slow;
    assert_eq!(fabric.lines().len(), 50, "and none twice");
    // A device that is waited for says nothing that would take its line along.
    fabric.part(0, 1);
    let waiting = "server: it went away; waiting for it, 10 s at most";
    assert_eq!(fabric.lines()[50..], [waiting]);
    fabric.pass(1);
    fabric.flush(0);
    fabric.crash(0);
    assert_eq!(fabric.lines()[50..], [waiting], "it is on the disk");
}

#[test]
fn the_time_that_is_left_is_rounded_up() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.say_on_server(false);
    // The stream goes a moment before the device does.
    let stream = fabric.run_stream();
    fabric.feed(0, Input::StreamClosed { stream });
    fabric.wait(Duration::from_millis(20));
    fabric.part(0, 1);
    assert_eq!(fabric.told(), ["server: it went away; waiting for it, 10 s at most"]);
}

#[test]
fn how_far_a_step_is_is_told_anew_when_its_device_is_here_again() {
    let mut fabric = connected(ALLOW, ALLOW);
    fabric.say_on_server(false);
    fabric.agent_says("part 1 of 3");
    fabric.part(0, 1);
    fabric.agent_says("part 2 of 3");
    fabric.pass(1);
    fabric.meet(0, 1);
    let expected = [
        "part 1 of 3",
        "server: it went away; waiting for it, 10 s at most",
        "server is here again",
        "part 2 of 3",
    ];
    assert_eq!(fabric.told(), expected);
    // A stream that takes another's place is nothing to speak of.
    for _ in 0..3 {
        fabric.open(0, 1, weft_protocol::frame::Protocol::Run);
        fabric.settle();
    }
    assert_eq!(fabric.told(), expected);
    // And where nothing was said meanwhile, how far it is takes the place of what was said last.
    fabric.part(0, 1);
    fabric.meet(0, 1);
    assert_eq!(fabric.told()[4..], [expected[1], expected[2], expected[3]]);
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.ended(0), Some((RunState::Done, None)));
}

//! Whatever happens to links, streams, power and disks: each run's journal ends, once, and says why.

use std::collections::BTreeSet;

use proptest::prelude::*;
use weft_core::{
    Input,
    door::{Command, DoorId, Event, Reply},
    runs,
};
use weft_protocol::{
    frame::Protocol,
    id::RunId,
    run::{Journal, Outcome, RunState},
};

use super::{
    ALLOW, Fabric, connected, step,
    support::{Disk, agent},
};

/// What may be asked for, and whether of the server only.
const ASKED: [(&str, bool); 4] =
    [("echo.say", true), ("echo.say", false), ("echo.write", true), ("echo.once", true)];

#[derive(Clone, Copy, Debug)]
enum Happening {
    /// The person of the laptop wants one of [`ASKED`].
    Asked(usize),
    /// The newest run is stopped.
    Stopped,
    Met,
    Parted,
    /// The stream of runs closes, and the devices stay connected.
    StreamClosed,
    StreamOpened,
    /// A device loses its power, and has it again.
    Crashed(usize),
    /// The laptop's disk takes its time from now on.
    DiskSlow,
    /// It takes one batch.
    DiskTook,
    DiskFast,
    /// What runs on a device ends, if anything does.
    Ended(usize),
    Passed(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..ASKED.len()).prop_map(Happening::Asked),
        1 => Just(Happening::Stopped),
        2 => Just(Happening::Met),
        2 => Just(Happening::Parted),
        3 => Just(Happening::StreamClosed),
        3 => Just(Happening::StreamOpened),
        1 => (0..2_usize).prop_map(Happening::Crashed),
        2 => Just(Happening::DiskSlow),
        3 => Just(Happening::DiskTook),
        2 => Just(Happening::DiskFast),
        2 => (0..2_usize).prop_map(Happening::Ended),
        4 => (1..5_u64).prop_map(Happening::Passed),
    ]
}

impl Fabric {
    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Asked(which) => {
                let (capability, is_bound) = ASKED[which];
                let server = is_bound.then_some("server");
                let step = step(1, capability, agent::effect(capability), server);
                self.carry_out_steps(0, vec![step], false);
            }
            Happening::Stopped => {
                if let Some(run) = self.started().into_iter().last() {
                    let command = Command::Cancel { run };
                    self.feed(0, Input::Command { door: DoorId(2), command });
                }
            }
            Happening::Met => self.meet(0, 1),
            Happening::Parted => self.part(0, 1),
            Happening::StreamClosed => {
                if let Some(stream) = self.stream(0, 1, Protocol::Run) {
                    self.feed(0, Input::StreamClosed { stream });
                    self.feed(1, Input::StreamClosed { stream });
                }
            }
            Happening::StreamOpened => self.open(0, 1, Protocol::Run),
            Happening::Crashed(device) => self.crash(device),
            Happening::DiskSlow => self.devices[0].disk = Disk::Slow,
            Happening::DiskTook if self.devices[0].disk == Disk::Slow => self.write_held(0, 1),
            Happening::DiskTook => {}
            Happening::DiskFast => self.flush(0),
            Happening::Ended(device) => {
                if let Some((execution, _)) = self.devices[device].executions.pop() {
                    self.feed(device, Input::Executed { execution, result: Ok("hello".into()) });
                }
            }
            Happening::Passed(seconds) => self.pass(seconds),
        }
        self.settle();
    }

    /// The runs that the laptop said it began, the newest last.
    fn started(&self) -> Vec<RunId> {
        let run = |reply: &Reply| {
            let Reply::RunStarted { run } = reply else { return None };
            Some(*run)
        };
        self.devices[0].replies.iter().filter_map(run).collect()
    }

    /// All is well for as long as anything may wait.
    fn heal(&mut self) {
        self.happen(Happening::DiskFast);
        self.happen(Happening::Met);
        self.happen(Happening::StreamOpened);
        for _ in 0..20 {
            self.pass(5);
            while self.devices.iter().any(|device| !device.executions.is_empty()) {
                self.happen(Happening::Ended(0));
                self.happen(Happening::Ended(1));
            }
        }
    }

    fn check(&self, run: RunId) -> Result<(), TestCaseError> {
        let journal = runs::read_journal(run, &self.devices[0].rows)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let (mut offered, mut ended) = (BTreeSet::new(), BTreeSet::new());
        let mut last = None;
        for entry in &journal {
            match entry {
                Journal::Offered { attempt, .. } => {
                    prop_assert!(offered.insert(attempt.clone()), "offered twice: {:#?}", journal);
                }
                Journal::Ended { attempt, outcome, .. } => {
                    prop_assert!(ended.insert(attempt.clone()), "ended twice: {:#?}", journal);
                    last = Some(outcome);
                }
                Journal::Started { .. }
                | Journal::IntentKnown { .. }
                | Journal::Finished { .. }
                | Journal::Logged { .. } => {}
            }
        }
        prop_assert!(ended.len() <= 1, "a step ends once: {:#?}", journal);
        let finished: Vec<_> =
            journal.iter().filter(|it| matches!(it, Journal::Finished { .. })).collect();
        prop_assert_eq!(finished.len(), 1, "{:#?}", journal);
        let Some(Journal::Finished { state, .. }) = journal.last() else {
            return Err(TestCaseError::fail(format!("something follows its end: {journal:#?}")));
        };
        let is_so = match state {
            RunState::Done => matches!(last, Some(Outcome::Value { .. })),
            RunState::Failed => matches!(last, Some(Outcome::Failed(_))),
            RunState::Uncertain => matches!(last, Some(Outcome::Uncertain)),
            RunState::Cancelled => matches!(last, Some(Outcome::Failed(_)) | None),
            RunState::Running => false,
        };
        prop_assert!(is_so, "it does not say why: {:#?}", journal);
        let told = self.devices[0]
            .events
            .iter()
            .filter(|it| matches!(it, Event::RunEnded { run: of, .. } if *of == run));
        prop_assert!(told.count() <= 1, "its end was told twice");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn each_run_ends_once_and_its_journal_says_why(
        happenings in prop::collection::vec(happening(), 1..30),
    ) {
        let mut fabric = connected(ALLOW, ALLOW);
        for happening in happenings {
            fabric.happen(happening);
        }
        fabric.heal();
        for run in fabric.started() {
            fabric.check(run)?;
        }
    }
}

//! What people say to the devices while the world is bad.

use std::collections::BTreeMap;

use weft_core::{
    Input,
    door::{Command, DoorId},
};
use weft_intent::{DeviceName, Parsed};
use weft_protocol::{
    graph::{Argument, Plan, Route, Step, StepIndex},
    id::RunId,
    manifest::EffectClass,
    run::RunState,
    value::Value,
};

use crate::{
    fabric::SHARED,
    network::SECOND,
    world::{Happening, World},
};

/// The file that is summarised.
const REPORT: &str = include_str!("../../fixtures/report.txt");

/// A command that was given, and what came of it.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) host: usize,
    pub(crate) boot: u64,
    pub(crate) words: String,
    pub(crate) plan: Plan,
    pub(crate) at: u64,
    /// The run, once the node says that it has begun.
    pub(crate) run: Option<RunId>,
    pub(crate) refused: Option<String>,
    /// When it ended, and how; once.
    pub(crate) ended: Vec<(u64, RunState)>,
    /// The machine of the door lost its power.
    pub(crate) lost: bool,
}

impl Ask {
    /// Whether nothing more is to be heard of it.
    pub(crate) fn is_over(&self) -> bool {
        self.lost || self.refused.is_some() || !self.ended.is_empty()
    }
}

/// A sentence, and the files that it names.
fn sentence(world: &mut World, number: usize) -> (String, BTreeMap<String, Vec<u8>>) {
    let dice = &mut world.dice.workload;
    let recent = dice.between(0, number as u64 + 1);
    let seconds = dice.between(3, 50);
    let words = match dice.between(0, 100) {
        0..40 => format!("note that parcel number {number} has come"),
        40..55 => format!("set a timer for {seconds} seconds called tea {number}"),
        55..60 => format!("cancel the tea {recent} timer"),
        60..64 => "list my notes".to_owned(),
        64..68 => format!("find my notes about {recent}"),
        68..72 => "what timers are running".to_owned(),
        72..82 => "ask the model why the sky is blue".to_owned(),
        82..92 => "summarize report.txt".to_owned(),
        _ => "summarize report.txt and note it".to_owned(),
    };
    let files = if words.contains("report.txt") {
        let text = format!("Report {number}\n\n{REPORT}");
        BTreeMap::from([("report.txt".to_owned(), text.into_bytes())])
    } else {
        BTreeMap::new()
    };
    (words, files)
}

/// A plan of one step that no words lead to.
pub(crate) fn direct(capability: &str, arguments: Vec<(&str, Value)>, effect: EffectClass) -> Plan {
    let arguments = arguments
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Argument::Literal(value)))
        .collect();
    let step = Step {
        index: StepIndex(1),
        capability: capability.parse().expect("it is a capability's name"),
        arguments,
        device: None,
        after: std::collections::BTreeSet::new(),
        effect,
        may_call: Vec::new(),
    };
    Plan::new(Route::Graph, vec![step]).expect("one step is a plan")
}

impl World {
    /// A person says something to a device.
    pub(crate) fn ask(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let pause = self.dice.workload.between(SECOND / 20, 3 * SECOND);
        self.later(pause, Happening::Ask);
        let host = self.dice.workload.index(self.hosts.len());
        if !self.hosts[host].is_up() {
            return;
        }
        let number = self.asks.len();
        let (words, mut plan, files) = match self.dice.workload.between(0, 100) {
            0..10 => {
                let number = Value::Int(i64::try_from(number).unwrap_or(0));
                let plan = direct("valve.open", vec![("number", number)], EffectClass::AtMostOnce);
                ("open a valve".to_owned(), plan, BTreeMap::new())
            }
            10..22 => {
                let field = format!("field {}", self.dice.workload.between(0, 3));
                let arguments = vec![
                    ("field", Value::Text(field)),
                    ("value", Value::Text(format!("value {number}"))),
                ];
                let plan = direct("ledger.put", arguments, EffectClass::Idempotent);
                ("write into the list".to_owned(), plan, BTreeMap::new())
            }
            22..24 => {
                let plan = direct("ledger.drop", vec![], EffectClass::Idempotent);
                ("throw the list away".to_owned(), plan, BTreeMap::new())
            }
            _ => {
                let (words, files) = sentence(self, number);
                let plan = self.plan(host, &words);
                (words, plan, files)
            }
        };
        if self.dice.workload.chance(20) && files.is_empty() {
            let other = self.dice.workload.index(self.hosts.len());
            if let Some(step) = plan.steps.last_mut()
                && self.hosts[other].joined
            {
                step.device = Some(self.hosts[other].name.to_owned());
            }
        }
        let door = self.give(host, words, plan, files);
        if self.dice.workload.chance(8) {
            let wait = self.dice.workload.between(1_000, 2 * SECOND);
            self.later(wait, Happening::Cancel(door.0));
        }
    }

    /// What the words mean on that device.
    pub(crate) fn plan(&self, host: usize, words: &str) -> Plan {
        let context = weft_intent::Context {
            now: jiff::civil::date(2026, 3, 10).at(9, 0, 0, 0),
            devices: self
                .hosts
                .iter()
                .map(|host| DeviceName { name: host.name.to_owned(), kind: host.kind })
                .collect(),
            here: self.hosts[host].name.to_owned(),
        };
        match SHARED.catalog.parse(words, &context) {
            Parsed::Plan(plan) => plan,
            Parsed::Unknown { why, nearest } => {
                panic!("{words:?} means nothing: {why:?}, nearest {nearest:?}")
            }
        }
    }

    /// Gives a command to a device that is up.
    pub(crate) fn give(
        &mut self,
        host: usize,
        words: String,
        plan: Plan,
        files: BTreeMap<String, Vec<u8>>,
    ) -> DoorId {
        let door = DoorId(self.asks.len() as u64 + 1);
        let last = plan.steps.last().and_then(|step| step.device.clone());
        self.say(Some(host), || {
            format!("is told {words:?}{}", last.map_or(String::new(), |on| format!(" on {on}")))
        });
        let ask = Ask {
            host,
            boot: self.hosts[host].boots,
            words: words.clone(),
            plan: plan.clone(),
            at: self.time,
            run: None,
            refused: None,
            ended: Vec::new(),
            lost: false,
        };
        self.asks.insert(door, ask);
        let command = Command::Do {
            words,
            plan,
            files,
            local_time: "2026-03-10T09:00:00".to_owned(),
            time_zone: "UTC".to_owned(),
            can_ask: true,
        };
        self.feed(host, Input::Command { door, command });
        door
    }

    /// A person answers.
    pub(crate) fn consent(&mut self, door: DoorId, yes: bool) {
        let Some(ask) = self.asks.get(&door) else { return };
        let (host, boot) = (ask.host, ask.boot);
        if let Some(run) = ask.run
            && self.runs(host, boot)
        {
            let step = StepIndex(1).into();
            let command = Command::Consent { run, step, yes };
            self.feed(host, Input::Command { door: DoorId(u64::MAX), command });
        }
    }

    /// A person stops a run.
    pub(crate) fn cancel(&mut self, door: DoorId) {
        let Some(ask) = self.asks.get(&door) else { return };
        let (host, boot) = (ask.host, ask.boot);
        if let Some(run) = ask.run
            && self.runs(host, boot)
        {
            self.say(Some(host), || format!("is told to stop run {}", run.short()));
            let command = Command::Cancel { run };
            self.feed(host, Input::Command { door: DoorId(u64::MAX), command });
        }
    }
}

//! What was asked at a door is answered, once, and ends in bounded time when all is well.

use std::collections::BTreeMap;

use weft_core::door::DoorId;
use weft_protocol::{document::DocumentKind, run::RunState, value::Value};

use crate::{checkers::replicas::active, host::Host, workload::Ask, world::Failures};

/// At the end.
pub(crate) fn finish(
    asks: &BTreeMap<DoorId, Ask>,
    hosts: &[Host],
    time: u64,
    failures: &mut Failures,
) {
    for (door, ask) in asks {
        let Ask { words, host, at, run, refused, ended, lost, plan, .. } = ask;
        let what = format!("{words:?}, asked on {} at {at} µs", hosts[*host].name);
        if ended.len() > 1 {
            failures.add("runs", format!("{what}, ended {} times", ended.len()));
        }
        if run.is_some() && refused.is_some() {
            failures.add("runs", format!("{what}, was both begun and refused"));
        }
        if *lost {
            continue;
        }
        if run.is_none() && refused.is_none() {
            failures.add("runs", format!("{what}, was not answered"));
        }
        if run.is_some() && ended.is_empty() {
            let steps: Vec<String> =
                plan.steps.iter().map(|step| step.capability.to_string()).collect();
            let steps = steps.join(", ");
            failures.add(
                "runs",
                format!("{what}, door {}, has not ended at {time} µs: {steps}", door.0),
            );
        }
        if ended.iter().any(|(_, state)| *state == RunState::Running) {
            failures.add("runs", format!("{what}, ended as running"));
        }
    }
    for what in running(hosts) {
        failures.add("runs", what);
    }
}

/// The runs that their own devices show as running.
pub(crate) fn running(hosts: &[Host]) -> Vec<String> {
    let mut running = Vec::new();
    for (host, node) in active(hosts) {
        let keys: Vec<String> = host.keys().map(|key| key.to_string()).collect();
        let views = node.replica().list(&DocumentKind::RUN, "", usize::MAX, host.disk.visible());
        for view in views {
            let says = |field| view.content.get(field).and_then(Value::as_text);
            if says("owner").is_some_and(|owner| keys.iter().any(|key| key == owner))
                && says("state") == Some("running")
            {
                let run = view.id.short();
                running.push(format!("{} still shows run {run} as running", host.name));
            }
        }
    }
    running
}

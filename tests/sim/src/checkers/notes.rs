//! A note that was acknowledged is on all devices, once; one that was not is there at most once.

use std::collections::BTreeMap;

use weft_core::door::DoorId;
use weft_protocol::{document::DocumentKind, run::RunState, value::Value};

use crate::{
    checkers::{effects::Effects, replicas::active},
    host::Host,
    workload::Ask,
    world::Failures,
};

/// At the end.
pub(crate) fn finish(
    asks: &BTreeMap<DoorId, Ask>,
    effects: &Effects,
    hosts: &[Host],
    failures: &mut Failures,
) {
    for (host, node) in active(hosts) {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for note in node.replica().list(&DocumentKind::NOTE, "", usize::MAX, host.disk.visible()) {
            let text = note.content.get("text").and_then(Value::as_text).unwrap_or_default();
            *count.entry(text.to_owned()).or_default() += 1;
        }
        if let Some(copies) = count.get("smuggled") {
            failures.add("notes", format!("{} has {copies} notes that no agent may", host.name));
        }
        for ask in asks.values() {
            let saved = effects.log().iter().find(|effect| {
                Some(effect.run) == ask.run && effect.capability.as_str() == "notes.save"
            });
            let Some(saved) = saved else {
                continue;
            };
            let text = saved.arguments.get("text").and_then(Value::as_text).unwrap_or_default();
            let copies = count.get(text).copied().unwrap_or(0);
            let acknowledged = ask.ended.iter().any(|(_, state)| *state == RunState::Done);
            if copies > 1 {
                let (name, by) = (host.name, hosts[saved.host].name);
                let what = format!("{name} has {text:?} {copies} times, written on {by}");
                failures.add("notes", what);
            }
            if acknowledged && copies == 0 && hosts[saved.host].belongs() {
                let by = hosts[saved.host].name;
                failures.add("notes", format!("{} lacks {text:?}, written on {by}", host.name));
            }
        }
    }
}

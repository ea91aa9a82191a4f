//! What a person was told holds: of a command that was told as failed, as stopped or as not begun, nothing that
//! writes is begun afterwards. What may still be done is told as uncertain.

use std::collections::BTreeMap;

use weft_core::door::DoorId;
use weft_protocol::{manifest::EffectClass, run::RunState, value::Value};

use crate::{
    checkers::effects::{Effect, Effects},
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
    // A disk that was set back, or that forgets what it said was safe, does not know what was told.
    let asks = asks.values().filter(|ask| {
        let host = &hosts[ask.host];
        !host.set_back && !host.disk.lies
    });
    for (ask, how, at) in asks.filter_map(|ask| told(ask).map(|(how, at)| (ask, how, at))) {
        let writes = |it: &&Effect| it.class > EffectClass::ReadOnly && it.time > at;
        if let Some(later) = effects.log().iter().filter(writes).find(|it| is_of(it, ask)) {
            let (on, asked) = (hosts[later.host].name, hosts[ask.host].name);
            let what = format!(
                "{:?}, asked on {asked}, was told as {how} at {at} µs, and {} began on {on} at {} µs",
                ask.words, later.capability, later.time
            );
            failures.add("told", what);
        }
    }
}

/// How it did not happen, and since when that is known.
fn told(ask: &Ask) -> Option<(String, u64)> {
    match (&ask.refused, ask.ended.last()) {
        (Some(_), _) => Some(("refused".to_owned(), ask.at)),
        (None, Some((at, state @ (RunState::Failed | RunState::Cancelled)))) => {
            Some((state.to_string(), *at))
        }
        (None, Some((_, RunState::Running | RunState::Done | RunState::Uncertain)) | None) => None,
    }
}

/// Whether something was begun for a command. One that was refused has no run; of parcels there is one each.
fn is_of(effect: &Effect, ask: &Ask) -> bool {
    match ask.run {
        Some(run) => effect.run == run,
        None => {
            let parcel = ask.words.strip_prefix("note that ");
            parcel.is_some() && effect.arguments.get("text").and_then(Value::as_text) == parcel
        }
    }
}

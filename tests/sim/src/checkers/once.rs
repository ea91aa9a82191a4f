//! What is said of a step is true: what must not happen twice happened once if it is reported as done,
//! and not at all if it is reported as not begun; what writes and is reported as failed wrote nothing.
//! Only `uncertain` leaves it open, and then it happened at most once.

use std::collections::BTreeMap;

use weft_protocol::{
    codec,
    document::DocumentKind,
    graph::StepId,
    id::RunId,
    manifest::{CapabilityName, EffectClass},
    row::{Item, Rows as _, Table},
    run::{Journal, Outcome},
};

use crate::{
    agent,
    checkers::{effects::Effects, replicas::active},
    host::Host,
    world::Failures,
};

/// A step of a plan, and how its owner's journal says that it ended.
struct Told {
    capability: CapabilityName,
    class: EffectClass,
    outcome: Option<Outcome>,
}

/// At the end.
pub(crate) fn finish(effects: &Effects, hosts: &[Host], failures: &mut Failures) {
    for host in hosts {
        for ((run, step), told) in journals(host) {
            let begun = effects.log().iter().filter(|it| it.run == run && it.step == step).count();
            let begun_on: Vec<&str> = effects
                .log()
                .iter()
                .filter(|it| it.run == run && it.step == step)
                .map(|it| hosts[it.host].name)
                .collect();
            let (what, at) = (&told.capability, begun_on.join(", "));
            let (run_name, owner) = (run.short(), host.name);
            let what = format!("{what}, step {step} of run {run_name} of {owner}, begun on {at}");
            match (told.class, told.outcome) {
                (EffectClass::AtMostOnce, outcome) => {
                    if let Err(why) = once(outcome.as_ref(), begun) {
                        failures.add("once", format!("{what}, {why}, and was begun {begun} times"));
                    }
                }
                (EffectClass::Idempotent, Some(Outcome::Failed(failure))) => {
                    if let Some(at) = noted(effects, &run, &step, hosts) {
                        let reason = failure.reason;
                        failures.add("once", format!("{what}, failed ({reason}), is on {at}"));
                    }
                }
                (EffectClass::Idempotent | EffectClass::ReadOnly | EffectClass::Pure, _) => {}
            }
        }
    }
}

/// Whether that often is what an outcome says.
fn once(outcome: Option<&Outcome>, begun: usize) -> Result<(), String> {
    let (says, right) = match outcome {
        None => ("has no end".to_owned(), begun <= 1),
        Some(Outcome::Value { .. }) => ("is done".to_owned(), begun == 1),
        Some(Outcome::Uncertain) => ("is uncertain".to_owned(), begun <= 1),
        Some(Outcome::Failed(failure)) => {
            // An agent says this of itself when it has done what it was started for.
            let by_itself = agent::ENDS_BADLY.contains(&failure.reason.as_str());
            (format!("failed ({})", failure.reason), begun == usize::from(by_itself))
        }
    };
    if right { Ok(()) } else { Err(says) }
}

/// A device that has the note which a step was to write.
fn noted(effects: &Effects, run: &RunId, step: &StepId, hosts: &[Host]) -> Option<&'static str> {
    let effect = effects
        .log()
        .iter()
        .find(|it| it.run == *run && it.step == *step && it.capability.as_str() == "notes.save")?;
    let text = effect.arguments.get("text")?;
    active(hosts).find_map(|(host, node)| {
        let rows = host.disk.visible();
        let notes = node.replica().list(&DocumentKind::NOTE, "", usize::MAX, rows);
        notes.iter().any(|note| note.content.get("text") == Some(text)).then_some(host.name)
    })
}

/// The steps of all plans whose runs a device owns.
fn journals(host: &Host) -> BTreeMap<(RunId, StepId), Told> {
    let mut entries = BTreeMap::new();
    for (row, bytes) in host.disk.visible().scan_table(Table::Run).unwrap_or_default() {
        let Item::Numbered(number) = row.item else { continue };
        let Ok(run) = <[u8; 16]>::try_from(row.scope) else { continue };
        if let Ok(entry) = codec::decode::<Journal>(&bytes, usize::MAX) {
            entries.insert((RunId::from_bytes(run), number), entry);
        }
    }
    let mut told = BTreeMap::new();
    for ((run, _), entry) in entries {
        match entry {
            Journal::Started { plan, .. } => told.extend(plan.steps.into_iter().map(|step| {
                let class = step.effect;
                let of = Told { capability: step.capability, class, outcome: None };
                ((run, StepId::from(step.index)), of)
            })),
            Journal::Ended { attempt, outcome, .. } => {
                if let Some(told) = told.get_mut(&(run, attempt.step)) {
                    told.outcome = Some(outcome);
                }
            }
            Journal::Offered { .. }
            | Journal::IntentKnown { .. }
            | Journal::Finished { .. }
            | Journal::Logged { .. } => {}
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use weft_protocol::{host_call::Refusal, run::Failure, value::Value};

    use super::*;

    #[test]
    fn an_untrue_end_is_found() {
        let value = Outcome::Value { value: Value::Null, labels: Default::default() };
        let failed = |reason: &str| {
            Outcome::Failed(Failure { refusal: Refusal::Failed, reason: reason.into() })
        };
        let cases = [
            (None, [true, true, false]),
            (Some(value), [false, true, false]),
            (Some(Outcome::Uncertain), [true, true, false]),
            (Some(failed("it stayed away")), [true, false, false]),
            (Some(failed(agent::ENDS_BADLY[0])), [false, true, false]),
        ];
        for (outcome, expected) in cases {
            let found = [0, 1, 2].map(|begun| once(outcome.as_ref(), begun).is_ok());
            assert_eq!(found, expected, "{outcome:?}");
        }
    }
}

//! Something that happened.

use serde_json::{Value, json};
use weft_core::door::Event;
use weft_protocol::{graph::StepIndex, run::Progress, value::Value as Output};

use super::{plan::candidates, run::outcome, time};

/// Something that happened.
pub fn event(event: &Event) -> Value {
    match event {
        Event::StepPlaced { run, step, capability, device, candidates: looked_at } => json!({
            "event": "step-placed",
            "run": run.to_string(),
            "step": step.to_string(),
            "capability": capability.as_str(),
            "device": device,
            "candidates": candidates(looked_at),
        }),
        Event::StepProgressed { run, step, progress } => {
            let (text, log) = match progress {
                Progress::Beat => (None, None),
                Progress::Text(text) => (Some(text), None),
                Progress::Log(line) => (None, Some(line)),
            };
            json!({
                "event": "step-progressed",
                "run": run.to_string(),
                "step": step.to_string(),
                "text": text,
                "log": log,
            })
        }
        Event::StepEnded { run, step, capability, outcome: how } => json!({
            "event": "step-ended",
            "run": run.to_string(),
            "step": step.to_string(),
            "capability": capability.as_str(),
            "outcome": outcome(how),
        }),
        Event::Asked { run, step, capability, device, reason } => json!({
            "event": "asked",
            "run": run.to_string(),
            "step": step.to_string(),
            "capability": capability.as_str(),
            "device": device,
            "reason": reason,
        }),
        Event::RunEnded { run, state, outputs, failure, also_on } => {
            let output = |(step, value): &(_, _)| output(*step, value);
            json!({
                "event": "run-ended",
                "run": run.to_string(),
                "state": state.word(),
                "outputs": outputs.iter().map(output).collect::<Vec<_>>(),
                "failure": failure,
                "also_on": also_on,
            })
        }
        Event::InvitationMet { name, kind, words, role } => json!({
            "event": "invitation-met",
            "name": name,
            "kind": kind.word(),
            "words": words,
            "role": role.word(),
        }),
        Event::InvitationEnded { outcome, name, reason } => json!({
            "event": "invitation-ended",
            "outcome": outcome,
            "name": name,
            "reason": reason,
        }),
        Event::DeviceHere { name } => json!({"event": "device-here", "name": name}),
        Event::DeviceAway { name } => json!({"event": "device-away", "name": name}),
        Event::DevicesChanged => json!({"event": "devices-changed"}),
        Event::TimerDue { id, label, due, late_ms } => json!({
            "event": "timer-due",
            "id": id.to_string(),
            "label": label,
            "due": time(*due),
            "late_ms": late_ms,
        }),
        Event::DocumentChanged { id, kind, remote } => json!({
            "event": "document-changed",
            "id": id.to_string(),
            "kind": kind,
            "remote": remote,
        }),
        Event::Warning { text } => json!({"event": "warning", "text": text}),
    }
}

fn output(step: StepIndex, value: &Output) -> Value {
    json!({"step": step.0, "value": Value::from(value)})
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weft_protocol::{
        device::{Kind, Role},
        graph::StepId,
        id::RunId,
        run::{Outcome, RunState},
    };

    use super::*;
    use crate::json::sample::check;

    #[test]
    fn events() {
        let run = RunId::from_bytes([6; 16]);
        let events: Value = [
            Event::StepProgressed {
                run,
                step: StepId(vec![1]),
                progress: Progress::Text("The ".into()),
            },
            Event::StepEnded {
                run,
                step: StepId(vec![1]),
                capability: "docs.read".parse().unwrap(),
                outcome: Outcome::Uncertain,
            },
            Event::RunEnded {
                run,
                state: RunState::Done,
                outputs: vec![(StepIndex(1), Output::Int(4))],
                failure: None,
                also_on: vec!["phone".into()],
            },
            Event::InvitationMet {
                name: "phone".into(),
                kind: Kind::Phone,
                words: ["a", "b", "c", "d"].map(String::from),
                role: Role::Member,
            },
            Event::DevicesChanged,
        ]
        .iter()
        .map(event)
        .collect();
        check(
            &events,
            expect![[r#"
            [
              {
                "event": "step-progressed",
                "log": null,
                "run": "aydambqg",
                "step": "1",
                "text": "The "
              },
              {
                "capability": "docs.read",
                "event": "step-ended",
                "outcome": {
                  "state": "uncertain"
                },
                "run": "aydambqg",
                "step": "1"
              },
              {
                "also_on": [
                  "phone"
                ],
                "event": "run-ended",
                "failure": null,
                "outputs": [
                  {
                    "step": 1,
                    "value": 4
                  }
                ],
                "run": "aydambqg",
                "state": "done"
              },
              {
                "event": "invitation-met",
                "kind": "phone",
                "name": "phone",
                "role": "member",
                "words": [
                  "a",
                  "b",
                  "c",
                  "d"
                ]
              },
              {
                "event": "devices-changed"
              }
            ]"#]],
        );
    }
}

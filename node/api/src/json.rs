//! The public shapes: what `--json` prints and what the socket carries.
//!
//! Fields are only ever added. Times are RFC 3339 in UTC; ids are their text form; what is absent is
//! `null`, never left out.
//!
//! | what | shape |
//! |---|---|
//! | device | `id name kind role state this address round_trip_ms since models confirmed` |
//! | agent | `name version digest description capabilities` (names) `details` (`name description effect example`) `devices` |
//! | plan | `route steps paths nearest`; a step: `id capability args device bound effect after may_call candidates decision` |
//! | argument of a step | a literal as it is, a path as said, another step's output as `{"output": id}` |
//! | run | `id words state owner started ended`, and for one run `journal` (each `entry` and its fields) |
//! | document | `id text content modified` |
//! | timer | `id label due local fires_on` |
//! | audit record | `position sequence segment digest previous time kind` and the kind's fields |
//! | verification | `ok records head fault witnesses` |
//! | event | `event` (its name) and its fields |
//! | error | `{"error": {"kind", "message", "hint"}}` |

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use weft_core::door::{
    AgentView, AuditView, DeviceView, DocumentView, Event, Explanation, Reply, RunView, Status,
    TimerView, Verification,
};
use weft_protocol::{
    audit::{Body, Head, Touched},
    decision::Decision,
    graph::{Argument, Step},
    run::{Attempt, Candidate, Journal, Outcome, Progress},
    time::WallTime,
};

use crate::{
    message::{DoorMessage, Keys, ModelView, PlanView},
    problem::Problem,
};

/// A message as it stands in a line beside the request's number: the field's name, and its value.
pub fn message(message: &DoorMessage) -> (&'static str, Value) {
    match message {
        DoorMessage::Reply(it) => match reply(it) {
            Ok(value) => ("reply", value),
            Err(it) => ("error", problem_fields(&it)),
        },
        DoorMessage::Status { status: it, keys } => ("reply", status(it, Some(*keys))),
        DoorMessage::Plan(it) => ("reply", plan(it)),
        DoorMessage::Models(it) => ("reply", it.iter().map(model).collect()),
        DoorMessage::Event(it) => ("event", event(it)),
        DoorMessage::Error(it) => ("error", problem_fields(it)),
    }
}

/// The core's answer.
///
/// # Errors
///
/// The problem that it stands for.
pub fn reply(reply: &Reply) -> Result<Value, Problem> {
    if let Some(problem) = Problem::of_reply(reply) {
        return Err(problem);
    }
    Ok(match reply {
        Reply::Done | Reply::Refused { .. } => json!({"done": true}),
        Reply::Status(it) => status(it, None),
        Reply::Devices(list) => list.iter().map(device).collect(),
        Reply::Agents(list) => list.iter().map(agent).collect(),
        Reply::RunStarted { run } => json!({"run": run.to_string()}),
        Reply::Explained(list) => list.iter().map(explanation).collect(),
        Reply::Runs(list) => list.iter().map(|it| Value::Object(run(it))).collect(),
        Reply::Run { view, journal } => {
            let mut fields = run(view);
            fields.insert("journal".into(), journal.iter().map(journal_entry).collect());
            Value::Object(fields)
        }
        Reply::Documents(list) => list.iter().map(document).collect(),
        Reply::Timers(list) => list.iter().map(timer).collect(),
        Reply::Invited { ticket, expires } => json!({"ticket": ticket, "expires": time(*expires)}),
        Reply::Audit(list) => list.iter().map(audit).collect(),
        Reply::Verified(it) => verification(it),
    })
}

/// A node's state. `keys` is `null` where the shell did not say.
pub fn status(status: &Status, keys: Option<Keys>) -> Value {
    json!({
        "fabric": status.fabric.to_string(),
        "fabric_name": status.fabric_name,
        "device": status.device.to_string(),
        "agreement": status.agreement.to_string(),
        "name": status.name,
        "kind": status.kind.word(),
        "role": status.role.word(),
        "recovery": status.recovery,
        "keys": keys.map(Keys::word),
        "addresses": status.addresses,
        "devices_here": status.devices_here,
        "devices": status.devices,
        "documents": status.documents,
        "runs": status.runs,
        "audit_head": status.audit_head.as_ref().map(head),
        "policy": status.policy.to_string(),
        "models": status.models,
        "warnings": status.warnings,
    })
}

/// A device.
pub fn device(device: &DeviceView) -> Value {
    json!({
        "id": device.id.to_string(),
        "name": device.name,
        "kind": device.kind.word(),
        "role": device.role.word(),
        "state": device.state,
        "this": device.this,
        "address": device.address,
        "round_trip_ms": device.round_trip_micros.map(|micros| micros as f64 / 1_000.0),
        "since": device.since.map(time),
        "models": device.models,
        "confirmed": device.confirmed,
    })
}

/// An agent.
pub fn agent(agent: &AgentView) -> Value {
    let names: Value = agent.capabilities.iter().map(|(name, ..)| name.as_str()).collect();
    let details: Value = agent
        .capabilities
        .iter()
        .map(|(name, description, effect, example)| {
            json!({
                "name": name.as_str(),
                "description": description,
                "effect": effect.word(),
                "example": example,
            })
        })
        .collect();
    json!({
        "name": agent.name,
        "version": agent.version,
        "digest": agent.digest.to_string(),
        "description": agent.description,
        "capabilities": names,
        "details": details,
        "devices": agent.devices,
    })
}

/// A plan. A step's `device` is where it would run, else the one that the words bind it to.
pub fn plan(view: &PlanView) -> Value {
    let steps: Value = view
        .plan
        .steps
        .iter()
        .map(|step| {
            let explained = view.explanations.iter().find(|it| it.step == step.index);
            plan_step(step, explained)
        })
        .collect();
    let mut paths: Vec<&str> = Vec::new();
    for argument in view.plan.steps.iter().flat_map(|step| step.arguments.values()) {
        if let Argument::Path(path) = argument
            && !paths.contains(&path.as_str())
        {
            paths.push(path);
        }
    }
    json!({
        "route": view.plan.route.word(),
        "steps": steps,
        "paths": paths,
        "nearest": view.nearest,
    })
}

fn plan_step(step: &Step, explained: Option<&Explanation>) -> Value {
    let arguments: Map<String, Value> = step
        .arguments
        .iter()
        .map(|(name, argument)| {
            let value = match argument {
                Argument::Literal(value) => value.into(),
                Argument::Output(step) => json!({"output": step.0}),
                Argument::Path(path) => path.as_str().into(),
            };
            (name.clone(), value)
        })
        .collect();
    let device = explained.and_then(|it| it.device.as_ref()).or(step.device.as_ref());
    json!({
        "id": step.index.0,
        "capability": step.capability.as_str(),
        "args": arguments,
        "device": device,
        "bound": step.device,
        "effect": step.effect.word(),
        "after": step.after.iter().map(|step| step.0).collect::<Vec<_>>(),
        "may_call": step.may_call.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "candidates": explained.map(|it| candidates(&it.candidates)),
        "decision": explained.map(|it| decision(&it.decision)),
    })
}

/// Where a step would run, and what the rules say.
pub fn explanation(explanation: &Explanation) -> Value {
    json!({
        "id": explanation.step.0,
        "capability": explanation.capability.as_str(),
        "device": explanation.device,
        "candidates": candidates(&explanation.candidates),
        "decision": decision(&explanation.decision),
    })
}

fn candidates(candidates: &[Candidate]) -> Value {
    candidates
        .iter()
        .map(|it| {
            json!({
                "id": it.device.to_string(),
                "device": it.name,
                "cost_ms": it.cost.map(|micros| micros as f64 / 1_000.0),
                "reasons": it.reasons,
            })
        })
        .collect()
}

fn decision(decision: &Decision) -> Value {
    json!({
        "effect": decision.effect.word(),
        "reason": decision.reason,
        "obligations": decision.obligations,
    })
}

fn run(run: &RunView) -> Map<String, Value> {
    object(json!({
        "id": run.run.to_string(),
        "words": run.words,
        "state": run.state.word(),
        "owner": run.owner,
        "started": time(run.started),
        "ended": run.ended.map(time),
    }))
}

fn journal_entry(entry: &Journal) -> Value {
    match entry {
        Journal::Started { words, plan: it, time: at, local_time, time_zone } => {
            let view = PlanView { plan: it.clone(), explanations: vec![], nearest: vec![] };
            json!({
                "entry": "started",
                "words": words,
                "plan": plan(&view),
                "time": time(*at),
                "local_time": local_time,
                "time_zone": time_zone,
            })
        }
        Journal::Offered { attempt: it, executor, candidates: looked_at, time: at } => {
            let name = looked_at.iter().find(|it| it.device == *executor).map(|it| &it.name);
            attempt(
                "offered",
                it,
                json!({
                    "executor": executor.to_string(),
                    "device": name,
                    "candidates": candidates(looked_at),
                    "time": time(*at),
                }),
            )
        }
        Journal::IntentKnown { attempt: it } => attempt("intent-known", it, json!({})),
        Journal::Ended { attempt: it, outcome: how, time: at } => {
            attempt("ended", it, json!({"outcome": outcome(how), "time": time(*at)}))
        }
        Journal::Finished { state, time: at } => {
            json!({"entry": "finished", "state": state.word(), "time": time(*at)})
        }
        Journal::Logged { step, line } => {
            json!({"entry": "logged", "step": step.to_string(), "line": line})
        }
    }
}

fn attempt(entry: &str, attempt: &Attempt, more: Value) -> Value {
    let mut fields = object(json!({
        "entry": entry,
        "step": attempt.step.to_string(),
        "epoch": attempt.epoch,
    }));
    fields.extend(object(more));
    Value::Object(fields)
}

fn outcome(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Value { value, labels } => json!({
            "state": "done",
            "value": Value::from(value),
            "labels": labels.iter().map(|label| label.word()).collect::<Vec<_>>(),
        }),
        Outcome::Failed(failure) => json!({
            "state": "failed",
            "refusal": failure.refusal.word(),
            "reason": failure.reason,
        }),
        Outcome::Uncertain => json!({"state": "uncertain"}),
    }
}

/// A document; `text` is its field of that name, the words of a note.
pub fn document(document: &DocumentView) -> Value {
    json!({
        "id": document.id.to_string(),
        "text": document.content.get("text").map(Value::from),
        "content": Value::from(&document.content),
        "modified": time(document.modified),
    })
}

/// A timer.
pub fn timer(timer: &TimerView) -> Value {
    json!({
        "id": timer.id.to_string(),
        "label": timer.label,
        "due": time(timer.due),
        "local": timer.local,
        "fires_on": timer.fires_on,
    })
}

/// An audit record.
pub fn audit(view: &AuditView) -> Value {
    let record = &view.record;
    let mut fields = object(json!({
        "position": record.position,
        "sequence": record.sequence,
        "segment": record.segment.to_string(),
        "digest": view.digest.to_string(),
        "previous": record.previous.map(|digest| digest.to_string()),
        "time": time(record.time),
    }));
    fields.extend(object(audit_body(&record.body)));
    Value::Object(fields)
}

fn audit_body(body: &Body) -> Value {
    match body {
        Body::Segment { boot, recovered } => json!({
            "kind": "segment",
            "boot": boot.counter,
            "recovered": recovered.as_ref().map(head),
        }),
        Body::Intent {
            point,
            run,
            step,
            device,
            agent,
            capability,
            input,
            decision: said,
            policy,
        } => json!({
            "kind": "intent",
            "point": point.word(),
            "run": run.to_string(),
            "step": step.to_string(),
            "device": device.to_string(),
            "agent": agent.to_string(),
            "capability": capability.as_str(),
            "input": input.to_string(),
            "decision": decision(said),
            "policy": policy.to_string(),
        }),
        Body::Outcome { intent, ending, output, reads, writes } => json!({
            "kind": "outcome",
            "intent": intent,
            "ending": ending.word(),
            "output": output.map(|digest| digest.to_string()),
            "reads": touched(reads),
            "writes": touched(writes),
        }),
        Body::Checkpoint => json!({"kind": "checkpoint"}),
        Body::Trust { statement } => json!({"kind": "trust", "statement": statement.to_string()}),
        Body::Operator { action } => json!({"kind": "operator", "action": action}),
        Body::Strangers { count } => json!({"kind": "strangers", "count": count}),
    }
}

fn touched(touched: &Touched) -> Value {
    json!({"count": touched.count, "hash": touched.hash.to_string()})
}

fn head(head: &Head) -> Value {
    json!({
        "device": head.device.to_string(),
        "segment": head.segment.to_string(),
        "position": head.position,
        "digest": head.digest.to_string(),
    })
}

/// What checking the chain found.
pub fn verification(it: &Verification) -> Value {
    let fault =
        |(position, reason): &(u64, String)| json!({"position": position, "reason": reason});
    let witness = |(name, position): &(String, u64)| json!({"device": name, "position": position});
    json!({
        "ok": it.fault.is_none(),
        "records": it.records,
        "head": it.head.as_ref().map(head),
        "fault": it.fault.as_ref().map(fault),
        "witnesses": it.witnesses.iter().map(witness).collect::<Vec<_>>(),
    })
}

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
        Event::InvitationEnded { outcome, name } => {
            json!({"event": "invitation-ended", "outcome": outcome, "name": name})
        }
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

fn output(step: weft_protocol::graph::StepIndex, value: &weft_protocol::value::Value) -> Value {
    json!({"step": step.0, "value": Value::from(value)})
}

/// A model on this device.
pub fn model(model: &ModelView) -> Value {
    json!({
        "name": model.name,
        "path": model.path,
        "bytes": model.bytes,
        "state": model.state,
        "tokens_per_second": model.tokens_per_second,
    })
}

/// An error as `--json` prints it.
pub fn problem(problem: &Problem) -> Value {
    json!({"error": problem_fields(problem)})
}

pub(crate) fn problem_fields(problem: &Problem) -> Value {
    json!({
        "kind": problem.kind.word(),
        "message": problem.message,
        "hint": problem.hint,
    })
}

/// RFC 3339 in UTC; `null` for what no calendar has.
pub fn time(time: WallTime) -> Value {
    Timestamp::from_millisecond(time.unix_millis())
        .map_or(Value::Null, |timestamp| timestamp.to_string().into())
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(fields) = value { fields } else { Map::new() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};
    use weft_protocol::{
        audit::{Ending, Record},
        decision::{Effect, Point},
        device::{Kind, Role},
        graph::{Plan, Route, StepId, StepIndex},
        host_call::Refusal,
        id::{AgreementKey, DeviceId, Digest, DocumentId, FabricId, RunId, SegmentId, TimerId},
        manifest::EffectClass,
        run::{Failure, RunState},
        value::Value as Output,
    };

    use super::*;
    use crate::problem::ErrorKind;

    fn check(value: &Value, expected: Expect) {
        let text = serde_json::to_string_pretty(&sorted(value)).expect("JSON is text");
        // Ids repeat their letters; their first eight tell them apart.
        let text = text
            .split('"')
            .map(|part| {
                let id = part.len() >= 26 && part.bytes().all(|b| b.is_ascii_alphanumeric());
                if id { &part[..8] } else { part }
            })
            .collect::<Vec<_>>()
            .join("\"");
        expected.assert_eq(&text);
    }

    #[test]
    fn a_device() {
        let view = DeviceView {
            id: DeviceId::from_bytes([1; 32]),
            name: "phone".into(),
            kind: Kind::Phone,
            role: Role::Member,
            state: "here".into(),
            this: false,
            address: Some("/ip4/10.0.0.2/udp/4001/quic-v1".into()),
            round_trip_micros: Some(1_250),
            since: Some(at(0)),
            models: vec![],
            confirmed: true,
        };
        check(
            &device(&view),
            expect![[r#"
            {
              "address": "/ip4/10.0.0.2/udp/4001/quic-v1",
              "confirmed": true,
              "id": "aeaqcaib",
              "kind": "phone",
              "models": [],
              "name": "phone",
              "role": "member",
              "round_trip_ms": 1.25,
              "since": "2026-03-10T09:00:00Z",
              "state": "here",
              "this": false
            }"#]],
        );
    }

    #[test]
    fn a_status() {
        let view = Status {
            fabric: FabricId::from_bytes([1; 32]),
            fabric_name: "home".into(),
            device: DeviceId::from_bytes([2; 32]),
            agreement: AgreementKey::from_bytes([3; 32]),
            name: "laptop".into(),
            kind: Kind::Laptop,
            role: Role::Admin,
            recovery: true,
            addresses: vec!["/ip4/127.0.0.1/tcp/4001".into()],
            devices_here: 1,
            devices: 2,
            documents: 3,
            runs: 0,
            audit_head: None,
            policy: Digest::from_bytes([4; 32]),
            models: vec![],
            warnings: vec![],
        };
        check(
            &status(&view, Some(Keys::File)),
            expect![[r#"
            {
              "addresses": [
                "/ip4/127.0.0.1/tcp/4001"
              ],
              "agreement": "ambqgayd",
              "audit_head": null,
              "device": "aibaeaqc",
              "devices": 2,
              "devices_here": 1,
              "documents": 3,
              "fabric": "aeaqcaib",
              "fabric_name": "home",
              "keys": "file",
              "kind": "laptop",
              "models": [],
              "name": "laptop",
              "policy": "aqcaibae",
              "recovery": true,
              "role": "admin",
              "runs": 0,
              "warnings": []
            }"#]],
        );
    }

    #[test]
    fn an_agent() {
        let view = AgentView {
            name: "notes".into(),
            version: "0.1.0".into(),
            digest: Digest::from_bytes([5; 32]),
            description: "Keeps notes.".into(),
            capabilities: vec![(
                "notes.save".parse().unwrap(),
                "Saves a note.".into(),
                EffectClass::Idempotent,
                Some("note that …".into()),
            )],
            devices: vec!["laptop".into()],
        };
        check(
            &agent(&view),
            expect![[r#"
            {
              "capabilities": [
                "notes.save"
              ],
              "description": "Keeps notes.",
              "details": [
                {
                  "description": "Saves a note.",
                  "effect": "idempotent",
                  "example": "note that …",
                  "name": "notes.save"
                }
              ],
              "devices": [
                "laptop"
              ],
              "digest": "aucqkbif",
              "name": "notes",
              "version": "0.1.0"
            }"#]],
        );
    }

    #[test]
    fn a_plan_shows_paths_as_said_and_where_steps_would_run() {
        let explanations = vec![Explanation {
            step: StepIndex(2),
            capability: "text.summarize".parse().unwrap(),
            device: Some("server".into()),
            candidates: candidates_of_two(),
            decision: Decision {
                effect: Effect::Allow,
                reason: "your own devices".into(),
                obligations: vec![],
            },
        }];
        let view = PlanView { plan: two_steps(), explanations, nearest: vec![] };
        check(
            &plan(&view),
            expect![[r#"
            {
              "nearest": [],
              "paths": [
                "report.pdf"
              ],
              "route": "phrases",
              "steps": [
                {
                  "after": [],
                  "args": {
                    "path": "report.pdf"
                  },
                  "bound": null,
                  "candidates": null,
                  "capability": "docs.read",
                  "decision": null,
                  "device": null,
                  "effect": "read-only",
                  "id": 1,
                  "may_call": []
                },
                {
                  "after": [],
                  "args": {
                    "sentences": 3,
                    "text": {
                      "output": 1
                    }
                  },
                  "bound": null,
                  "candidates": [
                    {
                      "cost_ms": 12.5,
                      "device": "server",
                      "id": "baeaqcai",
                      "reasons": [
                        "has the model"
                      ]
                    },
                    {
                      "cost_ms": null,
                      "device": "phone",
                      "id": "a4dqobyh",
                      "reasons": [
                        "no model"
                      ]
                    }
                  ],
                  "capability": "text.summarize",
                  "decision": {
                    "effect": "allow",
                    "obligations": [],
                    "reason": "your own devices"
                  },
                  "device": "server",
                  "effect": "pure",
                  "id": 2,
                  "may_call": [
                    "llm.generate"
                  ]
                }
              ]
            }"#]],
        );
    }

    #[test]
    fn a_plan_of_nothing() {
        let view = PlanView {
            plan: Plan::none(),
            explanations: vec![],
            nearest: vec!["note that …".into()],
        };
        check(
            &plan(&view),
            expect![[r#"
            {
              "nearest": [
                "note that …"
              ],
              "paths": [],
              "route": "none",
              "steps": []
            }"#]],
        );
    }

    #[test]
    fn a_run_with_its_journal() {
        let attempt = Attempt { run: RunId::from_bytes([6; 16]), step: StepId(vec![2]), epoch: 1 };
        let executor = DeviceId::from_bytes([8; 32]);
        let journal = vec![
            Journal::Started {
                words: "x".into(),
                plan: Plan::none(),
                time: at(0),
                local_time: "2026-03-10T09:00:00".into(),
                time_zone: "UTC".into(),
            },
            Journal::Offered {
                attempt: attempt.clone(),
                executor,
                candidates: candidates_of_two(),
                time: at(1),
            },
            Journal::Logged { step: StepId(vec![2, 1]), line: "hm".into() },
            Journal::Ended {
                attempt,
                outcome: Outcome::Failed(Failure {
                    refusal: Refusal::Failed,
                    reason: "the model is gone".into(),
                }),
                time: at(2),
            },
            Journal::Finished { state: RunState::Failed, time: at(2) },
        ];
        let view = RunView {
            run: RunId::from_bytes([6; 16]),
            words: "x".into(),
            state: RunState::Failed,
            owner: "laptop".into(),
            started: at(0),
            ended: Some(at(2)),
        };
        check(
            &reply(&Reply::Run { view, journal }).unwrap(),
            expect![[r#"
            {
              "ended": "2026-03-10T09:00:02Z",
              "id": "aydambqg",
              "journal": [
                {
                  "entry": "started",
                  "local_time": "2026-03-10T09:00:00",
                  "plan": {
                    "nearest": [],
                    "paths": [],
                    "route": "none",
                    "steps": []
                  },
                  "time": "2026-03-10T09:00:00Z",
                  "time_zone": "UTC",
                  "words": "x"
                },
                {
                  "candidates": [
                    {
                      "cost_ms": 12.5,
                      "device": "server",
                      "id": "baeaqcai",
                      "reasons": [
                        "has the model"
                      ]
                    },
                    {
                      "cost_ms": null,
                      "device": "phone",
                      "id": "a4dqobyh",
                      "reasons": [
                        "no model"
                      ]
                    }
                  ],
                  "device": "server",
                  "entry": "offered",
                  "epoch": 1,
                  "executor": "baeaqcai",
                  "step": "2",
                  "time": "2026-03-10T09:00:01Z"
                },
                {
                  "entry": "logged",
                  "line": "hm",
                  "step": "2.1"
                },
                {
                  "entry": "ended",
                  "epoch": 1,
                  "outcome": {
                    "reason": "the model is gone",
                    "refusal": "failed",
                    "state": "failed"
                  },
                  "step": "2",
                  "time": "2026-03-10T09:00:02Z"
                },
                {
                  "entry": "finished",
                  "state": "failed",
                  "time": "2026-03-10T09:00:02Z"
                }
              ],
              "owner": "laptop",
              "started": "2026-03-10T09:00:00Z",
              "state": "failed",
              "words": "x"
            }"#]],
        );
    }

    #[test]
    fn a_document_and_a_timer() {
        let note = DocumentView {
            id: DocumentId::from_bytes([9; 16]),
            content: Output::map(
                [("text", "buy milk")].map(|(key, text)| (key, Output::from(text))),
            ),
            modified: at(0),
        };
        check(
            &document(&note),
            expect![[r#"
            {
              "content": {
                "text": "buy milk"
              },
              "id": "beeqscij",
              "modified": "2026-03-10T09:00:00Z",
              "text": "buy milk"
            }"#]],
        );
        let view = TimerView {
            id: TimerId::from_bytes([9; 16]),
            label: "tea".into(),
            due: at(600),
            local: "2026-03-10T09:10:00".into(),
            fires_on: "laptop".into(),
        };
        check(
            &timer(&view),
            expect![[r#"
            {
              "due": "2026-03-10T09:10:00Z",
              "fires_on": "laptop",
              "id": "beeqscij",
              "label": "tea",
              "local": "2026-03-10T09:10:00"
            }"#]],
        );
    }

    #[test]
    fn audit_records_and_their_verification() {
        let record = |body| Record {
            segment: SegmentId::from_bytes([1; 16]),
            sequence: 1,
            position: 7,
            previous: Some(Digest::from_bytes([2; 32])),
            time: at(0),
            body,
        };
        let digest = Digest::from_bytes([3; 32]);
        let intent = Body::Intent {
            point: Point::Owner,
            run: RunId::from_bytes([6; 16]),
            step: StepId(vec![1]),
            device: DeviceId::from_bytes([8; 32]),
            agent: digest,
            capability: "notes.save".parse().unwrap(),
            input: digest,
            decision: Decision::deny("no rule allows it"),
            policy: digest,
        };
        check(
            &audit(&AuditView { digest, record: record(intent) }),
            expect![[r#"
            {
              "agent": "ambqgayd",
              "capability": "notes.save",
              "decision": {
                "effect": "deny",
                "obligations": [],
                "reason": "no rule allows it"
              },
              "device": "baeaqcai",
              "digest": "ambqgayd",
              "input": "ambqgayd",
              "kind": "intent",
              "point": "owner",
              "policy": "ambqgayd",
              "position": 7,
              "previous": "aibaeaqc",
              "run": "aydambqg",
              "segment": "aeaqcaib",
              "sequence": 1,
              "step": "1",
              "time": "2026-03-10T09:00:00Z"
            }"#]],
        );
        let outcome = Body::Outcome {
            intent: 6,
            ending: Ending::Done,
            output: None,
            reads: Touched::NONE,
            writes: Touched::NONE,
        };
        check(
            &audit(&AuditView { digest, record: record(outcome) }),
            expect![[r#"
            {
              "digest": "ambqgayd",
              "ending": "done",
              "intent": 6,
              "kind": "outcome",
              "output": null,
              "position": 7,
              "previous": "aibaeaqc",
              "reads": {
                "count": 0,
                "hash": "aaaaaaaa"
              },
              "segment": "aeaqcaib",
              "sequence": 1,
              "time": "2026-03-10T09:00:00Z",
              "writes": {
                "count": 0,
                "hash": "aaaaaaaa"
              }
            }"#]],
        );
        let found = Verification {
            records: 8,
            head: None,
            fault: Some((7, "its signature is wrong".into())),
            witnesses: vec![("phone".into(), 5)],
        };
        check(
            &verification(&found),
            expect![[r#"
            {
              "fault": {
                "position": 7,
                "reason": "its signature is wrong"
              },
              "head": null,
              "ok": false,
              "records": 8,
              "witnesses": [
                {
                  "device": "phone",
                  "position": 5
                }
              ]
            }"#]],
        );
    }

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

    #[test]
    fn a_refusal_is_an_error() {
        let refused =
            Reply::Refused { refusal: Refusal::NotFound, reason: "there is no such run".into() };
        let said = reply(&refused).expect_err("it is refused").hint("see `weft run list`");
        assert_eq!(said.kind, ErrorKind::NotFound);
        check(
            &problem(&said),
            expect![[r#"
            {
              "error": {
                "hint": "see `weft run list`",
                "kind": "not-found",
                "message": "there is no such run"
              }
            }"#]],
        );
    }

    /// With fields by name, in whichever order this build keeps them.
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields: BTreeMap<_, _> = fields.iter().collect();
                fields.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect()
            }
            Value::Array(list) => list.iter().map(sorted).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }

    fn at(seconds: i64) -> WallTime {
        WallTime::from_unix_millis(1_773_133_200_000 + seconds * 1_000)
    }

    fn candidates_of_two() -> Vec<Candidate> {
        vec![
            Candidate {
                device: DeviceId::from_bytes([8; 32]),
                name: "server".into(),
                cost: Some(12_500),
                reasons: vec!["has the model".into()],
            },
            Candidate {
                device: DeviceId::from_bytes([7; 32]),
                name: "phone".into(),
                cost: None,
                reasons: vec!["no model".into()],
            },
        ]
    }

    fn two_steps() -> Plan {
        let read = Step {
            index: StepIndex(1),
            capability: "docs.read".parse().unwrap(),
            arguments: [("path".to_owned(), Argument::Path("report.pdf".into()))].into(),
            device: None,
            after: [].into(),
            effect: EffectClass::ReadOnly,
            may_call: vec![],
        };
        let summarize = Step {
            index: StepIndex(2),
            capability: "text.summarize".parse().unwrap(),
            arguments: [
                ("text".to_owned(), Argument::Output(StepIndex(1))),
                ("sentences".to_owned(), Argument::Literal(Output::Int(3))),
            ]
            .into(),
            device: None,
            after: [].into(),
            effect: EffectClass::Pure,
            may_call: vec!["llm.generate".parse().unwrap()],
        };
        Plan::new(Route::Phrases, vec![read, summarize]).unwrap()
    }
}

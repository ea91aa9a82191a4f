//! A run, with its journal.

use serde_json::{Map, Value, json};
use weft_core::door::{RunView, WaitView};
use weft_protocol::run::{Attempt, Journal, Outcome};

use super::{
    object,
    plan::{candidates, plan},
    time,
};
use crate::message::PlanView;

pub(super) fn run(run: &RunView) -> Map<String, Value> {
    object(json!({
        "id": run.run.to_string(),
        "words": run.words,
        "state": run.state.word(),
        "owner": run.owner,
        "started": time(run.started),
        "ended": run.ended.map(time),
    }))
}

pub(super) fn wait(wait: &WaitView) -> Value {
    json!({
        "step": wait.step.to_string(),
        "capability": wait.capability.to_string(),
        "for": wait.what.word(),
        "device": wait.device,
        "since": time(wait.since),
        "most_s": wait.most.as_millis().div_ceil(1_000),
    })
}

pub(super) fn journal_entry(entry: &Journal) -> Value {
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
        Journal::Offered { attempt: it, executor, candidates: looked_at, time: at, intent: _ } => {
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

pub(super) fn outcome(outcome: &Outcome) -> Value {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;
    use weft_core::door::{Reply, WaitsFor};
    use weft_protocol::{
        graph::{Plan, StepId},
        host_call::Refusal,
        id::{DeviceId, RunId},
        run::{Failure, RunState},
    };

    use super::*;
    use crate::json::{
        reply,
        sample::{at, candidates_of_two, check},
    };

    #[test]
    fn a_run_with_its_journal() {
        let attempt = Attempt {
            owner: DeviceId::from_bytes([7; 32]),
            run: RunId::from_bytes([6; 16]),
            step: StepId(vec![2]),
            above: vec![],
            epoch: 1,
        };
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
                intent: 4,
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
        let waits = vec![WaitView {
            step: StepId(vec![2]),
            capability: "text.summarize".parse().unwrap(),
            device: "server".into(),
            what: WaitsFor::Device,
            since: at(1),
            most: Duration::from_millis(9_001),
        }];
        check(
            &reply(&Reply::Run { view, journal, waits }).unwrap(),
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
              "waits": [
                {
                  "capability": "text.summarize",
                  "device": "server",
                  "for": "device",
                  "most_s": 10,
                  "since": "2026-03-10T09:00:01Z",
                  "step": "2"
                }
              ],
              "words": "x"
            }"#]],
        );
    }
}

//! A plan, with where its steps would run.

use serde_json::{Map, Value, json};
use weft_core::door::Explanation;
use weft_protocol::{
    decision::Decision,
    graph::{Argument, Step},
    run::Candidate,
};

use crate::message::PlanView;

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

pub(super) fn candidates(candidates: &[Candidate]) -> Value {
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

pub(super) fn decision(decision: &Decision) -> Value {
    json!({
        "effect": decision.effect.word(),
        "reason": decision.reason,
        "obligations": decision.obligations,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weft_protocol::{
        decision::Effect,
        graph::{Plan, Route, StepIndex},
        manifest::EffectClass,
        value::Value as Output,
    };

    use super::*;
    use crate::json::sample::{candidates_of_two, check};

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

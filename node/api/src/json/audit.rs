//! The audit chain: a record, a head, what checking it found.

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use weft_core::door::{AuditView, ForkView, FormerChainView, Verification};
use weft_protocol::audit::{Body, Head, Touched};

use super::{object, plan::decision, time};

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
        Body::Segment { boot, recovered, former } => json!({
            "kind": "segment",
            "boot": boot.counter,
            "recovered": recovered.as_ref().map(head),
            "former": former.as_ref().map(head),
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
            owner,
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
            "owner": owner.to_string(),
        }),
        Body::Outcome { intent, ending, output, reads, writes } => json!({
            "kind": "outcome",
            "intent": intent,
            "ending": ending.word(),
            "output": output.map(|digest| digest.to_string()),
            "reads": touched(reads),
            "writes": touched(writes),
        }),
        Body::Checkpoint { signatures } => {
            json!({"kind": "checkpoint", "signatures": signatures.to_string()})
        }
        Body::Trust { statement, said } => {
            json!({"kind": "trust", "statement": statement.to_string(), "said": said})
        }
        Body::Operator { action } => json!({"kind": "operator", "action": action}),
        Body::Strangers { count } => json!({"kind": "strangers", "count": count}),
        Body::Withdrawn => json!({"kind": "withdrawn"}),
        Body::Denials { device, count } => {
            json!({"kind": "denials", "device": device.to_string(), "count": count})
        }
    }
}

fn touched(touched: &Touched) -> Value {
    json!({"count": touched.count, "hash": touched.hash.to_string()})
}

pub(super) fn head(head: &Head) -> Value {
    json!({
        "device": head.device.to_string(),
        "segment": head.segment.to_string(),
        "position": head.position,
        "digest": head.digest.to_string(),
    })
}

/// What checking the chain found.
pub fn verification(it: &Verification) -> Value {
    let witness = |(name, position): &(String, u64)| json!({"device": name, "position": position});
    let is_right = it.fault.is_none() && it.former.iter().all(|chain| chain.fault.is_none());
    json!({
        "ok": is_right,
        "records": it.records,
        "head": it.head.as_ref().map(head),
        "fault": it.fault.as_ref().map(fault),
        "witnesses": it.witnesses.iter().map(witness).collect::<Vec<_>>(),
        "bogus": it.bogus,
        "setbacks": it.setbacks.iter().map(fault).collect::<Vec<_>>(),
        "forks": it.forks.iter().map(fork).collect::<Vec<_>>(),
        "former": it.former.iter().map(former).collect::<Vec<_>>(),
    })
}

fn fault((position, reason): &(u64, String)) -> Value {
    json!({"position": position, "reason": reason})
}

fn former(chain: &FormerChainView) -> Value {
    json!({
        "key": chain.key.to_string(),
        "records": chain.records,
        "head": chain.head.as_ref().map(head),
        "fault": chain.fault.as_ref().map(fault),
        "witnesses": chain.witnesses,
    })
}

fn fork(fork: &ForkView) -> Value {
    json!({
        "device": fork.device,
        "position": fork.position,
        "heads": fork.heads.each_ref().map(|head| HEXLOWER.encode(head)),
        "warning": fork.warning,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weft_protocol::{
        audit::{Ending, Record},
        decision::{Decision, Point},
        graph::StepId,
        id::{DeviceId, Digest, RunId, SegmentId},
    };

    use super::*;
    use crate::json::sample::{at, check};

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
            owner: DeviceId::from_bytes([9; 32]),
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
                  "owner": "beeqscij",
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
            bogus: vec!["server".into()],
            setbacks: vec![(6, "record 5 is missing".into())],
            forks: vec![ForkView {
                device: "phone".into(),
                position: 4,
                heads: [vec![0x0a], vec![0x0b]],
                warning: "it is forked".into(),
            }],
            former: vec![FormerChainView {
                key: DeviceId::from_bytes([4; 32]),
                records: 3,
                head: None,
                fault: Some((3, "record 3 was added".into())),
                witnesses: 1,
            }],
        };
        check(
            &verification(&found),
            expect![[r#"
                {
                  "bogus": [
                    "server"
                  ],
                  "fault": {
                    "position": 7,
                    "reason": "its signature is wrong"
                  },
                  "forks": [
                    {
                      "device": "phone",
                      "heads": [
                        "0a",
                        "0b"
                      ],
                      "position": 4,
                      "warning": "it is forked"
                    }
                  ],
                  "former": [
                    {
                      "fault": {
                        "position": 3,
                        "reason": "record 3 was added"
                      },
                      "head": null,
                      "key": "aqcaibae",
                      "records": 3,
                      "witnesses": 1
                    }
                  ],
                  "head": null,
                  "ok": false,
                  "records": 8,
                  "setbacks": [
                    {
                      "position": 6,
                      "reason": "record 5 is missing"
                    }
                  ],
                  "witnesses": [
                    {
                      "device": "phone",
                      "position": 5
                    }
                  ]
                }"#]],
        );
    }
}

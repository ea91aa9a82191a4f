//! What the tests of several shapes share: samples, compared as sorted JSON.

use std::collections::BTreeMap;

use expect_test::Expect;
use serde_json::Value;
use weft_protocol::{id::DeviceId, run::Candidate, time::WallTime};

pub(super) fn check(value: &Value, expected: Expect) {
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

pub(super) fn at(seconds: i64) -> WallTime {
    WallTime::from_unix_millis(1_773_133_200_000 + seconds * 1_000)
}

pub(super) fn candidates_of_two() -> Vec<Candidate> {
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

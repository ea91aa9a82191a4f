//! A statement about who belongs.

use serde_json::{Value, json};
use weft_core::door::StatementView;

use super::time;

/// A statement.
pub fn statement(it: &StatementView) -> Value {
    json!({
        "id": it.id.to_string(),
        "time": time(it.time),
        "kind": it.kind,
        "author": it.author.to_string(),
        "by": it.by,
        "device": it.device.map(|device| device.to_string()),
        "sentence": it.sentence,
        "verdict": it.verdict,
        "why": it.why,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weft_protocol::id::{DeviceId, StatementId};

    use super::*;
    use crate::json::sample::{at, check};

    #[test]
    fn a_statement() {
        let view = StatementView {
            id: StatementId::from_bytes([5; 32]),
            time: at(0),
            kind: "add".into(),
            author: DeviceId::from_bytes([1; 32]),
            by: "laptop".into(),
            device: Some(DeviceId::from_bytes([2; 32])),
            sentence: "laptop added phone (member; words compared)".into(),
            verdict: "frozen",
            why: Some("laptop is suspended".into()),
        };
        check(
            &statement(&view),
            expect![[r#"
            {
              "author": "aeaqcaib",
              "by": "laptop",
              "device": "aibaeaqc",
              "id": "aucqkbif",
              "kind": "add",
              "sentence": "laptop added phone (member; words compared)",
              "time": "2026-03-10T09:00:00Z",
              "verdict": "frozen",
              "why": "laptop is suspended"
            }"#]],
        );
    }
}

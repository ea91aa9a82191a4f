//! The public shapes: what `--json` prints and what the socket carries.
//!
//! Fields are only ever added. Times are RFC 3339 in UTC; ids are their text form; what is absent is
//! `null`, never left out.
//!
//! | what | shape |
//! |---|---|
//! | device | `id name kind role state standing this via` (names) `address way` (`direct`, `relayed`) `round_trip_ms since last_heard models version confirmed added_by added_at added former` (keys) |
//! | checkup | `boot time clock_set` (`at forward_ms`) `devices admins queue battery metered reach machine warnings copies shell`; one of `devices`: `id name addresses sighted failed` (`at times attempts`, each `address ending text`) `clock_ahead_ms relays` |
//! | reach of a checkup | `confirmed observed mapped announced` (addresses) `relays` (`name since`) `service` (`reservations circuits`) `nat` (`none`, `steady`, `per-peer`, `unknown`) `troubles` (`part why`) |
//! | standing of a device or node that does not belong | `state why remedy by at statement` |
//! | statement | `id time kind author by device sentence verdict` (`counts`, `frozen`, `void`, `powerless`) `why` |
//! | agent | `name version digest description capabilities` (names) `details` (`name description effect example`) `devices` |
//! | plan | `route steps paths nearest`; a step: `id capability args device bound effect after may_call candidates decision` |
//! | argument of a step | a literal as it is, a path as said, another step's output as `{"output": id}` |
//! | run | `id words state owner started ended`, and for one run `journal` (each `entry` and its fields) |
//! | document | `id text content modified` |
//! | timer | `id label due local fires_on` |
//! | audit record | `position sequence segment digest previous time kind` and the kind's fields |
//! | verification | `ok records head fault witnesses bogus setbacks forks former`; a fork: `device position heads` (both as signed, in hexadecimal) `warning`; the chain of a former key: `key records head fault witnesses` |
//! | event | `event` (its name) and its fields |
//! | error | `{"error": {"kind", "message", "hint"}}` |

use data_encoding::BASE64;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use weft_core::door::{DocumentView, Reply, TimerView};
use weft_protocol::{codec, frame::FRAME_BYTES_MAX, signed::Signed, time::WallTime};

use crate::{
    message::{DoorMessage, ModelView},
    problem::Problem,
};

mod status;
mod checkup;
mod device;
mod statement;
mod agent;
mod plan;
mod run;
mod audit;
mod event;
#[cfg(test)]
mod sample;

use self::run::{journal_entry, run, wait};
pub use self::{
    agent::agent,
    audit::{audit, verification},
    checkup::checkup,
    device::{device, standing},
    event::event,
    plan::{explanation, plan},
    statement::statement,
    status::{locked, status},
};

/// A message as it stands in a line beside the request's number: the field's name, and its value.
pub fn message(message: &DoorMessage) -> (&'static str, Value) {
    match message {
        DoorMessage::Reply(it) => match reply(it) {
            Ok(value) => ("reply", value),
            Err(it) => ("error", problem_fields(&it)),
        },
        DoorMessage::Status { status: it, keys } => ("reply", status(it, Some(*keys))),
        DoorMessage::Checkup { checkup: it, shell } => ("reply", checkup(it, Some(shell))),
        DoorMessage::Locked { keys } => ("reply", locked(*keys)),
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
        Reply::Checkup(it) => checkup(it, None),
        Reply::Devices(list) => list.iter().map(device).collect(),
        Reply::Device(it) => device(it),
        Reply::Statements(list) => {
            json!({"statements": list.iter().map(signed).collect::<Vec<_>>()})
        }
        Reply::TrustLog(list) => list.iter().map(statement).collect(),
        Reply::Agents(list) => list.iter().map(agent).collect(),
        Reply::RunStarted { run } => json!({"run": run.to_string()}),
        Reply::Explained(list) => list.iter().map(explanation).collect(),
        Reply::Runs(list) => list.iter().map(|it| Value::Object(run(it))).collect(),
        Reply::Run { view, journal, waits } => {
            let mut fields = run(view);
            fields.insert("waits".into(), waits.iter().map(wait).collect());
            fields.insert("journal".into(), journal.iter().map(journal_entry).collect());
            Value::Object(fields)
        }
        Reply::Documents(list) => list.iter().map(document).collect(),
        Reply::Timers(list) => list.iter().map(timer).collect(),
        Reply::Invited { ticket, expires } => json!({"ticket": ticket, "expires": time(*expires)}),
        Reply::InvitedByCode { code, addresses, expires } => {
            json!({"code": code, "addresses": addresses, "expires": time(*expires)})
        }
        Reply::Rotated { former, device } => {
            json!({"former": former.to_string(), "device": device.to_string()})
        }
        Reply::Audit(list) => list.iter().map(audit).collect(),
        Reply::Verified(it) => verification(it),
    })
}

/// Signed bytes as they lie on a disk, base64.
pub fn signed(signed: &Signed) -> String {
    BASE64.encode(&codec::encode(signed))
}

/// What [`signed`] wrote; `None`: it is no such thing. Whether the signature is good is another question.
pub fn read_signed(value: &Value) -> Option<Signed> {
    codec::decode(&BASE64.decode(value.as_str()?.as_bytes()).ok()?, FRAME_BYTES_MAX).ok()
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

/// A model on this device.
pub fn model(model: &ModelView) -> Value {
    json!({
        "name": model.name,
        "path": model.path,
        "bytes": model.bytes,
        "state": model.state,
        "tokens_per_second": model.tokens_per_second,
        "prompt_tokens_per_second": model.prompt_tokens_per_second,
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
    use expect_test::expect;
    use weft_protocol::{
        host_call::Refusal,
        id::{DocumentId, TimerId},
        value::Value as Output,
    };

    use super::*;
    use crate::{
        json::sample::{at, check},
        problem::ErrorKind,
    };

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
}

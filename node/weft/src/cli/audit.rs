//! `weft audit`: the signed record of what this device did and refused.

use serde_json::{Value, json};
use weft_api::ErrorKind;

use super::{
    Session,
    arguments::AuditAction,
    error::{CommandError, Done},
    node::Node,
    terminal::{Style, Terminal, harmless, items, local_time, text},
};

pub(super) async fn run(session: &Session, action: AuditAction) -> Done {
    let terminal = &session.terminal;
    let mut node = Node::reach(session).await?;
    match action {
        AuditAction::List { from, limit } => {
            let position = match from {
                Some(position) => position,
                None => newest(&node.get(json!({"ask": "status"})).await?, limit),
            };
            let request = json!({"ask": "audit", "position": position, "limit": limit});
            let records = node.get(request).await?;
            if terminal.is_json() {
                terminal.json(&records)?;
            } else {
                let rows: Vec<_> = items(&records).map(row).collect();
                terminal.table(["POSITION", "TIME", "KIND", "WHAT"], &rows)?;
            }
            Ok(None)
        }
        AuditAction::Verify { every_signature } => {
            let request = json!({"ask": "verify", "every_signature": every_signature});
            let found = node.get(request).await?;
            if terminal.is_json() {
                terminal.json(&found)?;
            } else {
                show_verification(terminal, &found)?;
            }
            Ok((found["ok"] != true).then_some(ErrorKind::Fault))
        }
    }
}

/// The position from which on `limit` records are left.
fn newest(status: &Value, limit: u64) -> u64 {
    let records = status["audit_head"]["position"].as_u64().map_or(0, |position| position + 1);
    records.saturating_sub(limit)
}

fn row(record: &Value) -> [String; 4] {
    let short = |field: &str| text(record, field).chars().take(8).collect::<String>();
    let what = match record["kind"].as_str().unwrap_or_default() {
        "intent" => {
            let decision = &record["decision"];
            let (effect, reason) = (text(decision, "effect"), text(decision, "reason"));
            let step = text(record, "step");
            let (what, point) = (text(record, "capability"), text(record, "point"));
            format!("{what} ({point}), run {} step {step}: {effect}, {reason}", short("run"))
        }
        "outcome" => {
            let writes = text(&record["writes"], "count");
            let reads = text(&record["reads"], "count");
            let (of, ending) = (text(record, "intent"), text(record, "ending"));
            format!("of {of}: {ending}, read {reads} documents, wrote {writes}")
        }
        "segment" => match record["recovered"]["position"].as_u64() {
            Some(lost) => format!("the disk was set back: record {lost} had been seen elsewhere"),
            None => format!("start {}", text(record, "boot")),
        },
        "trust" => format!("statement {}", short("statement")),
        "operator" => text(record, "action"),
        "strangers" => format!("{} turned away", text(record, "count")),
        "withdrawn" => "too large for the disk: not kept, and did not happen".to_owned(),
        _ => String::new(),
    };
    [text(record, "position"), local_time(record, "time"), text(record, "kind"), what]
}

fn show_verification(terminal: &Terminal, found: &Value) -> Result<(), CommandError> {
    if found["ok"] == true {
        let mark = terminal.styled(Style::Green, "ok");
        terminal.data(&format!(
            "{mark}: {} checked, each record as it was written",
            text(found, "records")
        ))?;
    } else {
        let fault = &found["fault"];
        let mark = terminal.styled(Style::Red, "fault");
        let (position, reason) = (text(fault, "position"), text(fault, "reason"));
        terminal.data(&format!("{mark}: record {position}: {reason}"))?;
    }
    for witness in items(&found["witnesses"]) {
        let (device, position) = (text(witness, "device"), text(witness, "position"));
        terminal.data(&format!("countersigned by {device} up to record {position}"))?;
    }
    for sentence in warnings(found) {
        let mark = terminal.styled(Style::Yellow, "warning");
        terminal.data(&format!("{mark}: {sentence}"))?;
    }
    Ok(())
}

/// What is no fault of the chain, and should be known.
fn warnings(found: &Value) -> Vec<String> {
    let setbacks = items(&found["setbacks"]).map(|it| text(it, "reason"));
    let bogus = items(&found["bogus"]).filter_map(Value::as_str).map(|device| {
        let device = harmless(device);
        format!(
            "the countersignature of {device} doesn't hold: this device never signed what it names"
        )
    });
    let forks = items(&found["forks"]).map(|it| text(it, "warning"));
    setbacks.chain(bogus).chain(forks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_records_are_listed() {
        assert_eq!(newest(&json!({"audit_head": {"position": 99}}), 50), 50);
        assert_eq!(newest(&json!({"audit_head": {"position": 9}}), 50), 0);
        assert_eq!(newest(&json!({"audit_head": null}), 50), 0);
    }

    #[test]
    fn what_is_no_fault_and_should_be_known_is_said() {
        let found = json!({"setbacks": [{"position": 21, "reason": "records 15 to 20 are missing"}],
            "bogus": ["phone"], "forks": [{"device": "server", "warning": "it is forked"}]});
        assert_eq!(
            warnings(&found),
            [
                "records 15 to 20 are missing",
                "the countersignature of phone doesn't hold: this device never signed what it names",
                "it is forked"
            ]
        );
        assert!(warnings(&json!({"setbacks": [], "bogus": [], "forks": []})).is_empty());
    }

    #[test]
    fn a_start_on_a_disk_that_was_set_back_says_so() {
        let record = json!({"position": 21, "kind": "segment", "boot": 3,
            "recovered": {"position": 20}});
        assert_eq!(row(&record)[3], "the disk was set back: record 20 had been seen elsewhere");
    }

    #[test]
    fn a_denial_shows_its_reason() {
        let record = json!({"position": 7, "kind": "intent", "capability": "notes.save",
            "point": "executor", "run": "aydambqga4daobqg", "step": "1",
            "decision": {"effect": "deny", "reason": "no rule allows it"}});
        let expected = "notes.save (executor), run aydambqg step 1: deny, no rule allows it";
        assert_eq!(row(&record)[3], expected);
    }
}

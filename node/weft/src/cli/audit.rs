//! `weft audit`: the signed record of what this device did and refused.

use serde_json::{Value, json};
use weft_api::ErrorKind;

use super::{
    Session,
    arguments::AuditAction,
    error::{CommandError, Done},
    node::Node,
    terminal::{Style, Terminal, harmless, items, local_time, short, text},
};

pub(super) async fn run(session: &Session, action: AuditAction) -> Done {
    let terminal = &session.terminal;
    let mut node = Node::reach(session).await?;
    match action {
        AuditAction::List { from, limit, key } => {
            let position = match (from, &key) {
                (Some(position), _) => position,
                (None, Some(key)) => {
                    former(&node.read_record(json!({"ask": "verify"})).await?, key, limit)
                }
                (None, None) => newest(&node.read(json!({"ask": "status"})).await?, limit),
            };
            let request = json!({"ask": "audit", "key": key, "position": position, "limit": limit});
            let records = node.read_record(request).await?;
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
            let found = node.read_record(request).await?;
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

/// The position from which on `limit` records are left of the chain of a former key.
fn former(found: &Value, key: &str, limit: u64) -> u64 {
    let mut chains = items(&found["former"]).filter(|it| text(it, "key").starts_with(key));
    let end = chains.find_map(|chain| chain["head"]["position"].as_u64());
    end.map_or(0, |end| end + 1).saturating_sub(limit)
}

fn row(record: &Value) -> [String; 4] {
    let what = match record["kind"].as_str().unwrap_or_default() {
        "intent" => {
            let decision = &record["decision"];
            let (effect, reason) = (text(decision, "effect"), text(decision, "reason"));
            let step = text(record, "step");
            let (what, point) = (text(record, "capability"), text(record, "point"));
            format!(
                "{what} ({point}), run {} step {step}: {effect}, {reason}",
                short(record, "run")
            )
        }
        "outcome" => {
            let writes = text(&record["writes"], "count");
            let reads = text(&record["reads"], "count");
            let (of, ending) = (text(record, "intent"), text(record, "ending"));
            format!("of {of}: {ending}, read {reads} documents, wrote {writes}")
        }
        "segment" => match record["recovered"]["position"].as_u64() {
            Some(lost) => format!("the disk was set back: record {lost} had been seen elsewhere"),
            None if !record["former"].is_null() => {
                let former = &record["former"];
                let (key, end) = (short(former, "device"), text(former, "position"));
                format!(
                    "start {}, under a new key: {key} ended at record {end}",
                    text(record, "boot")
                )
            }
            None => format!("start {}", text(record, "boot")),
        },
        "trust" => match text(record, "said") {
            said if said.is_empty() => format!("statement {}", short(record, "statement")),
            said => format!("{said} ({})", short(record, "statement")),
        },
        "operator" => text(record, "action"),
        "strangers" => format!("{} turned away", text(record, "count")),
        "denials" => {
            format!("{} more were denied to {}", text(record, "count"), short(record, "device"))
        }
        "withdrawn" => "too large for the disk: not kept, and did not happen".to_owned(),
        _ => String::new(),
    };
    [text(record, "position"), local_time(record, "time"), text(record, "kind"), what]
}

fn show_verification(terminal: &Terminal, found: &Value) -> Result<(), CommandError> {
    if found["fault"].is_null() {
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
    for former in items(&found["former"]) {
        terminal.data(&former_chain(terminal, former))?;
    }
    for sentence in warnings(found) {
        let mark = terminal.styled(Style::Yellow, "warning");
        terminal.data(&format!("{mark}: {sentence}"))?;
    }
    Ok(())
}

/// What was found of the chain of a key that this device had before.
fn former_chain(terminal: &Terminal, former: &Value) -> String {
    let key = short(former, "key");
    let fault = &former["fault"];
    if fault.is_null() {
        let mark = terminal.styled(Style::Green, "ok");
        let (records, witnesses) = (text(former, "records"), text(former, "witnesses"));
        let whose = if witnesses == "1" { "device" } else { "devices" };
        return format!(
            "{mark}: {records} under the former key {key}, countersigned by {witnesses} {whose}"
        );
    }
    let mark = terminal.styled(Style::Red, "fault");
    let (position, reason) = (text(fault, "position"), text(fault, "reason"));
    format!("{mark}: record {position} under the former key {key}: {reason}")
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
        let found = json!({"former": [{"key": "abcd", "head": {"position": 99}}]});
        assert_eq!((former(&found, "ab", 50), former(&found, "b", 50)), (50, 0));
    }

    #[test]
    fn a_former_chain_is_told_by_its_key() {
        let terminal = Terminal::new(false, 0);
        let chain = |fault: Value| {
            former_chain(
                &terminal,
                &json!({"key": "abcdefghij", "records": 7, "witnesses": 1, "fault": fault}),
            )
        };
        let right = chain(Value::Null);
        assert!(
            right.ends_with(": 7 under the former key abcdefgh, countersigned by 1 device"),
            "{right}"
        );
        let wrong = chain(json!({"position": 8, "reason": "record 8 was added"}));
        assert!(
            wrong.ends_with(": record 8 under the former key abcdefgh: record 8 was added"),
            "{wrong}"
        );
    }

    #[test]
    fn the_first_start_under_a_new_key_says_where_the_old_chain_ends() {
        let record = json!({"position": 0, "kind": "segment", "boot": 6, "recovered": null,
            "former": {"device": "abcdefghij", "position": 9}});
        assert_eq!(row(&record)[3], "start 6, under a new key: abcdefgh ended at record 9");
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

//! `weft status`: this node on one screen.

use serde_json::{Value, json};

use super::{
    Session,
    error::Done,
    node::Node,
    terminal::{Style, harmless, items, listed, short, text},
};

pub(super) async fn run(session: &Session) -> Done {
    let terminal = &session.terminal;
    let status = Node::reach(session).await?.get(json!({"ask": "status"})).await?;
    if terminal.is_json() {
        terminal.json(&status)?;
        return Ok(None);
    }
    if status["locked"] == true {
        terminal.data("this device is locked; weft unlock gives it its keys back")?;
        return Ok(None);
    }
    let name = terminal.styled(Style::Bold, &text(&status, "name"));
    let fabric = text(&status, "fabric_name");
    let (kind, role) = (text(&status, "kind"), text(&status, "role"));
    match status["standing"]["state"].as_str() {
        Some(state) => {
            let state = terminal.styled(Style::Red, &harmless(state));
            terminal.data(&format!("{name}, a {kind}, {state} in the fabric {fabric}"))?;
        }
        None => terminal.data(&format!("{name}, a {kind} and {role} of the fabric {fabric}"))?,
    }
    for (field, value) in facts(&status) {
        terminal.data(&format!("{}: {value}", terminal.styled(Style::Dim, &field)))?;
    }
    for warning in items(&status["warnings"]).filter_map(Value::as_str) {
        let mark = terminal.styled(Style::Yellow, "warning");
        terminal.data(&format!("{mark}: {}", harmless(warning)))?;
    }
    Ok(None)
}

/// What there is to say, a line each.
fn facts(status: &Value) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: String| facts.push((name.to_owned(), value));
    fact(
        "devices",
        match status["devices"].as_u64() {
            Some(0) => "this one; weft invite brings another".to_owned(),
            _ => format!(
                "{} of {} others here",
                text(status, "devices_here"),
                text(status, "devices")
            ),
        },
    );
    fact("documents", text(status, "documents"));
    fact("runs", format!("{} under way", text(status, "runs")));
    fact("models", or_none(listed(&status["models"])));
    fact("addresses", or_none(listed(&status["addresses"])));
    match status["audit_head"]["position"].as_u64() {
        Some(position) => fact("audit records", (position + 1).to_string()),
        None => fact("audit records", "none yet".to_owned()),
    }
    fact("rules", short(status, "policy"));
    match status["keys"].as_str() {
        Some("file") => fact("keys", "file (whoever has the disk reads all)".to_owned()),
        Some("passphrase") => {
            fact("keys", "passphrase (weft lock takes them out of memory)".into())
        }
        Some("credential") => fact("keys", "systemd credential".to_owned()),
        Some(other) => fact("keys", harmless(other)),
        None => {}
    }
    if status["recovery"] == true {
        fact("recovery", "by the 24 words: weft recover, on an empty machine".to_owned());
    } else {
        fact("no recovery", "if all admin devices are lost, the fabric is lost".to_owned());
    }
    facts
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_keys_are_kept_and_what_is_missing_is_said() {
        let said = |status: Value| {
            let lines = facts(&status).into_iter().map(|(name, value)| format!("{name}: {value}"));
            lines.collect::<Vec<_>>().join("\n")
        };
        let kept = said(json!({"keys": "file", "recovery": true, "audit_head": {"position": 4},
            "devices": 0}));
        assert!(kept.contains("devices: this one; weft invite"), "{kept}");
        assert!(kept.contains("keys: file (whoever has the disk reads all)"), "{kept}");
        assert!(kept.contains("recovery: by the 24 words") && kept.contains("audit records: 5"));
        let bare = said(json!({"recovery": false}));
        assert!(bare.contains("no recovery: ") && !bare.contains("keys"), "{bare}");
    }
}

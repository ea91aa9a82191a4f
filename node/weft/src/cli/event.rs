//! `weft events`: what happens, as it happens.

use jiff::Zoned;
use serde_json::{Value, json};

use super::{
    Session,
    error::Done,
    node::{Node, Said},
    terminal::{Style, local_time, short, text},
};

pub(super) async fn run(session: &Session) -> Done {
    let terminal = &session.terminal;
    let mut node = Node::reach(session).await?;
    let mut conversation = node.ask(json!({"ask": "watch"})).await?;
    loop {
        match node.next(&mut conversation).await? {
            Said::Reply(_) => terminal.note("listening; Ctrl-C ends it"),
            Said::Event(event) if terminal.is_json() => terminal.json(&event)?,
            Said::Event(event) => {
                if let Some(line) = line(&event) {
                    let now = Zoned::now().strftime("%H:%M:%S").to_string();
                    terminal.data(&format!("{}  {line}", terminal.styled(Style::Dim, &now)))?;
                }
            }
        }
    }
}

/// An event in words; `None` for one that says nothing to a person.
fn line(event: &Value) -> Option<String> {
    let field = |name: &str| text(event, name);
    let run = || short(event, "run");
    Some(match event["event"].as_str()? {
        "step-placed" => {
            format!(
                "run {} step {}: {} on {}",
                run(),
                field("step"),
                field("capability"),
                field("device")
            )
        }
        "step-progressed" => {
            let said = event["log"].as_str().or_else(|| event["text"].as_str())?;
            format!("run {} step {}: {}", run(), field("step"), super::terminal::harmless(said))
        }
        "step-ended" => {
            let state = text(&event["outcome"], "state");
            format!("run {} step {}: {state}", run(), field("step"))
        }
        "asked" => {
            format!("run {} step {} waits for a yes: {}", run(), field("step"), field("reason"))
        }
        "run-ended" => format!("run {}: {}", run(), field("state")),
        "invitation-met" => {
            format!("{}, a {}, came to the invitation", field("name"), field("kind"))
        }
        "invitation-ended" => {
            let name = field("name");
            let who = if name.is_empty() { String::new() } else { format!(", {name}") };
            let reason = field("reason");
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("the invitation ended: {}{who}{why}", field("outcome"))
        }
        "device-here" => format!("{} is here", field("name")),
        "device-away" => format!("{} is away", field("name")),
        "devices-changed" => "the devices changed".to_owned(),
        "timer-due" => {
            let late = event["late_ms"].as_u64().filter(|late| *late >= 1_000);
            let late = late.map(|late| format!(", {} s late", late / 1_000)).unwrap_or_default();
            format!("timer: {}, due {}{late}", field("label"), local_time(event, "due"))
        }
        // What happens in runs is told by events of their own.
        "document-changed" if event["kind"] == "run" => return None,
        "document-changed" => {
            let whence = if event["remote"] == true { " elsewhere" } else { "" };
            format!("a {} changed{whence}", field("kind"))
        }
        "warning" => field("text"),
        other => super::terminal::harmless(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_in_words() {
        for (event, expected) in [
            (json!({"event": "device-here", "name": "phone"}), Some("phone is here")),
            (
                json!({"event": "invitation-ended", "outcome": "paired", "name": "phone"}),
                Some("the invitation ended: paired, phone"),
            ),
            (json!({"event": "step-progressed", "text": null, "log": null}), None),
            (
                json!({"event": "document-changed", "kind": "note", "remote": true}),
                Some("a note changed elsewhere"),
            ),
            (json!({"event": "document-changed", "kind": "run", "remote": true}), None),
        ] {
            assert_eq!(line(&event).as_deref(), expected, "{event}");
        }
    }
}

//! `weft events`: what happens, as it happens.

use jiff::Zoned;
use serde_json::{Value, json};
use weft_api::ErrorKind;

use super::{
    Session,
    error::{CommandError, Done},
    node::{self, Node, Said},
    terminal::{Style, local_time, short, text},
};

pub(super) async fn run(session: &Session) -> Done {
    let terminal = &session.terminal;
    let mut node = Node::reach(session).await?;
    let mut conversation = node.ask(json!({"ask": "watch"})).await?;
    loop {
        match node.hear(&mut conversation).await? {
            None => return ended(session).await,
            Some(Said::Reply(_)) => terminal.note("listening; Ctrl-C ends it"),
            Some(Said::Event(event)) if terminal.is_json() => terminal.json(&event)?,
            Some(Said::Event(event)) => {
                if let Some(line) = line(&event) {
                    let now = Zoned::now().strftime("%H:%M:%S").to_string();
                    terminal.data(&format!("{}  {line}", terminal.styled(Style::Dim, &now)))?;
                }
            }
        }
    }
}

/// Says why no more is told: the node stopped, or let go of a listener that was too far behind.
async fn ended(session: &Session) -> Done {
    if node::state(session).await.is_ok() {
        let message = "the node no longer tells this command what happens";
        return Err(CommandError::new(ErrorKind::Other, message).hint("weft events begins again"));
    }
    session.terminal.say("the node has stopped");
    Ok(Some(ErrorKind::NotRunning))
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
            let label = field("label");
            let what = if label.is_empty() { String::new() } else { format!(": {label},") };
            format!("timer{what} due {}{late}", local_time(event, "due"))
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
    use tokio::sync::mpsc;
    use weft_api::{Door, DoorInput, DoorMessage};
    use weft_core::door::Reply;

    use super::*;
    use crate::cli::terminal::Terminal;

    /// Watches a node that lets go of the watcher, and stops or goes on.
    async fn watched(stops: bool) -> Done {
        let home = tempfile::tempdir().unwrap();
        let (inputs, mut doors) = mpsc::channel(8);
        let serving = tokio::spawn(weft_api::serve(Door::open(home.path()).unwrap(), inputs));
        let node = tokio::spawn(async move {
            let Some(DoorInput::Asked { answers, .. }) = doors.recv().await else { return };
            answers.send(DoorMessage::Reply(Reply::Done)).await.unwrap();
            drop(answers);
            while !stops && let Some(input) = doors.recv().await {
                if let DoorInput::Asked { answers, .. } = input {
                    answers.send(DoorMessage::Reply(Reply::Done)).await.unwrap();
                }
            }
        });
        let session = Session { home: home.path().into(), terminal: Terminal::new(false, 0) };
        let done = run(&session).await;
        serving.abort();
        node.await.unwrap();
        done
    }

    #[tokio::test]
    async fn a_node_that_stops_is_no_error_and_one_that_lets_go_is() {
        assert_eq!(watched(true).await.unwrap(), Some(ErrorKind::NotRunning));
        assert_eq!(watched(false).await.unwrap_err().kind(), ErrorKind::Other);
    }

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
            (json!({"event": "timer-due", "label": "tea", "due": null}), Some("timer: tea, due ")),
            (json!({"event": "timer-due", "label": null, "due": null}), Some("timer due ")),
            (json!({"event": "timer-due", "label": "", "due": null}), Some("timer due ")),
        ] {
            assert_eq!(line(&event).as_deref(), expected, "{event}");
        }
    }
}

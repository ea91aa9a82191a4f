//! `weft rotate`: another key takes the place of this device's.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_api::ErrorKind;

use super::{
    Session,
    arguments::RotateArguments,
    error::{CommandError, Done},
    node::{self, Node},
    terminal::{self, short, text},
};

/// How often the node is asked whether it is back.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A node that begins anew waits for what it runs to end. One that is not back after so long will not be.
const BACK_AFTER_MAX: Duration = Duration::from_secs(20);

pub(super) async fn run(session: &Session, arguments: &RotateArguments) -> Done {
    let terminal = &session.terminal;
    let mut node = Node::reach(session).await?;
    if !arguments.yes {
        let status = node.read(json!({"ask": "status"})).await?;
        // One that is locked or does not belong says so itself.
        if status["standing"].is_null() && status["locked"] != true {
            confirm(&text(&status, "name"))?;
        }
    }
    node.acts("weft status");
    let rotated = node.get(json!({"ask": "rotate"})).await?;
    drop(node);
    back(session, &rotated["device"]).await?;
    if terminal.is_json() {
        terminal.json(&rotated)?;
    } else {
        terminal.say(&said(&rotated));
    }
    Ok(None)
}

fn confirm(name: &str) -> Result<(), CommandError> {
    let question =
        format!("Replace the key of {name}? Copies of the old one are worth nothing then.");
    terminal::confirm("replacing this device's key needs a yes", &question)
}

fn said(rotated: &Value) -> String {
    format!(
        "this device has the key {} now; {} is worth nothing any more. Devices that are away hear it when \
         they come",
        short(rotated, "device"),
        short(rotated, "former")
    )
}

/// Waits until the node is back under its new key.
async fn back(session: &Session, device: &Value) -> Result<(), CommandError> {
    let begun = Instant::now();
    while begun.elapsed() < BACK_AFTER_MAX {
        if node::state(session).await.is_ok_and(|status| status["device"] == *device) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let message = "the key is replaced, and the node did not come back under the new one";
    Err(CommandError::new(ErrorKind::NotRunning, message)
        .hint("its own messages say why; weft up starts it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_keys_are_told_apart() {
        let rotated = json!({"former": "aaaaaaaaaa", "device": "bbbbbbbbbb"});
        assert_eq!(
            said(&rotated),
            "this device has the key bbbbbbbb now; aaaaaaaa is worth nothing any more. Devices that are \
             away hear it when they come"
        );
    }
}

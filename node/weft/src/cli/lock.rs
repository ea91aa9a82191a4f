//! `weft lock` and `weft unlock`: the keys leave the node's memory, and come back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_api::{Client, ClientError, ErrorKind, UnlockKey};
use weft_store::key::Keeping;

use super::{
    Session,
    arguments::{LockArguments, UnlockArguments},
    error::{CommandError, Done},
    key,
    node::{self, Node},
    passphrase,
    terminal::{self, Terminal, items, text},
};
use crate::daemon::{home::Home, memory};

/// How often a node that begins anew is asked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A node that begins anew holds no socket for some milliseconds. One that has none for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// Locks the node: its process stays, and holds no key any more.
pub(super) async fn lock(session: &Session, arguments: &LockArguments) -> Done {
    let mut node = Node::reach(session).await?;
    let status = node.read(json!({"ask": "status"})).await?;
    if status["locked"] == true {
        return end(&session.terminal, true, "this device is locked already");
    }
    if status["keys"] == "passphrase" && status["runs"].as_u64().unwrap_or(0) > 0 && !arguments.yes
    {
        let runs = node.read(json!({"ask": "runs"})).await?;
        confirm(&under_way(&runs))?;
    }
    drop(node);
    begin_anew(session, json!({"ask": "lock"})).await?;
    until(session, true).await?;
    end(&session.terminal, true, "locked: this device does nothing until weft unlock")
}

/// Unlocks the node with the passphrase, which does not leave this process: the node is given the key
/// that is made of it.
pub(super) async fn unlock(session: &Session, arguments: &UnlockArguments) -> Done {
    let mut node = Node::reach(session).await?;
    let status = node.read(json!({"ask": "status"})).await?;
    if status["locked"] != true {
        return end(&session.terminal, false, "this device is not locked");
    }
    memory::protect()?;
    let file = Home::new(&session.home).read_key()?;
    if file.keeping() != Keeping::Passphrase {
        let message = format!("this device's keys are kept under {}", file.keeping());
        return Err(CommandError::new(ErrorKind::Usage, message).hint("start its node anew"));
    }
    let source = arguments.passphrase_from.into();
    let typed = passphrase::known(source, "The passphrase of this device's keys: ")?
        .ok_or_else(passphrase::no_terminal)?;
    let key = file.key_of_passphrase(&typed).map_err(|error| key::failed(&error))?;
    drop((node, typed));
    begin_anew(session, UnlockKey::from(*key.as_bytes()).to_json()).await?;
    drop(key);
    until(session, false).await?;
    end(&session.terminal, false, "unlocked")
}

/// What runs, in words.
fn under_way(runs: &Value) -> Vec<String> {
    let open = items(runs).filter(|run| run["ended"].is_null());
    open.map(|run| text(run, "words")).collect()
}

fn confirm(runs: &[String]) -> Result<(), CommandError> {
    let what = match runs {
        [] => "what is under way".to_owned(),
        [one] => format!("{one:?}"),
        [first, rest @ ..] => format!("{first:?} and {} more", rest.len()),
    };
    let question = format!("Lock this device, and cut {what}?");
    terminal::confirm(&format!("locking cuts {what}"), &question)
}

/// Asks the node to begin anew, which may cut its answer off.
async fn begin_anew(session: &Session, request: Value) -> Result<(), CommandError> {
    let mut node = Client::connect(&session.home).await?;
    match node.get(request).await {
        Ok(answer) => Ok(answer.map(drop)?),
        Err(ClientError::HungUp) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the node has begun anew.
async fn until(session: &Session, is_locked: bool) -> Result<(), CommandError> {
    let mut answered = Instant::now();
    while answered.elapsed() < GONE_AFTER {
        match node::state(session).await {
            Ok(status) if status["locked"] == is_locked => return Ok(()),
            Ok(_) => answered = Instant::now(),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(CommandError::new(ErrorKind::NotRunning, "the node ended and did not come back")
        .hint("its own messages say why"))
}

fn end(terminal: &Terminal, locked: bool, words: &str) -> Done {
    if terminal.is_json() {
        terminal.json(&json!({"locked": locked}))?;
    } else {
        terminal.say(words);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lock_would_cut_is_named() {
        let runs = json!([{"words": "summarize a.pdf", "ended": null},
            {"words": "note that x", "ended": "2026-03-10T09:00:00Z"}]);
        assert_eq!(under_way(&runs), ["summarize a.pdf"]);
    }
}

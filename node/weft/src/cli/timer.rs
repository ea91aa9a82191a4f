//! `weft timers`: timers that have not fired.

use serde_json::json;

use super::{
    Session,
    error::Done,
    node::Node,
    terminal::{items, local_time, text},
};

pub(super) async fn run(session: &Session) -> Done {
    let terminal = &session.terminal;
    let timers = Node::reach(session).await?.read(json!({"ask": "timers"})).await?;
    if terminal.is_json() {
        terminal.json(&timers)?;
        return Ok(None);
    }
    let rows: Vec<_> = items(&timers)
        .map(|timer| [local_time(timer, "due"), text(timer, "fires_on"), text(timer, "label")])
        .collect();
    if rows.is_empty() {
        terminal.note("no timer runs");
        return Ok(None);
    }
    terminal.table(["DUE", "FIRES ON", "FOR"], &rows)?;
    Ok(None)
}

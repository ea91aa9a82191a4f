//! `weft policy`: what the rules say, and their own tests.

use serde_json::{Value, json};
use weft_api::ErrorKind;
use weft_engine::suite;

use super::{
    Session,
    error::{CommandError, Done},
    node::Node,
    say,
    terminal::{Style, items, text},
};

/// Explains the decision on each step that the words mean.
pub(super) async fn check(session: &Session, words: &[String]) -> Done {
    let terminal = &session.terminal;
    let request = say::sentence(words, None).to_json();
    let plan = Node::reach(session).await?.read(request).await?;
    if items(&plan["steps"]).next().is_none() {
        return Err(say::not_understood(&plan, words));
    }
    if terminal.is_json() {
        terminal.json(&items(&plan["steps"]).map(decision).collect())?;
        return Ok(None);
    }
    for step in items(&plan["steps"]) {
        let it = decision(step);
        let style = match it["effect"].as_str().unwrap_or_default() {
            "allow" => Style::Green,
            "ask" => Style::Yellow,
            _ => Style::Red,
        };
        let device = match it["device"].as_str() {
            Some(device) => format!(" on {}", super::terminal::harmless(device)),
            None => String::new(),
        };
        let effect = terminal.styled(style, &text(&it, "effect"));
        let (id, capability) = (text(&it, "id"), text(&it, "capability"));
        terminal.data(&format!("{id}  {capability}{device}: {effect}, {}", text(&it, "reason")))?;
    }
    Ok(None)
}

fn decision(step: &Value) -> Value {
    json!({
        "id": step["id"],
        "capability": step["capability"],
        "device": step["device"],
        "effect": step["decision"]["effect"],
        "reason": step["decision"]["reason"],
        "obligations": step["decision"]["obligations"],
    })
}

/// Runs the tests of the rules that this program carries. Needs no node.
pub(super) fn test(session: &Session) -> Done {
    let terminal = &session.terminal;
    let report = suite::run_embedded().map_err(|error| CommandError::failed(&error))?;
    let is_ok = report.failed.is_empty() && !report.passed.is_empty();
    if terminal.is_json() {
        terminal.json(&json!({
            "ok": is_ok,
            "passed": report.passed,
            "failed": report.failed,
            "uncovered": report.uncovered,
        }))?;
    } else {
        for name in &report.failed {
            terminal.data(&format!("{} {name}", terminal.styled(Style::Red, "failed")))?;
        }
        for line in &report.uncovered {
            terminal.data(&format!("{} {line}", terminal.styled(Style::Yellow, "not covered")))?;
        }
        let (passed, failed) = (report.passed.len(), report.failed.len());
        terminal.data(&format!("{passed} passed, {failed} failed"))?;
    }
    Ok((!is_ok).then_some(ErrorKind::Fault))
}

//! `weft run`: runs, one run with its journal, stopping one.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Session,
    arguments::RunAction,
    error::{CommandError, Done},
    node::Node,
    say::candidate_line,
    terminal::{Style, Terminal, harmless, items, length, local_time, text},
};

/// How much of a run's id is shown in a list: enough to name it by.
const ID_CHARS: usize = 8;

pub(super) async fn run(session: &Session, action: RunAction) -> Done {
    let terminal = &session.terminal;
    let mut node = Node::reach(session).await?;
    match action {
        RunAction::List => {
            let runs = node.read(json!({"ask": "runs"})).await?;
            if terminal.is_json() {
                terminal.json(&runs)?;
            } else {
                list(terminal, &runs)?;
            }
        }
        RunAction::Show { id } => {
            let prefix = id.unwrap_or_default();
            let run = node.read(json!({"ask": "run", "prefix": prefix})).await?;
            if terminal.is_json() {
                terminal.json(&run)?;
            } else {
                show(terminal, &run)?;
            }
        }
        RunAction::Cancel { id } => {
            let run = node.read(json!({"ask": "run", "prefix": id})).await?;
            node.acts("weft run list");
            let done = node.get(json!({"ask": "cancel", "run": run["id"]})).await?;
            if terminal.is_json() {
                terminal.json(&done)?;
            } else {
                terminal.note(&format!("told run {} to stop", short(&run)));
            }
        }
    }
    Ok(None)
}

fn short(run: &Value) -> String {
    text(run, "id").chars().take(ID_CHARS).collect()
}

fn list(terminal: &Terminal, runs: &Value) -> Result<(), CommandError> {
    let rows: Vec<_> = items(runs)
        .map(|run| {
            let started = local_time(run, "started");
            [short(run), text(run, "state"), text(run, "owner"), started, text(run, "words")]
        })
        .collect();
    terminal.table_cut(["RUN", "STATE", "OWNER", "STARTED", "WORDS"], rows)
}

fn show(terminal: &Terminal, run: &Value) -> Result<(), CommandError> {
    terminal.data(&format!(
        "{}  {}",
        short(run),
        terminal.styled(Style::Bold, &text(run, "words"))
    ))?;
    let took = took(&run["started"], &run["ended"]);
    terminal.data(&format!(
        "{}, by {}, began {}{took}",
        text(run, "state"),
        text(run, "owner"),
        local_time(run, "started")
    ))?;
    for line in journal_lines(&run["journal"]) {
        terminal.data(&line)?;
    }
    for wait in items(&run["waits"]) {
        terminal.data(&wait_line(wait, &local_time(wait, "since")))?;
    }
    if items(&run["journal"]).next().is_none() {
        terminal.note("its steps are written on the device that owns it");
    }
    Ok(())
}

/// What the journal says, step by step in the order in which it was written.
fn journal_lines(journal: &Value) -> Vec<String> {
    let plan = items(journal)
        .find(|entry| entry["entry"] == "started")
        .map_or(&Value::Null, |entry| &entry["plan"]["steps"]);
    let name = |step: &Value| {
        items(plan)
            .find(|planned| text(planned, "id") == text_of(step))
            .map(|planned| format!(" {}", text(planned, "capability")))
            .unwrap_or_default()
    };
    let mut lines = Vec::new();
    for entry in items(journal) {
        let step = &entry["step"];
        match entry["entry"].as_str().unwrap_or_default() {
            "offered" => {
                let again = match entry["epoch"].as_u64() {
                    Some(epoch) if epoch > 1 => format!(", try {epoch}"),
                    _ => String::new(),
                };
                let device = text(entry, "device");
                lines.push(format!("  {}{} on {device}{again}", text_of(step), name(step)));
                for candidate in items(&entry["candidates"]) {
                    let mark = if candidate["device"] == entry["device"] { "→" } else { " " };
                    lines.push(format!("      {mark} {}", candidate_line(candidate)));
                }
            }
            "ended" => {
                let outcome = &entry["outcome"];
                let offered = items(journal).find(|offered| {
                    offered["entry"] == "offered"
                        && offered["step"] == *step
                        && offered["epoch"] == entry["epoch"]
                });
                let took = offered.map(|it| took(&it["time"], &entry["time"])).unwrap_or_default();
                let how = match outcome["state"].as_str().unwrap_or_default() {
                    "failed" => {
                        format!("{}: {}", text(outcome, "refusal"), text(outcome, "reason"))
                    }
                    other => harmless(other),
                };
                lines.push(format!("  {}{}: {how}{took}", text_of(step), name(step)));
            }
            "logged" => lines.push(format!("  {}  | {}", text_of(step), text(entry, "line"))),
            _ => {}
        }
    }
    lines
}

/// What a step waits for, and since when.
fn wait_line(wait: &Value, since: &str) -> String {
    let device = text(wait, "device");
    let what = match wait["for"].as_str().unwrap_or_default() {
        "device" => format!("for {device}, which is away"),
        "yes" => format!("for a person's yes to its running on {device}"),
        _ => format!("for word from {device}"),
    };
    let most = wait["most_s"].as_u64().unwrap_or_default();
    let (step, name) = (text(wait, "step"), text(wait, "capability"));
    format!("  {step} {name} waits {what}; since {since}, {most} s more at most")
}

fn text_of(step: &Value) -> String {
    step.as_str().map(harmless).unwrap_or_default()
}

/// `, took 1.2 s`, where both ends are known.
fn took(from: &Value, to: &Value) -> String {
    let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    match (time(from), time(to)) {
        (Some(from), Some(to)) => {
            format!(", took {}", length(to.duration_since(from).as_secs_f64() * 1_000.0))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_says_what_it_waits_for_and_since_when() {
        let wait = |what: &str| {
            let wait = json!({"step": "1", "capability": "notes.save", "for": what,
                "device": "server", "most_s": 42});
            wait_line(&wait, "09:00:05")
        };
        let expected = [
            "  1 notes.save waits for server, which is away; since 09:00:05, 42 s more at most",
            "  1 notes.save waits for word from server; since 09:00:05, 42 s more at most",
            "  1 notes.save waits for a person's yes to its running on server; since 09:00:05, 42 s \
             more at most",
        ];
        assert_eq!(["device", "word", "yes"].map(wait), expected);
    }

    #[test]
    fn what_no_device_could_do_says_why() {
        let reason = "no device can do notes.save now (server: away)";
        let journal = json!([
            {"entry": "started", "plan": {"steps": [{"id": 1, "capability": "notes.save"}]}},
            {"entry": "ended", "step": "1", "epoch": 1, "time": "2026-03-10T09:00:02.5Z",
             "outcome": {"state": "failed", "refusal": "not-found", "reason": reason}},
        ]);
        assert_eq!(journal_lines(&journal), [format!("  1 notes.save: not-found: {reason}")]);
    }

    #[test]
    fn a_journal_says_where_each_step_ran_and_why() {
        let journal = json!([
            {"entry": "started", "plan": {"steps": [{"id": 1, "capability": "text.summarize"}]}},
            {"entry": "offered", "step": "1", "epoch": 1, "device": "server",
             "time": "2026-03-10T09:00:00Z", "candidates": [
                {"device": "server", "cost_ms": 12.5, "reasons": ["has the model", "idle"]},
                {"device": "phone", "cost_ms": null, "reasons": ["no model"]},
             ]},
            {"entry": "logged", "step": "1.1", "line": "three parts"},
            {"entry": "ended", "step": "1", "epoch": 1, "time": "2026-03-10T09:00:02.5Z",
             "outcome": {"state": "done"}},
            {"entry": "finished", "state": "done"},
        ]);
        let expected = [
            "  1 text.summarize on server",
            "      → server: 12.5 ms; has the model, idle",
            "        phone: not possible; no model",
            "  1.1  | three parts",
            "  1 text.summarize: done, took 2.5 s",
        ];
        assert_eq!(journal_lines(&journal), expected);
    }
}

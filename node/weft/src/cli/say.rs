//! `weft do`: words, their plan, and the run that comes of them.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{Zoned, civil::DateTime, tz::TimeZone};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::Instant,
};
use weft_api::{ErrorKind, FILE_BYTES_MAX, Say};
use weft_protocol::host_call::Refusal;

use super::{
    Session,
    arguments::DoArguments,
    error::{CommandError, Done},
    node::{Node, Said},
    screen::Screen,
    terminal::{self, Style, Terminal, harmless, items, length, listed, text},
};

/// How long a cancelled run has to say that it ended.
const CANCEL: Duration = Duration::from_secs(2);

pub(super) async fn run(session: &Session, arguments: &DoArguments) -> Done {
    let terminal = &session.terminal;
    let mut node = Node::reach(session).await?;
    let mut say = sentence(&arguments.words, arguments.now);
    let plan = node.read(say.to_json()).await?;
    if arguments.plan {
        show_plan(terminal, &plan)?;
        return Ok(None);
    }
    if items(&plan["steps"]).next().is_none() {
        return Err(not_understood(&plan, &arguments.words));
    }
    say.files = open_files(items(&plan["paths"]).filter_map(Value::as_str))?;
    say.plan_only = false;
    say.can_ask = !terminal.is_json() && terminal::can_ask();
    let end = follow(terminal, &mut node, &say, &plan).await?;
    finish(terminal, end)
}

/// Words as they are sent for their plan only, read against `now` or the clock.
pub(super) fn sentence(words: &[String], now: Option<DateTime>) -> Say {
    let here = Zoned::now();
    // A zone that is only an offset has no name to send.
    let here = match here.time_zone().iana_name() {
        Some(_) => here,
        None => here.with_time_zone(TimeZone::UTC),
    };
    let time = now.unwrap_or_else(|| here.datetime());
    Say {
        words: words.join(" "),
        local_time: time.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        time_zone: here.time_zone().iana_name().unwrap_or("UTC").to_owned(),
        plan_only: true,
        files: BTreeMap::new(),
        can_ask: false,
    }
}

/// The error for words that mean nothing, with what comes nearest.
pub(super) fn not_understood(plan: &Value, words: &[String]) -> CommandError {
    let mut error =
        CommandError::new(ErrorKind::NotUnderstood, "the words were not understood; nothing ran");
    if let Some(file) = file_among(words, Path::new("")) {
        error = error.hint(format!("to name the file {file}, say ./{file}"));
    }
    match nearest(plan) {
        Some(nearest) => error.hint(nearest),
        None => error.hint("weft agents lists what can be said"),
    }
}

/// A word that names a file of the folder, and was read as a word since it looks like any other.
fn file_among(words: &[String], folder: &Path) -> Option<String> {
    let said = words.iter().flat_map(|words| words.split_whitespace());
    let mut plain = said.filter(|it| !it.contains(['/', '.']));
    plain.find(|it| folder.join(it).is_file()).map(harmless)
}

fn nearest(plan: &Value) -> Option<String> {
    let said: Vec<_> = items(&plan["nearest"]).filter_map(Value::as_str).map(harmless).collect();
    (!said.is_empty()).then(|| format!("the nearest commands are:\n    {}", said.join("\n    ")))
}

/// Shows a plan that was asked for.
fn show_plan(terminal: &Terminal, plan: &Value) -> Result<(), CommandError> {
    if terminal.is_json() {
        return terminal.json(plan);
    }
    for line in plan_lines(plan, |style, word| terminal.styled(style, word)) {
        terminal.data(&line)?;
    }
    if items(&plan["steps"]).next().is_none() {
        terminal.say("the words were not understood; nothing would run");
        if let Some(nearest) = nearest(plan) {
            terminal.say(&nearest);
        }
    }
    Ok(())
}

/// A plan's steps, a line each, and a second one for what stands in a step's way.
fn plan_lines(plan: &Value, styled: impl Fn(Style, &str) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    for step in items(&plan["steps"]) {
        let mut line =
            format!("{}  {}", text(step, "id"), styled(Style::Bold, &text(step, "capability")));
        match step["device"].as_str() {
            Some(device) => line.push_str(&format!(" on {}", harmless(device))),
            None if step["candidates"].is_array() => line.push_str(" on no device"),
            None => {}
        }
        let calls = listed(&step["may_call"]);
        if !calls.is_empty() {
            line.push_str(&styled(Style::Dim, &format!(" (may call {calls})")));
        }
        line.push_str(&arguments_text(step, usize::MAX));
        lines.push(line);
        let decision = &step["decision"];
        if decision["effect"].as_str().is_some_and(|effect| effect != "allow") {
            let said = format!("{}: {}", text(decision, "effect"), text(decision, "reason"));
            lines.push(format!("     {}", styled(Style::Yellow, &said)));
        }
        if step["device"].is_null() {
            for candidate in items(&step["candidates"]) {
                lines.push(format!("     {}", candidate_line(candidate)));
            }
        }
    }
    lines
}

/// How much of an argument is shown of a step that runs; `--plan` shows all.
const ARGUMENT_CHARS_MAX: usize = 60;

/// What a step is given, as a line goes on, with at most so many characters of each argument.
fn arguments_text(step: &Value, chars_max: usize) -> String {
    let arguments = step["args"].as_object().into_iter().flatten().map(|(name, value)| {
        let value = match (value, &value["output"]) {
            (Value::String(text), _) => time_text(text).unwrap_or_else(|| harmless(text)),
            (_, Value::Number(from)) => format!("what step {from} gives"),
            _ => harmless(&value.to_string()),
        };
        let cut = value.char_indices().nth(chars_max).map_or(value.len(), |(at, _)| at);
        let more = if cut < value.len() { "…" } else { "" };
        format!("  {}: {}{more}", harmless(name), &value[..cut])
    });
    arguments.collect()
}

/// A length of time or a time as a person writes it; `None` for any other text.
fn time_text(text: &str) -> Option<String> {
    if text.starts_with("PT") {
        let span: jiff::Span = text.parse().ok()?;
        let units = [
            (span.get_hours().into(), "h"),
            (span.get_minutes(), "min"),
            (span.get_seconds(), "s"),
        ];
        let said = units.into_iter().filter(|(amount, _)| *amount != 0);
        let said: Vec<_> = said.map(|(amount, unit)| format!("{amount} {unit}")).collect();
        return (!said.is_empty()).then(|| said.join(" "));
    }
    let is_time = text.len() == "2026-03-10T09:00:00".len() && text.parse::<DateTime>().is_ok();
    is_time.then(|| text.replacen('T', " ", 1))
}

/// A device that was looked at, and why it is better or worse.
pub(super) fn candidate_line(candidate: &Value) -> String {
    let cost = match candidate["cost_ms"].as_f64() {
        Some(cost) => length(cost),
        None => "not possible".to_owned(),
    };
    format!("{}: {cost}; {}", text(candidate, "device"), listed(&candidate["reasons"]))
}

/// Opens the files that the words name, with the person's own rights.
fn open_files<'p>(
    paths: impl Iterator<Item = &'p str>,
) -> Result<BTreeMap<String, Vec<u8>>, CommandError> {
    let mut files = BTreeMap::new();
    let mut room = FILE_BYTES_MAX;
    for said in paths {
        let bytes = read_file(&from_home(said), room)?;
        room -= bytes.len();
        files.insert(said.to_owned(), bytes);
    }
    Ok(files)
}

/// The shell leaves `~/` alone within quotes.
fn from_home(said: &str) -> PathBuf {
    match (said.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(said),
    }
}

fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, CommandError> {
    let shown = harmless(&path.display().to_string());
    let unreadable = |error: std::io::Error| {
        let (kind, why) = if error.kind() == std::io::ErrorKind::NotFound {
            (ErrorKind::NotFound, "there is no such file here".to_owned())
        } else if error.kind() == std::io::ErrorKind::PermissionDenied {
            (ErrorKind::Denied, "you may not (permission denied)".to_owned())
        } else {
            (ErrorKind::Other, error.to_string())
        };
        CommandError::new(kind, format!("failed to read {shown}: {why}"))
    };
    let file = File::open(path).map_err(unreadable)?;
    let kind = file.metadata().map_err(unreadable)?;
    if kind.is_dir() {
        let message = format!("failed to read {shown}: it is a folder");
        return Err(CommandError::new(ErrorKind::Usage, message).hint("name a file in it"));
    }
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > bytes_max {
        let has = match kind.len() >> 20 {
            0 => String::new(),
            mib => format!("it has {mib} MiB, and "),
        };
        let message = format!(
            "failed to read {shown}: {has}the files of a command may have {} MiB together",
            FILE_BYTES_MAX >> 20
        );
        return Err(CommandError::new(ErrorKind::Usage, message));
    }
    Ok(bytes)
}

/// How a run ended, as far as this door heard.
#[derive(Debug)]
enum End {
    /// It ended, or the person no longer waits.
    Cancelled,
    /// The event, the refusal of the last step that failed, and what stands on the screen.
    Ended { event: Value, refusal: Option<ErrorKind>, screen: Screen },
}

/// Starts the run and shows what happens, until it ends or the person has had enough of it.
async fn follow(
    terminal: &Terminal,
    node: &mut Node,
    say: &Say,
    plan: &Value,
) -> Result<End, CommandError> {
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|error| anyhow::Error::new(error).context("failed to listen for Ctrl-C"))?;
    let mut conversation = node.ask(say.to_json()).await?;
    node.acts("weft run list");
    let last_step = items(&plan["steps"]).last().map(|step| text(step, "id"));
    let mut screen = Screen::new(*terminal, last_step);
    let mut run: Option<String> = None;
    let mut cancelled_until: Option<Instant> = None;
    let mut questions: VecDeque<Value> = VecDeque::new();
    let mut asking: Option<JoinHandle<bool>> = None;
    let mut refusal = None;
    loop {
        if asking.is_none()
            && let Some(question) = questions.front()
        {
            let question = question_text(question);
            screen.settle()?;
            asking = Some(tokio::task::spawn_blocking(move || terminal::ask(&question)));
        }
        let event = tokio::select! {
            biased;
            _ = interrupts.recv() => {
                let (Some(run), None) = (&run, cancelled_until) else {
                    screen.settle()?;
                    return Ok(End::Cancelled);
                };
                screen.note("cancelling; Ctrl-C once more leaves at once")?;
                node.ask(json!({"ask": "cancel", "run": run})).await?;
                cancelled_until = Some(Instant::now() + CANCEL);
                continue;
            }
            () = tokio::time::sleep_until(cancelled_until.unwrap_or_else(Instant::now)),
                if cancelled_until.is_some() =>
            {
                screen.say("the run was told to stop, and has not said yet that it did")?;
                return Ok(End::Cancelled);
            }
            Some(answer) = answered(&mut asking) => {
                asking = None;
                if let Some(question) = questions.pop_front() {
                    node.ask(consent(&question, answer)).await?;
                }
                continue;
            }
            said = node.next(&mut conversation) => match said? {
                Said::Reply(reply) => {
                    run = reply["run"].as_str().map(str::to_owned);
                    continue;
                }
                Said::Event(event) => event,
            },
        };
        match event["event"].as_str().unwrap_or_default() {
            "step-placed" => screen.note(&placement(terminal, plan, &event))?,
            "step-progressed" => screen.progressed(&event)?,
            "step-ended" => {
                if let Some(said) = step_failure(&event) {
                    refusal = event["outcome"]["refusal"].as_str().and_then(kind_of_refusal);
                    // How the run ends says it, too.
                    if terminal.is_verbose() {
                        screen.note(&terminal.styled_message(Style::Red, &said))?;
                    }
                }
            }
            "asked" => questions.push_back(event),
            "warning" => screen.say(&text(&event, "text"))?,
            "run-ended" => return Ok(End::Ended { event, refusal, screen }),
            _ => {}
        }
    }
}

/// Waits for the answer to the question that is being asked, if there is one. Safe to drop.
async fn answered(asking: &mut Option<JoinHandle<bool>>) -> Option<bool> {
    // A question whose asking panicked counts as a no.
    Some(asking.as_mut()?.await.unwrap_or(false))
}

fn question_text(asked: &Value) -> String {
    format!(
        "Let {} run on {}? ({})",
        text(asked, "capability"),
        text(asked, "device"),
        text(asked, "reason")
    )
}

fn consent(asked: &Value, yes: bool) -> Value {
    json!({"ask": "consent", "run": asked["run"], "step": asked["step"], "yes": yes})
}

/// A step and where it runs; with `-v` why there, too.
fn placement(terminal: &Terminal, plan: &Value, placed: &Value) -> String {
    let (id, capability) = (text(placed, "step"), text(placed, "capability"));
    let planned = items(&plan["steps"]).find(|step| text(step, "id") == id);
    let given = planned.map(|step| arguments_text(step, ARGUMENT_CHARS_MAX)).unwrap_or_default();
    let device = terminal.styled_message(Style::Green, &text(placed, "device"));
    let mut said = format!("{id}  {capability} on {device}{given}");
    if terminal.is_verbose() {
        let chosen = items(&placed["candidates"]).find(|it| it["device"] == placed["device"]);
        let reasons = chosen.map(|it| listed(&it["reasons"])).unwrap_or_default();
        said.push_str(&format!(" ({reasons})"));
    }
    said
}

/// What to say of a step that did not end well.
fn step_failure(ended: &Value) -> Option<String> {
    let outcome = &ended["outcome"];
    let what = format!("{}  {}", text(ended, "step"), text(ended, "capability"));
    match outcome["state"].as_str()? {
        "failed" => Some(format!("{what}: {}", text(outcome, "reason"))),
        "uncertain" => Some(format!("{what}: it may have happened and may not")),
        _ => None,
    }
}

fn kind_of_refusal(word: &str) -> Option<ErrorKind> {
    Some(match word.parse().ok()? {
        Refusal::Denied => ErrorKind::Denied,
        Refusal::Cancelled => ErrorKind::Cancelled,
        // In the middle of a run, an argument that makes no sense is a step that failed.
        Refusal::NotFound | Refusal::Invalid | Refusal::Failed => ErrorKind::Failed,
    })
}

/// Shows how the run ended.
fn finish(terminal: &Terminal, end: End) -> Done {
    let (event, refusal, mut screen) = match end {
        End::Cancelled => {
            terminal.note("cancelled");
            return Ok(Some(ErrorKind::Cancelled));
        }
        End::Ended { event, refusal, screen } => (event, refusal, screen),
    };
    let state = text(&event, "state");
    let kind = match state.as_str() {
        "done" => None,
        "cancelled" => Some(ErrorKind::Cancelled),
        "uncertain" => Some(ErrorKind::Uncertain),
        _ => Some(refusal.unwrap_or(ErrorKind::Failed)),
    };
    if terminal.is_json() {
        screen.settle()?;
        let mut shown = event.clone();
        if let Some(fields) = shown.as_object_mut() {
            fields.remove("event");
        }
        terminal.json(&shown)?;
    } else {
        screen.answer(&answer(&event["outputs"]))?;
    }
    if kind == Some(ErrorKind::Cancelled) {
        terminal.note("cancelled");
    } else if kind.is_some() {
        let why = event["failure"].as_str().map(harmless);
        terminal.error(&why.unwrap_or_else(|| format!("the run ended {state}")));
        terminal.note("weft run show says more");
    }
    let also_on = listed(&event["also_on"]);
    if !also_on.is_empty() && !terminal.is_json() {
        terminal.say(&format!("also on: {also_on}"));
    }
    Ok(kind)
}

/// What a run gave, as text.
fn answer(outputs: &Value) -> String {
    let texts: Vec<String> = items(outputs).filter_map(|output| spoken(&output["value"])).collect();
    texts.join("\n")
}

/// A value as a person reads it: text as it is, a map by its text, a list line by line.
fn spoken(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Object(_) => {
            let said = value["text"].as_str().or_else(|| value["content"]["text"].as_str());
            Some(said.map_or_else(|| value.to_string(), str::to_owned))
        }
        Value::Array(list) => Some(list.iter().filter_map(spoken).collect::<Vec<_>>().join("\n")),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use tokio::sync::mpsc;
    use weft_api::{Door, DoorInput, DoorMessage, PlanView, Request};
    use weft_core::door::{Event, Reply};
    use weft_protocol::{
        graph::{Argument, Plan, Route, Step, StepIndex},
        id::RunId,
        manifest::EffectClass,
        run::{Failure, Outcome, RunState},
        value::Value as Output,
    };

    use super::*;

    #[test]
    fn outputs_are_spoken() {
        for (value, expected) in [
            (json!("plain"), Some("plain")),
            (json!({"text": "a note", "id": "x"}), Some("a note")),
            (json!([{"content": {"text": "one"}}, {"text": "two"}]), Some("one\ntwo")),
            (json!({"due": 4}), Some(r#"{"due":4}"#)),
            (json!(null), None),
        ] {
            assert_eq!(spoken(&value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn a_plan_is_shown_step_by_step() {
        let plan = json!({"steps": [
            {"id": 1, "capability": "docs.read", "args": {"path": "report.pdf"}, "device": "laptop"},
            {"id": 2, "capability": "text.summarize", "args": {"text": {"output": 1}},
             "device": null, "may_call": ["llm.generate"],
             "candidates": [{"device": "phone", "cost_ms": null, "reasons": ["no model"]}],
             "decision": {"effect": "deny", "reason": "not there"}},
        ]});
        expect![[r"
            1  docs.read on laptop  path: report.pdf
            2  text.summarize on no device (may call llm.generate)  text: what step 1 gives
                 deny: not there
                 phone: not possible; no model"]]
        .assert_eq(&plan_lines(&plan, |_, word| word.to_owned()).join("\n"));
    }

    #[test]
    fn lengths_of_time_and_times_are_written_as_people_do() {
        let step = json!({"args": {"at": "2026-03-11T08:00:00", "duration": "PT1H30M",
            "label": "PT and some more"}});
        let said = "  at: 2026-03-11 08:00:00  duration: 1 h 30 min  label: PT and some more";
        assert_eq!(arguments_text(&step, usize::MAX), said);
        let cut = "  at: 2026-0…  duration: 1 h 30…  label: PT and…";
        assert_eq!(arguments_text(&step, 6), cut);
    }

    #[test]
    fn a_file_that_was_taken_for_a_word_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("letter"), "Dear Ada").unwrap();
        let words = ["read".to_owned(), "letter".to_owned()];
        assert_eq!(file_among(&words, folder.path()).as_deref(), Some("letter"));
        assert_eq!(file_among(&["read letters".to_owned()], folder.path()), None);
        assert_eq!(file_among(&["read ./letter".to_owned()], folder.path()), None);
    }

    #[test]
    fn files_are_read_or_the_path_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.txt");
        std::fs::write(&file, "twelve bytes").unwrap();
        assert_eq!(read_file(&file, 12).unwrap(), b"twelve bytes");
        for (path, bytes_max, kind) in [
            (file.as_path(), 11, ErrorKind::Usage),
            (folder.path(), 99, ErrorKind::Usage),
            (&folder.path().join("none"), 99, ErrorKind::NotFound),
        ] {
            let error = read_file(path, bytes_max).expect_err("it can't be read");
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(format!("{error:?}").contains(&*path.to_string_lossy()), "{error:?}");
        }
    }

    #[test]
    fn the_clock_of_the_words_can_be_set() {
        let now = "2026-03-10T09:00:00".parse().unwrap();
        let say = sentence(&["set".into(), "a timer".into()], Some(now));
        assert_eq!((&*say.words, &*say.local_time), ("set a timer", "2026-03-10T09:00:00"));
        assert!(say.plan_only && !say.time_zone.is_empty());
    }

    #[test]
    fn nothing_is_understood_and_the_nearest_is_named() {
        let error = not_understood(&json!({"steps": [], "nearest": ["note that …"]}), &[]);
        assert_eq!(error.kind(), ErrorKind::NotUnderstood);
        assert!(format!("{error:?}").contains("note that …"), "{error:?}");
    }

    /// Says words to a node that answers as `run` does, and gives the exit and how often it was asked
    /// to do something.
    async fn said(words: &str, plan: Plan, run: Vec<DoorMessage>) -> (Done, usize) {
        let home = tempfile::tempdir().unwrap();
        let (inputs, mut doors) = mpsc::channel(8);
        let serving = tokio::spawn(weft_api::serve(Door::open(home.path()).unwrap(), inputs));
        let node = tokio::spawn(async move {
            let mut runs = 0;
            while let Some(input) = doors.recv().await {
                let DoorInput::Asked { request: Request::Say(say), answers, .. } = input else {
                    return runs;
                };
                let view = PlanView { plan: plan.clone(), explanations: vec![], nearest: vec![] };
                let messages =
                    if say.plan_only { vec![DoorMessage::Plan(view)] } else { run.clone() };
                runs += usize::from(!say.plan_only);
                for message in messages {
                    answers.send(message).await.unwrap();
                }
            }
            runs
        });
        let session = Session { home: home.path().into(), terminal: Terminal::new(false, 0) };
        let words = words.split(' ').map(String::from).collect();
        let done = super::run(&session, &DoArguments { words, plan: false, now: None }).await;
        serving.abort();
        (done, node.await.unwrap())
    }

    fn one_step(argument: Argument) -> Plan {
        let step = Step {
            index: StepIndex(1),
            capability: "docs.read".parse().unwrap(),
            arguments: [("path".to_owned(), argument)].into(),
            device: None,
            after: [].into(),
            effect: EffectClass::ReadOnly,
            may_call: vec![],
        };
        Plan::new(Route::Phrases, vec![step]).unwrap()
    }

    fn ending(state: RunState, outcome: Outcome) -> Vec<DoorMessage> {
        let run = RunId::from_bytes([1; 16]);
        let capability = "docs.read".parse().unwrap();
        let ended = Event::StepEnded { run, step: StepIndex(1).into(), capability, outcome };
        let outputs = vec![];
        vec![
            DoorMessage::Reply(Reply::RunStarted { run }),
            DoorMessage::Event(ended),
            DoorMessage::Event(Event::RunEnded {
                run,
                state,
                outputs,
                failure: None,
                also_on: vec![],
            }),
        ]
    }

    #[tokio::test]
    async fn a_run_exits_as_it_ended() {
        let plan = one_step(Argument::Literal(Output::Null));
        let value = Outcome::Value { value: Output::Null, labels: [].into() };
        let failed = |refusal| Outcome::Failed(Failure { refusal, reason: "no".into() });
        for (state, outcome, expected) in [
            (RunState::Done, value.clone(), None),
            (RunState::Failed, failed(Refusal::Denied), Some(ErrorKind::Denied)),
            (RunState::Failed, failed(Refusal::Failed), Some(ErrorKind::Failed)),
            (RunState::Uncertain, Outcome::Uncertain, Some(ErrorKind::Uncertain)),
            (RunState::Cancelled, failed(Refusal::Cancelled), Some(ErrorKind::Cancelled)),
        ] {
            let (done, runs) = said("read it", plan.clone(), ending(state, outcome)).await;
            assert_eq!((done.unwrap(), runs), (expected, 1), "{state}");
        }
    }

    #[tokio::test]
    async fn nothing_runs_without_a_plan_or_its_files() {
        let (done, runs) = said("fly me to the moon", Plan::none(), vec![]).await;
        assert_eq!((done.unwrap_err().kind(), runs), (ErrorKind::NotUnderstood, 0));
        let plan = one_step(Argument::Path("/nowhere/report.pdf".into()));
        let (done, runs) = said("read it", plan, vec![]).await;
        assert_eq!((done.unwrap_err().kind(), runs), (ErrorKind::NotFound, 0));
    }

    #[tokio::test]
    async fn after_a_node_that_goes_in_the_middle_nobody_knows_what_was_done() {
        let plan = one_step(Argument::Literal(Output::Null));
        let started = DoorMessage::Reply(Reply::RunStarted { run: RunId::from_bytes([1; 16]) });
        let (done, runs) = said("read it", plan, vec![started]).await;
        assert_eq!((done.unwrap_err().kind(), runs), (ErrorKind::Uncertain, 1));
    }

    #[test]
    fn a_refused_step_fixes_the_exit() {
        let failed = |refusal: &str| kind_of_refusal(refusal);
        assert_eq!(failed("denied"), Some(ErrorKind::Denied));
        assert_eq!(failed("invalid"), Some(ErrorKind::Failed));
        assert_eq!(failed("unheard-of"), None);
    }
}

//! A report of several pages, summarised where the model is.

use std::{collections::BTreeSet, fs};

use rustix::process::Signal;
use serde_json::Value;
use weft_e2e::{Device, Fabric, Running, fixture, not_run, test_model, until, until_within};

use crate::machine::{agents, signal};

/// Three devices, the model on the server, the report beside the laptop. `None`: there is no model.
fn with_model() -> Option<Fabric<3>> {
    let Some(model) = test_model() else {
        not_run("WEFT_TEST_MODEL names no model");
        return None;
    };
    let fabric = Fabric::pair(["laptop", "phone", "server"]);
    let [laptop, _, server] = &*fabric;
    laptop.write("report.pdf", fs::read(fixture("report.pdf")).expect("the report lies there"));
    let got = server.run(&["model", "get", "--from", &model.to_string_lossy(), "--json"]);
    assert_eq!(got.code, Some(0), "{got}");
    assert_eq!(got.json()["bytes"], fs::metadata(&model).expect("it is there").len());
    let has_model = |devices: &Value| {
        let mut devices = devices.as_array().into_iter().flatten();
        devices.any(|it| it["name"] == "server" && it["models"][0].is_string())
    };
    until("the laptop knows of the model", || laptop.json(&["devices"]), has_model);
    Some(fabric)
}

/// What a terminal makes a signal of.
const CTRL_C: &str = "\u{3}";

/// Stands in the line that says where the summary is made; what follows is how far it is, and itself.
const ELSEWHERE: &str = "text.summarize on server";

/// What stands behind that line on the screen of the person who waits for the summary.
fn streamed(screen: &Running) -> String {
    let shown = screen.stdout();
    let after = shown.split_once(ELSEWHERE).and_then(|(_, after)| after.split_once('\n'));
    after.map(|(_, text)| text.trim().to_owned()).unwrap_or_default()
}

/// Starts the summary at a terminal and waits until the server writes it.
fn begin(laptop: &Device) -> Option<Running> {
    let Some(screen) = laptop.at_terminal(&["do", "summarize report.pdf"]) else {
        not_run("this machine has no script(1) to make a terminal with");
        return None;
    };
    let is_written = |it: &String| !it.is_empty();
    until_within(Device::MODEL_PATIENCE, "the server writes", || streamed(&screen), is_written);
    Some(screen)
}

/// The newest run's journal entries of this kind, for this step.
fn entries(laptop: &Device, kind: &str, step: &str) -> Vec<Value> {
    let run = laptop.json(&["run", "show"]);
    let entries = run["journal"].as_array().into_iter().flatten();
    entries.filter(|it| it["entry"] == kind && it["step"] == step).cloned().collect()
}

#[test]
fn a_report_is_read_here_and_summarised_where_the_model_is() {
    let Some(fabric) = with_model() else { return };
    let [laptop, phone, server] = &*fabric;

    expect_test::expect![[r#"
        $ weft do --plan "summarize report.pdf"
        1  docs.read on laptop  path: report.pdf
        2  text.summarize on server (may call llm.generate)  text: what step 1 gives
    "#]]
    .assert_eq(&laptop.run(&["do", "--plan", "summarize report.pdf"]).to_string());
    let plan = laptop.json(&["do", "--plan", "summarize report.pdf"]);
    let devices: Vec<_> =
        plan["steps"].as_array().into_iter().flatten().map(|it| &it["device"]).collect();
    assert_eq!(devices, ["laptop", "server"]);
    assert_eq!(plan["steps"][1]["may_call"][0], "llm.generate");

    let summary = laptop.start(&["do", "summarize report.pdf"]).end_within(Device::MODEL_PATIENCE);
    assert_eq!(summary.code, Some(0), "{summary}");
    assert!(summary.stdout.split_whitespace().count() >= 10, "a summary has words: {summary}");

    // Why there and not elsewhere is kept.
    let offered = entries(laptop, "offered", "2");
    assert_eq!(offered.len(), 1, "{offered:#?}");
    assert_eq!(offered[0]["device"], "server");
    let reasons = |device: &str| {
        let candidates = offered[0]["candidates"].as_array().into_iter().flatten();
        let reasons =
            candidates.filter(|it| it["device"] == device).flat_map(|it| it["reasons"].as_array());
        reasons.flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    assert!(reasons("server").contains("model at"), "{}", reasons("server"));
    for device in ["laptop", "phone"] {
        assert!(reasons(device).contains("another device for llm.generate"), "{}", reasons(device));
    }
    // The report stayed where it was; the words of it were read by three pages.
    assert_eq!(entries(laptop, "offered", "1")[0]["device"], "laptop");
    let read = &entries(laptop, "ended", "1")[0]["outcome"]["value"];
    let read = read.as_str().expect("what was read is text");
    assert!(read.starts_with("A house without a head"), "{read}");
    assert!(read.trim_end().ends_with("was done in their name."), "{read}");

    // The others can watch the run, and the executor's record has the model's call.
    until(
        "the phone knows of it",
        || phone.json(&["run", "list"]),
        |runs| runs[0]["words"] == "summarize report.pdf" && runs[0]["state"] == "done",
    );
    let records = server.json(&["audit", "list"]);
    let called =
        |name: &str| records.as_array().into_iter().flatten().any(|it| it["capability"] == name);
    assert!(called("text.summarize") && called("llm.generate"), "{records:#}");
    for device in &*fabric {
        device.verify();
    }
}

#[test]
fn at_a_terminal_a_summary_is_seen_while_it_is_written() {
    let Some(fabric) = with_model() else { return };
    let [laptop, ..] = &*fabric;
    let Some(mut screen) = begin(laptop) else { return };
    let mut seen = BTreeSet::new();
    until_within(
        Device::MODEL_PATIENCE,
        "the summary ends",
        || {
            seen.insert(streamed(&screen).len());
            screen.has_ended()
        },
        |has_ended| *has_ended,
    );
    assert!(seen.len() > 3, "it grew as it was written: {seen:?}");
    let summary = screen.end();
    assert_eq!(summary.code, Some(0), "{summary}");
    // It was made in parts: how far it is stands on one line, and the summary of the parts once.
    assert!(summary.stdout.contains("\r\u{1b}[K2  summarizing part 2 of "), "{summary:?}");
    is_shown_once(laptop, &summary.stdout);

    // A text that is summarised at once is streamed, and not said again.
    laptop.write("plants.md", "# Plants\n\nFig trees like sun. They need little water.\n");
    let screen = laptop.at_terminal(&["do", "summarize plants.md"]).expect("there is a script(1)");
    let summary = screen.end_within(Device::MODEL_PATIENCE);
    assert_eq!(summary.code, Some(0), "{summary}");
    assert!(!summary.stdout.contains("\u{1b}[K"), "{summary:?}");
    is_shown_once(laptop, &summary.stdout);
}

/// Asserts that what the newest run gave stands on the screen once, as a terminal shows it.
fn is_shown_once(laptop: &Device, shown: &str) {
    let ended = entries(laptop, "ended", "2");
    let answer = ended[0]["outcome"]["value"].as_str().expect("a summary is text");
    let answer = answer.trim().replace('\n', "\r\n");
    assert_eq!(shown.matches(&answer).count(), 1, "{answer:?} in {shown:?}");
    let beginning: String = answer.chars().take(30).collect();
    assert_eq!(shown.matches(&beginning).count(), 1, "{beginning:?} in {shown:?}");
}

#[test]
fn ctrl_c_stops_a_summary_on_both_devices() {
    let Some(fabric) = with_model() else { return };
    let [laptop, _, server] = &*fabric;
    let Some(mut screen) = begin(laptop) else { return };
    screen.type_in(CTRL_C);
    let summary = screen.end();
    assert_eq!(summary.code, Some(130), "{summary}");
    until(
        "the run is cancelled",
        || laptop.json(&["run", "show"])["state"].clone(),
        |state| state == "cancelled",
    );
    // Every intent of the server has its outcome, and the last ones say why.
    let records = until(
        "the server stopped",
        || server.json(&["audit", "list"]),
        |records| {
            let of = |kind: &str| {
                records.as_array().into_iter().flatten().filter(|it| it["kind"] == kind).count()
            };
            of("intent") > 0 && of("intent") == of("outcome")
        },
    );
    let cancelled =
        records.as_array().into_iter().flatten().filter(|it| it["ending"] == "cancelled");
    assert!(cancelled.count() > 0, "{records:#}");
    // And the fabric goes on.
    laptop.note("after the cancelled summary");
    server.until_note("after the cancelled summary");
    server.verify();
    laptop.verify();
}

#[test]
fn a_summary_whose_server_was_away_says_anew_how_far_it_is() {
    let Some(fabric) = with_model() else { return };
    let [laptop, _, server] = &*fabric;
    let Some(screen) = begin(laptop) else { return };
    // All of it stands still, so that it is as far as it was when it goes on.
    let processes = [vec![server.node_id()], agents(server)].concat();
    processes.iter().for_each(|pid| signal(*pid, Signal::STOP));
    let says = |line: &'static str| move |shown: &String| shown.contains(line);
    until("the laptop says so", || screen.stdout(), says("server: it went away"));
    processes.iter().rev().for_each(|pid| signal(*pid, Signal::CONT));
    let summary = screen.end_within(Device::MODEL_PATIENCE).expect_code(0);
    let (before, after) =
        summary.stdout.split_once("server is here again").expect("it is here again");
    let part = before.rfind("summarizing part ").map(|at| &before[at..]);
    let part = part.and_then(|it| it.split_inclusive(" of ").next()).expect("it is made in parts");
    assert!(after.contains(part), "{part:?} in {summary:?}");
    is_shown_once(laptop, &summary.stdout);
}

#[test]
fn a_summary_whose_server_dies_ends_with_the_reason() {
    let Some(mut fabric) = with_model() else { return };
    let [laptop, _, server] = &mut *fabric;
    let Some(screen) = begin(laptop) else { return };
    server.kill();
    let summary = screen.end_within(Device::MODEL_PATIENCE);
    assert_eq!(summary.code, Some(6), "{summary}");
    assert!(summary.stdout.contains("error: "), "{summary}");
    assert_eq!(laptop.json(&["run", "show"])["state"], "failed");
    assert_eq!(laptop.run(&["run", "show"]).code, Some(0));
    // The others go on, and so does the server after its restart.
    laptop.note("while the server was dead");
    server.up();
    server.until_note("while the server was dead");
    server.verify();
    laptop.verify();
}

//! What every command has in common: data and messages apart, JSON, help, no colour where none is wanted.

use serde_json::Value;
use weft_e2e::{Fabric, Transcript, not_run};

const COMMANDS: [&str; 22] = [
    "init", "up", "lock", "unlock", "rotate", "key", "status", "devices", "trust", "do", "run",
    "agents", "notes", "timers", "audit", "policy", "model", "invite", "join", "recover", "events",
    "doctor",
];

fn is_plain(said: &Transcript) {
    assert!(!said.stdout.contains('\u{1b}') && !said.stderr.contains('\u{1b}'), "{said:?}");
}

#[test]
fn help_has_examples_and_ends_well() {
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    let help = laptop.run(&["help"]).expect_code(0);
    assert!(help.stdout.contains("Examples:") && help.stdout.contains("Exit codes:"), "{help}");
    for command in COMMANDS {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command} is listed: {help}");
        for words in [&["help", command][..], &[command, "--help"]] {
            let help = laptop.run(words).expect_code(0);
            assert_eq!(help.stderr, "");
            assert!(help.stdout.contains("Usage: weft"), "{help}");
            assert!(help.stdout.contains("Examples:\n  weft "), "{help}");
            is_plain(&help);
        }
    }
    for words in [
        &["run", "show", "--help"][..],
        &["run", "list", "--help"],
        &["run", "cancel", "--help"],
        &["notes", "search", "--help"],
        &["audit", "verify", "--help"],
        &["key", "status", "--help"],
        &["key", "set", "--help"],
        &["policy", "check", "--help"],
        &["model", "get", "--help"],
        &["device", "show", "--help"],
        &["device", "rename", "--help"],
        &["device", "role", "--help"],
        &["device", "keep", "--help"],
        &["device", "revoke", "--help"],
        &["trust", "log", "--help"],
        &["--version"],
    ] {
        let said = laptop.run(words).expect_code(0);
        assert!(said.stdout.contains("weft") && said.stderr.is_empty(), "{said}");
    }
    for words in [&[][..], &["explode"], &["do"], &["init", "--kind", "toaster"], &["run"]] {
        let said = laptop.run(words).expect_code(2);
        assert!(said.stdout.is_empty() && !said.stderr.is_empty(), "{said}");
    }
}

#[test]
fn data_goes_to_standard_output_alone_and_as_json_on_demand() {
    let mut fabric = Fabric::new(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    let init =
        laptop.run(&["init", "--name", "laptop", "--kind", "laptop", "--json"]).expect_code(0);
    assert_eq!((&init.json()["name"], &init.json()["recovery"]), (&"laptop".into(), &false.into()));
    laptop.up();
    let invited = laptop.run(&["invite", "--yes", "--json"]).expect_code(0);
    assert_eq!(invited.stderr, "");
    let joined = phone
        .run_with(
            &["join", "-", "--name", "phone", "--kind", "phone", "--yes", "--json"],
            &invited.stdout,
        )
        .expect_code(0);
    assert_eq!(joined.json()["outcome"], "paired");
    phone.up();
    fabric.meet(["laptop", "phone"]);
    let [laptop, _] = &mut *fabric;

    let noted = laptop.run(&["do", "--json", "note that the kettle is on"]).expect_code(0);
    assert_eq!(noted.json()["outputs"][0]["value"]["text"], "Noted: the kettle is on");
    assert_eq!(noted.stderr, "", "JSON says it all");
    for words in [
        &["status"][..],
        &["doctor"],
        &["devices"],
        &["do", "--plan", "note that x"],
        &["do", "--plan", "xyzzy"],
        &["run", "list"],
        &["run", "show"],
        &["agents"],
        &["notes"],
        &["notes", "list"],
        &["notes", "search", "kettle"],
        &["timers"],
        &["audit", "list"],
        &["audit", "verify"],
        &["policy", "check", "note that x"],
        &["policy", "test"],
        &["model", "status"],
        &["device", "revoke", "phone", "--yes"],
    ] {
        let as_words = if words[0] == "device" { None } else { Some(laptop.run(words)) };
        let said = laptop.run(&[words, &["--json"]].concat()).expect_code(0);
        assert!(said.json().is_object() || said.json().is_array(), "{said}");
        assert_eq!(said.stdout.lines().count(), 1, "one line, for whoever reads lines: {said}");
        assert_eq!(said.stderr, "", "{said}");
        is_plain(&said);
        if let Some(as_words) = as_words {
            is_plain(&as_words.expect_code(0));
        }
    }
    // Errors, too: an object there, the words here.
    for (words, code, kind) in [
        (&["do", "xyzzy"][..], 4, "not-understood"),
        (&["do", "show missing.pdf"], 13, "not-found"),
        (&["run", "show", "zzzzzz"], 13, "not-found"),
        (&["device", "revoke", "toaster", "--yes"], 13, "not-found"),
        (&["model"], 2, "usage"),
        (&["recover", "--at", "nonsense", "--since"], 2, "usage"),
    ] {
        let said = laptop.run(&[words, &["--json"]].concat()).expect_code(code);
        assert_eq!(said.json()["error"]["kind"], Value::from(kind), "{said}");
        assert!(said.stderr.starts_with("error: "), "{said}");
    }
}

#[test]
fn what_can_be_said_is_shown_as_sentences_that_are_understood() {
    let mut fabric = Fabric::pair(["laptop"]);
    let [laptop] = &mut *fabric;
    let agents = laptop.json(&["agents"]);
    let details = agents.as_array().into_iter().flatten().flat_map(|it| it["details"].as_array());
    let mut said = 0;
    for detail in details.flatten() {
        let example = detail["example"].as_str().expect("each capability has an example");
        assert!(!example.contains(['(', '|', '[', '{']), "{example} is a pattern");
        let words = example.replace('…', "tea");
        let plan = laptop.json(&["do", "--plan", &words]);
        let last = plan["steps"].as_array().and_then(|steps| steps.last());
        assert_eq!(last.map(|it| &it["capability"]), Some(&detail["name"]), "{words}");
        said += 1;
    }
    assert!(said >= 8, "{agents:#}");
    let shown = laptop.run(&["agents"]).expect_code(0);
    assert!(shown.stdout.contains("\n      weft do summarize report.pdf\n"), "{shown}");
}

#[test]
fn a_terminal_without_colours_is_left_without() {
    let mut fabric = Fabric::pair(["laptop"]);
    let [laptop] = &mut *fabric;
    for words in
        [&["status"][..], &["devices"], &["agents"], &["do", "note that x"], &["do", "xyzzy"]]
    {
        let Some(running) = laptop.at_terminal(words) else {
            return not_run("this machine has no script(1) to make a terminal with");
        };
        is_plain(&running.end());
    }
}

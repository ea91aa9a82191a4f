//! What people say, and the plan that the program makes of it.

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use weft_e2e::{Device, Fabric, fixture};

/// What the sentences of the fixture are read against.
const NOW: &str = "2026-03-10T09:00:00";

/// The words, then the plan that should come, line by line of the fixture.
fn sentences() -> Vec<Value> {
    let path = fixture("commands/commands.jsonl");
    let text = fs::read_to_string(&path).expect("the sentences lie in the repository");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What the devices can do.
fn capabilities(device: &Device) -> BTreeSet<String> {
    let agents = device.json(&["agents"]);
    let names = list(&agents).iter().flat_map(|agent| list(&agent["capabilities"]));
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Texts are compared as the fixture's README says.
fn is_same(said: &Value, expected: &Value) -> bool {
    match (said.as_str(), expected.as_str()) {
        (Some(said), Some(expected)) => {
            said.trim().to_lowercase() == expected.trim().to_lowercase()
        }
        _ => said == expected,
    }
}

/// What is wrong with a plan, if anything.
fn wrong(plan: &Value, sentence: &Value) -> Option<String> {
    let (steps, expected) = (list(&plan["steps"]), list(&sentence["plan"]));
    if steps.len() != expected.len() {
        return Some(format!("{} steps instead of {}", steps.len(), expected.len()));
    }
    for (step, expected) in steps.iter().zip(expected) {
        if step["capability"] != expected["capability"] {
            return Some(format!("{} instead of {}", step["capability"], expected["capability"]));
        }
        for (name, value) in expected["args"].as_object().into_iter().flatten() {
            if !is_same(&step["args"][name], value) {
                return Some(format!("{name} is {} instead of {value}", step["args"][name]));
            }
        }
        for (name, value) in step["args"].as_object().into_iter().flatten() {
            if expected["args"][name].is_null() && value["output"].is_null() {
                return Some(format!("nobody said {name}: {value}"));
            }
        }
    }
    let bound = steps.last().map_or(&Value::Null, |last| &last["bound"]);
    (*bound != sentence["on"]).then(|| format!("on {bound} instead of {}", sentence["on"]))
}

#[test]
fn each_sentence_yields_its_plan_where_somebody_can_do_it_and_none_otherwise() {
    let fabric = Fabric::pair(["laptop", "phone", "server"]);
    let [laptop, ..] = &*fabric;
    let can = capabilities(laptop);
    let (mut planned, mut unknown, mut wrongs) = (0, 0, Vec::new());
    for mut sentence in sentences() {
        let words = sentence["say"].as_str().expect("words").to_owned();
        let steps = list(&sentence["plan"]).iter();
        let is_possible =
            steps.filter_map(|step| step["capability"].as_str()).all(|it| can.contains(it));
        if !is_possible {
            sentence["plan"] = Value::Array(Vec::new());
        }
        let plan = laptop.json(&["do", "--plan", "--now", NOW, "--", &words]);
        if list(&sentence["plan"]).is_empty() {
            unknown += 1;
            sentence["on"] = Value::Null;
        } else {
            planned += 1;
        }
        if let Some(wrong) = wrong(&plan, &sentence) {
            wrongs.push(format!("{words}: {wrong}"));
        }
    }
    assert!(wrongs.is_empty(), "{wrongs:#?}");
    assert_eq!((planned, unknown), (20, 30), "of the 50 sentences");
    // A plan runs nothing.
    assert_eq!(laptop.json(&["run", "list"]), Value::Array(Vec::new()));
}

#[test]
fn words_that_mean_nothing_run_nothing_and_show_what_comes_near() {
    let mut fabric = Fabric::pair(["laptop"]);
    let [laptop] = &mut *fabric;
    for words in ["summarise the moon", "what's the weather", "sett a timer for 5 minutes", "xyzzy"]
    {
        let said = laptop.run(&["do", words]);
        assert_eq!(said.code, Some(4), "{said}");
        assert_eq!(said.stdout, "", "{said}");
        assert!(said.stderr.contains("the words were not understood; nothing ran"), "{said}");
        assert!(said.stderr.contains("the nearest commands are:"), "{said}");
        let plan = laptop.json(&["do", "--plan", words]);
        assert_eq!((&plan["route"], list(&plan["steps"]).len()), (&Value::from("none"), 0));
        assert!(!list(&plan["nearest"]).is_empty(), "{plan}");
    }
    expect_test::expect![[r#"
        $ weft do sett a timer for "5 minutes"
        ! error: the words were not understood; nothing ran
        ! hint: the nearest commands are:
        !     set a timer for 10 minutes
        !     cancel the timer called …
        !     ask the model to …
        (exit 4)
    "#]]
    .assert_eq(&laptop.run(&["do", "sett", "a", "timer", "for", "5 minutes"]).to_string());
    assert_eq!(laptop.json(&["run", "list"]), Value::Array(Vec::new()));
}

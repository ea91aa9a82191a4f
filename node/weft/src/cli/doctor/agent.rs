//! What this device can do: agents, the model, the rules, and the record of it all.

use serde_json::Value;
use weft_llm::get::Pinned;

use super::{
    Finding, contact,
    facts::{Answers, Facts},
    size,
};
use crate::cli::terminal::{harmless, items, listed, short, text};

/// The agent that answers only where a model is.
const MODEL_AGENT: &str = "llm";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(answers) = facts.answers() else { return Vec::new() };
    let mut findings = agents(answers);
    findings.extend(model(answers));
    findings.extend(rules(facts, &answers.status));
    findings
}

fn agents(answers: &Answers) -> Vec<Finding> {
    let own = text(&answers.status, "name");
    let agents: Vec<&Value> =
        items(&answers.agents).filter(|agent| agent["name"] != MODEL_AGENT).collect();
    let lacking = |device: &str| -> Vec<String> {
        let lacks = |agent: &&&Value| {
            !items(&agent["devices"]).filter_map(Value::as_str).any(|it| harmless(it) == device)
        };
        agents.iter().filter(lacks).map(|agent| text(agent, "name")).collect()
    };
    let mut findings = Vec::new();
    let absent = lacking(&own);
    let wall_failure = text(&answers.checkup["shell"], "wall_failure");
    if !wall_failure.is_empty() {
        findings.push(
            Finding::warning("agents", format!("none runs here: {wall_failure}"))
                .why("an agent runs only behind a wall; other devices do what it is asked for")
                .advise("weft agents shows where each runs; a kernel with seccomp has a wall"),
        );
    } else if !absent.is_empty() {
        findings.push(
            Finding::warning(
                "agents",
                format!("not offered by this device: {}", absent.join(", ")),
            )
            .why("what they do is done elsewhere, or not at all")
            .advise("start the node again: weft up"),
        );
    }
    for (device, _) in contact::others(answers).filter(|(device, _)| device["state"] == "here") {
        let name = text(device, "name");
        let other = lacking(&name);
        if !other.is_empty() {
            let what = format!("{name} has not the same version of {}", other.join(", "));
            findings.push(
                Finding::warning("agents", what)
                    .why("one of the two runs an older program; a step goes to whichever has it")
                    .advise(format!("update weft on {name} or here, whichever is older")),
            );
        }
    }
    if findings.is_empty() && !agents.is_empty() {
        let names: Vec<_> = agents.iter().map(|agent| text(agent, "name")).collect();
        findings.push(Finding::ok("agents", names.join(", ")));
    }
    findings
}

fn model(answers: &Answers) -> Vec<Finding> {
    if let Some(model) = items(&answers.models).next() {
        let (name, bytes) = (text(model, "name"), model["bytes"].as_u64().unwrap_or(0));
        let pinned = Pinned::default_model();
        let is_pinned = pinned.name.trim_end_matches(".gguf") == name;
        if is_pinned && bytes != pinned.bytes {
            let what = format!("{name} has {bytes} bytes, not {}", pinned.bytes);
            return vec![
                Finding::problem("model", what)
                    .why("it was not got to its end, or is another; it may fail at any word")
                    .advise(format!("rm '{}'", text(model, "path")))
                    .advise("weft model get"),
            ];
        }
        let state = text(model, "state");
        let speed = match model["tokens_per_second"].as_f64() {
            Some(speed) => format!("{speed:.0} tokens/s"),
            None => "speed not measured yet".to_owned(),
        };
        return vec![Finding::ok("model", format!("{name}, {}, {state}, {speed}", size(bytes)))];
    }
    let elsewhere: Vec<String> = contact::others(answers)
        .filter(|(device, _)| device["state"] == "here")
        .filter(|(device, _)| !listed(&device["models"]).is_empty())
        .map(|(device, _)| text(device, "name"))
        .collect();
    if elsewhere.is_empty() {
        return vec![
            Finding::warning("model", "no device that is here has one")
                .why("nothing is summarised, and only words that agents declare are understood")
                .advise("weft model get, on the strongest device"),
        ];
    }
    vec![Finding::ok("model", format!("none here; {} has one", elsewhere.join(" and ")))]
}

fn rules(facts: &Facts, status: &Value) -> Vec<Finding> {
    let in_force = text(status, "policy");
    match &facts.machine.rules {
        None => Vec::new(),
        Some(Err(why)) => vec![
            Finding::problem("rules", format!("this program's rules don't compile: {why}"))
                .why("without rules everything is denied")
                .advise("install weft anew"),
        ],
        Some(Ok(own)) if *own != in_force && !in_force.is_empty() => vec![
            Finding::warning("rules", "the node decides by other rules than this program brings")
                .why("what was updated is used from the next start on")
                .advise("stop it (^C where it runs), then weft up"),
        ],
        Some(Ok(_)) => vec![Finding::ok("rules", format!("compiled, {}", short(status, "policy")))],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::sample;

    fn said(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        sample::said(check, change)
    }

    #[test]
    fn what_works_is_a_line_each() {
        expect_test::expect![[r#"
            ok: notes, timer
            ok: SmolLM2-135M-Instruct.Q4_1, 93 MiB, ready, 30 tokens/s
            ok: compiled, aqcaibae"#]]
        .assert_eq(&said(|_| ()).join("\n"));
    }

    #[test]
    fn devices_with_other_programs_are_told() {
        let old = said(|facts| {
            sample::answers(facts).agents[0]["devices"] = json!(["laptop", "server"]);
        });
        assert_eq!(old[0], "warning: phone has not the same version of notes");
        let away = said(|facts| {
            sample::answers(facts).agents[0]["devices"] = json!(["laptop", "server"]);
            sample::lose(sample::answers(facts), "phone", "refused");
        });
        assert!(away[0].starts_with("ok: "), "of one that is away nobody knows: {away:?}");
        let gone = said(|facts| sample::answers(facts).agents[0]["devices"] = json!([]));
        assert_eq!(gone[0], "warning: not offered by this device: notes");
    }

    #[test]
    fn a_device_without_a_wall_says_that_others_do_the_work() {
        let none = said(|facts| {
            let why = "failed to put up the wall: this system has none";
            sample::answers(facts).checkup["shell"]["wall_failure"] = why.into();
            for agent in sample::answers(facts).agents.as_array_mut().unwrap() {
                agent["devices"] = json!(["phone", "server"]);
            }
        });
        assert_eq!(
            none[0],
            "warning: none runs here: failed to put up the wall: this system has none"
        );
        assert!(!none[1].contains("not offered"), "{none:?}");
    }

    #[test]
    fn a_model_that_is_missing_or_cut_off_is_told() {
        let elsewhere = said(|facts| sample::answers(facts).models = json!([]));
        assert_eq!(elsewhere[1], "ok: none here; server has one");
        let nowhere = said(|facts| {
            sample::answers(facts).models = json!([]);
            sample::answers(facts).devices[2]["models"] = json!([]);
        });
        assert_eq!(nowhere[1], "warning: no device that is here has one");
        let cut = said(|facts| sample::answers(facts).models[0]["bytes"] = 7.into());
        assert!(cut[1].starts_with("problem: ") && cut[1].contains("has 7 bytes, not"), "{cut:?}");
    }

    #[test]
    fn rules_that_are_other_or_broken_are_told() {
        let with = |rules| said(|facts| facts.machine.rules = rules).pop().unwrap_or_default();
        assert!(with(Some(Ok("other".into()))).starts_with("warning: the node decides by other"));
        assert!(with(Some(Err("odd".into()))).starts_with("problem: this program's rules don't"));
    }
}

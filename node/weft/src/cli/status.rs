//! `weft status`: this node on one screen.

use serde_json::{Value, json};

use super::{
    Session,
    device::absence,
    doctor::{self, Answers, Facts, Finding, Level},
    error::{CommandError, Done},
    node::Node,
    terminal::{Style, Terminal, harmless, items, listed, short, text, wrapped},
};

/// So many warnings fit on a screen with the rest.
const WARNINGS_SHOWN: usize = 3;
/// So many devices are named in each state.
const NAMES_SHOWN: usize = 8;

pub(super) async fn run(session: &Session) -> Done {
    let terminal = &session.terminal;
    let mut status = Node::reach(session).await?.read(json!({"ask": "status"})).await?;
    if status["locked"] == true {
        if terminal.is_json() {
            terminal.json(&status)?;
        } else {
            terminal.data("this device is locked; weft unlock gives it its keys back")?;
        }
        return Ok(None);
    }
    let facts = Facts::gather(session, false).await;
    let amiss = amiss(&facts);
    let answers = facts.take_answers();
    if terminal.is_json() {
        add(&mut status, &answers, amiss);
        terminal.json(&status)?;
        return Ok(None);
    }
    show(terminal, &status, &answers, amiss)?;
    Ok(None)
}

/// How many problems and warnings `weft doctor` would show, without the record, which takes long to check,
/// and without devices that are merely away, which the screen shows.
fn amiss(facts: &Facts) -> (usize, usize) {
    let findings = doctor::judge(facts);
    let problems = findings.iter().filter(|it| it.level == Level::Problem).count();
    let is_other = |it: &&Finding| it.level == Level::Warning && it.device.is_none();
    (problems, findings.iter().filter(is_other).count())
}

/// Adds to a node's state what else is on the screen.
fn add(status: &mut Value, answers: &Answers, (problems, warnings): (usize, usize)) {
    let Value::Object(fields) = status else { return };
    let others = items(&answers.devices).filter(|it| it["this"] != true).map(|device| {
        let field = |name: &str| (name.to_owned(), device[name].clone());
        let fields =
            ["id", "name", "state", "way", "round_trip_ms", "since", "last_heard"].map(field);
        Value::Object(fields.into_iter().collect())
    });
    fields.insert("others".to_owned(), others.collect());
    for name in ["reach", "battery", "metered", "machine"] {
        fields.insert(name.to_owned(), answers.checkup[name].clone());
    }
    let amiss = json!({"problems": problems, "warnings": warnings});
    fields.insert("doctor".to_owned(), amiss);
}

fn show(
    terminal: &Terminal,
    status: &Value,
    answers: &Answers,
    amiss: (usize, usize),
) -> Result<(), CommandError> {
    let name = terminal.styled(Style::Bold, &text(status, "name"));
    let fabric = text(status, "fabric_name");
    let (kind, role) = (text(status, "kind"), text(status, "role"));
    match status["standing"]["state"].as_str() {
        Some(state) => {
            let state = terminal.styled(Style::Red, &harmless(state));
            terminal.data(&format!("{name}, a {kind}, {state} in the fabric {fabric}"))?;
        }
        None => terminal.data(&format!("{name}, a {kind} and {role} of the fabric {fabric}"))?,
    }
    for (field, value) in facts(status, answers) {
        let value = wrapped(&value, field.chars().count() + 2, 2);
        terminal.data(&format!("{}: {value}", terminal.styled(Style::Dim, field)))?;
    }
    let warnings: Vec<&str> = items(&status["warnings"]).filter_map(Value::as_str).collect();
    for warning in warnings.iter().take(WARNINGS_SHOWN) {
        let mark = terminal.styled(Style::Yellow, "warning");
        let warning = harmless(warning).replace('\n', " ");
        terminal.data(&format!("{mark}: {}", wrapped(&warning, "warning: ".len(), 2)))?;
    }
    if let Some(last) = last_line(amiss, warnings.len()) {
        terminal.data(&terminal.styled(Style::Yellow, &last))?;
    }
    Ok(())
}

/// What to type, where something is wrong.
fn last_line((problems, warnings): (usize, usize), said: usize) -> Option<String> {
    let count = problems + warnings;
    if count == 0 && said <= WARNINGS_SHOWN {
        return None;
    }
    let what = match (problems, count) {
        (0, 0 | 1) => "something to look at".to_owned(),
        (0, _) => format!("{count} things to look at"),
        (1, _) => "1 problem".to_owned(),
        (_, _) => format!("{problems} problems"),
    };
    Some(format!("{what}: weft doctor"))
}

/// What there is to say, a line each.
fn facts(status: &Value, answers: &Answers) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let mut fact = |name: &'static str, value: String| {
        if !value.is_empty() {
            facts.push((name, value));
        }
    };
    if status["devices"] == 0 {
        fact("devices", "this one; weft invite brings another".to_owned());
    }
    for state in ["here", "near", "away", "never seen", "suspended"] {
        fact(state, devices(&answers.devices, state));
    }
    fact("runs", format!("{} under way", text(status, "runs")));
    fact("reach", reach(answers));
    fact("addresses", or_none(addresses(&status["addresses"])));
    fact("models", or_none(models(status, answers)));
    fact("machine", machine(&answers.checkup));
    fact("documents", text(status, "documents"));
    match status["audit_head"]["position"].as_u64() {
        Some(position) => fact("audit records", (position + 1).to_string()),
        None => fact("audit records", "none yet".to_owned()),
    }
    fact("rules", short(status, "policy"));
    match status["keys"].as_str() {
        Some("file") => fact("keys", "file (whoever has the disk reads all)".to_owned()),
        Some("passphrase") => {
            fact("keys", "passphrase (weft lock takes them out of memory)".into())
        }
        Some("credential") => fact("keys", "systemd credential".to_owned()),
        Some(other) => fact("keys", harmless(other)),
        None => {}
    }
    if status["recovery"] == true {
        fact("recovery", "by the 24 words: weft recover, on an empty machine".to_owned());
    } else {
        fact("no recovery", "if all admin devices are lost, the fabric is lost".to_owned());
    }
    facts
}

/// The other devices in a state, by name, each with what is to be known of it there.
fn devices(devices: &Value, state: &str) -> String {
    let is_it = |device: &&Value| device["this"] != true && device["state"] == state;
    let mut named: Vec<String> = items(devices)
        .filter(is_it)
        .map(|device| {
            let name = text(device, "name");
            let detail = match state {
                "here" => [text(device, "way"), round_trip(device)]
                    .into_iter()
                    .filter(|it| !it.is_empty())
                    .collect::<Vec<_>>()
                    .join(", "),
                "near" => match listed(&device["via"]) {
                    via if via.is_empty() => via,
                    via => format!("via {via}"),
                },
                "away" => absence(device),
                _ => String::new(),
            };
            if detail.is_empty() { name } else { format!("{name} ({detail})") }
        })
        .collect();
    let more = named.len().saturating_sub(NAMES_SHOWN);
    named.truncate(NAMES_SHOWN);
    if more > 0 {
        named.push(format!("{more} more"));
    }
    named.join(", ")
}

fn round_trip(device: &Value) -> String {
    device["round_trip_ms"].as_f64().map(|ms| format!("{ms:.1} ms")).unwrap_or_default()
}

fn reach(answers: &Answers) -> String {
    let checkup = &answers.checkup;
    if checkup["shell"]["loopback"] == true {
        "this machine only, by WEFT_LISTEN=loopback".to_owned()
    } else if checkup["reach"].is_null() {
        String::new()
    } else {
        doctor::reach_line(&checkup["reach"])
    }
}

/// Hosts and ports, without which transport: both are at one port. What is none stays as it is.
fn addresses(addresses: &Value) -> String {
    let mut shown: Vec<String> = Vec::new();
    for address in items(addresses).filter_map(Value::as_str) {
        let known = super::means::typed(address).map(|it| it.to_string());
        let known = known.unwrap_or_else(|| harmless(address));
        if !shown.contains(&known) {
            shown.push(known);
        }
    }
    shown.join(", ")
}

/// The models that answer here, with their measured speed.
fn models(status: &Value, answers: &Answers) -> String {
    let speed = |name: &str| {
        let model = items(&answers.models).find(|model| model["name"] == name)?;
        Some(format!(" ({:.0} tokens/s)", model["tokens_per_second"].as_f64()?))
    };
    let names = items(&status["models"]).filter_map(Value::as_str);
    let models: Vec<_> =
        names.map(|name| harmless(name) + &speed(name).unwrap_or_default()).collect();
    models.join(", ")
}

/// What the machine has left.
fn machine(checkup: &Value) -> String {
    let machine = &checkup["machine"];
    let mut said = Vec::new();
    if let Some(cores) = machine["cores"].as_u64() {
        let load = machine["load_percent"].as_u64();
        let load = load.map_or_else(String::new, |load| format!(", {load} % busy"));
        said.push(format!("{cores} {}{load}", if cores == 1 { "core" } else { "cores" }));
    }
    for (field, what) in [("memory_bytes", "memory"), ("storage_free_bytes", "free on its disk")] {
        if let Some(bytes) = machine[field].as_u64() {
            said.push(format!("{} {what}", doctor::size(bytes)));
        }
    }
    if let Some(percent) = checkup["battery"].as_u64() {
        said.push(format!("on battery at {percent} %"));
    }
    if checkup["metered"] == true {
        said.push("on a network that costs money".to_owned());
    }
    said.join(", ")
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: &Value, answers: &Answers) -> String {
        let facts = facts(status, answers);
        let lines = facts.into_iter().map(|(name, value)| format!("{name}: {value}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn how_keys_are_kept_and_what_is_missing_is_said() {
        let said = |status: Value| said(&status, &Answers::default());
        let kept = said(json!({"keys": "file", "recovery": true, "audit_head": {"position": 4},
            "devices": 0}));
        assert!(kept.contains("devices: this one; weft invite"), "{kept}");
        assert!(kept.contains("keys: file (whoever has the disk reads all)"), "{kept}");
        assert!(kept.contains("recovery: by the 24 words") && kept.contains("audit records: 5"));
        let bare = said(json!({"recovery": false}));
        assert!(bare.contains("no recovery: ") && !bare.contains("keys"), "{bare}");
    }

    #[test]
    fn a_busy_fabric_fits_on_one_screen() {
        let facts = doctor::sample();
        let mut answers = facts.answers().cloned().expect("a node runs in it");
        let mut away = answers.devices[1].clone();
        away["name"] = "tablet".into();
        away["state"] = "away".into();
        let mut near = away.clone();
        near["state"] = "near".into();
        near["name"] = "watch".into();
        near["via"] = json!(["phone"]);
        answers.devices.as_array_mut().unwrap().extend([away, near]);
        answers.status["models"] = json!([answers.models[0]["name"]]);
        let shown = said(&answers.status.clone(), &answers);
        let shown = without_time(&shown);
        expect_test::expect![[r#"
            here: phone (direct, 1.4 ms), server (relayed, 30.0 ms)
            near: watch (via phone)
            away: tablet (since <time>)
            runs: 0 under way
            reach: behind a router that lets direct connections through, reached via server
            addresses: 192.168.1.20:4711
            models: SmolLM2-135M-Instruct.Q4_1 (30 tokens/s)
            machine: 4 cores, 20 % busy, on battery at 81 %
            documents: 3
            audit records: 16
            rules: aqcaibae
            keys: file (whoever has the disk reads all)
            recovery: by the 24 words: weft recover, on an empty machine"#]]
        .assert_eq(&shown);
    }

    /// Without the local time, which depends on where the test runs.
    fn without_time(text: &str) -> String {
        match text.split_once("since ") {
            Some((before, after)) => format!("{before}since <time>{}", &after[19..]),
            None => text.to_owned(),
        }
    }

    #[test]
    fn the_room_that_is_left_is_what_is_so_now() {
        let known = doctor::sample().answers().cloned().expect("a node runs in it");
        assert!(!machine(&known.checkup).contains("free on its disk"), "the node knows of none");
        let answers = doctor::sample().take_answers();
        assert!(machine(&answers.checkup).contains("120 GiB free on its disk"));
    }

    #[test]
    fn the_last_line_is_there_only_where_something_is_wrong() {
        for (amiss, said, expected) in [
            ((0, 0), 0, None),
            ((0, 0), 9, Some("something to look at: weft doctor")),
            ((0, 1), 0, Some("something to look at: weft doctor")),
            ((0, 3), 0, Some("3 things to look at: weft doctor")),
            ((1, 3), 0, Some("1 problem: weft doctor")),
            ((2, 0), 0, Some("2 problems: weft doctor")),
        ] {
            assert_eq!(last_line(amiss, said).as_deref(), expected);
        }
    }
}

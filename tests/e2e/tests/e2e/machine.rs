//! What a node knows of its machine, and what a device of its kind may spend.

use std::{fs, thread, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use weft_e2e::{Device, Fabric, Transcript, not_run, test_model, until, until_within};

/// The processes that the node of `device` has started and that live: agents', and that of a model.
pub(crate) fn agents(device: &Device) -> Vec<u32> {
    let node = device.node_id();
    let mut agents = Vec::new();
    for task in fs::read_dir(format!("/proc/{node}/task")).expect("it is up").flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        agents.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    agents.sort_unstable();
    agents
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().expect("a process's id")).expect("it is not 0");
    // One that has ended needs no signal any more.
    kill_process(pid, signal).ok();
}

/// Waits until so many agents live.
pub(crate) fn until_agents(device: &Device, count: usize) -> Vec<u32> {
    let what = format!("{count} agents live on {}", device.name());
    until(&what, || agents(device), |agents| agents.len() == count);
    agents(device)
}

/// Asserts that a command ended well.
#[track_caller]
fn well(said: &Transcript) {
    assert_eq!(said.code, Some(0), "{said}");
}

fn facts(device: &Device) -> Value {
    device.json(&["status"])
}

#[test]
fn a_phone_runs_two_steps_at_once_and_lets_the_third_wait() {
    let mut fabric = Fabric::new(["phone"]);
    let [phone] = &mut *fabric;
    well(&phone.run(&["init", "--name", "phone", "--kind", "phone"]));
    phone.up();
    // Its process waits for the next note, for five seconds; stopped, it takes that and is silent.
    phone.note("one");
    let first = until_agents(phone, 1);
    signal(first[0], Signal::STOP);
    let second = phone.start(&["do", "note that two"]);
    let under_way = || facts(phone)["runs"].clone();
    until("the second note is under way", under_way, |runs| *runs == 1);

    phone.note("three");
    let both = until_agents(phone, 2);
    for pid in &both {
        signal(*pid, Signal::STOP);
    }
    let fourth = phone.start(&["do", "note that four"]);
    until("the fourth note is under way", under_way, |runs| *runs == 2);
    let fifth = phone.start(&["do", "note that five"]);
    until("the fifth note is under way", under_way, |runs| *runs == 3);
    // A third process would be there in milliseconds.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(agents(phone), both, "the fifth waits");

    for pid in &both {
        signal(*pid, Signal::CONT);
    }
    for waiting in [second, fourth, fifth] {
        well(&waiting.end());
    }
    assert_eq!(phone.notes(), ["five", "four", "one", "three", "two"]);
    phone.verify();
}

#[test]
fn a_node_knows_its_machine_and_what_the_person_says_of_the_network() {
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    well(&laptop.run(&["init", "--name", "laptop"]));
    for (options, metered) in [(&[][..], false), (&["--metered", "yes"], true), (&[], false)] {
        laptop.up_with(options, "");
        let known = |facts: &Value| facts["metered"] == metered && facts["machine"].is_object();
        until("the machine is read", || facts(laptop), known);
        let machine = facts(laptop)["machine"].clone();
        assert!(machine["cores"].as_u64().is_some_and(|cores| cores >= 1), "{machine}");
        assert!(machine["memory_bytes"].as_u64().is_some_and(|it| it > 64 << 20), "{machine}");
        assert!(machine["storage_free_bytes"].is_u64(), "{machine}");
        assert!(machine["load_percent"].as_u64().is_some_and(|it| it <= 100), "{machine}");
        laptop.stop();
    }
    // A line in the home's settings stays said.
    let settings = laptop.home().join("node.toml");
    let text = fs::read_to_string(&settings).expect("it was written at the start");
    assert!(text.contains("kind = \"laptop\""), "{text}");
    fs::write(&settings, format!("{text}metered = \"yes\"\n")).expect("it can be written");
    laptop.up();
    until("the line is read", || facts(laptop), |facts| facts["metered"] == true);
    laptop.stop();
    laptop.up_with(&["--metered", "no"], "");
    until("the word is read", || facts(laptop), |facts| facts["machine"].is_object());
    assert_eq!(facts(laptop)["metered"], false);
}

#[test]
fn a_node_that_rests_gives_back_what_its_start_needed() {
    let mut fabric = Fabric::new(["phone"]);
    let [phone] = &mut *fabric;
    well(&phone.run(&["init", "--name", "phone", "--kind", "phone"]));
    phone.up();
    let kibibytes_of_files = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", phone.node_id()));
        let status = status.expect("it is up");
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number.and_then(|number| number.parse().ok()).expect("the kernel counts it")
    };
    for _ in 0..2 {
        let after_work = kibibytes_of_files();
        until_within(Duration::from_secs(60), "it rests", kibibytes_of_files, |now| {
            *now < after_work * 2 / 3
        });
        phone.note("it goes on");
    }
    assert_eq!(phone.notes().len(), 2);
}

#[test]
fn a_models_speed_is_known_after_a_start() {
    let Some(model) = test_model() else {
        not_run("WEFT_TEST_MODEL names no model");
        return;
    };
    let mut fabric = Fabric::new(["server"]);
    let [server] = &mut *fabric;
    well(&server.run(&["init", "--name", "server", "--kind", "server"]));
    server.up();
    well(&server.run(&["model", "get", "--from", &model.to_string_lossy()]));
    let shown = server.run(&["model", "status"]).expect_code(0);
    assert_eq!(shown.stdout.matches("not measured yet").count(), 2, "{shown}");

    server.write("a.txt", "A house without a head is run by all who live in it. ".repeat(20));
    let summary = server.start(&["do", "summarize a.txt"]).end_within(Device::MODEL_PATIENCE);
    assert_eq!(summary.code, Some(0), "{summary}");
    let speeds = || -> Vec<Option<f64>> {
        let model = server.json(&["model", "status"])[0].clone();
        let fields = ["tokens_per_second", "prompt_tokens_per_second"];
        fields.into_iter().map(|field| model[field].as_f64()).collect()
    };
    until("it is measured", speeds, |speeds| speeds.iter().all(Option::is_some));
    let measured = speeds();
    server.stop();
    server.up();
    let known: Vec<_> = {
        let model = server.json(&["model", "status"])[0].clone();
        assert_eq!(model["state"], "idle", "nothing was asked of it since");
        let fields = ["tokens_per_second", "prompt_tokens_per_second"];
        fields.into_iter().map(|field| model[field].as_f64()).collect()
    };
    for (known, measured) in known.iter().zip(&measured) {
        let (known, measured) = (known.unwrap_or_default(), measured.unwrap_or_default());
        assert!((known - measured).abs() <= measured / 5.0, "{known}, and was {measured}");
    }
    let shown = server.run(&["model", "status"]).expect_code(0);
    assert_eq!(shown.stdout.matches("tokens/s").count(), 2, "{shown}");
}

//! Devices that are lost in the middle of what they do for another: what the person hears, and when.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use weft_e2e::{Device, Fabric, Running, until};

use crate::machine::{signal, until_agents};

/// Loss is told after three seconds; a busy machine takes longer to say so.
const SOON: Duration = Duration::from_secs(10);

/// The server is in the middle of a step for the laptop: its agent stands still. Gives the agent.
fn begin(laptop: &Device, server: &Device) -> (Running, Running, u32) {
    drop(laptop.run(&["do", "on the server note that one"]).expect_code(0));
    let agent = until_agents(server, 1)[0];
    signal(agent, Signal::STOP);
    let watch = laptop.watch();
    let doing = laptop.start(&["do", "on the server note that two"]);
    until(
        "the server is at it",
        || server.json(&["audit", "list"]),
        |records| {
            let of = |kind: &str| {
                records.as_array().into_iter().flatten().filter(|it| it["kind"] == kind).count()
            };
            of("intent") > of("outcome")
        },
    );
    (watch, doing, agent)
}

/// Waits until the person of the laptop is told, and not for long.
fn told_soon(watch: &Running, since: Instant) {
    watch.event("step-progressed", |it| says(it, "server: it went away; waiting for it"));
    let took = since.elapsed();
    assert!(took < SOON, "told after {took:?}");
}

/// A person at another terminal sees what the run waits for, and since when, though nothing of the run is
/// written meanwhile.
fn shows_what_it_waits_for(laptop: &Device) {
    let run = laptop.json(&["run", "show"]);
    let wait = &run["waits"][0];
    assert_eq!((&wait["for"], &wait["device"]), (&"device".into(), &"server".into()), "{run:#}");
    assert!(wait["since"].as_str() > run["started"].as_str(), "{run:#}");
    assert!(wait["most_s"].as_u64().is_some_and(|most| (1..=60).contains(&most)), "{run:#}");
    assert!(lines(&run).any(|line| line.starts_with("server: it went away")), "{run:#}");
    let shown = laptop.run(&["run", "show"]).expect_code(0).stdout;
    assert!(shown.contains(" waits for server, which is away; since 2"), "{shown}");
}

/// What the journal of a run has of what was said.
fn lines(run: &Value) -> impl Iterator<Item = &str> {
    let journal = run["journal"].as_array().into_iter().flatten();
    journal.filter_map(|it| it["line"].as_str())
}

fn says(event: &Value, line: &str) -> bool {
    event["log"].as_str().is_some_and(|log| log.starts_with(line))
}

/// The step goes on where it was, and happens once.
fn done_once(watch: &Running, doing: Running, laptop: &Device, server: &Device) {
    watch.event("step-progressed", |it| says(it, "server is here again"));
    drop(doing.end_within(Duration::from_secs(90)).expect_code(0));
    server.until_note("two");
    let twos = server.notes().iter().filter(|note| note.contains("two")).count();
    assert_eq!(twos, 1, "{:?}", server.notes());
    // Why it took so long is kept.
    let run = laptop.json(&["run", "show"]);
    assert!(lines(&run).any(|line| line.starts_with("server: it went away")), "{run:#}");
    assert_eq!(run["waits"], Value::Array(vec![]), "{run:#}");
    laptop.verify();
    server.verify();
}

#[test]
fn a_device_that_stands_still_in_the_middle_of_a_step_is_missed_and_goes_on_later() {
    let mut fabric = Fabric::pair(["laptop", "server"]);
    let [laptop, server] = &mut *fabric;
    let (watch, doing, agent) = begin(laptop, server);

    // Its kernel still answers; its program does not.
    let node = server.node_id();
    signal(node, Signal::STOP);
    told_soon(&watch, Instant::now());
    assert_eq!(laptop.sees("server"), "away");
    shows_what_it_waits_for(laptop);

    signal(node, Signal::CONT);
    signal(agent, Signal::CONT);
    done_once(&watch, doing, laptop, server);
    laptop.until_here(&["server"]);
}

#[test]
fn a_device_whose_power_goes_in_the_middle_of_a_step_is_missed_and_does_it_after_its_start() {
    let mut fabric = Fabric::pair(["laptop", "server"]);
    let [laptop, server] = &mut *fabric;
    let (watch, doing, _) = begin(laptop, server);
    let since = Instant::now();
    server.kill();
    told_soon(&watch, since);
    assert_eq!(laptop.sees("server"), "away");
    shows_what_it_waits_for(laptop);
    server.up();
    done_once(&watch, doing, laptop, server);
}

#[test]
fn what_no_device_could_do_says_why_whenever_it_is_asked() {
    let mut fabric = Fabric::pair(["laptop", "server"]);
    let [laptop, server] = &mut *fabric;
    server.kill();
    until("the server is away", || laptop.sees("server"), |state| state == "away");
    let why = "no device can do notes.save now (";
    let said = laptop.run(&["do", "on the server note that one"]).expect_code(6);
    assert!(said.stderr.contains(why), "{said:?}");
    let shown = laptop.run(&["run", "show"]).expect_code(0).stdout;
    assert!(shown.contains(&format!("1 notes.save: not-found: {why}")), "{shown}");
    assert!(shown.contains("server: away"), "{shown}");

    laptop.kill();
    laptop.up();
    assert_eq!(laptop.run(&["run", "show"]).stdout, shown);
    let run = laptop.json(&["run", "show"]);
    let journal = run["journal"].as_array().into_iter().flatten();
    assert_eq!(journal.filter(|it| it["entry"] == "ended").count(), 1, "{run:#}");
}

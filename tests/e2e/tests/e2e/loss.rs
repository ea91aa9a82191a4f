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
    let logged = run["journal"].as_array().into_iter().flatten();
    let lines: Vec<_> = logged.filter_map(|it| it["line"].as_str()).collect();
    assert!(lines.iter().any(|line| line.starts_with("server: it went away")), "{run:#}");
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
    server.up();
    done_once(&watch, doing, laptop, server);
}

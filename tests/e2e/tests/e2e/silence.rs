//! Devices that go or fall silent, as those see them who are left, and a node that does not answer.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use weft_e2e::{Device, Fabric, until};

use crate::machine::signal;

/// So long after a device went the others may tell each other that it was here.
const AFTERMATH: Duration = Duration::from_secs(2);

fn seen(by: &Device, name: &str) -> Value {
    let devices = by.json(&["devices"]);
    let found = devices.as_array().into_iter().flatten().find(|it| it["name"] == name);
    found.cloned().expect("it belongs")
}

#[test]
fn a_device_that_is_gone_is_near_nobody_and_one_that_hangs_says_nothing_for_ten_seconds_only() {
    let mut fabric = Fabric::pair(["laptop", "phone", "server"]);
    let [laptop, phone, server] = &mut *fabric;
    laptop.until_here(&["phone", "server"]);
    server.until_here(&["laptop", "phone"]);

    phone.stop();
    let gone = Instant::now();
    while gone.elapsed() < AFTERMATH {
        for by in [&*laptop, &*server] {
            let state = by.sees("phone");
            assert!(matches!(state.as_str(), "here" | "away"), "{} says {state}", by.name());
        }
    }
    for by in [&*laptop, &*server] {
        assert_eq!(by.sees("phone"), "away", "{}", by.name());
    }

    signal(server.node_id(), Signal::STOP);
    let asked = Instant::now();
    let waiting: Vec<_> =
        [&["status"][..], &["devices"], &["notes", "list"], &["--json", "run", "list"]]
            .into_iter()
            .map(|words| server.start(words))
            .collect();
    let waiting: Vec<_> = waiting.into_iter().map(|it| it.end().expect_code(3)).collect();
    assert!(asked.elapsed() >= Duration::from_secs(10));
    for said in &waiting {
        assert!(said.stderr.contains("error: the node did not answer within 10 s\n"), "{said}");
        assert!(said.stderr.contains("hint: weft doctor says more\n"), "{said}");
    }
    assert_eq!(waiting[3].json()["error"]["kind"], "not-running", "{}", waiting[3]);

    // To be given up is not to be heard.
    until("the server is away", || laptop.sees("server"), |it| it == "away");
    let away = seen(laptop, "server");
    assert!(away["last_heard"].as_str() < away["since"].as_str(), "{away}");
    signal(server.node_id(), Signal::CONT);
    laptop.until_here(&["server"]);
}

//! Facts for tests: a laptop with a phone and a server, of which all is well.

use serde_json::json;
use weft_llm::get::Pinned;
use weft_store::key::Keeping;

use super::{
    Finding, Level,
    facts::{Answers, Entry, Facts, HomeFacts, MachineFacts, NodeFacts},
    interface::Interface,
};

pub(in crate::cli) fn facts() -> Facts {
    let entry = |mode, bytes| Some(Entry { mode, owner: 1000, bytes });
    let home = HomeFacts {
        path: "/home/ada/.local/share/weft".into(),
        user: 1000,
        folder: entry(0o700, 4096),
        is_closed: false,
        key: entry(0o600, 81),
        keeping: Ok(Keeping::File),
        store: entry(0o600, 12 << 20),
        is_store: Some(true),
        free_bytes: Some(120 << 30),
        port: Some(4711),
    };
    let machine = MachineFacts {
        interfaces: Some(vec![Interface { name: "wlan0".into(), flags: 0x1003 }]),
        firewalls: Vec::new(),
        is_port_taken: false,
        looks_around: true,
        rules: Some(Ok("aqcaibaeaqcaibae".into())),
    };
    let at = "2026-03-10T09:00:00Z";
    let contact = |id: &str, name: &str, ip: &str, relays: bool| {
        json!({"id": id, "name": name, "addresses": [format!("/ip4/{ip}/tcp/4711")],
            "sighted": at, "failed": null, "clock_ahead_ms": 12, "relays": relays})
    };
    let device = |id: &str, name: &str, this: bool, way: &str, trip: f64, models: &[&str]| {
        json!({"id": id, "name": name, "kind": "laptop", "state": "here", "standing": null,
            "this": this, "way": way, "round_trip_ms": trip, "since": at, "models": models})
    };
    let everywhere = ["laptop", "phone", "server"];
    let pinned = Pinned::default_model();
    let answers = Answers {
        status: json!({"name": "laptop", "fabric_name": "home", "kind": "laptop", "role": "admin",
            "standing": null, "update_needed": false, "recovery": true, "keys": "file",
            "addresses": ["/ip4/192.168.1.20/tcp/4711", "/ip4/192.168.1.20/udp/4711/quic-v1"],
            "devices_here": 2, "devices": 2, "documents": 3, "runs": 0, "warnings": [],
            "audit_head": {"position": 15}, "policy": "aqcaibaeaqcaibae", "models": [],
            "locked": false}),
        checkup: json!({"boot": 7, "time": at, "clock_set": null,
            "devices": [contact("p", "phone", "192.168.1.7", false),
                contact("s", "server", "203.0.113.5", true)],
            "admins": ["laptop"], "queue": 0, "battery": 81, "metered": false,
            "reach": {"confirmed": [], "observed": [], "mapped": [], "announced": [],
                "relays": [{"name": "server", "since": at}], "service": null, "nat": "steady",
                "troubles": []},
            "machine": {"cores": 4, "load_percent": 20, "memory_bytes": null,
                "storage_free_bytes": null},
            "warnings": [], "copies": [],
            "shell": {"version": env!("CARGO_PKG_VERSION"), "loopback": false, "multicast": true,
                "store_failure": null, "reserve_held": true, "wall_failure": null}}),
        devices: json!([
            device("l", "laptop", true, "direct", 0.0, &["m"]),
            device("p", "phone", false, "direct", 1.4, &[]),
            device("s", "server", false, "relayed", 30.0, &["m"])
        ]),
        agents: json!([{"name": "notes", "devices": everywhere},
            {"name": "llm", "devices": ["server"]}, {"name": "timer", "devices": everywhere}]),
        models: json!([{"name": pinned.name.trim_end_matches(".gguf"), "path": "/m.gguf",
            "bytes": pinned.bytes, "state": "ready", "tokens_per_second": 30.2}]),
        verified: json!({"ok": true, "records": 16, "head": {"position": 15}, "fault": null,
            "witnesses": [{"device": "phone", "position": 15}, {"device": "server", "position": 15}],
            "bogus": [], "setbacks": [], "forks": [], "former": []}),
    };
    Facts { home, machine, node: NodeFacts::Running(Box::new(answers)) }
}

pub(super) fn answers(facts: &mut Facts) -> &mut Answers {
    let NodeFacts::Running(answers) = &mut facts.node else { panic!("a node runs in the sample") };
    answers
}

pub(super) fn stop(facts: &mut Facts) {
    facts.node = NodeFacts::None;
}

/// The phone goes away, and each dial to it ends so.
pub(super) fn lose(answers: &mut Answers, name: &str, ending: &str) {
    let at = "2026-03-10T09:00:00Z";
    for device in answers.devices.as_array_mut().into_iter().flatten() {
        if device["name"] == name {
            device["state"] = "away".into();
        }
    }
    for contact in answers.checkup["devices"].as_array_mut().into_iter().flatten() {
        if contact["name"] == name {
            let address = contact["addresses"][0].clone();
            contact["failed"] = json!({"at": at, "times": 3,
                "attempts": [{"address": address, "ending": ending, "text": null}]});
        }
    }
}

/// What a check finds when something is changed.
pub(super) fn findings(
    check: impl Fn(&Facts) -> Vec<Finding>,
    change: impl FnOnce(&mut Facts),
) -> Vec<Finding> {
    let mut facts = facts();
    change(&mut facts);
    let findings = check(&facts);
    for finding in &findings {
        let has_remedy = !finding.to_do.is_empty() || finding.why.is_some();
        assert!(finding.level == Level::Ok || has_remedy, "nothing to do about {finding:?}");
    }
    findings
}

/// The same, each as its level and what is so.
pub(super) fn said(
    check: impl Fn(&Facts) -> Vec<Finding>,
    change: impl FnOnce(&mut Facts),
) -> Vec<String> {
    let findings = findings(check, change);
    findings.iter().map(|it| format!("{}: {}", it.level.word(), it.what)).collect()
}

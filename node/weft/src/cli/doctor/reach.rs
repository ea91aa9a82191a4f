//! How this device is reached from outside: public, behind a router, through a relay.

use serde_json::Value;

use super::{
    Finding, address, contact,
    facts::{Answers, Facts},
};
use crate::cli::terminal::{items, local_time, text};

/// What a person does where nobody relays.
const RELAY: &str = "on a device with a public address: weft up --announce ADDRESS";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(answers) = facts.answers() else { return Vec::new() };
    let reach = &answers.checkup["reach"];
    if reach.is_null() || answers.is_loopback() {
        return Vec::new();
    }
    let mut findings = vec![Finding::ok("reach", line(reach))];
    findings.extend(relay(answers));
    for trouble in items(&reach["troubles"]) {
        findings.extend(of_trouble(trouble, reach));
    }
    findings
}

/// How it is reached, in one line.
pub(in crate::cli) fn line(reach: &Value) -> String {
    let first = |field: &str| items(&reach[field]).find_map(Value::as_str).map(address::shown);
    let behind = match reach["nat"].as_str() {
        Some("steady") => "behind a router that lets direct connections through",
        Some("per-peer") => "behind a router that hinders direct connections",
        Some("none") => "under an address of its own",
        _ => "",
    };
    let mapped = || items(&reach["mapped"]).filter_map(Value::as_str);
    let is_mapped = |address: &str| mapped().any(|it| it == address);
    if let Some(address) = items(&reach["confirmed"]).find_map(Value::as_str) {
        let by = if is_mapped(address) { ", which the router passes on (UPnP)" } else { "" };
        return format!("public: reached at {}{by}", address::shown(address));
    }
    if let Some(address) = first("announced") {
        return format!("said to be public at {address}, which no device has confirmed");
    }
    if let Some(address) = first("mapped") {
        return format!("{behind}{}the router passes on {address} (UPnP)", comma(behind));
    }
    let via: Vec<String> = items(&reach["relays"]).map(|it| text(it, "name")).collect();
    if !via.is_empty() {
        return format!("{behind}{}reached via {}", comma(behind), via.join(" and "));
    }
    if behind.is_empty() {
        "from this network; no device outside has seen it yet".to_owned()
    } else {
        format!("{behind}; no relay holds a place for it")
    }
}

const fn comma(before: &str) -> &'static str {
    if before.is_empty() { "" } else { ", " }
}

/// The relay: this device itself, one that holds a place for it, or none.
fn relay(answers: &Answers) -> Option<Finding> {
    let reach = &answers.checkup["reach"];
    let count = |field: &str| reach["service"][field].as_u64().unwrap_or(0);
    if !reach["service"].is_null() {
        let (reservations, circuits) = (count("reservations"), count("circuits"));
        let what = format!(
            "this device relays for the others: {reservations} held, {circuits} connections carried"
        );
        return Some(Finding::ok("relay", what));
    }
    if let Some(held) = items(&reach["relays"]).next() {
        let since = local_time(held, "since");
        let what = format!("{} holds a place since {since}", text(held, "name"));
        return Some(Finding::ok("relay", what));
    }
    let is_public = items(&reach["confirmed"]).next().is_some();
    let names: Vec<_> = contact::others(answers)
        .filter(|(_, contact)| contact["relays"] == true)
        .map(|(device, _)| text(device, "name"))
        .collect();
    if !names.is_empty() {
        let names = names.join(", ");
        return Some(if is_public {
            Finding::ok("relay", format!("not needed; {names} relays"))
        } else {
            Finding::warning("relay", format!("{names} relays, and holds no place for this device"))
                .why("devices elsewhere may not reach this one")
                .advise("look again in a minute; it is asked for again by itself")
        });
    }
    let (others, away) = contact::others(answers).fold((0, 0), |(all, away), (device, _)| {
        (all + 1, away + usize::from(device["state"] != "here"))
    });
    if is_public || others == 0 || away == 0 {
        return None;
    }
    Some(
        Finding::warning("relay", "none of your devices relays")
            .why("two devices that are behind routers, in different networks, may not meet")
            .advise(RELAY),
    )
}

/// What does not work of it, as far as that matters.
fn of_trouble(trouble: &Value, reach: &Value) -> Option<Finding> {
    let why = text(trouble, "why");
    let is_reached = ["confirmed", "relays"].iter().any(|it| items(&reach[it]).next().is_some());
    match trouble["part"].as_str()? {
        // Many routers map no ports, and where there is another way that is no matter.
        "mapping" => Some(Finding::ok("router", format!("maps no port (UPnP): {why}"))),
        "dial-back" if items(&reach["announced"]).next().is_some() => Some(
            Finding::warning("reach", format!("no device came in at the announced address: {why}"))
                .why("a relay that nobody reaches is none")
                .advise("let its port in, UDP and TCP: in the firewall, and where the machine is rented"),
        ),
        "reservation" if !is_reached => Some(
            Finding::warning("relay", format!("no relay holds a place for this device: {why}"))
                .why("devices elsewhere may not reach this one")
                .advise(RELAY),
        ),
        "upgrade" => Some(Finding::ok("direct", format!("a relayed connection stayed so: {why}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::sample;

    fn said(reach: Value) -> Vec<String> {
        sample::said(check, |facts| {
            let mut all = json!({"confirmed": [], "observed": [], "mapped": [], "announced": [],
                "relays": [], "service": null, "nat": "unknown", "troubles": []});
            for (field, value) in reach.as_object().unwrap() {
                all[field] = value.clone();
            }
            sample::answers(facts).checkup["reach"] = all;
        })
    }

    #[test]
    fn how_a_device_is_reached_is_one_line() {
        let server = json!([{"name": "server", "since": "2026-03-10T09:00:00Z"}]);
        let at = json!(["/ip4/203.0.113.5/udp/4711/quic-v1"]);
        for (reach, expected) in [
            (json!({"confirmed": at}), "public: reached at 203.0.113.5:4711"),
            (
                json!({"nat": "steady", "relays": server}),
                "behind a router that lets direct connections through, reached via server",
            ),
            (
                json!({"nat": "per-peer"}),
                "behind a router that hinders direct connections; no relay holds a place for it",
            ),
            (json!({"relays": server}), "reached via server"),
            (json!({"mapped": at}), "the router passes on 203.0.113.5:4711 (UPnP)"),
            (
                json!({"mapped": at, "confirmed": at}),
                "public: reached at 203.0.113.5:4711, which the router passes on (UPnP)",
            ),
            (json!({}), "from this network; no device outside has seen it yet"),
        ] {
            assert_eq!(said(reach.clone())[0], format!("ok: {expected}"), "{reach}");
        }
    }

    #[test]
    fn who_relays_and_that_nobody_does_is_told() {
        let serving = said(json!({"service": {"reservations": 2, "circuits": 1}}));
        assert_eq!(
            serving[1],
            "ok: this device relays for the others: 2 held, 1 connections carried"
        );
        let nobody = sample::findings(check, |facts| {
            let answers = sample::answers(facts);
            answers.checkup["devices"][1]["relays"] = false.into();
            answers.checkup["reach"]["relays"] = json!([]);
            sample::lose(answers, "phone", "no-answer");
        });
        let relay = nobody.iter().find(|it| it.about == "relay").unwrap();
        assert_eq!(relay.what, "none of your devices relays");
        assert_eq!(relay.to_do, [RELAY]);
        let idle = said(json!({}));
        assert_eq!(idle[1], "warning: server relays, and holds no place for this device");
    }

    #[test]
    fn what_does_not_work_is_told_as_far_as_it_matters() {
        let trouble = |part: &str| json!([{"part": part, "why": "odd"}]);
        let mapping = said(json!({"troubles": trouble("mapping")}));
        assert!(mapping.contains(&"ok: maps no port (UPnP): odd".to_owned()), "{mapping:?}");
        let closed = said(json!({"troubles": trouble("dial-back"),
            "announced": ["/ip4/203.0.113.5/tcp/4711"]}));
        assert!(closed.iter().any(|it| it.starts_with("warning: no device came in")), "{closed:?}");
        let unknown = said(json!({"troubles": trouble("dial-back")}));
        assert!(!unknown.iter().any(|it| it.contains("odd")), "{unknown:?}");
    }
}

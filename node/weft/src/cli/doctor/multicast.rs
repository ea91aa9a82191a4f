//! Whether devices in one network find each other by themselves.

use super::{Finding, address, contact, facts::Facts};
use crate::cli::terminal::text;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(answers) = facts.answers() else { return Vec::new() };
    if answers.checkup["shell"].is_null() {
        return Vec::new();
    }
    if answers.checkup["shell"]["multicast"] != true {
        let what = if answers.is_loopback() { "off, by WEFT_LISTEN=loopback" } else { "off" };
        return vec![Finding::ok("multicast", what)];
    }
    let mut seen = Vec::new();
    let mut unseen = Vec::new();
    let own = address::sockets(&answers.status["addresses"]);
    for (device, contact) in contact::others(answers) {
        let name = text(device, "name");
        if contact["sighted"].is_string() {
            seen.push(name);
        } else if device["state"] != "here"
            && contact::has_failed(contact)
            && contact::is_in_network(contact, &own)
        {
            unseen.push(name);
        }
    }
    if !seen.is_empty() {
        return vec![Finding::ok("multicast", format!("{} seen in this network", seen.join(", ")))];
    }
    if !unseen.is_empty() {
        let who = unseen.join(", ");
        return vec![
            Finding::warning(
                "multicast",
                format!("{who} was last in this network, and is not seen in it"),
            )
            .why("it may be off; or this is a guest Wi-Fi, which keeps its devices from each other")
            .advise("turn off «client isolation» in the router, or use its main network"),
        ];
    }
    vec![Finding::ok("multicast", "on; no other device was seen in this network yet")]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::doctor::sample;

    fn said(phone_sighted: Value, is_multicast: bool) -> Vec<String> {
        sample::said(check, |facts| {
            let answers = sample::answers(facts);
            sample::lose(answers, "phone", "no-answer");
            answers.checkup["devices"][0]["sighted"] = phone_sighted;
            answers.checkup["devices"][1]["sighted"] = Value::Null;
            answers.checkup["shell"]["multicast"] = is_multicast.into();
        })
    }

    #[test]
    fn a_network_that_keeps_devices_apart_is_guessed_at() {
        let guest = said(Value::Null, true);
        let expected = "warning: phone was last in this network, and is not seen in it";
        assert_eq!(guest, [expected]);
        assert_eq!(said(json!("2026-03-10T09:00:00Z"), true), ["ok: phone seen in this network"]);
        assert_eq!(said(Value::Null, false), ["ok: off"]);
        let elsewhere = sample::said(check, |facts| {
            let answers = sample::answers(facts);
            sample::lose(answers, "phone", "no-answer");
            answers.checkup["devices"][0]["sighted"] = Value::Null;
            answers.checkup["devices"][1]["sighted"] = Value::Null;
            answers.checkup["devices"][0]["addresses"] = json!(["/ip4/10.9.8.7/tcp/4711"]);
        });
        assert_eq!(elsewhere, ["ok: on; no other device was seen in this network yet"]);
    }
}

//! The other devices: here, or why they can't be reached.

use std::net::SocketAddr;

use serde_json::Value;

use super::{
    Finding, Level, address, attempt,
    facts::{Answers, Facts},
};
use crate::cli::{
    device::away,
    means::typed,
    terminal::{items, listed, local_time, text},
};

/// The other devices that belong, each with how it was last looked for; null where that is not known.
pub(super) fn others(answers: &Answers) -> impl Iterator<Item = (&Value, &Value)> {
    items(&answers.devices)
        .filter(|device| device["this"] != true && device["standing"].is_null())
        .map(|device| {
            let contacts = &answers.checkup["devices"];
            let contact = items(contacts).find(|contact| contact["id"] == device["id"]);
            (device, contact.unwrap_or(&Value::Null))
        })
}

/// How the last dial to a device ended at each address.
pub(super) fn endings(contact: &Value) -> impl Iterator<Item = &str> {
    items(&contact["failed"]["attempts"]).filter_map(|it| it["ending"].as_str())
}

/// Whether a dial came to nothing.
pub(super) fn has_failed(contact: &Value) -> bool {
    !contact["failed"].is_null()
}

/// Whether an address of a device lies in a network of this one.
pub(super) fn is_in_network(contact: &Value, own: &[SocketAddr]) -> bool {
    let theirs = items(&contact["addresses"]).filter_map(Value::as_str).filter_map(typed);
    let theirs: Vec<_> = theirs.filter(|it| !it.ip().is_loopback()).collect();
    own.iter().any(|own| theirs.iter().any(|it| address::is_one_network(own, it)))
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(answers) = facts.answers() else { return Vec::new() };
    let mut findings: Vec<Finding> =
        others(answers).map(|(device, it)| of_device(device, it, answers).of(device)).collect();
    let out = items(&answers.devices).filter(|it| it["this"] != true && !it["standing"].is_null());
    findings.extend(out.map(|device| out_of_fabric(device).of(device)));
    if findings.is_empty() {
        findings.push(Finding::ok("devices", "this one is alone; weft invite brings another"));
    }
    findings
}

fn out_of_fabric(device: &Value) -> Finding {
    let (name, standing) = (text(device, "name"), &device["standing"]);
    let (state, why) = (text(standing, "state"), text(standing, "why"));
    let what = format!("{state}: {why}");
    if state == "revoked" {
        return Finding::ok(&name, what);
    }
    Finding::warning(&name, what)
        .why("it is served nothing but the news of who belongs")
        .advise(text(standing, "remedy"))
}

fn of_device(device: &Value, contact: &Value, answers: &Answers) -> Finding {
    let name = text(device, "name");
    if device["state"] == "here" {
        let since = local_time(device, "since");
        let way = match device["way"].as_str() {
            Some("relayed") => ", through a relay",
            Some(_) => ", direct",
            None => "",
        };
        let round_trip = device["round_trip_ms"].as_f64().map(|ms| format!(", {ms:.1} ms"));
        let round_trip = round_trip.unwrap_or_default();
        return Finding::ok(&name, format!("here since {since}{way}{round_trip}"));
    }
    let state = match text(device, "state").as_str() {
        "never seen" => "never heard of since it was paired".to_owned(),
        "near" => format!("on, as {} says", listed(&device["via"])),
        _ => away(device),
    };
    let Reason { level, what, why, to_do } = reason(&name, contact, answers);
    let mut finding = Finding::new(level, &name, format!("{state}: {what}"));
    if let Some(tried) = tried(contact) {
        finding = finding.why(match why {
            Some(why) => format!("{why}; {tried}"),
            None => tried,
        });
    } else if let Some(why) = why {
        finding = finding.why(why);
    }
    finding = finding.advise(to_do);
    if device["state"] == "never seen" {
        finding = finding.advise(format!("weft device revoke {name}, if it does not come"));
    }
    finding
}

/// Why a device can't be reached.
struct Reason {
    level: Level,
    what: String,
    why: Option<String>,
    to_do: String,
}

impl Reason {
    fn new(what: String, to_do: String) -> Self {
        Self { level: Level::Warning, what, why: None, to_do }
    }

    fn why(self, why: &str) -> Self {
        Self { why: Some(why.to_owned()), ..self }
    }
}

fn reason(name: &str, contact: &Value, answers: &Answers) -> Reason {
    let has = |ending: &str| endings(contact).any(|it| it == ending);
    let at = |ending: &str| attempt::places(contact, ending);
    let start = format!("on {name}: weft up, where it can reach this device or another of yours");
    if !has_failed(contact) {
        return if items(&contact["addresses"]).next().is_none() {
            no_address(name)
        } else {
            Reason::new("it is being looked for".to_owned(), format!("look again; or {start}"))
        };
    }
    if endings(contact).next().is_none() {
        return if answers.is_loopback() && items(&contact["addresses"]).next().is_some() {
            Reason::new(
                "it is not on this machine, which this node does not leave".to_owned(),
                "start this node without WEFT_LISTEN=loopback".to_owned(),
            )
        } else {
            no_address(name)
        };
    }
    if has("other-device") {
        let what = format!("another device answers at {}", at("other-device"));
        return Reason::new(what, start)
            .why("its address went to another machine; it tells its new one when it comes");
    }
    if has("refused") {
        let what = format!("its machine is on, but no node runs there ({})", at("refused"));
        return Reason::new(what, format!("on {name}: weft up"));
    }
    if has("no-answer") {
        let addresses = at("no-answer");
        if contact["sighted"].is_string() {
            let at = local_time(contact, "sighted");
            let what =
                format!("seen in this network at {at}, but it does not answer at {addresses}");
            return Reason {
                level: Level::Problem,
                what,
                why: Some("a firewall there, or on the way, keeps what comes out".to_owned()),
                to_do: {
                    let port = attempt::ports(contact, "no-answer");
                    let port = port.unwrap_or_else(|| "the UDP and TCP port of weft".to_owned());
                    format!("on {name}: let {port} in")
                },
            };
        }
        let what = format!("nothing answers at {addresses}");
        return Reason::new(what, start)
            .why("it is off, asleep, in another network, or behind a firewall");
    }
    if has("no-route") {
        let what = format!("this machine has no way to {}", at("no-route"));
        return Reason::new(what, "connect this machine to a network".to_owned())
            .why("it is in no network that leads there");
    }
    let words = items(&contact["failed"]["attempts"]).find_map(|it| it["text"].as_str());
    let what = format!("it was not reached: {}", words.unwrap_or("nobody says why"));
    Reason::new(what, start)
}

fn no_address(name: &str) -> Reason {
    Reason::new(
        "no address of it is known".to_owned(),
        format!("start {name} in one network with this device, or with any that it knows"),
    )
}

/// How often it was dialled in vain, and when last.
fn tried(contact: &Value) -> Option<String> {
    let at = local_time(&contact["failed"], "at");
    let times = contact["failed"]["times"].as_u64()?;
    let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
    Some(format!("dialled {times}, last at {at}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::sample;

    /// What is said of the phone, which is away; its last dial ended so.
    fn phone(change: impl FnOnce(&mut Answers)) -> Finding {
        let found = sample::findings(check, |facts| {
            let answers = sample::answers(facts);
            sample::lose(answers, "phone", "no-answer");
            answers.checkup["devices"][0]["sighted"] = Value::Null;
            change(answers);
        });
        found.into_iter().find(|it| it.about == "phone").expect("it is told of")
    }

    fn attempts(endings: &[&str]) -> Value {
        let attempt = |ending: &&str| json!({"address": "/ip4/192.168.1.7/tcp/4711", "ending": ending, "text": "odd"});
        json!({"at": "2026-03-10T09:00:00Z", "times": 3,
            "attempts": endings.iter().map(attempt).collect::<Vec<_>>()})
    }

    fn what(endings: &[&str]) -> String {
        phone(|answers| answers.checkup["devices"][0]["failed"] = attempts(endings)).what
    }

    #[test]
    fn why_a_device_is_not_reached_is_told_in_words() {
        for (endings, expected) in [
            (
                &["no-answer", "refused"][..],
                "its machine is on, but no node runs there (192.168.1.7:4711 by TCP)",
            ),
            (&["refused", "other-device"], "another device answers at 192.168.1.7:4711 by TCP"),
            (&["no-answer", "no-route"], "nothing answers at 192.168.1.7:4711 by TCP"),
            (&["no-route"], "this machine has no way to 192.168.1.7:4711 by TCP"),
            (&["other"], "it was not reached: odd"),
            (&[], "no address of it is known"),
        ] {
            let said = what(endings);
            assert!(said.starts_with("away since "), "{said}");
            assert!(said.ends_with(expected), "{endings:?}: {said}");
        }
        let known = phone(|answers| answers.checkup["devices"][0]["failed"] = Value::Null);
        assert!(known.what.ends_with(": it is being looked for"), "{known:?}");
        let unknown = phone(|answers| {
            answers.checkup["devices"][0]["failed"] = Value::Null;
            answers.checkup["devices"][0]["addresses"] = json!([]);
        });
        assert!(unknown.what.ends_with(": no address of it is known"), "{unknown:?}");
    }

    #[test]
    fn a_device_that_is_near_and_silent_is_behind_a_firewall() {
        let near = phone(|answers| {
            answers.checkup["devices"][0]["sighted"] = json!("2026-03-10T09:00:00Z");
        });
        assert_eq!(near.level, Level::Problem);
        assert!(near.what.ends_with("does not answer at 192.168.1.7:4711 by TCP"), "{near:?}");
        assert_eq!(near.to_do, ["on phone: let TCP port 4711 in"]);
        let why = near.why.unwrap();
        assert!(why.starts_with("a firewall there") && why.contains("dialled 3 times, last at"));
    }

    #[test]
    fn of_a_device_whose_going_nobody_saw_it_is_said_when_it_was_heard() {
        let unseen = phone(|answers| {
            answers.devices[1]["since"] = Value::Null;
            answers.devices[1]["last_heard"] = "2026-03-10T09:00:00Z".into();
        });
        assert!(unseen.what.starts_with("away, last heard about 2026-"), "{unseen:?}");
    }

    #[test]
    fn a_node_that_stays_on_its_machine_says_so() {
        let alone = phone(|answers| {
            answers.checkup["shell"]["loopback"] = true.into();
            answers.checkup["devices"][0]["failed"] = attempts(&[]);
        });
        assert!(alone.what.ends_with("which this node does not leave"), "{alone:?}");
    }

    #[test]
    fn a_device_that_is_called_as_a_part_is_told_apart_by_its_id() {
        let mut facts = sample::facts();
        let answers = sample::answers(&mut facts);
        for phone in [&mut answers.devices[1], &mut answers.checkup["devices"][0]] {
            phone["name"] = "clock".into();
        }
        answers.devices[2]["standing"] =
            json!({"state": "revoked", "why": "laptop revoked it", "remedy": ""});
        let findings: Vec<Value> =
            crate::cli::doctor::judge(&facts).iter().map(Finding::json).collect();
        let about = |device: Value| -> Vec<&str> {
            let of = findings.iter().filter(|it| it["device"] == device);
            of.filter_map(|it| it["about"].as_str()).collect()
        };
        assert_eq!((about("p".into()), about("s".into())), (vec!["clock"], vec!["server"]));
        let parts = about(Value::Null);
        assert_eq!(parts.iter().filter(|it| **it == "clock").count(), 1, "{parts:?}");
    }

    #[test]
    fn a_device_that_is_here_or_out_is_one_line() {
        let found = sample::said(check, |_| ());
        assert!(found[0].starts_with("ok: here since "), "{found:?}");
        assert!(
            found[0].ends_with(", direct, 1.4 ms")
                && found[1].ends_with(", through a relay, 30.0 ms")
        );
        let out = |state: &str| {
            sample::findings(check, |facts| {
                let phone = &mut sample::answers(facts).devices[1];
                phone["state"] = state.into();
                phone["standing"] = json!({"state": state, "why": "laptop revoked it",
                    "remedy": "weft device keep phone"});
            })
            .remove(1)
        };
        let (revoked, suspended) = (out("revoked"), out("suspended"));
        assert_eq!((revoked.level, &*revoked.what), (Level::Ok, "revoked: laptop revoked it"));
        assert_eq!(suspended.level, Level::Warning);
        assert_eq!(suspended.to_do, ["weft device keep phone"]);
        let near = sample::findings(check, |facts| {
            let phone = &mut sample::answers(facts).devices[1];
            (phone["state"], phone["via"]) = ("near".into(), json!(["server"]));
        });
        assert!(near[0].what.starts_with("on, as server says: "), "{near:?}");
        let never = sample::findings(check, |facts| {
            sample::answers(facts).devices[1]["state"] = "never seen".into();
        });
        assert!(never[0].what.starts_with("never heard of since it was paired: "), "{never:?}");
        assert_eq!(never[0].to_do[1], "weft device revoke phone, if it does not come");
    }
}

//! Devices that run an older version of the program than another one does.

use serde_json::Value;
use weft_protocol::version::Version;

use super::{Finding, facts::Facts};
use crate::cli::terminal::{items, text};

/// A device that is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Behind {
    /// As the node answers.
    pub(in crate::cli) device: Value,
    /// What it runs, and which device runs a newer one.
    pub(in crate::cli) what: String,
    /// What to do about it.
    pub(in crate::cli) to_do: String,
}

/// The devices that run an older version than the newest one does, as far as they say so now.
pub(in crate::cli) fn behind(devices: &Value) -> Vec<Behind> {
    let running: Vec<(Version, &Value)> = items(devices)
        .filter(|it| it["state"] == "here" || it["state"] == "near")
        .filter_map(|it| Some((it["version"].as_str()?.parse().ok()?, it)))
        .collect();
    let Some((newest, ahead)) = running.iter().max_by_key(|(version, _)| *version) else {
        return Vec::new();
    };
    let older = running.iter().filter(|(version, _)| version < newest).map(|(version, it)| {
        let (name, ahead) = (text(it, "name"), text(ahead, "name"));
        let place = if it["this"] == true { "here".to_owned() } else { format!("on {name}") };
        Behind {
            what: format!("{name} runs version {version}, and {ahead} {newest}"),
            to_do: format!("update weft {place}, and start its node again"),
            device: (*it).clone(),
        }
    });
    older.collect()
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(answers) = facts.answers() else { return Vec::new() };
    let of = |Behind { device, what, to_do }| {
        Finding::warning(&text(&device, "name"), what)
            .of(&device)
            .why("what came with the newer one does not work there, and steps of agents go elsewhere")
            .advise(to_do)
    };
    behind(&answers.devices).into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::sample;

    #[test]
    fn a_device_that_runs_an_older_version_is_told() {
        let said = |versions: [Value; 3]| {
            sample::said(check, |facts| {
                let devices = sample::answers(facts).devices.as_array_mut().unwrap();
                for (device, version) in devices.iter_mut().zip(versions) {
                    device["version"] = version;
                }
            })
        };
        assert_eq!(said([json!("0.1.0"), json!("0.1.0"), json!("0.1.0")]), [""; 0]);
        assert_eq!(said([json!("0.1.0"), Value::Null, json!("?")]), [""; 0], "nobody says so");
        let older = said([json!("0.10.0"), json!("0.9.1"), json!("0.10.0")]);
        assert_eq!(older, ["warning: phone runs version 0.9.1, and server 0.10.0"]);
        let both = said([json!("0.1.0"), json!("0.2.0"), json!("0.1.9")]);
        assert_eq!(both.len(), 2, "{both:?}");
        assert_eq!(both[0], "warning: laptop runs version 0.1.0, and phone 0.2.0");
    }

    #[test]
    fn it_is_said_where_to_update_and_only_of_those_who_are_there() {
        let device = |name: &str, state: &str, version: &str, this: bool| json!({"name": name, "state": state, "version": version, "this": this});
        let devices = json!([
            device("laptop", "here", "0.1.0", true),
            device("phone", "near", "0.1.1", false),
            device("server", "away", "0.2.0", false)
        ]);
        let behind = behind(&devices);
        assert_eq!(behind.len(), 1, "{behind:?}");
        assert_eq!(behind[0].to_do, "update weft here, and start its node again");
    }
}

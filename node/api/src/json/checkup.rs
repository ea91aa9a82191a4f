//! The facts of a checkup.

use serde_json::{Value, json};
use weft_core::{
    contact::Failed,
    door::{Checkup, ContactView},
    skew::ClockSet,
};
use weft_protocol::{
    attempt::{Attempt, Ending},
    presence::Machine,
    reach::{Nat, Part, Report},
    time::WallTime,
};

use super::time;
use crate::message::ShellView;

/// The facts of a checkup. `shell` is `null` where the shell did not say.
pub fn checkup(it: &Checkup, shell: Option<&ShellView>) -> Value {
    json!({
        "boot": it.boot,
        "time": time(it.time),
        "clock_set": it.clock_set.map(clock_set),
        "devices": it.devices.iter().map(contact).collect::<Vec<_>>(),
        "admins": it.admins,
        "queue": it.queue,
        "battery": it.battery,
        "metered": it.metered,
        "reach": reach(&it.reach, &it.relays_held),
        "machine": it.machine.map(machine),
        "warnings": it.warnings,
        "copies": it.copies,
        "shell": shell.map(shell_view),
    })
}

fn reach(report: &Report, held: &[(String, WallTime)]) -> Value {
    let held = held.iter().map(|(name, since)| json!({"name": name, "since": time(*since)}));
    let service = report
        .service
        .map(|service| json!({"reservations": service.reservations, "circuits": service.circuits}));
    let troubles = report.troubles.iter().map(|it| json!({"part": part(it.part), "why": it.why}));
    json!({
        "confirmed": report.confirmed,
        "observed": report.observed,
        "mapped": report.mapped,
        "announced": report.announced,
        "relays": held.collect::<Vec<_>>(),
        "service": service,
        "nat": nat(report.nat),
        "troubles": troubles.collect::<Vec<_>>(),
    })
}

const fn nat(nat: Nat) -> &'static str {
    match nat {
        Nat::None => "none",
        Nat::Steady => "steady",
        Nat::PerPeer => "per-peer",
        Nat::Unknown => "unknown",
    }
}

const fn part(part: Part) -> &'static str {
    match part {
        Part::Mapping => "mapping",
        Part::DialBack => "dial-back",
        Part::Reservation => "reservation",
        Part::Upgrade => "upgrade",
    }
}

fn clock_set(set: ClockSet) -> Value {
    json!({"at": time(set.at), "forward_ms": set.forward_ms})
}

fn machine(machine: Machine) -> Value {
    json!({
        "cores": machine.cores,
        "load_percent": machine.load_percent,
        "memory_bytes": machine.memory_bytes,
        "storage_free_bytes": machine.storage_free_bytes,
    })
}

fn shell_view(shell: &ShellView) -> Value {
    json!({
        "version": shell.version,
        "loopback": shell.is_loopback,
        "multicast": shell.is_multicast,
        "store_failure": shell.store_failure,
        "reserve_held": shell.is_reserve_held,
        "wall_failure": shell.wall_failure,
    })
}

fn contact(it: &ContactView) -> Value {
    json!({
        "id": it.device.to_string(),
        "name": it.name,
        "addresses": it.addresses,
        "sighted": it.contact.sighted.map(time),
        "failed": it.contact.failed.as_ref().map(failed),
        "clock_ahead_ms": it.ahead_ms,
        "relays": it.relays,
    })
}

fn failed(failed: &Failed) -> Value {
    json!({
        "at": time(failed.at),
        "times": failed.times,
        "attempts": failed.attempts.iter().map(attempt).collect::<Vec<_>>(),
    })
}

fn attempt(attempt: &Attempt) -> Value {
    let (ending, text) = match &attempt.ending {
        Ending::Refused => ("refused", None),
        Ending::NoAnswer => ("no-answer", None),
        Ending::NoRoute => ("no-route", None),
        Ending::OtherDevice => ("other-device", None),
        Ending::Other(text) => ("other", Some(text)),
    };
    json!({"address": attempt.address, "ending": ending, "text": text})
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weft_core::contact::Contact;
    use weft_protocol::{
        id::DeviceId,
        reach::{Service, Trouble},
    };

    use super::*;
    use crate::json::sample::{at, check};

    #[test]
    fn a_checkup() {
        let tried = |ending| Attempt { address: "/ip4/10.0.0.2/tcp/4001".into(), ending };
        let attempts = vec![tried(Ending::Refused), tried(Ending::Other("odd".into()))];
        let phone = ContactView {
            device: DeviceId::from_bytes([1; 32]),
            name: "phone".into(),
            addresses: vec!["/ip4/10.0.0.2/tcp/4001".into()],
            contact: Contact {
                sighted: Some(at(0)),
                failed: Some(Failed { at: at(60), attempts, times: 3 }),
            },
            ahead_ms: Some(-1_250),
            relays: false,
        };
        let facts = Checkup {
            boot: 7,
            time: at(61),
            clock_set: Some(ClockSet { at: at(30), forward_ms: 90_000 }),
            devices: vec![phone],
            admins: vec!["laptop".into()],
            queue: 0,
            battery: Some(81),
            metered: true,
            reach: Report {
                confirmed: vec!["/ip4/192.0.2.1/tcp/4001".into()],
                service: Some(Service { reservations: 1, circuits: 2 }),
                nat: Nat::Steady,
                troubles: vec![Trouble { part: Part::Mapping, why: "no router answers".into() }],
                ..Report::default()
            },
            relays_held: vec![("server".into(), at(5))],
            machine: Some(Machine {
                cores: 4,
                load_percent: Some(20),
                memory_bytes: None,
                storage_free_bytes: Some(1 << 30),
            }),
            warnings: vec![],
            copies: vec![],
        };
        let shell = ShellView {
            version: "0.1.0".into(),
            is_loopback: false,
            is_multicast: true,
            store_failure: None,
            is_reserve_held: true,
            wall_failure: Some("put up the wall: this system has none".into()),
        };
        check(
            &checkup(&facts, Some(&shell)),
            expect![[r#"
            {
              "admins": [
                "laptop"
              ],
              "battery": 81,
              "boot": 7,
              "clock_set": {
                "at": "2026-03-10T09:00:30Z",
                "forward_ms": 90000
              },
              "copies": [],
              "devices": [
                {
                  "addresses": [
                    "/ip4/10.0.0.2/tcp/4001"
                  ],
                  "clock_ahead_ms": -1250,
                  "failed": {
                    "at": "2026-03-10T09:01:00Z",
                    "attempts": [
                      {
                        "address": "/ip4/10.0.0.2/tcp/4001",
                        "ending": "refused",
                        "text": null
                      },
                      {
                        "address": "/ip4/10.0.0.2/tcp/4001",
                        "ending": "other",
                        "text": "odd"
                      }
                    ],
                    "times": 3
                  },
                  "id": "aeaqcaib",
                  "name": "phone",
                  "relays": false,
                  "sighted": "2026-03-10T09:00:00Z"
                }
              ],
              "machine": {
                "cores": 4,
                "load_percent": 20,
                "memory_bytes": null,
                "storage_free_bytes": 1073741824
              },
              "metered": true,
              "queue": 0,
              "reach": {
                "announced": [],
                "confirmed": [
                  "/ip4/192.0.2.1/tcp/4001"
                ],
                "mapped": [],
                "nat": "steady",
                "observed": [],
                "relays": [
                  {
                    "name": "server",
                    "since": "2026-03-10T09:00:05Z"
                  }
                ],
                "service": {
                  "circuits": 2,
                  "reservations": 1
                },
                "troubles": [
                  {
                    "part": "mapping",
                    "why": "no router answers"
                  }
                ]
              },
              "shell": {
                "loopback": false,
                "multicast": true,
                "reserve_held": true,
                "store_failure": null,
                "version": "0.1.0",
                "wall_failure": "put up the wall: this system has none"
              },
              "time": "2026-03-10T09:01:01Z",
              "warnings": []
            }"#]],
        );
    }
}

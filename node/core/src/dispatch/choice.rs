//! Where a task goes: the offer that is made of it, and the facts that placement weighs.

use std::collections::BTreeMap;

use weft_protocol::{
    codec,
    decision::Point,
    id::DeviceId,
    manifest::Capability,
    run::{Candidate, Offer},
};

use super::{LEASE, Task};
use crate::{
    env::{Env, Neighbour},
    placement::{self, Facts, Need},
    registry::Installed,
};

pub(super) fn offer_of(
    task: &Task,
    agent: &Installed,
    capability: &Capability,
    epoch: u32,
    env: &Env<'_>,
) -> Offer {
    Offer {
        attempt: task.attempt(epoch),
        capability: task.capability.clone(),
        agent: agent.digest,
        arguments: task.arguments.clone(),
        labels: task.labels.clone(),
        effect: env.effect_of(capability),
        lease_ms: u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX),
        deadline_ms: u64::try_from(task.ends.since(env.now.mono).as_millis()).unwrap_or(u64::MAX),
        callers: task.callers.clone(),
        local_time: task.local_time.clone(),
        time_zone: task.time_zone.clone(),
        consent: None,
    }
}

/// Chooses among the devices that can be asked now.
pub(super) fn choose(
    task: &Task,
    offer: &Offer,
    agent: &Installed,
    capability: &Capability,
    excluded: &BTreeMap<DeviceId, String>,
    env: &Env<'_>,
) -> placement::Placement {
    choose_among(task, offer, agent, capability, excluded, |it| it.reachable, env)
}

/// Chooses among the devices that count as such which can be asked.
pub(super) fn choose_among(
    task: &Task,
    offer: &Offer,
    agent: &Installed,
    capability: &Capability,
    excluded: &BTreeMap<DeviceId, String>,
    can_be_asked: fn(&Neighbour) -> bool,
    env: &Env<'_>,
) -> placement::Placement {
    let needs_model =
        capability.name.noun() == "llm" || capability.calls.iter().any(|call| call.noun() == "llm");
    // A device on which the agent can't run asks another, which works on its own replica.
    let runs_here = env.registry.offers(&env.me, &task.capability, &agent.digest);
    let here = if runs_here && agent.works_on_replica(capability) {
        Some("works on this device's own replica")
    } else {
        None
    };
    let need = Need {
        capability: task.capability.clone(),
        calls: capability.calls.clone(),
        only_here: task.only_here.or(here),
        named: task.named,
        unavailable: capability
            .calls
            .iter()
            .find(|call| {
                !env.neighbours
                    .iter()
                    .any(|it| can_be_asked(it) && env.registry.has(&it.subject.id, call))
            })
            .cloned(),
        bytes: codec::encode(&task.arguments).len() as u64,
    };
    let facts: Vec<Facts> = env
        .neighbours
        .iter()
        .map(|it| {
            let device = it.subject.id;
            Facts {
                device,
                name: it.subject.name.clone(),
                kind: it.subject.kind,
                here: it.here,
                reachable: can_be_asked(it) && !excluded.contains_key(&device),
                offers: env.registry.offers(&device, &task.capability, &agent.digest),
                lacks: capability
                    .calls
                    .iter()
                    .filter(|call| !env.registry.has(&device, call))
                    .cloned()
                    .collect(),
                needs_model,
                speed_milli: it.speed_milli,
                round_trip_micros: it.round_trip_micros,
                queue: it.queue,
                battery: it.battery,
                metered: it.metered,
                load_percent: it.load_percent,
            }
        })
        .collect();
    let rules =
        |device: &DeviceId| env.decide(Point::Owner, offer, &env.me, device, agent, capability).0;
    let mut placement = placement::place(&need, &facts, rules);
    for candidate in &mut placement.candidates {
        if let Some(why) = excluded.get(&candidate.device) {
            candidate.reasons = vec![why.clone()];
        }
    }
    placement
}

/// Why no device can do it: each reason with the devices that it holds for, that of the device which was named, or
/// else of the `last` one that was asked, before the others.
pub(super) fn nowhere(task: &Task, candidates: &[Candidate], last: Option<DeviceId>) -> String {
    let reasons = reasons(candidates, task.named.or(last));
    format!("no device can do {} now ({reasons})", task.capability)
}

fn reasons(candidates: &[Candidate], first: Option<DeviceId>) -> String {
    let mut groups: Vec<(String, Vec<&Candidate>)> = Vec::new();
    for candidate in candidates {
        let reason = candidate.reasons.join(", ");
        match groups.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, same)) => same.push(candidate),
            None => groups.push((reason, vec![candidate])),
        }
    }
    let is_first = |it: &&Candidate| Some(it.device) == first;
    for (_, devices) in &mut groups {
        devices.sort_by_key(|it| !is_first(it));
    }
    groups.sort_by_key(|(_, devices)| !devices.iter().any(is_first));
    let said = groups.into_iter().map(|(reason, devices)| {
        let names: Vec<&str> = devices.iter().map(|it| it.name.as_str()).collect();
        format!("{}: {reason}", names.join(", "))
    });
    said.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_and_that_of_the_device_that_was_meant_first() {
        let candidate = |seed: u8, name: &str, reason: &str| Candidate {
            device: DeviceId::from_bytes([seed; 32]),
            name: name.into(),
            cost: None,
            reasons: vec![reason.into()],
        };
        let none = "no device that is here has llm.generate";
        let candidates = [
            candidate(1, "laptop", none),
            candidate(2, "small", none),
            candidate(3, "server", "it went away"),
            candidate(4, "phone", none),
        ];
        let said = |first: u8| reasons(&candidates, Some(DeviceId::from_bytes([first; 32])));
        let all = "laptop, small, phone: no device that is here has llm.generate";
        assert_eq!(reasons(&candidates, None), format!("{all}; server: it went away"));
        assert_eq!(said(3), format!("server: it went away; {all}"));
        let phone = "phone, laptop, small: no device that is here has llm.generate";
        assert_eq!(said(4), format!("{phone}; server: it went away"));
        assert_eq!(reasons(&[], None), "");
    }
}

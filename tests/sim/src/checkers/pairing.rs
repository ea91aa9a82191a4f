//! A ticket brings in one device at most, and what both sides say of a pairing is what came of it.

use std::collections::BTreeMap;

use weft_protocol::{
    device::Role,
    id::DeviceId,
    statement::{Add, StatementBody},
};
use weft_trust::{graph::Graph, pairing::Outcome};

use crate::{host::Host, pairing::Pairings, world::Failures};

/// At the end.
pub(crate) fn finish(pairings: &Pairings, hosts: &[Host], whole: &Graph, failures: &mut Failures) {
    let mut adds: BTreeMap<DeviceId, &Add> = BTreeMap::new();
    for id in whole.ids() {
        if let Some(StatementBody::Add(add)) = whole.body(id) {
            adds.insert(add.device, add);
        }
    }
    for (number, invitation) in pairings.invitations.iter().enumerate() {
        let what = format!("invitation {number} of {}", hosts[invitation.host].name);
        let of = || pairings.attempts.iter().filter(|it| it.invitation == number);
        let added = of().filter(|it| adds.contains_key(&it.device)).count();
        let stored = of().filter(|it| it.stored).count();
        let mut say = |found: String| failures.add("pairing", format!("{what} {found}"));
        let most = if invitation.unasked { Role::Member } else { Role::Admin };
        let mut roles = of().filter_map(|it| Some(adds.get(&it.device)?.role));
        // Roles are ordered from the most to the least.
        if roles.any(|role| role < invitation.role || role < most) {
            say("gave more than its ticket may".to_owned());
        }
        if added > 1 {
            say(format!("brought in {added} devices"));
        }
        if invitation.ended.len() > 1 {
            say(format!("ended {} times", invitation.ended.len()));
        }
        if invitation.ended.is_empty() && !invitation.lost {
            say("has not ended".to_owned());
        }
        let forgot = hosts[invitation.host].set_back;
        match invitation.ended.first().map(String::as_str) {
            Some("paired") if stored == 0 => say("paired, and no device has it stored".to_owned()),
            Some("paired" | "could-not-reach") | None => {}
            Some(outcome) if added > 0 && !forgot => {
                say(format!("is {outcome}, and added a device"));
            }
            Some(_) => {}
        }
        let heard = invitation.ended.first().is_some_and(|outcome| outcome == "paired");
        if stored > 0 && !heard && !invitation.lost && !forgot {
            let outcome = invitation.ended.join(", ");
            say(format!("says {outcome:?} of a device that has stored all"));
        }
    }
    for attempt in &pairings.attempts {
        let device = attempt.device;
        let who = hosts[attempt.host].name;
        let add = adds.get(&device);
        let paired = attempt.outcome == Some(Outcome::Paired);
        let mut say = |found: &str| failures.add("pairing", format!("{who} {found}: {device}"));
        if paired && !attempt.stored {
            say("says paired, and has stored nothing");
        }
        if attempt.stored && add.is_none() {
            say("has stored what it joined, and nobody added it");
        }
        if attempt.outcome.is_none() && !attempt.lost {
            say("has not ended its joining");
        }
        let reached = attempt.outcome.is_some() && attempt.outcome != Some(Outcome::CouldNotReach);
        if reached && !paired && add.is_some() {
            say("was turned away, and was added");
        }
    }
}

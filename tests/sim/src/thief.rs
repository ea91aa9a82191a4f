//! Somebody with the keys of a device that was put out, who speaks to another as if nothing had been.
//!
//! The network here lets all streams through, although a stranger may open trust alone: the node must
//! withstand by itself.

use std::collections::BTreeSet;

use weft_protocol::{
    codec,
    frame::Protocol,
    graph::StepIndex,
    id::{BootId, RunId},
    manifest::EffectClass,
    presence::{Presence, PresenceMessage},
    run::{Attempt, Offer, RunMessage},
    signed::{Domain, Signed},
    sync::{KeyPrefix, Range, Summary, SyncMessage},
    value::Value,
};

use crate::{
    fabric::SHARED,
    network::SECOND,
    world::{Happening, World},
};

impl World {
    /// Speaks to a machine with a stolen device's keys.
    pub(crate) fn intrude(&mut self, thief: usize, at: usize) {
        if !self.hosts[at].is_up() {
            return;
        }
        let link = self.connect(thief, at, thief, Some(thief));
        let connection = &self.network.connections[&link];
        let (side, opener) = (connection.side_of(at), connection.side_of(thief));
        let boot = BootId { counter: 1_000, random: 1 };
        let host = &self.hosts[thief];
        let key = host.secret.signing();
        let now = host.now(self.time);
        let presence = Presence {
            device: host.id,
            boot,
            sequence: 1_000_000,
            addresses: vec![],
            queue: 0,
            battery: None,
            metered: false,
            models: vec![],
            time: now.wall,
            relays: false,
            machine: None,
            connected: Vec::new(),
            version: None,
        };
        let presence = PresenceMessage::of_now(Signed::new(Domain::Presence, &presence, key));
        let everything = SyncMessage::Ranges(vec![Range {
            from: KeyPrefix::default(),
            to: KeyPrefix::default(),
            summary: Summary::Entries(vec![]),
        }]);
        let notes = SHARED.agents.iter().find(|agent| agent.manifest.name == "notes");
        let offer = Offer {
            attempt: Attempt {
                owner: host.id,
                run: RunId::from_bytes([at as u8; 16]),
                step: StepIndex(1).into(),
                above: vec![],
                epoch: 1,
            },
            capability: "notes.save".parse().expect("it is a capability's name"),
            agent: notes.expect("there is an agent for notes").digest,
            arguments: Value::map([("text", Value::from("written by a thief"))]),
            labels: BTreeSet::new(),
            effect: EffectClass::Idempotent,
            lease_ms: 15_000,
            deadline_ms: 60_000,
            callers: vec![],
            local_time: "2026-03-10T09:00:00".into(),
            time_zone: "UTC".into(),
            consent: None,
        };
        let offer = RunMessage::Offer(Box::new(offer));
        for protocol in [Protocol::Presence, Protocol::Sync, Protocol::Run, Protocol::Audit] {
            self.open(link, protocol, opener);
        }
        self.transmit(link, Protocol::Presence, side, codec::encode(&presence));
        self.transmit(link, Protocol::Sync, side, everything.encode());
        self.transmit(link, Protocol::Run, side, codec::encode(&offer));
        self.say(Some(at), || "is spoken to by a thief".to_owned());
        self.later(7 * SECOND, Happening::Lost(link, side));
    }
}

//! Who belongs: what all statements together say is what every device that belongs goes by, nobody
//! comes back but by a `Keep`, and the key that writes is known to all who stand and to nobody else.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::Node;
use weft_protocol::{
    codec,
    frame::{FRAME_BYTES_MAX, Protocol},
    id::{AgreementKey, DeviceId, Digest, StatementId},
    statement::{KeyName, SealedKey, StatementBody, TrustMessage},
};
use weft_trust::{
    graph::{Graph, statement_id},
    state::{Standing, State, Verdict},
};

use crate::{
    admin::{PutOut, word},
    checkers::replicas::active,
    host::Host,
    world::{Failures, World},
};

/// The checker.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// The devices that a machine knew to be out, and how often each had been kept by then.
    out: BTreeMap<(usize, DeviceId), usize>,
    /// What was sealed on the wire, to whom.
    sealed: BTreeSet<(AgreementKey, KeyName)>,
    /// All statements together, and of which sets.
    whole: Option<(Vec<Digest>, Graph)>,
}

impl Trust {
    /// What all statements together say, as was found last.
    pub(crate) fn state(&self) -> Option<&State> {
        self.graph().map(Graph::state)
    }

    /// All statements together, as was found last.
    pub(crate) fn graph(&self) -> Option<&Graph> {
        self.whole.as_ref().map(|(_, graph)| graph)
    }

    /// Puts the statements of all nodes together.
    fn take(&mut self, hosts: &[Host]) {
        // What only who is out has said is heard by nobody: it hears the same moment that it is out.
        let nodes = || hosts.iter().filter_map(|host| host.node.as_ref()).filter(|it| !is_out(it));
        let graphs = || nodes().map(|node| node.membership().graph());
        let sets: Vec<Digest> = graphs().map(Graph::set_digest).collect();
        if self.whole.as_ref().is_some_and(|(known, _)| *known == sets) {
            return;
        }
        let Some(mut whole) = graphs().next().cloned() else { return };
        for graph in graphs().skip(1) {
            for signed in graph.statements() {
                if !whole.contains(&statement_id(signed)) {
                    // One that does not enter counts for nothing.
                    drop(whole.insert(signed.clone()));
                }
            }
        }
        self.whole = Some((sets, whole));
    }

    /// A node says that who belongs has moved.
    pub(crate) fn members(&mut self, at: usize, host: &Host, failures: &mut Failures) {
        let Some(node) = &host.node else { return };
        let graph = node.membership().graph();
        for (id, device) in &graph.state().devices {
            // A device is back, too, when who brought it in is.
            let kept = graph.state().devices.keys().map(|id| keeps(graph, id)).sum();
            if !device.is_active() {
                self.out.entry((at, *id)).or_insert(kept);
            } else if let Some(before) = self.out.remove(&(at, *id))
                && kept <= before
            {
                let what = format!("{} takes {id} back, and nobody kept it", host.name);
                failures.add("membership", what);
            }
        }
    }

    /// What a machine knew may be gone.
    pub(crate) fn crashed(&mut self, at: usize) {
        self.out.retain(|(host, _), _| *host != at);
    }

    /// A node lets a device speak everything.
    pub(crate) fn admitted(host: &Host, device: &DeviceId, failures: &mut Failures) {
        let Some(node) = &host.node else { return };
        if node.membership().state().member(device).is_none() {
            let what = format!("{} admits {device}, which does not belong", host.name);
            failures.add("membership", what);
        }
    }

    /// A node sends a frame: keys go only to who belongs.
    pub(crate) fn sent(
        &mut self,
        from: &Host,
        protocol: Protocol,
        bytes: &[u8],
        failures: &mut Failures,
    ) {
        if protocol != Protocol::Trust {
            return;
        }
        let Ok(TrustMessage::Keys { sealed }) = codec::decode(bytes, FRAME_BYTES_MAX) else {
            return;
        };
        let Some(node) = &from.node else { return };
        for SealedKey { to, which, .. } in sealed {
            if !node.membership().state().key_holders().contains(&to) {
                let what = format!("{} seals a key to who does not belong", from.name);
                failures.add("membership", what);
            }
            self.sealed.insert((to, which));
        }
    }

    /// At the end.
    pub(crate) fn finish(&self, hosts: &[Host], put_out: &[PutOut], failures: &mut Failures) {
        let Some(whole) = self.graph() else { return };
        let state = whole.state();
        let first = active(hosts).next().map(|(_, node)| node.membership().state());
        for (host, node) in active(hosts) {
            let own = node.membership().state();
            // What counts for nothing need not have come to those who stand.
            let is_whole = own.devices == state.devices && own.writing == state.writing;
            if !is_whole || Some(own) != first {
                let what = format!("{} goes by another state: {}", host.name, differ(own, state));
                failures.add("membership", what);
            }
            self.keys(host, node, failures);
        }
        for PutOut { by, device, is_done, .. } in put_out {
            let stands =
                [*device, state.successor(device)].iter().any(|it| state.member(it).is_some());
            let is_heard = hosts[*by].belongs() || is_said(whole, device);
            let forgot = hosts[*by].set_back || !is_heard;
            if *is_done && stands && keeps(whole, device) == 0 && !forgot {
                let by = hosts[*by].name;
                failures.add("membership", format!("{device} belongs, which {by} put out"));
            }
        }
        Self::void(whole, failures);
    }

    /// The key that writes is here, and was sealed to nobody who is out.
    fn keys(&self, host: &Host, node: &Node, failures: &mut Failures) {
        let state = node.membership().state();
        let me = state.devices.get(&host.id);
        let connected = !host.serving.is_empty();
        if me.is_some_and(|me| me.role.holds_data())
            && node.membership().keyring().writing(state).is_none()
            && connected
        {
            failures.add("membership", format!("{} lacks the key that writes", host.name));
        }
        if state.exposed_to.is_some() {
            return;
        }
        let which = KeyName::Data(state.writing);
        let graph = node.membership().graph();
        let stated = graph.ids().filter_map(|id| graph.body(id)).flat_map(sealed);
        let to: BTreeSet<AgreementKey> = stated
            .filter(|sealed| sealed.which == which)
            .map(|sealed| sealed.to)
            .chain(self.sealed.iter().filter(|(_, key)| *key == which).map(|(to, _)| *to))
            .collect();
        for (id, device) in &state.devices {
            let out = matches!(device.standing, Standing::Revoked { .. });
            // Another key of the same device has it by right.
            let is_replaced = state.member(&state.successor(id)).is_some();
            if out && !is_replaced && to.contains(&device.agreement) {
                let what = format!("{} writes under a key that {id} was given", host.name);
                failures.add("membership", what);
            }
        }
    }

    /// What a device said that was put out counts only where its removal knew of it.
    fn void(whole: &Graph, failures: &mut Failures) {
        let state = whole.state();
        for (out, device) in &state.devices {
            let Standing::Revoked { by } = device.standing else { continue };
            if !matches!(whole.body(&by), Some(StatementBody::Revoke(_))) {
                continue;
            }
            let past: BTreeSet<StatementId> =
                whole.ancestry(&by).into_iter().map(statement_id).collect();
            for signed in whole.statements().filter(|signed| signed.author == *out) {
                let id = statement_id(signed);
                let counts = state.verdicts.get(&id) == Some(&Verdict::Counts);
                if counts && !past.contains(&id) {
                    let what = format!("{id} counts, which {out} said after it was put out");
                    failures.add("membership", what);
                }
            }
        }
    }
}

impl World {
    /// Finds out who belongs by all statements together.
    pub(crate) fn take_stock(&mut self) {
        self.checks.trust.take(&self.hosts);
        let Some((_, whole)) = &self.checks.trust.whole else { return };
        for host in &mut self.hosts {
            host.standing = whole.state().member(&host.id).is_some();
        }
    }
}

/// Whether a node knows that its own device is out for good.
fn is_out(node: &Node) -> bool {
    let me = node.membership().state().devices.get(&node.membership().me());
    me.is_some_and(|me| matches!(me.standing, Standing::Revoked { .. }))
}

/// Whether somebody said that a device is out.
fn is_said(graph: &Graph, device: &DeviceId) -> bool {
    let mut bodies = graph.ids().filter_map(|id| graph.body(id));
    bodies.any(|body| matches!(body, StatementBody::Revoke(it) if it.device == *device))
}

/// How often somebody said that a device stays, or that what was said of it is void.
fn keeps(graph: &Graph, device: &DeviceId) -> usize {
    let speaks = |id: &&StatementId| match graph.body(id) {
        Some(StatementBody::Keep(keep)) => keep.device == *device,
        Some(StatementBody::Epoch(_)) => true,
        Some(_) | None => false,
    };
    graph.ids().filter(speaks).count()
}

/// The keys that a statement carries.
fn sealed(body: &StatementBody) -> &[SealedKey] {
    match body {
        StatementBody::Genesis(it) => &it.sealed,
        StatementBody::Add(it) => &it.sealed,
        StatementBody::Revoke(it) => &it.sealed,
        StatementBody::Rotate(it) => &it.sealed,
        StatementBody::RootRotate(it) => &it.sealed,
        StatementBody::SetRole(it) => &it.sealed,
        StatementBody::Keep(it) => &it.sealed,
        StatementBody::Epoch(_)
        | StatementBody::Require(_)
        | StatementBody::Cosign(_)
        | StatementBody::Rename(_)
        | StatementBody::Unknown(_) => &[],
    }
}

/// What two states say differently, in words.
fn differ(one: &State, two: &State) -> String {
    let of = |state: &State, id| {
        state.devices.get(id).map_or("unknown", |device| word(&device.standing))
    };
    let ids: BTreeSet<&DeviceId> = one.devices.keys().chain(two.devices.keys()).collect();
    let devices: Vec<String> = ids
        .into_iter()
        .filter(|id| one.devices.get(id) != two.devices.get(id))
        .map(|id| format!("{id} is {} and {}", of(one, id), of(two, id)))
        .collect();
    if devices.is_empty() { "in its keys or verdicts".to_owned() } else { devices.join(", ") }
}

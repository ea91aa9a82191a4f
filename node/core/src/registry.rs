//! Which agents there are, and which devices offer them.
//!
//! Each device writes its own offers into the registry document; what others wrote there is read, never
//! believed beyond what it is: a device that says it offers a capability is asked, and may refuse.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use weft_protocol::{
    graph::Plan,
    id::{DeviceId, Digest},
    manifest::{AgentKind, Capability, CapabilityName, Manifest, package_digest},
    value::Value,
};

/// An agent that this node can run.
#[derive(Clone, Debug)]
pub struct Installed {
    /// What it says of itself.
    pub manifest: Arc<Manifest>,
    /// The manifest as its author wrote it.
    pub manifest_text: Arc<str>,
    /// Its identity.
    pub digest: Digest,
    /// Its component; empty for a part of the node. Those that the program carries are not copied.
    pub component: Bytes,
    /// Whether the program itself carries it.
    pub embedded: bool,
    /// Whether it is known and can't run, for want of a wall.
    is_unwalled: bool,
}

impl Installed {
    /// Takes in an agent whose manifest was parsed from `manifest_text`.
    pub fn new(
        manifest: Manifest,
        manifest_text: &str,
        component: impl Into<Bytes>,
        embedded: bool,
    ) -> Self {
        let component = component.into();
        Self {
            digest: package_digest(manifest_text, &component),
            manifest: Arc::new(manifest),
            manifest_text: manifest_text.into(),
            component,
            embedded,
            is_unwalled: false,
        }
    }

    /// The same, on a device that has no wall behind which components could run.
    #[must_use]
    pub fn without_wall(self) -> Self {
        Self { is_unwalled: self.is_component(), ..self }
    }

    fn is_component(&self) -> bool {
        matches!(self.manifest.kind, AgentKind::Wasm)
    }
}

/// The prefix of the registry's fields that hold a device's offers.
const OFFER_PREFIX: &str = "offer:";

/// The agents of this node and the offers of all.
#[derive(Debug, Default)]
pub struct Registry {
    installed: BTreeMap<Digest, Installed>,
    /// Agents of this node that cannot work now: a model without its file.
    dormant: Vec<String>,
    offers: BTreeMap<DeviceId, BTreeMap<CapabilityName, Digest>>,
}

impl Registry {
    /// Knows the agents of this node.
    pub fn new(installed: Vec<Installed>) -> Self {
        let dormant = installed.iter().filter(|agent| agent.is_unwalled);
        let dormant = dormant.map(|agent| agent.manifest.name.clone()).collect();
        let installed = installed.into_iter().map(|agent| (agent.digest, agent)).collect();
        Self { installed, dormant, offers: BTreeMap::new() }
    }

    /// There is no wall here behind which components could run: none of their agents can work. Gives whether
    /// that is a change.
    pub fn set_unwalled(&mut self) -> bool {
        let components = self.installed.values().filter(|agent| agent.is_component());
        let names: Vec<String> = components.map(|agent| agent.manifest.name.clone()).collect();
        let changes = names.iter().filter(|name| self.set_dormant(name, true));
        changes.count() > 0
    }

    /// Says whether the agent of that name can work here now. Gives whether that is a change.
    pub fn set_dormant(&mut self, agent: &str, dormant: bool) -> bool {
        let was = self.dormant.iter().any(|name| name == agent);
        match (was, dormant) {
            (false, true) => self.dormant.push(agent.to_owned()),
            (true, false) => self.dormant.retain(|name| name != agent),
            (true, true) | (false, false) => {}
        }
        was != dormant
    }

    /// The agents of this node.
    pub fn installed(&self) -> impl Iterator<Item = &Installed> {
        self.installed.values()
    }

    /// The agent with that identity, if this node has it and it can work.
    pub fn agent(&self, digest: &Digest) -> Option<&Installed> {
        let agent = self.installed.get(digest)?;
        (!self.dormant.contains(&agent.manifest.name)).then_some(agent)
    }

    /// The agent of this node that knows a capability, whether or not it can work here now.
    pub fn provider(&self, name: &CapabilityName) -> Option<(&Installed, &Capability)> {
        self.installed.values().find_map(|agent| Some((agent, agent.manifest.capability(name)?)))
    }

    /// Whether a device offers a capability by that agent.
    pub fn offers(&self, device: &DeviceId, name: &CapabilityName, agent: &Digest) -> bool {
        self.offers.get(device).and_then(|offers| offers.get(name)) == Some(agent)
    }

    /// Whether a device offers a capability at all.
    pub fn has(&self, device: &DeviceId, name: &CapabilityName) -> bool {
        self.offers.get(device).is_some_and(|offers| offers.contains_key(name))
    }

    /// The devices that offer all of an agent's capabilities by that very version.
    pub fn devices_of(&self, agent: &Installed) -> Vec<DeviceId> {
        self.offers
            .iter()
            .filter(|(_, offers)| {
                agent
                    .manifest
                    .capabilities
                    .iter()
                    .all(|capability| offers.get(&capability.name) == Some(&agent.digest))
            })
            .map(|(device, _)| *device)
            .collect()
    }

    /// This device's offers, as the registry document's field holds them.
    pub fn own_offer(&self, me: &DeviceId) -> (String, Value) {
        let mut capabilities = BTreeMap::new();
        for agent in self.installed.values() {
            if self.dormant.contains(&agent.manifest.name) {
                continue;
            }
            for capability in &agent.manifest.capabilities {
                let digest = Value::Text(agent.digest.to_string());
                capabilities.insert(capability.name.to_string(), digest);
            }
        }
        (format!("{OFFER_PREFIX}{me}"), Value::Map(capabilities))
    }

    /// Reads all offers anew from the registry document. What is not of its form is passed over.
    pub fn read(&mut self, document: &Value) {
        self.offers.clear();
        let Value::Map(fields) = document else { return };
        for (key, value) in fields {
            let Some(device) = key.strip_prefix(OFFER_PREFIX) else { continue };
            let (Ok(device), Value::Map(capabilities)) = (device.parse(), value) else { continue };
            let offers = capabilities
                .iter()
                .filter_map(|(name, digest)| {
                    Some((name.parse().ok()?, digest.as_text()?.parse().ok()?))
                })
                .collect();
            self.offers.insert(device, offers);
        }
    }

    /// Takes this device's own offers as they are now, whatever the document says.
    pub fn set_own(&mut self, me: DeviceId) {
        let (key, value) = self.own_offer(&me);
        let mut own = Self::default();
        own.read(&Value::map([(key, value)]));
        self.offers.extend(own.offers);
    }

    /// Fills in what the manifests say of a plan's steps: effect, and what they may call.
    ///
    /// # Errors
    ///
    /// The first capability that no agent of this node knows.
    pub fn complete(&self, plan: &mut Plan) -> Result<(), CapabilityName> {
        for step in &mut plan.steps {
            let (_, capability) =
                self.provider(&step.capability).ok_or_else(|| step.capability.clone())?;
            step.effect = capability.effect;
            step.may_call.clone_from(&capability.calls);
        }
        Ok(())
    }
}

impl Installed {
    /// Whether what it is granted is only documents or timers, so that it works on the asking
    /// device's replica unless the words name another.
    pub fn works_on_replica(&self, capability: &Capability) -> bool {
        let permissions = &self.manifest.permissions;
        let touches = !permissions.documents_read.is_empty()
            || !permissions.documents_write.is_empty()
            || permissions.timers;
        touches && capability.calls.is_empty() && self.is_component()
    }
}

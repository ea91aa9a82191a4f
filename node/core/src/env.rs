//! What a machine is handed with an input: the clocks, the rows, the rules, and its neighbours.

use weft_protocol::{
    decision::{Actor, Decision, Effect, Point, Policy, Question, Subject},
    graph::CALL_DEPTH_MAX,
    id::{DeviceId, Digest},
    manifest::{Capability, EffectClass},
    row::{Durability, Rows, TooLarge, Write},
    run::Offer,
    time::Now,
};

use crate::{
    audit::Chain,
    membership::Membership,
    registry::{Installed, Registry},
    replica::{self, Replica},
};

/// A device of the fabric as it is known at this moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Neighbour {
    /// Its key, name, kind and role.
    pub subject: Subject,
    /// Whether it is this one.
    pub here: bool,
    /// Whether it is connected; its streams may not be open yet.
    pub connected: bool,
    /// Whether it can be asked now.
    pub reachable: bool,
    /// The round trip in microseconds, where it was measured.
    pub round_trip_micros: Option<u64>,
    /// Steps that wait or run there.
    pub queue: u32,
    /// Charge in percent; `None`: not on battery.
    pub battery: Option<u8>,
    /// Whether its network costs money.
    pub metered: bool,
    /// How busy its processors are, in percent of all of them; `None`: not known.
    pub load_percent: Option<u8>,
    /// The fastest model there, in thousandths of a token a second; 0: not measured.
    pub speed_milli: u64,
}

/// What a machine may look at and append to while it handles one input.
pub struct Env<'a> {
    /// Both clocks.
    pub now: Now,
    /// What is on the disk.
    pub rows: &'a dyn Rows,
    /// The rules.
    pub policy: &'a dyn Policy,
    /// The agents and their offers.
    pub registry: &'a Registry,
    /// This device's audit chain. What is appended must be persisted with what it is about.
    pub chain: &'a mut Chain,
    /// The documents.
    pub replica: &'a mut Replica,
    /// Who belongs.
    pub members: &'a Membership,
    /// All active devices, this one included.
    pub neighbours: &'a [Neighbour],
    /// This device.
    pub me: DeviceId,
    /// Moves whenever who belongs or the rules move.
    pub version: u64,
    /// The key under which records hash inputs and outputs.
    pub addressing_key: &'a [u8; 32],
}

impl std::fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("now", &self.now).field("me", &self.me).finish_non_exhaustive()
    }
}

impl<'a> Env<'a> {
    /// What the documents are handed.
    pub const fn documents(&self) -> replica::Context<'a> {
        replica::Context { now: self.now, rows: self.rows, members: self.members }
    }

    /// An edit that was prepared is persisted.
    pub fn committed(&mut self, ticket: replica::Ticket) {
        let context = self.documents();
        self.replica.handle_input(replica::Input::Persisted(ticket), &context);
    }

    /// An edit that was prepared is not persisted, and will not be.
    pub fn aborted(&mut self, ticket: replica::Ticket) {
        let context = self.documents();
        self.replica.handle_input(replica::Input::PersistFailed(ticket), &context);
    }

    /// The device as rules see it, if it belongs.
    pub fn subject(&self, device: &DeviceId) -> Option<&Subject> {
        self.neighbour(device).map(|neighbour| &neighbour.subject)
    }

    /// What is known of the device, if it belongs.
    pub fn neighbour(&self, device: &DeviceId) -> Option<&Neighbour> {
        self.neighbours.iter().find(|neighbour| neighbour.subject.id == *device)
    }

    /// The device's name, or the beginning of its id if it does not belong any more.
    pub fn name(&self, device: &DeviceId) -> String {
        self.subject(device).map_or_else(|| device.short(), |subject| subject.name.clone())
    }

    /// Asks the rules about an offer's being carried out on `executor`: for its owner, and for the
    /// device that asks in the owner's name. The stricter answer holds. Gives the questions too.
    pub fn decide(
        &self,
        point: Point,
        offer: &Offer,
        asking: &DeviceId,
        executor: &DeviceId,
        agent: &Installed,
        capability: &Capability,
    ) -> (Decision, Vec<Question>) {
        let owner = &offer.attempt.owner;
        let askers = [owner, asking].into_iter().take(if asking == owner { 1 } else { 2 });
        let mut strictest: Option<Decision> = None;
        let mut questions = Vec::new();
        for asker in askers {
            let (Some(asker), Some(executor)) = (self.subject(asker), self.subject(executor))
            else {
                let deny = Decision::deny("one of the devices does not belong to the fabric");
                return (deny, Vec::new());
            };
            let question = Question {
                point,
                run: offer.attempt.run,
                step: offer.attempt.step.clone(),
                capability: capability.name.clone(),
                effect: offer.effect.max(self.effect_of(capability)),
                arguments: without_bytes(&offer.arguments),
                labels: offer.labels.iter().copied().collect(),
                agent: actor(agent, capability),
                owner: asker.clone(),
                executor: executor.clone(),
                call: None,
                now: self.now.wall,
            };
            let decision = self.policy.decide(&question);
            questions.push(question);
            strictest = Some(match strictest {
                Some(before) => stricter(before, decision),
                None => decision,
            });
        }
        let decision = strictest.unwrap_or_else(|| Decision::deny("nobody asks"));
        (decision, questions)
    }

    /// What doing a capability again would do: the greatest of its own and of those that it calls.
    pub fn effect_of(&self, capability: &Capability) -> EffectClass {
        self.effect_down_to(capability, CALL_DEPTH_MAX)
    }

    fn effect_down_to(&self, capability: &Capability, depth: usize) -> EffectClass {
        let Some(below) = depth.checked_sub(1) else { return capability.effect };
        capability
            .calls
            .iter()
            .filter_map(|call| self.registry.provider(call))
            .map(|(_, called)| self.effect_down_to(called, below))
            .fold(capability.effect, Ord::max)
    }

    /// The identity of the rules in force.
    pub fn policy_digest(&self) -> Digest {
        self.policy.digest()
    }
}

/// Of two answers the one that lets less happen, with what both want done.
fn stricter(one: Decision, other: Decision) -> Decision {
    let rank = |decision: &Decision| match decision.effect {
        Effect::Allow => 0,
        Effect::Ask => 1,
        Effect::Deny => 2,
    };
    let (mut strict, lax) = if rank(&one) >= rank(&other) { (one, other) } else { (other, one) };
    for obligation in lax.obligations {
        if !strict.obligations.contains(&obligation) {
            strict.obligations.push(obligation);
        }
    }
    strict
}

/// An agent as rules see it.
pub fn actor(agent: &Installed, capability: &Capability) -> Actor {
    let permissions = &agent.manifest.permissions;
    Actor {
        name: agent.manifest.name.clone(),
        digest: agent.digest,
        embedded: agent.embedded,
        documents_read: permissions.documents_read.clone(),
        documents_write: permissions.documents_write.clone(),
        timers: permissions.timers,
        calls: capability.calls.clone(),
    }
}

/// Rules see what is said, not the bytes of a file.
fn without_bytes(arguments: &weft_protocol::value::Value) -> weft_protocol::value::Value {
    use weft_protocol::value::Value;
    match arguments {
        Value::Bytes(bytes) => Value::Text(format!("{} bytes", bytes.len())),
        Value::List(list) => Value::List(list.iter().map(without_bytes).collect()),
        Value::Map(map) => {
            Value::Map(map.iter().map(|(key, value)| (key.clone(), without_bytes(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {
            arguments.clone()
        }
    }
}

/// Writes that happen together or not at all, and how sure they must be before anything follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The writes.
    pub writes: Vec<Write>,
    /// When they count.
    pub durability: Durability,
}

impl Batch {
    /// Writes that are on the disk before anything follows.
    pub const fn synced(writes: Vec<Write>) -> Self {
        Self { writes, durability: Durability::Synced }
    }

    /// Checks that a disk takes all of it.
    ///
    /// # Errors
    ///
    /// A row is too large.
    pub fn check(&self) -> Result<(), TooLarge> {
        self.writes.iter().try_for_each(Write::check)
    }

    /// Writes that are ordered before anything follows.
    pub const fn ordered(writes: Vec<Write>) -> Self {
        Self { writes, durability: Durability::Ordered }
    }
}

/// How sure a step's records must be: steps that write wait for the disk.
pub const fn durability_of(effect: EffectClass) -> Durability {
    match effect {
        EffectClass::Pure | EffectClass::ReadOnly => Durability::Ordered,
        EffectClass::Idempotent | EffectClass::AtMostOnce => Durability::Synced,
    }
}

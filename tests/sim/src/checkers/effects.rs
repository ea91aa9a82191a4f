//! No effect without an allowing decision: the world keeps a log of all that agents were started for,
//! and holds each entry against the records on the disks.
//!
//! The intent of an idempotent or at-most-once step is safe before the agent starts, on both sides;
//! that of a pure or read-only one is ordered, and a crash may take it.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::{audit::keyed_digest, executor::kept, registry::Installed};
use weft_protocol::{
    audit::{Body, RECORD_BYTES_MAX, Record},
    codec,
    decision::Point,
    graph::StepId,
    id::{DeviceId, Digest, RunId},
    manifest::{CapabilityName, EffectClass},
    row::{MemoryRows, Rows as _},
    run::{Attempt, Executed},
    signed::Signed,
    value::Value,
};

use crate::{host::Host, world::Failures};

/// An intent on a disk, that an agent may be started for.
#[derive(Clone, Debug)]
struct Intent {
    /// Whose chain it lies in.
    key: DeviceId,
    position: u64,
    digest: Digest,
    run: RunId,
    step: StepId,
    owner: DeviceId,
    agent: Digest,
    capability: CapabilityName,
    input: Digest,
}

/// What an agent was started for.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub(crate) time: u64,
    pub(crate) host: usize,
    pub(crate) capability: CapabilityName,
    pub(crate) arguments: Value,
    pub(crate) class: EffectClass,
    pub(crate) run: RunId,
    pub(crate) step: StepId,
    pub(crate) epoch: u32,
    key: DeviceId,
    position: u64,
    digest: Digest,
    /// Its record was safe when the power went, or the power did not go.
    recorded: bool,
}

/// What was read of one chain.
#[derive(Clone, Debug, Default)]
struct Reader {
    /// Up to where, in the chain of each key.
    next: BTreeMap<DeviceId, u64>,
    /// Allowing executor's intents that no agent was started for yet.
    open: Vec<Intent>,
    /// Steps that this device allowed as their owner.
    owned: BTreeSet<(RunId, StepId)>,
}

impl Reader {
    fn read(&mut self, host: &Host, rows: &MemoryRows) {
        for key in host.keys() {
            self.read_chain(key, host, rows);
        }
    }

    fn read_chain(&mut self, key: DeviceId, host: &Host, rows: &MemoryRows) {
        let next = self.next.entry(key).or_default();
        let new = host.lineage().records(&key, *next, usize::MAX, rows).unwrap_or_default();
        for (position, bytes) in new {
            *next = position + 1;
            let Ok(signed) = codec::decode::<Signed>(&bytes, RECORD_BYTES_MAX * 2) else {
                continue;
            };
            let Ok(record) = codec::decode::<Record>(&signed.bytes, RECORD_BYTES_MAX) else {
                continue;
            };
            let Body::Intent {
                point, run, step, agent, capability, input, decision, owner, ..
            } = record.body
            else {
                continue;
            };
            match point {
                _ if !decision.allows() => {}
                Point::Owner => drop(self.owned.insert((run, step))),
                Point::Executor => self.open.push(Intent {
                    key,
                    position,
                    digest: signed.digest(),
                    run,
                    step,
                    owner,
                    agent,
                    capability,
                    input,
                }),
                Point::HostCall => {}
            }
        }
    }
}

/// The checker.
#[derive(Debug)]
pub(crate) struct Effects {
    log: Vec<Effect>,
    /// What readers of each disk see.
    visible: Vec<Reader>,
    /// What is safe on each disk.
    durable: Vec<Reader>,
}

impl Effects {
    pub(crate) fn new(hosts: usize) -> Self {
        let readers = vec![Reader::default(); hosts];
        Self { log: Vec::new(), visible: readers.clone(), durable: readers }
    }

    /// A machine is put beside the others.
    pub(crate) fn grow(&mut self) {
        self.visible.push(Reader::default());
        self.durable.push(Reader::default());
    }

    /// The log.
    pub(crate) fn log(&self) -> &[Effect] {
        &self.log
    }

    /// An agent is started.
    #[expect(clippy::too_many_arguments, reason = "all that an effect is held against")]
    pub(crate) fn executed(
        &mut self,
        time: u64,
        at: usize,
        hosts: &[Host],
        agent: &Installed,
        capability: &CapabilityName,
        arguments: &Value,
        failures: &mut Failures,
    ) {
        let host = &hosts[at];
        let Some(node) = &host.node else { return };
        let who = format!("{} started {capability} at {time} µs", host.name);
        let input = keyed_digest(node.membership().addressing_key(), arguments);
        let reader = &mut self.visible[at];
        reader.read(host, host.disk.visible());
        let found = reader.open.iter().rposition(|intent| {
            intent.agent == agent.digest
                && intent.capability == *capability
                && intent.input == input
        });
        let Some(found) = found else {
            failures.add("effects", format!("{who} with no record of an allowing decision"));
            return;
        };
        let intent = reader.open.remove(found);
        let owner = hosts.iter().position(|host| host.had(&intent.owner));
        let who = format!("{who} for {}", owner.map_or("nobody", |owner| hosts[owner].name));
        let class = agent
            .manifest
            .capability(capability)
            .map_or(EffectClass::AtMostOnce, |capability| capability.effect);
        let epoch = epoch(&intent, hosts, host);
        if intent.owner != host.id && !host.members.contains(&intent.owner) {
            failures.add("serving", format!("{who} for a device that it knows to be put out"));
        }
        if class >= EffectClass::Idempotent {
            let safe = &mut self.durable[at];
            safe.read(host, host.disk.durable());
            if safe.next.get(&intent.key).is_none_or(|next| *next <= intent.position) {
                failures.add("effects", format!("{who} before its record was safe"));
            }
            if intent.step.0.len() == 1
                && let Some(owner) = owner
            {
                self.durable[owner].read(&hosts[owner], hosts[owner].disk.durable());
                let key = (intent.run, intent.step.clone());
                if !self.durable[owner].owned.contains(&key) && !hosts[owner].stolen {
                    failures.add("effects", format!("{who} without a record of its owner"));
                }
            }
            for earlier in &self.log {
                if earlier.run != intent.run || earlier.step != intent.step {
                    continue;
                }
                if class == EffectClass::AtMostOnce {
                    let when = earlier.time;
                    failures.add("effects", format!("{who}, which was done before, at {when} µs"));
                } else if earlier.host != at {
                    let where_ = hosts[earlier.host].name;
                    failures.add("effects", format!("{who}, which was begun on {where_}"));
                }
            }
        }
        self.log.push(Effect {
            time,
            host: at,
            capability: capability.clone(),
            arguments: arguments.clone(),
            class,
            run: intent.run,
            step: intent.step,
            epoch,
            key: intent.key,
            position: intent.position,
            digest: intent.digest,
            recorded: true,
        });
    }

    /// The power of a machine went: what is not safe now is gone.
    pub(crate) fn crashed(&mut self, at: usize, host: &Host, failures: &mut Failures) {
        let durable = host.disk.durable();
        for effect in self.log.iter_mut().filter(|it| it.host == at && it.recorded) {
            if has_record(effect, host, durable) {
                continue;
            }
            effect.recorded = false;
            if effect.class >= EffectClass::Idempotent {
                let what = format!("a crash took the record of {} on {}", name(effect), host.name);
                failures.add("effects", what);
            }
        }
        for reader in [&mut self.visible[at], &mut self.durable[at]] {
            *reader = Reader::default();
            reader.read(host, durable);
        }
        // Agents that ran are gone, so what was intended before starts nothing any more.
        self.visible[at].open.clear();
    }

    /// At the end.
    pub(crate) fn finish(&self, hosts: &[Host], failures: &mut Failures) {
        for effect in self.log.iter().filter(|effect| effect.recorded) {
            let host = &hosts[effect.host];
            if !has_record(effect, host, host.disk.visible()) {
                let what = format!("the record of {} is gone on {}", name(effect), host.name);
                failures.add("effects", what);
            }
        }
    }
}

/// The try under which a step is kept, whoever asked for it.
fn epoch(intent: &Intent, hosts: &[Host], at: &Host) -> u32 {
    let Intent { owner, run, step, .. } = intent.clone();
    let attempt = Attempt { owner, run, step, above: Vec::new(), epoch: 0 };
    let of = |key: DeviceId| {
        let bytes = at.disk.visible().get(&kept::row(&key, &attempt)).ok()??;
        codec::decode::<Executed>(&bytes, usize::MAX).ok()
    };
    hosts
        .iter()
        .flat_map(Host::keys)
        .filter_map(of)
        .map(|executed| executed.attempt.epoch)
        .max()
        .unwrap_or(0)
}

fn name(effect: &Effect) -> String {
    let Effect { capability, step, run, epoch, .. } = effect;
    format!("{capability}, step {step} of run {}, try {epoch}", run.short())
}

fn has_record(effect: &Effect, host: &Host, rows: &MemoryRows) -> bool {
    let found = host.lineage().records(&effect.key, effect.position, 1, rows);
    let first = found.ok().and_then(|found| found.into_iter().next());
    first
        .filter(|(position, _)| *position == effect.position)
        .and_then(|(_, bytes)| codec::decode::<Signed>(&bytes, RECORD_BYTES_MAX * 2).ok())
        .is_some_and(|signed| signed.digest() == effect.digest)
}

//! With whom something is under way is said when it begins and when it is over, once.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::executor::ExecutionId;
use weft_protocol::id::{DeviceId, RunId};

use crate::{
    checkers::replicas::active,
    host::Host,
    world::{Failures, World},
};

/// The checker.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The devices that each node wants watched.
    watched: BTreeMap<usize, BTreeSet<DeviceId>>,
    /// Of which run an agent is a step.
    runs: BTreeMap<(usize, u64, ExecutionId), RunId>,
}

impl Watch {
    /// A machine lost its power.
    pub(crate) fn crashed(&mut self, at: usize) {
        self.watched.remove(&at);
    }

    /// A node says that something is under way with a device, or no longer is.
    pub(crate) fn said(
        &mut self,
        at: &Host,
        number: usize,
        device: DeviceId,
        is_watched: bool,
        failures: &mut Failures,
    ) {
        let watched = self.watched.entry(number).or_default();
        let is_news = if is_watched { watched.insert(device) } else { watched.remove(&device) };
        if !is_news {
            let what = format!("{} says twice of {} {is_watched}", at.name, device.short());
            failures.add("watch", what);
        }
        if device == at.id {
            failures.add("watch", format!("{} has itself watched", at.name));
        }
    }

    /// An agent was started for a run.
    pub(crate) fn began(&mut self, at: usize, boot: u64, execution: ExecutionId, run: RunId) {
        self.runs.insert((at, boot, execution), run);
    }

    /// At the end, when nothing is under way.
    pub(crate) fn finish(&self, hosts: &[Host], failures: &mut Failures) {
        for (host, _) in active(hosts) {
            let at = hosts.iter().position(|it| it.name == host.name);
            let watched = at.and_then(|at| self.watched.get(&at));
            if let Some(device) = watched.and_then(BTreeSet::first) {
                let of = hosts.iter().find(|it| it.had(device)).map_or("?", |it| it.name);
                failures.add("watch", format!("{} still has {of} watched", host.name));
            }
        }
    }
}

impl World {
    /// While an agent runs for a device, that one is watched.
    pub(crate) fn look_at_the_watched(&mut self, at: usize, execution: ExecutionId) {
        let host = &self.hosts[at];
        let run = self.checks.watch.runs.get(&(at, host.boots, execution));
        let owner = self.asks.values().find(|ask| ask.run.as_ref() == run && ask.host != at);
        let runs = run.is_some() && host.plays.contains_key(&execution);
        let Some(owner) = owner.filter(|_| runs) else { return };
        let device = &self.hosts[owner.host];
        let mut watched = self.checks.watch.watched.get(&at).into_iter().flatten();
        // A machine with the same key is no other device.
        let is_other = !host.set_back && !device.put_out;
        if is_other && !watched.any(|id| device.had(id)) {
            let (name, owner, time) = (host.name, device.name, self.time);
            let what = format!("{name} works for {owner} at {time} µs without watching it");
            self.failures.add("watch", what);
        }
    }
}

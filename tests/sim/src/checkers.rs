//! What must hold, each in its own file. They look from outside: at rows, frames, effects and answers.

pub(crate) mod audit;
pub(crate) mod clocks;
pub(crate) mod effects;
pub(crate) mod notes;
pub(crate) mod once;
pub(crate) mod pairing;
pub(crate) mod panics;
pub(crate) mod presence;
pub(crate) mod replicas;
pub(crate) mod runs;
pub(crate) mod serving;
pub(crate) mod timers;
pub(crate) mod told;
pub(crate) mod trust;
pub(crate) mod watch;

use crate::world::World;

/// All checkers that watch while the world goes on.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) audit: audit::Audit,
    pub(crate) effects: effects::Effects,
    pub(crate) panics: panics::Panics,
    pub(crate) presence: presence::Presence,
    pub(crate) replicas: replicas::Replicas,
    pub(crate) serving: serving::Serving,
    pub(crate) timers: timers::Timers,
    pub(crate) trust: trust::Trust,
    pub(crate) watch: watch::Watch,
}

impl Checks {
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            audit: audit::Audit,
            effects: effects::Effects::new(hosts),
            panics: panics::Panics,
            presence: presence::Presence::default(),
            replicas: replicas::Replicas,
            serving: serving::Serving::default(),
            timers: timers::Timers::default(),
            trust: trust::Trust::default(),
            watch: watch::Watch::default(),
        }
    }
}

impl World {
    /// What must hold at the end.
    pub(crate) fn finish(&mut self) {
        if self.failures.are_final() {
            return;
        }
        self.take_stock();
        let failures = &mut self.failures;
        runs::finish(&self.asks, &self.hosts, self.time, failures);
        self.checks.replicas.finish(&self.hosts, failures);
        self.checks.audit.finish(&self.hosts, failures);
        self.checks.effects.finish(&self.hosts, failures);
        notes::finish(&self.asks, &self.checks.effects, &self.hosts, failures);
        once::finish(&self.checks.effects, &self.hosts, failures);
        told::finish(&self.asks, &self.checks.effects, &self.hosts, failures);
        self.checks.serving.finish(&self.hosts, failures);
        self.checks.timers.finish(&self.hosts, self.time, failures);
        self.checks.watch.finish(&self.hosts, failures);
        self.checks.trust.finish(&self.hosts, &self.decisions.put_out, failures);
        if let Some(whole) = self.checks.trust.graph() {
            pairing::finish(&self.pairings, &self.hosts, whole, failures);
        }
        if self.hosts.iter().any(|host| host.set_back) {
            self.forgive_the_set_back();
        }
    }
}

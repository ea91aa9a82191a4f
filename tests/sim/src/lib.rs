//! A whole fabric on virtual time, from a seed.
//!
//! At least five real nodes (`weft_core::Node`), with the real rules and the real manifests, run on
//! machines that are not real: disks that lose what was not synced, clocks that are wrong and jump, a
//! network that cuts, delays and forgets, agents that fail and ask for what they may not, people who
//! say things all the while, and a thief. A seed draws all of it, and the same seed draws the same.
//!
//! One walk through the loop: what happens next is taken from a queue ordered by virtual time, an
//! input is handed to a node, and what the node wants is put into the queue as something that happens
//! later. After a bad minute all is made well, and in bounded time all devices must have come to the
//! same. In some worlds one then falls silent for good, and the others must take it for away while they come
//! and go themselves; and at last there is rest. The checkers, each in its own file, look from outside all the while and at the end.
//!
//! Deliberately not here: real agents, sockets, disks and models (`tests/e2e`).

mod admin;
mod agent;
mod bug;
mod checkers;
mod clock;
mod dice;
mod disk;
mod door;
mod endpoint;
mod fabric;
mod facts;
mod fault;
mod host;
mod look;
mod network;
mod pairing;
mod rotation;
mod rules;
#[cfg(test)]
mod scenarios;
mod setback;
mod sever;
mod silence;
mod thief;
mod trace;
mod workload;
mod world;

use std::io::Write;

use anyhow::Result;

use crate::world::World;
pub use crate::{bug::Bug, trace::Detail, world::Violation};

/// Of so many seeds one ends with a machine that falls silent: its six minutes of rest and unrest would make
/// each seed take half as long again.
const SILENCE_EVERY: u64 = 4;

/// What came of a seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A hash over everything that went into and came out of all nodes, with its time.
    pub hash: [u8; 32],
    /// What the checkers found.
    pub violations: Vec<Violation>,
    /// Machines.
    pub nodes: usize,
    /// Virtual microseconds.
    pub micros: u64,
    /// Virtual microseconds from healing until all was the same.
    pub healed_in: Option<u64>,
    /// Inputs of all nodes.
    pub inputs: u64,
    /// Commands that were given.
    pub commands: usize,
    /// Steps that agents were started for.
    pub effects: usize,
}

/// Runs one seed, with a planted bug if there is one, and writes the trace to `out`.
///
/// # Errors
///
/// The fabric cannot be set up, which no seed changes.
pub fn run(seed: u64, detail: Detail, out: Box<dyn Write>, bug: Option<Bug>) -> Result<Report> {
    let mut world = World::new(seed, detail, out, bug)?;
    world.draw_faults();
    world.run();
    world.finish();
    if !world.failures.are_final() {
        world.look_at_rest(false);
        if seed.is_multiple_of(SILENCE_EVERY) {
            world.fall_silent();
        }
    }
    Ok(world.report(seed))
}

impl World {
    fn report(&self, seed: u64) -> Report {
        let healed = self.healed.zip(self.quiet_since);
        Report {
            seed,
            hash: self.trace.hash(),
            violations: self.failures.0.clone(),
            nodes: self.hosts.len(),
            micros: self.time,
            healed_in: healed.map(|(healed, quiet)| quiet - healed),
            inputs: self.trace.inputs,
            commands: self.asks.len(),
            effects: self.checks.effects.log().len(),
        }
    }
}

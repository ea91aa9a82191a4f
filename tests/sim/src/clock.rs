//! A machine's wall clock, which is wrong, and is set again and again.

use weft_core::Input;

use crate::world::World;

/// A node takes its clock for set where it comes apart from the other one by more than so much.
const NOTICED_MS: u64 = 2_000;

/// How a machine's wall clock stands.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// How far it is off, in milliseconds.
    pub(crate) skew: i64,
    /// The furthest that it was ever ahead.
    pub(crate) ahead: i64,
    /// Since when it was off by how much, the newest last.
    pub(crate) history: Vec<(u64, i64)>,
    /// When it was set while the node ran, so that the node must have noticed, and by how much.
    pub(crate) set: Option<(u64, i64)>,
}

impl Clock {
    pub(crate) fn new(skew: i64) -> Self {
        Self { skew, ahead: skew.max(0), history: vec![(0, skew)], set: None }
    }

    /// By how much it was off at any time since then.
    pub(crate) fn since(&self, time: u64) -> impl Iterator<Item = i64> + '_ {
        let first = self.history.iter().rposition(|(at, _)| *at <= time).unwrap_or(0);
        self.history[first..].iter().map(|(_, skew)| *skew)
    }
}

impl World {
    /// Sets a machine's wall clock.
    pub(crate) fn set_clock(&mut self, at: usize, skew: i64) {
        let time = self.time;
        let host = &mut self.hosts[at];
        let (runs, clock) = (host.is_up(), &mut host.clock);
        let forward = skew - clock.skew;
        clock.skew = skew;
        clock.ahead = clock.ahead.max(skew);
        clock.history.push((time, skew));
        if runs && forward.unsigned_abs() > NOTICED_MS {
            clock.set = Some((time, forward));
        }
        let device = host.id;
        // A clock that was set wakes a node, which asks again when it is to be woken.
        self.feed(at, Input::RoundTrip { device, micros: 0 });
    }
}

//! The last minutes of a world: one machine falls silent for good, the others come and go and tell each other
//! of it, and then there is rest.

use crate::{checkers::clocks::TOLD_WITHIN, network::SECOND, world::World};

const _: () = assert!(RESTLESS > TOLD_WITHIN, "how clocks stand is known by then");

/// A network notices so late, at most, that a peer without anything under way is gone.
const NOTICED_WITHIN: u64 = 30 * SECOND;
/// Nobody takes a silent machine for here or near after so long: it is noticed, told when it has lasted a
/// second, and under way.
const AWAY_WITHIN: u64 = NOTICED_WITHIN + 5 * SECOND;
/// And nobody counts on what it last said after so long: that is believed for three minutes, and a node looks
/// again whenever it renews its own word.
const FORGOTTEN_WITHIN: u64 = 4 * 60 * SECOND + AWAY_WITHIN;
/// So long the others come and go.
const RESTLESS: u64 = FORGOTTEN_WITHIN + 30 * SECOND;
/// So long nothing happens then.
const REST: u64 = 60 * SECOND;
/// An idle node wakes up twice a second at most.
const WAKES_MAX: u64 = 2 * REST / SECOND;

impl World {
    /// Has one machine fall silent, and looks what the others make of it.
    pub(crate) fn fall_silent(&mut self) {
        let sound = self.sound();
        if sound.len() < 3 {
            return;
        }
        self.over = false;
        let gone = sound[self.dice.facts.index(sound.len())];
        let began = self.time;
        self.say(Some(gone), || "falls silent for good".to_owned());
        self.network.noticed_within = Some(NOTICED_WITHIN);
        self.crash(gone);
        self.network.noticed_within = None;
        let others: Vec<usize> = sound.into_iter().filter(|at| *at != gone).collect();
        while self.time < began + RESTLESS && !self.over {
            self.stir(&others);
            let next = self.time + self.dice.facts.between(5 * SECOND, 25 * SECOND);
            self.go_until(|world| world.time >= next);
            if self.time >= began + AWAY_WITHIN {
                self.is_gone_for_all(gone, self.time >= began + FORGOTTEN_WITHIN);
            }
            self.look_around();
        }
        // One that is out dials without end: there are no pauses here as a real network makes them.
        for at in 0..self.hosts.len() {
            if !self.hosts[at].belongs() {
                self.crash(at);
            }
        }
        // What came up last is told, and steps that were taken up again have ended.
        let calm = self.time + 20 * SECOND;
        self.go_until(|world| world.time >= calm);
        self.rest();
        self.is_gone_for_all(gone, true);
        self.look_at_rest(true);
    }

    /// One of the others comes or goes, so that what is known of the silent one is told again.
    fn stir(&mut self, others: &[usize]) {
        let one = others[self.dice.facts.index(others.len())];
        let two = others[self.dice.facts.index(others.len())];
        match self.dice.facts.between(0, 4) {
            0 => {
                self.crash(one);
                self.start(one);
            }
            1 if one != two => self.upgrade(one, two),
            2 => self.change(one),
            _ => {
                if let Some(link) = self.link(one, two) {
                    self.cut(link);
                }
            }
        }
    }

    /// Counts what wakes each node while nothing happens.
    fn rest(&mut self) {
        let before: Vec<u64> = self.hosts.iter().map(|host| host.wakes).collect();
        let end = self.time + REST;
        self.go_until(|world| world.time >= end);
        for (host, before) in self.hosts.iter().zip(before) {
            let wakes = host.wakes - before;
            if host.is_up() && wakes > WAKES_MAX {
                let what = format!("{} wakes {wakes} times in a minute of rest", host.name);
                self.failures.add("rest", what);
            }
        }
    }
}

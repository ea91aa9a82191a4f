//! Links that go under a step: right after somebody said something of a run, what carried it is cut or
//! another takes its place.

use weft_protocol::frame::Protocol;

use crate::{
    fault::{BAD_TIME, Fault},
    network::{SECOND, pair},
    world::{Happening, World},
};

/// What becomes of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// The stream of runs is cut, and opened again soon.
    Stream,
    /// The connection is cut, and the two connect again.
    Link,
    /// Another connection takes its place, as a direct one does that of a relayed one.
    Upgrade,
}

/// A link goes after so many frames of runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sever {
    pub(crate) after: u32,
    pub(crate) how: How,
}

impl World {
    /// Draws when links go under steps.
    pub(crate) fn draw_severs(&mut self) {
        let mut at = 4 * SECOND;
        while at < BAD_TIME {
            let how = self.dice.facts.pick(&[How::Stream, How::Link, How::Upgrade]);
            let after = 1 + self.dice.facts.index(6) as u32;
            self.at(at, Happening::Fault(Fault::Sever(Sever { after, how })));
            at += self.dice.facts.between(SECOND, 8 * SECOND);
        }
    }

    /// A machine said something of a run to another.
    pub(crate) fn spoke_of_a_run(&mut self, from: usize, to: usize) {
        let Some(sever) = &mut self.network.sever else { return };
        sever.after = sever.after.saturating_sub(1);
        if sever.after == 0 {
            let how = sever.how;
            self.network.sever = None;
            // Before it arrives, or while the step runs.
            let most = self.dice.facts.pick(&[2_000, 50_000, SECOND]);
            let wait = self.dice.facts.between(0, most);
            self.later(wait, Happening::Sever(from, to, how));
        }
    }

    /// A link goes.
    pub(crate) fn sever(&mut self, a: usize, b: usize, how: How) {
        let Some(link) = self.link(a, b) else { return };
        self.say(Some(a), || format!("{how:?} to machine {b} goes"));
        match how {
            How::Stream => self.cut_stream(link, Protocol::Run),
            How::Link => self.cut(link),
            How::Upgrade => self.upgrade(a, b),
        }
    }

    /// A second connection of two machines comes up and takes the place of the first, without either node
    /// being told that the other was away.
    pub(crate) fn upgrade(&mut self, a: usize, b: usize) {
        let Some(old) = self.link(a, b) else { return };
        if self.is_barred(a, b) || self.network.connections[&old].thief.is_some() {
            return;
        }
        let dialler = self.dice.facts.pick(&[a, b]);
        let link = self.connect(a, b, dialler, None);
        let (a, b) = pair(a, b);
        if let Some(connection) = self.network.connections.get_mut(&link) {
            connection.is_relayed = false;
            connection.supersedes = Some(old);
        }
        debug_assert_eq!(self.network.connections[&link].ends, [a, b]);
        // The old one is closed when all that was queued on it has gone.
        for side in 0..2 {
            self.later(3 * SECOND, Happening::Lost(old, side));
        }
    }
}

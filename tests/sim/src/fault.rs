//! What goes wrong, and how it ends.

use weft_protocol::{device::Role, frame::Protocol};

use crate::{
    checkers::runs,
    network::{SECOND, pair},
    sever::Sever,
    world::{Happening, World},
};

/// So long things go wrong, in microseconds.
pub(crate) const BAD_TIME: u64 = 40 * SECOND;

/// The world ends after so long at rest: longer than a hello takes that was sent on a slow link just
/// before all was well.
const QUIET: u64 = 8 * SECOND;
/// So long after healing all runs must have ended: a step waits a minute for its device, and an
/// executor that fell silent is given up after fifteen seconds, up to four times.
pub(crate) const RUNS_END_WITHIN: u64 = 140 * SECOND;
/// So long after healing all pairings must have ended: an invitation waits two minutes for its person,
/// and one more for a device that is to store what it got.
pub(crate) const JOINS_END_WITHIN: u64 = 250 * SECOND;
/// So long after healing, and after the last run ended, all replicas are the same.
pub(crate) const CONVERGE_WITHIN: u64 = 10 * SECOND;

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Some machines can't reach the others.
    Partition { among: Vec<usize>, lasts: u64 },
    /// One pair can't.
    Bar { a: usize, b: usize, lasts: u64 },
    /// A connection is cut, and may come up at once.
    Cut { a: usize, b: usize },
    /// A stream ends while its connection lives.
    CutStream { a: usize, b: usize, protocol: Protocol },
    /// Everything between two machines takes long.
    Slow { a: usize, b: usize, lasts: u64 },
    /// What carries a run goes right after something was said of it.
    Sever(Sever),
    /// The power goes and comes back.
    Crash { host: usize, lasts: u64 },
    /// The power goes right after the nth of such moments from now on.
    Doom { host: usize, moment: Moment, nth: u32 },
    /// The wall clock jumps, in milliseconds.
    Jump { host: usize, by: i64 },
    /// The disk takes nothing more until the power goes, also through a start.
    Full { host: usize, lasts: u64 },
    /// An admin puts a device out; if it was stolen, somebody plays it from then on.
    Revoke { host: usize, stolen: bool },
    /// Two admins that can't reach each other put each other out.
    Duel { lasts: u64 },
    /// An admin gives a device another role.
    SetRole { host: usize, role: Role },
    /// A device gets another key; the power may go at any point of that.
    Rotate { host: usize, crashes: bool },
    /// A disk is copied, to be put back later.
    Image { host: usize },
    /// The copy is put back.
    SetBack { host: usize },
    /// A copy of a disk runs beside it.
    Copy { host: usize },
    /// Somebody with the keys of a device that was put out speaks to another.
    Intrude { host: usize, at: usize },
}

/// When losing power hurts most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// The disk acknowledged a batch.
    Acknowledged,
    /// A frame about a run was sent.
    SentRun,
    /// A frame about the audit chain was sent.
    SentAudit,
    /// A frame of documents was sent.
    SentSync,
    /// A frame of a pairing was sent.
    SentPairing,
}

impl World {
    /// Such a moment has come: the power may go now, or within some milliseconds.
    pub(crate) fn moment(&mut self, host: usize, moment: Moment) {
        let Some((awaited, left)) = &mut self.hosts[host].doom else { return };
        if *awaited != moment {
            return;
        }
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.hosts[host].doom = None;
            let (after, lasts) = (
                self.dice.faults.between(0, 4_000),
                self.dice.faults.between(SECOND / 5, 8 * SECOND),
            );
            self.later(after, Happening::Fault(Fault::Crash { host, lasts }));
        }
    }

    /// Draws what will go wrong, and when it ends.
    pub(crate) fn draw_faults(&mut self) {
        let count = self.hosts.iter().filter(|host| host.joined).count();
        let mut at = 3 * SECOND;
        let every = self.dice.faults.between(SECOND, 6 * SECOND);
        while at < BAD_TIME {
            let fault = self.draw_fault(count);
            self.at(at, Happening::Fault(fault));
            at += self.dice.faults.between(every / 4, every * 2);
        }
        self.draw_decisions(count);
        self.draw_changes();
        self.draw_severs();
        self.draw_looks();
        self.at(2 * SECOND, Happening::Ask);
        self.at(BAD_TIME, Happening::Heal);
    }

    fn draw_fault(&mut self, count: usize) -> Fault {
        let dice = &mut self.dice.faults;
        let a = dice.index(count);
        let b = (a + 1 + dice.index(count - 1)) % count;
        let lasts = dice.between(SECOND, 20 * SECOND);
        match dice.between(0, 100) {
            0..15 => {
                let among = (0..count).filter(|_| dice.chance(50)).collect();
                Fault::Partition { among, lasts }
            }
            15..30 => Fault::Bar { a, b, lasts },
            30..45 => Fault::Cut { a, b },
            45..60 => {
                let protocol = dice.pick(&Protocol::SPOKEN);
                Fault::CutStream { a, b, protocol }
            }
            60..68 => Fault::Slow { a, b, lasts },
            68..75 => Fault::Crash { host: a, lasts: dice.between(SECOND / 5, 12 * SECOND) },
            75..86 => {
                let moment = dice.pick(&[
                    Moment::Acknowledged,
                    Moment::SentRun,
                    Moment::SentAudit,
                    Moment::SentSync,
                ]);
                let nth = u32::try_from(dice.between(1, 12)).unwrap_or(1);
                Fault::Doom { host: a, moment, nth }
            }
            86..95 => {
                let day = 24 * 3_600 * 1_000;
                let reach = dice.pick(&[5_000, 600_000, day]);
                let by = i64::try_from(dice.between(0, 2 * reach)).unwrap_or(0);
                Fault::Jump { host: a, by: by - reach as i64 }
            }
            _ => Fault::Full { host: a, lasts: dice.between(SECOND, 6 * SECOND) },
        }
    }

    /// Something goes wrong.
    pub(crate) fn befall(&mut self, fault: Fault) {
        if self.healed.is_some() {
            return;
        }
        self.say(None, || format!("{fault:?}"));
        match fault {
            Fault::Partition { among, lasts } => {
                for a in 0..self.hosts.len() {
                    for b in a + 1..self.hosts.len() {
                        if among.contains(&a) != among.contains(&b) {
                            self.bar(a, b, lasts);
                        }
                    }
                }
            }
            Fault::Bar { a, b, lasts } => self.bar(a, b, lasts),
            Fault::Cut { a, b } => {
                if let Some(link) = self.link(a, b) {
                    self.cut(link);
                }
            }
            Fault::CutStream { a, b, protocol } => {
                if let Some(link) = self.link(a, b) {
                    self.cut_stream(link, protocol);
                }
            }
            Fault::Slow { a, b, lasts } => {
                self.network.slow.insert(pair(a, b), self.time + lasts);
            }
            Fault::Crash { host, lasts } => {
                self.crash(host);
                self.later(lasts, Happening::Start(host));
            }
            Fault::Doom { host, moment, nth } => self.hosts[host].doom = Some((moment, nth)),
            Fault::Jump { host, by } => {
                self.set_clock(host, self.hosts[host].clock.skew + by);
            }
            Fault::Sever(sever) => self.network.sever = Some(sever),
            Fault::Full { host, lasts } => {
                self.hosts[host].disk.failing = true;
                self.later(lasts, Happening::Fault(Fault::Crash { host, lasts: SECOND }));
            }
            Fault::Revoke { host, stolen } => self.revoke(host, stolen),
            Fault::Duel { lasts } => self.duel(lasts),
            Fault::SetRole { host, role } => self.set_role(host, role),
            Fault::Rotate { host, crashes } => self.rotate(host, crashes),
            Fault::Image { host } => self.take_image(host),
            Fault::SetBack { host } => self.put_image_back(host),
            Fault::Copy { host } => self.copy_beside(host),
            Fault::Intrude { host, at } => self.intrude(host, at),
        }
    }

    /// Has two machines unable to reach each other.
    pub(crate) fn bar(&mut self, a: usize, b: usize, lasts: u64) {
        let until = self.network.barred.entry(pair(a, b)).or_default();
        *until = (*until).max(self.time + lasts);
        if let Some(link) = self.network.pairs.get(&pair(a, b)).copied() {
            self.cut(link);
        }
    }

    /// Everything is well again: all machines are up and connected, clocks are right.
    pub(crate) fn heal(&mut self) {
        self.say(None, || "all is well again".to_owned());
        self.healed = Some(self.time);
        self.network.barred.clear();
        self.network.slow.clear();
        self.network.sever = None;
        for host in 0..self.hosts.len() {
            if self.hosts[host].disk.failing {
                self.crash(host);
                // One that is off does not crash.
                self.hosts[host].disk.failing = false;
            }
            self.set_clock(host, 0);
            self.hosts[host].doom = None;
            if !self.hosts[host].is_up() {
                self.start(host);
            }
        }
        let dead: Vec<u64> = self
            .network
            .connections
            .iter()
            .filter(|(_, it)| it.dead || it.thief.is_some())
            .map(|(link, _)| *link)
            .collect();
        for link in dead {
            self.cut(link);
        }
        self.later(SECOND, Happening::Look);
        self.later(4 * SECOND, Happening::Settle);
    }

    /// Looks whether all has come to rest, and ends the world when it has or should have.
    pub(crate) fn look(&mut self) {
        self.take_stock();
        let healed = self.healed.unwrap_or(self.time);
        let runs_over = self.asks.values().all(super::workload::Ask::is_over)
            && self.hosts.iter().filter(|host| host.belongs()).all(|host| host.plays.is_empty());
        // One whose asker lost its power may wait on for a device that was put out.
        let runs_over = runs_over && runs::running(&self.hosts).is_empty();
        let joins_over = self.pairings.are_over();
        let quiet = runs_over && joins_over && self.checks.replicas.are_equal(&self.hosts);
        if quiet {
            let since = *self.quiet_since.get_or_insert(self.time);
            if since + QUIET <= self.time {
                self.over = true;
                return;
            }
        } else {
            self.quiet_since = None;
        }
        self.ended_at = runs_over.then(|| self.ended_at.unwrap_or(self.time));
        let joined = if joins_over { *self.joined_at.get_or_insert(self.time) } else { 0 };
        let ended = self.ended_at.unwrap_or(0);
        let last = healed.max(ended).max(self.decisions.last).max(joined);
        let too_late = if !joins_over {
            self.time > healed + JOINS_END_WITHIN
        } else if runs_over {
            self.time > last + CONVERGE_WITHIN && !quiet
        } else {
            self.time > healed + RUNS_END_WITHIN
        };
        if too_late {
            self.over = true;
            return;
        }
        self.later(SECOND / 2, Happening::Look);
    }
}

//! Timing two things in turns, on a machine that is not quiet.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    floor::{Floor, Floors, Probe, Range},
    peers::Peers,
    program,
};

/// Rounds that count, in a real run. One more before them warms up.
const ROUNDS: usize = 5;

/// Rounds that are tried before fewer than [`ROUNDS`] are taken for what they are.
const ROUNDS_TRIED_MAX: usize = 15;

/// A round in which a floor moved by more than this does not count, in percent.
const DRIFT_PERCENT_MAX: u32 = 25;

/// What rows measure with.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Small sizes and one round.
    pub(crate) smoke: bool,
    floors: Floors,
}

/// Something to be timed: makes itself ready, and gives how long the part that counts took.
pub(crate) type Sample<'a> = Box<dyn FnMut(&mut Floors) -> Result<Duration> + 'a>;

/// What it is compared with.
pub(crate) struct Peer<'a> {
    pub(crate) name: &'static str,
    pub(crate) sample: Sample<'a>,
}

/// What came out.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    pub(crate) ours: Quantiles,
    pub(crate) peer: Option<(&'static str, Quantiles)>,
    /// The median of the rounds' ratios of medians, ours to the peer's.
    pub(crate) ratio: Option<f64>,
    /// Rounds that were steady. Others do not count, unless there is none, or in a smoke run.
    pub(crate) rounds: usize,
    /// Rounds in which a floor drifted.
    pub(crate) drifted: usize,
    /// The floors in the rounds that count, where they were probed.
    pub(crate) floors: Option<Range>,
}

/// Quantiles over all rounds that count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantiles {
    pub(crate) p50: Duration,
    pub(crate) p95: Duration,
    pub(crate) p99: Duration,
    pub(crate) n: usize,
}

/// What one round gave.
struct Round {
    ours: Vec<Duration>,
    peer: Vec<Duration>,
    probes: [Probe; 3],
}

impl Timed {
    fn of(
        taken: Vec<Round>,
        peer: Option<&'static str>,
        rounds: usize,
        drifted: usize,
    ) -> Result<Self> {
        let (mut all_ours, mut all_peers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let mut floors = Vec::new();
        for Round { ours, peer, probes } in taken {
            if !peer.is_empty() {
                let (ours, peer) = (Quantiles::of(ours.clone())?, Quantiles::of(peer.clone())?);
                ratios.push(ours.p50.as_secs_f64() / peer.p50.as_secs_f64().max(1e-9));
            }
            floors.extend(probes.map(Range::from));
            all_ours.extend(ours);
            all_peers.extend(peer);
        }
        ratios.sort_unstable_by(f64::total_cmp);
        let peer = match peer {
            Some(name) => Some((name, Quantiles::of(all_peers)?)),
            None => None,
        };
        let ratio = ratios.get(ratios.len() / 2).copied();
        let floors = Range::around(floors);
        Ok(Self { ours: Quantiles::of(all_ours)?, peer, ratio, rounds, drifted, floors })
    }
}

impl Quantiles {
    /// Of at least one time.
    pub(crate) fn of(mut times: Vec<Duration>) -> Result<Self> {
        ensure!(!times.is_empty(), "failed to measure: nothing was timed");
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        Ok(Self { p50: at(50), p95: at(95), p99: at(99), n: times.len() })
    }
}

/// Times a call.
pub(crate) fn time<T>(call: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    call()?;
    Ok(start.elapsed())
}

impl Bench {
    pub(crate) fn new(smoke: bool) -> Result<Self> {
        Ok(Self { smoke, floors: Floors::new()? })
    }

    /// The first in a smoke run, else the second.
    pub(crate) const fn size(&self, smoke: usize, full: usize) -> usize {
        if self.smoke { smoke } else { full }
    }

    /// What it is compared with.
    pub(crate) fn peers(&self) -> Peers {
        Peers::new(self.smoke)
    }

    /// The program whose nodes are started.
    pub(crate) fn program(&self) -> Result<PathBuf> {
        program::find()
    }

    /// Times `samples` of ours and as many of the peer in each round, in turns. `rests_on` names the
    /// floors whose drift spoils a round.
    pub(crate) fn compare(
        &mut self,
        samples: usize,
        rests_on: &[Floor],
        mut ours: Sample<'_>,
        mut peer: Option<Peer<'_>>,
    ) -> Result<Timed> {
        let (wanted, tried_max) = if self.smoke { (1, 1) } else { (ROUNDS, ROUNDS_TRIED_MAX) };
        let (mut steady, mut drifted) = (Vec::new(), Vec::new());
        // The warm-up.
        self.round(samples.div_ceil(5), &mut ours)?;
        if let Some(peer) = &mut peer {
            self.round(samples.div_ceil(5), &mut peer.sample)?;
        }
        while steady.len() < wanted && steady.len() + drifted.len() < tried_max {
            let before = self.floors.probe()?;
            let ours = self.round(samples, &mut ours)?;
            let between = self.floors.probe()?;
            let peer = match &mut peer {
                Some(peer) => self.round(samples, &mut peer.sample)?,
                None => Vec::new(),
            };
            let probes = [before, between, self.floors.probe()?];
            let round = Round { ours, peer, probes };
            let is_steady = !rests_on.iter().any(|floor| has_drifted(*floor, probes));
            if is_steady { steady.push(round) } else { drifted.push(round) }
        }
        let (rounds, thrown_away) = (steady.len(), drifted.len());
        // On a machine that never comes to rest they are what there is, and the count says so.
        let taken = if rounds == 0 || self.smoke {
            steady.append(&mut drifted);
            steady
        } else {
            steady
        };
        Timed::of(taken, peer.map(|peer| peer.name), rounds, thrown_away)
    }

    fn round(&mut self, samples: usize, sample: &mut Sample<'_>) -> Result<Vec<Duration>> {
        (0..samples).map(|_| sample(&mut self.floors)).collect()
    }
}

fn has_drifted(floor: Floor, probes: [Probe; 3]) -> bool {
    let times = probes.map(|probe| probe.of(floor));
    let (least, most) =
        times.iter().fold((Duration::MAX, Duration::ZERO), |(least, most), time| {
            (least.min(*time), most.max(*time))
        });
    most * 100 > least * (100 + DRIFT_PERCENT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(micros: u64) -> Probe {
        let floor = Duration::from_micros(micros);
        Probe { udp: floor, sync: Duration::from_millis(1), sha: Duration::from_millis(1) }
    }

    #[test]
    fn a_floor_that_moves_by_more_than_a_quarter_has_drifted() {
        assert!(!has_drifted(Floor::Udp, [80, 100, 90].map(probe)));
        assert!(has_drifted(Floor::Udp, [80, 101, 90].map(probe)));
        assert!(!has_drifted(Floor::Sync, [80, 200, 90].map(probe)));
    }

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let quantiles = Quantiles::of(times).unwrap();
        assert_eq!(quantiles.p50, Duration::from_millis(101));
        assert_eq!(quantiles.p95, Duration::from_millis(191));
        assert_eq!(quantiles.p99, Duration::from_millis(199));
        assert_eq!(quantiles.n, 200);
        assert!(Quantiles::of(Vec::new()).is_err());
    }

    #[test]
    fn a_peer_that_does_the_same_has_the_ratio_one() {
        let mut bench = Bench::new(true).unwrap();
        let step = || -> Sample<'static> { Box::new(|_| Ok(Duration::from_micros(10))) };
        let peer = Peer { name: "itself", sample: step() };
        let timed = bench.compare(8, &[], step(), Some(peer)).unwrap();
        assert_eq!(timed.ratio, Some(1.0));
        assert_eq!((timed.ours.n, timed.rounds, timed.drifted), (8, 1, 0));
    }

    #[test]
    fn what_drifted_counts_only_where_nothing_was_steady() {
        let round = |micros| Round {
            ours: vec![Duration::from_micros(micros); 2],
            peer: vec![Duration::from_micros(10); 2],
            probes: [80, 80, 80].map(probe),
        };
        let timed = Timed::of(vec![round(10), round(40), round(20)], Some("a peer"), 0, 3).unwrap();
        assert_eq!(timed.ratio, Some(2.0));
        assert_eq!((timed.ours.n, timed.rounds, timed.drifted), (6, 0, 3));
        assert!(Timed::of(Vec::new(), None, 0, 0).is_err());
    }
}

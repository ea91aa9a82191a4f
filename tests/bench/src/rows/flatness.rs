//! Row 10: whether much data makes one change slower.

use anyhow::{Context as _, Result};

use crate::{
    bench::{Bench, Peer},
    copies::{Disk, with_history},
    floor::Floor,
    report::Figure,
};

/// Changes of the document that is edited; the others have one each.
const HISTORY: usize = 100;

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let samples = bench.size(10, 100);
    let (few, many) = (bench.size(100, 900), bench.size(1_000, 99_900));
    let mut small = with_history(HISTORY, few, [Disk::memory(), Disk::memory()])?;
    let mut large = with_history(HISTORY, many, [Disk::memory(), Disk::memory()])?;
    let (mut first, mut second) = (0, 0);
    let peer = Peer {
        name: "few changes",
        sample: Box::new(|_| {
            first += 1;
            small.change(0, &format!("measured {first}"))
        }),
    };
    let timed = bench.compare(
        samples,
        &[Floor::Sha],
        Box::new(|_| {
            second += 1;
            large.change(0, &format!("measured {second}"))
        }),
        Some(peer),
    )?;
    let ratio = timed.ratio.context("a peer has a ratio")?;
    let note = format!("{} changes against {}: {ratio:.2} : 1", many + HISTORY, few + HISTORY);
    Ok(vec![Figure::timed("many changes", timed, note)])
}

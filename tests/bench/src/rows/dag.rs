//! Row 6: ten steps, each after the one before.

use anyhow::Result;

use crate::{
    bench::{Bench, Peer, time},
    floor::Floor,
    member::{Two, steps},
    report::Figure,
};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let two = Two::meet()?;
    let samples = bench.size(5, 100);
    let peer = Peer { name: "1 fdatasync", sample: Box::new(|floors| time(|| floors.append())) };
    let timed = bench.compare(
        samples,
        &[Floor::Sync],
        Box::new(|_| Ok(two.laptop.carry_out(steps(&[Some("laptop"); 10], true)?)?.whole)),
        Some(peer),
    )?;
    let note =
        "agents are stand-ins that answer at once; Restate, Ray and Temporal are not run here yet";
    Ok(vec![Figure::timed("the run", timed, note)])
}

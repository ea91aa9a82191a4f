//! Row 8: many steps that do not depend on each other.

use std::time::Instant;

use anyhow::Result;
use weft_protocol::graph::STEPS_MAX;

use crate::{
    bench::Bench,
    member::{Two, steps},
    report::Figure,
};

/// Steps in a real measurement, and one run more than that needs.
const STEPS: usize = 2_000;

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let two = Two::meet()?;
    let runs = bench.size(1, STEPS.div_ceil(STEPS_MAX));
    let start = Instant::now();
    for _ in 0..runs {
        two.laptop.carry_out(steps(&[Some("laptop"); STEPS_MAX], false)?)?;
    }
    let steps = u32::try_from(runs * STEPS_MAX).unwrap_or(u32::MAX);
    let micros = start.elapsed().as_secs_f64() * 1e6 / f64::from(steps);
    let note = "a plan has at most 64 steps, so runs follow each other; agents are stand-ins; Ray and Dask \
                are not run here yet";
    Ok(vec![Figure::amount("a step", micros, "µs").noted(note)])
}

//! Row 11: two copies that were apart compare what they have.

use std::time::Instant;

use anyhow::{Context as _, Result};
use weft_protocol::row::Durability;

use crate::{
    bench::Bench,
    copies::{Copies, Copy, Disk, fill, update},
    report::Figure,
};

/// Documents changed on each side.
const CHANGED: usize = 100;

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let documents = bench.size(1_000, 10_000);
    let mut first = Copy::open(1, Disk::memory())?;
    fill(&mut first, 0, documents)?;
    // The second begins with the same rows, as if all had been synchronised.
    let rows = first.memory().context("it lies in memory")?.clone();
    let second = Copy::open(2, Disk::Memory(rows))?;
    let mut copies = Copies::new([first, second]);
    copies.open();
    copies.settle()?;
    copies.ensure_equal()?;
    let compared = std::mem::take(&mut copies.bytes);
    copies.close();

    let mut written = 0;
    for (copy, from) in copies.both.iter_mut().zip([0, CHANGED]) {
        for number in (from..).take(CHANGED) {
            let text = format!("changed while apart: {number}");
            written += text.len();
            let number = u64::try_from(number).context("a small number")?;
            copy.edit(vec![update(number, &text)], Durability::Ordered)?;
        }
    }
    let start = Instant::now();
    copies.open();
    copies.settle()?;
    let took = start.elapsed();
    copies.ensure_equal()?;
    let kilobytes = |bytes: usize| bytes as f64 / 1e3;
    let figures = vec![
        Figure::amount(format!("{documents} documents"), took.as_secs_f64() * 1e3, "ms")
            .noted("two replicas in memory, frames handed over in this process, one measurement"),
        Figure::amount("bytes sent", kilobytes(copies.bytes), "kB").noted(format!(
            "for {} changes, whose texts alone are {:.1} kB",
            2 * CHANGED,
            kilobytes(written)
        )),
        Figure::amount("bytes sent where nothing differs", kilobytes(compared), "kB"),
    ];
    Ok(figures)
}

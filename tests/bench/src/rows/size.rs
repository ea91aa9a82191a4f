//! Row 24: how large the program is.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{bench::Bench, report::Figure};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    if cfg!(debug_assertions) {
        return Ok(vec![Figure::not_yet("a debug build says nothing about the size of a release")]);
    }
    let program = bench.program()?;
    let bytes = fs::metadata(&program).context("failed to look at the program")?.len();
    Ok(vec![Figure::amount("file", bytes as f64 / 1e6, "MB")])
}

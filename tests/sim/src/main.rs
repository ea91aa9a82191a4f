//! `cargo sim SEED` replays a seed and shows what happens; `cargo sim --seeds A..B` runs many.

use std::{
    io::{Write as _, stdout},
    ops::Range,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use weft_sim::{Detail, Report, run};

const USAGE: &str = "usage: weft-sim SEED [--verbose]
       weft-sim --seeds A..B

A seed alone is replayed with its trace; --verbose shows each input and output.
Of many seeds, one line says how they went, and each failure how to replay it.";

enum Job {
    One { seed: u64, detail: Detail },
    Many(Range<u64>),
}

fn job() -> Result<Job> {
    let mut detail = Detail::Story;
    let mut job = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--verbose" => detail = Detail::All,
            "--seeds" => {
                let seeds = arguments.next().context(USAGE)?;
                let (from, to) = seeds.split_once("..").context(USAGE)?;
                job = Some(Job::Many(from.parse().context(USAGE)?..to.parse().context(USAGE)?));
            }
            seed => job = Some(Job::One { seed: seed.parse().context(USAGE)?, detail }),
        }
    }
    match job {
        Some(Job::One { seed, .. }) => Ok(Job::One { seed, detail }),
        Some(many @ Job::Many(_)) => Ok(many),
        None => bail!(USAGE),
    }
}

fn main() -> Result<ExitCode> {
    let reports = match job()? {
        Job::One { seed, detail } => {
            let report = run(seed, detail, Box::new(stdout()), None)?;
            tell_failure(&report)?;
            tell(std::slice::from_ref(&report), 0.0)?;
            vec![report]
        }
        Job::Many(seeds) => {
            let began = Instant::now();
            let reports = many(seeds)?;
            tell(&reports, began.elapsed().as_secs_f64())?;
            reports
        }
    };
    let failed = reports.iter().any(|report| !report.violations.is_empty());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs seeds on all processors.
fn many(seeds: Range<u64>) -> Result<Vec<Report>> {
    let next = AtomicU64::new(seeds.start);
    let reports = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return Ok(());
                }
                let report = run(seed, Detail::None, Box::new(std::io::sink()), None)?;
                tell_failure(&report)?;
                if let Ok(mut reports) = reports.lock() {
                    reports.push(report);
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("the simulation itself panicked"))??;
        }
        Ok(())
    })?;
    Ok(reports.into_inner().unwrap_or_default())
}

fn tell_failure(report: &Report) -> Result<()> {
    let mut out = stdout().lock();
    if !report.violations.is_empty() {
        writeln!(out, "seed {} failed; replay it with: cargo sim {}", report.seed, report.seed)?;
    }
    for violation in &report.violations {
        writeln!(out, "    {}: {}", violation.checker, violation.what)?;
    }
    Ok(())
}

fn tell(reports: &[Report], seconds: f64) -> Result<()> {
    let mut out = stdout().lock();
    let failed = reports.iter().filter(|report| !report.violations.is_empty()).count();
    let hours: f64 = reports.iter().map(|it| it.micros as f64 * it.nodes as f64 / 3.6e9).sum();
    let inputs: u64 = reports.iter().map(|report| report.inputs).sum();
    let effects: usize = reports.iter().map(|report| report.effects).sum();
    let commands: usize = reports.iter().map(|report| report.commands).sum();
    let slowest = reports.iter().filter_map(|report| report.healed_in).max().unwrap_or(0);
    write!(
        out,
        "{} seeds, {failed} failed: {hours:.1} node-hours, {inputs} inputs, {commands} commands, \
         {effects} effects, all the same at most {:.1} s after healing",
        reports.len(),
        slowest as f64 / 1e6
    )?;
    if seconds > 0.0 {
        let rate = reports.len() as f64 / seconds;
        write!(out, "; {seconds:.1} s, {rate:.1} seeds/s, {:.1} node-hours/s", hours / seconds)?;
    } else if let [report] = reports {
        let hash: String = report.hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        write!(out, "; event hash {hash}")?;
    }
    writeln!(out)?;
    Ok(())
}

//! How fast, how small: the rows of the benchmark, each measured beside what it is compared with.
//!
//! A row is a file in [`rows`]. It makes what it needs, hands [`Bench::compare`] something to time
//! and, where there is one, a peer; both are timed in turns, round by round, between probes of the
//! machine's floors ([`floor`]), and what comes out is a ratio with both sides' quantiles. The table
//! goes to standard output, the same as JSON to the file that `--json` names.
//!
//! Whole nodes are measured in two ways: [`member`] joins core, store and network within this process,
//! with a stand-in for agents, so that a step costs what the fabric costs ([`apart`] puts the other node
//! into a process of its own); [`program`] starts the real program (`WEFT_BIN`, else the one beside
//! this). Replicas without a node are in [`copies`].
//!
//! Peers are programs of their own ([`peers`]): what `tests/bench/peers` builds, which takes ten minutes
//! and is no part of this workspace, and what a system has packages of. One that is not there is said to
//! be missing.
//!
//! Deliberately not here: any goal that fails: a goal that is missed is a finding. Figures of a debug
//! build say only that the row runs, and the table says so.

mod apart;
mod bench;
mod copies;
mod fabric;
mod floor;
mod member;
mod nats;
mod peers;
mod process;
mod program;
mod report;
mod rows;
mod syncthing;
mod usage;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use crate::{bench::Bench, report::Report};

/// Measures the fabric.
#[derive(Debug, Parser)]
#[command(name = "weft-bench", version, about)]
struct Arguments {
    /// A few rounds of small sizes: shows that every row runs, says nothing about speed
    #[arg(long)]
    smoke: bool,

    /// Only the rows of these names or numbers
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,

    /// Writes what was measured to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Is the other node of two
    #[arg(long, hide = true)]
    be_the_server: bool,
}

fn main() -> ExitCode {
    // This program's own agents' children start here as well.
    if let Some(role) = weft_wall::role() {
        return weft_host::run_child(&role);
    }
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Gives whether all that was asked for ran.
fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.be_the_server {
        return apart::run().map(|()| true);
    }
    let chosen: Vec<_> = rows::ROWS
        .iter()
        .filter(|row| arguments.only.is_empty() || arguments.only.iter().any(|it| row.is(it)))
        .collect();
    if chosen.is_empty() {
        bail!("failed to find a row of that name; there are {}", rows::names());
    }
    let mut bench = Bench::new(arguments.smoke)?;
    let mut report = Report::new(arguments.smoke);
    for row in chosen {
        eprintln!("{} {} …", row.number, row.name);
        report.add(row, row.measure(&mut bench));
    }
    report.print().context("failed to print the table")?;
    if let Some(path) = &arguments.json {
        fs::write(path, format!("{:#}\n", report.json()))
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(report.all_ran())
}

//! Row 3: the first step after a while, and one in a child that is alive.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::agent::Desk;
use crate::{
    bench::{Bench, Peer, time},
    floor::Floor,
    report::Figure,
};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let desk = Desk::new()?;
    let peer = Peer {
        name: "spawn of `true`",
        sample: Box::new(|_| {
            time(|| {
                let status = Command::new("true").stdin(Stdio::null()).status()?;
                ensure!(status.success(), "`true` ended with {status}");
                Ok(())
            })
        }),
    };
    let samples = bench.size(5, 100);
    let cold = bench.compare(
        samples,
        &[Floor::Udp, Floor::Sha],
        Box::new(|_| {
            let step = desk.cold();
            time(step)
        }),
        Some(peer),
    )?;
    let alive = bench.compare(samples, &[Floor::Udp], Box::new(|_| time(|| desk.step())), None)?;
    Ok(vec![
        Figure::timed("child started", cold, "the peer loads no code"),
        Figure::timed("child alive", alive, "goal: p99 ≤ 1 ms"),
    ])
}

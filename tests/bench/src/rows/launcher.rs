//! Row 15: what a person at a terminal waits for.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::{
    bench::{Bench, Peer, time},
    floor::Floor,
    program::Homes,
    report::Figure,
};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let samples = bench.size(3, 50);
    let mut homes = Homes::new(bench.program()?)?;
    homes.init(1)?;
    homes.up("laptop")?;
    homes.join("server")?;
    homes.wait("laptop", |status| status["devices_here"] == 1)?;
    // The first compiles the agent, on either side.
    let say = |words: &str| homes.weft("laptop", &["do", words]).map(drop);
    say("list my notes")?;
    say("list my notes on the server")?;
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
    let here = bench.compare(
        samples,
        &[Floor::Udp, Floor::Sync],
        Box::new(|_| time(|| say("list my notes"))),
        Some(peer),
    )?;
    let there = bench.compare(
        samples,
        &[Floor::Udp, Floor::Sync],
        Box::new(|_| time(|| say("list my notes on the server"))),
        None,
    )?;
    Ok(vec![
        Figure::timed("here", here, "`weft do list my notes`"),
        Figure::timed("on the server", there, "`weft do list my notes on the server`"),
    ])
}

//! Row 2: as row 1, with the intent on the disk before the step.

use anyhow::Result;
use weft_protocol::row::Durability;

use super::agent::Desk;
use crate::{
    bench::{Bench, Peer, time},
    floor::Floor,
    report::Figure,
};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let mut desk = Desk::new()?;
    let mut buffered = Desk::new()?;
    let peer = Peer {
        name: "agent-warm + 1 fdatasync",
        sample: Box::new(|floors| {
            time(|| {
                buffered.serve(Durability::Ordered)?;
                floors.append()
            })
        }),
    };
    let samples = bench.size(10, 200);
    let timed = bench.compare(
        samples,
        &[Floor::Udp, Floor::Sync],
        Box::new(|_| time(|| desk.serve(Durability::Synced))),
        Some(peer),
    )?;
    Ok(vec![Figure::timed("a step", timed, "")])
}

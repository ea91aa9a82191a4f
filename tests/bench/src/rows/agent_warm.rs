//! Row 1: a step of an agent whose child waits for it.

use anyhow::Result;
use weft_protocol::row::Durability;

use super::agent::{Desk, Echo};
use crate::{
    bench::{Bench, Peer, time},
    floor::Floor,
    report::Figure,
};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let mut desk = Desk::new()?;
    let peers = Desk::new()?;
    let mut echo = Echo::new()?;
    let peer = Peer {
        name: "2 socket echoes + 2 signatures",
        sample: Box::new(|_| {
            time(|| {
                echo.round_trip()?;
                echo.round_trip()?;
                peers.sign_twice();
                Ok(())
            })
        }),
    };
    let samples = bench.size(10, 400);
    let timed = bench.compare(
        samples,
        &[Floor::Udp, Floor::Sha],
        Box::new(|_| time(|| desk.serve(Durability::Ordered))),
        Some(peer),
    )?;
    let note = "notes.list (135 kB of component), which asks the node once; the peer lacks raw wasmtime, \
                which only the host's crate may use";
    Ok(vec![Figure::timed("a step", timed, note)])
}

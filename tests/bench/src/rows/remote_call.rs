//! Row 5: a step on the other node.

use anyhow::{Context as _, Result};

use crate::{
    bench::{Bench, Peer},
    floor::Floor,
    member::{Two, steps},
    report::Figure,
};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let two = Two::meet()?;
    let samples = bench.size(10, 300);
    let peer = Peer { name: "UDP echo", sample: Box::new(|floors| floors.echo()) };
    let step = bench.compare(
        samples,
        &[Floor::Udp],
        Box::new(|_| {
            let went = two.laptop.carry_out(steps(&[Some("server")], false)?)?;
            went.steps.first().copied().context("a run without a step")
        }),
        Some(peer),
    )?;
    let run = bench.compare(
        samples,
        &[Floor::Udp, Floor::Sync],
        Box::new(|_| Ok(two.laptop.carry_out(steps(&[Some("server")], false)?)?.whole)),
        None,
    )?;
    let note = "from the offer to the outcome; the agent is a stand-in that answers at once; NATS, \
                libp2p, iroh and quinn are not run here yet";
    Ok(vec![
        Figure::timed("the step", step, note),
        Figure::timed("its run", run, "with the run's own journal, on the owner's disk"),
    ])
}

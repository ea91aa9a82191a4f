//! Row 7: ten steps, every other one on the other node.

use anyhow::Result;

use crate::{
    bench::{Bench, Peer, time},
    floor::Floor,
    member::{Two, steps},
    report::Figure,
};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let two = Two::meet()?;
    let samples = bench.size(5, 100);
    let peer = Peer {
        name: "10 UDP echoes + 10 fdatasyncs",
        sample: Box::new(|floors| {
            time(|| {
                for _ in 0..10 {
                    floors.echo()?;
                    floors.append()?;
                }
                Ok(())
            })
        }),
    };
    let devices: Vec<_> = [Some("server"), Some("laptop")].repeat(5);
    let timed = bench.compare(
        samples,
        &[Floor::Udp, Floor::Sync],
        Box::new(|_| Ok(two.laptop.carry_out(steps(&devices, true)?)?.whole)),
        Some(peer),
    )?;
    let note = "the steps are read-only, so their records are ordered and no fsync is waited for";
    Ok(vec![Figure::timed("the run", timed, note)])
}

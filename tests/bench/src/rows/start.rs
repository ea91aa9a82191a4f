//! Row 13: from exec to the first answer.

use anyhow::Result;

use crate::{bench::Bench, floor::Floor, program::Homes, report::Figure};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let notes = bench.size(100, 10_000);
    let samples = bench.size(2, 10);
    let mut homes = Homes::new(bench.program()?)?;
    homes.init(notes)?;
    let timed = bench.compare(
        samples,
        &[Floor::Sync, Floor::Sha],
        Box::new(|_| {
            let took = homes.up("laptop")?;
            homes.stop_last()?;
            Ok(took)
        }),
        None,
    )?;
    let note = format!("{notes} notes; nats-server and Syncthing are not run here yet");
    Ok(vec![Figure::timed("to `status`", timed, note)])
}

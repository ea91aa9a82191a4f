//! Row 9: one change, here and then there.

use anyhow::Result;

use crate::{
    bench::{Bench, Peer, time},
    copies::{Disk, with_history},
    floor::Floor,
    report::Figure,
};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let samples = bench.size(10, 100);
    let history = bench.size(100, 1_000);
    let mut number = 0;
    let mut change = |copies: &mut crate::copies::Copies| {
        number += 1;
        copies.change(0, &format!("measured {number}"))
    };
    let mut in_memory = with_history(history, 0, [Disk::memory(), Disk::memory()])?;
    let memory =
        bench.compare(samples, &[Floor::Sha], Box::new(|_| change(&mut in_memory)), None)?;
    let mut on_disk = with_history(history, 0, [Disk::file()?, Disk::file()?])?;
    let peer = Peer {
        name: "2 fdatasyncs",
        sample: Box::new(|floors| {
            time(|| {
                floors.append()?;
                floors.append()
            })
        }),
    };
    let disk =
        bench.compare(samples, &[Floor::Sync], Box::new(|_| change(&mut on_disk)), Some(peer))?;
    let note = "two replicas whose frames are handed over in this process: without a network; \
                automerge-repo and Syncthing are not run here yet";
    Ok(vec![
        Figure::timed("in memory", memory, note),
        Figure::timed("in encrypted stores", disk, "persisted here before it leaves"),
    ])
}

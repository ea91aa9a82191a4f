//! Row 13: from exec to the first answer.

use std::{path::Path, rc::Rc, time::Duration};

use anyhow::{Context as _, Result};
use weft_netns::{Lan, until};

use crate::{
    bench::{Bench, Peer, Sample, Timed},
    floor::Floor,
    nats::NatsServer,
    program::Homes,
    report::Figure,
    syncthing::Syncthing,
};

/// How long Syncthing may take to index its files for the first time.
const INDEXED: Duration = Duration::from_secs(300);

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let notes = bench.size(100, 10_000);
    let mut homes = Homes::new(bench.program()?)?;
    homes.init(notes)?;
    let note = format!("{notes} notes; until `status` is answered");
    let peers = bench.peers();
    if !peers.are_asked() {
        return Ok(vec![Figure::timed("to `status`", starts(bench, &mut homes, None)?, note)]);
    }
    let nats = match peers.installed("nats-server") {
        Ok(program) => {
            let sample: Sample<'_> = Box::new(|_| {
                let (server, took) = NatsServer::start(&program)?;
                server.stop()?;
                Ok(took)
            });
            let peer = Peer { name: "nats-server", sample };
            Figure::timed("to `status`", starts(bench, &mut homes, Some(peer))?, note)
        }
        Err(missing) => {
            let timed = starts(bench, &mut homes, None)?;
            Figure::timed("to `status`", timed, format!("{note}; {missing}"))
        }
    };
    let syncthing = match peers.installed("syncthing") {
        Ok(program) => beside_syncthing(bench, &mut homes, &program, notes)?,
        Err(missing) => Figure::left_out("beside Syncthing", missing.to_string()),
    };
    Ok(vec![nats, syncthing])
}

fn beside_syncthing(
    bench: &mut Bench,
    homes: &mut Homes,
    program: &Path,
    files: usize,
) -> Result<Figure> {
    let mut lan = match Lan::new() {
        Ok(lan) => lan,
        Err(error) => return Ok(Figure::left_out("beside Syncthing", format!("{error:#}"))),
    };
    let folder = tempfile::tempdir().context("failed to make a folder")?;
    let mut syncthing =
        Syncthing::new(program, Rc::new(lan.plug("sync0", "10.77.0.1/24")?), folder.path())?;
    syncthing.pair(&[])?;
    syncthing.fill(files)?;
    syncthing.up()?;
    until("Syncthing has indexed its files", INDEXED, || syncthing.has(files))?;
    syncthing.stop()?;
    let sample: Sample<'_> = Box::new(|_| {
        let took = syncthing.up()?;
        syncthing.stop()?;
        Ok(took)
    });
    let timed = starts(bench, homes, Some(Peer { name: "Syncthing", sample }))?;
    let note = "Syncthing has indexed as many files before; until a ping is answered";
    Ok(Figure::timed("", timed, note))
}

/// Times starts.
fn starts(bench: &mut Bench, homes: &mut Homes, peer: Option<Peer<'_>>) -> Result<Timed> {
    let samples = bench.size(2, 5);
    bench.compare(
        samples,
        &[Floor::Sync, Floor::Sha],
        Box::new(|_| {
            let took = homes.up("laptop")?;
            homes.stop_last()?;
            Ok(took)
        }),
        peer,
    )
}

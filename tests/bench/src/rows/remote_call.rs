//! Row 5: a step on the other node.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    bench::{Bench, Peer, Timed},
    floor::Floor,
    member::{Two, steps},
    nats::NatsServer,
    peers::{Caller, Missing, Peers},
    report::Figure,
};

/// Peers that need nothing but themselves: what they are called, and their program.
const ALONE: [(&str, &str); 3] =
    [("quinn", "peer-quinn"), ("iroh", "peer-iroh"), ("libp2p", "peer-libp2p")];

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let two = Two::apart()?;
    let peer = Peer { name: "UDP echo", sample: Box::new(|floors| floors.echo()) };
    let note = "core, rules, encrypted store and network, each node a process of its own; the second of \
                two steps in a run, from the end of the first to its own: decided, recorded and \
                journalled here, offered, decided and recorded there, answered by a stand-in for an \
                agent, recorded here; peers echo 256 bytes, client and server a process each";
    let mut figures = vec![Figure::timed("the step", step(bench, &two, Some(peer))?, note)];
    let peers = bench.peers();
    if peers.are_asked() {
        match nats(&peers) {
            Ok((server, program)) => {
                let (server, _) = NatsServer::start(&server)?;
                let timed = beside(bench, &two, "NATS", &program, &[&server.address()])?;
                let note =
                    "through nats-server: plain TCP and a password, nothing encrypted or decided";
                figures.push(Figure::timed("", timed, note));
            }
            Err(missing) => figures.push(Figure::left_out("beside NATS", missing.to_string())),
        }
        for (name, program) in ALONE {
            figures.push(match peers.built(program) {
                Ok(program) => Figure::timed("", beside(bench, &two, name, &program, &[])?, ""),
                Err(missing) => Figure::left_out(format!("beside {name}"), missing.to_string()),
            });
        }
    }
    let samples = bench.size(10, 300);
    let run = bench.compare(
        samples,
        &[Floor::Udp, Floor::Sync],
        Box::new(|_| Ok(two.laptop.carry_out(steps(&[Some("server")], false)?)?.whole)),
        None,
    )?;
    figures.push(Figure::timed("its run", run, "with the run's own journal, on the owner's disk"));
    Ok(figures)
}

fn nats(peers: &Peers) -> Result<(PathBuf, PathBuf), Missing> {
    Ok((peers.installed("nats-server")?, peers.built("peer-nats")?))
}

fn beside(
    bench: &mut Bench,
    two: &Two,
    name: &'static str,
    program: &Path,
    at: &[&str],
) -> Result<Timed> {
    let mut caller = Caller::start(program, at)?;
    step(bench, two, Some(Peer { name, sample: Box::new(move |_| caller.call()) }))
}

/// Times the step.
fn step(bench: &mut Bench, two: &Two, peer: Option<Peer<'_>>) -> Result<Timed> {
    let samples = bench.size(10, 300);
    bench.compare(
        samples,
        &[Floor::Udp],
        Box::new(|_| {
            let went = two.laptop.carry_out(steps(&[Some("server"); 2], true)?)?;
            went.between.first().copied().context("a run without two steps")
        }),
        peer,
    )
}

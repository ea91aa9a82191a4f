//! Row 18: the signed record, written and checked.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use ed25519_dalek::SigningKey;
use weft_core::audit::{self, Chain, Signatures};
use weft_protocol::{
    audit::Body,
    decision::{Decision, Effect},
    id::{BootId, DeviceId, Digest, SegmentId},
    manifest::{Manifest, package_digest},
    row::MemoryRows,
    signed::{Domain, Signed},
    time::WallTime,
};

use super::agent;
use crate::{
    bench::{Bench, Peer, time},
    fabric,
    floor::Floor,
    report::Figure,
};

const WALL: WallTime = WallTime::from_unix_millis(1_773_133_200_000);

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let manifest = Manifest::parse(fabric::MANIFESTS[0])?;
    let question = agent::question(&manifest, package_digest(fabric::MANIFESTS[0], fabric::NOTES))?;
    let allowed =
        Decision { effect: Effect::Allow, reason: "a member may".into(), obligations: Vec::new() };
    let body: Body = agent::intent(&question, allowed, Digest::of(b"the rules"));
    let key = SigningKey::from_bytes(&[4; 32]);
    let mut rows = MemoryRows::default();
    let mut chain = Chain::open(key.clone(), SegmentId::from_bytes([1; 16]), &rows)?;
    rows.apply(chain.start(BootId { counter: 1, random: 1 }, WALL));
    let samples = bench.size(100, 20_000);
    let peer = Peer {
        name: "a signature",
        sample: Box::new(|_| {
            time(|| {
                std::hint::black_box(Signed::new(Domain::Audit, &body, &key));
                Ok(())
            })
        }),
    };
    let append = bench.compare(
        samples,
        &[Floor::Sha],
        Box::new(|_| {
            time(|| {
                rows.apply(chain.append(body.clone(), WALL).1);
                Ok(())
            })
        }),
        Some(peer),
    )?;

    let records = bench.size(2_000, 1_000_000);
    let mut rows = MemoryRows::default();
    let mut chain = Chain::open(key.clone(), SegmentId::from_bytes([1; 16]), &rows)?;
    for _ in 0..records {
        rows.apply(chain.append(body.clone(), WALL).1);
    }
    let device = DeviceId::from_bytes(key.verifying_key().to_bytes());
    let verify = |signatures| -> Result<(f64, String)> {
        let start = Instant::now();
        let checked = audit::verify(device, Vec::new(), &rows, signatures)?;
        let seconds = start.elapsed().as_secs_f64();
        let expected = u64::try_from(records).context("a count")?;
        ensure!(checked.records >= expected, "records are missing");
        let note = format!("{} records in {seconds:.2} s", checked.records);
        Ok((checked.records as f64 / seconds, note))
    };
    let (quick, quick_note) = verify(Signatures::Checkpoints)?;
    let (thorough, thorough_note) = verify(Signatures::Every)?;
    Ok(vec![
        Figure::timed("append", append, "into rows in memory, every hundredth with a checkpoint"),
        Figure::amount("verify", quick, "records/s")
            .noted(format!("{quick_note}, by hashes and the checkpoints' signatures")),
        Figure::amount("verify --every-signature", thorough, "records/s").noted(thorough_note),
    ])
}

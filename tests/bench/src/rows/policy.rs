//! Row 4: what asking the rules costs.

use anyhow::{Result, ensure};
use weft_engine::Rules;
use weft_protocol::{
    decision::Policy as _,
    manifest::{Manifest, package_digest},
};

use super::agent;
use crate::{
    bench::{Bench, time},
    fabric,
    floor::Floor,
    report::Figure,
};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let rules = Rules::embedded()?;
    let manifest = Manifest::parse(fabric::MANIFESTS[0])?;
    let question = agent::question(&manifest, package_digest(fabric::MANIFESTS[0], fabric::NOTES))?;
    let samples = bench.size(50, 2_000);
    let timed = bench.compare(
        samples,
        &[Floor::Sha],
        Box::new(|_| {
            time(|| {
                let decision = rules.decide(&question);
                ensure!(decision.allows(), "denied: {}", decision.reason);
                Ok(())
            })
        }),
        None,
    )?;
    let note = "raw regorus, Cedar and regopy are not run here yet";
    Ok(vec![Figure::timed("a decision", timed, note)])
}

//! Row 14: how fast and how well words are understood.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weft_intent::{Catalog, Parsed};
use weft_protocol::manifest::Manifest;

use self::sentences::context;
use crate::{
    bench::{Bench, Quantiles, Timed},
    fabric,
    report::Figure,
};

#[path = "../../../fixtures/commands/sentences.rs"]
mod sentences;

const CORPUS: &str = concat!(
    include_str!("../../../fixtures/commands/commands.jsonl"),
    include_str!("../../../fixtures/commands/more.jsonl"),
);

/// A sentence, and the capabilities that it means; none: nothing may run.
pub(super) struct Said {
    pub(super) words: String,
    plan: Vec<String>,
}

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let manifests = fabric::manifests()?;
    let (catalog, errors) = Catalog::new(&manifests);
    ensure!(errors.is_empty(), "a phrase is wrong: {errors:?}");
    let corpus = corpus(&manifests)?;
    let rounds = bench.size(1, 20);
    let times = parse_all(&catalog, &corpus, rounds);
    let (hits, misses): (Vec<_>, Vec<_>) =
        times.into_iter().zip(corpus.iter().cycle()).partition(|(_, said)| !said.plan.is_empty());
    let timed = |times: Vec<(Duration, &Said)>| -> Result<Timed> {
        let ours = Quantiles::of(times.into_iter().map(|(time, _)| time).collect())?;
        Ok(Timed { ours, peer: None, ratio: None, rounds, drifted: 0, floors: None })
    };
    let (mut right, mut wrong) = (0_u32, 0_u32);
    for said in &corpus {
        match catalog.parse(&said.words, &context()) {
            Parsed::Plan(plan) => {
                let found: Vec<_> =
                    plan.steps.iter().map(|step| step.capability.as_str()).collect();
                *(if found == said.plan { &mut right } else { &mut wrong }) += 1;
            }
            Parsed::Unknown { .. } => right += u32::from(said.plan.is_empty()),
        }
    }
    let count = u32::try_from(corpus.len()).context("a small corpus")?;
    let percent = f64::from(right) * 100.0 / f64::from(count);
    Ok(vec![
        Figure::timed("understood", timed(hits)?, "hassil on the same corpus is not run here yet"),
        Figure::timed("not understood", timed(misses)?, ""),
        Figure::amount("right", percent, "%").noted(format!(
            "of {count} sentences: the right capabilities in the right order, or none"
        )),
        Figure::amount("wrong plans", f64::from(wrong), ""),
    ])
}

/// Times every sentence, so many times over.
pub(super) fn parse_all(catalog: &Catalog, corpus: &[Said], rounds: usize) -> Vec<Duration> {
    let context = context();
    let mut times = Vec::with_capacity(rounds * corpus.len());
    for _ in 0..rounds {
        for said in corpus {
            let start = Instant::now();
            std::hint::black_box(catalog.parse(&said.words, &context));
            times.push(start.elapsed());
        }
    }
    times
}

/// The sentences. One that means a capability that no agent has means nothing here.
pub(super) fn corpus(manifests: &[Manifest]) -> Result<Vec<Said>> {
    sentences::read(CORPUS, manifests)
        .context("failed to read the corpus")?
        .iter()
        .map(|case| {
            let words = case["say"].as_str().context("a line without words")?.to_owned();
            let steps = case["plan"].as_array().context("a line without a plan")?;
            let plan = steps
                .iter()
                .map(|step| step["capability"].as_str().unwrap_or_default().to_owned())
                .collect();
            Ok(Said { words, plan })
        })
        .collect()
}

//! Row 23: row 14 where there is much to understand.

use anyhow::{Result, ensure};
use weft_intent::Catalog;
use weft_protocol::manifest::Manifest;

use super::intent;
use crate::{
    bench::{Bench, Quantiles, Timed},
    fabric,
    report::Figure,
};

/// Agents beside Weft's own, and phrases of each.
const AGENTS: usize = 200;
const PHRASES: usize = 25;

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let mut manifests = fabric::manifests()?;
    let corpus = intent::corpus(&manifests)?;
    for number in 0..bench.size(AGENTS / 10, AGENTS) {
        manifests.push(agent(number)?);
    }
    let phrases = (manifests.len() - fabric::MANIFESTS.len()) * PHRASES;
    let (catalog, errors) = Catalog::new(&manifests);
    ensure!(errors.is_empty(), "a phrase is wrong: {errors:?}");
    let rounds = bench.size(1, 10);
    let ours = Quantiles::of(intent::parse_all(&catalog, &corpus, rounds))?;
    let timed = Timed { ours, peer: None, ratio: None, rounds, drifted: 0, floors: None };
    let note = format!("{phrases} phrases beside our own; hassil is not run here yet");
    Ok(vec![Figure::timed("a sentence", timed, note)])
}

/// An agent whose phrases share words with each other and with those of the real ones.
fn agent(number: usize) -> Result<Manifest> {
    let verbs = ["open", "show", "start", "send", "check"];
    let things = ["note for", "list of", "timer of", "file in", "door to"];
    let phrases: Vec<String> = verbs
        .iter()
        .flat_map(|verb| {
            things.iter().map(move |thing| format!("{verb} [the] {thing} room{number} {{text}}"))
        })
        .collect();
    debug_assert_eq!(phrases.len(), PHRASES, "each agent has as many");
    let text = format!(
        "name = \"a{number}\"\nversion = \"1\"\nkind = \"wasm\"\ndescription = \"One of many.\"\n\n\
         [[capability]]\nname = \"a{number}.do\"\ndescription = \"One of many.\"\neffect = \"pure\"\n\
         output = \"thing\"\nphrases = {phrases:?}\n[capability.arguments.properties]\n\
         text = {{ type = \"string\" }}\n"
    );
    Ok(Manifest::parse(&text)?)
}

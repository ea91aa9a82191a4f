//! Whatever a stranger, a member, a person or a damaged disk hands to a decoder, it must not panic.
//!
//! A [`Body`] takes any bytes through one decoder, and what decodes through the machine behind it, as a
//! node does. It is a plain function of bytes, so that a fuzzer with coverage (cargo-fuzz, whose target
//! is `fuzz_target!(|bytes: &[u8]| (BODY.run)(bytes))`) can call it as it is. [`BODIES`] lists them
//! all, and [`Body::fuzz`] runs one over its corpus: valid encodings, made here by the types and
//! machines themselves so that they follow the formats; what is hostile to any decoder
//! ([`corpus::HOSTILE`]); and changes to both, drawn from a seed, for a fixed number of times. The same
//! seed gives the same inputs. An input that made a body panic gets a name and a place in
//! [`corpus::REGRESSIONS`].
//!
//! Deliberately not here: frames, which are cut in `node/net` and have a property there; key files,
//! pictures of tickets and recovery words, which a person brings to their own machine; and what is right. Whether a decoder says no to what is wrong is for the tests beside it.

mod bodies;
pub mod corpus;
mod mutation;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use bodies::BODIES;
use mutation::Mutator;

/// One decoder and what lies behind it.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// Its name, as `REGRESSIONS` says it.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Encodings that it takes.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// Changed inputs per run: as many as it takes a debug build about two seconds.
    pub executions: usize,
}

/// An input that made a body panic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Panicked {
    /// The input.
    pub input: Vec<u8>,
    /// What was said.
    pub why: String,
}

impl Body {
    /// Runs it over its corpus, what is hostile to all, what failed once, and changes to these; how many
    /// inputs that were.
    ///
    /// # Errors
    ///
    /// The first input that made it panic.
    pub fn fuzz(&self, seed: u64) -> Result<usize, Panicked> {
        let mut corpus = (self.corpus)();
        corpus.extend(corpus::HOSTILE.iter().map(|(_, bytes)| bytes.to_vec()));
        let failed = corpus::REGRESSIONS.iter().filter(|(body, ..)| *body == self.name);
        corpus.extend(failed.map(|(.., bytes)| bytes.to_vec()));
        for input in &corpus {
            self.once(input)?;
        }
        let mut mutator = Mutator::new(seed);
        for _ in 0..self.executions {
            self.once(&mutator.mutate(&corpus))?;
        }
        Ok(corpus.len() + self.executions)
    }

    fn once(&self, input: &[u8]) -> Result<(), Panicked> {
        catch_unwind(AssertUnwindSafe(|| (self.run)(input))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let why = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Panicked { input: input.to_vec(), why: why.unwrap_or_default() }
        })
    }
}

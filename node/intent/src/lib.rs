//! What a person's words mean: words in, a [`Plan`] out, by the phrases that agents declare.
//!
//! Deliberately not here: running anything, opening a path, knowing the time or the devices (both are
//! handed in), and guessing. A sentence that no phrase covers from its first word to its last, or that
//! two phrases cover equally well, is [`Parsed::Unknown`], and nothing runs.
//!
//! # The loop
//!
//! [`Catalog::new`] compiles the phrases of all manifests into *forms*: a phrase with its alternatives
//! and optionals chosen, so a plain run of words and slots. Each form is filed under its rarest word.
//! [`Catalog::parse`] cuts the sentence into words, takes the courtesies off (`please`, `can you`), and
//! finds the joints (`and`, `then`) behind which some phrase could begin. For a run of words it looks at
//! the forms filed under those very words, drops those with a word that is not there (one bit mask),
//! and matches the rest from the first word to the last. The strongest reading counts; its steps join
//! the plan.
//!
//! # The phrase language
//!
//! ```text
//! phrases = [
//!     "(note|jot down) [that] {text}",
//!     "remind me in {duration} to {label=trim}",
//!     "summarize {text<docs.read.path}",
//! ]
//! ```
//!
//! - A **word** is itself, without regard to case, punctuation around it and the kind of apostrophe.
//! - `(a|b c)` is one of several, `[a|b]` one of them or nothing, and so is `(a|b|)`. In
//!   examples the first alternative stands, and what is in square brackets is left out. One phrase may stand for 256 forms;
//!   each needs a word.
//! - `{argument}` is a **slot**, read as the argument's schema says: free text (`string`), or by its
//!   `format` a `duration` (`an hour and a half` → `PT1H30M`), a `date-time` (`tomorrow at 8` →
//!   `2026-03-11T08:00:00`, local), a `date`, a `uri` (http or https), a `path`, a `device` (by name, or by
//!   kind if there is one of that kind); or a number (`integer`, `number`). Two free texts never touch.
//! - `{@}` is a device that the step is bound to: `ring {@}`. Every command may also begin with `on
//!   DEVICE` or end in `on DEVICE` (or `to`, `at`, `using`); behind a free text that is part of the text.
//! - `{argument<noun.verb.argument}` goes **through** another capability: what is said is that one's
//!   argument, in a step before, and its output is this one's argument. Links chain. If the fabric has
//!   no such capability, the phrase is left out.
//! - Options stand behind `=`, with commas: `all` (the text begins at the command's first word: `explain
//!   {prompt=all}`), `trim` (without a sentence's last punctuation), `plain` (a text that holds no path or
//!   URL), `name` (a thing's name: trimmed, plain, without `the`, no length of time in it), `it` (only a word for an earlier output), `hour` (a mere `7`
//!   is a time).
//!
//! A free text is what was said, as it was said; quotation marks around all of it are taken off, and a
//! quotation is never cut. A text of words such as `it` or `that` alone means the output of the step
//! before, and `the summary` that of the last step whose manifest calls its output so; without such a
//! step it is no text. A form that leaves one required text open takes the step before's output too, and
//! makes sense only there.
//!
//! # Which reading counts
//!
//! More words of the phrase win, then more words that are a typed value rather than free text. Two
//! readings that are equal in both and give different steps are no reading. A sentence falls apart at
//! the first `and` or `then` where both sides are commands. If the whole would also be one command whose
//! text holds the `and`, the right side must be a command beyond doubt (a typed value, three words of
//! its phrase, the same capability again, or `, then` before it), else both readings are shown.
//!
//! An utterance has at most 2,000 characters and eight joints, and costs a bounded number of trials.

mod catalog;
mod clock;
mod command;
mod duration;
mod nearest;
mod number;
mod phrase;
mod sentence;
mod slot;
mod utterance;

use jiff::civil::DateTime;
use weft_protocol::{device::Kind, graph::Plan};

pub use crate::{
    catalog::{Catalog, PhraseError},
    phrase::PhraseFault,
};
use crate::{
    slot::Values,
    utterance::{CHARACTERS_MAX, Utterance},
};

/// What words are read against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Context {
    /// The asking device's local time.
    pub now: DateTime,
    /// The fabric's devices.
    pub devices: Vec<DeviceName>,
    /// The asking device's name.
    pub here: String,
}

/// A device as words may name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceName {
    /// Its name, of one or more words.
    pub name: String,
    /// Its kind, which names it too if no other device is of that kind.
    pub kind: Kind,
}

/// What words mean.
#[derive(Clone, PartialEq, Debug)]
pub enum Parsed {
    /// These steps.
    Plan(Plan),
    /// Nothing that may run.
    Unknown {
        /// Why not.
        why: Unclear,
        /// Up to three commands to show, the most similar first; where there are two meanings, a
        /// command for each.
        nearest: Vec<String>,
    },
}

/// Why words mean nothing that may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unclear {
    /// No phrase covers them from the first word to the last.
    NoMatch,
    /// They could mean two things.
    TwoMeanings,
    /// More commands, or more ways to read them, than are tried.
    TooManyParts,
    /// More than 2,000 characters.
    TooLong,
}

impl Catalog {
    /// Reads a sentence. The same words, context and manifests give the same answer.
    pub fn parse(&self, words: &str, context: &Context) -> Parsed {
        if words.chars().nth(CHARACTERS_MAX).is_some() {
            let start: String = words.chars().take(200).collect();
            let utterance = Utterance::new(&start, |core| self.number(core));
            let nearest = self.nearest(&Values::new(&utterance, context));
            return Parsed::Unknown { why: Unclear::TooLong, nearest };
        }
        let utterance = Utterance::new(words, |core| self.number(core));
        sentence::parse(self, &Values::new(&utterance, context))
    }
}

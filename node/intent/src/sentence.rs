//! A whole sentence: the courtesies around it, the commands within it.

use std::collections::BTreeSet;

use weft_protocol::graph::{Plan, Route, Step};

use crate::{
    Parsed, Unclear,
    catalog::Catalog,
    command::{Commands, Earlier, NoReading, Reading},
    slot::{Kind, Values},
};

/// The most places at which one sentence may fall into commands. Each costs a reading of what is
/// before and behind it.
const JOINTS_MAX: usize = 8;

/// A place between two commands: `and`, `then`, `, and then`.
#[derive(Clone, Copy, Debug)]
struct Joint {
    /// The first word that only joins.
    from: usize,
    /// The first word behind it.
    to: usize,
    /// Whether the second waits for the first.
    then: bool,
    /// Whether it can't be part of a text: `, then`.
    sharp: bool,
}

/// What a run of words means.
enum Outcome {
    Steps(Vec<Step>),
    No(Option<(Unclear, Vec<String>)>),
}

struct Sentence<'a> {
    commands: Commands<'a>,
    joints: Vec<Joint>,
    end: usize,
}

/// Reads a sentence.
pub(crate) fn parse(catalog: &Catalog, values: &Values<'_>) -> Parsed {
    let words = &values.utterance.words;
    let core = |at: usize| words.get(at).map_or("", |word| word.core.as_str());
    let from = after_courtesy(&core);
    let unknown = |why, nearest| Parsed::Unknown { why, nearest };
    if from >= words.len() {
        return unknown(Unclear::NoMatch, catalog.nearest(values));
    }
    // "…, please" is no part of what is asked; a bare "please" may be, so it is kept if it can be.
    let polite = before_courtesy(&core, words.len(), from);
    let detached = polite < words.len() && words[polite - 1].comma;
    let ends = if detached { vec![polite] } else { vec![words.len(), polite] };
    let mut told = None;
    for (at, end) in ends.iter().enumerate() {
        if at > 0 && *end == ends[at - 1] {
            break;
        }
        let mut sentence =
            Sentence { commands: Commands::new(catalog, values), joints: Vec::new(), end: *end };
        if !sentence.find_joints(from) {
            return unknown(Unclear::TooManyParts, catalog.nearest(values));
        }
        let outcome = sentence.read(from, 0, &mut Vec::new(), &mut Vec::new());
        if sentence.commands.is_exhausted() {
            return unknown(Unclear::TooManyParts, catalog.nearest(values));
        }
        match outcome {
            Outcome::Steps(steps) => match Plan::new(Route::Phrases, steps) {
                Ok(plan) => return Parsed::Plan(plan),
                Err(_) => return unknown(Unclear::TooManyParts, catalog.nearest(values)),
            },
            Outcome::No(why) => told = told.or(why),
        }
    }
    match told {
        Some((why, shown)) => unknown(why, shown),
        None => unknown(Unclear::NoMatch, catalog.nearest(values)),
    }
}

/// Where the words behind `please`, `can you`, `hey weft` begin.
fn after_courtesy<'w>(core: &impl Fn(usize) -> &'w str) -> usize {
    let mut at = 0;
    loop {
        at += match (core(at), core(at + 1), core(at + 2)) {
            ("i", "want", "to") | ("i'd", "like", "to") => 3,
            ("can" | "could" | "would" | "will", "you", _)
            | ("hey" | "ok" | "okay" | "hi", "weft", _) => 2,
            ("please" | "kindly" | "weft", ..) => 1,
            _ => return at,
        };
    }
}

/// Where the words before `please`, `thanks`, `thank you` end.
fn before_courtesy<'w>(core: &impl Fn(usize) -> &'w str, end: usize, from: usize) -> usize {
    let mut to = end;
    while to > from + 1 {
        to -= match (core(to.saturating_sub(2)), core(to - 1)) {
            ("thank", "you") if to > from + 2 => 2,
            (_, "please" | "thanks") => 1,
            _ => return to,
        };
    }
    to
}

impl<'a> Sentence<'a> {
    /// Notes where a command might begin behind an `and` or `then`; false if that is too often.
    fn find_joints(&mut self, from: usize) -> bool {
        let words = &self.commands.values.utterance.words;
        let is = |at: usize, any: &[&str]| {
            words.get(at).is_some_and(|word| {
                any.contains(&word.core.as_str()) && !word.within && word.quotes == 0
            })
        };
        let mut at = from + 1;
        while at + 1 < self.end {
            if !is(at, &["and", "then"]) {
                at += 1;
                continue;
            }
            let mut to = at;
            let mut then = false;
            while to < self.end && is(to, &["and", "then", "also", "afterwards", "please"]) {
                then |= is(to, &["then", "afterwards"]);
                to += 1;
            }
            if to < self.end && self.may_begin(to) {
                self.joints.push(Joint { from: at, to, then, sharp: then && words[at - 1].comma });
            }
            at = to;
        }
        self.joints.len() <= JOINTS_MAX
    }

    /// Whether some form begins with the word, or with a time that begins there.
    fn may_begin(&self, at: usize) -> bool {
        let values = self.commands.values;
        let word = &values.utterance.words[at];
        let opens = word.id.is_some_and(|id| self.commands.catalog.words[id as usize].opens);
        let timed = |kind| !values.read(kind, at, self.end).is_empty();
        opens
            || word.core == "on"
            || timed(Kind::Duration)
            || timed(Kind::Moment { bare_hour: false })
    }

    /// Reads the words from `from` on: as two commands at the first joint that allows it, else as one.
    fn read(
        &self,
        from: usize,
        joint: usize,
        earlier: &mut Vec<Earlier>,
        steps: &mut Vec<Step>,
    ) -> Outcome {
        let whole = self.commands.read(from, self.end, earlier);
        for (number, joint) in (joint..).zip(&self.joints[joint..]) {
            let Ok(left) = self.commands.read(from, joint.from, earlier) else { continue };
            let (earlier_len, steps_len) = (earlier.len(), steps.len());
            self.take(&left, earlier, steps);
            let behind = steps.len();
            match self.read(joint.to, number + 1, earlier, steps) {
                Outcome::Steps(mut all) => {
                    let rivalled = !matches!(whole, Err(NoReading::None));
                    if rivalled
                        && !self.is_sure(*joint, &left, &earlier[..earlier_len + left.steps.len()])
                    {
                        return match &whole {
                            Ok(whole) => self.two_meanings(whole, *joint),
                            Err(none) => self.none(none),
                        };
                    }
                    if joint.then
                        && let (Some(before), Some(next)) = (behind.checked_sub(1), all.get(behind))
                        && !next.dependencies().contains(&all[before].index)
                    {
                        let before = all[before].index;
                        all[behind].after = BTreeSet::from([before]);
                    }
                    return Outcome::Steps(all);
                }
                Outcome::No(Some(told)) => return Outcome::No(Some(told)),
                Outcome::No(None) => {}
            }
            earlier.truncate(earlier_len);
            steps.truncate(steps_len);
        }
        match whole {
            Ok(reading) => {
                self.take(&reading, earlier, steps);
                Outcome::Steps(std::mem::take(steps))
            }
            Err(none) => self.none(&none),
        }
    }

    /// Shows equally strong readings by the phrases that they come from.
    fn none(&self, none: &NoReading) -> Outcome {
        let NoReading::Several(phrases) = none else { return Outcome::No(None) };
        let shown = phrases.iter().take(3).map(|number| {
            let spoken = &self.commands.catalog.phrases[*number as usize];
            let name = &self.commands.catalog.capabilities[spoken.capability as usize].name;
            format!("{} ({name})", spoken.example.as_deref().unwrap_or("…"))
        });
        Outcome::No(Some((Unclear::TwoMeanings, shown.collect())))
    }

    fn take(&self, reading: &Reading, earlier: &mut Vec<Earlier>, steps: &mut Vec<Step>) {
        for step in &reading.steps {
            let skill = self
                .commands
                .catalog
                .capabilities
                .iter()
                .find(|skill| skill.name == step.capability);
            let output = skill.and_then(|skill| skill.output.clone());
            earlier.push(Earlier { step: step.index, output });
        }
        steps.extend(reading.steps.iter().cloned());
    }

    /// Whether the words behind the joint are a command of their own beyond doubt, though those before
    /// it would also take them as text: they name a value, a device or what the step before gave, or
    /// have three words of their phrase, or two and no text, or ask for the same thing again.
    fn is_sure(&self, joint: Joint, left: &Reading, earlier: &[Earlier]) -> bool {
        let end = self
            .joints
            .iter()
            .find(|next| next.from > joint.from)
            .map_or(self.end, |next| next.from);
        let first = [end, self.end]
            .into_iter()
            .find_map(|end| self.commands.read(joint.to, end, earlier).ok());
        joint.sharp
            || first.is_some_and(|right| {
                right.strength.typed > 0
                    || right.strength.literal >= if right.has_text { 3 } else { 2 }
                    || right.capability == left.capability
            })
    }

    /// Shows both readings as words that have only that one.
    fn two_meanings(&self, whole: &Reading, joint: Joint) -> Outcome {
        let utterance = self.commands.values.utterance;
        let words = &utterance.words;
        let (said, start) = (utterance.said, words[joint.from].start);
        let before = said[..start].trim_end().trim_end_matches(',');
        let two = format!("{before}, then {}", &said[words[joint.to].start..]);
        let one = whole.free_end.map(|(from, to)| {
            format!(
                "{}\"{}\"",
                &said[..words[from].start],
                utterance.raw(from, to).replace('"', "")
            )
        });
        Outcome::No(Some((Unclear::TwoMeanings, one.into_iter().chain([two]).collect())))
    }
}

//! One command: the forms that the words match, and the strongest reading among them.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use weft_protocol::{
    graph::{Argument, Step, StepIndex},
    value::Value,
};

use crate::{
    catalog::{Catalog, Element, Form, Slot, Spoken, bit},
    clock,
    slot::{Kind, Values},
    utterance::is_sentence_end,
};

/// How many elements are tried for one utterance before it counts as not understood. Of the test
/// sentences none needs over 100; a reminder of 2,000 characters needs some thousands.
const WORK_MAX: u32 = 40_000;

/// Words for what the step before gave.
const REFERENCES: &[&[&str]] = &[
    &["it"],
    &["this"],
    &["that"],
    &["them"],
    &["these"],
    &["those"],
    &["the", "result"],
    &["the", "results"],
    &["the", "output"],
    &["the", "outcome"],
    &["that", "result"],
    &["all", "of", "it"],
    &["all", "that"],
];

/// Behind these, or with one of them near its end, a text next to a time has been cut wrongly:
/// `remind me to water the plants every day | at 8`.
const DANGLING: &[&str] = &[
    "about", "after", "around", "before", "between", "by", "except", "for", "from", "last", "next",
    "not", "or", "past", "since", "than", "this", "till", "to", "until", "within",
];
const RECURRING: &[&str] = &[
    "ago",
    "daily",
    "each",
    "every",
    "everyday",
    "hourly",
    "monthly",
    "today",
    "tomorrow",
    "tonight",
    "weekly",
    "weekdays",
    "weekends",
    "yesterday",
    "yearly",
];

/// What an earlier step gives.
#[derive(Clone, Debug)]
pub(crate) struct Earlier {
    pub(crate) step: StepIndex,
    pub(crate) output: Option<String>,
}

/// How sure a reading is: more words of the phrase first, then more words that are a typed value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Strength {
    pub(crate) literal: u32,
    pub(crate) typed: u32,
}

/// What a command means.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) strength: Strength,
    pub(crate) steps: Vec<Step>,
    pub(crate) capability: u32,
    pub(crate) phrase: u32,
    /// The free text that it ends in, in words.
    pub(crate) free_end: Option<(usize, usize)>,
    /// Whether it has any free text.
    pub(crate) has_text: bool,
}

/// Why words have no single reading.
#[derive(Clone, Debug)]
pub(crate) enum NoReading {
    None,
    /// Equally strong readings that differ, as phrases.
    Several(Vec<u32>),
}

/// The words that an utterance's commands are read from.
#[derive(Debug)]
pub(crate) struct Commands<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) values: &'a Values<'a>,
    work: Cell<u32>,
}

/// A device that words around a command name, and how many they are.
#[derive(Clone, Copy, Debug)]
struct Outside<'a> {
    device: &'a str,
    words: u32,
    behind: bool,
}

/// What fills a slot.
#[derive(Clone, Debug)]
struct Bound {
    slot: u16,
    argument: Argument,
    from: usize,
    to: usize,
    text: bool,
}

impl<'a> Commands<'a> {
    pub(crate) const fn new(catalog: &'a Catalog, values: &'a Values<'a>) -> Self {
        Self { catalog, values, work: Cell::new(WORK_MAX) }
    }

    /// Whether the utterance cost more than is spent on one.
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.work.get() == 0
    }

    /// The one strongest reading of the words `from..to`, behind `earlier` steps.
    pub(crate) fn read(
        &self,
        from: usize,
        to: usize,
        earlier: &[Earlier],
    ) -> Result<Reading, NoReading> {
        let mut best = Best::default();
        self.collect(from, to, earlier, None, &mut best);
        if let Some((device, at)) = self.device_behind(from, to) {
            let outside = Outside { device, words: count(to - at), behind: true };
            self.collect(from, at, earlier, Some(outside), &mut best);
        }
        if let Some((device, after)) = self.device_before(from, to) {
            let outside = Outside { device, words: count(after - from), behind: false };
            self.collect(after, to, earlier, Some(outside), &mut best);
        }
        let mut readings = best.readings.into_iter();
        match (readings.next(), readings.len()) {
            (None, _) => Err(NoReading::None),
            (Some(_), _) if self.is_exhausted() => Err(NoReading::None),
            (Some(reading), 0) => Ok(reading),
            (Some(first), _) => Err(NoReading::Several(
                std::iter::once(first).chain(readings).map(|r| r.phrase).collect(),
            )),
        }
    }

    /// `… on the server`: the device, and where the command before it ends.
    fn device_behind(&self, from: usize, to: usize) -> Option<(&'a str, usize)> {
        let words = &self.values.utterance.words;
        (from + 1..to).rev().take(6).find_map(|at| {
            let on = matches!(words[at].core.as_str(), "on" | "to" | "at" | "using");
            let device = match words[at].core.as_str() {
                "here" => at,
                _ if on => at + 1,
                _ => return None,
            };
            let (end, name) = (device < to).then(|| self.values.device(device))??;
            (end == to && !words[at].within).then_some((name, at))
        })
    }

    /// `on the server …`: the device, and where the command behind it begins.
    fn device_before(&self, from: usize, to: usize) -> Option<(&'a str, usize)> {
        let words = &self.values.utterance.words;
        if words[from].core != "on" || from + 1 >= to {
            return None;
        }
        let (end, name) = self.values.device(from + 1)?;
        (end < to).then_some((name, end))
    }

    /// Adds every reading of the words that is as strong as the best so far.
    fn collect(
        &self,
        from: usize,
        to: usize,
        earlier: &[Earlier],
        outside: Option<Outside<'_>>,
        best: &mut Best,
    ) {
        let words = &self.values.utterance.words[from..to];
        let mask = words.iter().filter_map(|word| word.id).fold(0, |mask, word| mask | bit(word));
        let words_outside = outside.map_or(0, |outside| outside.words);
        for word in words {
            let Some(id) = word.id.filter(|_| word.before.is_none_or(|before| before < from))
            else {
                continue;
            };
            for number in &self.catalog.by_rarest[id as usize] {
                let form = &self.catalog.forms[*number as usize];
                if form.mask & !mask != 0
                    || form.elements.len() > words.len()
                    || form.words + words_outside < best.strength.literal
                    || !self.ends_fit(form, from, to)
                {
                    continue;
                }
                let spoken = &self.catalog.phrases[form.phrase as usize];
                if let Some(filled) = Matcher::new(self, form, spoken, from, to, earlier).run() {
                    let reading = self.reading(form, spoken, &filled, earlier, outside, to);
                    if let Some(reading) = reading {
                        best.offer(reading);
                    }
                }
            }
        }
    }

    /// Whether the words that the form begins and ends with stand there.
    fn ends_fit(&self, form: &Form, from: usize, to: usize) -> bool {
        let fits = |element: Option<&Element>, at: usize| match element {
            Some(Element::Word(word)) => self.values.utterance.words[at].id == Some(*word),
            Some(Element::Slot(_)) | None => true,
        };
        fits(form.elements.first(), from) && fits(form.elements.last(), to - 1)
    }

    /// The steps of a match. None if it lacks what it needs from a step before, or if a device named
    /// behind it would cut a free text short.
    fn reading(
        &self,
        form: &Form,
        spoken: &Spoken,
        filled: &[Bound],
        earlier: &[Earlier],
        outside: Option<Outside<'_>>,
        to: usize,
    ) -> Option<Reading> {
        let free_end = filled
            .last()
            .filter(|last| last.text && last.to == to)
            .map(|last| (last.from, last.to));
        if outside.is_some_and(|outside| outside.behind) && free_end.is_some() {
            return None;
        }
        let skill = |number: u32| &self.catalog.capabilities[number as usize];
        let step = |number: u32, index: StepIndex| Step {
            index,
            capability: skill(number).name.clone(),
            arguments: BTreeMap::new(),
            device: None,
            after: BTreeSet::new(),
            effect: skill(number).effect,
            may_call: skill(number).calls.clone(),
        };
        let mut next = earlier.last().map_or(1, |earlier| earlier.step.0 + 1);
        let mut steps = Vec::new();
        let mut arguments = BTreeMap::new();
        let mut device = outside.map(|outside| outside.device.to_owned());
        for Bound { slot, argument, .. } in filled {
            let slot = &spoken.slots[usize::from(*slot)];
            let mut argument = argument.clone();
            for (number, name) in slot.through.iter().rev() {
                let index = StepIndex(next);
                let mut feeder = step(*number, index);
                feeder.arguments.insert(name.clone(), argument);
                steps.push(feeder);
                argument = Argument::Output(index);
                next += 1;
            }
            match (&slot.argument, argument) {
                (Some(name), argument) => {
                    arguments.insert(name.clone(), argument);
                }
                (None, Argument::Literal(Value::Text(name))) if device.is_none() => {
                    device = Some(name)
                }
                (None, _) => return None,
            }
        }
        if let Some(implied) = &form.implied {
            let before = earlier.last().filter(|before| before.output.is_some())?;
            arguments.insert(implied.to_string(), Argument::Output(before.step));
        }
        steps.push(Step { arguments, device, ..step(spoken.capability, StepIndex(next)) });
        Some(Reading {
            strength: Strength {
                literal: form.words + outside.map_or(0, |outside| outside.words),
                typed: filled
                    .iter()
                    .filter(|bound| !bound.text)
                    .map(|bound| count(bound.to - bound.from))
                    .sum(),
            },
            steps,
            capability: spoken.capability,
            phrase: form.phrase,
            free_end,
            has_text: filled.iter().any(|bound| bound.text),
        })
    }

    fn spend(&self) -> bool {
        let left = self.work.get();
        self.work.set(left.saturating_sub(1));
        left > 0
    }
}

/// A number of words, which are never many.
fn count(words: usize) -> u32 {
    u32::try_from(words).unwrap_or(u32::MAX)
}

/// The strongest readings so far, all equally strong and no two alike.
#[derive(Default)]
struct Best {
    strength: Strength,
    readings: Vec<Reading>,
}

impl Best {
    fn offer(&mut self, reading: Reading) {
        if reading.strength > self.strength || self.readings.is_empty() {
            self.strength = reading.strength;
            self.readings = vec![reading];
        } else if reading.strength == self.strength
            && self.readings.iter().all(|other| other.steps != reading.steps)
        {
            self.readings.push(reading);
        }
    }
}

/// What words mean of what was done before.
enum Reference {
    To(StepIndex),
    /// They mean an output, but no step before gives it.
    ToNothing,
    None,
}

/// One form against one run of words.
struct Matcher<'m, 'a> {
    commands: &'m Commands<'a>,
    form: &'m Form,
    slots: &'m [Slot],
    from: usize,
    to: usize,
    earlier: &'m [Earlier],
    filled: Vec<Bound>,
    /// Places (element, word) from which the rest is known not to match; kept for forms with several
    /// free texts, where the same place is reached in many ways.
    failed: Option<Vec<bool>>,
}

impl<'m, 'a> Matcher<'m, 'a> {
    fn new(
        commands: &'m Commands<'a>,
        form: &'m Form,
        spoken: &'m Spoken,
        from: usize,
        to: usize,
        earlier: &'m [Earlier],
    ) -> Self {
        let slots = &spoken.slots;
        let texts = form.elements.iter().filter(|element| match element {
            Element::Slot(slot) => slots[usize::from(*slot)].kind == Kind::Text,
            Element::Word(_) => false,
        });
        let failed =
            (texts.count() > 1).then(|| vec![false; form.elements.len() * (to - from + 1)]);
        Self { commands, form, slots, from, to, earlier, filled: Vec::new(), failed }
    }

    fn run(mut self) -> Option<Vec<Bound>> {
        self.step(0, self.from).then_some(self.filled)
    }

    /// Whether the elements from the `element`th on match the words from `at` on, all of them.
    fn step(&mut self, element: usize, at: usize) -> bool {
        let Some(wanted) = self.form.elements.get(element) else { return at == self.to };
        if at >= self.to || !self.commands.spend() {
            return false;
        }
        let place = element * (self.to - self.from + 1) + (at - self.from);
        if self.failed.as_ref().is_some_and(|failed| failed[place]) {
            return false;
        }
        let matched = match *wanted {
            Element::Word(word) => {
                let heard = &self.commands.values.utterance.words[at];
                heard.id == Some(word)
                    && !heard.within
                    && heard.quotes == 0
                    && self.step(element + 1, at + 1)
            }
            Element::Slot(slot) => self.fill(element, slot, at),
        };
        if !matched && let Some(failed) = &mut self.failed {
            failed[place] = true;
        }
        matched
    }

    fn fill(&mut self, element: usize, slot: u16, at: usize) -> bool {
        let values = self.commands.values;
        if !values.utterance.is_boundary(at) {
            return false;
        }
        let kind = self.slots[usize::from(slot)].kind;
        match kind {
            Kind::Text | Kind::It => {
                let last = if kind == Kind::It { self.to.min(at + 4) } else { self.to };
                let next = self.form.elements.get(element + 1);
                match next {
                    // The last text takes the rest.
                    None => self.text(element, slot, at, self.to),
                    // Before a typed value a text is as short, before a word as long as can be.
                    Some(Element::Slot(_)) => {
                        (at + 1..=last).any(|end| self.text(element, slot, at, end))
                    }
                    Some(Element::Word(_)) => {
                        (at + 1..=last).rev().any(|end| self.text(element, slot, at, end))
                    }
                }
            }
            Kind::Duration
            | Kind::Moment { .. }
            | Kind::Date
            | Kind::Url
            | Kind::Path
            | Kind::Device
            | Kind::Integer
            | Kind::Number => values.read(kind, at, self.to).into_iter().any(|(end, argument)| {
                values.utterance.is_boundary(end)
                    && self.bind(element, Bound { slot, argument, from: at, to: end, text: false })
            }),
        }
    }

    /// Binds the slot and matches what follows; takes it back if that fails.
    fn bind(&mut self, element: usize, bound: Bound) -> bool {
        let end = bound.to;
        self.filled.push(bound);
        if self.step(element + 1, end) {
            return true;
        }
        self.filled.pop();
        false
    }

    /// Fills a text slot with the words `at..end`, if the rest matches and they are a text.
    fn text(&mut self, element: usize, slot: u16, at: usize, end: usize) -> bool {
        let values = self.commands.values;
        let utterance = values.utterance;
        // What follows is looked at first: it is cheap, and mostly fails.
        if let Some(Element::Word(word)) = self.form.elements.get(element + 1)
            && utterance.words.get(end).filter(|_| end < self.to).and_then(|word| word.id)
                != Some(*word)
        {
            return false;
        }
        if !utterance.is_boundary(end) || !self.commands.spend() {
            return false;
        }
        let spec = &self.slots[usize::from(slot)];
        match self.reference(at, end) {
            Reference::To(step) if spec.through.is_empty() && !spec.all => {
                let argument = Argument::Output(step);
                return self
                    .bind(element, Bound { slot, argument, from: at, to: end, text: false });
            }
            Reference::To(_) | Reference::ToNothing => return false,
            Reference::None => {}
        }
        let timed = |element: Option<&Element>| match element {
            Some(Element::Slot(slot)) => {
                matches!(
                    self.slots[usize::from(*slot)].kind,
                    Kind::Moment { .. } | Kind::Duration | Kind::Date
                )
            }
            Some(Element::Word(_)) | None => false,
        };
        let before_time = timed(self.form.elements.get(element + 1))
            || timed(self.form.elements.get(element + 2));
        if spec.kind == Kind::It
            || (self.is_before_device(element) && utterance.is_function_word(end - 1))
            || utterance.is_empty_talk(at, end)
            || (before_time && self.is_cut_wrongly(at, end))
            || (spec.plain && values.names_content(at, end))
            || (spec.name && values.names_duration(at, end))
        {
            return false;
        }
        let article = spec.name && utterance.words[at].core == "the";
        let from = if spec.all { self.from } else { at + usize::from(article) };
        let mut said = utterance.text(from, end);
        if spec.trim && utterance.words[from].quotes != end - from {
            said = said.trim_end_matches(|c: char| is_sentence_end(c) || c == ',').trim_end();
        }
        if said.is_empty() {
            return false;
        }
        let argument = Argument::Literal(Value::Text(said.to_owned()));
        self.bind(element, Bound { slot, argument, from: at, to: end, text: true })
    }

    /// The step whose output the words mean: `it` and the like the step before, `the summary` the
    /// last that gives one.
    fn reference(&self, at: usize, end: usize) -> Reference {
        let words = &self.commands.values.utterance.words[at..end];
        if self.earlier.is_empty() || words.len() > 3 || words[0].quotes > 0 {
            return Reference::None;
        }
        let are = |reference: &[&str]| {
            words.len() == reference.len()
                && words.iter().zip(reference).all(|(word, core)| word.core == *core)
        };
        if REFERENCES.iter().any(|reference| are(reference)) {
            let before = self.earlier.last().filter(|before| before.output.is_some());
            return before.map_or(Reference::ToNothing, |before| Reference::To(before.step));
        }
        let [article, noun] = words else { return Reference::None };
        let gives = |output: &Option<String>| output.as_deref() == Some(&noun.core);
        if !matches!(article.core.as_str(), "the" | "that" | "this" | "its")
            || !self.commands.catalog.capabilities.iter().any(|skill| gives(&skill.output))
        {
            return Reference::None;
        }
        let giver = self.earlier.iter().rev().find(|before| gives(&before.output));
        giver.map_or(Reference::ToNothing, |giver| Reference::To(giver.step))
    }

    /// Whether `… on {@}` follows: `what is | on my phone` names no device to work on.
    fn is_before_device(&self, element: usize) -> bool {
        let slot = self.form.elements.get(element + 2);
        matches!(slot, Some(Element::Slot(slot)) if self.slots[usize::from(*slot)].kind == Kind::Device)
    }

    fn is_cut_wrongly(&self, at: usize, end: usize) -> bool {
        let words = &self.commands.values.utterance.words[at..end];
        let near = &words[words.len().saturating_sub(3)..];
        let last = words.last().map_or("", |word| word.core.as_str());
        DANGLING.contains(&last)
            || clock::weekday(last).is_some()
            || near.iter().any(|word| RECURRING.contains(&word.core.as_str()))
    }
}

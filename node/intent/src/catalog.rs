//! The phrases of all agents, compiled so that a sentence meets few of them.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use weft_protocol::manifest::{Capability, CapabilityName, EffectClass, Manifest};

use crate::{
    nearest::letters,
    phrase::{Phrase, PhraseFault, Piece, SlotText},
    slot::Kind,
};

/// The most forms that one manifest's phrases may stand for together: bounds a hostile manifest.
const FORMS_PER_AGENT_MAX: usize = 8_192;

/// A phrase that is left out, and why. The others stay.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("read the phrase {phrase:?} of {capability} by {agent}: {fault}")]
pub struct PhraseError {
    /// The agent whose manifest has it.
    pub agent: String,
    /// The capability that it is for.
    pub capability: CapabilityName,
    /// The phrase.
    pub phrase: String,
    /// What is wrong.
    #[source]
    pub fault: PhraseFault,
}

/// The phrases that are understood, of all agents together.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub(crate) capabilities: Vec<Skill>,
    pub(crate) phrases: Vec<Spoken>,
    pub(crate) forms: Vec<Form>,
    /// The words of all phrases, by their number.
    pub(crate) words: Vec<Vocable>,
    numbers: BTreeMap<Box<str>, u32>,
    /// The forms that contain each word and no rarer one.
    pub(crate) by_rarest: Vec<Vec<u32>>,
}

/// What the catalog keeps of a capability.
#[derive(Clone, Debug)]
pub(crate) struct Skill {
    pub(crate) name: CapabilityName,
    pub(crate) effect: EffectClass,
    pub(crate) calls: Vec<CapabilityName>,
    pub(crate) output: Option<String>,
}

/// A word that some phrase has.
#[derive(Clone, Debug)]
pub(crate) struct Vocable {
    pub(crate) word: Box<str>,
    /// Which letters it has.
    pub(crate) letters: u32,
    /// Whether a form begins with it.
    pub(crate) opens: bool,
    /// The phrases that have it, in order.
    pub(crate) phrases: Vec<u32>,
}

/// A phrase.
#[derive(Clone, Debug)]
pub(crate) struct Spoken {
    pub(crate) capability: u32,
    pub(crate) slots: Vec<Slot>,
    /// A command as one might say it; none if it makes sense only behind another.
    pub(crate) example: Option<String>,
    /// The words of the example, which are in the vocabulary.
    pub(crate) example_words: Vec<u32>,
    /// What they weigh together.
    pub(crate) example_weight: u32,
}

/// A slot of a phrase.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The argument, or none for the step's device.
    pub(crate) argument: Option<String>,
    pub(crate) kind: Kind,
    /// A text that takes the sentence from its first word.
    pub(crate) all: bool,
    /// A text without the punctuation at a sentence's end.
    pub(crate) trim: bool,
    /// A text that holds no path or URL.
    pub(crate) plain: bool,
    /// A thing's name: trimmed, plain, without its article, and no length of time is in it.
    pub(crate) name: bool,
    /// The capabilities that feed it, the nearest first, each with the argument that is said.
    pub(crate) through: Vec<(u32, String)>,
}

/// One form of a phrase: what is left when alternatives and optionals are chosen.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) phrase: u32,
    pub(crate) elements: Box<[Element]>,
    /// A bit for each word, by its number modulo 64.
    pub(crate) mask: u64,
    pub(crate) words: u32,
    /// The required argument that the form leaves to the step before.
    pub(crate) implied: Option<Box<str>>,
}

/// An element of a form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Element {
    Word(u32),
    Slot(u16),
}

/// The bit of a word in a mask.
pub(crate) const fn bit(word: u32) -> u64 {
    1 << (word % 64)
}

impl Catalog {
    /// Compiles the phrases of the manifests. A phrase that goes through a capability which no
    /// manifest has is left out; so is one that is wrong, which is told.
    pub fn new(manifests: &[Manifest]) -> (Self, Vec<PhraseError>) {
        let mut catalog = Self::default();
        let mut declared: BTreeMap<&CapabilityName, (u32, &Capability)> = BTreeMap::new();
        let all = || manifests.iter().flat_map(|m| m.capabilities.iter().map(move |c| (m, c)));
        for (number, (_, capability)) in (0..).zip(all()) {
            declared.entry(&capability.name).or_insert((number, capability));
            catalog.capabilities.push(Skill {
                name: capability.name.clone(),
                effect: capability.effect,
                calls: capability.calls.clone(),
                output: capability.output.clone(),
            });
        }
        let mut errors = Vec::new();
        let mut forms_of: BTreeMap<&str, usize> = BTreeMap::new();
        for (number, (manifest, capability)) in (0..).zip(all()) {
            for text in &capability.phrases {
                let forms = forms_of.entry(&manifest.name).or_default();
                if let Err(fault) = catalog.add(number, capability, text, &declared, forms) {
                    errors.push(PhraseError {
                        agent: manifest.name.clone(),
                        capability: capability.name.clone(),
                        phrase: text.clone(),
                        fault,
                    });
                }
            }
        }
        catalog.index();
        (catalog, errors)
    }

    /// A command for that capability as one might say it: its first phrase that needs no other command
    /// before it, with the first alternatives and some value in each slot.
    #[must_use]
    pub fn example(&self, capability: &CapabilityName) -> Option<&str> {
        let is_it = |spoken: &&Spoken| {
            self.capabilities[spoken.capability as usize].name == *capability
                && spoken.example.is_some()
        };
        self.phrases.iter().find(is_it)?.example.as_deref()
    }

    /// The number of a word, if some phrase has it.
    pub(crate) fn number(&self, word: &str) -> Option<u32> {
        self.numbers.get(word).copied()
    }

    fn add(
        &mut self,
        number: u32,
        capability: &Capability,
        text: &str,
        declared: &BTreeMap<&CapabilityName, (u32, &Capability)>,
        forms_of_agent: &mut usize,
    ) -> Result<(), PhraseFault> {
        let phrase = Phrase::parse(text)?;
        *forms_of_agent += phrase.forms.len();
        if *forms_of_agent > FORMS_PER_AGENT_MAX {
            return Err(PhraseFault::TooManyTogether(FORMS_PER_AGENT_MAX));
        }
        let mut slots = Vec::with_capacity(phrase.slots.len());
        for slot in &phrase.slots {
            let Some(slot) = compile(slot, capability, declared)? else { return Ok(()) };
            slots.push(slot);
        }
        let implied = phrase
            .forms
            .iter()
            .map(|form| check(form, &slots, capability))
            .collect::<Result<Vec<_>, _>>()?;
        let spoken = u32::try_from(self.phrases.len()).unwrap_or(u32::MAX);
        for (form, implied) in phrase.forms.iter().zip(&implied) {
            let elements: Box<[Element]> = form
                .iter()
                .map(|piece| match piece {
                    Piece::Word(word) => Element::Word(self.intern(word, spoken)),
                    Piece::Slot(slot) => Element::Slot(u16::try_from(*slot).unwrap_or(u16::MAX)),
                })
                .collect();
            let words = || elements.iter().filter_map(|element| word_of(*element));
            let form = Form {
                phrase: spoken,
                mask: words().fold(0, |mask, word| mask | bit(word)),
                words: u32::try_from(words().count()).unwrap_or(u32::MAX),
                implied: implied.as_deref().map(Into::into),
                elements,
            };
            self.forms.push(form);
        }
        let first = &phrase.forms[0];
        let alone = implied[0].is_none()
            && !first
                .iter()
                .any(|piece| matches!(piece, Piece::Slot(at) if slots[*at].kind == Kind::It));
        let example = first.iter().map(|piece| match piece {
            Piece::Word(word) if word == "i" => "I",
            Piece::Word(word) => word.as_str(),
            Piece::Slot(slot) => slots[*slot].kind.example(),
        });
        self.phrases.push(Spoken {
            capability: number,
            example: alone.then(|| example.collect::<Vec<_>>().join(" ")),
            example_words: first
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Word(word) => self.numbers.get(word.as_str()).copied(),
                    Piece::Slot(_) => None,
                })
                .collect(),
            example_weight: 0,
            slots,
        });
        Ok(())
    }

    fn intern(&mut self, word: &str, phrase: u32) -> u32 {
        let next = u32::try_from(self.words.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(word.into()).or_insert(next);
        if number == next {
            self.words.push(Vocable {
                word: word.into(),
                letters: letters(word),
                opens: false,
                phrases: Vec::new(),
            });
        }
        let vocable = &mut self.words[number as usize];
        if vocable.phrases.last() != Some(&phrase) {
            vocable.phrases.push(phrase);
        }
        number
    }

    fn index(&mut self) {
        let mut count = vec![0_u32; self.words.len()];
        for form in &self.forms {
            let words: BTreeSet<u32> = form.elements.iter().filter_map(|e| word_of(*e)).collect();
            for word in words {
                count[word as usize] += 1;
            }
        }
        self.by_rarest = vec![Vec::new(); self.words.len()];
        for (number, form) in (0..).zip(&self.forms) {
            let words = || form.elements.iter().filter_map(|element| word_of(*element));
            if let Some(rarest) = words().min_by_key(|word| (count[*word as usize], *word)) {
                self.by_rarest[rarest as usize].push(number);
            }
            if let Some(Element::Word(first)) = form.elements.first() {
                self.words[*first as usize].opens = true;
            }
        }
        for number in 0..self.phrases.len() {
            let weight =
                self.phrases[number].example_words.iter().map(|word| self.weight(*word)).sum();
            self.phrases[number].example_weight = weight;
        }
    }
}

pub(crate) const fn word_of(element: Element) -> Option<u32> {
    match element {
        Element::Word(word) => Some(word),
        Element::Slot(_) => None,
    }
}

/// The slot as the arguments' types make it; `None` if a capability that it goes through is missing.
fn compile(
    slot: &SlotText,
    capability: &Capability,
    declared: &BTreeMap<&CapabilityName, (u32, &Capability)>,
) -> Result<Option<Slot>, PhraseFault> {
    let unknown = || PhraseFault::UnknownArgument(slot.argument.clone());
    let mut compiled = Slot {
        argument: Some(slot.argument.clone()),
        kind: Kind::Device,
        all: false,
        trim: false,
        plain: false,
        name: false,
        through: Vec::new(),
    };
    if slot.argument == "@" {
        compiled.argument = None;
        if !slot.through.is_empty() {
            return Err(unknown());
        }
    } else {
        let mut property =
            capability.arguments.properties.get(&slot.argument).ok_or_else(unknown)?;
        for (name, argument) in &slot.through {
            let Some((number, feeder)) = declared.get(name) else { return Ok(None) };
            property = feeder
                .arguments
                .properties
                .get(argument)
                .ok_or_else(|| PhraseFault::UnknownArgument(format!("{name}.{argument}")))?;
            if feeder.output.is_none()
                || feeder.arguments.required.iter().any(|other| other != argument)
            {
                return Err(PhraseFault::Feed(name.to_string()));
            }
            compiled.through.push((*number, argument.clone()));
        }
        compiled.kind =
            Kind::of(property).ok_or_else(|| PhraseFault::Unsayable(slot.argument.clone()))?;
    }
    for option in &slot.options {
        match (option.as_str(), compiled.kind) {
            ("it", Kind::Text) => compiled.kind = Kind::It,
            ("all", Kind::Text) => compiled.all = true,
            ("trim", Kind::Text) => compiled.trim = true,
            ("plain", Kind::Text) => compiled.plain = true,
            ("name", Kind::Text) => {
                (compiled.trim, compiled.plain, compiled.name) = (true, true, true);
            }
            ("hour", Kind::Moment { .. }) => compiled.kind = Kind::Moment { bare_hour: true },
            (option, _) => return Err(PhraseFault::Option(option.to_owned())),
        }
    }
    Ok(Some(compiled))
}

/// Checks one form; gives the required argument that it leaves to the step before.
fn check(
    form: &[Piece],
    slots: &[Slot],
    capability: &Capability,
) -> Result<Option<String>, PhraseFault> {
    if !form.iter().any(|piece| matches!(piece, Piece::Word(_))) {
        return Err(PhraseFault::NoWord);
    }
    let free = |piece: &Piece| matches!(piece, Piece::Slot(at) if slots[*at].kind == Kind::Text);
    if form.windows(2).any(|pair| pair.iter().all(free)) {
        return Err(PhraseFault::TextsTouch);
    }
    let mut filled = BTreeSet::new();
    for piece in form {
        if let Piece::Slot(at) = piece {
            let argument = slots[*at].argument.as_deref();
            if !filled.insert(argument) {
                return Err(PhraseFault::Twice(argument.unwrap_or("@").to_owned()));
            }
        }
    }
    let schema = &capability.arguments;
    let mut open =
        schema.required.iter().filter(|required| !filled.contains(&Some(required.as_str())));
    match (open.next(), open.next()) {
        (None, _) => Ok(None),
        (Some(argument), None)
            if schema.properties.get(argument).and_then(Kind::of) == Some(Kind::Text) =>
        {
            Ok(Some(argument.clone()))
        }
        (Some(argument), _) => Err(PhraseFault::Open(argument.clone())),
    }
}

//! The phrase language: one phrase of a manifest, and the forms that it stands for.

use thiserror::Error;
use weft_protocol::manifest::CapabilityName;

use crate::utterance;

/// The longest phrase, in characters.
const LENGTH_MAX: usize = 400;
/// The most forms that one phrase may stand for.
const FORMS_MAX: usize = 256;
/// How deep groups nest.
const DEPTH_MAX: usize = 6;

/// What is wrong with a phrase.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PhraseFault {
    /// Longer than 400 characters.
    #[error("it is longer than {LENGTH_MAX} characters")]
    TooLong,
    /// Its alternatives multiply.
    #[error("it stands for more than {FORMS_MAX} forms")]
    TooManyForms,
    /// The forms of one manifest's phrases together are too many.
    #[error("the agent's phrases stand for more than {0} forms together")]
    TooManyTogether(usize),
    /// Groups in groups in groups.
    #[error("its groups nest more than {DEPTH_MAX} deep")]
    TooDeep,
    /// A bracket without its partner, or a bar outside brackets.
    #[error("{0:?} has no partner")]
    Unpaired(char),
    /// An alternative, an optional or a slot with nothing in it.
    #[error("there is nothing between its brackets")]
    Empty,
    /// What stands behind `=` is no option for a slot of that kind.
    #[error("{0:?} is no option for that slot")]
    Option(String),
    /// What stands behind `<` is not `noun.verb.argument`.
    #[error("{0:?} is not noun.verb.argument")]
    Through(String),
    /// A form of slots only would match anything.
    #[error("one of its forms has no word")]
    NoWord,
    /// Two free texts with no word between them.
    #[error("one of its forms has two free texts side by side")]
    TextsTouch,
    /// The capability has no such argument.
    #[error("there is no argument {0:?}")]
    UnknownArgument(String),
    /// An argument whose type cannot be said.
    #[error("{0:?} is not of a type that can be said")]
    Unsayable(String),
    /// One argument in two slots of a form.
    #[error("one of its forms fills {0:?} twice")]
    Twice(String),
    /// A required argument that the phrase leaves open and an earlier step can't give.
    #[error("one of its forms leaves {0:?} open")]
    Open(String),
    /// The capability that a slot goes through can't stand there.
    #[error("{0} can't feed it: it must give an output and need nothing else")]
    Feed(String),
}

/// A piece of a form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    Word(String),
    /// A number within [`Phrase::slots`].
    Slot(usize),
}

/// A slot as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SlotText {
    /// The argument, or `@` for the step's device.
    pub(crate) argument: String,
    pub(crate) options: Vec<String>,
    /// The capabilities that feed it, the nearest first, each with the argument that is said.
    pub(crate) through: Vec<(CapabilityName, String)>,
}

/// A phrase and all its forms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Phrase {
    pub(crate) slots: Vec<SlotText>,
    /// The first takes the first alternatives and leaves out the optionals.
    pub(crate) forms: Vec<Vec<Piece>>,
}

impl Phrase {
    pub(crate) fn parse(text: &str) -> Result<Self, PhraseFault> {
        if text.chars().count() > LENGTH_MAX {
            return Err(PhraseFault::TooLong);
        }
        let mut reader = Reader { rest: text, slots: Vec::new() };
        let forms = reader.sequence(0)?;
        match reader.rest.chars().next() {
            Some(stray) => Err(PhraseFault::Unpaired(stray)),
            None => Ok(Self { slots: reader.slots, forms }),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    slots: Vec<SlotText>,
}

impl Reader<'_> {
    /// Everything up to a bar, a closing bracket or the end.
    fn sequence(&mut self, depth: usize) -> Result<Vec<Vec<Piece>>, PhraseFault> {
        if depth > DEPTH_MAX {
            return Err(PhraseFault::TooDeep);
        }
        let mut forms = vec![Vec::new()];
        loop {
            self.rest = self.rest.trim_start();
            let choices = match self.rest.chars().next() {
                None | Some('|' | ')' | ']' | '}') => return Ok(forms),
                Some('(') => self.group(')', depth)?,
                Some('[') => {
                    let mut choices = vec![Vec::new()];
                    choices.extend(self.group(']', depth)?);
                    choices
                }
                Some('{') => vec![vec![self.slot()?]],
                Some(_) => vec![self.word().into_iter().collect()],
            };
            if forms.len() * choices.len() > FORMS_MAX {
                return Err(PhraseFault::TooManyForms);
            }
            forms = forms
                .iter()
                .flat_map(|form| choices.iter().map(|choice| [form.as_slice(), choice].concat()))
                .collect();
        }
    }

    /// Alternatives up to the closing bracket.
    fn group(&mut self, close: char, depth: usize) -> Result<Vec<Vec<Piece>>, PhraseFault> {
        let open = self.rest.chars().next().unwrap_or(close);
        let mut choices = Vec::new();
        loop {
            self.rest = &self.rest[1..];
            let alternative = self.sequence(depth + 1)?;
            let nothing = alternative.iter().any(Vec::is_empty);
            let last = close == ')' && !choices.is_empty() && self.rest.starts_with(close);
            if nothing && !last {
                return Err(PhraseFault::Empty);
            }
            choices.extend(alternative);
            if self.rest.starts_with(close) {
                self.rest = &self.rest[1..];
                return Ok(choices);
            }
            if !self.rest.starts_with('|') {
                return Err(PhraseFault::Unpaired(open));
            }
        }
    }

    /// A word; `None` if it is punctuation only, which is not heard.
    fn word(&mut self) -> Option<Piece> {
        let special =
            |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | '|');
        let end = self.rest.find(special).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        let core = utterance::core(word);
        core.contains(char::is_alphanumeric).then_some(Piece::Word(core))
    }

    fn slot(&mut self) -> Result<Piece, PhraseFault> {
        let end = self.rest.find('}').ok_or(PhraseFault::Unpaired('{'))?;
        let inner = &self.rest[1..end];
        self.rest = &self.rest[end + 1..];
        let mut links = inner.split('<');
        let said = links.next().unwrap_or_default();
        let (argument, options) = said.split_once('=').unwrap_or((said, ""));
        let argument = argument.trim();
        if argument.is_empty() {
            return Err(PhraseFault::Empty);
        }
        let options = options.split(',').map(str::trim).filter(|option| !option.is_empty());
        let through = links.map(|link| {
            let link = link.trim();
            let (capability, argument) =
                link.rsplit_once('.').ok_or_else(|| PhraseFault::Through(link.to_owned()))?;
            let capability =
                capability.parse().map_err(|_| PhraseFault::Through(link.to_owned()))?;
            Ok((capability, argument.to_owned()))
        });
        self.slots.push(SlotText {
            argument: argument.to_owned(),
            options: options.map(str::to_owned).collect(),
            through: through.collect::<Result<_, _>>()?,
        });
        Ok(Piece::Slot(self.slots.len() - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(text: &str) -> Vec<String> {
        let phrase = Phrase::parse(text).unwrap();
        let show = |piece: &Piece| match piece {
            Piece::Word(word) => word.clone(),
            Piece::Slot(slot) => format!("{{{}}}", phrase.slots[*slot].argument),
        };
        phrase
            .forms
            .iter()
            .map(|form| form.iter().map(show).collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn alternatives_and_optionals_multiply() {
        assert_eq!(
            forms("(note|Jot down) [that] {text}"),
            ["note {text}", "note that {text}", "jot down {text}", "jot down that {text}"]
        );
        assert_eq!(forms("set (a|the|) timer"), ["set a timer", "set the timer", "set timer"]);
        assert_eq!(forms("a [b [c]]"), ["a", "a b", "a b c"]);
    }

    #[test]
    fn a_slot_says_how_it_is_filled() {
        let phrase =
            Phrase::parse("sum {text=trim,plain<text.summarize.text<docs.read.path}").unwrap();
        assert_eq!(phrase.slots[0].options, ["trim", "plain"]);
        let through: Vec<_> =
            phrase.slots[0].through.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(through, ["text.summarize", "docs.read"]);
    }

    #[test]
    fn says_what_is_wrong() {
        let many = "(a|b|c|d)".repeat(5);
        let cases = [
            ("note (that", PhraseFault::Unpaired('(')),
            ("note that)", PhraseFault::Unpaired(')')),
            ("note {text", PhraseFault::Unpaired('{')),
            ("a | b", PhraseFault::Unpaired('|')),
            ("note [] x", PhraseFault::Empty),
            ("note (|a)", PhraseFault::Empty),
            ("note [a|]", PhraseFault::Empty),
            ("note {}", PhraseFault::Empty),
            ("sum {text<docs}", PhraseFault::Through("docs".into())),
            (many.as_str(), PhraseFault::TooManyForms),
            (&"(".repeat(99), PhraseFault::TooDeep),
        ];
        for (text, fault) in cases {
            assert_eq!(Phrase::parse(text), Err(fault), "{text}");
        }
    }
}

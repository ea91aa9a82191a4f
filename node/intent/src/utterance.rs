//! What was said, cut into words that still know where they stood.

use std::collections::BTreeMap;

/// The most characters that are read.
pub(crate) const CHARACTERS_MAX: usize = 2_000;

/// Words that carry no meaning of their own: a text made of these alone says nothing.
const FUNCTION_WORDS: &[&str] = &[
    "a",
    "about",
    "again",
    "all",
    "also",
    "am",
    "an",
    "and",
    "any",
    "are",
    "as",
    "at",
    "be",
    "but",
    "by",
    "do",
    "down",
    "each",
    "every",
    "everything",
    "for",
    "from",
    "he",
    "her",
    "here",
    "him",
    "i",
    "in",
    "is",
    "it",
    "its",
    "me",
    "mine",
    "my",
    "no",
    "not",
    "now",
    "of",
    "off",
    "on",
    "or",
    "our",
    "out",
    "please",
    "she",
    "so",
    "some",
    "something",
    "that",
    "the",
    "them",
    "then",
    "there",
    "these",
    "they",
    "this",
    "those",
    "to",
    "too",
    "up",
    "us",
    "was",
    "we",
    "were",
    "with",
    "you",
    "your",
];

/// One word as said.
#[derive(Debug)]
pub(crate) struct Word {
    /// Where it starts in the utterance, in bytes.
    pub(crate) start: usize,
    /// Where it ends.
    pub(crate) end: usize,
    /// In lower case, with straight apostrophes, without the punctuation around it.
    pub(crate) core: String,
    /// Its number in the catalog's vocabulary, if some phrase has it.
    pub(crate) id: Option<u32>,
    /// Where the same word stood last, if the catalog has it.
    pub(crate) before: Option<usize>,
    /// Whether a comma or semicolon follows.
    pub(crate) comma: bool,
    /// How many words the quotation that begins here has; 0 where none begins.
    pub(crate) quotes: usize,
    /// Whether a quotation that began earlier holds it.
    pub(crate) within: bool,
}

/// A sentence and its words.
#[derive(Debug)]
pub(crate) struct Utterance<'a> {
    pub(crate) said: &'a str,
    pub(crate) words: Vec<Word>,
}

impl<'a> Utterance<'a> {
    /// Cuts at white space; what only separates (`-`, `:`) is no word.
    pub(crate) fn new(said: &'a str, id: impl Fn(&str) -> Option<u32>) -> Self {
        let said = unquoted_whole(said.trim());
        let mut words: Vec<Word> = Vec::new();
        let mut last_at = BTreeMap::new();
        for (start, end) in chunks(said) {
            let raw = &said[start..end];
            if raw.chars().all(is_separator) {
                if let (Some(last), true) = (words.last_mut(), raw.contains([',', ';'])) {
                    last.comma = true;
                }
                continue;
            }
            let core = core(raw);
            let id = id(&core);
            let before = id.and_then(|id| last_at.insert(id, words.len()));
            let comma = raw.trim_end_matches(is_quote).ends_with([',', ';']);
            words.push(Word { start, end, core, id, before, comma, quotes: 0, within: false });
        }
        let mut utterance = Self { said, words };
        utterance.mark_quotations();
        utterance
    }

    /// The characters of the words `from..to`, as said.
    pub(crate) fn raw(&self, from: usize, to: usize) -> &'a str {
        let end = if to == self.words.len() { self.said.len() } else { self.words[to - 1].end };
        let raw = self.said[self.words[from].start..end].trim();
        if to == self.words.len() { raw } else { raw.trim_end_matches([',', ';']) }
    }

    /// The same, without the quotation marks if the words are one quotation.
    pub(crate) fn text(&self, from: usize, to: usize) -> &'a str {
        let raw = self.raw(from, to);
        if self.words[from].quotes != to - from {
            return raw;
        }
        let raw = raw.trim_end_matches(|c: char| is_sentence_end(c) || c == ',' || c == ')');
        raw.trim_matches(is_quote).trim()
    }

    /// One word with its case, without the punctuation and quotation marks around it.
    pub(crate) fn bare(&self, at: usize) -> &'a str {
        self.said[self.words[at].start..self.words[at].end]
            .trim_start_matches(|c: char| is_quote(c) || matches!(c, '(' | '[' | '<'))
            .trim_end_matches(|c: char| is_edge(c) && c != '/')
    }

    /// Whether a slot may begin or end before the word at `at`.
    pub(crate) fn is_boundary(&self, at: usize) -> bool {
        self.words.get(at).is_none_or(|word| !word.within)
    }

    /// Whether the words say nothing without others: `it`, `that`, `the`.
    pub(crate) fn is_empty_talk(&self, from: usize, to: usize) -> bool {
        self.words[from].quotes == 0 && (from..to).all(|at| self.is_function_word(at))
    }

    /// Whether the word has no meaning of its own.
    pub(crate) fn is_function_word(&self, at: usize) -> bool {
        FUNCTION_WORDS.binary_search(&self.words[at].core.as_str()).is_ok()
    }

    fn mark_quotations(&mut self) {
        let mut at = 0;
        while at < self.words.len() {
            let raw = &self.said[self.words[at].start..self.words[at].end];
            let Some(closers) = raw.trim_start_matches('(').chars().next().and_then(closers) else {
                at += 1;
                continue;
            };
            let close = (at..self.words.len()).find(|&to| {
                let word = &self.said[self.words[to].start..self.words[to].end];
                let word =
                    word.trim_end_matches(|c: char| is_sentence_end(c) || matches!(c, ',' | ')'));
                word.ends_with(closers) && (to > at || word.chars().count() > 2)
            });
            let Some(close) = close else {
                at += 1;
                continue;
            };
            self.words[at].quotes = close - at + 1;
            for word in &mut self.words[at + 1..=close] {
                word.within = true;
            }
            at = close + 1;
        }
    }
}

/// A word as phrases and utterances are compared: lower case, straight apostrophes, no punctuation
/// around it. A word that is nothing else stays as it is.
pub(crate) fn core(raw: &str) -> String {
    let trimmed = raw.trim_matches(|c| is_edge(c) || is_quote(c));
    let kept = if trimmed.is_empty() { raw } else { trimmed };
    if kept.is_ascii() {
        return kept.to_ascii_lowercase();
    }
    kept.chars()
        .flat_map(char::to_lowercase)
        .map(|c| if matches!(c, '\u{2018}' | '\u{2019}' | '\u{02bc}') { '\'' } else { c })
        .collect()
}

/// Whether a sentence ends in it.
pub(crate) const fn is_sentence_end(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | ';' | ':')
}

const fn is_edge(c: char) -> bool {
    is_sentence_end(c)
        || matches!(c, ',' | '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | '"' | '\'')
}

const fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`' | '\u{2018}'..='\u{201f}' | '«' | '»')
}

const fn is_separator(c: char) -> bool {
    matches!(c, '-' | '–' | '—' | ':' | ';' | ',' | '=' | '|' | '•' | '*' | '>')
}

const fn closers(open: char) -> Option<&'static [char]> {
    match open {
        '"' => Some(&['"']),
        '\'' | '`' => Some(&['\'']),
        '\u{201c}' | '\u{201e}' => Some(&['\u{201d}', '\u{201c}']),
        '\u{2018}' => Some(&['\u{2019}']),
        '«' => Some(&['»']),
        _ => None,
    }
}

/// The byte ranges between white space; `note:milk` is two.
fn chunks(said: &str) -> impl Iterator<Item = (usize, usize)> {
    said.split_whitespace().flat_map(move |chunk| {
        let start = chunk.as_ptr().addr() - said.as_ptr().addr();
        let end = start + chunk.len();
        let cut = chunk.find(':').filter(|&colon| {
            colon >= 2
                && chunk[..colon].bytes().all(|b| b.is_ascii_alphabetic())
                && chunk[colon + 1..].starts_with(|c: char| c.is_alphabetic() || is_quote(c))
        });
        match cut {
            Some(colon) => [Some((start, start + colon + 1)), Some((start + colon + 1, end))],
            None => [Some((start, end)), None],
        }
        .into_iter()
        .flatten()
    })
}

/// The sentence without quotation marks around all of it.
fn unquoted_whole(said: &str) -> &str {
    let mut chars = said.chars();
    let (Some(open), Some(close)) = (chars.next(), chars.next_back()) else { return said };
    let inner = chars.as_str();
    match closers(open) {
        Some(closers) if closers.contains(&close) && !inner.contains(is_quote) => inner.trim(),
        _ => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(said: &str) -> Vec<String> {
        Utterance::new(said, |_| None).words.into_iter().map(|word| word.core).collect()
    }

    #[test]
    fn function_words_are_sorted() {
        assert!(FUNCTION_WORDS.is_sorted());
    }

    #[test]
    fn punctuation_around_words_does_not_count() {
        assert_eq!(cores("Jot down: “buy milk”, OK?"), ["jot", "down", "buy", "milk", "ok"]);
        assert_eq!(cores("note:milk - What’s up"), ["note", "milk", "what's", "up"]);
        assert_eq!(
            cores("open https://a.b/c at 18:30 :)"),
            ["open", "https://a.b/c", "at", "18:30", ":)"]
        );
    }

    #[test]
    fn a_quotation_is_one_thing() {
        let utterance = Utterance::new("translate 'good morning' to dutch", |_| None);
        assert_eq!(utterance.words[1].quotes, 2);
        assert!(!utterance.is_boundary(2));
        assert_eq!(utterance.text(1, 3), "good morning");
        assert_eq!(utterance.text(1, 5), "'good morning' to dutch");
    }
}

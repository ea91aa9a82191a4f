//! Short codes: what a person types where there is neither a camera nor a way to paste.
//!
//! A code is `4711-apple-river-stone`. The number is no secret: it follows from the name of the
//! inviter's throw-away endpoint, so that the joiner finds the right one among those that a network
//! shows. The three words are: 33 bits, good for one guess.

use std::{fmt, str::FromStr};

use bip39::Language;
use thiserror::Error;
use weft_protocol::id::EndpointId;
use zeroize::Zeroizing;

use crate::recovery::words::words_of;

/// How many words a code has.
const WORD_COUNT: usize = 3;

/// How many numbers there are: four digits.
const NUMBERS: u32 = 10_000;

/// The longest text that is looked at; the longest code has 32 characters.
const CODE_CHARS_MAX: usize = 100;

/// Why a text is not a code.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ParseCodeError {
    /// It does not look like one.
    #[error("read the code: it is four digits and three words, such as 4711-apple-river-stone")]
    NotACode,
    /// A word is not in the list.
    #[error("read the code: its word {0} is not in the list; check its spelling")]
    Unknown(usize),
}

/// A short code.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    number: u16,
    words: [&'static str; WORD_COUNT],
}

impl Code {
    /// The code for an endpoint, with words of drawn bytes.
    pub fn new(endpoint: &EndpointId, drawn: [u8; 8]) -> Self {
        Self { number: number(endpoint), words: words_of(u64::from_be_bytes(drawn)) }
    }

    /// Whether the endpoint may be the one that the code was made for. One in ten thousand others
    /// is taken for it, and fails at the proof.
    pub fn is_of(&self, endpoint: &EndpointId) -> bool {
        number(endpoint) == self.number
    }

    /// All of it, as the password of the exchange.
    pub(super) fn password(&self) -> Zeroizing<String> {
        Zeroizing::new(self.to_string())
    }
}

/// The number that everybody may know.
fn number(endpoint: &EndpointId) -> u16 {
    let hash = blake3::derive_key("weft pairing code number v1", endpoint.as_bytes());
    let bits = u32::from_be_bytes(hash[..4].try_into().expect("four of 32 bytes"));
    u16::try_from(bits % NUMBERS).expect("it is below 10,000")
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{}", self.number, self.words.join("-"))
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({:04}, ..)", self.number)
    }
}

impl FromStr for Code {
    type Err = ParseCodeError;

    /// Reads a code in any case, with dashes or white space between its parts.
    fn from_str(text: &str) -> Result<Self, ParseCodeError> {
        use ParseCodeError::{NotACode, Unknown};
        if text.len() > CODE_CHARS_MAX {
            return Err(NotACode);
        }
        let text = Zeroizing::new(text.to_ascii_lowercase());
        let is_between = |c: char| c == '-' || c.is_ascii_whitespace();
        let mut parts = text.split(is_between).filter(|part| !part.is_empty());
        let digits = parts.next().filter(|part| part.len() == 4).ok_or(NotACode)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotACode);
        }
        let number = digits.parse().map_err(|_| NotACode)?;
        let given: Vec<_> = parts.take(WORD_COUNT + 1).collect();
        if given.len() != WORD_COUNT {
            return Err(NotACode);
        }
        let list = Language::English.word_list();
        let mut words = [""; WORD_COUNT];
        for (at, word) in given.into_iter().enumerate() {
            let found = Language::English.find_word(word).ok_or(Unknown(at + 1))?;
            words[at] = list[usize::from(found)];
        }
        Ok(Self { number, words })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    fn endpoint(number: u8) -> EndpointId {
        EndpointId::from_bytes([number; 32])
    }

    #[test]
    fn a_code_stays_as_it_is() {
        expect!["3729-alpha-deal-scrub"].assert_eq(&Code::new(&endpoint(7), [7; 8]).to_string());
    }

    #[test]
    fn is_read_as_people_type_it() {
        let code = Code::new(&endpoint(7), *b"12345678");
        let text = code.to_string();
        for typed in [
            text.clone(),
            text.to_uppercase(),
            text.replace('-', " "),
            format!("  {} \n", text.replace('-', " - ")),
        ] {
            assert_eq!(typed.parse(), Ok(code.clone()), "{typed}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, expected) in [
            ("", ParseCodeError::NotACode),
            ("4711", ParseCodeError::NotACode),
            ("471-apple-river-stone", ParseCodeError::NotACode),
            ("47111-apple-river-stone", ParseCodeError::NotACode),
            ("+471-apple-river-stone", ParseCodeError::NotACode),
            ("4711-apple-river", ParseCodeError::NotACode),
            ("4711-apple-river-stone-stone", ParseCodeError::NotACode),
            ("4711-aple-river-stone", ParseCodeError::Unknown(1)),
            ("4711-apple-river-stonne", ParseCodeError::Unknown(3)),
        ] {
            assert_eq!(text.parse::<Code>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn the_words_do_not_show() {
        assert_eq!(format!("{:?}", Code::new(&endpoint(7), [7; 8])), "Code(3729, ..)");
    }

    proptest! {
        #[test]
        fn round_trips(name: [u8; 32], drawn: [u8; 8]) {
            let endpoint = EndpointId::from_bytes(name);
            let code = Code::new(&endpoint, drawn);
            prop_assert!(code.is_of(&endpoint));
            prop_assert_eq!(code.to_string().parse(), Ok(code));
        }

        #[test]
        fn survives_arbitrary_text(text in ".*", near in "[0-9]{0,5}[- ]?([a-z]{3,8}[- ]?){0,5}") {
            drop(text.parse::<Code>());
            drop(near.parse::<Code>());
        }

        /// One other character is no code, or another one.
        #[test]
        fn a_changed_code_is_another(drawn: [u8; 8], at: usize, to in "[a-z0-9 -]") {
            let code = Code::new(&endpoint(7), drawn);
            let mut text = code.to_string();
            let at = at % text.len();
            let is_between = |text: &str| text == "-" || text == " ";
            prop_assume!(!(is_between(&text[at..=at]) && is_between(&to)) && text[at..=at] != to);
            text.replace_range(at..=at, &to);
            prop_assert_ne!(text.parse(), Ok(code));
        }
    }
}

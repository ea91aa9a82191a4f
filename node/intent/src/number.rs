//! Numbers in digits and in words.

use crate::utterance::Word;

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] =
    ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// The whole number that begins at `at`, in digits or words up to 99, and where it ends.
pub(crate) fn whole(words: &[Word], at: usize) -> Option<(usize, i64)> {
    let core = words.get(at)?.core.as_str();
    if core.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        let plain = core.len() <= 16 && !core.starts_with("--");
        return plain.then(|| core.parse().ok().map(|number| (at + 1, number)))?;
    }
    if let Some(ones) = ones(core) {
        return Some((at + 1, ones));
    }
    if let Some((tens, ones)) = core.split_once('-') {
        return Some((at + 1, tens_of(tens)? + ones_below_ten(ones)?));
    }
    let tens = tens_of(core)?;
    let ones = words.get(at + 1).and_then(|word| ones_below_ten(&word.core));
    Some(ones.map_or((at + 1, tens), |ones| (at + 2, tens + ones)))
}

/// The number that begins at `at` in thousandths: `1.5` is 1,500; and where it ends.
pub(crate) fn thousandths(words: &[Word], at: usize) -> Option<(usize, i64)> {
    let core = words.get(at)?.core.as_str();
    if let Some(thousandths) = decimal(core) {
        return Some((at + 1, thousandths));
    }
    whole(words, at).and_then(|(end, number)| Some((end, number.checked_mul(1_000)?)))
}

/// Digits with a point, at most three after it, in thousandths.
pub(crate) fn decimal(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 9 || fraction.len() > 3 {
        return None;
    }
    let scale = [100, 10, 1][fraction.len() - 1];
    Some(whole.parse::<i64>().ok()? * 1_000 + fraction.parse::<i64>().ok()? * scale)
}

fn ones(word: &str) -> Option<i64> {
    (0..).zip(ONES).find(|(_, one)| *one == word).map(|(number, _)| number)
}

fn ones_below_ten(word: &str) -> Option<i64> {
    ones(word).filter(|number| (1..10).contains(number))
}

fn tens_of(word: &str) -> Option<i64> {
    (2..).zip(TENS).find(|(_, ten)| *ten == word).map(|(number, _)| number * 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::utterance::Utterance;

    #[test]
    fn reads_digits_and_words() {
        let read = |said: &str| whole(&Utterance::new(said, |_| None).words, 0);
        assert_eq!(read("25 eggs"), Some((1, 25)));
        assert_eq!(read("-5"), Some((1, -5)));
        assert_eq!(read("twenty five"), Some((2, 25)));
        assert_eq!(read("Twenty-five"), Some((1, 25)));
        assert_eq!(read("forty winks"), Some((1, 40)));
        assert_eq!(read("4ever"), None);
        assert_eq!(read("banana"), None);
        assert_eq!(decimal("1.5"), Some(1_500));
        assert_eq!(decimal("1.25"), Some(1_250));
        assert_eq!(decimal("1."), None);
    }
}

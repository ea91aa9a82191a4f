//! Lengths of time as people say them: `an hour and a half`, `1h30m`, `90 seconds`.

use crate::{number, utterance::Word};

/// The longest that is read: a year.
const SECONDS_MAX: i64 = 366 * 24 * 3_600;

/// A unit in seconds.
fn unit(word: &str) -> Option<i64> {
    match word {
        "second" | "seconds" | "sec" | "secs" => Some(1),
        "minute" | "minutes" | "min" | "mins" => Some(60),
        "hour" | "hours" | "hr" | "hrs" => Some(3_600),
        "day" | "days" => Some(86_400),
        "week" | "weeks" => Some(604_800),
        _ => None,
    }
}

/// Units that may stand right after digits.
fn attached_unit(word: &str) -> Option<i64> {
    match word {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => unit(word),
    }
}

/// Every length of time, in seconds, that begins at `at`, with where it ends; longest words first.
/// A day has 24 hours.
pub(crate) fn durations(words: &[Word], at: usize) -> Vec<(usize, i64)> {
    let mut found = Vec::new();
    let (mut end, mut total, mut smallest) = (at, 0_i64, i64::MAX);
    loop {
        let joined = !found.is_empty() && is(words, end, "and");
        let Some((next, seconds, unit)) = term(words, end + usize::from(joined)) else { break };
        if unit >= smallest {
            break;
        }
        (end, total, smallest) = (next, total.saturating_add(seconds), unit);
        found.push((end, total));
        if is(words, end, "and") && is(words, end + 1, "a") && is(words, end + 2, "half") {
            (end, total, smallest) = (end + 3, total.saturating_add(unit / 2), 1);
            found.push((end, total));
        }
    }
    found.retain(|(_, seconds)| (1..=SECONDS_MAX).contains(seconds));
    found.reverse();
    found
}

/// The normal form of a length in seconds: hours, minutes and seconds, such as `PT1H30M`.
pub(crate) fn iso(seconds: i64) -> String {
    let mut iso = String::from("PT");
    for (amount, letter) in [(seconds / 3_600, 'H'), (seconds / 60 % 60, 'M'), (seconds % 60, 'S')]
    {
        if amount != 0 {
            iso.push_str(&amount.to_string());
            iso.push(letter);
        }
    }
    iso
}

fn is(words: &[Word], at: usize, core: &str) -> bool {
    words.get(at).is_some_and(|word| word.core == core)
}

fn unit_at(words: &[Word], at: usize) -> Option<i64> {
    unit(&words.get(at)?.core)
}

/// One amount with its unit: where it ends, its seconds, and the smallest unit in it.
fn term(words: &[Word], at: usize) -> Option<(usize, i64, i64)> {
    let first = words.get(at)?.core.as_str();
    let article = usize::from(first == "a" || first == "an");
    if is(words, at + article, "half") {
        let next = at + article + 1;
        let next = next + usize::from(is(words, next, "a") || is(words, next, "an"));
        let unit = unit_at(words, next)?;
        return Some((next + 1, unit / 2, 1));
    }
    let quarters = match first {
        "three" if is(words, at + 1, "quarters") => Some((at + 2, 3)),
        _ if is(words, at + article, "quarter") => Some((at + article + 1, 1)),
        _ => None,
    };
    if let Some((next, count)) = quarters {
        let next = next + usize::from(is(words, next, "of"));
        let next = next + usize::from(is(words, next, "an"));
        return is(words, next, "hour").then_some((next + 1, 900 * count, 1));
    }
    if article == 1 {
        let unit = unit_at(words, at + 1)?;
        return Some((at + 2, unit, unit));
    }
    if first.starts_with("pt") {
        let span: jiff::SignedDuration = first.parse().ok()?;
        return Some((at + 1, span.as_secs(), 1));
    }
    if let Some((seconds, unit)) = compact(first) {
        return Some((at + 1, seconds, unit));
    }
    let (next, thousandths) = number::thousandths(words, at)?;
    let half = is(words, next, "and") && is(words, next + 1, "a") && is(words, next + 2, "half");
    let (next, thousandths) =
        if half { (next + 3, thousandths + 500) } else { (next, thousandths) };
    let unit = unit_at(words, next)?;
    let whole = thousandths % 1_000 == 0;
    Some((next + 1, scaled(thousandths, unit)?, if whole { unit } else { 1 }))
}

/// `10min`, `1h30m`, `10-minute`, `1.5h`: the seconds and the smallest unit.
fn compact(word: &str) -> Option<(i64, i64)> {
    if !word.starts_with(|c: char| c.is_ascii_digit()) || word.len() > 24 {
        return None;
    }
    let (mut rest, mut total, mut smallest) = (word, 0_i64, i64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, after) = rest.split_at(digits);
        let after = after.strip_prefix('-').unwrap_or(after);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit = attached_unit(&after[..letters])?;
        if unit >= smallest {
            return None;
        }
        let thousandths = match number::decimal(amount) {
            Some(thousandths) => thousandths,
            None => amount.parse::<i64>().ok()?.checked_mul(1_000)?,
        };
        total = total.checked_add(scaled(thousandths, unit)?)?;
        smallest = unit;
        rest = &after[letters..];
        rest = rest.strip_prefix('-').unwrap_or(rest);
    }
    Some((total, smallest))
}

fn scaled(thousandths: i64, unit: i64) -> Option<i64> {
    (thousandths >= 0).then(|| thousandths.checked_mul(unit).map(|product| product / 1_000))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::utterance::Utterance;

    /// The longest reading, if it takes all words.
    fn whole(said: &str) -> Option<String> {
        let words = Utterance::new(said, |_| None).words;
        let (end, seconds) = *durations(&words, 0).first()?;
        (end == words.len()).then(|| iso(seconds))
    }

    #[test]
    fn reads_what_people_say() {
        let cases = [
            ("10 minutes", "PT10M"),
            ("1 hour 30 minute", "PT1H30M"),
            ("90 minutes", "PT1H30M"),
            ("90s", "PT1M30S"),
            ("1h30m", "PT1H30M"),
            ("10-minute", "PT10M"),
            ("half an hour", "PT30M"),
            ("a half hour", "PT30M"),
            ("an hour", "PT1H"),
            ("an hour and a half", "PT1H30M"),
            ("one and a half hours", "PT1H30M"),
            ("2.5 hours", "PT2H30M"),
            ("two hours and ten minutes", "PT2H10M"),
            ("1 hour, 5 minutes and 10 seconds", "PT1H5M10S"),
            ("a quarter of an hour", "PT15M"),
            ("three quarters of an hour", "PT45M"),
            ("twenty five minutes", "PT25M"),
            ("PT10M", "PT10M"),
            ("2 days", "PT48H"),
        ];
        for (said, expected) in cases {
            assert_eq!(whole(said).as_deref(), Some(expected), "{said}");
        }
    }

    #[test]
    fn reads_nothing_else() {
        for said in [
            "10",
            "banana",
            "0 minutes",
            "-5 minutes",
            "10 minutes 1 hour",
            "minutes",
            "99999999999 hours",
            "1h30",
            "10m5m",
        ] {
            assert_eq!(whole(said), None, "{said}");
        }
    }
}

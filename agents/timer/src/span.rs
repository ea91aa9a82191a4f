//! A span of time as ISO 8601 writes it.

/// The milliseconds of a duration of weeks, days, hours, minutes and seconds, such as `PT1H30M`.
///
/// `None` where the text is none. Months and years are none either: how long they are depends on the
/// day on which they begin.
pub(crate) fn millis(text: &str) -> Option<u64> {
    let (days, time) = match text.strip_prefix('P')?.split_once('T') {
        Some((_, "")) => return None,
        Some(halves) => halves,
        None => (text.strip_prefix('P')?, ""),
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let days = parts(days, &[('W', 7 * 24 * 3_600_000), ('D', 24 * 3_600_000)])?;
    let time = parts(time, &[('H', 3_600_000), ('M', 60_000), ('S', 1_000)])?;
    days.checked_add(time)
}

/// Sums numbers that stand before units, which come in the given order and may be left out.
fn parts(mut text: &str, units: &[(char, u64)]) -> Option<u64> {
    let mut sum = 0u64;
    for (unit, worth) in units {
        if let Some((number, rest)) = text.split_once(*unit) {
            sum = sum.checked_add(scaled(number, *worth)?)?;
            text = rest;
        }
    }
    text.is_empty().then_some(sum)
}

/// A decimal number times `worth`; digits past the thousandth are dropped.
fn scaled(number: &str, worth: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once(['.', ',']).unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(worth)?.checked_add(thousandths * worth / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let cases = [
            ("PT10M", Some(600_000)),
            ("PT1H30M", Some(5_400_000)),
            ("P1DT1S", Some(86_401_000)),
            ("P2W", Some(1_209_600_000)),
            ("PT0.5H", Some(1_800_000)),
            ("PT1,25S", Some(1_250)),
            ("P", None),
            ("PT", None),
            ("P1DT", None),
            ("10M", None),
            ("P1M", None),
            ("PT1M1H", None),
            ("PT-1M", None),
            ("PTM", None),
            ("PT1M ", None),
            ("PT1.H", None),
            ("PT18446744073709551615H", None),
        ];
        for (text, expected) in cases {
            assert_eq!(millis(text), expected, "{text}");
        }
    }
}

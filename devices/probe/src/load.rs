//! How busy the processors are with everything that runs on the machine.

/// Busyness is told in steps of so many percent: what moves by less changes no choice.
const STEP_PERCENT: u64 = 10;

/// Processors that the machine has, out of the text of `/sys/devices/system/cpu/online`, such as
/// `0-3,8`. A process may be let to fewer of them, but the load is that of all.
pub(crate) fn processors(online: &str) -> Option<u64> {
    let count = |range: &str| -> Option<u64> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    online.trim().split(',').map(count).try_fold(0, |sum: u64, count| sum.checked_add(count?))
}

/// How busy they are, in percent of all of them, out of the text of `/proc/loadavg`: threads that ran or
/// waited for a processor or a disk, on average over the last minute. More of them than processors is
/// 100.
pub(crate) fn percent(loadavg: &str, processors: u64) -> Option<u8> {
    let (whole, part) = loadavg.split_whitespace().next()?.split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    // The kernel writes two digits.
    let hundredths: u64 = (part.len() == 2).then(|| part.parse().ok())??;
    let load = whole.checked_mul(100)?.checked_add(hundredths)?;
    let percent = (load / processors.max(1)).min(100);
    u8::try_from((percent + STEP_PERCENT / 2) / STEP_PERCENT * STEP_PERCENT).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_by_ranges() {
        assert_eq!(processors("0\n"), Some(1));
        assert_eq!(processors("0-7\n"), Some(8));
        assert_eq!(processors("0-3,6,8-9\n"), Some(7));
        for odd in ["", "\n", "3-1\n", "a-b\n", "0-18446744073709551615\n"] {
            assert_eq!(processors(odd), None, "{odd}");
        }
    }

    #[test]
    fn load_is_a_share_of_all_processors_in_steps() {
        for (load, processors, expected) in [
            ("0.00", 2, 0),
            ("0.09", 2, 0),
            ("0.10", 2, 10),
            ("1.00", 2, 50),
            ("1.04", 1, 100),
            ("7.90", 8, 100),
            ("250.00", 2, 100),
            ("1.00", 0, 100),
        ] {
            let text = format!("{load} 0.50 0.25 1/200 4321\n");
            assert_eq!(percent(&text, processors), Some(expected), "{load} on {processors}");
        }
        for odd in ["", "many\n", "1\n", "1.5 0 0\n", "-1.00\n", "99999999999999999999.00\n"] {
            assert_eq!(percent(odd, 2), None, "{odd}");
        }
    }
}

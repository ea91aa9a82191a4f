//! How many commands ended in which way.

use std::{fmt, time::Duration};

use crate::Ended;

/// The exit code of a step that was refused: nothing of it ran.
const DENIED: i32 = 5;

/// The exit code of a step that failed, or that no device can do.
const FAILED: i32 = 6;

/// The exit code of an effect that may have happened.
const UNCERTAIN: i32 = 11;

/// Commands that ended, and how. Displayed as one line.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// How long those took that were done.
    done: Vec<Duration>,
    /// Those that say that they failed, and why.
    failed: Vec<String>,
    /// Those that say that it can't be known.
    uncertain: usize,
    /// Those that ended in any other way, or had to be ended.
    wrong: Vec<Ended>,
    longest: Duration,
}

impl Tally {
    /// Counts one.
    pub fn add(&mut self, ended: Ended) {
        self.longest = self.longest.max(ended.took);
        match ended.code {
            Some(0) => self.done.push(ended.took),
            Some(DENIED | FAILED) => self.failed.push(ended.stderr.trim().to_owned()),
            Some(UNCERTAIN) => self.uncertain += 1,
            Some(_) | None => self.wrong.push(ended),
        }
    }

    /// How many there were.
    pub fn all(&self) -> usize {
        self.done.len() + self.failed.len() + self.uncertain + self.wrong.len()
    }

    /// How many were done.
    pub fn done(&self) -> usize {
        self.done.len()
    }

    /// The share that was done, of a hundred.
    pub fn percent(&self) -> f64 {
        self.done.len() as f64 * 100.0 / self.all().max(1) as f64
    }

    /// Those that hung, or ended in a way in which no command of these may.
    pub fn wrong(&self) -> &[Ended] {
        &self.wrong
    }

    /// What those said that failed.
    pub fn failed(&self) -> &[String] {
        &self.failed
    }

    /// Of those that were done, how long the slowest took of so many in a hundred.
    pub fn took(&self, percent: usize) -> Duration {
        let mut took = self.done.clone();
        took.sort();
        let at = (took.len() * percent).div_ceil(100).max(1) - 1;
        took.get(at).copied().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} done ({:.1} %), half within {:.2} s, 99 of 100 within {:.2} s; {} failed with \
             a reason, {} uncertain, {} hung or wrong, the longest {:.2} s",
            self.done(),
            self.all(),
            self.percent(),
            self.took(50).as_secs_f64(),
            self.took(99).as_secs_f64(),
            self.failed.len(),
            self.uncertain,
            self.wrong.len(),
            self.longest.as_secs_f64(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_counts_for_what_it_is() {
        let ended = |code, seconds| Ended {
            code,
            hung: code.is_none(),
            stdout: String::new(),
            stderr: "error: away\n".to_owned(),
            took: Duration::from_secs(seconds),
        };
        let mut tally = Tally::default();
        for (code, seconds) in [(Some(0), 3), (Some(0), 1), (Some(6), 9), (Some(11), 2), (None, 60)]
        {
            tally.add(ended(code, seconds));
        }
        assert_eq!((tally.all(), tally.done(), tally.wrong().len()), (5, 2, 1));
        assert_eq!(tally.failed(), ["error: away"]);
        assert_eq!(tally.took(50), Duration::from_secs(1));
        assert_eq!(tally.took(99), Duration::from_secs(3));
        assert_eq!(
            tally.to_string(),
            "2 of 5 done (40.0 %), half within 1.00 s, 99 of 100 within 3.00 s; 1 failed with a \
             reason, 1 uncertain, 1 hung or wrong, the longest 60.00 s"
        );
    }
}

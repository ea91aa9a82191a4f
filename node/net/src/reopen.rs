//! When a stream that ended is opened again on the connection that it was on.

use std::time::Duration;

/// The wait before a stream that ended is opened again, doubled each time up to the maximum.
const REOPEN_MIN: Duration = Duration::from_millis(250);
const REOPEN_MAX: Duration = Duration::from_secs(30);

/// A stream that lasted so long starts anew with [`REOPEN_MIN`].
const REOPEN_RESET_AFTER: Duration = Duration::from_secs(30);

/// How often one protocol was opened again on one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reopen {
    times: u32,
}

impl Reopen {
    /// The wait before the next time, after a stream that lasted so long; `None` for one that
    /// could not be opened.
    pub(crate) fn wait(&mut self, lasted: Option<Duration>) -> Duration {
        if lasted.is_some_and(|lasted| lasted >= REOPEN_RESET_AFTER) {
            self.times = 0;
        }
        let wait = REOPEN_MIN.saturating_mul(1 << self.times.min(16)).min(REOPEN_MAX);
        self.times = self.times.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_half_a_minute_and_starts_anew_after_a_stream_that_lasted() {
        let mut reopen = Reopen::default();
        let waits: Vec<u128> = [None, Some(Duration::ZERO), Some(Duration::from_secs(29))]
            .into_iter()
            .chain([None; 6])
            .map(|lasted| reopen.wait(lasted).as_millis())
            .collect();
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(reopen.wait(Some(Duration::from_secs(30))).as_millis(), 250);
        assert_eq!(reopen.wait(None).as_millis(), 500);
    }
}

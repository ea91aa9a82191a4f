//! The two clocks of this machine.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use weft_protocol::time::{Now, Timestamp, WallTime};

/// Both clocks now. The monotonic one counts the time that the machine sleeps.
pub(crate) fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
    let micros = u64::try_from(boot.tv_nsec).unwrap_or(0) / 1_000;
    Now { mono: Timestamp::from_micros(seconds * 1_000_000 + micros), wall: wall() }
}

/// The wall clock now; a clock before 1970 counts as 1970.
pub(crate) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime::from_unix_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

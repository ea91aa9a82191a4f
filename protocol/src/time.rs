//! Points in time, handed in from outside.
//!
//! Two clocks, never mixed: [`Timestamp`] orders and bounds waiting, [`WallTime`] is shown to people
//! and written into records. Safety rests on neither.

use std::{fmt, ops::Add, time::Duration};

use minicbor::{Decode, Encode};

/// A point on the node's own clock, which never goes back and counts suspended time, in microseconds.
///
/// Two values compare only if they come from the same node in the same boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] u64);

impl Timestamp {
    /// The clock's start.
    pub const ZERO: Self = Self(0);

    /// Makes a point from microseconds since the clock's start.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Makes a point from milliseconds since the clock's start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000)
    }

    /// Microseconds since the clock's start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this point; zero where `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, as the device's wall clock had them.
///
/// May be wrong and may jump; it is shown and recorded, and orders nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct WallTime(#[n(0)] i64);

impl WallTime {
    /// Makes a time from milliseconds since the Unix epoch.
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> i64 {
        self.0
    }
}

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WallTime({}ms)", self.0)
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// Both clocks at one moment, as the shell hands them to a machine with each input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For waiting and ordering.
    pub mono: Timestamp,
    /// For records and people.
    pub wall: WallTime,
}

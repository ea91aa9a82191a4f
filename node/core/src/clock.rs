//! Local time of the asking device: what people say, turned into instants and back.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use thiserror::Error;
use weft_protocol::time::WallTime;

/// What the zone without an offset is called (tz database, file `etcetera` and its links).
const UTC: [&str; 12] = [
    "UTC",
    "Etc/UTC",
    "GMT",
    "Etc/GMT",
    "Zulu",
    "Etc/Zulu",
    "UCT",
    "Etc/UCT",
    "Universal",
    "Etc/Universal",
    "Greenwich",
    "Etc/Greenwich",
];

/// Why a local time makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LocalTimeError {
    /// Not a time zone.
    #[error("there is no time zone {0:?}")]
    Zone(String),
    /// Not a date and time.
    #[error("{0:?} is no date and time such as 2026-03-11T08:00:00")]
    Text(String),
    /// Outside of what the calendar holds.
    #[error("that time is too far away")]
    Range,
}

/// The asking device's clock on the wall.
#[derive(Clone, Debug)]
pub struct LocalTime {
    zone: TimeZone,
}

impl LocalTime {
    /// Takes the asking device's local time and zone, and checks both.
    ///
    /// # Errors
    ///
    /// One of them is not what it should be.
    pub fn new(local_time: &str, zone: &str) -> Result<Self, LocalTimeError> {
        let _: DateTime =
            local_time.parse().map_err(|_| LocalTimeError::Text(local_time.to_owned()))?;
        let find = |name: &str| TimeZone::get(name).ok();
        let zone = zone_named(zone, find).ok_or_else(|| LocalTimeError::Zone(zone.to_owned()))?;
        Ok(Self { zone })
    }

    /// The instant of a local time. A time that a clock change leaves out moves on by the gap; one
    /// that comes twice means the first (RFC 5545, section 3.3.5).
    ///
    /// # Errors
    ///
    /// Not a date and time, or out of range.
    pub fn instant_of(&self, text: &str) -> Result<WallTime, LocalTimeError> {
        let civil: DateTime = text.parse().map_err(|_| LocalTimeError::Text(text.to_owned()))?;
        let zoned = civil.to_zoned(self.zone.clone()).map_err(|_| LocalTimeError::Range)?;
        Ok(WallTime::from_unix_millis(zoned.timestamp().as_millisecond()))
    }

    /// The local time of an instant, to the second.
    ///
    /// # Errors
    ///
    /// Out of range.
    pub fn text_of(&self, instant: WallTime) -> Result<String, LocalTimeError> {
        let instant = Timestamp::from_millisecond(instant.unix_millis())
            .map_err(|_| LocalTimeError::Range)?;
        let civil = instant.to_zoned(self.zone.clone()).datetime();
        Ok(civil.strftime("%Y-%m-%dT%H:%M:%S").to_string())
    }
}

/// The zone of that name, by `find` unless it is UTC: that needs no list of zones, which a small machine may
/// lack.
fn zone_named(name: &str, find: impl FnOnce(&str) -> Option<TimeZone>) -> Option<TimeZone> {
    let is_utc = UTC.iter().any(|utc| utc.eq_ignore_ascii_case(name));
    if is_utc { Some(TimeZone::UTC) } else { find(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_needs_no_list_of_zones() {
        for name in ["UTC", "Etc/UTC", "etc/utc", "Zulu", "GMT", "Etc/GMT"] {
            let zone = zone_named(name, |name| panic!("{name} is looked up"));
            assert_eq!(zone, Some(TimeZone::UTC), "{name}");
        }
        for name in ["Europe/Brussels", "GMT+1", "UTC2", ""] {
            assert_eq!(zone_named(name, |_| None), None, "{name}");
        }
        let utc = LocalTime::new("2026-03-10T09:00:00", "Etc/UTC").unwrap();
        let at = utc.instant_of("2026-03-11T08:00:00").unwrap();
        assert_eq!(at.unix_millis(), 1_773_216_000_000);
        assert_eq!(utc.text_of(at).unwrap(), "2026-03-11T08:00:00");
    }

    #[test]
    fn local_times_round_trip_and_survive_clock_changes() {
        let brussels = LocalTime::new("2026-03-10T09:00:00", "Europe/Brussels").unwrap();
        let at = brussels.instant_of("2026-03-11T08:00:00").unwrap();
        assert_eq!(at.unix_millis(), 1_773_212_400_000);
        assert_eq!(brussels.text_of(at).unwrap(), "2026-03-11T08:00:00");
        let skipped = brussels.instant_of("2026-03-29T02:30:00").unwrap();
        assert_eq!(brussels.text_of(skipped).unwrap(), "2026-03-29T03:30:00");
        assert!(LocalTime::new("2026-03-10T09:00:00", "Nowhere/Land").is_err());
        assert!(brussels.instant_of("tomorrow").is_err());
    }
}

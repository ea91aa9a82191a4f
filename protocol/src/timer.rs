//! Timers: kept as local time, zone and instant.

use minicbor::{Decode, Encode};

use crate::{
    id::{DeviceId, TimerId},
    time::WallTime,
};

/// A timer that fires once.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Timer {
    /// Which.
    #[n(0)]
    pub id: TimerId,
    /// The instant.
    #[n(1)]
    pub due: WallTime,
    /// The local time that was meant, ISO 8601 without an offset.
    #[n(2)]
    pub local: String,
    /// The IANA time zone in which it was meant.
    #[n(3)]
    pub zone: String,
    /// What it is for; may be empty.
    #[n(4)]
    pub label: String,
    /// The device that fires it.
    #[n(5)]
    pub fires_on: DeviceId,
}

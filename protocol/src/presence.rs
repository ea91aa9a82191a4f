//! Who is here: a signed, ephemeral record, never a document.

use minicbor::{Decode, Encode};

use crate::{
    id::{BootId, DeviceId},
    signed::Signed,
    time::WallTime,
    version::Version,
};

/// The most bytes of one record.
pub const PRESENCE_BYTES_MAX: usize = 4 << 10;

/// The most devices that a record says its device is connected with; fewer where its addresses leave them no
/// room.
pub const CONNECTED_MAX: usize = 32;

/// A model that a device can answer with.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct ModelReady {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Measured, in thousandths of a token a second; 0: not measured yet.
    #[n(1)]
    pub speed_milli: u64,
}

/// What a device says of itself now.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Presence {
    /// Who.
    #[n(0)]
    pub device: DeviceId,
    /// Which start of it.
    #[n(1)]
    pub boot: BootId,
    /// Counts the records of this start.
    #[n(2)]
    pub sequence: u64,
    /// Where it listens, as multiaddrs.
    #[n(3)]
    pub addresses: Vec<String>,
    /// Steps that wait or run there.
    #[n(4)]
    pub queue: u32,
    /// Charge in percent; `None`: not on battery.
    #[n(5)]
    pub battery: Option<u8>,
    /// Whether its network costs money.
    #[n(6)]
    pub metered: bool,
    /// Models that answer there.
    #[n(7)]
    pub models: Vec<ModelReady>,
    /// Its wall clock.
    #[n(8)]
    pub time: WallTime,
    /// Whether it carries other members' connections (Circuit Relay v2).
    #[n(9)]
    #[cbor(default)]
    pub relays: bool,
    /// What its machine has; `None`: not told.
    #[n(10)]
    pub machine: Option<Machine>,
    /// Members that are connected with it, at most [`CONNECTED_MAX`] of them: what it says of itself they
    /// hear from itself.
    #[n(11)]
    #[cbor(default)]
    pub connected: Vec<DeviceId>,
    /// The version of the program; `None`: not told.
    #[n(12)]
    pub version: Option<Version>,
}

/// What a machine has, as far as its system tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Machine {
    /// Processors that the node may use.
    #[n(0)]
    pub cores: u32,
    /// How busy they are with everything that runs there, in percent of all of them, coarsely.
    #[n(1)]
    pub load_percent: Option<u8>,
    /// Memory that the node may use at most, in bytes.
    #[n(2)]
    pub memory_bytes: Option<u64>,
    /// Room on the disk that its data lies on, in bytes, coarsely.
    #[n(3)]
    pub storage_free_bytes: Option<u64>,
}

/// A message of `/weft/presence/1`.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum PresenceMessage {
    /// The newest record of some devices.
    #[n(0)]
    Records {
        /// Each a signed [`Presence`].
        #[n(0)]
        records: Vec<Signed>,
        /// How long ago each was made, in milliseconds, in their order, as far as the sender can know
        /// without a clock that two devices share: how old it was said to be when it came, and how long it
        /// lay there. Of a record without an age it is not known.
        #[n(1)]
        #[cbor(default)]
        ages_ms: Vec<u64>,
    },
}

impl PresenceMessage {
    /// A record that was made just now.
    pub fn of_now(record: Signed) -> Self {
        Self::Records { records: vec![record], ages_ms: vec![0] }
    }
}

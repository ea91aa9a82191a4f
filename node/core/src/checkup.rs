//! What a checkup of a node needs of the core, beside what the other commands tell.

use weft_protocol::{id::DeviceId, presence::Machine, reach::Report, time::WallTime};

use crate::{contact::Contact, skew::ClockSet};

/// The facts; whoever asked judges them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkup {
    /// Which start of this node it is.
    pub boot: u64,
    /// This device's wall clock.
    pub time: WallTime,
    /// When the clock was last set while the node ran.
    pub clock_set: Option<ClockSet>,
    /// The other devices that belong.
    pub devices: Vec<ContactView>,
    /// The names of the admins that stand.
    pub admins: Vec<String>,
    /// Steps that wait or run here.
    pub queue: u32,
    /// Charge in percent; `None`: not on battery.
    pub battery: Option<u8>,
    /// Whether this device's network costs money.
    pub metered: bool,
    /// How it is reached from outside.
    pub reach: Report,
    /// The relays that hold a place for it, by name, and since when.
    pub relays_held: Vec<(String, WallTime)>,
    /// What the machine has.
    pub machine: Option<Machine>,
    /// What went wrong here since the start, in sentences.
    pub warnings: Vec<String>,
    /// With which devices' keys other machines run, in sentences.
    pub copies: Vec<String>,
}

/// Another device, as far as reaching it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContactView {
    /// Which.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Where it was last heard of, as multiaddrs.
    pub addresses: Vec<String>,
    /// How it was last looked for.
    pub contact: Contact,
    /// How far its clock is ahead of this one's, in milliseconds; `None`: it has not said.
    pub ahead_ms: Option<i64>,
    /// Whether it carries other members' connections.
    pub relays: bool,
}

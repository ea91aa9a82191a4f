//! One person's fabric on a network: laptop, phone and server.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{Device, Plug, until};

/// Long for anything that ought to take a second or two.
pub const SOON: Duration = Duration::from_secs(60);

/// Laptop, phone and server, paired and running. The network comes last: it goes last.
#[derive(Debug)]
pub struct Home<N> {
    /// The laptop.
    pub laptop: Device,
    /// The phone.
    pub phone: Device,
    /// The server, which began the fabric.
    pub server: Device,
    /// What they are plugged into.
    pub network: N,
}

impl<N> Home<N> {
    /// The server begins a fabric, the others join it by its tickets.
    ///
    /// # Errors
    ///
    /// A device does not come up, or they do not meet.
    pub fn pair(network: N, laptop: Plug, phone: Plug, server: Plug) -> Result<Self> {
        let mut laptop = Device::new(laptop)?;
        let mut phone = Device::new(phone)?;
        let mut server = Device::new(server)?;
        server.init("server")?;
        server.up()?;
        for (device, kind) in [(&mut laptop, "laptop"), (&mut phone, "phone")] {
            device.join(&server, kind)?;
            device.up()?;
        }
        let home = Self { laptop, phone, server, network };
        for device in [&home.laptop, &home.phone] {
            let met = [device, &home.server];
            Device::all_meet(&format!("{} and server meet", device.name()), SOON, &met)?;
        }
        Ok(home)
    }

    /// All devices.
    pub fn all(&self) -> [&Device; 3] {
        [&self.laptop, &self.phone, &self.server]
    }

    /// All devices, to be moved or stopped.
    pub fn all_mut(&mut self) -> [&mut Device; 3] {
        [&mut self.laptop, &mut self.phone, &mut self.server]
    }

    /// Waits until a note is on each device.
    ///
    /// # Errors
    ///
    /// It is not in time.
    pub fn everybody_has(&self, note: &str) -> Result<()> {
        for device in self.all() {
            let what = format!("`{note}` is on the {}", device.name());
            until(&what, SOON, || device.has_note(note))?;
        }
        Ok(())
    }

    /// Nobody panicked or logged an error, and each one's record verifies.
    ///
    /// # Errors
    ///
    /// Somebody did, or a record does not.
    pub fn ends_well(&self) -> Result<()> {
        for device in self.all() {
            let log = device.log()?;
            let bad = log.lines().find(|line| line.contains("ERROR") || line.contains("panicked"));
            ensure!(bad.is_none(), "the {} logged {bad:?}", device.name());
            device.weft(&["audit", "verify"])?;
        }
        Ok(())
    }
}

//! A local network: a switch and the places that are plugged into it. Nothing leads out of it.

use anyhow::{Context as _, Result};

use crate::{
    plug::{BRIDGE, Outlet, OutletKind, Plug},
    space::{Family, Space, Spaces},
};

/// One network of its own. Dropping it removes it, and the folder with the homes.
#[derive(Debug)]
pub struct Lan {
    spaces: Spaces,
    outlet: Outlet,
}

impl Lan {
    /// Makes a switch with nothing plugged in, for IPv4.
    ///
    /// # Errors
    ///
    /// Namespaces can't be made here; the test is then not run.
    pub fn new() -> Result<Self> {
        Self::with(Family::V4)
    }

    /// Makes a switch with nothing plugged in, where nobody has an IPv4 address.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn new_v6() -> Result<Self> {
        Self::with(Family::V6)
    }

    fn with(family: Family) -> Result<Self> {
        let mut spaces = Spaces::new(family)?;
        let space = spaces.add("switch")?;
        add_switch(&space)?;
        let outlet = Outlet { space, kind: OutletKind::Switch { gateway: None } };
        Ok(Self { spaces, outlet })
    }

    /// One for the test of this name, or the reason why there is none here.
    pub fn of(test: &str) -> Option<Self> {
        made(test, Self::new())
    }

    /// As [`Self::of`], where nobody has an IPv4 address.
    pub fn of_v6(test: &str) -> Option<Self> {
        made(test, Self::new_v6())
    }

    /// Makes a place under that name, with a cable to the switch and an address with its prefix.
    ///
    /// # Errors
    ///
    /// The name is taken, or the kernel refuses.
    pub fn plug(&mut self, name: &str, address: &str) -> Result<Plug> {
        let mut plug = Plug::new(&mut self.spaces, name)?;
        plug.connect(&self.outlet, address)?;
        Ok(plug)
    }
}

/// Makes a machine a switch.
pub(crate) fn add_switch(space: &Space) -> Result<()> {
    // Without snooping it floods what is multicast, as a plain switch does.
    let bridge = ["link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0"];
    space.ip(&bridge).context("bridges can't be made here")?;
    // What it passes on is not routed, so that a router's rules are not for it.
    for family in ["ip", "ip6"] {
        space.set(&format!("bridge/bridge-nf-call-{family}tables"), "0")?;
    }
    space.ip(&["link", "set", BRIDGE, "up"])
}

/// What was made for a test, or its word that it does not run here.
pub(crate) fn made<N>(test: &str, network: Result<N>) -> Option<N> {
    match network {
        Ok(network) => {
            eprintln!("{test}:");
            Some(network)
        }
        Err(error) => {
            eprintln!("NOT RUN: {test}: {error:#}");
            None
        }
    }
}

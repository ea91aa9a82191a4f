//! The public network: a machine in the middle that routes, and a cable to each who is on it.
//!
//! Addresses are of the ranges for documentation (RFC 5737): hosts have 203.0.113.x, the outsides of
//! routers 198.51.100.x. No two of them are near each other, so that nothing multicast arrives, and
//! nothing leads any further.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use crate::{
    Counter, Gateway, Nat, Router,
    lan::made,
    plug::{Outlet, OutletKind, Plug},
    space::{Family, Spaces, has_nft},
};

/// What the machine in the middle is called by everybody.
const MIDDLE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// One network of its own, with all homes on it. Dropping it removes it, and the folder with the
/// homes of devices.
#[derive(Debug)]
pub struct Internet {
    spaces: Spaces,
    street: Outlet,
}

impl Internet {
    /// One with nobody on it.
    ///
    /// # Errors
    ///
    /// Namespaces can't be made here, or there is no `nft`; the test is then not run.
    pub fn new() -> Result<Self> {
        let mut spaces = Spaces::new(Family::V4)?;
        let space = spaces.add("internet")?;
        has_nft(&space)?;
        space.set("ipv4/ip_forward", "1")?;
        let street = Outlet { space, kind: OutletKind::Street { gateway: MIDDLE } };
        Ok(Self { spaces, street })
    }

    /// One for the test of this name, or the reason why there is none here.
    pub fn of(test: &str) -> Option<Self> {
        made(test, Self::new())
    }

    /// Where a host or a router is plugged in, with an address that everybody reaches.
    pub fn street(&self) -> &Outlet {
        &self.street
    }

    /// Makes a place under that name, with a cable to that outlet.
    ///
    /// # Errors
    ///
    /// The name is taken, or the kernel refuses.
    pub fn plug(&mut self, name: &str, outlet: &Outlet, address: &str) -> Result<Plug> {
        let mut plug = Plug::new(&mut self.spaces, name)?;
        plug.connect(outlet, address)?;
        Ok(plug)
    }

    /// A host that everybody reaches.
    ///
    /// # Errors
    ///
    /// As [`Self::plug`].
    pub fn host(&mut self, name: &str, address: &str) -> Result<Plug> {
        let street = self.street.clone();
        self.plug(name, &street, address)
    }

    /// Makes a home, behind a router with that address.
    ///
    /// # Errors
    ///
    /// As [`Self::plug`].
    pub fn home(&mut self, name: &str, nat: Nat, address: &str) -> Result<Router> {
        Router::new(self.spaces.add(name)?, name, nat, &self.street, address)
    }

    /// Has a home's router do from now on what its devices ask for (UPnP).
    ///
    /// # Errors
    ///
    /// The daemon is not on this machine ([`Gateway::is_here`]), or does not start.
    pub fn offer_upnp(&self, router: &Router) -> Result<Gateway> {
        let (space, name) = router.space();
        Gateway::new(space, name, self.spaces.folder())
    }

    /// Counts from now on what comes onto the public network from this plug.
    ///
    /// # Errors
    ///
    /// `nft` refuses.
    pub fn count(&self, plug: &Plug, kinds: &[(&'static str, &str)]) -> Result<Counter> {
        let (space, port) = plug.far_end()?;
        Counter::new(space, port, kinds)
    }
}

//! A home's router: a switch inside, one public address outside, and a kind of address translation.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use crate::{
    Counter,
    lan::add_switch,
    plug::{BRIDGE, Outlet, OutletKind, Plug},
    space::Space,
};

/// Its address inside: as with most people, the same in each home.
pub(crate) const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));

/// Who gets in where everything is let in.
pub const EXPOSED: &str = "192.168.1.10";

/// Its interface outside.
pub(crate) const OUTSIDE: &str = "wan";

/// What becomes of addresses and ports, and who may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// The same port outside whatever the destination, and everybody gets in to [`EXPOSED`] by it.
    FullCone,
    /// The same port outside whatever the destination; in gets only who was written to, from where
    /// he was written to.
    Restricted,
    /// Another port outside for each destination; in gets only who was written to.
    Symmetric,
}

/// A router. What comes from outside unasked is dropped without a word.
#[derive(Debug)]
pub struct Router {
    space: Space,
    outside: Plug,
    nat: Nat,
    /// Which of its memories it has: connections of another are unknown to it.
    memory: u16,
}

impl Router {
    pub(crate) fn new(
        space: Space,
        name: &str,
        nat: Nat,
        street: &Outlet,
        address: &str,
    ) -> Result<Self> {
        add_switch(&space)?;
        space.ip(&["addr", "add", &format!("{INSIDE}/24"), "dev", BRIDGE])?;
        let mut outside = Plug::of(space.clone(), name, OUTSIDE);
        outside.connect(street, address)?;
        space.set("ipv4/ip_forward", "1")?;
        let mut router = Self { space, outside, nat, memory: 0 };
        router.become_a(nat)?;
        Ok(router)
    }

    /// Where a device of this home is plugged in.
    pub fn outlet(&self) -> Outlet {
        let kind = OutletKind::Switch { gateway: Some(INSIDE) };
        Outlet { space: self.space.clone(), kind }
    }

    /// Its cable to the public network.
    pub fn outside(&mut self) -> &mut Plug {
        &mut self.outside
    }

    /// Translates in another way from now on, and forgets all connections.
    ///
    /// # Errors
    ///
    /// `nft` refuses.
    pub fn become_a(&mut self, nat: Nat) -> Result<()> {
        self.nat = nat;
        self.memory += 1;
        let memory = self.memory;
        let (how, who) = match nat {
            Nat::FullCone => ("masquerade", format!("iifname {OUTSIDE} dnat to {EXPOSED}")),
            Nat::Restricted => ("masquerade", String::new()),
            Nat::Symmetric => ("masquerade fully-random", String::new()),
        };
        // Whom a rule of its own, or one that a device asked for (`Gateway`), sends it to.
        let unasked = format!("iifname {OUTSIDE} oifname {BRIDGE} ct status dnat accept");
        // What is dropped on its way in leaves no trace: else it would hold the port that the
        // connection towards the same one needs, as routers' rules well know.
        self.space.nft(&format!(
            "table ip router {{}}
            delete table ip router
            table ip router {{
                chain memory_in {{
                    type filter hook prerouting priority raw
                    ct zone set {memory}
                }}
                chain memory_out {{
                    type filter hook output priority raw
                    ct zone set {memory}
                }}
                chain to_itself {{
                    type filter hook input priority filter
                    iifname {OUTSIDE} ct state != {{ established, related }} drop
                }}
                chain through {{
                    type filter hook forward priority filter
                    policy drop
                    ct state {{ established, related }} accept
                    iifname {BRIDGE} oifname {OUTSIDE} accept
                    {unasked}
                }}
                chain out {{
                    type nat hook postrouting priority srcnat
                    oifname {OUTSIDE} {how}
                }}
                chain in {{
                    type nat hook prerouting priority dstnat
                    {who}
                }}
            }}"
        ))
    }

    /// Forgets all connections, as one that was switched off and on, or one whose memory is full.
    ///
    /// # Errors
    ///
    /// `nft` refuses.
    pub fn forget(&mut self) -> Result<()> {
        self.become_a(self.nat)
    }

    /// What it runs on, and what it is called.
    pub(crate) fn space(&self) -> (&Space, &str) {
        (&self.space, self.outside.name())
    }

    /// Counts from now on what comes to it from inside: what is meant for outside, for itself, and
    /// what is multicast; not what devices of the home say to each other.
    ///
    /// # Errors
    ///
    /// `nft` refuses.
    pub fn count_inside(&self, kinds: &[(&'static str, &str)]) -> Result<Counter> {
        Counter::new(&self.space, BRIDGE, kinds)
    }
}

//! A place on a network, and the cable that leads to it.

use std::{
    net::{IpAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    space::{Space, Spaces},
    weather::Weather,
};

/// The interface of each place, the way it is called there.
const INTERFACE: &str = "eth0";

/// The interface of a network within a machine.
const INNER: &str = "inner0";

/// The bridge of each switch.
pub(crate) const BRIDGE: &str = "br0";

/// Where the other end of a cable can be put in.
#[derive(Debug, Clone)]
pub struct Outlet {
    pub(crate) space: Space,
    pub(crate) kind: OutletKind,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum OutletKind {
    /// A port of a switch; what leads beyond it, if anything does.
    Switch { gateway: Option<IpAddr> },
    /// A cable to a machine that routes, which has this address there. Nobody else is near.
    Street { gateway: IpAddr },
}

/// The place of one device on a network.
#[derive(Debug)]
pub struct Plug {
    name: String,
    space: Space,
    interface: &'static str,
    folder: PathBuf,
    cable: Option<Cable>,
}

#[derive(Debug)]
struct Cable {
    outlet: Outlet,
    /// The end at the outlet.
    port: String,
    address: String,
}

impl Plug {
    /// A place without a cable.
    pub(crate) fn new(spaces: &mut Spaces, name: &str) -> Result<Self> {
        let (space, folder) = (spaces.add(name)?, spaces.folder().to_owned());
        Ok(Self { name: name.to_owned(), space, interface: INTERFACE, folder, cable: None })
    }

    /// The place of a machine on a further network.
    pub(crate) fn of(space: Space, name: &str, interface: &'static str) -> Self {
        let folder = PathBuf::new();
        Self { name: name.to_owned(), space, interface, folder, cable: None }
    }

    /// Lays a cable, instead of the one that is there. The address has its prefix on a switch, and
    /// none on the street.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn connect(&mut self, outlet: &Outlet, address: &str) -> Result<()> {
        self.disconnect()?;
        let port = format!("to-{}", self.name);
        let Outlet { space: there, kind } = outlet;
        let pair = ["link", "add", &port, "type", "veth", "peer", "name", self.interface];
        there.ip(&[&pair[..], &["netns", self.space.name()]].concat())?;
        match kind {
            OutletKind::Switch { .. } => {
                there.ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
            }
            OutletKind::Street { gateway } => {
                there.ip(&["link", "set", &port, "up"])?;
                there.ip(&["addr", "add", &format!("{gateway}/32"), "dev", &port])?;
            }
        }
        self.cable = Some(Cable { outlet: outlet.clone(), port, address: String::new() });
        self.switch_on()?;
        self.readdress(address)
    }

    /// Adds a network within the machine, which nothing leads out of, as containers have one.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn add_inner(&self, address: &str) -> Result<()> {
        self.space.ip(&["link", "add", INNER, "type", "bridge"])?;
        self.space.ip(&["addr", "add", address, "dev", INNER])?;
        self.space.ip(&["link", "set", INNER, "up"])
    }

    /// Takes the cable away, if there is one: the interface is gone with it.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn disconnect(&mut self) -> Result<()> {
        let Some(cable) = self.cable.take() else { return Ok(()) };
        cable.outlet.space.ip(&["link", "del", &cable.port])
    }

    /// Replaces its address.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn readdress(&mut self, address: &str) -> Result<()> {
        let cable = self.cable.as_mut().context("there is no cable")?;
        self.space.ip(&["addr", "flush", "dev", self.interface])?;
        if let OutletKind::Street { .. } = cable.outlet.kind {
            let way = |verb: &str, address: &str| {
                let to = format!("{address}/32");
                cable.outlet.space.ip(&["route", verb, &to, "dev", &cable.port])
            };
            if !cable.address.is_empty() {
                way("del", &cable.address)?;
            }
            way("add", address)?;
        }
        cable.address = address.to_owned();
        self.space.ip(&["addr", "add", address, "dev", self.interface])?;
        self.route()
    }

    /// The way to everybody who is not near. The kernel forgets it with each address and interface.
    fn route(&self) -> Result<()> {
        let cable = self.cable()?;
        let gateway = match cable.outlet.kind {
            OutletKind::Switch { gateway: None } => return Ok(()),
            OutletKind::Switch { gateway: Some(gateway) } => gateway.to_string(),
            OutletKind::Street { gateway } => {
                let gateway = gateway.to_string();
                self.space.ip(&["route", "replace", &gateway, "dev", self.interface])?;
                gateway
            }
        };
        self.space.ip(&["route", "replace", "default", "via", &gateway])
    }

    /// Pulls its cable out.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn pull(&self) -> Result<()> {
        let cable = self.cable()?;
        cable.outlet.space.ip(&["link", "set", &cable.port, "down"])
    }

    /// Puts its cable back in.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn put_back(&self) -> Result<()> {
        let cable = self.cable()?;
        cable.outlet.space.ip(&["link", "set", &cable.port, "up"])?;
        if let OutletKind::Street { .. } = cable.outlet.kind {
            let to = format!("{}/32", cable.address);
            cable.outlet.space.ip(&["route", "replace", &to, "dev", &cable.port])?;
        }
        Ok(())
    }

    /// Switches its interface off, which keeps its address.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn switch_off(&self) -> Result<()> {
        self.space.ip(&["link", "set", self.interface, "down"])
    }

    /// Switches its interface on again.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn switch_on(&self) -> Result<()> {
        self.space.ip(&["link", "set", self.interface, "up"])?;
        if self.cable()?.address.is_empty() { Ok(()) } else { self.route() }
    }

    /// Lets nothing of a transport, `tcp` or `udp`, out to a port.
    ///
    /// # Errors
    ///
    /// The kernel or this `ip` knows no such rule.
    pub fn forbid(&self, transport: &str, port: u16) -> Result<()> {
        self.rule("add", transport, port)
    }

    /// Takes that back.
    ///
    /// # Errors
    ///
    /// It was not so.
    pub fn permit(&self, transport: &str, port: u16) -> Result<()> {
        self.rule("del", transport, port)
    }

    fn rule(&self, verb: &str, transport: &str, port: u16) -> Result<()> {
        let port = port.to_string();
        let to_port = ["pref", "1", "ipproto", transport, "dport", &port, "blackhole"];
        self.space.ip(&[&["rule", verb][..], &to_port].concat())
    }

    /// Sets what the cable does to packets, in both directions.
    ///
    /// # Errors
    ///
    /// The kernel or `nft` refuses.
    pub fn set_weather(&self, weather: Weather) -> Result<()> {
        let cable = self.cable()?;
        weather.set(&cable.outlet.space, &cable.port)?;
        weather.set(&self.space, self.interface)
    }

    /// A socket of this place.
    ///
    /// # Errors
    ///
    /// The port is taken.
    pub fn socket(&self, port: u16) -> Result<UdpSocket> {
        Ok(self.space.inside(|| UdpSocket::bind(("0.0.0.0", port)))??)
    }

    /// A program that runs in this place. It becomes the program itself, so killing the child
    /// kills it.
    pub fn command(&self, program: &Path) -> Command {
        self.space.command(program)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that homes and logs lie in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The namespace that it is.
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// The namespace at the other end, and the name that the cable has there.
    pub(crate) fn far_end(&self) -> Result<(&Space, &str)> {
        let cable = self.cable()?;
        Ok((&cable.outlet.space, &cable.port))
    }

    fn cable(&self) -> Result<&Cable> {
        self.cable.as_ref().context("there is no cable")
    }
}

//! The network: a switch and the places that are plugged into it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::process::hear;

/// How long one `ip` may take.
const IP: Duration = Duration::from_secs(10);

/// The interface of each place, the way it is called there.
const INTERFACE: &str = "eth0";

/// One network of its own. Dropping it removes its namespaces, and with them its interfaces, and
/// the folder with the homes.
#[derive(Debug)]
pub struct Lan {
    folder: TempDir,
    /// What the names of its namespaces begin with; differs for each network.
    prefix: String,
    places: Vec<String>,
}

/// The place of one device on a network.
#[derive(Debug, Clone)]
pub struct Plug {
    name: String,
    namespace: String,
    switch: String,
    port: String,
    folder: PathBuf,
}

impl Lan {
    /// Makes a switch with nothing plugged in.
    ///
    /// # Errors
    ///
    /// Namespaces can't be made here; the test is then not run.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("weft-").tempdir()?;
        let random = folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut lan = Self { folder, prefix: random, places: Vec::new() };
        lan.place("switch").context("namespaces can't be made here")?;
        let switch = lan.namespace("switch");
        // Without snooping it floods what is multicast, as a plain switch does.
        let bridge = ["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"];
        ip_in(&switch, &bridge).context("bridges can't be made here")?;
        ip_in(&switch, &["link", "set", "br0", "up"])?;
        Ok(lan)
    }

    /// One for the test of this name, or the reason why there is none here.
    pub fn of(test: &str) -> Option<Self> {
        match Self::new() {
            Ok(lan) => {
                eprintln!("{test}:");
                Some(lan)
            }
            Err(error) => {
                eprintln!("NOT RUN: {test}: {error:#}");
                None
            }
        }
    }

    /// Makes a place under that name, with a cable to the switch and an address `10.…/24`.
    ///
    /// # Errors
    ///
    /// The name is taken, or the kernel refuses.
    pub fn plug(&mut self, name: &str, address: &str) -> Result<Plug> {
        let plug = Plug {
            name: name.to_owned(),
            namespace: self.namespace(name),
            switch: self.namespace("switch"),
            port: format!("port{}", self.places.len()),
            folder: self.folder.path().to_owned(),
        };
        self.place(name)?;
        let (namespace, port) = (plug.namespace.as_str(), plug.port.as_str());
        let pair = ["link", "add", port, "type", "veth", "peer", "name", INTERFACE];
        ip_in(&plug.switch, &[&pair[..], &["netns", namespace]].concat())?;
        ip_in(&plug.switch, &["link", "set", port, "master", "br0", "up"])?;
        ip_in(namespace, &["link", "set", INTERFACE, "up"])?;
        plug.readdress(address)?;
        Ok(plug)
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Makes a namespace with its own loopback and without IPv6.
    fn place(&mut self, name: &str) -> Result<()> {
        let namespace = self.namespace(name);
        hear(Command::new("ip").args(["netns", "add", &namespace]), IP)?;
        self.places.push(namespace.clone());
        ip_in(&namespace, &["link", "set", "lo", "up"])?;
        let conf = "/proc/sys/net/ipv6/conf";
        let no_ipv6 = format!(
            "for f in {conf}/all/disable_ipv6 {conf}/default/disable_ipv6; \
             do [ ! -e $f ] || echo 1 > $f; done"
        );
        let inside = ["netns", "exec", &namespace, "sh", "-c", &no_ipv6];
        hear(Command::new("ip").args(inside), IP).map(drop)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in self.places.drain(..) {
            if let Err(error) = hear(Command::new("ip").args(["netns", "del", &namespace]), IP) {
                eprintln!("failed to remove a namespace: {error:#}");
            }
        }
    }
}

impl Plug {
    /// Replaces its address.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn readdress(&self, address: &str) -> Result<()> {
        ip_in(&self.namespace, &["addr", "flush", "dev", INTERFACE])?;
        ip_in(&self.namespace, &["addr", "add", address, "dev", INTERFACE])
    }

    /// Pulls its cable out of the switch.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn pull(&self) -> Result<()> {
        ip_in(&self.switch, &["link", "set", &self.port, "down"])
    }

    /// Puts its cable back in.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn put_back(&self) -> Result<()> {
        ip_in(&self.switch, &["link", "set", &self.port, "up"])
    }

    /// Switches its interface off, which keeps its address.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn switch_off(&self) -> Result<()> {
        ip_in(&self.namespace, &["link", "set", INTERFACE, "down"])
    }

    /// Switches its interface on again.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn switch_on(&self) -> Result<()> {
        ip_in(&self.namespace, &["link", "set", INTERFACE, "up"])
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
        ip_in(&self.namespace, &[&["rule", verb][..], &to_port].concat())
    }

    /// A program that runs in this place. It becomes the program itself, so killing the child
    /// kills it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that homes and logs lie in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

fn ip_in(namespace: &str, words: &[&str]) -> Result<()> {
    hear(Command::new("ip").args(["-n", namespace]).args(words), IP).map(drop)
}

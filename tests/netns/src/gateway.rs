//! A router that passes on what its devices ask it to: UPnP's Internet Gateway Device, as `miniupnpd`
//! is one, which most routers at home run.
//!
//! It hears and speaks inside its home alone, and sets the kernel's rules of its own namespace.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    plug::BRIDGE,
    process::end,
    router::{INSIDE, OUTSIDE},
    space::Space,
    until_quietly,
};

/// The daemon, as Debian's `miniupnpd-nftables` has it.
const DAEMON: &str = "miniupnpd";

/// How long it may take to start, to stop, or to say what it is.
const SOON: Duration = Duration::from_secs(10);

/// Where it is asked, by HTTP.
const PORT: u16 = 5_000;

/// The table with its rules. What they let in, [`Router`](crate::Router) lets through.
const TABLE: &str = "upnp";

/// One transport's port at the public address, and who gets what comes to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    /// `udp` or `tcp`.
    pub transport: &'static str,
    /// Outside.
    pub port: u16,
    /// Inside.
    pub to: SocketAddr,
}

/// A router's daemon. Dropping it kills it; what it let in is let in until then.
#[derive(Debug)]
pub struct Gateway {
    space: Space,
    log: PathBuf,
    daemon: Child,
}

impl Gateway {
    /// Whether the daemon is on this machine; says for the test of this name why not.
    pub fn is_here(test: &str) -> bool {
        let asked = end(Command::new(DAEMON).arg("--version"), SOON);
        let why = match asked {
            Ok(ended) if ended.stdout.contains("nftables") => return true,
            Ok(ended) => format!("{DAEMON} is not the one for nftables: {}", ended.stdout.trim()),
            Err(error) => format!("{error:#} (Debian: apt-get install miniupnpd-nftables)"),
        };
        eprintln!("NOT RUN: {test}: {why}");
        false
    }

    /// Starts it on a router, with its settings and its log in that folder.
    pub(crate) fn new(space: &Space, name: &str, folder: &Path) -> Result<Self> {
        let of = |what: &str| folder.join(format!("{name}-upnp.{what}"));
        let (settings, log, id) = (of("conf"), of("log"), of("pid"));
        // Leases are forgotten with it, as with a router that is switched off and on.
        space.nft(&format!(
            "table inet {TABLE} {{}}
            delete table inet {TABLE}
            table inet {TABLE} {{
                chain mapped {{}}
                chain let_in {{}}
                chain let_out {{}}
                chain in {{
                    type nat hook prerouting priority dstnat
                    jump mapped
                }}
                chain through {{
                    type filter hook forward priority filter
                    jump let_in
                }}
                chain out {{
                    type nat hook postrouting priority srcnat
                    jump let_out
                }}
            }}"
        ))?;
        let written = format!(
            "ext_ifname={OUTSIDE}\nlistening_ip={BRIDGE}\nhttp_port={PORT}\nenable_natpmp=no\n\
             secure_mode=yes\nuuid=8f3c2a52-6c1e-4a86-9d0c-5d2f0e6b7a11\n\
             upnp_table_name={TABLE}\nupnp_nat_table_name={TABLE}\nupnp_forward_chain=let_in\n\
             upnp_nat_chain=mapped\nupnp_nat_postrouting_chain=let_out\n\
             allow 1024-65535 192.168.1.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
        );
        fs::write(&settings, written)?;
        let says = File::options().create(true).append(true).open(&log)?;
        let (errors, mut command) = (says.try_clone()?, space.command(Path::new(DAEMON)));
        command.args(["-d", "-4", "-f"]).arg(&settings).arg("-P").arg(id);
        command.stdin(Stdio::null()).stdout(says).stderr(errors);
        let daemon = command.spawn().context("failed to start a router's UPnP")?;
        let mut gateway = Self { space: space.clone(), log, daemon };
        let is_asked = || {
            let ended = gateway.daemon.try_wait()?;
            ensure!(ended.is_none(), "it ended: {ended:?}\n{}", gateway.log());
            Ok(gateway.space.inside(|| TcpStream::connect((INSIDE, PORT)))?.is_ok())
        };
        until_quietly(SOON, is_asked).context("a router's UPnP does not start")?;
        Ok(gateway)
    }

    /// What it passes on now, by the kernel's rules.
    ///
    /// # Errors
    ///
    /// `nft` refuses, or a rule is none of its form.
    pub fn mappings(&self) -> Result<BTreeSet<Mapping>> {
        let listed = self.space.nft_list(&["chain", "inet", TABLE, "mapped"])?;
        let listed = listed["nftables"].as_array().context("nothing is listed")?;
        let rules = listed.iter().filter_map(|entry| entry.get("rule"));
        rules.map(|rule| mapping(rule).with_context(|| format!("a rule of it: {rule}"))).collect()
    }

    /// What it said, for a failure to show.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as one is that is switched off in the router's settings: it takes its rules away.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn stop(mut self) -> Result<()> {
        let id = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw);
        kill_process(id.context("a child's id")?, Signal::TERM)?;
        until_quietly(SOON, || Ok(self.daemon.try_wait()?.is_some()))?;
        self.space.nft(&format!("delete table inet {TABLE}"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

/// Reads one of its rules: what comes from outside, of a transport, to a port, goes to another address.
fn mapping(rule: &Value) -> Option<Mapping> {
    let parts = rule["expr"].as_array()?;
    let right = |of: &dyn Fn(&Value) -> bool| {
        let matches = parts.iter().filter_map(|part| part.get("match"));
        matches.filter(|it| of(&it["left"])).find_map(|it| it["right"].as_u64())
    };
    // The protocol's number is the tenth byte of IPv4's header.
    let transport = match right(&|left| left["payload"]["offset"] == 72)? {
        6 => "tcp",
        17 => "udp",
        _ => return None,
    };
    let port = right(&|left| left["payload"]["field"] == "dport")?;
    let to = parts.iter().find_map(|part| part.get("dnat"))?;
    let inside = (to["addr"].as_str()?, to["port"].as_u64()?);
    Some(Mapping {
        transport,
        port: port.try_into().ok()?,
        to: SocketAddr::new(inside.0.parse().ok()?, inside.1.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_of_the_daemon_is_read_and_no_other() {
        // As nft 1.0.6 lists what miniupnpd 2.3.1 sets.
        let protocol = |number: u8| {
            json!({"match": {"op": "==", "left": {"payload": {"base": "nh", "offset": 72, "len": 8}},
                "right": number}})
        };
        let rest = [
            json!({"match": {"op": "==", "left": {"meta": {"key": "iif"}}, "right": "wan"}}),
            json!({"match": {"op": "==", "left": {"payload": {"protocol": "th", "field": "dport"}},
                "right": 4001}}),
            json!({"dnat": {"family": "ip", "addr": "192.168.1.10", "port": 4002}}),
        ];
        let rule = |number| {
            let parts = [&[protocol(number)][..], &rest[..]].concat();
            json!({"expr": parts})
        };
        let to = "192.168.1.10:4002".parse().unwrap();
        for (number, transport) in [(17, "udp"), (6, "tcp")] {
            assert_eq!(mapping(&rule(number)), Some(Mapping { transport, port: 4001, to }));
        }
        assert_eq!(mapping(&rule(1)), None);
        assert_eq!(mapping(&json!({"expr": rest})), None);
    }
}

//! Firewalls of this machine, as far as anybody may see them.
//!
//! Their rules can be read by root alone, so all that is known is whether one seems to be on.

use std::{fs, path::Path};

use super::{
    Finding,
    address::ports,
    contact,
    facts::{Answers, Facts},
};

/// A firewall that seems to be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Firewall {
    Ufw,
    Firewalld,
    Nftables,
}

impl Firewall {
    const fn name(self) -> &'static str {
        match self {
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
            Self::Nftables => "nftables",
        }
    }

    /// What lets a port in.
    fn opens(self, port: u16) -> String {
        match self {
            Self::Ufw => format!("sudo ufw allow {port}"),
            Self::Firewalld => format!(
                "sudo firewall-cmd --permanent --add-port={port}/udp --add-port={port}/tcp, then sudo \
                 firewall-cmd --reload"
            ),
            Self::Nftables => {
                format!("let UDP and TCP port {port} in, in /etc/nftables.conf")
            }
        }
    }
}

/// Those that seem to be on.
pub(super) fn read(root: &Path) -> Vec<Firewall> {
    let is_there = |path: &str| fs::symlink_metadata(root.join(path)).is_ok();
    let ufw = fs::read_to_string(root.join("etc/ufw/ufw.conf")).unwrap_or_default();
    let is_ufw_on = ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("enabled=yes"));
    let is_firewalld_on = is_there("run/firewalld.pid")
        || is_there("run/firewalld/firewalld.pid")
        || is_there("sys/fs/cgroup/system.slice/firewalld.service");
    let is_nftables_on = is_there("etc/systemd/system/sysinit.target.wants/nftables.service")
        || is_there("etc/systemd/system/multi-user.target.wants/nftables.service");
    let found = [
        (is_ufw_on, Firewall::Ufw),
        (is_firewalld_on, Firewall::Firewalld),
        (is_nftables_on, Firewall::Nftables),
    ];
    found.into_iter().filter(|(is_on, _)| *is_on).map(|(_, firewall)| firewall).collect()
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(answers) = facts.answers().filter(|it| !it.is_loopback()) else { return Vec::new() };
    let port = ports(&answers.status).first().copied();
    let (Some(firewall), Some(port)) = (facts.machine.firewalls.first(), port) else {
        return Vec::new();
    };
    let name = firewall.name();
    let what = format!("{name} is on; it must let in UDP and TCP port {port}");
    if is_anybody_silent(answers) {
        let why = "a device does not answer, and its answers may be kept out here";
        return vec![Finding::warning("firewall", what).why(why).advise(firewall.opens(port))];
    }
    vec![Finding::ok("firewall", what)]
}

/// Whether nothing came back from a device that is looked for.
fn is_anybody_silent(answers: &Answers) -> bool {
    contact::others(answers).any(|(device, contact)| {
        device["state"] != "here" && contact::endings(contact).any(|it| it == "no-answer")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firewall_is_seen_by_what_anybody_may_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()), []);
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("etc/ufw/ufw.conf", "# ENABLED=yes is on\nENABLED=no\n");
        write("run/firewalld.pid", "1\n");
        assert_eq!(read(root.path()), [Firewall::Firewalld]);
        write("etc/ufw/ufw.conf", "ENABLED=yes\nLOGLEVEL=low\n");
        assert_eq!(read(root.path()), [Firewall::Ufw, Firewall::Firewalld]);
    }
}

//! Firewalls of this machine, as far as anybody may see them.
//!
//! Their rules can be read by root alone, so all that is known is whether one seems to be on.

use std::{fs, path::Path};

use super::{
    Finding,
    address::ports,
    attempt, contact,
    facts::{Answers, Facts},
};
use crate::cli::terminal::text;

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
    let must = format!("it must let in UDP and TCP port {port}");
    match silent(answers).as_slice() {
        [] => vec![Finding::ok("firewall", format!("{name} is on; {must}"))],
        silent => {
            let dialled = format!("this device dialled {} in vain", silent.join("; and "));
            let why = format!("what comes from there may be kept out here: {must}");
            vec![
                Finding::warning("firewall", format!("{name} is on, and {dialled}"))
                    .why(why)
                    .advise(firewall.opens(port)),
            ]
        }
    }
}

/// The devices that are looked for and from which nothing came back, each with where it was dialled and over
/// what.
fn silent(answers: &Answers) -> Vec<String> {
    contact::others(answers)
        .filter(|(device, _)| device["state"] != "here")
        .map(|(device, contact)| (text(device, "name"), attempt::places(contact, "no-answer")))
        .filter(|(_, places)| !places.is_empty())
        .map(|(name, places)| format!("{name} at {places}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::{Level, sample};

    #[test]
    fn who_was_dialled_in_vain_is_named_with_where_and_over_what() {
        let said = |change: fn(&mut Answers)| {
            let found = sample::findings(check, |facts| {
                facts.machine.firewalls = vec![Firewall::Ufw];
                change(sample::answers(facts));
            });
            let Finding { level, what, why, to_do, .. } =
                found.into_iter().next().expect("one is on");
            (level, what, why, to_do)
        };
        let (level, what, ..) = said(|_| ());
        let must = "it must let in UDP and TCP port 4711";
        assert_eq!((level, what), (Level::Ok, format!("ufw is on; {must}")));
        let (level, what, why, to_do) = said(|answers| {
            sample::lose(answers, "phone", "no-answer");
            let contact = &mut answers.checkup["devices"][0];
            let mut udp = contact["failed"]["attempts"][0].clone();
            udp["address"] = "/ip4/192.168.1.7/udp/4711/quic-v1".into();
            contact["failed"]["attempts"].as_array_mut().unwrap().push(udp);
            sample::lose(answers, "server", "no-answer");
        });
        assert_eq!(level, Level::Warning);
        assert_eq!(
            what,
            "ufw is on, and this device dialled phone at 192.168.1.7:4711 by UDP and TCP; and server at \
             203.0.113.5:4711 by TCP in vain"
        );
        assert_eq!(why, Some(format!("what comes from there may be kept out here: {must}")));
        assert_eq!(to_do, ["sudo ufw allow 4711"]);
        // Where the other machine says no, nothing is kept out.
        let (level, ..) = said(|answers| sample::lose(answers, "phone", "refused"));
        assert_eq!(level, Level::Ok);
    }

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

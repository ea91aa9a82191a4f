//! This machine's network interfaces, as far as its system tells.

use std::{fs, path::Path};

use super::{Finding, facts::Facts};

/// Linux' interface flags (`linux/if.h`).
const UP: u32 = 0x1;
const LOOPBACK: u32 = 0x8;
const POINT_TO_POINT: u32 = 0x10;
const MULTICAST: u32 = 0x1000;

/// An interface that carries packets to other machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) flags: u32,
}

impl Interface {
    /// Whether other machines are in one network with it that could hear a multicast, and it sends none.
    fn lacks_multicast(&self) -> bool {
        self.flags & (MULTICAST | POINT_TO_POINT) == 0
    }
}

/// Those that are up, without loopback; `None`: the system does not tell.
pub(super) fn read(root: &Path) -> Option<Vec<Interface>> {
    let folders = fs::read_dir(root.join("sys/class/net")).ok()?;
    let mut interfaces: Vec<_> = folders
        .flatten()
        .filter_map(|folder| {
            let text = fs::read_to_string(folder.path().join("flags")).ok()?;
            let flags = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
            let name = folder.file_name().to_string_lossy().into_owned();
            Some(Interface { name, flags })
        })
        .filter(|it| it.flags & UP != 0 && it.flags & LOOPBACK == 0)
        .collect();
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    Some(interfaces)
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(interfaces) = &facts.machine.interfaces else { return Vec::new() };
    let looks_around = match facts.answers() {
        Some(answers) => !answers.is_loopback(),
        None => facts.machine.looks_around,
    };
    if !looks_around {
        return Vec::new();
    }
    if interfaces.is_empty() {
        return vec![
            Finding::warning("interfaces", "no network interface of this machine is up")
                .why("no other machine is reached")
                .advise("connect it to a network"),
        ];
    }
    let names: Vec<_> = interfaces.iter().map(|it| it.name.as_str()).collect();
    let deaf: Vec<_> = interfaces.iter().filter(|it| it.lacks_multicast()).collect();
    if let [first, ..] = deaf.as_slice() {
        let name = &first.name;
        return vec![
            Finding::warning("interfaces", format!("{name} is up, and carries no multicast"))
                .why("devices in that network don't find each other by themselves")
                .advise(format!("sudo ip link set {name} multicast on")),
        ];
    }
    vec![Finding::ok("interfaces", format!("{} up", names.join(", ")))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_interfaces_that_lead_out_are_read() {
        let root = tempfile::tempdir().unwrap();
        for (name, flags) in
            [("lo", "0x9\n"), ("eth0", "0x1003\n"), ("wlan0", "0x1002\n"), ("wg0", "0x91\n")]
        {
            let folder = root.path().join("sys/class/net").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("flags"), flags).unwrap();
        }
        let found = read(root.path()).unwrap();
        let names: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["eth0", "wg0"], "one is down, one is the machine's own");
        assert!(!found.iter().any(Interface::lacks_multicast), "a tunnel has none to send");
        assert_eq!(read(&root.path().join("none")), None);
    }
}

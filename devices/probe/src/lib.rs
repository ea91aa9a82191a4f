//! What this machine is and what it may spend: the [`Profile`] that its node starts from.
//!
//! A profile has two halves. What a device of its kind may spend ([`Limits`]) is written in
//! `devices/profiles`, which the program carries. What this machine has is read from the system:
//! processors, memory, and the charge of a battery that it runs on.
//!
//! One walk through it: [`Probe::read`] takes the limits of the kind, counts processors, reads
//! `/proc/meminfo` and the limits of the control groups around this process, and goes through
//! `/sys/class/power_supply`. The node asks [`Probe::battery`] again from time to time and tells the
//! other devices in its presence.
//!
//! Nothing here fails: what can't be read is not known, and says so by `None`. On systems other than
//! Linux that is all but the processors; on Android the battery too, where the system hides it.
//!
//! Deliberately not here: what follows from a profile (placement, in `weft-core`), and models with
//! their speed, which are measured as they run. Not measured at all: whether the network costs money,
//! free storage, temperature, and how busy the machine is with other things.

#![forbid(unsafe_code)]

mod battery;
mod limits;
mod memory;

use std::{
    fs,
    path::{Path, PathBuf},
};

use weft_protocol::device::Kind;

use crate::battery::Supply;

pub use crate::limits::Limits;

/// What a machine is, has and may spend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// The kind that its person gave it.
    pub kind: Kind,
    /// What a device of that kind may spend.
    pub limits: Limits,
    /// Processors that this process may use, at least 1.
    pub cores: usize,
    /// Memory that this process may use at most, in bytes; `None`: not known.
    pub memory_bytes: Option<u64>,
    /// Charge in percent while the machine runs on battery; `None`: it does not, or that is not known.
    pub battery: Option<u8>,
}

/// Reads this machine. Each reading takes a few small files that the kernel makes up: well under a
/// millisecond, no disk.
#[derive(Clone, Debug)]
pub struct Probe {
    root: PathBuf,
}

impl Default for Probe {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl Probe {
    /// The profile of this machine, as a device of that kind.
    pub fn read(&self, kind: Kind) -> Profile {
        Profile {
            kind,
            limits: Limits::of(kind),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: self.memory_bytes(),
            battery: self.battery(),
        }
    }

    /// The charge in percent while the machine runs on battery.
    pub fn battery(&self) -> Option<u8> {
        let folders = fs::read_dir(self.root.join("sys/class/power_supply")).ok()?;
        let supplies: Vec<Supply> = folders
            .flatten()
            .filter_map(|folder| {
                let kind = text(&folder.path().join("type"))?;
                let properties = text(&folder.path().join("uevent"))?;
                Supply::parse(&kind, &properties)
            })
            .collect();
        battery::charge(&supplies)
    }

    fn memory_bytes(&self) -> Option<u64> {
        let installed = memory::installed(&text(&self.root.join("proc/meminfo"))?)?;
        let groups = text(&self.root.join("proc/self/cgroup")).unwrap_or_default();
        let group = memory::group(&groups).unwrap_or(Path::new(""));
        let limits = group.ancestors().filter_map(|group| {
            let folder = self.root.join("sys/fs/cgroup").join(group);
            memory::limit(&text(&folder.join("memory.max"))?)
        });
        limits.chain([installed]).min()
    }
}

/// A file's text, where it can be read.
fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine made of files.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn of(files: &[(&str, &str)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for (path, content) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Self(root)
        }

        fn probe(&self) -> Probe {
            Probe { root: self.0.path().to_owned() }
        }
    }

    #[test]
    fn a_laptop_off_its_charger_knows_its_charge() {
        let laptop = Machine::of(&[
            ("sys/class/power_supply/AC/type", "Mains\n"),
            ("sys/class/power_supply/AC/uevent", "POWER_SUPPLY_ONLINE=0\n"),
            ("sys/class/power_supply/BAT0/type", "Battery\n"),
            (
                "sys/class/power_supply/BAT0/uevent",
                "POWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_CAPACITY=81\n",
            ),
        ]);
        assert_eq!(laptop.probe().battery(), Some(81));
    }

    #[test]
    fn memory_is_what_the_narrowest_control_group_leaves() {
        let service = Machine::of(&[
            ("proc/meminfo", "MemTotal:        2048000 kB\n"),
            ("proc/self/cgroup", "0::/system.slice/weft.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "536870912\n"),
            ("sys/fs/cgroup/system.slice/weft.service/memory.max", "max\n"),
        ]);
        assert_eq!(service.probe().read(Kind::Server).memory_bytes, Some(512 << 20));

        let free = Machine::of(&[("proc/meminfo", "MemTotal:        2048000 kB\n")]);
        assert_eq!(free.probe().read(Kind::Server).memory_bytes, Some(2_048_000 << 10));
    }

    #[test]
    fn a_machine_that_tells_nothing_still_has_a_profile() {
        let silent = Machine::of(&[]);
        let profile = silent.probe().read(Kind::Phone);
        assert_eq!((profile.memory_bytes, profile.battery), (None, None));
        assert_eq!(profile.limits, Limits::of(Kind::Phone));
        assert!(profile.cores >= 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_is_read() {
        let memory = Probe::default().read(Kind::Laptop).memory_bytes.unwrap();
        assert!(memory > 64 << 20, "{memory} bytes can't run this test");
    }
}

//! What this machine is and what it may spend.
//!
//! What a device of a kind may spend ([`Limits`]) is written in `devices/profiles`, which the program
//! carries. What this machine has is read from the system: its processors and how busy they are, memory,
//! room on the disk, the charge of a battery that it runs on, and whether its network costs money.
//!
//! One walk through it: [`Probe::machine`] counts processors, reads `/proc/loadavg`, `/proc/meminfo` and
//! the limits of the control groups around this process, and asks the file system of the home for its
//! room; [`Probe::battery`] goes through `/sys/class/power_supply`; [`Probe::metered`] asks
//! NetworkManager on the system's bus. The node does so from time to time and tells the other devices in
//! its presence.
//!
//! Nothing here fails: what can't be read is not known, and says so by `None`. On systems other than
//! Linux that is all but processors and room; on Android load and battery too, where the system hides
//! them, and the network.
//!
//! Deliberately not here: what follows from all this (placement, in `weft-core`), and models with their
//! speed, which are measured as they run. Not measured at all: temperature.

#![forbid(unsafe_code)]

mod battery;
mod limits;
mod load;
mod memory;
mod metered;
mod storage;

use std::{
    fs,
    path::{Path, PathBuf},
};

use weft_protocol::presence::Machine;

use crate::battery::Supply;

pub use crate::limits::Limits;

/// Reads this machine. But for [`metered`](Self::metered), each reading takes a few small files that the
/// kernel makes up: well under a millisecond, no disk.
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
    /// What this machine has, whose node keeps its data in the folder `home`.
    pub fn machine(&self, home: &Path) -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Machine {
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            load_percent: self.load_percent(cores),
            memory_bytes: self.memory_bytes(),
            storage_free_bytes: storage::free(home),
        }
    }

    /// Whether the network costs money, where that is known. Waits for two seconds at most; dropping the
    /// future is safe.
    pub async fn metered(&self) -> Option<bool> {
        metered::ask(&self.root).await
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

    fn load_percent(&self, cores: usize) -> Option<u8> {
        let online = text(&self.root.join("sys/devices/system/cpu/online"));
        let processors = online.and_then(|online| load::processors(&online));
        let processors = processors.or_else(|| u64::try_from(cores).ok())?;
        load::percent(&text(&self.root.join("proc/loadavg"))?, processors)
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

        fn read(&self) -> super::Machine {
            self.probe().machine(self.0.path())
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
        assert_eq!(service.read().memory_bytes, Some(512 << 20));

        let free = Machine::of(&[("proc/meminfo", "MemTotal:        2048000 kB\n")]);
        assert_eq!(free.read().memory_bytes, Some(2_048_000 << 10));
    }

    #[test]
    fn a_process_on_few_processors_still_tells_how_busy_all_are() {
        let large = Machine::of(&[
            ("sys/devices/system/cpu/online", "0-63\n"),
            ("proc/loadavg", "16.00 9.00 4.00 17/900 4321\n"),
        ]);
        assert_eq!(large.read().load_percent, Some(30));
        let busy = Machine::of(&[("proc/loadavg", "5000.00 9.00 4.00 17/900 4321\n")]);
        assert_eq!(busy.read().load_percent, Some(100), "whatever the processors are");
    }

    #[tokio::test]
    async fn a_machine_that_tells_nothing_is_still_one() {
        let silent = Machine::of(&[]);
        let read = silent.read();
        assert!(read.cores >= 1);
        assert_eq!((read.load_percent, read.memory_bytes), (None, None));
        assert!(read.storage_free_bytes.is_some(), "its files lie somewhere");
        assert_eq!(silent.probe().battery(), None);
        assert_eq!(silent.probe().metered().await, None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_is_read() {
        let read = Probe::default().machine(Path::new("/"));
        let memory = read.memory_bytes.unwrap();
        assert!(memory > 64 << 20, "{memory} bytes can't run this test");
        assert!(read.load_percent.is_some() && read.storage_free_bytes.is_some(), "{read:?}");
    }
}

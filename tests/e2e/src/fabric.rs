//! Devices in one folder.

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tempfile::TempDir;

use crate::{Device, program};

/// One fabric at a time: three nodes and their children are enough for two cores.
static TURN: Mutex<()> = Mutex::new(());

/// A folder of homes, with a device for each name. Everything in it ends with it.
#[derive(Debug)]
pub struct Fabric<const N: usize> {
    // Dropped in this order: processes, then their folder, then the turn.
    devices: [Device; N],
    folder: TempDir,
    #[expect(dead_code, reason = "held until the end")]
    turn: MutexGuard<'static, ()>,
}

impl<const N: usize> Fabric<N> {
    /// Devices whose homes do not exist yet. A name is also the kind, as far as there is such a kind.
    pub fn new(names: [&str; N]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = program::folder();
        let devices = names.map(|name| {
            let kind = ["laptop", "phone", "server"].into_iter().find(|kind| name.contains(kind));
            Device::new(folder.path(), name, kind.unwrap_or("laptop"))
        });
        Self { devices, folder, turn }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Begins a fabric on the first device, lets all others join, and waits until all are here.
    #[track_caller]
    pub fn pair(names: [&str; N]) -> Self {
        let mut fabric = Self::new(names);
        let [first, others @ ..] = &mut fabric.devices[..] else { return fabric };
        let (name, kind) = (first.name().to_owned(), first.kind().to_owned());
        let begun = first.run(&["init", "--name", &name, "--kind", &kind]);
        assert_eq!(begun.code, Some(0), "{begun}");
        first.up();
        for device in others {
            let joined = device.join(&first.invite());
            assert_eq!(joined.code, Some(0), "{joined}");
            device.up();
        }
        fabric.meet(names);
        fabric
    }

    /// A further device in the same folder, of which the fabric knows nothing.
    pub fn further(&self, name: &str) -> Device {
        Device::new(self.folder.path(), name, "laptop")
    }

    /// Waits until each of these devices sees the others here.
    #[track_caller]
    pub fn meet<const M: usize>(&self, names: [&str; M]) {
        for device in self.devices.iter().filter(|device| names.contains(&device.name())) {
            let others: Vec<_> =
                names.iter().copied().filter(|name| *name != device.name()).collect();
            device.until_here(&others);
        }
    }
}

impl<const N: usize> Deref for Fabric<N> {
    type Target = [Device; N];

    fn deref(&self) -> &[Device; N] {
        &self.devices
    }
}

impl<const N: usize> DerefMut for Fabric<N> {
    fn deref_mut(&mut self) -> &mut [Device; N] {
        &mut self.devices
    }
}

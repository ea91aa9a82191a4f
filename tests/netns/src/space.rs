//! The kernel's network namespaces of one test, and what is done in them.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tempfile::TempDir;

use crate::process::hear;

/// How long one `ip` or `nft` may take.
const TOOL: Duration = Duration::from_secs(10);

/// What the names of folders begin with, and after them those of their namespaces.
const PREFIX: &str = "weft-";

/// Which addresses interfaces have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4 alone: the kernel sends nothing of its own accord then.
    V4,
    /// IPv6 alone, except for loopback.
    V6,
}

/// The namespaces of one test. Dropping them removes them, and with them their interfaces, and the
/// folder that homes and logs lie in.
///
/// Where the test was killed, the next one does so: the folder is locked as long as its test lives.
#[derive(Debug)]
pub(crate) struct Spaces {
    folder: TempDir,
    family: Family,
    names: Vec<String>,
    #[cfg_attr(not(test), expect(dead_code, reason = "held until the end"))]
    lock: File,
}

/// One namespace.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    name: String,
}

impl Spaces {
    /// None yet.
    pub(crate) fn new(family: Family) -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let lock = File::open(folder.path())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { folder, family, names: Vec::new(), lock })
    }

    /// Makes a namespace with its own loopback.
    pub(crate) fn add(&mut self, name: &str) -> Result<Space> {
        let random = self.folder.path().file_name().unwrap_or_default().to_string_lossy();
        let space = Space { name: format!("{random}-{name}") };
        hear(Command::new("ip").args(["netns", "add", &space.name]), TOOL)
            .context("namespaces can't be made here")?;
        self.names.push(space.name.clone());
        space.ip(&["link", "set", "lo", "up"])?;
        for of in ["all", "default"] {
            match self.family {
                Family::V4 => space.set(&format!("ipv6/conf/{of}/disable_ipv6"), "1")?,
                // An address serves at once.
                Family::V6 => space.set(&format!("ipv6/conf/{of}/accept_dad"), "0")?,
            }
        }
        Ok(space)
    }

    /// The folder that homes and logs lie in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for name in self.names.drain(..) {
            if let Err(error) = remove(&name) {
                eprintln!("failed to remove a namespace: {error:#}");
            }
        }
    }
}

impl Space {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Has `ip` do that here.
    pub(crate) fn ip(&self, words: &[&str]) -> Result<()> {
        hear(Command::new("ip").args(["-n", &self.name]).args(words), TOOL).map(drop)
    }

    /// Has `tc` do that here.
    pub(crate) fn tc(&self, words: &[&str]) -> Result<()> {
        hear(Command::new("tc").args(["-n", &self.name]).args(words), TOOL).map(drop)
    }

    /// Has `nft` read that here.
    pub(crate) fn nft(&self, rules: &str) -> Result<()> {
        hear(self.command(Path::new("nft")).arg(rules), TOOL).map(drop)
    }

    /// What `nft` lists here, as JSON.
    pub(crate) fn nft_list(&self, words: &[&str]) -> Result<serde_json::Value> {
        let listed = hear(self.command(Path::new("nft")).args(["-j", "list"]).args(words), TOOL)?;
        Ok(serde_json::from_str(&listed)?)
    }

    /// Sets what lies under `/proc/sys/net`, where the kernel has it.
    pub(crate) fn set(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(name);
        self.inside(|| if path.exists() { fs::write(&path, value) } else { Ok(()) })?
            .with_context(|| format!("failed to set {name}"))
    }

    /// Does something on a thread that is in this namespace: sockets that it opens stay there.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        let space = File::open(Path::new("/run/netns").join(&self.name))?;
        let enter = || move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network));
        let acted = thread::scope(|scope| scope.spawn(|| enter().map(|()| act())).join());
        match acted {
            Ok(acted) => acted.context("failed to enter a namespace"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A program that runs here. It becomes the program itself, so killing the child kills it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

/// Removes what tests left that were killed: their namespaces, what still runs in them, their
/// folders.
fn sweep() {
    let temporary = std::env::temp_dir();
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(folder) = folder_of(&temporary, &name) else { continue };
        // Another sweep may be at it, or the test lives.
        let Ok(lock) = File::open(&folder) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let removed = remove(&name);
        eprintln!("removed {name}, which a test left behind: {removed:?}");
        let is_last = fs::read_dir("/run/netns").is_ok_and(|rest| {
            !rest.flatten().any(|it| {
                let rest = it.file_name();
                folder_of(&temporary, &rest.to_string_lossy()).as_ref() == Some(&folder)
            })
        });
        if is_last {
            fs::remove_dir_all(&folder).ok();
        }
    }
}

/// The folder of the test that made a namespace, if its name is of that form.
fn folder_of(temporary: &Path, name: &str) -> Option<PathBuf> {
    let (random, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Some(temporary.join(format!("{PREFIX}{random}")))
}

/// Removes a namespace, and ends first what still runs in it.
fn remove(name: &str) -> Result<()> {
    let inside = hear(Command::new("ip").args(["netns", "pids", name]), TOOL)?;
    for id in inside.lines().filter_map(|line| line.trim().parse().ok()).filter_map(Pid::from_raw) {
        // It may end by itself meanwhile.
        kill_process(id, Signal::KILL).ok();
    }
    hear(Command::new("ip").args(["netns", "del", name]), TOOL).map(drop)
}

/// Whether the rules of a firewall can be set here.
pub(crate) fn has_nft(space: &Space) -> Result<()> {
    space.nft("add table ip probe\ndelete table ip probe").context("`nft` does not work here")?;
    let zones = "add table ip probe
        add chain ip probe zone { type filter hook prerouting priority raw; }
        add rule ip probe zone ct zone set 1
        delete table ip probe";
    space.nft(zones).context("the kernel does not track connections here")?;
    let address_translation = "add table ip probe
        add chain ip probe out { type nat hook postrouting priority srcnat; }
        add rule ip probe out masquerade fully-random
        delete table ip probe";
    space.nft(address_translation).context("the kernel does not translate addresses here")?;
    let listed = space.nft_list(&["tables"])?;
    ensure!(listed["nftables"].is_array(), "`nft` speaks no JSON here: {listed}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_tests_lead_to_a_folder() {
        let of = |name: &str| folder_of(Path::new("/tmp"), name);
        assert_eq!(of("weft-aB3xYz-to-laptop"), Some("/tmp/weft-aB3xYz".into()));
        for other in ["", "weft", "weft-aB3xYz", "somebody-elses", "Weft-a-b"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_test_that_lives_is_not_swept_and_one_that_was_killed_is() -> Result<()> {
        let Ok(mut spaces) = Spaces::new(Family::V4) else { return Ok(()) };
        let space = match spaces.add("swept") {
            Ok(space) => space,
            Err(error) => {
                eprintln!("NOT RUN: {error:#}");
                return Ok(());
            }
        };
        let path = Path::new("/run/netns").join(space.name());
        sweep();
        ensure!(path.exists(), "it was taken from a test that lives");
        // As the kernel lets go of what a killed one held.
        flock(&spaces.lock, FlockOperation::Unlock)?;
        sweep();
        ensure!(!path.exists() && !spaces.folder().exists(), "it was left behind");
        spaces.names.clear();
        Ok(())
    }
}

//! Keys in this process's memory, and who can get at them.
//!
//! Deliberately not here: locking memory, so that it is never swapped out. What an ordinary user may
//! lock is less than a node's copies of its keys spread over; swap is to be encrypted or off.

use anyhow::{Context as _, Result};

/// Closes this process's memory to the user's other processes (`/proc/PID/mem`, `environ`, debuggers)
/// and to core dumps. Comes before any key is read; a program that is executed anew begins open again.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn protect() -> Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("failed to close this process's memory to others")?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .context("failed to forbid core dumps")
}

/// Other systems have no call for it here; their core dumps are off unless somebody turns them on.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn protect() -> Result<()> {
    Ok(())
}

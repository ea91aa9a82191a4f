//! The steps on Linux, in the one order in which they work.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::filter::{self, Stage};
use super::{Proof, Wall, WallError, landlock, probe};

/// A millisecond each: long for a task to end, short for a start that fails anyway.
const ENDING_CHECKS: u32 = 100;

pub(super) fn ask() -> Result<(), WallError> {
    count_threads()?;
    filter::ask()
}

pub(super) fn enter(wall: Wall) -> Result<Proof, WallError> {
    require_one_thread()?;
    // From here `/proc/self` belongs to root: nothing may be looked up in it any more.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused("forbid dumps"))?;
    limit(Resource::Core, 0)?;
    limit_memory(wall.memory_bytes)?;
    let landlock = landlock::restrict(&[], &[])?;
    filter::apply(Stage::Closed { threads: wall.allow_threads })?;
    Ok(Proof { refused: probe::all(wall)?, landlock })
}

pub(super) fn narrow(
    readable: &[BorrowedFd<'_>],
    memory_bytes: Option<u64>,
) -> Result<(), WallError> {
    require_one_thread()?;
    limit_memory(memory_bytes)?;
    landlock::restrict(readable, &["/proc/self", "/sys/devices/system/cpu"])?;
    filter::apply(Stage::Loading)
}

fn require_one_thread() -> Result<(), WallError> {
    // A thread that was joined is a task of the kernel's for some microseconds more.
    for _ in 0..ENDING_CHECKS {
        if count_threads()? == 1 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    match count_threads()? {
        1 => Ok(()),
        count => Err(WallError::Threads { count }),
    }
}

fn count_threads() -> Result<usize, WallError> {
    let tasks = std::fs::read_dir("/proc/self/task");
    Ok(tasks.map_err(|source| WallError::Refused { step: "count threads", source })?.count())
}

fn limit_memory(bytes: Option<u64>) -> Result<(), WallError> {
    bytes.map_or(Ok(()), |bytes| limit(Resource::As, bytes))
}

fn limit(resource: Resource, value: u64) -> Result<(), WallError> {
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(resource, limit).map_err(refused("set a limit"))
}

fn refused(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> WallError {
    move |errno| WallError::Refused { step, source: io::Error::from(errno) }
}

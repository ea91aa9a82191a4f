//! The wall itself, put up by the child around itself, and the proof that it stands.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod filter;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod landlock;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod linux;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod probe;

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod linux {
    //! Where there is no wall, nothing pretends to be one.

    use super::{BorrowedFd, Proof, Wall, WallError};

    pub(super) fn ask() -> Result<(), WallError> {
        Err(WallError::Unavailable)
    }

    pub(super) fn enter(_wall: Wall) -> Result<Proof, WallError> {
        Err(WallError::Unavailable)
    }

    pub(super) fn narrow(
        _readable: &[BorrowedFd<'_>],
        _memory_bytes: Option<u64>,
    ) -> Result<(), WallError> {
        Err(WallError::Unavailable)
    }
}

/// What a child may still do behind its wall, beyond reading and writing what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wall {
    /// It may start threads (never processes).
    pub allow_threads: bool,
    /// The most address space it may hold, in bytes, from now on. Address space, not memory in use:
    /// a mapped model and the space that a WebAssembly runtime reserves count in full.
    pub memory_bytes: Option<u64>,
}

/// Why a wall does not stand. The child must end and take no work.
#[derive(Debug, thiserror::Error)]
pub enum WallError {
    /// This system has none that the project knows.
    #[error("put up the wall: this system has none")]
    Unavailable,
    /// Landlock binds only the thread that asks, so there must be no other yet.
    #[error("put up the wall: the process already runs {count} threads")]
    Threads {
        /// Threads that run.
        count: usize,
    },
    /// The system refused a step.
    #[error("put up the wall: {step}: {source}")]
    Refused {
        /// The step.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// What the wall must refuse went through.
    #[error("prove the wall: it let through: {attempt}")]
    Breach {
        /// What went through.
        attempt: &'static str,
    },
    /// An attempt failed, but not as the wall makes it fail, so it proves nothing.
    #[error("prove the wall: {attempt} failed for another reason: {source}")]
    Unproven {
        /// What was tried.
        attempt: &'static str,
        /// How it failed.
        source: io::Error,
    },
    /// What the wall must allow does not work.
    #[error("prove the wall: {attempt} must work behind it: {source}")]
    Broken {
        /// What was tried.
        attempt: &'static str,
        /// How it failed.
        source: io::Error,
    },
}

/// Whether Landlock stands in front of the filter as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landlock {
    /// All of it that this project knows.
    Full,
    /// As much as this kernel has.
    Partial,
    /// This kernel has none. The filter alone holds.
    Missing,
}

/// One attempt that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was tried.
    pub attempt: &'static str,
    /// The error number that came back.
    pub errno: i32,
}

/// What was tried from behind the wall, all of it refused. Only [`enter`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proof {
    /// Each attempt, in the order in which they were made.
    pub refused: Vec<Refusal>,
    /// Whether Landlock stands too.
    pub landlock: Landlock,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let landlock = match self.landlock {
            Landlock::Full => "full",
            Landlock::Partial => "partial",
            Landlock::Missing => "missing",
        };
        write!(f, "seccomp, landlock {landlock}, refused:")?;
        for (index, refusal) in self.refused.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma} {}", refusal.attempt)?;
        }
        Ok(())
    }
}

/// Whether this system has what a wall needs, as far as it says without one being put up. Changes nothing.
/// A child's [`enter`] may still fail.
///
/// # Errors
///
/// [`WallError::Unavailable`] or [`WallError::Refused`]: no child should be started.
pub fn ask() -> Result<(), WallError> {
    linux::ask()
}

/// Walls this process in for good and proves it by trying to get out.
///
/// From here on the kernel refuses, with an error rather than an end, every call that is not on a
/// short list: no path, no socket, no process, no signal to others. Landlock is added where the
/// kernel has it. The process can't be traced or dumped by others of its user.
///
/// # Errors
///
/// [`WallError`]. The wall may then stand in part; the only thing to do is to end.
pub fn enter(wall: Wall) -> Result<Proof, WallError> {
    linux::enter(wall)
}

/// A first, wider wall for a child that must load a file through a library that wants a path.
///
/// Paths can still be opened, for reading only, and with Landlock none but the files given here
/// (by `/proc/self/fd/N`), `/proc/self` and the description of the processors. No socket, process
/// or signal. [`enter`] follows when it is loaded. Threads are allowed until then. The bound on
/// address space ([`Wall::memory_bytes`]) holds from here on.
///
/// # Errors
///
/// [`WallError`]; the only thing to do is to end.
pub fn narrow(readable: &[BorrowedFd<'_>], memory_bytes: Option<u64>) -> Result<(), WallError> {
    linux::narrow(readable, memory_bytes)
}

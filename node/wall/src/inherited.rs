//! What a child was given at its start: its role, its socket, its files.

use std::fs::File;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::child::{CHILD_ARGUMENT, FIRST_FILE, SOCKET};

/// Descriptors handed out so far, a bit each: an owner is made at most once.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Why a child did not get a descriptor.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InheritError {
    /// This process was not started by [`crate::Spawn`].
    #[error("take an inherited descriptor: this process is not a child")]
    NotAChild,
    /// The parent gave fewer files.
    #[error("take file {index}: the parent gave {given}")]
    NotGiven {
        /// The file that was asked for, from 0.
        index: usize,
        /// How many the parent gave.
        given: usize,
    },
    /// It was taken before.
    #[error("take an inherited descriptor: it was taken before")]
    Taken,
}

/// The role that this process was started in, `None` if it is no child.
///
/// `main` asks this first: a child must not start threads before [`crate::enter`].
#[must_use]
pub fn role() -> Option<String> {
    start().map(|(role, _)| role)
}

/// Takes the socket to the parent, once.
///
/// # Errors
///
/// [`InheritError`] when this is no child or it was taken before.
pub fn socket() -> Result<UnixStream, InheritError> {
    start().ok_or(InheritError::NotAChild)?;
    take(SOCKET).map(UnixStream::from)
}

/// Takes the file with this index (from 0, in the order in which the parent gave them), once.
///
/// # Errors
///
/// [`InheritError`] when this is no child, it was not given, or was taken before.
pub fn file(index: usize) -> Result<File, InheritError> {
    let (_, given) = start().ok_or(InheritError::NotAChild)?;
    let number = RawFd::try_from(index).ok().filter(|_| index < given);
    let number = number.ok_or(InheritError::NotGiven { index, given })?;
    take(FIRST_FILE + number).map(File::from)
}

/// Role and number of files, from the hidden arguments.
fn start() -> Option<(String, usize)> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != CHILD_ARGUMENT {
        return None;
    }
    Some((arguments.next()?, arguments.next()?.parse().ok()?))
}

fn take(descriptor: RawFd) -> Result<OwnedFd, InheritError> {
    let bit = u32::try_from(descriptor).ok().and_then(|shift| 1_u64.checked_shl(shift));
    let bit = bit.ok_or(InheritError::Taken)?;
    if TAKEN.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Err(InheritError::Taken);
    }
    // SAFETY: `Spawn` put this descriptor there before the program started and said so in the
    // arguments, nothing else in this process knows its number, and the bit above makes this the
    // only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_child_gets_nothing() {
        assert_eq!(role(), None);
        assert_eq!(socket().expect_err("no child"), InheritError::NotAChild);
        assert_eq!(file(0).expect_err("no child"), InheritError::NotAChild);
    }
}

//! Disk space kept back for the audit: a file beside the store that is only there to be given up.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

use crate::key::sync_parent;

/// What is kept back, in bytes: some ten thousand audit records.
pub(crate) const LEN: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    held: AtomicBool,
}

impl Reserve {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, held: AtomicBool::new(false) }
    }

    pub(crate) fn held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Allocates the file, unless it is there; a part of it is not kept.
    ///
    /// It leaves as much again to the store: space that was released on a full disk is there to be
    /// written to, not to be taken back by the next start.
    pub(crate) fn hold(&self) -> io::Result<()> {
        let held = self.allocate();
        if held.is_err() {
            self.release()?;
        }
        self.held.store(held.is_ok(), Ordering::Relaxed);
        held
    }

    fn allocate(&self) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)?;
        let disk = fstatvfs(&file)?;
        if file.metadata()?.len() < LEN && disk.f_bavail * disk.f_frsize < 2 * LEN {
            return Err(io::ErrorKind::StorageFull.into());
        }
        fallocate(&file, FallocateFlags::empty(), 0, LEN)?;
        file.sync_all()?;
        sync_parent(&self.path)
    }

    /// Gives the space back to the file system.
    pub(crate) fn release(&self) -> io::Result<()> {
        self.held.store(false, Ordering::Relaxed);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_parent(&self.path),
        }
    }
}

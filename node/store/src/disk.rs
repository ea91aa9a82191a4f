//! The file under redb, which takes no more bytes after one write or sync has failed.
//!
//! A failed fsync tells nothing about what reached the disk, and trying again can report success
//! for pages that the system has dropped. So the first failure freezes the file: what redb writes
//! afterwards lies in memory and is read from there. The file stays as a crash would have left it,
//! which is what redb recovers from, and reads go on.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use redb::{BackendError, StorageBackend};

use crate::writer::WriteError;

/// Granularity of what is kept in memory after a failure: redb's page.
const BLOCK: u64 = 4096;

/// Whether the store still takes writes.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failure: OnceLock<WriteError>,
}

impl Health {
    /// The first failure, if there was one.
    pub(crate) fn failure(&self) -> Option<&WriteError> {
        self.failure.get()
    }

    /// Notes a failure; the first one stands.
    pub(crate) fn fail(&self, error: WriteError) {
        if let Ok(()) = self.failure.set(error.clone()) {
            tracing::error!(%error, "the store takes no more writes");
        }
    }

    /// The first failure as a result.
    pub(crate) fn check(&self) -> Result<(), WriteError> {
        self.failure().map_or(Ok(()), |error| Err(error.clone()))
    }
}

#[derive(Debug)]
pub(crate) struct Disk<B> {
    file: B,
    health: Arc<Health>,
    /// Whether each sync that is asked for reaches the file.
    is_synced: bool,
    frozen: Mutex<Option<Frozen>>,
}

/// What was written after the failure.
#[derive(Debug)]
struct Frozen {
    /// Length of the part of the file that still counts.
    file_len: u64,
    len: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl<B: StorageBackend> Disk<B> {
    pub(crate) fn new(file: B, health: Arc<Health>) -> Self {
        Self { file, health, is_synced: true, frozen: Mutex::new(None) }
    }

    /// One that nobody counts on yet: whoever made it syncs the file once, when it is whole.
    pub(crate) fn unsynced(file: B, health: Arc<Health>) -> Self {
        Self { is_synced: false, ..Self::new(file, health) }
    }

    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    fn frozen(&self) -> MutexGuard<'_, Option<Frozen>> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `change` to the file, or, if that fails or something failed before, `instead` to memory.
    fn change(
        &self,
        change: impl FnOnce(&B) -> io::Result<()>,
        instead: impl FnOnce(&mut Frozen, &B) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut frozen = self.frozen();
        let already = match frozen.take() {
            Some(already) => already,
            None => {
                let error = match self.health.failure() {
                    Some(error) => error.clone(),
                    None => match change(&self.file) {
                        Ok(()) => return Ok(()),
                        Err(error) => WriteError::from_io(&error),
                    },
                };
                let len = self.file.len()?;
                self.health.fail(error);
                Frozen { file_len: len, len, blocks: BTreeMap::new() }
            }
        };
        instead(frozen.insert(already), &self.file)
    }
}

impl Frozen {
    fn set_len(&mut self, len: u64) {
        self.file_len = self.file_len.min(len);
        self.len = len;
        self.blocks.retain(|block, _| block * BLOCK < len);
        if let Some(block) = self.blocks.get_mut(&(len / BLOCK)) {
            block[usize_of(len % BLOCK)..].fill(0);
        }
    }

    fn read<B: StorageBackend>(&self, file: &B, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read_file(file, self.file_len, offset, out)?;
        for (block, range, within) in blocks(offset, out.len()) {
            if let Some(bytes) = self.blocks.get(&block) {
                out[range.clone()].copy_from_slice(&bytes[within..within + range.len()]);
            }
        }
        Ok(())
    }

    fn write<B: StorageBackend>(&mut self, file: &B, offset: u64, data: &[u8]) -> io::Result<()> {
        self.len = self.len.max(offset + data.len() as u64);
        for (block, range, within) in blocks(offset, data.len()) {
            let bytes = match self.blocks.entry(block) {
                Entry::Occupied(bytes) => bytes.into_mut(),
                Entry::Vacant(place) => {
                    let mut bytes = vec![0; usize_of(BLOCK)].into_boxed_slice();
                    read_file(file, self.file_len, block * BLOCK, &mut bytes)?;
                    place.insert(bytes)
                }
            };
            bytes[within..within + range.len()].copy_from_slice(&data[range]);
        }
        Ok(())
    }
}

/// Reads what lies in the first `file_len` bytes of the file, and zeros beyond.
fn read_file<B: StorageBackend>(
    file: &B,
    file_len: u64,
    offset: u64,
    out: &mut [u8],
) -> io::Result<()> {
    let in_file = usize_of(file_len.saturating_sub(offset).min(out.len() as u64));
    let (head, tail) = out.split_at_mut(in_file);
    tail.fill(0);
    if head.is_empty() { Ok(()) } else { file.read(offset, head) }
}

/// The blocks that `len` bytes from `offset` on touch: number, range in the bytes, start in the block.
fn blocks(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
    let end = offset + len as u64;
    (offset / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let from = offset.max(block * BLOCK);
        let to = end.min((block + 1) * BLOCK);
        (block, usize_of(from - offset)..usize_of(to - offset), usize_of(from % BLOCK))
    })
}

fn usize_of(n: u64) -> usize {
    usize::try_from(n).expect("what lies in memory has a length that fits")
}

impl<B: StorageBackend> StorageBackend for Disk<B> {
    fn len(&self) -> io::Result<u64> {
        match &*self.frozen() {
            Some(frozen) => Ok(frozen.len),
            None => self.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // Without a failure readers take no lock, so they don't wait for a write.
        if self.health.failure().is_some()
            && let Some(frozen) = &*self.frozen()
        {
            return frozen.read(&self.file, offset, out);
        }
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(
            |file| file.set_len(len),
            |frozen, _| {
                frozen.set_len(len);
                Ok(())
            },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        let sync = |file: &B| if self.is_synced { file.sync_data() } else { Ok(()) };
        self.change(sync, |_, _| Ok(()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(
            |file| file.write(offset, data),
            |frozen, file| frozen.write(file, offset, data),
        )
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

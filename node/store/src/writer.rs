//! The one thread that writes, and the handles that feed it.
//!
//! Batches that wait while a commit runs form the next group and share its fsync. It takes along the
//! ordered ones that were acknowledged before ([`queue`](crate::queue)); they alone are committed when the
//! oldest is 40 ms old.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
};

use thiserror::Error;
use tokio::sync::oneshot;
use weft_protocol::row::{Durability, Row, Table, TooLarge, Write};

use crate::{
    queue::{Group, Queue},
    store::Inner,
};

/// Changes that happen together or not at all, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The changes; a later one to the same row wins.
    pub writes: Vec<Write>,
    /// When it counts as persisted.
    pub durability: Durability,
}

/// Why a batch was not acknowledged.
///
/// After [`DiskFull`](Self::DiskFull) or [`Disk`](Self::Disk) the store takes no more writes until
/// it is opened again, and it is open whether the batch that met the failure, and the ordered ones
/// of the last 50 ms, are found there; they are whole or absent.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum WriteError {
    /// No space is left, or the quota is used up.
    #[error("write to the store: the disk is full")]
    DiskFull,
    /// The disk, or the file on it, failed.
    #[error("write to the store: {why}")]
    Disk {
        /// What the system says.
        why: String,
    },
    /// A row that no store takes. Nothing of its batch is written, and the store goes on.
    #[error("write a row of table {table}: {what} has {len} bytes, at most {max} are taken")]
    TooLarge {
        /// Where it was to lie.
        table: Table,
        /// Which part is too large.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// It was opened only to read what is left of it.
    #[error("write to the store: it is damaged and open for reading only")]
    ReadOnly,
    /// The store was closed before the batch reached the writer.
    #[error("write to the store: it is closed")]
    Closed,
}

impl WriteError {
    pub(crate) fn from_io(error: &io::Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of I/O errors grow")]
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Disk { why: error.to_string() },
        }
    }

    pub(crate) fn from_redb(error: redb::Error) -> Self {
        if let redb::Error::Io(error) = &error {
            Self::from_io(error)
        } else {
            Self::Disk { why: error.to_string() }
        }
    }
}

/// Hands batches to the writer thread. Cheap to clone; batches of one handle, and of handles whose
/// calls are ordered among each other, are written in that order.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: Arc<Queue>,
}

impl Writer {
    /// Queues `batch`; `on_done` hears once it is persisted as it asks for, or why it is not.
    ///
    /// `on_done` is called exactly once, in the order of submission, before which a batch is refused that no
    /// store takes: before this returns where the answer is known then, as it is of that and of an ordered
    /// batch that waits for no other, else on the writer thread. It
    /// must neither block nor submit nor drop the store: nothing is written meanwhile. This call waits for at
    /// most one group, and only while 1,024 batches are queued.
    pub fn submit(
        &self,
        batch: Batch,
        on_done: impl FnOnce(Result<(), WriteError>) + Send + 'static,
    ) {
        match check(&batch.writes) {
            Ok(()) => self.queue.submit(batch, Box::new(on_done)),
            Err(error) => on_done(Err(error)),
        }
    }

    /// As [`submit`](Self::submit), and waits for the outcome. Dropping the future once it was
    /// polled takes nothing back.
    ///
    /// # Errors
    ///
    /// The batch is not persisted as it asked for.
    pub async fn write(&self, batch: Batch) -> Result<(), WriteError> {
        let (done, outcome) = oneshot::channel();
        self.submit(batch, |result| {
            // Whoever no longer waits does not want to know.
            drop(done.send(result));
        });
        outcome.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Asks the thread to end after what is queued.
    pub(crate) fn close(&self) {
        self.queue.close();
    }
}

/// Refuses rows that no store takes.
pub(crate) fn check(writes: &[Write]) -> Result<(), WriteError> {
    writes.iter().try_for_each(|write| {
        write.check().map_err(|TooLarge { table, what, len, max }| WriteError::TooLarge {
            table,
            what,
            len,
            max,
        })
    })
}

/// A row and its value, or `None` where it is deleted.
pub(crate) fn parts(write: &Write) -> (&Row, Option<&[u8]>) {
    match write {
        Write::Put(row, value) => (row, Some(value)),
        Write::Delete(row) => (row, None),
    }
}

impl Batch {
    /// The bytes of its values.
    pub(crate) fn bytes(&self) -> usize {
        self.writes.iter().map(|write| parts(write).1.map_or(0, <[u8]>::len)).sum()
    }
}

/// Starts the thread.
pub(crate) fn start(inner: Arc<Inner>) -> io::Result<(Writer, JoinHandle<()>)> {
    let queue = Arc::clone(&inner.queue);
    let thread =
        thread::Builder::new().name("weft-store".to_owned()).spawn(move || Loop { inner }.run())?;
    Ok((Writer { queue }, thread))
}

struct Loop {
    inner: Arc<Inner>,
}

impl Loop {
    fn run(self) {
        while let Some(group) = self.inner.queue.next_group() {
            let (result, is_in_file) = self.commit(&group);
            self.inner.queue.done(group, &result, is_in_file);
        }
    }

    /// Writes a group, and gives besides whether readers find it in the file, which they may although it
    /// failed: what cannot be written lies in memory from then on.
    fn commit(&self, group: &Group) -> (Result<(), WriteError>, bool) {
        let health = &self.inner.health;
        if let Err(error) = health.check() {
            return (Err(error), false);
        }
        let result = catch_unwind(AssertUnwindSafe(|| self.inner.apply(group.writes())))
            .unwrap_or_else(|_| Err(WriteError::Disk { why: "its file is damaged".to_owned() }));
        let is_in_file = result.is_ok();
        // What failed below redb is the reason, whatever redb made of it.
        if let (None, Err(error)) = (health.failure(), result) {
            health.fail(error);
        }
        (health.check(), is_in_file)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.inner.queue.abandon();
    }
}

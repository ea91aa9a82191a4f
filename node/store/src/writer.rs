//! The one thread that writes, and the handles that feed it.
//!
//! Batches that wait while a commit runs form the next group and share its fsync. A group begins
//! with its ordered batches, up to the first synced one: they are committed in memory, where
//! readers see them, and acknowledged at once. The rest is committed with an fsync, which takes
//! all earlier ordered ones along, and is then acknowledged. redb keeps commits without durability
//! readable and writes them out with the next durable one, so no second copy of unsynced rows is
//! needed beside it.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::oneshot;
use weft_protocol::row::{Durability, Row, Table, TooLarge, Write};

use crate::store::Inner;

/// Age of the oldest ordered batch at which its fsync begins; 10 ms of the 50 ms are left for it.
const GROUP_WINDOW: Duration = Duration::from_millis(40);
/// Batches that may wait. The writer takes all of them at once, so a submitter that finds the queue
/// full waits for at most one group.
const QUEUE_LEN: usize = 1024;
/// Bytes at which a group is closed: what redb buffers of a transaction without touching the disk.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

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

type Done = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

struct Job {
    batch: Batch,
    on_done: Done,
}

enum Message {
    Write(Job),
    Close,
}

/// Hands batches to the writer thread. Cheap to clone; batches of one handle, and of handles whose
/// calls are ordered among each other, are written in that order.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: SyncSender<Message>,
}

impl Writer {
    /// Queues `batch`; `on_done` hears once it is persisted as it asks for, or why it is not.
    ///
    /// `on_done` is called exactly once: on the writer thread, in the order of submission, or on
    /// the caller's if the batch is refused before it is queued. It must neither block nor submit
    /// nor drop the store: nothing is written meanwhile. This call waits for at most one group, and only while
    /// 1,024 batches are queued.
    pub fn submit(
        &self,
        batch: Batch,
        on_done: impl FnOnce(Result<(), WriteError>) + Send + 'static,
    ) {
        if let Err(error) = batch.check() {
            return on_done(Err(error));
        }
        let job = Job { batch, on_done: Box::new(on_done) };
        if let Err(mpsc::SendError(Message::Write(job))) = self.queue.send(Message::Write(job)) {
            (job.on_done)(Err(WriteError::Closed));
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
        // A thread that has ended already is what is asked for.
        drop(self.queue.send(Message::Close));
    }
}

impl Batch {
    fn check(&self) -> Result<(), WriteError> {
        for write in &self.writes {
            write.check().map_err(|TooLarge { table, what, len, max }| WriteError::TooLarge {
                table,
                what,
                len,
                max,
            })?;
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.writes.iter().map(|write| parts(write).1.len()).sum()
    }
}

fn parts(write: &Write) -> (&Row, &[u8]) {
    match write {
        Write::Put(row, value) => (row, value),
        Write::Delete(row) => (row, &[]),
    }
}

/// Starts the thread.
pub(crate) fn start(inner: Arc<Inner>) -> io::Result<(Writer, JoinHandle<()>)> {
    let (queue, messages) = mpsc::sync_channel(QUEUE_LEN);
    let thread = thread::Builder::new()
        .name("weft-store".to_owned())
        .spawn(move || Loop { inner, messages, unsynced_since: None, open: true }.run())?;
    Ok((Writer { queue }, thread))
}

struct Loop {
    inner: Arc<Inner>,
    messages: Receiver<Message>,
    /// When the oldest acknowledged batch that has seen no fsync was committed.
    unsynced_since: Option<Instant>,
    open: bool,
}

impl Loop {
    fn run(mut self) {
        while self.open {
            let group = self.next_group();
            self.write(group);
            let is_due = |since: Instant| !self.open || since.elapsed() >= GROUP_WINDOW;
            if self.unsynced_since.is_some_and(is_due) {
                // Nobody waits for this one; a failure meets the next batch and `Store::failure`.
                drop(self.commit(&[], redb::Durability::Immediate));
                self.unsynced_since = None;
            }
        }
    }

    /// Waits for a batch, at most until the unsynced ones are due, and takes all that wait.
    fn next_group(&mut self) -> Vec<Job> {
        let mut next = match self.unsynced_since {
            None => self.messages.recv().map_err(|_| TryRecvError::Disconnected),
            Some(since) => {
                let left = GROUP_WINDOW.saturating_sub(since.elapsed());
                self.messages.recv_timeout(left).map_err(|error| match error {
                    RecvTimeoutError::Timeout => TryRecvError::Empty,
                    RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                })
            }
        };
        let (mut group, mut bytes) = (Vec::new(), 0);
        loop {
            match next {
                Ok(Message::Write(job)) => {
                    bytes += job.batch.bytes();
                    group.push(job);
                }
                Ok(Message::Close) | Err(TryRecvError::Disconnected) => self.open = false,
                Err(TryRecvError::Empty) => return group,
            }
            if !self.open || group.len() == QUEUE_LEN || bytes >= GROUP_BYTES_MAX {
                return group;
            }
            next = self.messages.try_recv();
        }
    }

    fn write(&mut self, mut group: Vec<Job>) {
        let synced = group
            .iter()
            .position(|job| job.batch.durability == Durability::Synced)
            .unwrap_or(group.len());
        let rest = group.split_off(synced);
        if !group.is_empty() {
            let committed_at = Instant::now();
            let result = self.commit(&group, redb::Durability::None);
            self.unsynced_since.get_or_insert(committed_at);
            acknowledge(group, &result);
        }
        if !rest.is_empty() {
            let result = self.commit(&rest, redb::Durability::Immediate);
            self.unsynced_since = None;
            acknowledge(rest, &result);
        }
    }

    fn commit(&self, group: &[Job], durability: redb::Durability) -> Result<(), WriteError> {
        let health = &self.inner.health;
        health.check()?;
        let writes = group.iter().flat_map(|job| &job.batch.writes);
        let result = catch_unwind(AssertUnwindSafe(|| self.inner.apply(writes, durability)))
            .unwrap_or_else(|_| Err(WriteError::Disk { why: "its file is damaged".to_owned() }));
        // What failed below redb is the reason, whatever redb made of it.
        health.check()?;
        if let Err(error) = result {
            health.fail(error);
        }
        health.check()
    }
}

fn acknowledge(group: Vec<Job>, result: &Result<(), WriteError>) {
    for job in group {
        (job.on_done)(result.clone());
    }
}

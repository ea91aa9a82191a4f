//! Batches on their way from those who submit them to the one thread that writes.
//!
//! An ordered batch that nothing unanswered precedes joins the *open group*: it is acknowledged where it is
//! submitted, readers see it from then on, and the next commit takes the whole group along. So what only has
//! to be ordered costs neither a commit nor a change of threads, and a row that is written again within the
//! window reaches the disk once. Every other batch waits for the thread.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use weft_protocol::row::{Durability, Row, Write};

use crate::{
    disk::Health,
    unwritten::Unwritten,
    writer::{Batch, WriteError, parts},
};

/// Age of the open group at which its commit begins; 10 ms of the 50 ms are left for it.
const GROUP_WINDOW: Duration = Duration::from_millis(40);
/// Age of the open group from which on nothing joins it: the commit before it is a slow one.
const OPEN_MAX: Duration = Duration::from_millis(50);
/// Batches that may wait. The writer takes all of them at once, so a submitter that finds no room
/// waits for at most one group.
const QUEUE_LEN: usize = 1024;
/// Bytes at which a group is closed: what redb buffers of a transaction without touching the disk.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

type Done = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// A batch that waits for its answer.
pub(crate) struct Job {
    batch: Batch,
    on_done: Done,
}

/// What one commit writes: what was acknowledged before, then what is acknowledged by it.
pub(crate) struct Group {
    acknowledged: Arc<Unwritten>,
    jobs: Vec<Job>,
}

/// What submitters, readers and the thread share.
pub(crate) struct Queue {
    state: Mutex<State>,
    health: Arc<Health>,
    /// There may be something to write.
    work: Condvar,
    /// There may be room for another batch.
    room: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    open: Unwritten,
    /// When the oldest batch of the open group was acknowledged.
    open_since: Option<Instant>,
    /// The group before, whose commit is under way. Where that fails it stays, so that readers go on to see
    /// what was acknowledged.
    closed: Arc<Unwritten>,
    /// In the order of submission.
    waiting: Vec<Job>,
    /// Batches that wait, are being written or are being answered.
    unanswered: usize,
    /// No more batches are taken.
    is_closing: bool,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Group {
    /// The rows, each with its value, or `None` where it is deleted; a later one counts.
    pub(crate) fn writes(&self) -> impl Iterator<Item = (&Row, Option<&[u8]>)> {
        let acknowledged = self.acknowledged.iter().map(|(row, value)| (row, value.as_deref()));
        let writes = self.jobs.iter().flat_map(|job| &job.batch.writes);
        acknowledged.chain(writes.map(parts))
    }
}

impl State {
    /// What was acknowledged and is not in the file, the older group first.
    pub(crate) fn unwritten(&self) -> [&Unwritten; 2] {
        [&self.closed, &self.open]
    }

    /// What was acknowledged of a row and is not in the file, if anything was.
    pub(crate) fn get(&self, row: &Row) -> Option<&Option<Vec<u8>>> {
        self.open.get(row).or_else(|| self.closed.get(row))
    }

    /// Batches that wait, are being written or are being answered.
    #[cfg(test)]
    pub(crate) const fn unanswered(&self) -> usize {
        self.unanswered
    }

    fn join(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.open.add(writes);
            self.open_since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether nothing more joins the open group before it is committed: a power cut takes no more than it, and
    /// what the commit before it holds.
    fn is_closed(&self) -> bool {
        let is_old = self.open_since.is_some_and(|since| since.elapsed() >= OPEN_MAX);
        is_old || self.open.bytes() >= GROUP_BYTES_MAX
    }
}

impl Queue {
    pub(crate) fn new(health: Arc<Health>) -> Self {
        let (work, room) = (Condvar::new(), Condvar::new());
        Self { state: Mutex::default(), health, work, room }
    }

    /// The state, which nothing leaves half changed.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch; what can be answered at once is answered on this thread.
    pub(crate) fn submit(&self, batch: Batch, on_done: Done) {
        let mut state = self.state();
        let answer = loop {
            if state.is_closing {
                break Err(WriteError::Closed);
            }
            if state.unanswered == 0 {
                if let Err(error) = self.health.check() {
                    break Err(error);
                }
                if batch.durability == Durability::Ordered && !state.is_closed() {
                    let was_empty = state.open_since.is_none();
                    state.join(batch.writes);
                    if was_empty || state.is_closed() {
                        self.work.notify_one();
                    }
                    break Ok(());
                }
            }
            if state.waiting.len() < QUEUE_LEN {
                state.waiting.push(Job { batch, on_done });
                state.unanswered += 1;
                self.work.notify_one();
                return;
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        on_done(answer);
    }

    /// Waits until something is to be written. `None`: the queue is closed and empty.
    pub(crate) fn next_group(&self) -> Option<Group> {
        let mut state = self.state();
        loop {
            let takes_writes = self.health.failure().is_none();
            if takes_writes && !state.is_closed() && is_ordered(state.waiting.first()) {
                state = self.acknowledge_first(state);
                continue;
            }
            let age = state.open_since.filter(|_| takes_writes).map(|since| since.elapsed());
            let is_due =
                age.is_some_and(|age| age >= GROUP_WINDOW || state.is_closed() || state.is_closing);
            if is_due || !state.waiting.is_empty() {
                return Some(take(&mut state, takes_writes));
            }
            if state.is_closing {
                return None;
            }
            let left = age.map(|age| GROUP_WINDOW.saturating_sub(age));
            state = match left {
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Has the ordered batches join the open group that waited behind others.
    fn acknowledge_first<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let mut count = 0;
        while !state.is_closed() && is_ordered(state.waiting.get(count)) {
            let writes = std::mem::take(&mut state.waiting[count].batch.writes);
            state.join(writes);
            count += 1;
        }
        let jobs = state.waiting.drain(..count).collect();
        drop(state);
        self.answer(jobs, &Ok(()))
    }

    /// Answers a group that was written, or could not be. `is_in_file`: readers find it there.
    pub(crate) fn done(&self, group: Group, result: &Result<(), WriteError>, is_in_file: bool) {
        let Group { acknowledged, jobs } = group;
        drop(acknowledged);
        if is_in_file {
            self.state().closed = Arc::default();
        }
        drop(self.answer(jobs, result));
    }

    /// Answers batches in order. Until that is done no later one is answered where it is submitted.
    fn answer(&self, jobs: Vec<Job>, result: &Result<(), WriteError>) -> MutexGuard<'_, State> {
        let count = jobs.len();
        for job in jobs {
            (job.on_done)(result.clone());
        }
        let mut state = self.state();
        state.unanswered -= count;
        if count > 0 {
            self.room.notify_all();
        }
        state
    }

    /// Takes no more batches. The thread ends after those that are here.
    pub(crate) fn close(&self) {
        self.state().is_closing = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// The thread has ended: nobody writes what still waits.
    pub(crate) fn abandon(&self) {
        self.close();
        let jobs = std::mem::take(&mut self.state().waiting);
        drop(self.answer(jobs, &Err(WriteError::Closed)));
    }
}

/// Takes a group off the queue. Once the store has failed nothing is written, and what was acknowledged
/// stays where readers find it.
fn take(state: &mut State, takes_writes: bool) -> Group {
    let mut bytes = 0;
    let has_room = |job: &&Job| {
        let has_room = bytes < GROUP_BYTES_MAX;
        bytes += job.batch.bytes();
        has_room
    };
    let count = state.waiting.iter().take_while(has_room).count();
    let jobs = state.waiting.drain(..count).collect();
    if !takes_writes {
        return Group { acknowledged: Arc::default(), jobs };
    }
    state.open_since = None;
    state.closed = Arc::new(std::mem::take(&mut state.open));
    Group { acknowledged: Arc::clone(&state.closed), jobs }
}

fn is_ordered(job: Option<&Job>) -> bool {
    job.is_some_and(|job| job.batch.durability == Durability::Ordered)
}

//! A disk: what is acknowledged at once, what is safe, and what a crash takes.

use std::collections::VecDeque;

use weft_core::Ticket;
use weft_protocol::row::{Durability, MemoryRows, Write};

use crate::dice::Dice;

/// An ordered batch is on the disk after so long, in microseconds.
pub(crate) const FLUSH_WITHIN: u64 = 50_000;

/// A batch that waits for its turn.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) ticket: Ticket,
    pub(crate) writes: Vec<Write>,
    pub(crate) durability: Durability,
    /// When it was handed over.
    pub(crate) since: u64,
}

/// One disk. Batches are taken in the order in which they were handed over.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// What readers see: all that was acknowledged.
    visible: MemoryRows,
    /// What survives a crash for sure.
    durable: MemoryRows,
    /// Acknowledged, and not safe yet.
    unsynced: Vec<Vec<Write>>,
    queue: VecDeque<Batch>,
    /// From now on until the next start nothing can be written.
    pub(crate) failing: bool,
    /// It failed with a batch, which may be found after the next start all the same.
    failed: bool,
    /// A planted bug: the disk says that it has synced and has not.
    pub(crate) lies: bool,
}

/// What became of the batch whose turn it was.
#[derive(Debug)]
pub(crate) enum Done {
    Persisted(Ticket, u64),
    Failed(Ticket),
}

impl Disk {
    /// What readers see.
    pub(crate) const fn visible(&self) -> &MemoryRows {
        &self.visible
    }

    /// What survives a crash.
    pub(crate) const fn durable(&self) -> &MemoryRows {
        &self.durable
    }

    /// A disk in the state of another moment, as a backup is put back.
    pub(crate) fn restored(image: MemoryRows) -> Self {
        Self { visible: image.clone(), durable: image, ..Self::default() }
    }

    /// Writes before the first start.
    pub(crate) fn prepare(&mut self, writes: Vec<Write>) {
        self.visible.apply(writes.clone());
        self.durable.apply(writes);
    }

    /// Takes a batch. Gives how long the first in the queue takes, in microseconds, if that is this.
    pub(crate) fn submit(&mut self, batch: Batch, dice: &mut Dice) -> Option<u64> {
        self.queue.push_back(batch);
        if self.queue.len() == 1 { self.next(dice) } else { None }
    }

    /// How long the first in the queue takes.
    pub(crate) fn next(&self, dice: &mut Dice) -> Option<u64> {
        Some(match self.queue.front()?.durability {
            Durability::Ordered => dice.between(1, 20),
            Durability::Synced => dice.between(100, 5_000),
        })
    }

    /// The first in the queue is done. Gives what became of it, and whether a flush must follow.
    pub(crate) fn done(&mut self) -> Option<(Done, bool)> {
        let Batch { ticket, writes, durability, since } = self.queue.pop_front()?;
        let is_refused = writes.iter().any(|write| write.check().is_err());
        if self.failing || is_refused {
            if !is_refused && !std::mem::replace(&mut self.failed, true) {
                self.unsynced.push(writes);
            }
            return Some((Done::Failed(ticket), false));
        }
        self.visible.apply(writes.clone());
        let first = self.unsynced.is_empty();
        self.unsynced.push(writes);
        if durability == Durability::Synced {
            self.flush();
        }
        Some((Done::Persisted(ticket, since), durability == Durability::Ordered && first))
    }

    /// Makes safe what was acknowledged.
    pub(crate) fn flush(&mut self) {
        if self.failing || self.lies {
            return;
        }
        for writes in self.unsynced.drain(..) {
            self.durable.apply(writes);
        }
    }

    /// The power goes. Of what was not safe, and of the batch that was being written, a beginning may
    /// be found later: whole batches, in order.
    pub(crate) fn crash(&mut self, dice: &mut Dice) {
        let mut unsafe_batches = std::mem::take(&mut self.unsynced);
        // Nothing is written after what the disk failed with.
        let written = usize::from(!self.failed);
        unsafe_batches.extend(self.queue.drain(..).take(written).map(|batch| batch.writes));
        let kept =
            if dice.chance(50) || self.lies { 0 } else { dice.index(unsafe_batches.len() + 1) };
        for writes in unsafe_batches.into_iter().take(kept) {
            self.durable.apply(writes);
        }
        self.visible = self.durable.clone();
        (self.failing, self.failed) = (false, false);
    }
}

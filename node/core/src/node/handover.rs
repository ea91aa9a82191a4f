//! What an input gave to persist, handed to the disk as one.
//!
//! The batches leave in the order of their audit records, so that the disk holds the chain without a gap at
//! any moment, and without the records of what no disk takes.

use std::collections::BTreeMap;

use weft_protocol::{audit::Head, row::Write, time::Timestamp};

use super::After;
use crate::{
    Output, Ticket,
    audit::{self, Chain},
    env::Batch,
};

/// The machine.
#[derive(Debug, Default)]
pub(super) struct Handover {
    unsent: Vec<Unsent>,
    sent: BTreeMap<Ticket, Sent>,
    tickets: u64,
    /// The newest ticket when the disk failed first: it takes nothing that was handed over later.
    failed_at: Option<Ticket>,
}

/// A batch that is handed to the disk when an input is done with.
#[derive(Debug)]
struct Unsent {
    batch: Batch,
    after: Vec<After>,
    /// No disk takes it, and it is refused for itself.
    is_too_large: bool,
}

/// A batch that the disk is writing.
#[derive(Debug)]
struct Sent {
    after: Vec<After>,
    /// The audit chain's end, where this batch brings the chain up to it.
    head: Option<Head>,
    is_too_large: bool,
}

/// A batch that was not written.
#[derive(Debug)]
pub(super) struct Refused {
    /// What was to follow.
    pub(super) after: Vec<After>,
    /// It was refused for itself.
    pub(super) is_too_large: bool,
    /// It is on no disk. Else the disk failed with it, and the next start may find it or not.
    pub(super) is_nowhere: bool,
}

impl Handover {
    /// Takes a batch of this input, and what follows it.
    pub(super) fn take(&mut self, batch: Batch, after: Vec<After>) {
        let is_too_large = batch.check().is_err();
        self.unsent.push(Unsent { batch, after, is_too_large });
    }

    /// Hands over what was taken.
    pub(super) fn hand_over(&mut self, chain: &mut Chain, now: Timestamp) -> Vec<Output> {
        let mut unsent = std::mem::take(&mut self.unsent);
        if unsent.is_empty() {
            return Vec::new();
        }
        if unsent.iter().any(|it| it.is_too_large) {
            let batches = unsent.iter_mut().map(|it| (&mut it.batch.writes, it.is_too_large));
            let stand_ins = chain.withdraw(&mut batches.collect::<Vec<_>>());
            if !stand_ins.is_empty() {
                let batch = Batch::ordered(stand_ins);
                unsent.push(Unsent { batch, after: Vec::new(), is_too_large: false });
            }
        }
        let writes = unsent.iter().flat_map(|it| &it.batch.writes);
        let positions: Vec<u64> = writes.filter_map(audit::position_of).collect();
        debug_assert_eq!(
            positions.len(),
            chain.appended(),
            "what is appended is persisted with what it is about"
        );
        if !positions.is_sorted() {
            unsent = one_batch(unsent);
        }
        let is_record = |write: &Write| audit::position_of(write).is_some();
        let newest = unsent.iter().rposition(|it| it.batch.writes.iter().any(is_record));
        let mut outputs = Vec::new();
        for (at, Unsent { batch, after, is_too_large }) in unsent.into_iter().enumerate() {
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            let head = if newest == Some(at) { chain.head() } else { None };
            self.sent.insert(ticket, Sent { after, head, is_too_large });
            let Batch { writes, durability } = batch;
            outputs.push(Output::Persist { ticket, writes, durability });
        }
        chain.handed_over(now);
        outputs
    }

    /// A batch is written. Gives what follows.
    pub(super) fn written(&mut self, ticket: Ticket, chain: &mut Chain) -> Vec<After> {
        let Some(sent) = self.sent.remove(&ticket) else { return Vec::new() };
        if let Some(head) = sent.head {
            chain.stored(head);
        }
        sent.after
    }

    /// A batch was not written.
    pub(super) fn refused(&mut self, ticket: Ticket) -> Option<Refused> {
        let Sent { after, is_too_large, .. } = self.sent.remove(&ticket)?;
        let is_late = self.failed_at.is_some_and(|failed_at| failed_at < ticket);
        if !is_too_large {
            self.failed_at.get_or_insert(Ticket(self.tickets));
        }
        Some(Refused { after, is_too_large, is_nowhere: is_too_large || is_late })
    }
}

/// All that a disk may take as one batch, behind it what no disk takes: for records that came to stand
/// in two batches the other way round.
fn one_batch(unsent: Vec<Unsent>) -> Vec<Unsent> {
    let (too_large, taken): (Vec<_>, Vec<_>) = unsent.into_iter().partition(|it| it.is_too_large);
    let (mut batch, mut after) = (Batch::ordered(Vec::new()), Vec::new());
    for one in taken {
        batch.writes.extend(one.batch.writes);
        batch.durability = batch.durability.max(one.batch.durability);
        after.extend(one.after);
    }
    std::iter::once(Unsent { batch, after, is_too_large: false }).chain(too_large).collect()
}

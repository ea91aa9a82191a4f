//! Bugs planted on purpose, to show that the checkers find them.

use weft_protocol::{
    audit::{Body, RECORD_BYTES_MAX, Record},
    codec,
    decision::Point,
    frame::Protocol,
    manifest::EffectClass,
    row::{Table, Write},
    run::{Executed, Stage},
    signed::Signed,
    sync::SyncMessage,
};

use crate::world::World;

/// A bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// The audit record of one step that is carried out is not written.
    UnrecordedStep,
    /// What goes to a member goes to a device that was put out, too.
    ServesTheRevoked,
    /// Disks say that they have synced and have not.
    LyingDisk,
    /// One frame of sync is lost inside a stream that lives on.
    LostFrame,
    /// That a step is about to do what must not happen twice is not written.
    UnmarkedAct,
}

/// What the bug has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Spoiled(pub(crate) bool);

impl World {
    /// Takes an executor's intent out of a batch, once.
    pub(crate) fn spoil(&mut self, mut writes: Vec<Write>) -> Vec<Write> {
        if self.bug == Some(Bug::UnrecordedStep) && !self.spoiled.0 {
            let before = writes.len();
            writes.retain(|write| !is_executors_intent(write));
            self.spoiled.0 = writes.len() < before;
        }
        if self.bug == Some(Bug::UnmarkedAct) {
            writes.retain(|write| !is_mark(write));
        }
        writes
    }

    /// Sends a copy of a frame to a device that the node knows to be put out.
    pub(crate) fn serve_the_revoked(&mut self, at: usize, bytes: &[u8]) {
        if self.bug != Some(Bug::ServesTheRevoked) || SyncMessage::decode(bytes).is_err() {
            return;
        }
        let revoked = self.hosts.iter().position(|host| host.put_out);
        if let Some(revoked) = revoked
            && let Some(stream) = self.network.stream_between(at, revoked, Protocol::Sync)
        {
            self.send(at, stream, bytes.to_vec());
        }
    }

    /// Whether a frame is lost.
    pub(crate) fn loses(&mut self, protocol: Protocol, bytes: &[u8]) -> bool {
        let due = self.bug == Some(Bug::LostFrame)
            && self.healed.is_some()
            && !self.spoiled.0
            && protocol == Protocol::Sync
            && matches!(SyncMessage::decode(bytes), Ok(SyncMessage::Documents(_)));
        self.spoiled.0 |= due;
        due
    }
}

fn is_executors_intent(write: &Write) -> bool {
    let Write::Put(row, value) = write else { return false };
    if row.table != Table::Audit {
        return false;
    }
    let signed: Result<Signed, _> = codec::decode(value, RECORD_BYTES_MAX * 2);
    let record: Option<Record> =
        signed.ok().and_then(|signed| codec::decode(&signed.bytes, RECORD_BYTES_MAX).ok());
    record.is_some_and(|record| matches!(record.body, Body::Intent { point: Point::Executor, .. }))
}

fn is_mark(write: &Write) -> bool {
    let Write::Put(row, value) = write else { return false };
    row.table == Table::Run
        && codec::decode::<Executed>(value, usize::MAX).is_ok_and(|executed| {
            executed.effect == EffectClass::AtMostOnce && executed.stage == Stage::Acting
        })
}

//! Bugs planted on purpose, to show that the checkers find them.

use std::collections::BTreeSet;

use weft_protocol::{
    audit::{Body, RECORD_BYTES_MAX, Record},
    codec,
    decision::Point,
    device::Role,
    frame::{FRAME_BYTES_MAX, Protocol},
    id::DeviceId,
    manifest::EffectClass,
    presence::PresenceMessage,
    row::{Row, Table, Write},
    run::{Executed, Stage},
    signed::Signed,
    statement::{KeyName, STATEMENT_BYTES_MAX, Statement, StatementBody, TrustMessage},
    sync::SyncMessage,
    time::WallTime,
};
use weft_trust::{author::NewDevice, state::Standing};

use crate::world::World;

/// A bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// The audit record of one step that is carried out is not written.
    UnrecordedStep,
    /// What goes to a member goes to a device that was put out, too.
    ServesTheRevoked,
    /// What goes to a member goes to a key, too, in whose place another one came.
    ServesTheReplaced,
    /// Disks say that they have synced and have not.
    LyingDisk,
    /// One frame of sync is lost inside a stream that lives on.
    LostFrame,
    /// That a step is about to do what must not happen twice is not written.
    UnmarkedAct,
    /// One device never hears that another was put out.
    DeafToRevokes,
    /// Who puts a device out gives it the next key.
    KeyForTheRevoked,
    /// A ticket that brought a device in brings in another one.
    TicketTwice,
    /// What a device passes on of others is as if they had said it just now.
    YoungWords,
    /// What a device says of itself is what it said once.
    OldWords,
    /// That something is under way with a device is not said.
    Unwatched,
    /// What presence says of a machine is written down.
    KeptWords,
    /// A node is not told that a connection is gone.
    UntoldLoss,
    /// A node hears of one device what the network found out of another.
    MixedUp,
}

/// The device that never hears, if that is the bug: a member.
const DEAF: usize = 3;

/// What the bug has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Spoiled(pub(crate) bool);

impl World {
    /// What a node says of itself and of others, spoiled.
    pub(crate) fn spoil_words(&mut self, at: usize, bytes: Vec<u8>) -> Vec<u8> {
        match (self.bug, codec::decode(&bytes, FRAME_BYTES_MAX)) {
            (Some(Bug::YoungWords), Ok(PresenceMessage::Records { records, ages_ms })) => {
                let ages_ms = vec![0; ages_ms.len()];
                codec::encode(&PresenceMessage::Records { records, ages_ms })
            }
            (Some(Bug::OldWords), Ok(PresenceMessage::Records { .. })) => {
                self.hosts[at].first_words.get_or_insert(bytes).clone()
            }
            (_, _) => bytes,
        }
    }

    /// Of which device a node hears what was found out of one.
    pub(crate) fn mix_up(&self, at: usize, device: DeviceId) -> DeviceId {
        let others = self.hosts.iter().enumerate().filter(|(other, _)| *other != at);
        let mut others = others.map(|(_, host)| host.id).filter(|other| *other != device);
        others.next().filter(|_| self.bug == Some(Bug::MixedUp)).unwrap_or(device)
    }

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
        if self.bug == Some(Bug::KeptWords) {
            let words = self.hosts[0].facts.secrets().concat();
            writes.push(Write::Put(Row::named(Table::Node, b"seen", b"words"), words));
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

    /// Sends a copy of a frame to a key that was replaced.
    pub(crate) fn serve_the_replaced(&mut self, at: usize, bytes: &[u8]) {
        if self.bug != Some(Bug::ServesTheReplaced) || SyncMessage::decode(bytes).is_err() {
            return;
        }
        let replaced: BTreeSet<DeviceId> =
            self.hosts.iter().flat_map(|host| &host.former).copied().collect();
        if let Some(stream) = self.network.stream_to(at, &replaced, Protocol::Sync) {
            self.send(at, stream, bytes.to_vec());
        }
    }

    /// Seals the key that writes now to a device that was just put out.
    pub(crate) fn leak_the_key(&mut self, by: usize, revoked: usize) {
        let Some(node) = self.hosts[by].node.as_ref() else { return };
        if self.bug != Some(Bug::KeyForTheRevoked) {
            return;
        }
        let mut state = node.membership().state().clone();
        let which = KeyName::Data(state.writing);
        let Some(device) = state.devices.get_mut(&self.hosts[revoked].id) else { return };
        device.standing = Standing::Active;
        let to = device.agreement;
        let rng = self.dice.trust.rng();
        let sealed = node.membership().keyring().seal_for(&state, to, &[which], rng);
        if let Some(stream) = self.network.stream_between(by, revoked, Protocol::Trust) {
            self.send(by, stream, codec::encode(&TrustMessage::Keys { sealed }));
        }
    }

    /// Has a spent ticket bring in whoever has none yet.
    pub(crate) fn redeem_again(&mut self, invitation: usize, inviter: usize) {
        let new = (0..self.hosts.len()).find(|at| {
            let host = &self.hosts[*at];
            !host.joined && host.joining.is_none()
        });
        let Some(new) = new.filter(|_| self.bug == Some(Bug::TicketTwice)) else { return };
        let host = &self.hosts[new];
        let device = NewDevice {
            device: host.id,
            agreement: host.secret.agreement().public(),
            name: host.name.parse().expect("it is a name"),
            kind: host.kind,
            role: Role::Member,
            confirmed: false,
        };
        let added = self
            .write_at(inviter, |author, dice| author.add(device, WallTime::default(), dice.rng()));
        if added {
            self.pairings.brought_in(new, self.hosts[new].id, invitation);
        }
    }

    /// Whether a frame to a machine is lost.
    pub(crate) fn loses(&mut self, to: usize, protocol: Protocol, bytes: &[u8]) -> bool {
        if self.bug == Some(Bug::DeafToRevokes) && to == DEAF && protocol == Protocol::Trust {
            return tells_of_a_revoke(bytes);
        }
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

fn tells_of_a_revoke(bytes: &[u8]) -> bool {
    let Ok(TrustMessage::Statements { statements }) = codec::decode(bytes, FRAME_BYTES_MAX) else {
        return false;
    };
    statements.iter().any(|signed| {
        let statement: Result<Statement, _> = codec::decode(&signed.bytes, STATEMENT_BYTES_MAX);
        let body = statement.and_then(|it| StatementBody::decode(it.kind, &it.body));
        matches!(body, Ok(StatementBody::Revoke(_)))
    })
}

fn is_mark(write: &Write) -> bool {
    let Write::Put(row, value) = write else { return false };
    row.table == Table::Run
        && codec::decode::<Executed>(value, usize::MAX).is_ok_and(|executed| {
            executed.effect == EffectClass::AtMostOnce && executed.stage == Stage::Acting
        })
}

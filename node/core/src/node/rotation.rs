//! A rotation: another key takes the place of this device's, without pairing again.
//!
//! ```text
//! Input::Rotate ─► Rotate and its audit record, one batch ── on the disk ─► into the graph, to all peers
//!                                                                            └► Reply::Rotated: begin anew
//! ```
//!
//! The next key's seed is on the disk before the input comes, and no peer hears of the `Rotate` before it is
//! on the disk: at any moment of a crash the rows say which of the two keys this device has. From the input
//! on this device does nothing else under the old key: a second statement of it would be a fork, and a step
//! that begins could not be brought to its end.

use std::collections::BTreeSet;

use weft_protocol::{
    audit::Body,
    frame::Protocol,
    host_call::Refusal,
    id::{DeviceId, StatementId},
    row::Write,
    run::RunMessage,
    signed::Signed,
};
use weft_trust::{graph::statement_id, secret::DeviceSecret};

use super::{After, Batch, Node};
use crate::{
    Context, Output,
    door::{DoorId, Reply},
    membership, trust_log,
};

/// So many runs are named where they stand in the way.
const NAMED_MAX: usize = 5;

/// A rotation that was begun. There is no way back but a disk that refuses.
#[derive(Debug)]
pub(super) struct Rotation {
    door: DoorId,
    next: DeviceId,
    /// Not in the graph before it is on the disk.
    statement: Signed,
}

impl Node {
    /// Whether another key may take the place of this device's now.
    ///
    /// # Errors
    ///
    /// Why not, and what to do.
    pub fn may_rotate(&mut self, context: Context<'_>) -> Result<(), (Refusal, String)> {
        if self.rotation.is_some() {
            let why = "this device's key is being replaced already";
            return Err((Refusal::Failed, why.to_owned()));
        }
        self.must_belong("replace its key")?;
        let runs = self.open_runs();
        if !runs.is_empty() {
            let views = self.run_views(context)?;
            let name = |run| {
                let view = views.iter().find(|view| view.run == run);
                let words = view.map(|view| format!(" ({:?} of {})", view.words, view.owner));
                format!("{run}{}", words.unwrap_or_default())
            };
            let mut named: Vec<String> =
                runs.iter().take(NAMED_MAX).map(|run| name(*run)).collect();
            if runs.len() > NAMED_MAX {
                named.push(format!("{} more", runs.len() - NAMED_MAX));
            }
            let what = if runs.len() == 1 { "a run is" } else { "runs are" };
            let why = format!(
                "{what} under way here: {}; wait until nothing is, or stop it: weft run cancel ID",
                named.join(", ")
            );
            return Err((Refusal::Failed, why));
        }
        if self.invitations.is_open() {
            let why = "an invitation is open, and its code names this device's key; wait until it is \
                       over, or end weft invite";
            return Err((Refusal::Failed, why.to_owned()));
        }
        Ok(())
    }

    /// Begins to put `next` in the place of this device's key. Its seed is on the disk.
    pub(super) fn rotate(&mut self, door: DoorId, next: &DeviceSecret, context: Context<'_>) {
        let made = self.may_rotate(context).and_then(|()| {
            let made = self.membership.rotate(next, context.now);
            made.map_err(|error| (Refusal::Denied, error.to_string()))
        });
        let statement = match made {
            Ok(statement) => statement,
            Err((refusal, reason)) => {
                return self.reply(door, Reply::Refused { refusal, reason });
            }
        };
        let id = statement_id(&statement);
        let mut writes = membership::store(std::slice::from_ref(&statement));
        let mut after = self.membership.graph().clone();
        drop(after.insert(statement.clone()));
        writes.extend(self.record_said(trust_log::trust_log(&after), &[id], context.now.wall));
        let body = Body::Operator { action: "rotate".into() };
        writes.extend(self.chain.append(body, context.now.wall).1);
        self.rotation = Some(Rotation { door, next: next.id(), statement });
        self.persist(Batch::synced(writes), After::Rotated);
    }

    /// The `Rotate` is on the disk: it counts from now on, and all peers hear of it at once.
    pub(super) fn rotated(&mut self, context: Context<'_>) {
        let Some(rotation) = &self.rotation else { return };
        let (door, device) = (rotation.door, rotation.next);
        self.membership.take_stored(rotation.statement.clone(), context.now);
        // The peers' connections end with the key that they are under: what is said goes first.
        for output in self.membership.poll_outputs() {
            self.on_membership(output, context);
        }
        self.version += 1;
        self.devices_changed(Vec::new(), Vec::new(), context);
        self.reply(door, Reply::Rotated { former: self.me, device });
    }

    /// The disk did not take the `Rotate`: nobody has heard of it, and nothing has changed.
    pub(super) fn rotation_failed(&mut self, reason: &str) {
        let Some(Rotation { door, .. }) = self.rotation.take() else { return };
        let reason = format!("the key was not replaced: {reason}");
        self.reply(door, Reply::Refused { refusal: Refusal::Failed, reason });
    }

    /// Whether what comes would begin something under a key that is on its way out.
    pub(super) fn is_too_late_for(&self, protocol: Protocol) -> bool {
        self.rotation.is_some() && protocol == Protocol::Run
    }

    /// Of devices that are out, those whose key was replaced: what is known of where they are goes on to the
    /// new key, which answers there next. To be called after the network was told of the members.
    pub(super) fn hand_on(&mut self, out: &BTreeSet<DeviceId>, writes: &mut Vec<Write>) {
        for former in out {
            let device = self.membership.state().successor(former);
            let Some(addresses) = self.addresses.remove(former) else { continue };
            if device == *former || self.addresses.contains_key(&device) {
                continue;
            }
            writes.push(membership::remember(&device, &addresses));
            self.addresses.insert(device, addresses.clone());
            self.outputs.push_back(Output::Remember { device, addresses });
        }
    }

    /// What a device asked for under a key that was replaced is settled: it had nothing under way then.
    pub(super) fn settle_replaced(&mut self, out: &BTreeSet<DeviceId>, context: Context<'_>) {
        let state = self.membership.state();
        let replaced = out.iter().filter(|device| state.successor(device) != **device);
        for former in replaced.copied().collect::<Vec<_>>() {
            self.run_message(former, RunMessage::Open(Vec::new()), context);
        }
    }

    /// The keys that this device had before, the newest first.
    pub(super) fn former(&self) -> Vec<DeviceId> {
        self.membership.graph().former(&self.me)
    }

    /// At a start: what this device's former keys asked of it is settled, since nothing was under way when
    /// they were replaced.
    pub(super) fn settle_former(&mut self, context: Context<'_>) {
        for former in self.former() {
            self.run_message(former, RunMessage::Open(Vec::new()), context);
        }
    }

    /// The statements that the first record of this key's chain is followed by: all that were stored before
    /// there was a chain, or, where another key's came before, the one which replaced that.
    pub(super) fn unrecorded(&self) -> Vec<StatementId> {
        let graph = self.membership.graph();
        if self.former().is_empty() {
            return graph.ids().copied().collect();
        }
        let me = self.membership.state().devices.get(&self.me);
        me.map(|device| device.added).into_iter().collect()
    }
}

#[cfg(test)]
mod tests;

//! Departures: what follows when a device is put out, suspended or replaced, this one included.
//!
//! Everything follows in the input that brings the statement: the network is told whom to serve, leases are
//! void, and what the device made is adopted in the batch that stores the statement. A device that is
//! suspended is served as little, but nothing that is asked of it is given up for good: a `Keep` lets all
//! go on.

use std::collections::BTreeSet;

use weft_protocol::{
    id::{DeviceId, StatementId},
    row::Write,
    timer::Timer,
};
use weft_trust::state::Standing;

use super::{After, Batch, Env, Node};
use crate::{
    Context, Output,
    door::Event,
    replica::{self, Replica},
    schedule,
};

impl Node {
    /// `statements` entered the graph, and `writes` store them: connections, leases and other devices' changes
    /// follow at once.
    pub(super) fn devices_changed(
        &mut self,
        statements: Vec<StatementId>,
        mut writes: Vec<Write>,
        context: Context<'_>,
    ) {
        self.outputs.push_back(Output::Members(self.served()));
        let (gone, out) = (self.gone_now(), self.out_now());
        let newly_gone: BTreeSet<DeviceId> = gone.difference(&self.gone).copied().collect();
        let newly_out: BTreeSet<DeviceId> = out.difference(&self.out).copied().collect();
        (self.gone, self.out) = (gone, out);
        let mut after = vec![After::Membership(statements)];
        self.adopt(&newly_gone, &mut writes, &mut after, context);
        self.hand_on(&newly_out, &mut writes);
        self.handover.take(Batch::synced(writes), after);
        let mut void: BTreeSet<DeviceId> = newly_gone.union(&newly_out).copied().collect();
        if void.contains(&self.me) {
            // Whatever it asks for or is asked for ends with it.
            void.extend(self.membership.others());
        }
        for device in void {
            self.presence.forget(&device);
            self.find_relays();
            self.contacts.forget(&device);
            self.skew.forget(&device);
            let is_for_good = self.out.contains(&device) || self.out.contains(&self.me);
            let neighbours = self.neighbours();
            let mut env = environment!(self, context, neighbours);
            self.executor.void(&device, &mut env);
            if is_for_good {
                self.dispatch.void(&device, &mut env);
            } else {
                self.dispatch.disconnected(device, &mut env);
            }
        }
        self.settle_replaced(&newly_out, context);
        self.feed_replica(replica::Input::MembersChanged, context);
        self.tell_watchers(Event::DevicesChanged);
    }

    /// At a start: adopts what devices made of which the disk does not say that it was adopted. So it is where
    /// this device's key is new and the old one wrote the disk.
    pub(super) fn adopt_late(&mut self, context: Context<'_>) {
        let missed =
            |device: &DeviceId| !Replica::has_adopted(device, context.rows).unwrap_or(true);
        let late: BTreeSet<DeviceId> = self.gone.iter().copied().filter(missed).collect();
        let (mut writes, mut after) = (Vec::new(), Vec::new());
        self.adopt(&late, &mut writes, &mut after, context);
        if !writes.is_empty() {
            self.handover.take(Batch::synced(writes), after);
        }
    }

    fn adopt(
        &mut self,
        devices: &BTreeSet<DeviceId>,
        writes: &mut Vec<Write>,
        after: &mut Vec<After>,
        context: Context<'_>,
    ) {
        for device in devices {
            if *device == self.me {
                continue;
            }
            match self.replica.adopt(device, &documents!(self, context)) {
                Ok(adopted) => {
                    writes.extend(adopted.writes);
                    after.push(After::Replica(adopted.ticket));
                }
                Err(error) => {
                    let device = device.short();
                    self.warn(format!("what {device} wrote can't be kept: {error}"));
                }
            }
        }
    }

    /// Whom the network serves: nobody, once this device is out for good.
    pub(super) fn served(&self) -> BTreeSet<DeviceId> {
        if self.out_now().contains(&self.me) { BTreeSet::new() } else { self.membership.others() }
    }

    /// Whether anything but trust is spoken with a device. One that does not belong itself speaks with
    /// nobody.
    pub(super) fn serves(&self, device: &DeviceId) -> bool {
        let state = self.membership.state();
        state.member(&self.me).is_some() && state.member(device).is_some()
    }

    /// Devices that belonged and do not now.
    pub(super) fn gone_now(&self) -> BTreeSet<DeviceId> {
        let devices = self.membership.state().devices.iter();
        devices.filter(|(_, device)| !device.is_active()).map(|(id, _)| *id).collect()
    }

    /// Those that are out for good, or whose key was replaced.
    pub(super) fn out_now(&self) -> BTreeSet<DeviceId> {
        let devices = self.membership.state().devices.iter();
        let out = devices.filter(|(_, device)| matches!(device.standing, Standing::Revoked { .. }));
        out.map(|(id, _)| *id).collect()
    }

    /// The device that a timer fires on, for people; of one that does not belong any more, who may move the
    /// timer.
    pub(super) fn fires_on(&self, timer: &Timer) -> String {
        let state = self.membership.state();
        let device = schedule::fires_on(timer, state);
        match state.devices.get(&device) {
            Some(known) => match known.standing {
                Standing::Active => known.name.to_string(),
                Standing::Suspended { .. } => format!("{} (suspended)", known.name),
                Standing::Revoked { .. } => {
                    format!("{} (put out: set it anew on another device)", known.name)
                }
            },
            None => device.short(),
        }
    }
}

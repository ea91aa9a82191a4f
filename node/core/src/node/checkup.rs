//! The facts of a checkup.

use super::Node;
use crate::{
    Context,
    checkup::{Checkup, ContactView},
};

impl Node {
    pub(super) fn checkup(&self, context: Context<'_>) -> Checkup {
        let state = self.membership.state();
        let own = self.presence.own();
        let others = state.members().filter(|(id, _)| **id != self.me);
        let devices = others.map(|(id, device)| ContactView {
            device: *id,
            name: device.name.as_str().to_owned(),
            addresses: self.addresses.get(id).cloned().unwrap_or_default(),
            contact: self.contacts.of(id),
            ahead_ms: self.skew.ahead_ms(id),
            relays: self.presence.relays(id),
        });
        let held = self.reach.reservations().map(|(it, since)| (self.name(&it.relay), since));
        let admins = state.admins().map(|(_, device)| device.name.as_str().to_owned());
        Checkup {
            boot: self.boot.counter,
            time: context.now.wall,
            clock_set: self.skew.set(),
            devices: devices.collect(),
            admins: admins.collect(),
            queue: own.queue,
            battery: own.battery,
            metered: own.metered,
            reach: self.reach.report().clone(),
            relays_held: held.collect(),
            machine: own.machine,
            warnings: self.warnings.clone(),
            copies: self.copy_warnings(context.now.wall),
        }
    }
}

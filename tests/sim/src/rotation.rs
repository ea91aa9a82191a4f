//! Another key in the place of a device's own: the seed is on the disk first, the node says it, and begins
//! anew under it.

use weft_core::{
    Context, Input,
    door::{DoorId, Reply},
    membership,
};
use weft_trust::secret::DeviceSecret;

use crate::{
    fault::Fault,
    network::SECOND,
    rules::RULES,
    world::{Happening, World},
};

/// The door at which keys are replaced.
const DOOR: DoorId = DoorId(1 << 42);
/// Somebody who was told to wait tries again after so long.
const RETRY_AFTER: u64 = SECOND / 2;
/// The power goes within so long of the order, which takes a disk about five milliseconds and all others to
/// hear of a network's delay.
const CRASH_WITHIN: u64 = 60_000;

impl World {
    /// A person has a device get another key, as soon as nothing is under way there.
    pub(crate) fn rotate(&mut self, at: usize, crashes: bool) {
        let host = &mut self.hosts[at];
        if host.put_out || host.stolen || host.set_back || host.image.is_some() {
            return;
        }
        let context =
            Context { now: host.now(self.time), rows: host.disk.visible(), policy: &*RULES };
        let may = host.node.as_mut().is_some_and(|node| node.may_rotate(context).is_ok());
        if !may || host.disk.failing {
            self.later(RETRY_AFTER, Happening::Fault(Fault::Rotate { host: at, crashes }));
            return;
        }
        let next = DeviceSecret::from_seed(&self.dice.trust.bytes());
        self.hosts[at].next = Some(next.clone());
        self.decisions.last = self.time;
        self.say(Some(at), || format!("is to have the key {}", next.id()));
        if crashes {
            let after = self.dice.faults.between(0, CRASH_WITHIN);
            let lasts = self.dice.faults.between(SECOND / 5, 8 * SECOND);
            self.later(after, Happening::Fault(Fault::Crash { host: at, lasts }));
        }
        self.feed(at, Input::Rotate { door: DOOR, next: Box::new(next) });
    }

    /// A node has another key on its disk: it begins anew in a moment.
    pub(crate) fn rotated(&mut self, at: usize, reply: &Reply) {
        if let Reply::Rotated { former, device } = reply {
            let host = &self.hosts[at];
            if *former != host.id || host.next.as_ref().map(DeviceSecret::id) != Some(*device) {
                let what = format!("{} says that {device} replaced {former}", host.name);
                self.failures.add("membership", what);
            }
            let after = self.dice.faults.between(0, SECOND / 5);
            self.later(after, Happening::Renew(at, self.hosts[at].boots));
        }
    }

    /// A node ends, and begins under its new key.
    pub(crate) fn renew(&mut self, at: usize, boot: u64) {
        if self.runs(at, boot) {
            self.crash(at);
            self.start(at);
        }
    }

    /// Decides which key a machine has where another was drawn: that, if the rows say that it replaced the
    /// one before.
    pub(crate) fn settle_key(&mut self, at: usize) {
        let Some(next) = self.hosts[at].next.take() else { return };
        let graph = membership::graph(self.hosts[at].disk.visible());
        let former = graph.map(|graph| graph.former(&next.id())).unwrap_or_default();
        let host = &mut self.hosts[at];
        if former.first() == Some(&host.id) {
            (host.id, host.secret, host.former) = (next.id(), next, former);
            self.say(Some(at), || "has a new key".to_owned());
        }
    }
}

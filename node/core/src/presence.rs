//! Who is here and what they can do now: the newest signed record of each device.
//!
//! Records are passed on, so that a device hears of one that it has not met since its start. They
//! are never written to a disk; no presence means away.

use std::{collections::BTreeMap, time::Duration};

use ed25519_dalek::SigningKey;
use weft_protocol::{
    id::{BootId, DeviceId},
    presence::{Machine, ModelReady, PRESENCE_BYTES_MAX, Presence, PresenceMessage},
    signed::{Domain, Signed},
    time::{Now, Timestamp},
};

/// A record is renewed so often while nothing in it changes: rarely enough for a phone, often enough
/// that queue and battery are of use to placement.
const RENEW: Duration = Duration::from_secs(15);

/// What this node says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Own {
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Steps that wait or run here.
    pub queue: u32,
    /// Charge in percent; `None`: not on battery.
    pub battery: Option<u8>,
    /// Whether the network costs money.
    pub metered: bool,
    /// Models that answer here.
    pub models: Vec<ModelReady>,
    /// Whether it carries other members' connections.
    pub relays: bool,
    /// What this machine has.
    pub machine: Option<Machine>,
}

/// The machine: this device's record, and the newest of the others.
#[derive(Debug)]
pub struct PresenceTable {
    key: SigningKey,
    device: DeviceId,
    boot: BootId,
    sequence: u64,
    own: Own,
    told: Option<(Own, Timestamp)>,
    others: BTreeMap<DeviceId, (Presence, Signed)>,
}

impl PresenceTable {
    /// Knows nobody yet.
    pub fn new(key: SigningKey, boot: BootId) -> Self {
        let device = DeviceId::from_bytes(key.verifying_key().to_bytes());
        Self {
            key,
            device,
            boot,
            sequence: 0,
            own: Own::default(),
            told: None,
            others: BTreeMap::new(),
        }
    }

    /// What this node says of itself, to be changed in place; told to others at the next poll.
    pub fn own_mut(&mut self) -> &mut Own {
        &mut self.own
    }

    /// What this node says of itself.
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// The newest record of a device.
    pub fn of(&self, device: &DeviceId) -> Option<&Presence> {
        self.others.get(device).map(|(presence, _)| presence)
    }

    /// A new record of this device, if it has something new to say or the last one is old.
    pub fn poll(&mut self, now: Now) -> Option<PresenceMessage> {
        let due = self
            .told
            .as_ref()
            .is_none_or(|(own, at)| *own != self.own || now.mono.since(*at) >= RENEW);
        due.then(|| PresenceMessage::Records(vec![self.sign(now)]))
    }

    /// When [`Self::poll`] has something to say although nothing changed.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.told.as_ref().map(|(_, at)| *at + RENEW)
    }

    /// All that is known, for a device that just came.
    pub fn greeting(&mut self, now: Now) -> PresenceMessage {
        let own = self.sign(now);
        let others = self.others.values().map(|(_, signed)| signed.clone());
        PresenceMessage::Records(std::iter::once(own).chain(others).collect())
    }

    fn sign(&mut self, now: Now) -> Signed {
        self.sequence += 1;
        self.told = Some((self.own.clone(), now.mono));
        let presence = Presence {
            device: self.device,
            boot: self.boot,
            sequence: self.sequence,
            addresses: self.own.addresses.clone(),
            queue: self.own.queue,
            battery: self.own.battery,
            metered: self.own.metered,
            models: self.own.models.clone(),
            time: now.wall,
            relays: self.own.relays,
            machine: self.own.machine,
        };
        Signed::new(Domain::Presence, &presence, &self.key)
    }

    /// Takes in records, and gives those that were news: to pass on, and to remember addresses from.
    ///
    /// What is forged, too old, or of a device that `is_member` does not know is passed over.
    pub fn learn(
        &mut self,
        message: PresenceMessage,
        is_member: impl Fn(&DeviceId) -> bool,
    ) -> Vec<(Presence, Signed)> {
        let PresenceMessage::Records(records) = message;
        let mut news = Vec::new();
        for signed in records {
            let Ok(presence) = signed.open::<Presence>(Domain::Presence, PRESENCE_BYTES_MAX) else {
                continue;
            };
            let order = (presence.boot.counter, presence.sequence);
            let newest = self.others.get(&presence.device);
            let is_news =
                newest.is_none_or(|(known, _)| (known.boot.counter, known.sequence) < order);
            if signed.author == presence.device
                && presence.device != self.device
                && is_member(&presence.device)
                && is_news
            {
                self.others.insert(presence.device, (presence.clone(), signed.clone()));
                news.push((presence, signed));
            }
        }
        news
    }

    /// Forgets a device that no longer belongs.
    pub fn forget(&mut self, device: &DeviceId) {
        self.others.remove(device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(seed: u8) -> PresenceTable {
        let key = SigningKey::from_bytes(&[seed; 32]);
        PresenceTable::new(key, BootId { counter: 1, random: 0 })
    }

    fn at(seconds: u64) -> Now {
        Now { mono: Timestamp::from_millis(seconds * 1_000), ..Now::default() }
    }

    #[test]
    fn says_only_what_is_new_or_old() {
        let mut laptop = table(1);
        assert!(laptop.poll(at(0)).is_some());
        assert!(laptop.poll(at(1)).is_none());
        laptop.own_mut().queue = 2;
        assert!(laptop.poll(at(2)).is_some());
        assert!(laptop.poll(at(16)).is_none());
        assert!(laptop.poll(at(17)).is_some());
    }

    #[test]
    fn believes_only_members_about_themselves_and_only_what_is_newer() {
        let (mut laptop, mut phone) = (table(1), table(2));
        let old = phone.greeting(at(0));
        let new = phone.greeting(at(1));
        assert!(laptop.learn(new.clone(), |_| false).is_empty());
        assert_eq!(laptop.learn(new, |_| true).len(), 1);
        assert!(laptop.learn(old, |_| true).is_empty());
        let PresenceMessage::Records(mut forged) = phone.greeting(at(2));
        forged[0].author = DeviceId::from_bytes([3; 32]);
        assert!(laptop.learn(PresenceMessage::Records(forged), |_| true).is_empty());
    }
}

//! How a device was last looked for: why it can't be reached, and whether it was seen nearby.
//!
//! The network says how each dial ended, address by address; kept is the last one of each device that
//! belongs and is not connected, for a person who asks why. Nothing is decided by it, and it is never
//! written to a disk.

use std::collections::BTreeMap;

use weft_protocol::{
    attempt::{Attempt, Ending},
    id::DeviceId,
    time::WallTime,
};

/// The most attempts that are kept of one dial: all direct addresses that are dialled.
const ATTEMPTS_MAX: usize = 16;

/// The most characters that are kept of an address, and of what a system says.
const CHARS_MAX: usize = 256;

/// A dial that came to nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// When it ended.
    pub at: WallTime,
    /// What was tried; empty: no address is known that could be.
    pub attempts: Vec<Attempt>,
    /// How many there were since the device was last connected, or this node began.
    pub times: u32,
}

/// How one device was last looked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contact {
    /// When it was last seen on the local network, by mDNS, since this node began.
    pub sighted: Option<WallTime>,
    /// The last dial, if that came to nothing.
    pub failed: Option<Failed>,
}

/// The machine: the contact with each device that belongs.
#[derive(Debug, Default)]
pub struct Contacts {
    devices: BTreeMap<DeviceId, Contact>,
}

impl Contacts {
    /// A device was seen on the local network.
    pub fn sighted(&mut self, device: DeviceId, now: WallTime) {
        self.devices.entry(device).or_default().sighted = Some(now);
    }

    /// A dial came to nothing.
    pub fn failed(&mut self, device: DeviceId, mut attempts: Vec<Attempt>, now: WallTime) {
        attempts.truncate(ATTEMPTS_MAX);
        for attempt in &mut attempts {
            cut(&mut attempt.address);
            if let Ending::Other(words) = &mut attempt.ending {
                cut(words);
            }
        }
        let contact = self.devices.entry(device).or_default();
        let before = contact.failed.as_ref().map_or(0, |failed| failed.times);
        let times = before.saturating_add(1);
        contact.failed = Some(Failed { at: now, attempts, times });
    }

    /// A device is connected: why it was not is of no interest any more.
    pub fn connected(&mut self, device: &DeviceId) {
        if let Some(contact) = self.devices.get_mut(device) {
            contact.failed = None;
        }
    }

    /// Forgets a device that no longer belongs.
    pub fn forget(&mut self, device: &DeviceId) {
        self.devices.remove(device);
    }

    /// How a device was last looked for.
    pub fn of(&self, device: &DeviceId) -> Contact {
        self.devices.get(device).cloned().unwrap_or_default()
    }
}

fn cut(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(CHARS_MAX) {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: DeviceId = DeviceId::from_bytes([2; 32]);

    fn at(seconds: i64) -> WallTime {
        WallTime::from_unix_millis(seconds * 1_000)
    }

    fn attempt(ending: Ending) -> Attempt {
        Attempt { address: "/ip4/10.0.0.2/tcp/4001".into(), ending }
    }

    #[test]
    fn the_last_dial_is_kept_until_the_device_is_connected() {
        let mut contacts = Contacts::default();
        assert_eq!(contacts.of(&PHONE), Contact::default());
        contacts.failed(PHONE, vec![attempt(Ending::NoAnswer)], at(1));
        contacts.failed(PHONE, vec![attempt(Ending::Refused)], at(2));
        let failed = contacts.of(&PHONE).failed.expect("it failed");
        assert_eq!((failed.at, failed.times), (at(2), 2));
        assert_eq!(failed.attempts, [attempt(Ending::Refused)]);
        contacts.sighted(PHONE, at(3));
        contacts.connected(&PHONE);
        assert_eq!(contacts.of(&PHONE), Contact { sighted: Some(at(3)), failed: None });
        contacts.failed(PHONE, Vec::new(), at(4));
        assert_eq!(contacts.of(&PHONE).failed.map(|it| it.times), Some(1), "counted anew");
        contacts.forget(&PHONE);
        assert_eq!(contacts.of(&PHONE), Contact::default());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut contacts = Contacts::default();
        let long = Attempt { address: "ä".repeat(999), ending: Ending::Other("ö".repeat(999)) };
        contacts.failed(PHONE, vec![long; 99], at(1));
        let failed = contacts.of(&PHONE).failed.expect("it failed");
        assert_eq!(failed.attempts.len(), ATTEMPTS_MAX);
        let first = &failed.attempts[0];
        assert_eq!(first.address.chars().count(), CHARS_MAX);
        assert_eq!(first.ending, Ending::Other("ö".repeat(CHARS_MAX)));
    }
}

//! Where each device can be dialled, as far as it is known here.

use std::collections::{BTreeSet, HashMap, VecDeque};

use libp2p::Multiaddr;
use weft_protocol::id::DeviceId;

/// Addresses of one device that are dialled: two transports on four interfaces, v4 and v6.
const ADDRESSES_MAX: usize = 16;

/// The addresses of all devices: those that the node remembers, and those seen by mDNS.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    remembered: HashMap<DeviceId, Vec<Multiaddr>>,
    sighted: HashMap<DeviceId, VecDeque<Multiaddr>>,
}

impl AddressBook {
    /// Replaces what is remembered of a device; whether something of it was not remembered before.
    pub(crate) fn remember(
        &mut self,
        device: DeviceId,
        addresses: impl Iterator<Item = Multiaddr>,
    ) -> bool {
        let addresses: Vec<Multiaddr> = addresses.take(ADDRESSES_MAX).collect();
        let known = self.remembered.entry(device).or_default();
        let is_new = addresses.iter().any(|address| !known.contains(address));
        *known = addresses;
        is_new
    }

    /// Notes that a device was seen at an address, which is dialled first from now on.
    pub(crate) fn sight(&mut self, device: DeviceId, address: Multiaddr) {
        let known = self.sighted.entry(device).or_default();
        known.retain(|other| *other != address);
        known.push_front(address);
        known.truncate(ADDRESSES_MAX);
    }

    /// Forgets that a device was seen at an address.
    pub(crate) fn expire(&mut self, device: DeviceId, address: &Multiaddr) {
        if let Some(known) = self.sighted.get_mut(&device) {
            known.retain(|other| other != address);
        }
    }

    /// Forgets where others than `members` were seen.
    pub(crate) fn retain_sighted(&mut self, members: &BTreeSet<DeviceId>) {
        self.sighted.retain(|device, _| members.contains(device));
    }

    /// Where a device is dialled, the newest sighting first.
    pub(crate) fn of(&self, device: DeviceId) -> Vec<Multiaddr> {
        let sighted = self.sighted.get(&device).into_iter().flatten();
        let remembered = self.remembered.get(&device).into_iter().flatten();
        let mut addresses: Vec<Multiaddr> = Vec::new();
        for address in sighted.chain(remembered) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceId = DeviceId::from_bytes([1; 32]);

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn what_was_seen_last_is_dialled_first_and_nothing_twice() {
        let mut book = AddressBook::default();
        assert!(book.remember(DEVICE, [address(1), address(2)].into_iter()));
        book.sight(DEVICE, address(3));
        book.sight(DEVICE, address(2));
        book.sight(DEVICE, address(3));
        assert_eq!(book.of(DEVICE), [address(3), address(2), address(1)]);
        book.expire(DEVICE, &address(3));
        assert_eq!(book.of(DEVICE), [address(2), address(1)]);
        book.retain_sighted(&BTreeSet::new());
        assert_eq!(book.of(DEVICE), [address(1), address(2)]);
    }

    #[test]
    fn only_an_address_that_was_not_remembered_is_new() {
        let mut book = AddressBook::default();
        assert!(book.remember(DEVICE, [address(1), address(2)].into_iter()));
        assert!(!book.remember(DEVICE, [address(2)].into_iter()));
        assert!(book.remember(DEVICE, [address(1)].into_iter()));
        assert!(!book.remember(DEVICE, std::iter::empty()));
        assert_eq!(book.of(DEVICE), []);
    }

    #[test]
    fn addresses_are_bounded() {
        let mut book = AddressBook::default();
        book.remember(DEVICE, (1..=40).map(address));
        assert_eq!(book.of(DEVICE).len(), ADDRESSES_MAX);
        for port in 100..140 {
            book.sight(DEVICE, address(port));
        }
        let dialled: Vec<Multiaddr> = (124..140).rev().map(address).collect();
        assert_eq!(book.of(DEVICE), dialled);
    }
}

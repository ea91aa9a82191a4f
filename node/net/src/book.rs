//! Where each device can be dialled, as far as it is known here.

use std::collections::{BTreeSet, HashMap, VecDeque};

use libp2p::Multiaddr;
use weft_protocol::id::DeviceId;

use crate::address;

/// Direct addresses of one device that are dialled: two transports on four interfaces, v4 and v6.
pub(crate) const DIRECT_MAX: usize = 16;

/// Addresses of one device through relays: two relays at two transports, v4 and v6.
pub(crate) const RELAYED_MAX: usize = 8;

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
        let addresses = bounded(addresses);
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
        known.truncate(DIRECT_MAX);
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
        bounded(sighted.chain(remembered).cloned())
    }
}

/// Each once, and of each kind as many as are dialled.
fn bounded(addresses: impl Iterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let (mut taken, mut direct, mut relayed) = (Vec::new(), 0, 0);
    for address in addresses {
        let (count, max) = if address::is_relayed(&address) {
            (&mut relayed, RELAYED_MAX)
        } else {
            (&mut direct, DIRECT_MAX)
        };
        if *count < max && !taken.contains(&address) {
            *count += 1;
            taken.push(address);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceId = DeviceId::from_bytes([1; 32]);

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
    }

    fn circuit(port: u16) -> Multiaddr {
        let relay = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        format!("/ip4/192.0.2.1/tcp/{port}/p2p/{relay}/p2p-circuit").parse().unwrap()
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
    fn addresses_are_bounded_and_many_direct_ones_leave_room_for_relays() {
        let mut book = AddressBook::default();
        book.remember(DEVICE, (1..=40).map(address).chain((1..=40).map(circuit)));
        let expected: Vec<Multiaddr> = (1..=16).map(address).chain((1..=8).map(circuit)).collect();
        assert_eq!(book.of(DEVICE), expected);
        for port in 100..140 {
            book.sight(DEVICE, address(port));
        }
        let expected: Vec<Multiaddr> =
            (124..140).rev().map(address).chain((1..=8).map(circuit)).collect();
        assert_eq!(book.of(DEVICE), expected);
    }
}

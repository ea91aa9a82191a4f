//! What this node found out about how others can reach it, and what follows: which addresses they are
//! told, whether it can carry others' connections, and what stands between.
//!
//! An address counts as confirmed when a member reached this node at it: because this node asked for that
//! (AutoNAT v2), or by itself, from a place that this node never spoke to. Of these only one that is this
//! machine's own, or that the router says it passes on, is sure: a member that was asked to dial back may
//! have come through a hole that a router opened for it alone. Only who is sure relays.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use libp2p::{Multiaddr, swarm::ConnectionId};
use weft_protocol::{
    id::DeviceId,
    reach::{Nat, Part, Report, Reservation, Service, Trouble},
};

use crate::{
    Reach, address,
    book::{DIRECT_MAX, RELAYED_MAX},
    reserve::PLACES_MAX,
};

/// What is told of addresses leaves room in a presence record for the rest
/// ([`PRESENCE_BYTES_MAX`](weft_protocol::presence::PRESENCE_BYTES_MAX)).
const TOLD_BYTES_MAX: usize = 3 << 10;

/// What a member sees of this node on a connection that this node dialled.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Observation {
    by: IpAddr,
    address: Multiaddr,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Findings {
    reach: Reach,
    may_relay: bool,
    announced: Vec<Multiaddr>,
    listeners: BTreeSet<Multiaddr>,
    observed: BTreeMap<ConnectionId, Observation>,
    confirmed: BTreeSet<Multiaddr>,
    mapped: BTreeSet<Multiaddr>,
    reservations: BTreeMap<DeviceId, Vec<Multiaddr>>,
    served: BTreeSet<DeviceId>,
    circuits: usize,
    troubles: BTreeMap<Part, String>,
}

impl Findings {
    /// Knows what a person named, and whether this node may relay.
    pub(crate) fn new(reach: Reach, may_relay: bool, announced: Vec<Multiaddr>) -> Self {
        Self {
            reach,
            may_relay,
            announced,
            listeners: BTreeSet::new(),
            observed: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            mapped: BTreeSet::new(),
            reservations: BTreeMap::new(),
            served: BTreeSet::new(),
            circuits: 0,
            troubles: BTreeMap::new(),
        }
    }

    /// Where it listens now; whether one is of an IP address that is new. What was confirmed of an interface
    /// that is gone is forgotten.
    pub(crate) fn listen(&mut self, listeners: impl Iterator<Item = Multiaddr>) -> bool {
        let reach = self.reach;
        let listeners: BTreeSet<Multiaddr> = listeners
            .filter(|it| !address::is_relayed(it) && address::is_worth_telling(it, reach))
            .collect();
        let known: BTreeSet<Option<IpAddr>> = self.listeners.iter().map(address::ip).collect();
        let is_new = listeners.iter().any(|it| !known.contains(&address::ip(it)));
        for gone in self.listeners.difference(&listeners) {
            self.confirmed.remove(gone);
        }
        self.listeners = listeners;
        is_new
    }

    /// A member sees this node under an address, on a connection that this node dialled.
    pub(crate) fn observe(&mut self, connection: ConnectionId, by: IpAddr, address: Multiaddr) {
        self.observed.insert(connection, Observation { by, address });
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.observed.remove(&connection);
    }

    /// The addresses under which members see this node now, and those that the router passes on.
    pub(crate) fn candidates(&self) -> BTreeSet<Multiaddr> {
        let observed = self.observed.values().map(|it| it.address.clone());
        observed.chain(self.mapped.iter().cloned()).collect()
    }

    /// A member dialled this node at an address, from a place at which this node never dials it.
    pub(crate) fn came(&mut self, at: &Multiaddr, from: IpAddr) {
        let from = Multiaddr::from(from);
        let is_elsewhere = address::is_public(&from) && address::ip(at) != address::ip(&from);
        if is_elsewhere && address::is_public(at) && self.listeners.contains(at) {
            self.confirmed.insert(at.clone());
        }
    }

    /// A member reached this node at an address when it was asked to, or did not.
    pub(crate) fn tested(&mut self, address: Multiaddr, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.confirmed.insert(address);
                self.troubles.remove(&Part::DialBack);
            }
            Err(why) => {
                self.confirmed.remove(&address);
                self.trouble(Part::DialBack, format!("{address} was not reached: {why}"));
            }
        }
    }

    /// The router says that it passes these addresses on, and no others.
    pub(crate) fn map(&mut self, mapped: BTreeSet<Multiaddr>) {
        for gone in self.mapped.difference(&mapped) {
            self.confirmed.remove(gone);
        }
        self.mapped = mapped;
    }

    /// Whether the router passes on what comes for another address than that, under which a member sees this
    /// node.
    pub(crate) fn is_mapped_elsewhere(&self, seen: &Multiaddr) -> bool {
        let (seen, is_public) = (address::ip(seen), address::is_public(seen));
        let is_v4 = seen.is_some_and(|ip| ip.is_ipv4());
        is_public && is_v4 && self.mapped.iter().any(|it| address::ip(it) != seen)
    }

    /// Another network: what was confirmed holds where the address is still this machine's.
    pub(crate) fn moved(&mut self) {
        self.confirmed.retain(|address| self.listeners.contains(address));
        self.mapped.clear();
    }

    /// A relay keeps a place under these addresses.
    pub(crate) fn reserved(&mut self, relay: DeviceId, addresses: Vec<Multiaddr>) {
        self.reservations.insert(relay, addresses);
        self.troubles.remove(&Part::Reservation);
    }

    /// A relay keeps a place no longer.
    pub(crate) fn lost(&mut self, relay: DeviceId) {
        self.reservations.remove(&relay);
    }

    /// This node keeps a place for a member, or no longer does.
    pub(crate) fn serve(&mut self, device: DeviceId, is_served: bool) {
        if is_served {
            self.served.insert(device);
        } else {
            self.served.remove(&device);
        }
    }

    /// A connection between two others begins or ends here.
    pub(crate) fn carry(&mut self, begins: bool) {
        self.circuits = if begins { self.circuits + 1 } else { self.circuits.saturating_sub(1) };
    }

    /// Something does not work.
    pub(crate) fn trouble(&mut self, part: Part, why: String) {
        self.troubles.insert(part, why);
    }

    /// It works again.
    pub(crate) fn works(&mut self, part: Part) {
        self.troubles.remove(&part);
    }

    /// The public addresses that a relay tells those that it keeps a place for.
    pub(crate) fn public(&self) -> BTreeSet<Multiaddr> {
        self.announced.iter().chain(&self.confirmed).chain(&self.mapped).cloned().collect()
    }

    /// Whether others can reach this node for certain.
    fn is_sure(&self) -> bool {
        let is_own = |it: &&Multiaddr| self.listeners.contains(*it) || self.mapped.contains(*it);
        !self.announced.is_empty() || self.confirmed.iter().any(|it| is_own(&it))
    }

    /// Whether this node carries other members' connections.
    pub(crate) fn relays(&self) -> bool {
        self.may_relay && self.is_sure()
    }

    /// How many relays are to keep a place for this node: none for one that others reach for certain, one
    /// where that is likely.
    pub(crate) fn places(&self) -> usize {
        if self.is_sure() {
            0
        } else if self.confirmed.is_empty() {
            PLACES_MAX
        } else {
            1
        }
    }

    /// Where others are told to dial this node: what is reachable from everywhere first, then what is near,
    /// then what leads through relays.
    pub(crate) fn told(&self) -> Vec<Multiaddr> {
        let mut told: Vec<Multiaddr> = Vec::new();
        let direct = self.announced.iter().chain(&self.confirmed).chain(&self.mapped);
        for address in direct.chain(&self.listeners) {
            if told.len() < DIRECT_MAX && !told.contains(address) {
                told.push(address.clone());
            }
        }
        // Of each relay an address, before the second of any.
        let longest = self.reservations.values().map(Vec::len).max().unwrap_or(0);
        let relayed = (0..longest)
            .flat_map(|nth| self.reservations.values().filter_map(move |of| of.get(nth)));
        told.extend(relayed.take(RELAYED_MAX).cloned());
        let mut room = TOLD_BYTES_MAX;
        told.retain(|address| {
            let bytes = address.to_string().len();
            let fits = bytes <= room;
            room -= if fits { bytes } else { 0 };
            fits
        });
        told
    }

    /// What stands between this node and those that it dialled, as far as two of them tell.
    fn nat(&self) -> Nat {
        let is_own = |it: &Observation| self.listeners.contains(&it.address);
        let mut ports: BTreeMap<(IpAddr, bool), BTreeMap<IpAddr, &Multiaddr>> = BTreeMap::new();
        for it in self.observed.values().filter(|it| !is_own(it)) {
            let is_quic = it.address.iter().any(|part| part == libp2p::multiaddr::Protocol::QuicV1);
            if let Some(ip) = address::ip(&it.address) {
                ports.entry((ip, is_quic)).or_default().insert(it.by, &it.address);
            }
        }
        let seen = ports.values().filter(|by| by.len() > 1);
        let differ =
            |by: &&BTreeMap<IpAddr, &Multiaddr>| by.values().collect::<BTreeSet<_>>().len() > 1;
        let (per_peer, steady): (Vec<_>, Vec<_>) = seen.partition(differ);
        if !per_peer.is_empty() {
            Nat::PerPeer
        } else if !steady.is_empty() {
            Nat::Steady
        } else if ports.is_empty()
            && (self.observed.values().any(|it| address::is_public(&it.address))
                || self.confirmed.iter().any(|it| self.listeners.contains(it)))
        {
            Nat::None
        } else {
            Nat::Unknown
        }
    }

    /// All of it, as plain data.
    pub(crate) fn report(&self) -> Report {
        let texts = |addresses: &mut dyn Iterator<Item = &Multiaddr>| {
            addresses.map(ToString::to_string).collect::<Vec<String>>()
        };
        let observed: BTreeSet<&Multiaddr> = self
            .observed
            .values()
            .map(|it| &it.address)
            .filter(|address| !self.listeners.contains(*address))
            .collect();
        let reservation = |(relay, addresses): (&DeviceId, &Vec<Multiaddr>)| Reservation {
            relay: *relay,
            addresses: texts(&mut addresses.iter()),
        };
        let trouble = |(part, why): (&Part, &String)| Trouble { part: *part, why: why.clone() };
        Report {
            confirmed: texts(&mut self.confirmed.iter()),
            observed: texts(&mut observed.into_iter()),
            mapped: texts(&mut self.mapped.iter()),
            announced: texts(&mut self.announced.iter()),
            reservations: self.reservations.iter().map(reservation).collect(),
            service: self
                .relays()
                .then_some(Service { reservations: self.served.len(), circuits: self.circuits }),
            nat: self.nat(),
            troubles: self.troubles.iter().map(trouble).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: DeviceId = DeviceId::from_bytes([1; 32]);
    const OTHER: DeviceId = DeviceId::from_bytes([2; 32]);
    const OWN: &str = "/ip4/203.0.113.1/udp/4001/quic-v1";
    const HOME: &str = "/ip4/192.168.1.10/udp/4001/quic-v1";

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn findings(listener: &str) -> Findings {
        let mut findings = Findings::new(Reach::Lan, true, Vec::new());
        assert!(findings.listen([address(listener)].into_iter()));
        findings
    }

    fn connection(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn whoever_is_reached_from_elsewhere_at_its_own_address_is_sure_and_relays() {
        let mut server = findings(OWN);
        assert!(!server.relays());
        assert_eq!(server.places(), 2);
        // Neither its own neighbours nor itself prove it, nor an address that is not its own.
        server.came(&address(OWN), ip("10.0.0.7"));
        server.came(&address(OWN), ip("203.0.113.1"));
        server.came(&address("/ip4/198.51.100.9/udp/4001/quic-v1"), ip("198.51.100.7"));
        assert!(!server.relays());
        server.came(&address(OWN), ip("198.51.100.7"));
        assert!(server.relays());
        assert_eq!(server.places(), 0);
        assert_eq!(server.report().confirmed, [OWN]);
        // Another network ends it.
        assert!(server.listen([address(HOME)].into_iter()));
        assert!(!server.relays());
    }

    #[test]
    fn what_may_be_a_hole_for_one_member_is_told_but_carries_nobody() {
        let mut laptop = findings(HOME);
        let seen = address("/ip4/198.51.100.1/udp/4001/quic-v1");
        laptop.tested(seen.clone(), Ok(()));
        assert!(!laptop.relays());
        assert_eq!(laptop.places(), 1);
        assert_eq!(laptop.told(), [seen.clone(), address(HOME)]);
        // The router says so as well.
        laptop.map(BTreeSet::from([seen.clone()]));
        assert!(laptop.relays());
        laptop.map(BTreeSet::new());
        assert_eq!(laptop.told(), [address(HOME)]);
        laptop.tested(seen, Err("no connection".into()));
        assert_eq!(laptop.report().troubles.len(), 1);
    }

    #[test]
    fn who_was_announced_relays_where_it_may() {
        let announced = || vec![address("/dns4/vps.example/udp/4001/quic-v1")];
        let server = Findings::new(Reach::Lan, true, announced());
        assert_eq!(server.report().service, Some(Service::default()));
        assert_eq!(server.told(), announced());
        let phone = Findings::new(Reach::Lan, false, announced());
        assert_eq!(phone.report().service, None);
    }

    #[test]
    fn two_members_tell_a_router_that_gives_each_another_port() {
        let seen = |port: u16| address(&format!("/ip4/198.51.100.1/udp/{port}/quic-v1"));
        let mut laptop = findings(HOME);
        assert_eq!(laptop.nat(), Nat::Unknown);
        laptop.observe(connection(1), ip("203.0.113.1"), seen(4001));
        // The same member twice, and one at home, tell nothing more.
        laptop.observe(connection(2), ip("203.0.113.1"), seen(4002));
        laptop.observe(connection(3), ip("192.168.1.11"), address(HOME));
        assert_eq!(laptop.nat(), Nat::Unknown);
        laptop.closed(connection(2));
        laptop.observe(connection(4), ip("203.0.113.2"), seen(4001));
        assert_eq!(laptop.nat(), Nat::Steady);
        assert_eq!(laptop.report().observed, ["/ip4/198.51.100.1/udp/4001/quic-v1"]);
        laptop.observe(connection(4), ip("203.0.113.2"), seen(50_000));
        assert_eq!(laptop.nat(), Nat::PerPeer);
        let mut server = findings(OWN);
        server.observe(connection(1), ip("203.0.113.2"), address(OWN));
        assert_eq!(server.nat(), Nat::None);
    }

    #[test]
    fn others_are_told_an_address_of_each_relay_before_a_second_of_one() {
        let through = |relay: u8, nth: u16| address(&format!("/ip4/203.0.113.{relay}/tcp/{nth}"));
        let mut phone = findings(HOME);
        phone.reserved(SERVER, (1..10).map(|nth| through(1, nth)).collect());
        phone.reserved(OTHER, vec![through(2, 1)]);
        let told = phone.told();
        assert_eq!(told.len(), 1 + RELAYED_MAX);
        assert_eq!(told[..4], [address(HOME), through(1, 1), through(2, 1), through(1, 2)]);
        phone.lost(SERVER);
        assert_eq!(phone.told(), [address(HOME), through(2, 1)]);
    }

    #[test]
    fn what_is_told_fits_into_a_presence_record() {
        let long = ["a".repeat(58).as_str(); 4].join(".");
        let announced = (1..=16).map(|port| address(&format!("/dns4/{long}/tcp/{port}"))).collect();
        let mut server = Findings::new(Reach::Lan, true, announced);
        server.reserved(OTHER, vec![address("/ip4/203.0.113.2/tcp/1")]);
        let told = server.told();
        let bytes: usize = told.iter().map(|it| it.to_string().len()).sum();
        assert!((2_500..=TOLD_BYTES_MAX).contains(&bytes), "{bytes}");
        assert_eq!(
            told.last(),
            Some(&address("/ip4/203.0.113.2/tcp/1")),
            "what still fits is told"
        );
    }
}

//! How this node is reached: what members see of it, the relays that keep a place for it, and the
//! direct connections that take relayed ones' places.

use std::net::IpAddr;

use libp2p::{
    Multiaddr, PeerId, autonat,
    core::{
        ConnectedPoint,
        transport::{ListenerId, PortUse},
    },
    dcutr, identify,
    multiaddr::Protocol as Part,
    relay,
    swarm::{ConnectionId, FromSwarm},
};
use weft_protocol::{id::DeviceId, reach::Part as ReachPart};

use super::{Connection, NetActor};
use crate::{
    Event, Reach, address, fault,
    mapping::{self, Port},
    peer, reserve, upgrade,
};

/// What AutoNAT is to test: public addresses that are this node's own.
pub(super) fn is_worth_testing(event: &FromSwarm<'_>) -> bool {
    if let FromSwarm::NewExternalAddrCandidate(it) = event {
        address::is_public(it.addr) && !address::is_relayed(it.addr)
    } else {
        true
    }
}

/// A connection that this node dialled, and under which of its addresses others may reach it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// What the peer sees is where the router passes on what comes for this node.
    Outside { by: IpAddr },
    /// What the peer says to have dialled.
    Dialled { from: IpAddr },
    /// It tells nothing.
    Nothing,
}

impl Seen {
    pub(super) fn on(endpoint: &ConnectedPoint) -> Self {
        let direct =
            |address: &Multiaddr| address::ip(address).filter(|_| !address::is_relayed(address));
        match endpoint {
            // From a port of its own it is seen under one at which nobody listens.
            ConnectedPoint::Dialer { address, port_use: PortUse::Reuse, .. } => {
                direct(address).map_or(Self::Nothing, |by| Self::Outside { by })
            }
            ConnectedPoint::Dialer { .. } => Self::Nothing,
            ConnectedPoint::Listener { local_addr, send_back_addr } => direct(send_back_addr)
                .filter(|_| !address::is_relayed(local_addr))
                .map_or(Self::Nothing, |from| Self::Dialled { from }),
        }
    }
}

impl NetActor {
    /// A peer says under which address it sees this node.
    pub(super) fn on_identified(&mut self, id: ConnectionId, info: &identify::Info) {
        let Some(connection) = self.connections.get(&id) else { return };
        if !connection.member {
            return;
        }
        let device = connection.device;
        let seen = connection.seen.clone();
        let address = address::without_peer(info.observed_addr.clone());
        if address::parse(&address.to_string(), self.reach).as_ref() != Some(&address)
            || address::is_relayed(&address)
        {
            return;
        }
        match seen {
            Seen::Outside { by } => {
                self.findings.observe(id, by, address.clone());
                if let Some(mapping) = &self.mapping
                    && self.findings.is_mapped_elsewhere(&address)
                {
                    mapping.doubt();
                }
                self.propose(address);
            }
            Seen::Dialled { from } => {
                let dials_it = |known: &Multiaddr| address::ip(known) == Some(from);
                if !self.book.of(device).iter().any(dials_it) {
                    self.findings.came(&address, from);
                }
            }
            Seen::Nothing => {}
        }
        self.tell_reach();
    }

    /// Has an address tested, and named to those that are to dial this node at the same time as it does them.
    /// Where a private one leads, others that are there dial it as it is.
    fn propose(&mut self, address: Multiaddr) {
        if self.reach == Reach::Loopback || address::is_public(&address) {
            self.swarm.behaviour_mut().identify.propose(address);
        }
    }

    /// A member dialled back, or could not.
    pub(super) fn on_tested(&mut self, event: autonat::v2::client::Event) {
        let address = address::without_peer(event.tested_addr);
        tracing::debug!(%address, result = ?event.result, "tested by a member");
        let outcome = event.result.map_err(|error| error.to_string());
        self.findings.tested(address, outcome);
        self.tell_reach();
    }

    /// The router was asked, and passes on what it did before, something else or nothing.
    pub(super) fn on_mapped(&mut self, said: mapping::Said) {
        for address in &said.mapped {
            self.propose(address.clone());
        }
        match said.trouble {
            Some(why) => self.findings.trouble(ReachPart::Mapping, why),
            None => self.findings.works(ReachPart::Mapping),
        }
        self.findings.map(said.mapped);
        self.tell_reach();
    }

    /// Tells who asks the router at which ports this node listens.
    pub(super) fn want_mapped(&self) {
        if let Some(mapping) = &self.mapping {
            mapping.want(self.heard_at.iter().filter_map(|(_, at)| Port::of(at)).collect());
        }
    }

    /// What this node does as a relay.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is about errors on the way out")]
    pub(super) fn on_carrying(&mut self, event: relay::Event) {
        let device = |peer: &PeerId| peer::key(peer).map(DeviceId::from_bytes);
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                if let Some(device) = device(&src_peer_id) {
                    self.findings.serve(device, true);
                }
            }
            relay::Event::ReservationTimedOut { src_peer_id } => {
                if let Some(device) = device(&src_peer_id) {
                    self.findings.serve(device, false);
                }
            }
            relay::Event::ReservationClosed { src_peer_id } => {
                // It is said of each connection, also of those that had no place.
                if let Some(device) = device(&src_peer_id)
                    && !self.is_near(device)
                {
                    self.findings.serve(device, false);
                }
            }
            relay::Event::CircuitReqAccepted { .. } => self.findings.carry(true),
            relay::Event::CircuitClosed { .. } => self.findings.carry(false),
            _ => {}
        }
        self.tell_reach();
    }

    /// Whether a direct connection to a device is up.
    pub(super) fn is_near(&self, device: DeviceId) -> bool {
        let is_near = |it: &Connection| it.device == device && !it.is_relayed();
        self.connections.values().any(is_near)
    }

    /// Asks a relay to keep a place for this node.
    pub(super) fn reserve(&mut self, relay: DeviceId) {
        let near = self
            .connections
            .values()
            .filter(|it| it.device == relay && !it.is_relayed())
            .min_by_key(|it| it.order);
        let (Some(connection), Some(peer)) = (near, peer::peer_id(relay.as_bytes())) else {
            self.reserve_input(reserve::Input::Lost(relay));
            return;
        };
        let address = connection.address.clone().with(Part::P2p(peer)).with(Part::P2pCircuit);
        match self.swarm.listen_on(address) {
            // It is never removed here: libp2p panics when an answer comes for one that was.
            Ok(listener) => {
                self.places.insert(listener, relay);
            }
            Err(error) => {
                self.findings.trouble(ReachPart::Reservation, error.to_string());
                self.reserve_input(reserve::Input::Lost(relay));
            }
        }
    }

    /// A relay keeps a place, under one more address.
    pub(super) fn on_reserved(&mut self, listener: ListenerId) {
        let Some(&relay) = self.places.get(&listener) else { return };
        let addresses = self
            .swarm
            .listeners()
            .filter_map(|it| address::parse(&it.to_string(), self.reach))
            .filter(|it| {
                address::relay(it)
                    .and_then(|peer| peer::key(&peer))
                    .is_some_and(|key| key == *relay.as_bytes())
            })
            .collect();
        self.findings.reserved(relay, addresses);
        self.reserve_input(reserve::Input::Reserved(relay));
        self.tell_reach();
    }

    /// A relay refuses, or no longer keeps a place; or this node listens there no longer.
    pub(super) fn on_listener_closed(
        &mut self,
        listener: ListenerId,
        reason: Result<(), std::io::Error>,
    ) {
        let heard = self.heard_at.len();
        self.heard_at.retain(|(other, _)| *other != listener);
        if self.heard_at.len() < heard {
            tracing::warn!(?reason, "a listener closed");
        }
        if let Some(relay) = self.places.remove(&listener) {
            if let Err(error) = reason {
                tracing::debug!(%relay, %error, "no place at a relay");
                self.findings.trouble(ReachPart::Reservation, error.to_string());
            }
            self.findings.lost(relay);
            self.reserve_input(reserve::Input::Lost(relay));
            self.tell_reach();
        }
        self.on_listeners();
    }

    /// A listener failed once, and goes on.
    pub(super) fn on_listener_error(&mut self, error: &std::io::Error) {
        if fault::is_remotes(error) {
            self.misheard += 1;
            tracing::debug!(%error, count = self.misheard, "somebody came to a listener wrongly");
        } else {
            tracing::warn!(%error, "a listener failed once");
        }
    }

    /// The direct connections to a device changed.
    pub(super) fn on_near(&mut self, device: DeviceId) {
        if self.is_near(device) && self.members.contains(&device) {
            self.reserve_input(reserve::Input::Connected(device));
        } else {
            // What it kept went with the connection; what is still said of that place is of the past.
            self.places.retain(|_, relay| *relay != device);
            self.findings.lost(device);
            self.findings.serve(device, false);
            self.reserve_input(reserve::Input::Disconnected(device));
            self.tell_reach();
        }
    }

    pub(super) fn reserve_input(&mut self, input: reserve::Input) {
        let now = self.now();
        self.reserve.handle_input(input, now);
    }

    pub(super) fn upgrade_input(&mut self, input: upgrade::Input) {
        let now = self.now();
        self.upgrade.handle_input(input, now);
    }

    /// Carries out what the machines of reach want.
    pub(super) fn reach_out(&mut self) {
        while let Some(relay) = self.reserve.poll_output() {
            self.reserve(relay);
        }
        while let Some(device) = self.upgrade.poll_output() {
            self.try_direct(device);
        }
    }

    /// What is known of this node's reach may have changed: tells the node, and does what follows.
    pub(super) fn tell_reach(&mut self) {
        self.reserve_input(reserve::Input::Wanted(self.findings.places()));
        let status = match self.findings.relays() {
            true => relay::Status::Enable,
            false => relay::Status::Disable,
        };
        self.swarm.behaviour_mut().relay.inner_mut().set_status(Some(status));
        let public = self.findings.public();
        for gone in self.public.difference(&public) {
            self.swarm.remove_external_address(gone);
        }
        for new in public.difference(&self.public) {
            self.swarm.add_external_address(new.clone());
        }
        self.public = public;
        let addresses: Vec<String> = self.findings.told().iter().map(ToString::to_string).collect();
        if addresses != self.listening {
            self.listening.clone_from(&addresses);
            self.outbox.push_back(Event::Listening { addresses });
        }
        let report = self.findings.report();
        if report != self.reported {
            self.reported.clone_from(&report);
            self.outbox.push_back(Event::Reach(Box::new(report)));
        }
    }

    /// Both ends dialled each other at once, or could not.
    pub(super) fn on_punched(&mut self, event: dcutr::Event) {
        let device = peer::key(&event.remote_peer_id).map(DeviceId::from_bytes);
        match event.result {
            Ok(_) => self.findings.works(ReachPart::Upgrade),
            Err(error) => {
                let device = device.map(|it| it.short()).unwrap_or_default();
                tracing::debug!(device, %error, "no direct connection");
                self.findings.trouble(ReachPart::Upgrade, format!("{device}: {error}"));
            }
        }
        self.tell_reach();
    }

    /// Another network: what was found out on the last one is asked for anew.
    pub(super) fn on_moved_on(&mut self) {
        self.findings.moved();
        let behaviour = self.swarm.behaviour_mut();
        behaviour.dcutr.renew(dcutr::Behaviour::new(
            peer::peer_id(self.local.as_bytes()).expect("this device's id is a key"),
        ));
        if let Some(tested) = behaviour.tested.as_mut() {
            // It never tests an address twice, and those that could test it now are connected already.
            tested.renew_knowing(Default::default());
        }
        if let Some(mapping) = &self.mapping {
            mapping.moved();
        }
        for candidate in self.findings.candidates() {
            self.propose(candidate);
        }
        self.tell_reach();
    }
}

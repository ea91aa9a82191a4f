//! The connections: who is on them, which one serves its device.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint},
    multiaddr::Protocol as Part,
    swarm::ConnectionId,
};
use weft_protocol::{
    frame::Protocol,
    id::{BootId, DeviceId},
    time::Timestamp,
};

use super::{LINGER, NetActor, Timer, reaching::Seen};
use crate::{
    Disconnection, Event, TurnedAway, address,
    gate::{Access, OPEN_TIMEOUT},
    liveness, peer, redial,
    reopen::Reopen,
    rivals::{self, BootRank, Rival},
    stream::{StreamEnd, StreamId},
    upgrade,
};

/// How long a stranger has to prove that it belongs.
const STRANGER_TIME: Duration = Duration::from_secs(5);

/// How long a relayed connection has for what is queued on it when a direct one takes its place: on a slow
/// uplink some hundred KiB. Nothing waits for it.
const LINGER_RELAYED: Duration = Duration::from_secs(2);

/// How long a connection is kept that serves nothing but a try for a direct one: three tries of libp2p's.
pub(super) const ERRAND_TIME: Duration = Duration::from_secs(15);

/// How long one is kept that was dialled to show that it can be.
const TEST_TIME: Duration = Duration::from_secs(6);

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) device: DeviceId,
    pub(super) address: Multiaddr,
    /// Whether this node dialled, or of two that dialled each other at once is the one that did.
    pub(super) dialled: bool,
    /// What the peer can say of this node's address.
    pub(super) seen: Seen,
    pub(super) since: Timestamp,
    pub(super) order: u64,
    pub(super) access: Arc<Access>,
    pub(super) member: bool,
    pub(super) boot: Option<(BootId, BootRank)>,
    /// Whether it is the one that serves its device.
    pub(super) current: bool,
    pub(super) admitted: bool,
    pub(super) streams: BTreeMap<Protocol, StreamId>,
    pub(super) reopened: BTreeMap<Protocol, Reopen>,
    /// The round trip as it was measured last, and as it was told last.
    pub(super) measured: Option<Duration>,
    pub(super) round_trip: Option<Duration>,
}

impl NetActor {
    pub(super) fn on_established(
        &mut self,
        id: ConnectionId,
        peer: &PeerId,
        endpoint: ConnectedPoint,
    ) {
        let device = peer::key(peer).map(DeviceId::from_bytes);
        let access = self.swarm.behaviour().gate.access(id);
        let (Some(device), Some(access)) = (device, access) else {
            self.swarm.close_connection(id);
            return;
        };
        let seen = Seen::on(&endpoint);
        let (address, dialled) = match endpoint {
            ConnectedPoint::Dialer { address, role_override, .. } => {
                (address, role_override == Endpoint::Dialer)
            }
            ConnectedPoint::Listener { local_addr, .. } if address::is_relayed(&local_addr) => {
                (self.with_relay(local_addr), false)
            }
            ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, false),
        };
        let address = address::without_peer(address);
        let is_relayed = address::is_relayed(&address);
        self.on_dialled(id);
        if self.is_errand(id) {
            if !self.members.contains(&device) {
                // It left while it was dialled.
                self.swarm.close_connection(id);
                return;
            }
            let is_test = !is_relayed;
            self.after(if is_test { TEST_TIME } else { ERRAND_TIME }, Timer::Close(id));
            return;
        }
        if dialled && (self.serves_as_well(device, is_relayed)) {
            // The peer was quicker, and that connection is the younger.
            self.swarm.close_connection(id);
            return;
        }
        let member = self.members.contains(&device);
        if dialled && !member {
            // It left while it was dialled.
            self.swarm.close_connection(id);
            return;
        }
        if member {
            // It may have become a member between the gate and here.
            access.promote();
        }
        let connection = Connection {
            device,
            address,
            dialled,
            seen,
            since: self.now(),
            order: self.next(),
            access,
            member,
            boot: None,
            current: false,
            admitted: false,
            streams: BTreeMap::new(),
            reopened: BTreeMap::new(),
            measured: None,
            round_trip: None,
        };
        self.connections.insert(id, connection);
        if member {
            self.watch_over(id);
            self.redial_input(redial::Input::Connected(device));
            // One that comes beside another may be there to make a direct one.
            let is_errand = is_relayed && !dialled && self.current(device).is_some();
            let time = if is_errand { ERRAND_TIME } else { OPEN_TIMEOUT };
            self.after(time, Timer::Greeting(id));
            self.welcome(id);
        } else {
            self.after(STRANGER_TIME, Timer::Stranger(id));
        }
        if dialled {
            self.open(id, Protocol::Trust);
        }
    }

    /// A stranger became a member on the connection that it has.
    pub(super) fn promote(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        debug_assert!(connection.access.is_member(), "the gate promotes before this task");
        connection.member = true;
        let device = connection.device;
        if connection.current {
            let address = connection.address.to_string();
            self.outbox.push_back(Event::Connected { device, address, member: true });
        }
        self.watch_over(id);
        self.tell_round_trip(id);
        self.redial_input(redial::Input::Connected(device));
        self.welcome(id);
    }

    /// What members are offered besides is offered on a connection from now on.
    fn welcome(&mut self, id: ConnectionId) {
        self.swarm.behaviour_mut().promote(id);
        if let Some(connection) = self.connections.get(&id)
            && !connection.is_relayed()
        {
            self.on_near(connection.device);
        }
    }

    /// Whether a connection serves a device, or is about to, that one which this node dialled would not be
    /// better than.
    fn serves_as_well(&self, device: DeviceId, is_relayed: bool) -> bool {
        self.connections.values().filter(|it| it.device == device).any(|it| {
            if is_relayed { it.current || !it.is_relayed() } else { it.current && !it.is_relayed() }
        })
    }

    /// The address of a circuit, with the relay's name where the transport left it out.
    fn with_relay(&self, circuit: Multiaddr) -> Multiaddr {
        if address::relay(&circuit).is_some() {
            return circuit;
        }
        let direct: Multiaddr =
            circuit.iter().take_while(|part| *part != Part::P2pCircuit).collect();
        let relay = self.connections.values().find(|it| it.address == direct);
        match relay.and_then(|it| peer::peer_id(it.device.as_bytes())) {
            Some(relay) => direct.with(Part::P2p(relay)).with(Part::P2pCircuit),
            None => circuit,
        }
    }

    pub(super) fn turn_away(&mut self, id: ConnectionId, why: TurnedAway) {
        let Some(connection) = self.connections.get(&id) else { return };
        let address = connection.address.to_string();
        self.leave(id, Disconnection::Stranger(why), true);
        self.tell_of_others(Event::StrangerTurnedAway { address, why });
    }

    /// Closes a connection, after [`LINGER`] where what is queued shall still go out. For the node
    /// it is gone at once.
    pub(super) fn leave(&mut self, id: ConnectionId, reason: Disconnection, lingers: bool) {
        let Some(device) = self.forget(id, reason, lingers) else { return };
        if lingers {
            self.after(LINGER, Timer::Close(id));
        } else {
            self.swarm.close_connection(id);
        }
        self.settle(device);
    }

    /// Takes a connection and its streams off the books and tells the node.
    pub(super) fn forget(
        &mut self,
        id: ConnectionId,
        reason: Disconnection,
        lingers: bool,
    ) -> Option<DeviceId> {
        let connection = self.connections.remove(&id)?;
        self.live(liveness::Input::Closed(id));
        self.findings.closed(id);
        if !connection.is_relayed() {
            self.on_near(connection.device);
        }
        for stream in connection.streams.into_values() {
            self.remove_stream(stream, StreamEnd::Disconnected, lingers);
        }
        let device = connection.device;
        if connection.current {
            self.outbox.push_back(Event::Disconnected { device, reason });
        }
        Some(device)
    }

    /// Decides which connection to `device` serves, after any of them changed.
    pub(super) fn settle(&mut self, device: DeviceId) {
        let preferred = self.local.min(device);
        let rivals: Vec<Rival<ConnectionId>> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.device == device)
            .map(|(&id, connection)| Rival {
                id,
                is_direct: !connection.is_relayed(),
                is_preferred: (preferred == self.local) == connection.dialled,
                since: connection.since,
                order: connection.order,
                boot: connection.boot.map(|(_, rank)| rank),
            })
            .collect();
        if rivals.is_empty() {
            if !self.members.contains(&device) {
                self.starts.retain(|other| *other != device);
                self.allowances.retain(|other| *other != device);
            }
            self.redial_input(redial::Input::Lost(device));
            self.upgrade_input(upgrade::Input::Settled(device));
            return;
        }
        let choice = rivals::choose(&rivals, self.current(device));
        let is_direct = choice.keep.is_some_and(|id| !self.connections[&id].is_relayed());
        for id in choice.close {
            if is_direct && self.connections[&id].is_relayed() {
                self.supersede(id);
            } else {
                self.forget(id, Disconnection::Replaced, false);
                self.swarm.close_connection(id);
            }
        }
        if let Some(id) = choice.keep {
            let connection = self.connections.get_mut(&id).expect("it was among the rivals");
            if !connection.current {
                connection.current = true;
                let now = if connection.is_relayed() {
                    upgrade::Input::Relayed(device)
                } else {
                    upgrade::Input::Settled(device)
                };
                self.upgrade_input(now);
                let connection = &self.connections[&id];
                let address = connection.address.to_string();
                let member = connection.member;
                self.outbox.push_back(Event::Connected { device, address, member });
                self.tell_round_trip(id);
                self.release(id);
            }
        }
    }

    /// A direct connection serves in the place of a relayed one: the node stays connected, what is queued
    /// goes out on the old one, and what comes goes on the new one.
    fn supersede(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.current = false;
            self.forget(id, Disconnection::Replaced, true);
            self.after(LINGER_RELAYED, Timer::Close(id));
        }
    }

    pub(super) fn current(&self, device: DeviceId) -> Option<ConnectionId> {
        self.connections
            .iter()
            .find(|(_, connection)| connection.current && connection.device == device)
            .map(|(&id, _)| id)
    }

    pub(super) fn connection_ids(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<ConnectionId> {
        let mut ids: Vec<(u64, ConnectionId)> = self
            .connections
            .iter()
            .filter(|(_, connection)| wanted(connection))
            .map(|(&id, connection)| (connection.order, id))
            .collect();
        ids.sort_by_key(|(order, _)| *order);
        ids.into_iter().map(|(_, id)| id).collect()
    }
}

impl Connection {
    /// Whether a relay lies between.
    pub(super) fn is_relayed(&self) -> bool {
        address::is_relayed(&self.address)
    }

    /// Whether this side opens `protocol` on it.
    pub(super) fn opens(&self, local: DeviceId, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Trust => self.dialled,
            Protocol::Presence
            | Protocol::Sync
            | Protocol::Run
            | Protocol::Blob
            | Protocol::Llm
            | Protocol::Audit => local < self.device,
        }
    }

    /// Whether `protocol` may be opened on it now.
    pub(super) fn may_open(&self, protocol: Protocol) -> bool {
        protocol == Protocol::Trust || self.admitted
    }
}

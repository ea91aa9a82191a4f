//! The connections: who is on them, which one serves its device, whether they live.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use libp2p::{
    Multiaddr, PeerId, core::ConnectedPoint, identify, multiaddr::Protocol as Part, ping,
    swarm::ConnectionId,
};
use weft_protocol::{
    frame::Protocol,
    id::{BootId, DeviceId},
    time::Timestamp,
};

use super::{LINGER, NetActor, Timer};
use crate::{
    Disconnection, Event, TurnedAway,
    gate::{Access, Negotiated, OPEN_TIMEOUT},
    peer, redial,
    reopen::Reopen,
    rivals::{self, BootRank, Rival},
    stream::{StreamEnd, StreamId},
};

/// How long a stranger has to prove that it belongs.
const STRANGER_TIME: Duration = Duration::from_secs(5);

/// How long a peer has for a sign of life when this node's network came back. The packet that asks
/// wakes a connection of QUIC that lay still, but Linux asks for a neighbour's hardware address
/// only once in a second.
const PROBE_TIME: Duration = Duration::from_millis(1_200);

/// The same on TCP, where what was sent in vain goes first and is not sent again for seconds: a new
/// connection is quicker there.
const PROBE_TIME_TCP: Duration = Duration::from_millis(500);

/// Two round trips on one machine differ by so much for no reason.
const ROUND_TRIP_NOISE: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) device: DeviceId,
    pub(super) address: Multiaddr,
    /// Whether this node dialled.
    pub(super) dialled: bool,
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
    /// The question for a sign of life that is not answered yet.
    pub(super) probe: Option<u64>,
    /// The round trip as it was told last.
    round_trip: Option<Duration>,
}

/// Whether a round trip differs so much from the one that was told that it is told again: by a tenth,
/// and by more than what scheduling makes of it.
fn has_moved(told: Duration, rtt: Duration) -> bool {
    let by = told.abs_diff(rtt);
    by > told / 10 && by > ROUND_TRIP_NOISE
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
        let (mut address, dialled) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (address, true),
            ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, false),
        };
        if let Some(Part::P2p(_)) = address.iter().last() {
            address.pop();
        }
        if dialled && self.current(device).is_some() {
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
            since: self.now(),
            order: self.next(),
            access,
            member,
            boot: None,
            current: false,
            admitted: false,
            streams: BTreeMap::new(),
            reopened: BTreeMap::new(),
            probe: None,
            round_trip: None,
        };
        self.connections.insert(id, connection);
        if member {
            self.redial_input(redial::Input::Connected(device));
            self.after(OPEN_TIMEOUT, Timer::Greeting(id));
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
        self.redial_input(redial::Input::Connected(device));
    }

    pub(super) fn on_ping(&mut self, id: ConnectionId, result: Result<Duration, ping::Failure>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match result {
            Ok(rtt) if connection.member && connection.current => {
                if connection.round_trip.is_none_or(|told| has_moved(told, rtt)) {
                    connection.round_trip = Some(rtt);
                    self.outbox.push_back(Event::RoundTrip { device: connection.device, rtt });
                }
            }
            Ok(_) | Err(ping::Failure::Unsupported) => {}
            Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                let why = "no answer to a ping".to_owned();
                self.leave(id, Disconnection::Lost { why }, false);
            }
        }
    }

    /// Asks whether the peer lives. Identify's answer says so without changing anything there, as a
    /// ping beside the regular one would, and each peer of any version speaks it.
    pub(super) fn probe(&mut self, id: ConnectionId) {
        let probe = self.next();
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.probe.is_none()
        {
            connection.probe = Some(probe);
            let is_tcp = connection.address.iter().any(|part| matches!(part, Part::Tcp(_)));
            let time = if is_tcp { PROBE_TIME_TCP } else { PROBE_TIME };
            self.swarm.behaviour_mut().gate.open(id, identify::PROTOCOL_NAME);
            self.after(time, Timer::Probe(id, probe));
        }
    }

    /// What was opened is not used: that it could be was the question.
    pub(super) fn on_probed(&mut self, id: ConnectionId, outcome: &Negotiated) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match outcome {
            Negotiated::Outbound(_) | Negotiated::Inbound(_) => connection.probe = None,
            Negotiated::Failed(why) => tracing::debug!(device = %connection.device, %why, "probed"),
        }
    }

    pub(super) fn on_probe_over(&mut self, id: ConnectionId, probe: u64) {
        if self.connections.get(&id).is_some_and(|connection| connection.probe == Some(probe)) {
            let why = "no sign of life after the network moved".to_owned();
            self.leave(id, Disconnection::Lost { why }, false);
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
            return;
        }
        let choice = rivals::choose(&rivals, self.current(device));
        for id in choice.close {
            self.forget(id, Disconnection::Replaced, false);
            self.swarm.close_connection(id);
        }
        if let Some(id) = choice.keep {
            let connection = self.connections.get_mut(&id).expect("it was among the rivals");
            if !connection.current {
                connection.current = true;
                let address = connection.address.to_string();
                let member = connection.member;
                self.outbox.push_back(Event::Connected { device, address, member });
                self.release(id);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_told_again_only_when_it_moved() {
        let micros = Duration::from_micros;
        for (told, rtt, expected) in [
            (700, 850, false),
            (700, 1_000, true),
            (20_000, 21_000, false),
            (20_000, 17_000, true),
            (20_000, 20_000, false),
        ] {
            assert_eq!(has_moved(micros(told), micros(rtt)), expected, "{told} then {rtt}");
        }
    }
}

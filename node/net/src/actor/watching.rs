//! Signs of life: what counts as one, how one is asked for, and what follows when none comes.

use std::time::Duration;

use libp2p::{identify, multiaddr::Protocol as Part, ping, swarm::ConnectionId};
use weft_protocol::{frame::Protocol, id::DeviceId};

use super::NetActor;
use crate::{
    Disconnection, Event, address,
    liveness::{Input, Output},
    peer,
    stream::StreamId,
};

/// How long a peer has for a sign of life when this node's network came back. The packet that asks
/// wakes a connection of QUIC that lay still, but Linux asks for a neighbour's hardware address
/// only once in a second.
const PROBE_TIME: Duration = Duration::from_millis(1_200);

/// The same on TCP, where what was sent in vain goes first and is not sent again for seconds: a new
/// connection is quicker there.
const PROBE_TIME_TCP: Duration = Duration::from_millis(500);

/// Two round trips on one machine differ by so much for no reason.
const ROUND_TRIP_NOISE: Duration = Duration::from_micros(200);

/// Whether a round trip differs so much from the one that was told that it is told again: by a tenth,
/// and by more than what scheduling makes of it.
fn has_moved(told: Duration, rtt: Duration) -> bool {
    let by = told.abs_diff(rtt);
    by > told / 10 && by > ROUND_TRIP_NOISE
}

/// Whether what is said by a protocol is answered. What is said of a step is not always, but then its device is
/// watched; and presence is told to whoever listens.
const fn is_answered(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Trust | Protocol::Sync | Protocol::Audit => true,
        Protocol::Presence | Protocol::Run | Protocol::Blob | Protocol::Llm => false,
    }
}

impl NetActor {
    /// Something is under way with a device, or nothing is any more.
    pub(super) fn on_watch(&mut self, device: DeviceId, is_watched: bool) {
        self.live(Input::Watched { device, is_watched });
    }

    /// Watches over the connection of a member from now on.
    pub(super) fn watch_over(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let has = |wanted: fn(&Part<'_>) -> bool| connection.address.iter().any(|it| wanted(&it));
        let is_relayed = has(|part| matches!(part, Part::P2pCircuit));
        let tells_silence = has(|part| matches!(part, Part::QuicV1)) && !is_relayed;
        self.live(Input::Opened { connection: id, device: connection.device, tells_silence });
    }

    /// Something came that says that the peer lives.
    pub(super) fn on_heard(&mut self, id: ConnectionId) {
        self.live(Input::Heard(id));
    }

    /// Something was sent on a stream.
    pub(super) fn on_sent(&mut self, stream: StreamId) {
        if let Some(entry) = self.streams.get(&stream).filter(|entry| is_answered(entry.protocol)) {
            self.live(Input::Sent(entry.connection));
        }
    }

    /// More of a long frame came. Its sender hears nothing meanwhile but what it is asked.
    pub(super) fn on_moving(&mut self, stream: StreamId) {
        let Some(entry) = self.streams.get(&stream) else { return };
        let id = entry.connection;
        if entry.opened {
            self.outbox.push_back(Event::Moving { stream });
        }
        self.on_heard(id);
        if self.connections.get(&id).is_some_and(|connection| connection.member) {
            self.swarm.behaviour_mut().gate.open(id, identify::PROTOCOL_NAME);
        }
    }

    /// What a relay carries was silent for too long: the relay itself is to say that it lives.
    fn doubt_relay(&mut self, id: ConnectionId) {
        let relay = self.connections.get(&id).and_then(|it| address::relay(&it.address));
        let relay = relay.and_then(|relay| peer::key(&relay)).map(DeviceId::from_bytes);
        if let Some(connection) = relay.and_then(|device| self.current(device)) {
            self.live(Input::Sent(connection));
        }
    }

    pub(super) fn on_ping(&mut self, id: ConnectionId, result: Result<Duration, ping::Failure>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match result {
            Ok(rtt) => {
                connection.measured = Some(rtt);
                self.tell_round_trip(id);
                self.on_heard(id);
            }
            Err(ping::Failure::Unsupported) => {}
            Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                let why = "no answer to a ping".to_owned();
                self.leave(id, Disconnection::Lost { why }, false);
            }
        }
    }

    /// Tells how long a round trip takes, if the connection serves a member and that is news. The first ping
    /// is often answered before it does, and the next one is far.
    pub(super) fn tell_round_trip(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.member
            && connection.current
            && let Some(rtt) = connection.measured
            && connection.round_trip.is_none_or(|told| has_moved(told, rtt))
        {
            connection.round_trip = Some(rtt);
            self.outbox.push_back(Event::RoundTrip { device: connection.device, rtt });
        }
    }

    /// This node's own network came back: whoever is connected is to say that it still is.
    pub(super) fn ask_all(&mut self) {
        for id in self.connection_ids(|connection| connection.member) {
            let address = &self.connections[&id].address;
            let is_tcp = address.iter().any(|part| matches!(part, Part::Tcp(_)));
            let patience = if is_tcp { PROBE_TIME_TCP } else { PROBE_TIME };
            self.live(Input::Moved { connection: id, patience });
        }
    }

    /// Carries out what [`crate::liveness`] wants. Identify's answer is the sign of life: it changes
    /// nothing there, as a ping beside the regular one would, and each peer of any version speaks it.
    pub(super) fn watch_connections(&mut self) {
        while let Some(output) = self.liveness.poll_output() {
            match output {
                Output::Ask(id) => {
                    self.swarm.behaviour_mut().gate.open(id, identify::PROTOCOL_NAME);
                }
                Output::GiveUp(id, silence) => {
                    let why = silence.why().to_owned();
                    self.doubt_relay(id);
                    self.leave(id, Disconnection::Lost { why }, false);
                }
            }
        }
    }

    pub(super) fn live(&mut self, input: Input) {
        let now = self.now();
        self.liveness.handle_input(input, now);
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

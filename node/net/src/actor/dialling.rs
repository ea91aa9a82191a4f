//! Dialling: what the devices' addresses and this node's own network call for.

use std::{collections::BTreeMap, time::Duration};

use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use weft_protocol::id::DeviceId;

use super::{NetActor, Timer};
use crate::{
    DialFailure, Event, address, attempt, peer,
    redial::{self, Dial},
    upgrade,
};

/// What comes within so long of a change of the network is one change with it: links, addresses
/// and routes come one by one.
const MOVED_TIME: Duration = Duration::from_millis(250);

/// How long a new network has for connections to be lost or made before what it is like is found out anew.
const MOVED_ON_TIME: Duration = Duration::from_secs(2);

/// The head start of direct addresses before those through relays (RFC 8305, section 8, of address
/// families): long enough for a handshake, short enough for a person.
const HEAD_START: Duration = Duration::from_millis(250);

impl NetActor {
    pub(super) fn on_remember(&mut self, device: DeviceId, addresses: &[String]) {
        let reach = self.reach;
        let parsed = addresses.iter().filter_map(|text| address::parse(text, reach));
        if self.book.remember(device, parsed) {
            self.redial_input(redial::Input::Reachable(device));
            self.upgrade_input(upgrade::Input::Reachable(device));
        }
    }

    pub(super) fn on_dial(&mut self, device: DeviceId) {
        let reason = if !self.members.contains(&device) {
            DialFailure::NotMember
        } else if self.book.of(device).is_empty() {
            DialFailure::NoAddress
        } else {
            self.redial_input(redial::Input::Wanted(device));
            return;
        };
        self.outbox.push_back(Event::DialFailed { device, reason });
    }

    /// Dials a device at all its addresses: directly first, and beside that through relays after
    /// [`HEAD_START`].
    pub(super) fn dial(&mut self, Dial { device, anew }: Dial) {
        if self.connections.values().any(|connection| connection.device == device) {
            return;
        }
        let Some(peer) = peer::peer_id(device.as_bytes()) else {
            let why = "its id is no key".to_owned();
            self.on_dial_failed(device, DialFailure::Unreachable { why, attempts: Vec::new() });
            return;
        };
        if anew {
            // Each ends with an error of its own. It says that none was connected, as is known.
            self.swarm.disconnect_peer_id(peer).ok();
        }
        let (relayed, direct): (Vec<_>, Vec<_>) =
            self.book.of(device).into_iter().partition(address::is_relayed);
        let has_circuits = !self.passable(device, relayed).is_empty();
        if direct.is_empty() && !has_circuits {
            self.on_dial_failed(device, DialFailure::NoAddress);
            return;
        }
        let number = self.next();
        let attempt = Dialling { device, under_way: 0, has_circuits, failure: None };
        self.attempts.insert(number, attempt);
        self.start_dial(peer, direct, Purpose::Serve(number));
        self.after(HEAD_START, Timer::Circuits(number));
        self.proceed(number);
    }

    /// Dials for a purpose; what could not even begin has failed.
    fn start_dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, purpose: Purpose) {
        if addresses.is_empty() {
            return;
        }
        let opts = DialOpts::peer_id(peer)
            .addresses(addresses)
            // Neither a connection that is on its way out nor a dial to where the peer no longer is
            // must hold up the next; how many dials there are is for `redial` to say.
            .condition(PeerCondition::Always)
            .build();
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.dials.insert(id, purpose);
                if let Purpose::Serve(number) = purpose
                    && let Some(attempt) = self.attempts.get_mut(&number)
                {
                    attempt.under_way += 1;
                }
            }
            Err(error) => {
                if let Purpose::Serve(number) = purpose
                    && let Some(attempt) = self.attempts.get_mut(&number)
                {
                    attempt.fail(&error);
                }
            }
        }
    }

    /// Goes on with relays where nothing else is under way, and ends an attempt of which nothing is left.
    fn proceed(&mut self, number: u64) {
        let Some(attempt) = self.attempts.get(&number) else { return };
        if attempt.under_way == 0 && attempt.has_circuits {
            self.dial_circuits(number);
        }
        let is_over = |it: &Dialling| it.under_way == 0 && !it.has_circuits;
        if self.attempts.get(&number).is_some_and(is_over)
            && let Some(attempt) = self.attempts.remove(&number)
        {
            match attempt.failure {
                Some(reason) => self.on_dial_failed(attempt.device, reason),
                // It was given up for another.
                None => self.redial_input(redial::Input::Failed(attempt.device)),
            }
        }
    }

    /// The head start of the direct addresses is over.
    pub(super) fn on_circuits_due(&mut self, number: u64) {
        if self.attempts.get(&number).is_some_and(|attempt| attempt.has_circuits) {
            self.dial_circuits(number);
            self.proceed(number);
        }
    }

    fn dial_circuits(&mut self, number: u64) {
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        attempt.has_circuits = false;
        let device = attempt.device;
        if self.connections.values().any(|connection| connection.device == device) {
            return;
        }
        let circuits = self.circuits_to(device);
        if let Some(peer) = peer::peer_id(device.as_bytes()) {
            self.start_dial(peer, circuits, Purpose::Serve(number));
        }
    }

    fn circuits_to(&self, device: DeviceId) -> Vec<Multiaddr> {
        let relayed = self.book.of(device).into_iter().filter(address::is_relayed).collect();
        self.passable(device, relayed)
    }

    /// The addresses through relays that are members and neither end, the connected relays first; of each of
    /// those one, since all lead through the connection that there is.
    fn passable(&self, device: DeviceId, circuits: Vec<Multiaddr>) -> Vec<Multiaddr> {
        let mut near: BTreeMap<DeviceId, Multiaddr> = BTreeMap::new();
        let mut far = Vec::new();
        for circuit in circuits {
            let relay = address::relay(&circuit).and_then(|peer| peer::key(&peer));
            let Some(relay) = relay.map(DeviceId::from_bytes) else { continue };
            if relay == device || !self.members.contains(&relay) {
                continue;
            }
            if self.is_near(relay) {
                near.entry(relay).or_insert(circuit);
            } else {
                far.push(circuit);
            }
        }
        near.into_values().chain(far).collect()
    }

    /// Tries to reach a device directly that is connected through a relay: at its addresses, and by a
    /// circuit over which both dial each other at once.
    pub(super) fn try_direct(&mut self, device: DeviceId) {
        let Some(peer) = peer::peer_id(device.as_bytes()) else { return };
        let Some(current) = self.current(device) else { return };
        let dialled = self.connections[&current].dialled;
        let direct = self.book.of(device).into_iter().filter(|it| !address::is_relayed(it));
        self.start_dial(peer, direct.collect(), Purpose::Upgrade);
        if dialled {
            self.start_dial(peer, self.circuits_to(device), Purpose::Errand);
        }
    }

    /// Whether a connection serves another end than to speak with its device.
    pub(super) fn is_errand(&self, id: ConnectionId) -> bool {
        self.errands.contains(&id) || self.swarm.behaviour().is_test(id)
    }

    /// A dial came to a connection.
    pub(super) fn on_dialled(&mut self, id: ConnectionId) {
        match self.dials.remove(&id) {
            Some(Purpose::Serve(number)) => drop(self.attempts.remove(&number)),
            Some(Purpose::Errand) => drop(self.errands.insert(id)),
            Some(Purpose::Upgrade) | None => {}
        }
    }

    /// A dial came to nothing. Those that libp2p makes for ends of its own are its own concern.
    pub(super) fn on_dial_error(&mut self, id: ConnectionId, error: &DialError) {
        match self.dials.remove(&id) {
            Some(Purpose::Serve(number)) => {
                if let Some(attempt) = self.attempts.get_mut(&number) {
                    attempt.under_way = attempt.under_way.saturating_sub(1);
                    attempt.fail(error);
                }
                self.proceed(number);
            }
            Some(Purpose::Upgrade | Purpose::Errand) | None => {
                tracing::debug!(connection = %id, %error, "no direct connection");
            }
        }
    }

    fn on_dial_failed(&mut self, device: DeviceId, reason: DialFailure) {
        if self.connections.values().any(|connection| connection.device == device) {
            // The peer was quicker.
            return;
        }
        self.outbox.push_back(Event::DialFailed { device, reason });
        self.redial_input(redial::Input::Failed(device));
    }

    pub(super) fn redial_input(&mut self, input: redial::Input) {
        let now = self.now();
        self.redial.handle_input(input, now);
    }

    /// This node's own network came back or is another: everybody is dialled or asked for a sign of
    /// life at once, and once more should it move on.
    pub(super) fn on_moved(&mut self) {
        self.vicinity.look();
        if let Some(again) = &mut self.moved {
            *again = true;
            return;
        }
        self.moved = Some(false);
        self.after(MOVED_TIME, Timer::Moved);
        self.redial_input(redial::Input::Moved);
        self.upgrade_input(upgrade::Input::Moved);
        self.after(MOVED_ON_TIME, Timer::MovedOn);
        self.ask_all();
    }

    pub(super) fn on_moved_lately(&mut self) {
        if self.moved.take() == Some(true) {
            self.on_moved();
        }
    }

    pub(super) fn on_listeners(&mut self) {
        let listeners: Vec<Multiaddr> = self.swarm.listeners().cloned().collect();
        let is_new = self.findings.listen(listeners.into_iter());
        self.want_mapped();
        self.tell_reach();
        if is_new {
            self.on_moved();
        }
    }

    pub(super) fn on_sighted(&mut self, peers: Vec<(PeerId, Multiaddr)>) {
        let mut fresh: BTreeMap<DeviceId, Vec<String>> = BTreeMap::new();
        for (peer, address) in peers {
            let Some(device) = peer::key(&peer).map(DeviceId::from_bytes) else { continue };
            if !self.members.contains(&device) {
                continue;
            }
            let Some(address) = address::parse(&address.to_string(), self.reach) else { continue };
            fresh.entry(device).or_default().push(address.to_string());
            self.book.sight(device, address);
        }
        for (device, addresses) in fresh {
            self.tell_of_others(Event::Sighted { device, addresses });
            self.redial_input(redial::Input::Reachable(device));
            self.upgrade_input(upgrade::Input::Reachable(device));
        }
    }
}

/// What a dial is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To be connected, in the attempt of this number.
    Serve(u64),
    /// To have a direct connection in a relayed one's place.
    Upgrade,
    /// To have both ends dial each other.
    Errand,
}

/// One attempt to reach a device, directly and through relays.
#[derive(Debug)]
pub(super) struct Dialling {
    device: DeviceId,
    under_way: u32,
    /// Whether it is still to be tried through relays.
    has_circuits: bool,
    failure: Option<DialFailure>,
}

impl Dialling {
    fn fail(&mut self, error: &DialError) {
        let (why, more) = match error {
            // It was given up for another.
            DialError::Aborted => return,
            DialError::NoAddresses => {
                self.failure.get_or_insert(DialFailure::NoAddress);
                return;
            }
            DialError::LocalPeerId { .. }
            | DialError::DialPeerConditionFalse(_)
            | DialError::WrongPeerId { .. }
            | DialError::Denied { .. }
            | DialError::Transport(_) => (error.to_string(), attempt::attempts(error)),
        };
        if let Some(DialFailure::Unreachable { why: said, attempts }) = &mut self.failure {
            said.push_str("; ");
            said.push_str(&why);
            attempts.extend(more);
        } else {
            self.failure = Some(DialFailure::Unreachable { why, attempts: more });
        }
    }
}

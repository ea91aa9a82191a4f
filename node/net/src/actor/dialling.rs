//! Dialling: what the devices' addresses and this node's own network call for.

use std::{collections::BTreeMap, time::Duration};

use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use weft_protocol::id::DeviceId;

use super::{NetActor, Timer};
use crate::{
    DialFailure, Event, address, peer,
    redial::{self, Dial},
};

/// What comes within so long of a change of the network is one change with it: links, addresses
/// and routes come one by one.
const MOVED_TIME: Duration = Duration::from_millis(250);

impl NetActor {
    pub(super) fn on_remember(&mut self, device: DeviceId, addresses: &[String]) {
        let reach = self.reach;
        let parsed = addresses.iter().filter_map(|text| address::parse(text, reach));
        if self.book.remember(device, parsed) {
            self.redial_input(redial::Input::Reachable(device));
        }
    }

    pub(super) fn on_dial(&mut self, device: DeviceId) {
        let reason = if !self.members.contains(&device) {
            DialFailure::NotMember
        } else if self.book.of(device).is_empty() {
            DialFailure::NoAddress
        } else {
            self.redial_input(redial::Input::Reachable(device));
            return;
        };
        self.outbox.push_back(Event::DialFailed { device, reason });
    }

    pub(super) fn dial(&mut self, Dial { device, anew }: Dial) {
        if self.connections.values().any(|connection| connection.device == device) {
            return;
        }
        let Some(peer) = peer::peer_id(device.as_bytes()) else {
            let why = "its id is no key".to_owned();
            self.on_dial_failed(device, DialFailure::Unreachable { why });
            return;
        };
        if anew {
            // Each ends with an error of its own. It says that none was connected, as is known.
            self.swarm.disconnect_peer_id(peer).ok();
        }
        let opts = DialOpts::peer_id(peer)
            .addresses(self.book.of(device))
            // Neither a connection that is on its way out nor a dial to where the peer no longer is
            // must hold up the next; how many dials there are is for `redial` to say.
            .condition(PeerCondition::Always)
            .build();
        match self.swarm.dial(opts) {
            Ok(()) => {}
            Err(DialError::NoAddresses) => self.on_dial_failed(device, DialFailure::NoAddress),
            Err(error) => {
                self.on_dial_failed(device, DialFailure::Unreachable { why: error.to_string() });
            }
        }
    }

    pub(super) fn on_dial_error(&mut self, device: DeviceId, error: &DialError) {
        if matches!(error, DialError::Aborted) {
            // It was given up for another.
            self.redial_input(redial::Input::Failed(device));
        } else {
            self.on_dial_failed(device, DialFailure::Unreachable { why: error.to_string() });
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
        if let Some(again) = &mut self.moved {
            *again = true;
            return;
        }
        self.moved = Some(false);
        self.after(MOVED_TIME, Timer::Moved);
        self.redial_input(redial::Input::Moved);
        for id in self.connection_ids(|connection| connection.member) {
            self.probe(id);
        }
    }

    pub(super) fn on_moved_lately(&mut self) {
        if self.moved.take() == Some(true) {
            self.on_moved();
        }
    }

    pub(super) fn on_listeners(&mut self) {
        let mut addresses: Vec<String> = self
            .swarm
            .listeners()
            .filter(|address| address::is_worth_telling(address, self.reach))
            .map(ToString::to_string)
            .collect();
        addresses.sort();
        addresses.dedup();
        if addresses != self.listening {
            let is_new = addresses.iter().any(|address| !self.listening.contains(address));
            self.listening.clone_from(&addresses);
            self.outbox.push_back(Event::Listening { addresses });
            if is_new {
                self.on_moved();
            }
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
        }
    }
}

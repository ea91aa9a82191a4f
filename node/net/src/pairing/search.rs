//! A search for a pairing endpoint: all that is dialled until a stream to it is open.
//!
//! Where packets are lost, one dial may hang for seconds, or connect and then hang, while the next goes
//! through at once. So each place is dialled anew every [`AGAIN`] until a stream is open, and the stream that is
//! open first is taken; the inviting device hears nothing on the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm, mdns,
    swarm::{
        ConnectionId, DialError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use weft_protocol::id::EndpointId;

use super::{Behaviour, BehaviourEvent, PROTOCOL, PairDialError, endpoint_id};
use crate::{Reach, address, gate::Negotiated};

/// Endpoints of a local network that are dialled in one search. Of a hundred that are open at once
/// hardly one has the number of another; somebody may announce many that do.
const FOUND_MAX: usize = 8;

/// How long a place is given before it is dialled beside what hangs: a hundred round trips on a local network, one
/// to the other side of the world.
const AGAIN: Duration = Duration::from_millis(300);

/// Dials and connections to one place at once. An endpoint takes no more than four from one address.
const AT_ONCE: usize = 3;

/// Where an endpoint is looked for.
#[derive(Debug)]
enum Place {
    /// A named one, at all its addresses.
    Endpoint(PeerId, Vec<Multiaddr>),
    /// Whoever answers at an address.
    Address(Multiaddr),
}

impl Place {
    fn dial(&self) -> DialOpts {
        match self {
            Self::Endpoint(peer, addresses) => DialOpts::peer_id(*peer)
                .condition(PeerCondition::Always)
                .addresses(addresses.clone())
                .build(),
            Self::Address(address) => DialOpts::unknown_peer_id().address(address.clone()).build(),
        }
    }
}

/// A dial, or the connection that came of it.
#[derive(Debug)]
struct Try {
    /// To which of the places.
    place: usize,
    /// The endpoint that it reached.
    remote: Option<EndpointId>,
}

/// What is under way.
#[derive(Debug)]
pub(super) struct Search<F> {
    /// Whether an endpoint is the one that is looked for.
    is_it: F,
    /// Whether the local network may name further places.
    looks_around: bool,
    places: Vec<Place>,
    named: BTreeSet<PeerId>,
    tries: BTreeMap<ConnectionId, Try>,
    /// Why the last try came to nothing.
    last: PairDialError,
}

impl<F: Fn(&EndpointId) -> bool> Search<F> {
    /// For one that is known, at these addresses.
    ///
    /// # Errors
    ///
    /// None of them can be dialled, or there is no such endpoint.
    pub(super) fn at_endpoint(
        peer: PeerId,
        addresses: &[String],
        is_it: F,
    ) -> Result<Self, PairDialError> {
        let addresses = dialled(addresses);
        if addresses.is_empty() {
            return Err(PairDialError::NoAddress);
        }
        Ok(Self::new(is_it, vec![Place::Endpoint(peer, addresses)]))
    }

    /// For one that `is_it` takes, at these addresses or, where there are none, on the local network.
    ///
    /// # Errors
    ///
    /// None of them can be dialled.
    pub(super) fn around(addresses: &[String], is_it: F) -> Result<Self, PairDialError> {
        let places: Vec<_> = dialled(addresses).into_iter().map(Place::Address).collect();
        if places.is_empty() && !addresses.is_empty() {
            return Err(PairDialError::NoAddress);
        }
        Ok(Self { looks_around: addresses.is_empty(), ..Self::new(is_it, places) })
    }

    fn new(is_it: F, places: Vec<Place>) -> Self {
        Self {
            is_it,
            looks_around: false,
            places,
            named: BTreeSet::new(),
            tries: BTreeMap::new(),
            last: PairDialError::TimedOut,
        }
    }

    /// Looks until a stream is open, and gives it with the endpoint's name. Dropping the future looks no longer.
    ///
    /// # Errors
    ///
    /// All places were tried, and no more can be named.
    pub(super) async fn run(
        mut self,
        swarm: &mut Swarm<Behaviour>,
    ) -> Result<(Stream, EndpointId), PairDialError> {
        for place in 0..self.places.len() {
            self.dial(place, swarm);
        }
        let mut again = interval_at(Instant::now() + AGAIN, AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.tries.is_empty() && !self.looks_around {
                return Err(self.last);
            }
            let event = tokio::select! {
                biased;
                event = swarm.select_next_some() => event,
                _ = again.tick() => {
                    self.dial_beside(swarm);
                    continue;
                }
            };
            if let Some(found) = self.on_event(event, swarm) {
                return Ok(found);
            }
        }
    }

    fn dial(&mut self, place: usize, swarm: &mut Swarm<Behaviour>) {
        let opts = self.places[place].dial();
        let id = opts.connection_id();
        match swarm.dial(opts) {
            Ok(()) => drop(self.tries.insert(id, Try { place, remote: None })),
            Err(error) => self.last = failed(&error),
        }
    }

    /// Dials beside what hangs. Where all tries at given places have failed, the search is over; what the local
    /// network named is dialled on.
    fn dial_beside(&mut self, swarm: &mut Swarm<Behaviour>) {
        for place in 0..self.places.len() {
            let tries = self.tries.values().filter(|it| it.place == place).count();
            if tries < AT_ONCE && (tries > 0 || self.looks_around) {
                self.dial(place, swarm);
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events may grow; what is not named ends in the patience"
    )]
    fn on_event(
        &mut self,
        event: SwarmEvent<BehaviourEvent>,
        swarm: &mut Swarm<Behaviour>,
    ) -> Option<(Stream, EndpointId)> {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                self.on_discovered(&found, swarm);
            }
            SwarmEvent::ConnectionEstablished { connection_id, peer_id, .. } => {
                match endpoint_id(&peer_id).filter(&self.is_it) {
                    Some(remote) => {
                        if let Some(it) = self.tries.get_mut(&connection_id) {
                            it.remote = Some(remote);
                        }
                        swarm.behaviour_mut().gate.open(connection_id, PROTOCOL);
                    }
                    None => {
                        self.last = PairDialError::OtherEndpoint;
                        self.tries.remove(&connection_id);
                        swarm.close_connection(connection_id);
                    }
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.tries.remove(&connection_id);
                if !matches!(self.last, PairDialError::OtherEndpoint) {
                    self.last = failed(&error);
                }
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. }
                if self.tries.remove(&connection_id).is_some() =>
            {
                let why = cause.map_or_else(|| "closed".to_owned(), |cause| cause.to_string());
                self.last = PairDialError::Unreachable { why };
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gate(event)) => match event.outcome {
                Negotiated::Outbound(stream) => {
                    let remote = self.tries.remove(&event.connection)?.remote?;
                    for other in self.tries.keys() {
                        swarm.close_connection(*other);
                    }
                    return Some((stream, remote));
                }
                Negotiated::Failed(why) => {
                    self.last = PairDialError::Refused { why };
                    self.tries.remove(&event.connection);
                    swarm.close_connection(event.connection);
                }
                Negotiated::Inbound(_) => {}
            },
            _ => {}
        }
        None
    }

    fn on_discovered(&mut self, found: &[(PeerId, Multiaddr)], swarm: &mut Swarm<Behaviour>) {
        for peer in found.iter().map(|(peer, _)| *peer) {
            let is_it = endpoint_id(&peer).is_some_and(|id| (self.is_it)(&id));
            if !is_it || self.named.len() >= FOUND_MAX || !self.named.insert(peer) {
                continue;
            }
            let at = found.iter().filter(|(of, _)| *of == peer).map(|(_, at)| at.to_string());
            self.places.push(Place::Endpoint(peer, dialled(&at.collect::<Vec<_>>())));
            self.dial(self.places.len() - 1, swarm);
        }
    }
}

/// Those of the addresses that can be dialled. A ticket names where it was made: on a LAN that includes this very
/// machine.
fn dialled(addresses: &[String]) -> Vec<Multiaddr> {
    addresses.iter().filter_map(|text| address::parse(text, Reach::Lan)).collect()
}

fn failed(error: &DialError) -> PairDialError {
    if matches!(error, DialError::WrongPeerId { .. }) {
        PairDialError::OtherEndpoint
    } else {
        PairDialError::Unreachable { why: error.to_string() }
    }
}

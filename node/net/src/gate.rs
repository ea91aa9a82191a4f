//! What a connection may open: the behaviour that negotiates streams, and refuses the rest.
//!
//! A member's handler offers every protocol, a stranger's only the stranger's, so that nothing
//! else is named to it by identify or ever negotiated. Membership is read anew for each stream: a
//! stranger that proved itself is promoted on the connection that it has.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    future::{Ready, ready},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use thiserror::Error;
use weft_protocol::time::Timestamp;

use crate::{address, arrivals::Arrivals, muxer::Members};

/// How long a stream may take to open, its hello included.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the peer of one connection is a member now.
///
/// Shared by the connection's handler, its streams and the task that owns the swarm, so that what changed
/// holds for all of them before anything else is said.
#[derive(Debug)]
pub(crate) struct Access {
    member: AtomicBool,
}

impl Access {
    pub(crate) const fn new(member: bool) -> Self {
        Self { member: AtomicBool::new(member) }
    }

    pub(crate) fn is_member(&self) -> bool {
        self.member.load(Ordering::Acquire)
    }

    pub(crate) fn promote(&self) {
        self.member.store(true, Ordering::Release);
    }

    fn demote(&self) {
        self.member.store(false, Ordering::Release);
    }
}

/// What is offered to whom, and to how many strangers.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Protocols for members.
    pub(crate) member: Vec<StreamProtocol>,
    /// Protocols for everybody else, of which a connection may open one stream, once.
    pub(crate) stranger: Vec<StreamProtocol>,
    /// Connections of strangers at once.
    pub(crate) strangers_max: usize,
    /// Connections of strangers at once from one source address.
    pub(crate) strangers_for_ip_max: usize,
}

/// Why a connection was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum Refusal {
    #[error("too many strangers are connected")]
    TooMany,
    #[error("too many strangers are connected from this address")]
    TooManyFromAddress,
}

/// What happened to a stream.
#[derive(Debug)]
pub(crate) struct GateEvent {
    pub(crate) connection: ConnectionId,
    pub(crate) protocol: StreamProtocol,
    pub(crate) outcome: Negotiated,
}

/// The outcome of a negotiation.
#[derive(Debug)]
pub(crate) enum Negotiated {
    /// The peer opened it.
    Inbound(Stream),
    /// It was opened here.
    Outbound(Stream),
    /// It could not be opened.
    Failed(String),
}

#[derive(Debug)]
struct Pass {
    peer: PeerId,
    access: Arc<Access>,
    /// The address under which the connection counts as a stranger's.
    stranger: Option<IpAddr>,
}

/// Who stands before the gate: handshakes under way, and how often strangers came from where.
#[derive(Debug)]
struct Door {
    pending: HashMap<ConnectionId, IpAddr>,
    pending_for_ip_max: usize,
    arrivals: Arrivals,
    started: Instant,
}

/// The behaviour.
#[derive(Debug)]
pub(crate) struct Gate {
    terms: Arc<Terms>,
    members: Members,
    door: Option<Door>,
    passes: HashMap<ConnectionId, Pass>,
    events: VecDeque<ToSwarm<GateEvent, StreamProtocol>>,
}

impl Gate {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms: Arc::new(terms),
            members: Members::default(),
            door: None,
            passes: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Bounds the handshakes under way from one source address, and how often strangers come from it.
    pub(crate) fn with_door(mut self, pending_for_ip_max: usize) -> Self {
        self.door = Some(Door {
            pending: HashMap::new(),
            pending_for_ip_max,
            arrivals: Arrivals::default(),
            started: Instant::now(),
        });
        self
    }

    /// Who belongs, now and later.
    pub(crate) fn members(&self) -> Members {
        self.members.clone()
    }

    /// Replaces the members, and promotes the connections of those who became one. Those of whoever left are a
    /// stranger's from now on.
    ///
    /// Closing them is the caller's part.
    pub(crate) fn set_members(&mut self, members: HashSet<PeerId>) {
        for pass in self.passes.values_mut() {
            if members.contains(&pass.peer) {
                pass.access.promote();
                pass.stranger = None;
            } else {
                pass.access.demote();
            }
        }
        self.members.replace(members);
    }

    /// What the connection may do.
    pub(crate) fn access(&self, connection: ConnectionId) -> Option<Arc<Access>> {
        self.passes.get(&connection).map(|pass| Arc::clone(&pass.access))
    }

    /// Opens a stream, which ends in one [`GateEvent`] within [`OPEN_TIMEOUT`], or in the end of
    /// the connection.
    pub(crate) fn open(&mut self, connection: ConnectionId, protocol: StreamProtocol) {
        if let Some(pass) = self.passes.get(&connection) {
            self.events.push_back(ToSwarm::NotifyHandler {
                peer_id: pass.peer,
                handler: NotifyHandler::One(connection),
                event: protocol,
            });
        }
    }

    fn admit(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        inbound_from: Option<IpAddr>,
    ) -> Result<Handler, ConnectionDenied> {
        let member = self.members.contains(&peer);
        let stranger = inbound_from.filter(|_| !member);
        if let Some(ip) = stranger {
            let strangers = || self.passes.values().filter_map(|pass| pass.stranger);
            if strangers().filter(|other| *other == ip).count() >= self.terms.strangers_for_ip_max {
                return Err(ConnectionDenied::new(Refusal::TooManyFromAddress));
            }
            if strangers().count() >= self.terms.strangers_max {
                return Err(ConnectionDenied::new(Refusal::TooMany));
            }
            if let Some(door) = &mut self.door {
                let now = Timestamp::ZERO + door.started.elapsed();
                if !door.arrivals.arrived(ip, now) {
                    return Err(ConnectionDenied::new(Refusal::TooManyFromAddress));
                }
            }
        }
        let access = Arc::new(Access::new(member));
        self.passes.insert(connection, Pass { peer, access: Arc::clone(&access), stranger });
        Ok(Handler {
            terms: Arc::clone(&self.terms),
            access,
            events: VecDeque::new(),
            stranger_opened: false,
        })
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = Handler;
    type ToSwarm = GateEvent;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(door) = &mut self.door else { return Ok(()) };
        let ip = source(remote);
        if door.pending.values().filter(|other| **other == ip).count() >= door.pending_for_ip_max {
            return Err(ConnectionDenied::new(Refusal::TooManyFromAddress));
        }
        door.pending.insert(connection, ip);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if let Some(door) = &mut self.door {
            door.pending.remove(&connection);
        }
        self.admit(connection, peer, Some(source(remote)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(connection, peer, None)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events may grow; three end a connection"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // A later behaviour may still refuse what this one let pass.
        let gone = match event {
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            FromSwarm::ListenFailure(failure) => failure.connection_id,
            FromSwarm::DialFailure(failure) => failure.connection_id,
            _ => return,
        };
        self.passes.remove(&gone);
        if let Some(door) = &mut self.door {
            door.pending.remove(&gone);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        connection: ConnectionId,
        (protocol, outcome): THandlerOutEvent<Self>,
    ) {
        let event = GateEvent { connection, protocol, outcome };
        self.events.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // No waker: the swarm's owner polls it again after each call.
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Each listener has an IP address; should one not, its strangers share a count.
fn source(remote: &Multiaddr) -> IpAddr {
    address::source(remote).unwrap_or(IpAddr::from([0; 4]))
}

/// The protocols that one negotiation takes.
#[derive(Debug)]
pub(crate) struct Offer(Vec<StreamProtocol>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

type HandlerEvent = ConnectionHandlerEvent<Offer, StreamProtocol, (StreamProtocol, Negotiated)>;

/// The part of one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    terms: Arc<Terms>,
    access: Arc<Access>,
    events: VecDeque<HandlerEvent>,
    stranger_opened: bool,
}

impl Handler {
    fn report(&mut self, protocol: StreamProtocol, outcome: Negotiated) {
        self.events.push_back(ConnectionHandlerEvent::NotifyBehaviour((protocol, outcome)));
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = StreamProtocol;
    type ToBehaviour = (StreamProtocol, Negotiated);
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = StreamProtocol;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        let offered =
            if self.access.is_member() { &self.terms.member } else { &self.terms.stranger };
        SubstreamProtocol::new(Offer(offered.clone()), ()).with_timeout(OPEN_TIMEOUT)
    }

    fn connection_keep_alive(&self) -> bool {
        // The owner of the swarm closes what has to go.
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<HandlerEvent> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn on_behaviour_event(&mut self, protocol: StreamProtocol) {
        let offer = Offer(vec![protocol.clone()]);
        self.events.push_back(ConnectionHandlerEvent::OutboundSubstreamRequest {
            protocol: SubstreamProtocol::new(offer, protocol).with_timeout(OPEN_TIMEOUT),
        });
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events may grow; what is not named is not about a stream of ours"
    )]
    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Offer, Offer, (), StreamProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                info: (),
            }) => {
                if !self.access.is_member() {
                    if self.stranger_opened {
                        return;
                    }
                    self.stranger_opened = true;
                }
                self.report(protocol, Negotiated::Inbound(stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, protocol),
                ..
            }) => self.report(protocol, Negotiated::Outbound(stream)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: protocol }) => {
                let why = match error {
                    StreamUpgradeError::Timeout => "no answer in time".to_owned(),
                    StreamUpgradeError::NegotiationFailed => "the peer refuses it".to_owned(),
                    StreamUpgradeError::Io(error) => error.to_string(),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                self.report(protocol, Negotiated::Failed(why));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leaves_is_a_stranger_on_the_connection_that_it_has() {
        let offered = |name: &'static str| vec![StreamProtocol::new(name)];
        let mut gate = Gate::new(Terms {
            member: offered("/member"),
            stranger: offered("/stranger"),
            strangers_max: 1,
            strangers_for_ip_max: 1,
        });
        let (peer, id) = (PeerId::random(), ConnectionId::new_unchecked(1));
        gate.set_members([peer].into());
        let handler = gate.admit(id, peer, Some(IpAddr::from([192, 0, 2, 1]))).unwrap();
        let access = gate.access(id).unwrap();
        let offers = || handler.listen_protocol().upgrade().0.clone();
        for (members, is_member, offer) in [
            (HashSet::from([peer]), true, "/member"),
            (HashSet::new(), false, "/stranger"),
            (HashSet::from([peer]), true, "/member"),
        ] {
            gate.set_members(members);
            assert_eq!(access.is_member(), is_member);
            assert_eq!(offers(), offered(offer));
        }
    }
}

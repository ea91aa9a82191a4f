//! Behaviours for members only: what they offer is not there for strangers.
//!
//! libp2p's own behaviours (relay, hole punching, dialling back) serve whoever connects. [`Guarded`]
//! stands before one of them: on a stranger's connection none of its protocols is named or negotiated,
//! and what its handler would say or open is held back. A stranger that proves itself is let through on
//! the connection that it has, and whoever is a member no longer is shut out from it. Dials that a behaviour
//! makes for its own ends are remembered, so that the owner of the swarm can tell them from its own; what
//! members have it dial is bounded ([`Asking`]).

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt,
    iter::Take,
    net::IpAddr,
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{
        ConnectedPoint, Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, UpgradeInfo},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
        handler::{
            ConnectionEvent, FullyNegotiatedInbound, InboundUpgradeSend, ListenUpgradeError,
            ProtocolSupport, ProtocolsChange, UpgradeInfoSend,
        },
    },
};
use thiserror::Error;
use weft_protocol::time::Timestamp;

use crate::{
    address::{self, Scope},
    allowance::{Bucket, Rate},
    muxer::Members,
};

/// The most addresses that a peer may have a behaviour dial at once: libp2p's honest nodes name some twenty.
const ASKED_MAX: usize = 24;

/// What a stranger's handler may hold back: the few things that are said once at a connection's start.
const HELD_MAX: usize = 16;

/// What members may have a behaviour dial.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    /// How often each of them.
    pub(crate) rate: Rate,
    /// Whether a member is dialled in public, or at the very host that it speaks from, alone; else the
    /// transport's rules are enough.
    pub(crate) is_for_itself: bool,
}

/// A connection that the behaviour has a handler on.
#[derive(Debug)]
struct Live {
    peer: PeerId,
    /// Where the peer is.
    host: Option<IpAddr>,
    /// Whether its handler serves.
    is_open: bool,
    /// Whether the behaviour knows of it: one that took another's place does not.
    is_known: bool,
    /// Once it is up.
    endpoint: Option<ConnectedPoint>,
}

/// A behaviour that serves members.
pub(crate) struct Guarded<B> {
    inner: B,
    members: Members,
    live: BTreeMap<ConnectionId, Live>,
    /// What handlers are to be told of this behaviour's own.
    words: VecDeque<(PeerId, ConnectionId, Own)>,
    /// Connections that the behaviour dialled.
    dialled: HashSet<ConnectionId>,
    asking: Option<Asking>,
    /// How often each member has had something dialled.
    asked: HashMap<PeerId, Bucket>,
    started: Instant,
    /// Whether the behaviour is told of an event that is about no connection.
    hears: fn(&FromSwarm<'_>) -> bool,
    /// Whether it also serves on connections through a relay.
    is_relayed_too: bool,
    /// The protocol that tells its handlers whether a peer serves; see [`Self::renew_knowing`].
    served: Option<StreamProtocol>,
}

impl<B> Guarded<B> {
    pub(crate) fn new(inner: B, members: Members) -> Self {
        Self {
            inner,
            members,
            live: BTreeMap::new(),
            words: VecDeque::new(),
            dialled: HashSet::new(),
            asking: None,
            asked: HashMap::new(),
            started: Instant::now(),
            hears: |_| true,
            is_relayed_too: true,
            served: None,
        }
    }

    /// Tells the behaviour only what `hears` lets through, of what is about no connection.
    pub(crate) fn hearing(mut self, hears: fn(&FromSwarm<'_>) -> bool) -> Self {
        self.hears = hears;
        self
    }

    /// Bounds what members have the behaviour dial.
    pub(crate) fn asked_for(mut self, asking: Asking) -> Self {
        self.asking = Some(asking);
        self
    }

    /// Keeps connections through a relay from the behaviour. libp2p's relay needs it: it would tell its status
    /// to handlers that it gave to those connections itself, and panic.
    pub(crate) fn direct_only(mut self) -> Self {
        self.is_relayed_too = false;
        self
    }

    /// Has handlers say again, to a behaviour that took another's place, whether their peers serve this
    /// protocol.
    pub(crate) fn served_by(mut self, protocol: StreamProtocol) -> Self {
        self.served = Some(protocol);
        self
    }

    /// The behaviour.
    pub(crate) fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Has another in the behaviour's place, which serves the connections that come from now on.
    pub(crate) fn renew(&mut self, inner: B) {
        self.inner = inner;
        self.live.values_mut().for_each(|live| live.is_known = false);
    }

    /// A stranger became a member on the connection that it has.
    pub(crate) fn promote(&mut self, connection: ConnectionId) {
        if let Some(live) = self.live.get_mut(&connection)
            && !live.is_open
        {
            live.is_open = true;
            self.words.push_back((live.peer, connection, Own::Open));
        }
    }

    /// Whoever is not a member any more is a stranger on the connection that it has.
    pub(crate) fn demote(&mut self) {
        for (&connection, live) in &mut self.live {
            if live.is_open && !self.members.contains(&live.peer) {
                live.is_open = false;
                self.words.push_back((live.peer, connection, Own::Shut));
            }
        }
        self.asked.retain(|peer, _| self.members.contains(peer));
    }

    /// Whether the behaviour dialled this connection, for ends of its own.
    pub(crate) fn dialled(&self, connection: ConnectionId) -> bool {
        self.dialled.contains(&connection)
    }

    fn admit<H: ConnectionHandler>(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        is_relayed: bool,
        remote: &Multiaddr,
        inner: H,
    ) -> Handler<H> {
        let served = self.served.clone();
        if is_relayed && !self.is_relayed_too {
            return Handler::new(inner, false, served);
        }
        let is_open = self.members.contains(&peer);
        let host = address::ip(remote).filter(|_| !is_relayed);
        let live = Live { peer, host, is_open, is_known: true, endpoint: None };
        self.live.insert(id, live);
        Handler::new(inner, is_open, served)
    }

    fn is_known(&self, id: ConnectionId) -> bool {
        self.live.get(&id).is_some_and(|live| live.is_known)
    }

    /// Whether the behaviour knew it.
    fn forget(&mut self, id: ConnectionId) -> bool {
        self.dialled.remove(&id);
        self.live.remove(&id).is_some_and(|live| live.is_known)
    }

    /// Whether the behaviour dials these addresses, which a peer named.
    fn may_be_dialled(&mut self, peer: Option<PeerId>, addresses: &[Multiaddr]) -> bool {
        if !may_be_asked_for(addresses) {
            return false;
        }
        let (Some(asking), Some(peer)) = (self.asking, peer) else { return true };
        let is_its_own = |address: &Multiaddr| {
            let is_host = |ip| self.live.values().any(|it| it.peer == peer && it.host == Some(ip));
            address::is_public(address) || address::ip(address).is_some_and(is_host)
        };
        if asking.is_for_itself && !addresses.iter().all(is_its_own) {
            return false;
        }
        let now = Timestamp::ZERO + self.started.elapsed();
        self.asked.entry(peer).or_insert_with(|| Bucket::new(asking.rate, now)).take(now)
    }
}

impl<B: NetworkBehaviour> Guarded<B> {
    /// The same as [`Self::renew`] for a behaviour that learns of connections only when they are up, and what
    /// they are good for from their handlers: it also serves those that there are.
    pub(crate) fn renew_knowing(&mut self, inner: B) {
        self.inner = inner;
        for (&connection_id, live) in &mut self.live {
            let Some(endpoint) = &live.endpoint else { continue };
            live.is_known = true;
            let up = ConnectionEstablished {
                peer_id: live.peer,
                connection_id,
                endpoint,
                failed_addresses: &[],
                other_established: 0,
            };
            self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(up));
            self.words.push_back((live.peer, connection_id, Own::SayAgain));
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Guarded<B> {
    type ConnectionHandler = Handler<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner =
            self.inner.handle_established_inbound_connection(connection, peer, local, remote)?;
        Ok(self.admit(connection, peer, address::is_relayed(local), remote, inner))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // What the behaviour dials for ends of its own, a peer named.
        if self.dialled.contains(&connection) && !self.may_be_dialled(peer, addresses) {
            return Err(ConnectionDenied::new(TooMuchAsked));
        }
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner = self
            .inner
            .handle_established_outbound_connection(connection, peer, address, role, port)?;
        Ok(self.admit(connection, peer, address::is_relayed(address), address, inner))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events may grow; what is about no connection is for `hears` to say"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let is_heard = match &event {
            FromSwarm::ConnectionEstablished(it) => {
                if let Some(live) = self.live.get_mut(&it.connection_id) {
                    live.endpoint = Some(it.endpoint.clone());
                }
                self.is_known(it.connection_id)
            }
            FromSwarm::AddressChange(it) => self.is_known(it.connection_id),
            FromSwarm::ConnectionClosed(it) => self.forget(it.connection_id),
            FromSwarm::DialFailure(it) => {
                self.forget(it.connection_id);
                true
            }
            FromSwarm::ListenFailure(it) => {
                self.forget(it.connection_id);
                true
            }
            other => (self.hears)(other),
        };
        if is_heard {
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if self.is_known(connection) {
            self.inner.on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection, word)) = self.words.pop_front() {
            let (handler, event) = (NotifyHandler::One(connection), Word::Own(word));
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
        }
        let event = std::task::ready!(self.inner.poll(cx));
        if let ToSwarm::Dial { opts } = &event {
            self.dialled.insert(opts.connection_id());
        }
        Poll::Ready(event.map_in(Word::Inner))
    }
}

/// What a handler is told.
#[derive(Debug)]
pub(crate) enum Word<T> {
    /// What its guard says.
    Own(Own),
    /// What its behaviour says.
    Inner(T),
}

/// What a handler's guard says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Own {
    /// Its peer is a member from now on.
    Open,
    /// Its peer is a member no longer.
    Shut,
    /// Another behaviour is to hear what the peer serves.
    SayAgain,
}

type HeldEvent<H> = ConnectionHandlerEvent<
    <H as ConnectionHandler>::OutboundProtocol,
    <H as ConnectionHandler>::OutboundOpenInfo,
    <H as ConnectionHandler>::ToBehaviour,
>;

/// The part of one connection.
pub(crate) struct Handler<H: ConnectionHandler> {
    inner: H,
    is_member: bool,
    held: VecDeque<HeldEvent<H>>,
    served: Option<StreamProtocol>,
    /// Whether the peer serves that.
    is_served: bool,
    reports: VecDeque<ProtocolSupport>,
}

impl<H: ConnectionHandler> Handler<H> {
    fn new(inner: H, is_member: bool, served: Option<StreamProtocol>) -> Self {
        let (held, reports) = (VecDeque::new(), VecDeque::new());
        Self { inner, is_member, held, served, is_served: false, reports }
    }

    /// Has the connection tell its handlers anew that the peer serves the protocol, as if it had not before.
    fn say_again(&mut self) {
        if let Some(protocol) = self.served.clone().filter(|_| self.is_served) {
            let only = HashSet::from([protocol]);
            self.reports.push_back(ProtocolSupport::Removed(only.clone()));
            self.reports.push_back(ProtocolSupport::Added(only));
        }
    }

    fn hear_of(&mut self, change: &ProtocolsChange<'_>) {
        let is_it = |it: &StreamProtocol| self.served.as_ref() == Some(it);
        match change {
            ProtocolsChange::Added(added) if added.clone().any(is_it) => self.is_served = true,
            ProtocolsChange::Removed(gone) if gone.clone().any(is_it) => self.is_served = false,
            ProtocolsChange::Added(_) | ProtocolsChange::Removed(_) => {}
        }
    }
}

impl<H: ConnectionHandler> fmt::Debug for Handler<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("is_member", &self.is_member).finish_non_exhaustive()
    }
}

impl<H: ConnectionHandler> ConnectionHandler for Handler<H> {
    type FromBehaviour = Word<H::FromBehaviour>;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = Offer<H::InboundProtocol>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        let is_open = self.is_member;
        self.inner.listen_protocol().map_upgrade(|upgrade| Offer { upgrade, is_open })
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<HeldEvent<H>> {
        if let Some(report) = self.reports.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::ReportRemoteProtocols(report));
        }
        if self.is_member {
            if let Some(held) = self.held.pop_front() {
                return Poll::Ready(held);
            }
            return self.inner.poll(cx);
        }
        while let Poll::Ready(event) = self.inner.poll(cx) {
            if self.held.len() < HELD_MAX {
                self.held.push_back(event);
            }
        }
        Poll::Pending
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<H::ToBehaviour>> {
        self.inner.poll_close(cx)
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {
            Word::Own(Own::Open) => self.is_member = true,
            Word::Own(Own::Shut) => self.is_member = false,
            Word::Own(Own::SayAgain) => self.say_again(),
            Word::Inner(event) => self.inner.on_behaviour_event(event),
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        let event = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info }) => {
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info })
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }) => {
                ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error })
            }
            ConnectionEvent::FullyNegotiatedOutbound(it) => {
                ConnectionEvent::FullyNegotiatedOutbound(it)
            }
            ConnectionEvent::DialUpgradeError(it) => ConnectionEvent::DialUpgradeError(it),
            ConnectionEvent::AddressChange(it) => ConnectionEvent::AddressChange(it),
            ConnectionEvent::LocalProtocolsChange(it) => ConnectionEvent::LocalProtocolsChange(it),
            ConnectionEvent::RemoteProtocolsChange(it) => {
                self.hear_of(&it);
                ConnectionEvent::RemoteProtocolsChange(it)
            }
            _ => return,
        };
        self.inner.on_connection_event(event);
    }
}

/// An upgrade that is offered, or not.
#[derive(Debug)]
pub(crate) struct Offer<U> {
    upgrade: U,
    is_open: bool,
}

impl<U: UpgradeInfoSend> UpgradeInfo for Offer<U> {
    type Info = U::Info;
    type InfoIter = Take<U::InfoIter>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.upgrade.protocol_info().take(if self.is_open { usize::MAX } else { 0 })
    }
}

impl<U: InboundUpgradeSend> InboundUpgrade<Stream> for Offer<U> {
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_inbound(self, stream: Stream, info: U::Info) -> Self::Future {
        self.upgrade.upgrade_inbound(stream, info)
    }
}

/// A peer has more dialled than an honest one does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a peer asks for dials too often, to too many addresses, or to such as are not its own")]
struct TooMuchAsked;

/// Whether addresses that a peer named are as many as an honest one has at most, and each may be
/// somebody's.
fn may_be_asked_for(addresses: &[Multiaddr]) -> bool {
    let is_nobodys =
        |it: &Multiaddr| address::ip(it).is_some_and(|ip| address::scope(ip) == Scope::Nobody);
    addresses.len() <= ASKED_MAX && !addresses.iter().any(is_nobodys)
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::dummy;
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate::each_hour(4, 1);

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    /// One before which a member is connected from 192.168.1.7, and another through a relay.
    fn guarded(is_for_itself: bool) -> (Guarded<dummy::Behaviour>, PeerId, PeerId) {
        let (near, far) = (PeerId::random(), PeerId::random());
        let members = Members::default();
        members.replace([near, far].into());
        let mut guarded =
            Guarded::new(dummy::Behaviour, members).asked_for(Asking { rate: RATE, is_for_itself });
        for (n, peer, is_relayed) in [(1, near, false), (2, far, true)] {
            let from = address("/ip4/192.168.1.7/tcp/50000");
            let id = ConnectionId::new_unchecked(n);
            guarded.admit(id, peer, is_relayed, &from, dummy::ConnectionHandler);
        }
        (guarded, near, far)
    }

    #[test]
    fn a_peer_names_few_addresses_and_none_that_is_nobodys() {
        let honest = vec![address("/ip4/198.51.100.1/udp/4001/quic-v1"); ASKED_MAX];
        assert!(may_be_asked_for(&honest));
        assert!(!may_be_asked_for(&[&honest[..], &honest[..1]].concat()));
        for nobodys in ["/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.251/udp/5353/quic-v1", "/ip6/::/tcp/1"]
        {
            assert!(!may_be_asked_for(&[honest[0].clone(), address(nobodys)]), "{nobodys}");
        }
    }

    #[test]
    fn a_member_has_itself_dialled_in_public_or_where_it_speaks_from() {
        let (mut guarded, near, far) = guarded(true);
        let mut may = |peer, text: &str| guarded.may_be_dialled(Some(peer), &[address(text)]);
        assert!(may(near, "/ip4/203.0.113.7/udp/4001/quic-v1"));
        assert!(may(near, "/ip4/192.168.1.7/udp/4001/quic-v1"));
        for other in
            ["/ip4/192.168.1.8/tcp/22", "/ip4/127.0.0.1/tcp/22", "/ip6/::1/tcp/22", "/dns4/a/tcp/1"]
        {
            assert!(!may(near, other), "{other}");
        }
        // Of one behind a relay nobody knows where it is.
        assert!(!may(far, "/ip4/192.168.1.7/udp/4001/quic-v1"));
        assert!(may(far, "/ip6/2001:db8::7/udp/4001/quic-v1"));
    }

    #[test]
    fn whoever_is_no_longer_a_member_is_shut_out_and_let_in_again_once() {
        let (mut guarded, near, far) = guarded(false);
        guarded.members.replace([far].into());
        guarded.demote();
        guarded.demote();
        let id = ConnectionId::new_unchecked(1);
        assert_eq!(guarded.words.drain(..).collect::<Vec<_>>(), [(near, id, Own::Shut)]);
        guarded.members.replace([near, far].into());
        guarded.promote(id);
        guarded.promote(id);
        assert_eq!(guarded.words, [(near, id, Own::Open)]);
    }

    #[test]
    fn one_that_is_shut_offers_nothing() {
        let offered =
            |is_open| Offer { upgrade: libp2p::core::upgrade::ReadyUpgrade::new("/a"), is_open };
        assert_eq!(UpgradeInfo::protocol_info(&offered(true)).count(), 1);
        assert_eq!(UpgradeInfo::protocol_info(&offered(false)).count(), 0);
    }

    proptest! {
        /// However many members ask, and whatever for, each has dialled no more than its rate.
        #[test]
        fn nobody_has_more_dialled_than_its_rate(asked in prop::collection::vec((any::<bool>(), 0_u8..3), 0..80)) {
            let (mut guarded, near, far) = guarded(true);
            let addresses =
                ["/ip4/203.0.113.7/tcp/1", "/ip4/192.168.1.7/tcp/1", "/ip4/192.168.1.8/tcp/1"];
            let mut dialled = HashMap::from([(near, 0), (far, 0)]);
            for (is_near, which) in asked {
                let peer = if is_near { near } else { far };
                let at = address(addresses[usize::from(which)]);
                let is_dialled = guarded.may_be_dialled(Some(peer), &[at]);
                prop_assert!(!is_dialled || which == 0 || (which == 1 && is_near));
                *dialled.entry(peer).or_default() += u32::from(is_dialled);
            }
            prop_assert!(dialled.values().all(|count| *count <= RATE.burst), "{:?}", dialled);
        }
    }
}

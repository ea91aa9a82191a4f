//! Behaviours for members only: what they offer is not there for strangers.
//!
//! libp2p's own behaviours (relay, hole punching, dialling back) serve whoever connects. [`Guarded`]
//! stands before one of them: on a stranger's connection none of its protocols is named or negotiated,
//! and what its handler would say or open is held back. A stranger that proves itself is let through on
//! the connection that it has. Dials that a behaviour makes for its own ends are remembered, so that
//! the owner of the swarm can tell them from its own.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    iter::Take,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, UpgradeInfo},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        handler::{
            ConnectionEvent, FullyNegotiatedInbound, InboundUpgradeSend, ListenUpgradeError,
            UpgradeInfoSend,
        },
    },
};

use thiserror::Error;

use crate::{address, muxer::Members};

/// The most addresses that a peer may have a behaviour dial at once: libp2p's honest nodes name some twenty.
const ASKED_MAX: usize = 24;

/// What a stranger's handler may hold back: the few things that are said once at a connection's start.
const HELD_MAX: usize = 16;

/// A behaviour that serves members.
pub(crate) struct Guarded<B> {
    inner: B,
    members: Members,
    /// Connections that the behaviour knows.
    live: HashSet<ConnectionId>,
    /// Those of them that were a stranger's.
    strangers: HashMap<ConnectionId, PeerId>,
    promoted: VecDeque<(PeerId, ConnectionId)>,
    /// Connections that the behaviour dialled.
    dialled: HashSet<ConnectionId>,
    /// Whether the behaviour is told of an event that is about no connection.
    hears: fn(&FromSwarm<'_>) -> bool,
    /// Whether it also serves on connections through a relay.
    is_relayed_too: bool,
}

impl<B> Guarded<B> {
    pub(crate) fn new(inner: B, members: Members) -> Self {
        Self {
            inner,
            members,
            live: HashSet::new(),
            strangers: HashMap::new(),
            promoted: VecDeque::new(),
            dialled: HashSet::new(),
            hears: |_| true,
            is_relayed_too: true,
        }
    }

    /// Tells the behaviour only what `hears` lets through, of what is about no connection.
    pub(crate) fn hearing(mut self, hears: fn(&FromSwarm<'_>) -> bool) -> Self {
        self.hears = hears;
        self
    }

    /// Keeps connections through a relay from the behaviour. libp2p's relay needs it: it would tell its status
    /// to handlers that it gave to those connections itself, and panic.
    pub(crate) fn direct_only(mut self) -> Self {
        self.is_relayed_too = false;
        self
    }

    /// The behaviour.
    pub(crate) fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Has another in the behaviour's place, which serves the connections that come from now on.
    pub(crate) fn renew(&mut self, inner: B) {
        self.inner = inner;
        self.live.clear();
    }

    /// A stranger became a member on the connection that it has.
    pub(crate) fn promote(&mut self, connection: ConnectionId) {
        if let Some(peer) = self.strangers.remove(&connection) {
            self.promoted.push_back((peer, connection));
        }
    }

    /// Whether the behaviour dialled this connection, for ends of its own.
    pub(crate) fn dialled(&self, connection: ConnectionId) -> bool {
        self.dialled.contains(&connection)
    }

    fn admit<H: ConnectionHandler>(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        way: &Multiaddr,
        inner: H,
    ) -> Handler<H> {
        if !self.is_relayed_too && address::is_relayed(way) {
            return Handler { inner, is_member: false, held: VecDeque::new() };
        }
        let is_member = self.members.contains(&peer);
        self.live.insert(id);
        if !is_member {
            self.strangers.insert(id, peer);
        }
        Handler { inner, is_member, held: VecDeque::new() }
    }

    fn forget(&mut self, id: ConnectionId) -> bool {
        self.strangers.remove(&id);
        self.dialled.remove(&id);
        self.live.remove(&id)
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
        Ok(self.admit(connection, peer, local, inner))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // What the behaviour dials for ends of its own, a peer named.
        if self.dialled.contains(&connection) && !may_be_asked_for(addresses) {
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
        Ok(self.admit(connection, peer, address, inner))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events may grow; what is about no connection is for `hears` to say"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let is_heard = match &event {
            FromSwarm::ConnectionEstablished(it) => self.live.contains(&it.connection_id),
            FromSwarm::AddressChange(it) => self.live.contains(&it.connection_id),
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
        if self.live.contains(&connection) {
            self.inner.on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection)) = self.promoted.pop_front() {
            let handler = NotifyHandler::One(connection);
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event: Word::Promoted });
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
    /// Its peer is a member from now on.
    Promoted,
    /// What its behaviour says.
    Inner(T),
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
            Word::Promoted => self.is_member = true,
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

/// A peer names more addresses to dial than an honest one has, or such as are nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a peer asks for a dial to too many addresses, or to such as are nobody's")]
struct TooMuchAsked;

/// Whether addresses that a peer named are as many as an honest one has at most, and each may be
/// somebody's.
fn may_be_asked_for(addresses: &[Multiaddr]) -> bool {
    let is_nobodys =
        |it: &Multiaddr| address::ip(it).is_some_and(|ip| ip.is_multicast() || ip.is_unspecified());
    addresses.len() <= ASKED_MAX && !addresses.iter().any(is_nobodys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_names_few_addresses_and_none_that_is_nobodys() {
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let honest = vec![address("/ip4/198.51.100.1/udp/4001/quic-v1"); ASKED_MAX];
        assert!(may_be_asked_for(&honest));
        assert!(!may_be_asked_for(&[&honest[..], &honest[..1]].concat()));
        for nobodys in ["/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.251/udp/5353/quic-v1", "/ip6/::/tcp/1"]
        {
            assert!(!may_be_asked_for(&[honest[0].clone(), address(nobodys)]), "{nobodys}");
        }
    }
}

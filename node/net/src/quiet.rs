//! Identify, which tells nobody an address and takes nobody's word for one.
//!
//! libp2p's identify hands out whatever address of this node was confirmed, to strangers too, and makes
//! candidates of whatever anybody says to have seen; where a router gave another port, it even puts this
//! node's own port in its place, under which nobody can be reached. Addresses travel in presence, and
//! which observation counts is for the owner of the swarm to say.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    identify,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

/// The behaviour.
pub(crate) struct Quiet {
    inner: identify::Behaviour,
    candidates: VecDeque<Multiaddr>,
}

impl Quiet {
    pub(crate) fn new(config: identify::Config) -> Self {
        Self { inner: identify::Behaviour::new(config), candidates: VecDeque::new() }
    }

    /// Makes an address one under which this node may be reached: it is tested, and tried in hole punching.
    pub(crate) fn propose(&mut self, address: Multiaddr) {
        self.candidates.push_back(address);
    }
}

impl NetworkBehaviour for Quiet {
    type ConnectionHandler = THandler<identify::Behaviour>;
    type ToSwarm = identify::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if !matches!(event, FromSwarm::ExternalAddrConfirmed(_)) {
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(candidate) = self.candidates.pop_front() {
            return Poll::Ready(ToSwarm::NewExternalAddrCandidate(candidate));
        }
        loop {
            let event = std::task::ready!(self.inner.poll(cx));
            let is_claim = matches!(
                event,
                ToSwarm::NewExternalAddrCandidate(_) | ToSwarm::NewExternalAddrOfPeer { .. }
            );
            if !is_claim {
                return Poll::Ready(event);
            }
        }
    }
}

//! Behaviours for members only: what they offer is not there for strangers.
//!
//! libp2p's own behaviours (relay, hole punching, dialling back) serve whoever connects. [`Guarded`]
//! stands before one of them: on a stranger's connection none of its protocols is named or negotiated,
//! and what its handler would say or open is held back. A stranger that proves itself is let through on
//! the connection that it has. To whoever is a member no longer nothing more is offered, and nothing more is
//! opened or said; streams that are open go on until the swarm's owner closes the connection, which is its part.
//! Dials that a behaviour makes for its own ends are remembered, so that the owner can tell them from its own;
//! what members have it dial is bounded ([`Asking`]).

mod handler;
mod asking;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::IpAddr,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
    },
};

pub(crate) use self::asking::Asking;
use self::{
    asking::{Askers, TooMuchAsked},
    handler::{Handler, Own, Word},
};
use crate::{address, muxer::Members};

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
    /// Who has it dial. `None`: what it dials no member asked for.
    askers: Option<Askers>,
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
            askers: None,
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
        self.askers = Some(Askers::new(asking));
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
    ///
    /// Closing it, and with it the streams that are open, is the caller's part.
    pub(crate) fn demote(&mut self) {
        for (&connection, live) in &mut self.live {
            if live.is_open && !self.members.contains(&live.peer) {
                live.is_open = false;
                self.words.push_back((live.peer, connection, Own::Shut));
            }
        }
        if let Some(askers) = &mut self.askers {
            askers.retain(|peer| self.members.contains(peer));
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

    /// Has the behaviour dial these addresses, which a peer named; takes a dial of what that one has left.
    fn take_dial(
        &mut self,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
    ) -> Result<(), TooMuchAsked> {
        if !asking::are_honest(addresses) {
            return Err(TooMuchAsked);
        }
        let Some(askers) = &mut self.askers else { return Ok(()) };
        let speaks_from =
            |peer, ip| self.live.values().any(|it| it.peer == peer && it.host == Some(ip));
        askers.take_dial(peer, addresses, speaks_from)
    }
}

impl<B: NetworkBehaviour> Guarded<B> {
    /// The same as [`Self::renew`] for a behaviour that learns of connections only when they are up, and what
    /// they are good for from their handlers: it also serves those that there are.
    pub(crate) fn renew_knowing(&mut self, inner: B) {
        self.inner = inner;
        let mut established: HashMap<PeerId, usize> = HashMap::new();
        for (&connection_id, live) in &mut self.live {
            let Some(endpoint) = &live.endpoint else { continue };
            live.is_known = true;
            let of_peer = established.entry(live.peer).or_default();
            let up = ConnectionEstablished {
                peer_id: live.peer,
                connection_id,
                endpoint,
                failed_addresses: &[],
                other_established: *of_peer,
            };
            *of_peer += 1;
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
        if self.dialled.contains(&connection) {
            self.take_dial(peer, addresses).map_err(ConnectionDenied::new)?;
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use libp2p::swarm::dummy;
    use proptest::prelude::*;

    use super::*;
    use crate::allowance::Rate;

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
    fn a_member_has_itself_dialled_in_public_or_where_it_speaks_from() {
        let (mut guarded, near, far) = guarded(true);
        let mut may = |peer, text: &str| guarded.take_dial(Some(peer), &[address(text)]).is_ok();
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

    /// A behaviour that notes the connections that it is told of, and how many of the peer's there were before.
    #[derive(Debug, Default)]
    struct Notes(Vec<(PeerId, usize)>);

    impl NetworkBehaviour for Notes {
        type ConnectionHandler = dummy::ConnectionHandler;
        type ToSwarm = Infallible;

        fn handle_established_inbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: &Multiaddr,
        ) -> Result<THandler<Self>, ConnectionDenied> {
            Ok(dummy::ConnectionHandler)
        }

        fn handle_established_outbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: Endpoint,
            _: PortUse,
        ) -> Result<THandler<Self>, ConnectionDenied> {
            Ok(dummy::ConnectionHandler)
        }

        fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
            if let FromSwarm::ConnectionEstablished(up) = event {
                self.0.push((up.peer_id, up.other_established));
            }
        }

        fn on_connection_handler_event(
            &mut self,
            _: PeerId,
            _: ConnectionId,
            event: THandlerOutEvent<Self>,
        ) {
            match event {}
        }

        fn poll(
            &mut self,
            _: &mut Context<'_>,
        ) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
            Poll::Pending
        }
    }

    #[test]
    fn one_that_takes_anothers_place_hears_of_connections_as_that_one_did() {
        let mut guarded = Guarded::new(Notes::default(), Members::default());
        let (a, b) = (PeerId::random(), PeerId::random());
        let at = address("/ip4/192.168.1.7/tcp/50000");
        let endpoint =
            ConnectedPoint::Listener { local_addr: at.clone(), send_back_addr: at.clone() };
        for (n, (peer_id, other_established)) in
            [(a, 0), (b, 0), (a, 1), (a, 2)].into_iter().enumerate()
        {
            let connection_id = ConnectionId::new_unchecked(n);
            guarded.admit(connection_id, peer_id, false, &at, dummy::ConnectionHandler);
            guarded.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established,
            }));
        }
        // One that is not up yet is heard of when it is.
        let pending = ConnectionId::new_unchecked(9);
        guarded.admit(pending, b, false, &at, dummy::ConnectionHandler);
        let before = guarded.inner_mut().0.clone();
        assert_eq!(before, [(a, 0), (b, 0), (a, 1), (a, 2)]);
        guarded.renew_knowing(Notes::default());
        assert_eq!(guarded.inner_mut().0, before);
    }

    #[test]
    fn a_dial_that_no_member_asked_for_is_its_own_only_where_none_asks() {
        let at = [address("/ip4/203.0.113.7/udp/4001/quic-v1")];
        let (mut asked, ..) = guarded(false);
        assert_eq!(asked.take_dial(None, &at), Err(TooMuchAsked));
        let mut own = Guarded::new(dummy::Behaviour, Members::default());
        assert_eq!(own.take_dial(None, &at), Ok(()));
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
                let is_dialled = guarded.take_dial(Some(peer), &[at]).is_ok();
                prop_assert!(!is_dialled || which == 0 || (which == 1 && is_near));
                *dialled.entry(peer).or_default() += u32::from(is_dialled);
            }
            prop_assert!(dialled.values().all(|count| *count <= RATE.burst), "{:?}", dialled);
        }
    }
}

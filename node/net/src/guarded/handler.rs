//! What stands before a behaviour's handler on one connection, and what it offers there.
//!
//! On a stranger's connection nothing is offered, and what the handler would say or open is held back, up to
//! [`HELD_MAX`]; then it is not asked any more until the peer is a member, so that none of what it said is lost:
//! it would wait for ever for a stream that nobody opens.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    iter::Take,
    task::{Context, Poll},
};

use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{
            ConnectionEvent, FullyNegotiatedInbound, InboundUpgradeSend, ListenUpgradeError,
            ProtocolSupport, ProtocolsChange, UpgradeInfoSend,
        },
    },
};

/// What a stranger's handler may hold back: more than the few things that are said once at a connection's start.
const HELD_MAX: usize = 16;

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
    /// What it said while its peer was no member: said when the peer becomes one, before anything else.
    held: VecDeque<HeldEvent<H>>,
    served: Option<StreamProtocol>,
    /// Whether the peer serves that.
    is_served: bool,
    reports: VecDeque<ProtocolSupport>,
}

impl<H: ConnectionHandler> Handler<H> {
    pub(super) fn new(inner: H, is_member: bool, served: Option<StreamProtocol>) -> Self {
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
        while self.held.len() < HELD_MAX
            && let Poll::Ready(event) = self.inner.poll(cx)
        {
            self.held.push_back(event);
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use libp2p::core::upgrade::{DeniedUpgrade, ReadyUpgrade};

    use super::*;

    #[test]
    fn one_that_is_shut_offers_nothing() {
        let offered = |is_open| Offer { upgrade: ReadyUpgrade::new("/a"), is_open };
        assert_eq!(UpgradeInfo::protocol_info(&offered(true)).count(), 1);
        assert_eq!(UpgradeInfo::protocol_info(&offered(false)).count(), 0);
    }

    /// A handler that counts, as often as it is asked to.
    #[derive(Debug)]
    struct Counts {
        next: usize,
        end: usize,
    }

    impl ConnectionHandler for Counts {
        type FromBehaviour = ();
        type ToBehaviour = usize;
        type InboundProtocol = DeniedUpgrade;
        type OutboundProtocol = DeniedUpgrade;
        type InboundOpenInfo = ();
        type OutboundOpenInfo = ();

        fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
            SubstreamProtocol::new(DeniedUpgrade, ())
        }

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<HeldEvent<Self>> {
            if self.next == self.end {
                return Poll::Pending;
            }
            self.next += 1;
            Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(self.next))
        }

        fn on_behaviour_event(&mut self, (): ()) {}

        fn on_connection_event(
            &mut self,
            _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade, (), ()>,
        ) {
        }
    }

    /// What it says until it has nothing to say.
    fn said(handler: &mut Handler<Counts>) -> Vec<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut said = Vec::new();
        while let Poll::Ready(event) = handler.poll(&mut cx) {
            let ConnectionHandlerEvent::NotifyBehaviour(number) = event else { unreachable!() };
            said.push(number);
        }
        said
    }

    #[test]
    fn what_a_strangers_handler_says_is_said_later_and_none_of_it_is_lost() {
        let all = 3 * HELD_MAX;
        let mut handler = Handler::new(Counts { next: 0, end: all }, false, None);
        for _ in 0..2 {
            assert_eq!(said(&mut handler), [0; 0]);
            assert_eq!(handler.inner.next, HELD_MAX, "it is not asked beyond what is held");
        }
        handler.on_behaviour_event(Word::Own(Own::Open));
        assert_eq!(said(&mut handler), Vec::from_iter(1..=all));
        // And again, for one that was a member in between.
        handler.on_behaviour_event(Word::Own(Own::Shut));
        handler.inner.end += 1;
        assert_eq!(said(&mut handler), [0; 0]);
        handler.on_behaviour_event(Word::Own(Own::Open));
        assert_eq!(said(&mut handler), [all + 1]);
    }
}

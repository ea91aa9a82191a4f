//! A connection's streams before anything is negotiated on them: few for a stranger.
//!
//! What a peer sends on a stream waits in memory until it is read, a window for each stream; so the
//! limit on streams is what bounds a connection's memory. Members have room for all protocols, a
//! stranger for what it may do at all.

use std::{
    collections::HashSet,
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll, ready},
};

use libp2p::{
    PeerId,
    core::muxing::{StreamMuxer, StreamMuxerEvent},
};
use thiserror::Error as ThisError;

/// Streams that a stranger may open in all: identify, its push, ping and trust; the four protocols that
/// it opens if it has merged trust a moment before it is a member here; and half as many again.
pub(crate) const STRANGER_STREAMS_MAX: usize = 12;

/// Who belongs, as the gate and the connections' muxers see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members(Arc<RwLock<HashSet<PeerId>>>);

impl Members {
    pub(crate) fn replace(&self, members: HashSet<PeerId>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }
}

/// Why a stranger's connection ends.
#[derive(Debug, ThisError)]
#[error("a stranger opens more than {STRANGER_STREAMS_MAX} streams")]
pub(crate) struct TooManyStreams;

impl TooManyStreams {
    /// Whether this is what led to an error, beneath whatever it was wrapped into.
    pub(crate) fn led_to(error: &(dyn Error + 'static)) -> bool {
        if error.is::<Self>() {
            return true;
        }
        // What is wrapped into an error of I/O is not its source, but itself.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match inner {
            Some(inner) => Self::led_to(inner),
            None => error.source().is_some_and(Self::led_to),
        }
    }
}

/// Why a connection ends.
#[derive(Debug, ThisError)]
pub(crate) enum MuxerError<E> {
    #[error("cut")]
    TooManyStreams(#[source] TooManyStreams),
    #[error(transparent)]
    Muxer(E),
}

/// The muxer of one connection, which ends with [`TooManyStreams`].
#[derive(Debug)]
pub(crate) struct Bounded<M> {
    muxer: M,
    peer: PeerId,
    /// `None`: nobody is a stranger here.
    members: Option<Members>,
    inbound: usize,
}

impl<M> Bounded<M> {
    pub(crate) const fn new(muxer: M, peer: PeerId, members: Option<Members>) -> Self {
        Self { muxer, peer, members, inbound: 0 }
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Bounded<M> {
    type Substream = M::Substream;
    type Error = MuxerError<M::Error>;

    fn poll_inbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let this = self.get_mut();
        let stream =
            ready!(Pin::new(&mut this.muxer).poll_inbound(cx)).map_err(MuxerError::Muxer)?;
        this.inbound = this.inbound.saturating_add(1);
        // Membership is read anew: a stranger may have proved itself meanwhile.
        if this.inbound > STRANGER_STREAMS_MAX
            && this.members.as_ref().is_some_and(|members| !members.contains(&this.peer))
        {
            return Poll::Ready(Err(MuxerError::TooManyStreams(TooManyStreams)));
        }
        Poll::Ready(Ok(stream))
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        Pin::new(&mut self.get_mut().muxer).poll_outbound(cx).map_err(MuxerError::Muxer)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.get_mut().muxer).poll_close(cx).map_err(MuxerError::Muxer)
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.get_mut().muxer).poll(cx).map_err(MuxerError::Muxer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_known_beneath_what_it_was_wrapped_into() {
        let cut = || MuxerError::<io::Error>::TooManyStreams(TooManyStreams);
        let wrapped = io::Error::other(io::Error::other(cut()));
        assert!(TooManyStreams::led_to(&cut()));
        assert!(TooManyStreams::led_to(&wrapped));
        assert!(TooManyStreams::led_to(&libp2p::swarm::ConnectionError::IO(wrapped)));
        let other = io::Error::other(MuxerError::Muxer(io::Error::other("reset")));
        assert!(!TooManyStreams::led_to(&other));
        assert!(!TooManyStreams::led_to(&libp2p::swarm::ConnectionError::KeepAliveTimeout));
    }
}

//! Whose fault it is that a listener failed: its own socket's, or that of whoever came.
//!
//! libp2p tells both as the listener's errors, and wraps them several times over. Its wrapping keeps sources, but
//! not always what they are sources of; so what tells a remote's fault is a source.

use std::{error::Error, io};

use libp2p::quic;
use thiserror::Error as ThisError;

/// What QUIC failed at.
#[derive(Debug, ThisError)]
pub(crate) enum QuicError {
    /// What a remote said.
    #[error("{0}")]
    Said(#[source] Said),
    /// Anything else.
    #[error(transparent)]
    Other(quic::Error),
}

/// A remote's first packet was none, or what it said later.
#[derive(Debug, ThisError)]
#[error("{0}")]
pub(crate) struct Said(quic::ConnectionError);

impl From<quic::Error> for QuicError {
    fn from(error: quic::Error) -> Self {
        match error {
            quic::Error::Connection(said) => Self::Said(Said(said)),
            quic::Error::Reach(_)
            | quic::Error::Io(_)
            | quic::Error::HandshakeTimedOut
            | quic::Error::NoActiveListenerForDialAsListener
            | quic::Error::HolePunchInProgress(_) => Self::Other(error),
        }
    }
}

/// Whether a listener's error is the fault of whoever came to it. On TCP the system says of a connection that was
/// over before it was taken, or of its network, as if it were the listener's (accept(2)).
pub(crate) fn is_remotes(error: &(dyn Error + 'static)) -> bool {
    if error.is::<Said>() {
        return true;
    }
    let io = error.downcast_ref::<io::Error>();
    // What is wrapped into an error of I/O is not its source, but itself.
    match io.and_then(io::Error::get_ref) {
        Some(inner) => is_remotes(inner),
        None => {
            io.is_some_and(|it| {
                matches!(
                    it.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::HostUnreachable
                        | io::ErrorKind::NetworkUnreachable
                )
            }) || error.source().is_some_and(is_remotes)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt as _;
    use libp2p::{core::transport::upgrade::TransportUpgradeError, swarm::SwarmEvent};
    use tokio::{net::UdpSocket, time::timeout};

    use super::*;
    use crate::{Reach, address, peer, swarm, vicinity::Vicinity};

    #[test]
    fn only_the_listeners_own_socket_is_its_own_fault() {
        // As the swarm has it, of TCP: one of several transports is as the one below it, sources included.
        #[derive(Debug, ThisError)]
        #[error(transparent)]
        struct OneOf<E: Error + 'static>(E);
        let told = |error: io::Error| {
            let tcp = TransportUpgradeError::<_, io::Error>::Transport(error);
            let direct = io::Error::other(OneOf(tcp));
            io::Error::other(OneOf(io::Error::other(direct)))
        };
        let raw = io::Error::from_raw_os_error;
        let [aborted, reset, no_files, no_buffers] = [103, 104, 24, 105];
        for (number, expected) in
            [(aborted, true), (reset, true), (no_files, false), (no_buffers, false)]
        {
            assert_eq!(is_remotes(&told(raw(number))), expected, "{}", raw(number));
        }
        let own = QuicError::from(quic::Error::Io(raw(no_files)));
        assert!(!is_remotes(&io::Error::other(own)));
    }

    #[tokio::test]
    async fn a_packet_that_means_nothing_is_the_fault_of_whoever_sent_it() {
        let besides = swarm::Besides { mdns: false, tests: None };
        let vicinity = Vicinity::new(Reach::Loopback);
        let mut swarm = swarm::main(peer::keypair([1; 32]), besides, vicinity).unwrap();
        swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
        // An initial packet of QUIC 1 by its head (RFC 9000, section 17.2.2); the rest is none of any key.
        let mut packet = vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0];
        packet.extend((0x4000_u16 | 1_182).to_be_bytes());
        packet.resize(1_200, 7);
        let failed = async {
            loop {
                let event = swarm.select_next_some().await;
                if let SwarmEvent::NewListenAddr { address, .. } = &event {
                    let (ip, port) = address::socket(address).unwrap();
                    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                    socket.send_to(&packet, (ip, port)).await.unwrap();
                } else if let SwarmEvent::ListenerError { error, .. } = event {
                    return error;
                }
            }
        };
        let error = timeout(Duration::from_secs(20), failed).await.expect("it is told");
        assert!(is_remotes(&error), "{error:?}");
    }
}

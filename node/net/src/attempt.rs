//! How a dial ended, address by address, out of what libp2p says.

use std::error::Error;

use libp2p::{Multiaddr, TransportError, multiaddr::Protocol, swarm::DialError};
use weft_protocol::attempt::{Attempt, Ending};

/// What a dial tried; empty where it tried no address.
pub(crate) fn attempts(error: &DialError) -> Vec<Attempt> {
    match error {
        DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address } => {
            vec![Attempt { address: shown(address), ending: Ending::OtherDevice }]
        }
        DialError::Transport(errors) => errors
            .iter()
            .map(|(address, error)| Attempt { address: shown(address), ending: ending(error) })
            .collect(),
        DialError::NoAddresses
        | DialError::DialPeerConditionFalse(_)
        | DialError::Aborted
        | DialError::Denied { .. } => Vec::new(),
    }
}

fn shown(address: &Multiaddr) -> String {
    let mut address = address.clone();
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address.to_string()
}

fn ending(error: &TransportError<std::io::Error>) -> Ending {
    match error {
        TransportError::MultiaddrNotSupported(_) => {
            Ending::Other("this program can't dial such an address".to_owned())
        }
        TransportError::Other(error) => of_words(&chain(error)),
    }
}

/// What an error says, with all that led to it.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        source = cause.source();
    }
    words
}

/// The transports wrap what the system says in errors of their own, some of which hide its kind: what is
/// left of it in all of them is its words.
fn of_words(words: &str) -> Ending {
    let lower = words.to_lowercase();
    let says = |what: &[&str]| what.iter().any(|what| lower.contains(what));
    if says(&["connection refused"]) {
        Ending::Refused
    } else if says(&["unreachable", "no route to host"]) {
        Ending::NoRoute
    } else if says(&["timed out", "timeout"]) {
        Ending::NoAnswer
    } else {
        Ending::Other(words.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use libp2p::PeerId;

    use super::*;

    #[test]
    fn what_systems_and_transports_say_is_told_apart() {
        let raw = |code: i32| chain(&io::Error::from_raw_os_error(code));
        let wrapped = chain(&io::Error::other(io::Error::from_raw_os_error(111)));
        for (words, expected) in [
            (raw(111), Ending::Refused),
            (wrapped, Ending::Refused),
            (raw(113), Ending::NoRoute),
            (raw(101), Ending::NoRoute),
            (raw(110), Ending::NoAnswer),
            ("Handshake with the remote timed out.".to_owned(), Ending::NoAnswer),
            ("Timeout has been reached".to_owned(), Ending::NoAnswer),
            ("odd".to_owned(), Ending::Other("odd".to_owned())),
        ] {
            assert_eq!(of_words(&words), expected, "{words}");
        }
    }

    #[test]
    fn each_address_is_told_with_its_own_ending() {
        let peer = PeerId::random();
        let at = |text: &str| -> Multiaddr { format!("{text}/p2p/{peer}").parse().unwrap() };
        let refused = TransportError::Other(io::Error::from_raw_os_error(111));
        let odd = at("/ip4/192.0.2.1/udp/4/quic-v1");
        let errors = vec![
            (at("/ip4/192.0.2.1/tcp/4"), refused),
            (odd.clone(), TransportError::MultiaddrNotSupported(odd)),
        ];
        let found = attempts(&DialError::Transport(errors));
        assert_eq!(found[0].address, "/ip4/192.0.2.1/tcp/4");
        assert_eq!(found[0].ending, Ending::Refused);
        assert_eq!(found[1].address, "/ip4/192.0.2.1/udp/4/quic-v1");
        assert!(matches!(found[1].ending, Ending::Other(_)));
        let wrong = DialError::WrongPeerId { obtained: peer, address: at("/ip4/192.0.2.1/tcp/4") };
        let other = Attempt { address: "/ip4/192.0.2.1/tcp/4".into(), ending: Ending::OtherDevice };
        assert_eq!(attempts(&wrong), [other]);
        assert_eq!(attempts(&DialError::NoAddresses), []);
    }
}

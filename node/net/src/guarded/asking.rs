//! What members may have a behaviour dial for them: how often, how many addresses, and whose.

use std::{collections::HashMap, net::IpAddr, time::Instant};

use libp2p::{Multiaddr, PeerId};
use thiserror::Error;
use weft_protocol::time::Timestamp;

use crate::{
    address::{self, Scope},
    allowance::{Bucket, Rate},
};

/// The most addresses that a peer may have a behaviour dial at once: libp2p's honest nodes name some twenty.
const ASKED_MAX: usize = 24;

/// What members may have a behaviour dial.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    /// How often each of them.
    pub(crate) rate: Rate,
    /// Whether a member is dialled in public, or at the very host that it speaks from, alone; else the
    /// transport's rules are enough.
    pub(crate) is_for_itself: bool,
}

/// A peer has more dialled than an honest one does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a peer asks for dials too often, to too many addresses, or to such as are not its own")]
pub(super) struct TooMuchAsked;

/// The members that asked, and how often each still may.
#[derive(Debug)]
pub(super) struct Askers {
    asking: Asking,
    buckets: HashMap<PeerId, Bucket>,
    started: Instant,
}

impl Askers {
    /// Nobody asked yet.
    pub(super) fn new(asking: Asking) -> Self {
        Self { asking, buckets: HashMap::new(), started: Instant::now() }
    }

    /// Forgets all other peers.
    pub(super) fn retain(&mut self, kept: impl Fn(&PeerId) -> bool) {
        self.buckets.retain(|peer, _| kept(peer));
    }

    /// Takes one dial of what a peer has left, to addresses that it named. A dial that nobody can be held to is
    /// none that a member asked for.
    ///
    /// # Errors
    ///
    /// It has none left, or may have nobody dialled there; then nothing was taken.
    pub(super) fn take_dial(
        &mut self,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        speaks_from: impl Fn(PeerId, IpAddr) -> bool,
    ) -> Result<(), TooMuchAsked> {
        let peer = peer.ok_or(TooMuchAsked)?;
        let is_its_own = |address: &Multiaddr| {
            address::is_public(address)
                || address::ip(address).is_some_and(|ip| speaks_from(peer, ip))
        };
        if self.asking.is_for_itself && !addresses.iter().all(is_its_own) {
            return Err(TooMuchAsked);
        }
        let now = Timestamp::ZERO + self.started.elapsed();
        let bucket = self.buckets.entry(peer).or_insert_with(|| Bucket::new(self.asking.rate, now));
        if bucket.take(now) { Ok(()) } else { Err(TooMuchAsked) }
    }
}

/// Whether addresses that a peer named are as many as an honest one has at most, and each may be
/// somebody's.
pub(super) fn are_honest(addresses: &[Multiaddr]) -> bool {
    let is_nobodys =
        |it: &Multiaddr| address::ip(it).is_some_and(|ip| address::scope(ip) == Scope::Nobody);
    addresses.len() <= ASKED_MAX && !addresses.iter().any(is_nobodys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_names_few_addresses_and_none_that_is_nobodys() {
        let honest = vec![address("/ip4/198.51.100.1/udp/4001/quic-v1"); ASKED_MAX];
        assert!(are_honest(&honest));
        assert!(!are_honest(&[&honest[..], &honest[..1]].concat()));
        for nobodys in ["/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.251/udp/5353/quic-v1", "/ip6/::/tcp/1"]
        {
            assert!(!are_honest(&[honest[0].clone(), address(nobodys)]), "{nobodys}");
        }
    }

    #[test]
    fn what_nobody_is_held_to_is_not_dialled() {
        let at = [address("/ip4/203.0.113.7/udp/4001/quic-v1")];
        for is_for_itself in [false, true] {
            let rate = Rate::each_hour(4, 1);
            let mut askers = Askers::new(Asking { rate, is_for_itself });
            assert_eq!(askers.take_dial(None, &at, |_, _| true), Err(TooMuchAsked));
            let somebody = Some(PeerId::random());
            assert_eq!(askers.take_dial(somebody, &at, |_, _| false), Ok(()));
        }
    }
}

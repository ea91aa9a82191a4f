//! Addresses: multiaddrs as text outside this crate, parsed at its edge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::{Multiaddr, multiaddr::Protocol};

use crate::Reach;

/// Reads an address that may be dialled: an IP address with QUIC or TCP, and nothing behind it but
/// the peer's name, which is left out since the dial names the peer itself.
pub(crate) fn parse(text: &str, reach: Reach) -> Option<Multiaddr> {
    let address: Multiaddr = text.parse().ok()?;
    let mut parts = address.iter();
    let ip = ip_of(parts.next()?)?;
    let mut plain = Multiaddr::from(ip);
    match (parts.next()?, parts.next()) {
        (Protocol::Udp(port), Some(Protocol::QuicV1)) => {
            plain.push(Protocol::Udp(port));
            plain.push(Protocol::QuicV1);
        }
        (Protocol::Tcp(port), None | Some(Protocol::P2p(_))) => plain.push(Protocol::Tcp(port)),
        _ => return None,
    }
    if parts.any(|part| !matches!(part, Protocol::P2p(_))) {
        return None;
    }
    if reach == Reach::Loopback && !ip.is_loopback() {
        return None;
    }
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(plain)
}

/// The IP address that `address` begins with.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    ip_of(address.iter().next()?)
}

/// What counts as one place that strangers come from: an IPv4 address, or the 64-bit network of an
/// IPv6 address, of which a single machine has all the rest; but on a link each machine has its own.
pub(crate) fn source(address: &Multiaddr) -> Option<IpAddr> {
    match ip(address)? {
        IpAddr::V6(ip) if !ip.is_unicast_link_local() => {
            let network = u128::from(ip) & !u128::from(u64::MAX);
            Some(IpAddr::V6(Ipv6Addr::from(network)))
        }
        other @ (IpAddr::V4(_) | IpAddr::V6(_)) => Some(other),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "multiaddr's parts may grow; two are IP")]
fn ip_of(part: Protocol<'_>) -> Option<IpAddr> {
    match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

/// Whether others can be told to dial `address`: on a LAN neither loopback nor link-local ones.
pub(crate) fn is_worth_telling(address: &Multiaddr, reach: Reach) -> bool {
    match (reach, ip(address)) {
        (_, None) => false,
        (Reach::Loopback, Some(ip)) => ip.is_loopback(),
        (Reach::Lan, Some(IpAddr::V4(ip))) => {
            !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified()
        }
        (Reach::Lan, Some(IpAddr::V6(ip))) => {
            !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified()
        }
    }
}

/// The addresses on which a node of this reach listens, QUIC before TCP, with whether it can do
/// without.
pub(crate) fn listening(reach: Reach, port: u16) -> Vec<(Multiaddr, bool)> {
    let quic = |ip: IpAddr| Multiaddr::from(ip).with(Protocol::Udp(port)).with(Protocol::QuicV1);
    let tcp = |ip: IpAddr| Multiaddr::from(ip).with(Protocol::Tcp(port));
    let v4 = interface(reach);
    let mut addresses = vec![(quic(v4), false), (tcp(v4), false)];
    if reach == Reach::Lan {
        let v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        addresses.extend([(quic(v6), true), (tcp(v6), true)]);
    }
    addresses
}

/// The IPv4 interface of this reach.
pub(crate) fn interface(reach: Reach) -> IpAddr {
    IpAddr::V4(match reach {
        Reach::Loopback => Ipv4Addr::LOCALHOST,
        Reach::Lan => Ipv4Addr::UNSPECIFIED,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_direct_addresses_are_dialled() {
        let parsed = |text: &str, reach| parse(text, reach).map(|address| address.to_string());
        let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        let same = Some("/ip4/192.0.2.1/udp/4001/quic-v1".to_owned());
        assert_eq!(parsed("/ip4/192.0.2.1/udp/4001/quic-v1", Reach::Lan), same);
        assert_eq!(
            parsed(&format!("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{peer}"), Reach::Lan),
            same
        );
        assert_eq!(
            parsed(&format!("/ip6/::1/tcp/9/p2p/{peer}"), Reach::Loopback),
            Some("/ip6/::1/tcp/9".to_owned())
        );
        for refused in [
            "",
            "nonsense",
            "/ip4/192.0.2.1",
            "/ip4/192.0.2.1/udp/4001",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.251/udp/5353/quic-v1",
            "/ip4/192.0.2.1/tcp/1/ws",
            "/dns4/example.org/tcp/1",
        ] {
            assert_eq!(parsed(refused, Reach::Lan), None, "{refused}");
        }
        let relayed = format!("/ip4/192.0.2.1/tcp/1/p2p/{peer}/p2p-circuit");
        assert_eq!(parsed(&relayed, Reach::Lan), None);
        assert_eq!(parsed("/ip4/192.0.2.1/tcp/1", Reach::Loopback), None);
    }

    #[test]
    fn a_lan_is_told_neither_loopback_nor_link_local() {
        let told = |text: &str, reach| is_worth_telling(&text.parse().unwrap(), reach);
        assert!(told("/ip4/192.168.1.7/tcp/1", Reach::Lan));
        assert!(told("/ip6/2001:db8::1/tcp/1", Reach::Lan));
        for hidden in ["/ip4/127.0.0.1/tcp/1", "/ip4/169.254.3.4/tcp/1", "/ip6/fe80::1/tcp/1"] {
            assert!(!told(hidden, Reach::Lan), "{hidden}");
        }
        assert!(told("/ip4/127.0.0.1/tcp/1", Reach::Loopback));
        assert!(!told("/ip4/192.168.1.7/tcp/1", Reach::Loopback));
    }
    #[test]
    fn an_ipv6_network_is_one_source() {
        let of = |text: &str| source(&text.parse().unwrap());
        assert_eq!(of("/ip6/2001:db8::1/tcp/1"), of("/ip6/2001:db8::2:3/udp/4/quic-v1"));
        assert_ne!(of("/ip6/2001:db8::1/tcp/1"), of("/ip6/2001:db8:0:1::1/tcp/1"));
        assert_ne!(of("/ip6/fe80::1/tcp/1"), of("/ip6/fe80::2/tcp/1"));
        assert_ne!(of("/ip4/192.0.2.1/tcp/1"), of("/ip4/192.0.2.2/tcp/1"));
    }
}

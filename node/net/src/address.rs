//! Addresses: multiaddrs as text outside this crate, parsed at its edge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::Reach;

/// The longest address that is read: a name of 253 bytes, a relay's id and what stands between them.
const ADDRESS_BYTES_MAX: usize = 512;

/// Reads an address that may be dialled: an IP address or a name, with QUIC or TCP, and behind it nothing
/// but the peer's name, which is left out since the dial names the peer itself; or that of a relay and
/// `/p2p-circuit`, once.
#[expect(clippy::wildcard_enum_match_arm, reason = "multiaddr's parts may grow; two are dialled")]
pub(crate) fn parse(text: &str, reach: Reach) -> Option<Multiaddr> {
    if text.len() > ADDRESS_BYTES_MAX {
        return None;
    }
    let address: Multiaddr = text.parse().ok()?;
    let mut parts = address.iter();
    let host = parts.next()?;
    if !may_be_dialled(&host, reach) {
        return None;
    }
    let mut plain = Multiaddr::from(host);
    match parts.next()? {
        Protocol::Udp(port) if parts.next()? == Protocol::QuicV1 => {
            plain.push(Protocol::Udp(port));
            plain.push(Protocol::QuicV1);
        }
        Protocol::Tcp(port) => plain.push(Protocol::Tcp(port)),
        _ => return None,
    }
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None, None, None) => Some(plain),
        (
            Some(relay @ Protocol::P2p(_)),
            Some(Protocol::P2pCircuit),
            None | Some(Protocol::P2p(_)),
            None,
        ) => Some(plain.with(relay).with(Protocol::P2pCircuit)),
        _ => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "multiaddr's parts may grow; five are hosts")]
fn may_be_dialled(host: &Protocol<'_>, reach: Reach) -> bool {
    match host {
        // What a name leads to is not known before it is resolved.
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
            reach == Reach::Lan && is_name(name)
        }
        other => ip_of(other.clone()).is_some_and(|ip| match scope(ip) {
            Scope::Nobody => false,
            Scope::Loopback => true,
            Scope::Private | Scope::Public => reach == Reach::Lan,
        }),
    }
}

/// Whether a text has the form of a host's name (RFC 1123, section 2.1, and the underscore of many).
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether what is said under this address goes through a relay.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The relay of an address through one.
pub(crate) fn relay(address: &Multiaddr) -> Option<PeerId> {
    let mut last = None;
    for part in address {
        if let Protocol::P2p(peer) = part {
            last = Some(peer);
        } else if part == Protocol::P2pCircuit {
            return last;
        }
    }
    None
}

/// The same address without its last part where that names a peer.
pub(crate) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// Whose an IP address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// Nobody's: no host is dialled at it.
    Nobody,
    /// This very machine's.
    Loopback,
    /// A link's, a home's or a provider's inner network's (RFC 1918, 3927, 4193, 4291, 6598).
    Private,
    /// The internet's. Those of the documentation's networks count among them: to whoever uses one it is.
    Public,
}

/// Whose `ip` is. What stands for an IPv4 address is as that address is: one that is mapped (RFC 4291,
/// section 2.5.5.2), and one that a network without IPv4 translates (RFC 6052, section 2.1).
pub(crate) fn scope(ip: IpAddr) -> Scope {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_providers = a == 100 && (64..128).contains(&b);
            if ip.is_loopback() {
                Scope::Loopback
            } else if a == 0 || a >= 224 {
                Scope::Nobody
            } else if ip.is_private() || ip.is_link_local() || is_providers {
                Scope::Private
            } else {
                Scope::Public
            }
        }
        IpAddr::V6(ip) if ip.is_loopback() => Scope::Loopback,
        IpAddr::V6(ip) if ip.is_unspecified() || ip.is_multicast() => Scope::Nobody,
        IpAddr::V6(ip) => match ip.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                scope(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into())
            }
            // Global unicast (RFC 4291, section 2.4).
            [first, ..] if first & 0xe000 == 0x2000 => Scope::Public,
            _ => Scope::Private,
        },
    }
}

/// Whether an address begins with an IP address of the internet.
pub(crate) fn is_public(address: &Multiaddr) -> bool {
    ip(address).is_some_and(|ip| scope(ip) == Scope::Public)
}

/// The IP address that `address` begins with.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    ip_of(address.iter().next()?)
}

/// The IP address and the port that `address` begins with.
#[expect(clippy::wildcard_enum_match_arm, reason = "multiaddr's parts may grow; two have ports")]
pub(crate) fn socket(address: &Multiaddr) -> Option<(IpAddr, u16)> {
    let mut parts = address.iter();
    let ip = ip_of(parts.next()?)?;
    match parts.next()? {
        Protocol::Udp(port) | Protocol::Tcp(port) => Some((ip, port)),
        _ => None,
    }
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
    fn only_addresses_of_known_forms_are_dialled() {
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
            "/ip4/192.0.2.1/udp/4001/quic-v1/tcp/2",
            "/dnsaddr/example.org/tcp/1",
            "/dns4/-/x/tcp/1",
            "/tcp/1",
        ] {
            assert_eq!(parsed(refused, Reach::Lan), None, "{refused}");
        }
        assert_eq!(parsed("/ip4/192.0.2.1/tcp/1", Reach::Loopback), None);
    }

    #[test]
    fn a_name_is_dialled_where_it_may_lead_anywhere() {
        for named in
            ["/dns/a/tcp/1", "/dns4/vps.example/udp/4001/quic-v1", "/dns6/a_b.example/tcp/1"]
        {
            assert_eq!(parse(named, Reach::Lan).map(|it| it.to_string()).as_deref(), Some(named));
            assert_eq!(parse(named, Reach::Loopback), None, "{named}");
        }
        let long = format!("/dns4/{}/tcp/1", ["a".repeat(60).as_str(); 5].join("."));
        for refused in [long.as_str(), "/dns4/a..b/tcp/1", "/dns4/a b/tcp/1"] {
            assert_eq!(parse(refused, Reach::Lan), None, "{refused}");
        }
    }

    #[test]
    fn an_address_through_a_relay_names_it_once() {
        let relay = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        let peer = "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq";
        let plain = format!("/ip4/127.0.0.1/udp/4001/quic-v1/p2p/{relay}/p2p-circuit");
        for text in [plain.clone(), format!("{plain}/p2p/{peer}")] {
            let address = parse(&text, Reach::Loopback).unwrap();
            assert_eq!(address.to_string(), plain);
            assert!(is_relayed(&address));
            assert_eq!(super::relay(&address), Some(relay.parse().unwrap()));
        }
        for refused in [
            format!("{plain}/p2p/{peer}/p2p-circuit"),
            format!("{plain}/p2p-circuit"),
            "/ip4/127.0.0.1/tcp/1/p2p-circuit".to_owned(),
            format!("/p2p/{relay}/p2p-circuit"),
            format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit"),
        ] {
            assert_eq!(parse(&refused, Reach::Loopback), None, "{refused}");
        }
        let direct = parse("/ip4/127.0.0.1/tcp/1", Reach::Loopback).unwrap();
        assert!(!is_relayed(&direct));
        assert_eq!(super::relay(&direct), None);
    }

    #[test]
    fn what_is_public_is_neither_a_homes_nor_a_providers() {
        let public = |ip: &str| is_public(&format!("{ip}/tcp/1").parse().unwrap());
        for ip in ["/ip4/203.0.113.1", "/ip4/100.128.0.1", "/ip6/2001:db8::1"] {
            assert!(public(ip), "{ip}");
        }
        for ip in [
            "/ip4/192.168.1.1",
            "/ip4/10.0.0.1",
            "/ip4/172.16.0.1",
            "/ip4/100.64.0.1",
            "/ip4/127.0.0.1",
            "/ip4/169.254.0.1",
            "/ip6/::1",
            "/ip6/fe80::1",
            "/ip6/fd00::1",
            "/ip6/::ffff:192.168.1.1",
            "/ip6/64:ff9b::a00:1",
            "/dns4/a.example",
        ] {
            assert!(!public(ip), "{ip}");
        }
    }

    #[test]
    fn an_ipv4_address_is_the_same_in_the_clothes_of_ipv6() {
        let of = |ip: &str| scope(ip.parse().unwrap());
        for (scope, v4, last) in [
            (Scope::Loopback, "127.0.0.1", "7f00:1"),
            (Scope::Nobody, "255.255.255.255", "ffff:ffff"),
            (Scope::Nobody, "0.0.0.1", "0:1"),
            (Scope::Private, "100.64.0.1", "6440:1"),
            (Scope::Public, "203.0.113.1", "cb00:7101"),
        ] {
            for ip in [v4, &format!("::ffff:{v4}"), &format!("64:ff9b::{last}")] {
                assert_eq!(of(ip), scope, "{ip}");
            }
        }
        assert_eq!((of("::"), of("ff02::fb")), (Scope::Nobody, Scope::Nobody));
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

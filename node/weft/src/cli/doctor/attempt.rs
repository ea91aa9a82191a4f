//! What was dialled in vain: which places, and over what, as a person opens ports for them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::address;
use crate::cli::{
    means::typed,
    terminal::{items, text},
};

/// So many places are named.
const PLACES_SHOWN: usize = 2;

/// A place that was dialled, and over which transports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    shown: String,
    transports: BTreeSet<Transport>,
}

/// What a connection goes over. QUIC goes over UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    /// That of a multiaddr's first hop.
    fn of(multiaddr: &str) -> Option<Self> {
        multiaddr.split('/').find_map(|part| match part {
            "udp" => Some(Self::Udp),
            "tcp" => Some(Self::Tcp),
            _ => None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// The multiaddrs at which the last dial to a device ended so, as they were dialled.
fn ended<'a>(contact: &'a Value, ending: &'a str) -> impl Iterator<Item = String> + 'a {
    let attempts = items(&contact["failed"]["attempts"]).filter(move |it| it["ending"] == ending);
    attempts.map(|it| text(it, "address"))
}

/// The places at which the last dial to a device ended so, the first few, each with what it went over.
pub(super) fn places(contact: &Value, ending: &str) -> String {
    let mut places: Vec<Place> = Vec::new();
    for multiaddr in ended(contact, ending) {
        let shown = address::shown(&multiaddr);
        let at = places.iter().position(|it| it.shown == shown).unwrap_or_else(|| {
            places.push(Place { shown, transports: BTreeSet::new() });
            places.len() - 1
        });
        places[at].transports.extend(Transport::of(&multiaddr));
    }
    let more = places.len().saturating_sub(PLACES_SHOWN);
    let shown = places.iter().take(PLACES_SHOWN).map(|Place { shown, transports }| {
        match named(transports).as_str() {
            "" => shown.clone(),
            over => format!("{shown} by {over}"),
        }
    });
    let mut listed = shown.collect::<Vec<_>>().join(", ");
    if more > 0 {
        listed.push_str(&format!(" and {more} more"));
    }
    listed
}

/// The ports of a device at which the last dial to it ended so, as `UDP and TCP port 4711`; those of relays are
/// not its own.
pub(super) fn ports(contact: &Value, ending: &str) -> Option<String> {
    let mut ports: Vec<(u16, BTreeSet<Transport>)> = Vec::new();
    let own = ended(contact, ending).filter(|it| !it.contains("/p2p-circuit"));
    for multiaddr in own {
        let Some(port) = typed(&multiaddr).map(|it| it.port()) else { continue };
        let at = ports.iter().position(|(it, _)| *it == port).unwrap_or_else(|| {
            ports.push((port, BTreeSet::new()));
            ports.len() - 1
        });
        ports[at].1.extend(Transport::of(&multiaddr));
    }
    let named = ports.iter().map(|(port, over)| format!("{} port {port}", named(over)));
    let named: Vec<_> = named.collect();
    (!named.is_empty()).then(|| named.join(", and "))
}

fn named(transports: &BTreeSet<Transport>) -> String {
    let names: Vec<_> = transports.iter().map(|it| it.name()).collect();
    names.join(" and ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dialled(addresses: &[&str]) -> Value {
        let attempt = |address: &&str| json!({"address": address, "ending": "no-answer"});
        let mut attempts: Vec<Value> = addresses.iter().map(attempt).collect();
        attempts.push(json!({"address": "/ip4/10.9.9.9/tcp/9", "ending": "refused"}));
        json!({"failed": {"attempts": attempts}})
    }

    #[test]
    fn a_place_is_named_once_with_all_that_it_was_dialled_over() {
        const QUIC: &str = "/ip4/192.168.1.7/udp/4711/quic-v1";
        const TCP: &str = "/ip4/192.168.1.7/tcp/4711";
        const OTHER: &str = "/ip4/192.168.1.7/tcp/4712";
        const RELAY: &str = "/ip4/203.0.113.5/tcp/4001/p2p/12D3KooW/p2p-circuit";
        const NAME: &str = "/dns4/phone.example/udp/1/quic-v1";
        for (addresses, places, ports) in [
            (&[][..], "", None),
            (&[TCP], "192.168.1.7:4711 by TCP", Some("TCP port 4711")),
            (&[TCP, QUIC], "192.168.1.7:4711 by UDP and TCP", Some("UDP and TCP port 4711")),
            (
                &[QUIC, OTHER],
                "192.168.1.7:4711 by UDP, 192.168.1.7:4712 by TCP",
                Some("UDP port 4711, and TCP port 4712"),
            ),
            (&[RELAY], "the relay at 203.0.113.5:4001 by TCP", None),
            (&[NAME], "/dns4/phone.example/udp/1/quic-v1 by UDP", None),
            (
                &[QUIC, RELAY, OTHER, TCP],
                "192.168.1.7:4711 by UDP and TCP, the relay at 203.0.113.5:4001 by TCP and 1 more",
                Some("UDP and TCP port 4711, and TCP port 4712"),
            ),
        ] {
            let contact = dialled(addresses);
            assert_eq!(super::places(&contact, "no-answer"), places, "{addresses:?}");
            assert_eq!(super::ports(&contact, "no-answer").as_deref(), ports, "{addresses:?}");
        }
    }
}

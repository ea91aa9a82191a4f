//! Where the node listens.

use std::{collections::BTreeSet, net::SocketAddr};

use serde_json::Value;

use super::{Finding, facts::Facts};
use crate::cli::{means::typed, terminal::items};

/// Ports under it are the system's.
const PORT_OF_ANYBODY: u16 = 1024;
/// So many addresses are named.
const SHOWN: usize = 3;

/// The addresses of a list of multiaddrs, without repetition, IPv4 first.
pub(super) fn sockets(addresses: &Value) -> Vec<SocketAddr> {
    let found: BTreeSet<SocketAddr> =
        items(addresses).filter_map(Value::as_str).filter_map(typed).collect();
    found.into_iter().collect()
}

/// The ports on which a node listens.
pub(super) fn ports(status: &Value) -> Vec<u16> {
    let ports: BTreeSet<u16> = sockets(&status["addresses"]).iter().map(SocketAddr::port).collect();
    ports.into_iter().collect()
}

/// Whether two addresses lie in one network, as most are cut: by the first 24 bits, or 64 of IPv6.
pub(super) fn is_one_network(a: &SocketAddr, b: &SocketAddr) -> bool {
    match (a, b) {
        (SocketAddr::V4(a), SocketAddr::V4(b)) => a.ip().octets()[..3] == b.ip().octets()[..3],
        (SocketAddr::V6(a), SocketAddr::V6(b)) => a.ip().segments()[..4] == b.ip().segments()[..4],
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => false,
    }
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(answers) = facts.answers() else { return stopped(facts) };
    let sockets = sockets(&answers.status["addresses"]);
    let shown: Vec<String> = sockets.iter().take(SHOWN).map(ToString::to_string).collect();
    let mut listed = shown.join(", ");
    if sockets.len() > SHOWN {
        listed.push_str(&format!(" and {} more", sockets.len() - SHOWN));
    }
    let is_all_loopback = sockets.iter().all(|it| it.ip().is_loopback());
    let mut findings = vec![if answers.is_loopback() {
        Finding::ok("address", format!("{listed}; this machine only, by WEFT_LISTEN=loopback"))
    } else if sockets.is_empty() {
        Finding::problem("address", "the node listens nowhere, so no device can come to it")
            .advise("see the messages of weft up; start it again")
    } else if is_all_loopback {
        Finding::warning("address", format!("{listed}; this machine has no other address"))
            .why("no other machine can come to it")
            .advise("connect this machine to a network")
    } else {
        Finding::ok("address", format!("{listed}, for QUIC and TCP"))
    }];
    if let Some(port) = ports(&answers.status).into_iter().find(|port| *port < PORT_OF_ANYBODY) {
        findings.push(low(port, &facts.home.path.join("node.toml").display().to_string()));
    }
    findings
}

/// What can be seen of the port while no node runs.
fn stopped(facts: &Facts) -> Vec<Finding> {
    let Some(port) = facts.home.port else { return Vec::new() };
    let settings = facts.home.path.join("node.toml").display().to_string();
    if facts.machine.is_port_taken {
        return vec![
            Finding::problem("address", format!("another program has this node's port, {port}"))
                .why("weft up can't listen, so no device could come to it")
                .advise(format!("sudo ss -lpn 'sport = :{port}' names the program; stop it"))
                .advise(format!("or write another port into {settings}")),
        ];
    }
    if port < PORT_OF_ANYBODY { vec![low(port, &settings)] } else { Vec::new() }
}

fn low(port: u16, settings: &str) -> Finding {
    Finding::warning("address", format!("port {port} is one of the system's (below 1024)"))
        .why("most systems let only root listen there")
        .advise(format!("write a greater one into {settings}, and start the node again"))
}

/// A multiaddr as a person knows it: host and port, and how it goes where that matters.
pub(super) fn shown(multiaddr: &str) -> String {
    let known = crate::cli::device::address(multiaddr);
    let known = known.split(' ').next().unwrap_or_default().to_owned();
    if multiaddr.contains("/p2p-circuit") { format!("the relay at {known}") } else { known }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::sample;

    fn said(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        sample::said(check, change)
    }

    #[test]
    fn where_a_node_listens_is_said() {
        assert_eq!(said(|_| ()), ["ok: 192.168.1.20:4711, for QUIC and TCP"]);
        let at = |addresses: Value| {
            said(move |facts| sample::answers(facts).status["addresses"] = addresses)
        };
        let home = json!(["/ip4/127.0.0.1/tcp/4711", "/ip4/127.0.0.1/udp/4711/quic-v1"]);
        let alone = at(home.clone());
        assert!(alone[0].starts_with("warning: 127.0.0.1:4711; this machine has no"), "{alone:?}");
        let none = at(json!([]));
        assert!(none[0].starts_with("problem: the node listens nowhere"), "{none:?}");
        let low = at(json!(["/ip4/192.168.1.20/tcp/80"]));
        assert!(low[1].starts_with("warning: port 80 is one of the system's"), "{low:?}");
        let loopback = said(|facts| {
            let answers = sample::answers(facts);
            answers.status["addresses"] = home;
            answers.checkup["shell"]["loopback"] = true.into();
        });
        assert_eq!(loopback, ["ok: 127.0.0.1:4711; this machine only, by WEFT_LISTEN=loopback"]);
    }

    #[test]
    fn a_port_that_another_has_is_told_while_no_node_runs() {
        let stopped = |is_taken| {
            said(|facts| {
                sample::stop(facts);
                facts.machine.is_port_taken = is_taken;
            })
        };
        assert!(stopped(false).is_empty());
        let taken = stopped(true);
        assert!(taken[0].starts_with("problem: another program has this node's port"), "{taken:?}");
    }

    #[test]
    fn one_network_is_told_from_another() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (a, b, expected) in [
            ("192.168.1.20:1", "192.168.1.7:2", true),
            ("192.168.1.20:1", "192.168.2.7:1", false),
            ("[fd00::1]:1", "[fd00::2]:1", true),
            ("[fd00::1]:1", "192.168.1.20:1", false),
        ] {
            assert_eq!(is_one_network(&at(a), &at(b)), expected, "{a} {b}");
        }
    }

    #[test]
    fn an_address_is_shown_as_people_write_it() {
        assert_eq!(shown("/ip4/10.0.0.2/udp/4001/quic-v1"), "10.0.0.2:4001");
        let relay = "/ip4/10.0.0.1/tcp/4001/p2p/12D3KooW/p2p-circuit";
        assert_eq!(shown(relay), "the relay at 10.0.0.1:4001");
        assert_eq!(shown("/dns4/example.com/tcp/1"), "/dns4/example.com/tcp/1");
    }
}

//! Meeting through a third: relays, what strangers see of them, and direct connections in their place.

use super::*;

/// A node that others are told to reach at its own addresses, and so relays.
async fn start_relay(seed: u8, port: u16) -> Node {
    let port = match port {
        0 => std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
        port => port,
    };
    let announce =
        vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1"), format!("/ip4/127.0.0.1/tcp/{port}")];
    let config = Config { announce, ..config(seed, 1, port) };
    let runtime = Runtime::new().unwrap();
    let starting = runtime.spawn(Net::start(config));
    let (handle, events) = starting.await.unwrap().unwrap();
    Node::up(seed, handle, events, Some(runtime)).await
}

/// Waits until a relay keeps a place, and yields the addresses through it.
async fn placed(node: &mut Node, relay: DeviceId) -> Vec<String> {
    node.wait("a place at the relay", |event| match event {
        Event::Reach(report) => report
            .reservations
            .iter()
            .find(|it| it.relay == relay && it.addresses.len() == 2)
            .map(|it| it.addresses.clone()),
        _ => None,
    })
    .await
}

/// Waits for a connection and yields its address.
async fn connected_at(node: &mut Node, peer: DeviceId) -> String {
    node.wait("the connection", |event| match event {
        Event::Connected { device, address, .. } if *device == peer => Some(address.clone()),
        _ => None,
    })
    .await
}

async fn relays(node: &Node, relays: &[&Node]) {
    let relays = relays.iter().map(|relay| relay.id).collect();
    node.handle.send(Command::Relays(relays)).await.unwrap();
}

/// Makes three members of each other and connects the relay with both; who dials is for `sees` to say:
/// only whoever dialled the relay learns how it is seen.
async fn around(relay: &mut Node, a: &mut Node, b: &mut Node, sees: bool) {
    relay.members(&[a, b]).await;
    a.members(&[relay, b]).await;
    b.members(&[relay, a]).await;
    for end in [&mut *a, &mut *b] {
        relays(end, &[relay]).await;
        if sees {
            end.remember(relay, |_| true).await;
        } else {
            relay.remember(end, |_| true).await;
        }
        assert!(end.connected(relay.id).await);
        assert!(relay.connected(end.id).await);
        end.opened(relay.id, Protocol::Trust).await;
        relay.opened(end.id, Protocol::Trust).await;
        admit(end, relay).await;
    }
}

#[tokio::test]
async fn two_that_know_no_address_of_each_other_speak_through_a_third() {
    let mut relay = start_relay(1, 0).await;
    let (mut a, mut b) = (Node::start(2).await, Node::start(3).await);
    around(&mut relay, &mut a, &mut b, false).await;
    let addresses = placed(&mut b, relay.id).await;
    assert!(addresses.iter().all(|it| it.ends_with("/p2p-circuit")), "{addresses:?}");
    a.seen.clear();
    b.seen.clear();
    a.handle.send(Command::Remember { device: b.id, addresses }).await.unwrap();
    for (node, peer) in [(&mut a, b.id), (&mut b, device(2))] {
        let address = connected_at(node, peer).await;
        assert!(address.contains("/p2p-circuit"), "{address}");
        assert!(address.contains("/p2p/"), "the relay is named: {address}");
    }
    a.opened(b.id, Protocol::Trust).await;
    b.opened(a.id, Protocol::Trust).await;
    admit(&mut a, &mut b).await;
    assert_speak(&mut a, &mut b).await;
    let service = relay
        .wait("what it carries", |event| match event {
            Event::Reach(report) => report.service.filter(|it| it.circuits > 0),
            _ => None,
        })
        .await;
    assert_eq!((service.reservations, service.circuits), (2, 1));
    relay.kill().await;
}

#[tokio::test]
async fn a_direct_connection_takes_the_relayed_ones_place() {
    let mut relay = start_relay(1, 0).await;
    let (mut a, mut b) = (Node::start(2).await, Node::start(3).await);
    around(&mut relay, &mut a, &mut b, true).await;
    let addresses = placed(&mut b, relay.id).await;
    a.handle.send(Command::Remember { device: b.id, addresses }).await.unwrap();
    for (node, peer) in [(&mut a, b.id), (&mut b, device(2))] {
        let is_direct = |event: &Event| match event {
            Event::Connected { device, address, .. } if *device == peer => {
                (!address.contains("/p2p-circuit")).then_some(())
            }
            _ => None,
        };
        node.wait("the direct connection", is_direct).await;
        node.seen.clear();
    }
    a.opened(b.id, Protocol::Trust).await;
    b.opened(a.id, Protocol::Trust).await;
    relay.kill().await;
}

#[tokio::test]
async fn a_relay_that_is_back_keeps_a_place_again() {
    let mut relay = start_relay(1, 0).await;
    let (mut a, mut b) = (Node::start(2).await, Node::start(3).await);
    around(&mut relay, &mut a, &mut b, true).await;
    placed(&mut b, relay.id).await;
    let port = relay.tcp_port();
    relay.kill().await;
    b.wait("that it is gone", |event| match event {
        Event::Reach(report) if report.reservations.is_empty() => Some(()),
        _ => None,
    })
    .await;
    let relay = start_relay(1, port).await;
    relay.members(&[&a, &b]).await;
    let back = std::time::Instant::now();
    placed(&mut b, relay.id).await;
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
    relay.kill().await;
}

#[tokio::test]
async fn a_stranger_is_offered_no_relay_and_a_member_is() {
    let mut relay = start_relay(1, 0).await;
    let mut stranger = Raw::connect(9, &relay).await;
    let told = stranger.identify().await;
    assert_eq!(told.listen_addrs, []);
    let mut protocols: Vec<String> = told.protocols.iter().map(ToString::to_string).collect();
    protocols.sort();
    assert_eq!(
        protocols,
        ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/weft/trust/1"]
    );
    let hop = libp2p::relay::HOP_PROTOCOL_NAME;
    for protocol in [
        hop.clone(),
        libp2p::relay::STOP_PROTOCOL_NAME,
        libp2p::dcutr::PROTOCOL_NAME,
        StreamProtocol::new("/libp2p/autonat/2/dial-request"),
        StreamProtocol::new("/libp2p/autonat/2/dial-back"),
    ] {
        assert!(stranger.open(&protocol).await.is_err(), "{protocol}");
    }
    let member = member_below(&mut relay).await;
    member.open(&hop).await.unwrap();
    relay.kill().await;
}

#[tokio::test]
async fn whoever_may_not_relay_offers_it_to_nobody() {
    let mut node = Node::start(1).await;
    let member = member_below(&mut node).await;
    assert!(member.open(&libp2p::relay::HOP_PROTOCOL_NAME).await.is_err());
}

#[tokio::test]
async fn a_member_that_dials_back_is_no_rival_of_the_connection_that_serves() {
    let (mut a, mut b) = (Node::start_testing(1).await, Node::start_testing(2).await);
    let opened = meet(&mut a, &mut b, |address| address.contains("/udp/")).await;
    // AutoNAT asks every five seconds.
    a.is_dialled_back().await;
    // Longer than what was dialled to show that it can be is kept, and than a hello may take.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (at_a, at_b) = opened[&Protocol::Run];
    a.send(at_a, vec![1]).await;
    assert_eq!(b.frame(at_b).await, [1]);
    for node in [&mut a, &mut b] {
        node.drain();
        let count = |wanted: fn(&Event) -> bool| node.count(wanted);
        assert_eq!(
            count(|event| matches!(event, Event::Disconnected { .. })),
            0,
            "{:?}",
            node.seen
        );
        assert_eq!(count(|event| matches!(event, Event::Connected { .. })), 1, "{:?}", node.seen);
        assert_eq!(
            count(|event| matches!(event, Event::StreamClosed { .. })),
            0,
            "{:?}",
            node.seen
        );
    }
}

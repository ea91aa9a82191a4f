//! Signs of life: peers that fall silent without a word, as programs that stand still while their kernel
//! answers, and how long those that live take to answer.

use super::*;

/// Holds a node's program still until it is dropped, as SIGSTOP does: its kernel goes on.
pub(super) struct Standstill {
    _release: std::sync::mpsc::Sender<()>,
}

impl Node {
    /// Starts on a thread of its own, which can be held still.
    async fn start_alone(seed: u8) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let starting = runtime.spawn(Net::start(config(seed, 1, 0)));
        let (handle, events) = starting.await.unwrap().unwrap();
        Self::up(seed, handle, events, Some(runtime)).await
    }

    async fn stand_still(&self) -> Standstill {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        self.runtime.as_ref().expect("started alone").spawn(async move {
            begun.send(()).ok();
            held.recv().ok();
        });
        has_begun.await.unwrap();
        Standstill { _release: release }
    }

    async fn watch(&self, device: DeviceId, is_watched: bool) {
        self.handle.send(Command::Watch { device, is_watched }).await.unwrap();
    }
}

/// Two members that speak, the second of which can be held still.
async fn pair_over(transport: &str, seeds: [u8; 2]) -> (Node, Node) {
    let (mut a, mut b) = (Node::start(seeds[0]).await, Node::start_alone(seeds[1]).await);
    meet(&mut a, &mut b, |address| address.contains(transport)).await;
    // That it listens is a change of the network, too, after which everybody is asked.
    tokio::time::sleep(Duration::from_secs(1)).await;
    (a, b)
}

#[tokio::test]
async fn a_watched_peer_that_stands_still_is_given_up_soon_on_either_transport() {
    for transport in ["/udp/", "/tcp/"] {
        let (mut a, b) = pair_over(transport, [1, 2]).await;
        a.watch(b.id, true).await;
        // One that lives is not, for longer than silence may last.
        tokio::time::sleep(Duration::from_secs(4)).await;
        a.drain();
        assert_eq!(a.count(|event| matches!(event, Event::Disconnected { .. })), 0, "{transport}");
        let since = std::time::Instant::now();
        let standstill = b.stand_still().await;
        let why = "no sign of life for 3 s while something was under way".to_owned();
        assert_eq!(a.disconnected(b.id).await, Disconnection::Lost { why }, "{transport}");
        let took = since.elapsed();
        assert!(took < Duration::from_secs(10), "{transport}: {took:?}");
        // It goes on, and they find each other again.
        drop(standstill);
        assert!(a.connected(b.id).await, "{transport}");
        b.kill().await;
    }
}

#[tokio::test]
async fn a_peer_that_does_not_answer_what_it_is_sent_is_given_up_soon_though_nothing_is_under_way()
{
    let (mut a, mut b) = (Node::start(1).await, Node::start_alone(2).await);
    let streams = meet(&mut a, &mut b, |address| address.contains("/udp/")).await;
    let say =
        async |a: &Node, protocol| a.send(streams[&protocol].0, b"is it there?".to_vec()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // One that lives gives a sign of life, whether it answers or not.
    say(&a, Protocol::Sync).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    a.drain();
    assert_eq!(a.count(|event| matches!(event, Event::Disconnected { .. })), 0);
    let standstill = b.stand_still().await;
    // Nobody answers what is said of presence.
    say(&a, Protocol::Presence).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    a.drain();
    assert_eq!(a.count(|event| matches!(event, Event::Disconnected { .. })), 0);
    say(&a, Protocol::Sync).await;
    let why = "no sign of life for 4 s after something was sent".to_owned();
    assert_eq!(a.disconnected(b.id).await, Disconnection::Lost { why });
    drop(standstill);
    b.kill().await;
}

#[tokio::test]
async fn a_connection_that_comes_while_its_device_is_watched_is_watched() {
    let (mut a, mut b) = (Node::start(1).await, Node::start_alone(2).await);
    a.watch(b.id, true).await;
    meet(&mut a, &mut b, |address| address.contains("/udp/")).await;
    let standstill = b.stand_still().await;
    let why = "no sign of life for 3 s while something was under way".to_owned();
    assert_eq!(a.disconnected(b.id).await, Disconnection::Lost { why });
    drop(standstill);
    b.kill().await;
}

#[tokio::test]
async fn an_idle_peer_that_stands_still_is_given_up_within_half_a_minute_on_either_transport() {
    let (mut quic, b) = pair_over("/udp/", [1, 2]).await;
    let (mut tcp, c) = pair_over("/tcp/", [3, 4]).await;
    let since = std::time::Instant::now();
    let standstills = [b.stand_still().await, c.stand_still().await];
    let (by_quic, by_tcp) = tokio::join!(quic.disconnected(b.id), tcp.disconnected(c.id));
    let took = since.elapsed();
    assert!(matches!(by_quic, Disconnection::Lost { .. }), "{by_quic:?}");
    let why = "no sign of life for 28 s".to_owned();
    assert_eq!(by_tcp, Disconnection::Lost { why });
    // Well before the second ping that fails.
    assert!(took < Duration::from_secs(60), "{took:?}");
    drop(standstills);
    b.kill().await;
    c.kill().await;
}

#[tokio::test]
async fn an_idle_connection_outlives_a_standstill_of_ten_seconds() {
    let (mut a, b) = pair_over("/udp/", [1, 2]).await;
    let (mut c, d) = pair_over("/tcp/", [3, 4]).await;
    let standstills = [b.stand_still().await, d.stand_still().await];
    tokio::time::sleep(Duration::from_secs(10)).await;
    drop(standstills);
    tokio::time::sleep(Duration::from_secs(5)).await;
    for node in [&mut a, &mut c] {
        node.drain();
        let lost = node.count(|event| matches!(event, Event::Disconnected { .. }));
        assert_eq!(lost, 0, "{:?}", node.seen);
    }
    b.kill().await;
    d.kill().await;
}

#[tokio::test]
async fn how_long_a_round_trip_takes_is_known_soon_on_every_connection() {
    // The first ping is answered before the connection serves as often as not.
    for round in 0..5 {
        let (mut a, mut b) = (Node::start(60 + round).await, Node::start(80 + round).await);
        meet(&mut a, &mut b, |_| true).await;
        let ids = [b.id, a.id];
        for (node, peer) in [&mut a, &mut b].into_iter().zip(ids) {
            node.wait("a round trip", |event| match event {
                Event::RoundTrip { device, rtt } if *device == peer => Some(*rtt),
                _ => None,
            })
            .await;
        }
    }
}

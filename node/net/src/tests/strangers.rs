//! What a stranger is told, given and allowed.

use super::*;

#[tokio::test]
async fn a_stranger_is_told_and_given_nothing_but_trust() {
    let mut a = Node::start(1).await;
    let mut raw = Raw::connect(9, &a).await;
    let told = raw.identify().await;
    assert_eq!(told.listen_addrs, []);
    assert_eq!(told.agent_version, concat!("weft/", env!("CARGO_PKG_VERSION")));
    let mut protocols: Vec<String> = told.protocols.iter().map(ToString::to_string).collect();
    protocols.sort();
    assert_eq!(
        protocols,
        ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/weft/trust/1"]
    );
    for protocol in Protocol::SPOKEN.into_iter().filter(|p| *p != Protocol::Trust) {
        assert!(raw.open(&actor::name(protocol)).await.is_err(), "{protocol}");
    }
    let mut trust = RawStream::greet(raw.open(&actor::name(Protocol::Trust)).await.unwrap()).await;
    let (opened, member) = a.opened(raw.device, Protocol::Trust).await;
    assert!(!member);
    // One stream is all: the second is dropped without an answer.
    let mut second = raw.open(&actor::name(Protocol::Trust)).await.unwrap().compat();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0);
    trust.framed.send(vec![1; 1000]).await.unwrap();
    assert_eq!(a.frame(opened).await, vec![1; 1000]);
    a.send(opened, vec![2; 10]).await;
    assert_eq!(trust.framed.next().await.unwrap().unwrap(), vec![2; 10]);
}

#[tokio::test]
async fn a_stranger_is_cut_after_its_bytes() {
    let mut a = Node::start(1).await;
    let raw = Raw::connect(9, &a).await;
    let mut trust = RawStream::greet(raw.open(&actor::name(Protocol::Trust)).await.unwrap()).await;
    let (opened, _) = a.opened(raw.device, Protocol::Trust).await;
    for _ in 0..11 {
        trust.framed.send(vec![1; 30_000]).await.unwrap();
    }
    for _ in 0..10 {
        assert_eq!(a.frame(opened).await.len(), 30_000);
    }
    assert_eq!(a.closed(opened).await, StreamEnd::TooManyBytes);
    let reason = a.disconnected(raw.device).await;
    assert_eq!(reason, Disconnection::Stranger(TurnedAway::TooManyBytes));
    assert_eq!(a.turned_away().await, TurnedAway::TooManyBytes);
    raw.gone().await;
}

#[tokio::test]
async fn a_stranger_is_cut_when_its_time_is_up() {
    let mut a = Node::start(1).await;
    let silent = Raw::connect(9, &a).await;
    let speaking = Raw::connect(10, &a).await;
    let opened = speaking.open(&actor::name(Protocol::Trust)).await.unwrap();
    let _trust = RawStream::greet(opened).await;
    assert_eq!(a.turned_away().await, TurnedAway::TimeUp);
    assert_eq!(a.turned_away().await, TurnedAway::TimeUp);
    let reason = a.disconnected(speaking.device).await;
    assert_eq!(reason, Disconnection::Stranger(TurnedAway::TimeUp));
    silent.gone().await;
    speaking.gone().await;
}

#[tokio::test]
async fn strangers_from_one_address_are_few() {
    let mut a = Node::start(1).await;
    let mut held = Vec::new();
    for seed in 10..14 {
        held.push(Raw::connect(seed, &a).await);
    }
    let refused = Raw::connect(14, &a).await;
    assert_eq!(a.turned_away().await, TurnedAway::TooManyFromAddress);
    refused.gone().await;
    // A member from there still comes in.
    let mut b = Node::start(2).await;
    meet(&mut a, &mut b, |_| true).await;
    // Each place is free again once its holder was cut.
    for _ in &held {
        assert_eq!(a.turned_away().await, TurnedAway::TimeUp);
    }
    for raw in held {
        raw.gone().await;
    }
    let mut next = Vec::new();
    for seed in 15..19 {
        let raw = Raw::connect(seed, &a).await;
        let opened = raw.open(&actor::name(Protocol::Trust)).await.unwrap();
        let trust = RawStream::greet(opened).await;
        a.opened(raw.device, Protocol::Trust).await;
        next.push((raw, trust));
    }
}

#[tokio::test]
async fn a_stranger_that_proves_itself_is_a_member_on_its_connection() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    b.members(&[&a]).await;
    b.remember(&a, |_| true).await;
    let (at_a, member) = a.opened(b.id, Protocol::Trust).await;
    assert!(!member);
    assert!(!a.connected(b.id).await);
    let (at_b, member) = b.opened(a.id, Protocol::Trust).await;
    assert!(member);
    a.members(&[&b]).await;
    assert!(a.connected(b.id).await);
    // More than a stranger may say goes through now, on the stream that was open before.
    b.send(at_b, vec![3; 200_000]).await;
    assert_eq!(a.frame(at_a).await.len(), 200_000);
    let opened = admit(&mut a, &mut b).await;
    assert_eq!(opened.len(), Protocol::SPOKEN.len() - 1);
}

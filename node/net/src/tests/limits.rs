//! What one peer may take, and that whoever takes more loses it alone.

use super::*;
use crate::muxer::STRANGER_STREAMS_MAX;

#[tokio::test]
async fn a_member_that_floods_presence_loses_that_stream_and_nobody_else_waits() {
    let mut a = Node::start(1).await;
    let raw = member_below(&mut a).await;
    let presence = actor::name(Protocol::Presence);
    let mut run = RawStream::greet(raw.open(&actor::name(Protocol::Run)).await.unwrap()).await;
    let (run_at_a, _) = a.opened(raw.device, Protocol::Run).await;
    for times in 1..3 {
        let mut flood = RawStream::greet(raw.open(&presence).await.unwrap()).await;
        let (flood_at_a, _) = a.opened(raw.device, Protocol::Presence).await;
        let mut sent = 0;
        while sent < 10_000 && flood.framed.send(vec![1]).await.is_ok() {
            sent += 1;
        }
        assert_eq!(a.closed(flood_at_a).await, StreamEnd::TooManyFrames { times });
        run.framed.send(vec![7]).await.unwrap();
        assert_eq!(a.frame(run_at_a).await, [7]);
    }
    a.drain();
    let heard = a.count(|event| matches!(event, Event::Frame { bytes, .. } if *bytes == [1]));
    assert!((256..1_000).contains(&heard), "{heard} of 20,000 were heard");
}

#[tokio::test]
async fn a_member_that_opens_streams_without_end_is_disconnected() {
    let mut a = Node::start(1).await;
    let raw = member_below(&mut a).await;
    let mut opened = 0;
    while opened < 200 && raw.open(&actor::name(Protocol::Run)).await.is_ok() {
        opened += 1;
    }
    assert!((32..200).contains(&opened), "{opened}");
    let reason = a.disconnected(raw.device).await;
    assert!(matches!(reason, Disconnection::Violation { .. }), "{reason}");
    raw.gone().await;
}

#[tokio::test]
async fn a_stranger_that_opens_many_streams_is_cut_and_a_member_is_not() {
    let mut a = Node::start(1).await;
    let stranger = Raw::connect(9, &a).await;
    let mut opened = 0;
    while opened < 100 && stranger.open(&identify::PROTOCOL_NAME).await.is_ok() {
        opened += 1;
    }
    assert!((1..=STRANGER_STREAMS_MAX).contains(&opened), "{opened}");
    assert_eq!(a.turned_away().await, TurnedAway::TooManyStreams);
    stranger.gone().await;
    let member = member_below(&mut a).await;
    for _ in 0..40 {
        member.open(&identify::PROTOCOL_NAME).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_connects_and_never_speaks_is_cut_and_keeps_nobody_out_for_long() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let opened = meet(&mut a, &mut b, |_| true).await;
    let address = format!("127.0.0.1:{}", a.tcp_port());
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    // Of one address half of all places are taken; the others are closed at once, and counted.
    for _ in 0..100 {
        assert_eq!(a.turned_away().await, TurnedAway::TooManyFromAddress);
    }
    let (at_a, at_b) = opened[&Protocol::Run];
    b.send(at_b, vec![1]).await;
    assert_eq!(a.frame(at_a).await, [1]);
    // Those that were let in are cut when the handshake has taken too long.
    for mut socket in silent {
        let mut heard = Vec::new();
        let end = timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("it is closed");
        assert!(end.is_err() || heard.len() < 100, "{heard:?}");
    }
    let stranger = Raw::connect(9, &a).await;
    stranger.open(&actor::name(Protocol::Trust)).await.unwrap();
}

#[tokio::test]
async fn a_stranger_that_speaks_something_else_is_cut_at_once() {
    let mut a = Node::start(1).await;
    for (seed, words) in [(9, &b"GET / HTTP/1.1\r\n\r\n"[..]), (10, &[0, 0, 0, 1, 0xff])] {
        let raw = Raw::connect(seed, &a).await;
        let mut trust = raw.open(&actor::name(Protocol::Trust)).await.unwrap().compat();
        trust.write_all(words).await.unwrap();
        trust.flush().await.unwrap();
        assert_eq!(a.turned_away().await, TurnedAway::Malformed);
        raw.gone().await;
    }
}

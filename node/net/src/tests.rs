//! The network against itself and against hostile peers, over real sockets on loopback.
//!
//! A wait ends with what it waits for; its bound only turns a hang into a failure.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks what it waits for; the rest is left"
)]

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use libp2p::{
    StreamProtocol, identify,
    swarm::{ConnectionId, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Runtime,
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};
use tokio_util::{codec::Framed, compat::FuturesAsyncReadCompatExt as _};
use weft_protocol::{
    codec::encode,
    frame::{FRAME_BYTES_MAX, Hello, Protocol},
    id::{BootId, DeviceId, EndpointId},
};

use crate::{
    Command, Config, DialFailure, Disconnection, Event, Net, NetHandle, Reach, StartError,
    StreamEnd, StreamId, TurnedAway, actor,
    frame::{FrameCodec, Limit},
    gate::{Gate, Negotiated, Terms},
    pairing::{PairDialError, PairListener, PairSendError, pair_dial},
    peer, rivals, swarm,
};

mod asked;
mod limits;
mod node;
mod pairing;
mod raw;
mod reaching;
mod silence;
mod strangers;

use self::{
    node::{Node, admit, assert_speak, config, converse, device, meet, member_below},
    raw::{Raw, RawStream},
};

const PATIENCE: Duration = Duration::from_secs(40);

#[tokio::test]
async fn two_members_speak_all_protocols() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    meet(&mut a, &mut b, |_| true).await;
    assert_speak(&mut a, &mut b).await;
}

#[tokio::test]
async fn two_members_speak_all_protocols_over_tcp() {
    let (mut a, mut b) = (Node::start(3).await, Node::start(4).await);
    meet(&mut a, &mut b, |address| address.contains("/tcp/")).await;
    assert_speak(&mut a, &mut b).await;
}

#[tokio::test]
async fn an_oversized_frame_closes_only_its_stream() {
    let mut a = Node::start(1).await;
    let raw = member_below(&mut a).await;
    let mut sync = RawStream::greet(raw.open(&actor::name(Protocol::Sync)).await.unwrap()).await;
    let mut run = RawStream::greet(raw.open(&actor::name(Protocol::Run)).await.unwrap()).await;
    let (sync_at_a, _) = a.opened(raw.device, Protocol::Sync).await;
    let (run_at_a, _) = a.opened(raw.device, Protocol::Run).await;
    sync.framed.send(vec![1; FRAME_BYTES_MAX]).await.unwrap();
    assert_eq!(a.frame(sync_at_a).await.len(), FRAME_BYTES_MAX);
    let head = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
    let socket = sync.framed.get_mut();
    socket.write_all(&head).await.unwrap();
    socket.flush().await.unwrap();
    let end = StreamEnd::FrameTooLong { len: FRAME_BYTES_MAX + 1, max: FRAME_BYTES_MAX };
    assert_eq!(a.closed(sync_at_a).await, end);
    run.framed.send(vec![5]).await.unwrap();
    assert_eq!(a.frame(run_at_a).await, [5]);
    // It may be opened anew.
    let mut again = RawStream::greet(raw.open(&actor::name(Protocol::Sync)).await.unwrap()).await;
    let (again_at_a, _) = a.opened(raw.device, Protocol::Sync).await;
    again.framed.send(vec![6]).await.unwrap();
    assert_eq!(a.frame(again_at_a).await, [6]);
}

#[tokio::test]
async fn a_member_without_a_hello_is_disconnected() {
    let mut a = Node::start(1).await;
    let raw = Raw::connect_as_member(&mut a).await;
    let trust = raw.open(&actor::name(Protocol::Trust)).await.unwrap();
    let mut framed = Framed::new(trust.compat(), FrameCodec::new(Limit::Frame(FRAME_BYTES_MAX)));
    framed.send(b"good day".to_vec()).await.unwrap();
    raw.gone().await;
    a.drain();
    let heard = a.count(|event| matches!(event, Event::Connected { .. }));
    assert_eq!(heard, 0, "{:?}", a.seen);
}

#[tokio::test]
async fn a_frame_that_is_too_long_to_send_closes_its_stream_which_is_opened_again() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let opened = meet(&mut a, &mut b, |_| true).await;
    let (at_a, at_b) = opened[&Protocol::Run];
    a.send(at_a, vec![0; FRAME_BYTES_MAX + 1]).await;
    let end = StreamEnd::FrameTooLong { len: FRAME_BYTES_MAX + 1, max: FRAME_BYTES_MAX };
    assert_eq!(a.closed(at_a).await, end);
    b.closed(at_b).await;
    let (again_a, _) = a.opened(b.id, Protocol::Run).await;
    let (again_b, _) = b.opened(a.id, Protocol::Run).await;
    a.send(again_a, vec![7]).await;
    assert_eq!(b.frame(again_b).await, [7]);
}

#[tokio::test]
async fn a_peer_that_does_not_read_loses_its_stream_and_holds_up_nobody() {
    let mut a = Node::start(1).await;
    let raw = member_below(&mut a).await;
    let _deaf = RawStream::greet(raw.open(&actor::name(Protocol::Sync)).await.unwrap()).await;
    let mut run = RawStream::greet(raw.open(&actor::name(Protocol::Run)).await.unwrap()).await;
    let (deaf_at_a, _) = a.opened(raw.device, Protocol::Sync).await;
    let (run_at_a, _) = a.opened(raw.device, Protocol::Run).await;
    for _ in 0..40 {
        a.send(deaf_at_a, vec![0; FRAME_BYTES_MAX]).await;
    }
    assert_eq!(a.closed(deaf_at_a).await, StreamEnd::SlowPeer);
    a.send(run_at_a, vec![8]).await;
    assert_eq!(run.framed.next().await.unwrap().unwrap(), [8]);
}

#[tokio::test]
async fn a_stream_opened_before_trust_was_merged_is_held_unread() {
    let mut a = Node::start(1).await;
    let raw = Raw::connect_as_member(&mut a).await;
    let _trust = RawStream::greet(raw.open(&actor::name(Protocol::Trust)).await.unwrap()).await;
    a.opened(raw.device, Protocol::Trust).await;
    let mut early = RawStream::greet(raw.open(&actor::name(Protocol::Sync)).await.unwrap()).await;
    early.framed.send(vec![4]).await.unwrap();
    // Never admitted: it ends, and the node never heard of it.
    let end = timeout(PATIENCE, early.framed.next()).await.expect("it is closed in time");
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    let mut late = RawStream::greet(raw.open(&actor::name(Protocol::Sync)).await.unwrap()).await;
    late.framed.send(vec![5]).await.unwrap();
    a.handle.send(Command::Admit { device: raw.device }).await.unwrap();
    let (opened, _) = a.opened(raw.device, Protocol::Sync).await;
    assert_eq!(a.frame(opened).await, [5]);
}

#[tokio::test]
async fn whoever_leaves_is_disconnected_and_a_stranger_from_then_on() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let opened = meet(&mut a, &mut b, |_| true).await;
    b.remember(&a, |_| true).await;
    let (last_a, last_b) = opened[&Protocol::Trust];
    a.send(last_a, b"revoked".to_vec()).await;
    a.members(&[]).await;
    assert_eq!(a.disconnected(b.id).await, Disconnection::NotMember);
    // What was queued before still arrives.
    assert_eq!(b.frame(last_b).await, b"revoked");
    assert!(matches!(b.disconnected(a.id).await, Disconnection::Lost { .. }));
    // It comes again, to which it still belongs, and finds itself a stranger.
    let (_, member) = a.opened(b.id, Protocol::Trust).await;
    assert!(!member);
    assert!(!a.connected(b.id).await);
    b.handle.send(Command::Admit { device: a.id }).await.unwrap();
    // It opens again and again what it was refused.
    let why = a.turned_away().await;
    assert!(matches!(why, TurnedAway::TimeUp | TurnedAway::TooManyStreams), "{why}");
    a.drain();
    let mut after = a.seen.split(|event| matches!(event, Event::Disconnected { .. })).skip(1);
    let opened_as_member =
        |event: &Event| matches!(event, Event::StreamOpened { member, .. } if *member);
    assert!(!after.any(|events| events.iter().any(opened_as_member)), "{:?}", a.seen);
    // Nor is it dialled from here.
    a.handle.send(Command::Dial { device: b.id }).await.unwrap();
    assert_eq!(a.dial_failed(b.id).await, DialFailure::NotMember);
}

#[tokio::test]
async fn a_killed_node_is_back_by_itself_and_its_old_streams_are_closed() {
    let mut a = Node::start(1).await;
    let mut b = Node::start_killable(2, 1, 0).await;
    let opened = meet(&mut a, &mut b, |_| true).await;
    let port = b.port();
    b.kill().await;
    let mut b = Node::start_killable(2, 2, port).await;
    b.members(&[&a]).await;
    b.remember(&a, |_| true).await;
    for (at_a, _) in opened.values() {
        assert_eq!(a.closed(*at_a).await, StreamEnd::Disconnected);
    }
    a.disconnected(b.id).await;
    assert!(a.connected(b.id).await);
    let boot = a
        .wait("the new boot", |event| match event {
            Event::StreamOpened { boot, .. } => Some(*boot),
            _ => None,
        })
        .await;
    assert_eq!(boot.counter, 2);
    b.opened(a.id, Protocol::Trust).await;
    admit(&mut a, &mut b).await;
    b.kill().await;
}

#[tokio::test]
async fn the_side_that_stayed_dials_a_node_that_was_away() {
    let mut a = Node::start(1).await;
    let mut b = Node::start_killable(2, 1, 0).await;
    meet(&mut a, &mut b, |_| true).await;
    let port = b.port();
    b.kill().await;
    // It knows no address, so it can only be found.
    let mut b = Node::start_killable(2, 2, port).await;
    b.members(&[&a]).await;
    assert!(b.connected(a.id).await);
    a.disconnected(b.id).await;
    assert!(a.connected(b.id).await);
    admit(&mut a, &mut b).await;
    b.kill().await;
}

#[tokio::test]
async fn whoever_gives_no_sign_of_life_when_the_network_is_back_is_dialled_anew() {
    let (mut a, returned) = Node::start_moving(1).await;
    let mut b = Node::start_killable(2, 1, 0).await;
    meet(&mut a, &mut b, |address| address.contains("/udp/")).await;
    let (id, port) = (b.id, b.port());
    // Nobody there hangs up, and nobody answers.
    b.kill().await;
    returned.notify_one();
    let why = "no sign of life after the network moved".to_owned();
    assert_eq!(a.disconnected(id).await, Disconnection::Lost { why });
    a.dial_failed(id).await;
    // Each return of the network ends the wait between two dials, however long it has become.
    let mut b = Node::start_killable(2, 2, port).await;
    b.members(&[&a]).await;
    returned.notify_one();
    assert!(a.connected(b.id).await);
    assert!(b.connected(a.id).await);
    admit(&mut a, &mut b).await;
    b.kill().await;
}

#[tokio::test]
async fn whoever_comes_again_is_served_on_the_new_connection() {
    let mut a = Node::start(1).await;
    let mut first = Raw::connect_as_member(&mut a).await;
    let trust = first.open(&actor::name(Protocol::Trust)).await.unwrap();
    first.trust = Some(RawStream::greet(trust).await);
    a.opened(first.device, Protocol::Trust).await;
    // Longer than two dials at once may lie apart.
    tokio::time::sleep(rivals::AT_ONCE + Duration::from_millis(100)).await;
    let second = Raw::connect(first.seed, &a).await;
    let trust = second.open(&actor::name(Protocol::Trust)).await.unwrap();
    let _trust = RawStream::greet(trust).await;
    assert_eq!(a.disconnected(first.device).await, Disconnection::Replaced);
    a.opened(first.device, Protocol::Trust).await;
    first.gone().await;
}

#[tokio::test]
async fn two_dials_at_once_leave_one_connection() {
    for round in 0..6 {
        let (mut a, mut b) = (Node::start(20 + round).await, Node::start(40 + round).await);
        let (addresses_a, addresses_b) = (a.addresses.clone(), b.addresses.clone());
        a.handle.send(Command::Remember { device: b.id, addresses: addresses_b }).await.unwrap();
        b.handle.send(Command::Remember { device: a.id, addresses: addresses_a }).await.unwrap();
        let members: BTreeSet<DeviceId> = [a.id, b.id].into();
        tokio::join!(
            async { a.handle.send(Command::Members(members.clone())).await.unwrap() },
            async { b.handle.send(Command::Members(members.clone())).await.unwrap() },
        );
        // Trust answers on whatever stream is open until a word went both ways.
        let spoken = tokio::join!(converse(&mut a, b"from a"), converse(&mut b, b"from b"));
        assert_eq!(spoken, (b"from b".to_vec(), b"from a".to_vec()), "round {round}");
        a.drain();
        b.drain();
        for node in [&a, &b] {
            let up = node.count(|event| matches!(event, Event::Connected { .. }));
            let down = node.count(|event| matches!(event, Event::Disconnected { .. }));
            assert_eq!(up, down + 1, "round {round}: {:?}", node.seen);
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_said() {
    let a = Node::start(1).await;
    let refused = Net::start(config(2, 1, a.port())).await.unwrap_err();
    assert!(matches!(refused, StartError::PortTaken { port } if port == a.port()), "{refused}");
}

#[tokio::test]
async fn addresses_are_loopback_with_one_port_for_both_transports() {
    let a = Node::start(1).await;
    let port = a.port();
    assert_eq!(
        a.addresses,
        [format!("/ip4/127.0.0.1/tcp/{port}"), format!("/ip4/127.0.0.1/udp/{port}/quic-v1")]
    );
}

#[tokio::test]
async fn stopping_ends_the_events_and_tells_the_peer() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    meet(&mut a, &mut b, |_| true).await;
    a.handle.send(Command::Stop).await.unwrap();
    let ended = timeout(PATIENCE, async { while a.events.recv().await.is_some() {} });
    ended.await.expect("the events end");
    b.disconnected(a.id).await;
    assert!(a.handle.send(Command::Stop).await.is_err());
}

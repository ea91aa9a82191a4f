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
    for _ in 0..3 {
        trust.framed.send(vec![1; 30_000]).await.unwrap();
    }
    assert_eq!(a.frame(opened).await.len(), 30_000);
    assert_eq!(a.frame(opened).await.len(), 30_000);
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
    assert_eq!(a.turned_away().await, TurnedAway::TimeUp);
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

#[tokio::test]
async fn pairing_endpoints_echo() {
    let mut listener = PairListener::open([1; 32], Reach::Loopback).await.unwrap();
    assert!(listener.addresses[0].ends_with("/quic-v1"), "{:?}", listener.addresses);
    for address in listener.addresses.clone() {
        let addresses = [address];
        let dialling = pair_dial([2; 32], listener.id, &addresses, PATIENCE);
        let (dialled, accepted) = tokio::join!(dialling, listener.incoming.recv());
        let (mut near, mut far) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!((near.local, near.remote), (far.remote, far.local));
        assert_eq!(far.local, listener.id);
        near.send(vec![7; 64 << 10]).await.unwrap();
        let frame = far.recv().await.unwrap();
        far.send(frame).await.unwrap();
        assert_eq!(near.recv().await.unwrap(), vec![7; 64 << 10]);
        let too_long = near.send(vec![0; (64 << 10) + 1]).await.unwrap_err();
        assert!(matches!(too_long, PairSendError::TooLong { len: 65_537 }), "{too_long}");
        near.send(b"last".to_vec()).await.unwrap();
        let (last, ()) = tokio::join!(
            async {
                let last = far.recv().await;
                assert_eq!(far.recv().await, None);
                far.finish().await;
                last
            },
            near.finish()
        );
        assert_eq!(last.as_deref(), Some(&b"last"[..]));
    }
}

#[tokio::test]
async fn another_endpoint_at_the_address_is_refused() {
    let mut listener = PairListener::open([1; 32], Reach::Loopback).await.unwrap();
    let other = PairListener::open([3; 32], Reach::Loopback).await.unwrap();
    for address in &listener.addresses {
        let addresses = std::slice::from_ref(address);
        let refused = pair_dial([2; 32], other.id, addresses, PATIENCE).await.unwrap_err();
        assert!(matches!(refused, PairDialError::OtherEndpoint), "{refused}");
    }
    assert!(listener.incoming.try_recv().is_err());
}

#[tokio::test]
async fn the_pairing_endpoint_gives_other_protocols_nothing() {
    let mut listener = PairListener::open([1; 32], Reach::Loopback).await.unwrap();
    let raw = Raw::dial(9, *listener.id.as_bytes(), &listener.addresses[0]).await;
    for protocol in Protocol::SPOKEN {
        assert!(raw.open(&actor::name(protocol)).await.is_err(), "{protocol}");
    }
    assert!(listener.incoming.try_recv().is_err());
    raw.gone().await;
}

#[tokio::test]
async fn a_dropped_pairing_endpoint_is_gone() {
    let listener = PairListener::open([1; 32], Reach::Loopback).await.unwrap();
    let (id, addresses) = (listener.id, listener.addresses.clone());
    let raw = Raw::dial(9, *id.as_bytes(), &addresses[1]).await;
    drop(listener);
    raw.gone().await;
    let refused = pair_dial([2; 32], id, &addresses[1..], PATIENCE).await.unwrap_err();
    assert!(matches!(refused, PairDialError::Unreachable { .. }), "{refused}");
    let nowhere = pair_dial([2; 32], EndpointId::from_bytes([0; 32]), &[], PATIENCE).await;
    assert!(nowhere.is_err());
}

// Helpers

struct Node {
    id: DeviceId,
    handle: NetHandle,
    events: mpsc::Receiver<Event>,
    addresses: Vec<String>,
    /// What came and nothing waited for.
    waiting: VecDeque<Event>,
    /// Everything that came.
    seen: Vec<Event>,
    runtime: Option<Runtime>,
}

fn device(seed: u8) -> DeviceId {
    let peer = peer::keypair([seed; 32]).public().to_peer_id();
    DeviceId::from_bytes(peer::key(&peer).unwrap())
}

fn config(seed: u8, counter: u64, port: u16) -> Config {
    let boot = BootId { counter, random: u64::from(seed) };
    Config { seed: [seed; 32], boot, reach: Reach::Loopback, mdns: true, port }
}

impl Node {
    async fn start(seed: u8) -> Self {
        let (handle, events) = Net::start(config(seed, 1, 0)).await.unwrap();
        Self::up(seed, handle, events, None).await
    }

    /// Starts with what makes it believe that its network came back.
    async fn start_moving(seed: u8) -> (Self, Arc<Notify>) {
        let (commands, inbox) = mpsc::channel(16);
        let (sender, events) = mpsc::channel(64);
        let actor = actor::NetActor::new(config(seed, 1, 0), inbox, sender).unwrap();
        let returned = actor.returned();
        tokio::spawn(actor.run());
        (Self::up(seed, NetHandle { commands }, events, None).await, returned)
    }

    /// Starts in a runtime of its own, whose end is as sudden as a kill.
    async fn start_killable(seed: u8, counter: u64, port: u16) -> Self {
        let runtime = Runtime::new().unwrap();
        let starting = runtime.spawn(Net::start(config(seed, counter, port)));
        let (handle, events) = starting.await.unwrap().unwrap();
        Self::up(seed, handle, events, Some(runtime)).await
    }

    async fn up(
        seed: u8,
        handle: NetHandle,
        events: mpsc::Receiver<Event>,
        runtime: Option<Runtime>,
    ) -> Self {
        let mut node = Self {
            id: device(seed),
            handle,
            events,
            addresses: Vec::new(),
            waiting: VecDeque::new(),
            seen: Vec::new(),
            runtime,
        };
        node.addresses = node
            .wait("both listeners", |event| match event {
                Event::Listening { addresses } if addresses.len() == 2 => Some(addresses.clone()),
                _ => None,
            })
            .await;
        node.seen.clear();
        node
    }

    async fn kill(mut self) {
        let runtime = self.runtime.take().expect("started killable");
        let ended = tokio::task::spawn_blocking(|| runtime.shutdown_timeout(PATIENCE));
        ended.await.unwrap();
    }

    fn port(&self) -> u16 {
        self.addresses[0].rsplit('/').next().unwrap().parse().unwrap()
    }

    async fn members(&self, others: &[&Self]) {
        let members = others.iter().map(|node| node.id).collect();
        self.handle.send(Command::Members(members)).await.unwrap();
    }

    async fn remember(&self, other: &Self, wanted: impl Fn(&str) -> bool) {
        let addresses = other.addresses.iter().filter(|a| wanted(a)).cloned().collect();
        self.handle.send(Command::Remember { device: other.id, addresses }).await.unwrap();
    }

    async fn send(&self, stream: StreamId, frame: Vec<u8>) {
        self.handle.send(Command::Send { stream, frame }).await.unwrap();
    }

    /// Takes the first event for which `wanted` yields something, and leaves the others.
    async fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let found =
            self.waiting.iter().enumerate().find_map(|(at, event)| Some((at, wanted(event)?)));
        if let Some((at, found)) = found {
            self.waiting.remove(at);
            return found;
        }
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                self.seen.push(event.clone());
                match wanted(&event) {
                    Some(found) => return found,
                    None => self.waiting.push_back(event),
                }
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not come; came: {:?}", self.seen),
        }
    }

    /// Forgets what came so far.
    fn drain(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event);
        }
    }

    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.seen.iter().filter(|event| wanted(event)).count()
    }

    async fn opened(&mut self, peer: DeviceId, wanted: Protocol) -> (StreamId, bool) {
        self.wait(&format!("stream {wanted}"), |event| match event {
            Event::StreamOpened { stream, device, protocol, member, .. }
                if *device == peer && *protocol == wanted =>
            {
                Some((*stream, *member))
            }
            _ => None,
        })
        .await
    }

    async fn frame(&mut self, wanted: StreamId) -> Vec<u8> {
        self.wait("a frame", |event| match event {
            Event::Frame { stream, bytes } if *stream == wanted => Some(bytes.clone()),
            _ => None,
        })
        .await
    }

    async fn closed(&mut self, wanted: StreamId) -> StreamEnd {
        self.wait("the end of a stream", |event| match event {
            Event::StreamClosed { stream, reason } if *stream == wanted => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for the connection and says whether the peer is a member.
    async fn connected(&mut self, wanted: DeviceId) -> bool {
        self.wait("the connection", |event| match event {
            Event::Connected { device, member, .. } if *device == wanted => Some(*member),
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self, wanted: DeviceId) -> Disconnection {
        self.wait("the end of the connection", |event| match event {
            Event::Disconnected { device, reason } if *device == wanted => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    async fn turned_away(&mut self) -> TurnedAway {
        self.wait("a stranger turned away", |event| match event {
            Event::StrangerTurnedAway { why, .. } => Some(*why),
            _ => None,
        })
        .await
    }

    async fn dial_failed(&mut self, wanted: DeviceId) -> DialFailure {
        self.wait("a failed dial", |event| match event {
            Event::DialFailed { device, reason } if *device == wanted => Some(reason.clone()),
            _ => None,
        })
        .await
    }
}

type Opened = HashMap<Protocol, (StreamId, StreamId)>;

/// Makes both members of each other, lets `a` dial, and opens everything.
async fn meet(a: &mut Node, b: &mut Node, addresses: impl Fn(&str) -> bool) -> Opened {
    a.members(&[b]).await;
    b.members(&[a]).await;
    a.remember(b, addresses).await;
    assert!(a.connected(b.id).await);
    assert!(b.connected(a.id).await);
    let (at_a, _) = a.opened(b.id, Protocol::Trust).await;
    let (at_b, _) = b.opened(a.id, Protocol::Trust).await;
    let mut opened = admit(a, b).await;
    opened.insert(Protocol::Trust, (at_a, at_b));
    opened
}

/// Admits each on the other and waits for all protocols but trust.
async fn admit(a: &mut Node, b: &mut Node) -> Opened {
    a.handle.send(Command::Admit { device: b.id }).await.unwrap();
    b.handle.send(Command::Admit { device: a.id }).await.unwrap();
    let mut opened = HashMap::new();
    for protocol in Protocol::SPOKEN.into_iter().filter(|p| *p != Protocol::Trust) {
        let (at_a, member_a) = a.opened(b.id, protocol).await;
        let (at_b, member_b) = b.opened(a.id, protocol).await;
        assert!(member_a && member_b);
        opened.insert(protocol, (at_a, at_b));
    }
    opened
}

/// Sends a frame each way on every protocol, opening the streams that `meet` opened before.
async fn assert_speak(a: &mut Node, b: &mut Node) {
    let stream_of = |node: &Node, wanted: Protocol| {
        node.seen
            .iter()
            .find_map(|event| match event {
                Event::StreamOpened { stream, protocol, .. } if *protocol == wanted => {
                    Some(*stream)
                }
                _ => None,
            })
            .unwrap()
    };
    for (n, protocol) in Protocol::SPOKEN.into_iter().enumerate() {
        let (at_a, at_b) = (stream_of(a, protocol), stream_of(b, protocol));
        let frames = [vec![n as u8; 10], Vec::new(), vec![n as u8; FRAME_BYTES_MAX]];
        for frame in &frames {
            a.send(at_a, frame.clone()).await;
            b.send(at_b, frame.clone()).await;
        }
        for frame in &frames {
            assert_eq!(&b.frame(at_b).await, frame, "{protocol}");
            assert_eq!(&a.frame(at_a).await, frame, "{protocol}");
        }
    }
}

/// Says `word` on each trust stream that opens, until a word came.
async fn converse(node: &mut Node, word: &[u8]) -> Vec<u8> {
    let handle = node.handle.clone();
    let (streams, mut opened) = mpsc::channel(16);
    let word = word.to_vec();
    let saying = tokio::spawn(async move {
        while let Some(stream) = opened.recv().await {
            handle.send(Command::Send { stream, frame: word.clone() }).await.unwrap();
        }
    });
    let heard = node
        .wait("a word", |event| match event {
            Event::StreamOpened { stream, .. } => {
                streams.try_send(*stream).unwrap();
                None
            }
            Event::Frame { bytes, .. } => Some(bytes.clone()),
            _ => None,
        })
        .await;
    drop(streams);
    saying.await.unwrap();
    heard
}

/// A member with a smaller id than `a`, so that it opens the protocols, admitted there.
async fn member_below(a: &mut Node) -> Raw {
    let mut raw = Raw::connect_as_member(a).await;
    let trust = RawStream::greet(raw.open(&actor::name(Protocol::Trust)).await.unwrap()).await;
    raw.trust = Some(trust);
    a.opened(raw.device, Protocol::Trust).await;
    a.handle.send(Command::Admit { device: raw.device }).await.unwrap();
    raw
}

#[derive(NetworkBehaviour)]
struct RawBehaviour {
    identify: identify::Behaviour,
    gate: Gate,
}

type OpenReply = oneshot::Sender<Result<libp2p::Stream, String>>;

/// A peer of our own making, which keeps to no rule.
struct Raw {
    seed: u8,
    device: DeviceId,
    opens: mpsc::Sender<(StreamProtocol, OpenReply)>,
    infos: mpsc::Receiver<identify::Info>,
    closed: oneshot::Receiver<()>,
    trust: Option<RawStream>,
}

impl Raw {
    async fn connect(seed: u8, node: &Node) -> Self {
        Self::dial(seed, *node.id.as_bytes(), &node.addresses[1]).await
    }

    /// Connects with the first seed whose id is smaller than the node's, as its member.
    async fn connect_as_member(node: &mut Node) -> Self {
        let seed = (100..=255).find(|seed| device(*seed) < node.id).unwrap();
        node.handle.send(Command::Members([device(seed)].into())).await.unwrap();
        // Commands are taken in order, so an answer means that the one before was as well.
        let other = DeviceId::from_bytes([0; 32]);
        node.handle.send(Command::Dial { device: other }).await.unwrap();
        node.dial_failed(other).await;
        Self::connect(seed, node).await
    }

    async fn dial(seed: u8, target: [u8; 32], address: &str) -> Self {
        let key = peer::keypair([seed; 32]);
        let behaviour = RawBehaviour {
            identify: identify::Behaviour::new(identify::Config::new("raw".into(), key.public())),
            gate: Gate::new(Terms {
                member: Vec::new(),
                stranger: Vec::new(),
                strangers_max: 0,
                strangers_for_ip_max: 0,
            }),
        };
        let mut swarm = swarm::build(key, behaviour).unwrap();
        let peer = peer::peer_id(&target).unwrap();
        let address = address.parse().unwrap();
        swarm.dial(DialOpts::peer_id(peer).addresses(vec![address]).build()).unwrap();
        let (opens, mut wanted) = mpsc::channel::<(StreamProtocol, OpenReply)>(16);
        let (info_sender, infos) = mpsc::channel(16);
        let (up, established) = oneshot::channel();
        let (down, closed) = oneshot::channel();
        tokio::spawn(async move {
            let mut replies: VecDeque<(StreamProtocol, OpenReply)> = VecDeque::new();
            let mut connection: Option<ConnectionId> = None;
            let mut up = Some(up);
            loop {
                let event = tokio::select! {
                    want = wanted.recv() => match want {
                        Some((protocol, reply)) => {
                            if let Some(id) = connection {
                                swarm.behaviour_mut().gate.open(id, protocol.clone());
                            }
                            replies.push_back((protocol, reply));
                            continue;
                        }
                        None => return,
                    },
                    event = swarm.select_next_some() => event,
                };
                match event {
                    SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                        connection = Some(connection_id);
                        if let Some(up) = up.take() {
                            up.send(()).unwrap();
                        }
                    }
                    SwarmEvent::ConnectionClosed { .. }
                    | SwarmEvent::OutgoingConnectionError { .. } => {
                        down.send(()).ok();
                        return;
                    }
                    SwarmEvent::Behaviour(RawBehaviourEvent::Identify(
                        identify::Event::Received { info, .. },
                    )) => {
                        info_sender.try_send(info).ok();
                    }
                    SwarmEvent::Behaviour(RawBehaviourEvent::Gate(event)) => {
                        let at = replies.iter().position(|(p, _)| *p == event.protocol).unwrap();
                        let (_, reply) = replies.remove(at).unwrap();
                        let outcome = match event.outcome {
                            Negotiated::Outbound(stream) => Ok(stream),
                            Negotiated::Inbound(_) => Err("inbound".to_owned()),
                            Negotiated::Failed(why) => Err(why),
                        };
                        reply.send(outcome).ok();
                    }
                    _ => {}
                }
            }
        });
        timeout(PATIENCE, established).await.expect("the dial ends").expect("it connects");
        Self { seed, device: device(seed), opens, infos, closed, trust: None }
    }

    async fn open(&self, protocol: &StreamProtocol) -> Result<libp2p::Stream, String> {
        let (reply, outcome) = oneshot::channel();
        if self.opens.send((protocol.clone(), reply)).await.is_err() {
            return Err("the connection is gone".to_owned());
        }
        timeout(PATIENCE, outcome).await.expect("it opens or not").unwrap_or(Err("gone".into()))
    }

    async fn identify(&mut self) -> identify::Info {
        timeout(PATIENCE, self.infos.recv()).await.expect("identify answers").unwrap()
    }

    /// Waits until the node has closed the connection.
    async fn gone(self) {
        timeout(PATIENCE, self.closed).await.expect("the node closes it").ok();
    }
}

struct RawStream {
    framed: Framed<tokio_util::compat::Compat<libp2p::Stream>, FrameCodec>,
}

impl RawStream {
    async fn greet(stream: libp2p::Stream) -> Self {
        let codec = FrameCodec::new(Limit::Frame(FRAME_BYTES_MAX));
        let mut framed = Framed::new(stream.compat(), codec);
        let boot = BootId { counter: 1, random: 77 };
        framed.send(encode(&Hello { boot })).await.unwrap();
        let answer = timeout(PATIENCE, framed.next()).await.expect("a hello comes");
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
        Self { framed }
    }
}

//! A network under test, and what two of them do first.

use super::*;

pub(super) struct Node {
    pub(super) id: DeviceId,
    pub(super) handle: NetHandle,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) addresses: Vec<String>,
    /// What came and nothing waited for.
    pub(super) waiting: VecDeque<Event>,
    /// Everything that came.
    pub(super) seen: Vec<Event>,
    pub(super) runtime: Option<Runtime>,
}

pub(super) fn device(seed: u8) -> DeviceId {
    let peer = peer::keypair([seed; 32]).public().to_peer_id();
    DeviceId::from_bytes(peer::key(&peer).unwrap())
}

pub(super) fn config(seed: u8, counter: u64, port: u16) -> Config {
    let boot = BootId { counter, random: u64::from(seed) };
    Config {
        seed: [seed; 32],
        boot,
        reach: Reach::Loopback,
        mdns: true,
        port,
        upnp: true,
        relays: true,
        announce: Vec::new(),
    }
}

impl Node {
    pub(super) async fn start(seed: u8) -> Self {
        let (handle, events) = Net::start(config(seed, 1, 0)).await.unwrap();
        Self::up(seed, handle, events, None).await
    }

    /// Starts with what makes it believe that its network came back.
    pub(super) async fn start_moving(seed: u8) -> (Self, Arc<Notify>) {
        let (commands, inbox) = mpsc::channel(16);
        let (sender, events) = mpsc::channel(64);
        let actor = actor::NetActor::new(config(seed, 1, 0), inbox, sender).unwrap();
        let returned = actor.returned();
        tokio::spawn(actor.run());
        (Self::up(seed, NetHandle { commands }, events, None).await, returned)
    }

    /// Starts with members that dial each other back, wherever they are.
    pub(super) async fn start_testing(seed: u8) -> Self {
        Self::start_testing_moving(seed).await.0
    }

    /// Starts with both.
    pub(super) async fn start_testing_moving(seed: u8) -> (Self, Arc<Notify>) {
        let (commands, inbox) = mpsc::channel(16);
        let (sender, events) = mpsc::channel(64);
        let config = config(seed, 1, 0);
        let actor = actor::NetActor::testing(config, Some(|_| true), inbox, sender).unwrap();
        let returned = actor.returned();
        tokio::spawn(actor.run());
        (Self::up(seed, NetHandle { commands }, events, None).await, returned)
    }

    /// Starts in a runtime of its own, whose end is as sudden as a kill.
    pub(super) async fn start_killable(seed: u8, counter: u64, port: u16) -> Self {
        let runtime = Runtime::new().unwrap();
        let starting = runtime.spawn(Net::start(config(seed, counter, port)));
        let (handle, events) = starting.await.unwrap().unwrap();
        Self::up(seed, handle, events, Some(runtime)).await
    }

    pub(super) async fn up(
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

    pub(super) async fn kill(mut self) {
        let runtime = self.runtime.take().expect("started killable");
        let ended = tokio::task::spawn_blocking(|| runtime.shutdown_timeout(PATIENCE));
        ended.await.unwrap();
    }

    pub(super) fn port(&self) -> u16 {
        self.addresses[0].rsplit('/').next().unwrap().parse().unwrap()
    }

    pub(super) fn tcp_port(&self) -> u16 {
        let address = self.addresses.iter().find(|address| address.contains("/tcp/")).unwrap();
        address.rsplit('/').next().unwrap().parse().unwrap()
    }

    pub(super) async fn members(&self, others: &[&Self]) {
        let members = others.iter().map(|node| node.id).collect();
        self.handle.send(Command::Members(members)).await.unwrap();
    }

    pub(super) async fn remember(&self, other: &Self, wanted: impl Fn(&str) -> bool) {
        let addresses = other.addresses.iter().filter(|a| wanted(a)).cloned().collect();
        self.handle.send(Command::Remember { device: other.id, addresses }).await.unwrap();
    }

    pub(super) async fn send(&self, stream: StreamId, frame: Vec<u8>) {
        self.handle.send(Command::Send { stream, frame }).await.unwrap();
    }

    /// Waits until another device has shown that it reaches this one where it listens.
    pub(super) async fn is_dialled_back(&mut self) {
        let confirmed = self
            .wait("that it was dialled back", |event| match event {
                Event::Reach(report) => report.confirmed.first().cloned(),
                _ => None,
            })
            .await;
        assert!(self.addresses.contains(&confirmed), "{confirmed}");
    }

    /// Takes the first event for which `wanted` yields something, and leaves the others.
    pub(super) async fn wait<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Event) -> Option<T>,
    ) -> T {
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
    pub(super) fn drain(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event);
        }
    }

    pub(super) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.seen.iter().filter(|event| wanted(event)).count()
    }

    pub(super) async fn opened(&mut self, peer: DeviceId, wanted: Protocol) -> (StreamId, bool) {
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

    pub(super) async fn frame(&mut self, wanted: StreamId) -> Vec<u8> {
        self.wait("a frame", |event| match event {
            Event::Frame { stream, bytes } if *stream == wanted => Some(bytes.clone()),
            _ => None,
        })
        .await
    }

    pub(super) async fn closed(&mut self, wanted: StreamId) -> StreamEnd {
        self.wait("the end of a stream", |event| match event {
            Event::StreamClosed { stream, reason } if *stream == wanted => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for the connection and says whether the peer is a member.
    pub(super) async fn connected(&mut self, wanted: DeviceId) -> bool {
        self.wait("the connection", |event| match event {
            Event::Connected { device, member, .. } if *device == wanted => Some(*member),
            _ => None,
        })
        .await
    }

    pub(super) async fn disconnected(&mut self, wanted: DeviceId) -> Disconnection {
        self.wait("the end of the connection", |event| match event {
            Event::Disconnected { device, reason } if *device == wanted => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    pub(super) async fn turned_away(&mut self) -> TurnedAway {
        self.wait("a stranger turned away", |event| match event {
            Event::StrangerTurnedAway { why, .. } => Some(*why),
            _ => None,
        })
        .await
    }

    pub(super) async fn dial_failed(&mut self, wanted: DeviceId) -> DialFailure {
        self.wait("a failed dial", |event| match event {
            Event::DialFailed { device, reason } if *device == wanted => Some(reason.clone()),
            _ => None,
        })
        .await
    }
}

pub(super) type Opened = HashMap<Protocol, (StreamId, StreamId)>;

/// Makes both members of each other, lets `a` dial, and opens everything.
pub(super) async fn meet(a: &mut Node, b: &mut Node, addresses: impl Fn(&str) -> bool) -> Opened {
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
pub(super) async fn admit(a: &mut Node, b: &mut Node) -> Opened {
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
pub(super) async fn assert_speak(a: &mut Node, b: &mut Node) {
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
pub(super) async fn converse(node: &mut Node, word: &[u8]) -> Vec<u8> {
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
pub(super) async fn member_below(a: &mut Node) -> Raw {
    let mut raw = Raw::connect_as_member(a).await;
    let trust = RawStream::greet(raw.open(&actor::name(Protocol::Trust)).await.unwrap()).await;
    raw.trust = Some(trust);
    a.opened(raw.device, Protocol::Trust).await;
    a.handle.send(Command::Admit { device: raw.device }).await.unwrap();
    raw
}

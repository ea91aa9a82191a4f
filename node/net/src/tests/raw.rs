//! A peer of our own making, which keeps to no rule.

use super::*;

#[derive(NetworkBehaviour)]
pub(super) struct RawBehaviour {
    pub(super) identify: identify::Behaviour,
    pub(super) gate: Gate,
}

pub(super) type OpenReply = oneshot::Sender<Result<libp2p::Stream, String>>;

/// A peer of our own making, which keeps to no rule.
pub(super) struct Raw {
    pub(super) seed: u8,
    pub(super) device: DeviceId,
    pub(super) opens: mpsc::Sender<(StreamProtocol, OpenReply)>,
    pub(super) infos: mpsc::Receiver<identify::Info>,
    pub(super) closed: oneshot::Receiver<()>,
    pub(super) trust: Option<RawStream>,
}

impl Raw {
    pub(super) async fn connect(seed: u8, node: &Node) -> Self {
        Self::dial(seed, *node.id.as_bytes(), &node.addresses[1]).await
    }

    /// Connects with the first seed whose id is smaller than the node's, as its member.
    pub(super) async fn connect_as_member(node: &mut Node) -> Self {
        let seed = (100..=255).find(|seed| device(*seed) < node.id).unwrap();
        node.handle.send(Command::Members([device(seed)].into())).await.unwrap();
        // Commands are taken in order, so an answer means that the one before was as well.
        let other = DeviceId::from_bytes([0; 32]);
        node.handle.send(Command::Dial { device: other }).await.unwrap();
        node.dial_failed(other).await;
        Self::connect(seed, node).await
    }

    pub(super) async fn dial(seed: u8, target: [u8; 32], address: &str) -> Self {
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

    pub(super) async fn open(&self, protocol: &StreamProtocol) -> Result<libp2p::Stream, String> {
        let (reply, outcome) = oneshot::channel();
        if self.opens.send((protocol.clone(), reply)).await.is_err() {
            return Err("the connection is gone".to_owned());
        }
        timeout(PATIENCE, outcome).await.expect("it opens or not").unwrap_or(Err("gone".into()))
    }

    pub(super) async fn identify(&mut self) -> identify::Info {
        timeout(PATIENCE, self.infos.recv()).await.expect("identify answers").unwrap()
    }

    /// Waits until the node has closed the connection.
    pub(super) async fn gone(self) {
        timeout(PATIENCE, self.closed).await.expect("the node closes it").ok();
    }
}

pub(super) struct RawStream {
    pub(super) framed: Framed<tokio_util::compat::Compat<libp2p::Stream>, FrameCodec>,
}

impl RawStream {
    pub(super) async fn greet(stream: libp2p::Stream) -> Self {
        let codec = FrameCodec::new(Limit::Frame(FRAME_BYTES_MAX));
        let mut framed = Framed::new(stream.compat(), codec);
        let boot = BootId { counter: 1, random: 77 };
        framed.send(encode(&Hello { boot })).await.unwrap();
        let answer = timeout(PATIENCE, framed.next()).await.expect("a hello comes");
        assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
        Self { framed }
    }
}

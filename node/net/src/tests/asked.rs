//! What members have this node dial for them.

use std::{collections::HashSet, net::TcpListener, time::Instant};

use libp2p::{Multiaddr, autonat::v2::client, core::ConnectedPoint};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use super::*;
use crate::quiet::Quiet;

#[derive(NetworkBehaviour)]
struct AskerBehaviour {
    identify: Quiet,
    client: client::Behaviour<ChaCha8Rng>,
}

/// What a peer noticed that wants to be dialled back.
#[derive(Debug)]
enum Noticed {
    Answer(Result<(), String>),
    /// The other end dialled.
    DialledBack,
    /// No connection is left.
    AllClosed,
}

/// A member of `node` that asks it to dial `address`, or where the member itself listens.
async fn ask(node: &Node, seed: u8, address: Option<Multiaddr>) -> mpsc::Receiver<Noticed> {
    let key = peer::keypair([seed; 32]);
    let identify = identify::Config::new("raw".into(), key.public());
    let config = client::Config::default().with_probe_interval(Duration::from_millis(200));
    let behaviour = AskerBehaviour {
        identify: Quiet::new(identify),
        client: client::Behaviour::new(ChaCha8Rng::seed_from_u64(seed.into()), config),
    };
    let mut swarm = swarm::build(key, behaviour).unwrap();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let own = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let target = peer::peer_id(node.id.as_bytes()).unwrap();
    let at = node.addresses.iter().find(|it| it.contains("/tcp/")).unwrap();
    let dial = DialOpts::peer_id(target).addresses(vec![at.parse().unwrap()]);
    swarm.dial(dial.build()).unwrap();
    swarm.behaviour_mut().identify.propose(address.unwrap_or(own));
    let (sender, noticed) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut up = HashSet::new();
        loop {
            let told = match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { connection_id, endpoint, .. } => {
                    up.insert(connection_id);
                    matches!(endpoint, ConnectedPoint::Listener { .. })
                        .then_some(Noticed::DialledBack)
                }
                SwarmEvent::ConnectionClosed { connection_id, .. } => {
                    up.remove(&connection_id);
                    up.is_empty().then_some(Noticed::AllClosed)
                }
                SwarmEvent::Behaviour(AskerBehaviourEvent::Client(event)) => {
                    Some(Noticed::Answer(event.result.map_err(|error| error.to_string())))
                }
                _ => None,
            };
            if let Some(told) = told
                && sender.send(told).await.is_err()
            {
                return;
            }
        }
    });
    noticed
}

/// Waits for what is wanted of a peer.
async fn notice(noticed: &mut mpsc::Receiver<Noticed>, wanted: fn(&Noticed) -> bool) -> Noticed {
    let waiting = async {
        loop {
            let it = noticed.recv().await.expect("the peer runs");
            if wanted(&it) {
                return it;
            }
        }
    };
    timeout(PATIENCE, waiting).await.expect("it is noticed in time")
}

async fn with_member(seed: u8) -> Node {
    let node = Node::start_testing(1).await;
    node.handle.send(Command::Members([device(seed)].into())).await.unwrap();
    node
}

#[tokio::test]
async fn a_member_has_no_other_host_dialled() {
    let node = with_member(2).await;
    let decoy = TcpListener::bind("127.0.0.2:0").unwrap();
    decoy.set_nonblocking(true).unwrap();
    let port = decoy.local_addr().unwrap().port();
    let at = format!("/ip4/127.0.0.2/tcp/{port}").parse().unwrap();
    let mut asker = ask(&node, 2, Some(at)).await;
    let answer = notice(&mut asker, |it| matches!(it, Noticed::Answer(_))).await;
    assert!(matches!(answer, Noticed::Answer(Err(_))), "{answer:?}");
    let nobody = decoy.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn whoever_leaves_keeps_no_connection_of_any_kind() {
    let node = with_member(2).await;
    let mut asker = ask(&node, 2, None).await;
    notice(&mut asker, |it| matches!(it, Noticed::DialledBack)).await;
    let answer = notice(&mut asker, |it| matches!(it, Noticed::Answer(_))).await;
    assert!(matches!(answer, Noticed::Answer(Ok(()))), "{answer:?}");
    let left = Instant::now();
    node.members(&[]).await;
    notice(&mut asker, |it| matches!(it, Noticed::AllClosed)).await;
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
}

#[tokio::test]
async fn whoever_was_connected_before_the_network_moved_dials_back_after_it() {
    let (mut a, returned) = Node::start_testing_moving(1).await;
    let mut b = Node::start_testing(2).await;
    meet(&mut a, &mut b, |address| address.contains("/udp/")).await;
    // What was found out before is forgotten seconds later, long before the first test.
    returned.notify_one();
    a.is_dialled_back().await;
    a.drain();
    assert_eq!(a.count(|event| matches!(event, Event::Disconnected { .. })), 0, "{:?}", a.seen);
}

//! libp2p over QUIC: a request and its answer in CBOR; two nodes that are connected and do nothing; and
//! mDNS by itself.

use std::{env, time::Duration, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, mdns,
    multiaddr::Protocol,
    noise, ping, request_response,
    request_response::{Event, Message, ProtocolSupport, cbor},
    swarm::{NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle},
    tcp, yamux,
};
use weft_peers::{PAYLOAD_BYTES, lines, say};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/weft-peers/no-op/1");

#[derive(NetworkBehaviour)]
struct Behaviour {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    calls: cbor::Behaviour<String, String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => run(None).await,
        ["idle", at] => run(Some(at.parse()?)).await,
        ["ask", at] => client(at.parse()?).await,
        ["mdns"] => mdns().await,
        _ => bail!("usage: serve | idle ADDRESS | ask ADDRESS | mdns"),
    }
}

fn swarm(mdns: bool) -> Result<Swarm<Behaviour>> {
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_quic()
        .with_behaviour(|key| {
            let local = PeerId::from(key.public());
            let mdns = mdns
                .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local))
                .transpose()?;
            Ok(Behaviour {
                ping: ping::Behaviour::default(),
                identify: identify::Behaviour::new(identify::Config::new(
                    "weft-peers/1".into(),
                    key.public(),
                )),
                mdns: Toggle::from(mdns),
                calls: cbor::Behaviour::new(
                    [(PROTOCOL, ProtocolSupport::Full)],
                    request_response::Config::default(),
                ),
            })
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3_600)))
        .build())
}

/// Says where it listens, connects to another if it is told of one, and answers what it is asked.
async fn run(other: Option<Multiaddr>) -> Result<()> {
    let mut swarm = swarm(false)?;
    swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse()?)?;
    let id = *swarm.local_peer_id();
    if let Some(other) = other {
        swarm.dial(other)?;
    }
    let mut lines = lines();
    loop {
        let event = tokio::select! {
            line = lines.next_line() => match line? {
                Some(_) => continue,
                None => return Ok(()),
            },
            event = swarm.select_next_some() => event,
        };
        match event {
            SwarmEvent::NewListenAddr { address, .. } => say(&format!("AT {address}/p2p/{id}"))?,
            SwarmEvent::Behaviour(BehaviourEvent::Calls(Event::Message {
                message: Message::Request { request, channel, .. },
                ..
            })) => {
                // The one who asks may have gone.
                swarm.behaviour_mut().calls.send_response(channel, request).ok();
            }
            _ => {}
        }
    }
}

async fn client(at: Multiaddr) -> Result<()> {
    let Some(Protocol::P2p(server)) = at.iter().last() else { bail!("an address without a peer") };
    let mut swarm = swarm(false)?;
    swarm.dial(at)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => break,
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                return Err(error).context("failed to connect");
            }
            _ => {}
        }
    }
    say("READY")?;
    let payload = "7".repeat(PAYLOAD_BYTES);
    let mut lines = lines();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                if line?.is_none() {
                    return Ok(());
                }
                let start = Instant::now();
                let answer = call(&mut swarm, &server, payload.clone()).await?;
                let took = start.elapsed();
                ensure!(answer.len() == PAYLOAD_BYTES, "an answer of {} bytes", answer.len());
                say(&took.as_nanos().to_string())?;
            }
            _ = swarm.select_next_some() => {}
        }
    }
}

async fn call(swarm: &mut Swarm<Behaviour>, server: &PeerId, payload: String) -> Result<String> {
    let asked = swarm.behaviour_mut().calls.send_request(server, payload);
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Calls(Event::Message {
                message: Message::Response { request_id, response },
                ..
            })) if request_id == asked => return Ok(response),
            SwarmEvent::Behaviour(BehaviourEvent::Calls(Event::OutboundFailure {
                error, ..
            })) => return Err(error.into()),
            _ => {}
        }
    }
}

/// Says `FOUND` once it has found another on the local network.
async fn mdns() -> Result<()> {
    let mut swarm = swarm(true)?;
    swarm.listen_on("/ip4/0.0.0.0/udp/0/quic-v1".parse()?)?;
    let mut lines = lines();
    let mut is_told = false;
    loop {
        let event = tokio::select! {
            line = lines.next_line() => match line? {
                Some(_) => continue,
                None => return Ok(()),
            },
            event = swarm.select_next_some() => event,
        };
        match event {
            SwarmEvent::NewListenAddr { .. } if !is_told => {
                is_told = true;
                say("AT")?;
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, _) in found {
                    say(&format!("FOUND {peer}"))?;
                }
            }
            _ => {}
        }
    }
}

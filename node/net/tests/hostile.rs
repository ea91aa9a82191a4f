//! A thousand who do not belong, and one who does and means ill, against a real node. Meanwhile its
//! members are served, and afterwards it is no larger than before.
//!
//! No time is asserted, and no number of refusals: both depend on the machine. What is printed is what
//! came of it.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::{
    AsyncReadExt as _, AsyncWriteExt as _,
    future::{Either, poll_fn, select},
};
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt as _},
        transport::{Boxed, DialOpts, PortUse},
        upgrade::Version,
    },
    identity::Keypair,
    noise, tcp, yamux,
};
use minicbor::Decode;
use tokio::{runtime::Runtime, sync::mpsc, task::JoinSet, time::timeout};
use weft_e2e::{Device, Fabric, until};
use weft_net::{Command, Config, Event, Net, NetHandle, StreamId};
use weft_protocol::{
    codec::{decode, encode},
    frame::{FRAME_BYTES_MAX, Hello, Protocol},
    id::{BootId, DeviceId},
    statement::TrustMessage,
};

/// Strangers at once.
const STRANGERS: usize = 1_000;

/// Connections that never say a word.
const SILENT: usize = 200;

/// Datagrams of noise.
const DATAGRAMS: usize = 20_000;

/// Malformed messages of the strangers together, and of the member on each protocol.
const STRANGERS_MESSAGES: usize = 10_000;
const MEMBER_MESSAGES: usize = 3_200;

/// How much the node may grow by: what a debug build's allocator keeps for a burst, many times over,
/// and a fraction of what a thousand connections would take that were all let in.
const GROWTH_KIB_MAX: u64 = 64 << 10;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_thousand_strangers_and_ten_thousand_malformed_messages_leave_memory_flat_and_members_served() {
    raise_file_limit();
    let mut fabric = Fabric::pair(["laptop", "server"]);
    let runtime = Runtime::new().expect("a runtime starts");
    let before = {
        let [laptop, server] = &*fabric;
        laptop.note("it is quiet");
        server.until_note("it is quiet");
        Memory::of(laptop)
    };

    // Strangers.
    let status = fabric[0].json(&["status"]);
    let addresses: Vec<String> = status["addresses"]
        .as_array()
        .expect("it listens")
        .iter()
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    let tally = Arc::new(Tally::default());
    let crowd = runtime.spawn(crowd(addresses.clone(), Arc::clone(&tally)));
    let mut rounds = 0;
    let most = {
        let [laptop, server] = &*fabric;
        let mut most = before;
        while !crowd.is_finished() || rounds == 0 {
            let words = format!("round {rounds} at the laptop");
            laptop.note(&words);
            server.until_note(&words);
            let words = format!("round {rounds} at the server");
            server.note(&words);
            laptop.until_note(&words);
            most = most.max(Memory::of(laptop));
            rounds += 1;
        }
        most
    };
    runtime.block_on(crowd).expect("the crowd does not panic");
    let after = Memory::of(&fabric[0]);
    println!("strangers: {tally:?}");
    println!("rounds of notes both ways meanwhile: {rounds}");
    println!("memory before {before:?}, at most {most:?}, after {after:?}");
    assert!(tally.cut.load(Ordering::Relaxed) > 0, "some were let in and cut");
    assert!(tally.messages.load(Ordering::Relaxed) >= STRANGERS_MESSAGES);
    assert!(most.anonymous_kib.saturating_sub(before.anonymous_kib) <= GROWTH_KIB_MAX);

    // A member: the server's place is taken by a program that has its key.
    let server = &mut fabric[1];
    server.stop();
    let seed = seed_of(server.home());
    let me = status["device"].as_str().expect("it has an id").parse().expect("an id");
    let member = runtime.spawn(malign(seed, me, addresses));
    let mut rounds = 0;
    while !member.is_finished() || rounds == 0 {
        fabric[0].note(&format!("round {rounds} with a member that means ill"));
        rounds += 1;
    }
    let sent = runtime.block_on(member).expect("the member does not panic");
    let end = Memory::of(&fabric[0]);
    println!("a member sent, of what is no message: {sent:?}");
    println!("rounds of notes meanwhile: {rounds}");
    println!("memory after {end:?}");
    assert!(sent.values().sum::<usize>() >= 10_000, "{sent:?}");
    assert!(end.anonymous_kib.saturating_sub(before.anonymous_kib) <= GROWTH_KIB_MAX);

    // The true one is back, and has all that was said.
    drop(runtime);
    fabric[1].up();
    fabric.meet(["laptop", "server"]);
    fabric[1].until_note(&format!("round {} with a member that means ill", rounds - 1));
    let what = "the record tells of strangers";
    let list = || fabric[0].run(&["audit", "list", "--limit", "100000"]).stdout;
    let said = until(what, list, |said| said.contains("turned away"));
    for line in said.lines().filter(|line| line.contains("turned away")) {
        println!("{line}");
    }
    fabric[0].verify();
    fabric[1].verify();
}

// Strangers

#[derive(Debug, Default)]
struct Tally {
    refused: AtomicUsize,
    cut: AtomicUsize,
    messages: AtomicUsize,
    silent: AtomicUsize,
    datagrams: AtomicUsize,
}

/// All of them at once, until so many malformed messages were sent.
async fn crowd(addresses: Vec<String>, tally: Arc<Tally>) {
    let of = |part: &str| {
        let found = addresses.iter().find(|address| address.contains(part)).expect("it is there");
        found.parse::<Multiaddr>().expect("a multiaddr")
    };
    let (address, quic) = (of("/tcp/"), of("/udp/"));
    let mut tasks = JoinSet::new();
    let socket = socket(&address);
    for _ in 0..SILENT {
        let tally = Arc::clone(&tally);
        tasks.spawn(async move {
            if let Ok(stream) = tokio::net::TcpStream::connect(socket).await {
                tally.silent.fetch_add(1, Ordering::Relaxed);
                // Until the node hangs up.
                timeout(PATIENCE, stream.readable()).await.ok();
            }
        });
    }
    let datagrams = Arc::clone(&tally);
    let target = SocketAddr::from(([127, 0, 0, 1], port(&quic)));
    tasks.spawn(async move { shout(target, &datagrams).await });
    for number in 0..STRANGERS {
        let (address, tally) = (address.clone(), Arc::clone(&tally));
        tasks.spawn(async move {
            for attempt in 0..100 {
                talk(&address, number + attempt, &tally).await;
                if tally.messages.load(Ordering::Relaxed) >= STRANGERS_MESSAGES {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    tasks.join_all().await;
}

/// One stranger's connection: a real handshake under a key of its own, a stream of trust, nonsense.
async fn talk(address: &Multiaddr, number: usize, tally: &Tally) {
    let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let mut transport = transport(&Keypair::generate_ed25519());
    let dialled = match transport.dial(address.clone(), opts) {
        Ok(dialling) => dialling.await,
        Err(error) => panic!("{error}"),
    };
    let Ok((_, mut muxer)) = dialled else {
        tally.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let opening = poll_fn(|cx| {
        if let Poll::Ready(Err(error)) = muxer.poll_unpin(cx) {
            return Poll::Ready(Err(error));
        }
        muxer.poll_outbound_unpin(cx)
    });
    let Ok(Ok(mut stream)) = timeout(PATIENCE, opening).await else {
        tally.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let talking = async {
        let mut wire = b"\x13/multistream/1.0.0\n\x0e/weft/trust/1\n".to_vec();
        frame(&mut wire, &encode(&Hello { boot: BootId { counter: 1, random: number as u64 } }));
        stream.write_all(&wire).await?;
        for n in 0..400 {
            let mut wire = Vec::new();
            frame(&mut wire, &nonsense(number + n));
            stream.write_all(&wire).await?;
            tally.messages.fetch_add(1, Ordering::Relaxed);
        }
        stream.flush().await?;
        let mut heard = [0; 1024];
        while stream.read(&mut heard).await? > 0 {}
        std::io::Result::Ok(())
    };
    let driving = poll_fn(|cx| {
        // What the node opens is not answered.
        while let Poll::Ready(inbound) = muxer.poll_inbound_unpin(cx) {
            if inbound.is_err() {
                return Poll::Ready(());
            }
        }
        match muxer.poll_unpin(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    });
    let both = select(Box::pin(talking), driving);
    match timeout(PATIENCE, both).await {
        Ok(Either::Left(_) | Either::Right(_)) => tally.cut.fetch_add(1, Ordering::Relaxed),
        Err(_) => panic!("a stranger is still connected"),
    };
}

async fn shout(target: SocketAddr, tally: &Tally) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    for n in 0..DATAGRAMS {
        let mut datagram = vec![0; 1_200];
        scramble(n as u64, &mut datagram);
        if n % 2 == 0 {
            // A first packet of QUIC version 1, up to where it is none.
            datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        }
        // A full buffer is no reason to stop.
        if socket.send_to(&datagram, target).await.is_ok() {
            tally.datagrams.fetch_add(1, Ordering::Relaxed);
        }
        if n % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn transport(key: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).expect("a key signs"))
        .multiplex(yamux::Config::default())
        .timeout(PATIENCE)
        .boxed()
}

// The member

/// Takes the place of the device of `seed` and floods each protocol in turn; how much it sent of each.
async fn malign(
    seed: [u8; 32],
    node: DeviceId,
    addresses: Vec<String>,
) -> BTreeMap<Protocol, usize> {
    // An early start of it, so that the true one is newer when it is back.
    let boot = BootId { counter: 1, random: 7 };
    let config = Config::loopback(seed, boot);
    let (handle, mut events) = Net::start(config).await.expect("it listens");
    handle.send(Command::Members([node].into())).await.expect("it runs");
    handle.send(Command::Remember { device: node, addresses }).await.expect("it runs");
    let mut sent = BTreeMap::new();
    for protocol in
        [Protocol::Sync, Protocol::Run, Protocol::Audit, Protocol::Presence, Protocol::Trust]
    {
        let wanted = match protocol {
            // So few are taken in a while that more would only be waited for.
            Protocol::Trust | Protocol::Presence => 400,
            Protocol::Sync | Protocol::Run | Protocol::Audit | Protocol::Blob | Protocol::Llm => {
                MEMBER_MESSAGES
            }
        };
        let flooding = flood(&handle, &mut events, node, protocol, wanted);
        let count = timeout(PATIENCE * 3, flooding).await.unwrap_or_else(|_| {
            panic!("{protocol} did not open again");
        });
        sent.insert(protocol, count);
    }
    handle.send(Command::Stop).await.expect("it runs");
    sent
}

/// Sends `wanted` malformed messages, as fast as they go and on as many streams as it takes.
async fn flood(
    handle: &NetHandle,
    events: &mut mpsc::Receiver<Event>,
    node: DeviceId,
    protocol: Protocol,
    wanted: usize,
) -> usize {
    // Its streams are closed and opened again, so that the first is of this flood alone.
    handle.send(Command::Disconnect { device: node }).await.expect("it runs");
    let (mut open, mut trust, mut sent): (Option<StreamId>, Option<StreamId>, usize) =
        (None, None, 0);
    while sent < wanted {
        // What happened comes first: a closed stream takes nothing.
        let event = if open.is_some() { events.try_recv().ok() } else { events.recv().await };
        match event {
            Some(Event::StreamOpened { stream, protocol: opened, .. }) => {
                if opened == Protocol::Trust {
                    trust = Some(stream);
                }
                if opened == protocol {
                    open = Some(stream);
                }
            }
            Some(Event::StreamClosed { stream, .. }) if open == Some(stream) => open = None,
            Some(Event::Frame { stream, bytes }) if trust == Some(stream) => {
                // To say what the node says is to have what it has.
                if let Ok(TrustMessage::Have { .. } | TrustMessage::Merged { .. }) =
                    decode(&bytes, FRAME_BYTES_MAX)
                {
                    handle.send(Command::Send { stream, frame: bytes }).await.expect("it runs");
                    handle.send(Command::Admit { device: node }).await.expect("it runs");
                }
            }
            Some(_) => {}
            None => {
                let Some(stream) = open else { panic!("the network has stopped") };
                let frame = nonsense(sent);
                handle.send(Command::Send { stream, frame }).await.expect("it runs");
                sent += 1;
                if sent % 64 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
    sent
}

#[derive(Decode)]
#[cbor(map)]
struct KeyFile {
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    secrets: Vec<u8>,
}

#[derive(Decode)]
#[cbor(map)]
struct Secrets {
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    seed: [u8; 32],
}

/// The seed in a home whose key file is wrapped by nothing, as it is where there is no terminal.
fn seed_of(home: &Path) -> [u8; 32] {
    let bytes = fs::read(home.join("key")).expect("a home has a key file");
    let file: KeyFile = decode(&bytes, 1 << 16).expect("a key file");
    decode::<Secrets>(&file.secrets, 1 << 16).expect("secrets in the clear").seed
}

// Nonsense

/// Bytes that are no message of any protocol.
fn nonsense(number: usize) -> Vec<u8> {
    let mut bytes = match number % 6 {
        0 => vec![0xff],
        // A map that is cut short, arrays to no end, a text as long as memory.
        1 => vec![0xa1, 0x00],
        2 => vec![0x81; 64],
        3 => vec![0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        // What is well formed and means nothing here.
        4 => vec![0xa1, 0x18, 0x63, 0x80],
        _ => vec![0; 48],
    };
    if number % 6 == 5 {
        scramble(number as u64, &mut bytes);
        bytes[0] = 0xdf;
    }
    bytes
}

/// Fills `bytes` from a number (SplitMix64).
fn scramble(number: u64, bytes: &mut [u8]) {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..chunk.len()]);
    }
}

fn frame(wire: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("a small frame");
    wire.extend(len.to_be_bytes());
    wire.extend(bytes);
}

// The machine

/// What a node holds now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Memory {
    anonymous_kib: u64,
    resident_kib: u64,
}

impl Memory {
    fn of(device: &Device) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", process(device.home())))
            .expect("it runs");
        let field = |name: &str| {
            let line =
                status.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
            line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
        };
        Self { anonymous_kib: field("RssAnon:"), resident_kib: field("VmRSS:") }
    }
}

/// The process of the node of a home.
fn process(home: &Path) -> u32 {
    let home = home.to_string_lossy();
    let is_node = |id: &u32| {
        let Ok(words) = fs::read(format!("/proc/{id}/cmdline")) else { return false };
        let words = String::from_utf8_lossy(&words).into_owned();
        let words: Vec<&str> = words.split('\0').collect();
        words.get(1..4) == Some(&["--home", &home, "up"])
    };
    let processes = fs::read_dir("/proc").expect("processes are listed");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(is_node)
        .expect("the node runs")
}

/// Each stranger here has a socket of its own.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    setrlimit(Resource::Nofile, raised).expect("up to its maximum it may be raised");
}

#[expect(clippy::wildcard_enum_match_arm, reason = "multiaddr's parts may grow; two are ports")]
fn port(address: &Multiaddr) -> u16 {
    use libp2p::multiaddr::Protocol as Part;
    let port = address.iter().find_map(|part| match part {
        Part::Tcp(port) | Part::Udp(port) => Some(port),
        _ => None,
    });
    port.expect("an address has a port")
}

fn socket(address: &Multiaddr) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port(address)))
}

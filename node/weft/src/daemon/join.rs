//! `weft join`: a ticket or a code makes this home a device of somebody's fabric.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use ed25519_dalek::SigningKey;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use weft_core::membership;
use weft_net::{
    Reach,
    pairing::{PairDialError, PairStream, pair_dial, pair_find},
};
use weft_protocol::{
    codec,
    device::Role,
    frame::FRAME_BYTES_MAX,
    id::EndpointId,
    pairing::{Contacts, PairingMessage},
    row::Write,
    statement::Name,
    ticket::{Ticket, TicketAddress, Transport},
};
use weft_store::key::{Secrets, Wrapping};
use weft_trust::{
    pairing::{Answer, Code, Joined, Joiner, JoinerInput, JoinerOutput, Outcome, Reason},
    secret::DeviceSecret,
};

use super::{
    clock,
    home::{Home, Settings},
    init::found,
    newcomer::Newcomer,
    seed,
    up::reach,
};

/// What a person is shown before the answer.
pub(crate) use weft_trust::pairing::Prompt as Met;

/// One try to reach the endpoint takes at most so long.
const DIAL_TIME: Duration = Duration::from_secs(5);

/// What a person has brought from the other device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Means {
    /// A ticket.
    Ticket(Ticket),
    /// A code, and where the inviting device is; nowhere: it is looked for on the local network.
    Code(Code, Vec<String>),
}

impl Means {
    /// Reaches the inviting device's endpoint: with a code, one that the joiner takes.
    async fn dial(&self, seed: [u8; 32], joiner: &Joiner) -> Result<PairStream, PairDialError> {
        match self {
            Self::Ticket(ticket) => {
                let addresses: Vec<_> = ticket.addresses.iter().map(ToString::to_string).collect();
                pair_dial(seed, ticket.endpoint, &addresses, DIAL_TIME).await
            }
            Self::Code(_, addresses) => {
                pair_find(seed, |id| joiner.takes(id), addresses, DIAL_TIME).await
            }
        }
    }
}

/// Who wants to join.
#[derive(Clone, Debug)]
pub(crate) struct JoinRequest {
    /// By what.
    pub(crate) means: Means,
    /// The device that joins.
    pub(crate) device: Newcomer,
    /// Whether this side's yes is given without asking anybody.
    pub(crate) unasked: bool,
}

/// How it went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum JoinOutcome {
    /// This home is a device of the fabric.
    Paired {
        /// This device's name, which is another than it asked for where that was taken.
        name: Name,
        /// The fabric's name.
        fabric: Name,
        /// The inviting device's name.
        inviter: Name,
        /// What this device became.
        role: Role,
    },
    /// It ended before that.
    Ended(Outcome, Option<Reason>),
    /// A person stopped it here by `^C`, and the inviting device was told no.
    Cancelled,
    /// The inviting device did not answer, or went away and did not come back.
    CouldNotReach {
        /// What was tried last.
        reason: String,
    },
}

/// Whether a device that was not told where the other one is looks for it on the local network.
pub(crate) fn looks_around() -> bool {
    reach() == Reach::Lan
}

/// Joins. `ask` shows a person the four words and the other's name, and gives their answer; it runs on
/// a thread of its own.
pub(crate) fn run(
    home: &Home,
    request: JoinRequest,
    ask: impl Fn(&Met) -> bool + Send + Sync + 'static,
) -> Result<JoinOutcome> {
    home.expect_new()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let outcome = runtime.block_on(pair(home, request, Arc::new(ask)));
    // A question that nobody answered still waits for a key.
    runtime.shutdown_background();
    outcome
}

async fn pair(
    home: &Home,
    request: JoinRequest,
    ask: Arc<dyn Fn(&Met) -> bool + Send + Sync>,
) -> Result<JoinOutcome> {
    let secrets = Secrets::generate()?;
    let secret = DeviceSecret::from_seed(&secrets.device_seed);
    let endpoint_seed = seed()?;
    let key = SigningKey::from_bytes(&endpoint_seed).verifying_key();
    let endpoint = EndpointId::from_bytes(key.to_bytes());
    let JoinRequest { means, device: Newcomer { name, kind, keys }, unasked } = request;
    let (own, now) = (secret.clone(), clock::now());
    let mut joiner = match means.clone() {
        Means::Ticket(ticket) => Joiner::new(ticket, own, name, kind, endpoint, seed()?, now),
        Means::Code(code, _) => Joiner::with_code(code, own, name, kind, endpoint, seed()?, now),
    };
    let mut joined_as = None;
    let mut last_error = String::from("it did not answer in time");
    let mut outcome = None;
    let mut secrets = Some((secrets, keys));
    let mut stream: Option<PairStream> = None;
    let (answers, mut answered) = mpsc::channel(1);
    let mut interrupts = signal(SignalKind::interrupt()).context("failed to listen for Ctrl-C")?;
    let mut is_cancelled = false;
    loop {
        while let Some(output) = joiner.poll_output() {
            match output {
                JoinerOutput::Dial => {
                    let dialled = tokio::select! {
                        dialled = means.dial(endpoint_seed, &joiner) => Some(dialled),
                        _ = interrupts.recv() => None,
                    };
                    let input = match dialled {
                        Some(Ok(dialled)) => {
                            let remote = dialled.remote;
                            stream = Some(dialled);
                            JoinerInput::Connected(remote)
                        }
                        Some(Err(error)) => {
                            tracing::debug!(?error, "the inviting device was not reached");
                            last_error = error.to_string();
                            JoinerInput::Disconnected
                        }
                        None => {
                            is_cancelled = true;
                            JoinerInput::Cancel
                        }
                    };
                    joiner.handle_input(input, clock::now());
                }
                JoinerOutput::Send(message) => {
                    if let Some(stream) = &mut stream
                        && stream.send(codec::encode(&message)).await.is_err()
                    {
                        joiner.handle_input(JoinerInput::Disconnected, clock::now());
                    }
                }
                JoinerOutput::Close => {
                    if let Some(stream) = stream.take() {
                        stream.finish().await;
                    }
                }
                JoinerOutput::Ask(prompt) => {
                    let (ask, answers) = (ask.clone(), answers.clone());
                    std::thread::spawn(move || {
                        let answer = match (ask(&prompt), unasked) {
                            (false, _) => Answer::No,
                            (true, true) => Answer::Unasked,
                            (true, false) => Answer::Yes,
                        };
                        if answers.blocking_send(answer).is_err() {
                            tracing::debug!("the pairing ended before the answer");
                        }
                    });
                }
                JoinerOutput::Store(joined) => {
                    let state = joined.graph.state();
                    joined_as = state.member(&secret.id()).map(|device| JoinOutcome::Paired {
                        name: device.name.clone(),
                        fabric: state.name.clone(),
                        inviter: joined.inviter.name.clone(),
                        role: device.role,
                    });
                    let stored = match secrets.take() {
                        Some((secrets, keys)) => store(home, &joined, secrets, keys),
                        None => Ok(()),
                    };
                    let input = match stored {
                        Ok(()) => JoinerInput::Stored(own_contacts(home, &joined)),
                        Err(error) => {
                            joiner.handle_input(JoinerInput::NotStored, clock::now());
                            return Err(error);
                        }
                    };
                    joiner.handle_input(input, clock::now());
                }
                JoinerOutput::Ended(ended) => outcome = Some(ended),
            }
        }
        if let Some(outcome) = outcome
            && (stream.is_none() || joiner.poll_timeout().is_none())
        {
            if is_cancelled && outcome == Outcome::Refused {
                return Ok(JoinOutcome::Cancelled);
            }
            return conclude(outcome, joiner.reason(), joined_as, last_error);
        }
        let now = clock::now();
        let sleep = match joiner.poll_timeout() {
            Some((at, _)) => at.since(now.mono),
            None => Duration::from_secs(1),
        };
        tokio::select! {
            frame = receive(&mut stream) => match frame {
                Some(bytes) => match codec::decode::<PairingMessage>(&bytes, FRAME_BYTES_MAX) {
                    Ok(message) => {
                        joiner.handle_input(JoinerInput::Message(message), clock::now());
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the inviting device sent what is no message");
                        stream = None;
                        joiner.handle_input(JoinerInput::Disconnected, clock::now());
                    }
                },
                None => {
                    stream = None;
                    joiner.handle_input(JoinerInput::Disconnected, clock::now());
                }
            },
            _ = interrupts.recv() => {
                is_cancelled = true;
                joiner.handle_input(JoinerInput::Cancel, clock::now());
            }
            Some(answer) = answered.recv() => {
                joiner.handle_input(JoinerInput::Answer(answer), clock::now());
            }
            () = tokio::time::sleep(sleep) => joiner.handle_timeout(clock::now()),
        }
    }
}

fn conclude(
    outcome: Outcome,
    reason: Option<Reason>,
    joined_as: Option<JoinOutcome>,
    last_error: String,
) -> Result<JoinOutcome> {
    Ok(match outcome {
        Outcome::Paired => joined_as.context("paired, and this device is not in the fabric")?,
        Outcome::Refused | Outcome::Expired | Outcome::AlreadyUsed => {
            JoinOutcome::Ended(outcome, reason)
        }
        Outcome::CouldNotReach => {
            let reason =
                reason.map_or(last_error.clone(), |it| format!("{last_error}; {}", it.sentence()));
            JoinOutcome::CouldNotReach { reason }
        }
    })
}

/// The next frame; for ever where there is no stream.
async fn receive(stream: &mut Option<PairStream>) -> Option<Vec<u8>> {
    match stream {
        Some(stream) => stream.recv().await,
        None => std::future::pending().await,
    }
}

/// Puts all of it on the disk. A home counts as initialised when its key is there, so it comes last.
fn store(home: &Home, joined: &Joined, secrets: Secrets, keys: Wrapping) -> Result<()> {
    let statements: Vec<_> = joined.graph.statements().cloned().collect();
    let mut writes = membership::store(&statements);
    writes.extend(contacts(joined));
    let me = DeviceSecret::from_seed(&secrets.device_seed).id();
    let kind = joined.graph.state().member(&me).context("this device is not in the fabric")?.kind;
    found(home, secrets, kind, keys, writes)
}

/// Where this device can be met once its node runs: at its port, by the addresses that it has towards
/// the inviter. Nothing is sent to find them out.
fn own_contacts(home: &Home, joined: &Joined) -> Contacts {
    let Ok(Settings { port, .. }) = home.read_settings() else { return Contacts::default() };
    let towards = |address: &String| {
        let (there, here): (SocketAddr, IpAddr) = match address.parse().ok()? {
            TicketAddress::Ip4(ip, port, _) => ((ip, port).into(), Ipv4Addr::UNSPECIFIED.into()),
            TicketAddress::Ip6(ip, port, _) => ((ip, port).into(), Ipv6Addr::UNSPECIFIED.into()),
            TicketAddress::Other(_) => return None,
        };
        let socket = UdpSocket::bind((here, 0)).ok()?;
        socket.connect(there).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let ips: BTreeSet<IpAddr> = joined.contacts.addresses.iter().filter_map(towards).collect();
    let at = |ip: IpAddr, transport| match ip {
        IpAddr::V4(ip) => TicketAddress::Ip4(ip, port, transport).to_string(),
        IpAddr::V6(ip) => TicketAddress::Ip6(ip, port, transport).to_string(),
    };
    let both = |ip| [at(ip, Transport::Quic), at(ip, Transport::Tcp)];
    Contacts { addresses: ips.into_iter().flat_map(both).collect(), presences: Vec::new() }
}

/// Where the inviter and those whom it knows were last heard of.
fn contacts(joined: &Joined) -> Vec<Write> {
    let Contacts { addresses, presences } = &joined.contacts;
    let mut writes = vec![membership::remember(&joined.inviter.device, addresses)];
    for signed in presences {
        let presence = signed.open::<weft_protocol::presence::Presence>(
            weft_protocol::signed::Domain::Presence,
            weft_protocol::presence::PRESENCE_BYTES_MAX,
        );
        if let Ok(presence) = presence
            && presence.device == signed.author
            && !presence.addresses.is_empty()
        {
            writes.push(membership::remember(&presence.device, &presence.addresses));
        }
    }
    writes
}

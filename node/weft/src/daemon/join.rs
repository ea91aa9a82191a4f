//! `weft join`: a ticket makes this home a device of somebody's fabric.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use ed25519_dalek::SigningKey;
use tokio::sync::mpsc;
use weft_core::membership;
use weft_net::pairing::{PairStream, pair_dial};
use weft_protocol::{
    codec,
    device::{Kind, Role},
    frame::FRAME_BYTES_MAX,
    id::EndpointId,
    pairing::{Contacts, Ending, PairingMessage},
    row::Write,
    statement::Name,
    ticket::Ticket,
};
use weft_store::key::{KeyFile, Secrets};
use weft_trust::{
    pairing::{Answer, Joined, Joiner, JoinerInput, JoinerOutput, Outcome},
    secret::DeviceSecret,
};

use super::{
    clock,
    home::{Home, Taken},
    init::write,
    seed,
};

/// What a person is shown before the answer.
pub(crate) use weft_trust::pairing::Prompt as Met;

/// One try to reach the endpoint takes at most so long.
const DIAL_TIME: Duration = Duration::from_secs(5);

/// Who wants to join.
#[derive(Clone, Debug)]
pub(crate) struct JoinRequest {
    /// The ticket.
    pub(crate) ticket: Ticket,
    /// The name that this device asks for.
    pub(crate) name: Name,
    /// Its kind.
    pub(crate) kind: Kind,
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
    Ended(Ending),
    /// The inviting device did not answer, or went away and did not come back.
    CouldNotReach {
        /// What was tried last.
        reason: String,
    },
}

/// Joins. `ask` shows a person the four words and the other's name, and gives their answer; it runs on
/// a thread of its own.
pub(crate) fn run(
    home: &Home,
    request: JoinRequest,
    ask: impl Fn(&Met) -> bool + Send + Sync + 'static,
) -> Result<JoinOutcome> {
    if home.is_initialised()? {
        bail!(Taken { home: home.path().into() });
    }
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
    let JoinRequest { ticket, name, kind, unasked } = request;
    let addresses: Vec<String> = ticket.addresses.iter().map(ToString::to_string).collect();
    let target = ticket.endpoint;
    let mut joiner =
        Joiner::new(ticket, secret.clone(), name, kind, endpoint, seed()?, clock::now());
    let mut joined_as = None;
    let mut last_error = String::from("it did not answer in time");
    let mut outcome = None;
    let mut secrets = Some(secrets);
    let mut stream: Option<PairStream> = None;
    let (answers, mut answered) = mpsc::channel(1);
    loop {
        while let Some(output) = joiner.poll_output() {
            match output {
                JoinerOutput::Dial => {
                    match pair_dial(endpoint_seed, target, &addresses, DIAL_TIME).await {
                        Ok(dialled) => {
                            let remote = dialled.remote;
                            stream = Some(dialled);
                            joiner.handle_input(JoinerInput::Connected(remote), clock::now());
                        }
                        Err(error) => {
                            tracing::debug!(%error, "the inviting device was not reached");
                            last_error = error.to_string();
                            joiner.handle_input(JoinerInput::Disconnected, clock::now());
                        }
                    }
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
                        Some(secrets) => store(home, &joined, secrets),
                        None => Ok(()),
                    };
                    let input = match stored {
                        Ok(()) => JoinerInput::Stored(Contacts::default()),
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
            return conclude(outcome, joined_as, last_error);
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
            Some(answer) = answered.recv() => {
                joiner.handle_input(JoinerInput::Answer(answer), clock::now());
            }
            () = tokio::time::sleep(sleep) => joiner.handle_timeout(clock::now()),
        }
    }
}

fn conclude(
    outcome: Outcome,
    joined_as: Option<JoinOutcome>,
    last_error: String,
) -> Result<JoinOutcome> {
    Ok(match outcome {
        Outcome::Paired => joined_as.context("paired, and this device is not in the fabric")?,
        Outcome::Refused => JoinOutcome::Ended(Ending::Refused),
        Outcome::Expired => JoinOutcome::Ended(Ending::Expired),
        Outcome::AlreadyUsed => JoinOutcome::Ended(Ending::AlreadyUsed),
        Outcome::CouldNotReach => JoinOutcome::CouldNotReach { reason: last_error },
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
fn store(home: &Home, joined: &Joined, secrets: Secrets) -> Result<()> {
    home.create()?;
    let store = home.open_store(&secrets)?;
    let statements: Vec<_> = joined.graph.statements().cloned().collect();
    let mut writes = membership::store(&statements);
    writes.extend(contacts(joined));
    write(&store, writes)?;
    drop(store);
    home.read_settings()?;
    KeyFile::create(&home.key(), secrets)?;
    Ok(())
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

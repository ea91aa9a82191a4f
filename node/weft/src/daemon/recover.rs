//! `weft recover`: with nothing but the recovery words a machine becomes a device of its fabric.
//!
//! Two walks. [`find`] reaches devices under the key that this machine will have, and is given the
//! fabric's statements by each. A person then decides. [`settle`] says so as the root, writes the
//! home, and only then tells those devices: a home on the disk is a device of the fabric by what the
//! root signed, whoever has heard of it, so nothing is half done at any moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use weft_core::membership;
use weft_net::{
    Reach,
    recovery::{ReachError, TrustStream, reach, resolve, sight},
};
use weft_protocol::{
    codec,
    device::Role,
    frame::FRAME_BYTES_MAX,
    id::{BootId, DeviceId},
    signed::Signed,
    statement::{Name, TrustMessage},
};
use weft_store::key::Secrets;
use weft_trust::{
    author::NewDevice,
    exchange::{self, Exchange},
    graph::Graph,
    recovery::{
        RootSecret,
        fetch::{self, Fetch, FetchError, Fetched},
        speech::{SpeechError, Wish, speak, speak_of},
    },
    secret::DeviceSecret,
};

use super::{clock, home::Home, init::found, newcomer::Newcomer, seed, up};

/// One try to reach a device takes at most so long.
const REACH_TIME: Duration = Duration::from_secs(8);

/// So long the local network is asked for devices.
const SIGHT_TIME: Duration = Duration::from_secs(4);

/// A device that was reached before has so long to take what the root said.
const TELL_TIME: Duration = Duration::from_secs(5);

/// The most devices that are asked.
const ASKED_MAX: usize = 16;

/// Why no fabric was found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    /// No address was given, and this machine may not look around.
    #[error("look for devices: this machine is to be reached from itself only")]
    NowhereToLook,
    /// None is on the local network.
    #[error("find a device of the fabric: none answers on the local network")]
    NobodySighted,
    /// Nobody answered there.
    #[error("reach a device: no answer at {at}")]
    NoAnswer {
        /// Where.
        at: String,
    },
    /// Those that were tried could not be reached, or are none.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// One answered, and not with this fabric.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// A fabric that was found, and the device that this machine is about to be.
#[derive(Debug)]
pub(crate) struct Found {
    /// As all devices that answered have it together.
    pub(crate) fetched: Fetched,
    secrets: Secrets,
    /// Who answered, and where.
    answered: BTreeMap<DeviceId, String>,
}

impl Found {
    /// The name of each device that answered, as the fabric has it.
    pub(crate) fn answered(&self) -> Vec<String> {
        let devices = &self.fetched.graph.state().devices;
        let name =
            |id: &DeviceId| devices.get(id).map_or_else(|| id.short(), |it| it.name.to_string());
        self.answered.keys().map(name).collect()
    }
}

/// What was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Recovered {
    /// This device's name.
    pub(crate) name: Name,
    /// The fabric's name.
    pub(crate) fabric: Name,
    /// The names of the devices that heard of it at once.
    pub(crate) told: Vec<String>,
    /// The names of the devices that are suspended still.
    pub(crate) suspended: Vec<String>,
}

/// Asks the devices at these addresses for the fabric, or those on the local network.
pub(crate) fn find(home: &Home, root: &RootSecret, at: &[String]) -> Result<Found> {
    home.expect_new()?;
    let runtime = runtime()?;
    let found = runtime.block_on(look(root, at));
    runtime.shutdown_timeout(Duration::from_secs(1));
    found
}

/// Says what is wished as the root, adds this machine, writes its home, and tells those who answered.
pub(crate) fn settle(
    home: &Home,
    found_fabric: Found,
    root: &RootSecret,
    newcomer: Newcomer,
    wish: Wish,
) -> Result<Recovered> {
    let Found { fetched, secrets, answered } = found_fabric;
    let device = DeviceSecret::from_seed(&secrets.device_seed);
    let add = NewDevice {
        device: device.id(),
        agreement: device.agreement().public(),
        name: newcomer.name,
        kind: newcomer.kind,
        role: Role::Admin,
        confirmed: true,
    };
    let wish = Wish { add: Some(add), ..wish };
    let speech = speak(root, fetched, &wish, clock::wall(), &mut super::entropy()?)?;
    let statements: Vec<Signed> = speech.graph.statements().cloned().collect();
    let mut writes = membership::store(&statements);
    for (peer, address) in &answered {
        writes.push(membership::remember(peer, &vec![address.clone()]));
    }
    let device_seed = zeroize::Zeroizing::new(secrets.device_seed);
    found(home, secrets, newcomer.kind, newcomer.keys, writes)?;
    let runtime = runtime()?;
    let told = runtime.block_on(tell_all(*device_seed, device.id(), &speech.graph, &answered));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let state = speech.graph.state();
    let name = |id: &DeviceId| state.devices.get(id).map(|it| it.name.to_string());
    Ok(Recovered {
        name: state.devices.get(&device.id()).context("the root added this device")?.name.clone(),
        fabric: state.name.clone(),
        told: told.iter().filter_map(name).collect(),
        suspended: suspended(&speech.graph).into_iter().map(|(_, name)| name.to_string()).collect(),
    })
}

/// The devices that are suspended.
pub(crate) fn suspended(graph: &Graph) -> Vec<(DeviceId, Name)> {
    let devices = graph.state().devices.iter().filter(|(_, device)| device.is_suspended());
    devices.map(|(id, device)| (*id, device.name.clone())).collect()
}

/// What the root says on a device that has the statements: signed here, where the words are, and
/// handed to the node. Gives them, and the graph with them.
pub(crate) fn say(
    root: &RootSecret,
    graph: Graph,
    wish: &Wish,
) -> Result<(Vec<Signed>, Graph), anyhow::Error> {
    let speech = speak_of(root, graph, wish, clock::wall(), &mut super::entropy()?)
        .map_err(|error: SpeechError| anyhow::Error::new(error))?;
    Ok((speech.statements, speech.graph))
}

/// A root that was never seen before.
pub(crate) fn new_root() -> Result<RootSecret> {
    Ok(RootSecret::from_entropy(seed()?))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.context("failed to start the runtime")
}

async fn look(root: &RootSecret, at: &[String]) -> Result<Found> {
    let secrets = Secrets::generate()?;
    let reachable = up::reach();
    let mut last = None;
    let mut fabrics: Vec<Fetched> = Vec::new();
    let mut answered = BTreeMap::new();
    for (place, addresses) in candidates(&secrets, at, reachable, &mut last).await? {
        match ask(&secrets, root, &addresses, reachable).await {
            Ok((peer, address, fetched)) => {
                answered.insert(peer, (address, fetched.graph.fabric()));
                fabrics.push(fetched);
            }
            Err(error) => {
                tracing::debug!(%error, at = place, "a device did not give the fabric");
                let is_silent = matches!(
                    error,
                    FindError::Reach(ReachError::Unreachable { .. } | ReachError::TimedOut)
                );
                let error = if is_silent { FindError::NoAnswer { at: place } } else { error };
                // What answered wrongly says more than what did not answer.
                if !matches!(
                    (&last, &error),
                    (Some(FindError::Fetch(_)), FindError::Reach(_) | FindError::NoAnswer { .. })
                ) {
                    last = Some(error);
                }
            }
        }
    }
    // One that the root vouches for is not to be mixed up with one that it does not.
    let Some(best) = fabrics.iter().position(|it| it.is_vouched).or(fabrics.first().map(|_| 0))
    else {
        bail!(last.unwrap_or(FindError::NobodySighted));
    };
    let fetched = fabrics.swap_remove(best);
    let fabric = fetched.graph.fabric();
    let mut graph = fetched.graph;
    for other in fabrics.iter().filter(|other| other.graph.fabric() == fabric) {
        for signed in other.graph.statements() {
            // What one of them has that makes no sense the others are better without.
            drop(graph.insert(signed.clone()));
        }
    }
    let answered = answered.into_iter().filter(|(_, (_, of))| *of == fabric);
    let answered = answered.map(|(peer, (address, _))| (peer, address)).collect();
    Ok(Found { fetched: fetch::view(graph, root)?, secrets, answered })
}

/// Where each device is that may answer, as a person has it, and the addresses there.
async fn candidates(
    secrets: &Secrets,
    at: &[String],
    reachable: Reach,
    last: &mut Option<FindError>,
) -> Result<Vec<(String, Vec<String>)>> {
    let mut candidates = Vec::new();
    for given in at.iter().take(ASKED_MAX) {
        match resolve(given, reachable).await {
            Ok(addresses) => candidates.push((given.clone(), addresses)),
            Err(error) => *last = Some(error.into()),
        }
    }
    if !at.is_empty() {
        return Ok(candidates);
    }
    match reachable {
        Reach::Loopback => bail!(FindError::NowhereToLook),
        Reach::Lan => {
            let sighted = sight(secrets.device_seed, SIGHT_TIME).await?;
            let place = |addresses: &Vec<String>| addresses.first().cloned().unwrap_or_default();
            Ok(sighted.into_values().take(ASKED_MAX).map(|it| (place(&it), it)).collect())
        }
    }
}

/// Under which start this machine speaks before its first.
fn boot() -> Result<BootId> {
    let [a, b, c, d, e, f, g, h, ..] = seed()?;
    Ok(BootId { counter: 0, random: u64::from_be_bytes([a, b, c, d, e, f, g, h]) })
}

/// Asks one device.
async fn ask(
    secrets: &Secrets,
    root: &RootSecret,
    addresses: &[String],
    reachable: Reach,
) -> Result<(DeviceId, String, Fetched), FindError> {
    let boot = boot().map_err(|error| ReachError::Unreachable { why: error.to_string() })?;
    let mut stream = reach(secrets.device_seed, boot, addresses, reachable, REACH_TIME).await?;
    let (me, peer) = (stream.local, stream.remote);
    let mut machine = Fetch::new(root.clone(), me, peer, clock::now());
    loop {
        while let Some(output) = machine.poll_output() {
            match output {
                fetch::Output::Send(message) => {
                    if stream.send(codec::encode(&message)).await.is_err() {
                        machine.handle_closed();
                    }
                }
                fetch::Output::Ended(how) => return Ok((peer, stream.address.clone(), (*how)?)),
            }
        }
        match receive(&mut stream, machine.poll_timeout().map(|(at, _)| at)).await {
            Received::Message(message) => machine.handle_message(message),
            Received::Closed => machine.handle_closed(),
            Received::Nothing => machine.handle_timeout(clock::now()),
        }
    }
}

/// What came on a stream.
enum Received {
    Message(TrustMessage),
    Closed,
    Nothing,
}

async fn receive(
    stream: &mut TrustStream,
    until: Option<weft_protocol::time::Timestamp>,
) -> Received {
    let now = clock::now().mono;
    let patience = until.map_or(TELL_TIME, |at| at.since(now));
    match tokio::time::timeout(patience, stream.recv()).await {
        Ok(Some(bytes)) => codec::decode::<TrustMessage>(&bytes, FRAME_BYTES_MAX)
            .map_or(Received::Closed, Received::Message),
        Ok(None) => Received::Closed,
        Err(_) => Received::Nothing,
    }
}

/// Tells those who answered; gives who took it. The others hear it from the node.
async fn tell_all(
    device_seed: [u8; 32],
    me: DeviceId,
    graph: &Graph,
    answered: &BTreeMap<DeviceId, String>,
) -> BTreeSet<DeviceId> {
    let mut told = BTreeSet::new();
    for (peer, address) in answered {
        let telling = tell(device_seed, me, *peer, graph.clone(), address);
        if matches!(tokio::time::timeout(TELL_TIME, telling).await, Ok(Ok(true))) {
            told.insert(*peer);
        }
    }
    told
}

/// Makes the graphs equal with one device, as this machine's node would.
async fn tell(
    device_seed: [u8; 32],
    me: DeviceId,
    peer: DeviceId,
    mut graph: Graph,
    address: &str,
) -> Result<bool> {
    let addresses = [address.to_owned()];
    let mut stream = reach(device_seed, boot()?, &addresses, up::reach(), REACH_TIME).await?;
    if stream.remote != peer {
        return Ok(false);
    }
    let mut machine = Exchange::new(me, peer, true, &graph, clock::now());
    loop {
        while let Some(output) = machine.poll_output() {
            match output {
                exchange::Output::Send(message) => {
                    if stream.send(codec::encode(&message)).await.is_err() {
                        return Ok(false);
                    }
                }
                exchange::Output::Learned(statements) => {
                    // The node hears them again, and writes them down.
                    for signed in statements {
                        drop(graph.insert(signed));
                    }
                    machine.handle_input(exchange::Input::Changed, &graph, clock::now());
                }
                exchange::Output::Merged => return Ok(true),
                exchange::Output::SealFor { .. } | exchange::Output::Sealed(_) => {}
                exchange::Output::TurnedAway(_) => return Ok(false),
            }
        }
        match receive(&mut stream, machine.poll_timeout().map(|(at, _)| at)).await {
            Received::Message(message) => {
                machine.handle_input(exchange::Input::Message(message), &graph, clock::now());
            }
            Received::Closed => return Ok(false),
            Received::Nothing => machine.handle_timeout(&graph, clock::now()),
        }
    }
}

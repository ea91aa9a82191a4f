//! A fabric that is made for a measurement: devices that belong together, and the agents they have.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_core::registry::Installed;
use weft_protocol::{
    device::{Kind, Role},
    manifest::Manifest,
    signed::Signed,
    time::{Now, Timestamp, WallTime},
};
use weft_trust::{
    author::{self, Author, NewDevice, NewFabric},
    graph::Graph,
    keyring::Keyring,
    secret::DeviceSecret,
};

/// The manifests of Weft's own agents.
pub(crate) const MANIFESTS: [&str; 5] = [
    include_str!("../../../agents/notes/agent.toml"),
    include_str!("../../../agents/timer/agent.toml"),
    include_str!("../../../agents/docs/agent.toml"),
    include_str!("../../../agents/text/agent.toml"),
    include_str!("../../../agents/llm/agent.toml"),
];

/// The component of the notes.
pub(crate) const NOTES: &[u8] = include_bytes!("../../../agents/dist/notes.wasm");

/// 2026-03-10T09:00:00Z.
const WALL: WallTime = WallTime::from_unix_millis(1_773_133_200_000);

/// A device as it is made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) secret: DeviceSecret,
    /// The statements on its disk: those of all.
    pub(crate) statements: Vec<Signed>,
}

/// Makes a fabric of a laptop and a server.
pub(crate) fn two() -> Result<[Made; 2]> {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let (laptop, server) = (DeviceSecret::from_seed(&[2; 32]), DeviceSecret::from_seed(&[3; 32]));
    let new = NewFabric {
        name: &"home".parse().context("failed to name a fabric")?,
        root: None,
        device: &laptop,
        device_name: &"laptop".parse().context("failed to name a device")?,
        kind: Kind::Laptop,
    };
    let mut graph = Graph::new(author::genesis(new, WALL, &mut rng))?;
    let mut keyring = Keyring::new(laptop.agreement().clone());
    keyring.learn(&graph);
    let new = NewDevice {
        device: server.id(),
        agreement: server.agreement().public(),
        name: "server".parse().context("failed to name a device")?,
        kind: Kind::Server,
        role: Role::Member,
        confirmed: true,
    };
    let add = Author::new(&graph, &keyring, laptop.signing()).add(new, WALL, &mut rng)?;
    graph.insert(add)?;
    let statements: Vec<Signed> = graph.statements().cloned().collect();
    Ok([laptop, server].map(|secret| Made { secret, statements: statements.clone() }))
}

/// The manifests, read.
pub(crate) fn manifests() -> Result<Vec<Manifest>> {
    let read = |text: &&str| Manifest::parse(text).context("failed to read a manifest");
    MANIFESTS.iter().map(read).collect()
}

/// The agents without their components.
pub(crate) fn agents() -> Result<Vec<Installed>> {
    let install = |(manifest, text)| Installed::new(manifest, text, [].as_slice(), true);
    Ok(manifests()?.into_iter().zip(MANIFESTS).map(install).collect())
}

/// Both clocks, of which the monotonic one begins where this does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Now {
        let since = self.0.elapsed();
        let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Now {
            mono: Timestamp::ZERO + since + Duration::from_secs(1),
            wall: WallTime::from_unix_millis(WALL.unix_millis() + millis),
        }
    }
}

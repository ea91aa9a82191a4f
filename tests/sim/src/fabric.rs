//! The fabric before its first second: devices, keys, statements, agents, the words they understand.

use std::sync::LazyLock;

use anyhow::{Context as _, Result};
use weft_core::registry::Installed;
use weft_intent::Catalog;
use weft_protocol::{
    device::{Kind, Role},
    manifest::Manifest,
    signed::Signed,
    time::WallTime,
};
use weft_trust::{
    author::{self, Author, NewDevice, NewFabric},
    graph::Graph,
    keyring::Keyring,
    recovery::RootSecret,
    secret::DeviceSecret,
};

use crate::dice::Dice;

/// The manifests of Weft's own agents, and of two that exist to be difficult.
const MANIFESTS: [&str; 7] = [
    include_str!("../../../agents/docs/agent.toml"),
    include_str!("../../../agents/llm/agent.toml"),
    include_str!("../../../agents/notes/agent.toml"),
    include_str!("../../../agents/text/agent.toml"),
    include_str!("../../../agents/timer/agent.toml"),
    include_str!("../agents/valve.toml"),
    include_str!("../agents/ledger.toml"),
];

/// 2026-03-10T09:00:00Z: when the simulated time begins, by a clock that is right.
pub(crate) const EPOCH_MS: i64 = 1_773_133_200_000;

/// A device as it is made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) secret: DeviceSecret,
    /// The statements on its disk.
    pub(crate) statements: Vec<Signed>,
    /// Whether one is missing.
    pub(crate) lacked_a_statement: bool,
    /// Whether a model answers there.
    pub(crate) model: bool,
}

/// The devices of each fabric: two admins, so that one can put the other out.
const DEVICES: [(&str, Kind, Role); 6] = [
    ("laptop", Kind::Laptop, Role::Admin),
    ("desk", Kind::Laptop, Role::Admin),
    ("phone", Kind::Phone, Role::Member),
    ("server", Kind::Server, Role::Member),
    ("tablet", Kind::Phone, Role::Member),
    ("attic", Kind::Server, Role::Member),
];

/// The devices that may join.
const NEWCOMERS: [(&str, Kind); 3] =
    [("watch", Kind::Phone), ("shed", Kind::Server), ("spare", Kind::Laptop)];

/// What is the same for every world: reading manifests and compiling phrases takes time.
pub(crate) struct Shared {
    pub(crate) agents: Vec<Installed>,
    pub(crate) catalog: Catalog,
}

/// The agents of all nodes.
pub(crate) static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let parsed: Vec<Manifest> = MANIFESTS
        .iter()
        .map(|text| Manifest::parse(text).expect("the manifests of the repository are right"))
        .collect();
    let (catalog, errors) = Catalog::new(&parsed);
    assert!(errors.is_empty(), "a phrase is wrong: {errors:?}");
    let agents = parsed
        .into_iter()
        .zip(MANIFESTS)
        .map(|(manifest, text)| Installed::new(manifest, text, [].as_slice(), true))
        .collect();
    Shared { agents, catalog }
});

/// Makes a fabric of five or six devices. One device may have been added while another was away: it
/// then lacks that statement.
pub(crate) fn make(dice: &mut Dice, root: Option<&RootSecret>) -> Result<Vec<Made>> {
    let count = if dice.chance(30) { 6 } else { 5 };
    let secrets: Vec<DeviceSecret> =
        (0..count).map(|_| DeviceSecret::from_seed(&dice.bytes())).collect();
    let wall = WallTime::from_unix_millis(EPOCH_MS);
    let (first_name, kind, _) = DEVICES[0];
    let genesis = author::genesis(
        NewFabric {
            name: &"home".parse().context("name the fabric")?,
            root,
            device: &secrets[0],
            device_name: &first_name.parse().context("name a device")?,
            kind,
        },
        wall,
        dice.rng(),
    );
    let mut graph = Graph::new(genesis).context("begin a fabric")?;
    let mut keyring = Keyring::new(secrets[0].agreement().clone());
    keyring.learn(&graph);
    for (secret, (name, kind, role)) in secrets.iter().zip(DEVICES).skip(1) {
        let author = Author::new(&graph, &keyring, secrets[0].signing());
        let new = NewDevice {
            device: secret.id(),
            agreement: secret.agreement().public(),
            name: name.parse().context("name a device")?,
            kind,
            role,
            confirmed: true,
        };
        let add = author.add(new, wall, dice.rng()).context("add a device")?;
        graph.insert(add).context("add a device")?;
    }
    let all: Vec<Signed> = graph.statements().cloned().collect();
    let uninformed = dice.chance(40).then(|| 1 + dice.index(count - 2));
    let second_model = dice.chance(50).then(|| dice.index(count));
    Ok(secrets
        .into_iter()
        .zip(DEVICES)
        .enumerate()
        .map(|(at, (secret, (name, kind, _)))| {
            let lacked_a_statement = uninformed == Some(at);
            let known = all.len() - usize::from(lacked_a_statement);
            let statements = all.iter().take(known).cloned().collect();
            let model = name == "server" || second_model == Some(at);
            Made { name, kind, secret, statements, lacked_a_statement, model }
        })
        .collect())
}

/// Makes machines that belong to no fabric yet.
pub(crate) fn newcomers(count: usize, dice: &mut Dice) -> Vec<Made> {
    let made = |(name, kind)| Made {
        name,
        kind,
        secret: DeviceSecret::from_seed(&dice.bytes()),
        statements: Vec::new(),
        lacked_a_statement: false,
        model: false,
    };
    NEWCOMERS.into_iter().take(count).map(made).collect()
}

//! `weft init`: a device key and a fabric.

use anyhow::Result;
use weft_core::membership;
use weft_protocol::{
    device::Kind,
    id::{DeviceId, FabricId},
    row::Durability,
    statement::Name,
};
use weft_store::{
    Batch,
    key::{Secrets, Wrapping},
};
use weft_trust::{
    author::{NewFabric, genesis},
    graph::Graph,
    recovery::{RootSecret, speech::vouch},
    secret::DeviceSecret,
};
use zeroize::Zeroizing;

use super::{clock, home::Home, newcomer::Newcomer};

/// What a fabric begins with.
#[derive(Clone, Debug)]
pub(crate) struct InitRequest {
    /// The first device.
    pub(crate) device: Newcomer,
    /// The fabric's name.
    pub(crate) fabric: Name,
    /// Whether a root key is made: only where somebody can be shown its words.
    pub(crate) with_root: bool,
}

/// What was made.
#[derive(Debug)]
pub(crate) struct InitReport {
    /// The fabric.
    pub(crate) fabric: FabricId,
    /// The device.
    pub(crate) device: DeviceId,
    /// The words of the root key, which is stored nowhere.
    pub(crate) words: Option<Zeroizing<String>>,
}

/// Makes both. `show` is given the words before anything is on the disk, and may refuse.
pub(crate) fn run(
    home: &Home,
    request: &InitRequest,
    show: impl FnOnce(&str) -> Result<()>,
) -> Result<InitReport> {
    home.expect_new()?;
    let mut entropy = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *entropy)?;
    let root = request.with_root.then(|| RootSecret::from_entropy(*entropy));
    let words = root.as_ref().map(RootSecret::words);
    if let Some(words) = &words {
        show(words)?;
    }
    let secrets = Secrets::generate()?;
    let device = DeviceSecret::from_seed(&secrets.device_seed);
    let new = NewFabric {
        name: &request.fabric,
        root: root.as_ref(),
        device: &device,
        device_name: &request.device.name,
        kind: request.device.kind,
    };
    let statement = genesis(new, clock::wall(), &mut super::entropy()?);
    let graph = Graph::new(statement.clone())?;
    let mut statements = vec![statement];
    if let Some(root) = &root {
        // By this its owner knows the fabric again, and no other is taken for it.
        statements.push(vouch(&graph, root, clock::wall())?);
    }
    let Newcomer { kind, keys, .. } = &request.device;
    found(home, secrets, *kind, keys.clone(), membership::store(&statements))?;
    Ok(InitReport { fabric: graph.fabric(), device: device.id(), words })
}

/// Makes a home whose store begins with these rows. The store comes first: a home counts as
/// initialised when its key is there.
pub(super) fn found(
    home: &Home,
    secrets: Secrets,
    kind: Kind,
    keys: Wrapping,
    writes: Vec<weft_protocol::row::Write>,
) -> Result<()> {
    home.create()?;
    home.create_store(&secrets, &writes)?;
    home.settle(secrets, kind, keys)?;
    Ok(())
}

/// Writes a batch and waits until it is on the disk.
pub(super) fn write(
    store: &weft_store::Store,
    writes: Vec<weft_protocol::row::Write>,
) -> Result<()> {
    let (done, outcome) = std::sync::mpsc::sync_channel(1);
    store.writer().submit(Batch { writes, durability: Durability::Synced }, move |result| {
        drop(done.send(result));
    });
    outcome.recv()??;
    Ok(())
}

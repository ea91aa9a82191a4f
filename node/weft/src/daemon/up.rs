//! `weft up`: the node runs until it is told to stop, or to lock itself.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use weft_api::{Door, REQUESTS_WAITING_MAX};
use weft_core::{Context, Node, NodeConfig};
use weft_engine::Rules;
use weft_host::{Host, HostConfig};
use weft_llm::{Llm, LlmConfig, get::Pinned};
use weft_net::{Config, Net, Reach};
use weft_probe::Limits;
use weft_protocol::{
    codec,
    device::Kind,
    id::BootId,
    row::{Row, Table, Write},
};
use weft_store::{Store, key::KeyFile};
use weft_trust::secret::DeviceSecret;
use zeroize::Zeroizing;

use super::{
    anew::{self, Anew},
    clock,
    core::{self, Inboxes, ModelFile, Parts},
    embedded,
    home::{self, Home},
    init::write,
    rotate::{self, Key},
    seed,
};

/// So long what was said of a new key has to reach those who are connected. Whoever misses it hears it from
/// the new key.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How a node ended well.
enum End {
    /// It was told to stop.
    Stopped,
    /// Its keys are to leave this process.
    Lock,
    /// It goes on under another key, which is in the key file.
    Rotated,
}

/// Runs the node in the foreground. Whoever calls has kept others out of this process's memory before
/// the keys were read ([`super::memory`]).
pub(crate) fn run(home: &Home, key: KeyFile, verbose: u8) -> Result<()> {
    let key = Key::new(key);
    loop {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("failed to start the runtime")?;
        let outcome = runtime.block_on(serve(home, &key));
        runtime.shutdown_timeout(Duration::from_secs(2));
        match outcome? {
            End::Stopped => return Ok(()),
            End::Lock => {
                drop(key);
                return Err(anew::begin(home, verbose, Anew::Locked));
            }
            // The process stays, and with it what opens the key file. Nothing but the runtime is as it was;
            // should something of the old key be left in the memory, it opens nothing any more.
            End::Rotated => {}
        }
    }
}

async fn serve(home: &Home, key: &Key) -> Result<End> {
    let door = Door::open(home.path())?;
    let store = Arc::new(home.open_store(key.file().secrets())?);
    rotate::settle(&mut key.file(), store.as_ref())?;
    let (seed_now, cache_key, keeping) = {
        let file = key.file();
        let secrets = file.secrets();
        let store_key = secrets.store_key.as_bytes();
        let cache_key = blake3::derive_key("weft compiled agents v1", store_key);
        (Zeroizing::new(secrets.device_seed), cache_key, file.keeping())
    };
    let settings = home.read_settings()?;
    let boot = next_boot(&store)?;
    let rules = Rules::embedded()?;
    let config = NodeConfig {
        secret: DeviceSecret::from_seed(&seed_now),
        boot,
        seed: seed()?,
        agents: embedded::agents()?,
    };
    let context = Context { now: clock::now(), rows: store.as_ref(), policy: &rules };
    let node = Node::start(config, context)?;
    let reach = reach();
    let (net, net_events) = Net::start(Config {
        seed: *seed_now,
        boot,
        reach,
        mdns: reach == Reach::Lan,
        port: settings.port,
    })
    .await?;
    let kind = node.membership().subject(&node.me()).map_or(Kind::Laptop, |me| me.kind);
    let limits = Limits::of(kind);
    let model = model_file(home);
    let config = LlmConfig::new(&model.path);
    let llm = Llm::new(LlmConfig {
        idle_after: limits.model_idle,
        threads: config.threads.min(limits.model_threads_max),
        ..config
    });
    let host = Host::new(HostConfig {
        program: None,
        cache: home.cache(),
        cache_key,
        idle_after: limits.agent_idle,
    });
    let (door_inputs, doors) = mpsc::channel(REQUESTS_WAITING_MAX);
    let (stop, stop_inbox) = mpsc::channel(1);
    let (lock, mut lock_inbox) = mpsc::channel(1);
    let (rotated, mut rotated_inbox) = mpsc::channel(1);
    let parts = Parts {
        node,
        rules,
        store,
        net,
        host,
        llm: llm.clone(),
        model,
        reach,
        keys: home::keys(keeping),
        lock,
        key: key.clone(),
        rotated,
        handle: tokio::runtime::Handle::current(),
    };
    let inboxes = Inboxes { doors, net: net_events, stop: stop_inbox };
    let core = std::thread::Builder::new()
        .name("core".into())
        .spawn(move || -> Result<Arc<Store>> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            Ok(runtime.block_on(core::run(parts, inboxes)))
        })
        .context("failed to start the node's thread")?;
    let serving = tokio::spawn(weft_api::serve(door, door_inputs));
    tracing::info!("the node is up");
    crate::cli::complain(&format!("weft is up in {}", home.path().display()));
    let end = wait_for_end(&core, &mut lock_inbox, &mut rotated_inbox).await?;
    drop(stop);
    let store = tokio::task::spawn_blocking(move || core.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the node's thread panicked"))??;
    serving.abort();
    llm.unload().await;
    // Where somebody still reads, what is acknowledged is on the disk all the same.
    if let Ok(store) = Arc::try_unwrap(store) {
        store.close()?;
    }
    Ok(end)
}

/// Waits for Ctrl-C, for the system's word to end, for a door's to lock, or for the core's own end.
async fn wait_for_end<T>(
    core: &std::thread::JoinHandle<T>,
    lock: &mut mpsc::Receiver<()>,
    rotated: &mut mpsc::Receiver<()>,
) -> Result<End> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut look = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(End::Stopped),
            _ = terminate.recv() => return Ok(End::Stopped),
            Some(()) = lock.recv() => return Ok(End::Lock),
            Some(()) = rotated.recv() => {
                tokio::time::sleep(LAST_WORDS).await;
                return Ok(End::Rotated);
            }
            _ = look.tick() => {
                if core.is_finished() {
                    return Ok(End::Stopped);
                }
            }
        }
    }
}

/// Counts this start, on the disk before anything is sent.
fn next_boot(store: &Store) -> Result<BootId> {
    let row = Row::named(Table::Node, &[], b"boot");
    let last = match store.get(&row)? {
        Some(bytes) => codec::decode::<BootId>(&bytes, 64)?.counter,
        None => 0,
    };
    let [a, b, c, d, e, f, g, h, ..] = seed()?;
    let random = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let boot = BootId { counter: last + 1, random };
    write(store, vec![Write::Put(row, codec::encode(&boot))])?;
    Ok(boot)
}

/// How far the node reaches: `WEFT_LISTEN=loopback` keeps it on this machine.
pub(super) fn reach() -> Reach {
    match std::env::var("WEFT_LISTEN").as_deref() {
        Ok("loopback") => Reach::Loopback,
        Ok(_) | Err(_) => Reach::Lan,
    }
}

fn model_file(home: &Home) -> ModelFile {
    let pinned = Pinned::default_model();
    let path = home.models().join(&pinned.name);
    let name = pinned.name.trim_end_matches(".gguf").to_owned();
    ModelFile { name, path }
}

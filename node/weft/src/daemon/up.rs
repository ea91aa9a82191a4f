//! `weft up`: the node runs until it is told to stop, or to lock itself.

use std::{convert::Infallible, ffi::OsString, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};
use weft_api::{Door, REQUESTS_WAITING_MAX};
use weft_core::{Bounds, Context, Node, NodeConfig};
use weft_engine::Rules;
use weft_host::{Host, HostBounds, HostConfig};
use weft_llm::{Llm, LlmConfig, get::Pinned};
use weft_net::{Config, Net, Reach};
use weft_probe::Limits;
use weft_protocol::{
    codec,
    device::Kind,
    id::BootId,
    row::{Row, Table, Write},
};
use weft_store::{Store, WriteError, key::KeyFile};
use weft_trust::secret::DeviceSecret;
use zeroize::Zeroizing;

use super::{
    anew::{self, Anew, Told},
    clock,
    core::{self, Inboxes, ModelFile, Parts},
    embedded,
    home::{self, Home, Settings},
    init::write,
    machine::Readings,
    pages::Pages,
    rotate::{self, Key},
    seed, speeds,
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
pub(crate) fn run(home: &Home, key: KeyFile, told: Told) -> Result<()> {
    let pages = Pages::at_start();
    let key = Key::new(key);
    loop {
        let settings = home.read_settings()?;
        let runtime = runtime(early_limits(&settings).workers)?;
        let outcome = runtime.block_on(serve(home, &settings, &key, told, pages.clone()));
        runtime.shutdown_timeout(Duration::from_secs(2));
        match outcome? {
            End::Stopped => return Ok(()),
            End::Lock => {
                drop(key);
                return Err(anew::begin(home, told, Anew::Locked));
            }
            // The process stays, and with it what opens the key file. Nothing but the runtime is as it was;
            // should something of the old key be left in the memory, it opens nothing any more.
            End::Rotated => {}
        }
    }
}

fn runtime(workers: usize) -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // What blocks has a thread of its own.
        .worker_threads(workers)
        .enable_all()
        .build()
        .context("failed to start the runtime")
}

/// What the device may spend, as far as it can be known before its store is open.
fn early_limits(settings: &Settings) -> Limits {
    Limits::of(settings.kind().unwrap_or(Kind::Laptop))
}

async fn serve(
    home: &Home,
    settings: &Settings,
    key: &Key,
    told: Told,
    pages: Pages,
) -> Result<End> {
    let door = Door::open(home.path())?;
    let cache_bytes = early_limits(settings).store_cache_bytes;
    let store = Arc::new(home.open_store(key.file().secrets(), cache_bytes)?);
    rotate::settle(&mut key.file(), store.as_ref())?;
    let (seed_now, cache_key, keeping) = {
        let file = key.file();
        let secrets = file.secrets();
        let store_key = secrets.store_key.as_bytes();
        let cache_key = blake3::derive_key("weft compiled agents v1", store_key);
        (Zeroizing::new(secrets.device_seed), cache_key, file.keeping())
    };
    let boot = next_boot(&store)?;
    let wall_failure = weft_wall::ask().err().map(|error| format!("failed to {error}"));
    let rules = Rules::embedded()?;
    let config = NodeConfig {
        secret: DeviceSecret::from_seed(&seed_now),
        boot,
        seed: seed()?,
        agents: embedded::agents(wall_failure.is_none())?,
    };
    let context = Context { now: clock::now(), rows: store.as_ref(), policy: &rules };
    let mut node = Node::start(config, context)?;
    let kind = node.membership().subject(&node.me()).map_or(Kind::Laptop, |me| me.kind);
    if settings.kind() != Some(kind) {
        home.write_settings(&settings.clone().with_kind(kind))?;
    }
    let limits = Limits::of(kind);
    node.bound(Bounds {
        agents_running_max: limits.agents_running_max,
        documents_loaded_max: limits.documents_loaded_max,
    });
    let reach = reach();
    let (net, net_events) = Net::start(Config {
        seed: *seed_now,
        boot,
        reach,
        mdns: reach == Reach::Lan,
        port: settings.port,
        upnp: limits.upnp && asks_router(),
        relays: limits.relay,
        announce: settings.announce.clone(),
    })
    .await?;
    let model = model_file(home);
    let config = LlmConfig::new(&model.path);
    let llm = Llm::new(LlmConfig {
        idle_after: limits.model_idle,
        threads: config.threads.min(limits.model_threads_max),
        context_tokens: limits.model_context_tokens_max,
        measured: speeds::read(&store, &model)?,
        ..config
    });
    let host = Host::new(HostConfig {
        program: None,
        cache: home.cache(),
        cache_key,
        idle_after: limits.agent_idle,
        bounds: HostBounds {
            children_max: limits.agents_alive_max,
            memory_mib_max: limits.agent_memory_mib_max,
            cache_bytes_max: limits.code_cache_bytes_max,
        },
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
        readings: Readings::new(home.path().to_owned(), told.metered.unwrap_or(settings.metered)),
        wall_failure,
        pages,
        rests_apart: limits.rests_apart,
        reach,
        keys: home::keys(keeping),
        lock,
        key: key.clone(),
        rotated,
        handle: tokio::runtime::Handle::current(),
    };
    let inboxes = Inboxes { doors, net: net_events, stop: stop_inbox };
    let (alive, ended) = oneshot::channel();
    let core = std::thread::Builder::new()
        .name("core".into())
        .spawn(move || -> Result<Arc<Store>> {
            // Dropped with the thread, however that ends.
            let _alive = alive;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            Ok(runtime.block_on(core::run(parts, inboxes)))
        })
        .context("failed to start the node's thread")?;
    let serving = tokio::spawn(weft_api::serve(door, door_inputs));
    tracing::info!("the node is up");
    crate::cli::complain(&format!("weft is up in {}", home.path().display()));
    let end = wait_for_end(ended, &mut lock_inbox, &mut rotated_inbox).await?;
    drop(stop);
    let store = tokio::task::spawn_blocking(move || core.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the node's thread panicked"))??;
    serving.abort();
    llm.unload().await;
    // Where somebody still reads, what is acknowledged is on the disk all the same.
    if let Ok(store) = Arc::try_unwrap(store) {
        store.close().map_err(Unwritten)?;
    }
    Ok(end)
}

/// The node stopped as it was told, and had stopped writing before.
#[derive(Debug, thiserror::Error)]
#[error("the node has stopped; what came after its store failed was not written")]
pub(crate) struct Unwritten(#[source] pub(crate) WriteError);

/// Waits for Ctrl-C, for the system's word to end, for a door's to lock, or for the core's own end.
async fn wait_for_end(
    mut core_ended: oneshot::Receiver<Infallible>,
    lock: &mut mpsc::Receiver<()>,
    rotated: &mut mpsc::Receiver<()>,
) -> Result<End> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => Ok(End::Stopped),
        _ = terminate.recv() => Ok(End::Stopped),
        Some(()) = lock.recv() => Ok(End::Lock),
        Some(()) = rotated.recv() => {
            tokio::time::sleep(LAST_WORDS).await;
            Ok(End::Rotated)
        }
        _ = &mut core_ended => Ok(End::Stopped),
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

/// A variable of the environment by which a person keeps the node to itself.
struct Variable {
    name: &'static str,
    words: &'static [&'static str],
    /// What holds without it.
    unset: &'static str,
}

const LISTEN: Variable =
    Variable { name: "WEFT_LISTEN", words: &["loopback"], unset: "other machines reach this node" };

const UPNP: Variable = Variable {
    name: "WEFT_UPNP",
    words: &["on", "off"],
    unset: "a router is asked where this kind of device does so",
};

/// A variable of the environment has a word that it does not take.
#[derive(Debug, thiserror::Error)]
#[error("{name}={word:?} is not known")]
pub(crate) struct UnknownWord {
    name: &'static str,
    word: String,
    words: &'static [&'static str],
    unset: &'static str,
}

impl UnknownWord {
    /// The words that are known.
    pub(crate) fn remedy(&self) -> String {
        format!("{} is {}; without it {}", self.name, self.words.join(" or "), self.unset)
    }
}

impl Variable {
    /// Its word in the environment; `None`: none, or an empty one.
    fn word(&self) -> Result<Option<&'static str>, UnknownWord> {
        self.read(std::env::var_os(self.name))
    }

    fn read(&self, set: Option<OsString>) -> Result<Option<&'static str>, UnknownWord> {
        let Some(set) = set.filter(|set| !set.is_empty()) else { return Ok(None) };
        let known = self.words.iter().find(|word| set == **word);
        known.copied().map(Some).ok_or_else(|| UnknownWord {
            name: self.name,
            word: set.to_string_lossy().into_owned(),
            words: self.words,
            unset: self.unset,
        })
    }
}

/// Refuses words of the environment that mean nothing, before anything relies on them.
///
/// # Errors
///
/// The first such word.
pub(crate) fn check_environment() -> Result<(), UnknownWord> {
    LISTEN.word()?;
    UPNP.word()?;
    Ok(())
}

/// How far the node reaches: `WEFT_LISTEN=loopback` keeps it on this machine. So does a word that is not
/// known, which [`check_environment`] refuses.
pub(crate) fn reach() -> Reach {
    match LISTEN.word() {
        Ok(None) => Reach::Lan,
        Ok(Some(_)) | Err(_) => Reach::Loopback,
    }
}

/// Whether a router may be asked to pass a port on: not by `WEFT_UPNP=off`, or a word that is not known.
fn asks_router() -> bool {
    UPNP.word().is_ok_and(|word| word != Some("off"))
}

fn model_file(home: &Home) -> ModelFile {
    let pinned = Pinned::default_model();
    let path = home.models().join(&pinned.name);
    let name = pinned.name.trim_end_matches(".gguf").to_owned();
    ModelFile { name, path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_not_known_is_refused_and_the_known_are_named() {
        let read = |variable: &Variable, word: &str| variable.read(Some(word.into()));
        for variable in [LISTEN, UPNP] {
            assert_eq!(variable.read(None).unwrap(), None);
            assert_eq!(read(&variable, "").unwrap(), None);
            for word in variable.words {
                assert_eq!(read(&variable, word).unwrap(), Some(*word));
            }
        }
        let listen = read(&LISTEN, "looopback").unwrap_err();
        assert_eq!(listen.to_string(), "WEFT_LISTEN=\"looopback\" is not known");
        assert!(listen.remedy().starts_with("WEFT_LISTEN is loopback;"), "{}", listen.remedy());
        let upnp = read(&UPNP, "maybe").unwrap_err().remedy();
        assert!(upnp.starts_with("WEFT_UPNP is on or off;"), "{upnp}");
        assert!(read(&UPNP, "OFF").is_err());
    }

    #[test]
    fn a_node_is_laid_out_for_its_kind_before_its_store_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Home::new(folder.path()).read_settings().unwrap();
        assert_eq!(early_limits(&settings), Limits::of(Kind::Laptop), "none is known yet");
        for kind in [Kind::Laptop, Kind::Phone, Kind::Server] {
            let limits = early_limits(&settings.clone().with_kind(kind));
            assert_eq!(limits, Limits::of(kind));
            let runtime = runtime(limits.workers).unwrap();
            assert_eq!(runtime.metrics().num_workers(), limits.workers, "{kind}");
        }
    }
}

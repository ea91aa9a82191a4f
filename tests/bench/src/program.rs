//! The real program: nodes in homes of their own, reached on loopback and through their sockets.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use weft_api::Client;
use weft_core::{
    membership::Membership,
    replica::{Context, Edit, Input, Replica},
};
use weft_netns::Plug;
use weft_protocol::{
    document::{DocumentKind, StartNonce},
    id::DocumentId,
    row::Durability,
    time::{Now, Timestamp, WallTime},
    value::Value as Content,
};
use weft_store::{Store, key::KeyFile};
use weft_trust::secret::DeviceSecret;

use crate::{member, process};

/// How long a node has until it answers, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program: `WEFT_BIN`, else the one beside this.
pub(crate) fn find() -> Result<PathBuf> {
    let named = env::var_os("WEFT_BIN").map(PathBuf::from);
    let beside = || Some(env::current_exe().ok()?.parent()?.join("weft"));
    let found = named.or_else(beside).filter(|path| path.is_file());
    let found = found.context("failed to find the program: build `weft`, or set WEFT_BIN")?;
    Ok(found.canonicalize()?)
}

/// Homes of one fabric, and the nodes that run in them. Dropping it ends them.
pub(crate) struct Homes {
    program: PathBuf,
    folder: TempDir,
    nodes: Vec<(String, Child)>,
    /// The places of those that are not on loopback.
    places: BTreeMap<String, Rc<Plug>>,
    runtime: Runtime,
}

impl Homes {
    pub(crate) fn new(program: PathBuf) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let folder = tempfile::Builder::new().prefix("weft-").tempdir()?;
        Ok(Self { program, folder, nodes: Vec::new(), places: BTreeMap::new(), runtime })
    }

    /// Puts devices into places of a network, by the places' names.
    pub(crate) fn placed(mut self, places: &[&Rc<Plug>]) -> Self {
        self.places = places.iter().map(|it| (it.name().to_owned(), Rc::clone(it))).collect();
        self
    }

    /// The program in a home, before its words.
    pub(crate) fn command(&self, device: &str) -> Command {
        let place = self.places.get(device);
        let mut command =
            place.map_or_else(|| Command::new(&self.program), |it| it.command(&self.program));
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .arg("--home")
            .arg(self.folder.path().join(device));
        if place.is_none() {
            command.env("WEFT_LISTEN", "loopback");
        }
        command
    }

    /// Types a command, and gives what it printed.
    pub(crate) fn weft(&self, device: &str, words: &[&str]) -> Result<String> {
        let Output { status, stdout, stderr } = self.command(device).args(words).output()?;
        ensure!(
            status.success(),
            "`weft {}` on the {device} ended with {status}: {}",
            words.join(" "),
            String::from_utf8_lossy(&stderr)
        );
        Ok(String::from_utf8(stdout)?)
    }

    /// Begins a fabric whose laptop has so many notes.
    pub(crate) fn init(&self, notes: usize) -> Result<()> {
        let words = ["init", "--name", "laptop", "--kind", "laptop", "--key", "file"];
        self.weft("laptop", &words)?;
        write_notes(&self.folder.path().join("laptop"), notes)
    }

    /// Lets another device join through the running laptop, and starts it.
    pub(crate) fn join(&mut self, device: &str) -> Result<()> {
        let invited: Value =
            serde_json::from_str(&self.weft("laptop", &["invite", "--yes", "--json"])?)?;
        let ticket = invited["ticket"].as_str().context("an invitation without a ticket")?;
        let named = ["--name", device, "--kind", device, "--yes", "--key", "file"];
        self.weft(device, &[&["join", ticket][..], &named].concat())?;
        self.up(device).map(drop)
    }

    /// Starts a node, and gives how long it took to answer.
    pub(crate) fn up(&mut self, device: &str) -> Result<Duration> {
        let home = self.folder.path().join(device);
        let log = fs::File::create(self.folder.path().join(format!("{device}.log")))?;
        let start = Instant::now();
        let node = self.command(device).arg("up").stdout(Stdio::null()).stderr(log).spawn()?;
        self.nodes.push((device.to_owned(), node));
        loop {
            match self.runtime.block_on(status(&home)) {
                Ok(_) => return Ok(start.elapsed()),
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                // A socket is tried in less than this.
                Err(_) => thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// What a node says of itself.
    pub(crate) fn status(&self, device: &str) -> Result<Value> {
        self.runtime.block_on(status(&self.folder.path().join(device)))
    }

    /// Waits until a node's status is as wanted.
    pub(crate) fn wait(&self, device: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            let status = self.status(device)?;
            if wanted(&status) {
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "the {device} did not come to rest: {status}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The process of a device's node.
    pub(crate) fn process(&self, device: &str) -> Result<u32> {
        let node = self.nodes.iter().find(|(of, _)| of == device);
        Ok(node.with_context(|| format!("the {device} does not run"))?.1.id())
    }

    /// Ends the node that was started last.
    pub(crate) fn stop_last(&mut self) -> Result<()> {
        let (_, mut node) = self.nodes.pop().context("no node runs")?;
        process::end(&mut node)
    }
}

impl Drop for Homes {
    fn drop(&mut self) {
        for (_, node) in &mut self.nodes {
            // It may have ended by itself.
            node.kill().ok();
            node.wait().ok();
        }
    }
}

async fn status(home: &Path) -> Result<Value> {
    let mut client = Client::connect(home).await?;
    match client.get(json!({"ask": "status"})).await? {
        Ok(status) => Ok(status),
        Err(problem) => bail!("a node has no status: {}", problem.message),
    }
}

/// Writes notes into a home whose node does not run, as that node would.
fn write_notes(home: &Path, count: usize) -> Result<()> {
    let key = KeyFile::load(&home.join("key"))?;
    let secrets = key.secrets();
    let store = Store::open(&home.join("store.redb"), &secrets.store_key)?;
    let secret = DeviceSecret::from_seed(&secrets.device_seed);
    let signing = secret.signing().clone();
    let members = Membership::open(secret, ChaCha20Rng::from_seed([9; 32]), &store)?;
    let start = StartNonce([9; 16]);
    let mut replica = Replica::new(signing, &members.fabric(), start, &store)?;
    let wall = WallTime::from_unix_millis(1_773_133_200_000);
    let now = Now { mono: Timestamp::ZERO, wall };
    let numbers: Vec<u64> = (0..).take(count).collect();
    for some in numbers.chunks(100) {
        let edits = some.iter().map(|number| {
            let mut id = [0; 16];
            id.copy_from_slice(&blake3::hash(&number.to_be_bytes()).as_bytes()[..16]);
            let text = Content::from(format!("note number {number}"));
            let content = Content::map([("text", text)]);
            Edit::Create { id: DocumentId::from_bytes(id), kind: DocumentKind::NOTE, content }
        });
        let context = Context { now, rows: &store, members: &members };
        let prepared = replica.prepare(edits.collect(), &context)?;
        member::write(&store, prepared.writes, Durability::Ordered)?;
        let context = Context { now, rows: &store, members: &members };
        replica.handle_input(Input::Persisted(prepared.ticket), &context);
        while replica.poll_output().is_some() {}
    }
    store.close()?;
    Ok(())
}

//! What the three rows of agents share: a desk at which one step is decided, recorded and run.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use ed25519_dalek::SigningKey;
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::mpsc};
use weft_core::audit::Chain;
use weft_engine::Rules;
use weft_host::{Host, HostBounds, HostConfig, HostRequest, Task};
use weft_protocol::{
    audit::{Body, Ending, Touched},
    decision::{Actor, Decision, Point, Policy as _, Question, Subject},
    device::{Kind, Role},
    id::{BootId, DeviceId, Digest, RunId, SegmentId},
    manifest::{EffectClass, Manifest, package_digest},
    row::{Durability, MemoryRows, Write},
    signed::{Domain, Signed},
    time::WallTime,
    value::Value,
};
use weft_store::{Batch, Store, key::StoreKey};

use crate::{fabric, member};

/// Bytes of one message on the socket that is compared with.
const MESSAGE_BYTES: usize = 256;

/// How long a child waits for its next step; longer than any measurement between two.
const IDLE_AFTER: Duration = Duration::from_secs(600);

/// The capability that is measured. It asks the node once for the list of documents.
pub(super) const CAPABILITY: &str = "notes.list";

/// Everything that a step passes.
pub(super) struct Desk {
    pub(super) runtime: Runtime,
    host: Host,
    rules: Rules,
    chain: Chain,
    key: SigningKey,
    store: Store,
    task: Task,
    question: Question,
    calls: mpsc::Sender<HostRequest>,
    folder: TempDir,
}

impl Desk {
    /// Compiles the component, so that later steps find it in the cache.
    pub(super) fn new() -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let folder = tempfile::tempdir().context("failed to make a folder")?;
        let store = Store::open(&folder.path().join("store.redb"), &StoreKey::from([5; 32]))?;
        let key = SigningKey::from_bytes(&[4; 32]);
        let segment = SegmentId::from_bytes([1; 16]);
        let mut chain = Chain::open(key.clone(), segment, &MemoryRows::default())?;
        let writes = chain.start(BootId { counter: 1, random: 1 }, WALL);
        member::write(&store, writes, Durability::Synced)?;
        let manifest = Manifest::parse(fabric::MANIFESTS[0])?;
        let task = task(&manifest)?;
        let question = question(&manifest, task.package)?;
        let host = host(&folder);
        let calls = answering(&runtime);
        let desk = Self {
            host,
            rules: Rules::embedded()?,
            chain,
            key,
            store,
            task,
            question,
            calls,
            folder,
            runtime,
        };
        desk.step()?;
        Ok(desk)
    }

    /// A step in a child that waits for one.
    pub(super) fn step(&self) -> Result<Value> {
        let run = self.host.run(self.task.clone(), self.calls.clone());
        Ok(self.runtime.block_on(run)?)
    }

    /// A host without any child, and a step in the one that it must start.
    pub(super) fn cold(&self) -> impl FnOnce() -> Result<Value> + '_ {
        let host = host(&self.folder);
        move || {
            let step = host.run(self.task.clone(), self.calls.clone());
            Ok(self.runtime.block_on(step)?)
        }
    }

    /// Decided, recorded, run, recorded, answered.
    pub(super) fn serve(&mut self, durability: Durability) -> Result<()> {
        let decision = self.rules.decide(&self.question);
        anyhow::ensure!(decision.allows(), "the step is denied: {}", decision.reason);
        let intent = intent(&self.question, decision, self.rules.digest());
        let (intent, writes) = self.chain.append(intent, WALL);
        self.write(writes, durability)?;
        let output = self.step()?;
        let outcome = Body::Outcome {
            intent,
            ending: Ending::Done,
            output: Some(Digest::of(output.to_string().as_bytes())),
            reads: Touched::NONE,
            writes: Touched::NONE,
        };
        let (_, writes) = self.chain.append(outcome, WALL);
        self.write(writes, Durability::Ordered)
    }

    /// Waits for a synced batch; an ordered one counts when it has its place.
    fn write(&self, writes: Vec<Write>, durability: Durability) -> Result<()> {
        match durability {
            Durability::Synced => member::write(&self.store, writes, durability),
            Durability::Ordered => {
                let batch = Batch { writes, durability };
                Ok(self.runtime.block_on(self.store.writer().write(batch))?)
            }
        }
    }

    /// Two signatures of records, as the audit makes them for a step.
    pub(super) fn sign_twice(&self) {
        for number in 0..2 {
            let body = Body::Strangers { count: number };
            std::hint::black_box(Signed::new(Domain::Audit, &body, &self.key));
        }
    }
}

const WALL: WallTime = WallTime::from_unix_millis(1_773_133_200_000);

/// A host whose children are this very program.
fn host(folder: &TempDir) -> Host {
    Host::new(HostConfig {
        program: None,
        cache: folder.path().join("cache"),
        cache_key: [7; 32],
        idle_after: IDLE_AFTER,
        bounds: HostBounds::default(),
    })
}

/// A node that has no documents.
fn answering(runtime: &Runtime) -> mpsc::Sender<HostRequest> {
    let (calls, mut requests) = mpsc::channel::<HostRequest>(1);
    runtime.spawn(async move {
        while let Some(HostRequest { reply, .. }) = requests.recv().await {
            // A step that has ended does not want to know.
            drop(reply.send(Ok(Value::List(Vec::new()))));
        }
    });
    calls
}

fn task(manifest: &Manifest) -> Result<Task> {
    Ok(Task {
        package: package_digest(fabric::MANIFESTS[0], fabric::NOTES),
        component: fabric::NOTES.into(),
        permissions: manifest.permissions.clone(),
        calls_granted: false,
        capability: CAPABILITY.parse().context("failed to name a capability")?,
        arguments: Value::map::<&str>([]),
        files: std::collections::BTreeMap::new(),
        deadline: Duration::from_secs(120),
    })
}

/// What the rules are asked before the step.
pub(super) fn question(manifest: &Manifest, package: Digest) -> Result<Question> {
    let subject = |number: u8, name: &str, kind, role| Subject {
        id: DeviceId::from_bytes([number; 32]),
        name: name.into(),
        kind,
        role,
    };
    Ok(Question {
        point: Point::Executor,
        run: RunId::from_bytes([6; 16]),
        step: weft_protocol::graph::StepIndex(1).into(),
        capability: CAPABILITY.parse().context("failed to name a capability")?,
        effect: EffectClass::ReadOnly,
        arguments: Value::map::<&str>([]),
        labels: Vec::new(),
        agent: Actor {
            name: manifest.name.clone(),
            digest: package,
            embedded: true,
            documents_read: manifest.permissions.documents_read.clone(),
            documents_write: manifest.permissions.documents_write.clone(),
            timers: manifest.permissions.timers,
            calls: Vec::new(),
        },
        owner: subject(1, "laptop", Kind::Laptop, Role::Admin),
        executor: subject(2, "server", Kind::Server, Role::Member),
        call: None,
        now: WALL,
    })
}

/// The record that stands before the step.
pub(super) fn intent(question: &Question, decision: Decision, policy: Digest) -> Body {
    Body::Intent {
        point: question.point,
        run: question.run,
        step: question.step.clone(),
        device: question.owner.id,
        agent: question.agent.digest,
        capability: question.capability.clone(),
        input: Digest::of(b"the arguments"),
        decision,
        policy,
        owner: question.owner.id,
    }
}

/// A Unix socket with a thread at its other end that says everything back.
pub(super) struct Echo {
    near: UnixStream,
}

impl Echo {
    pub(super) fn new() -> Result<Self> {
        let (near, mut far) = UnixStream::pair().context("failed to make a socket")?;
        // It ends when the near end is closed.
        thread::spawn(move || {
            let mut buffer = [0; MESSAGE_BYTES];
            while far.read_exact(&mut buffer).and_then(|()| far.write_all(&buffer)).is_ok() {}
        });
        Ok(Self { near })
    }

    /// There and back.
    pub(super) fn round_trip(&mut self) -> Result<()> {
        let mut buffer = [7; MESSAGE_BYTES];
        self.near.write_all(&buffer)?;
        self.near.read_exact(&mut buffer).context("failed to hear an echo")
    }
}

//! The node's side: children, their runs, and the calls that come out of them.

mod process;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use weft_protocol::{
    codec,
    host_call::{HOST_CALL_BYTES_MAX, HostCall, HostError, Refusal},
    id::Digest,
    manifest::{CapabilityName, Permissions},
    value::Value,
};

use crate::{
    cache::Cache,
    engine,
    error::{AgentError, Stop},
    grant::{self, Grants},
    message::{FROM_AGENT_BYTES_MAX, FromAgent, FromCompiler, HANDED_BYTES_MAX, ToAgent},
};
use process::Process;

/// Host calls of one step. Each costs a crossing and a decision; an agent that needs more is a loop.
const CALLS_MAX: u32 = 10_000;

/// Log lines of one step; later ones are dropped.
const LINES_MAX: u32 = 1_000;

/// The longest compilation. An agent of ours takes a second or two; one in JavaScript twenty.
const COMPILE_MAX: Duration = Duration::from_secs(120);

/// How much of the machine all agents together get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostBounds {
    /// Children that live at once, at least 1: some 20 MiB each.
    pub children_max: usize,
    /// The most guest memory of one child, in MiB, whatever its manifest asks for.
    pub memory_mib_max: u32,
    /// The most bytes of compiled code on the disk; what was not used for longest goes first.
    pub cache_bytes_max: u64,
}

impl Default for HostBounds {
    /// More children than a device runs steps side by side, no bound on memory beside the manifest's,
    /// and compiled code of a hundred agents.
    fn default() -> Self {
        Self { children_max: 32, memory_mib_max: u32::MAX, cache_bytes_max: 256 << 20 }
    }
}

/// How agents are run on this device.
#[derive(Clone)]
pub struct HostConfig {
    /// The program whose `main` calls [`crate::run_child`]; the running one where none is named.
    pub program: Option<PathBuf>,
    /// The folder of compiled code.
    pub cache: PathBuf,
    /// The device's own key, under which compiled code is known as its own.
    pub cache_key: [u8; 32],
    /// How long a child waits for its next run before it ends.
    pub idle_after: Duration,
    /// How much of the machine they get.
    pub bounds: HostBounds,
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConfig")
            .field("program", &self.program)
            .field("cache", &self.cache)
            .field("idle_after", &self.idle_after)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// One step of an agent.
#[derive(Clone, Debug)]
pub struct Task {
    /// The agent's package. Children are never shared between packages.
    pub package: Digest,
    /// The component's bytes.
    pub component: Bytes,
    /// What the manifest was granted.
    pub permissions: Permissions,
    /// Whether the manifest names capabilities under `calls`. Which it may call is the node's to check.
    pub calls_granted: bool,
    /// What to run.
    pub capability: CapabilityName,
    /// A map of arguments. Where a file is handed over, its name stands here.
    pub arguments: Value,
    /// Bytes of files by the name of their argument.
    pub files: BTreeMap<String, Vec<u8>>,
    /// How long the step may take, waiting in host calls included, compiling not.
    pub deadline: Duration,
}

/// A call out of the sandbox. Without a reply the agent is told that the run was cancelled.
#[derive(Debug)]
pub struct HostRequest {
    /// What the agent asks.
    pub call: HostCall,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Value, HostError>>,
}

/// Runs agents. Cheap to clone; when the last clone is dropped, idle children end.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: HostConfig,
    cache: Cache,
    /// One compilation at a time: it takes a processor for itself.
    compiling: tokio::sync::Mutex<()>,
    compatibility: tokio::sync::OnceCell<Digest>,
    children: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// Children that wait for their next run.
#[derive(Debug, Default)]
struct Idle {
    /// The one that waits for the shortest time stands last, and is taken first.
    waiting: BTreeMap<Kind, Vec<Waiting>>,
    /// A task ends those that have waited for long.
    is_watched: bool,
}

#[derive(Debug)]
struct Waiting {
    child: AgentChild,
    since: Instant,
}

/// Which runs a child can serve.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Kind {
    package: Digest,
    grants: Grants,
}

/// A child that is loaded and walled in.
#[derive(Debug)]
struct AgentChild {
    process: Process,
    /// Held for as long as the process lives.
    _permit: OwnedSemaphorePermit,
}

impl Host {
    /// A host that has not started anything yet.
    pub fn new(config: HostConfig) -> Self {
        let HostBounds { children_max, cache_bytes_max, .. } = config.bounds;
        let cache = Cache::new(config.cache.clone(), config.cache_key, cache_bytes_max);
        Self(Arc::new(Inner {
            config,
            cache,
            compiling: tokio::sync::Mutex::new(()),
            compatibility: tokio::sync::OnceCell::new(),
            children: Arc::new(Semaphore::new(children_max.max(1))),
            idle: Mutex::default(),
        }))
    }

    /// Runs a step; the calls that it makes go to `calls`, one at a time.
    ///
    /// Dropping the future kills the process that runs it.
    ///
    /// # Errors
    ///
    /// Why there is no output. Other steps, also of the same agent, are not affected.
    pub async fn run(
        &self,
        mut task: Task,
        calls: mpsc::Sender<HostRequest>,
    ) -> Result<Value, AgentError> {
        let deadline = task.deadline;
        let memory_mib = &mut task.permissions.memory_mib;
        *memory_mib = (*memory_mib).min(self.0.config.bounds.memory_mib_max);
        let kind = Kind {
            package: task.package,
            grants: Grants::new(&task.permissions, task.calls_granted),
        };
        if let Some(child) = self.0.take_idle(kind) {
            return self.0.run_by(deadline, kind, child, task, calls).await;
        }
        let permit = self.0.permit()?;
        let code = self.0.code(&task.component).await?;
        let start = self.0.start(kind.grants, &code, permit);
        let child = tokio::time::timeout(deadline, start)
            .await
            .unwrap_or(Err(AgentError::Deadline(deadline)))?;
        drop(code);
        self.0.run_by(deadline, kind, child, task, calls).await
    }

    /// How many children wait for a run.
    pub fn idle_children(&self) -> usize {
        self.0.idle().waiting.values().map(Vec::len).sum()
    }
}

impl Inner {
    /// Runs a step in a child, which waits for the next afterwards if all went well.
    async fn run_by(
        self: &Arc<Self>,
        deadline: Duration,
        kind: Kind,
        mut child: AgentChild,
        task: Task,
        calls: mpsc::Sender<HostRequest>,
    ) -> Result<Value, AgentError> {
        let outcome = tokio::time::timeout(deadline, run_in(&mut child.process, &task, &calls))
            .await
            .unwrap_or(Err(AgentError::Deadline(deadline)));
        match &outcome {
            Ok(_) | Err(AgentError::Refused(_)) => self.park(kind, child),
            Err(_) => drop(child),
        }
        outcome
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // Nothing under this lock panics half-way.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self, kind: Kind) -> Option<AgentChild> {
        let mut idle = self.idle();
        let waiting = idle.waiting.get_mut(&kind)?;
        let taken = waiting.pop();
        if waiting.is_empty() {
            idle.waiting.remove(&kind);
        }
        taken.map(|waiting| waiting.child)
    }

    /// Leave for one more child; an idle one of another kind makes room.
    fn permit(&self) -> Result<OwnedSemaphorePermit, AgentError> {
        if let Ok(permit) = Arc::clone(&self.children).try_acquire_owned() {
            return Ok(permit);
        }
        let other = self.idle().waiting.keys().next().copied();
        drop(other.and_then(|kind| self.take_idle(kind)));
        Arc::clone(&self.children)
            .try_acquire_owned()
            .map_err(|_| AgentError::Busy { max: self.config.bounds.children_max.max(1) })
    }

    fn park(self: &Arc<Self>, kind: Kind, child: AgentChild) {
        let mut idle = self.idle();
        let since = Instant::now();
        idle.waiting.entry(kind).or_default().push(Waiting { child, since });
        if !std::mem::replace(&mut idle.is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(self), self.config.idle_after));
        }
    }

    /// The compiled code of a component, from the cache or new.
    async fn code(&self, component: &[u8]) -> Result<Vec<u8>, AgentError> {
        if component.len() > HANDED_BYTES_MAX {
            let reason = format!("a component of {} bytes is not taken", component.len());
            return Err(AgentError::Component { reason });
        }
        let compatibility = *self
            .compatibility
            .get_or_try_init(|| async { engine::compatibility().map(Digest::from_bytes) })
            .await
            .map_err(|error| AgentError::Start { reason: format!("{error:#}") })?;
        let digest = Digest::of(component);
        let _turn = self.compiling.lock().await;
        if let Some(code) = self.cache.get(digest, compatibility) {
            return Ok(code);
        }
        let code = self.compile(component).await?;
        if let Err(error) = self.cache.put(digest, compatibility, &code) {
            tracing::warn!(%error, "the compiled agent could not be kept");
        }
        Ok(code)
    }

    async fn compile(&self, component: &[u8]) -> Result<Vec<u8>, AgentError> {
        let mut process = Process::start("compile", self.config.program.clone()).await?;
        let exchange = async {
            process.connection.send_bytes(component).await?;
            process.connection.receive::<FromCompiler>(crate::message::TO_CHILD_BYTES_MAX).await
        };
        match tokio::time::timeout(COMPILE_MAX, exchange).await {
            Ok(Ok(FromCompiler::Code(code))) => Ok(code.into()),
            Ok(Ok(FromCompiler::Failed(stop))) => Err(why(stop, &Permissions::default())),
            Ok(Err(error)) => Err(process.died(&error).await),
            Err(_) => Err(AgentError::Component {
                reason: format!("compiling it took longer than {COMPILE_MAX:?}"),
            }),
        }
    }

    /// Starts a child, and returns when it is loaded and walled in.
    async fn start(
        &self,
        grants: Grants,
        code: &[u8],
        permit: OwnedSemaphorePermit,
    ) -> Result<AgentChild, AgentError> {
        let mut process = Process::start("agent", self.config.program.clone()).await?;
        let exchange = async {
            process.connection.send(&ToAgent::Load(grants)).await?;
            process.connection.send_bytes(code).await?;
            process.connection.receive::<FromAgent>(FROM_AGENT_BYTES_MAX).await
        };
        match exchange.await {
            Ok(FromAgent::Ready(proof)) => {
                process.require_wall()?;
                tracing::debug!(%proof, pid = process.pid(), "an agent's process is ready");
                Ok(AgentChild { process, _permit: permit })
            }
            Ok(FromAgent::Stopped(stop)) => Err(why(stop, &Permissions::default())),
            Ok(FromAgent::Call(_) | FromAgent::Done(_)) => Err(out_of_turn()),
            Err(error) => Err(process.died(&error).await),
        }
    }
}

/// Carries a run through: hands it over, answers its calls, takes its outcome.
async fn run_in(
    process: &mut Process,
    task: &Task,
    calls: &mpsc::Sender<HostRequest>,
) -> Result<Value, AgentError> {
    let handed: usize = task.files.values().map(Vec::len).sum();
    if handed > HANDED_BYTES_MAX {
        return Err(AgentError::Refused(HostError {
            refusal: Refusal::Invalid,
            reason: format!("{handed} bytes of files are too many: at most {HANDED_BYTES_MAX}"),
        }));
    }
    let files = task.files.iter().map(|(name, bytes)| (name.clone(), Value::Bytes(bytes.clone())));
    let run = ToAgent::Run {
        capability: task.capability.as_str().to_owned(),
        arguments: task.arguments.clone(),
        files: Value::map(files),
    };
    if let Err(error) = process.connection.send(&run).await {
        return Err(process.died(&error).await);
    }
    drop(run);
    let (mut count, mut lines) = (0, 0);
    loop {
        let call = match process.connection.receive(FROM_AGENT_BYTES_MAX).await {
            Ok(FromAgent::Call(call)) => call,
            Ok(FromAgent::Done(output)) => return Ok(output),
            Ok(FromAgent::Stopped(stop)) => return Err(why(stop, &task.permissions)),
            Ok(FromAgent::Ready(_)) => return Err(out_of_turn()),
            Err(error) => return Err(process.died(&error).await),
        };
        count += 1;
        if count > CALLS_MAX {
            return Err(AgentError::Calls { max: CALLS_MAX });
        }
        let answer = if matches!(call, HostCall::Log { .. }) && {
            lines += 1;
            lines > LINES_MAX
        } {
            Ok(Value::Null)
        } else if grant::permits(&task.permissions, task.calls_granted, &call) {
            ask(call, calls).await
        } else {
            Err(HostError {
                refusal: Refusal::Denied,
                reason: "the agent's manifest was not granted this".to_owned(),
            })
        };
        if let Err(error) = process.connection.send(&ToAgent::Answer(answer)).await {
            return Err(process.died(&error).await);
        }
    }
}

/// Has the node answer a call.
async fn ask(call: HostCall, calls: &mpsc::Sender<HostRequest>) -> Result<Value, HostError> {
    let (reply, answer) = oneshot::channel();
    let cancelled =
        || HostError { refusal: Refusal::Cancelled, reason: "the run was cancelled".to_owned() };
    calls.send(HostRequest { call, reply }).await.map_err(|_| cancelled())?;
    let answer = answer.await.unwrap_or_else(|_| Err(cancelled()))?;
    let len = codec::encode(&answer).len();
    if len > HOST_CALL_BYTES_MAX {
        return Err(HostError {
            refusal: Refusal::Failed,
            reason: format!("the answer of {len} bytes is too large for an agent"),
        });
    }
    Ok(answer)
}

/// Ends children that have waited for longer than `idle_after`, until none waits.
async fn watch(host: Weak<Inner>, idle_after: Duration) {
    loop {
        let next = {
            let Some(host) = host.upgrade() else { return };
            let mut idle = host.idle();
            let mut ended = Vec::new();
            idle.waiting.retain(|_, waiting| {
                let rested = waiting.iter().take_while(|it| it.since.elapsed() >= idle_after);
                let rested = rested.count();
                ended.extend(waiting.drain(..rested));
                !waiting.is_empty()
            });
            let oldest = idle.waiting.values().filter_map(|waiting| waiting.first());
            let next = oldest.map(|waiting| waiting.since + idle_after).min();
            idle.is_watched = next.is_some();
            drop(idle);
            drop(ended);
            next
        };
        let Some(next) = next else { return };
        tokio::time::sleep_until(next.into()).await;
    }
}

fn out_of_turn() -> AgentError {
    AgentError::Died { reason: "it spoke out of turn and was ended".to_owned() }
}

/// What a child said, with the limits that it ran under.
fn why(stop: Stop, permissions: &Permissions) -> AgentError {
    match stop {
        Stop::Import(interface) => AgentError::Import { interface },
        Stop::Component(reason) => AgentError::Component { reason },
        Stop::Memory => AgentError::Memory { mib: permissions.memory_mib },
        Stop::Processor => AgentError::Processor { millis: permissions.processor_ms },
        Stop::Trap(reason) => AgentError::Trap { reason },
        Stop::Output(reason) => AgentError::Output { reason },
        Stop::Refused(error) => AgentError::Refused(error),
        Stop::Wall(reason) => AgentError::Wall { reason },
    }
}

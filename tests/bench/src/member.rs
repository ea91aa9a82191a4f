//! A whole node within this process: core, rules, store on the disk, network on loopback.
//!
//! It is joined as the program joins it, on a thread of its own, but for agents: a step's stand-in
//! answers at once, so that what is left is what the fabric itself costs. What the node says to its
//! door carries the moment at which it said so.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc as std_mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    sync::{Notify, mpsc},
};
use weft_core::{
    Context, Input, Node, NodeConfig, Output, Ticket,
    door::{Command, DoorId, Event, Reply},
    links::StreamId,
    membership,
};
use weft_engine::Rules;
use weft_net::{Config, Net, NetHandle, Turn};
use weft_protocol::{
    graph::{Plan, Route, Step, StepIndex},
    id::{BootId, DeviceId},
    manifest::EffectClass,
    row::{Durability, Write},
    run::RunState,
    value::Value,
};
use weft_store::{Batch, Store, WriteError, Writer, key::StoreKey};

use crate::{
    apart,
    fabric::{self, Clock, Made},
    process::Process,
};

/// Commands that wait for a node: this process gives one at a time.
const COMMANDS_WAITING: usize = 8;

/// The longest that anything may take before the measurement is given up.
const ANSWER: Duration = Duration::from_secs(30);

/// What the network's seed of either node is.
const LAPTOP_SEED: [u8; 32] = [2; 32];
pub(crate) const SERVER_SEED: [u8; 32] = [3; 32];

/// The only door.
const DOOR: DoorId = DoorId(1);

/// A running node. Dropping it stops it.
pub(crate) struct Member {
    pub(crate) id: DeviceId,
    /// Where others can dial it.
    pub(crate) addresses: Vec<String>,
    commands: Option<mpsc::Sender<Command>>,
    said: std_mpsc::Receiver<(Instant, Said)>,
    thread: Option<JoinHandle<Result<()>>>,
    _folder: TempDir,
}

/// What a node says to its door.
#[derive(Debug)]
pub(crate) enum Said {
    Reply(Reply),
    Event(Event),
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Went {
    /// From the command to the run's end.
    pub(crate) whole: Duration,
    /// From the end of each step but the last to the end of the next.
    pub(crate) between: Vec<Duration>,
}

impl Member {
    /// Starts a device of a fabric; `knows` are the addresses of others that lie on its disk.
    pub(crate) fn start(
        runtime: &Runtime,
        made: Made,
        seed: [u8; 32],
        knows: &[(DeviceId, Vec<String>)],
    ) -> Result<Self> {
        let id = made.secret.id();
        let folder = tempfile::tempdir().context("failed to make a folder")?;
        let store = Store::open(&folder.path().join("store.redb"), &StoreKey::from([5; 32]))?;
        let mut writes = membership::store(&made.statements);
        writes.extend(knows.iter().map(|(device, at)| membership::remember(device, at)));
        write(&store, writes, Durability::Synced)?;
        let boot = BootId { counter: 1, random: 1 };
        let clock = Clock::new();
        let rules = Rules::embedded()?;
        let config = NodeConfig {
            secret: made.secret,
            boot,
            // Ids must differ from one device to the next.
            seed: *blake3::hash(id.as_bytes()).as_bytes(),
            agents: fabric::agents()?,
        };
        let node = Node::start(config, Context { now: clock.now(), rows: &store, policy: &rules })?;
        let net = Config::loopback(seed, boot);
        let (net, mut events) = runtime.block_on(Net::start(net))?;
        let addresses = runtime.block_on(listening(&mut events))?;
        let (commands, inbox) = mpsc::channel(COMMANDS_WAITING);
        let (say, said) = std_mpsc::channel();
        let (persisted, completions) = std_mpsc::channel();
        let mut core = Core {
            node,
            rules,
            writer: store.writer(),
            store: Arc::new(store),
            clock,
            net,
            turn: Turn::default(),
            persisted,
            completions,
            wake: Arc::new(Notify::new()),
            say,
        };
        let listening = addresses.clone();
        let thread = thread::Builder::new().name("core".into()).spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            runtime.block_on(async {
                core.feed(Input::Listening { addresses: listening }).await?;
                core.run(inbox, events).await
            })
        })?;
        Ok(Self {
            id,
            addresses,
            commands: Some(commands),
            said,
            thread: Some(thread),
            _folder: folder,
        })
    }

    /// Carries out a plan to its end.
    pub(crate) fn carry_out(&self, plan: Plan) -> Result<Went> {
        let start = Instant::now();
        let command = Command::Do {
            words: "measure".into(),
            plan,
            files: BTreeMap::new(),
            local_time: "2026-03-10T09:00:00".into(),
            time_zone: "UTC".into(),
            can_ask: false,
        };
        let commands = self.commands.as_ref().context("the node was stopped")?;
        commands.blocking_send(command).map_err(|_| anyhow!("the node has ended"))?;
        let (mut ended, mut between) = (None::<Instant>, Vec::new());
        loop {
            let (at, said) =
                self.said.recv_timeout(ANSWER).context("failed to hear a node in time")?;
            match said {
                Said::Event(Event::StepEnded { .. }) => {
                    between.extend(ended.replace(at).map(|before| at.duration_since(before)));
                }
                Said::Event(Event::RunEnded { state: RunState::Done, .. }) => {
                    return Ok(Went { whole: at.duration_since(start), between });
                }
                Said::Event(Event::RunEnded { state, failure, .. }) => {
                    bail!("a run ended as {}: {}", state.word(), failure.unwrap_or_default())
                }
                Said::Reply(Reply::Refused { reason, .. }) => bail!("a run was refused: {reason}"),
                Said::Reply(_) | Said::Event(_) => {}
            }
        }
    }

    /// Waits until a step can be placed on a device.
    pub(crate) fn reaches(&self, device: &str) -> Result<()> {
        let deadline = Instant::now() + ANSWER;
        loop {
            match self.carry_out(steps(&[Some(device)], false)?) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(format!("failed to reach the {device}")));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("a node ended badly: {error:#}");
        }
    }
}

/// A plan of read-only steps that do nothing, each on the device named; one after the other, or
/// independent of each other.
pub(crate) fn steps(devices: &[Option<&str>], chained: bool) -> Result<Plan> {
    let steps = (1..).zip(devices).map(|(number, device)| -> Result<Step> {
        Ok(Step {
            index: StepIndex(number),
            capability: "notes.list".parse().context("failed to name a capability")?,
            arguments: BTreeMap::new(),
            device: device.map(str::to_owned),
            after: (chained && number > 1).then(|| StepIndex(number - 1)).into_iter().collect(),
            effect: EffectClass::ReadOnly,
            may_call: Vec::new(),
        })
    });
    Ok(Plan::new(Route::Graph, steps.collect::<Result<_>>()?)?)
}

/// A laptop and a server that have met.
pub(crate) struct Two {
    pub(crate) laptop: Member,
    // It goes after the laptop, and the runtime after both.
    _server: Server,
    _runtime: Runtime,
}

/// Where the server is. It is held only to live as long as the laptop.
enum Server {
    Here { _member: Member },
    Apart { _process: Process },
}

impl Two {
    /// Both in this process.
    pub(crate) fn meet() -> Result<Self> {
        let runtime = runtime()?;
        let [laptop, server] = fabric::two()?;
        let server = Member::start(&runtime, server, SERVER_SEED, &[])?;
        let knows = [(server.id, server.addresses.clone())];
        let laptop = Member::start(&runtime, laptop, LAPTOP_SEED, &knows)?;
        laptop.reaches("server")?;
        Ok(Self { laptop, _server: Server::Here { _member: server }, _runtime: runtime })
    }

    /// The server in a process of its own.
    pub(crate) fn apart() -> Result<Self> {
        let runtime = runtime()?;
        let [laptop, server] = fabric::two()?;
        let (process, addresses) = apart::start()?;
        let knows = [(server.secret.id(), addresses)];
        let laptop = Member::start(&runtime, laptop, LAPTOP_SEED, &knows)?;
        laptop.reaches("server")?;
        Ok(Self { laptop, _server: Server::Apart { _process: process }, _runtime: runtime })
    }
}

/// A runtime for a network, as the program has it.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Waits until the network listens.
async fn listening(events: &mut mpsc::Receiver<weft_net::Event>) -> Result<Vec<String>> {
    let mut addresses = Vec::new();
    // QUIC and TCP.
    while addresses.len() < 2 {
        match tokio::time::timeout(ANSWER, events.recv()).await {
            Ok(Some(weft_net::Event::Listening { addresses: now })) => addresses = now,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => bail!("failed to listen on loopback"),
        }
    }
    Ok(addresses)
}

/// Writes a batch and waits until it counts.
pub(crate) fn write(store: &Store, writes: Vec<Write>, durability: Durability) -> Result<()> {
    let (done, outcome) = std_mpsc::sync_channel(1);
    store.writer().submit(Batch { writes, durability }, move |result| drop(done.send(result)));
    Ok(outcome.recv()??)
}

/// What a node's thread owns.
struct Core {
    node: Node,
    rules: Rules,
    store: Arc<Store>,
    writer: Writer,
    clock: Clock,
    net: NetHandle,
    turn: Turn,
    persisted: std_mpsc::Sender<(Ticket, Result<(), WriteError>)>,
    completions: std_mpsc::Receiver<(Ticket, Result<(), WriteError>)>,
    wake: Arc<Notify>,
    say: std_mpsc::Sender<(Instant, Said)>,
}

impl Core {
    async fn run(
        &mut self,
        mut commands: mpsc::Receiver<Command>,
        mut events: mpsc::Receiver<weft_net::Event>,
    ) -> Result<()> {
        let wake = Arc::clone(&self.wake);
        loop {
            let now = self.clock.now();
            let wait = self.node.poll_timeout(now).map(|(at, _)| at.since(now.mono));
            tokio::select! {
                biased;
                () = wake.notified() => self.carry_out().await?,
                command = commands.recv() => match command {
                    Some(command) => self.feed(Input::Command { door: DOOR, command }).await?,
                    None => break,
                },
                event = events.recv() => match event {
                    Some(event) => {
                        if let Some(input) = input(event) {
                            self.feed(input).await?;
                        }
                    }
                    None => bail!("the network has stopped"),
                },
                () = tokio::time::sleep(wait.unwrap_or(ANSWER)) => {
                    let context = Context {
                        now: self.clock.now(),
                        rows: self.store.as_ref(),
                        policy: &self.rules,
                    };
                    self.node.handle_timeout(context);
                    self.carry_out().await?;
                }
            }
        }
        self.net.send(weft_net::Command::Stop).await?;
        Ok(())
    }

    async fn feed(&mut self, input: Input) -> Result<()> {
        self.take(input);
        self.carry_out().await
    }

    fn take(&mut self, input: Input) {
        let context =
            Context { now: self.clock.now(), rows: self.store.as_ref(), policy: &self.rules };
        self.node.handle_input(input, context);
    }

    async fn carry_out(&mut self) -> Result<()> {
        use weft_net::Command as Net;
        loop {
            let Some(output) = self.node.poll_output() else {
                let Ok((ticket, result)) = self.completions.try_recv() else { break };
                result?;
                self.take(Input::Persisted(ticket));
                continue;
            };
            match output {
                Output::Members(members) => self.turn.add(Net::Members(members)),
                Output::Remember { device, addresses } => {
                    self.turn.add(Net::Remember { device, addresses });
                }
                Output::Relays(relays) => self.turn.add(Net::Relays(relays)),
                Output::Admit { device } => self.turn.add(Net::Admit { device }),
                Output::Watch { device, is_watched } => {
                    self.turn.add(Net::Watch { device, is_watched });
                }
                Output::Disconnect { device } => self.turn.add(Net::Disconnect { device }),
                Output::Send { stream, bytes } => {
                    let stream = weft_net::StreamId(stream.0);
                    self.turn.add(Net::Send { stream, frame: bytes });
                }
                Output::Persist { ticket, writes, durability } => {
                    let (persisted, wake) = (self.persisted.clone(), Arc::clone(&self.wake));
                    self.writer.submit(Batch { writes, durability }, move |result| {
                        // A node that has stopped does not want to know.
                        drop(persisted.send((ticket, result)));
                        wake.notify_one();
                    });
                }
                Output::Execute { execution, .. } => {
                    self.take(Input::Executed { execution, result: Ok(Value::from("done")) });
                }
                Output::Reply { reply, .. } => self.say(Said::Reply(reply)),
                // What the asking door hears; those who watch hear it once more.
                Output::Event { door: Some(_), event } => self.say(Said::Event(event)),
                Output::Event { door: None, .. } => {}
                Output::StopExecution(_)
                | Output::AnswerCall { .. }
                | Output::OpenPairing { .. }
                | Output::SendPairing { .. }
                | Output::ClosePairingLink { .. }
                | Output::ClosePairing { .. }
                | Output::Log { .. } => {}
            }
        }
        Ok(self.net.give(&mut self.turn).await?)
    }

    fn say(&self, said: Said) {
        // Nobody listens any more when the measurement is over.
        drop(self.say.send((Instant::now(), said)));
    }
}

fn input(event: weft_net::Event) -> Option<Input> {
    use weft_net::Event as Net;
    Some(match event {
        Net::Listening { addresses } => Input::Listening { addresses },
        Net::Sighted { device, addresses } => Input::Sighted { device, addresses },
        Net::Connected { device, address, .. } => Input::Connected { device, address },
        Net::Disconnected { device, .. } => Input::Disconnected { device },
        Net::StreamOpened { stream, device, protocol, .. } => {
            Input::StreamOpened { stream: StreamId(stream.0), device, protocol }
        }
        Net::Frame { stream, bytes } => Input::Frame { stream: StreamId(stream.0), bytes },
        Net::Moving { stream } => Input::Moving { stream: StreamId(stream.0) },
        Net::StreamClosed { stream, .. } => Input::StreamClosed { stream: StreamId(stream.0) },
        Net::RoundTrip { device, rtt } => {
            Input::RoundTrip { device, micros: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX) }
        }
        Net::Reach(report) => Input::Reach(report),
        Net::StrangerTurnedAway { .. } => Input::StrangerTurnedAway,
        Net::DialFailed { .. } => return None,
    })
}

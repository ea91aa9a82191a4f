//! Two devices, their cores joined without a network: what crosses between owner and executor.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_core::{
    Context, Input, Node, NodeConfig, Output, audit,
    door::{Command, DoorId, Event, Reply},
    executor::ExecutionId,
    links::StreamId,
    membership,
    registry::Installed,
};
use weft_protocol::{
    audit::{Body, Ending, Record},
    codec,
    decision::{Decision, Effect, Point, Policy, Question},
    device::{Kind, Role},
    frame::Protocol,
    graph::{Argument, Plan, Route, Step, StepIndex},
    host_call::{HostError, Refusal},
    id::{BootId, DeviceId, Digest},
    manifest::{EffectClass, Manifest},
    row::{MemoryRows, Rows as _, Table},
    run::{Failure, Offer, RunMessage, RunState},
    signed::Signed,
    time::{Now, Timestamp, WallTime},
    value::Value,
};
use weft_trust::{
    author::{Author, NewDevice, NewFabric, genesis},
    graph::Graph,
    keyring::Keyring,
    secret::DeviceSecret,
};

#[path = "two_devices/once.rs"]
mod once;

#[path = "two_devices/stops.rs"]
mod stops;

#[path = "two_devices/denials.rs"]
mod denials;

#[path = "two_devices/limits.rs"]
mod limits;

const AGENT: &str = r#"
name = "echo"
version = "0.1.0"
kind = "wasm"
description = "Says what it is told."

[[capability]]
name = "echo.say"
description = "Says it."
effect = "read-only"
[capability.arguments]
required = ["text"]
[capability.arguments.properties]
text = { type = "string" }

[[capability]]
name = "echo.write"
description = "Writes it down."
effect = "idempotent"
[capability.arguments]
required = ["text"]
[capability.arguments.properties]
text = { type = "string" }

[[capability]]
name = "echo.once"
description = "Says it once and never again."
effect = "at-most-once"
[capability.arguments]
required = ["text"]
[capability.arguments.properties]
text = { type = "string" }

[[capability]]
name = "echo.pass"
description = "Has another write it down."
effect = "idempotent"
calls = ["echo.write"]
[capability.arguments]
required = ["text"]
[capability.arguments.properties]
text = { type = "string" }

[[capability]]
name = "echo.relay"
description = "Has another say it."
effect = "read-only"
calls = ["echo.say"]
[capability.arguments]
required = ["text"]
[capability.arguments.properties]
text = { type = "string" }
"#;

/// Rules by the point at which they are asked.
#[derive(Clone)]
struct Stub {
    owner: Effect,
    executor: Effect,
    /// What is denied to a device by its name.
    barred: Option<&'static str>,
}

impl Policy for Stub {
    fn decide(&self, question: &Question) -> Decision {
        let effect = match question.point {
            _ if self.barred == Some(&question.owner.name) => Effect::Deny,
            Point::Owner => self.owner,
            Point::Executor | Point::HostCall => self.executor,
        };
        Decision { effect, reason: format!("the stub says {effect}"), obligations: vec![] }
    }

    fn digest(&self) -> Digest {
        Digest::of(b"stub")
    }
}

struct Device {
    node: Node,
    rows: MemoryRows,
    policy: Stub,
    replies: Vec<Reply>,
    events: Vec<Event>,
    executions: Vec<(ExecutionId, Value)>,
    /// Agents started so far, through all starts of the node.
    begun: usize,
    starts: u64,
    stopped: Vec<ExecutionId>,
    /// What agents that called were answered.
    answers: Vec<Result<Value, HostError>>,
}

/// The laptop (0) and the server (1), connected.
struct Fabric {
    devices: Vec<Device>,
    now: Now,
    cut: bool,
    /// Streams opened so far.
    streams: u64,
    /// Frames of runs that are lost although nothing is cut.
    lose: Option<fn(&RunMessage) -> bool>,
    /// The round of streams in which the run stream was opened.
    run_streams: u64,
    /// Frames that the server sent on run streams.
    overheard: Vec<(StreamId, Vec<u8>)>,
    /// Offers that were made.
    offers: Vec<Offer>,
    keep_offers: bool,
}

fn secret(n: u8) -> DeviceSecret {
    DeviceSecret::from_seed(&[n; 32])
}

fn statements() -> Vec<Signed> {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let (laptop, server) = (secret(1), secret(2));
    let new = NewFabric {
        name: &"home".parse().unwrap(),
        root: None,
        device: &laptop,
        device_name: &"laptop".parse().unwrap(),
        kind: Kind::Laptop,
    };
    let first = genesis(new, WallTime::default(), &mut rng);
    let mut graph = Graph::new(first.clone()).unwrap();
    let mut keyring = Keyring::new(laptop.agreement().clone());
    keyring.learn(&graph);
    let mut statements = vec![first];
    for (secret, name, kind) in
        [(server, "server", Kind::Server), (secret(3), "phone", Kind::Phone)]
    {
        let new = NewDevice {
            device: secret.id(),
            agreement: secret.agreement().public(),
            name: name.parse().unwrap(),
            kind,
            role: Role::Member,
            confirmed: true,
        };
        let author = Author::new(&graph, &keyring, laptop.signing());
        let add = author.add(new, WallTime::default(), &mut rng).unwrap();
        graph.insert(add.clone()).unwrap();
        statements.push(add);
    }
    statements
}

fn config(n: u8, start: u64) -> NodeConfig {
    let manifest = Manifest::parse(AGENT).unwrap();
    let component: Arc<[u8]> = Arc::from(b"component".as_slice());
    let start_byte = u8::try_from(start).unwrap();
    NodeConfig {
        secret: secret(n),
        boot: BootId { counter: start, random: n.into() },
        seed: [n + 10 * start_byte; 32],
        agents: vec![Installed::new(manifest, AGENT, component, true)],
    }
}

impl Fabric {
    fn new(laptop: Stub, server: Stub) -> Self {
        let now = Now { mono: Timestamp::from_millis(1_000), wall: WallTime::default() };
        let devices = [(1, laptop), (2, server)]
            .into_iter()
            .map(|(n, policy)| {
                let mut rows = MemoryRows::default();
                rows.apply(membership::store(&statements()));
                let context = Context { now, rows: &rows, policy: &policy };
                let node = Node::start(config(n, 1), context).unwrap();
                Device {
                    node,
                    rows,
                    policy,
                    replies: vec![],
                    events: vec![],
                    executions: vec![],
                    begun: 0,
                    starts: 1,
                    stopped: vec![],
                    answers: vec![],
                }
            })
            .collect();
        let mut fabric = Self {
            devices,
            now,
            cut: false,
            streams: 0,
            lose: None,
            run_streams: 0,
            overheard: vec![],
            offers: vec![],
            keep_offers: false,
        };
        fabric.settle();
        fabric.connect();
        fabric
    }

    fn id(&self, device: usize) -> DeviceId {
        self.devices[device].node.me()
    }

    fn connect(&mut self) {
        self.cut = false;
        for device in 0..2 {
            let peer = self.id(1 - device);
            self.feed(device, Input::Connected { device: peer, address: "there".into() });
        }
        for protocol in Protocol::SPOKEN {
            self.open(protocol);
        }
        self.settle();
    }

    /// Opens a stream, in place of the one that there is.
    fn open(&mut self, protocol: Protocol) {
        self.streams += 1;
        let stream = StreamId(self.streams * 100 + protocol as u64);
        if protocol == Protocol::Run {
            self.run_streams = self.streams;
        }
        for device in 0..2 {
            let peer = self.id(1 - device);
            self.feed(device, Input::StreamOpened { stream, device: peer, protocol });
        }
    }

    /// The power of a device goes and comes back: what was not written is gone.
    fn restart(&mut self, device: usize) {
        self.disconnect();
        self.start_anew(device);
    }

    /// A device starts from what is on its disk.
    fn start_anew(&mut self, device: usize) {
        let it = &mut self.devices[device];
        it.starts += 1;
        it.executions.clear();
        let context = Context { now: self.now, rows: &it.rows, policy: &it.policy };
        let n = u8::try_from(device + 1).unwrap();
        it.node = Node::start(config(n, it.starts), context).unwrap();
        self.settle();
    }

    fn disconnect(&mut self) {
        self.cut = true;
        for device in 0..2 {
            let peer = self.id(1 - device);
            self.feed(device, Input::Disconnected { device: peer });
        }
        self.settle();
    }

    fn feed(&mut self, device: usize, input: Input) {
        let it = &mut self.devices[device];
        let context = Context { now: self.now, rows: &it.rows, policy: &it.policy };
        it.node.handle_input(input, context);
    }

    /// Carries everything out until nothing is left. Frames are lost while the two are cut off.
    fn settle(&mut self) {
        let mut frames = VecDeque::new();
        loop {
            let mut idle = true;
            for device in 0..2 {
                while let Some(output) = self.devices[device].node.poll_output() {
                    idle = false;
                    let it = &mut self.devices[device];
                    match output {
                        Output::Send { stream, bytes } => {
                            self.overhear(device, stream, &bytes);
                            frames.push_back((1 - device, stream, bytes));
                        }
                        Output::Persist { ticket, writes, .. } => {
                            it.rows.apply(writes);
                            self.feed(device, Input::Persisted(ticket));
                        }
                        Output::Execute { execution, arguments, .. } => {
                            it.executions.push((execution, arguments));
                            it.begun += 1;
                        }
                        Output::StopExecution(execution) => it.stopped.push(execution),
                        Output::AnswerCall { answer, .. } => it.answers.push(answer),
                        Output::Reply { reply, .. } => it.replies.push(reply),
                        Output::Event { door: Some(_), event } => it.events.push(event),
                        Output::Members(_)
                        | Output::Remember { .. }
                        | Output::Admit { .. }
                        | Output::Disconnect { .. }
                        | Output::OpenPairing { .. }
                        | Output::SendPairing { .. }
                        | Output::ClosePairingLink { .. }
                        | Output::ClosePairing { .. }
                        | Output::Event { door: None, .. }
                        | Output::Log { .. } => {}
                    }
                }
            }
            while let Some((to, stream, bytes)) = frames.pop_front() {
                idle = false;
                let is_run = stream.0 % 100 == Protocol::Run as u64;
                let lost = self.lose.is_some_and(|lose| {
                    is_run && codec::decode(&bytes, 1 << 20).is_ok_and(|message| lose(&message))
                });
                if !self.cut && !lost {
                    self.feed(to, Input::Frame { stream, bytes });
                }
            }
            if idle {
                return;
            }
        }
    }

    fn overhear(&mut self, from: usize, stream: StreamId, bytes: &[u8]) {
        if stream.0 % 100 != Protocol::Run as u64 {
            return;
        }
        if from == 1 {
            self.overheard.push((stream, bytes.to_vec()));
        }
        if self.keep_offers
            && let Ok(RunMessage::Offer(offer)) = codec::decode(bytes, 1 << 20)
        {
            self.offers.push(*offer);
        }
    }

    fn wait(&mut self, duration: Duration) {
        self.now = Now { mono: self.now.mono + duration, wall: self.now.wall + duration };
        for device in 0..2 {
            let it = &mut self.devices[device];
            let context = Context { now: self.now, rows: &it.rows, policy: &it.policy };
            it.node.handle_timeout(context);
        }
        self.settle();
    }

    /// The laptop's person wants it said on the server.
    fn say_on_server(&mut self, can_ask: bool) {
        self.do_on_server("echo.say", EffectClass::ReadOnly, can_ask);
    }

    /// The laptop's person wants something done on the server.
    fn do_on_server(&mut self, capability: &str, effect: EffectClass, can_ask: bool) {
        self.carry_out(vec![step(1, capability, effect, Some("server"))], can_ask);
    }

    /// The laptop's person wants steps done.
    fn carry_out(&mut self, steps: Vec<Step>, can_ask: bool) {
        let command = Command::Do {
            words: "say hello on the server".into(),
            plan: Plan::new(Route::Phrases, steps).unwrap(),
            files: BTreeMap::new(),
            local_time: "1970-01-01T00:00:00".into(),
            time_zone: "UTC".into(),
            can_ask,
        };
        self.feed(0, Input::Command { door: DoorId(1), command });
        self.settle();
    }

    fn finish(&mut self, device: usize, result: Result<Value, Failure>) {
        let (execution, _) = self.devices[device].executions.pop().expect("something runs there");
        self.feed(device, Input::Executed { execution, result });
        self.settle();
    }

    /// How the laptop's run ended, once the answer no longer waits for other devices.
    fn ended(&mut self) -> Option<(RunState, Option<String>)> {
        self.devices[0].events.iter().find_map(|event| {
            if let Event::RunEnded { state, failure, .. } = event {
                Some((*state, failure.clone()))
            } else {
                None
            }
        })
    }

    fn records(&self, device: usize) -> Vec<Body> {
        let rows = &self.devices[device].rows;
        audit::verify(self.id(device), vec![], rows, audit::Signatures::Every)
            .expect("the chain verifies");
        rows.scan_from(Table::Audit, &[], 0, 1_000)
            .unwrap()
            .into_iter()
            .map(|(_, bytes)| {
                let signed: Signed = codec::decode(&bytes, 16_384).unwrap();
                codec::decode::<Record>(&signed.bytes, 16_384).unwrap().body
            })
            .collect()
    }

    /// What the chain says of steps: who asked, and what the rules said; and how they ended.
    fn steps(&self, device: usize) -> Vec<String> {
        let word = |body: Body| match body {
            Body::Intent { point, decision, .. } => Some(format!("{point} {}", decision.effect)),
            Body::Outcome { ending, .. } => Some(ending.to_string()),
            Body::Segment { .. }
            | Body::Checkpoint { .. }
            | Body::Withdrawn
            | Body::Trust { .. }
            | Body::Operator { .. }
            | Body::Strangers { .. }
            | Body::Denials { .. } => None,
        };
        self.records(device).into_iter().filter_map(word).collect()
    }
}

/// A step that says hello.
fn step(index: u16, capability: &str, effect: EffectClass, device: Option<&str>) -> Step {
    Step {
        index: StepIndex(index),
        capability: capability.parse().unwrap(),
        arguments: BTreeMap::from([("text".into(), Argument::Literal("hello".into()))]),
        device: device.map(str::to_owned),
        after: [].into(),
        effect,
        may_call: vec![],
    }
}

const ALLOW: Stub = Stub { owner: Effect::Allow, executor: Effect::Allow, barred: None };

#[test]
fn a_step_runs_where_the_words_say_and_both_chains_tell_of_it() {
    let mut fabric = Fabric::new(ALLOW, ALLOW);
    fabric.say_on_server(false);
    assert!(matches!(fabric.devices[0].replies[..], [Reply::RunStarted { .. }]));
    assert_eq!(fabric.devices[1].executions[0].1.get("text"), Some(&Value::from("hello")));
    fabric.finish(1, Ok("hello".into()));
    assert_eq!(fabric.ended(), Some((RunState::Done, None)));
    assert_eq!(fabric.steps(0), ["owner allow", "done"]);
    assert_eq!(fabric.steps(1), ["executor allow", "done"]);
}

#[test]
fn what_the_executors_rules_deny_does_not_run_though_the_owners_allow_it() {
    let deny = Stub { executor: Effect::Deny, ..ALLOW };
    let mut fabric = Fabric::new(ALLOW, deny);
    fabric.say_on_server(false);
    assert!(fabric.devices[1].executions.is_empty());
    let (state, failure) = fabric.ended().unwrap();
    assert_eq!(state, RunState::Failed);
    assert!(failure.unwrap().contains("server refused: the stub says deny"));
    assert_eq!(fabric.steps(0), ["owner allow", "denied"]);
    assert_eq!(fabric.steps(1), ["executor deny"]);
}

#[test]
fn what_the_owners_rules_deny_is_never_offered() {
    let deny = Stub { owner: Effect::Deny, ..ALLOW };
    let mut fabric = Fabric::new(deny, ALLOW);
    fabric.say_on_server(false);
    assert!(fabric.devices[1].executions.is_empty());
    assert_eq!(fabric.ended().unwrap().0, RunState::Failed);
    assert_eq!(fabric.steps(0), ["owner deny"]);
    assert!(fabric.steps(1).is_empty());
}

#[test]
fn what_is_asked_runs_after_a_persons_yes_and_not_after_a_no() {
    let ask = Stub { owner: Effect::Ask, executor: Effect::Ask, ..ALLOW };
    for yes in [true, false] {
        let mut fabric = Fabric::new(ask.clone(), ask.clone());
        fabric.say_on_server(true);
        let Some(Event::Asked { run, step, .. }) = fabric.devices[0].events.last().cloned() else {
            panic!("nobody was asked: {:?}", fabric.devices[0].events);
        };
        fabric.feed(
            0,
            Input::Command { door: DoorId(1), command: Command::Consent { run, step, yes } },
        );
        fabric.settle();
        if yes {
            fabric.finish(1, Ok("hello".into()));
            assert_eq!(fabric.ended(), Some((RunState::Done, None)));
            assert_eq!(fabric.steps(1), ["executor allow", "done"]);
        } else {
            assert!(fabric.devices[1].executions.is_empty());
            assert_eq!(fabric.ended().unwrap().0, RunState::Failed);
            assert_eq!(fabric.steps(0), ["owner deny"]);
        }
    }
}

#[test]
fn what_is_asked_is_denied_where_nobody_can_be_asked() {
    let ask = Stub { owner: Effect::Ask, executor: Effect::Ask, ..ALLOW };
    let mut fabric = Fabric::new(ask.clone(), ask);
    fabric.say_on_server(false);
    assert_eq!(fabric.ended().unwrap().0, RunState::Failed);
    assert!(fabric.devices[1].executions.is_empty());
}

#[test]
fn an_executor_does_not_take_an_owners_word_for_a_persons_yes() {
    // The owner's rules allow, so nobody is asked; the executor's rules want a person.
    let ask = Stub { executor: Effect::Ask, ..ALLOW };
    let mut fabric = Fabric::new(ALLOW, ask);
    fabric.say_on_server(true);
    assert!(fabric.devices[1].executions.is_empty());
    assert!(fabric.ended().unwrap().1.unwrap().contains("nobody was asked"));
}

#[test]
fn a_cancelled_run_stops_on_the_executor() {
    let mut fabric = Fabric::new(ALLOW, ALLOW);
    fabric.say_on_server(false);
    let Some(Reply::RunStarted { run }) = fabric.devices[0].replies.first().cloned() else {
        panic!("the run did not start");
    };
    fabric.feed(0, Input::Command { door: DoorId(1), command: Command::Cancel { run } });
    fabric.settle();
    assert_eq!(fabric.ended().unwrap().0, RunState::Cancelled);
    assert_eq!(fabric.devices[1].stopped.len(), 1);
    assert_eq!(fabric.steps(1), ["executor allow", "cancelled"]);
}

#[test]
fn an_executor_that_goes_away_ends_the_step_with_the_reason() {
    let mut fabric = Fabric::new(ALLOW, ALLOW);
    fabric.say_on_server(false);
    fabric.disconnect();
    let (state, failure) = fabric.ended().unwrap();
    assert_eq!(state, RunState::Failed);
    assert!(failure.unwrap().contains("server: "), "the reason names the device");
    // The late outcome of the device that went away changes nothing.
    fabric.finish(1, Ok("hello".into()));
    fabric.connect();
    assert_eq!(fabric.steps(0), ["owner allow", "cancelled"]);
}

#[test]
fn an_executor_that_falls_silent_counts_as_lost_after_its_lease() {
    let mut fabric = Fabric::new(ALLOW, ALLOW);
    fabric.say_on_server(false);
    fabric.cut = true;
    for _ in 0..14 {
        fabric.wait(Duration::from_secs(1));
    }
    assert_eq!(fabric.ended(), None, "the lease still runs");
    fabric.wait(Duration::from_secs(2));
    assert_eq!(fabric.ended().unwrap().0, RunState::Failed);
}

#[test]
fn an_agents_failure_is_the_steps_and_has_its_reason() {
    let mut fabric = Fabric::new(ALLOW, ALLOW);
    fabric.say_on_server(false);
    let failure = Failure { refusal: Refusal::Failed, reason: "it broke".into() };
    fabric.finish(1, Err(failure));
    assert_eq!(fabric.ended(), Some((RunState::Failed, Some("it broke".into()))));
    assert!(
        fabric
            .records(1)
            .iter()
            .any(|body| { matches!(body, Body::Outcome { ending: Ending::Failed, .. }) })
    );
}

//! A fabric of real cores, joined as the network joins them: trust first, and the other protocols when both
//! sides have admitted each other; whoever does not belong is cut off as soon as a side says so.

#![allow(dead_code, reason = "each test uses a part of it")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test carries out what it looks at")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_core::{
    Context, Input, Node, NodeConfig, Output, Ticket, audit,
    door::{Command, DoorId, Event, Reply},
    executor::{CallId, ExecutionId},
    links::StreamId,
    membership,
    registry::Installed,
};
use weft_protocol::{
    audit::{Body, Record},
    codec,
    decision::{Decision, Effect, Policy, Question},
    device::{Kind, Role},
    frame::Protocol,
    graph::{Argument, Plan, Route, Step, StepIndex},
    host_call::{HostCall, HostError},
    id::{BootId, DeviceId, Digest},
    manifest::{EffectClass, Manifest},
    row::{MemoryRows, Rows as _, Table, Write},
    run::{Failure, RunState},
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

const AGENT: &str = r#"
name = "echo"
version = "0.1.0"
kind = "wasm"
description = "Says what it is told."

[permissions]
documents-read = ["note"]
documents-write = ["note"]
timers = true

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
"#;

/// What the rules of all devices say.
#[derive(Clone, Copy)]
pub(crate) struct Rules(pub(crate) Effect);

impl Policy for Rules {
    fn decide(&self, _: &Question) -> Decision {
        Decision {
            effect: self.0,
            reason: format!("the rules say {}", self.0),
            obligations: vec![],
        }
    }

    fn digest(&self) -> Digest {
        Digest::of(self.0.to_string().as_bytes())
    }
}

pub(crate) fn secret(n: u8) -> DeviceSecret {
    DeviceSecret::from_seed(&[n; 32])
}

/// The devices' names, in the order of their numbers.
pub(crate) const NAMES: [&str; 5] = ["laptop", "server", "phone", "tablet", "watch"];

/// What makes a fabric of the first devices: those of `admins` and the laptop are admins.
pub(crate) fn statements(count: u8, admins: &[usize]) -> Vec<Signed> {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let laptop = secret(1);
    let new = NewFabric {
        name: &"home".parse().unwrap(),
        root: None,
        device: &laptop,
        device_name: &NAMES[0].parse().unwrap(),
        kind: Kind::Laptop,
    };
    let mut statements = vec![genesis(new, WallTime::default(), &mut rng)];
    for n in 1..count {
        let role = if admins.contains(&n.into()) { Role::Admin } else { Role::Member };
        statements.push(add(&statements, &laptop, n, role));
    }
    statements
}

/// A statement that adds a device.
pub(crate) fn add(statements: &[Signed], by: &DeviceSecret, n: u8, role: Role) -> Signed {
    let mut rng = ChaCha20Rng::from_seed([n; 32]);
    let graph = Graph::from_statements(statements.to_vec()).unwrap();
    let mut keyring = Keyring::new(by.agreement().clone());
    keyring.learn(&graph);
    let device = secret(n + 1);
    let new = NewDevice {
        device: device.id(),
        agreement: device.agreement().public(),
        name: NAMES[usize::from(n)].parse().unwrap(),
        kind: if n == 1 { Kind::Server } else { Kind::Phone },
        role,
        confirmed: true,
    };
    let author = Author::new(&graph, &keyring, by.signing());
    author.add(new, WallTime::default(), &mut rng).unwrap()
}

pub(crate) struct Device {
    pub(crate) secret: DeviceSecret,
    pub(crate) node: Node,
    pub(crate) rows: MemoryRows,
    pub(crate) starts: u8,
    /// Whether the disk takes its time: batches wait in `held`.
    pub(crate) is_slow: bool,
    pub(crate) held: VecDeque<(Ticket, Vec<Write>)>,
    /// Whom it said last that it serves.
    pub(crate) served: BTreeSet<DeviceId>,
    pub(crate) admitted: BTreeSet<DeviceId>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) events: Vec<Event>,
    pub(crate) executions: Vec<(ExecutionId, Value)>,
    /// Agents started so far, through all starts of the node.
    pub(crate) begun: usize,
    pub(crate) stopped: Vec<ExecutionId>,
    pub(crate) answers: Vec<Result<Value, HostError>>,
}

/// A frame that was sent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Sent {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) protocol: Protocol,
    pub(crate) bytes: Vec<u8>,
}

/// A connection of two devices: its streams, by the protocol.
type Connection = BTreeMap<Protocol, StreamId>;

pub(crate) struct Fabric {
    pub(crate) devices: Vec<Device>,
    pub(crate) now: Now,
    pub(crate) rules: Rules,
    connections: BTreeMap<(usize, usize), Connection>,
    streams: u64,
    wires: VecDeque<Sent>,
    /// Every frame that was sent.
    pub(crate) sent: Vec<Sent>,
    /// Frames that get lost.
    pub(crate) lose: Option<fn(&Sent) -> bool>,
}

impl Fabric {
    /// Devices that are not connected.
    pub(crate) fn new(count: u8, admins: &[usize], rules: Rules) -> Self {
        let statements = statements(count, admins);
        let mut fabric = Self {
            devices: Vec::new(),
            now: Now { mono: Timestamp::from_millis(1_000), wall: WallTime::default() },
            rules,
            connections: BTreeMap::new(),
            streams: 0,
            wires: VecDeque::new(),
            sent: Vec::new(),
            lose: None,
        };
        (0..count).for_each(|n| fabric.push(secret(n + 1), &statements));
        fabric.settle();
        fabric
    }

    /// Devices of which each is connected with each.
    pub(crate) fn met(count: u8, admins: &[usize], rules: Rules) -> Self {
        let mut fabric = Self::new(count, admins, rules);
        fabric.meet_all();
        fabric
    }

    /// One device more.
    pub(crate) fn push(&mut self, secret: DeviceSecret, statements: &[Signed]) {
        let mut rows = MemoryRows::default();
        rows.apply(membership::store(statements));
        let node = start(&secret, 1, &rows, self.now, self.rules);
        self.devices.push(Device {
            secret,
            node,
            rows,
            starts: 1,
            is_slow: false,
            held: VecDeque::new(),
            served: BTreeSet::new(),
            admitted: BTreeSet::new(),
            replies: vec![],
            events: vec![],
            executions: vec![],
            begun: 0,
            stopped: vec![],
            answers: vec![],
        });
    }

    pub(crate) fn id(&self, device: usize) -> DeviceId {
        self.devices[device].secret.id()
    }

    fn at(&self, id: &DeviceId) -> Option<usize> {
        self.devices.iter().position(|device| device.secret.id() == *id)
    }

    /// The power of a device goes and comes back: what was not written is gone. Its key may be another.
    pub(crate) fn restart(&mut self, device: usize, key: Option<DeviceSecret>) {
        self.part_from_all(device);
        let (now, rules) = (self.now, self.rules);
        let it = &mut self.devices[device];
        it.starts += 1;
        it.held.clear();
        it.executions.clear();
        it.secret = key.unwrap_or_else(|| it.secret.clone());
        it.node = start(&it.secret, it.starts, &it.rows, now, rules);
        self.settle();
    }

    pub(crate) fn meet_all(&mut self) {
        for a in 0..self.devices.len() {
            for b in 0..a {
                self.meet(a, b);
            }
        }
    }

    /// Connects two devices as far as they serve each other, and lets everything happen.
    pub(crate) fn meet(&mut self, a: usize, b: usize) {
        if self.are_connected(a, b) {
            return;
        }
        self.connections.insert((a.min(b), a.max(b)), Connection::new());
        for (device, peer) in [(a, b), (b, a)] {
            let peer_id = self.id(peer);
            self.devices[device].admitted.remove(&peer_id);
            self.feed(device, Input::Connected { device: peer_id, address: "there".into() });
        }
        self.open(a, b, Protocol::Trust);
        self.settle();
    }

    fn open(&mut self, a: usize, b: usize, protocol: Protocol) {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let Some(connection) = self.connections.get_mut(&(a.min(b), a.max(b))) else { return };
        connection.insert(protocol, stream);
        for (device, peer) in [(a, b), (b, a)] {
            let peer = self.id(peer);
            self.feed(device, Input::StreamOpened { stream, device: peer, protocol });
        }
    }

    pub(crate) fn are_connected(&self, a: usize, b: usize) -> bool {
        self.connections.contains_key(&(a.min(b), a.max(b)))
    }

    /// Whether anything but trust is spoken.
    pub(crate) fn serve_each_other(&self, a: usize, b: usize) -> bool {
        let connection = self.connections.get(&(a.min(b), a.max(b)));
        connection.is_some_and(|connection| connection.len() > 1)
    }

    pub(crate) fn part(&mut self, a: usize, b: usize) {
        self.cut(a, b);
        self.settle();
    }

    pub(crate) fn part_from_all(&mut self, device: usize) {
        (0..self.devices.len()).for_each(|other| self.cut(device, other));
        self.settle();
    }

    fn cut(&mut self, a: usize, b: usize) {
        if self.connections.remove(&(a.min(b), a.max(b))).is_none() {
            return;
        }
        self.wires.retain(|sent| {
            (sent.from.min(sent.to), sent.from.max(sent.to)) != (a.min(b), a.max(b))
        });
        for (device, peer) in [(a, b), (b, a)] {
            let peer = self.id(peer);
            self.devices[device].admitted.remove(&peer);
            self.feed(device, Input::Disconnected { device: peer });
        }
    }

    pub(crate) fn feed(&mut self, device: usize, input: Input) {
        let it = &mut self.devices[device];
        let context = Context { now: self.now, rows: &it.rows, policy: &self.rules };
        it.node.handle_input(input, context);
    }

    /// Carries everything out until nothing is left.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut idle = true;
            for device in 0..self.devices.len() {
                while let Some(output) = self.devices[device].node.poll_output() {
                    idle = false;
                    self.carry_out(device, output);
                }
            }
            while let Some(sent) = self.wires.pop_front() {
                idle = false;
                if self.lose.is_some_and(|lose| lose(&sent)) {
                    continue;
                }
                self.deliver(&sent);
            }
            idle &= !self.follow();
            if idle {
                return;
            }
        }
    }

    /// Gives a frame to its receiver, on the stream of its protocol that there is now.
    pub(crate) fn deliver(&mut self, sent: &Sent) -> bool {
        let key = (sent.from.min(sent.to), sent.from.max(sent.to));
        let stream = self.connections.get(&key).and_then(|it| it.get(&sent.protocol)).copied();
        let Some(stream) = stream else { return false };
        self.feed(sent.to, Input::Frame { stream, bytes: sent.bytes.clone() });
        true
    }

    fn carry_out(&mut self, device: usize, output: Output) {
        let it = &mut self.devices[device];
        match output {
            Output::Send { stream, bytes } => {
                let on = self.connections.iter().find_map(|(pair, connection)| {
                    let (protocol, _) = connection.iter().find(|(_, it)| **it == stream)?;
                    Some((*pair, *protocol))
                });
                let Some(((a, b), protocol)) = on else { return };
                let to = if a == device { b } else { a };
                let sent = Sent { from: device, to, protocol, bytes };
                self.sent.push(sent.clone());
                self.wires.push_back(sent);
            }
            Output::Persist { ticket, writes, .. } if it.is_slow => {
                it.held.push_back((ticket, writes));
            }
            Output::Persist { ticket, writes, .. } => {
                it.rows.apply(writes);
                self.feed(device, Input::Persisted(ticket));
            }
            Output::Members(members) => it.served = members,
            Output::Admit { device: peer } => drop(it.admitted.insert(peer)),
            Output::Disconnect { device: peer } => {
                // What was sent before goes out first.
                let (first, rest): (Vec<_>, Vec<_>) =
                    self.wires.drain(..).partition(|sent| sent.from == device);
                self.wires.extend(rest);
                for sent in first {
                    self.deliver(&sent);
                }
                if let Some(peer) = self.at(&peer) {
                    self.cut(device, peer);
                }
            }
            Output::Execute { execution, arguments, .. } => {
                it.executions.push((execution, arguments));
                it.begun += 1;
            }
            Output::StopExecution(execution) => {
                it.executions.retain(|(running, _)| *running != execution);
                it.stopped.push(execution);
            }
            Output::AnswerCall { answer, .. } => it.answers.push(answer),
            Output::Reply { reply, .. } => it.replies.push(reply),
            Output::Event { door: Some(_), event } => it.events.push(event),
            _ => {}
        }
    }

    /// Does what the network does by itself. False if there is nothing to do.
    fn follow(&mut self) -> bool {
        let pairs: Vec<_> = self.connections.keys().copied().collect();
        let mut did = false;
        for (a, b) in pairs {
            let (ids, [one, other]) =
                ([self.id(a), self.id(b)], [a, b].map(|it| &self.devices[it]));
            let both = one.served.contains(&ids[1]) && other.served.contains(&ids[0]);
            let admitted = one.admitted.contains(&ids[1]) && other.admitted.contains(&ids[0]);
            if !both && self.serve_each_other(a, b) {
                self.cut(a, b);
                did = true;
            } else if both && admitted && !self.serve_each_other(a, b) {
                for protocol in Protocol::SPOKEN.into_iter().filter(|it| *it != Protocol::Trust) {
                    self.open(a, b, protocol);
                }
                did = true;
            }
        }
        did
    }

    /// The disk of a device takes the first batches that wait, and goes on to take its time.
    pub(crate) fn write_held(&mut self, device: usize, count: usize) {
        self.devices[device].is_slow = true;
        for _ in 0..count {
            let Some((ticket, writes)) = self.devices[device].held.pop_front() else { break };
            self.devices[device].rows.apply(writes);
            self.feed(device, Input::Persisted(ticket));
            self.settle();
        }
    }

    /// The disk of a device refuses all that waits, and what that leads to.
    pub(crate) fn refuse_held(&mut self, device: usize) {
        while let Some((ticket, _)) = self.devices[device].held.pop_front() {
            self.feed(device, Input::PersistFailed(ticket, "the disk is full".into()));
            self.settle();
        }
    }

    /// The disk of a device does what it was told.
    pub(crate) fn flush(&mut self, device: usize) {
        self.devices[device].is_slow = false;
        while let Some((ticket, writes)) = self.devices[device].held.pop_front() {
            self.devices[device].rows.apply(writes);
            self.feed(device, Input::Persisted(ticket));
        }
        self.settle();
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.now = Now { mono: self.now.mono + duration, wall: self.now.wall + duration };
        for device in 0..self.devices.len() {
            self.time_out(device);
        }
        self.settle();
    }

    /// Tells a device that time has passed, and carries nothing out.
    pub(crate) fn time_out(&mut self, device: usize) {
        let it = &mut self.devices[device];
        it.node.handle_timeout(Context { now: self.now, rows: &it.rows, policy: &self.rules });
    }

    /// Asks a device something, and gives its answer.
    pub(crate) fn ask(&mut self, device: usize, command: Command) -> Reply {
        self.feed(device, Input::Command { door: DoorId(2), command });
        self.settle();
        self.devices[device].replies.pop().expect("it answers")
    }

    pub(crate) fn revoke(&mut self, by: usize, device: usize) {
        let command = Command::Revoke { device: self.id(device).to_string() };
        let reply = self.ask(by, command);
        assert!(matches!(reply, Reply::Done), "{reply:?}");
    }

    /// The person of a device wants steps done.
    pub(crate) fn carry_out_steps(&mut self, device: usize, steps: Vec<Step>, can_ask: bool) {
        let command = Command::Do {
            words: "as it was said".into(),
            plan: Plan::new(Route::Phrases, steps).unwrap(),
            files: BTreeMap::new(),
            local_time: "1970-01-01T00:00:00".into(),
            time_zone: "UTC".into(),
            can_ask,
        };
        self.feed(device, Input::Command { door: DoorId(1), command });
        self.settle();
    }

    /// The person of a device wants one thing done on another.
    pub(crate) fn have_done(&mut self, device: usize, capability: &str, on: usize) {
        let effect = match capability {
            "echo.say" => EffectClass::ReadOnly,
            "echo.once" => EffectClass::AtMostOnce,
            _ => EffectClass::Idempotent,
        };
        let step = step(1, capability, effect, Some(NAMES[on]));
        self.carry_out_steps(device, vec![step], false);
    }

    /// What runs on a device ends.
    pub(crate) fn finish(&mut self, device: usize, result: Result<Value, Failure>) {
        let (execution, _) = self.devices[device].executions.pop().expect("something runs there");
        self.feed(device, Input::Executed { execution, result });
        self.settle();
    }

    /// What runs on a device asks for something.
    pub(crate) fn call(&mut self, device: usize, call: u64, request: HostCall) {
        let (execution, _) = *self.devices[device].executions.last().expect("something runs there");
        self.feed(device, Input::HostCall { execution, call: CallId(call), request });
        self.settle();
    }

    /// Writes a note on a device.
    pub(crate) fn note(&mut self, device: usize, text: &str) {
        self.have_done(device, "echo.write", device);
        let content = Value::map([("text", Value::from(text))]);
        self.call(device, 1, HostCall::DocumentCreate { kind: "note".into(), content });
        self.finish(device, Ok(Value::Null));
    }

    /// The texts of the notes that a device has.
    pub(crate) fn notes(&mut self, device: usize) -> Vec<String> {
        let command = Command::Documents { kind: "note".into(), query: String::new(), limit: 100 };
        let Reply::Documents(views) = self.ask(device, command) else { panic!("it lists") };
        let text = |value: &Value| value.get("text").and_then(Value::as_text).map(str::to_owned);
        let mut texts: Vec<String> = views.iter().filter_map(|view| text(&view.content)).collect();
        texts.sort();
        texts
    }

    /// How the newest run of a device ended.
    pub(crate) fn ended(&self, device: usize) -> Option<(RunState, Option<String>)> {
        self.devices[device].events.iter().rev().find_map(|event| match event {
            Event::RunEnded { state, failure, .. } => Some((*state, failure.clone())),
            _ => None,
        })
    }

    /// What the chain of a device says of steps; the chain is checked.
    pub(crate) fn steps(&self, device: usize) -> Vec<String> {
        let rows = &self.devices[device].rows;
        let signatures = audit::Signatures::Every;
        audit::verify(self.id(device), vec![], rows, signatures).expect("the chain verifies");
        let records = rows.scan_from(Table::Audit, &[], 0, 10_000).unwrap();
        let bodies = records.into_iter().map(|(_, bytes)| {
            let signed: Signed = codec::decode(&bytes, 16_384).unwrap();
            codec::decode::<Record>(&signed.bytes, 16_384).unwrap().body
        });
        let words = bodies.filter_map(|body| match body {
            Body::Intent { point, decision, .. } => Some(format!("{point} {}", decision.effect)),
            Body::Outcome { ending, .. } => Some(ending.to_string()),
            _ => None,
        });
        words.collect()
    }
}

fn start(secret: &DeviceSecret, start: u8, rows: &MemoryRows, now: Now, rules: Rules) -> Node {
    let manifest = Manifest::parse(AGENT).unwrap();
    let component: Arc<[u8]> = Arc::from(b"component".as_slice());
    let mut seed = *secret.id().as_bytes();
    seed[0] ^= start;
    let config = NodeConfig {
        secret: secret.clone(),
        boot: BootId { counter: start.into(), random: seed[1].into() },
        seed,
        agents: vec![Installed::new(manifest, AGENT, component, true)],
    };
    Node::start(config, Context { now, rows, policy: &rules }).unwrap()
}

/// A step that says hello.
pub(crate) fn step(
    index: u16,
    capability: &str,
    effect: EffectClass,
    device: Option<&str>,
) -> Step {
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

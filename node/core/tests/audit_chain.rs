//! The audit chain on disks that fail and are set back: nothing that claims to be recorded is missing,
//! and the chain goes on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_core::{
    Context, Input, Node, NodeConfig, Output, Ticket,
    audit::{self, Checked, Fault, Signatures},
    door::{Command, DoorId, Reply, Status, Verification},
    executor::ExecutionId,
    links::StreamId,
    membership,
    registry::Installed,
    witness::{Witnessed, witnessed},
};
use weft_protocol::{
    audit::{AuditMessage, Body, Head},
    codec,
    decision::{Decision, Effect, Policy, Question},
    device::{Kind, Role},
    frame::Protocol,
    graph::{Argument, Plan, Route, Step, StepIndex},
    id::{BootId, DeviceId, Digest, SegmentId},
    manifest::{EffectClass, Manifest},
    row::{MemoryRows, Rows as _, Table, Write},
    run::Failure,
    signed::Signed,
    time::{Now, Timestamp, WallTime},
    value::Value,
    witness::{Fork, SignedHead, WITNESS_BYTES_MAX},
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

[[capability]]
name = "echo.say"
description = "Says it."
effect = "read-only"
[capability.arguments]
required = ["text"]
[capability.arguments.properties]
text = { type = "string" }
"#;

struct AllowAll;

impl Policy for AllowAll {
    fn decide(&self, _: &Question) -> Decision {
        Decision { effect: Effect::Allow, reason: "all is allowed".into(), obligations: vec![] }
    }

    fn digest(&self) -> Digest {
        Digest::of(b"all is allowed")
    }
}

/// What a device's disk does from now on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Works,
    /// It takes nothing more.
    Failed,
}

struct Device {
    seed: u8,
    node: Node,
    rows: MemoryRows,
    disk: Disk,
    boots: u64,
    replies: Vec<Reply>,
    executions: Vec<ExecutionId>,
    /// The positions of the records of each batch, in the order in which they came to the disk.
    batches: Vec<Vec<u64>>,
}

/// The laptop (0) and the server (1).
struct Fabric {
    devices: Vec<Device>,
    now: Now,
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
    let graph = Graph::new(first.clone()).unwrap();
    let mut keyring = Keyring::new(laptop.agreement().clone());
    keyring.learn(&graph);
    let device = NewDevice {
        device: server.id(),
        agreement: server.agreement().public(),
        name: "server".parse().unwrap(),
        kind: Kind::Server,
        role: Role::Member,
        confirmed: true,
    };
    let add = Author::new(&graph, &keyring, laptop.signing())
        .add(device, WallTime::default(), &mut rng)
        .unwrap();
    vec![first, add]
}

fn started(seed: u8, boots: u64, rows: &MemoryRows, now: Now) -> Node {
    let component: Arc<[u8]> = Arc::from(b"component".as_slice());
    let manifest = Manifest::parse(AGENT).unwrap();
    let mut entropy = [seed; 32];
    entropy[..8].copy_from_slice(&boots.to_be_bytes());
    let config = NodeConfig {
        secret: secret(seed),
        boot: BootId { counter: boots, random: boots },
        seed: entropy,
        agents: vec![Installed::new(manifest, AGENT, component, true)],
    };
    Node::start(config, Context { now, rows, policy: &AllowAll }).unwrap()
}

impl Fabric {
    fn new() -> Self {
        let now = Now { mono: Timestamp::from_millis(1_000), wall: WallTime::default() };
        let devices = [1, 2].map(|seed| {
            let mut rows = MemoryRows::default();
            rows.apply(membership::store(&statements()));
            Device {
                seed,
                node: started(seed, 1, &rows, now),
                rows,
                disk: Disk::Works,
                boots: 1,
                replies: vec![],
                executions: vec![],
                batches: vec![],
            }
        });
        let mut fabric = Self { devices: devices.into(), now };
        fabric.settle();
        fabric
    }

    /// Starts a device anew on a disk, and lets the two meet.
    fn restart(&mut self, device: usize, rows: MemoryRows) {
        self.part();
        let it = &mut self.devices[device];
        it.boots += 1;
        (it.rows, it.disk) = (rows, Disk::Works);
        it.node = started(it.seed, it.boots, &it.rows, self.now);
        self.settle();
    }

    fn part(&mut self) {
        for device in 0..2 {
            let peer = self.id(1 - device);
            self.feed(device, Input::Disconnected { device: peer });
        }
        self.settle();
    }

    fn meet(&mut self) {
        for device in 0..2 {
            let peer = self.id(1 - device);
            self.feed(device, Input::Connected { device: peer, address: "there".into() });
        }
        for protocol in Protocol::SPOKEN {
            for device in 0..2 {
                let peer = self.id(1 - device);
                let stream = StreamId(protocol as u64);
                self.feed(device, Input::StreamOpened { stream, device: peer, protocol });
            }
        }
        self.settle();
    }

    fn id(&self, device: usize) -> DeviceId {
        self.devices[device].node.me()
    }

    fn feed(&mut self, device: usize, input: Input) {
        let it = &mut self.devices[device];
        it.node.handle_input(input, Context { now: self.now, rows: &it.rows, policy: &AllowAll });
    }

    fn wait(&mut self, duration: Duration) {
        self.now = Now { mono: self.now.mono + duration, wall: self.now.wall + duration };
        for device in 0..2 {
            self.timeout(device);
        }
        self.settle();
    }

    fn timeout(&mut self, device: usize) {
        let it = &mut self.devices[device];
        it.node.handle_timeout(Context { now: self.now, rows: &it.rows, policy: &AllowAll });
    }

    /// Carries everything out until nothing is left.
    fn settle(&mut self) {
        let mut frames = VecDeque::new();
        loop {
            let mut idle = true;
            for device in 0..2 {
                while let Some(output) = self.devices[device].node.poll_output() {
                    idle = false;
                    match output {
                        Output::Send { stream, bytes } => {
                            frames.push_back((1 - device, stream, bytes));
                        }
                        Output::Persist { ticket, writes, .. } => {
                            self.write(device, ticket, writes);
                        }
                        Output::Execute { execution, .. } => {
                            self.devices[device].executions.push(execution);
                        }
                        Output::Reply { reply, .. } => self.devices[device].replies.push(reply),
                        Output::Members(_)
                        | Output::Remember { .. }
                        | Output::Admit { .. }
                        | Output::Disconnect { .. }
                        | Output::StopExecution(_)
                        | Output::AnswerCall { .. }
                        | Output::OpenPairing { .. }
                        | Output::SendPairing { .. }
                        | Output::ClosePairingLink { .. }
                        | Output::ClosePairing { .. }
                        | Output::Event { .. }
                        | Output::Log { .. } => {}
                    }
                }
            }
            while let Some((to, stream, bytes)) = frames.pop_front() {
                idle = false;
                self.feed(to, Input::Frame { stream, bytes });
            }
            if idle {
                return;
            }
        }
    }

    /// As the store does it: after a failure nothing is taken.
    fn write(&mut self, device: usize, ticket: Ticket, writes: Vec<Write>) {
        let it = &mut self.devices[device];
        let input = if it.disk == Disk::Failed {
            Input::PersistFailed(ticket, "the disk is full".to_owned())
        } else {
            let positions: Vec<u64> = writes.iter().filter_map(audit::position_of).collect();
            if !positions.is_empty() {
                it.batches.push(positions);
            }
            it.rows.apply(writes);
            Input::Persisted(ticket)
        };
        self.feed(device, input);
    }

    /// Has the laptop say something on itself.
    fn say(&mut self, text: &str) {
        let step = Step {
            index: StepIndex(1),
            capability: "echo.say".parse().unwrap(),
            arguments: BTreeMap::from([("text".into(), Argument::Literal(text.into()))]),
            device: Some("laptop".into()),
            after: [].into(),
            effect: EffectClass::ReadOnly,
            may_call: vec![],
        };
        let command = Command::Do {
            words: format!("say {text}"),
            plan: Plan::new(Route::Phrases, vec![step]).unwrap(),
            files: BTreeMap::new(),
            local_time: "1970-01-01T00:00:00".into(),
            time_zone: "UTC".into(),
            can_ask: false,
        };
        self.feed(0, Input::Command { door: DoorId(1), command });
        self.settle();
    }

    fn finish(&mut self, result: Result<Value, Failure>) {
        let execution = self.devices[0].executions.pop().expect("something runs");
        self.feed(0, Input::Executed { execution, result });
        self.settle();
    }

    fn said(&mut self, text: &str) {
        self.say(text);
        self.finish(Ok(text.into()));
    }

    fn status(&mut self) -> Status {
        self.feed(0, Input::Command { door: DoorId(2), command: Command::Status });
        self.settle();
        match self.devices[0].replies.pop() {
            Some(Reply::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn verification(&mut self) -> Verification {
        let command = Command::Verify { every_signature: false };
        self.feed(0, Input::Command { door: DoorId(2), command });
        self.settle();
        match self.devices[0].replies.pop() {
            Some(Reply::Verified(found)) => found,
            other => panic!("{other:?}"),
        }
    }

    /// Checks a device's chain on its disk against all countersignatures on both.
    fn check(&self, device: usize) -> Result<Checked, Fault> {
        let id = self.id(device);
        let heads = self.devices.iter().flat_map(|it| {
            let Witnessed { heads, bogus } = witnessed(id, &it.rows).unwrap();
            assert_eq!(bogus, []);
            heads.into_iter().map(|(_, head)| head)
        });
        let (heads, rows) = (heads.collect::<Vec<_>>(), &self.devices[device].rows);
        let quick = audit::verify(id, heads.clone(), rows, Signatures::Checkpoints);
        assert_eq!(quick, audit::verify(id, heads, rows, Signatures::Every));
        quick
    }

    fn bodies(&self) -> Vec<Body> {
        let records = self.devices[0].rows.scan_from(Table::Audit, &[], 0, usize::MAX).unwrap();
        records.into_iter().map(|(at, bytes)| audit::read(at, &bytes).unwrap().1.body).collect()
    }
}

#[test]
fn a_disk_that_fails_ends_the_chain_that_is_claimed_where_the_disk_ends() {
    let mut fabric = Fabric::new();
    fabric.meet();
    fabric.said("one");
    fabric.wait(Duration::from_secs(2));
    let head = fabric.status().audit_head;
    assert_eq!(fabric.check(0).unwrap().head, head);
    fabric.devices[0].disk = Disk::Failed;
    for text in ["two", "three"] {
        fabric.say(text);
        fabric.wait(Duration::from_secs(2));
    }
    assert_eq!(fabric.devices[0].executions, [], "no record, no effect");
    assert_eq!(fabric.status().audit_head, head, "what is not on the disk is not claimed");
    assert_eq!(fabric.check(0).unwrap().head, head);

    let rows = fabric.devices[0].rows.clone();
    fabric.restart(0, rows);
    fabric.meet();
    fabric.said("four");
    fabric.wait(Duration::from_secs(2));
    let checked = fabric.check(0).unwrap();
    assert_eq!((checked.head, checked.setbacks), (fabric.status().audit_head, vec![]));
}

#[test]
fn records_come_to_the_disk_in_their_order_whichever_machine_made_them() {
    let mut fabric = Fabric::new();
    fabric.say("something long");
    assert_eq!(fabric.devices[0].executions.len(), 1);
    fabric.feed(0, Input::StrangerTurnedAway);
    fabric.devices[0].batches.clear();
    // The step's time is over at the same moment at which strangers are recorded.
    fabric.wait(Duration::from_secs(3_601));
    let bodies = fabric.bodies();
    let batches = &fabric.devices[0].batches;
    assert!(bodies.contains(&Body::Strangers { count: 1 }));
    assert!(batches.concat().len() > 2, "{batches:?}");
    // A power cut between any two leaves no gap.
    for pair in batches.windows(2) {
        assert!(pair[0].iter().max() < pair[1].iter().min(), "{batches:?}");
    }
    assert!(fabric.check(0).is_ok());
}

#[test]
fn a_checkpoint_follows_within_a_minute_and_then_the_chain_rests() {
    let mut fabric = Fabric::new();
    for _ in 0..70 {
        fabric.wait(Duration::from_secs(1));
    }
    let is_checkpoint = |body: &Body| matches!(body, Body::Checkpoint { .. });
    let bodies = fabric.bodies();
    assert_eq!(bodies.iter().filter(|body| is_checkpoint(body)).count(), 1, "{bodies:?}");
    for _ in 0..200 {
        fabric.wait(Duration::from_secs(1));
    }
    assert_eq!(fabric.bodies(), bodies);
    fabric.said("one");
    fabric.wait(Duration::from_secs(61));
    assert_eq!(fabric.bodies().iter().filter(|body| is_checkpoint(body)).count(), 2);
    assert!(fabric.check(0).is_ok());
}

#[test]
fn a_disk_that_is_set_back_is_recovered_when_the_first_device_is_met() {
    let mut fabric = Fabric::new();
    fabric.meet();
    fabric.said("one");
    fabric.wait(Duration::from_secs(2));
    let old = fabric.devices[0].rows.clone();
    for text in ["two", "three", "four"] {
        fabric.said(text);
        fabric.wait(Duration::from_secs(2));
    }
    let lost = fabric.status().audit_head.unwrap();
    assert_eq!(fabric.check(0).unwrap().head, Some(lost));

    fabric.restart(0, old);
    fabric.said("five");
    assert_eq!(fabric.check(0), Err(Fault::CutOff(lost.position)), "the server knows better");
    fabric.meet();
    let checked = fabric.check(0).unwrap();
    assert_eq!(checked.setbacks.len(), 1);
    let setback = checked.setbacks[0];
    assert_eq!((setback.lost, setback.at), (lost, lost.position + 1));
    let recovered: Vec<Body> = fabric
        .bodies()
        .into_iter()
        .filter(|body| matches!(body, Body::Segment { recovered: Some(_), .. }))
        .collect();
    assert_eq!(recovered.len(), 1, "{recovered:?}");

    // The chain goes on, the server goes along, and the gap stays named.
    fabric.said("six");
    fabric.wait(Duration::from_secs(2));
    fabric.wait(Duration::from_secs(2));
    let found = fabric.verification();
    let (first, last) = setback.missing.unwrap();
    let sentence = format!(
        "records {first} to {last} are missing: the disk was set back; recovered at record {}",
        setback.at
    );
    assert_eq!(found.fault, None);
    assert_eq!(found.setbacks, [(setback.at, sentence)]);
    assert_eq!(found.forks, []);
    let head = fabric.status().audit_head.unwrap();
    assert_eq!(found.witnesses, [("server".to_owned(), head.position)]);
    let warnings = fabric.status().warnings;
    assert!(warnings.iter().any(|it| it.contains("set back")), "{warnings:?}");

    // A further start says nothing again.
    let rows = fabric.devices[0].rows.clone();
    fabric.restart(0, rows);
    fabric.meet();
    fabric.said("seven");
    fabric.wait(Duration::from_secs(2));
    assert_eq!(fabric.check(0).unwrap().setbacks, [setback]);
}

#[test]
fn a_device_that_is_copied_and_runs_twice_is_not_called_forked_but_set_back() {
    let mut fabric = Fabric::new();
    fabric.meet();
    fabric.said("one");
    fabric.wait(Duration::from_secs(2));
    let copy = fabric.devices[0].rows.clone();
    fabric.restart(0, copy.clone());
    fabric.meet();
    fabric.said("on the one");
    fabric.wait(Duration::from_secs(2));
    fabric.restart(0, copy);
    fabric.meet();
    fabric.said("on the other");
    fabric.wait(Duration::from_secs(2));
    let checked = fabric.check(0).unwrap();
    assert_eq!(checked.setbacks.len(), 1);
    assert_eq!(fabric.verification().forks, []);
}

#[test]
fn a_fork_is_a_warning_and_its_proof_is_shown_also_after_a_start() {
    let mut fabric = Fabric::new();
    fabric.meet();
    let head = |record: &[u8]| {
        let head = Head {
            device: secret(2).id(),
            segment: SegmentId::from_bytes([7; 16]),
            position: 3,
            digest: Digest::of(record),
        };
        SignedHead::new(head, secret(2).signing()).signed().clone()
    };
    let bytes = codec::encode(&AuditMessage::Fork(head(b"one"), head(b"other")));
    fabric.feed(0, Input::Frame { stream: StreamId(Protocol::Audit as u64), bytes });
    fabric.settle();
    for _ in 0..2 {
        let warnings = fabric.status().warnings;
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(warning.starts_with("the audit chain of server is forked"), "{warning}");
        let found = fabric.verification();
        assert_eq!(found.fault, None, "this device's own chain is as it was");
        let [fork] = found.forks.as_slice() else { panic!("{:?}", found.forks) };
        assert_eq!((fork.device.as_str(), fork.position), ("server", 3));
        let signed = |bytes: &Vec<u8>| codec::decode(bytes, WITNESS_BYTES_MAX).unwrap();
        let [one, other] = fork.heads.each_ref().map(signed);
        assert!(Fork::open(one, other).is_some(), "whoever has the proof needs nothing else");
        let rows = fabric.devices[0].rows.clone();
        fabric.restart(0, rows);
    }
}

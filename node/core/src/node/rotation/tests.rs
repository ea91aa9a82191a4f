use std::collections::BTreeMap;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use weft_protocol::{
    codec,
    device::{Kind, Role},
    document::DocumentKind,
    graph::{Plan, Route, StepId},
    id::{BootId, Digest, DocumentId, RunId},
    manifest::EffectClass,
    row::{MemoryRows, Row, Rows as _, Table},
    run::{Attempt, Executed, Stage},
    time::WallTime,
    value::Value,
};
use weft_trust::{
    author::{Author, NewDevice, NewFabric, genesis},
    keyring::Keyring,
};

use super::*;
use crate::{
    Input, NodeConfig,
    door::{Command, DeviceView, Verification},
    node::tests::context,
    replica::{self, Edit, Replica},
};

fn secret(n: u8) -> DeviceSecret {
    DeviceSecret::from_seed(&[n; 32])
}

/// A device alone, and its disk.
struct Alone {
    node: Node,
    rows: MemoryRows,
    boots: u64,
    replies: Vec<Reply>,
    /// The disk takes nothing any more.
    broken: bool,
}

fn started(key: u8, boots: u64, rows: &MemoryRows) -> Node {
    let boot = BootId { counter: boots, random: boots };
    let seed = [u8::try_from(boots).unwrap(); 32];
    let config = NodeConfig { secret: secret(key), boot, seed, agents: vec![] };
    Node::start(config, context(rows)).unwrap()
}

impl Alone {
    fn new() -> Self {
        let new = NewFabric {
            name: &"home".parse().unwrap(),
            root: None,
            device: &secret(1),
            device_name: &"laptop".parse().unwrap(),
            kind: Kind::Laptop,
        };
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let mut rows = MemoryRows::default();
        rows.apply(membership::store(&[genesis(new, WallTime::default(), &mut rng)]));
        let node = started(1, 1, &rows);
        let mut it = Self { node, rows, boots: 1, replies: vec![], broken: false };
        it.settle();
        it
    }

    /// Begins anew under a key.
    fn restart(&mut self, key: u8) {
        self.boots += 1;
        self.node = started(key, self.boots, &self.rows);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(output) = self.node.poll_output() {
            if let Output::Persist { ticket, writes, .. } = output {
                let input = if self.broken {
                    Input::PersistFailed(ticket, "the disk is full".into())
                } else {
                    self.rows.apply(writes);
                    Input::Persisted(ticket)
                };
                self.node.handle_input(input, context(&self.rows));
            } else if let Output::Reply { reply, .. } = output {
                self.replies.push(reply);
            }
        }
    }

    fn rotate(&mut self, key: u8) -> Reply {
        let input = Input::Rotate { door: DoorId(7), next: Box::new(secret(key)) };
        self.node.handle_input(input, context(&self.rows));
        self.settle();
        self.replies.pop().expect("it is answered")
    }

    fn ask(&mut self, command: Command) -> Reply {
        let input = Input::Command { door: DoorId(8), command };
        self.node.handle_input(input, context(&self.rows));
        self.settle();
        self.replies.pop().expect("it is answered")
    }

    fn devices(&mut self) -> Vec<DeviceView> {
        let Reply::Devices(devices) = self.ask(Command::Devices) else { panic!("no devices") };
        devices
    }

    fn verification(&mut self) -> Verification {
        let verify = Command::Verify { every_signature: true };
        let Reply::Verified(found) = self.ask(verify) else { panic!("not verified") };
        found
    }

    fn write(&mut self, note: u8, text: &str) {
        let content = Value::map([("text", Value::from(text))]);
        let id = DocumentId::from_bytes([note; 16]);
        let edit = Edit::Create { id, kind: DocumentKind::NOTE, content };
        let documents = replica::Context {
            now: context(&self.rows).now,
            rows: &self.rows,
            members: &self.node.membership,
        };
        let prepared = self.node.replica.prepare(vec![edit], &documents).unwrap();
        let batch = Batch::synced(prepared.writes);
        self.node.persist(batch, After::Replica(prepared.ticket));
        self.node.hand_over(context(&self.rows).now);
        self.settle();
    }
}

fn rotated(from: u8, to: u8) -> Reply {
    Reply::Rotated { former: secret(from).id(), device: secret(to).id() }
}

#[test]
fn a_device_goes_on_under_its_new_key_with_all_that_it_had_twice_in_a_row() {
    let mut it = Alone::new();
    it.write(1, "before");
    assert_eq!(it.rotate(2), rotated(1, 2));
    it.restart(2);
    assert!(Replica::has_adopted(&secret(1).id(), &it.rows).unwrap());
    it.write(2, "after");
    assert_eq!(it.rotate(3), rotated(2, 3));
    it.restart(3);
    let [device] = &it.devices()[..] else { panic!("one device, and no other") };
    assert_eq!((device.id, device.name.as_str()), (secret(3).id(), "laptop"));
    assert_eq!((device.role, device.this), (Role::Admin, true));
    assert_eq!(device.former, [secret(2).id(), secret(1).id()]);
    let found = it.verification();
    assert_eq!((found.fault, found.former.len()), (None, 2));
    for (chain, key) in found.former.iter().zip([2, 1]) {
        assert_eq!((chain.key, &chain.fault), (secret(key).id(), &None));
        assert!(chain.records > 2);
    }
    let Reply::Documents(notes) =
        it.ask(Command::Documents { kind: "note".into(), query: String::new(), limit: 9 })
    else {
        panic!("no documents")
    };
    assert_eq!(notes.len(), 2);
    // A former key is found by its id, and says what became of it.
    let Reply::Device(old) = it.ask(Command::Device { device: secret(1).id().to_string() }) else {
        panic!("no device")
    };
    assert_eq!(old.state, "revoked");
    assert!(old.standing.unwrap().why.contains("its key was replaced"));
}

#[test]
fn a_crash_between_any_two_batches_leaves_the_key_that_the_rows_name() {
    let mut it = Alone::new();
    it.write(1, "before");
    let before = it.rows.clone();
    let input = Input::Rotate { door: DoorId(7), next: Box::new(secret(2)) };
    it.node.handle_input(input, context(&it.rows));
    let mut stages = vec![(before, 1)];
    while let Some(output) = it.node.poll_output() {
        let Output::Persist { ticket, writes, .. } = output else {
            assert!(
                stages.len() > 1 || !matches!(output, Output::Send { .. } | Output::Reply { .. }),
                "nobody hears of it before it is on the disk"
            );
            continue;
        };
        it.rows.apply(writes);
        stages.push((it.rows.clone(), 2));
        it.node.handle_input(Input::Persisted(ticket), context(&it.rows));
    }
    assert!(stages.len() > 2);
    for (rows, key) in stages {
        let former = membership::graph(&rows).unwrap().former(&secret(2).id());
        assert_eq!(!former.is_empty(), key == 2);
        let node = started(key, 9, &rows);
        let mut it = Alone { node, rows, boots: 9, replies: vec![], broken: false };
        it.settle();
        let [device] = &it.devices()[..] else { panic!("one device") };
        assert_eq!((device.id, device.this), (secret(key).id(), true));
        assert_eq!(it.verification().fault, None);
        assert!(it.verification().former.iter().all(|chain| chain.fault.is_none()));
    }
}

#[test]
fn a_disk_that_refuses_leaves_the_old_key() {
    let mut it = Alone::new();
    it.broken = true;
    let Reply::Refused { refusal: Refusal::Failed, reason } = it.rotate(2) else {
        panic!("it is on no disk")
    };
    assert!(reason.contains("the disk is full"), "{reason}");
    assert!(it.node.membership.state().member(&secret(1).id()).is_some());
    it.broken = false;
    it.restart(1);
    assert_eq!(it.devices()[0].id, secret(1).id());
}

#[test]
fn nothing_else_is_done_between_a_rotation_and_the_next_start() {
    let mut it = Alone::new();
    let input = Input::Rotate { door: DoorId(7), next: Box::new(secret(2)) };
    it.node.handle_input(input, context(&it.rows));
    let rename = Command::Rename { device: None, name: "other".parse().unwrap() };
    for command in [rename, Command::Devices] {
        let input = Input::Command { door: DoorId(8), command };
        it.node.handle_input(input, context(&it.rows));
    }
    let again = Input::Rotate { door: DoorId(9), next: Box::new(secret(3)) };
    it.node.handle_input(again, context(&it.rows));
    it.settle();
    let refused = |reply: &Reply| matches!(reply, Reply::Refused { reason, .. } if reason.contains("being replaced"));
    assert_eq!(it.replies.iter().filter(|reply| refused(reply)).count(), 3, "{:?}", it.replies);
    assert!(it.replies.contains(&rotated(1, 2)));
    assert!(it.node.is_too_late_for(Protocol::Run));
    assert_eq!(it.node.membership.graph().ids().count(), 2, "one statement was added");
}

#[test]
fn a_rotation_is_refused_while_runs_or_an_invitation_are_open() {
    let mut it = Alone::new();
    let command = Command::Do {
        words: "note that it rains".into(),
        plan: Plan { route: Route::Phrases, steps: vec![] },
        files: BTreeMap::new(),
        local_time: String::new(),
        time_zone: String::new(),
        can_ask: false,
    };
    // Its start is not on the disk yet.
    it.node.handle_input(Input::Command { door: DoorId(6), command }, context(&it.rows));
    let Err((Refusal::Failed, reason)) = it.node.may_rotate(context(&it.rows)) else {
        panic!("a run is under way")
    };
    assert!(reason.starts_with("a run is under way here: "), "{reason}");
    assert!(reason.ends_with("weft run cancel ID"), "{reason}");
    it.settle();
    assert_eq!(it.node.may_rotate(context(&it.rows)), Ok(()));
    let invited =
        Command::Invite { role: Role::Member, confirmed_by_itself: false, by_code: false };
    it.node.handle_input(Input::Command { door: DoorId(8), command: invited }, context(&it.rows));
    let Reply::Refused { reason, .. } = it.rotate(2) else { panic!("an invitation is open") };
    assert!(reason.contains("an invitation is open"), "{reason}");
}

#[test]
fn another_device_hands_on_to_the_new_key_what_it_knew_of_the_old_one() {
    let (phone, next) = (secret(2), secret(3));
    let mut it = Alone::new();
    let new = NewDevice {
        device: phone.id(),
        agreement: phone.agreement().public(),
        name: "phone".parse().unwrap(),
        kind: Kind::Phone,
        role: Role::Member,
        confirmed: true,
    };
    it.node.membership.add(new, context(&it.rows).now).unwrap();
    it.node.handle_timeout(context(&it.rows));
    let addresses = vec!["/ip4/10.0.0.2/udp/4001/quic-v1".to_owned()];
    it.node.addresses.insert(phone.id(), addresses.clone());
    // A step that the phone asked for once, of which it never said that it is settled.
    let attempt = Attempt {
        owner: phone.id(),
        run: RunId::from_bytes([5; 16]),
        step: StepId(vec![1]),
        above: vec![],
        epoch: 1,
    };
    let kept = Executed {
        from: phone.id(),
        attempt,
        asked: Digest::of(b"asked"),
        effect: EffectClass::AtMostOnce,
        intent: None,
        policy: Digest::of(b"rules"),
        stage: Stage::Settled,
    };
    let scope = [b"executed:", phone.id().as_bytes().as_slice()].concat();
    it.rows.apply([Write::Put(Row::named(Table::Run, &scope, b"step"), codec::encode(&kept))]);

    let graph = it.node.membership.graph().clone();
    let mut keyring = Keyring::new(phone.agreement().clone());
    keyring.learn(&graph);
    let author = Author::new(&graph, &keyring, phone.signing());
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let rotate = author.rotate(&next, WallTime::default(), &mut rng).unwrap();
    assert_eq!(it.node.membership.take(vec![rotate]), 1);
    it.node.handle_timeout(context(&it.rows));
    let mut remembered = Vec::new();
    while let Some(output) = it.node.poll_output() {
        if let Output::Persist { ticket, writes, .. } = output {
            it.rows.apply(writes);
            it.node.handle_input(Input::Persisted(ticket), context(&it.rows));
        } else if let Output::Remember { device, addresses } = output {
            remembered.push((device, addresses));
        }
    }
    assert_eq!(remembered, [(next.id(), addresses.clone())]);
    let stored = it.node.membership.remembered(&it.rows).unwrap();
    assert_eq!(stored, [(next.id(), addresses)]);
    assert_eq!(it.rows.scan(Table::Run, &scope), Ok(vec![]), "what it had asked for is settled");
    assert!(Replica::has_adopted(&phone.id(), &it.rows).unwrap());
    let names: Vec<_> = it.devices().into_iter().map(|it| (it.name, it.id)).collect();
    assert_eq!(names, [("laptop".to_owned(), secret(1).id()), ("phone".to_owned(), next.id())]);
    assert_eq!(it.node.name(&phone.id()), "phone");
}

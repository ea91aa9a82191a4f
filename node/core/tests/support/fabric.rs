//! Devices and their connections, and what carries frames from one to the other.
//!
//! A network that heeds trust does as the real one: trust is spoken first, and the other protocols when both
//! sides have admitted each other; whoever does not belong is cut off as soon as a side says so. One that
//! does not opens everything at once, and cuts nobody off.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use weft_core::{
    Input, Output, audit,
    door::{Command, DoorId, Event, Reply},
    executor::CallId,
    links::StreamId,
    registry::Installed,
};
use weft_protocol::{
    audit::Body,
    codec,
    frame::Protocol,
    graph::{Plan, Route, Step},
    host_call::HostCall,
    id::DeviceId,
    run::{Failure, RunMessage, RunState},
    signed::Signed,
    time::{Now, Timestamp, WallTime},
    value::Value,
};
use weft_trust::secret::DeviceSecret;

use super::{
    agent::{self, effect, step},
    device::{Device, Disk},
    rules::Rules,
    statements::{NAMES, secret, statements},
};

/// A frame that was sent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Sent {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) protocol: Protocol,
    pub(crate) bytes: Vec<u8>,
}

impl Sent {
    /// What it says of a run.
    pub(crate) fn run(&self) -> Option<RunMessage> {
        let is_run = self.protocol == Protocol::Run;
        is_run.then(|| codec::decode(&self.bytes, 1 << 20).ok()).flatten()
    }
}

/// A connection of two devices: its streams, by the protocol.
type Connection = BTreeMap<Protocol, StreamId>;

/// The key of the connection of two devices.
fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

pub(crate) struct Fabric {
    pub(crate) devices: Vec<Device>,
    pub(crate) now: Now,
    /// What every device has installed.
    agent: Installed,
    heeds_trust: bool,
    connections: BTreeMap<(usize, usize), Connection>,
    streams: u64,
    wires: VecDeque<Sent>,
    /// Every frame that was sent.
    pub(crate) sent: Vec<Sent>,
    /// Frames that get lost.
    pub(crate) lose: Option<fn(&Sent) -> bool>,
    /// Offers are handed over in the name of a device that knows nothing of them: its stops get lost.
    pub(crate) forges: bool,
}

impl Fabric {
    /// Devices that are not connected; those of `admins` and the laptop are admins.
    pub(crate) fn new(count: u8, admins: &[usize], rules: Rules) -> Self {
        Self::with(
            &statements(count, admins),
            &vec![rules; count.into()],
            agent::with_notes(),
            true,
        )
    }

    /// Devices of which each is connected with each.
    pub(crate) fn met(count: u8, admins: &[usize], rules: Rules) -> Self {
        let mut fabric = Self::new(count, admins, rules);
        fabric.meet_all();
        fabric
    }

    /// The laptop (0) and the server (1) of so many members, not connected, on a network that does not heed
    /// trust.
    pub(crate) fn pair(members: u8, rules: [Rules; 2]) -> Self {
        Self::with(&statements(members, &[]), &rules, agent::plain(), false)
    }

    fn with(statements: &[Signed], rules: &[Rules], agent: Installed, heeds_trust: bool) -> Self {
        let mut fabric = Self {
            devices: Vec::new(),
            now: Now { mono: Timestamp::from_millis(1_000), wall: WallTime::default() },
            agent,
            heeds_trust,
            connections: BTreeMap::new(),
            streams: 0,
            wires: VecDeque::new(),
            sent: Vec::new(),
            lose: None,
            forges: false,
        };
        for (n, rules) in (1..).zip(rules) {
            fabric.push(secret(n), statements, *rules);
        }
        fabric.settle();
        fabric
    }

    /// One device more.
    pub(crate) fn push(&mut self, secret: DeviceSecret, statements: &[Signed], rules: Rules) {
        self.devices.push(Device::new(secret, statements, rules, self.agent.clone(), self.now));
    }

    pub(crate) fn id(&self, device: usize) -> DeviceId {
        self.devices[device].secret.id()
    }

    fn at(&self, id: &DeviceId) -> Option<usize> {
        self.devices.iter().position(|device| device.secret.id() == *id)
    }

    /// A device is parted from all, and its power goes and comes back: what was not written is gone.
    pub(crate) fn restart(&mut self, device: usize) {
        self.part_from_all(device);
        self.devices[device].start_anew(self.now);
        self.settle();
    }

    /// The power of a device goes and comes back, and the others alone hear that it was away.
    pub(crate) fn crash(&mut self, device: usize) {
        let id = self.id(device);
        for peer in 0..self.devices.len() {
            if self.unlink(device, peer) {
                self.feed(peer, Input::Disconnected { device: id });
            }
        }
        self.devices[device].start_anew(self.now);
        self.settle();
    }

    pub(crate) fn meet_all(&mut self) {
        for a in 0..self.devices.len() {
            for b in 0..a {
                self.meet(a, b);
            }
        }
    }

    /// Connects two devices, as far as they serve each other if that is heeded, and lets everything happen.
    pub(crate) fn meet(&mut self, a: usize, b: usize) {
        if self.are_connected(a, b) {
            return;
        }
        self.connections.insert(pair(a, b), Connection::new());
        for (device, peer) in [(a, b), (b, a)] {
            let peer_id = self.id(peer);
            self.devices[device].admitted.remove(&peer_id);
            self.feed(device, Input::Connected { device: peer_id, address: "there".into() });
        }
        let at_once = if self.heeds_trust { &[Protocol::Trust][..] } else { &Protocol::SPOKEN };
        for protocol in at_once {
            self.open(a, b, *protocol);
        }
        self.settle();
    }

    /// Opens a stream of a connection, in place of the one that there is.
    pub(crate) fn open(&mut self, a: usize, b: usize, protocol: Protocol) {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let Some(connection) = self.connections.get_mut(&pair(a, b)) else { return };
        connection.insert(protocol, stream);
        for (device, peer) in [(a, b), (b, a)] {
            let peer = self.id(peer);
            self.feed(device, Input::StreamOpened { stream, device: peer, protocol });
        }
    }

    pub(crate) fn are_connected(&self, a: usize, b: usize) -> bool {
        self.connections.contains_key(&pair(a, b))
    }

    /// The stream of a protocol that two devices have.
    pub(crate) fn stream(&self, a: usize, b: usize, protocol: Protocol) -> Option<StreamId> {
        self.connections.get(&pair(a, b))?.get(&protocol).copied()
    }

    /// Whether anything but trust is spoken.
    pub(crate) fn serve_each_other(&self, a: usize, b: usize) -> bool {
        let connection = self.connections.get(&pair(a, b));
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
        if self.unlink(a, b) {
            for (device, peer) in [(a, b), (b, a)] {
                let peer = self.id(peer);
                self.feed(device, Input::Disconnected { device: peer });
            }
        }
    }

    /// Takes a connection away with all that is under way on it, and tells nobody. False if there is none.
    fn unlink(&mut self, a: usize, b: usize) -> bool {
        if self.connections.remove(&pair(a, b)).is_none() {
            return false;
        }
        self.wires.retain(|sent| pair(sent.from, sent.to) != pair(a, b));
        for (device, peer) in [(a, b), (b, a)] {
            let peer = self.id(peer);
            self.devices[device].admitted.remove(&peer);
        }
        true
    }

    pub(crate) fn feed(&mut self, device: usize, input: Input) {
        self.devices[device].feed(input, self.now);
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
                let is_stop = || matches!(sent.run(), Some(RunMessage::Cancel(_)));
                if self.lose.is_some_and(|lose| lose(&sent)) || self.forges && is_stop() {
                    continue;
                }
                self.deliver(&sent);
            }
            idle &= !(self.heeds_trust && self.follow());
            if idle {
                return;
            }
        }
    }

    /// Gives a frame to its receiver, on the stream of its protocol that there is now.
    pub(crate) fn deliver(&mut self, sent: &Sent) -> bool {
        let Some(stream) = self.stream(sent.from, sent.to, sent.protocol) else { return false };
        self.feed(sent.to, Input::Frame { stream, bytes: sent.bytes.clone() });
        true
    }

    fn carry_out(&mut self, device: usize, output: Output) {
        match &output {
            Output::Send { stream, bytes } => self.send(device, *stream, bytes),
            Output::Disconnect { device: peer } if self.heeds_trust => {
                // What was sent before goes out first.
                let (first, rest): (Vec<_>, Vec<_>) =
                    self.wires.drain(..).partition(|sent| sent.from == device);
                self.wires.extend(rest);
                for sent in first {
                    self.deliver(&sent);
                }
                if let Some(peer) = self.at(peer) {
                    self.cut(device, peer);
                }
            }
            _ => {}
        }
        self.devices[device].carry_out(output, self.now);
    }

    /// Puts a frame on the wire, if the stream has one.
    fn send(&mut self, from: usize, stream: StreamId, bytes: &[u8]) {
        let on = self.connections.iter().find_map(|(pair, connection)| {
            let (protocol, _) = connection.iter().find(|(_, it)| **it == stream)?;
            Some((*pair, *protocol))
        });
        let Some(((a, b), protocol)) = on else { return };
        let to = if a == from { b } else { a };
        let sent = Sent { from, to, protocol, bytes: bytes.to_vec() };
        self.sent.push(sent.clone());
        self.wires.push_back(sent);
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
        self.devices[device].disk = Disk::Slow;
        for _ in 0..count {
            let Some((ticket, writes)) = self.devices[device].held.pop_front() else { break };
            self.devices[device].write(ticket, writes, self.now);
            self.settle();
        }
    }

    /// The disk of a device refuses all that waits, and what that leads to.
    pub(crate) fn refuse_held(&mut self, device: usize) {
        while let Some((ticket, _)) = self.devices[device].held.pop_front() {
            self.devices[device].refuse(ticket, self.now);
            self.settle();
        }
    }

    /// The disk of a device does what it was told.
    pub(crate) fn flush(&mut self, device: usize) {
        self.devices[device].disk = Disk::Works;
        while let Some((ticket, writes)) = self.devices[device].held.pop_front() {
            self.devices[device].write(ticket, writes, self.now);
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
        self.devices[device].time_out(self.now);
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
        let step = step(1, capability, effect(capability), Some(NAMES[on]));
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

    /// The records of a device's chain, which is checked.
    pub(crate) fn records(&self, device: usize) -> Vec<Body> {
        let rows = &self.devices[device].rows;
        let signatures = audit::Signatures::Every;
        audit::verify(self.id(device), vec![], rows, signatures).expect("the chain verifies");
        self.devices[device].bodies()
    }

    /// What the chain of a device says of steps: who asked, what the rules said, and how they ended.
    pub(crate) fn steps(&self, device: usize) -> Vec<String> {
        let words = self.records(device).into_iter().filter_map(|body| match body {
            Body::Intent { point, decision, .. } => Some(format!("{point} {}", decision.effect)),
            Body::Outcome { ending, .. } => Some(ending.to_string()),
            _ => None,
        });
        words.collect()
    }
}

//! A device: its core, its disk, and all that its core wanted done.

use std::collections::{BTreeSet, VecDeque};

use weft_core::{
    Context, Input, Node, NodeConfig, Output, Ticket, audit,
    door::{Event, Reply},
    executor::ExecutionId,
    links::StreamId,
    membership,
    registry::Installed,
};
use weft_protocol::{
    audit::Body,
    host_call::HostError,
    id::{BootId, DeviceId},
    row::{MemoryRows, Rows as _, Table, Write},
    signed::Signed,
    time::Now,
    value::Value,
};
use weft_trust::secret::DeviceSecret;

use super::rules::Rules;

/// What a device's disk does from now on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    Works,
    /// It takes its time: batches wait in `held`.
    Slow,
    /// It takes nothing more.
    Full,
}

pub(crate) struct Device {
    pub(crate) secret: DeviceSecret,
    pub(crate) rules: Rules,
    agent: Installed,
    pub(crate) node: Node,
    pub(crate) rows: MemoryRows,
    pub(crate) starts: u8,
    pub(crate) disk: Disk,
    pub(crate) held: VecDeque<(Ticket, Vec<Write>)>,
    /// The positions of the audit records of each batch, in the order in which they came to the disk.
    pub(crate) batches: Vec<Vec<u64>>,
    /// Whom it said last that it serves.
    pub(crate) served: BTreeSet<DeviceId>,
    pub(crate) admitted: BTreeSet<DeviceId>,
    /// The members that are said to carry others' connections.
    pub(crate) relays: BTreeSet<DeviceId>,
    /// With whom it said that something is under way, and when that was over.
    pub(crate) watches: Vec<(DeviceId, bool)>,
    /// What it said on its streams.
    pub(crate) said: Vec<(StreamId, Vec<u8>)>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) events: Vec<Event>,
    /// What runs.
    pub(crate) executions: Vec<(ExecutionId, Value)>,
    /// Agents started so far, through all starts of the node.
    pub(crate) begun: usize,
    pub(crate) stopped: Vec<ExecutionId>,
    /// What agents that called were answered.
    pub(crate) answers: Vec<Result<Value, HostError>>,
}

impl Device {
    pub(super) fn new(
        secret: DeviceSecret,
        statements: &[Signed],
        rules: Rules,
        agent: Installed,
        now: Now,
    ) -> Self {
        let mut rows = MemoryRows::default();
        rows.apply(membership::store(statements));
        Self {
            node: started(&secret, 1, &agent, Context { now, rows: &rows, policy: &rules }),
            secret,
            rules,
            agent,
            rows,
            starts: 1,
            disk: Disk::Works,
            held: VecDeque::new(),
            batches: vec![],
            served: BTreeSet::new(),
            admitted: BTreeSet::new(),
            relays: BTreeSet::new(),
            watches: vec![],
            said: vec![],
            replies: vec![],
            events: vec![],
            executions: vec![],
            begun: 0,
            stopped: vec![],
            answers: vec![],
        }
    }

    /// Starts from what is on its disk: what was not written is gone.
    pub(super) fn start_anew(&mut self, now: Now) {
        self.starts += 1;
        self.held.clear();
        self.executions.clear();
        let context = Context { now, rows: &self.rows, policy: &self.rules };
        self.node = started(&self.secret, self.starts, &self.agent, context);
    }

    pub(super) fn feed(&mut self, input: Input, now: Now) {
        self.node.handle_input(input, Context { now, rows: &self.rows, policy: &self.rules });
    }

    pub(super) fn time_out(&mut self, now: Now) {
        self.node.handle_timeout(Context { now, rows: &self.rows, policy: &self.rules });
    }

    /// Carries out what needs no network, and keeps what a test may look at.
    pub(crate) fn carry_out(&mut self, output: Output, now: Now) {
        match output {
            Output::Send { stream, bytes } => self.said.push((stream, bytes)),
            Output::Persist { ticket, writes, .. } => match self.disk {
                Disk::Works => self.write(ticket, writes, now),
                Disk::Slow => self.held.push_back((ticket, writes)),
                Disk::Full => self.refuse(ticket, now),
            },
            Output::Relays(relays) => self.relays = relays,
            Output::Members(members) => self.served = members,
            Output::Admit { device } => drop(self.admitted.insert(device)),
            Output::Watch { device, is_watched } => self.watches.push((device, is_watched)),
            Output::Execute { execution, arguments, .. } => {
                self.executions.push((execution, arguments));
                self.begun += 1;
            }
            Output::StopExecution(execution) => {
                self.executions.retain(|(running, _)| *running != execution);
                self.stopped.push(execution);
            }
            Output::AnswerCall { answer, .. } => self.answers.push(answer),
            Output::Reply { reply, .. } => self.replies.push(reply),
            Output::Event { door: Some(_), event } => self.events.push(event),
            _ => {}
        }
    }

    /// The disk takes a batch.
    pub(super) fn write(&mut self, ticket: Ticket, writes: Vec<Write>, now: Now) {
        let positions: Vec<u64> = writes.iter().filter_map(audit::position_of).collect();
        if !positions.is_empty() {
            self.batches.push(positions);
        }
        self.rows.apply(writes);
        self.feed(Input::Persisted(ticket), now);
    }

    pub(super) fn refuse(&mut self, ticket: Ticket, now: Now) {
        self.feed(Input::PersistFailed(ticket, "the disk is full".into()), now);
    }

    /// The records of its chain, unchecked.
    pub(crate) fn bodies(&self) -> Vec<Body> {
        let records = self.rows.scan_from(Table::Audit, &[], 0, usize::MAX).unwrap();
        records.into_iter().map(|(at, bytes)| audit::read(at, &bytes).unwrap().1.body).collect()
    }
}

fn started(secret: &DeviceSecret, start: u8, agent: &Installed, context: Context<'_>) -> Node {
    let mut seed = *secret.id().as_bytes();
    seed[0] ^= start;
    let config = NodeConfig {
        secret: secret.clone(),
        boot: BootId { counter: start.into(), random: seed[0].into() },
        seed,
        agents: vec![agent.clone()],
    };
    Node::start(config, context).unwrap()
}

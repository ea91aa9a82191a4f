//! The world: virtual time, what is going to happen, and the machines to which it happens.

use std::{
    collections::BTreeMap,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
};

use anyhow::Result;
use weft_core::{
    Context, Input, Node, NodeConfig, Output,
    door::{DoorId, Reply},
    executor::{CallId, ExecutionId},
    links::StreamId,
};
use weft_protocol::{frame::Protocol, host_call::Refusal, id::BootId, run::Failure};
use weft_trust::recovery::RootSecret;

use crate::{
    admin::Decisions,
    agent::{Act, ENDS_BADLY, Play},
    bug::{Bug, Spoiled},
    checkers::{Checks, trust::Trust},
    dice::Dice,
    disk::{Batch, Done, FLUSH_WITHIN},
    fabric::{self, SHARED},
    fault::{Fault, Moment},
    host::Host,
    network::{Network, SECOND},
    pairing::{PairingHappening, Pairings},
    rules::RULES,
    sever::How,
    trace::{Detail, Trace},
    workload::Ask,
};

/// After so many happenings within one microsecond-exact moment a node goes round in circles.
const HAPPENINGS_A_MOMENT_MAX: u64 = 20_000;

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    Alarm(usize, u64),
    DiskDone(usize, u64),
    DiskFlush(usize, u64),
    Redial(usize, usize),
    Greeted(u64, usize),
    StreamUp(u64, Protocol, StreamId, usize),
    StreamGone(u64, Protocol, StreamId, usize),
    Reopen(u64, Protocol),
    Frame {
        link: u64,
        protocol: Protocol,
        id: StreamId,
        to: usize,
        bytes: Vec<u8>,
    },
    Recognised(u64, usize),
    Lost(u64, usize),
    Agent(usize, u64, ExecutionId),
    Answered(usize, u64, ExecutionId, CallId),
    Start(usize),
    /// A node whose key was replaced begins anew.
    Renew(usize, u64),
    Fault(Fault),
    Ask,
    Consent(u64, bool),
    Cancel(u64),
    Pairing(PairingHappening),
    /// Something changes on a machine.
    Change(usize),
    /// A link between two machines goes.
    Sever(usize, usize, How),
    /// What all nodes show is held against what is so.
    LookAround,
    Settle,
    Heal,
    Look,
}

/// The draws of each concern.
#[derive(Debug)]
pub(crate) struct AllDice {
    pub(crate) network: Dice,
    pub(crate) disk: Dice,
    pub(crate) agents: Dice,
    pub(crate) faults: Dice,
    pub(crate) workload: Dice,
    pub(crate) nodes: Dice,
    pub(crate) trust: Dice,
    pub(crate) pairing: Dice,
    /// What changes on machines, and what goes under steps.
    pub(crate) facts: Dice,
}

/// How a node is not what it should be, and which checker says so.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Violation {
    /// The checker.
    pub checker: &'static str,
    /// What it found.
    pub what: String,
}

/// All that the checkers found.
#[derive(Debug, Default)]
pub(crate) struct Failures(pub(crate) Vec<Violation>);

impl Failures {
    /// Whether something was found after which nothing else is worth looking at.
    pub(crate) fn are_final(&self) -> bool {
        self.0.iter().any(|it| matches!(it.checker, "panics" | "starts" | "spins"))
    }

    /// A checker found something.
    pub(crate) fn add(&mut self, checker: &'static str, what: String) {
        if self.0.len() < 50 {
            self.0.push(Violation { checker, what });
        }
    }
}

/// One world.
pub(crate) struct World {
    /// Microseconds since the beginning.
    pub(crate) time: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) network: Network,
    pub(crate) dice: AllDice,
    /// The words of the fabric's root, where it has one.
    pub(crate) root: Option<RootSecret>,
    pub(crate) decisions: Decisions,
    pub(crate) pairings: Pairings,
    pub(crate) asks: BTreeMap<DoorId, Ask>,
    pub(crate) checks: Checks,
    /// What a node answered at the door where it is looked.
    pub(crate) looked: Option<Reply>,
    pub(crate) failures: Failures,
    pub(crate) trace: Trace,
    pub(crate) bug: Option<Bug>,
    pub(crate) spoiled: Spoiled,
    pub(crate) healed: Option<u64>,
    pub(crate) quiet_since: Option<u64>,
    /// When it was seen first that all pairings had ended.
    pub(crate) joined_at: Option<u64>,
    /// Since when all runs have ended.
    pub(crate) ended_at: Option<u64>,
    moment: (u64, u64),
    pub(crate) over: bool,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("time", &self.time).finish_non_exhaustive()
    }
}

impl World {
    /// A fabric on machines that are down.
    pub(crate) fn new(
        seed: u64,
        detail: Detail,
        out: Box<dyn Write>,
        bug: Option<Bug>,
    ) -> Result<Self> {
        let mut trust = Dice::new(seed, "trust");
        let root = trust.chance(70).then(|| RootSecret::from_entropy(trust.bytes()));
        let made = fabric::make(&mut Dice::new(seed, "fabric"), root.as_ref())?;
        let mut faults = Dice::new(seed, "faults");
        let mut facts = Dice::new(seed, "facts");
        let made = made.into_iter().enumerate();
        let mut hosts: Vec<Host> =
            made.map(|(at, it)| Host::new(at, it, &mut faults, &mut facts)).collect();
        let founders = hosts.len();
        let mut pairing = Dice::new(seed, "pairing");
        let new = fabric::newcomers(pairing.pick(&[0, 1, 1, 2]), &mut pairing);
        let new = (founders..).zip(new);
        hosts.extend(new.map(|(at, it)| Host::new(at, it, &mut pairing, &mut facts)));
        let mut world = Self {
            time: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            network: Network::default(),
            dice: AllDice {
                network: Dice::new(seed, "network"),
                disk: Dice::new(seed, "disk"),
                agents: Dice::new(seed, "agents"),
                faults,
                workload: Dice::new(seed, "workload"),
                nodes: Dice::new(seed, "nodes"),
                trust,
                pairing,
                facts,
            },
            root,
            decisions: Decisions::default(),
            pairings: Pairings::default(),
            asks: BTreeMap::new(),
            checks: Checks::new(hosts.len()),
            looked: None,
            failures: Failures::default(),
            trace: Trace::new(detail, out),
            bug,
            spoiled: Spoiled::default(),
            healed: None,
            quiet_since: None,
            joined_at: None,
            ended_at: None,
            moment: (0, 0),
            over: false,
            hosts,
        };
        for host in 0..world.hosts.len() {
            if host < founders {
                let at = world.dice.faults.between(0, SECOND);
                world.later(at, Happening::Start(host));
            }
            for other in host + 1..world.hosts.len() {
                world.later(SECOND / 2, Happening::Redial(host, other));
            }
        }
        if let Some(Bug::LyingDisk) = world.bug {
            for host in &mut world.hosts {
                host.disk.lies = true;
            }
        }
        Ok(world)
    }

    /// Something happens after so many microseconds.
    pub(crate) fn later(&mut self, after: u64, what: Happening) {
        self.at(self.time + after, what);
    }

    /// Something happens at that time.
    pub(crate) fn at(&mut self, at: u64, what: Happening) {
        self.sequence += 1;
        self.queue.insert((at.max(self.time), self.sequence), what);
    }

    /// The names of the machines and the world itself, for the trace.
    pub(crate) fn say(&mut self, host: Option<usize>, what: impl FnOnce() -> String) {
        let who = host.map_or("", |host| self.hosts[host].name);
        self.trace.say(self.time, who, what);
    }

    /// Goes on until all is over.
    pub(crate) fn run(&mut self) {
        self.go_until(|_| false);
    }

    /// Goes on until something is so, or all is over.
    pub(crate) fn go_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !self.over
            && !is_so(self)
            && let Some(((at, _), what)) = self.queue.pop_first()
        {
            self.moment = if self.moment.0 == at { (at, self.moment.1 + 1) } else { (at, 0) };
            if self.moment.1 > HAPPENINGS_A_MOMENT_MAX {
                self.failures.add("spins", format!("at {at} µs with {what:?}"));
                break;
            }
            self.time = at;
            self.happens(what);
        }
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Alarm(host, wish) => self.alarm(host, wish),
            Happening::DiskDone(host, boot) => self.disk_done(host, boot),
            Happening::DiskFlush(host, boot) => {
                if self.runs(host, boot) {
                    self.hosts[host].disk.flush();
                }
            }
            Happening::Redial(a, b) => self.redial(a, b),
            Happening::Greeted(link, side) => self.greeted(link, side),
            Happening::StreamUp(link, protocol, id, side) => {
                self.stream_up(link, protocol, id, side);
            }
            Happening::StreamGone(link, protocol, id, side) => {
                self.stream_gone(link, protocol, id, side);
            }
            Happening::Reopen(link, protocol) => self.reopen(link, protocol),
            Happening::Frame { link, protocol, id, to, bytes } => {
                self.arrive(link, protocol, id, to, bytes);
            }
            Happening::Recognised(link, side) => self.recognised(link, side),
            Happening::Lost(link, side) => self.lost(link, side),
            Happening::Agent(host, boot, execution) => {
                if self.runs(host, boot) {
                    self.play(host, execution, None);
                }
            }
            Happening::Answered(host, boot, execution, call) => {
                if self.runs(host, boot) {
                    self.answered(host, execution, call);
                }
            }
            Happening::Start(host) => self.start(host),
            Happening::Renew(host, boot) => self.renew(host, boot),
            Happening::Fault(fault) => self.befall(fault),
            Happening::Ask => self.ask(),
            Happening::Consent(door, yes) => self.consent(DoorId(door), yes),
            Happening::Cancel(door) => self.cancel(DoorId(door)),
            Happening::Pairing(what) => self.pairing_happens(what),
            Happening::Change(host) => self.change(host),
            Happening::Sever(a, b, how) => self.sever(a, b, how),
            Happening::LookAround => self.look_around(),
            Happening::Settle => self.settle(),
            Happening::Heal => self.heal(),
            Happening::Look => self.look(),
        }
    }

    pub(crate) fn runs(&self, host: usize, boot: u64) -> bool {
        self.hosts[host].is_up() && self.hosts[host].boots == boot
    }

    /// Starts a machine that is down.
    pub(crate) fn start(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.is_up() || host.stolen || host.joining.is_some() {
            return;
        }
        if !host.joined {
            self.join_again(at);
            return;
        }
        self.settle_key(at);
        let host = &mut self.hosts[at];
        host.boots += 1;
        host.started = self.time;
        host.clock.set = None;
        host.dials.clear();
        host.is_out = false;
        host.relays.clear();
        host.mono = self.dice.nodes.between(0, 1_000 * SECOND);
        let config = NodeConfig {
            secret: host.secret.clone(),
            boot: BootId {
                counter: host.boots - host.forgotten,
                random: self.dice.nodes.between(0, u64::MAX),
            },
            seed: self.dice.nodes.bytes(),
            agents: SHARED.agents.clone(),
        };
        let context =
            Context { now: host.now(self.time), rows: host.disk.visible(), policy: &*RULES };
        let started = catch_unwind(AssertUnwindSafe(|| Node::start(config, context)));
        let name = host.name;
        match started {
            Ok(Ok(node)) => host.node = Some(node),
            Ok(Err(error)) => {
                let what = format!("{name} does not start again: {error}");
                self.failures.add("starts", what);
                self.over = true;
                return;
            }
            Err(_) => {
                self.panicked(at);
                return;
            }
        }
        self.say(Some(at), || "starts".to_owned());
        self.drain(at);
        self.tell_facts(at);
    }

    fn panicked(&mut self, at: usize) {
        self.checks.panics.panicked(self.hosts[at].name, self.time, &mut self.failures);
        self.over = true;
    }

    /// The power of a machine goes.
    pub(crate) fn crash(&mut self, at: usize) {
        self.unplug_pairing(at);
        if !self.hosts[at].is_up() {
            return;
        }
        self.say(Some(at), || "loses its power".to_owned());
        self.unplug(at);
        let host = &mut self.hosts[at];
        host.node = None;
        host.plays.clear();
        host.answers.clear();
        host.alarm.0 = None;
        host.disk.crash(&mut self.dice.disk);
        self.checks.effects.crashed(at, host, &mut self.failures);
        self.checks.trust.crashed(at);
        self.checks.presence.crashed(at, self.time);
        self.checks.watch.crashed(at);
        self.checks.serving.crashed(at, self.time);
        let boot = host.boots;
        for ask in self.asks.values_mut().filter(|ask| ask.host == at && ask.boot == boot) {
            ask.lost = true;
        }
    }

    /// Hands a node what happened, and carries out what it wants.
    pub(crate) fn feed(&mut self, at: usize, input: Input) {
        let Some(mut node) = self.hosts[at].node.take() else { return };
        self.checks.presence.takes(at, &input, self.time);
        let host = &mut self.hosts[at];
        host.wakes += 1;
        if let Input::Connected { device, .. } = &input {
            host.dials.remove(device);
        }
        self.trace.input(self.time, host.name, &input);
        let context =
            Context { now: host.now(self.time), rows: host.disk.visible(), policy: &*RULES };
        let fed = catch_unwind(AssertUnwindSafe(|| {
            node.handle_input(input, context);
            node
        }));
        match fed {
            Ok(node) => {
                self.hosts[at].node = Some(node);
                self.drain(at);
            }
            Err(_) => self.panicked(at),
        }
    }

    fn alarm(&mut self, at: usize, wish: u64) {
        if self.hosts[at].alarm.1 != wish {
            return;
        }
        let Some(mut node) = self.hosts[at].node.take() else { return };
        let host = &mut self.hosts[at];
        host.alarm.0 = None;
        host.wakes += 1;
        let now = host.now(self.time);
        let why = node.poll_timeout(now).map_or("nothing", |(_, why)| why);
        self.trace.timeout(self.time, host.name, why);
        let context = Context { now, rows: host.disk.visible(), policy: &*RULES };
        let fed = catch_unwind(AssertUnwindSafe(|| {
            node.handle_timeout(context);
            node
        }));
        match fed {
            Ok(node) => {
                self.hosts[at].node = Some(node);
                self.drain(at);
            }
            Err(_) => self.panicked(at),
        }
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.hosts[at].node.as_mut().and_then(Node::poll_output) {
            self.trace.output(self.time, self.hosts[at].name, &output);
            self.carry_out(at, output);
        }
        let host = &mut self.hosts[at];
        let Some(node) = &host.node else { return };
        let wish = node.poll_timeout(host.now(self.time)).map(|(wish, _)| wish);
        let wish = wish.map(|wish| host.world_time(wish).max(self.time));
        if wish != host.alarm.0 {
            host.alarm = (wish, host.alarm.1 + 1);
            if let Some(wish) = wish {
                let alarm = Happening::Alarm(at, host.alarm.1);
                self.at(wish, alarm);
            }
        }
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        let boot = self.hosts[at].boots;
        match output {
            Output::Members(members) => {
                self.checks.serving.members(at, &members, self.time);
                self.checks.trust.members(at, &self.hosts[at], &mut self.failures);
                self.set_members(at, members);
            }
            Output::Remember { .. } => {}
            Output::Watch { .. } if self.bug == Some(Bug::Unwatched) => {}
            Output::Watch { device, is_watched } => {
                let (host, failures) = (&self.hosts[at], &mut self.failures);
                self.checks.watch.said(host, at, device, is_watched, failures);
            }
            Output::Relays(relays) => self.hosts[at].relays = relays,
            Output::Admit { device } => {
                Trust::admitted(&self.hosts[at], &device, &mut self.failures);
                self.admit(at, device);
            }
            Output::Disconnect { device } => self.hang_up(at, device),
            Output::Send { stream, bytes } => {
                self.serve_the_revoked(at, &bytes);
                self.serve_the_replaced(at, &bytes);
                self.send(at, stream, bytes);
            }
            Output::Persist { ticket, writes, durability } => {
                let writes = self.spoil(writes);
                let batch = Batch { ticket, writes, durability, since: self.time };
                let wait = self.hosts[at].disk.submit(batch, &mut self.dice.disk);
                if let Some(wait) = wait {
                    self.later(wait, Happening::DiskDone(at, boot));
                }
            }
            Output::Execute { execution, agent, capability, arguments, .. } => {
                self.checks.effects.executed(
                    self.time,
                    at,
                    &self.hosts,
                    &agent,
                    &capability,
                    &arguments,
                    &mut self.failures,
                );
                // A step of a step is asked for by whoever carries that one out.
                let effect = self.checks.effects.log().last();
                if let Some(effect) = effect.filter(|it| it.step.0.len() == 1) {
                    self.checks.watch.began(at, boot, execution, effect.run);
                }
                self.trace.say(self.time, self.hosts[at].name, || format!("does {capability}"));
                let play =
                    Play::new(capability.as_str().to_owned(), arguments, &mut self.dice.agents);
                let pace = play.pace(&mut self.dice.agents);
                self.hosts[at].plays.insert(execution, play);
                self.later(pace, Happening::Agent(at, boot, execution));
            }
            Output::StopExecution(execution) => {
                self.hosts[at].plays.remove(&execution);
            }
            Output::AnswerCall { execution, call, answer } => {
                self.hosts[at].answers.insert((execution, call), answer);
                let wait = self.dice.agents.between(20, 400);
                self.later(wait, Happening::Answered(at, boot, execution, call));
            }
            Output::Reply { door, reply } => self.replied(at, door, reply),
            Output::Event { door, event } => self.event(at, door, event),
            Output::OpenPairing { endpoint, seed, .. } => self.open_endpoint(at, endpoint, &seed),
            Output::SendPairing { link, bytes, .. } => self.send_pairing(at, link, bytes),
            Output::ClosePairingLink { link, .. } => self.close_pairing_link(link),
            Output::ClosePairing { endpoint } => self.close_endpoint(at, endpoint),
            Output::Log { text } => self.say(Some(at), || text),
        }
    }

    fn disk_done(&mut self, at: usize, boot: u64) {
        if !self.runs(at, boot) {
            return;
        }
        let disk = &mut self.hosts[at].disk;
        let Some((done, flush)) = disk.done() else { return };
        if let Some(wait) = disk.next(&mut self.dice.disk) {
            self.later(wait, Happening::DiskDone(at, boot));
        }
        if flush {
            let within = self.dice.disk.between(FLUSH_WITHIN / 2, FLUSH_WITHIN);
            self.later(within, Happening::DiskFlush(at, boot));
        }
        match done {
            Done::Persisted(ticket, since) => {
                self.moment(at, Moment::Acknowledged);
                self.hosts[at].taken_at = Some(since);
                self.feed(at, Input::Persisted(ticket));
                self.hosts[at].taken_at = None;
            }
            Done::Failed(ticket) => {
                self.feed(at, Input::PersistFailed(ticket, "the disk is full".to_owned()));
            }
        }
    }

    fn answered(&mut self, at: usize, execution: ExecutionId, call: CallId) {
        let Some(answer) = self.hosts[at].answers.remove(&(execution, call)) else { return };
        let Some(play) = self.hosts[at].plays.get_mut(&execution) else { return };
        if play.waits != Some(call) {
            return;
        }
        play.waits = None;
        if play.must_be_denied {
            let denied = answer.as_ref().is_err_and(|error| error.refusal == Refusal::Denied);
            if !denied {
                let what = format!("a call beyond a manifest got {answer:?}");
                self.failures.add("effects", what);
            }
        }
        self.play(at, execution, Some(answer));
    }

    /// An agent goes on.
    fn play(
        &mut self,
        at: usize,
        execution: ExecutionId,
        answer: Option<Result<weft_protocol::value::Value, weft_protocol::host_call::HostError>>,
    ) {
        self.look_at_the_watched(at, execution);
        let boot = self.hosts[at].boots;
        let Some(play) = self.hosts[at].plays.get_mut(&execution) else { return };
        if play.hangs {
            if self.healed.is_some() {
                let reason = ENDS_BADLY[1].to_owned();
                self.hosts[at].plays.remove(&execution);
                let failure = Failure { refusal: Refusal::Failed, reason };
                self.feed(at, Input::Executed { execution, result: Err(failure) });
            } else {
                self.later(SECOND, Happening::Agent(at, boot, execution));
            }
            return;
        }
        match play.go_on(answer) {
            Act::Call(request) => {
                play.calls += 1;
                let call = CallId(play.calls);
                play.waits = Some(call);
                self.feed(at, Input::HostCall { execution, call, request });
            }
            Act::Say(progress) => {
                let pace = play.pace(&mut self.dice.agents);
                self.later(pace, Happening::Agent(at, boot, execution));
                self.feed(at, Input::Progressed { execution, progress });
            }
            Act::End(result) => {
                self.hosts[at].plays.remove(&execution);
                self.feed(at, Input::Executed { execution, result });
            }
        }
    }
}

//! Tasks whose executor is lost, silent, put out or told to stop, and those that a crash of this node
//! left open.
//!
//! None of them ends as failed where its effect may have happened: the executor is asked, and if it
//! does not answer in time the task is uncertain.

use std::{collections::BTreeSet, time::Duration};

use weft_protocol::{
    host_call::Refusal,
    id::{DeviceId, RunId},
    manifest::EffectClass,
    run::{Failure, Outcome, Progress, RunMessage},
    time::Timestamp,
};

use super::{
    Dispatch, DispatchOutput, Dispatched, LEASE, Phase, Requester, TRIES_MAX, Task, TaskKey, Tried,
    choice::choose,
};
use crate::env::Env;

/// A step that only one device may have begun to write waits so long for it to come back.
const WAIT_FOR_DEVICE: Duration = Duration::from_secs(60);
/// What only reads, and what only one device can do, waits so long for it: for three handshakes on a link
/// that loses two packets of five, and for a device whose network changes.
const WAIT_FOR_READER: Duration = Duration::from_secs(10);
/// What another device can read as well waits until so long after its device was last heard: one that moves
/// is back within 3 s, and whoever asks has the answer of another within 5 s of the loss.
const WAIT_FROM_HEARD: Duration = Duration::from_millis(4_500);
/// And so long at least: the streams of a connection that takes another's place open in a few round trips.
const WAIT_AT_LEAST: Duration = Duration::from_millis(1_500);
/// A device that is here says so soon how a step stands: a few round trips on a bad link, and the disk.
const WAIT_FOR_ANSWER: Duration = Duration::from_secs(5);
/// An offer may take so long to arrive that the slowest line carries it, and what is under way before it: half
/// of what a modem of 64 kbit/s does.
const SLOWEST_BYTES_PER_SECOND: u64 = 4 << 10;
/// An executor ends a step at its deadline by itself; the owner gives it so long to say so.
const BEYOND: Duration = Duration::from_secs(2);

impl Dispatch {
    /// When something is due although nothing comes in.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let due = |it: &Dispatched| match it.phase {
            Phase::Offered | Phase::Running | Phase::Acknowledging | Phase::Acknowledged => {
                Some(((it.heard + it.lease()).min(it.task.ends + BEYOND), "a lease runs out"))
            }
            Phase::Waiting { until, .. } => Some((until, "a device stayed away too long")),
            Phase::Cancelling { until } => Some((until, "a device says nothing to a stop")),
            Phase::Asking { .. } => Some((it.task.ends, "nobody answered")),
            Phase::Opening { until } => Some((until, "a stream does not open")),
            Phase::Preparing | Phase::Concluding(_) => None,
        };
        self.tasks.values().filter_map(due).min_by_key(|(at, _)| *at)
    }

    /// Gives up what is overdue.
    pub fn handle_timeout(&mut self, env: &mut Env<'_>) {
        let now = env.now.mono;
        let keys: Vec<_> = self.tasks.keys().cloned().collect();
        for key in keys {
            let Some(it) = self.tasks.get_mut(&key) else { continue };
            // A machine that slept has heard nothing of itself either.
            if it.executor == env.me {
                it.heard = now;
            }
            match it.phase {
                Phase::Offered | Phase::Running | Phase::Acknowledging | Phase::Acknowledged
                    if it.heard + it.lease() <= now || it.task.ends + BEYOND <= now =>
                {
                    it.inquired = true;
                    let cancel = RunMessage::Cancel(it.offer.attempt.clone());
                    self.outputs.push(DispatchOutput::Tell(it.executor, cancel));
                    self.lost(&key, "it fell silent", env);
                }
                Phase::Waiting { until, .. } if until <= now && it.may_go_elsewhere() => {
                    self.elsewhere(&key, "it went away", env);
                }
                Phase::Waiting { until, .. } if until <= now => {
                    let reason = format!("{} stayed away", env.name(&it.executor));
                    self.give_up(&key, Refusal::Failed, reason, env);
                }
                Phase::Cancelling { until } if until <= now => {
                    self.give_up(&key, Refusal::Cancelled, "cancelled".into(), env);
                }
                Phase::Asking { .. } if it.task.ends <= now => {
                    self.fail(&key, Refusal::Denied, "nobody answered in time".into(), env);
                }
                Phase::Opening { until } if until <= now => self.place_anew(&key, env),
                Phase::Offered
                | Phase::Running
                | Phase::Acknowledging
                | Phase::Acknowledged
                | Phase::Waiting { .. }
                | Phase::Cancelling { .. }
                | Phase::Opening { .. }
                | Phase::Asking { .. }
                | Phase::Preparing
                | Phase::Concluding(_) => {}
            }
        }
    }

    /// Takes a task on that this node had offered before it was started anew. Its executor says under the
    /// same epoch how it stands or ended. What only reads is tried again where it ran on this node itself, or
    /// its executor is not back in time. What was stopped is tried no more: its executor is told, and waited
    /// for where it may have acted.
    pub fn take_up(&mut self, task: Task, tried: Tried, env: &mut Env<'_>) {
        let may_have_acted = tried.may_have_acted();
        let known = env.registry.provider(&task.capability).is_some();
        if !known && may_have_acted {
            self.conclude_unplaced(task, tried.epoch, Outcome::Uncertain, env);
            return;
        }
        let Some(mut it) = self.first(task, tried.epoch, env) else { return };
        it.offer.effect = it.offer.effect.max(tried.effect);
        let only_reads = it.offer.effect <= EffectClass::ReadOnly && !tried.acknowledged;
        let is_gone = tried.executor == env.me || env.neighbour(&tried.executor).is_none();
        if only_reads && !tried.stopped && is_gone {
            it.offer.attempt.epoch += 1;
            self.place(it, env);
            return;
        }
        it.executor = tried.executor;
        it.intent = Some(tried.intent);
        it.may_have_acted = may_have_acted || it.offer.effect == EffectClass::Idempotent;
        it.tries = 1;
        it.sent = true;
        it.stopped = tried.stopped;
        let waits = it.may_have_acted || !it.stopped;
        let patience = if it.may_go_elsewhere() { WAIT_FOR_READER } else { WAIT_FOR_DEVICE };
        let until = env.now.mono + patience;
        let since = env.now.wall;
        it.phase = Phase::Waiting { until, since, unanswered: false, told: true };
        let key = it.task.key();
        self.tasks.insert(key.clone(), it);
        if env.neighbour(&tried.executor).is_none() {
            let reason = "its device no longer belongs to the fabric".into();
            self.give_up(&key, Refusal::Failed, reason, env);
        } else if is_reachable(&tried.executor, env) || !waits {
            self.ask(&key, env);
        }
    }

    /// Asks the executor how a try stands, and stops it where it was stopped.
    fn ask(&mut self, key: &TaskKey, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        if it.stopped {
            it.inquired = true;
            self.cancel_one(key, env);
        } else {
            self.inquire(key);
        }
    }

    fn inquire(&mut self, key: &TaskKey) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        it.inquired = true;
        it.said.ask();
        let inquire = RunMessage::Inquire(it.offer.attempt.clone());
        self.outputs.push(DispatchOutput::Tell(it.executor, inquire));
    }

    /// Ends a task whose executor does not say how it ended.
    fn give_up(&mut self, key: &TaskKey, refusal: Refusal, reason: String, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get(key) else { return };
        let outcome = if it.may_have_acted {
            Outcome::Uncertain
        } else {
            Outcome::Failed(Failure { refusal, reason })
        };
        self.conclude(key, outcome, env);
    }

    /// An executor is silent, or does not belong any more.
    fn lost(&mut self, key: &TaskKey, how: &str, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get(key) else { return };
        if it.may_go_elsewhere() {
            self.elsewhere(key, how, env);
        } else {
            self.wait(key, WAIT_FOR_DEVICE, Some(how), env);
        }
    }

    /// The link to an executor is cut. It goes on with the step, and says how that stands when there is a
    /// link again.
    pub(super) fn parted(&mut self, key: &TaskKey, how: Option<&str>, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get(key) else { return };
        let now = env.now.mono;
        let patience = if !it.may_go_elsewhere() {
            WAIT_FOR_DEVICE
        } else if it.has_another(env) {
            (it.heard + WAIT_FROM_HEARD).since(now).max(WAIT_AT_LEAST)
        } else {
            WAIT_FOR_READER
        };
        self.wait(key, patience, how, env);
    }

    /// Waits for an executor to say how a step stands, and says so where `how` tells what became of it.
    fn wait(&mut self, key: &TaskKey, most: Duration, how: Option<&str>, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        let now = env.now.mono;
        let unanswered = matches!(it.phase, Phase::Offered) && !it.inquired;
        let least = if it.may_go_elsewhere() { WAIT_AT_LEAST } else { WAIT_FOR_ANSWER };
        let until = (now + most).min(it.task.ends).max(now + least);
        it.phase = Phase::Waiting { until, since: env.now.wall, unanswered, told: false };
        self.tell_waiting(key, how, env);
    }

    /// Tells whoever follows the run what became of a device that is waited for, once.
    fn tell_waiting(&mut self, key: &TaskKey, how: Option<&str>, env: &Env<'_>) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        let (Phase::Waiting { until, told, .. }, Some(how)) = (&mut it.phase, how) else { return };
        if !std::mem::replace(told, true) {
            let (name, most) = (env.name(&it.executor), seconds(until.since(env.now.mono)));
            self.say(key, format!("{name}: {how}; waiting for it, {most} s at most"));
        }
    }

    /// Tries elsewhere what only reads, unless that was done often enough.
    fn elsewhere(&mut self, key: &TaskKey, how: &str, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get(key) else { return };
        if it.tries < TRIES_MAX {
            let excluded = (it.executor, how.to_owned());
            self.again(key, Some(excluded), env);
        } else {
            let reason = format!("{}: {how}", env.name(&it.executor));
            self.fail(key, Refusal::Failed, reason, env);
        }
    }

    /// An offer is on its way to an executor, behind those that it has not answered yet.
    pub(super) fn carries(&mut self, key: &TaskKey, executor: &DeviceId) {
        let is_carried =
            |it: &&Dispatched| it.executor == *executor && matches!(it.phase, Phase::Offered);
        let bytes: u64 = self.tasks.values().filter(is_carried).map(|it| it.bytes).sum();
        if let Some(it) = self.tasks.get_mut(key) {
            it.carried = Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND);
        }
    }

    /// Something long is on its way from a device: what it says of its steps comes behind that.
    pub fn moving(&mut self, device: DeviceId, now: Timestamp) {
        for it in self.tasks.values_mut().filter(|it| it.executor == device) {
            it.heard = now;
        }
    }

    /// A line for whoever follows the run.
    fn say(&mut self, key: &TaskKey, line: String) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        it.said.cover();
        let Task { requester, run, step, .. } = &it.task;
        let (requester, step) = (requester.clone(), step.clone());
        let said = DispatchOutput::Progressed(requester, *run, step, Progress::Log(line));
        self.outputs.push(said);
    }

    /// A device went away.
    pub fn disconnected(&mut self, device: DeviceId, env: &mut Env<'_>) {
        self.cut(device, Some("it went away"), env);
    }

    /// The stream to a device was cut or replaced, while it is still connected.
    pub fn stream_cut(&mut self, device: DeviceId, env: &mut Env<'_>) {
        self.cut(device, None, env);
    }

    fn cut(&mut self, device: DeviceId, how: Option<&str>, env: &mut Env<'_>) {
        let keys: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, it)| it.executor == device && it.phase.is_under_way())
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            match self.tasks.get(&key).map(|it| &it.phase) {
                Some(Phase::Waiting { .. }) => self.tell_waiting(&key, how, env),
                None => {}
                Some(Phase::Cancelling { .. }) => {
                    self.give_up(&key, Refusal::Cancelled, "cancelled".into(), env);
                }
                Some(
                    Phase::Offered
                    | Phase::Running
                    | Phase::Acknowledging
                    | Phase::Acknowledged
                    | Phase::Opening { .. }
                    | Phase::Asking { .. }
                    | Phase::Preparing
                    | Phase::Concluding(_),
                ) => self.parted(&key, how, env),
            }
        }
    }

    /// A device can be asked again. What it never answered is offered again, under the same epoch; for
    /// the rest it says how that stands.
    pub fn connected(&mut self, device: DeviceId, env: &mut Env<'_>) {
        let (mut offers, mut inquiries, mut waited) = (Vec::new(), Vec::new(), Vec::new());
        for (key, it) in self.tasks.iter_mut().filter(|(_, it)| it.executor == device) {
            let Phase::Waiting { until, unanswered, told, .. } = &mut it.phase else { continue };
            let soon = (env.now.mono + WAIT_FOR_ANSWER).min(it.task.ends + BEYOND);
            *until = (*until).max(soon);
            if *told {
                waited.push(key.clone());
            }
            // A person's yes is spent where its offer arrived.
            let is_spent = it.sent && it.offer.consent.is_some();
            if *unanswered && !it.stopped && it.version == env.version && !is_spent {
                it.phase = Phase::Offered;
                it.heard = env.now.mono;
                it.may_have_acted |= it.offer.effect == EffectClass::Idempotent;
                it.sent = true;
                let offer = RunMessage::Offer(Box::new(it.offer.clone()));
                self.outputs.push(DispatchOutput::Tell(device, offer));
                offers.push(key.clone());
            } else {
                inquiries.push(key.clone());
            }
        }
        for key in offers {
            self.carries(&key, &device);
        }
        for key in inquiries {
            self.ask(&key, env);
        }
        for key in waited {
            self.say(&key, format!("{} is here again", env.name(&device)));
        }
        self.place_opened(env);
    }

    /// Stops all tasks that `which` chooses.
    pub fn cancel(&mut self, which: impl Fn(&Task) -> bool, env: &mut Env<'_>) {
        let keys: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, it)| which(&it.task))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.cancel_one(&key, env);
        }
    }

    fn cancel_one(&mut self, key: &TaskKey, env: &mut Env<'_>) {
        let Some(it) = self.tasks.get_mut(key) else { return };
        match it.phase {
            Phase::Opening { .. } | Phase::Asking { .. } | Phase::Preparing => {}
            Phase::Offered
            | Phase::Running
            | Phase::Acknowledging
            | Phase::Acknowledged
            | Phase::Waiting { .. } => {
                let cancel = RunMessage::Cancel(it.offer.attempt.clone());
                self.outputs.push(DispatchOutput::Tell(it.executor, cancel));
                if it.may_have_acted && is_reachable(&it.executor, env) {
                    let until = env.now.mono + WAIT_FOR_ANSWER;
                    it.phase = Phase::Cancelling { until };
                    return;
                }
            }
            Phase::Cancelling { .. } | Phase::Concluding(_) => return,
        }
        self.give_up(key, Refusal::Cancelled, "cancelled".into(), env);
    }

    /// What a device was asked for is void: it was put out.
    pub fn void(&mut self, device: &DeviceId, env: &mut Env<'_>) {
        let keys: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, it)| it.executor == *device)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            let Some(it) = self.tasks.get(&key) else { continue };
            let only_reads = it.may_go_elsewhere();
            match it.phase {
                Phase::Concluding(_) => {}
                Phase::Offered | Phase::Running | Phase::Waiting { .. } if only_reads => {
                    self.lost(&key, "it no longer belongs to the fabric", env);
                }
                Phase::Opening { .. }
                | Phase::Asking { .. }
                | Phase::Preparing
                | Phase::Offered
                | Phase::Running
                | Phase::Acknowledging
                | Phase::Acknowledged
                | Phase::Waiting { .. }
                | Phase::Cancelling { .. } => {
                    let reason = "its device no longer belongs to the fabric".into();
                    self.give_up(&key, Refusal::Denied, reason, env);
                }
            }
        }
    }

    /// The door of these runs is closed: nobody can be asked there any more.
    pub fn door_closed(&mut self, runs: &BTreeSet<RunId>, env: &mut Env<'_>) {
        let mut asking = Vec::new();
        for (key, it) in &mut self.tasks {
            if it.task.requester == Requester::Run && runs.contains(&it.task.run) {
                it.task.can_ask = false;
                if matches!(it.phase, Phase::Asking { .. }) {
                    asking.push(key.clone());
                }
            }
        }
        for key in asking {
            let reason = "the door that was asked has closed: nobody can agree".into();
            self.fail(&key, Refusal::Denied, reason, env);
        }
    }
}

impl Dispatched {
    /// How long its executor may be silent.
    fn lease(&self) -> Duration {
        let is_on_its_way = matches!(self.phase, Phase::Offered);
        LEASE + if is_on_its_way { self.carried } else { Duration::ZERO }
    }

    /// Whether it does no harm if another device does it as well.
    fn may_go_elsewhere(&self) -> bool {
        self.offer.effect <= EffectClass::ReadOnly && !self.stopped
    }

    /// Whether a device that is here can do it in the place of its executor.
    fn has_another(&self, env: &Env<'_>) -> bool {
        let mut excluded = self.excluded.clone();
        excluded.insert(self.executor, String::new());
        let Self { task, offer, agent, capability, .. } = self;
        choose(task, offer, agent, capability, &excluded, env).chosen.is_some()
    }
}

/// A length of time as it is said of a wait that ends within it.
const fn seconds(most: Duration) -> u128 {
    most.as_millis().div_ceil(1_000)
}

fn is_reachable(device: &DeviceId, env: &Env<'_>) -> bool {
    env.neighbour(device).is_some_and(|neighbour| neighbour.reachable)
}

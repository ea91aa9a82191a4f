//! What tasks wait for, as a person who asks is told.

use weft_protocol::{
    graph::StepId,
    id::{DeviceId, RunId},
    manifest::CapabilityName,
    time::{Timestamp, WallTime},
};

use super::{Dispatch, Dispatched, Phase};

/// A task that does not go on until something comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wait {
    /// Which step.
    pub step: StepId,
    /// What it does.
    pub capability: CapabilityName,
    /// Where.
    pub executor: DeviceId,
    /// For what.
    pub awaited: Awaited,
    /// Since when.
    pub since: WallTime,
    /// Until when at most.
    pub until: Timestamp,
}

/// What a task waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awaited {
    /// Its executor, which is away or has yet to say how the step stands.
    Executor,
    /// A person's yes.
    Yes,
}

impl Dispatch {
    /// What the tasks of a run of this device wait for.
    pub fn waits(&self, run: &RunId) -> impl Iterator<Item = Wait> {
        self.tasks
            .iter()
            .filter(|(key, _)| key.run == *run && key.owner == self.me)
            .filter_map(|(_, it)| it.wait())
    }
}

impl Dispatched {
    fn wait(&self) -> Option<Wait> {
        let (awaited, since, until) = match &self.phase {
            Phase::Waiting { since, until, .. } => (Awaited::Executor, *since, *until),
            Phase::Asking { since, .. } => (Awaited::Yes, *since, self.task.ends),
            Phase::Opening { .. }
            | Phase::Preparing
            | Phase::Offered
            | Phase::Running
            | Phase::Acknowledging
            | Phase::Acknowledged
            | Phase::Cancelling { .. }
            | Phase::Concluding(_) => return None,
        };
        Some(Wait {
            step: self.task.step.clone(),
            capability: self.task.capability.clone(),
            executor: self.executor,
            awaited,
            since,
            until,
        })
    }
}

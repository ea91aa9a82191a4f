//! What is to be done, for whom, and how it was tried before.

use std::collections::BTreeSet;

use weft_protocol::{
    graph::{Label, StepId},
    id::{DeviceId, RunId},
    manifest::{CapabilityName, EffectClass},
    run::Attempt,
    time::Timestamp,
    value::Value,
};

use crate::executor::{CallId, ExecutionId};

/// Who wants a task done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Requester {
    /// A run of this device.
    Run,
    /// An agent that runs here.
    Call {
        /// Its execution.
        execution: ExecutionId,
        /// The call that waits.
        call: CallId,
    },
}

/// Something to be done.
#[derive(Clone, PartialEq, Debug)]
pub struct Task {
    /// Of which run.
    pub run: RunId,
    /// Which step.
    pub step: StepId,
    /// Whose run it is.
    pub owner: DeviceId,
    /// The epochs of the steps that called down to it, the outermost first.
    pub above: Vec<u32>,
    /// What.
    pub capability: CapabilityName,
    /// With what: a map.
    pub arguments: Value,
    /// Where the arguments come from.
    pub labels: BTreeSet<Label>,
    /// The device that the words name.
    pub named: Option<DeviceId>,
    /// Why only this device will do.
    pub only_here: Option<&'static str>,
    /// Who wants it.
    pub requester: Requester,
    /// The capabilities that called down to it.
    pub callers: Vec<CapabilityName>,
    /// When it must have ended.
    pub ends: Timestamp,
    /// The asking device's local time when the run began.
    pub local_time: String,
    /// The asking device's time zone.
    pub time_zone: String,
    /// Whether a person can be asked.
    pub can_ask: bool,
}

/// Which task. A later try of the step above numbers its calls anew, and what it calls is another task
/// although it is the same step.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TaskKey {
    /// Whose run it is.
    pub owner: DeviceId,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The epochs of the steps that called down to it, the outermost first.
    pub above: Vec<u32>,
}

impl TaskKey {
    /// The task that a try is of.
    pub fn of(attempt: &Attempt) -> Self {
        let Attempt { owner, run, step, above, .. } = attempt;
        Self { owner: *owner, run: *run, step: step.clone(), above: above.clone() }
    }
}

impl Task {
    /// A try of it.
    pub(super) fn attempt(&self, epoch: u32) -> Attempt {
        let Self { owner, run, step, above, .. } = self;
        Attempt { owner: *owner, run: *run, step: step.clone(), above: above.clone(), epoch }
    }

    /// Which task this is.
    pub fn key(&self) -> TaskKey {
        let Self { owner, run, step, above, .. } = self;
        TaskKey { owner: *owner, run: *run, step: step.clone(), above: above.clone() }
    }
}

/// What a start of this node before this one had journaled of a step that has no end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tried {
    /// Under which epoch it was offered last.
    pub epoch: u32,
    /// To whom.
    pub executor: DeviceId,
    /// The position of that offer's record.
    pub intent: u64,
    /// What doing it again would do, as the plan says.
    pub effect: EffectClass,
    /// Whether the executor may have been told to act.
    pub acknowledged: bool,
    /// Whether its run was stopped: it is not tried again, and its executor is told.
    pub stopped: bool,
}

impl Tried {
    /// Whether it may have had its effect.
    pub(crate) const fn may_have_acted(&self) -> bool {
        self.acknowledged || matches!(self.effect, EffectClass::Idempotent)
    }
}

//! Tasks for which no device is here, while one is connected whose stream is about to open.
//!
//! When a connection takes the place of another, or has just been made, its streams open a few round trips
//! later: until then its device can't be asked, and is not away. A task that only such a device can do waits
//! for that, is placed as soon as a stream opens, and fails as it would have where none does in time.

use std::time::Duration;

use weft_protocol::id::DeviceId;

use super::{Dispatch, Dispatched, Phase, TaskKey, choice::choose_among};
use crate::env::Env;

/// Streams of a connection open within so long: a few round trips on a link that loses many packets.
const WAIT_FOR_STREAM: Duration = Duration::from_secs(3);

impl Dispatch {
    /// Has a task for which no device is here wait, where a device that is connected could do it.
    pub(super) fn waits_for_stream(&self, it: &mut Dispatched, env: &Env<'_>) -> bool {
        let now = env.now.mono;
        let until = *it.opens_by.get_or_insert((now + WAIT_FOR_STREAM).min(it.task.ends));
        let Some(device) = would_do(it, env).filter(|_| now < until) else { return false };
        it.executor = device;
        it.phase = Phase::Opening { until };
        true
    }

    /// A stream opened: tasks that wait for one are placed.
    pub(super) fn place_opened(&mut self, env: &mut Env<'_>) {
        let opening = |it: &Dispatched| matches!(it.phase, Phase::Opening { .. });
        let keys: Vec<TaskKey> =
            self.tasks.iter().filter(|(_, it)| opening(it)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.place_anew(&key, env);
        }
    }

    /// Places a task that waited for a stream to open.
    pub(super) fn place_anew(&mut self, key: &TaskKey, env: &mut Env<'_>) {
        let Some(mut it) = self.tasks.remove(key) else { return };
        it.phase = Phase::Preparing;
        self.place(it, env);
    }
}

/// The device that a task would be offered if all that are connected could be asked.
fn would_do(it: &Dispatched, env: &Env<'_>) -> Option<DeviceId> {
    if env.neighbours.iter().all(|it| it.reachable || !it.connected) {
        return None;
    }
    let Dispatched { task, offer, agent, capability, excluded, .. } = it;
    choose_among(task, offer, agent, capability, excluded, |it| it.connected, env).chosen
}

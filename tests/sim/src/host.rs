//! A machine: its disk, its clocks, and the node that runs on it while it is up.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft_core::{
    Node,
    executor::{CallId, ExecutionId},
};
use weft_protocol::{
    device::{Kind, Role},
    host_call::HostError,
    id::DeviceId,
    time::{Now, Timestamp, WallTime},
    value::Value,
};
use weft_trust::secret::DeviceSecret;

use crate::{agent::Play, disk::Disk, fabric::EPOCH_MS, fault::Moment};

/// One machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) role: Role,
    pub(crate) id: DeviceId,
    pub(crate) secret: DeviceSecret,
    pub(crate) model: bool,
    /// How fast its model says it is, in thousandths of a token a second.
    pub(crate) speed_milli: u64,
    pub(crate) disk: Disk,
    /// The node, while the machine is up.
    pub(crate) node: Option<Node>,
    /// Starts so far.
    pub(crate) boots: u64,
    /// What the node's own clock showed at the world's beginning, had it run, in microseconds.
    pub(crate) mono: u64,
    /// How far its wall clock is off, in milliseconds.
    pub(crate) skew: i64,
    /// The furthest that it was ever ahead.
    pub(crate) ahead: i64,
    /// The power goes after so many such moments.
    pub(crate) doom: Option<(Moment, u32)>,
    /// Whom the network lets in, as the node said last.
    pub(crate) members: BTreeSet<DeviceId>,
    /// The connection that serves each other machine.
    pub(crate) serving: BTreeMap<usize, u64>,
    /// When the node is to be woken, and which of its wishes that was.
    pub(crate) alarm: (Option<u64>, u64),
    /// The agents that run here.
    pub(crate) plays: BTreeMap<ExecutionId, Play>,
    /// Answers on their way to agents.
    pub(crate) answers: BTreeMap<(ExecutionId, CallId), Result<Value, HostError>>,
    /// Whether the last device was added while it was away.
    #[cfg_attr(not(test), expect(dead_code, reason = "scenarios look at it"))]
    pub(crate) lacked_a_statement: bool,
    /// Whether the device was put out of the fabric by a command that was taken.
    pub(crate) put_out: bool,
    /// Whether it was taken apart for its keys: it does not start again.
    pub(crate) stolen: bool,
}

impl Host {
    /// Its clocks.
    pub(crate) fn now(&self, time: u64) -> Now {
        let millis = i64::try_from(time / 1_000).unwrap_or(i64::MAX);
        Now {
            mono: Timestamp::from_micros(self.mono + time),
            wall: WallTime::from_unix_millis(EPOCH_MS + millis + self.skew),
        }
    }

    /// The world's time at a point on the node's own clock.
    pub(crate) fn world_time(&self, at: Timestamp) -> u64 {
        let since = at.since(Timestamp::from_micros(self.mono));
        u64::try_from(since.min(Duration::from_secs(1 << 30)).as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether it runs.
    pub(crate) const fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// Whether it belongs to the fabric at the end.
    pub(crate) const fn belongs(&self) -> bool {
        !self.put_out && !self.stolen
    }
}

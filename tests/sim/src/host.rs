//! A machine: its disk, its clocks, and the node that runs on it while it is up.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft_core::{
    Node,
    audit::Lineage,
    executor::{CallId, ExecutionId},
    membership,
};
use weft_protocol::{
    attempt::Attempt,
    device::Kind,
    host_call::HostError,
    id::{DeviceId, EndpointId},
    presence::ModelReady,
    row::MemoryRows,
    time::{Now, Timestamp, WallTime},
    value::Value,
};
use weft_trust::secret::DeviceSecret;

use crate::{
    agent::Play,
    clock::Clock,
    dice::Dice,
    disk::Disk,
    fabric::{EPOCH_MS, Made},
    facts::Facts,
    fault::Moment,
    pairing::Joining,
};

/// One machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) id: DeviceId,
    pub(crate) secret: DeviceSecret,
    /// The keys that it had before, the newest first.
    pub(crate) former: Vec<DeviceId>,
    /// A key that is to take the place of its own: its seed is on the disk.
    pub(crate) next: Option<DeviceSecret>,
    /// What its node hears of it.
    pub(crate) facts: Facts,
    pub(crate) disk: Disk,
    /// The node, while the machine is up.
    pub(crate) node: Option<Node>,
    /// Starts so far.
    pub(crate) boots: u64,
    /// What the node's own clock showed at the world's beginning, had it run, in microseconds.
    pub(crate) mono: u64,
    /// When it was started last.
    pub(crate) started: u64,
    /// What its node took, and when it was woken, so often.
    pub(crate) wakes: u64,
    pub(crate) clock: Clock,
    /// The dials of this start to devices that were not connected since, and how the last ended.
    pub(crate) dials: BTreeMap<DeviceId, (u32, Vec<Attempt>)>,
    /// The members that carry others' connections, as the node said last.
    pub(crate) relays: BTreeSet<DeviceId>,
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
    /// Whether its home holds a fabric. One that does not has no node, and may be joining.
    pub(crate) joined: bool,
    /// The program that joins, while it runs.
    pub(crate) joining: Option<Box<Joining>>,
    /// The endpoints that its node has open for invitations.
    pub(crate) endpoints: BTreeMap<u64, EndpointId>,
    /// Whether all statements together say that it belongs, as was found last.
    pub(crate) standing: bool,
    /// Whether an older state of its disk was put back, or its disk was copied: what it did may be
    /// forgotten there, and happen again.
    pub(crate) set_back: bool,
    /// What its disk was once, and after how many starts.
    pub(crate) image: Option<(MemoryRows, u64)>,
    /// Others had seen what its disk lacks when that was put back, so that it must be named.
    pub(crate) is_witnessed: bool,
    /// Whether it knows that it does not belong, or is in doubt.
    pub(crate) is_out: bool,
    /// The first that its node said of itself, where that is a planted bug.
    pub(crate) first_words: Option<Vec<u8>>,
    /// When its node took what its disk acknowledges just now.
    pub(crate) taken_at: Option<u64>,
    /// How many of its starts its disk has forgotten.
    pub(crate) forgotten: u64,
}

impl Host {
    /// A machine that is down, and whose clock is wrong.
    pub(crate) fn new(at: usize, made: Made, dice: &mut Dice, facts: &mut Dice) -> Self {
        let Made { name, kind, secret, statements, model, lacked_a_statement } = made;
        let mut disk = Disk::default();
        disk.prepare(membership::store(&statements));
        let day = 24 * 3_600 * 1_000;
        let skew = match dice.between(0, 3) {
            0 => 0,
            1 => i64::try_from(dice.between(0, 4_000)).unwrap_or(0) - 2_000,
            _ => i64::try_from(dice.between(0, 2 * day)).unwrap_or(0) - day as i64,
        };
        let speed_milli = dice.pick(&[0, 8_000, 25_000, 80_000]);
        let model = model.then(|| ModelReady { name: format!("small-of-{name}"), speed_milli });
        Self {
            name,
            kind,
            id: secret.id(),
            secret,
            former: Vec::new(),
            next: None,
            facts: Facts::new(at, model, facts),
            disk,
            node: None,
            boots: 0,
            mono: 0,
            started: 0,
            wakes: 0,
            clock: Clock::new(skew),
            dials: BTreeMap::new(),
            relays: BTreeSet::new(),
            doom: None,
            members: BTreeSet::new(),
            serving: BTreeMap::new(),
            alarm: (None, 0),
            plays: BTreeMap::new(),
            answers: BTreeMap::new(),
            lacked_a_statement,
            put_out: false,
            stolen: false,
            joined: !statements.is_empty(),
            joining: None,
            endpoints: BTreeMap::new(),
            standing: !statements.is_empty(),
            set_back: false,
            image: None,
            is_witnessed: false,
            is_out: false,
            first_words: None,
            taken_at: None,
            forgotten: 0,
        }
    }

    /// Its clocks.
    pub(crate) fn now(&self, time: u64) -> Now {
        let millis = i64::try_from(time / 1_000).unwrap_or(i64::MAX);
        Now {
            mono: Timestamp::from_micros(self.mono + time),
            wall: WallTime::from_unix_millis(EPOCH_MS + millis + self.clock.skew),
        }
    }

    /// The world's time at a point on the node's own clock.
    pub(crate) fn world_time(&self, at: Timestamp) -> u64 {
        let since = at.since(Timestamp::from_micros(self.mono));
        u64::try_from(since.min(Duration::from_secs(1 << 30)).as_micros()).unwrap_or(u64::MAX)
    }

    /// Its key and those that it had before, the newest first.
    pub(crate) fn keys(&self) -> impl Iterator<Item = DeviceId> {
        std::iter::once(self.id).chain(self.former.iter().copied())
    }

    /// Whether a key is its own or was.
    pub(crate) fn had(&self, key: &DeviceId) -> bool {
        self.id == *key || self.former.contains(key)
    }

    /// Where the chains of its keys lie.
    pub(crate) fn lineage(&self) -> Lineage {
        Lineage::new(self.id, &self.former)
    }

    /// Whether it runs.
    pub(crate) const fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// Whether it belongs to the fabric at the end.
    pub(crate) const fn belongs(&self) -> bool {
        self.joined && self.standing && !self.stolen
    }
}

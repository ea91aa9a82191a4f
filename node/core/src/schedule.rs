//! Timers: due at an instant, shown on each screen from its own replica, once.
//!
//! A timer is a document of kind `timer`. Each device follows all of them and shows one when it is
//! due by its own clock; that it was shown is persisted first, so that a crash does not show it twice.
//! Only `fires_on` would start a run from a schedule.

use std::{collections::BTreeMap, time::Duration};

use weft_protocol::{
    id::{DeviceId, DocumentId, TimerId},
    row::{Item, ReadError, Row, Rows, Table, Write},
    time::{Now, Timestamp, WallTime},
    timer::Timer,
    value::Value,
};
use weft_trust::state::State;

/// A timer that was due so long before this device saw it is not shown any more.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A timer that is due here now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DueTimer {
    /// Which.
    pub timer: Timer,
    /// By how much it is late.
    pub late: Duration,
    /// What persists that it was shown.
    pub write: Write,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Schedule {
    timers: BTreeMap<TimerId, Timer>,
    shown: BTreeMap<TimerId, WallTime>,
}

impl Schedule {
    /// Reads which timers were shown already.
    ///
    /// # Errors
    ///
    /// The rows cannot be read.
    pub fn open(rows: &dyn Rows) -> Result<Self, ReadError> {
        let mut shown = BTreeMap::new();
        for (row, value) in rows.scan_table(Table::Timer)? {
            let Item::Named(id) = row.item else { continue };
            let (Ok(id), Ok(due)) = (id.try_into(), value.try_into()) else { continue };
            shown.insert(
                TimerId::from_bytes(id),
                WallTime::from_unix_millis(i64::from_be_bytes(due)),
            );
        }
        Ok(Self { timers: BTreeMap::new(), shown })
    }

    /// Takes in a timer's document, or that it is gone.
    pub fn changed(&mut self, id: TimerId, document: Option<&Value>) {
        match document.and_then(|document| timer(id, document)) {
            Some(timer) => drop(self.timers.insert(id, timer)),
            None => drop(self.timers.remove(&id)),
        }
    }

    /// Timers that are still to come, the next first.
    pub fn pending(&self) -> Vec<&Timer> {
        let mut timers: Vec<&Timer> =
            self.timers.values().filter(|timer| !self.was_shown(timer)).collect();
        timers.sort_by_key(|timer| (timer.due, timer.id));
        timers
    }

    fn was_shown(&self, timer: &Timer) -> bool {
        self.shown.get(&timer.id) == Some(&timer.due)
    }

    /// The timers that are due now. Each is given once; it is shown when its write is persisted.
    pub fn poll(&mut self, now: Now) -> Vec<DueTimer> {
        let due: Vec<Timer> =
            self.pending().into_iter().take_while(|timer| timer.due <= now.wall).cloned().collect();
        due.into_iter()
            .filter_map(|timer| {
                let late = now.wall.unix_millis().saturating_sub(timer.due.unix_millis());
                let late = Duration::from_millis(u64::try_from(late).unwrap_or(0));
                self.shown.insert(timer.id, timer.due);
                let write = Write::Put(
                    Row::named(Table::Timer, b"shown", timer.id.as_bytes()),
                    timer.due.unix_millis().to_be_bytes().to_vec(),
                );
                (late < STALE).then_some(DueTimer { timer, late, write })
            })
            .collect()
    }

    /// When the next timer is due, if the wall clock goes on as it does now.
    pub fn poll_timeout(&self, now: Now) -> Option<Timestamp> {
        let next = self.pending().first()?.due.unix_millis();
        let wait = u64::try_from(next.saturating_sub(now.wall.unix_millis())).unwrap_or(0);
        Some(now.mono + Duration::from_millis(wait))
    }
}

/// The device that a timer fires on: where the key of the one that was named was replaced, the device under
/// its new key. Nothing else moves a timer but a person.
pub fn fires_on(timer: &Timer, state: &State) -> DeviceId {
    state.successor(&timer.fires_on)
}

/// The document that holds a timer.
pub fn document(timer: &Timer) -> Value {
    Value::map([
        ("label", Value::Text(timer.label.clone())),
        ("due", Value::Int(timer.due.unix_millis())),
        ("local", Value::Text(timer.local.clone())),
        ("zone", Value::Text(timer.zone.clone())),
        ("fires_on", Value::Text(timer.fires_on.to_string())),
    ])
}

/// The timer that a document holds.
pub fn timer(id: TimerId, document: &Value) -> Option<Timer> {
    let text = |name| Some(document.get(name)?.as_text()?.to_owned());
    Some(Timer {
        id,
        due: WallTime::from_unix_millis(document.get("due")?.as_int()?),
        local: text("local")?,
        zone: text("zone")?,
        label: text("label").unwrap_or_default(),
        fires_on: text("fires_on")?.parse().ok()?,
    })
}

/// The document of a timer.
pub const fn document_id(id: TimerId) -> DocumentId {
    DocumentId::from_bytes(*id.as_bytes())
}

#[cfg(test)]
mod tests {
    use weft_protocol::row::MemoryRows;

    use super::*;

    fn at(seconds: i64) -> Now {
        Now {
            mono: Timestamp::from_millis(u64::try_from(seconds).unwrap() * 1_000),
            wall: WallTime::from_unix_millis(seconds * 1_000),
        }
    }

    fn bread() -> Timer {
        Timer {
            id: TimerId::from_bytes([1; 16]),
            due: WallTime::from_unix_millis(600_000),
            local: "1970-01-01T00:10:00".into(),
            zone: "UTC".into(),
            label: "bread".into(),
            fires_on: DeviceId::from_bytes([2; 32]),
        }
    }

    #[test]
    fn a_timer_is_shown_once_even_over_a_restart() {
        let mut rows = MemoryRows::default();
        let mut schedule = Schedule::open(&rows).unwrap();
        schedule.changed(bread().id, Some(&document(&bread())));
        assert_eq!(schedule.poll_timeout(at(0)), Some(Timestamp::from_millis(600_000)));
        assert!(schedule.poll(at(599)).is_empty());
        let due = schedule.poll(at(603));
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].late, Duration::from_secs(3));
        rows.apply(due.into_iter().map(|due| due.write));
        assert!(schedule.poll(at(604)).is_empty());

        let mut restarted = Schedule::open(&rows).unwrap();
        restarted.changed(bread().id, Some(&document(&bread())));
        assert!(restarted.poll(at(605)).is_empty());
    }

    #[test]
    fn a_cancelled_timer_is_not_shown() {
        let mut schedule = Schedule::default();
        schedule.changed(bread().id, Some(&document(&bread())));
        schedule.changed(bread().id, None);
        assert!(schedule.poll(at(700)).is_empty());
    }
}

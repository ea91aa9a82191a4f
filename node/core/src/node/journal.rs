//! Journal entries of this device's runs that are not handed to the disk yet.
//!
//! They leave with the next batch that is about runs; where none comes, such as while a run waits for a
//! device that says nothing, they leave by themselves once a second. Whoever asks for the journal meanwhile
//! is told of them too.

use std::time::Duration;

use weft_protocol::{row::Write, time::Timestamp};

/// Entries that nothing else takes along leave so often.
const EVERY: Duration = Duration::from_secs(1);

/// The machine.
#[derive(Debug, Default)]
pub(super) struct JournalTail {
    writes: Vec<Write>,
    /// When they leave by themselves.
    due: Timestamp,
}

impl JournalTail {
    /// Takes an entry, if there is one.
    pub(super) fn push(&mut self, entry: Option<Write>, now: Timestamp) {
        if self.writes.is_empty() {
            self.due = now + EVERY;
        }
        self.writes.extend(entry);
    }

    /// Gives all entries, to be persisted now.
    pub(super) fn take(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// The entries, in order.
    pub(super) fn entries(&self) -> &[Write] {
        &self.writes
    }

    /// When [`Self::due`] has something to give.
    pub(super) fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        (!self.writes.is_empty()).then_some((self.due, "what a run says is written"))
    }

    /// Gives the entries that have waited long enough.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<Vec<Write>> {
        (!self.writes.is_empty() && self.due <= now).then(|| self.take())
    }
}

#[cfg(test)]
mod tests {
    use weft_protocol::row::{Row, Table};

    use super::*;

    #[test]
    fn entries_leave_by_themselves_once_a_second() {
        let at = Timestamp::from_millis;
        let entry = |number| Some(Write::Delete(Row::numbered(Table::Run, b"run", number)));
        let mut tail = JournalTail::default();
        tail.push(None, at(0));
        assert_eq!((tail.poll_timeout(), tail.due(at(9_000))), (None, None));
        let mut left = Vec::new();
        for millis in (0..10_000).step_by(100) {
            tail.push(entry(millis), at(millis));
            left.extend(tail.due(at(millis)).map(|writes| writes.len()));
        }
        assert_eq!(left, [11; 9], "each within the second, and none alone");
        assert_eq!(tail.entries().len(), 1);
        assert_eq!(tail.take().len(), 1);
        assert_eq!((tail.poll_timeout(), tail.due(at(20_000))), (None, None));
    }
}

//! A timer is shown on a machine at most once, what is shown was recorded before, and one that is due
//! is shown.

use std::collections::BTreeSet;

use weft_core::schedule;
use weft_protocol::{
    document::DocumentKind,
    id::TimerId,
    row::{Row, Rows as _, Table},
    time::WallTime,
};

use crate::{checkers::replicas::active, host::Host, world::Failures};

/// A device shows a timer that is due within a second; one that was due a day ago it does not show.
const SHOWN_WITHIN_MS: i64 = 1_000;
const STALE_MS: i64 = 24 * 3_600 * 1_000;

/// The checker.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    shown: BTreeSet<(usize, TimerId, WallTime)>,
}

fn is_recorded(host: &Host, id: TimerId, due: WallTime) -> bool {
    let row = Row::named(Table::Timer, b"shown", id.as_bytes());
    let value = host.disk.durable().get(&row).ok().flatten();
    value.is_some_and(|value| value == due.unix_millis().to_be_bytes())
}

impl Timers {
    /// A node shows a timer.
    pub(crate) fn shown(
        &mut self,
        at: usize,
        host: &Host,
        id: TimerId,
        due: WallTime,
        failures: &mut Failures,
    ) {
        let what = format!("{} shows timer {}", host.name, id.short());
        if !is_recorded(host, id, due) {
            failures.add("timers", format!("{what}, which it has not recorded"));
        }
        if !self.shown.insert((at, id, due)) {
            failures.add("timers", format!("{what} again"));
        }
    }

    /// At the end.
    pub(crate) fn finish(&self, hosts: &[Host], time: u64, failures: &mut Failures) {
        for (host, node) in active(hosts) {
            let now = host.now(time).wall.unix_millis();
            let rows = host.disk.visible();
            for listed in node.replica().list(&DocumentKind::TIMER, "", usize::MAX, rows) {
                let id = TimerId::from_bytes(*listed.id.as_bytes());
                let Some(timer) = schedule::timer(id, &listed.content) else {
                    failures.add("timers", format!("{} is no timer", listed.id));
                    continue;
                };
                let late = now - timer.due.unix_millis();
                let is_due = late >= SHOWN_WITHIN_MS && late + host.clock.ahead < STALE_MS;
                if is_due && !is_recorded(host, id, timer.due) {
                    let label = timer.label;
                    let what =
                        format!("{} did not show timer {label:?}, {late} ms late", host.name);
                    failures.add("timers", what);
                }
            }
        }
    }
}

//! A device that was put out gets nothing but statements from whoever knows, and what it wrote stands
//! only if somebody had applied it before.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::{
    document::DocumentKind,
    frame::Protocol,
    id::{DeviceId, DocumentId},
};

use crate::{checkers::replicas::active, disk::FLUSH_WITHIN, host::Host, world::Failures};

/// The checker.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    /// When a machine was told last that a device does not belong, while it had belonged.
    learned: BTreeMap<(usize, DeviceId), u64>,
    listed: BTreeMap<usize, BTreeSet<DeviceId>>,
    /// Where a document was made.
    made: BTreeMap<DocumentId, usize>,
    /// Those that nobody deletes.
    notes: BTreeSet<DocumentId>,
    /// When a machine first had it.
    had: BTreeMap<(usize, DocumentId), u64>,
}

impl Serving {
    /// A node says who belongs.
    pub(crate) fn members(&mut self, at: usize, members: &BTreeSet<DeviceId>, time: u64) {
        let before = self.listed.insert(at, members.clone()).unwrap_or_default();
        for gone in before.difference(members) {
            self.learned.entry((at, *gone)).or_insert(time);
        }
        for back in members.difference(&before) {
            self.learned.remove(&(at, *back));
        }
    }

    /// A node sends a frame.
    pub(crate) fn sent(
        &self,
        from: &Host,
        to: &Host,
        device: &DeviceId,
        protocol: Protocol,
        failures: &mut Failures,
    ) {
        if protocol != Protocol::Trust && !from.members.contains(device) {
            let (from, to) = (from.name, to.name);
            failures
                .add("serving", format!("{from} sends {protocol} to {to} under a key that is out"));
        }
    }

    /// The power of a machine goes: it may have lost what it had for less than its disk needs.
    pub(crate) fn crashed(&mut self, at: usize, time: u64) {
        self.had.retain(|(host, _), had| *host != at || *had + 2 * FLUSH_WITHIN < time);
    }

    /// A document changed on a machine.
    pub(crate) fn changed(
        &mut self,
        at: usize,
        id: DocumentId,
        kind: &str,
        remote: bool,
        time: u64,
    ) {
        self.had.entry((at, id)).or_insert(time);
        if kind == DocumentKind::NOTE.as_str() {
            self.notes.insert(id);
        }
        if !remote {
            self.made.entry(id).or_insert(at);
        }
    }

    /// At the end.
    pub(crate) fn finish(&self, hosts: &[Host], failures: &mut Failures) {
        let out = |(_, host): &(usize, &Host)| host.joined && !host.belongs();
        for (at, out) in hosts.iter().enumerate().filter(out) {
            for (host, node) in active(hosts).filter(|_| !out.standing) {
                if node.membership().state().member(&out.id).is_some() {
                    let what = format!("{} still lists {}", host.name, out.name);
                    failures.add("serving", what);
                }
            }
            for (id, _) in self.made.iter().filter(|(_, maker)| **maker == at) {
                let held = active(hosts).any(|(_, node)| node.replica().kind(id).is_some());
                let in_time = |other: usize| {
                    let had = self.had.get(&(other, *id));
                    // Of several keys the one that was put out went last.
                    let learned =
                        out.keys().filter_map(|key| self.learned.get(&(other, key))).max();
                    had.is_some_and(|had| learned.is_none_or(|learned| had <= learned))
                };
                let kept = |(other, host): (usize, &Host)| {
                    host.belongs() && host.node.is_some() && other != at && in_time(other)
                };
                if self.notes.contains(id) && hosts.iter().enumerate().any(kept) {
                    for (host, node) in active(hosts) {
                        if node.replica().kind(id).is_none() {
                            let (id, name) = (id.short(), host.name);
                            let what = format!(
                                "{name} lacks note {id} of {}, which others had in time",
                                out.name
                            );
                            failures.add("serving", what);
                        }
                    }
                }
                if held && !(0..hosts.len()).any(|other| other != at && in_time(other)) {
                    let what = format!(
                        "document {} of {} entered although nobody had it in time",
                        id.short(),
                        out.name
                    );
                    failures.add("serving", what);
                }
            }
        }
    }
}

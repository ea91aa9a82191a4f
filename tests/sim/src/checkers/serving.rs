//! A device that was put out gets nothing but statements from whoever knows, and what it wrote stands
//! only if somebody had applied it before.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::{
    frame::Protocol,
    id::{DeviceId, DocumentId},
};

use crate::{checkers::replicas::active, host::Host, world::Failures};

/// The checker.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    /// When a machine was told last that a device does not belong, while it had belonged.
    learned: BTreeMap<(usize, DeviceId), u64>,
    listed: BTreeMap<usize, BTreeSet<DeviceId>>,
    /// Where a document was made.
    made: BTreeMap<DocumentId, usize>,
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
    }

    /// A node sends a frame.
    pub(crate) fn sent(&self, from: &Host, to: &Host, protocol: Protocol, failures: &mut Failures) {
        if protocol != Protocol::Trust && !from.members.contains(&to.id) {
            let (from, to) = (from.name, to.name);
            failures.add("serving", format!("{from} sends {protocol} to {to}, which is put out"));
        }
    }

    /// A document changed on a machine.
    pub(crate) fn changed(&mut self, at: usize, id: DocumentId, remote: bool, time: u64) {
        self.had.entry((at, id)).or_insert(time);
        if !remote {
            self.made.entry(id).or_insert(at);
        }
    }

    /// At the end.
    pub(crate) fn finish(&self, hosts: &[Host], failures: &mut Failures) {
        for (at, out) in hosts.iter().enumerate().filter(|(_, host)| !host.belongs()) {
            for (host, node) in active(hosts) {
                if node.membership().state().member(&out.id).is_some() {
                    let what = format!("{} still lists {}", host.name, out.name);
                    failures.add("serving", what);
                }
            }
            for (id, _) in self.made.iter().filter(|(_, maker)| **maker == at) {
                let held = active(hosts).any(|(_, node)| node.replica().kind(id).is_some());
                let in_time = |other: usize| {
                    let had = self.had.get(&(other, *id));
                    let learned = self.learned.get(&(other, out.id));
                    had.is_some_and(|had| learned.is_none_or(|learned| had <= learned))
                };
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

//! Runs that ended, whose answers wait for a moment until other devices have what they wrote.

use std::time::Duration;

use weft_protocol::{
    id::{DeviceId, DocumentId},
    time::Timestamp,
};

use crate::door::{DoorId, Event};

/// An answer waits so long to say which other devices have what was written: a few round trips on a
/// local network, and less than a person notices.
const SETTLE: Duration = Duration::from_millis(150);

/// The machine.
#[derive(Debug, Default)]
pub(super) struct Settling {
    answers: Vec<Answer>,
}

/// What is told when it is settled.
#[derive(Debug)]
struct Answer {
    until: Timestamp,
    door: Option<DoorId>,
    event: Event,
    documents: Vec<DocumentId>,
}

impl Settling {
    /// A run ended that wrote these documents; one that did what it `wrote` by itself waits for the others.
    pub(super) fn ended(
        &mut self,
        door: Option<DoorId>,
        event: Event,
        documents: Vec<DocumentId>,
        wrote: bool,
        now: Timestamp,
    ) {
        let wait = if wrote { SETTLE } else { Duration::ZERO };
        self.answers.push(Answer { until: now + wait, door, event, documents });
    }

    /// When an answer has waited long enough.
    pub(super) fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let until = self.answers.iter().map(|it| it.until).min();
        until.map(|at| (at, "other devices may have what was written"))
    }

    /// The answers that all these devices have the documents of, or that waited long enough, with the door to
    /// which each goes. `has` says whether a device has a document as it is here.
    pub(super) fn settled(
        &mut self,
        devices: &[DeviceId],
        has: impl Fn(&DeviceId, &DocumentId) -> bool,
        name: impl Fn(&DeviceId) -> String,
        now: Timestamp,
    ) -> Vec<(Option<DoorId>, Event)> {
        let mut settled = Vec::new();
        for mut answer in std::mem::take(&mut self.answers) {
            let has_all =
                |device: &&DeviceId| answer.documents.iter().all(|document| has(device, document));
            let having: Vec<&DeviceId> = devices.iter().filter(has_all).collect();
            if answer.until > now && having.len() < devices.len() {
                self.answers.push(answer);
                continue;
            }
            if let Event::RunEnded { also_on, .. } = &mut answer.event
                && !answer.documents.is_empty()
            {
                *also_on = having.into_iter().map(&name).collect();
                also_on.sort();
            }
            settled.push((answer.door, answer.event));
        }
        settled
    }
}

//! What nodes say to people: answers and events.

use weft_core::door::{DoorId, Event, Reply};

use crate::{
    look,
    network::SECOND,
    world::{Happening, World},
};

impl World {
    /// A node answers a door.
    pub(crate) fn replied(&mut self, at: usize, door: DoorId, reply: Reply) {
        if door == look::DOOR {
            self.looked = Some(reply);
            return;
        }
        self.invited(door, &reply);
        self.rotated(at, &reply);
        if reply == Reply::Done {
            self.decisions.done(door);
        }
        if let Some(ask) = self.asks.get_mut(&door) {
            if let Reply::RunStarted { run } = &reply {
                ask.run = Some(*run);
            } else if let Reply::Refused { reason, .. } = &reply {
                ask.refused = Some(reason.clone());
            }
        }
        self.say(Some(at), || format!("replies {reply:?}").chars().take(160).collect());
    }

    /// A node tells its doors.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most events are for screens alone")]
    pub(crate) fn event(&mut self, at: usize, door: Option<DoorId>, event: Event) {
        match &event {
            Event::RunEnded { run, state, failure, .. } => {
                let (run, state, failure) = (*run, *state, failure.clone());
                self.say(Some(at), || {
                    format!("run {} is {state} {}", run.short(), failure.unwrap_or_default())
                });
                if let Some(ask) = door.and_then(|door| self.asks.get_mut(&door)) {
                    ask.ended.push((self.time, state));
                }
            }
            Event::Asked { .. } => {
                if let Some(door) = door {
                    let wait = self.dice.workload.between(SECOND / 10, 3 * SECOND);
                    let yes = self.dice.workload.chance(90);
                    self.later(wait, Happening::Consent(door.0, yes));
                }
            }
            Event::TimerDue { id, due, label, .. } => {
                let (id, due, label) = (*id, *due, label.clone());
                self.say(Some(at), || format!("shows timer {label:?}"));
                let host = &self.hosts[at];
                self.checks.timers.shown(at, host, id, due, &mut self.failures);
            }
            Event::DocumentChanged { id, remote, kind } => {
                let taken_at = self.hosts[at].taken_at.unwrap_or(self.time);
                self.checks.serving.changed(at, *id, kind, *remote, taken_at);
            }
            Event::Warning { text } => {
                let text = text.clone();
                let name = self.hosts[at].name;
                self.checks.audit.warned(name, self.time, &text, &mut self.failures);
                self.say(Some(at), || format!("warns: {text}"));
            }
            Event::StepPlaced { step, capability, device, .. } => {
                let text = format!("places step {step}, {capability}, on {device}");
                self.say(Some(at), || text);
            }
            Event::InvitationMet { name, .. } => {
                if let Some(door) = door {
                    self.invitation_met(door, name);
                }
            }
            Event::InvitationEnded { outcome, .. } => {
                if let Some(door) = door {
                    self.invitation_ended(door, outcome);
                }
            }
            _ => {}
        }
    }
}

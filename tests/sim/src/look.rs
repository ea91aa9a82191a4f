//! A person looks at a node: who is here, and what is known of each device.

use weft_core::{
    Input,
    checkup::{Checkup, ContactView},
    door::{Command, DeviceView, DoorId, Explanation, Reply},
};
use weft_protocol::{id::DeviceId, manifest::EffectClass, value::Value};

use crate::{
    fault::BAD_TIME,
    network::SECOND,
    workload::direct,
    world::{Happening, World},
};

/// So often it is looked while the world is bad.
const LOOKS: usize = 4;

/// The door at which it is looked.
pub(crate) const DOOR: DoorId = DoorId(1 << 43);

/// What a node shows.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) devices: Vec<DeviceView>,
    pub(crate) checkup: Box<Checkup>,
}

impl Seen {
    /// How a device was last looked for, and what its word is worth.
    pub(crate) fn contact(&self, device: &DeviceId) -> Option<&ContactView> {
        self.checkup.devices.iter().find(|it| it.device == *device)
    }
}

impl World {
    /// Draws when it is looked at all nodes while the world is bad.
    pub(crate) fn draw_looks(&mut self) {
        for _ in 0..LOOKS {
            let at = self.dice.facts.between(3 * SECOND, BAD_TIME);
            self.at(at, Happening::LookAround);
        }
    }

    /// What a node shows of all devices; nothing of one that is off.
    pub(crate) fn look_at(&mut self, at: usize) -> Option<Seen> {
        let Reply::Devices(devices) = self.asked(at, Command::Devices)? else { return None };
        let Reply::Checkup(checkup) = self.asked(at, Command::Checkup)? else { return None };
        Some(Seen { devices, checkup })
    }

    /// Where a node would have a prompt answered, and what it weighed.
    pub(crate) fn weighed(&mut self, at: usize) -> Option<Explanation> {
        let prompt = vec![("prompt", Value::from("why?"))];
        let plan = direct("llm.generate", prompt, EffectClass::ReadOnly);
        let Reply::Explained(mut explained) = self.asked(at, Command::Explain { plan })? else {
            return None;
        };
        explained.pop()
    }

    fn asked(&mut self, at: usize, command: Command) -> Option<Reply> {
        self.looked = None;
        self.feed(at, Input::Command { door: DOOR, command });
        self.looked.take()
    }
}

//! What a machine tells its node of itself: power, network, room, models, where it listens, and whether it
//! carries others' connections. All of it changes while the world is bad.

use weft_core::Input;
use weft_protocol::{
    presence::{Machine, ModelReady, Presence},
    reach::{Report, Service},
};

use crate::{
    dice::Dice,
    fault::BAD_TIME,
    network::SECOND,
    world::{Happening, World},
};

/// In no document and in no journal by chance.
const MARK: u64 = 0x5745_4654_5349_4d00;

/// What is so on one machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    pub(crate) addresses: Vec<String>,
    pub(crate) battery: Option<u8>,
    pub(crate) metered: bool,
    pub(crate) models: Vec<ModelReady>,
    pub(crate) relays: bool,
    pub(crate) machine: Machine,
    /// What no other machine says of itself.
    mark: u64,
}

impl Facts {
    /// What is so on the machine of that number.
    pub(crate) fn new(at: usize, model: Option<ModelReady>, dice: &mut Dice) -> Self {
        let mark = MARK + at as u64;
        let mut facts = Self {
            addresses: vec![],
            battery: dice.chance(40).then(|| 5 + dice.index(95) as u8),
            metered: dice.chance(20),
            models: model.into_iter().collect(),
            relays: dice.chance(20),
            machine: Machine {
                cores: 4,
                load_percent: Some(0),
                memory_bytes: Some(mark),
                storage_free_bytes: None,
            },
            mark,
        };
        facts.listens(at, 4_000);
        facts
    }

    fn listens(&mut self, at: usize, port: u64) {
        self.addresses = vec![format!("/ip4/10.0.0.{at}/udp/{port}/quic-v1")];
    }

    /// Whether a record says what is so.
    pub(crate) fn are_said_by(&self, presence: &Presence) -> bool {
        presence.addresses == self.addresses
            && presence.battery == self.battery
            && presence.metered == self.metered
            && presence.models == self.models
            && presence.relays == self.relays
            && presence.machine == Some(self.machine)
    }

    /// What may be on no disk, as bytes: what presence says of the models and of the memory, encoded or shown.
    pub(crate) fn secrets(&self) -> Vec<Vec<u8>> {
        let models = self.models.iter().map(|model| model.name.clone().into_bytes());
        let marks = [self.mark.to_be_bytes().to_vec(), self.mark.to_string().into_bytes()];
        models.chain(marks).collect()
    }
}

impl World {
    /// A node that starts hears what is so on its machine.
    pub(crate) fn tell_facts(&mut self, at: usize) {
        let Facts { addresses, battery, metered, models, relays, machine, .. } =
            self.hosts[at].facts.clone();
        self.feed(at, Input::Listening { addresses });
        if !models.is_empty() {
            self.feed(at, Input::Models(models));
        }
        self.feed(at, Input::Machine(machine));
        if battery.is_some() {
            self.feed(at, Input::Battery(battery));
        }
        if metered {
            self.feed(at, Input::Metered(true));
        }
        if relays {
            self.feed(at, reach(true));
        }
    }

    /// Draws when something changes on a machine.
    pub(crate) fn draw_changes(&mut self) {
        let mut at = 3 * SECOND;
        while at < BAD_TIME {
            let host = self.dice.facts.index(self.hosts.len());
            self.at(at, Happening::Change(host));
            at += self.dice.facts.between(SECOND / 10, 5 * SECOND);
        }
    }

    /// Something changes on a machine, whether or not it is on.
    pub(crate) fn change(&mut self, at: usize) {
        let dice = &mut self.dice.facts;
        let facts = &mut self.hosts[at].facts;
        let input = match dice.between(0, 6) {
            0 => {
                facts.metered = !facts.metered;
                Input::Metered(facts.metered)
            }
            1 => {
                facts.battery = dice.chance(70).then(|| 1 + dice.index(100) as u8);
                Input::Battery(facts.battery)
            }
            2 => {
                facts.relays = !facts.relays;
                reach(facts.relays)
            }
            3 => {
                facts.listens(at, dice.between(4_000, 5_000));
                Input::Listening { addresses: facts.addresses.clone() }
            }
            4 if !facts.models.is_empty() => {
                facts.models[0].speed_milli = dice.pick(&[0, 8_000, 25_000, 80_000]);
                Input::Models(facts.models.clone())
            }
            _ => {
                facts.machine.load_percent = Some(dice.index(101) as u8);
                Input::Machine(facts.machine)
            }
        };
        self.feed(at, input);
    }
}

fn reach(relays: bool) -> Input {
    let service = relays.then(Service::default);
    Input::Reach(Box::new(Report { service, ..Report::default() }))
}

//! Why a device can't be reached: whatever the network, the machine and other devices say, and in whatever
//! order, what a checkup tells is the last fact of each.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use weft_core::{
    Input,
    contact::{Contact, Failed},
    door::{Checkup, Command, Reply},
};
use weft_protocol::{
    attempt::{Attempt, Ending},
    id::DeviceId,
    presence::Machine,
    reach::{Nat, Part, Report, Reservation, Service, Trouble},
    time::{Now, WallTime},
};

mod support;

use support::{ALLOW, Fabric};

/// The devices: the one that is asked, two that it may meet, and one that never belonged.
const MEMBERS: u8 = 3;
const STRANGER: DeviceId = DeviceId::from_bytes([77; 32]);

/// As many attempts of a dial are kept, and of each as many characters.
const ATTEMPTS_KEPT: usize = 16;
const CHARS_KEPT: usize = 256;

/// Something that a node hears.
#[derive(Clone, Debug)]
enum Fact {
    /// A dial to a member, or to one that is none, came to nothing.
    Dialled(Option<usize>, Vec<Attempt>),
    Sighted(Option<usize>),
    Meets(usize),
    Parts(usize),
    Reach(Box<Report>),
    Metered(bool),
    Battery(Option<u8>),
    Machine(Machine),
    /// Another one hears that it relays, or no longer.
    Relays(usize, bool),
    /// Time passes, and the wall clock is set by so many milliseconds.
    Passes(u64, i64),
}

/// What must be told: the last of each.
#[derive(Debug, Default)]
struct Known {
    contacts: BTreeMap<DeviceId, Contact>,
    reach: Report,
    held: BTreeMap<DeviceId, WallTime>,
    battery: Option<u8>,
    metered: bool,
    machine: Option<Machine>,
    /// When the clock was set, and by how much.
    clock_set: Option<(WallTime, i64)>,
}

fn cut(text: &str) -> String {
    text.chars().take(CHARS_KEPT).collect()
}

fn kept(attempts: &[Attempt]) -> Vec<Attempt> {
    let kept = attempts.iter().take(ATTEMPTS_KEPT).map(|it| Attempt {
        address: cut(&it.address),
        ending: match &it.ending {
            Ending::Other(words) => Ending::Other(cut(words)),
            it @ (Ending::Refused | Ending::NoAnswer | Ending::NoRoute | Ending::OtherDevice) => {
                it.clone()
            }
        },
    });
    kept.collect()
}

impl Known {
    /// Takes a fact in, and says it to the device.
    fn take(&mut self, fabric: &mut Fabric, fact: Fact) {
        let now = fabric.now.wall;
        let id = |at: Option<usize>, fabric: &Fabric| at.map_or(STRANGER, |at| fabric.id(at));
        match fact {
            Fact::Dialled(at, attempts) => {
                let device = id(at, fabric);
                if at.is_some() {
                    let contact = self.contacts.entry(device).or_default();
                    let times = contact.failed.as_ref().map_or(0, |it| it.times) + 1;
                    contact.failed = Some(Failed { at: now, attempts: kept(&attempts), times });
                }
                fabric.feed(0, Input::DialFailed { device, attempts });
            }
            Fact::Sighted(at) => {
                let device = id(at, fabric);
                if at.is_some() {
                    self.contacts.entry(device).or_default().sighted = Some(now);
                }
                fabric.feed(0, Input::Sighted { device, addresses: vec![] });
            }
            Fact::Meets(at) => {
                let met = fabric.are_connected(0, at);
                fabric.meet(0, at);
                if !met && let Some(contact) = self.contacts.get_mut(&fabric.id(at)) {
                    contact.failed = None;
                }
            }
            Fact::Parts(at) => fabric.part(0, at),
            Fact::Reach(report) => {
                let relays: BTreeSet<DeviceId> =
                    report.reservations.iter().map(|it| it.relay).collect();
                self.held.retain(|relay, _| relays.contains(relay));
                for relay in relays {
                    self.held.entry(relay).or_insert(now);
                }
                self.reach = (*report).clone();
                fabric.feed(0, Input::Reach(report));
            }
            Fact::Metered(metered) => {
                self.metered = metered;
                fabric.feed(0, Input::Metered(metered));
            }
            Fact::Battery(battery) => {
                self.battery = battery;
                fabric.feed(0, Input::Battery(battery));
            }
            Fact::Machine(machine) => {
                self.machine = Some(machine);
                fabric.feed(0, Input::Machine(machine));
            }
            Fact::Relays(at, relays) => {
                let service = relays.then(Service::default);
                let report = Report { service, ..Report::default() };
                fabric.feed(at, Input::Reach(Box::new(report)));
            }
            Fact::Passes(millis, by) => {
                let wall = WallTime::from_unix_millis(now.unix_millis() + by);
                fabric.now = Now { wall, ..fabric.now };
                fabric.wait(Duration::from_millis(millis));
                if by.abs() > 2_000 {
                    self.clock_set = Some((fabric.now.wall, by));
                }
            }
        }
        fabric.settle();
    }

    /// What a checkup tells that is not so.
    fn wrong_in(&self, checkup: &Checkup, fabric: &Fabric) -> Result<(), TestCaseError> {
        prop_assert_eq!(&checkup.reach, &self.reach);
        prop_assert_eq!(checkup.battery, self.battery);
        prop_assert_eq!(checkup.metered, self.metered);
        prop_assert_eq!(checkup.machine, self.machine);
        prop_assert_eq!(checkup.time, fabric.now.wall);
        prop_assert_eq!(checkup.clock_set.map(|it| (it.at, it.forward_ms)), self.clock_set);
        let held: Vec<WallTime> = checkup.relays_held.iter().map(|(_, since)| *since).collect();
        let places = &self.reach.reservations;
        let expected: Vec<WallTime> = places.iter().map(|it| self.held[&it.relay]).collect();
        prop_assert_eq!(held, expected);
        prop_assert_eq!(checkup.devices.len(), usize::from(MEMBERS) - 1);
        for device in &checkup.devices {
            let expected = self.contacts.get(&device.device).cloned().unwrap_or_default();
            prop_assert_eq!(&device.contact, &expected, "{}", device.name);
        }
        Ok(())
    }
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        Just(Ending::Refused),
        Just(Ending::NoAnswer),
        Just(Ending::NoRoute),
        Just(Ending::OtherDevice),
        ".{0,300}".prop_map(Ending::Other),
    ]
}

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let attempt = (".{0,300}", ending()).prop_map(|(address, ending)| Attempt { address, ending });
    prop::collection::vec(attempt, 0..20)
}

fn report() -> impl Strategy<Value = Box<Report>> {
    let addresses = || prop::collection::vec("[a-z/0-9]{0,12}", 0..3);
    let nat =
        prop_oneof![Just(Nat::None), Just(Nat::Steady), Just(Nat::PerPeer), Just(Nat::Unknown)];
    let part = prop_oneof![
        Just(Part::Mapping),
        Just(Part::DialBack),
        Just(Part::Reservation),
        Just(Part::Upgrade)
    ];
    let trouble = (part, ".{0,20}").prop_map(|(part, why)| Trouble { part, why });
    let service = prop::option::of(
        (0_usize..9, 0_usize..9)
            .prop_map(|(reservations, circuits)| Service { reservations, circuits }),
    );
    // A relay that is no member is told of all the same: it is the network's to know.
    let relays = prop::collection::btree_set(0_u8..4, 0..3);
    (addresses(), addresses(), relays, service, nat, prop::collection::vec(trouble, 0..3)).prop_map(
        |(confirmed, observed, relays, service, nat, troubles)| {
            let place = |n| Reservation {
                relay: DeviceId::from_bytes([n; 32]),
                addresses: vec!["/p2p-circuit".into()],
            };
            let reservations = relays.into_iter().map(place).collect();
            Box::new(Report {
                confirmed,
                observed,
                reservations,
                service,
                nat,
                troubles,
                ..Report::default()
            })
        },
    )
}

fn fact() -> impl Strategy<Value = Fact> {
    let member = || 1..usize::from(MEMBERS);
    let anybody = || prop::option::weighted(0.9, member());
    let machine = (any::<u32>(), any::<Option<u8>>(), any::<Option<u64>>(), any::<Option<u64>>());
    prop_oneof![
        4 => (anybody(), attempts()).prop_map(|(at, attempts)| Fact::Dialled(at, attempts)),
        1 => anybody().prop_map(Fact::Sighted),
        2 => member().prop_map(Fact::Meets),
        2 => member().prop_map(Fact::Parts),
        2 => report().prop_map(Fact::Reach),
        1 => any::<bool>().prop_map(Fact::Metered),
        1 => any::<Option<u8>>().prop_map(Fact::Battery),
        1 => machine.prop_map(|(cores, load_percent, memory_bytes, storage_free_bytes)| {
            Fact::Machine(Machine { cores, load_percent, memory_bytes, storage_free_bytes })
        }),
        1 => (member(), any::<bool>()).prop_map(|(at, relays)| Fact::Relays(at, relays)),
        2 => (0_u64..90_000, prop_oneof![3 => Just(0_i64), 1 => -9_000_000_i64..9_000_000])
            .prop_map(|(millis, by)| Fact::Passes(millis, by)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_told_is_the_last_fact_whatever_came_before(
        facts in prop::collection::vec(fact(), 1..40),
    ) {
        let mut fabric = Fabric::new(MEMBERS, &[], ALLOW);
        let mut known = Known::default();
        for fact in facts {
            known.take(&mut fabric, fact);
            let Reply::Checkup(checkup) = fabric.ask(0, Command::Checkup) else {
                return Err(TestCaseError::fail("it tells"));
            };
            known.wrong_in(&checkup, &fabric)?;
            let Reply::Devices(devices) = fabric.ask(0, Command::Devices) else {
                return Err(TestCaseError::fail("it lists"));
            };
            for at in 1..usize::from(MEMBERS) {
                let view = devices.iter().find(|it| it.id == fabric.id(at)).unwrap();
                let is_here = fabric.are_connected(0, at);
                prop_assert_eq!(view.state == "here", is_here, "{}", &view.state);
                prop_assert_eq!(view.address.is_some(), is_here);
            }
        }
    }
}

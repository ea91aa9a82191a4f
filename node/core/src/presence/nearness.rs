//! Whom a device that lost another believes that it is near.

use proptest::prelude::*;

use super::*;

/// The devices that may say that they are connected with the one that is lost.
const OTHERS: usize = 3;
/// The one that is lost, among those that speak.
const LOST: usize = OTHERS;

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    /// Time passes, in milliseconds.
    Wait(u64),
    /// A device makes a record, which says or does not say that it is connected with the one that is lost, or,
    /// where it is that one, with the one that lost it. It lies for so long at one that hands it on, if it does not come from itself, and is under way.
    Say { who: usize, connected: bool, lies: Option<u64>, way: u64 },
    /// The connection with the one that is lost begins.
    Meet,
    /// It ends.
    Part,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let way = 0..=1_000_u64;
    let lies = proptest::option::of(0..20_000_u64);
    let step = prop_oneof![
        3 => (0..3_000_u64).prop_map(Step::Wait),
        6 => (0..=LOST, any::<bool>(), lies, way)
            .prop_map(|(who, connected, lies, way)| Step::Say { who, connected, lies, way }),
        1 => Just(Step::Meet),
        1 => Just(Step::Part),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A record that arrives later.
struct Way {
    arrives: u64,
    from: DeviceId,
    said: PresenceMessage,
}

struct World {
    now: u64,
    laptop: PresenceTable,
    speakers: Vec<PresenceTable>,
    ways: Vec<Way>,
    /// When the records of each were made, the first first.
    made: Vec<Vec<u64>>,
    /// When the two lost each other: when either was the first to know.
    parted: Option<u64>,
    /// Whether they have, since they met.
    is_over: bool,
    /// Whether the laptop takes it to be connected.
    is_linked: bool,
}

impl World {
    fn new() -> Self {
        let table = |seed: u8| {
            PresenceTable::new(
                SigningKey::from_bytes(&[seed; 32]),
                BootId { counter: 1, random: 1 },
            )
        };
        let speakers: Vec<_> = (1..).take(OTHERS + 1).map(table).collect();
        let mut laptop = table(99);
        laptop.own_mut().connected = speakers[..LOST].iter().map(|it| it.device).collect();
        let made = vec![Vec::new(); OTHERS + 1];
        Self {
            now: 1,
            laptop,
            speakers,
            ways: Vec::new(),
            made,
            parted: None,
            is_over: false,
            is_linked: false,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Wait(millis) => {
                let until = self.now + millis;
                let due = |it: &(usize, &Way)| it.1.arrives <= until;
                let next = |ways: &[Way]| {
                    let next = ways.iter().enumerate().filter(due).min_by_key(|it| it.1.arrives);
                    next.map(|(at, _)| at)
                };
                while let Some(at) = next(&self.ways) {
                    let Way { arrives, from, said } = self.ways.remove(at);
                    self.laptop.learn(&from, said, |_| true, Timestamp::from_millis(arrives));
                }
                self.now = until;
                self.laptop.now = Timestamp::from_millis(until);
            }
            Step::Say { who, connected, lies, way } => {
                let with =
                    if who == LOST { self.laptop.device } else { self.speakers[LOST].device };
                let speaker = &mut self.speakers[who];
                speaker.own_mut().connected = [with].into_iter().filter(|_| connected).collect();
                let signed = speaker.sign(Now::default());
                let from =
                    if lies.is_some() { DeviceId::from_bytes([7; 32]) } else { signed.author };
                let said =
                    message(std::iter::once((signed, Duration::from_millis(lies.unwrap_or(0)))));
                self.made[who].push(self.now);
                if who == LOST && !connected && self.is_linked && !self.is_over {
                    // It says that they are parted, before this one does.
                    (self.parted, self.is_over) = (Some(self.now), true);
                }
                self.ways.push(Way { arrives: self.now + lies.unwrap_or(0) + way, from, said });
            }
            Step::Meet => {
                self.laptop.met(self.speakers[LOST].device, Timestamp::from_millis(self.now));
                (self.is_linked, self.is_over) = (true, false);
            }
            Step::Part if !self.is_linked => {}
            Step::Part => {
                self.is_linked = false;
                self.laptop.parted(self.speakers[LOST].device, Timestamp::from_millis(self.now));
                if !self.is_over {
                    (self.parted, self.is_over) = (Some(self.now), true);
                }
            }
        }
    }

    /// When the record of a device that the laptop has was made.
    fn made(&self, who: usize) -> Option<u64> {
        let known = self.laptop.of(&self.speakers[who].device)?;
        let at = usize::try_from(known.sequence).expect("few are said") - 1;
        Some(self.made[who][at])
    }

    /// Those by whom the one that is lost is told to be near, and the later time at which such a one or the
    /// lost one itself had made what is believed.
    fn near(&self) -> Vec<(usize, u64)> {
        if self.is_linked {
            return Vec::new();
        }
        let lost = self.speakers[LOST].device;
        let near = self.laptop.near(&lost).map(|by| {
            let who = self.speakers.iter().position(|it| it.device == *by).expect("it speaks");
            (who, self.made(who).max(self.made(LOST)).expect("it was heard"))
        });
        near.collect()
    }
}

proptest! {
    #[test]
    fn whatever_the_order_nobody_is_near_by_words_older_than_the_loss(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            for (who, made) in world.near() {
                prop_assert!(world.parted.is_none_or(|then| then <= made), "{who} said so at {made}");
            }
        }
    }
}

fn say(who: usize, connected: bool) -> Step {
    Step::Say { who, connected, lies: None, way: 5 }
}

#[test]
fn what_a_survivor_said_before_it_noticed_makes_no_device_near() {
    let mut world = World::new();
    for step in [Step::Meet, say(0, true), Step::Wait(60_000), say(0, true)] {
        world.step(&step);
    }
    // That is under way when this device loses it, and counts no more than what came before.
    world.step(&Step::Part);
    for _ in 0..30 {
        world.step(&Step::Wait(1_000));
        assert_eq!(world.near(), []);
    }
}

#[test]
fn what_is_handed_on_is_no_later_than_the_word_that_it_follows_allows() {
    let mut world = World::new();
    for step in [
        Step::Meet,
        Step::Say { who: 0, connected: false, lies: None, way: 1 },
        Step::Part,
        Step::Say { who: 0, connected: true, lies: Some(500), way: 500 },
        Step::Wait(1_001),
    ] {
        world.step(&step);
    }
    assert_eq!(world.near(), []);
}

#[test]
fn one_that_gave_this_one_up_first_is_near_at_once() {
    let mut world = World::new();
    let of_lost = |connected| Step::Say { who: LOST, connected, lies: Some(0), way: 5 };
    for step in [Step::Meet, of_lost(true), say(0, true), Step::Wait(60_000), of_lost(false)] {
        world.step(&step);
    }
    for step in [Step::Wait(5_000), Step::Part] {
        world.step(&step);
    }
    assert_eq!(world.near(), [(0, 60_001)]);
    // That word is of no use any more when they had met again.
    for step in [Step::Meet, Step::Wait(5_000), Step::Part] {
        world.step(&step);
    }
    assert_eq!(world.near(), []);
}

#[test]
fn one_that_another_still_reaches_is_near_when_either_has_said_something_since() {
    for lost_speaks in [false, true] {
        let mut world = World::new();
        let before = [Step::Meet, say(0, true), Step::Wait(60_000), Step::Part, Step::Wait(2_100)];
        for step in before {
            world.step(&step);
        }
        assert_eq!(world.near(), []);
        let word = if lost_speaks {
            Step::Say { who: LOST, connected: true, lies: Some(10), way: 5 }
        } else {
            say(0, true)
        };
        for step in [word, Step::Wait(100)] {
            world.step(&step);
        }
        assert_eq!(world.near(), [(0, 62_101)], "{lost_speaks}");
    }
}

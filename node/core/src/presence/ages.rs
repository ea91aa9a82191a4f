//! How old a record is held to be, on devices of which no two clocks agree, however it was handed around.

use proptest::prelude::*;
use weft_protocol::time::WallTime;

use super::*;

/// The devices beside the one that is heard of.
const DEVICES: usize = 4;

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    /// Time passes, in milliseconds.
    Wait(u64),
    /// The device makes a record for one that it is connected with.
    Say { to: usize, way: u64 },
    /// One device tells another all that it knows, which is under way for so many milliseconds.
    Greet { from: usize, to: usize, way: u64 },
    /// One starts anew, and knows nothing.
    Restart(usize),
}

fn steps(way_max: u64) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..80_000_u64).prop_map(Step::Wait),
        1 => (0..DEVICES, 0..=way_max).prop_map(|(to, way)| Step::Say { to, way }),
        4 => (0..DEVICES, 0..DEVICES, 0..=way_max)
            .prop_map(|(from, to, way)| Step::Greet { from, to, way }),
        2 => (0..DEVICES).prop_map(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

/// A device, and what is true of the record that it has.
struct Holder {
    table: PresenceTable,
    /// How far its clocks are from the true time, in milliseconds.
    clock: u64,
    starts: u64,
    held: Option<Held>,
}

/// What is true of a record that somebody has.
#[derive(Clone, Copy)]
struct Held {
    made: u64,
    /// So long was it under way where nobody counted it.
    uncounted: u64,
}

/// A message that arrives later.
struct Way {
    arrives: u64,
    from: DeviceId,
    to: usize,
    said: PresenceMessage,
    held: Option<Held>,
    took: u64,
}

struct World {
    now: u64,
    author: PresenceTable,
    holders: Vec<Holder>,
    ways: Vec<Way>,
}

impl World {
    fn new() -> Self {
        let table = |seed: u8, counter| {
            let key = SigningKey::from_bytes(&[seed; 32]);
            PresenceTable::new(key, BootId { counter, random: counter })
        };
        let holder = |seed: u8| Holder {
            table: table(seed, 1),
            clock: u64::from(seed) * 777_777_777,
            starts: 1,
            held: None,
        };
        let holders = (1..).take(DEVICES).map(holder).collect();
        Self { now: 0, author: table(99, 1), holders, ways: Vec::new() }
    }

    fn of(&self, holder: usize) -> Now {
        let Holder { clock, .. } = self.holders[holder];
        let wall = WallTime::from_unix_millis(-i64::try_from(clock).expect("it is small"));
        Now { mono: Timestamp::from_millis(self.now + clock), wall }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Wait(millis) => {
                let until = self.now + millis;
                while let Some(next) = self.next_before(until) {
                    self.arrive(next);
                }
                self.now = until;
            }
            Step::Say { to, way } => {
                let now = Now { mono: Timestamp::from_millis(self.now), ..Now::default() };
                let said = PresenceMessage::of_now(self.author.sign(now));
                let held = Some(Held { made: self.now, uncounted: 0 });
                self.send(self.author.device, to, way, said, held);
            }
            Step::Greet { from, to, way } => {
                let now = self.of(from);
                let Holder { table, held, .. } = &mut self.holders[from];
                let (said, held) = (table.greeting(None, now), *held);
                self.send(self.holders[from].table.device, to, way, said, held);
            }
            Step::Restart(holder) => {
                let holder = &mut self.holders[holder];
                holder.starts += 1;
                let boot = BootId { counter: holder.starts, random: 0 };
                holder.table = PresenceTable::new(holder.table.key.clone(), boot);
                holder.held = None;
            }
        }
    }

    fn send(
        &mut self,
        from: DeviceId,
        to: usize,
        took: u64,
        said: PresenceMessage,
        held: Option<Held>,
    ) {
        self.ways.push(Way { arrives: self.now + took, from, to, said, held, took });
    }

    fn next_before(&self, until: u64) -> Option<usize> {
        let due = self.ways.iter().enumerate().filter(|(_, way)| way.arrives <= until);
        due.min_by_key(|(_, way)| way.arrives).map(|(at, _)| at)
    }

    fn arrive(&mut self, at: usize) {
        let Way { arrives, from, to, said, held, took } = self.ways.remove(at);
        self.now = arrives;
        let author = self.author.device;
        let mono = self.of(to).mono;
        let holder = &mut self.holders[to];
        let news = holder.table.learn(&from, said, |_| true, mono);
        if news.iter().any(|it| it.presence.device == author) {
            let Held { made, uncounted } = held.expect("what it sent, it had");
            let counted = if from == author { 0 } else { millis(HANDED_ON) };
            let uncounted = uncounted + took.saturating_sub(counted);
            let before = holder.held.map_or(0, |before| before.uncounted);
            holder.held = Some(Held { made, uncounted: uncounted.max(before) });
        }
    }

    /// By what each device believes the author, how long ago that was made and how much of that nobody could
    /// count.
    fn believed(&mut self) -> Vec<(u64, u64)> {
        let mut believed = Vec::new();
        for at in 0..DEVICES {
            let now = self.of(at);
            let author = self.author.device;
            let Holder { table, held, .. } = &mut self.holders[at];
            table.poll(now);
            if table.fresh(&author).is_some() {
                let Held { made, uncounted } = held.expect("it was heard");
                believed.push((self.now - made, uncounted));
            }
        }
        believed
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("it is small")
}

proptest! {
    #[test]
    fn however_a_record_is_handed_around_its_device_is_away_in_time(steps in steps(1_000)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            for (age, _) in world.believed() {
                // The device's own word is under way for a second at most here.
                prop_assert!(age < millis(FRESH) + 1_000, "{age} ms old");
            }
        }
    }

    #[test]
    fn a_record_is_believed_for_longer_only_by_what_stalled_on_its_way(steps in steps(40_000)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            for (age, uncounted) in world.believed() {
                prop_assert!(age < millis(FRESH) + uncounted, "{age} ms old, {uncounted} stalled");
            }
        }
    }
}

#[test]
fn two_that_start_anew_in_turn_keep_no_ghost_alive() {
    let mut world = World::new();
    world.step(&Step::Say { to: 0, way: 0 });
    world.step(&Step::Wait(1));
    let mut lasted = 0;
    for round in 0..2_000 {
        let (from, to) = (round % 2, (round + 1) % 2);
        for step in [Step::Restart(to), Step::Greet { from, to, way: 900 }, Step::Wait(900)] {
            world.step(&step);
        }
        if world.believed().is_empty() {
            break;
        }
        lasted = world.now;
    }
    assert!((100_000..=180_000).contains(&lasted), "{lasted} ms");
}

#[test]
fn a_device_that_is_there_is_believed_at_the_end_of_a_long_row() {
    const ROW: usize = 20;
    let table = |seed: u8| {
        let key = SigningKey::from_bytes(&[seed; 32]);
        PresenceTable::new(key, BootId { counter: 1, random: 1 })
    };
    let mut row: Vec<PresenceTable> = (1..).take(ROW).map(table).collect();
    let mut author = table(99);
    let at = |millis| Now { mono: Timestamp::from_millis(millis), ..Now::default() };
    // Of two renewals one gets lost, and each way takes a second.
    for round in 0..5 {
        let mut now = round * 2 * millis(RENEW);
        let mut said = Some(PresenceMessage::of_now(author.sign(at(now))));
        let mut from = author.device;
        for table in &mut row {
            now += 1_000;
            if round > 0 {
                table.poll(at(now));
                assert!(table.fresh(&author.device).is_some(), "until the next one comes");
            }
            let heard = said.take().expect("it is handed on");
            let news = table.learn(&from, heard, |_| true, at(now).mono);
            from = table.device;
            said = PresenceTable::for_others(&DeviceId::from_bytes([0; 32]), &news);
        }
    }
}

#[test]
fn of_a_record_whose_age_nobody_tells_only_the_addresses_are_of_use() {
    let table = |seed: u8| {
        let key = SigningKey::from_bytes(&[seed; 32]);
        PresenceTable::new(key, BootId { counter: 1, random: 1 })
    };
    let (mut laptop, server, mut phone) = (table(1), table(2), table(3));
    let mut say = |relays| {
        phone.own_mut().addresses = vec!["/ip4/10.0.0.2/tcp/1".into()];
        phone.own_mut().relays = relays;
        PresenceMessage::Records { records: vec![phone.sign(Now::default())], ages_ms: vec![] }
    };
    let (first, second, third) = (say(true), say(true), say(true));
    let phone = phone.device;
    assert_eq!(laptop.learn(&server.device, first, |_| true, Timestamp::ZERO).len(), 1);
    assert_eq!(laptop.of(&phone).map(|it| it.addresses.len()), Some(1));
    assert!(laptop.fresh(&phone).is_none() && !laptop.relays(&phone));
    // It says so itself: one that it made a moment ago.
    assert_eq!(laptop.learn(&phone, second, |_| true, Timestamp::ZERO).len(), 1);
    assert!(laptop.fresh(&phone).is_some() && laptop.relays(&phone));
    // A later one is no older than that.
    assert_eq!(laptop.learn(&server.device, third, |_| true, Timestamp::ZERO).len(), 1);
    assert!(laptop.fresh(&phone).is_some());
    laptop.poll(Now { mono: Timestamp::ZERO + FRESH, ..Now::default() });
    assert!(laptop.fresh(&phone).is_none() && !laptop.relays(&phone));
    // One that is connected here still relays.
    laptop.own_mut().connected.insert(phone);
    assert!(laptop.relays(&phone));
}

use super::*;

const NOBODY: DeviceId = DeviceId::from_bytes([99; 32]);

fn table(seed: u8, counter: u64) -> PresenceTable {
    let key = SigningKey::from_bytes(&[seed; 32]);
    PresenceTable::new(key, BootId { counter, random: counter })
}

/// A table of a device whose word somebody hears.
fn heard(seed: u8) -> PresenceTable {
    let mut table = table(seed, 1);
    table.own_mut().connected.insert(NOBODY);
    table
}

fn at(millis: u64) -> Now {
    Now { mono: Timestamp::from_millis(millis), ..Now::default() }
}

/// Every member of a test belongs.
fn learn(
    table: &mut PresenceTable,
    from: &PresenceTable,
    said: &PresenceMessage,
    now: u64,
) -> usize {
    table.learn(&from.device, said.clone(), |_| true, at(now).mono).len()
}

fn count(said: &PresenceMessage) -> usize {
    let PresenceMessage::Records { records, .. } = said;
    records.len()
}

/// What changes at a device.
type Change = fn(&mut Own);

/// When a device that changes as `changes` say tells of itself.
fn told(changes: &[(u64, Change)], until: u64) -> Vec<u64> {
    let mut table = heard(1);
    let mut told = Vec::new();
    for now in (0..until).step_by(100) {
        for (_, change) in changes.iter().filter(|(when, _)| *when == now) {
            change(table.own_mut());
        }
        if table.poll(at(now)).is_some() {
            told.push(now);
        }
    }
    told
}

#[test]
fn who_came_while_a_device_was_busy_hears_that_it_is_so_no_more() {
    let (mut phone, mut laptop) = (heard(1), table(2, 1));
    assert!(phone.poll(at(0)).is_some());
    phone.own_mut().queue = 1;
    let greeting = phone.greeting(Some(&laptop.device), at(10_000));
    assert_eq!(learn(&mut laptop, &phone, &greeting, 10_000), 1);
    // It was over before it was worth telling to anybody else.
    phone.own_mut().queue = 0;
    assert!(phone.poll(at(10_100)).is_none());
    assert_eq!(phone.poll_timeout(), Some(at(11_000).mono));
    let said = phone.poll(at(11_000)).expect("it is told");
    assert_eq!(learn(&mut laptop, &phone, &said, 11_000), 1);
    assert_eq!(laptop.of(&phone.device).map(|it| it.queue), Some(0));
    assert!(phone.poll(at(20_000)).is_none(), "once");
}

#[test]
fn what_matters_is_told_at_once_and_nothing_else_but_with_the_renewal() {
    assert_eq!(told(&[], 130_000), [0, 60_000, 120_000]);
    let matters: [Change; 5] = [
        |own| own.addresses = vec!["/ip4/10.0.0.2/tcp/1".into()],
        |own| own.models = vec![ModelReady { name: "small".into(), speed_milli: 1 }],
        |own| own.metered = true,
        |own| own.relays = true,
        |own| own.battery = Some(90),
    ];
    for change in matters {
        assert_eq!(told(&[(5_000, change)], 61_000), [0, 5_000]);
    }
    let machine = |load| Machine {
        cores: 2,
        load_percent: Some(load),
        memory_bytes: Some(1 << 30),
        storage_free_bytes: Some(u64::from(load) << 30),
    };
    // Load and free room move all the time.
    let mut table = heard(1);
    let mut records = 0;
    for second in 0_u8..=250 {
        table.own_mut().machine = Some(machine(second % 100));
        records += usize::from(table.poll(at(u64::from(second) * 1_000)).is_some());
    }
    assert_eq!(records, 5, "one at the start and one each minute");
}

#[test]
fn a_battery_is_told_of_when_it_crosses_a_mark_and_not_when_it_trembles_there() {
    let mut table = heard(1);
    let mut charges = Vec::new();
    let falls = (0..=60_u8).rev().flat_map(|charge| [charge, charge + 1, charge]);
    for (millis, charge) in (0..).step_by(10).zip(falls) {
        table.own_mut().battery = Some(charge);
        if table.poll(at(millis)).is_some() {
            charges.push(charge);
        }
    }
    assert_eq!(charges, [60, 49, 19, 9]);
    table.own_mut().battery = None;
    assert!(table.poll(at(5_000)).is_some(), "that it is on mains again is told");
}

#[test]
fn steps_are_told_of_when_they_last() {
    let busy: Change = |own| own.queue = 1;
    let more: Change = |own| own.queue = 9;
    let idle: Change = |own| own.queue = 0;
    // A step of 900 ms, and a thousand short ones.
    assert_eq!(told(&[(5_000, busy), (5_900, idle)], 60_000), [0]);
    let many: Vec<(u64, Change)> =
        (10..510).map(|n| (n * 100, if n % 2 == 0 { busy } else { idle })).collect();
    assert_eq!(told(&many, 60_000), [0]);
    // One that lasts, others behind it, and the end of them.
    let steps = [(5_000, busy), (8_000, more), (20_000, idle)];
    assert_eq!(told(&steps, 60_000), [0, 6_000, 9_000, 21_000]);
}

#[test]
fn whoever_is_alone_says_nothing_and_is_not_woken() {
    let mut table = table(1, 1);
    assert!(table.poll(at(0)).is_none());
    table.own_mut().metered = true;
    assert!(table.poll(at(600_000)).is_none());
    assert_eq!(table.poll_timeout(), None);
    table.own_mut().connected.insert(NOBODY);
    assert!(table.poll(at(600_001)).is_some());
    assert_eq!(table.poll_timeout(), Some(at(660_001).mono));
}

#[test]
fn believes_only_members_about_themselves_and_only_what_is_newer() {
    let (mut laptop, mut phone) = (table(1, 1), table(2, 1));
    let old = phone.greeting(None, at(0));
    let new = phone.greeting(None, at(1));
    let learned = laptop.learn(&phone.device, new.clone(), |_| false, at(1).mono);
    assert!(learned.is_empty(), "it is no member");
    assert_eq!(learn(&mut laptop, &phone, &new, 1), 1);
    assert_eq!(learn(&mut laptop, &phone, &new, 2), 0, "it is known");
    assert_eq!(learn(&mut laptop, &phone, &old, 2), 0, "it is older");
    let mut forged = phone.greeting(None, at(2));
    let PresenceMessage::Records { records, .. } = &mut forged;
    records[0].author = DeviceId::from_bytes([3; 32]);
    assert_eq!(learn(&mut laptop, &phone, &forged, 2), 0, "it is not about itself");
    let mut forged = phone.greeting(None, at(2));
    let PresenceMessage::Records { records, .. } = &mut forged;
    records[0].signature[0] ^= 1;
    assert_eq!(learn(&mut laptop, &phone, &forged, 2), 0, "it is not signed");
}

#[test]
fn of_a_flood_one_record_of_each_device_is_verified_and_that_is_the_newest() {
    let mut laptop = table(1, 1);
    let (mut phone, mut tablet) = (table(2, 1), table(4, 1));
    let mut flood = Vec::new();
    for author in [&mut phone, &mut tablet] {
        flood.extend((0..RECORDS_MAX / 2).map(|_| author.sign(at(0))));
    }
    // Neither order nor what is of nobody makes a difference.
    flood.reverse();
    flood.insert(3, table(5, 1).sign(at(0)));
    flood.insert(4, Signed::new(Domain::Presence, &7_u64, &phone.key));
    let said = PresenceMessage::Records { records: flood, ages_ms: vec![0; 9] };
    let is_member = |device: &DeviceId| [phone.device, tablet.device].contains(device);
    let from = NOBODY;
    let verified = laptop.candidates(&from, said.clone(), is_member);
    let sequences = |of: &BTreeMap<DeviceId, Candidate>| -> Vec<(DeviceId, u64)> {
        of.values().map(|it| (it.presence.device, it.presence.sequence)).collect()
    };
    let newest = (RECORDS_MAX / 2) as u64;
    let mut expected = [(phone.device, newest), (tablet.device, newest)];
    expected.sort_unstable();
    assert_eq!(sequences(&verified), expected);
    assert_eq!(laptop.learn(&from, said.clone(), is_member, at(1).mono).len(), 2);
    // What is known already costs no signature at all.
    assert_eq!(sequences(&laptop.candidates(&from, said, is_member)), []);
}

#[test]
fn a_start_that_is_over_never_comes_back() {
    let (mut laptop, server) = (table(1, 1), table(3, 1));
    let (mut before, mut after) = (table(2, 7), table(2, 8));
    let old = before.greeting(None, at(0));
    let new = after.greeting(None, at(0));
    let id = after.device;
    let counter = |laptop: &PresenceTable| laptop.of(&id).map(|it| it.boot.counter);
    assert_eq!(learn(&mut laptop, &server, &old, 1), 1);
    assert_eq!(learn(&mut laptop, &server, &new, 2), 1, "passed on, and of a later start");
    assert_eq!(counter(&laptop), Some(8));
    // However much the one before said.
    for _ in 0..5 {
        let later = before.greeting(None, at(3));
        assert_eq!(learn(&mut laptop, &server, &later, 3), 0);
    }
    assert_eq!(counter(&laptop), Some(8));
    // A backup was put back: its own word on its own connection counts, and while it is connected nothing
    // that others still pass on of the later start.
    let mut restored = table(2, 3);
    assert_eq!(learn(&mut laptop, &server, &restored.greeting(None, at(4)), 4), 0);
    let said = restored.greeting(None, at(5));
    laptop.own_mut().connected.insert(restored.device);
    let phone = table(2, 3);
    assert_eq!(learn(&mut laptop, &phone, &said, 5), 1);
    assert_eq!(learn(&mut laptop, &server, &after.greeting(None, at(6)), 6), 0);
    assert_eq!(counter(&laptop), Some(3));
    assert_eq!(learn(&mut laptop, &server, &restored.greeting(None, at(7)), 7), 1);
}

#[test]
fn what_is_not_renewed_is_not_believed_for_long() {
    let (mut laptop, mut phone) = (table(1, 1), table(2, 1));
    let said = phone.greeting(None, at(0));
    learn(&mut laptop, &phone, &said, 1_000);
    laptop.poll(at(180_000));
    assert!(laptop.fresh(&phone.device).is_some());
    laptop.poll(at(181_000));
    assert!(laptop.fresh(&phone.device).is_none(), "three renewals are missing");
    assert!(laptop.of(&phone.device).is_some(), "where it listened is of use all the same");
    // To hear the same again makes it no newer.
    learn(&mut laptop, &phone, &said, 182_000);
    assert!(laptop.fresh(&phone.device).is_none());
}

#[test]
fn a_device_is_near_while_one_that_is_here_says_so() {
    let (mut laptop, mut phone, mut server) = (table(1, 1), table(2, 1), table(3, 1));
    phone.own_mut().connected.insert(server.device);
    server.own_mut().connected.extend([laptop.device, phone.device]);
    laptop.own_mut().connected.insert(server.device);
    let id = phone.device;
    let near = |laptop: &PresenceTable| laptop.near(&id).copied().collect::<Vec<_>>();
    let passed_on = phone.greeting(None, at(0));
    learn(&mut laptop, &server, &passed_on, 0);
    assert_eq!(near(&laptop), [], "that its record came does not say when it was here");
    let said = server.greeting(None, at(0));
    learn(&mut laptop, &server, &said, 0);
    assert_eq!(near(&laptop), [server.device]);
    // The phone leaves, which the server tells a moment later.
    server.own_mut().connected.remove(&phone.device);
    assert!(server.poll(at(100)).is_none());
    let said = server.poll(at(1_200)).expect("it lasted");
    learn(&mut laptop, &server, &said, 1_200);
    assert_eq!(near(&laptop), []);
    // Nor does what the server said last count when the server is gone.
    server.own_mut().connected.insert(phone.device);
    let said = server.greeting(None, at(2_000));
    learn(&mut laptop, &server, &said, 2_000);
    assert_eq!(near(&laptop), [server.device]);
    laptop.own_mut().connected.clear();
    assert_eq!(near(&laptop), []);
}

#[test]
fn a_record_is_passed_on_to_those_who_do_not_hear_its_author() {
    let (mut laptop, mut phone) = (table(1, 1), table(2, 1));
    let (server, tablet) = (DeviceId::from_bytes([3; 32]), DeviceId::from_bytes([4; 32]));
    phone.own_mut().connected.extend([laptop.device, server]);
    let said = phone.greeting(None, at(0));
    let news = laptop.learn(&phone.device, said, |_| true, at(0).mono);
    assert_eq!(news.len(), 1);
    for (device, expected) in [(server, 0), (tablet, 1), (phone.device, 0)] {
        let said = PresenceTable::for_others(&device, &news);
        assert_eq!(said.map_or(0, |said| count(&said)), expected, "{device}");
    }
}

#[test]
fn a_greeting_tells_all_but_what_the_other_says_itself() {
    let (mut laptop, mut phone) = (table(1, 1), table(2, 1));
    let said = phone.greeting(None, at(0));
    learn(&mut laptop, &phone, &said, 0);
    let to_phone = laptop.greeting(Some(&phone.device), at(1));
    let to_anybody = laptop.greeting(None, at(1));
    assert_eq!((count(&to_phone), count(&to_anybody)), (1, 2));
}

#[test]
fn what_was_told_to_one_that_is_greeted_is_news_to_the_others() {
    let mut laptop = heard(1);
    assert!(laptop.poll(at(0)).is_some());
    laptop.own_mut().metered = true;
    let phone = table(2, 1);
    laptop.greeting(Some(&phone.device), at(10));
    assert!(laptop.poll(at(10)).is_some());
    assert!(laptop.poll(at(20)).is_none());
}

#[test]
fn a_record_of_the_largest_fabric_is_not_too_large() {
    let mut laptop = table(1, 1);
    laptop.own_mut().connected = (0..=255).map(|n| DeviceId::from_bytes([n; 32])).collect();
    laptop.own_mut().addresses =
        vec!["/ip6/2001:db8:1234:5678:9abc:def0:1234:5678/udp/65535/quic-v1".into(); 16];
    let said = laptop.greeting(None, at(0));
    let mut phone = table(2, 1);
    assert_eq!(learn(&mut phone, &laptop, &said, 0), 1);
    let told = phone.of(&laptop.device).map(|it| it.connected.len());
    assert_eq!(told, Some(CONNECTED_MAX));
    // With names as long as may be where it listens, there is room for some.
    let name = ["a".repeat(60).as_str(); 4].join(".");
    laptop.own_mut().addresses = vec![format!("/dns4/{name}/udp/65535/quic-v1"); 13];
    let said = laptop.greeting(None, at(1));
    assert_eq!(learn(&mut phone, &laptop, &said, 1), 1);
    let told = phone.of(&laptop.device).map_or(0, |it| it.connected.len());
    assert!((4..CONNECTED_MAX).contains(&told), "{told}");
}

//! A device that takes another key, without pairing again.

use std::{fs, path::Path, thread, time::Duration};

use serde_json::Value;
use weft_e2e::{Device, Dice, Fabric, not_run, until};

/// How many rotations are cut.
const CUTS: u64 = 6;

/// The longest wait before the plug is pulled: longer than a rotation takes on an idle machine.
const MOMENT_MS_MAX: u64 = 600;

fn key(device: &Device) -> String {
    let status = device.json(&["status"]);
    status["device"].as_str().expect("a device has a key").to_owned()
}

fn rotate(device: &Device) -> (String, String) {
    let rotated = device.json(&["rotate", "--yes"]);
    let field = |name: &str| rotated[name].as_str().expect("a key").to_owned();
    (field("former"), field("device"))
}

/// The rows of a device's table, each the name and the key.
fn devices(device: &Device) -> Vec<(String, String)> {
    let table = device.json(&["devices"]);
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let rows = table.as_array().expect("devices are a list");
    let mut rows: Vec<_> = rows.iter().map(|row| (text(row, "name"), text(row, "id"))).collect();
    rows.sort();
    rows
}

/// Copies a home as a thief of the disk has it, but for the port, which is in use.
fn clone(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for name in ["key", "store.redb"] {
        fs::copy(from.join(name), to.join(name)).expect("a copy");
    }
}

#[test]
fn a_device_goes_on_under_its_new_key_and_the_old_one_is_worth_nothing() {
    let mut fabric = Fabric::pair(["laptop", "phone", "server"]);
    let mut thief = fabric.further("thief");
    let [laptop, phone, server] = &mut *fabric;
    // The server is away from here on, until all is over.
    server.stop();
    laptop.note("before");
    phone.until_note("before");
    let (old_home, copy) = (laptop.home().to_owned(), laptop.home().with_file_name("copy"));
    laptop.stop();
    clone(&old_home, &copy);
    laptop.up();
    fabric.meet(["laptop", "phone"]);
    let [laptop, phone, _] = &mut *fabric;

    let asked = laptop.run(&["rotate"]);
    expect_test::expect![[r#"
        $ weft rotate
        ! error: replacing this device's key needs a yes, and there is no terminal to ask at
        ! hint: say it with --yes
        (exit 2)
    "#]]
    .assert_eq(&asked.to_string());
    let timer = laptop.run(&["do", "set a timer for 25 seconds called tea"]);
    assert_eq!(timer.code, Some(0), "{timer}");
    until("the phone knows of it", || phone.json(&["timers"]), |it| it[0]["label"] == "tea");
    let (id, before) = (laptop.node_id(), key(laptop));
    let (former, device) = rotate(laptop);
    assert_eq!((&former, &device), (&before, &key(laptop)));
    assert_ne!(former, device);
    assert_eq!(laptop.node_id(), id);
    let on_laptop = laptop.watch();

    // One row for one device, on every device, and the other meets it again.
    fabric.meet(["laptop", "phone"]);
    let [laptop, phone, _] = &mut *fabric;
    for seen_by in [&*laptop, &*phone] {
        let rows = devices(seen_by);
        let named: Vec<_> = rows.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(named, ["laptop", "phone", "server"], "{}", seen_by.name());
        assert_eq!(rows[0].1, device, "{}", seen_by.name());
        let shown = seen_by.run(&["device", "show", "laptop"]);
        assert!(shown.stdout.contains(&format!("former keys: {}", &former[..8])), "{shown}");
        let log = seen_by.run(&["trust", "log"]);
        let sentence = format!("laptop replaced its key: {} became {}", &former[..8], &device[..8]);
        assert!(log.stdout.contains(&sentence), "{log}");
        let agents = seen_by.json(&["agents"]);
        for agent in agents.as_array().expect("a list") {
            let on = agent["devices"].as_array().expect("a list");
            assert!(on.iter().filter(|name| **name == "laptop").count() <= 1, "{agent}");
        }
    }
    assert_eq!(phone.json(&["timers"])[0]["fires_on"], "laptop");
    laptop.note("after");
    phone.until_note("after");
    phone.note("to the new key");
    laptop.until_note("to the new key");

    // The copy of the disk speaks with nobody, and is told why.
    thief.move_to(copy);
    thief.up();
    let standing = until(
        "the copy is told",
        || thief.json(&["status"])["standing"].clone(),
        |standing| !standing.is_null(),
    );
    assert_eq!(standing["state"], "revoked", "{standing}");
    let why = standing["why"].as_str().unwrap_or_default();
    assert!(why.contains("its key was replaced by"), "{standing}");
    let late = thief.run(&["do", "note that I am the thief"]);
    let refused = thief.run(&["rotate", "--yes"]);
    assert_eq!(refused.code, Some(5), "{refused}");
    assert!(refused.stderr.contains("this device is revoked"), "{refused}");

    // The server hears of all of it for the first time, from whoever it meets.
    let [_, _, server] = &mut *fabric;
    server.up();
    fabric.meet(["laptop", "phone", "server"]);
    let [laptop, phone, server] = &mut *fabric;
    for note in ["before", "after", "to the new key"] {
        server.until_note(note);
    }
    server.note("barrier");
    for seen_by in [&*laptop, &*phone, &*server] {
        seen_by.until_note("barrier");
        assert_eq!(
            seen_by.notes(),
            ["after", "barrier", "before", "to the new key"],
            "after {late}"
        );
        assert_eq!(devices(seen_by)[0], ("laptop".to_owned(), device.clone()));
        assert!(!thief.notes().contains(&"barrier".to_owned()), "it is told nothing");
    }
    on_laptop.event("timer-due", |it| it["label"] == "tea");
    let is_tea = |it: &&Value| it["event"] == "timer-due" && it["label"] == "tea";
    assert_eq!(on_laptop.events().iter().filter(is_tea).count(), 1);

    // Runs of before are listed and shown, and every chain holds, that of the old key included.
    let runs = laptop.json(&["run", "list"]);
    let run =
        runs.as_array().and_then(|runs| runs.iter().find(|it| it["words"] == "note that before"));
    let run = run.expect("it is listed");
    assert_eq!(run["owner"], "laptop");
    let id = run["id"].as_str().expect("an id");
    assert_eq!(laptop.run(&["run", "show", id]).code, Some(0));
    for device in [&*phone, &*server] {
        device.verify();
    }
    let found = laptop.verify();
    assert_eq!(found["former"][0]["key"], former, "{found}");
    assert!(found["former"][0]["witnesses"].as_u64() >= Some(1), "{found}");
    let shown = laptop.run(&["audit", "verify", "--every-signature"]);
    assert!(shown.stdout.contains(&format!("under the former key {}", &former[..8])), "{shown}");

    let listed = laptop.json(&["audit", "list", "--key", &former[..8], "--limit", "2"]);
    assert_eq!(listed[1]["action"], "rotate", "{listed}");
    assert!(listed[0]["said"].as_str().is_some_and(|said| said.contains("replaced its key")));
    assert_eq!(laptop.run(&["audit", "list", "--key", "nonsense"]).code, Some(13));

    // Once more, and the last admin still is one.
    let (second, third) = rotate(laptop);
    assert_eq!(second, device);
    fabric.meet(["laptop", "phone", "server"]);
    let [laptop, phone, _] = &mut *fabric;
    assert_eq!(laptop.json(&["status"])["role"], "admin");
    assert_eq!(
        phone.json(&["device", "show", "laptop"])["former"],
        serde_json::json!([second, former])
    );
    assert_eq!(phone.json(&["device", "show", "laptop"])["id"], third);
    laptop.note("after all");
    phone.until_note("after all");
    assert_eq!(laptop.verify()["former"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_device_that_was_revoked_while_it_replaced_its_key_is_out_under_the_new_one_too() {
    let mut fabric = Fabric::pair(["laptop", "phone", "server"]);
    let [laptop, phone, server] = &mut *fabric;
    if laptop.make_admin(phone).is_none() {
        return not_run("this machine has no script(1) to make a terminal with");
    }
    laptop.note("before");
    phone.until_note("before");
    server.until_note("before");
    // The two do not hear of each other.
    laptop.stop();
    let revoked = phone.run(&["device", "revoke", "laptop", "--yes"]);
    assert_eq!(revoked.code, Some(0), "{revoked}");
    until("the server knows", || server.sees("laptop"), |state| state == "revoked");
    phone.stop();
    server.stop();
    laptop.up();
    let (former, device) = rotate(laptop);
    laptop.note("under the new key");
    phone.up();
    server.up();
    fabric.meet(["phone", "server"]);
    let [laptop, phone, server] = &mut *fabric;
    let standing = until(
        "the laptop is told",
        || laptop.json(&["status"])["standing"].clone(),
        |standing| !standing.is_null(),
    );
    assert_eq!(standing["state"], "revoked", "{standing}");
    assert_eq!(standing["why"], "phone revoked it", "{standing}");
    phone.note("barrier");
    server.until_note("barrier");
    for seen_by in [&*phone, &*server] {
        assert_eq!(seen_by.notes(), ["barrier", "before"], "{}", seen_by.name());
        for row in seen_by.json(&["devices"]).as_array().expect("a list") {
            let is_laptop = row["id"] == former || row["id"] == device;
            assert!(!is_laptop || row["state"] == "revoked", "{row}");
        }
        seen_by.verify();
    }
    // It still starts, tells what it holds, and shows its record.
    laptop.stop();
    laptop.up();
    assert_eq!(laptop.notes(), ["before", "under the new key"]);
    laptop.verify();
}

#[test]
fn a_power_cut_at_any_moment_of_a_rotation_leaves_one_key_that_all_agree_on() {
    let mut dice = Dice::new(20_261_122);
    let mut fabric = Fabric::pair(["laptop", "phone"]);
    let mut moved = 0;
    for round in 0..CUTS {
        let [laptop, _] = &mut *fabric;
        let before = key(laptop);
        let cut = laptop.start(&["rotate", "--yes"]);
        // The moment is the fault: it waits for nothing.
        thread::sleep(Duration::from_millis(dice.below(MOMENT_MS_MAX)));
        let said = laptop.kill();
        assert!(!said.contains("panicked"), "{said}");
        drop(cut);
        laptop.up();
        moved += u64::from(key(laptop) != before);
        let words = format!("round {round}");
        fabric.meet(["laptop", "phone"]);
        let [laptop, phone] = &mut *fabric;
        laptop.note(&words);
        phone.until_note(&words);
        assert_eq!(devices(phone)[0], ("laptop".to_owned(), key(laptop)));
        assert_eq!(devices(phone).len(), 2);
        laptop.verify();
    }
    eprintln!("{moved} of {CUTS} rotations were done before the cut");
    let [laptop, phone] = &mut *fabric;
    phone.verify();
    // And one that nobody cuts.
    let (former, device) = rotate(laptop);
    assert_eq!(key(laptop), device);
    assert_ne!(former, device);
}

#[test]
fn a_key_under_a_passphrase_is_replaced_without_typing_it_again() {
    const PASSPHRASE: &str = "staple-correct-zyzzyva-horse\n";
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    let init = ["init", "--name", "laptop", "--key", "passphrase", "--passphrase-from", "0"];
    let made = laptop.run_with(&init, PASSPHRASE);
    assert_eq!(made.code, Some(0), "{made}");
    laptop.up_with(&["--passphrase-from", "0"], PASSPHRASE);
    laptop.note("before");
    let (former, device) = rotate(laptop);
    assert_ne!(former, device);
    assert_eq!(laptop.json(&["status"])["keys"], "passphrase");
    laptop.stop();
    laptop.up_with(&["--passphrase-from", "0"], PASSPHRASE);
    assert_eq!((key(laptop), laptop.notes()), (device, vec!["before".to_owned()]));
    laptop.verify();
}

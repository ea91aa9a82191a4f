//! What is told of a device that works, and of one that doesn't.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use expect_test::{Expect, expect};
use serde_json::Value;
use weft_e2e::{Device, Fabric, Transcript, until, until_within};

/// A device that is cut off is missed after half a minute at most, and then dialled.
const LOSS: Duration = Duration::from_secs(90);

/// Compares what stood on the screen, without what differs from machine to machine.
#[track_caller]
fn check(said: &Transcript, expected: Expect) {
    for line in said.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line:?} is wider than a screen");
    }
    let is_id = |word: &str| word.len() == 8 && word.chars().all(|c| c.is_ascii_alphanumeric());
    let mut text = String::new();
    for line in said.to_string().lines() {
        let words: Vec<String> = line
            .split(' ')
            .map(|word| match word.split_once(':') {
                Some((ip @ ("127.0.0.1" | "(127.0.0.1"), port)) => {
                    format!("{ip}:PORT{}", port.trim_start_matches(|c: char| c.is_ascii_digit()))
                }
                _ => word.to_owned(),
            })
            .collect();
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        for at in 1..words.len() {
            if matches!(words[at].trim_end_matches([',', ';']), "GiB" | "MiB" | "KiB" | "ms") {
                (words[at - 1], words[at]) = ("N", words[at].trim_start_matches(['G', 'M', 'K']));
            }
            if words[at - 1] == "compiled," && is_id(words[at]) {
                words[at] = "<id>";
            }
        }
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    expected.assert_eq(&text);
}

/// What is found, as JSON; the exit code says whether there is a problem.
#[track_caller]
fn found(device: &Device) -> Value {
    let said = device.run(&["doctor", "--json"]);
    let found = said.json();
    let code = if found["ok"] == true { 0 } else { 12 };
    assert_eq!(said.code, Some(code), "{said}");
    assert_eq!(said.stderr, "", "{said}");
    found
}

/// What is said of one thing.
fn of(found: &Value, about: &str) -> Value {
    let findings = found["findings"].as_array().expect("findings are a list");
    findings.iter().find(|it| it["about"] == about).cloned().unwrap_or_default()
}

/// The screen with the count of records left out, which is another each time.
fn without_count(screen: Transcript, count: &str) -> Transcript {
    let stdout = screen.stdout.replace(&format!("{count} as they were"), "N as they were");
    Transcript { stdout, ..screen }
}

#[test]
fn before_anything_is_there_it_says_how_to_begin() {
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    check(
        &laptop.run(&["doctor"]),
        expect![[r#"
        $ weft doctor
        1 problem

        problem  home  there is no device in …/laptop yet
                       → weft init begins a fabric, on its first device
                       → weft join takes a ticket that weft invite shows on another
                         device
                       → weft --home DIR doctor, if it lies in another folder
        (exit 12)
    "#]],
    );
    assert!(!laptop.home().exists(), "nothing was made");
    let begun = laptop.run(&["init", "--name", "laptop", "--key", "file"]);
    assert_eq!(begun.code, Some(0), "{begun}");
    check(
        &laptop.run(&["doctor"]),
        expect![[r#"
        $ weft doctor
        1 problem, 3 ok

        problem  node   no node is running in this home
                        without it only this machine's own files were looked at
                        → weft up, and leave it running

        ok       home   …/laptop; N iB left on its disk
        ok       store  N iB, encrypted; not opened now, as no node runs
        ok       keys   in a file: whoever has the disk reads all; weft key set
                        passphrase changes that
        (exit 12)
    "#]],
    );
    fs::remove_file(laptop.home().join("store.redb")).expect("it was made");
    let gone = of(&found(laptop), "store");
    assert_eq!((&gone["level"], &gone["to_do"][0]).0, "problem", "{gone}");
    fs::write(laptop.home().join("store.redb"), "no store").expect("it is ours");
    assert!(of(&found(laptop), "store")["what"].as_str().unwrap().contains("is damaged"));
    fs::write(laptop.home().join("key"), "no key").expect("it is ours");
    assert_eq!(of(&found(laptop), "keys")["level"], "problem");
}

#[test]
fn a_fabric_that_works_and_a_device_that_goes_away() {
    let mut fabric = Fabric::pair(["laptop", "phone", "server"]);
    let [laptop, _, server] = &mut *fabric;
    // The others countersign, and tell what they offer and where they are, a moment after they are here.
    let is_told = |found: &Value| {
        let record = of(found, "record")["what"].to_string();
        record.contains("phone, server")
            && of(found, "agents")["level"] == "ok"
            && ["phone", "server"]
                .iter()
                .all(|name| of(found, name)["what"].as_str().is_some_and(|it| it.ends_with(" ms")))
            && of(found, "clock")["what"].to_string().contains("as on the other devices")
    };
    until("all is told", || found(laptop), is_told);
    let records = |device: &Device| device.json(&["status"])["audit_head"]["position"].clone();
    let screen = laptop.run(&["doctor"]).expect_code(0);
    let count = records(laptop).as_u64().expect("there are records") + 1;
    let screen = without_count(screen, &count.to_string());
    check(
        &screen,
        expect![[r#"
        $ weft doctor
        2 warnings, 13 ok

        warning  recovery   there are no recovery words, and laptop is the only admin
                            if laptop is lost, nobody is let in or out any more
                            → weft device role phone admin

        warning  model      no device that is here has one
                            nothing is summarised, and only words that agents declare
                            are understood
                            → weft model get, on the strongest device

        ok       home       …/laptop; N iB left on its disk
        ok       store      N iB, encrypted; opened and in order
        ok       keys       in a file: whoever has the disk reads all; weft key set
                            passphrase changes that
        ok       node       running, version 0.1.0, start 1
        ok       fabric     laptop is a laptop and admin of home
        ok       clock      <date> <time>, as on the other devices
        ok       address    127.0.0.1:PORT; this machine only, by WEFT_LISTEN=loopback
        ok       multicast  off, by WEFT_LISTEN=loopback
        ok       phone      here since <date> <time>, direct, N ms
        ok       server     here since <date> <time>, direct, N ms
        ok       agents     docs, notes, text, timer
        ok       rules      compiled, <id>
        ok       record     N as they were written; countersigned by phone, server
    "#]],
    );
    let status = laptop.run(&["status"]).expect_code(0);
    assert!(status.stdout.lines().count() <= 24, "{status}");
    let fields: Vec<&str> =
        status.stdout.lines().skip(1).filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    expect![[r#"
        here
        runs
        reach
        addresses
        models
        machine
        documents
        audit records
        rules
        keys
        no recovery
        2 things to look at"#]]
    .assert_eq(&fields.join("\n"));
    let here = status.stdout.lines().nth(1).unwrap_or_default();
    assert!(
        here.starts_with("here: phone (direct, ") && here.contains(", server (direct, "),
        "{here}"
    );

    server.kill();
    let is_told = |found: &Value| {
        of(found, "server")["what"].as_str().is_some_and(|it| it.contains("no node runs there"))
    };
    let lost = until_within(LOSS, "why it is away is told", || found(laptop), is_told);
    let told = of(&lost, "server");
    assert_eq!(
        (&told["level"], &told["to_do"][0]),
        (&"warning".into(), &"on server: weft up".into())
    );
    let what = told["what"].as_str().unwrap();
    assert!(what.starts_with("away since "), "{told}");
    // At which port it was dialled, and over what.
    assert!(
        what.contains("(127.0.0.1:") && what.contains(" by ") && what.contains("TCP"),
        "{told}"
    );
    assert!(told["why"].as_str().unwrap().starts_with("dialled "), "{told}");
    let status = laptop.run(&["status"]).expect_code(0);
    assert!(status.stdout.contains("\naway: server (since "), "{status}");
    assert_eq!(laptop.json(&["status"])["others"][1]["state"], "away");
    server.up();
    until("it is back", || of(&found(laptop), "server"), |it| it["level"] == "ok");
}

#[test]
fn a_device_that_was_put_out_is_told_that_alone() {
    let mut fabric = Fabric::pair(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    let record = |device: &Device| of(&found(device), "record")["what"].to_string();
    until("the laptop countersigned", || record(phone), |it| it.contains("by laptop"));
    let revoked = laptop.run(&["device", "revoke", "phone", "--yes"]);
    assert_eq!(revoked.code, Some(0), "{revoked}");
    until("the phone is told", || phone.sees("phone"), |state| state == "revoked");
    laptop.stop();
    let screen = phone.run(&["doctor"]);
    let (before, _) = screen.stdout.split_once(" as they were").expect("they are counted");
    let count = before.rsplit(' ').next().unwrap_or_default().to_owned();
    let screen = without_count(screen, &count);
    check(
        &screen,
        expect![[r#"
        $ weft doctor
        1 problem, 4 ok

        problem  fabric  this device was put out of home: laptop revoked it, <date>
                         <time>
                         that is for good: no device serves it, and none takes what it
                         writes
                         → the same machine comes back with a new home: weft invite on
                           an admin, weft --home NEW join there

        ok       home    …/phone; N iB left on its disk
        ok       store   N iB, encrypted; opened and in order
        ok       keys    in a file: whoever has the disk reads all; weft key set
                         passphrase changes that
        ok       record  N as they were written; countersigned by laptop
        (exit 12)
    "#]],
    );
}

#[test]
fn what_lies_open_and_what_is_locked_is_told() {
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    let init = ["init", "--name", "laptop", "--key", "passphrase", "--passphrase-from", "0"];
    let passphrase = "staple-correct-zyzzyva-horse\n";
    let begun = laptop.run_with(&init, passphrase);
    assert_eq!(begun.code, Some(0), "{begun}");
    laptop.up_with(&["--passphrase-from", "0"], passphrase);
    let locked = laptop.run(&["lock"]);
    assert_eq!(locked.code, Some(0), "{locked}");
    check(
        &laptop.run(&["doctor"]),
        expect![[r#"
        $ weft doctor
        1 problem, 3 ok

        problem  node   this device is locked
                        it does nothing until it has its keys, and can't be looked into
                        → weft unlock

        ok       home   …/laptop; N iB left on its disk
        ok       store  N iB, encrypted; closed while locked
        ok       keys   under a passphrase
        (exit 12)
    "#]],
    );
    let unlocked = laptop.run_with(&["unlock", "--passphrase-from", "0"], passphrase);
    assert_eq!(unlocked.code, Some(0), "{unlocked}");
    until("it is unlocked", || found(laptop), |it| it["ok"] == true);

    let open = |name: &str, mode| {
        let path = laptop.home().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    for (name, mode, about, level) in [
        ("", 0o755, "home", "warning"),
        ("", 0o777, "home", "problem"),
        ("", 0o700, "home", "ok"),
        ("key", 0o640, "keys", "problem"),
        ("key", 0o600, "keys", "ok"),
        ("store.redb", 0o606, "store", "problem"),
        ("store.redb", 0o600, "store", "ok"),
    ] {
        open(name, mode);
        let told = of(&found(laptop), about);
        assert_eq!(told["level"], level, "{name} {mode:o}: {told}");
        let to_do = told["to_do"][0].as_str().unwrap_or("chmod");
        assert!(to_do.starts_with("chmod"), "{told}");
    }
    let status = laptop.run(&["status"]).expect_code(0);
    assert!(status.stdout.contains("look at: weft doctor\n"), "{status}");
    laptop.stop();
    let stopped = of(&found(laptop), "node");
    assert_eq!(stopped["what"], "no node is running in this home");
}

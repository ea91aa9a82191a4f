//! A person who gets back in with the recovery words, and a thief who does not stay.

use std::fs;

use expect_test::expect;
use serde_json::Value;
use weft_e2e::{Device, Fabric, Transcript, not_run, until};

/// Begins a fabric whose words lie in `words.txt` beside the homes.
fn begin(device: &Device) {
    let script = r#"exec "$0" "$@" 3>words.txt"#;
    let words = ["init", "--name", device.name(), "--kind", device.kind(), "--words-to", "3"];
    let begun = device.start_under("sh", &["-c", script], &words).expect("there is a shell").end();
    assert_eq!(begun.code, Some(0), "{begun}");
}

/// Types `weft recover` with the words of this file, and no question asked.
fn recover(device: &Device, file: &str, words: &[&str]) -> Transcript {
    let script = format!(r#"exec "$0" "$@" 3<{file}"#);
    let words = [&["recover", "--words-from", "3", "--yes"], words].concat();
    device.start_under("sh", &["-c", &script], &words).expect("there is a shell").end()
}

/// Makes the device one of the fabric with the words, through another.
fn come_in(device: &Device, through: &Device, words: &[&str]) -> Transcript {
    let (name, kind) = (device.name(), device.kind());
    let at = address(through, "quic");
    let words = [&["--at", &at, "--name", name, "--kind", kind], words].concat();
    recover(device, "words.txt", &words)
}

/// Where a device listens.
fn address(device: &Device, transport: &str) -> String {
    let status = device.json(&["status"]);
    let addresses = status["addresses"].as_array().expect("addresses are a list");
    let wanted = |it: &&str| it.contains(transport);
    let found = addresses.iter().filter_map(Value::as_str).find(wanted);
    found.unwrap_or_else(|| panic!("no {transport} among {addresses:?}")).to_owned()
}

/// A thing that a transcript says, and others may not.
fn without_words(folder: &std::path::Path, said: &Transcript) {
    let words = fs::read_to_string(folder.join("words.txt")).expect("there are words");
    let words: Vec<_> = words.split_whitespace().collect();
    // Three in a row are no chance.
    let three = words[..3].join(" ");
    assert!(!said.stdout.contains(&three) && !said.stderr.contains(&three), "{said}");
}

/// The id of the first statement of this kind by this device, out of `weft trust log`.
fn first_said(on: &Device, by: &str, kind: &str) -> String {
    let log = on.json(&["trust", "log"]);
    let said = log.as_array().expect("the log is a list").iter();
    let mut of = said.filter(|it| it["by"] == by && it["kind"] == kind);
    let id = of.next().and_then(|it| it["id"].as_str().map(str::to_owned));
    id.unwrap_or_else(|| panic!("{by} said no {kind}: {log}"))
}

#[test]
fn words_bring_a_person_in_when_only_a_plain_member_is_left() {
    let mut fabric = Fabric::new(["laptop", "phone", "tablet", "desktop"]);
    let folder = fabric.folder().to_owned();
    let [laptop, phone, tablet, desktop] = &mut *fabric;
    begin(laptop);
    laptop.up();
    assert_eq!(phone.join(&laptop.invite()).code, Some(0));
    phone.up();
    phone.note("from before");
    laptop.until_note("from before");
    // The laptop is gone, and nobody is left who may say who belongs.
    laptop.stop();
    fs::remove_dir_all(laptop.home()).expect("it was lost");

    // A try that the power ended before it was whole left a store that nobody can open.
    fs::create_dir_all(tablet.home()).expect("a folder is made");
    tablet.write("tablet/store.redb", "half of a store");
    let recovered = come_in(tablet, phone, &[]).expect_code(0);
    without_words(&folder, &recovered);
    expect![[r#"
        recovered: this device is an admin of the fabric home
    "#]]
    .assert_eq(&recovered.stdout);
    for line in [
        "the fabric home, as phone has it:",
        "  laptop, a laptop and admin",
        "phone heard of it; the others do when they meet",
    ] {
        assert!(recovered.stderr.contains(line), "{line}: {recovered}");
    }
    // The phone knows it before the tablet's node ever ran.
    until("the tablet is known", || phone.sees("tablet"), |state| !state.is_empty());
    tablet.up();
    tablet.until_note("from before");
    tablet.note("from the tablet");
    phone.until_note("from the tablet");
    let revoked = tablet.run(&["device", "revoke", "laptop", "--yes"]);
    assert_eq!(revoked.code, Some(0), "{revoked}");
    until("the phone hears it", || phone.sees("laptop"), |state| state == "revoked");
    // A home belongs to one fabric.
    let again = come_in(tablet, phone, &[]);
    assert_eq!(again.code, Some(2), "{again}");
    assert!(again.stderr.contains("holds a device already"), "{again}");

    // By TCP, as a host and its port, and as JSON; a name that is taken gets a number.
    let port = address(phone, "tcp").rsplit('/').next().expect("a port").to_owned();
    let at = format!("127.0.0.1:{port}");
    let words = ["--at", &at, "--name", "tablet", "--json"];
    let recovered = recover(desktop, "words.txt", &words).expect_code(0);
    without_words(&folder, &recovered);
    let said = recovered.json();
    assert_eq!((&said["outcome"], &said["name"]), (&"recovered".into(), &"tablet-2".into()));
    assert_eq!((&said["role"], &said["told"][0]), (&"admin".into(), &"phone".into()));
}

#[test]
fn wrong_words_open_nothing_and_what_is_wrong_is_said_at_once() {
    let mut fabric = Fabric::new(["laptop", "tablet", "other-laptop"]);
    let folder = fabric.folder().to_owned();
    let [laptop, tablet, other] = &mut *fabric;
    begin(laptop);
    fs::rename(folder.join("words.txt"), folder.join("right.txt")).expect("words came");
    // Those of another fabric.
    begin(other);
    laptop.up();
    let at = address(laptop, "quic");
    let refused = recover(tablet, "words.txt", &["--at", &at]);
    without_words(&folder, &refused);
    assert_eq!(refused.code, Some(5), "{refused}");
    assert!(refused.stderr.contains("does not know these words"), "{refused}");
    assert!(!refused.stderr.contains("home"), "nothing is told of the fabric: {refused}");

    let right = fs::read_to_string(folder.join("right.txt")).expect("words came");
    let mut list: Vec<&str> = right.split_whitespace().collect();
    list[6] = "weft";
    laptop.write("misspelt.txt", list.join(" "));
    laptop.write("few.txt", list[..20].join("\n"));
    list.truncate(6);
    for (file, expected) in [
        ("misspelt.txt", "word 7 is not in the list; check its spelling"),
        ("few.txt", "20 words were given, 24 are needed"),
    ] {
        let said = recover(tablet, file, &["--at", &at]);
        assert_eq!(said.code, Some(2), "{said}");
        assert!(said.stderr.contains(expected), "{said}");
        assert!(!said.stderr.contains(&list.join(" ")), "{said}");
    }
    assert!(!tablet.home().join("key").exists(), "nothing was made");

    // Nobody there.
    laptop.stop();
    let nobody = recover(tablet, "right.txt", &["--at", &at]);
    assert_eq!(nobody.code, Some(10), "{nobody}");
    assert!(nobody.stderr.contains("neither the fabric nor what was in it comes back"), "{nobody}");
    let nowhere = recover(tablet, "right.txt", &[]);
    assert_eq!(nowhere.code, Some(2), "{nowhere}");
    assert!(nowhere.stderr.contains("--at HOST:PORT"), "{nowhere}");
    // Where nobody can be asked, only --yes recovers.
    let asked = tablet.run(&["recover", "--at", &at]);
    expect![[r#"
        ! error: recovering asks a person, and there is no terminal to ask at
        ! hint: say it with --yes, and hand over the words with --words-from FD
        (exit 2)
    "#]]
    .assert_eq(asked.to_string().split_once('\n').expect("lines").1);
}

#[test]
fn a_thief_who_revoked_everybody_is_undone_by_the_words() {
    let mut fabric = Fabric::new(["laptop", "phone", "thief", "tablet"]);
    let [laptop, phone, thief, tablet] = &mut *fabric;
    begin(laptop);
    laptop.up();
    assert_eq!(phone.join(&laptop.invite()).code, Some(0));
    phone.up();
    // A second admin: the words made it one. Then it is stolen, unlocked.
    assert_eq!(come_in(thief, laptop, &[]).code, Some(0));
    thief.up();
    for (device, others) in
        [(&*laptop, ["phone", "thief"]), (phone, ["laptop", "thief"]), (thief, ["laptop", "phone"])]
    {
        device.until_here(&others);
    }
    laptop.note("from the laptop");
    phone.until_note("from the laptop");
    for victim in ["phone", "laptop"] {
        let done = thief.run(&["device", "revoke", victim, "--yes"]);
        assert_eq!(done.code, Some(0), "{done}");
    }
    for device in [&*laptop, phone] {
        until("it is out", || device.sees(device.name()), |state| state == "revoked");
    }
    let since = first_said(phone, "thief", "revoke");

    // Whoever is out cannot be kept, unless what put it out is void.
    let refused = come_in(tablet, phone, &["--lost", "thief", "--keep", "phone"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("--since STATEMENT"), "{refused}");
    assert!(!tablet.home().join("key").exists(), "nothing was made");

    // The phone was cut off before it heard that the laptop is out, too.
    let back = ["--lost", "thief", "--since", &since, "--keep", "phone", "--keep", "laptop"];
    let recovered = come_in(tablet, phone, &back).expect_code(0);
    assert!(recovered.stderr.contains("thief revoked phone"), "who did what: {recovered}");
    until("the phone is back", || phone.sees("phone"), |state| state == "here");
    assert_eq!(phone.sees("thief"), "revoked");
    tablet.up();
    until("the laptop is heard of", || tablet.sees("laptop"), |state| state == "suspended");
    let kept = tablet.run(&["device", "keep", "laptop", "--yes"]);
    assert_eq!(kept.code, Some(0), "{kept}");
    until("the laptop is back", || laptop.sees("laptop"), |state| state == "here");
    for (device, others) in [
        (&*laptop, ["phone", "tablet"]),
        (phone, ["laptop", "tablet"]),
        (tablet, ["laptop", "phone"]),
    ] {
        device.until_here(&others);
        assert_eq!(device.sees("thief"), "revoked", "as {} has it", device.name());
    }
    tablet.until_note("from the laptop");
    tablet.note("the thief is out");
    laptop.until_note("the thief is out");
    phone.until_note("the thief is out");
    assert!(!thief.notes().contains(&"the thief is out".to_owned()));
    for device in [&*laptop, phone, tablet] {
        device.verify();
    }
}

#[test]
fn a_frozen_fabric_is_thawed_by_the_words_on_a_device_that_is_suspended_itself() {
    let mut fabric = Fabric::new(["laptop", "phone", "tablet"]);
    let folder = fabric.folder().to_owned();
    let [laptop, phone, tablet] = &mut *fabric;
    begin(laptop);
    laptop.up();
    assert_eq!(come_in(phone, laptop, &[]).code, Some(0));
    phone.up();
    assert_eq!(tablet.join(&laptop.invite()).code, Some(0));
    tablet.up();
    fabric.meet(["laptop", "phone", "tablet"]);
    let [laptop, phone, tablet] = &mut *fabric;
    // Two admins put each other out while they don't hear of each other.
    phone.stop();
    tablet.stop();
    assert_eq!(laptop.run(&["device", "revoke", "phone", "--yes"]).code, Some(0));
    laptop.stop();
    phone.up();
    assert_eq!(phone.run(&["device", "revoke", "laptop", "--yes"]).code, Some(0));
    laptop.up();
    tablet.up();
    // What each said meets on the third, if they do not meet.
    for device in [&*tablet] {
        for name in ["laptop", "phone"] {
            until("it is frozen", || device.sees(name), |state| state == "suspended");
        }
    }
    until("it knows", || laptop.sees("laptop"), |state| state == "suspended");

    let nothing = recover(laptop, "words.txt", &[]);
    assert_eq!(nothing.code, Some(2), "{nothing}");
    assert!(nothing.stderr.contains("suspended"), "what is the matter is shown: {nothing}");
    let kept = recover(laptop, "words.txt", &["--keep", "laptop"]).expect_code(0);
    without_words(&folder, &kept);
    expect![[r#"
        said: laptop stays
    "#]]
    .assert_eq(&kept.stdout);
    until("the laptop is back", || laptop.sees("laptop"), |state| state == "here");
    // What it said itself counts again.
    until("all hear it", || tablet.sees("phone"), |state| state == "revoked");
    until("all hear it", || tablet.sees("laptop"), |state| state == "here");
    tablet.note("thawed");
    laptop.until_note("thawed");
    let audit = laptop.run(&["audit", "list"]).expect_code(0);
    assert!(audit.stdout.contains("recover"), "{audit}");
    laptop.verify();
}

#[test]
fn new_words_take_over_from_the_old() {
    let mut fabric = Fabric::new(["laptop", "tablet", "desktop"]);
    let folder = fabric.folder().to_owned();
    let [laptop, tablet, desktop] = &mut *fabric;
    begin(laptop);
    laptop.up();
    let script = r#"exec "$0" "$@" 3<words.txt 4>new.txt"#;
    let typed =
        ["recover", "--new-words", "--words-from", "3", "--words-to", "4", "--yes", "--json"];
    let said = laptop.start_under("sh", &["-c", script], &typed).expect("there is a shell").end();
    assert_eq!(said.code, Some(0), "{said}");
    let new = fs::read_to_string(folder.join("new.txt")).expect("words came");
    assert_eq!(new.split_whitespace().count(), 24);
    assert_ne!(new, fs::read_to_string(folder.join("words.txt")).expect("there are words"));
    let at = address(laptop, "quic");
    let old = recover(tablet, "words.txt", &["--at", &at]);
    assert_eq!(old.code, Some(5), "{old}");
    let old = recover(laptop, "words.txt", &["--new-words", "--words-to", "3"]);
    assert_eq!(old.code, Some(5), "{old}");
    let said = recover(desktop, "new.txt", &["--at", &at, "--name", "desktop"]);
    assert_eq!(said.code, Some(0), "{said}");
    until("it belongs", || laptop.sees("desktop"), |state| !state.is_empty());
}

#[test]
fn a_person_types_the_words_where_nobody_sees_them_and_is_asked() {
    let mut fabric = Fabric::new(["laptop", "tablet"]);
    let folder = fabric.folder().to_owned();
    let [laptop, tablet] = &mut *fabric;
    begin(laptop);
    laptop.up();
    let at = address(laptop, "quic");
    let Some(mut screen) = tablet.at_terminal(&["recover", "--at", &at, "--name", "tablet"]) else {
        return not_run("this machine has no script(1) to make a terminal with");
    };
    let words = fs::read_to_string(folder.join("words.txt")).expect("words came");
    let list: Vec<_> = words.split_whitespace().collect();
    let mut stopped = tablet.at_terminal(&["recover", "--at", &at]).expect("as before");
    stopped.hears("They are not shown.");
    stopped.type_in("apple\u{1a} river\u{3}");
    let stopped = stopped.end();
    assert_eq!(stopped.code, Some(130), "{stopped}");
    assert!(stopped.stdout.contains("no words were given"), "{stopped}");
    assert!(!stopped.stdout.contains("apple"), "{stopped}");
    screen.hears("They are not shown.");
    let mut sloppy = list.clone();
    sloppy[3] = "weft";
    screen.type_in(&format!("{}\n", sloppy.join(" ")));
    screen.hears("word 4 is not in the list");
    // In lines of six, as they stand on the paper.
    for six in list.chunks(6) {
        screen.type_in(&format!("{}\n", six.join(" ")));
    }
    screen.hears("Make this machine, tablet, an admin of home?");
    screen.type_in("y\n");
    let screen = screen.end();
    assert_eq!(screen.code, Some(0), "{screen}");
    assert!(screen.stdout.contains("18 of 24 words"), "{screen}");
    assert!(screen.stdout.contains("recovered: this device is an admin"), "{screen}");
    without_words(&folder, &screen);
    until("it belongs", || laptop.sees("tablet"), |state| !state.is_empty());
}

#[test]
fn the_paper_is_checked_as_the_fabric_begins() {
    let mut fabric = Fabric::new(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    let Some(mut screen) = laptop.at_terminal(&["init", "--name", "laptop"]) else {
        return not_run("this machine has no script(1) to make a terminal with");
    };
    let shown = screen.hears("Enter: don't check");
    // The page numbers them: `  1 apple      2 river`, below the sentence that there are 24.
    let tokens: Vec<&str> = shown.split_whitespace().collect();
    let word = |number: usize| {
        let number = number.to_string();
        let place = tokens.windows(2).rposition(|pair| pair[0] == number && is_word(pair[1]));
        tokens[place.expect("it is shown") + 1].to_owned()
    };
    let mut asked = 0;
    while asked < 3 {
        asked += 1;
        let said = until(
            "the next is asked",
            || screen.stdout(),
            |said| said.matches("as your paper has it").count() == asked,
        );
        let question = said.rsplit("Word ").next().expect("a question").to_owned();
        let number = question.split(',').next().and_then(|it| it.parse().ok()).expect("a number");
        screen.type_in(&format!("{}\n", word(number)));
    }
    let screen = screen.end();
    assert_eq!(screen.code, Some(0), "{screen}");
    assert!(screen.stdout.contains("The paper is right."), "{screen}");

    // Who stops there is told what the paper is worth, and the terminal is as it was.
    let mut screen = phone.at_terminal(&["init", "--name", "phone"]).expect("as before");
    screen.hears("Enter: don't check");
    screen.type_in("\u{3}");
    let screen = screen.end();
    assert_eq!(screen.code, Some(130), "{screen}");
    assert!(screen.stdout.contains("the new words on your paper are worth nothing"), "{screen}");
    assert!(!phone.home().join("key").exists(), "{screen}");

    // Who has other words on the paper finds out before anything is made.
    let mut screen = phone.at_terminal(&["init", "--name", "phone"]).expect("as before");
    screen.hears("Enter: don't check");
    for _ in 0..3 {
        screen.type_in("weft\n");
    }
    let screen = screen.end();
    assert_eq!(screen.code, Some(1), "{screen}");
    assert!(!phone.home().join("key").exists(), "{screen}");
}

fn is_word(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase())
}

//! Devices that come to belong, and tickets that do not let them.

use expect_test::{Expect, expect};
use serde_json::Value;
use weft_e2e::{Device, Fabric, Running, Transcript, not_run};

fn check(transcript: &Transcript, expected: Expect) {
    expected.assert_eq(&transcript.to_string());
}

/// Name, kind, role and state of each device, as `device` sees them.
fn seen(device: &Device) -> String {
    let devices = device.json(&["devices"]);
    let word = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<_> = devices
        .as_array()
        .expect("devices are a list")
        .iter()
        .map(|it| ["name", "kind", "role", "state"].map(|field| word(it, field)).join(" "))
        .collect();
    lines.sort();
    lines.join(", ")
}

#[test]
fn three_devices_come_to_belong() {
    let mut fabric = Fabric::new(["laptop", "phone", "server"]);
    let [laptop, phone, server] = &mut *fabric;

    check(
        &laptop.run(&["devices"]),
        expect![[r#"
        $ weft devices
        ! error: no node is running in …/laptop
        ! hint: begin with weft init, or weft join TICKET; then run weft up
        (exit 3)
    "#]],
    );
    check(
        &laptop.run(&["up"]),
        expect![[r#"
        $ weft up
        ! error: there is no device in …/laptop yet
        ! hint: begin with weft init, or weft join TICKET
        (exit 13)
    "#]],
    );
    check(
        &laptop.run(&["init", "--name", "laptop", "--kind", "laptop"]),
        expect![[r#"
        $ weft init --name laptop --kind laptop
        laptop is the first device of the fabric home
        ! keys: file (whoever has the disk reads all); weft key set passphrase changes that
        ! no recovery: there was no terminal to show the words on; --words-to FD names another place, where it matters that a lost fabric comes back
    "#]],
    );
    check(
        &laptop.run(&["init", "--name", "again", "--kind", "laptop"]),
        expect![[r#"
        $ weft init --name again --kind laptop
        ! error: …/laptop holds a device already
        ! hint: a home belongs to one fabric; name another with --home DIR
        (exit 2)
    "#]],
    );
    check(
        &laptop.run(&["devices"]),
        expect![[r#"
        $ weft devices
        ! error: no node is running in …/laptop
        ! hint: run weft up
        (exit 3)
    "#]],
    );
    laptop.up();
    let status = laptop.run(&["status"]);
    // How many documents there are depends on whether what the device offers is written yet.
    let shown = |line: &&str| !line.starts_with("documents: ");
    let first_lines: Vec<_> = status.stdout.lines().filter(shown).take(3).collect();
    expect![[r#"
        laptop, a laptop and admin of the fabric home
        devices: this one; weft invite brings another
        runs: 0 under way"#]]
    .assert_eq(&first_lines.join("\n"));
    assert_eq!(status.stderr, "");

    let watcher = laptop.watch();
    for device in [&mut *phone, server] {
        let invited = laptop.run(&["invite", "--yes", "--json"]).expect_code(0);
        assert!(invited.json()["ticket"].as_str().is_some_and(|it| it.starts_with("WEFT1:")));
        let (name, kind) = (device.name().to_owned(), device.kind().to_owned());
        let words = ["join", "-", "--name", &name, "--kind", &kind, "--yes"];
        let joined = device.run_with(&words, &invited.stdout).expect_code(0);
        if name == "phone" {
            check(
                &joined,
                expect![[r#"
                $ weft join - --name phone --kind phone --yes
                paired: this device is a member of the fabric home
                ! keys: file (whoever has the disk reads all); weft key set passphrase changes that
            "#]],
            );
        }
        let ended = watcher.event("invitation-ended", |it| it["name"] == *name);
        assert_eq!(ended["outcome"], "paired", "{ended}");
        device.up();
    }
    fabric.meet(["laptop", "phone", "server"]);
    let [laptop, phone, server] = &mut *fabric;
    expect!["laptop laptop admin here, phone phone member here, server server member here"]
        .assert_eq(&seen(laptop));
    assert_eq!(seen(laptop), seen(phone));
    assert_eq!(seen(laptop), seen(server));

    phone.stop();
    weft_e2e::until("the phone is away", || laptop.sees("phone"), |state| state == "away");
    let table = laptop.run(&["devices"]).expect_code(0).stdout;
    let row = table.lines().find(|line| line.starts_with("phone")).expect("the phone has a row");
    assert!(row.contains("away"), "{table}");
    phone.up();
    fabric.meet(["laptop", "phone", "server"]);
}

#[test]
fn recovery_words_are_shown_once_where_a_person_looks() {
    let mut fabric = Fabric::new(["laptop", "phone"]);
    let folder = fabric.folder().to_owned();
    let [laptop, phone] = &mut *fabric;
    let script = r#"exec "$0" "$@" 3>words.txt"#;
    let words = ["init", "--name", "laptop", "--words-to", "3"];
    let init = laptop.start_under("sh", &["-c", script], &words).expect("there is a shell").end();
    assert_eq!(init.code, Some(0), "{init}");
    let words = std::fs::read_to_string(folder.join("words.txt")).expect("words came");
    let words: Vec<_> = words.split_whitespace().collect();
    assert_eq!(words.len(), 24, "{words:?}");
    // Three words in a row are no chance.
    let some = words[..3].join(" ");
    assert!(!init.stdout.contains(&some) && !init.stderr.contains(&some), "{init}");
    assert!(!init.stderr.contains("no recovery"), "{init}");
    laptop.up();
    assert_eq!(laptop.json(&["status"])["recovery"], true);

    let Some(screen) = phone.at_terminal(&["init", "--name", "phone", "--kind", "phone"]) else {
        return not_run("this machine has no script(1) to make a terminal with");
    };
    let screen = screen.end();
    assert_eq!(screen.code, Some(0), "{screen}");
    assert!(screen.stdout.contains("Write these 24 words down"), "{screen}");
    assert!(screen.stdout.contains("24 "), "{screen}");
}

#[test]
fn a_ticket_that_is_none_says_so_and_leaves_the_home_empty() {
    let mut fabric = Fabric::new(["laptop", "phone", "tablet"]);
    let [laptop, phone, tablet] = &mut *fabric;
    assert_eq!(laptop.run(&["init", "--name", "laptop"]).code, Some(0));
    laptop.up();
    let ticket = laptop.invite();

    let middle = ticket.len() / 2;
    let other = if ticket.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let damaged = [&ticket[..middle], other, &ticket[middle + 1..]].concat();
    check(
        &phone.join(&damaged),
        expect![[r#"
        $ weft join - --name phone --kind phone --yes
        ! error: failed to read the ticket: it is damaged; copy it again, whole
        ! hint: weft invite on a device of the fabric shows one
        (exit 2)
    "#]],
    );
    check(
        &phone.join(&ticket[..middle]),
        expect![[r#"
        $ weft join - --name phone --kind phone --yes
        ! error: failed to read the ticket: it is damaged; copy it again, whole
        ! hint: weft invite on a device of the fabric shows one
        (exit 2)
    "#]],
    );
    check(
        &phone.join("https://example.com/invite/4711"),
        expect![[r#"
        $ weft join - --name phone --kind phone --yes
        ! error: failed to read the ticket: it does not begin with WEFT1:
        ! hint: weft invite on a device of the fabric shows one
        (exit 2)
    "#]],
    );
    check(
        &phone.join(&ticket.replace("WEFT1:", "WEFT2:")),
        expect![[r#"
        $ weft join - --name phone --kind phone --yes
        ! error: failed to read the ticket: it was written by another version of weft; update the older device
        ! hint: weft invite on a device of the fabric shows one
        (exit 2)
    "#]],
    );
    check(
        &phone.join(""),
        expect![[r#"
        $ weft join - --name phone --kind phone --yes
        ! error: no ticket came on standard input
        ! hint: weft invite on a device of the fabric shows one
        (exit 2)
    "#]],
    );
    check(
        &phone.join(&"A".repeat(100_000)),
        expect![[r#"
        $ weft join - --name phone --kind phone --yes
        ! error: failed to read the ticket: 4000 characters are more than a ticket has
        ! hint: weft invite on a device of the fabric shows one
        (exit 2)
    "#]],
    );
    assert!(!phone.home().exists(), "a ticket that is none makes no home");

    // Where nobody can be asked, only --yes joins or invites.
    check(
        &phone.run_with(&["join", "-", "--name", "phone"], &ticket),
        expect![[r#"
        $ weft join - --name phone
        ! error: joining asks a person, and there is no terminal to ask at
        ! hint: say it with --yes
        (exit 2)
    "#]],
    );
    check(
        &laptop.run(&["invite"]),
        expect![[r#"
        $ weft invite
        ! error: an invitation asks a person, and there is no terminal to ask at
        ! hint: say it with --yes: whoever has the ticket then gets in
        (exit 2)
    "#]],
    );
    check(
        &laptop.run(&["invite", "--yes", "--role", "admin"]),
        expect![[r#"
        $ weft invite --yes --role admin
        ! error: --yes never makes an admin
        ! hint: leave --yes out and compare the four words, or invite a member
        (exit 2)
    "#]],
    );

    // The ticket is still good: nothing above redeemed it.
    assert_eq!(phone.join(&ticket).code, Some(0));
    check(
        &tablet.join(&ticket),
        expect![[r#"
        $ weft join - --name tablet --kind laptop --yes
        ! keys: file (whoever has the disk reads all); weft key set passphrase changes that
        ! error: this device did not join: already used
        ! hint: weft invite on the other device shows a new one
        (exit 9)
    "#]],
    );
    let used = tablet.run_with(&["join", "-", "--name", "tablet", "--yes", "--json"], &ticket);
    assert_eq!(used.code, Some(9), "{used}");
    assert_eq!(used.json()["outcome"], "already-used");

    // A home belongs to one fabric.
    let ticket = laptop.invite();
    check(
        &phone.join(&ticket),
        expect![[r#"
        $ weft join - --name phone --kind phone --yes
        ! error: …/phone holds a device already
        ! hint: a home belongs to one fabric; name another with --home DIR
        (exit 2)
    "#]],
    );

    laptop.stop();
    let lost = tablet.join(&ticket);
    assert_eq!(lost.code, Some(10), "{lost}");
    assert!(lost.stderr.contains("could not reach"), "{lost}");
    check(
        &laptop.run(&["invite", "--yes", "--json"]),
        expect![[r#"
        $ weft invite --yes --json
        {"error":{"hint":"run weft up","kind":"not-running","message":"no node is running in …/laptop"}}
        ! error: no node is running in …/laptop
        ! hint: run weft up
        (exit 3)
    "#]],
    );
}

#[test]
fn the_next_invitation_ends_the_one_before_and_a_name_that_is_taken_is_told() {
    let mut fabric = Fabric::new(["laptop", "phone", "tablet", "watch"]);
    let [laptop, phone, tablet, watch] = &mut *fabric;
    assert_eq!(laptop.run(&["init", "--name", "laptop"]).code, Some(0));
    laptop.up();
    // A ticket that was lost does not stand in the way for two minutes.
    let lost = laptop.invite();
    let ticket = laptop.invite();
    let too_late = tablet.join(&lost);
    assert_eq!(too_late.code, Some(8), "{too_late}");
    assert_eq!(phone.join(&ticket).code, Some(0));

    let ticket = laptop.invite();
    let words = ["join", "-", "--name", "phone", "--kind", "phone", "--yes"];
    check(
        &tablet.run_with(&words, &ticket),
        expect![[r#"
        $ weft join - --name phone --kind phone --yes
        paired: this device is a member of the fabric home
        ! keys: file (whoever has the disk reads all); weft key set passphrase changes that
        ! its name is phone-2: there is another phone
    "#]],
    );

    // What stands at the other end of the pipe may say why there is no ticket.
    laptop.stop();
    let failed = laptop.run(&["invite", "--yes", "--json"]);
    let said = watch.join(&failed.stdout).expect_code(2);
    assert!(said.stderr.contains("could not invite: no node is running in"), "{said}");
}

#[test]
fn a_device_joins_a_fabric_that_has_said_more_than_one_message_holds() {
    let mut fabric = Fabric::new(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    assert_eq!(laptop.run(&["init", "--name", "laptop"]).code, Some(0));
    laptop.up();
    // Each is some 350 bytes, and a message of pairing takes 64 KiB.
    let mut name = String::new();
    for number in 0..220 {
        name = format!("home-{number:-<54}");
        assert_eq!(laptop.run(&["device", "rename", "--fabric", &name]).code, Some(0));
    }
    let joined = phone.join(&laptop.invite()).expect_code(0);
    assert!(joined.stdout.contains(&format!("a member of the fabric {name}")), "{joined}");
    phone.up();
    laptop.until_here(&["phone"]);
    phone.until_here(&["laptop"]);
}

/// The four words that a screen shows, once its question stands there.
fn words_on(screen: &Running) -> String {
    let shown = screen.hears("is it yours?");
    let line =
        shown.lines().find(|line| line.starts_with("    ") && line.split_whitespace().count() == 4);
    line.unwrap_or_else(|| panic!("four words stand on {shown}")).trim().to_owned()
}

#[test]
fn who_stops_at_the_question_tells_the_other_device() {
    let mut fabric = Fabric::new(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    assert_eq!(laptop.run(&["init", "--name", "laptop"]).code, Some(0));
    laptop.up();
    let Some(inviter) = laptop.at_terminal(&["invite"]) else {
        return not_run("this machine has no script(1) to make a terminal with");
    };
    let shown = inviter.hears("\nWEFT1:");
    let ticket = shown.split_whitespace().find(|word| word.starts_with("WEFT1:"));
    let words = ["join", ticket.expect("it stands there"), "--name", "phone"];
    let mut joiner = phone.at_terminal(&words).expect("there is a script(1)");
    joiner.hears("[y/N]");
    joiner.type_in("\u{3}");
    let (inviter, joiner) = (inviter.end(), joiner.end());
    assert_eq!((inviter.code, joiner.code), (Some(7), Some(130)), "{inviter}{joiner}");
    assert!(joiner.stdout.contains("\ncancelled: this device did not join"), "{joiner}");
    assert!(inviter.stdout.contains("somebody said no on the other device"), "{inviter}");
}

#[test]
fn both_screens_show_the_same_words_and_both_people_decide() {
    let mut fabric = Fabric::new(["laptop", "phone", "tablet", "server"]);
    let [laptop, devices @ ..] = &mut *fabric;
    assert_eq!(laptop.run(&["init", "--name", "laptop"]).code, Some(0));
    laptop.up();
    // Who says what, and how it ends on both sides.
    let cases = [("n", "y", 7), ("y", "n", 7), ("y", "y", 0)];
    for (device, (inviter_says, joiner_says, code)) in devices.iter().zip(cases) {
        let Some(mut inviter) = laptop.at_terminal(&["invite"]) else {
            return not_run("this machine has no script(1) to make a terminal with");
        };
        let shown = inviter.hears("\nWEFT1:");
        let ticket = shown.split_whitespace().find(|word| word.starts_with("WEFT1:"));
        let ticket = ticket.expect("it stands there").to_owned();
        let words = ["join", &ticket, "--name", device.name(), "--kind", device.kind()];
        let mut joiner = device.at_terminal(&words).expect("there is a script(1)");

        let told = words_on(&inviter);
        assert_eq!(told, words_on(&joiner));
        let name = device.name();
        assert!(
            inviter
                .stdout()
                .contains(&format!("{name}, a {}, wants to join as member", device.kind()))
        );
        assert!(
            joiner.stdout().contains("laptop, a laptop, invites this device into the fabric home")
        );
        inviter.type_in(&format!("{inviter_says}\n"));
        joiner.type_in(&format!("{joiner_says}\n"));
        let (inviter, joiner) = (inviter.end(), joiner.end());
        assert_eq!(inviter.code, Some(code), "{inviter}");
        assert_eq!(joiner.code, Some(code), "{joiner}");
        let outcome = if code == 0 { "paired" } else { "refused" };
        assert!(inviter.stdout.contains(outcome), "{inviter}");
        assert!(joiner.stdout.contains(outcome), "{joiner}");
    }
    // Only the last one belongs, and somebody looked at its words.
    let listed = laptop.json(&["devices"]);
    let listed: Vec<_> = listed.as_array().expect("a list").iter().collect();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let confirmed = |name: &str| {
        let device = listed.iter().find(|it| it["name"] == name);
        device.map(|it| it["confirmed"].clone())
    };
    assert_eq!(confirmed("server"), Some(true.into()), "{listed:?}");
    assert_eq!(confirmed("laptop"), Some(Value::Null), "it began the fabric: {listed:?}");
}

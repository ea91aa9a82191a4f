//! Devices that come to belong by a code that a person types, or by a picture of a ticket.

use std::time::Instant;

use expect_test::expect;
use serde_json::Value;
use weft_e2e::{Device, Fabric, Running, Transcript, not_run, until};

#[track_caller]
fn well(ended: Transcript) {
    assert_eq!(ended.code, Some(0), "{ended}");
}

/// A first device that runs.
#[track_caller]
fn begin(laptop: &mut Device) {
    well(laptop.run(&["init", "--name", "laptop", "--key", "file"]));
    laptop.up();
}

/// An invitation that waits for its end, and what it printed first.
#[track_caller]
fn invitation(laptop: &Device, words: &[&str]) -> (Running, Value) {
    let words = [&["invite", "--yes", "--json", "--wait"][..], words].concat();
    let invitation = laptop.start(&words);
    let said = until("it is open", || invitation.events(), |said| !said.is_empty());
    (invitation, said[0].clone())
}

fn text<'v>(said: &'v Value, field: &str) -> &'v str {
    said[field].as_str().unwrap_or_else(|| panic!("no {field} in {said}"))
}

/// The address to type that an invitation by code names.
fn address(invited: &Value) -> String {
    let multiaddr = invited["addresses"][0].as_str().expect("it says where it is");
    let parts: Vec<_> = multiaddr.split('/').collect();
    let ["", "ip4", ip, "udp", port, "quic-v1"] = parts.as_slice() else {
        panic!("not an address of QUIC over IPv4: {multiaddr}");
    };
    format!("{ip}:{port}")
}

/// The same code with another last word.
fn another(code: &str) -> String {
    let (rest, last) = code.rsplit_once('-').expect("words stand between dashes");
    format!("{rest}-{}", if last == "river" { "stone" } else { "river" })
}

/// What a device types that joins with `means`.
fn join<'w>(device: &'w Device, means: &[&'w str]) -> Vec<&'w str> {
    let named = ["--name", device.name(), "--kind", device.kind(), "--key", "file"];
    [&["join"][..], means, &named].concat()
}

#[test]
fn a_typed_code_shows_the_same_words_on_both_screens() {
    let mut fabric = Fabric::new(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    begin(laptop);
    let start = Instant::now();
    let Some(mut inviter) = laptop.at_terminal(&["invite", "--code", "--role", "admin"]) else {
        return not_run("this machine has no script(1) to make a terminal with");
    };
    let shown = inviter.hears("Waiting.");
    let lines: Vec<_> = shown.lines().map(str::trim).collect();
    let place = lines.iter().position(|line| line.ends_with("and this code:"));
    let code = lines[place.expect("it says what to type") + 1];
    let at = shown.split_whitespace().skip_while(|word| *word != "--at").nth(1);
    let at = at.expect("it says where it is").to_owned();
    assert!(code.len() >= 4 + 3 * 4 && code[..4].bytes().all(|b| b.is_ascii_digit()), "{code}");

    let mut joiner = phone.at_terminal(&join(phone, &[code, "--at", &at])).expect("as before");
    let words_on = |screen: &Running| {
        let shown = screen.hears("is it yours?");
        let four = |line: &&str| line.starts_with("    ") && line.split_whitespace().count() == 4;
        shown.lines().find(four).unwrap_or_else(|| panic!("no words on {shown}")).trim().to_owned()
    };
    assert_eq!(words_on(&inviter), words_on(&joiner));
    assert!(inviter.stdout().contains("phone, a phone, wants to join as admin"));
    assert!(inviter.stdout().contains("and may add and put out devices"));
    let asks = "laptop, a laptop, invites this device into the fabric home as admin";
    assert!(joiner.stdout().contains(asks));
    inviter.type_in("y\n");
    joiner.type_in("y\n");
    let (inviter, joiner) = (inviter.end(), joiner.end());
    println!("by code, both persons asked: {:.2} s", start.elapsed().as_secs_f64());
    assert_eq!((inviter.code, joiner.code), (Some(0), Some(0)), "{inviter}{joiner}");
    let phone = laptop.json(&["devices"]);
    let phone = phone.as_array().expect("a list").iter().find(|it| it["name"] == "phone");
    let phone = phone.expect("it belongs");
    assert_eq!((&phone["role"], &phone["confirmed"]), (&"admin".into(), &true.into()));
}

#[test]
fn a_wrong_code_ends_the_invitation_on_both_sides() {
    let mut fabric = Fabric::new(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    begin(laptop);
    let (inviter, invited) = invitation(laptop, &["--code"]);
    let (code, at) = (text(&invited, "code"), address(&invited));
    let wrong = another(code);

    let joined = phone.run(&[&join(phone, &[&wrong, "--at", &at])[..], &["--yes"]].concat());
    assert_eq!(joined.code, Some(7), "{joined}");
    let said = "error: this device did not join: refused: wrong code, and a code takes one guess; \
                ask for a new one";
    assert!(joined.stderr.contains(said), "{joined}");
    let ended = inviter.end();
    assert_eq!(ended.code, Some(7), "{ended}");
    let last: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).expect("JSON");
    assert_eq!(text(&last, "outcome"), "refused");
    assert!(text(&last, "reason").starts_with("wrong code"), "{last}");
    assert!(ended.stderr.contains("the invitation ended: refused: wrong code"), "{ended}");

    // Now the right one is worth nothing.
    let words = [&join(phone, &[code, "--at", &at])[..], &["--yes", "--json"]].concat();
    let late = phone.run(&words);
    assert_eq!(late.code, Some(7), "{late}");
    assert_eq!(text(&late.json(), "outcome"), "refused");
    assert!(text(&late.json(), "reason").starts_with("wrong code"), "{late}");
    assert!(!phone.home().exists(), "it left nothing behind");

    // The next code is good, and comes through a pipe as well.
    let invited = laptop.run(&["invite", "--code", "--yes", "--json"]).expect_code(0);
    let words = [&join(phone, &["-"])[..], &["--yes"]].concat();
    well(phone.run_with(&words, &invited.stdout));
}

#[test]
fn a_code_says_what_is_wrong_with_it_before_anybody_is_asked() {
    let mut fabric = Fabric::new(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    begin(laptop);
    let words = ["join", "4711-apple-rivver-stone", "--at", "127.0.0.1:1", "--yes"];
    expect![[r#"
        $ weft join 4711-apple-rivver-stone --at 127.0.0.1:1 --yes
        ! error: failed to read the code: its word 2 is not in the list; check its spelling
        ! hint: weft invite on a device of the fabric shows one
        (exit 2)
    "#]]
    .assert_eq(&phone.run(&words).to_string());
    expect![[r#"
        $ weft join 4711-apple-river-stone --yes
        ! error: a code alone says not where the other device is, and with WEFT_LISTEN=loopback nobody looks for it
        ! hint: weft invite --code shows the address for --at
        (exit 2)
    "#]]
    .assert_eq(&phone.run(&["join", "4711-apple-river-stone", "--yes"]).to_string());
    expect![[r#"
        $ weft invite --code --role admin --yes
        ! error: --yes never makes an admin
        ! hint: leave --yes out and compare the four words, or invite a member
        (exit 2)
    "#]]
    .assert_eq(&laptop.run(&["invite", "--code", "--role", "admin", "--yes"]).to_string());

    // Another endpoint answers there than the number is of: the code is not shown to it.
    let invited = laptop.run(&["invite", "--code", "--yes", "--json"]).expect_code(0).json();
    let at = address(&invited);
    let number: u16 = text(&invited, "code")[..4].parse().expect("four digits");
    let other = format!("{:04}-{}", (number + 1) % 10_000, &text(&invited, "code")[5..]);
    let lost = phone.run(&[&join(phone, &[&other, "--at", &at])[..], &["--yes"]].concat());
    assert_eq!(lost.code, Some(10), "{lost}");
    assert!(lost.stderr.contains("another one answers at its address"), "{lost}");
    let code = text(&invited, "code");
    let words = [&join(phone, &[code, "--at", &at])[..], &["--yes"]].concat();
    well(phone.run(&words));
}

#[test]
fn each_outcome_is_the_same_on_both_ends() {
    let mut fabric = Fabric::new(["laptop", "phone", "tablet", "server"]);
    let [laptop, phone, tablet, server] = &mut *fabric;
    begin(laptop);
    let joined = |device: &Device, ticket: &str| {
        let ended = device.run(&[&join(device, &[ticket])[..], &["--yes", "--json"]].concat());
        (ended.code, ended.json())
    };
    let ended = |invitation: Running| {
        let ended = invitation.end();
        let last = ended.stdout.lines().last().unwrap_or_default();
        (ended.code, serde_json::from_str::<Value>(last).expect("JSON"))
    };

    // Replaced: expired on both sides, and not as if somebody had refused.
    let (lost, invited) = invitation(laptop, &[]);
    let old = text(&invited, "ticket").to_owned();
    let (current, invited) = invitation(laptop, &[]);
    for (code, said) in [ended(lost), joined(phone, &old)] {
        assert_eq!(code, Some(8), "{said}");
        assert_eq!(text(&said, "outcome"), "expired");
        assert_eq!(text(&said, "reason"), "replaced by a newer invitation");
    }

    // Paired, and the name under which it belongs.
    let ticket = text(&invited, "ticket").to_owned();
    let start = Instant::now();
    let (code, said) = joined(phone, &ticket);
    println!("weft join, all of it: {:.2} s", start.elapsed().as_secs_f64());
    assert_eq!((code, text(&said, "outcome")), (Some(0), "paired"));
    let (code, said) = ended(current);
    assert_eq!((code, text(&said, "outcome"), text(&said, "name")), (Some(0), "paired", "phone"));

    // Already used.
    let (code, said) = joined(tablet, &ticket);
    assert_eq!((code, text(&said, "outcome")), (Some(9), "already-used"));

    // A name that is taken is another one on both screens.
    let (current, invited) = invitation(laptop, &[]);
    let ticket = text(&invited, "ticket");
    let words = ["join", ticket, "--name", "phone", "--key", "file", "--yes", "--json"];
    assert_eq!(text(&tablet.run(&words).expect_code(0).json(), "name"), "phone-2");
    assert_eq!(text(&ended(current).1, "name"), "phone-2");

    // Could not reach.
    let invited = laptop.run(&["invite", "--yes", "--json"]).expect_code(0).json();
    laptop.stop();
    let (code, said) = joined(server, text(&invited, "ticket"));
    assert_eq!((code, text(&said, "outcome")), (Some(10), "could-not-reach"));
}

/// A QR code as a terminal showed it in half blocks, each module so many pixels, as PNG.
fn screenshot(shown: &str, scale: usize) -> Vec<u8> {
    let is_block = |c: char| matches!(c, '█' | '▀' | '▄' | ' ');
    let rows: Vec<Vec<char>> = shown
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .filter(|line| line.chars().count() > 20 && line.chars().all(is_block))
        .map(|line| line.chars().collect())
        .collect();
    assert!(rows.len() > 20, "there is a code on {shown}");
    let columns = rows[0].len();
    let (width, height) = (columns * scale, rows.len() * 2 * scale);
    let shade = |at: usize| {
        let (y, x) = (at / width / scale, at % width / scale);
        let is_light = match rows[y / 2][x] {
            '█' => true,
            '▀' => y % 2 == 0,
            '▄' => y % 2 == 1,
            _ => false,
        };
        if is_light { 235 } else { 15 }
    };
    let shades: Vec<u8> = (0..width * height).map(shade).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(
        &mut bytes,
        u32::try_from(width).expect("it is small"),
        u32::try_from(height).expect("it is small"),
    );
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().expect("memory takes it");
    writer.write_image_data(&shades).expect("memory takes it");
    writer.finish().expect("memory takes it");
    bytes
}

#[test]
fn a_screenshot_of_the_invitation_is_as_good_as_its_ticket() {
    let mut fabric = Fabric::new(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    begin(laptop);
    let words = [&join(phone, &["--image", "shown.png"])[..], &["--yes"]].concat();
    let missing = phone.run(&words);
    assert_eq!(missing.code, Some(2), "{missing}");
    assert!(missing.stderr.contains("failed to read the picture: No such file"), "{missing}");
    phone.write("shown.png", "no picture");
    let none = phone.run(&words);
    assert!(none.stderr.contains("it is neither PNG nor JPEG"), "{none}");

    let Some(inviter) = laptop.at_terminal(&["invite", "--yes"]) else {
        return not_run("this machine has no script(1) to make a terminal with");
    };
    let shown = inviter.hears("Waiting.");
    phone.write("shown.png", screenshot(&shown, 6));
    let joined = phone.run(&words).expect_code(0);
    assert!(joined.stdout.contains("paired: this device is a member of the fabric home"));
    assert_eq!(inviter.end().code, Some(0));
}

#[test]
fn revoked_hardware_pairs_again_under_a_new_key() {
    let mut fabric = Fabric::new(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    begin(laptop);
    let id = |laptop: &Device| {
        let devices = laptop.json(&["devices"]);
        let list = devices.as_array().expect("a list").clone();
        let phone = list.into_iter().find(|it| it["name"] == "phone" && it["state"] != "revoked");
        phone.map(|it| text(&it, "id").to_owned())
    };
    let (inviter, invited) = invitation(laptop, &["--code"]);
    let (code, at) = (text(&invited, "code"), address(&invited));
    well(phone.run(&[&join(phone, &[code, "--at", &at])[..], &["--yes"]].concat()));
    well(inviter.end());
    phone.up();
    let before = id(laptop).expect("it belongs");
    well(laptop.run(&["device", "revoke", "phone", "--yes"]));
    assert_eq!(id(laptop), None);
    phone.stop();

    // Its old home stays out, and says how to go on.
    let ticket = laptop.invite();
    let taken = phone.run(&[&join(phone, &[&ticket])[..], &["--yes"]].concat());
    assert_eq!(taken.code, Some(2), "{taken}");
    assert!(taken.stderr.contains("name another with --home DIR"), "{taken}");

    phone.move_to(phone.home().with_file_name("phone-again"));
    well(phone.run(&[&join(phone, &[&ticket])[..], &["--yes"]].concat()));
    phone.up();
    // The revoked one has its name, too.
    let is_here = |devices: &Value| {
        let mut list = devices.as_array().expect("a list").iter();
        list.any(|it| it["name"] == "phone" && it["state"] == "here")
    };
    until("phone is here again", || laptop.json(&["devices"]), is_here);
    let after = id(laptop).expect("it belongs again");
    assert_ne!(before, after);
}

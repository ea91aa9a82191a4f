//! What is said of devices, what is changed of them, and the log of who said what.

use expect_test::{Expect, expect};
use serde_json::Value;
use weft_e2e::{Device, Fabric, Transcript, not_run, until};

/// Compares a transcript without what differs from run to run: ids, also short, ports, round trips.
fn check(device: &Device, said: &Transcript, expected: Expect) {
    let mut text = said.to_string();
    let list = |words: &[&str]| device.json(words).as_array().cloned().unwrap_or_default();
    for it in list(&["devices"]).iter().chain(&list(&["trust", "log"])) {
        let id = it["id"].as_str().expect("each has an id");
        text = text.replace(id, "<id>").replace(&id[..8], "<id>");
    }
    let line = |line: &str| match line.split_once(": ") {
        Some(("round trip", _)) => "round trip: <ms>\n".to_owned(),
        Some(("version", _)) => "version: <version>\n".to_owned(),
        Some(("address", at)) => {
            let (host, rest) = at.split_once(':').expect("a port follows");
            format!("address: {host}:PORT {}\n", rest.split_once(' ').map_or("", |it| it.1))
        }
        _ => format!("{line}\n"),
    };
    expected.assert_eq(&text.lines().map(line).collect::<String>());
}

/// A device as another sees it.
fn seen(by: &Device, device: &str) -> Value {
    by.json(&["device", "show", device])
}

/// The sentences of a device's trust log, with what does not count.
fn sentences(device: &Device) -> Vec<String> {
    let log = device.json(&["trust", "log"]);
    let sentence = |it: &Value| match it["why"].as_str() {
        Some(why) => format!("{} [{}: {why}]", text(it, "sentence"), text(it, "verdict")),
        None => text(it, "sentence"),
    };
    log.as_array().into_iter().flatten().map(sentence).collect()
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

#[test]
fn devices_are_told_of_shown_renamed_and_logged_alike_on_every_node() {
    let mut fabric = Fabric::pair(["laptop", "phone", "server"]);
    let [laptop, phone, server] = &mut *fabric;

    // Who is here, how, and how far.
    for (by, device) in [(&*laptop, "phone"), (&*phone, "server"), (&*server, "laptop")] {
        let found = until(
            "the round trip is measured",
            || seen(by, device),
            |it| it["round_trip_ms"].is_number(),
        );
        assert_eq!((&found["way"], &found["state"]), (&"direct".into(), &"here".into()), "{found}");
        assert!(found["round_trip_ms"].as_f64() > Some(0.0) && found["since"].is_string());
    }
    let table = laptop.run(&["devices"]).expect_code(0);
    assert!(table.stdout.contains("ms") && table.stdout.contains(" quic, direct"), "{table}");
    check(
        laptop,
        &laptop.run(&["device", "show", "phone"]),
        expect![[r#"
            $ weft device show phone
            phone, a phone and member
            id: <id>
            state: here since <date> <time>
            added: by laptop, <date> <time> (statement <id>); unconfirmed, nobody compared the four words
            address: 127.0.0.1:PORT quic, direct
            round trip: <ms>
            version: <version>
        "#]],
    );

    // Names: one's own, another's by an admin, the fabric's; each node knows.
    check(
        phone,
        &phone.run(&["device", "rename", "phone", "pocket"]),
        expect![[r#"
            $ weft device rename phone pocket
            ! phone is called pocket now
        "#]],
    );
    check(
        phone,
        &phone.run(&["device", "rename", "server", "attic"]),
        expect![[r#"
            $ weft device rename server attic
            ! error: only an admin may rename another device; the admin is laptop
            (exit 5)
        "#]],
    );
    check(
        laptop,
        &laptop.run(&["device", "rename", "--fabric", "house"]),
        expect![[r#"
            $ weft device rename --fabric house
            ! the fabric is called house now
        "#]],
    );
    until("the laptop knows", || laptop.sees("pocket"), |it| it == "here");
    until(
        "the server knows",
        || text(&server.json(&["status"]), "fabric_name"),
        |it| it == "house",
    );
    check(
        laptop,
        &laptop.run(&["device", "rename", "server", "pocket"]),
        expect![[r#"
            $ weft device rename server pocket
            ! error: another device is called pocket
            (exit 2)
        "#]],
    );

    // What is refused says what to do next.
    for (device, words, expected) in [
        (
            &*laptop,
            &["device", "revoke", "laptop", "--yes"][..],
            expect![[r#"
                $ weft device revoke laptop --yes
                ! error: a device can't put itself out, and there is no other admin; make one first: weft device role NAME admin
                (exit 5)
            "#]],
        ),
        (
            &*laptop,
            &["device", "role", "laptop", "member", "--yes"],
            expect![[r#"
                $ weft device role laptop member --yes
                ! error: laptop is the last admin; make another device an admin first: weft device role NAME admin
                (exit 5)
            "#]],
        ),
        (
            &*laptop,
            &["device", "role", "server", "admin", "--yes"],
            expect![[r#"
                $ weft device role server admin --yes
                ! error: nobody becomes admin by --yes; leave it out, and server is asked for
                (exit 2)
            "#]],
        ),
        (
            &*laptop,
            &["device", "role", "server", "admin"],
            expect![[r#"
                $ weft device role server admin
                ! error: making server an admin needs a yes, and there is no terminal to ask at
                ! hint: no option stands for this yes; run it at a terminal
                (exit 2)
            "#]],
        ),
        (
            &*laptop,
            &["device", "role", "server", "keeper"],
            expect![[r#"
                $ weft device role server keeper
                ! error: the role keeper is not built yet; a device is admin or member
                (exit 2)
            "#]],
        ),
        (
            &*phone,
            &["device", "role", "server", "admin", "--yes"],
            expect![[r#"
                $ weft device role server admin --yes
                ! error: only an admin may set a role; the admin is laptop
                (exit 5)
            "#]],
        ),
        (
            &*phone,
            &["device", "revoke", "server"],
            expect![[r#"
                $ weft device revoke server
                ! error: only an admin may put a device out; the admin is laptop
                (exit 5)
            "#]],
        ),
        (
            &*phone,
            &["invite"],
            expect![[r#"
                $ weft invite
                ! error: only an admin device may invite; do it on one, or have this one made an admin
                (exit 5)
            "#]],
        ),
        (
            &*laptop,
            &["device", "role", "pocket", "admin", "--yes"],
            expect![[r#"
                $ weft device role pocket admin --yes
                ! error: nobody becomes admin by --yes; leave it out, and pocket is asked for
                (exit 2)
            "#]],
        ),
        (
            &*phone,
            &["device", "revoke", "server", "--yes"],
            expect![[r#"
                $ weft device revoke server --yes
                ! error: only an admin may put a device out; the admin is laptop
                (exit 5)
            "#]],
        ),
        (
            &*laptop,
            &["device", "keep", "server", "--yes"],
            expect![[r#"
                $ weft device keep server --yes
                ! error: server is not suspended: it belongs
                (exit 2)
            "#]],
        ),
        (
            &*laptop,
            &["device", "show", "toaster"],
            expect![[r#"
                $ weft device show toaster
                ! error: there is no device "toaster"; there are laptop, pocket, server
                (exit 13)
            "#]],
        ),
    ] {
        check(device, &device.run(words), expected);
    }

    // The log is the same everywhere, and so is what the audit record says of it.
    let all = sentences(laptop);
    for device in [&*phone, &*server] {
        until("the logs are equal", || sentences(device), |it| *it == all);
    }
    check(
        server,
        &server.run(&["trust", "log"]),
        expect![[r#"
            $ weft trust log
            TIME                 ID        WHAT
            <date> <time>  <id>  laptop began the fabric home (without recovery words)
            <date> <time>  <id>  laptop added phone (member; unconfirmed: invite --yes)
            <date> <time>  <id>  laptop added server (member; unconfirmed: invite --yes)
            <date> <time>  <id>  phone renamed itself pocket
            <date> <time>  <id>  laptop renamed the fabric to house
        "#]],
    );
    let newest = server.json(&["trust", "log", "--limit", "1"]);
    assert_eq!(newest.as_array().map(Vec::len), Some(1));
    for device in [&*laptop, &*phone, &*server] {
        let records = device.json(&["audit", "list", "--limit", "1000"]);
        let said: Vec<String> = records
            .as_array()
            .into_iter()
            .flatten()
            .filter(|it| it["kind"] == "trust")
            .map(|it| text(it, "said"))
            .collect();
        for sentence in [
            "laptop added phone (member; unconfirmed: invite --yes)",
            "laptop added server (member; unconfirmed: invite --yes)",
            "phone renamed itself pocket",
        ] {
            assert!(said.iter().any(|it| it == sentence), "{}: {said:#?}", device.name());
        }
        device.verify();
    }

    // Away since when, and after a start no more than is known.
    server.stop();
    until("the server is away", || laptop.sees("server"), |it| it == "away");
    let away = seen(laptop, "server");
    assert!(away["since"].is_string() && away["last_heard"].is_string(), "{away}");
    assert_eq!((&away["way"], &away["round_trip_ms"]), (&Value::Null, &Value::Null));
    laptop.stop();
    laptop.up();
    let again = seen(laptop, "server");
    assert_eq!((&again["state"], &again["last_heard"]), (&away["state"], &away["last_heard"]));
    // This start did not see it go: when it was last heard is all that is known.
    assert_eq!(again["since"], Value::Null, "{again}");
    let shown = laptop.run(&["device", "show", "server"]).expect_code(0);
    assert!(shown.stdout.contains("\nstate: away\n"), "{shown}");
    assert!(shown.stdout.contains(", or some minutes later\n"), "{shown}");
    let table = laptop.run(&["devices"]).expect_code(0);
    assert!(table.stdout.contains(" last heard about "), "{table}");
    let status = laptop.run(&["status"]).expect_code(0);
    assert!(status.stdout.contains("\naway: server (last heard about "), "{status}");
    let found = laptop.run(&["doctor"]);
    assert!(found.stdout.contains("away, last heard about "), "{found}");
}

#[test]
fn admin_is_given_by_a_yes_on_the_screen_alone() {
    let mut fabric = Fabric::pair(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    for (answer, code, role) in [("n", 5, "member"), ("", 5, "member"), ("y", 0, "admin")] {
        let Some(mut asked) = laptop.at_terminal(&["device", "role", "phone", "admin"]) else {
            return not_run("this machine has no script(1) to make a terminal with");
        };
        let shown = asked.hears("[y/N]");
        assert!(shown.contains("Give phone the role admin?"), "{shown}");
        assert!(shown.contains("phone (phone, member)") && shown.contains("make others admin"));
        asked.type_in(&format!("{answer}\n"));
        let said = asked.end();
        assert_eq!(said.code, Some(code), "{said}");
        assert_eq!(seen(laptop, "phone")["role"], role);
    }
    until("it knows its role", || text(&phone.json(&["status"]), "role"), |it| it == "admin");
    // And it may do now what an admin may, also to the one that made it one.
    check(
        phone,
        &phone.run(&["device", "role", "laptop", "member", "--yes"]),
        expect![[r#"
            $ weft device role laptop member --yes
            ! laptop is member now; devices that are away hear it when they come
        "#]],
    );
    until("the laptop knows", || text(&laptop.json(&["status"]), "role"), |it| it == "member");
    check(
        phone,
        &phone.run(&["device", "role", "phone", "member", "--yes"]),
        expect![[r#"
            $ weft device role phone member --yes
            ! error: phone is the last admin; make another device an admin first: weft device role NAME admin
            (exit 5)
        "#]],
    );
}

#[test]
fn two_admins_who_put_each_other_out_are_told_so_and_one_is_kept() {
    let mut fabric = Fabric::pair(["laptop", "phone", "server"]);
    let [laptop, phone, server] = &mut *fabric;
    for device in [&*phone, &*server] {
        if laptop.make_admin(device).is_none() {
            return not_run("this machine has no script(1) to make a terminal with");
        }
    }
    until("the phone knows", || text(&seen(phone, "server"), "role"), |it| it == "admin");
    until("the server knows", || text(&seen(server, "phone"), "role"), |it| it == "admin");

    // Neither hears the other.
    server.stop();
    phone.stop();
    assert_eq!(laptop.run(&["device", "revoke", "phone", "--yes"]).code, Some(0));
    laptop.stop();
    phone.up();
    assert_eq!(phone.run(&["device", "revoke", "laptop", "--yes"]).code, Some(0));
    server.up();
    until("the server hears the phone", || server.sees("laptop"), |it| it == "revoked");
    laptop.up();
    for name in ["laptop", "phone"] {
        until("both are suspended", || server.sees(name), |it| it == "suspended");
    }
    check(
        server,
        &server.run(&["device", "show", "laptop"]),
        expect![[r#"
            $ weft device show laptop
            laptop, a laptop and admin
            id: <id>
            state: suspended
            why: phone revoked it, and is in doubt itself, <date> <time> (statement <id>)
            to do: weft device keep laptop
            added: began the fabric, <date> <time> (statement <id>)
            address: 127.0.0.1:PORT quic, direct
            last heard: <date> <time>
        "#]],
    );
    until("the laptop knows", || laptop.sees("laptop"), |it| it == "suspended");
    let status = laptop.run(&["status"]).expect_code(0);
    assert!(status.stdout.contains("laptop, a laptop, suspended in the fabric home"), "{status}");
    assert!(status.stdout.contains("weft device keep laptop on server"), "{status}");
    check(
        laptop,
        &laptop.run(&["device", "keep", "laptop", "--yes"]),
        expect![[r#"
            $ weft device keep laptop --yes
            ! error: this device is suspended and may not keep a suspended device: phone revoked it, and is in doubt itself; weft device keep laptop on server
            (exit 5)
        "#]],
    );

    check(
        server,
        &server.run(&["device", "keep", "laptop", "--yes"]),
        expect![[r#"
            $ weft device keep laptop --yes
            ! laptop belongs again
        "#]],
    );
    assert_eq!(
        (server.sees("phone"), server.sees("laptop") != "suspended"),
        ("revoked".into(), true)
    );
    let log = sentences(server);
    let void = "phone revoked laptop [void: phone is out, and who put it out did not know of this]";
    assert!(log.iter().any(|it| it == void), "{log:#?}");
    assert!(log.iter().any(|it| it == "laptop revoked phone"), "{log:#?}");
    laptop.until_here(&["server"]);
    assert_eq!(seen(laptop, "laptop")["standing"], Value::Null);
    laptop.note("all is well");
    server.until_note("all is well");
    // Nobody dials one that is out: it hears of it when it dials, as at its start.
    phone.stop();
    phone.up();
    until("the phone knows", || phone.sees("phone"), |it| it == "revoked");
    check(
        phone,
        &phone.run(&["device", "show", "phone"]),
        expect![[r#"
            $ weft device show phone
            phone, a phone and admin
            id: <id>
            state: revoked
            why: laptop revoked it, <date> <time> (statement <id>)
            to do: the same machine comes back with a new home: weft invite on an admin, weft --home NEW join there
            added: by laptop, <date> <time> (statement <id>); unconfirmed, nobody compared the four words
        "#]],
    );
}

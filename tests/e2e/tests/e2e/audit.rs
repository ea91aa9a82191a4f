//! The signed record, and the rules that it names.

use std::fs;

use expect_test::expect;
use serde_json::Value;
use weft_e2e::{Device, Fabric, until};

#[test]
fn what_was_done_and_why_it_was_allowed_is_on_record_everywhere() {
    let fabric = Fabric::pair(["laptop", "phone", "server"]);
    let [laptop, phone, server] = &*fabric;

    expect![[r#"
        $ weft policy check note that x
        1  notes.save on laptop: allow, a command of your own, by an agent that came with weft
    "#]]
    .assert_eq(&laptop.run(&["policy", "check", "note", "that", "x"]).to_string());
    let checked = laptop.json(&["policy", "check", "note", "that", "x"]);
    assert_eq!(
        (&checked[0]["capability"], &checked[0]["effect"]),
        (&"notes.save".into(), &"allow".into())
    );
    assert_eq!(laptop.run(&["policy", "check", "xyzzy"]).code, Some(4));
    let tested = laptop.json(&["policy", "test"]);
    assert_eq!((&tested["ok"], &tested["failed"]), (&Value::Bool(true), &Value::Array(Vec::new())));
    assert!(tested["passed"].as_array().is_some_and(|passed| passed.len() > 10), "{tested}");

    for device in &*fabric {
        device.note(&format!("on record, by {}", device.name()));
    }
    for device in &*fabric {
        let records = device.json(&["audit", "list"]);
        let records: Vec<_> = records.as_array().expect("a list").iter().collect();
        // Positions without a gap, each with the digest of the one before.
        for pair in records.windows(2) {
            assert_eq!(pair[0]["digest"], pair[1]["previous"], "{pair:#?}");
            assert_eq!(pair[0]["position"].as_u64().map(|it| it + 1), pair[1]["position"].as_u64());
        }
        let intent =
            records.iter().find(|it| it["capability"] == "notes.save" && it["point"] == "executor");
        let intent = intent.unwrap_or_else(|| panic!("{records:#?}"));
        assert_eq!(intent["decision"]["effect"], "allow");
        let outcome =
            records.iter().find(|it| it["kind"] == "outcome" && it["intent"] == intent["sequence"]);
        assert_eq!(
            outcome.map(|it| (&it["ending"], &it["writes"]["count"])),
            Some((&"done".into(), &1.into()))
        );
        // One page of it.
        let one = device.json(&["audit", "list", "--from", "1", "--limit", "1"]);
        assert_eq!(one[0]["position"], 1);
        assert_eq!(one.as_array().map(Vec::len), Some(1));
    }
    // Each is countersigned by both others, up to its newest record.
    for (device, others) in [
        (laptop, ["phone", "server"]),
        (phone, ["laptop", "server"]),
        (server, ["laptop", "phone"]),
    ] {
        let is_seen = |found: &Value| {
            let head = &found["head"]["position"];
            let witnesses = found["witnesses"].as_array().into_iter().flatten();
            let seen: Vec<_> =
                witnesses.filter(|it| it["position"] == *head).map(|it| &it["device"]).collect();
            others.iter().all(|other| seen.iter().any(|it| *it == other))
        };
        until("both others countersigned it", || device.verify(), is_seen);
        let words = device.run(&["audit", "verify"]).expect_code(0);
        assert!(words.stdout.starts_with("ok: "), "{words}");
        assert_eq!(words.stdout.matches("countersigned by").count(), 2, "{words}");
    }
}

#[test]
fn a_disk_that_was_set_back_is_named_by_the_others_and_the_record_goes_on() {
    let mut fabric = Fabric::pair(["laptop", "server"]);
    let [laptop, server] = &mut *fabric;
    laptop.note("before the backup");
    laptop.stop();
    let store = laptop.home().join("store.redb");
    let backup = fs::read(&store).expect("there is a store");
    laptop.up();
    for at in 0..3 {
        laptop.note(&format!("after the backup {at}"));
    }
    let seen = |device: &Device| {
        let found = device.verify();
        let head = found["head"]["position"].as_u64();
        (found["witnesses"][0]["position"].as_u64() == head).then_some(head).flatten()
    };
    let lost = until("the server countersigned it", || seen(laptop), Option::is_some);
    let lost = lost.expect("it was seen");
    laptop.stop();
    fs::write(&store, backup).expect("the store is written");

    laptop.up();
    laptop.until_here(&["server"]);
    let setback = |device: &Device| device.verify()["setbacks"][0].clone();
    let found = until("the laptop heard of it", || setback(laptop), |it| !it.is_null());
    let at = found["position"].as_u64().expect("the record that says so");
    assert!(at > lost, "{found}");
    laptop.note("after the disk was set back");
    until("the server countersigned it again", || seen(laptop), |it| *it > Some(at));

    let words = laptop.run(&["audit", "verify"]).expect_code(0).stdout;
    assert!(words.starts_with("ok: "), "{words}");
    let reason = found["reason"].as_str().expect("a sentence");
    assert!(reason.starts_with("records ") && reason.contains("are missing"), "{reason}");
    assert!(reason.ends_with(&format!("recovered at record {at}")), "{reason}");
    assert!(words.contains(&format!("warning: {reason}\n")), "{words}");
    let thorough = laptop.run(&["audit", "verify", "--every-signature"]).expect_code(0).stdout;
    assert_eq!(words.lines().next(), thorough.lines().next());
    let listed = laptop.run(&["audit", "list", "--from", &at.to_string(), "--limit", "1"]);
    assert!(listed.stdout.contains("the disk was set back"), "{listed}");
    for device in [laptop, server] {
        let status = device.json(&["status"]);
        let warnings = status["warnings"].to_string();
        assert!(warnings.contains("set back") && !warnings.contains("forked"), "{warnings}");
    }
}

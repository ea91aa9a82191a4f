//! Timers that fire once.

use serde_json::Value;
use weft_e2e::{Fabric, Running, until};

/// How often a timer of this name was shown.
fn shown(watcher: &Running, label: &str) -> usize {
    let is_it = |it: &&Value| it["event"] == "timer-due" && it["label"] == label;
    watcher.events().iter().filter(is_it).count()
}

#[test]
fn a_timer_is_shown_once_on_every_device() {
    let mut fabric = Fabric::pair(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    let (on_laptop, on_phone) = (laptop.watch(), phone.watch());

    let set = laptop.run(&["do", "set a timer for 2 seconds called tea"]);
    assert_eq!(set.code, Some(0), "{set}");
    assert!(set.stdout.contains("tea"), "{set}");
    for watcher in [&on_laptop, &on_phone] {
        watcher.event("timer-due", |it| it["label"] == "tea");
    }
    until(
        "no timer waits",
        || laptop.json(&["timers"]),
        |timers| *timers == Value::Array(Vec::new()),
    );

    // The laptop starts anew, and another timer shows that events are told again: of tea, nothing.
    laptop.kill();
    laptop.up();
    let on_laptop_later = laptop.watch();
    fabric.meet(["laptop", "phone"]);
    let [laptop, _] = &mut *fabric;
    assert_eq!(laptop.run(&["do", "set a timer for 1 second called toast"]).code, Some(0));
    for watcher in [&on_laptop_later, &on_phone] {
        watcher.event("timer-due", |it| it["label"] == "toast");
    }
    assert_eq!((shown(&on_laptop, "tea"), shown(&on_phone, "tea")), (1, 1));
    assert_eq!((shown(&on_laptop_later, "tea"), shown(&on_phone, "toast")), (0, 1));
    laptop.verify();
}

#[test]
fn a_timer_that_was_missed_is_shown_late_and_still_once() {
    let mut fabric = Fabric::pair(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    let on_phone = phone.watch();
    assert_eq!(laptop.run(&["do", "set a timer for 3 seconds called eggs"]).code, Some(0));
    until(
        "the phone knows of it",
        || phone.json(&["timers"]),
        |timers| timers[0]["label"] == "eggs",
    );
    laptop.kill();
    // Each screen shows what its own replica knows, also when the device that fires is away.
    let due = on_phone.event("timer-due", |it| it["label"] == "eggs");
    assert!(due["late_ms"].is_u64(), "{due}");
    // Its own screen may say so as soon as it is up, before anybody can watch.
    laptop.up();
    let on_laptop = laptop.watch();
    until(
        "the laptop has no timer left",
        || laptop.json(&["timers"]),
        |timers| *timers == Value::Array(Vec::new()),
    );
    let newest = |fabric: &mut Fabric<2>, words: &str| {
        fabric.meet(["laptop", "phone"]);
        let [laptop, phone] = &mut **fabric;
        // The newest thing that the phone hears of the laptop.
        laptop.note(words);
        phone.until_note(words);
    };
    newest(&mut fabric, "the laptop is back");
    assert!(shown(&on_laptop, "eggs") <= 1, "{}", shown(&on_laptop, "eggs"));
    let [laptop, _] = &mut *fabric;
    laptop.kill();
    laptop.up();
    let on_laptop = laptop.watch();
    newest(&mut fabric, "the laptop is back again");
    assert_eq!((shown(&on_phone, "eggs"), shown(&on_laptop, "eggs")), (1, 0));
    let [_, phone] = &mut *fabric;
    assert_eq!(phone.json(&["timers"]), Value::Array(Vec::new()));
}

#[test]
fn a_timer_can_be_seen_and_cancelled() {
    let mut fabric = Fabric::pair(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    assert_eq!(laptop.run(&["do", "set a timer for 2 hours called bread"]).code, Some(0));
    let timers = until("the phone knows of it", || phone.json(&["timers"]), |it| it[0].is_object());
    assert_eq!((&timers[0]["label"], &timers[0]["fires_on"]), (&"bread".into(), &"laptop".into()));
    // Said either way.
    assert_eq!(phone.json(&["timers", "list"]), timers);
    let (bare, listed) = (phone.run(&["timers"]), phone.run(&["timers", "list"]));
    assert_eq!((bare.code, &bare.stdout), (listed.code, &listed.stdout), "{listed}");
    assert!(listed.stdout.contains("bread"), "{listed}");
    let cancelled = laptop.run(&["do", "cancel the bread timer"]);
    assert_eq!(cancelled.code, Some(0), "{cancelled}");
    for device in [laptop, phone] {
        until(
            "no timer waits",
            || device.json(&["timers"]),
            |timers| *timers == Value::Array(Vec::new()),
        );
    }
}

#[test]
fn a_run_whose_step_has_two_arguments_can_be_shown_and_goes_on_after_a_power_cut() {
    let mut fabric = Fabric::pair(["laptop"]);
    let [laptop] = &mut *fabric;
    let cut = laptop.start(&["do", "set a timer for 2 hours called bread"]);
    until("it runs", || laptop.json(&["run", "list"]), |runs| runs[0].is_object());
    laptop.kill();
    cut.end();
    laptop.up();
    until(
        "it does not go on for ever",
        || laptop.json(&["run", "list"]),
        |runs| !runs[0]["ended"].is_null(),
    );
    assert_eq!(laptop.run(&["do", "set a timer for 3 hours called cake"]).code, Some(0));
    let shown = laptop.run(&["run", "show"]);
    assert_eq!(shown.code, Some(0), "{shown}");
    assert!(shown.stdout.contains("timer.set: done"), "{shown}");
}

//! Notes that arrive, whoever was away.

use weft_e2e::{Fabric, until};

#[test]
fn a_note_written_while_the_laptop_is_off_is_on_it_later() {
    let mut fabric = Fabric::pair(["laptop", "phone", "server"]);
    let [laptop, phone, _server] = &mut *fabric;
    laptop.stop();
    let noted = phone.note("the plumber comes on friday");
    assert_eq!(noted.stdout, "Noted: the plumber comes on friday\n");
    assert!(!noted.stderr.contains("laptop"), "it is not there yet: {noted}");
    assert_eq!(laptop.run(&["notes", "list"]).code, Some(3));
    laptop.up();
    laptop.until_note("the plumber comes on friday");

    // The person's own device is enough.
    let [laptop, phone, server] = &mut *fabric;
    server.stop();
    phone.stop();
    laptop.note("alone");
    laptop.stop();
    phone.up();
    phone.note("alone, too");
    laptop.up();
    server.up();
    for device in &*fabric {
        device.until_note("alone");
        device.until_note("alone, too");
    }
}

#[test]
fn two_devices_that_write_at_once_agree_in_the_end() {
    let mut fabric = Fabric::pair(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    // Together: neither waits for the other.
    let mut running = Vec::new();
    for at in 0..4 {
        for device in [&*laptop, &*phone] {
            let words = format!("note that {} {at}", device.name());
            running.push(device.start(&["do", &words]));
        }
    }
    for running in running {
        assert_eq!(running.end().code, Some(0));
    }
    // Apart: each believes that it is alone.
    laptop.stop();
    phone.note("apart, on the phone");
    phone.stop();
    laptop.up();
    laptop.note("apart, on the laptop");
    phone.up();
    let all = |device: &weft_e2e::Device| device.json(&["notes", "list"]);
    until(
        "both have the same ten notes",
        || (all(laptop), all(phone)),
        |(left, right)| left == right && left.as_array().is_some_and(|notes| notes.len() == 10),
    );
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let mut fabric = Fabric::pair(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    phone.stop();
    for at in 0..5 {
        let note = format!("before cut {at}");
        laptop.note(&note);
        laptop.kill();
        laptop.up();
        laptop.until_note(&note);
    }
    assert_eq!(laptop.notes().len(), 5, "each is there once");
    laptop.verify();
    phone.up();
    until("the phone has them", || phone.notes(), |notes| notes.len() == 5);
}

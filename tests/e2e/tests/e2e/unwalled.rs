//! A device on which no agent can run, since its kernel has nothing to wall one in with.

use serde_json::Value;
use weft_e2e::{Device, Fabric, fixture, not_run, until};

/// The devices that offer an agent, as `by` sees it.
fn offered_by(by: &Device, agent: &str) -> Vec<String> {
    let agents = by.json(&["agents"]);
    let agents = agents.as_array().into_iter().flatten();
    let devices = agents.filter(|it| it["name"] == agent).flat_map(|it| it["devices"].as_array());
    let mut names: Vec<String> =
        devices.flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn a_phone_without_a_wall_has_others_do_the_work_and_says_so() {
    let mut fabric = Fabric::pair(["laptop", "phone"]);
    let [laptop, phone] = &mut *fabric;
    assert_eq!(offered_by(laptop, "notes"), ["laptop", "phone"]);

    phone.stop();
    let filter = fixture("no_filters.py");
    if phone.up_under("python3", &[&filter.to_string_lossy()]).is_none() {
        return not_run("this machine has no python3");
    }
    phone.until_here(&["laptop"]);
    until("the laptop knows", || offered_by(laptop, "notes"), |it| *it == ["laptop"]);

    // What is asked for on the phone is done on the laptop, and is there in a moment.
    let noted = phone.run(&["do", "note that it rains"]).expect_code(0);
    assert!(noted.stdout.contains("it rains"), "{noted}");
    phone.until_note("it rains");
    assert_eq!(laptop.notes(), ["it rains"]);

    // Named, it says why not, and it says so itself.
    let refused = laptop.run(&["do", "on phone: note that it snows"]);
    assert_eq!(refused.code, Some(6), "{refused}");
    assert!(refused.stderr.contains("phone: doesn't have notes.save"), "{refused}");
    let status = phone.run(&["status"]).expect_code(0);
    assert!(status.stdout.contains("no wall for it"), "{status}");
    let doctor = phone.run(&["doctor"]);
    assert!(doctor.stdout.contains("none runs here: failed to put up the wall"), "{doctor}");
    assert!(doctor.stdout.contains("Function not implemented"), "{doctor}");
}

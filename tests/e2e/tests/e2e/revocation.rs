//! A device that is put out.

use weft_e2e::{Fabric, until};

#[test]
fn a_revoked_device_is_served_by_nobody() {
    let mut fabric = Fabric::pair(["laptop", "phone", "server"]);
    let [laptop, phone, server] = &mut *fabric;
    phone.note("before");
    server.until_note("before");
    laptop.until_note("before");

    let missing = laptop.run(&["device", "revoke", "toaster", "--yes"]);
    assert_eq!(missing.code, Some(13), "{missing}");
    let asked = laptop.run(&["device", "revoke", "phone"]);
    expect_test::expect![[r#"
        $ weft device revoke phone
        ! error: putting phone out needs a yes, and there is no terminal to ask at
        ! hint: say it with --yes
        (exit 2)
    "#]]
    .assert_eq(&asked.to_string());
    // A member may not.
    let denied = server.run(&["device", "revoke", "phone", "--yes"]);
    assert_eq!(denied.code, Some(5), "{denied}");
    assert_eq!(laptop.sees("phone"), "here");

    // Nothing is asserted on time; who measures reads it below.
    let begun = std::time::Instant::now();
    expect_test::expect![[r#"
        $ weft device revoke phone --yes
        ! phone is put out; devices that are away hear it when they come
    "#]]
    .assert_eq(&laptop.run(&["device", "revoke", "phone", "--yes"]).to_string());
    for device in [&*laptop, &*server] {
        until("the phone is out", || device.sees("phone"), |state| state == "revoked");
    }
    eprintln!("put out on all other devices after {} ms", begun.elapsed().as_millis());
    until("the phone is told", || phone.sees("phone"), |state| state == "revoked");
    let refused = phone.run(&["do", "note that I am still in"]);
    assert!(refused.to_string().contains("this device is revoked"), "{refused}");

    // What it writes now goes nowhere, also after everybody starts anew.
    let late = phone.run(&["do", "note that I am still in"]);
    laptop.stop();
    phone.stop();
    phone.up();
    laptop.up();
    fabric.meet(["laptop", "server"]);
    let [laptop, phone, server] = &mut *fabric;
    server.note("barrier");
    laptop.until_note("barrier");
    for device in [&*laptop, &*server] {
        assert_eq!(device.notes(), ["barrier", "before"], "after {late}");
        assert_eq!(device.sees("phone"), "revoked");
        device.verify();
    }
    assert!(!phone.notes().contains(&"barrier".to_owned()), "it is told nothing");

    // The same hardware comes back with a home of its own.
    phone.stop();
    let again = phone.home().with_file_name("phone-again");
    phone.move_to(again);
    let joined = phone.join(&laptop.invite());
    assert_eq!(joined.code, Some(0), "{joined}");
    phone.up();
    phone.until_note("barrier");
    phone.note("back again");
    laptop.until_note("back again");
    server.until_note("back again");
}

//! Data keys: who holds which.

use super::*;

#[test]
fn data_after_a_revoke_is_under_a_key_that_the_device_never_had() {
    let (mut laptop, mut phone, server) = three_admins();
    laptop.revoke(SERVER);
    phone.meet(&laptop);
    let (generation, key) = laptop.keyring.writing(laptop.state()).unwrap();
    assert_eq!(generation.number, 1);
    assert_eq!(phone.keyring.writing(phone.state()), Some((generation, key)));
    let mut out = server;
    out.meet(&laptop);
    assert_eq!(out.keyring.data(generation), None);
    assert_eq!(out.keyring.writing(out.state()), None);
}

#[test]
fn two_concurrent_revokes_leave_a_key_that_one_of_them_has_until_it_is_replaced() {
    let (mut laptop, mut phone, server) = three_admins();
    laptop.add(TABLET, Role::Member);
    phone.meet(&laptop);
    laptop.revoke(SERVER);
    phone.revoke(TABLET);
    laptop.meet(&phone);
    let exposed = laptop.state().exposed_to.expect("each key was sealed to the other's device");
    laptop.say(|author, rng| author.revoke(exposed, NOON, rng));
    assert_eq!(laptop.state().exposed_to, None);
    let (writing, _) = laptop.keyring.writing(laptop.state()).unwrap();
    let mut tablet = laptop.seen_by(TABLET);
    tablet.meet(&laptop);
    let mut server = server;
    server.meet(&laptop);
    assert_eq!(tablet.keyring.data(writing), None);
    assert_eq!(server.keyring.data(writing), None);
    phone.meet(&laptop);
    assert!(phone.keyring.data(writing).is_some());
}

#[test]
fn a_device_added_beside_a_revoke_gets_the_new_key_from_any_holder() {
    let (mut laptop, mut phone, _) = three_admins();
    laptop.revoke(SERVER);
    phone.add(TABLET, Role::Member);
    laptop.meet(&phone);
    let mut tablet = laptop.seen_by(TABLET);
    let lacking = tablet.keyring.lacking(tablet.state());
    assert_eq!(lacking.len(), 1);
    let to = secret(TABLET).agreement().public();
    let mut rng = rand(9);
    let sealed = laptop.keyring.seal_for(laptop.state(), to, &lacking, &mut rng);
    for key in &sealed {
        tablet.keyring.open(key).unwrap();
    }
    assert_eq!(tablet.keyring.lacking(tablet.state()), []);
    // One that is out asks in vain.
    let out = secret(SERVER).agreement().public();
    assert_eq!(laptop.keyring.seal_for(laptop.state(), out, &lacking, &mut rng), []);
}

#[test]
fn a_keeper_holds_no_keys_from_then_on() {
    let (mut laptop, mut phone, _) = three_admins();
    phone.meet(&laptop);
    laptop.set_role(PHONE, Role::Keeper);
    assert!(laptop.state().member(&secret(PHONE).id()).is_some());
    assert!(!laptop.state().may_write(&secret(PHONE).id()));
    phone.meet(&laptop);
    assert_eq!(phone.keyring.writing(phone.state()), None);
    laptop.set_role(PHONE, Role::Member);
    phone.meet(&laptop);
    assert_eq!(phone.keyring.lacking(phone.state()), []);
}

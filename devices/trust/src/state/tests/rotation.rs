//! Rotation of a device key: its successor.

use weft_protocol::{signed::Domain, statement::Succession};

use super::*;

#[test]
fn a_rotated_key_keeps_name_and_role_and_the_old_one_is_out() {
    let (laptop, mut phone, mut server) = three_admins();
    phone.rename(PHONE, "pocket");
    phone.say(|author, rng| author.rotate(&secret(20), NOON, rng));
    server.meet(&phone);
    assert_eq!(server.standing(PHONE), "revoked");
    assert_eq!(server.standing(20), "active");
    assert_eq!(server.device(20).name, name("pocket"));
    assert_eq!(server.device(20).role, Role::Admin);
    let mut renewed = server.seen_by(20);
    assert_eq!(renewed.keyring.lacking(renewed.state()), []);
    renewed.rename(20, "phone");
    assert_eq!(server.state().successor(&secret(PHONE).id()), secret(20).id());
    assert_eq!(server.state().successor(&secret(SERVER).id()), secret(SERVER).id());
    renewed.say(|author, rng| author.rotate(&secret(21), NOON, rng));
    server.meet(&renewed);
    for key in [PHONE, 20, 21] {
        assert_eq!(server.state().successor(&secret(key).id()), secret(21).id(), "of {key}");
    }
    assert_eq!(server.state().successor(&secret(22).id()), secret(22).id(), "of a stranger");
    // The old key says nothing any more.
    assert!(phone.try_say(|author, _| author.rename(None, name("x"), NOON)).is_err());
    drop(laptop);
}

#[test]
fn a_key_that_was_put_out_has_no_successor_by_its_own_word() {
    let (mut laptop, phone, mut server) = three_admins();
    laptop.revoke(PHONE);
    let mut thief = phone;
    thief.say(|author, rng| author.rotate(&secret(20), NOON, rng));
    server.meet(&laptop);
    server.meet(&thief);
    assert_eq!(server.standing(PHONE), "revoked");
    assert_eq!(server.state().successor(&secret(PHONE).id()), secret(PHONE).id());
}

#[test]
fn a_revoke_wins_over_a_concurrent_rotate_and_the_new_key_is_out_too() {
    let (mut laptop, mut phone, mut server) = three_admins();
    phone.say(|author, rng| author.rotate(&secret(20), NOON, rng));
    let revoke = laptop.revoke(PHONE);
    // In either order of arrival.
    let mut other = server.clone();
    server.meet(&phone);
    assert_eq!(server.standing(20), "active", "nobody knows better yet");
    server.meet(&laptop);
    other.meet(&laptop);
    other.meet(&phone);
    for seen in [&server, &other] {
        for key in [PHONE, 20] {
            assert_eq!(seen.device_standing(key), Standing::Revoked { by: revoke }, "{key}");
        }
        assert_eq!(seen.state().successor(&secret(PHONE).id()), secret(PHONE).id());
        assert_eq!(seen.graph.former(&secret(20).id()), [secret(PHONE).id()]);
    }
    // What the new key said, and a further one that it brought in, are out with it.
    let mut renewed = phone.seen_by(20);
    renewed.say(|author, rng| author.rotate(&secret(21), NOON, rng));
    let mut last = renewed.seen_by(21);
    last.add(TABLET, Role::Member);
    server.meet(&last);
    assert_ne!(server.standing(21), "active");
    assert_eq!(server.standing(TABLET), "unknown");
}

#[test]
fn a_revoke_that_knew_of_the_rotate_leaves_the_new_key_in() {
    let (mut laptop, mut phone, _) = three_admins();
    phone.say(|author, rng| author.rotate(&secret(20), NOON, rng));
    laptop.meet(&phone);
    laptop.revoke(PHONE);
    assert_eq!((laptop.standing(PHONE), laptop.standing(20)), ("revoked", "active"));
    assert_eq!(laptop.state().successor(&secret(PHONE).id()), secret(20).id());
}

#[test]
fn a_thief_and_its_owner_who_both_replace_one_key_are_suspended_until_a_side_is_kept() {
    let (mut laptop, mut phone, _) = three_admins();
    let mut thief = phone.clone();
    let side = phone.say(|author, rng| author.rotate(&secret(20), NOON, rng));
    thief.say(|author, rng| author.rotate(&secret(30), NOON, rng));
    laptop.meet(&phone);
    laptop.meet(&thief);
    for key in [PHONE, 20, 30] {
        assert_eq!(laptop.standing(key), "suspended", "{key}");
    }
    laptop.say(|author, rng| author.keep(secret(PHONE).id(), Some(side), NOON, rng));
    assert_eq!(laptop.standing(20), "active");
    assert_ne!(laptop.standing(30), "active");
    assert_eq!(laptop.standing(PHONE), "revoked");
}

#[test]
fn the_last_admin_replaces_its_key_and_stays_the_admin_twice_in_a_row() {
    let mut only = first(None);
    let old = only.id();
    only.say(|author, rng| author.rotate(&secret(20), NOON, rng));
    let mut renewed = only.seen_by(20);
    renewed.say(|author, rng| author.rotate(&secret(21), NOON, rng));
    let mut again = renewed.seen_by(21);
    assert!(again.state().is_admin(&secret(21).id()));
    assert_eq!(again.state().admins().count(), 1);
    assert_eq!(again.graph.former(&secret(21).id()), [secret(20).id(), old]);
    assert_eq!(again.graph.former(&old), []);
    again.add(PHONE, Role::Member);
    assert_eq!(again.standing(PHONE), "active");
}

#[test]
fn a_suspended_device_does_not_replace_its_key() {
    let (mut laptop, mut phone, mut server) = three_admins();
    laptop.revoke(PHONE);
    phone.revoke(LAPTOP);
    server.meet(&laptop);
    server.meet(&phone);
    let mut suspended = server.seen_by(PHONE);
    assert_eq!(suspended.standing(PHONE), "suspended");
    let refused = suspended.try_say(|author, rng| author.rotate(&secret(20), NOON, rng));
    assert_eq!(refused, Err(AuthorError::NotAllowed { what: "replace the device key" }));
}

#[test]
fn a_key_does_not_succeed_without_its_own_consent() {
    let mut laptop = laptop();
    laptop.add(PHONE, Role::Member);
    let mut phone = laptop.seen_by(PHONE);
    let body = weft_protocol::statement::Rotate {
        device: secret(TABLET).id(),
        agreement: secret(TABLET).agreement().public(),
        consent: Signed::new(
            Domain::Pairing,
            &Succession {
                fabric: phone.graph.fabric(),
                old: phone.id(),
                agreement: secret(TABLET).agreement().public(),
            },
            secret(PHONE).signing(),
        ),
        sealed: vec![],
    };
    phone.force(body.into());
    assert_eq!(phone.standing(TABLET), "unknown");
    assert_eq!(phone.standing(PHONE), "active");
}

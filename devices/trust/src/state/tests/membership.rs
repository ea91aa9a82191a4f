//! Members: who is in, and what each role may do.

use super::*;

#[test]
fn a_fabric_begins_with_one_admin() {
    let laptop = laptop();
    let state = laptop.state();
    assert_eq!(state.name, name("home"));
    assert_eq!(state.root, Some(root().keys()));
    assert!(state.is_admin(&laptop.id()));
    assert!(state.may_write(&laptop.id()));
    assert!(laptop.keyring.addressing(state).is_some());
    assert_eq!(laptop.keyring.lacking(state), []);
}

#[test]
fn an_added_device_has_the_keys_and_a_stranger_has_not() {
    let mut laptop = laptop();
    laptop.add(PHONE, Role::Member);
    let phone = laptop.seen_by(PHONE);
    assert_eq!(phone.keyring.lacking(phone.state()), []);
    assert_eq!(phone.keyring.writing(phone.state()), laptop.keyring.writing(laptop.state()));
    let stranger = laptop.seen_by(TABLET);
    assert_eq!(stranger.keyring.lacking(stranger.state()).len(), 2);
}

#[test]
fn a_member_changes_nothing_but_its_own_name() {
    let mut laptop = laptop();
    laptop.add(PHONE, Role::Member);
    let mut phone = laptop.seen_by(PHONE);
    let new = new_device(&secret(TABLET), "tablet", Role::Member);
    let denied = phone.try_say(|author, rng| author.add(new, NOON, rng));
    assert!(matches!(denied, Err(AuthorError::NotAllowed { .. })), "{denied:?}");
    let generation = phone.next_generation();
    let device = secret(LAPTOP).id();
    phone.force(Revoke { device, generation, sealed: vec![] }.into());
    assert_eq!(phone.standing(LAPTOP), "active");
    phone.rename(PHONE, "pocket");
    laptop.meet(&phone);
    assert_eq!(laptop.device(PHONE).name, name("pocket"));
}

#[test]
fn an_unconfirmed_admin_is_a_member() {
    let mut laptop = laptop();
    let body = Add {
        device: secret(PHONE).id(),
        agreement: secret(PHONE).agreement().public(),
        name: name("phone"),
        kind: Kind::Phone,
        role: Role::Admin,
        confirmed: false,
        sealed: vec![],
    };
    laptop.force(body.into());
    assert_eq!(laptop.device(PHONE).role, Role::Member);
}

#[test]
fn a_device_that_was_added_while_another_was_away_is_known_by_its_statements() {
    let (mut laptop, phone, _) = three_admins();
    laptop.add(TABLET, Role::Member);
    let tablet = laptop.seen_by(TABLET);
    let mut away = phone;
    assert_eq!(away.standing(TABLET), "unknown");
    away.meet(&tablet);
    assert_eq!(away.standing(TABLET), "active");
    assert_eq!(away.state(), laptop.state());
}

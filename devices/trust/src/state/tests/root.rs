//! The root: what it alone may do.

use weft_protocol::statement::Epoch;

use super::*;
use crate::recovery::RootSecret;

#[test]
fn a_thief_who_revokes_everybody_freezes_the_fabric_and_root_thaws_it() {
    let (laptop, phone, mut thief) = three_admins();
    let before = laptop.graph.heads();
    thief.revoke(LAPTOP);
    thief.revoke(PHONE);
    thief.add(TABLET, Role::Admin);
    // The root hears of all that, and reaches back to before the theft.
    let mut root = thief.seen_by_root();
    assert_eq!(root.standing(LAPTOP), "revoked");
    let reach_back = root.author().knowing(before);
    let mut rng = rand(9);
    let signed = reach_back.revoke(secret(SERVER).id(), NOON, &mut rng).unwrap();
    root.take(&signed);
    assert_eq!(root.standing(SERVER), "revoked");
    assert_eq!(root.standing(TABLET), "unknown");
    assert_eq!(root.standing(LAPTOP), "suspended");
    root.keep(LAPTOP);
    root.keep(PHONE);
    assert_eq!(root.standing(LAPTOP), "active");
    assert_eq!(root.standing(PHONE), "active");
    // More of the same, dated back, freezes nobody whom the root has kept.
    let mut late = phone.seen_by(SERVER);
    late.graph = thief.graph.clone();
    let generation = late.next_generation();
    for device in [secret(LAPTOP).id(), secret(PHONE).id()] {
        late.force(Revoke { device, generation, sealed: vec![] }.into());
    }
    root.meet(&late);
    assert_eq!(root.standing(LAPTOP), "active");
    assert_eq!(root.standing(PHONE), "active");
}

#[test]
fn a_thief_who_dates_back_is_bounded_by_an_epoch() {
    let (mut laptop, _, thief) = three_admins();
    let mut stale = thief;
    laptop.rename(PHONE, "pocket");
    let mut root = laptop.seen_by_root();
    let heads = root.graph.heads();
    root.say(|author, _| author.epoch(heads, NOON));
    // From a copy of the old disk, the thief speaks as if it had heard nothing.
    stale.add(TABLET, Role::Admin);
    stale.rename(LAPTOP, "mine");
    root.meet(&stale);
    assert_eq!(root.standing(TABLET), "unknown");
    assert_eq!(root.device(LAPTOP).name, name("laptop"));
    assert_eq!(root.device(PHONE).name, name("pocket"));
    // What follows the epoch counts.
    laptop.meet(&root);
    laptop.rename(PHONE, "phone");
    root.meet(&laptop);
    assert_eq!(root.device(PHONE).name, name("phone"));
}

#[test]
fn only_root_fixes_an_epoch() {
    let (mut laptop, mut phone, _) = three_admins();
    phone.rename(PHONE, "pocket");
    let heads = laptop.graph.heads();
    laptop.force(Epoch { heads }.into());
    laptop.meet(&phone);
    assert_eq!(laptop.device(PHONE).name, name("pocket"));
}

#[test]
fn root_brings_back_a_fabric_whose_admins_are_gone() {
    let mut laptop = laptop();
    laptop.add(PHONE, Role::Member);
    let mut root = laptop.seen_by_root();
    root.revoke(LAPTOP);
    assert_eq!(root.state().admins().count(), 0);
    root.set_role(PHONE, Role::Admin);
    root.add(TABLET, Role::Admin);
    let tablet = root.seen_by(TABLET);
    assert_eq!(tablet.keyring.lacking(tablet.state()), []);
    assert_eq!(tablet.state().admins().count(), 2);
}

#[test]
fn no_device_touches_root() {
    let (mut laptop, mut phone, _) = three_admins();
    let generation = laptop.next_generation();
    laptop.force(Revoke { device: root().keys().key, generation, sealed: vec![] }.into());
    phone.meet(&laptop);
    let mut root = phone.seen_by_root();
    root.revoke(PHONE);
    assert_eq!(root.standing(PHONE), "revoked");
}

#[test]
fn root_replaces_its_words() {
    let laptop = laptop();
    let mut old = laptop.seen_by_root();
    let new = RootSecret::from_entropy([201; 32]);
    old.say(|author, rng| author.rotate_root(&new, NOON, rng));
    assert_eq!(old.state().root, Some(new.keys()));
    assert!(old.try_say(|author, rng| author.revoke(secret(LAPTOP).id(), NOON, rng)).is_err());
    let mut now =
        Replica::new(old.graph.clone(), new.agreement().clone(), new.signing().clone(), 201);
    assert_eq!(now.keyring.lacking(now.state()), []);
    now.add(PHONE, Role::Admin);
    // What the old words say beside that, from an old copy, is void; it freezes, and no more.
    let mut stolen = laptop.seen_by_root();
    stolen.add(TABLET, Role::Admin);
    stolen.revoke(LAPTOP);
    now.meet(&stolen);
    assert_eq!(now.standing(PHONE), "active");
    assert_eq!(now.standing(TABLET), "unknown");
    assert_eq!(now.standing(LAPTOP), "suspended");
    now.keep(LAPTOP);
    assert_eq!(now.standing(LAPTOP), "active");
}

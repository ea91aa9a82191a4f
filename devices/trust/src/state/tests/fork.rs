//! Forks: two who speak with one key.

use super::*;

#[test]
fn a_fork_of_one_author_suspends_it_until_a_side_is_kept() {
    let (laptop, phone, mut server) = three_admins();
    // A clone of the phone's disk speaks in its place.
    let (mut clone, mut phone) = (phone.clone(), phone);
    let side = phone.add(TABLET, Role::Member);
    clone.add(5, Role::Admin);
    server.meet(&phone);
    assert_eq!(server.standing(PHONE), "active");
    server.meet(&clone);
    assert_eq!(server.standing(PHONE), "suspended");
    assert_eq!(server.standing(TABLET), "suspended");
    assert_eq!(server.standing(5), "suspended");
    server.say(|author, rng| author.keep(secret(PHONE).id(), Some(side), NOON, rng));
    assert_eq!(server.standing(PHONE), "active");
    assert_eq!(server.standing(TABLET), "active");
    assert_eq!(server.standing(5), "unknown");
    drop(laptop);
}

#[test]
fn a_fork_made_after_the_revoke_undoes_nothing() {
    let (mut laptop, mut phone, _) = three_admins();
    let old = phone.clone();
    phone.add(TABLET, Role::Member);
    laptop.meet(&phone);
    laptop.revoke(PHONE);
    let mut thief = old;
    thief.rename(LAPTOP, "mine");
    laptop.meet(&thief);
    assert_eq!(laptop.standing(PHONE), "revoked");
    assert_eq!(laptop.standing(TABLET), "active");
    assert_eq!(laptop.device(LAPTOP).name, name("laptop"));
}

//! Removals: what a device loses, and what of its words goes with it.

use weft_protocol::statement::Keep;

use super::*;

#[test]
fn a_revoked_device_is_not_re_added_by_stale_gossip() {
    let (mut laptop, mut phone, _) = three_admins();
    laptop.add(TABLET, Role::Member);
    phone.meet(&laptop);
    laptop.revoke(TABLET);
    assert_eq!(laptop.standing(TABLET), "revoked");
    // The phone has not heard of it, and its old view comes back again and again.
    for _ in 0..3 {
        laptop.meet(&phone);
        assert_eq!(laptop.standing(TABLET), "revoked");
    }
    // Nor does a new `Add` of the same key help.
    laptop.force(
        Add {
            device: secret(TABLET).id(),
            agreement: secret(TABLET).agreement().public(),
            name: name("tablet"),
            kind: Kind::Phone,
            role: Role::Member,
            confirmed: true,
            sealed: vec![],
        }
        .into(),
    );
    assert_eq!(laptop.standing(TABLET), "revoked");
    let again = new_device(&secret(TABLET), "tablet", Role::Member);
    assert!(laptop.try_say(|author, rng| author.add(again, NOON, rng)).is_err());
    // The same hardware comes back with a new key.
    laptop.add(5, Role::Member);
    assert_eq!(laptop.standing(5), "active");
}

#[test]
fn revoke_wins_over_a_concurrent_add() {
    let (mut laptop, mut phone, _) = three_admins();
    laptop.add(TABLET, Role::Member);
    phone.add(TABLET, Role::Member);
    laptop.revoke(TABLET);
    laptop.meet(&phone);
    phone.meet(&laptop);
    assert_eq!(laptop.state(), phone.state());
    assert_eq!(laptop.standing(TABLET), "revoked");
}

#[test]
fn what_a_revoked_admin_did_unseen_is_void() {
    let (mut laptop, mut phone, mut server) = three_admins();
    laptop.revoke(PHONE);
    phone.add(TABLET, Role::Admin);
    let mut tablet = phone.seen_by(TABLET);
    tablet.add(5, Role::Member);
    for replica in [&mut laptop, &mut server] {
        replica.meet(&tablet);
    }
    server.meet(&laptop);
    assert_eq!(server.state(), laptop.state());
    assert_eq!(server.standing(PHONE), "revoked");
    assert_eq!(server.standing(TABLET), "unknown");
    assert_eq!(server.standing(5), "unknown");
    // The tablet belongs to the same person: it may be added again, by one who stands.
    laptop.add(TABLET, Role::Member);
    assert_eq!(laptop.standing(TABLET), "active");
}

#[test]
fn two_admins_in_a_duel_are_both_suspended_until_another_keeps_one() {
    let (mut laptop, mut phone, mut server) = three_admins();
    laptop.revoke(PHONE);
    phone.revoke(LAPTOP);
    // Each tries to hold its ground with an ally.
    phone.add(TABLET, Role::Admin);
    server.meet(&laptop);
    server.meet(&phone);
    assert_eq!(server.standing(LAPTOP), "suspended");
    assert_eq!(server.standing(PHONE), "suspended");
    assert_eq!(server.standing(TABLET), "suspended");
    let mut tablet = server.seen_by(TABLET);
    let own = tablet.try_say(|author, rng| author.keep(secret(PHONE).id(), None, NOON, rng));
    assert!(own.is_err(), "an ally of a suspended admin keeps nobody");
    server.keep(LAPTOP);
    assert_eq!(server.standing(LAPTOP), "active");
    // The laptop stands again, so its revocation does too.
    assert_eq!(server.standing(PHONE), "revoked");
    assert_eq!(server.standing(TABLET), "unknown");
}

#[test]
fn suspended_admins_cannot_keep_each_other() {
    let (mut laptop, mut phone, server) = three_admins();
    let before = laptop.graph.heads();
    let mut thief = server;
    let against_laptop = thief.revoke(LAPTOP);
    let against_phone = thief.revoke(PHONE);
    let mut root = laptop.seen_by_root();
    root.revoke(SERVER);
    laptop.meet(&thief);
    laptop.meet(&root);
    phone.meet(&laptop);
    assert_eq!(laptop.standing(LAPTOP), "suspended");
    assert_eq!(laptop.standing(PHONE), "suspended");
    // Dating back does not help: each keeps the other as if it had not heard of its own part.
    for (keeper, kept, cause) in
        [(&mut laptop, PHONE, against_phone), (&mut phone, LAPTOP, against_laptop)]
    {
        let device = secret(kept).id();
        keeper.force_at(before.clone(), Keep { device, cause, sealed: vec![] }.into());
        keeper.force(Keep { device, cause, sealed: vec![] }.into());
    }
    laptop.meet(&phone);
    assert_eq!(laptop.standing(LAPTOP), "suspended");
    assert_eq!(laptop.standing(PHONE), "suspended");
    root.meet(&laptop);
    root.keep(LAPTOP);
    root.keep(PHONE);
    assert_eq!(root.standing(LAPTOP), "active");
    assert_eq!(root.standing(PHONE), "active");
}

#[test]
fn a_demoted_admin_gains_nothing_by_dating_back() {
    let (mut laptop, phone, mut server) = three_admins();
    laptop.set_role(PHONE, Role::Member);
    let mut thief = phone;
    thief.add(TABLET, Role::Admin);
    server.meet(&laptop);
    server.meet(&thief);
    assert_eq!(server.standing(TABLET), "unknown");
    assert_eq!(server.device(PHONE).role, Role::Member);
}

#[test]
fn the_last_admin_is_not_removed_where_nobody_could_come_back() {
    let mut laptop = first(None);
    laptop.add(PHONE, Role::Member);
    let to_member =
        laptop.try_say(|author, rng| author.set_role(author_id(), Role::Member, NOON, rng));
    assert_eq!(to_member, Err(AuthorError::LastAdmin { what: "set a device's role" }));
    let out = laptop.try_say(|author, rng| author.revoke(author_id(), NOON, rng));
    assert_eq!(out, Err(AuthorError::Oneself));
    fn author_id() -> DeviceId {
        secret(LAPTOP).id()
    }
}

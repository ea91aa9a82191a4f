use proptest::{collection::vec, prelude::*, sample::Index};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use weft_protocol::{
    signed::{Domain, Signed},
    statement::{Add, Epoch, Keep, Require, Revoke, StatementBody, Succession},
};

use super::*;
use crate::{
    author::AuthorError,
    graph::{Graph, Inserted, StatementError, statement_id},
    keyring::Keyring,
    recovery::RootSecret,
    replica::{NOON, Replica, first, laptop, name, new_device, root, secret},
};

const LAPTOP: u8 = 1;
const PHONE: u8 = 2;
const SERVER: u8 = 3;
const TABLET: u8 = 4;

fn rand(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// A laptop, a phone and a server, all admins, who know the same.
fn three_admins() -> (Replica, Replica, Replica) {
    let mut laptop = laptop();
    laptop.add(PHONE, Role::Admin);
    laptop.add(SERVER, Role::Admin);
    let (phone, server) = (laptop.seen_by(PHONE), laptop.seen_by(SERVER));
    (laptop, phone, server)
}

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

#[test]
fn an_unknown_kind_stops_the_evaluation_and_is_passed_on() {
    let (mut laptop, mut phone, _) = three_admins();
    let unknown = laptop.force(StatementBody::Unknown(77));
    assert_eq!(laptop.state().update_needed, Some(77));
    assert_eq!(laptop.state().members().count(), 0);
    assert!(matches!(
        laptop.try_say(|author, _| author.rename(None, name("x"), NOON)),
        Err(AuthorError::UpdateNeeded { .. })
    ));
    phone.meet(&laptop);
    assert_eq!(phone.graph.get(&statement_id(&unknown)), Some(&unknown));
    assert_eq!(phone.state(), laptop.state());
}

#[test]
fn an_unknown_kind_by_a_member_stops_nothing() {
    let mut laptop = laptop();
    laptop.add(PHONE, Role::Member);
    let mut phone = laptop.seen_by(PHONE);
    phone.force(StatementBody::Unknown(77));
    assert_eq!(phone.state().update_needed, None);
    assert_eq!(phone.state().members().count(), 2);
}

#[test]
fn several_admins_for_one_change_are_not_taken_lightly() {
    let mut laptop = laptop();
    laptop.force(Require { admins: 1 }.into());
    assert_eq!(laptop.state().update_needed, None);
    laptop.force(Require { admins: 2 }.into());
    assert_eq!(laptop.state().update_needed, Some(6));
}

#[test]
fn names_are_told_apart() {
    let mut laptop = laptop();
    for number in [PHONE, SERVER] {
        let new = new_device(&secret(number), "phone", Role::Member);
        laptop.say(|author, rng| author.add(new, NOON, rng));
    }
    assert_eq!(laptop.device(PHONE).name, name("phone"));
    assert_eq!(laptop.device(SERVER).name, name("phone-2"));
    let long = name(&"ü".repeat(32));
    assert_eq!(laptop.state().free_name(&long), long);
}

#[test]
fn the_graph_refuses_what_can_never_enter() {
    let mut laptop = laptop();
    let foreign = first(None).force(StatementBody::Unknown(99));
    assert!(matches!(laptop.graph.insert(foreign), Err(StatementError::OtherFabric { .. })));
    let mut stranger = laptop.seen_by(TABLET);
    let signed = stranger.force(StatementBody::Unknown(99));
    assert!(matches!(laptop.graph.insert(signed.clone()), Err(StatementError::Stranger { .. })));
    let mut forged = signed;
    forged.author = laptop.id();
    assert!(matches!(laptop.graph.insert(forged), Err(StatementError::Forged(_))));
    let genesis = laptop.graph.statements().next().unwrap().clone();
    assert_eq!(laptop.graph.insert(genesis), Ok(Inserted::Known));
}

#[test]
fn waiting_statements_are_bounded_and_enter_when_their_parents_come() {
    let mut laptop = laptop();
    let mut ahead = laptop.clone();
    ahead.add(PHONE, Role::Admin);
    for number in 0..4 {
        ahead.rename(PHONE, &format!("phone {number}"));
    }
    let mut late: Vec<Signed> = ahead.graph.statements().cloned().collect();
    let first = late.remove(1);
    for signed in late.drain(1..).rev() {
        assert_eq!(laptop.graph.insert(signed), Ok(Inserted::Parked));
    }
    assert_eq!(laptop.graph.missing().len(), 1);
    let Ok(Inserted::Added(added)) = laptop.graph.insert(first) else { panic!("it is good") };
    assert_eq!(added.len(), 5);
    assert_eq!(laptop.state(), ahead.state());
    // Nobody fills the memory with statements whose parents never come.
    let mut other = laptop.clone();
    for number in 0..=crate::graph::PARKED_MAX {
        let dep = StatementId::from_bytes([u8::try_from(number % 256).unwrap(); 32]);
        let time = number as u16;
        let signed = other.force_at(vec![dep], StatementBody::Unknown(1_000 + time));
        let result = laptop.graph.insert(signed);
        if number < crate::graph::PARKED_MAX {
            assert_eq!(result, Ok(Inserted::Parked));
        } else {
            assert_eq!(result, Err(StatementError::ParkedFull));
        }
    }
}

// A random history: who speaks, knowing what, and what it says.

#[derive(Clone, Debug)]
struct Step {
    author: u8,
    /// Which earlier statements it knows, besides its own.
    knows: [Index; 2],
    /// Whether it knows its own earlier ones: if not, it is a clone.
    honest: bool,
    what: What,
    subject: u8,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Add(Role),
    Revoke,
    Demote,
    Promote,
    Keep,
    Rename,
    Epoch,
    Rotate,
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        5 => Just(What::Add(Role::Admin)),
        1 => Just(What::Add(Role::Member)),
        4 => Just(What::Revoke),
        1 => Just(What::Demote),
        1 => Just(What::Promote),
        4 => Just(What::Keep),
        1 => Just(What::Rename),
        1 => Just(What::Epoch),
        1 => Just(What::Rotate),
    ];
    // The root is 0.
    (0u8..6, any::<[Index; 2]>(), prop::bool::weighted(0.93), what, 1u8..6).prop_map(
        |(author, knows, honest, what, subject)| Step { author, knows, honest, what, subject },
    )
}

/// Plays the steps; those that nobody could take are left out.
fn play(steps: &[Step]) -> Vec<Signed> {
    let mut laptop = laptop();
    laptop.add(PHONE, Role::Admin);
    laptop.add(SERVER, Role::Admin);
    let mut all: Vec<Signed> = laptop.graph.statements().cloned().collect();
    let whole = |all: &[Signed]| Graph::from_statements(all.iter().cloned()).unwrap();
    for step in steps {
        let graph = whole(&all);
        let author = if step.author == 0 { root().keys().key } else { secret(step.author).id() };
        let own = all.iter().filter(|signed| step.honest && signed.author == author);
        let tops: Vec<StatementId> = step
            .knows
            .iter()
            .map(|index| statement_id(index.get(&all)))
            .chain(own.map(statement_id))
            .collect();
        let known: Vec<Signed> = tops.iter().flat_map(|top| graph.ancestry(top)).cloned().collect();
        let past = whole(&known);
        let mut speaker = if step.author == 0 {
            let root = root();
            Replica::new(past, root.agreement().clone(), root.signing().clone(), 0)
        } else {
            let secret = secret(step.author);
            Replica::new(past, secret.agreement().clone(), secret.signing().clone(), 0)
        };
        let subject = secret(step.subject).id();
        let said = speaker.try_say(|author, rng| match step.what {
            What::Add(role) => {
                author.add(new_device(&secret(step.subject), "device", role), NOON, rng)
            }
            What::Revoke => author.revoke(subject, NOON, rng),
            What::Demote => author.set_role(subject, Role::Guest, NOON, rng),
            What::Promote => author.set_role(subject, Role::Admin, NOON, rng),
            What::Keep => author.keep(subject, None, NOON, rng),
            What::Rename => author.rename(Some(subject), name("other"), NOON),
            What::Epoch => author.epoch(vec![statement_id(&known[0])], NOON),
            What::Rotate => author.rotate(&secret(step.subject + 10), NOON, rng),
        });
        if let Ok(id) = said {
            let signed = speaker.graph.get(&id).unwrap().clone();
            if !graph.contains(&id) {
                all.push(signed);
            }
        }
    }
    all
}

/// What is against a device: removals of it, and its forks.
fn questioned(state: &State, graph: &Graph, device: &DeviceId) -> bool {
    let Some(found) = state.devices.get(device) else { return false };
    match found.standing {
        Standing::Active => false,
        Standing::Revoked { .. } => true,
        // One whose adder is suspended waits for that one.
        Standing::Suspended { cause } => match graph.body(&cause) {
            Some(StatementBody::Add(add)) => add.device != *device,
            Some(StatementBody::Rotate(rotate)) => rotate.device != *device,
            _ => true,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_same_set_gives_the_same_state(
        steps in vec(step(), 1..20),
        order in vec(any::<Index>(), 60),
    ) {
        let all = play(&steps);
        let expected = Graph::from_statements(all.clone()).unwrap();
        let mut graph = Graph::new(all[0].clone()).unwrap();
        // In any order, and some more than once.
        for index in &order {
            drop(graph.insert(index.get(&all).clone()));
        }
        for signed in all.iter().rev() {
            drop(graph.insert(signed.clone()));
        }
        prop_assert_eq!(graph.state(), expected.state());
        prop_assert_eq!(graph.heads(), expected.heads());
        prop_assert_eq!(graph.set_digest(), expected.set_digest());
        prop_assert!(graph.missing().is_empty());
        let again: Vec<&Signed> = graph.statements().collect();
        prop_assert_eq!(again, expected.statements().collect::<Vec<_>>());
    }

    #[test]
    fn more_statements_bring_a_device_back_only_by_a_keep(
        steps in vec(step(), 1..24),
        some in vec(any::<Index>(), 1..5),
        more in vec(any::<Index>(), 1..5),
    ) {
        let all = play(&steps);
        let whole = Graph::from_statements(all.clone()).unwrap();
        let closure = |indices: &[Index]| -> Vec<Signed> {
            let tops = indices.iter().map(|index| statement_id(index.get(&all)));
            tops.flat_map(|top| whole.ancestry(&top)).cloned().collect()
        };
        let less = closure(&some);
        let greater = [less.clone(), closure(&more)].concat();
        let less = Graph::from_statements(less).unwrap();
        let greater = Graph::from_statements(greater).unwrap();
        for (id, device) in &greater.state().devices {
            if !device.is_active() || !questioned(less.state(), &less, id) {
                continue;
            }
            let kept = greater.ids().any(|statement| {
                matches!(greater.body(statement), Some(StatementBody::Keep(keep)) if keep.device == *id)
                    && greater.state().verdicts[statement] == Verdict::Counts
            });
            prop_assert!(kept, "{id:?} came back: {:?}", less.state().devices[id].standing);
        }
    }

    #[test]
    fn a_relay_that_changes_statements_adds_nobody(
        steps in vec(step(), 1..12), at: Index, byte: Index, bit in 0u8..8,
    ) {
        let all = play(&steps);
        let expected = Graph::from_statements(all.clone()).unwrap();
        let mut changed = at.get(&all).clone();
        *byte.get_mut(&mut changed.bytes) ^= 1 << bit;
        let mut graph = Graph::new(all[0].clone()).unwrap();
        prop_assert!(graph.insert(changed).is_err());
        for signed in &all {
            drop(graph.insert(signed.clone()));
        }
        prop_assert_eq!(graph.state(), expected.state());
    }

    #[test]
    fn every_member_was_let_in_by_one_who_might(steps in vec(step(), 1..24)) {
        let all = play(&steps);
        let graph = Graph::from_statements(all).unwrap();
        let state = graph.state();
        for (id, device) in state.members() {
            prop_assert_eq!(state.verdicts[&device.added], Verdict::Counts);
            prop_assert!(state.revocation(id).is_none());
        }
        // Nobody who is out was sealed the key that writes, unless status says so.
        if state.exposed_to.is_none() {
            for (id, device) in &state.devices {
                let replaced = matches!(device.standing, Standing::Revoked { by }
                    if matches!(graph.body(&by), Some(StatementBody::Rotate(_))));
                if state.revocation(id).is_some() && !replaced {
                    let number = (1u8..40).find(|number| secret(*number).id() == *id).unwrap();
                    let mut keyring = Keyring::new(secret(number).agreement().clone());
                    keyring.learn(&graph);
                    prop_assert_eq!(keyring.data(state.writing), None);
                }
            }
        }
    }
}

//! How much one device may say.

use weft_protocol::{
    device::Role,
    signed::Signed,
    statement::{KeyId, KeyName, Rename, Revoke, Rotate, SealedKey, StatementBody},
};

use super::*;
use crate::{
    author::AuthorError,
    replica::{NOON, Replica, laptop, name, secret},
};

const LAPTOP: u8 = 1;
const PHONE: u8 = 2;

fn own_name(number: u8, text: &str) -> StatementBody {
    Rename { device: Some(secret(number).id()), name: name(text) }.into()
}

/// A laptop, and a phone that is a member and has said all that it may.
fn said_all() -> (Replica, Replica) {
    let mut laptop = laptop();
    laptop.add(PHONE, Role::Member);
    let mut phone = laptop.seen_by(PHONE);
    for number in 0..OWN_MAX {
        let signed = phone.force(own_name(PHONE, &format!("phone {number}")));
        assert!(phone.graph.contains(&statement_id(&signed)));
    }
    laptop.meet(&phone);
    (laptop, phone)
}

fn refused(of: &mut Replica, body: StatementBody) -> bool {
    let signed = of.force(body);
    let again = of.graph.insert(signed);
    matches!(again, Err(StatementError::TooOften { author }) if author == of.id())
}

#[test]
fn a_member_says_so_much_about_itself_and_an_admin_says_the_rest() {
    let (mut laptop, mut phone) = said_all();
    let denied =
        phone.try_say(|author, _| author.rename(Some(secret(PHONE).id()), name("pocket"), NOON));
    assert_eq!(denied, Err(AuthorError::TooOften { what: "rename" }));
    let denied = denied.unwrap_err().to_string();
    assert_eq!(denied, "rename: this device has renamed itself too often; an admin can");
    assert!(refused(&mut phone, own_name(PHONE, "pocket")));
    // What it has no right to is no way around.
    let generation = phone.next_generation();
    let device = secret(LAPTOP).id();
    assert!(refused(&mut phone, Revoke { device, generation, sealed: vec![] }.into()));
    assert!(refused(&mut phone, StatementBody::Unknown(99)));
    // Nor is it to forget what it heard of others since.
    let genesis = phone.graph.statements().next().map(statement_id).unwrap();
    let signed = phone.force_at(vec![genesis], own_name(PHONE, "pocket"));
    assert!(!phone.graph.contains(&statement_id(&signed)));
    laptop.rename(PHONE, "pocket");
    assert_eq!(laptop.device(PHONE).name, name("pocket"));
    // As an admin it may again.
    laptop.set_role(PHONE, Role::Admin);
    phone.meet(&laptop);
    phone.rename(PHONE, "phone");
    laptop.meet(&phone);
    assert_eq!(laptop.device(PHONE).name, name("phone"));
    // Whoever hears all of that in another order holds the same.
    let mut statements: Vec<Signed> = laptop.graph.statements().cloned().collect();
    statements.reverse();
    let other = Graph::from_statements(statements).unwrap();
    assert_eq!(other.set_digest(), laptop.graph.set_digest());
}

#[test]
fn a_member_that_has_said_all_still_replaces_its_key_and_gains_no_say_by_it() {
    let (mut laptop, phone) = said_all();
    let mut member = phone;
    let mut number = PHONE;
    for next in 20..20 + u8::try_from(ROTATIONS_MAX).unwrap() {
        member.say(|author, rng| author.rotate(&secret(next), NOON, rng));
        laptop.meet(&member);
        assert_eq!((laptop.standing(number), laptop.standing(next)), ("revoked", "active"));
        // The key that was replaced is bounded as before.
        assert!(refused(&mut member, own_name(number, "pocket")));
        (member, number) = (laptop.seen_by(next), next);
        assert!(refused(&mut member, own_name(next, "pocket")));
    }
    let denied = member.try_say(|author, rng| author.rotate(&secret(60), NOON, rng));
    assert_eq!(denied, Err(AuthorError::TooOften { what: "replace the device key" }));
}

#[test]
fn a_member_says_nothing_large() {
    let mut laptop = laptop();
    laptop.add(PHONE, Role::Member);
    let mut phone = laptop.seen_by(PHONE);
    let generation = phone.next_generation();
    let device = secret(LAPTOP).id();
    let sealed = SealedKey {
        to: secret(LAPTOP).agreement().public(),
        which: KeyName::Addressing(KeyId::of(&[1; 32])),
        ephemeral: secret(LAPTOP).agreement().public(),
        ciphertext: [1; 48],
    };
    let large = |count| Revoke { device, generation, sealed: vec![sealed; count] };
    assert!(!refused(&mut phone, large(5).into()));
    assert!(refused(&mut phone, large(100).into()));
    // Nor by a `Rotate` that nobody consented to.
    let (mut forged, other) = (None, secret(20));
    phone.clone().say(|author, rng| {
        let signed = author.rotate(&other, NOON, rng)?;
        forged = read(&signed).ok().map(|(_, body)| body);
        Ok(signed)
    });
    let Some(StatementBody::Rotate(rotate)) = forged else { panic!("it is a Rotate") };
    let sealed = vec![sealed; 100];
    let device = secret(21).id();
    assert!(refused(&mut phone, Rotate { device, sealed, ..rotate }.into()));
}

#[test]
fn a_key_makes_so_many_statements_and_can_be_replaced_then() {
    // Adding up thousands takes long, and only the numbers are asked for.
    let mut laptop = laptop();
    let first = statement_id(laptop.graph.statements().next().unwrap());
    let place = laptop.graph.places[&first];
    laptop.graph.entries[place].seq = KEY_STATEMENTS_MAX - 2;
    laptop.rename(LAPTOP, "desk");
    let denied =
        laptop.try_say(|author, _| author.rename(Some(secret(LAPTOP).id()), name("lap"), NOON));
    assert_eq!(denied, Err(AuthorError::Spent { what: "rename" }));
    laptop.say(|author, rng| author.rotate(&secret(20), NOON, rng));
    let mut renewed = laptop.seen_by(20);
    renewed.rename(20, "lap");
    assert_eq!(renewed.device(20).name, name("lap"));
}

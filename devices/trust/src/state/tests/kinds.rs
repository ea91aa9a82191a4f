//! Kinds of statement that this version does not know.

use weft_protocol::statement::Require;

use super::*;

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

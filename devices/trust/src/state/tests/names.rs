//! Names of devices that would be the same.

use super::*;

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

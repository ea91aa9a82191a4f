//! Who belongs: the devices' secrets, and the statements that make them a fabric.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_protocol::{
    device::{Kind, Role},
    signed::Signed,
    time::WallTime,
};
use weft_trust::{
    author::{Author, NewDevice, NewFabric, genesis},
    graph::Graph,
    keyring::Keyring,
    secret::DeviceSecret,
};

pub(crate) fn secret(n: u8) -> DeviceSecret {
    DeviceSecret::from_seed(&[n; 32])
}

/// The devices' names, in the order of their numbers.
pub(crate) const NAMES: [&str; 5] = ["laptop", "server", "phone", "tablet", "watch"];

/// What makes a fabric of the first devices: those of `admins` and the laptop are admins.
pub(crate) fn statements(count: u8, admins: &[usize]) -> Vec<Signed> {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let laptop = secret(1);
    let new = NewFabric {
        name: &"home".parse().unwrap(),
        root: None,
        device: &laptop,
        device_name: &NAMES[0].parse().unwrap(),
        kind: Kind::Laptop,
    };
    let mut statements = vec![genesis(new, WallTime::default(), &mut rng)];
    for n in 1..count {
        let role = if admins.contains(&n.into()) { Role::Admin } else { Role::Member };
        statements.push(add(&statements, &laptop, n, role));
    }
    statements
}

/// A statement that adds a device.
pub(crate) fn add(statements: &[Signed], by: &DeviceSecret, n: u8, role: Role) -> Signed {
    let mut rng = ChaCha20Rng::from_seed([n; 32]);
    let graph = Graph::from_statements(statements.to_vec()).unwrap();
    let mut keyring = Keyring::new(by.agreement().clone());
    keyring.learn(&graph);
    let device = secret(n + 1);
    let new = NewDevice {
        device: device.id(),
        agreement: device.agreement().public(),
        name: NAMES[usize::from(n)].parse().unwrap(),
        kind: if n == 1 { Kind::Server } else { Kind::Phone },
        role,
        confirmed: true,
    };
    let author = Author::new(&graph, &keyring, by.signing());
    author.add(new, WallTime::default(), &mut rng).unwrap()
}

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use weft_protocol::{
    signed::Signed,
    statement::{Add, Revoke, StatementBody},
};

use super::*;
use crate::{
    author::AuthorError,
    graph::statement_id,
    replica::{NOON, Replica, first, laptop, name, new_device, root, secret},
};

mod membership;
mod names;
mod removal;
mod fork;
mod root;
mod keys;
mod rotation;
mod kinds;
mod graph;
mod properties;

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

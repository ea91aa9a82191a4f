//! The node as a program: its home, its start, and the one loop in which everything meets.

pub(crate) mod anew;
pub(crate) mod home;
pub(crate) mod init;
pub(crate) mod join;
pub(crate) mod lock;
pub(crate) mod memory;
pub(crate) mod newcomer;
pub(crate) mod recover;
pub(crate) mod up;

mod agents;
mod clock;
mod contact;
mod core;
mod embedded;
mod machine;
mod pages;
mod pairing;
mod rest;
mod rotate;
mod speeds;
mod words;

use anyhow::{Context as _, Result};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

/// A generator seeded by the system.
fn entropy() -> Result<ChaCha20Rng> {
    Ok(ChaCha20Rng::from_seed(seed()?))
}

/// Bytes drawn by the system.
fn seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("failed to draw random bytes")?;
    Ok(seed)
}

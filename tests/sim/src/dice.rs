//! Chance, drawn from a seed.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// A stream of draws. Each concern of the world has its own, so that a change to one leaves what the
/// others draw as it was.
#[derive(Clone, Debug)]
pub(crate) struct Dice(ChaCha20Rng);

impl Dice {
    /// The stream of a concern under a seed.
    pub(crate) fn new(seed: u64, concern: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("weft sim dice v1");
        hasher.update(&seed.to_be_bytes()).update(concern.as_bytes());
        Self(ChaCha20Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// A number from `from` up to, but not, `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.0.next_u64() % (to - from).max(1)
    }

    /// An index below `len`.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        (self.0.next_u64() % len.max(1) as u64) as usize
    }

    /// Whether something happens that happens so often of a hundred times.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// Bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// The stream itself, for who draws keys.
    pub(crate) fn rng(&mut self) -> &mut ChaCha20Rng {
        &mut self.0
    }
}

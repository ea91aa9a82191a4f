//! Changes to inputs, drawn from a seed.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Longer inputs are cut: what is long is refused by its length before anything else.
const INPUT_BYTES_MAX: usize = 16 << 10;

/// Bytes at which formats turn: heads of CBOR items, ends of JSON and text, signs and carries.
const TURNS: &[u8] = &[
    0x00, 0x01, 0x17, 0x18, 0x1b, 0x1f, 0x20, 0x3b, 0x40, 0x58, 0x5b, 0x5f, 0x60, 0x7b, 0x7f, 0x80,
    0x81, 0x9b, 0x9f, 0xa0, 0xa1, 0xbb, 0xbf, 0xc0, 0xf4, 0xf5, 0xf6, 0xf7, 0xfb, 0xff, b'"', b'{',
    b'}', b'[', b']', b'\\', b'\n', b' ', b':', b'0', b'9', b'A',
];

/// Draws one input after the other.
pub(crate) struct Mutator {
    rng: ChaCha8Rng,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u32::try_from(end.max(1)).unwrap_or(u32::MAX);
        (self.rng.next_u32() % end) as usize
    }

    /// An input of the corpus with one to six changes, or now and then bytes by chance.
    pub(crate) fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        if self.below(50) == 0 {
            let len = self.below(200);
            return (0..len).map(|_| self.rng.next_u32() as u8).collect();
        }
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut input, corpus);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len());
        let len = 1 + self.below(16);
        let end = (at + len).min(input.len());
        match self.below(10) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = TURNS[self.below(TURNS.len())],
            2 if !input.is_empty() => input[at] = input[at].wrapping_add(1),
            3 if !input.is_empty() => input[at] = input[at].wrapping_sub(1),
            4 => {
                let at = self.below(input.len() + 1);
                input.insert(at, TURNS[self.below(TURNS.len())]);
            }
            5 => drop(input.drain(at..end)),
            6 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            7 => input.truncate(at),
            8 => {
                // A piece of another: one type's field in another's place.
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len());
                let to = (from + 1 + self.below(64)).min(other.len());
                let piece = other[from.min(to)..to].to_vec();
                input.splice(at..end, piece);
            }
            _ => {
                let byte = self.rng.next_u32() as u8;
                for slot in &mut input[at..end] {
                    *slot = byte;
                }
            }
        }
    }
}

//! The key exchange under a short code: SPAKE2, each side once.
//!
//! Two sides with one code get one key; with two codes they get two, and neither learns more than
//! that its guess was wrong. Both endpoints' names are in the key, so a share that is carried
//! between other ends is of no use. The library confirms no key: the proofs of the pairing do.
//!
//! The library, `spake2`, is a pre-release that nobody independent has audited, and it says of itself
//! that it is probably not constant-time: who measures this process closely may learn something of
//! a code that is good for two minutes and one guess.

use std::fmt;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use weft_protocol::{id::EndpointId, pairing::Share, ticket::TicketSecret};
use zeroize::Zeroizing;

use super::code::Code;

type Half = Spake2<Ed25519Group>;

/// One side's half of an exchange.
pub(super) struct Exchange(Half);

impl Exchange {
    /// The joiner's half, and its share. `seed` is drawn for it alone.
    pub(super) fn joiner(
        code: &Code,
        joiner: &EndpointId,
        inviter: &EndpointId,
        seed: &[u8; 32],
    ) -> (Self, Share) {
        Self::begin(code, joiner, inviter, seed, Spake2::start_a_with_rng)
    }

    /// The inviter's half, and its share.
    pub(super) fn inviter(
        code: &Code,
        joiner: &EndpointId,
        inviter: &EndpointId,
        seed: &[u8; 32],
    ) -> (Self, Share) {
        Self::begin(code, joiner, inviter, seed, Spake2::start_b_with_rng)
    }

    fn begin(
        code: &Code,
        joiner: &EndpointId,
        inviter: &EndpointId,
        seed: &[u8; 32],
        start: impl FnOnce(&Password, &Identity, &Identity, ChaCha20Rng) -> (Half, Vec<u8>),
    ) -> (Self, Share) {
        let named = |side: &str, id: &EndpointId| {
            Identity::new(&[b"weft pairing code v1 ", side.as_bytes(), id.as_bytes()].concat())
        };
        let (joiner, inviter) = (named("joiner ", joiner), named("inviter ", inviter));
        let rng = ChaCha20Rng::from_seed(*seed);
        let password = Password::new(code.password().as_bytes());
        let (half, share) = start(&password, &joiner, &inviter, rng);
        let share = share.try_into().expect("a side and a point are 33 bytes");
        (Self(half), Share::from_bytes(share))
    }

    /// The key, where the other's share is one.
    pub(super) fn finish(self, theirs: &Share) -> Option<TicketSecret> {
        let key = Zeroizing::new(self.0.finish(theirs.as_bytes()).ok()?);
        let key = Zeroizing::new(blake3::derive_key("weft pairing code key v1", &key));
        Some(TicketSecret::from_bytes(key[..16].try_into().expect("16 of 32 bytes")))
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JOINER: EndpointId = EndpointId::from_bytes([2; 32]);
    const INVITER: EndpointId = EndpointId::from_bytes([1; 32]);
    const OTHER: EndpointId = EndpointId::from_bytes([3; 32]);

    fn code(drawn: u8) -> Code {
        Code::new(&INVITER, [drawn; 8])
    }

    #[test]
    fn one_code_gives_one_key_to_these_two_ends_alone() {
        let keys = |theirs: &Code, (joiner, inviter): (&EndpointId, &EndpointId)| {
            let (a, share_a) = Exchange::joiner(&code(9), &JOINER, &INVITER, &[1; 32]);
            let (b, share_b) = Exchange::inviter(theirs, joiner, inviter, &[2; 32]);
            (a.finish(&share_b), b.finish(&share_a))
        };
        let (ours, theirs) = keys(&code(9), (&JOINER, &INVITER));
        assert!(ours.is_some() && ours == theirs);
        for (code, ends) in [
            (code(10), (&JOINER, &INVITER)),
            (code(9), (&OTHER, &INVITER)),
            (code(9), (&JOINER, &OTHER)),
        ] {
            let (ours, theirs) = keys(&code, ends);
            assert_ne!(ours, theirs);
        }
    }

    #[test]
    fn an_own_share_that_comes_back_gives_no_key() {
        let (a, share) = Exchange::joiner(&code(9), &JOINER, &INVITER, &[1; 32]);
        assert_eq!(a.finish(&share), None);
    }

    #[test]
    fn neither_half_shows_its_secret() {
        let (a, _) = Exchange::joiner(&code(9), &JOINER, &INVITER, &[1; 32]);
        assert_eq!(format!("{a:?}"), "Exchange(..)");
    }

    proptest! {
        #[test]
        fn survives_arbitrary_shares(bytes in proptest::array::uniform32(any::<u8>()), side: u8) {
            let mut share = [side; 33];
            share[1..].copy_from_slice(&bytes);
            let (b, _) = Exchange::inviter(&code(9), &JOINER, &INVITER, &[2; 32]);
            let _key = b.finish(&Share::from_bytes(share));
        }
    }
}

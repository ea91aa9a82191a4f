//! Recovery: a person gets back in with 24 words.
//!
//! The [`words`] are the root's keys, which outrank all devices. A machine that has nothing else
//! proves to any device that it holds them, and is given all statements ([`fetch`]); as the root
//! it then says who is out, who stays, and that this machine is a device ([`speech`]).
//!
//! What the root says needs no device to take it: a home that holds the statements is a device of
//! the fabric, and proves so to whomever it meets. So a recovery that is interrupted has happened
//! whole, or not at all.

pub mod fetch;
pub mod speech;
pub mod words;

use ed25519_dalek::SigningKey;
use weft_protocol::{
    id::DeviceId,
    signed::{Domain, Signed},
    statement::{RECOVERY_PROOF_BYTES_MAX, RecoveryProof},
};

pub use self::words::{RootSecret, WORD_COUNT, WordsError, four_words};

/// Proves to the device `to` that `from` holds the words of the root's key.
fn prove(root: &SigningKey, from: DeviceId, to: DeviceId) -> Signed {
    Signed::new(Domain::Recovery, &RecoveryProof { from, to }, root)
}

/// Whether the device `from` has proved to the device `to` that it holds the words of `root`.
pub(crate) fn proves(proof: &Signed, root: DeviceId, from: DeviceId, to: DeviceId) -> bool {
    let expected = RecoveryProof { from, to };
    // The author first: signatures of others cost nothing.
    proof.author == root
        && proof
            .open::<RecoveryProof>(Domain::Recovery, RECOVERY_PROOF_BYTES_MAX)
            .is_ok_and(|proof| proof == expected)
}

#[cfg(test)]
mod tests;

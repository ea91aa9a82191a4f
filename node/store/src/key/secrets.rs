//! What a node keeps secret about itself.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::KeyError;

/// The key of one device's store. It never leaves the device.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct StoreKey([u8; 32]);

impl StoreKey {
    /// The bytes; the caller wipes what it copies.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for StoreKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(..)")
    }
}

/// What a node keeps secret about itself. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secrets {
    /// Opens the store.
    pub store_key: StoreKey,
    /// The Ed25519 seed of the device key.
    pub device_seed: [u8; 32],
}

impl Secrets {
    /// Draws both from the system.
    ///
    /// # Errors
    ///
    /// The system has no randomness to give.
    pub fn generate() -> Result<Self, KeyError> {
        let mut secrets = Self { store_key: StoreKey([0; 32]), device_seed: [0; 32] };
        for bytes in [&mut secrets.store_key.0, &mut secrets.device_seed] {
            fill(bytes)?;
        }
        Ok(secrets)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// Fills `bytes` from the system.
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(bytes).map_err(|error| KeyError::Entropy { why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secrets = Secrets { store_key: StoreKey([7; 32]), device_seed: [9; 32] };
        assert_eq!(format!("{secrets:?}"), "Secrets(..)");
        assert_eq!(format!("{:?}", StoreKey([7; 32])), "StoreKey(..)");
    }

    #[test]
    fn no_two_devices_draw_the_same() {
        let (one, two) = (Secrets::generate().unwrap(), Secrets::generate().unwrap());
        assert_ne!(one.store_key, two.store_key);
        assert_ne!(one.device_seed, two.device_seed);
        assert_ne!(one.store_key.as_bytes(), &one.device_seed);
    }
}

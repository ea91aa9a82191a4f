//! Secrets of one device: they are handed in, used here, and wiped when dropped.

use std::fmt;

use ed25519_dalek::SigningKey;
use weft_protocol::id::{AgreementKey, DeviceId};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// An X25519 secret key, to whose public half keys of the fabric are sealed.
#[derive(Clone)]
pub struct AgreementSecret(StaticSecret);

impl AgreementSecret {
    /// Derives the key of an Ed25519 seed under `label`, which belongs to this use alone.
    pub(crate) fn derive(label: &str, seed: &[u8; 32]) -> Self {
        let derived = Zeroizing::new(blake3::derive_key(label, seed));
        Self(StaticSecret::from(*derived))
    }

    /// Takes drawn bytes.
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(StaticSecret::from(bytes))
    }

    /// The public half.
    pub fn public(&self) -> AgreementKey {
        AgreementKey::from_bytes(PublicKey::from(&self.0).to_bytes())
    }

    /// The secret shared with `other`; none for the few public keys that share it with everybody.
    pub(crate) fn shared(&self, other: &AgreementKey) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*other.as_bytes()));
        shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
    }
}

impl fmt::Debug for AgreementSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgreementSecret(..)")
    }
}

/// A device's keys, all from one seed.
#[derive(Clone)]
pub struct DeviceSecret {
    signing: SigningKey,
    agreement: AgreementSecret,
}

impl DeviceSecret {
    /// Derives the keys. The seed is the Ed25519 one, so it gives the libp2p identity too.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self {
            signing: SigningKey::from_bytes(seed),
            agreement: AgreementSecret::derive("weft device agreement v1", seed),
        }
    }

    /// The device.
    pub fn id(&self) -> DeviceId {
        DeviceId::from_bytes(self.signing.verifying_key().to_bytes())
    }

    /// Signs for the device.
    pub const fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// Opens what is sealed to the device.
    pub const fn agreement(&self) -> &AgreementSecret {
        &self.agreement
    }
}

impl fmt::Debug for DeviceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceSecret({})", self.id().short())
    }
}

//! Signed bytes, kept and forwarded exactly as they came.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::{
    codec::{self, DecodeError},
    id::{DeviceId, Digest},
};

/// What a signature is for. A signature made under one label never passes under another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    /// A statement of the trust graph.
    Statement,
    /// Proof in a pairing.
    Pairing,
    /// Proof of the recovery words.
    Recovery,
    /// That a device made changes to a document.
    Vouch,
    /// The deletion of a document.
    Tombstone,
    /// A presence record.
    Presence,
    /// An audit record.
    Audit,
    /// The newest record of an audit chain, by whose chain it is.
    Head,
    /// A countersignature of an audit head.
    Witness,
    /// A person's yes.
    Consent,
    /// A policy bundle.
    Policy,
}

impl Domain {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Statement => b"weft statement v1",
            Self::Pairing => b"weft pairing v1",
            Self::Recovery => b"weft recovery v1",
            Self::Vouch => b"weft vouch v1",
            Self::Tombstone => b"weft tombstone v1",
            Self::Presence => b"weft presence v1",
            Self::Audit => b"weft audit v1",
            Self::Head => b"weft head v1",
            Self::Witness => b"weft witness v1",
            Self::Consent => b"weft consent v1",
            Self::Policy => b"weft policy v1",
        }
    }

    /// What is given to Ed25519: the label, its end, the bytes.
    fn message(self, bytes: &[u8]) -> Vec<u8> {
        [self.label(), &[0], bytes].concat()
    }
}

/// Why signed bytes are not to be believed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SignedError {
    /// The author is not a key, or the signature is not its.
    #[error("verify the signature of {author:?}")]
    Forged {
        /// Who is said to have signed.
        author: DeviceId,
    },
    /// Signed, but not what was expected.
    #[error("read signed bytes")]
    Decode(#[from] DecodeError),
}

/// Bytes, their author and its signature over them under a [`Domain`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Signed {
    /// What was signed, never encoded anew.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// Who signed.
    #[n(1)]
    pub author: DeviceId,
    /// Ed25519 (RFC 8032), checked strictly.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl Signed {
    /// Encodes and signs `value`.
    pub fn new<T: Encode<()>>(domain: Domain, value: &T, key: &SigningKey) -> Self {
        Self::from_bytes(domain, codec::encode(value), key)
    }

    /// Signs bytes that are encoded already.
    pub fn from_bytes(domain: Domain, bytes: Vec<u8>, key: &SigningKey) -> Self {
        let signature = key.sign(&domain.message(&bytes)).to_bytes();
        Self { bytes, author: DeviceId::from_bytes(key.verifying_key().to_bytes()), signature }
    }

    /// Checks the signature, then decodes.
    ///
    /// # Errors
    ///
    /// Forged, or not a `T` of at most `max` bytes.
    pub fn open<'b, T: Decode<'b, ()>>(
        &'b self,
        domain: Domain,
        max: usize,
    ) -> Result<T, SignedError> {
        self.verify(domain)?;
        Ok(codec::decode(&self.bytes, max)?)
    }

    /// Checks the signature alone.
    ///
    /// # Errors
    ///
    /// The author is not a key, or the signature is not its.
    pub fn verify(&self, domain: Domain) -> Result<(), SignedError> {
        let forged = SignedError::Forged { author: self.author };
        let key = VerifyingKey::from_bytes(self.author.as_bytes()).map_err(|_| forged.clone())?;
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&domain.message(&self.bytes), &signature).map_err(|_| forged)
    }

    /// The BLAKE3 hash of author and bytes, by which others refer to this.
    ///
    /// The signature is left out: Ed25519 lets an author sign the same bytes in several ways.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.author.as_bytes()).update(&self.bytes);
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_as_it_was_signed() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let signed = Signed::new(Domain::Vouch, &7u64, &key);
        assert_eq!(signed.open::<u64>(Domain::Vouch, 16), Ok(7));
        assert!(matches!(
            signed.open::<u64>(Domain::Presence, 16),
            Err(SignedError::Forged { .. })
        ));
        let mut changed = signed;
        changed.bytes = codec::encode(&8u64);
        assert!(changed.verify(Domain::Vouch).is_err());
    }
}

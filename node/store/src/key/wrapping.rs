//! What stands between the secrets and whoever has the disk.
//!
//! Wrapped secrets are `nonce[24] ‖ XChaCha20-Poly1305(secrets)` under a [`WrappingKey`], with the
//! file's version, kind and parameters as associated data: none of them can be changed by
//! themselves. Where the key comes from is the kind's own affair ([`passphrase`](super::passphrase),
//! [`keychain`](super::keychain), [`credential`](super::credential)).

use std::fmt;

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{AeadInOut as _, KeyInit as _},
};
use minicbor::{Decode, Encode};
use weft_protocol::codec;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{KeyError, secrets::fill};

/// A kind's parameters have some 30 bytes at most.
const PARAMETERS_LEN_MAX: usize = 128;

const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

/// How the secrets of a device are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeping {
    /// In a file that only this user may read, wrapped by nothing.
    File,
    /// Under a passphrase that a person types.
    Passphrase,
    /// Under a key that lies in the system's keychain.
    Keychain,
    /// Under a secret that systemd hands to the service.
    Credential,
}

impl Keeping {
    const ALL: [Self; 4] = [Self::File, Self::Passphrase, Self::Keychain, Self::Credential];

    /// The number that stands for it in the file.
    pub(super) const fn number(self) -> u64 {
        match self {
            Self::File => 0,
            Self::Passphrase => 1,
            Self::Keychain => 2,
            Self::Credential => 3,
        }
    }

    /// What a number stands for.
    pub(super) fn numbered(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|keeping| keeping.number() == number)
    }

    /// For status and standard error, to stand after `keys: `.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::File => "file (whoever has the disk reads all)",
            Self::Passphrase => "passphrase (asked for at each start; weft lock)",
            Self::Keychain => "keychain (whoever is logged in as this user)",
            Self::Credential => "systemd credential (whoever runs this service)",
        }
    }
}

impl fmt::Display for Keeping {
    /// What wraps the secrets, to stand after "wrapped by".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::File => "nothing",
            Self::Passphrase => "a passphrase",
            Self::Keychain => "the system's keychain",
            Self::Credential => "a systemd credential",
        })
    }
}

/// The key that opens wrapped secrets. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct WrappingKey([u8; 32]);

impl WrappingKey {
    /// The bytes; the caller wipes what it copies.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for WrappingKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrappingKey(..)")
    }
}

/// How secrets are wrapped, with the key that does it: none for [`Keeping::File`] alone.
#[derive(Clone, Debug)]
pub struct Wrapping {
    keeping: Keeping,
    parameters: Vec<u8>,
    key: Option<WrappingKey>,
}

impl Wrapping {
    /// Nothing: whoever has the disk reads all.
    pub const fn file() -> Self {
        Self { keeping: Keeping::File, parameters: Vec::new(), key: None }
    }

    /// A kind with a key, and with what it needs to find that key again.
    pub(super) const fn keyed(keeping: Keeping, parameters: Vec<u8>, key: WrappingKey) -> Self {
        Self { keeping, parameters, key: Some(key) }
    }

    /// How the secrets are kept.
    pub const fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// The key that opens them; `None` for [`Keeping::File`].
    pub const fn key(&self) -> Option<&WrappingKey> {
        self.key.as_ref()
    }

    pub(super) fn parameters(&self) -> &[u8] {
        &self.parameters
    }

    /// Wraps `plain`. A nonce is random; 192 bits never repeat in the few times that a file is written.
    pub(super) fn seal(&self, version: u64, plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        let Some(key) = &self.key else { return Ok(plain.to_vec()) };
        let mut nonce = XNonce::default();
        fill(&mut nonce)?;
        // The room for the tag is there from the start, so that growing leaves no copy behind.
        let mut buffer = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_LEN));
        buffer.extend_from_slice(plain);
        XChaCha20Poly1305::new((&key.0).into())
            .encrypt_in_place(&nonce, &self.bound(version), &mut *buffer)
            .map_err(|_| KeyError::Entropy { why: "the cipher refused".to_owned() })?;
        Ok([&nonce[..], &buffer].concat())
    }

    /// Unwraps what [`Self::seal`] gave. `None`: another key, or something was changed.
    pub(super) fn open(&self, version: u64, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let Some(key) = &self.key else { return Some(Zeroizing::new(sealed.to_vec())) };
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        XChaCha20Poly1305::new((&key.0).into())
            .decrypt_in_place(&XNonce::from(*nonce), &self.bound(version), &mut *buffer)
            .ok()?;
        Some(buffer)
    }

    /// What the wrapped secrets are bound to.
    fn bound(&self, version: u64) -> Vec<u8> {
        codec::encode(&Bound {
            version,
            kind: self.keeping.number(),
            parameters: self.parameters.clone(),
        })
    }
}

/// Reads what a kind wrote down to find its key again.
pub(super) fn parameters<P: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<P, KeyError> {
    codec::decode(bytes, PARAMETERS_LEN_MAX).map_err(|source| KeyError::Parameters { source })
}

/// All of the file but its secrets, under the same numbers.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Bound {
    #[n(0)]
    version: u64,
    #[n(1)]
    kind: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    parameters: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapping(byte: u8, parameters: &[u8]) -> Wrapping {
        Wrapping::keyed(Keeping::Passphrase, parameters.to_vec(), WrappingKey([byte; 32]))
    }

    #[test]
    fn only_the_same_key_version_kind_and_parameters_open() {
        let ours = wrapping(1, b"salt");
        let sealed = ours.seal(1, b"secret").unwrap();
        assert_eq!(ours.open(1, &sealed).unwrap().as_slice(), b"secret");
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_ne!(sealed, ours.seal(1, b"secret").unwrap(), "a nonce is never used twice");
        assert!(wrapping(2, b"salt").open(1, &sealed).is_none());
        assert!(wrapping(1, b"malt").open(1, &sealed).is_none());
        assert!(ours.open(2, &sealed).is_none());
        let other = Wrapping::keyed(Keeping::Credential, b"salt".to_vec(), WrappingKey([1; 32]));
        assert!(other.open(1, &sealed).is_none());
    }

    #[test]
    fn no_changed_or_missing_byte_opens() {
        let ours = wrapping(1, b"salt");
        let sealed = ours.seal(1, b"secret").unwrap();
        for at in 0..sealed.len() {
            assert!(ours.open(1, &sealed[..at]).is_none(), "{at} bytes");
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(ours.open(1, &changed).is_none(), "byte {at}");
        }
    }

    #[test]
    fn numbers_stand_for_kinds() {
        for (number, keeping) in Keeping::ALL.into_iter().enumerate() {
            assert_eq!(keeping.number(), number as u64);
            assert_eq!(Keeping::numbered(keeping.number()), Some(keeping));
        }
        assert_eq!(Keeping::numbered(4), None);
        assert_eq!(format!("{:?}", wrapping(1, b"").key().unwrap()), "WrappingKey(..)");
    }
}

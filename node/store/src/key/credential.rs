//! A secret that systemd hands to the service: `LoadCredential=` puts it into a folder that only the
//! service reads, and takes it away at its end.
//!
//! The parameters are deterministic CBOR: `{0: salt[16]}`.

use std::{fmt, fs::File, io::Read as _, path::Path};

use minicbor::{Decode, Encode};
use weft_protocol::codec;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{
    KeyError,
    secrets::fill,
    wrapping::{self, Keeping, Wrapping, WrappingKey},
};

/// The credential's name: the file in the service's credentials folder.
pub const NAME: &str = "weft";

/// The environment's variable in which systemd says where that folder is.
pub const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// As many bytes as the key that is made of it: it is drawn by a machine, not thought of by a person.
pub const LEN_MIN: usize = 32;
/// More is no key that anybody drew.
pub const LEN_MAX: usize = 64 * 1024;

const CONTEXT: &str = "weft key file v1: systemd credential";
const SALT_LEN: usize = 16;

/// The secret. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Credential(Vec<u8>);

impl Credential {
    /// Reads it from a credentials folder.
    ///
    /// # Errors
    ///
    /// It is not there, or has fewer than [`LEN_MIN`] or more than [`LEN_MAX`] bytes.
    pub fn read(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join(NAME);
        let mut bytes = Zeroizing::new(Vec::with_capacity(LEN_MAX + 1));
        File::open(&path)
            .and_then(|file| file.take(LEN_MAX as u64 + 1).read_to_end(&mut bytes))
            .map_err(|source| KeyError::Credential { path: path.clone(), source })?;
        if !(LEN_MIN..=LEN_MAX).contains(&bytes.len()) {
            return Err(KeyError::WeakCredential { path, len: bytes.len() });
        }
        Ok(Self(bytes.to_vec()))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Parameters {
    #[cbor(n(0), with = "minicbor::bytes")]
    salt: [u8; SALT_LEN],
}

impl Wrapping {
    /// A key made of `credential`.
    ///
    /// # Errors
    ///
    /// The system has no randomness to give.
    pub fn credential(credential: &Credential) -> Result<Self, KeyError> {
        let mut salt = [0; SALT_LEN];
        fill(&mut salt)?;
        let parameters = codec::encode(&Parameters { salt });
        Ok(Self::keyed(Keeping::Credential, parameters, derive(&salt, credential)))
    }
}

/// The key that `parameters` make of a credential.
pub(super) fn key(parameters: &[u8], credential: &Credential) -> Result<WrappingKey, KeyError> {
    let Parameters { salt } = wrapping::parameters(parameters)?;
    Ok(derive(&salt, credential))
}

fn derive(salt: &[u8], credential: &Credential) -> WrappingKey {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(salt).update(&credential.0);
    WrappingKey::from(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_same_credential_makes_the_same_key_and_no_other_does() {
        let folder = tempfile::tempdir().unwrap();
        let write = |bytes: &[u8]| fs::write(folder.path().join(NAME), bytes).unwrap();
        write(&[7; 32]);
        let made = Wrapping::credential(&Credential::read(folder.path()).unwrap()).unwrap();
        let found = || key(made.parameters(), &Credential::read(folder.path()).unwrap());
        assert_eq!(Some(&found().unwrap()), made.key());
        write(&[8; 32]);
        assert_ne!(Some(&found().unwrap()), made.key());
    }

    #[test]
    fn one_that_is_missing_or_short_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Credential::read(folder.path()).unwrap_err();
        assert!(matches!(missing, KeyError::Credential { .. }), "{missing}");
        for len in [0, 31, LEN_MAX + 1] {
            fs::write(folder.path().join(NAME), vec![1; len]).unwrap();
            let weak = Credential::read(folder.path()).unwrap_err();
            assert!(matches!(weak, KeyError::WeakCredential { .. }), "{len}: {weak}");
        }
        assert_eq!(format!("{:?}", Credential(vec![1])), "Credential(..)");
    }
}

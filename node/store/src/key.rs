//! The store key, and the file that holds a node's secrets.
//!
//! The file is deterministic CBOR: `{0: version, 1: kind, 2: secrets, 3: parameters}`. `secrets`
//! are the bytes of `{0: store key, 1: device seed, 2: next device seed}`, wrapped as `kind` says;
//! `parameters` are bytes that only that kind reads. Kind 0, `file`, wraps nothing and has no
//! parameters. The next device seed is there only while one key takes another's place.
//!
//! One walk: [`Wrapping`] says how a new file is to be kept, and [`KeyFile::create`] writes it.
//! [`LockedFile::read`] reads one without opening it; a passphrase or credential makes its
//! [`WrappingKey`], and [`LockedFile::open`] gives the [`KeyFile`] with the [`Secrets`]. From then on
//! each change is a whole new file in the old one's place.

use std::{
    io,
    path::{Path, PathBuf},
};

use minicbor::{Decode, Encode};
use thiserror::Error;
use weft_protocol::codec::{self, DecodeError};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

mod secrets;
mod wrapping;

pub mod credential;
pub mod keychain;
pub mod passphrase;

mod file;

pub use self::{
    credential::Credential,
    keychain::Keychain,
    passphrase::{Cost, Passphrase},
    secrets::{Secrets, StoreKey},
    wrapping::{Keeping, Wrapping, WrappingKey},
};
pub(crate) use file::{parent, sync_parent};

/// The format that this version writes.
const VERSION: u64 = 1;

/// Why a key file can't be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It can't be made, read or written.
    #[error("use the key file {}", path.display())]
    Io {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others on this machine may read it.
    #[error("read the key file {path}: others can read it (mode {mode:o}); run `chmod 600 {path}`", path = path.display())]
    Exposed {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not a key file, or a damaged one.
    #[error("read the key file {}: it is damaged", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A later format.
    #[error("read the key file {}: it was made by a newer weft (format {version})", path.display())]
    Newer {
        /// Where it is.
        path: PathBuf,
        /// Its format.
        version: u64,
    },
    /// Wrapped by something that this version does not know.
    #[error("read the key file {}: this home's key is wrapped by a kind that this version does not know ({kind})", path.display())]
    Unknown {
        /// Where it is.
        path: PathBuf,
        /// The kind's number.
        kind: u64,
    },
    /// Wrapped, and no key was given.
    #[error("open the key file {}: it is wrapped by {by}", path.display())]
    Locked {
        /// Where it is.
        path: PathBuf,
        /// What wraps it.
        by: Keeping,
    },
    /// The key given does not open it.
    #[error("open the key file {}: {}", path.display(), wrong(*by))]
    Wrong {
        /// Where it is.
        path: PathBuf,
        /// What wraps it.
        by: Keeping,
    },
    /// What the kind needs to find the key is damaged.
    #[error("read the key file's parameters: they are damaged")]
    Parameters {
        /// What is wrong with them.
        source: DecodeError,
    },
    /// The file asks for more than any file of this program does.
    #[error("derive the key: the key file asks for {} MiB of memory, {} times over, which no weft has written", cost.memory_kib / 1024, cost.passes)]
    TooCostly {
        /// What it asks for.
        cost: Cost,
    },
    /// The passphrase can't be made into a key.
    #[error("derive the key: {why}")]
    Derive {
        /// What Argon2 says.
        why: String,
    },
    /// Too short to be a new passphrase.
    #[error("take the passphrase: it has fewer than {} characters", passphrase::CHARS_MIN)]
    WeakPassphrase,
    /// The credential can't be read.
    #[error("read the credential {}", path.display())]
    Credential {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The credential is no secret that a machine drew.
    #[error("take the credential {}: it has {len} bytes, and {} to {} are taken", path.display(), credential::LEN_MIN, credential::LEN_MAX)]
    WeakCredential {
        /// Where it is.
        path: PathBuf,
        /// How many it has; of more than [`credential::LEN_MAX`] only that it has more.
        len: usize,
    },
    /// There is no keychain, or it does not do what it should.
    #[error("use the system's keychain: {why}")]
    Keychain {
        /// What it says.
        why: String,
    },
    /// There is no next device seed to adopt.
    #[error("adopt the next device key: none was proposed")]
    NoNext,
    /// No randomness.
    #[error("make keys: the system gives no randomness: {why}")]
    Entropy {
        /// What the system says.
        why: String,
    },
}

/// A key that does not open and a file that was changed look the same.
const fn wrong(by: Keeping) -> &'static str {
    match by {
        Keeping::File => "it is damaged",
        Keeping::Passphrase => "the passphrase is wrong, or the file was changed",
        Keeping::Keychain => "the keychain's key is another, or the file was changed",
        Keeping::Credential => "the credential is another, or the file was changed",
    }
}

#[derive(Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    version: u64,
    #[n(1)]
    kind: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    secrets: Vec<u8>,
    #[cbor(n(3), with = "minicbor::bytes")]
    parameters: Vec<u8>,
}

#[derive(Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(map)]
struct WireSecrets {
    #[cbor(n(0), with = "minicbor::bytes")]
    store_key: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    device_seed: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    next_seed: Option<[u8; 32]>,
}

/// A key file that was read and not opened.
#[derive(Debug)]
pub struct LockedFile {
    path: PathBuf,
    keeping: Keeping,
    version: u64,
    parameters: Vec<u8>,
    secrets: Zeroizing<Vec<u8>>,
}

impl LockedFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// It is not there, others can read it, it is damaged, newer, or of a kind that nobody knows.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let bytes = file::read(path)?;
        let damaged = |source| KeyError::Damaged { path: path.to_owned(), source };
        let mut wire: Wire = codec::decode(&bytes, file::LEN_MAX).map_err(damaged)?;
        if wire.version > VERSION {
            return Err(KeyError::Newer { path: path.to_owned(), version: wire.version });
        }
        let unknown = || KeyError::Unknown { path: path.to_owned(), kind: wire.kind };
        Ok(Self {
            path: path.to_owned(),
            keeping: Keeping::numbered(wire.kind).ok_or_else(unknown)?,
            version: wire.version,
            parameters: std::mem::take(&mut wire.parameters),
            secrets: Zeroizing::new(std::mem::take(&mut wire.secrets)),
        })
    }

    /// How the secrets are kept.
    pub const fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// The key that a passphrase makes: half a second to a second, whether it is right or wrong.
    ///
    /// # Errors
    ///
    /// The file is kept in another way, damaged, or asks for too much.
    pub fn key_of_passphrase(&self, passphrase: &Passphrase) -> Result<WrappingKey, KeyError> {
        self.expect(Keeping::Passphrase)?;
        passphrase::key(&self.parameters, passphrase)
    }

    /// The key that a credential makes.
    ///
    /// # Errors
    ///
    /// The file is kept in another way, or damaged.
    pub fn key_of_credential(&self, credential: &Credential) -> Result<WrappingKey, KeyError> {
        self.expect(Keeping::Credential)?;
        credential::key(&self.parameters, credential)
    }

    /// The key that lies in a keychain.
    ///
    /// # Errors
    ///
    /// The file is kept in another way, or damaged, or the keychain does not give the key.
    pub fn key_of_keychain(&self, keychain: &Keychain) -> Result<WrappingKey, KeyError> {
        self.expect(Keeping::Keychain)?;
        keychain::key(&self.parameters, keychain)
    }

    /// Takes the key out of a keychain: for a file that is no more.
    ///
    /// # Errors
    ///
    /// As [`Self::key_of_keychain`].
    pub fn forget_in_keychain(&self, keychain: &Keychain) -> Result<(), KeyError> {
        self.expect(Keeping::Keychain)?;
        keychain::forget(&self.parameters, keychain)
    }

    fn expect(&self, keeping: Keeping) -> Result<(), KeyError> {
        if self.keeping == keeping { Ok(()) } else { Err(self.locked()) }
    }

    fn locked(&self) -> KeyError {
        KeyError::Locked { path: self.path.clone(), by: self.keeping }
    }

    /// Opens it; a file that is wrapped by nothing needs no key.
    ///
    /// # Errors
    ///
    /// [`KeyError::Locked`] without the key that it needs, [`KeyError::Wrong`] with another one; or what
    /// is inside is damaged.
    pub fn open(&self, key: Option<WrappingKey>) -> Result<KeyFile, KeyError> {
        let parameters = self.parameters.clone();
        let wrapping = match (self.keeping, key) {
            (Keeping::File, _) => Wrapping::file(),
            (keeping, Some(key)) => Wrapping::keyed(keeping, parameters, key),
            (Keeping::Passphrase | Keeping::Keychain | Keeping::Credential, None) => {
                return Err(self.locked());
            }
        };
        let wrong = || KeyError::Wrong { path: self.path.clone(), by: self.keeping };
        let plain = wrapping.open(self.version, &self.secrets).ok_or_else(wrong)?;
        let damaged = |source| KeyError::Damaged { path: self.path.clone(), source };
        let inner: WireSecrets = codec::decode(&plain, file::LEN_MAX).map_err(damaged)?;
        Ok(KeyFile {
            path: self.path.clone(),
            wrapping,
            secrets: Secrets {
                store_key: StoreKey::from(inner.store_key),
                device_seed: inner.device_seed,
            },
            next_seed: inner.next_seed.map(Zeroizing::new),
        })
    }
}

/// An opened key file. Each change is on the disk when it returns; if it fails, the file is what it was,
/// or already what it should become.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    wrapping: Wrapping,
    secrets: Secrets,
    next_seed: Option<Zeroizing<[u8; 32]>>,
}

impl KeyFile {
    /// Writes `secrets`, wrapped, to a new file of mode 0600, on disk when this returns.
    ///
    /// # Errors
    ///
    /// Something is at `path` already, or the disk refuses; what was begun is then removed.
    pub fn create(path: &Path, secrets: Secrets, wrapping: Wrapping) -> Result<Self, KeyError> {
        let made = Self { path: path.to_owned(), wrapping, secrets, next_seed: None };
        let bytes = encoded(&made.wrapping, &made.secrets, None)?;
        file::create(path, &bytes).map_err(|source| made.io(source))?;
        Ok(made)
    }

    /// Reads the file at `path`, which is wrapped by nothing.
    ///
    /// # Errors
    ///
    /// It is not there, others can read it, it is damaged, newer, or wrapped.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        LockedFile::read(path)?.open(None)
    }

    /// What the file holds.
    pub const fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The seed that is to take the device seed's place, while there is one.
    pub fn next_seed(&self) -> Option<&[u8; 32]> {
        self.next_seed.as_deref()
    }

    /// How the secrets are kept.
    pub const fn keeping(&self) -> Keeping {
        self.wrapping.keeping()
    }

    /// How the secrets are kept, in words for status and stderr, to stand after `keys: `.
    pub const fn describe(&self) -> &'static str {
        self.keeping().describe()
    }

    /// Keeps the same secrets in another way from now on.
    ///
    /// # Errors
    ///
    /// The disk or the system's randomness refuses.
    pub fn rewrap(&mut self, wrapping: Wrapping) -> Result<(), KeyError> {
        self.write(&wrapping, &self.secrets, self.next_seed.as_deref())?;
        self.wrapping = wrapping;
        Ok(())
    }

    /// Puts a seed beside the device seed, which is to take its place; one that was proposed before is
    /// forgotten. After a crash [`Self::next_seed`] has it, and whoever proposed it decides.
    ///
    /// # Errors
    ///
    /// The disk or the system's randomness refuses.
    pub fn propose_next(&mut self, seed: [u8; 32]) -> Result<(), KeyError> {
        let seed = Zeroizing::new(seed);
        self.write(&self.wrapping, &self.secrets, Some(&*seed))?;
        self.next_seed = Some(seed);
        Ok(())
    }

    /// Makes the proposed seed the device seed; the one before is gone.
    ///
    /// # Errors
    ///
    /// [`KeyError::NoNext`], or the disk or the system's randomness refuses.
    pub fn adopt_next(&mut self) -> Result<(), KeyError> {
        let seed = self.next_seed.as_deref().ok_or(KeyError::NoNext)?;
        let secrets = Secrets { device_seed: *seed, store_key: self.secrets.store_key.clone() };
        self.write(&self.wrapping, &secrets, None)?;
        self.secrets = secrets;
        self.next_seed = None;
        Ok(())
    }

    /// Forgets the proposed seed.
    ///
    /// # Errors
    ///
    /// The disk or the system's randomness refuses.
    pub fn forget_next(&mut self) -> Result<(), KeyError> {
        self.write(&self.wrapping, &self.secrets, None)?;
        self.next_seed = None;
        Ok(())
    }

    /// Removes the half of a change that a crash left beside the file at `path`. For whoever holds the
    /// home: nobody else may be changing it.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn forget_unfinished(path: &Path) -> Result<(), KeyError> {
        file::forget_unfinished(path)
            .map_err(|source| KeyError::Io { path: path.to_owned(), source })
    }

    fn write(
        &self,
        wrapping: &Wrapping,
        secrets: &Secrets,
        next_seed: Option<&[u8; 32]>,
    ) -> Result<(), KeyError> {
        let bytes = encoded(wrapping, secrets, next_seed)?;
        file::replace(&self.path, &bytes).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> KeyError {
        KeyError::Io { path: self.path.clone(), source }
    }
}

fn encoded(
    wrapping: &Wrapping,
    secrets: &Secrets,
    next_seed: Option<&[u8; 32]>,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let inner = Zeroizing::new(codec::encode(&WireSecrets {
        store_key: *secrets.store_key.as_bytes(),
        device_seed: secrets.device_seed,
        next_seed: next_seed.copied(),
    }));
    Ok(Zeroizing::new(codec::encode(&Wire {
        version: VERSION,
        kind: wrapping.keeping().number(),
        secrets: wrapping.seal(VERSION, &inner)?,
        parameters: wrapping.parameters().to_vec(),
    })))
}

#[cfg(test)]
mod tests;

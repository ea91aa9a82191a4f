//! The store key, and the file that holds a node's secrets.
//!
//! The file is deterministic CBOR: `{0: version, 1: kind, 2: secrets, 3: parameters}`. `secrets`
//! are the bytes of `{0: store key, 1: device seed}`, wrapped as `kind` says; `parameters` are
//! bytes that only that kind reads. Kind 0, `file`, wraps nothing and has no parameters.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use minicbor::{Decode, Encode};
use thiserror::Error;
use weft_protocol::codec::{self, DecodeError};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The format that this version writes.
const VERSION: u64 = 1;
/// The kind that wraps nothing.
const FILE: u64 = 0;
/// A key file has a few hundred bytes whatever wraps it.
const LEN_MAX: usize = 64 * 1024;

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
            getrandom::fill(bytes).map_err(|error| KeyError::Entropy { why: error.to_string() })?;
        }
        Ok(secrets)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

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
    /// Wrapped by something that this version has no hand for.
    #[error("read the key file {}: this home's key is wrapped by {by}, which this version can't open", path.display())]
    Wrapped {
        /// Where it is.
        path: PathBuf,
        /// What wraps it, in words.
        by: String,
    },
    /// No randomness.
    #[error("make keys: the system gives no randomness: {why}")]
    Entropy {
        /// What the system says.
        why: String,
    },
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
}

/// An opened key file.
#[derive(Debug)]
pub struct KeyFile {
    secrets: Secrets,
}

impl KeyFile {
    /// Writes `secrets` in plain to a new file of mode 0600, on disk when this returns.
    ///
    /// # Errors
    ///
    /// Something is at `path` already, or the disk refuses; what was begun is then removed.
    pub fn create(path: &Path, secrets: Secrets) -> Result<Self, KeyError> {
        let inner = Zeroizing::new(codec::encode(&WireSecrets {
            store_key: secrets.store_key.0,
            device_seed: secrets.device_seed,
        }));
        let bytes = Zeroizing::new(codec::encode(&Wire {
            version: VERSION,
            kind: FILE,
            secrets: inner.to_vec(),
            parameters: Vec::new(),
        }));
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        let written =
            file.write_all(&bytes).and_then(|()| file.sync_all()).and_then(|()| sync_parent(path));
        if let Err(source) = written {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(%error, "an unfinished key file stays behind");
            }
            return Err(io(source));
        }
        Ok(Self { secrets })
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// It is not there, others can read it, it is damaged, newer, or wrapped by another kind.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let damaged = |source| KeyError::Damaged { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        // The capacity is there from the start, so that growing leaves no copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LEN_MAX + 1));
        file.take(LEN_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        let wire: Wire = codec::decode(&bytes, LEN_MAX).map_err(damaged)?;
        if wire.version > VERSION {
            return Err(KeyError::Newer { path: path.to_owned(), version: wire.version });
        }
        if wire.kind != FILE {
            return Err(KeyError::Wrapped { path: path.to_owned(), by: wrapper(wire.kind) });
        }
        let inner: WireSecrets = codec::decode(&wire.secrets, LEN_MAX).map_err(damaged)?;
        let secrets =
            Secrets { store_key: StoreKey(inner.store_key), device_seed: inner.device_seed };
        Ok(Self { secrets })
    }

    /// What the file holds.
    pub const fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// How the secrets are kept, in words for status and stderr, to stand after `keys: `.
    pub const fn describe(&self) -> &'static str {
        "file (whoever has the disk reads all)"
    }
}

/// The wrapping kinds by number, in words.
fn wrapper(kind: u64) -> String {
    match kind {
        1 => "a passphrase".to_owned(),
        2 => "the system's keychain".to_owned(),
        3 => "a systemd credential".to_owned(),
        other => format!("a kind that it does not know ({other})"),
    }
}

/// Makes a new name in the folder of `path` survive a power cut.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

/// The folder of `path`; `.` for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets { store_key: StoreKey([7; 32]), device_seed: [9; 32] }
    }

    #[test]
    fn what_is_created_loads_and_is_not_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        KeyFile::create(&path, secrets()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let loaded = KeyFile::load(&path).unwrap();
        assert_eq!(loaded.secrets(), &secrets());
        assert_eq!(loaded.describe(), "file (whoever has the disk reads all)");
        assert!(matches!(
            KeyFile::create(&path, Secrets::generate().unwrap()),
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists
        ));
        assert_eq!(KeyFile::load(&path).unwrap().secrets(), &secrets());
    }

    #[test]
    fn the_format_stands() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        KeyFile::create(&path, secrets()).unwrap();
        let mut expected = vec![0xa4, 0x00, 0x01, 0x01, 0x00, 0x02, 0x58, 71, 0xa2];
        expected.extend([&[0x00, 0x58, 32][..], &[7; 32], &[0x01, 0x58, 32], &[9; 32]].concat());
        expected.extend([0x03, 0x40]);
        assert_eq!(fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn one_that_others_can_read_is_refused_with_the_command_to_mend_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        KeyFile::create(&path, secrets()).unwrap();
        for mode in [0o640, 0o604, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = KeyFile::load(&path).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, KeyError::Exposed { .. }), "{text}");
            assert!(text.contains(&format!("run `chmod 600 {}`", path.display())), "{text}");
        }
    }

    #[test]
    fn wrapped_newer_and_damaged_files_are_told_apart() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        KeyFile::create(&path, secrets()).unwrap();
        let good = fs::read(&path).unwrap();
        let load_with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            fs::write(&path, bytes).unwrap();
            KeyFile::load(&path).unwrap_err().to_string()
        };
        assert!(load_with(2, 0x02).contains("made by a newer weft (format 2)"));
        assert!(load_with(4, 0x01).contains("wrapped by a passphrase, which this version can't"));
        assert!(load_with(4, 0x17).contains("a kind that it does not know (23)"));
        assert!(load_with(0, 0xa5).contains("it is damaged"));
        for len in 0..good.len() {
            fs::write(&path, &good[..len]).unwrap();
            assert!(matches!(KeyFile::load(&path), Err(KeyError::Damaged { .. })), "{len}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", secrets()), "Secrets(..)");
        assert_eq!(format!("{:?}", StoreKey([7; 32])), "StoreKey(..)");
    }
}

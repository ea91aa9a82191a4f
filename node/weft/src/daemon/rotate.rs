//! A rotation's two places: the key file, which holds the next key's seed beside the one in use, and the
//! store, whose statements say which of the two this device has. The seed is written first and the old one
//! goes last, so that a crash at any moment leaves what [`settle`] can tell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use weft_core::membership;
use weft_protocol::row::Rows;
use weft_store::key::{KeyError, KeyFile};
use weft_trust::secret::DeviceSecret;

use super::seed;

/// The key file of a running node.
#[derive(Clone, Debug)]
pub(super) struct Key(Arc<Mutex<KeyFile>>);

impl Key {
    pub(super) fn new(file: KeyFile) -> Self {
        Self(Arc::new(Mutex::new(file)))
    }

    /// The file. Each of its changes is whole when it returns, also where another one panicked.
    pub(super) fn file(&self) -> MutexGuard<'_, KeyFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws the next key, and puts its seed on the disk.
    pub(super) fn propose(&self) -> Result<DeviceSecret, KeyError> {
        let next = zeroize::Zeroizing::new(
            seed().map_err(|error| KeyError::Entropy { why: error.to_string() })?,
        );
        self.file().propose_next(*next)?;
        Ok(DeviceSecret::from_seed(&next))
    }
}

/// Decides at a start which key this device has, where a rotation was begun: the next one if the `Rotate` is
/// among the statements, since others may have heard of it then; else nobody has, and it is forgotten.
pub(super) fn settle(key: &mut KeyFile, rows: &dyn Rows) -> Result<()> {
    let Some(next) = key.next_seed() else { return Ok(()) };
    let next = DeviceSecret::from_seed(next).id();
    let old = DeviceSecret::from_seed(&key.secrets().device_seed).id();
    if membership::graph(rows)?.former(&next).first() == Some(&old) {
        tracing::info!(%old, %next, "this device has a new key");
        key.adopt_next()?;
    } else {
        tracing::info!(%next, "a key that was drawn and never said is forgotten");
        key.forget_next()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
    use weft_protocol::{device::Kind, row::MemoryRows, signed::Signed, time::WallTime};
    use weft_store::key::{Cost, LockedFile, Passphrase, Secrets, Wrapping, WrappingKey};
    use weft_trust::{
        author::{Author, NewFabric, genesis},
        graph::Graph,
        keyring::Keyring,
    };

    use super::*;

    const NEXT: [u8; 32] = [7; 32];

    /// A fabric's first statement, and the `Rotate` of its first device to `NEXT`.
    fn statements(seed: &[u8; 32]) -> (Signed, Signed) {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let device = DeviceSecret::from_seed(seed);
        let new = NewFabric {
            name: &"home".parse().unwrap(),
            root: None,
            device: &device,
            device_name: &"laptop".parse().unwrap(),
            kind: Kind::Laptop,
        };
        let first = genesis(new, WallTime::default(), &mut rng);
        let graph = Graph::new(first.clone()).unwrap();
        let mut keyring = Keyring::new(device.agreement().clone());
        keyring.learn(&graph);
        let next = DeviceSecret::from_seed(&NEXT);
        let author = Author::new(&graph, &keyring, device.signing());
        (first, author.rotate(&next, WallTime::default(), &mut rng).unwrap())
    }

    fn wrappings() -> Vec<(Wrapping, Option<Passphrase>)> {
        let passphrase = Passphrase::from("correct horse".to_owned());
        let cheap = Cost { memory_kib: 64, passes: 1 };
        let wrapped = Wrapping::passphrase_at(&passphrase, cheap).unwrap();
        vec![(Wrapping::file(), None), (wrapped, Some(passphrase))]
    }

    #[test]
    fn a_crash_at_any_point_leaves_one_key_that_the_statements_agree_with() {
        for (wrapping, passphrase) in wrappings() {
            // How far it came: the seed on the disk, the statement on the disk, the old seed gone.
            for (proposed, stored, adopted) in [
                (false, false, false),
                (true, false, false),
                (true, true, false),
                (true, true, true),
            ] {
                let home = tempfile::tempdir().unwrap();
                let path = home.path().join("key");
                let secrets = Secrets::generate().unwrap();
                let old = secrets.device_seed;
                let (first, rotate) = statements(&old);
                let mut file = KeyFile::create(&path, secrets, wrapping.clone()).unwrap();
                let mut rows = MemoryRows::default();
                rows.apply(membership::store(&[first]));
                if proposed {
                    file.propose_next(NEXT).unwrap();
                }
                if stored {
                    rows.apply(membership::store(&[rotate]));
                }
                if adopted {
                    file.adopt_next().unwrap();
                }
                drop(file);
                let reopened = || {
                    let locked = LockedFile::read(&path).unwrap();
                    let key: Option<WrappingKey> =
                        passphrase.as_ref().map(|it| locked.key_of_passphrase(it).unwrap());
                    locked.open(key).unwrap()
                };
                // Also a start that crashes right after it decided leaves the same.
                for _ in 0..2 {
                    let mut file = reopened();
                    settle(&mut file, &rows).unwrap();
                    let expected = if stored { NEXT } else { old };
                    assert_eq!(
                        file.secrets().device_seed,
                        expected,
                        "{proposed} {stored} {adopted}"
                    );
                    assert_eq!(file.next_seed(), None);
                }
                assert_eq!(reopened().next_seed(), None, "it is on the disk");
            }
        }
    }

    #[test]
    fn a_rotate_to_another_key_than_the_proposed_one_adopts_nothing() {
        let home = tempfile::tempdir().unwrap();
        let secrets = Secrets::generate().unwrap();
        let old = secrets.device_seed;
        let (first, rotate) = statements(&old);
        let path = home.path().join("key");
        let mut file = KeyFile::create(&path, secrets, Wrapping::file()).unwrap();
        file.propose_next([8; 32]).unwrap();
        let mut rows = MemoryRows::default();
        rows.apply(membership::store(&[first, rotate]));
        settle(&mut file, &rows).unwrap();
        assert_eq!((file.secrets().device_seed, file.next_seed()), (old, None));
    }
}

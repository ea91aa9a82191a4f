//! How the key file's bytes come and go: a file of mode 0600, which at any moment is the old one or
//! the new one, whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::KeyError;

/// A key file has a few hundred bytes whatever wraps it.
pub(super) const LEN_MAX: usize = 64 * 1024;

/// Reads the file, which nobody else may be able to.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    // The capacity is there from the start, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LEN_MAX + 1));
    file.take(LEN_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// Writes a file where none is, on disk when this returns. What was begun and failed is removed.
pub(super) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_new(path, bytes)?;
    sync_parent(path).inspect_err(|_| remove(path))
}

/// Puts a new file in the place of the one at `path`. After an error the old one stands, or the new one.
///
/// The old one's bytes are overwritten then, as far as the disk lets them be: one that writes
/// elsewhere, as flash does, keeps traces.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = beside(path);
    forget_unfinished(path)?;
    write_new(&beside, bytes)?;
    let old = OpenOptions::new().write(true).open(path);
    if let Err(error) = old.as_ref().map(drop).map_err(io::Error::kind)
        && error != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, "the old key file can't be overwritten");
    }
    fs::rename(&beside, path).inspect_err(|_| remove(&beside))?;
    sync_parent(path)?;
    if let Ok(old) = old
        && let Err(error) = overwrite(old)
    {
        tracing::debug!(%error, "the old key file was not overwritten");
    }
    Ok(())
}

/// Removes what a crash in [`replace`] left behind. For whoever holds the home.
pub(super) fn forget_unfinished(path: &Path) -> io::Result<()> {
    let beside = beside(path);
    match OpenOptions::new().write(true).open(&beside).and_then(overwrite) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(()) | Err(_) => {}
    }
    fs::remove_file(&beside)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).inspect_err(|_| remove(path))
}

fn overwrite(mut file: File) -> io::Result<()> {
    let len = file.metadata()?.len().min(LEN_MAX as u64);
    file.write_all(&vec![0; usize::try_from(len).unwrap_or(LEN_MAX)])?;
    file.sync_all()
}

/// Where the next file is written.
fn beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, "an unfinished key file stays behind");
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

    #[test]
    fn a_replaced_file_is_closed_to_others_and_leaves_nothing_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        create(&path, b"old").unwrap();
        // What a crash left, of any mode and length.
        fs::write(home.path().join("key.new"), b"half a fi").unwrap();
        let mut old = File::open(&path).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap().as_slice(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        let mut bytes = Vec::new();
        old.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [0; 3], "the old bytes are overwritten");
    }

    #[test]
    fn one_that_cannot_be_replaced_stands() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        create(&path, b"old").unwrap();
        assert!(create(&path, b"new").is_err());
        // A folder lies in the way of the file beside it.
        fs::create_dir(home.path().join("key.new")).unwrap();
        replace(&path, b"new").unwrap_err();
        assert_eq!(read(&path).unwrap().as_slice(), b"old");
    }
}

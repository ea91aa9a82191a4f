//! Compiled code on disk, which this device alone wrote.
//!
//! Loading compiled code is running it, so each file begins with a keyed BLAKE3 over its name and its
//! content; one that does not match is compiled anew. The name is the component's digest and what
//! else the code depends on, so an update of wasmtime or another processor leads to another file.
//!
//! The folder is bounded: when a file comes that makes it too large, those go that were not used for
//! longest. A file's time of change says when it was used last.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
    time::SystemTime,
};

use weft_protocol::id::Digest;

/// The folder of compiled code.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
    bytes_max: u64,
}

impl Cache {
    /// A cache in `folder`, which is made when it is first written to, of so many bytes at most.
    pub(crate) const fn new(folder: PathBuf, key: [u8; 32], bytes_max: u64) -> Self {
        Self { folder, key, bytes_max }
    }

    /// The code of a component, if it is there and this device wrote it.
    pub(crate) fn get(&self, component: Digest, compatibility: Digest) -> Option<Vec<u8>> {
        let name = name(component, compatibility);
        let mut file = fs::File::open(self.folder.join(&name)).ok()?;
        let mut code = Vec::new();
        file.read_to_end(&mut code).ok()?;
        let mac = <[u8; 32]>::try_from(code.get(..32)?).ok()?;
        code.drain(..32);
        // `Hash` compares in constant time.
        if self.mac(&name, &code) != mac {
            return None;
        }
        // Where the time can't be set, it goes as if it had not been used.
        file.set_modified(SystemTime::now()).ok();
        Some(code)
    }

    /// Keeps the code of a component, unless it alone is too large. A file that is being read is replaced,
    /// not changed.
    pub(crate) fn put(
        &self,
        component: Digest,
        compatibility: Digest,
        code: &[u8],
    ) -> io::Result<()> {
        let name = name(component, compatibility);
        let bytes = code.len() as u64 + 32;
        if bytes > self.bytes_max {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.make_room(bytes)?;
        let written = self.folder.join(format!("{name}.{}", std::process::id()));
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&written)?;
        let result = file
            .write_all(self.mac(&name, code).as_bytes())
            .and_then(|()| file.write_all(code))
            .and_then(|()| fs::rename(&written, self.folder.join(&name)));
        if result.is_err() {
            // The disk is full or the folder gone; a remainder would only take room.
            fs::remove_file(&written).ok();
        }
        result
    }

    /// Removes what was not used for longest until there is room for so many bytes more.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                files.push((metadata.modified()?, entry.path(), metadata.len()));
            }
        }
        files.sort();
        let mut held: u64 = files.iter().map(|(_, _, len)| len).sum();
        for (_, path, len) in files {
            if held + bytes <= self.bytes_max {
                break;
            }
            fs::remove_file(path)?;
            held -= len;
        }
        Ok(())
    }

    fn mac(&self, name: &str, code: &[u8]) -> blake3::Hash {
        let key = blake3::derive_key("weft compiled code v1", &self.key);
        blake3::Hasher::new_keyed(&key).update(name.as_bytes()).update(code).finalize()
    }
}

/// 52 letters for the component, a dash, 26 for the rest.
fn name(component: Digest, compatibility: Digest) -> String {
    let mut compatibility = compatibility.to_string();
    compatibility.truncate(26);
    format!("{component}-{compatibility}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_code_that_this_device_wrote_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("code"), [1; 32], 1 << 20);
        let [component, other, compatibility] = [1, 2, 3].map(|n| Digest::from_bytes([n; 32]));
        assert_eq!(cache.get(component, compatibility), None);

        cache.put(component, compatibility, b"code").unwrap();
        assert_eq!(cache.get(component, compatibility).as_deref(), Some(&b"code"[..]));
        let path = folder.path().join("code").join(name(component, compatibility));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let foreign = Cache::new(folder.path().join("code"), [2; 32], 1 << 20);
        assert_eq!(foreign.get(component, compatibility), None, "another key");

        fs::copy(&path, path.with_file_name(name(other, compatibility))).unwrap();
        assert_eq!(cache.get(other, compatibility), None, "another component's code");

        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(cache.get(component, compatibility), None, "changed code");
        fs::write(&path, b"short").unwrap();
        assert_eq!(cache.get(component, compatibility), None, "cut code");
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned(), [1; 32], 300);
        let [a, b, c, compatibility] = [1, 2, 3, 4].map(|n| Digest::from_bytes([n; 32]));
        let code = [7; 100];
        // Times of files are as coarse as the kernel's clock.
        let pause = || std::thread::sleep(std::time::Duration::from_millis(20));
        cache.put(a, compatibility, &code).unwrap();
        pause();
        cache.put(b, compatibility, &code).unwrap();
        pause();
        assert!(cache.get(a, compatibility).is_some());
        pause();
        cache.put(c, compatibility, &code).unwrap();
        let held = [a, b, c].map(|component| cache.get(component, compatibility).is_some());
        assert_eq!(held, [true, false, true]);

        cache.put(b, compatibility, &[7; 300]).unwrap();
        assert_eq!(cache.get(b, compatibility), None, "it alone is too large");
        assert!(cache.get(a, compatibility).is_some(), "and pushes nothing out");
    }
}

//! Compiled code on disk, which this device alone wrote.
//!
//! Loading compiled code is running it, so each file begins with a keyed BLAKE3 over its name and its
//! content; one that does not match is compiled anew. The name is the component's digest and what
//! else the code depends on, so an update of wasmtime or another processor leads to another file.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use weft_protocol::id::Digest;

/// The folder of compiled code.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
}

impl Cache {
    /// A cache in `folder`, which is made when it is first written to.
    pub(crate) const fn new(folder: PathBuf, key: [u8; 32]) -> Self {
        Self { folder, key }
    }

    /// The code of a component, if it is there and this device wrote it.
    pub(crate) fn get(&self, component: Digest, compatibility: Digest) -> Option<Vec<u8>> {
        let name = name(component, compatibility);
        let mut code = fs::read(self.folder.join(&name)).ok()?;
        let mac = <[u8; 32]>::try_from(code.get(..32)?).ok()?;
        code.drain(..32);
        // `Hash` compares in constant time.
        (self.mac(&name, &code) == mac).then_some(code)
    }

    /// Keeps the code of a component. A file that is being read is replaced, not changed.
    pub(crate) fn put(
        &self,
        component: Digest,
        compatibility: Digest,
        code: &[u8],
    ) -> io::Result<()> {
        let name = name(component, compatibility);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
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
        let cache = Cache::new(folder.path().join("code"), [1; 32]);
        let [component, other, compatibility] = [1, 2, 3].map(|n| Digest::from_bytes([n; 32]));
        assert_eq!(cache.get(component, compatibility), None);

        cache.put(component, compatibility, b"code").unwrap();
        assert_eq!(cache.get(component, compatibility).as_deref(), Some(&b"code"[..]));
        let path = folder.path().join("code").join(name(component, compatibility));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let foreign = Cache::new(folder.path().join("code"), [2; 32]);
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
}

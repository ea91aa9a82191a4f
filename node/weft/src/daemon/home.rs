//! A node's folder: key, store, ports, compiled agents, models, socket.

use std::{
    fs::{self, DirBuilder},
    io::{self, Write as _},
    net::{TcpListener, UdpSocket},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use weft_api::Keys;
use weft_protocol::{device::Kind, row::Write};
use weft_store::{
    Store,
    key::{Keeping, KeyFile, LockedFile, Secrets, Wrapping},
};

/// The folder of one node.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    root: PathBuf,
}

/// What a node keeps in the open: nothing that anybody could misuse.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The port for UDP and TCP, chosen once so that others find the node again.
    pub(crate) port: u16,
    /// The device's kind, by which the node is laid out before its store is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    /// Whether the network costs money, where the person says so instead of the system.
    #[serde(default, skip_serializing_if = "Metered::is_auto")]
    pub(crate) metered: Metered,
    /// Multiaddrs under which others reach the node, as the person named them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) announce: Vec<String>,
}

/// Who says whether the network costs money.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Metered {
    /// The person: it does.
    Yes,
    /// The person: it does not.
    No,
    /// The system, where it knows; else it does not.
    #[default]
    Auto,
}

impl Metered {
    /// The word that people write for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Auto => "auto",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl Settings {
    /// Those of a new home, with a port that is free.
    fn new() -> Result<Self> {
        let (port, metered) = (free_port()?, Metered::default());
        Ok(Self { port, kind: None, metered, announce: Vec::new() })
    }

    /// The device's kind, as far as it was written by a program that knows it.
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.kind.as_deref()?.parse().ok()
    }

    /// These settings for a device of this kind.
    pub(crate) fn with_kind(self, kind: Kind) -> Self {
        Self { kind: Some(kind.word().to_owned()), ..self }
    }
}

impl Home {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.root.join("key")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store.redb")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    fn settings(&self) -> PathBuf {
        self.root.join("node.toml")
    }

    /// Whether a device lives here.
    pub(crate) fn is_initialised(&self) -> Result<bool> {
        self.key()
            .try_exists()
            .with_context(|| format!("failed to look into {}", self.root.display()))
    }

    /// Says so where a device lives here already.
    pub(crate) fn expect_new(&self) -> Result<()> {
        if self.is_initialised()? {
            bail!(Taken { home: self.root.clone() });
        }
        Ok(())
    }

    /// Makes the folder, readable by its owner only.
    pub(crate) fn create(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .with_context(|| format!("failed to make {}", self.root.display()))?;
        // A start that ended between store and key left a store that nobody can open.
        if self.store().exists() && !self.is_initialised()? {
            let aside = self.root.join("store.redb.without-key");
            fs::rename(self.store(), &aside)
                .with_context(|| format!("failed to move {}", self.store().display()))?;
        }
        Ok(())
    }

    /// The keys of the device that lives here, not opened yet.
    pub(crate) fn read_key(&self) -> Result<LockedFile> {
        if !self.is_initialised()? {
            bail!(NotInitialised { home: self.root.clone() });
        }
        Ok(LockedFile::read(&self.key())?)
    }

    /// Makes it the home of a device of this kind with these secrets, kept in this way. A home counts as initialised
    /// when its key is there, so this comes after all else.
    pub(crate) fn settle(&self, secrets: Secrets, kind: Kind, keys: Wrapping) -> Result<KeyFile> {
        let settings = self.written_settings()?.map_or_else(Settings::new, Ok)?;
        self.write_settings(&settings.with_kind(kind))?;
        Ok(KeyFile::create(&self.key(), secrets, keys)?)
    }

    /// Makes the store of a device that is to live here, with these rows in it.
    pub(crate) fn create_store(&self, secrets: &Secrets, writes: &[Write]) -> Result<()> {
        Ok(Store::create(&self.store(), &secrets.store_key, writes)?)
    }

    /// The store of the device that lives here, with so many bytes of it in memory.
    pub(crate) fn open_store(&self, secrets: &Secrets, cache_bytes: usize) -> Result<Store> {
        Ok(Store::open_with(&self.store(), &secrets.store_key, cache_bytes)?)
    }

    /// The settings, with a port that is free where none was chosen yet.
    pub(crate) fn read_settings(&self) -> Result<Settings> {
        if let Some(settings) = self.written_settings()? {
            return Ok(settings);
        }
        let settings = Settings::new()?;
        self.write_settings(&settings)?;
        Ok(settings)
    }

    /// The settings as they lie here.
    fn written_settings(&self) -> Result<Option<Settings>> {
        match fs::read_to_string(self.settings()) {
            Ok(text) => toml::from_str(&text)
                .map(Some)
                .with_context(|| format!("failed to read {}", self.settings().display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("failed to read {}", self.settings().display()))
            }
        }
    }

    pub(crate) fn write_settings(&self, settings: &Settings) -> Result<()> {
        let path = self.settings();
        let text = toml::to_string(settings).context("failed to write the settings")?;
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .with_context(|| format!("failed to write {}", path.display()))
    }
}

/// How keys are kept, as doors say it.
pub(crate) const fn keys(keeping: Keeping) -> Keys {
    match keeping {
        Keeping::File => Keys::File,
        Keeping::Passphrase => Keys::Passphrase,
        Keeping::Keychain => Keys::Keychain,
        Keeping::Credential => Keys::Credential,
    }
}

/// There is no device in a home.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no device in {} yet", home.display())]
pub(crate) struct NotInitialised {
    /// The home.
    pub(crate) home: PathBuf,
}

/// There is a device in a home already, which belongs to a fabric.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} holds a device already", home.display())]
pub(crate) struct Taken {
    /// The home.
    pub(crate) home: PathBuf,
}

/// A port that is free for UDP and TCP now.
fn free_port() -> Result<u16> {
    for _ in 0..64 {
        let socket = UdpSocket::bind("0.0.0.0:0").context("failed to find a free port")?;
        let port = socket.local_addr().context("failed to find a free port")?.port();
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("failed to find a port that is free for both UDP and TCP");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_chosen_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().join("node"));
        home.create().unwrap();
        let first = home.read_settings().unwrap();
        assert_eq!(home.read_settings().unwrap(), first);
        assert!(!home.is_initialised().unwrap());
        assert!(home.read_key().unwrap_err().is::<NotInitialised>());
    }

    #[test]
    fn settings_of_an_older_home_are_read_and_later_ones_kept() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        fs::write(home.settings(), "port = 4001\n").unwrap();
        let old = home.read_settings().unwrap();
        assert_eq!((old.port, old.kind(), old.metered), (4001, None, Metered::Auto));
        assert_eq!(old.announce, Vec::<String>::new());
        home.write_settings(&old.with_kind(Kind::Phone)).unwrap();
        assert_eq!(home.read_settings().unwrap().kind(), Some(Kind::Phone));

        for (line, metered) in [("yes", Metered::Yes), ("no", Metered::No), ("auto", Metered::Auto)]
        {
            let text = format!("port = 4001\nkind = \"toaster\"\nmetered = \"{line}\"\n");
            fs::write(home.settings(), text).unwrap();
            let read = home.read_settings().unwrap();
            assert_eq!((read.kind(), read.metered), (None, metered), "a later kind is not known");
            home.write_settings(&read).unwrap();
            assert_eq!(home.read_settings().unwrap(), read);
        }
        fs::write(home.settings(), "port = 4001\nmetered = \"sometimes\"\n").unwrap();
        assert!(home.read_settings().is_err());
    }
}

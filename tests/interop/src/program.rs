//! A script in another language, and what it needs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::command;

/// A first installation fetches some twenty megabytes, and Python builds a few wheels.
const INSTALL_PATIENCE: Duration = Duration::from_secs(600);

/// A script makes a dozen connections, of which one lasts until a stranger's time is up.
const RUN_PATIENCE: Duration = Duration::from_secs(120);

/// The oldest Node.js that js-libp2p runs on, with what `js/resolvers.js` adds.
const NODE_MAJOR_MIN: u32 = 20;

/// A program that is not ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// `js/stranger.js`, on js-libp2p from npm.
    JavaScript,
    /// `py/stranger.py`, on py-libp2p from PyPI.
    Python,
}

impl Program {
    const fn folder(self) -> &'static str {
        match self {
            Self::JavaScript => "js",
            Self::Python => "py",
        }
    }

    /// What is copied into the cache, of which the first names what is to be installed.
    const fn files(self) -> &'static [&'static str] {
        match self {
            Self::JavaScript => {
                &["package-lock.json", "package.json", "resolvers.js", "stranger.js"]
            }
            Self::Python => &["requirements.txt", "stranger.py"],
        }
    }

    /// Installs what it needs, where that is not done yet, and gives the folder to run it in.
    ///
    /// # Errors
    ///
    /// Why it can't be installed on this machine, in a sentence.
    pub fn install(self) -> Result<PathBuf, String> {
        let source = source().join(self.folder());
        let pinned = fs::read(source.join(self.files()[0]))
            .map_err(|error| format!("its files can't be read: {error}"))?;
        self.check_language()?;
        let state = &data_encoding::HEXLOWER.encode(blake3::hash(&pinned).as_bytes())[..16];
        let folder = cache()?.join(format!("{}-{state}", self.folder()));
        let failed = |error: std::io::Error| format!("the cache can't be written: {error}");
        fs::create_dir_all(&folder).map_err(failed)?;
        for file in self.files() {
            fs::copy(source.join(file), folder.join(file)).map_err(failed)?;
        }
        let done = folder.join("installed");
        if !done.is_file() {
            match self {
                Self::JavaScript => {
                    let words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
                    let mut npm = Command::new("npm");
                    command::run(npm.current_dir(&folder).args(words), INSTALL_PATIENCE)?;
                }
                Self::Python => {
                    let mut venv = Command::new("python3");
                    venv.args(["-m", "venv", "--clear"]).arg(folder.join("venv"));
                    command::run(&mut venv, INSTALL_PATIENCE)?;
                    let mut pip = Command::new(python(&folder));
                    let words = ["-m", "pip", "install", "--disable-pip-version-check", "-q", "-r"];
                    pip.args(words).arg(folder.join("requirements.txt"));
                    command::run(&mut pip, INSTALL_PATIENCE)?;
                }
            }
            fs::write(&done, "").map_err(failed)?;
        }
        Ok(folder)
    }

    fn check_language(self) -> Result<(), String> {
        match self {
            Self::JavaScript => {
                let said = command::run(Command::new("node").arg("--version"), RUN_PATIENCE)?;
                let major = said.trim().trim_start_matches('v').split('.').next();
                let major: Option<u32> = major.and_then(|major| major.parse().ok());
                if major.is_none_or(|major| major < NODE_MAJOR_MIN) {
                    return Err(format!("Node.js is {}, too old", said.trim()));
                }
                command::run(Command::new("npm").arg("--version"), RUN_PATIENCE).map(drop)
            }
            Self::Python => {
                let words = ["-c", "import venv, ensurepip"];
                command::run(Command::new("python3").args(words), RUN_PATIENCE).map(drop)
            }
        }
    }

    /// Runs it against the node at `address` with the key `key`, in hexadecimal, and gives what it heard.
    ///
    /// # Errors
    ///
    /// Why it did not come to its end, with the last that it said.
    pub fn run(
        self,
        folder: &Path,
        address: &str,
        key: &str,
        protocols: &[&str],
    ) -> Result<Value, String> {
        let mut command = match self {
            Self::JavaScript => {
                let mut node = Command::new("node");
                node.args(["stranger.js", address]);
                node
            }
            Self::Python => {
                let mut python = Command::new(python(folder));
                python.args(["stranger.py", address, key]);
                python
            }
        };
        let said = command::run(command.current_dir(folder).args(protocols), RUN_PATIENCE)?;
        let line = said.lines().last().unwrap_or_default();
        serde_json::from_str(line).map_err(|error| format!("it said no JSON ({error}): {said}"))
    }
}

fn python(folder: &Path) -> PathBuf {
    folder.join("venv/bin/python")
}

/// This crate's folder in the checkout that the tests are run in.
fn source() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// Where what was installed stays from run to run.
fn cache() -> Result<PathBuf, String> {
    let named = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
    let cache = named.or_else(home).ok_or("there is no HOME to keep it in")?;
    Ok(cache.join("weft/interop"))
}

//! Where the programs are that Weft is compared with.
//!
//! Those of `tests/bench/peers` lie in the folder that `WEFT_PEERS` names; `nats-server` and
//! `syncthing` are looked for where programs are. One that is not there is said to be missing, and its
//! comparison is left out.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use crate::process::Process;

/// The folder of what `tests/bench/peers` builds.
const FOLDER: &str = "WEFT_PEERS";

/// How long a peer may take to start, to connect, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a system puts its programs, beside the `PATH`: Debian has servers in the second.
const SYSTEM: [&str; 2] = ["/usr/bin", "/usr/sbin"];

/// The peers that may be used.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    folder: Option<PathBuf>,
    /// A smoke run needs no peer, so that it does the same everywhere, unless they are named.
    is_left_alone: bool,
}

/// A peer that is not there, and what would bring it.
#[derive(Debug)]
pub(crate) struct Missing(String);

impl Peers {
    pub(crate) fn new(smoke: bool) -> Self {
        let folder = env::var_os(FOLDER).map(PathBuf::from);
        let is_left_alone = smoke && folder.is_none();
        Self { folder, is_left_alone }
    }

    /// Whether there are to be any.
    pub(crate) const fn are_asked(&self) -> bool {
        !self.is_left_alone
    }

    /// A program of `tests/bench/peers`.
    pub(crate) fn built(&self, name: &str) -> Result<PathBuf, Missing> {
        let at = self.folder.as_ref().map(|folder| folder.join(name));
        at.filter(|path| path.is_file()).ok_or_else(|| {
            Missing(format!(
                "{name} is not there: build tests/bench/peers in release, and name the folder of its \
                 programs in {FOLDER}"
            ))
        })
    }

    /// A program of the system; Debian's package has the same name.
    pub(crate) fn installed(&self, name: &str) -> Result<PathBuf, Missing> {
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path)
            .chain(SYSTEM.map(PathBuf::from))
            .map(|folder| folder.join(name))
            .find(|file| file.is_file());
        found.ok_or_else(|| Missing(format!("{name} is not there: apt-get install {name}")))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A peer's server and its client, each a process. The server goes last.
#[derive(Debug)]
pub(crate) struct Caller {
    client: Process,
    _server: Process,
}

impl Caller {
    /// Starts a server, and a client that is told what the server says of itself.
    pub(crate) fn start(program: &Path, at: &[&str]) -> Result<Self> {
        let server = Process::start(Command::new(program).arg("serve").args(at))?;
        let (_, said) = server.hear("AT", PATIENCE)?;
        let client = Process::start(
            Command::new(program)
                .arg("ask")
                .args(at)
                .args(said.split(' ').filter(|it| !it.is_empty())),
        )?;
        client.hear("READY", PATIENCE)?;
        Ok(Self { client, _server: server })
    }

    /// Makes a call, and gives how long it took where it was made.
    pub(crate) fn call(&mut self) -> Result<Duration> {
        self.client.say("")?;
        let (_, nanos) = self.client.hear("", PATIENCE)?;
        Ok(Duration::from_nanos(nanos.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_brings_it() {
        let peers = Peers { folder: None, is_left_alone: false };
        assert!(peers.built("peer-quinn").unwrap_err().to_string().contains("WEFT_PEERS"));
        let missing = peers.installed("no-such-program").unwrap_err().to_string();
        assert_eq!(missing, "no-such-program is not there: apt-get install no-such-program");
        assert!(peers.installed("sh").is_ok());
    }
}

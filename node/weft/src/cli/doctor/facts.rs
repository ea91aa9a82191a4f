//! What a checkup knows: gathered here, judged elsewhere.

use std::{
    fs,
    io::Read as _,
    net::{TcpListener, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use weft_api::{Client, ClientError, HomeLock, OpenError};
use weft_store::key::Keeping;

use super::{
    firewall,
    interface::{self, Interface},
};
use crate::{
    cli::{
        Session,
        error::CommandError,
        node::{ANSWER_TIME, RECORD_TIME},
    },
    daemon::{home::Home, join},
};

/// How a store's file begins (redb's file format, section "Super header").
const STORE_MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// All that is known.
#[derive(Debug)]
pub(in crate::cli) struct Facts {
    pub(super) home: HomeFacts,
    pub(super) machine: MachineFacts,
    pub(super) node: NodeFacts,
}

/// The home as it lies on the disk.
#[derive(Debug)]
pub(super) struct HomeFacts {
    pub(super) path: PathBuf,
    /// Who asks.
    pub(super) user: u32,
    pub(super) folder: Option<Entry>,
    /// Whether it may not be looked into.
    pub(super) is_closed: bool,
    pub(super) key: Option<Entry>,
    /// How the keys are kept, or why the file can't be read.
    pub(super) keeping: Result<Keeping, String>,
    pub(super) store: Option<Entry>,
    /// Whether the store's file begins as one does; `None`: it can't be read.
    pub(super) is_store: Option<bool>,
    /// Room on its disk.
    pub(super) free_bytes: Option<u64>,
    /// The port of `node.toml`.
    pub(super) port: Option<u16>,
}

/// A file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) bytes: u64,
}

/// The machine around it.
#[derive(Debug, Default)]
pub(super) struct MachineFacts {
    /// `None`: the system does not tell.
    pub(super) interfaces: Option<Vec<Interface>>,
    /// Firewalls that seem to be on, by what turns them off.
    pub(super) firewalls: Vec<firewall::Firewall>,
    /// Whether another program has the node's port; looked at where no node runs.
    pub(super) is_port_taken: bool,
    /// Whether a node that is started from here leaves this machine.
    pub(super) looks_around: bool,
    /// The digest of this program's rules, or why they don't compile.
    pub(super) rules: Option<Result<String, String>>,
}

/// The node.
#[derive(Debug)]
pub(super) enum NodeFacts {
    /// None runs.
    None,
    /// A process holds the home, and does not answer.
    Silent(String),
    /// It runs without keys.
    Locked,
    /// It answered.
    Running(Box<Answers>),
}

/// What a node answered; null where it did not.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Answers {
    pub(in crate::cli) status: Value,
    pub(in crate::cli) checkup: Value,
    pub(in crate::cli) devices: Value,
    pub(in crate::cli) agents: Value,
    pub(in crate::cli) models: Value,
    /// What checking the record found; null where it was not checked.
    pub(in crate::cli) verified: Value,
}

impl Answers {
    /// Whether the node is reached from this machine only.
    pub(super) fn is_loopback(&self) -> bool {
        self.checkup["shell"]["loopback"] == true
    }
}

impl Facts {
    /// Looks at everything; at the whole record, which takes longest, only where that is wanted.
    pub(in crate::cli) async fn gather(session: &Session, verify: bool) -> Self {
        let home = HomeFacts::read(&session.home);
        let node = NodeFacts::ask(&session.home, &home, verify).await;
        let mut machine = MachineFacts {
            interfaces: interface::read(Path::new("/")),
            firewalls: firewall::read(Path::new("/")),
            is_port_taken: false,
            looks_around: join::looks_around(),
            rules: None,
        };
        if matches!(node, NodeFacts::None) {
            machine.is_port_taken = home.port.is_some_and(is_taken);
        }
        if verify {
            let rules = weft_engine::Rules::embedded();
            machine.rules = Some(match rules {
                Ok(rules) => {
                    use weft_protocol::decision::Policy as _;
                    Ok(rules.digest().to_string())
                }
                Err(error) => Err(CommandError::failed(&error).message()),
            });
        }
        Self { home, machine, node }
    }

    /// What the node answered; nothing where it did not. The room on its disk is what was seen now: the node
    /// looks at that from time to time.
    pub(in crate::cli) fn take_answers(self) -> Answers {
        let NodeFacts::Running(mut answers) = self.node else { return Answers::default() };
        if let Some(machine) = answers.checkup["machine"].as_object_mut() {
            machine.insert("storage_free_bytes".to_owned(), self.home.free_bytes.into());
        }
        *answers
    }

    /// What the node answered, where one did.
    pub(in crate::cli) fn answers(&self) -> Option<&Answers> {
        match &self.node {
            NodeFacts::Running(answers) => Some(answers),
            NodeFacts::None | NodeFacts::Silent(_) | NodeFacts::Locked => None,
        }
    }
}

impl HomeFacts {
    fn read(path: &Path) -> Self {
        let home = Home::new(path);
        let key = Entry::read(&home.key());
        let is_closed = home.is_initialised().is_err();
        let keeping = match &key {
            Some(_) => home.read_key().map(|file| file.keeping()).map_err(|it| format!("{it:#}")),
            None => Err("there is none".to_owned()),
        };
        let settings = fs::read_to_string(path.join("node.toml")).unwrap_or_default();
        let settings: toml::Table = settings.parse().unwrap_or_default();
        let port = settings.get("port").and_then(toml::Value::as_integer);
        Self {
            path: path.to_owned(),
            user: rustix::process::geteuid().as_raw(),
            folder: Entry::read(path),
            is_closed,
            key,
            keeping,
            store: Entry::read(&home.store()),
            is_store: begins_as_store(&home.store()),
            free_bytes: rustix::fs::statvfs(path)
                .ok()
                .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            port: port.and_then(|port| port.try_into().ok()),
        }
    }
}

impl Entry {
    fn read(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let mode = metadata.mode() & 0o7777;
        Some(Self { mode, owner: metadata.uid(), bytes: metadata.len() })
    }
}

impl NodeFacts {
    async fn ask(path: &Path, home: &HomeFacts, verify: bool) -> Self {
        match tokio::time::timeout(ANSWER_TIME, Client::connect(path)).await {
            Ok(Ok(client)) => Self::ask_client(client, verify).await,
            Ok(Err(ClientError::NotRunning { .. })) => match home.key.map(|_| HomeLock::take(path))
            {
                Some(Err(OpenError::AlreadyRunning { .. })) => {
                    Self::Silent("another process holds this home, and is not reached".to_owned())
                }
                _ => Self::None,
            },
            Ok(Err(error)) => Self::Silent(CommandError::failed(&error).message()),
            Err(_) => Self::Silent("it takes no connection".to_owned()),
        }
    }

    async fn ask_client(mut client: Client, verify: bool) -> Self {
        let status = match ask(&mut client, "status", ANSWER_TIME).await {
            Ok(status) => status,
            Err(why) => return Self::Silent(why),
        };
        if status["locked"] == true {
            return Self::Locked;
        }
        let mut answers = Answers { status, ..Answers::default() };
        for (field, what) in [
            (&mut answers.checkup, "checkup"),
            (&mut answers.devices, "devices"),
            (&mut answers.agents, "agents"),
            (&mut answers.models, "models"),
        ] {
            *field = ask(&mut client, what, ANSWER_TIME).await.unwrap_or_default();
        }
        if verify {
            answers.verified = ask(&mut client, "verify", RECORD_TIME).await.unwrap_or_default();
        }
        Self::Running(Box::new(answers))
    }
}

/// The answer to one question; null where the node knows none.
async fn ask(client: &mut Client, what: &str, within: Duration) -> Result<Value, String> {
    match tokio::time::timeout(within, client.get(json!({"ask": what}))).await {
        Ok(Ok(answer)) => Ok(answer.unwrap_or_default()),
        Ok(Err(error)) => Err(CommandError::failed(&error).message()),
        Err(_) => Err(format!("it did not answer within {} s", within.as_secs())),
    }
}

fn begins_as_store(path: &Path) -> Option<bool> {
    let mut begin = [0; STORE_MAGIC.len()];
    let mut file = fs::File::open(path).ok()?;
    Some(file.read_exact(&mut begin).is_ok() && begin == STORE_MAGIC)
}

/// Whether a port can't be had, for UDP or TCP.
fn is_taken(port: u16) -> bool {
    use std::io::ErrorKind::AddrInUse;
    let is_in_use = |error: &std::io::Error| error.kind() == AddrInUse;
    UdpSocket::bind(("0.0.0.0", port)).is_err_and(|it| is_in_use(&it))
        || TcpListener::bind(("0.0.0.0", port)).is_err_and(|it| is_in_use(&it))
}

//! One machine on the network, with a node of its own.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    Outlet, Plug, Watch,
    process::{Ended, end, hear},
    space::Space,
    until,
};

/// How long a command has: a node that needs longer hangs.
const COMMAND: Duration = Duration::from_secs(60);

/// How long a node has until it answers, on two busy cores.
const START: Duration = Duration::from_secs(60);

/// How long a node has to stop by itself.
const STOP: Duration = Duration::from_secs(15);

/// How much of a log a failure shows.
const LOG_TAIL_LINES: usize = 40;

/// A device. Dropping it kills its node.
#[derive(Debug)]
pub struct Device {
    plug: Plug,
    keyboard: Keyboard,
    log: PathBuf,
    node: Option<Child>,
}

/// Where commands are typed at a device, also while the device itself is moved.
#[derive(Debug, Clone)]
pub struct Keyboard {
    space: Space,
    weft: PathBuf,
    folder: PathBuf,
    home: PathBuf,
}

impl Device {
    /// A device without a fabric, not running.
    ///
    /// # Errors
    ///
    /// The program is not there: build it, or name it in `WEFT_BIN`.
    pub fn new(plug: Plug) -> Result<Self> {
        let folder = plug.folder();
        let (home, log) = (folder.join(plug.name()), folder.join(format!("{}.log", plug.name())));
        let (weft, folder, space) = (program()?, folder.to_owned(), plug.space().clone());
        let keyboard = Keyboard { space, weft, folder, home };
        Ok(Self { plug, keyboard, log, node: None })
    }

    /// Types a command and returns what it prints on standard output.
    ///
    /// # Errors
    ///
    /// It does not end with success, or not in time.
    pub fn weft(&self, words: &[&str]) -> Result<String> {
        hear(self.command().args(words), COMMAND)
            .with_context(|| format!("on the {}\n{}", self.plug.name(), self.log_tail()))
    }

    /// Types a command and returns how it ended, however that is; it is killed when its time is up.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn try_weft(&self, words: &[&str], within: Duration) -> Result<Ended> {
        self.keyboard.try_weft(words, within)
    }

    /// Where commands are typed at it.
    pub fn keyboard(&self) -> &Keyboard {
        &self.keyboard
    }

    /// Writes a file where its commands find it by this name.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        Ok(fs::write(self.keyboard.folder.join(name), content)?)
    }

    /// Types a command with `--json` and returns what it prints.
    ///
    /// # Errors
    ///
    /// As [`Self::weft`], or it prints no JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.weft(&[words, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{words:?} printed {text}"))
    }

    /// Begins a fabric here.
    ///
    /// # Errors
    ///
    /// As [`Self::weft`].
    pub fn init(&self, kind: &str) -> Result<()> {
        let named = ["init", "--name", self.plug.name(), "--kind", kind, "--key", "file"];
        self.weft(&named).map(drop)
    }

    /// Joins the fabric of a running device.
    ///
    /// # Errors
    ///
    /// As [`Self::weft`].
    pub fn join(&self, inviter: &Self, kind: &str) -> Result<()> {
        let invited = inviter.json(&["invite", "--yes"])?;
        let ticket = invited["ticket"].as_str().context("an invitation without a ticket")?;
        let named = ["--name", self.plug.name(), "--kind", kind, "--yes", "--key", "file"];
        self.weft(&[&["join", ticket][..], &named].concat()).map(drop)
    }

    /// Starts its node and waits until that answers.
    ///
    /// # Errors
    ///
    /// It ends at once, or does not answer in time.
    pub fn up(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let errors = log.try_clone()?;
        let mut node = self
            .command()
            .arg("up")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .context("failed to start a node")?;
        let deadline = Instant::now() + START;
        let answers = loop {
            if let Some(status) = node.try_wait()? {
                bail!("the {} ended with {status}\n{}", self.plug.name(), self.log_tail());
            }
            match hear(self.command().arg("status"), COMMAND) {
                Ok(_) => break Ok(()),
                Err(error) if Instant::now() >= deadline => break Err(error),
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        };
        self.node = Some(node);
        answers.with_context(|| format!("the {} is not up", self.plug.name()))
    }

    /// Asks its node to stop and waits for it.
    ///
    /// # Errors
    ///
    /// It does not stop in time, or not with success.
    pub fn stop(&mut self) -> Result<()> {
        let mut node = self.node.take().context("it is not running")?;
        signal(&node, Signal::TERM)?;
        let deadline = Instant::now() + STOP;
        loop {
            if let Some(status) = node.try_wait()? {
                ensure!(status.success(), "it stopped with {status}\n{}", self.log_tail());
                return Ok(());
            }
            if Instant::now() >= deadline {
                node.kill()?;
                node.wait()?;
                bail!("the {} did not stop\n{}", self.plug.name(), self.log_tail());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills its node, which learns nothing of it.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub fn kill(&mut self) -> Result<()> {
        let mut node = self.node.take().context("it is not running")?;
        signal(&node, Signal::KILL)?;
        node.wait()?;
        Ok(())
    }

    /// Has its node stand still, as a machine that swaps, or one that sleeps.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub fn pause(&self) -> Result<()> {
        signal(self.node.as_ref().context("it is not running")?, Signal::STOP)
    }

    /// Has its node go on.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub fn resume(&self) -> Result<()> {
        signal(self.node.as_ref().context("it is not running")?, Signal::CONT)
    }

    /// The process of its node.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub fn node_id(&self) -> Result<u32> {
        Ok(self.node.as_ref().context("it is not running")?.id())
    }

    /// Plugs it in elsewhere, running or not.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn move_to(&mut self, outlet: &Outlet, address: &str) -> Result<()> {
        self.plug.connect(outlet, address)
    }

    /// Takes a note here, and returns when the node says that it is kept.
    ///
    /// # Errors
    ///
    /// As [`Self::weft`].
    pub fn note(&self, text: &str) -> Result<()> {
        self.weft(&["do", &format!("note that {text}")]).map(drop)
    }

    /// Whether a note is here.
    ///
    /// # Errors
    ///
    /// As [`Self::weft`].
    pub fn has_note(&self, text: &str) -> Result<bool> {
        Ok(self.weft(&["notes", "list"])?.contains(text))
    }

    /// Name and state of each device that it knows, itself among them, by name.
    ///
    /// # Errors
    ///
    /// As [`Self::json`].
    pub fn devices(&self) -> Result<Vec<(String, String)>> {
        let list = self.json(&["devices"])?;
        let word = |entry: &Value, field: &str| {
            entry[field].as_str().map(str::to_owned).context("a device without name or state")
        };
        let mut devices = list
            .as_array()
            .context("no list of devices")?
            .iter()
            .map(|entry| Ok((word(entry, "name")?, word(entry, "state")?)))
            .collect::<Result<Vec<_>>>()?;
        devices.sort();
        Ok(devices)
    }

    /// Whether it sees another device.
    ///
    /// # Errors
    ///
    /// As [`Self::devices`], or it does not know the device.
    pub fn sees(&self, other: &str) -> Result<bool> {
        let devices = self.devices()?;
        let (_, state) = devices
            .iter()
            .find(|(name, _)| name == other)
            .with_context(|| format!("{other} is not among {devices:?}"))?;
        Ok(state == "here")
    }

    /// Waits until each of these devices sees all the others.
    ///
    /// # Errors
    ///
    /// They do not in time.
    pub fn all_meet(what: &str, within: Duration, devices: &[&Self]) -> Result<Duration> {
        let met = until(what, within, || {
            for one in devices {
                for other in devices.iter().filter(|other| other.name() != one.name()) {
                    if !one.sees(other.name())? {
                        bail!("the {} does not see the {}", one.name(), other.name());
                    }
                }
            }
            Ok(true)
        });
        met.with_context(|| {
            devices.iter().map(|device| device.log_tail()).collect::<Vec<_>>().join("\n")
        })
    }

    /// Listens to what its node tells from now on, until that ends.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub fn watch(&self) -> Result<Watch> {
        Watch::new(&mut self.command(), COMMAND)
    }

    /// How it reaches another device: `direct` or `relayed`; `None` where it does not.
    ///
    /// # Errors
    ///
    /// As [`Self::json`].
    pub fn way_to(&self, other: &str) -> Result<Option<String>> {
        let list = self.json(&["devices"])?;
        let mut entries = list.as_array().into_iter().flatten();
        let entry = entries.find(|entry| entry["name"] == other && entry["state"] == "here");
        Ok(entry.and_then(|entry| entry["way"].as_str()).map(str::to_owned))
    }

    /// The address that it reaches another device at, or is reached from.
    ///
    /// # Errors
    ///
    /// As [`Self::json`], or it has none.
    pub fn address_of(&self, other: &str) -> Result<String> {
        let list = self.json(&["devices"])?;
        let entry = list.as_array().into_iter().flatten().find(|entry| entry["name"] == other);
        let address = entry.and_then(|entry| entry["address"].as_str());
        address.map(str::to_owned).with_context(|| format!("no address of {other} in {list}"))
    }

    /// Its place.
    pub fn plug(&self) -> &Plug {
        &self.plug
    }

    /// Its place, to be changed.
    pub fn plug_mut(&mut self) -> &mut Plug {
        &mut self.plug
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        self.plug.name()
    }

    /// The port of its node, for UDP and TCP.
    ///
    /// # Errors
    ///
    /// It has chosen none yet.
    pub fn port(&self) -> Result<u16> {
        let text = fs::read_to_string(self.keyboard.home.join("node.toml"))?;
        let port = text.lines().find_map(|line| line.strip_prefix("port = "));
        Ok(port.context("settings without a port")?.parse()?)
    }

    /// All that its node said, over all its starts.
    ///
    /// # Errors
    ///
    /// It never ran.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// The end of that, to be shown.
    pub fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n  ");
        format!("the end of the {}'s log:\n  {tail}", self.plug.name())
    }

    fn command(&self) -> Command {
        self.keyboard.command()
    }
}

impl Keyboard {
    /// Types a command and returns how it ended, however that is; it is killed when its time is up.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn try_weft(&self, words: &[&str], within: Duration) -> Result<Ended> {
        end(self.command().args(words), within)
    }

    /// The program in its place and home, with nothing of the caller's environment.
    fn command(&self) -> Command {
        let mut command = self.space.command(&self.weft);
        command
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.folder)
            .env("WEFT_LOG", env::var_os("WEFT_LOG").unwrap_or_else(|| "info".into()))
            .arg("--home")
            .arg(&self.home);
        command
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut node) = self.node.take() {
            // It may have ended by itself.
            node.kill().ok();
            node.wait().ok();
        }
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child's id")?;
    kill_process(pid, signal).context("failed to signal a node")
}

/// The program under test: `WEFT_BIN`, else the one beside this test's own folder.
fn program() -> Result<PathBuf> {
    let named = env::var_os("WEFT_BIN").map(PathBuf::from);
    let beside = || Some(env::current_exe().ok()?.parent()?.parent()?.join("weft"));
    let found = named.or_else(beside).filter(|path: &PathBuf| Path::is_file(path));
    let found = found.context("there is no program to test: build `weft`, or set WEFT_BIN")?;
    Ok(found.canonicalize()?)
}

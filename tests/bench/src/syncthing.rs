//! Syncthing in a network of its own, from which nothing leaves.
//!
//! It is asked through a Unix socket in its home. Discovery beyond the local network, relays, NAT, usage and crash
//! reports and upgrades are off; whether it announces itself on the local network is the row's choice.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_netns::Plug;

use crate::process;

/// How long it may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The folder that is shared.
pub(crate) const FOLDER: &str = "notes";

/// One device. Dropping it kills its program.
#[derive(Debug)]
pub(crate) struct Syncthing {
    program: PathBuf,
    plug: Rc<Plug>,
    home: PathBuf,
    id: String,
    child: Option<Child>,
}

impl Syncthing {
    /// Makes a device with keys of its own in a place of the network, which does not run yet.
    pub(crate) fn new(program: &Path, plug: Rc<Plug>, folder: &Path) -> Result<Self> {
        let home = folder.join(plug.name());
        fs::create_dir_all(home.join(FOLDER))?;
        let made = Command::new(program)
            .args(["generate", "--no-default-folder", "--skip-port-probing", "--home"])
            .arg(&home)
            .env("HOME", folder)
            .env("STNOUPGRADE", "1")
            .stdin(Stdio::null())
            .output()
            .context("failed to run syncthing")?;
        ensure!(
            made.status.success(),
            "syncthing made no keys: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let config = fs::read_to_string(home.join("config.xml"))?;
        let id = config.split("<device id=\"").nth(1).and_then(|rest| rest.split('"').next());
        let id = id.context("a configuration without a device")?.to_owned();
        Ok(Self { program: program.to_owned(), plug, home, id, child: None })
    }

    /// Tells it of the others, which it finds at their `10.…` addresses or, where those are not told,
    /// by their announcements.
    pub(crate) fn pair(&self, others: &[(&Self, Option<&str>)]) -> Result<()> {
        let mut devices = format!("<device id=\"{}\"><address>dynamic</address></device>", self.id);
        let mut shared = format!("<device id=\"{}\"/>", self.id);
        for (other, at) in others {
            let at = at.map_or_else(|| "dynamic".to_owned(), |ip| format!("tcp://{ip}:22000"));
            write!(devices, "<device id=\"{}\"><address>{at}</address></device>", other.id)?;
            write!(shared, "<device id=\"{}\"/>", other.id)?;
        }
        let announces = others.iter().any(|(_, at)| at.is_none());
        let (folder, socket) = (self.folder(), self.socket());
        let config = format!(
            "<configuration version=\"36\">\
             <folder id=\"{FOLDER}\" path=\"{}\" type=\"sendreceive\">{shared}</folder>{devices}\
             <gui enabled=\"true\" tls=\"false\"><address>{}</address><apikey>bench</apikey></gui>\
             <options><listenAddress>tcp://0.0.0.0:22000</listenAddress>\
             <globalAnnounceEnabled>false</globalAnnounceEnabled>\
             <localAnnounceEnabled>{announces}</localAnnounceEnabled>\
             <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled>\
             <stunKeepaliveStartS>0</stunKeepaliveStartS><urAccepted>-1</urAccepted>\
             <crashReportingEnabled>false</crashReportingEnabled>\
             <autoUpgradeIntervalH>0</autoUpgradeIntervalH><startBrowser>false</startBrowser>\
             </options></configuration>",
            folder.display(),
            socket.display(),
        );
        Ok(fs::write(self.home.join("config.xml"), config)?)
    }

    /// Puts so many small files into the folder that it shares.
    pub(crate) fn fill(&self, files: usize) -> Result<()> {
        for number in 0..files {
            let text = format!("note number {number}");
            fs::write(self.folder().join(format!("{number}.txt")), text)?;
        }
        Ok(())
    }

    /// Forgets all files, and what it knew of them.
    pub(crate) fn forget(&self) -> Result<()> {
        for entry in fs::read_dir(&self.home)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("index-") {
                fs::remove_dir_all(entry.path())?;
            }
        }
        for entry in fs::read_dir(self.folder())? {
            let entry = entry?;
            // The marker stays: without it the folder counts as lost.
            if entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Starts it, and gives how long it took to answer.
    pub(crate) fn up(&mut self) -> Result<Duration> {
        let log = fs::File::create(self.home.join("log"))?;
        let mut command = self.plug.command(&self.program);
        command
            .args(["serve", "--no-browser", "--no-restart", "--home"])
            .arg(&self.home)
            .env("HOME", &self.home)
            .env("STNOUPGRADE", "1")
            // One process, without the one that watches over it and does nothing else.
            .env("STMONITORED", "yes")
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log);
        let start = Instant::now();
        self.child = Some(command.spawn()?);
        loop {
            match self.get("/rest/system/ping") {
                Ok(_) => return Ok(start.elapsed()),
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        process::end(self.child.as_mut().context("it does not run")?)?;
        self.child = None;
        Ok(())
    }

    /// Its process.
    pub(crate) fn process(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("it does not run")?.id())
    }

    /// Whether it knows so many files, and has them all.
    pub(crate) fn has(&self, files: usize) -> Result<bool> {
        let status = self.get(&format!("/rest/db/status?folder={FOLDER}"))?;
        let number = |field: &str| status[field].as_u64().unwrap_or_default();
        Ok(status["state"] == "idle"
            && number("needFiles") == 0
            && number("localFiles") == u64::try_from(files)?)
    }

    /// To how many others it is connected.
    pub(crate) fn connections(&self) -> Result<usize> {
        let said = self.get("/rest/system/connections")?;
        let all = said["connections"].as_object().context("no connections")?;
        Ok(all.values().filter(|it| it["connected"] == true).count())
    }

    /// The folder that it shares.
    pub(crate) fn folder(&self) -> PathBuf {
        self.home.join(FOLDER)
    }

    fn socket(&self) -> PathBuf {
        self.home.join("gui.sock")
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nX-API-Key: bench\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.split(' ').nth(1) == Some("200"), "syncthing answered {head}");
        Ok(serde_json::from_str(body)?)
    }
}

impl Drop for Syncthing {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

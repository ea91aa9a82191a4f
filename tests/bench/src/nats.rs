//! `nats-server` on loopback.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::process::Process;

/// How long it may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct NatsServer {
    process: Process,
    at: SocketAddr,
}

impl NatsServer {
    /// Starts one that knows the user of the peers, and gives how long it took to answer.
    pub(crate) fn start(program: &Path) -> Result<(Self, Duration)> {
        // Free a moment ago.
        let at = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(program);
        command
            .args(["--addr", "127.0.0.1", "--port", &at.port().to_string()])
            .args(["--user", "bench", "--pass", "bench"])
            .stderr(Stdio::null());
        let start = Instant::now();
        let mut process = Process::start(&mut command)?;
        loop {
            match answers(at) {
                Ok(()) => return Ok((Self { process, at }, start.elapsed())),
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => thread::sleep(Duration::from_micros(200)),
            }
            process.ensure_runs()?;
        }
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> String {
        self.at.to_string()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Result<()> {
        self.process.end()
    }
}

/// Whether it takes a client and answers it.
fn answers(at: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    ensure!(line.starts_with("INFO "), "a server that says {line:?}");
    let connect = br#"CONNECT {"verbose":false,"user":"bench","pass":"bench"}"#;
    stream.write_all(&[connect, &b"\r\nPING\r\n"[..]].concat())?;
    line.clear();
    lines.read_line(&mut line)?;
    if line.trim_end() != "PONG" {
        bail!("a server that answers {line:?}");
    }
    Ok(())
}

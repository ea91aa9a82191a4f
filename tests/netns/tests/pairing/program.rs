//! Programs of an attacker or an honest guest that run in another place of the network: each is an
//! ignored test of this very binary, started with `--exact`.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use weft_net::pairing::PairStream;
use weft_netns::Plug;
use weft_protocol::{
    codec, device::Kind, frame::FRAME_BYTES_MAX, id::EndpointId, pairing::PairingMessage,
};
use weft_trust::secret::DeviceSecret;

/// How long a program may live: it ends by itself then.
pub(crate) const LIFE: Duration = Duration::from_secs(300);

/// How long one dial or answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a program that was told to end may take.
const END: Duration = Duration::from_secs(30);

/// A program that runs in a place. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    /// Starts the ignored test `name` there.
    pub(crate) fn start(place: &Plug, name: &str, given: &[(&str, &str)]) -> Result<Self> {
        let mut command = place.command(&env::current_exe()?);
        command.args(["--exact", name, "--ignored", "--nocapture"]);
        command.envs(given.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("it is piped")?);
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, stdout })
    }

    /// Says a line to it.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.stdin.as_mut().context("it was told to end")?, "{line}")?)
    }

    /// What follows `word` on the next line with it; waits no longer than the program lives.
    pub(crate) fn hear(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        loop {
            line.clear();
            let len = self.stdout.read_line(&mut line)?;
            ensure!(len > 0, "the program ended before it said {word:?}");
            if let Some(at) = line.find(word) {
                return Ok(line[at + word.len()..].trim().to_owned());
            }
        }
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Tells it to end, and waits until it has, with success.
    pub(crate) fn end(mut self) -> Result<()> {
        drop(self.stdin.take());
        let deadline = Instant::now() + END;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "a program ended with {status}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "a program does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What it was given under that name.
pub(crate) fn given(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not given: another test starts this program"))
}

/// Runs a program's body, bounded by [`LIFE`].
pub(crate) fn live<T>(body: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let lived = runtime.block_on(async { tokio::time::timeout(LIFE, body).await });
    // A thread that waits for a line is left behind.
    runtime.shutdown_background();
    lived.context("a program's life was too short")?
}

/// A seed that differs for each purpose and number.
pub(crate) fn seed(purpose: u8, number: u32) -> [u8; 32] {
    let mut seed = [purpose; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    seed
}

/// The endpoint whose key is of that seed.
pub(crate) fn endpoint(seed: &[u8; 32]) -> EndpointId {
    EndpointId::from_bytes(*DeviceSecret::from_seed(seed).id().as_bytes())
}

/// What an honest phone calls itself.
pub(crate) const PHONE: (&str, Kind) = ("phone", Kind::Phone);

pub(crate) async fn send(stream: &mut PairStream, message: &PairingMessage) -> Option<()> {
    stream.send(codec::encode(message)).await.ok()
}

pub(crate) async fn receive(stream: &mut PairStream) -> Option<PairingMessage> {
    let bytes = tokio::time::timeout(PATIENCE, stream.recv()).await.ok()??;
    codec::decode(&bytes, FRAME_BYTES_MAX).ok()
}

//! What the machine can do at this moment: three probes that every row rests on in part.

use std::{
    fs::File,
    hint::black_box,
    io::Write as _,
    net::UdpSocket,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// One thing that a machine does as fast as it can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Floor {
    /// 256 bytes by UDP to another thread and back, on loopback: two wake-ups.
    Udp,
    /// 512 bytes appended to a file, and `fdatasync`.
    Sync,
    /// SHA-256 of 1 MiB.
    Sha,
}

/// Bytes of one echo.
const ECHO_BYTES: usize = 256;

/// Bytes of one append.
const APPEND_BYTES: usize = 512;

/// Bytes of one hash.
const HASHED_BYTES: usize = 1 << 20;

/// The probes' sockets, thread and file.
#[derive(Debug)]
pub(crate) struct Floors {
    client: UdpSocket,
    echo: Option<JoinHandle<()>>,
    file: File,
    bytes: Vec<u8>,
    _folder: TempDir,
}

/// What the floors were at one moment: medians.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) udp: Duration,
    pub(crate) sync: Duration,
    pub(crate) sha: Duration,
}

impl Floors {
    pub(crate) fn new() -> Result<Self> {
        let server = UdpSocket::bind("127.0.0.1:0").context("failed to open an echo's socket")?;
        let client = UdpSocket::bind("127.0.0.1:0").context("failed to open an echo's socket")?;
        client.connect(server.local_addr()?)?;
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        let echo = thread::spawn(move || {
            let mut buffer = [0; 2 * ECHO_BYTES];
            // An empty packet ends it.
            while let Ok((len @ 1.., from)) = server.recv_from(&mut buffer) {
                if server.send_to(&buffer[..len], from).is_err() {
                    return;
                }
            }
        });
        let folder = tempfile::tempdir().context("failed to make a folder")?;
        let file = File::create(folder.path().join("floor"))?;
        Ok(Self { client, echo: Some(echo), file, bytes: vec![7; HASHED_BYTES], _folder: folder })
    }

    /// One echo.
    pub(crate) fn echo(&self) -> Result<Duration> {
        let mut buffer = [0; ECHO_BYTES];
        let start = Instant::now();
        self.client.send(&self.bytes[..ECHO_BYTES])?;
        let len = self.client.recv(&mut buffer).context("failed to hear an echo")?;
        ensure!(len == ECHO_BYTES, "an echo of {len} bytes");
        Ok(start.elapsed())
    }

    /// One append that is on the disk.
    pub(crate) fn append(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.file.write_all(&self.bytes[..APPEND_BYTES])?;
        self.file.sync_data().context("failed to sync a file")?;
        Ok(start.elapsed())
    }

    fn hash(&self) -> Duration {
        let start = Instant::now();
        black_box(Sha256::digest(black_box(&self.bytes)));
        start.elapsed()
    }

    /// Measures all three.
    pub(crate) fn probe(&mut self) -> Result<Probe> {
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        Ok(Probe {
            udp: median((0..51).map(|_| self.echo()).collect::<Result<_>>()?),
            sync: median((0..9).map(|_| self.append()).collect::<Result<_>>()?),
            sha: median((0..5).map(|_| self.hash()).collect()),
        })
    }
}

impl Drop for Floors {
    fn drop(&mut self) {
        // Without the packet the thread would wait for ever, so then it is left to the process's end.
        if self.client.send(&[]).is_ok()
            && let Some(echo) = self.echo.take()
        {
            echo.join().ok();
        }
    }
}

/// Between what the floors were while something was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) least: Probe,
    pub(crate) most: Probe,
}

impl Range {
    /// The smallest in which all of these lie.
    pub(crate) fn around(ranges: impl IntoIterator<Item = Self>) -> Option<Self> {
        ranges.into_iter().reduce(|one, other| Self {
            least: one.least.zip(other.least, Duration::min),
            most: one.most.zip(other.most, Duration::max),
        })
    }
}

impl From<Probe> for Range {
    fn from(probe: Probe) -> Self {
        Self { least: probe, most: probe }
    }
}

impl Probe {
    fn zip(self, other: Self, choose: fn(Duration, Duration) -> Duration) -> Self {
        Self {
            udp: choose(self.udp, other.udp),
            sync: choose(self.sync, other.sync),
            sha: choose(self.sha, other.sha),
        }
    }

    pub(crate) const fn of(&self, floor: Floor) -> Duration {
        match floor {
            Floor::Udp => self.udp,
            Floor::Sync => self.sync,
            Floor::Sha => self.sha,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_all_that_was_probed() {
        let probe = |udp, sync| {
            let [udp, sync, sha] = [udp, sync, 500].map(Duration::from_micros);
            Range::from(Probe { udp, sync, sha })
        };
        let range = Range::around([probe(80, 200), probe(70, 900), probe(90, 100)]).unwrap();
        let bounds = [range.least, range.most].map(|it| (it.udp.as_micros(), it.sync.as_micros()));
        assert_eq!(bounds, [(70, 100), (90, 900)]);
        assert!(Range::around([]).is_none());
    }
}

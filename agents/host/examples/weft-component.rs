//! Builds the agents of this repository as components: `weft-component build [--check]`.
//!
//! `build` writes `agents/dist/NAME.wasm` and `agents/dist/digests.toml`. With `--check` it writes
//! the same into `weft-component/dist` of cargo's target folder instead, and fails with the names of
//! those whose digest differs from the committed one. The tests of this crate run on that folder if
//! `WEFT_DIST` names it. The bytes depend on the sources and the compiler alone: the folders of the
//! workspace, of cargo and of the toolchain are kept out of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use wit_component::ComponentEncoder;

/// The agents, in the order in which they are built.
const AGENTS: [&str; 4] = ["notes", "timer", "docs", "text"];

const TARGET: &str = "wasm32-unknown-unknown";

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["build"] => build(),
        ["build", "--check"] => check(),
        _ => bail!("usage: weft-component build [--check]"),
    }
}

fn build() -> anyhow::Result<ExitCode> {
    write(&workspace().join("agents/dist"), &components(&target_folder())?)?;
    Ok(ExitCode::SUCCESS)
}

fn check() -> anyhow::Result<ExitCode> {
    let digests = fs::read_to_string(workspace().join("agents/dist/digests.toml"))
        .context("read the committed digests")?;
    let committed: BTreeMap<String, String> = toml::from_str(&digests)?;
    let target = target_folder().join("weft-component");
    let components = components(&target)?;
    write(&target.join("dist"), &components)?;
    let built: BTreeMap<String, String> =
        components.iter().map(|(name, component)| (name.clone(), digest(component))).collect();

    let names: BTreeSet<&String> = committed.keys().chain(built.keys()).collect();
    let mut is_same = true;
    for name in names {
        let (committed, built) = (committed.get(name), built.get(name));
        if committed != built {
            let words = |digest: Option<&String>| digest.map_or("none", String::as_str).to_owned();
            eprintln!("{name} differs: committed {}, built {}", words(committed), words(built));
            is_same = false;
        }
    }
    if is_same {
        eprintln!("{} components are as committed", built.len());
    }
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes components and their digests into a folder.
fn write(folder: &Path, components: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let mut digests = "# BLAKE3 of each component, written by `weft-component build`.\n".to_owned();
    for (name, component) in components {
        fs::write(folder.join(format!("{name}.wasm")), component)?;
        digests.push_str(&format!("{name} = \"{}\"\n", digest(component)));
        eprintln!("{name}: {} KiB", component.len() >> 10);
    }
    Ok(fs::write(folder.join("digests.toml"), digests)?)
}

fn digest(component: &[u8]) -> String {
    blake3::hash(component).to_hex().to_string()
}

/// Compiles and encodes all agents; `target` is cargo's folder.
fn components(target: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .args(["build", "--locked", "--profile", "agent", "--target", TARGET])
        .args(AGENTS.iter().flat_map(|name| ["-p".to_owned(), format!("weft-agent-{name}")]))
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags()?.join("\u{1f}"))
        .stdin(Stdio::null());
    // What decides about flags, features or wrappers comes from here, not from who calls.
    for name in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_RUSTFLAGS"] {
        cargo.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PROFILE_")
            || name.starts_with("CARGO_UNSTABLE_")
            || name.starts_with("CARGO_RESOLVER_")
            || name.starts_with("__CARGO_")
        {
            cargo.env_remove(name);
        }
    }
    ensure!(cargo.status().context("run cargo")?.success(), "cargo could not build the agents");
    AGENTS.iter().map(|name| Ok(((*name).to_owned(), encode(target, name)?))).collect()
}

fn encode(target: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let module = target.join(TARGET).join("agent").join(format!("weft_agent_{name}.wasm"));
    let module = fs::read(&module).with_context(|| format!("read {}", module.display()))?;
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .with_context(|| format!("encode {name}"))
}

/// What the compiler is told beside the profile.
fn flags() -> anyhow::Result<Vec<String>> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.join(".cargo")))
        .context("find cargo's folder")?;
    let sysroot = Command::new("rustc")
        .current_dir(workspace())
        .args(["--print", "sysroot"])
        .output()
        .context("ask rustc for its folder")?;
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout)?.trim());
    let remapped = [(workspace(), "/weft"), (cargo_home, "/cargo"), (sysroot, "/rust")];
    let mut flags: Vec<String> = remapped
        .iter()
        .map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display()))
        .collect();
    // An agent has no chance of its own. The PDF library wants some for writing, which is not done.
    flags.push("--cfg=getrandom_backend=\"unsupported\"".to_owned());
    Ok(flags)
}

fn workspace() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR");
    let here = here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.ancestors().nth(2).map_or_else(|| here.clone(), Path::to_owned)
}

fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

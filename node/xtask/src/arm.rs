//! `cargo arm`: the program for 64-bit Arm Linux, and whether all the rest compiles for it.
//!
//! Debian's cross compiler builds and links on another processor; on such a machine itself the one
//! that is there does. Both parts use one profile, so that llama.cpp is compiled once for the two.

use std::env::consts::{ARCH, OS};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::process;
use crate::setup::{self, Purpose};
use crate::stage;
use crate::term;
use crate::workspace::Workspace;

/// The target, as rustc names it.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";

/// What the names of Debian's cross tools begin with.
pub(crate) const TOOLS: &str = "aarch64-linux-gnu-";

/// Where Debian keeps headers and libraries of the other processor.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";

/// Reading the headers of a file takes a moment.
const LOOK: Duration = Duration::from_secs(60);

/// Whether this machine is one of those that it builds for.
pub(crate) fn is_here() -> bool {
    ARCH == "aarch64" && OS == "linux"
}

/// Builds the program and, unless only that is wanted, checks every crate with its tests.
pub(crate) fn run(workspace: &Workspace, yes: bool, program_only: bool) -> Result<(), Failure> {
    let start = Instant::now();
    for note in setup::prepare(workspace, Purpose::Arm, yes)? {
        term::say(format_args!("note: {note}"));
    }
    process::run(cargo(workspace, "build").args(["--package", "weft"])).map_err(Failure::Broken)?;
    if !program_only {
        process::run(cargo(workspace, "check").args(["--workspace", "--all-targets"]))
            .map_err(Failure::Broken)?;
    }
    let program = workspace.cross_binary(TARGET, "weft");
    let bytes = fs::metadata(&program)
        .map_err(|error| Failure::Broken(format!("failed to find {}: {error}", program.display())))?
        .len();
    let needs = needs(workspace, &program.to_string_lossy()).map_err(Failure::Broken)?;
    let (file, took) = (program.display(), stage::spelled(start.elapsed()));
    term::say(format_args!(
        "\nBuilt for 64-bit Arm Linux in {took}: {file}, {megabytes} MB.\n\
         On the device it needs {needs}; all else is in it. To bring it there:\n\n  \
         scp {file} DEVICE:\n\n\
         On a phone, see \"On a phone\" in README.md.",
        megabytes = bytes.div_ceil(1_000_000),
    ));
    Ok(())
}

/// One of cargo's subcommands for the target, with what build scripts ask for beside it.
fn cargo(workspace: &Workspace, subcommand: &str) -> Command {
    let mut command = workspace.cargo();
    command.args([subcommand, "--locked", "--release", "--target", TARGET]);
    if !is_here() {
        cross(&mut command);
    }
    command
}

/// Names the cross tools to cargo (the linker), cc, cmake and bindgen. What is set already stays:
/// whoever sets it has another compiler.
fn cross(command: &mut Command) {
    let tool = |name: &str| format!("{TOOLS}{name}");
    let variables = [
        ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", tool("gcc")),
        ("CC_aarch64_unknown_linux_gnu", tool("gcc")),
        ("CXX_aarch64_unknown_linux_gnu", tool("g++")),
        ("AR_aarch64_unknown_linux_gnu", tool("ar")),
        // bindgen's libclang names the target itself, but knows no headers for it.
        (
            "BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu",
            format!("-isystem {SYSROOT}/include"),
        ),
        // llama.cpp uses what it finds, and would find this machine's own libraries.
        ("CMAKE_FIND_ROOT_PATH", SYSROOT.into()),
        ("CMAKE_FIND_ROOT_PATH_MODE_PROGRAM", "NEVER".into()),
        ("CMAKE_FIND_ROOT_PATH_MODE_LIBRARY", "ONLY".into()),
        ("CMAKE_FIND_ROOT_PATH_MODE_INCLUDE", "ONLY".into()),
        ("CMAKE_FIND_ROOT_PATH_MODE_PACKAGE", "ONLY".into()),
    ];
    for (name, value) in variables {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
}

/// What a device must have, read from the program itself.
fn needs(workspace: &Workspace, program: &str) -> Result<String, String> {
    let objdump = if is_here() { "objdump".into() } else { format!("{TOOLS}objdump") };
    let mut command = workspace.command(objdump);
    let answer = process::hear(command.args(["-p", program]), LOOK)?;
    if !answer.status.success() {
        return Err(format!("`{}` ended with {}", process::spelled(&command), answer.status));
    }
    read_needs(&answer.stdout).ok_or_else(|| format!("{program} is no program for 64-bit Arm"))
}

/// The libraries and the oldest C library, as `objdump -p` tells them; `None` of anything else than
/// a program for the target.
fn read_needs(said: &str) -> Option<String> {
    if !said.contains("file format elf64-littleaarch64") {
        return None;
    }
    let libraries = said.lines().filter_map(|line| line.trim().strip_prefix("NEEDED"));
    // The C library's own parts come with its version.
    let libraries: Vec<_> = libraries
        .map(str::trim)
        .filter(|name| !["libc.", "libm.", "ld-linux"].iter().any(|part| name.starts_with(part)))
        .collect();
    let version = |word: &str| -> Option<Vec<u32>> {
        word.strip_prefix("GLIBC_")?.split('.').map(|part| part.parse().ok()).collect()
    };
    let oldest = said.split_whitespace().filter_map(version).max()?;
    let oldest: Vec<_> = oldest.iter().map(u32::to_string).collect();
    let glibc = format!("glibc {} or later", oldest.join("."));
    Some([&[glibc.as_str()], libraries.as_slice()].concat().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "
weft:     file format elf64-littleaarch64

Dynamic Section:
  NEEDED               libstdc++.so.6
  NEEDED               libgcc_s.so.1
  NEEDED               libm.so.6
  NEEDED               libc.so.6
  NEEDED               ld-linux-aarch64.so.1

Version References:
  required from libgcc_s.so.1:
    0x0d696914 0x00 14 GCC_3.4
  required from libc.so.6:
    0x06969189 0x00 13 GLIBC_2.9
    0x069691b4 0x00 03 GLIBC_2.34
    0x06969197 0x00 02 GLIBC_2.17
";

    #[test]
    fn what_the_device_needs_is_read_from_the_program() {
        let needs = "glibc 2.34 or later, libstdc++.so.6, libgcc_s.so.1";
        assert_eq!(read_needs(SAID).as_deref(), Some(needs));
    }

    #[test]
    fn a_program_for_another_processor_is_not_taken_for_one() {
        assert_eq!(read_needs(&SAID.replace("littleaarch64", "x86-64")), None);
        assert_eq!(read_needs(""), None);
    }

    #[test]
    fn the_cross_tools_are_named_to_all_who_ask() {
        let mut command = Command::new("cargo");
        cross(&mut command);
        let set = |name: &str| {
            let here = command.get_envs().any(|(key, value)| key == name && value.is_some());
            here || std::env::var_os(name).is_some()
        };
        for name in [
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
            "CC_aarch64_unknown_linux_gnu",
            "CXX_aarch64_unknown_linux_gnu",
            "BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu",
        ] {
            assert!(set(name), "{name}");
        }
    }
}

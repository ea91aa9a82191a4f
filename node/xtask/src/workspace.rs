//! Where things are, and the environment that every child is started with.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;
use crate::setup;

/// The folders of this checkout and of this user.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The checkout: the folder of the virtual workspace.
    pub(crate) root: PathBuf,
    /// Cargo's target folder, the one that this program was built into.
    target: PathBuf,
    /// What survives a fresh clone: tools and models.
    cache: PathBuf,
    /// The search path of children: our tools first.
    path: OsString,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self, Failure> {
        let root = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(manifest) => PathBuf::from(manifest).join("../.."),
            None => PathBuf::from("."),
        };
        let root = root
            .canonicalize()
            .ok()
            .filter(|root| root.join("Cargo.lock").is_file())
            .ok_or_else(|| broken("find the workspace: start this as `cargo demo` in it"))?;
        let target = env::current_exe()
            .ok()
            .and_then(|exe| exe.parent()?.parent().map(Path::to_path_buf))
            .ok_or_else(|| broken("find the target folder that this program lies in"))?;
        let cache = cache_folder(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))
            .ok_or_else(|| broken("find a cache folder: neither XDG_CACHE_HOME nor HOME is set"))?;
        let tools = setup::TOOLS.iter().map(|tool| cache.join("tools").join(tool.folder()));
        let path =
            search_path(tools.map(|folder| folder.join("bin")), env::var_os("PATH").as_deref());
        Ok(Self { root, target, cache, path })
    }

    /// A program in this workspace's environment: at its root, with our tools, without a terminal
    /// to ask at, and without the variables by which cargo describes *this* program: build scripts
    /// that watch them would run again, and take their C libraries with them.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("PATH", &self.path).stdin(Stdio::null());
        for (name, _) in env::vars_os() {
            if describes_this_program(&name) {
                command.env_remove(name);
            }
        }
        command
    }

    /// The cargo that started this program.
    pub(crate) fn cargo(&self) -> Command {
        self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// A program of this workspace, as built by `cargo build`.
    pub(crate) fn debug_binary(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// A program of this workspace, as built by `cargo build --release`.
    pub(crate) fn release_binary(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    /// A program of this workspace, as built by `cargo build --release --target TARGET`.
    pub(crate) fn cross_binary(&self, target: &str, name: &str) -> PathBuf {
        self.target.join(target).join("release").join(name)
    }

    pub(crate) fn tools(&self) -> PathBuf {
        self.cache.join("tools")
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.cache.join("models")
    }
}

fn broken(what: &str) -> Failure {
    Failure::Broken(format!("failed to {what}"))
}

/// `$XDG_CACHE_HOME/weft`, else `~/.cache/weft`; a relative or empty value counts as not set.
fn cache_folder(xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |value: Option<OsString>| value.map(PathBuf::from).filter(|p| p.is_absolute());
    absolute(xdg)
        .or_else(|| absolute(home).map(|home| home.join(".cache")))
        .map(|base| base.join("weft"))
}

/// `folders` before what is already searched; each once. A folder that PATH can't spell is left
/// out, and with it nothing else.
fn search_path(folders: impl Iterator<Item = PathBuf>, current: Option<&OsStr>) -> OsString {
    let mut parts: Vec<PathBuf> = Vec::new();
    let current = current.map(env::split_paths).into_iter().flatten();
    for folder in folders.chain(current) {
        if !parts.contains(&folder) && env::join_paths([&folder]).is_ok() {
            parts.push(folder);
        }
    }
    env::join_paths(parts).unwrap_or_default()
}

fn describes_this_program(variable: &OsStr) -> bool {
    variable.to_str().is_some_and(|name| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(folders: &[&str], current: Option<&str>) -> String {
        search_path(folders.iter().map(PathBuf::from), current.map(OsStr::new))
            .into_string()
            .expect("test paths are text")
    }

    #[test]
    fn our_tools_come_first_and_nothing_is_searched_twice() {
        assert_eq!(
            path_of(&["/t/a", "/t/b"], Some("/usr/bin:/t/a:/bin")),
            "/t/a:/t/b:/usr/bin:/bin"
        );
        assert_eq!(path_of(&["/t/a"], None), "/t/a");
        assert_eq!(path_of(&[], Some("/bin:/bin")), "/bin");
    }

    #[test]
    fn a_folder_that_path_cannot_spell_does_not_empty_it() {
        assert_eq!(path_of(&["/odd:name", "/t"], Some("/bin")), "/t:/bin");
    }

    #[test]
    fn the_cache_is_where_the_user_keeps_caches() {
        let of = |xdg: Option<&str>, home: Option<&str>| {
            cache_folder(xdg.map(OsString::from), home.map(OsString::from))
        };
        assert_eq!(of(Some("/x"), Some("/h")), Some("/x/weft".into()));
        assert_eq!(of(Some(""), Some("/h")), Some("/h/.cache/weft".into()));
        assert_eq!(of(Some("relative"), Some("/h")), Some("/h/.cache/weft".into()));
        assert_eq!(of(None, None), None);
    }

    #[test]
    fn children_are_not_told_about_this_program() {
        let hidden = |name: &str| describes_this_program(OsStr::new(name));
        assert!(hidden("CARGO_PKG_NAME") && hidden("CARGO_MANIFEST_DIR"));
        assert!(!hidden("CARGO_TARGET_DIR") && !hidden("CARGO_INCREMENTAL") && !hidden("PATH"));
    }
}

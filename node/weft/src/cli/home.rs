//! The node's folder.

use std::{env, ffi::OsString, path::PathBuf};

use weft_api::ErrorKind;

use super::error::CommandError;

/// The folder that was named, else `$XDG_DATA_HOME/weft`, else `~/.local/share/weft`.
pub(super) fn find(named: Option<PathBuf>) -> Result<PathBuf, CommandError> {
    let home =
        choose(named, env::var_os("XDG_DATA_HOME"), env::var_os("HOME")).ok_or_else(|| {
            CommandError::new(ErrorKind::Usage, "there is no folder for the node: HOME is not set")
                .hint("name one with --home DIR")
        })?;
    std::path::absolute(&home).map_err(|error| {
        CommandError::from(anyhow::Error::new(error))
            .while_doing(format!("failed to find the folder {}", home.display()))
    })
}

/// Relative and empty values of the system's variables count as not set.
fn choose(
    named: Option<PathBuf>,
    xdg: Option<OsString>,
    user: Option<OsString>,
) -> Option<PathBuf> {
    let folder = |value: Option<OsString>| value.map(PathBuf::from).filter(|it| it.is_absolute());
    let named = named.filter(|named| !named.as_os_str().is_empty());
    let shared = || folder(xdg).map(|data| data.join("weft"));
    let own = || folder(user).map(|user| user.join(".local/share/weft"));
    named.or_else(shared).or_else(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_comes_first() {
        let of = |named: Option<&str>, xdg: Option<&str>, user: Option<&str>| {
            choose(named.map(PathBuf::from), xdg.map(OsString::from), user.map(OsString::from))
        };
        assert_eq!(of(Some("n"), Some("/x"), Some("/u")), Some("n".into()));
        assert_eq!(of(Some(""), Some("/x"), Some("/u")), Some("/x/weft".into()));
        assert_eq!(of(None, Some("x"), Some("/u")), Some("/u/.local/share/weft".into()));
        assert_eq!(of(None, None, None), None);
    }
}

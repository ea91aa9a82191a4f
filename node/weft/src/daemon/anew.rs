//! How the process of a node begins anew, in its own place: the same program is executed again under
//! the same id, so that whoever started it keeps it. Nothing of the memory before is left.

use std::{
    env,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Error, Result};
use weft_store::key::WrappingKey;

use super::home::{Home, Metered};

/// What the person who started a process said, which the next in its place is told again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// How much is logged.
    pub(crate) verbose: u8,
    /// Whether the network costs money, before what the home's settings say.
    pub(crate) metered: Option<Metered>,
}

/// What it begins as.
#[derive(Debug)]
pub(super) enum Anew {
    /// Without keys.
    Locked,
    /// With the key that opens the key file.
    Unlocked(WrappingKey),
}

/// Begins anew; comes back only with what stood in the way.
pub(super) fn begin(home: &Home, told: Told, anew: Anew) -> Error {
    match command(home, told, anew) {
        Ok(mut command) => Error::new(command.exec()).context("failed to begin anew"),
        Err(error) => error,
    }
}

fn command(home: &Home, told: Told, anew: Anew) -> Result<Command> {
    // The link to the running file, not its path: also after an upgrade it is the same program.
    let program = if cfg!(any(target_os = "linux", target_os = "android")) {
        PathBuf::from("/proc/self/exe")
    } else {
        env::current_exe().context("failed to find this program")?
    };
    let mut command = Command::new(program);
    command.arg0("weft").arg("--home").arg(home.path());
    command.args((0..told.verbose).map(|_| "-v")).arg("up");
    if let Some(metered) = told.metered {
        command.args(["--metered", metered.word()]);
    }
    match anew {
        Anew::Locked => command.arg("--locked").stdin(Stdio::null()),
        Anew::Unlocked(key) => {
            // Through a pipe: arguments and environment can be seen by others, and a file lies on a disk.
            let (reader, mut writer) = std::io::pipe().context("failed to make a pipe")?;
            writer.write_all(key.as_bytes()).context("failed to hand the key over")?;
            command.arg("--unlocked").stdin(reader)
        }
    };
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_process_is_told_the_same() {
        let home = Home::new("/home/of/a/node");
        let said = |told| {
            let command = command(&home, told, Anew::Locked).unwrap();
            let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
            words.collect::<Vec<_>>().join(" ")
        };
        let silent = said(Told { verbose: 0, metered: None });
        assert_eq!(silent, "--home /home/of/a/node up --locked");
        let told = said(Told { verbose: 2, metered: Some(Metered::Yes) });
        assert_eq!(told, "--home /home/of/a/node -v -v up --metered yes --locked");
    }
}

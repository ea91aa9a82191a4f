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

use super::home::Home;

/// What it begins as.
#[derive(Debug)]
pub(super) enum Anew {
    /// Without keys.
    Locked,
    /// With the key that opens the key file.
    Unlocked(WrappingKey),
}

/// Begins anew; comes back only with what stood in the way.
pub(super) fn begin(home: &Home, verbose: u8, anew: Anew) -> Error {
    match command(home, verbose, anew) {
        Ok(mut command) => Error::new(command.exec()).context("failed to begin anew"),
        Err(error) => error,
    }
}

fn command(home: &Home, verbose: u8, anew: Anew) -> Result<Command> {
    // The link to the running file, not its path: also after an upgrade it is the same program.
    let program = if cfg!(target_os = "linux") {
        PathBuf::from("/proc/self/exe")
    } else {
        env::current_exe().context("failed to find this program")?
    };
    let mut command = Command::new(program);
    command.arg0("weft").arg("--home").arg(home.path());
    command.args((0..verbose).map(|_| "-v"));
    match anew {
        Anew::Locked => command.args(["up", "--locked"]).stdin(Stdio::null()),
        Anew::Unlocked(key) => {
            // Through a pipe: arguments and environment can be seen by others, and a file lies on a disk.
            let (reader, mut writer) = std::io::pipe().context("failed to make a pipe")?;
            writer.write_all(key.as_bytes()).context("failed to hand the key over")?;
            command.args(["up", "--unlocked"]).stdin(reader)
        }
    };
    Ok(command)
}

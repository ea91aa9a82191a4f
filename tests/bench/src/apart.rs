//! The server of the two in a process of its own, which is this program once more.

use std::{
    env, io,
    io::{Read as _, Write as _},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    fabric,
    member::{Member, SERVER_SEED, runtime},
    process::Process,
};

/// The word that makes this program the server.
pub(crate) const FLAG: &str = "--be-the-server";

/// How long it has until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts it, and gives where it can be dialled.
pub(crate) fn start() -> Result<(Process, Vec<String>)> {
    let process = Process::start(Command::new(env::current_exe()?).arg(FLAG))?;
    let (_, addresses) = process.hear("AT ", PATIENCE)?;
    Ok((process, addresses.split(' ').map(str::to_owned).collect()))
}

/// Is it, until standard input ends.
pub(crate) fn run() -> Result<()> {
    let runtime = runtime()?;
    let [_, server] = fabric::two()?;
    let member = Member::start(&runtime, server, SERVER_SEED, &[])?;
    let mut out = io::stdout().lock();
    writeln!(out, "AT {}", member.addresses.join(" "))?;
    out.flush()?;
    drop(out);
    io::stdin().read_to_end(&mut Vec::new()).context("failed to wait for the end")?;
    Ok(())
}

//! What the peers of the benchmark have in common: how they are asked, and what they carry.
//!
//! A peer is a program that runs as a server or as a client, each in a process of its own. A server
//! prints `AT` with what a client needs to find it. A client prints `READY` once it is connected; then
//! for each line that it reads it makes one call, and prints how many nanoseconds that took. Both end
//! when their standard input does.
//!
//! Not here: anything of Weft. These are the libraries as their own examples use them.

use std::{
    io::{self, Write as _},
    time::Instant,
};

use anyhow::{Result, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

/// Bytes of a request and of its answer: near what a step's offer and outcome take on the wire.
pub const PAYLOAD_BYTES: usize = 256;

/// The lines of standard input.
pub fn lines() -> Lines<BufReader<Stdin>> {
    BufReader::new(tokio::io::stdin()).lines()
}

/// Says a line, at once.
pub fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Waits until standard input ends.
pub async fn until_told() -> Result<()> {
    let mut lines = lines();
    while lines.next_line().await?.is_some() {}
    Ok(())
}

/// Makes a call for each line, and says how long it took.
pub async fn ask(mut call: impl AsyncFnMut() -> Result<usize>) -> Result<()> {
    say("READY")?;
    let mut lines = lines();
    while lines.next_line().await?.is_some() {
        let start = Instant::now();
        let len = call().await?;
        let took = start.elapsed();
        ensure!(len == PAYLOAD_BYTES, "an answer of {len} bytes");
        say(&took.as_nanos().to_string())?;
    }
    Ok(())
}

//! What a child process does: compile, or run an agent. Never both.

mod agent;
mod compile;
mod import;
mod memory;
mod ticker;

use std::{fmt, io, process::ExitCode};

use weft_wall::WallError;

use crate::error::Stop;

/// Runs as a child of the given role; the program's `main` calls it before anything else for roles
/// `agent` and `compile`.
pub fn run_child(role: &str) -> ExitCode {
    run(role, None)
}

/// A host function that acts for the guest past the WASI layer: a hole in the first wall, made on
/// purpose to test the second.
#[derive(Clone, Copy)]
pub struct Escape(pub fn(&str) -> String);

impl fmt::Debug for Escape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Escape")
    }
}

/// Like [`run_child`], with the interface `weft:test/escape` linked for every component.
pub fn run_child_with_escape(role: &str, escape: Escape) -> ExitCode {
    run(role, Some(escape))
}

fn run(role: &str, escape: Option<Escape>) -> ExitCode {
    let done = match role {
        "agent" => agent::serve(escape),
        "compile" => compile::serve(),
        other => Err(io::Error::other(format!("a child has no role {other:?}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Descriptor 2 is the node's own; a child has no other way to say why it ends.
            eprintln!("weft {role}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is told of a wall that does not stand, where another child's would not either.
fn unwalled(error: &WallError) -> io::Result<Stop> {
    match error {
        WallError::Threads { .. } => Err(io::Error::other(error.to_string())),
        WallError::Unavailable
        | WallError::Refused { .. }
        | WallError::Breach { .. }
        | WallError::Unproven { .. }
        | WallError::Broken { .. } => Ok(Stop::Wall(error.to_string())),
    }
}

/// The other end closed the socket.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    let kinds =
        [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof];
    kinds.contains(&error.kind())
}

//! The commands for people who work on Weft: `cargo demo`, `cargo verify` and `cargo arm`.
//!
//! `cargo demo` takes a fresh machine to three paired nodes that carry out a command;
//! `cargo verify` runs everything that must hold before a change lands; `cargo arm` builds the
//! program for 64-bit Arm. All set the machine up first, and may be run again: what is there is left
//! alone.
//!
//! Deliberately not in it: dependencies (it must build on a bare machine in a second), knowledge
//! of formats or keys (it drives the `weft` binary as a person would, and leaves checking the
//! model's digest to it), and assertions on time.
//!
//! One walk: `arguments` reads the words; `workspace` finds the folders and gives every child its
//! environment; `setup` installs what is missing; then `verify` runs its list of `stage`s and prints a
//! table, or `arm` names the cross tools to cargo, or `demo` builds the release binary, `model` gets
//! the default model, `fleet` starts the nodes, and `story` says what is typed on which of them.
//!
//! Exit codes: 0 all went well, 1 something failed, 2 the words were not understood, 3 the machine
//! lacks something that only its administrator can install.

mod arguments;
mod arm;
mod demo;
mod fleet;
mod model;
mod process;
mod setup;
mod sink;
mod stage;
mod story;
mod term;
mod verify;
mod workspace;

use std::process::ExitCode;

use crate::arguments::Invocation;
use crate::workspace::Workspace;

/// Why a command ended early; each kind has its own exit code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Something that was run failed, or did not show what it must.
    Broken(String),
    /// The words on the command line make no sense.
    Usage(String),
    /// The machine lacks something that was not, or may not be, installed.
    Missing(String),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Broken(_) => 1,
            Self::Usage(_) => 2,
            Self::Missing(_) => 3,
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::Broken(message) | Self::Usage(message) | Self::Missing(message) => message,
        }
    }
}

fn main() -> ExitCode {
    match dispatch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message().is_empty() {
                term::complain(failure.message());
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn dispatch() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match arguments::read(&words)? {
        Invocation::Help => {
            term::say(arguments::USAGE);
            Ok(())
        }
        Invocation::Demo { yes, keep } => demo::run(&Workspace::find()?, yes, keep),
        Invocation::List => {
            verify::list();
            Ok(())
        }
        Invocation::Arm { yes, program_only } => arm::run(&Workspace::find()?, yes, program_only),
        Invocation::Verify { yes, only } => verify::run(&Workspace::find()?, yes, &only),
    }
}

//! The command line: what a person types and sees.
//!
//! Each command is a module named after its noun. What it finds goes to standard output, as text or
//! with `--json` in the shapes of `weft_api::json`; messages go to standard error. A command ends
//! with the exit code of its [`Done`], which [`error`] lists.

mod arguments;
pub(crate) mod error;
mod home;
mod node;
mod terminal;

mod init;
mod invitation;
mod join;
mod qr;

mod run;
mod say;
mod screen;

mod agent;
mod audit;
mod device;
mod event;
mod model;
mod note;
mod policy;
mod status;
mod timer;

use std::{future::Future, path::PathBuf, process::ExitCode};

use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use weft_api::{ErrorKind, OpenError};

use self::{
    arguments::{Arguments, Command},
    error::{CommandError, Done, exit_code},
    terminal::Terminal,
};

use crate::daemon::{
    home::{Home, NotInitialised},
    up,
};

/// What every command has at hand.
#[derive(Debug)]
struct Session {
    /// The node's folder.
    home: PathBuf,
    /// Where to show things.
    terminal: Terminal,
}

/// Reads the arguments, does what they say, and gives the exit code.
pub(crate) fn run() -> ExitCode {
    // Wrong usage ends here with 2, `help` and `--version` with 0.
    let arguments = Arguments::parse();
    trace(arguments.verbose);
    let terminal = Terminal::new(arguments.json, arguments.verbose);
    let done = home::find(arguments.home).and_then(|home| {
        let session = Session { home, terminal };
        dispatch(&session, arguments.command)
    });
    let kind = match done {
        Ok(kind) => kind,
        Err(error) => {
            error.report(&terminal);
            Some(error.kind())
        }
    };
    ExitCode::from(kind.map_or(0, exit_code))
}

/// Says a line on standard error, before there is a terminal to say it on.
pub(crate) fn complain(text: &str) {
    terminal::error_line(text);
}

fn dispatch(session: &Session, command: Command) -> Done {
    match command {
        Command::Init(arguments) => init::run(session, arguments),
        Command::Join(arguments) => join::run(session, arguments),
        Command::Up => start(&Home::new(&session.home)),
        Command::Invite(arguments) => wait(invitation::run(session, &arguments)),
        Command::Do(arguments) => wait(say::run(session, &arguments)),
        Command::Run { action } => wait(run::run(session, action)),
        Command::Status => wait(status::run(session)),
        Command::Devices { action } => wait(device::run(session, action)),
        Command::Agents => wait(agent::run(session)),
        Command::Notes { action } => wait(note::run(session, action)),
        Command::Timers => wait(timer::run(session)),
        Command::Audit { action } => wait(audit::run(session, action)),
        Command::Policy { action } => match action {
            arguments::PolicyAction::Check { words } => wait(policy::check(session, &words)),
            arguments::PolicyAction::Test => policy::test(session),
        },
        Command::Model { action } => match action {
            arguments::ModelAction::Get(arguments) => model::get(session, arguments),
            arguments::ModelAction::Status => wait(model::status(session)),
        },
        Command::Events => wait(event::run(session)),
    }
}

/// Runs the node. What keeps it from starting is told as the reason, but for a home without a device, and
/// for one whose node runs.
fn start(home: &Home) -> Done {
    match up::run(home) {
        Ok(()) => Ok(None),
        Err(error) if error.is::<NotInitialised>() => Err(error.into()),
        Err(error) if matches!(error.downcast_ref(), Some(OpenError::AlreadyRunning { .. })) => {
            let message = format!("a node is already running in {}", home.path().display());
            Err(CommandError::new(ErrorKind::Usage, message).hint("weft status shows it"))
        }
        Err(error) => Err(error.context("failed to run the node").into()),
    }
}

/// Runs a command that talks to the node.
fn wait(command: impl Future<Output = Done>) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::failed(&error).while_doing("failed to start"))?;
    let done = runtime.block_on(command);
    // A question that nobody answered still waits for a key.
    runtime.shutdown_background();
    done
}

/// Sets up the log on standard error: warnings, or what `-v` and `WEFT_LOG` ask for.
fn trace(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "warn,weft=info",
        2 => "info,weft=debug",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("WEFT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal::is_colourful(&std::io::stderr()))
        .init();
}

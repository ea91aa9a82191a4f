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
mod tty;

mod init;
mod invitation;
mod join;
mod recover;
mod means;
mod photo;
mod rotate;
mod qr;

mod key;
mod lock;
mod passphrase;
mod up;

mod run;
mod say;
mod screen;

mod agent;
mod audit;
mod device;
mod doctor;
mod event;
mod model;
mod note;
mod policy;
mod status;
mod timer;
mod trust;

use std::{future::Future, path::PathBuf, process::ExitCode};

use clap::error::{ContextKind, ContextValue};
use tracing_subscriber::EnvFilter;
use weft_api::{ErrorKind, Problem};

use self::{
    arguments::{Arguments, Command},
    error::{CommandError, Done, exit_code},
    terminal::Terminal,
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
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => return misused(error),
    };
    trace(arguments.verbose);
    let terminal = Terminal::new(arguments.json, arguments.verbose);
    let done = home::find(arguments.home).and_then(|home| {
        let session = Session { home, terminal };
        dispatch(&session, arguments.command, arguments.verbose)
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

/// Says what is wrong with the arguments; where they ask for JSON, with an object, too.
fn misused(mut error: clap::Error) -> ExitCode {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand]
    {
        if let Some(ContextValue::String(value)) = error.get(kind) {
            let value = terminal::shortened(value);
            error.insert(kind, ContextValue::String(value));
        }
    }
    let is_json = std::env::args_os().take_while(|it| it != "--").any(|it| it == "--json");
    if is_json && error.use_stderr() {
        let problem = Problem::new(ErrorKind::Usage, wrong(&error.to_string()));
        // The words below say it, too.
        Terminal::new(true, 0).json(&weft_api::json::problem(&problem)).ok();
    }
    // If nobody hears it there is nobody to tell.
    error.print().ok();
    error.exit_code().try_into().map_or(ExitCode::FAILURE, u8::into)
}

/// What is wrong, out of what clap says: the first paragraph, on one line.
fn wrong(said: &str) -> String {
    let said = said.trim_start().trim_start_matches("error: ");
    let lines = said.lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// Says a line on standard error, before there is a terminal to say it on.
pub(crate) fn complain(text: &str) {
    terminal::error_line(text);
}

fn dispatch(session: &Session, command: Command, verbose: u8) -> Done {
    match command {
        Command::Init(arguments) => init::run(session, arguments),
        Command::Recover(arguments) => recover::run(session, &arguments),
        Command::Join(arguments) => join::run(session, arguments),
        Command::Up(arguments) => up::run(session, &arguments, verbose),
        Command::Lock(arguments) => wait(lock::lock(session, &arguments)),
        Command::Unlock(arguments) => wait(lock::unlock(session, &arguments)),
        Command::Rotate(arguments) => wait(rotate::run(session, &arguments)),
        Command::Key { action } => key::run(session, action),
        Command::Invite(arguments) => wait(invitation::run(session, &arguments)),
        Command::Do(arguments) => wait(say::run(session, &arguments)),
        Command::Run { action } => wait(run::run(session, action)),
        Command::Status => wait(status::run(session)),
        Command::Doctor => wait(doctor::run(session)),
        Command::Devices { action } => wait(device::run(session, action)),
        Command::Trust { action } => wait(trust::run(session, action)),
        Command::Agents => wait(agent::run(session)),
        Command::Notes { action } => wait(note::run(session, action)),
        Command::Timers { action: None | Some(arguments::TimerAction::List) } => {
            wait(timer::run(session))
        }
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
    let told = std::env::var("WEFT_LOG").ok().filter(|told| !told.is_empty());
    let filter = told.and_then(|told| EnvFilter::try_new(told).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal::is_colourful(&std::io::stderr()))
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_arguments_is_one_line() {
        let said = "error: invalid value 'x' for '--kind <KIND>'\n  [possible values: laptop]\n\nFor \
                    more information, try '--help'.\n";
        assert_eq!(wrong(said), "invalid value 'x' for '--kind <KIND>' [possible values: laptop]");
    }
}

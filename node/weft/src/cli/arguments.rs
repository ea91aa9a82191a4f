//! What can be typed.

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use jiff::civil::DateTime;
use weft_api::Keys;
use weft_protocol::{
    device::{Kind, Role},
    statement::Name,
};

/// One person's devices, woven into one computer.
#[derive(Debug, Parser)]
#[command(name = "weft", version, about, after_help = SHORT_HELP, after_long_help = LONG_HELP)]
#[command(propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    /// The node's folder [default: $XDG_DATA_HOME/weft, else ~/.local/share/weft]
    #[arg(long, global = true, env = "WEFT_HOME", hide_env_values = true, value_name = "DIR")]
    #[arg(help_heading = COMMON)]
    pub(crate) home: Option<PathBuf>,

    /// Prints JSON
    #[arg(long, global = true, help_heading = COMMON)]
    pub(crate) json: bool,

    /// Says more on standard error; twice: more still
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = COMMON)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Over the options that every command has.
const COMMON: &str = "Options of every command";

const SHORT_HELP: &str = "\
Begin with `weft init`, then `weft up`. `weft help` lists examples and exit codes.";

/// The exit codes here are those of [`super::error::exit_code`]; a test compares them.
pub(super) const LONG_HELP: &str = "\
Examples:
  weft init --name laptop --kind laptop     begins a fabric on its first device
  weft up                                   runs the node; leave it running
  weft invite                               shows a code for one more device
  weft join WEFT1:… --name phone            joins, on that device; then run weft up there
  weft do note that the plumber comes on friday
  weft do --plan summarize report.pdf       shows what would run where, and runs nothing
  weft run show                             where each step of the last run ran, and why
  weft audit verify                         checks this device's signed record

What is found goes to standard output, messages go to standard error. With --json, an error is also \
an object on standard output.

Exit codes:
    0  done
    1  something else went wrong: a disk, a defect
    2  the command makes no sense
    3  no node is running in this home
    4  the words were not understood; nothing ran
    5  denied, by a rule or by you
    6  a step failed, or no device can do it
    7  pairing: refused
    8  pairing: the ticket is expired
    9  pairing: the ticket was already used
   10  pairing: could not reach the other device
   11  uncertain: an effect may have happened and may not
   12  a check found a fault
   13  there is no such thing
  130  cancelled

Environment:
  WEFT_HOME     the node's folder, as --home
  WEFT_LISTEN   loopback: the node is reached from this machine only
  WEFT_LOG      what is logged, such as info or weft=debug
  NO_COLOR      no colours";

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Begins a fabric, with this device as its first
    #[command(after_help = "\
Shows 24 recovery words, once, on the terminal: the fabric's root key, which outranks every device \
and is kept nowhere else. Write them down: no command of this version takes them yet, but without \
them a fabric whose devices are all lost never comes back. Without a terminal and without --words-to \
none are made.

Examples:
  weft init --name laptop --kind laptop
  weft init --words-to 3 3>words.txt")]
    Init(InitArguments),

    /// Runs this device's node, until it is stopped
    #[command(after_help = "\
Examples:
  weft up
  weft --home /tmp/second up")]
    Up,

    /// Shows this node and how it fares
    #[command(after_help = "\
Examples:
  weft status
  weft status --json")]
    Status,

    /// Shows who belongs, or puts a device out
    #[command(
        alias = "device",
        after_help = "\
Examples:
  weft devices
  weft devices revoke phone"
    )]
    Devices {
        #[command(subcommand)]
        action: Option<DeviceAction>,
    },

    /// Does what you say, each step on the device that can do it best
    #[command(after_help = "\
Paths in the words are opened here, with your own rights. Quote what your shell would change; words \
that begin with a hyphen follow after `--`.

Examples:
  weft do note that the plumber comes on friday
  weft do remind me in 10 minutes to call Ada
  weft do --plan \"summarize report.pdf and note it\"")]
    Do(DoArguments),

    /// Shows runs, or stops one
    #[command(after_help = "\
Examples:
  weft run list
  weft run show
  weft run cancel mj5nhbzy")]
    Run {
        #[command(subcommand)]
        action: RunAction,
    },

    /// Shows what the fabric can do, and what to say for it
    #[command(after_help = "\
Examples:
  weft agents
  weft agents --json")]
    Agents,

    /// Shows notes
    #[command(after_help = "\
Examples:
  weft notes
  weft notes search the garden")]
    Notes {
        #[command(subcommand)]
        action: Option<NoteAction>,
    },

    /// Shows timers that have not fired
    #[command(after_help = "\
Examples:
  weft timers
  weft timers --json")]
    Timers,

    /// Shows or checks the signed record of what this device did and refused
    #[command(after_help = "\
Examples:
  weft audit list --limit 10
  weft audit verify")]
    Audit {
        #[command(subcommand)]
        action: AuditAction,
    },

    /// Explains or tests the rules
    #[command(after_help = "\
Examples:
  weft policy check note that the plumber comes on friday
  weft policy test")]
    Policy {
        #[command(subcommand)]
        action: PolicyAction,
    },

    /// Gets or shows this device's language model
    #[command(after_help = "\
Examples:
  weft model get
  weft model get --from SmolLM2-135M-Instruct.Q4_1.gguf
  weft model status")]
    Model {
        #[command(subcommand)]
        action: ModelAction,
    },

    /// Invites one more device: shows a code that `weft join` takes there
    #[command(after_help = "\
Both devices show the same four words, and both ask. A ticket is good for one device and two \
minutes, and the next invitation ends the one before. With --yes nobody is asked here: whoever has \
the ticket then gets in.

Examples:
  weft invite
  weft invite --yes --json | ssh server weft join - --name server --kind server --yes")]
    Invite(InviteArguments),

    /// Joins this device to the fabric that invited it
    #[command(after_help = "\
Examples:
  weft join WEFT1:… --name phone --kind phone
  weft join - --name server --kind server --yes <ticket.txt")]
    Join(JoinArguments),

    /// Shows what happens, as it happens
    #[command(after_help = "\
Examples:
  weft events
  weft events --json")]
    Events,
}

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// This device's name [default: the machine's]
    #[arg(long)]
    pub(crate) name: Option<Name>,

    /// This device's kind
    #[arg(long, default_value = "laptop", value_parser = kinds())]
    pub(crate) kind: Kind,

    /// The fabric's name
    #[arg(long, value_name = "NAME", default_value = "home")]
    pub(crate) fabric: Name,

    /// How this device keeps its keys; `file`: whoever has the disk reads all
    #[arg(long, value_enum, default_value = "file")]
    pub(crate) key: KeyArgument,

    /// Writes the recovery words to this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(u32).range(3..))]
    pub(crate) words_to: Option<u32>,
}

/// How keys are kept, as typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum KeyArgument {
    /// In a file that only this user may read
    File,
}

impl From<KeyArgument> for Keys {
    fn from(argument: KeyArgument) -> Self {
        match argument {
            KeyArgument::File => Self::File,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct JoinArguments {
    /// The ticket; `-`: read from standard input, where no list of processes shows it
    pub(crate) ticket: String,

    /// This device's name [default: the machine's]
    #[arg(long)]
    pub(crate) name: Option<Name>,

    /// This device's kind
    #[arg(long, default_value = "laptop", value_parser = kinds())]
    pub(crate) kind: Kind,

    /// How this device keeps its keys; `file`: whoever has the disk reads all
    #[arg(long, value_enum, default_value = "file")]
    pub(crate) key: KeyArgument,

    /// Says yes to the four words, unseen
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InviteArguments {
    /// The most that the device may become; an admin may change who belongs
    #[arg(long, default_value = "member", value_parser = roles())]
    pub(crate) role: Role,

    /// Says yes to whoever comes with the ticket, unseen; never gives admin
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoArguments {
    /// What to do, in your words
    #[arg(required = true)]
    pub(crate) words: Vec<String>,

    /// Shows what would be done, and does nothing
    #[arg(long)]
    pub(crate) plan: bool,

    /// The local time against which the words are read, such as 2026-03-10T09:00:00 [default: now]
    #[arg(long, value_name = "TIME", value_parser = local_time)]
    pub(crate) now: Option<DateTime>,
}

/// A role that an invitation can give.
fn roles() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["member", "admin"]).try_map(|word| word.parse())
}

/// A kind of device.
fn kinds() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(["laptop", "phone", "server"]).try_map(|word| word.parse())
}

fn local_time(text: &str) -> Result<DateTime, &'static str> {
    text.parse().map_err(|_| "it is no local time such as 2026-03-10T09:00:00")
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceAction {
    /// Puts a device out, at once and for good
    Revoke {
        /// Its name or id
        device: String,
        /// Does not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunAction {
    /// Lists runs
    List,
    /// Shows a run: its steps, where each ran, and why there
    Show {
        /// Its id, or the beginning of it [default: the newest]
        id: Option<String>,
    },
    /// Stops a run
    Cancel {
        /// Its id, or the beginning of it
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NoteAction {
    /// Lists notes, the newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Finds notes that have all these words in them
    Search {
        #[arg(required = true)]
        words: Vec<String>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditAction {
    /// Lists records of this device
    List {
        /// From this position on [default: the newest ones]
        #[arg(long, value_name = "POSITION")]
        from: Option<u64>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u64,
    },
    /// Checks that no record was changed, removed or moved
    Verify {
        /// Check each record's own signature, not only those of the checkpoints that cover them
        #[arg(long)]
        every_signature: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyAction {
    /// Explains what the rules say to each step of a command, and runs nothing
    Check {
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Runs the rules' own tests
    Test,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelAction {
    /// Gets the default model; an interrupted download goes on where it stopped
    Get(ModelGetArguments),
    /// Shows the models on this device
    Status,
}

#[derive(Debug, Args)]
pub(crate) struct ModelGetArguments {
    /// Takes it from this file, if it is the right one
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,

    /// Puts it there instead of into the node's folder
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn read(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_description_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_forms_that_scripts_use_are_read() {
        for line in [
            "weft init --name laptop --kind laptop --key file",
            "weft init --name n --kind server --fabric house --words-to 3",
            "weft --home /tmp/h up",
            "weft status --json",
            "weft invite --yes --json",
            "weft invite --role admin",
            "weft join WEFT1:ABC --name phone --kind phone --yes --key file",
            "weft join - --name phone --kind phone",
            "weft devices --json",
            "weft device revoke phone --yes",
            "weft devices revoke phone",
            "weft agents --json",
            "weft notes list --json",
            "weft notes --json",
            "weft notes search the garden",
            "weft do --plan --json --now 2026-03-10T09:00:00 set a timer for 5 minutes",
            "weft do note that x --json",
            "weft run list",
            "weft run show",
            "weft run show abc",
            "weft run cancel abc",
            "weft timers",
            "weft audit list --from 3 --limit 5 --json",
            "weft audit verify",
            "weft audit verify --every-signature",
            "weft policy check note that x",
            "weft policy test",
            "weft model get --from a.gguf --to b.gguf",
            "weft model status",
            "weft events --json -vv",
        ] {
            if let Err(error) = read(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_ends_with_2() {
        for line in [
            "weft",
            "weft explode",
            "weft do",
            "weft init --kind toaster",
            "weft init --words-to 1",
            "weft join",
            "weft notes search",
            "weft do --now yesterday x",
            "weft invite --role keeper",
        ] {
            assert_eq!(read(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_value_is_said_in_words() {
        let said = |line: &str| read(line).expect_err(line).to_string();
        let kind = said("weft init --kind toaster");
        assert!(kind.contains("[possible values: laptop, phone, server]"), "{kind}");
        let time = said("weft do --now yesterday x");
        assert!(time.contains("it is no local time such as"), "{time}");
    }

    #[test]
    fn prose_in_help_is_broken_by_the_terminal_alone() {
        let mut weft = Arguments::command();
        weft.build();
        for command in weft.get_subcommands().chain([&weft]) {
            for help in [command.get_after_help(), command.get_after_long_help()] {
                let help = help.map(ToString::to_string).unwrap_or_default();
                let lines: Vec<_> = help.lines().collect();
                for pair in lines.windows(2) {
                    let are_prose = pair.iter().all(|line| line.starts_with(char::is_alphabetic));
                    assert!(!are_prose, "{}: {pair:?}", command.get_name());
                }
            }
        }
    }

    #[test]
    fn words_keep_their_order_and_options_stay_options() {
        let Ok(Arguments { command: Command::Do(arguments), json: true, .. }) =
            read("weft do note that --json -- --x")
        else {
            panic!("it is a `do`")
        };
        assert_eq!(arguments.words, ["note", "that", "--x"]);
    }
}

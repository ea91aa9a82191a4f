//! What can be typed.

mod newcomer;
mod node;
mod key;
mod pairing;
mod recovery;
mod device;
mod trust;
mod run;
mod note;
mod timer;
mod audit;
mod policy;
mod model;
#[cfg(test)]
mod tests;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{
    CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
    builder::{PossibleValuesParser, Resettable, TypedValueParser},
};
use weft_protocol::device::Kind;

pub(crate) use self::{
    audit::AuditAction,
    device::DeviceAction,
    key::{
        KeyAction, KeyArgument, KeyChoice, KeySetArguments, LockArguments, RotateArguments,
        UnlockArguments,
    },
    model::{ModelAction, ModelGetArguments},
    newcomer::NewcomerArguments,
    node::{InitArguments, UpArguments},
    note::NoteAction,
    pairing::{InviteArguments, JoinArguments},
    policy::PolicyAction,
    recovery::RecoverArguments,
    run::{DoArguments, RunAction},
    timer::TimerAction,
    trust::TrustAction,
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

impl Arguments {
    /// Reads what was typed. A variable of the environment that is set and empty counts as one that is not set.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let mut command = without_empty(Self::command(), &|name| std::env::var_os(name));
        let matches = command.try_get_matches_from_mut(std::env::args_os())?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// The description without the variables that are empty: a value that is taken from one has to be some.
fn without_empty(
    command: clap::Command,
    variable: &dyn Fn(&OsStr) -> Option<OsString>,
) -> clap::Command {
    let is_empty =
        |arg: &clap::Arg| arg.get_env().and_then(variable).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(|command| without_empty(command, variable))
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
  weft doctor                               does it all work, and if not, what to type

What is found goes to standard output, messages go to standard error. With --json, an error is also \
an object on standard output.

Exit codes:
    0  done
    1  something else went wrong: a disk, a defect
    2  the command makes no sense
    3  no node is running in this home, or it does not answer
    4  the words were not understood; nothing ran
    5  denied, by a rule, or by your no to a question
    6  a step failed, or no device can do it
    7  pairing: refused, also by your no
    8  pairing: the ticket is expired
    9  pairing: the ticket was already used
   10  pairing: could not reach the other device
   11  uncertain: an effect may have happened and may not
   12  a check found a fault or a problem
   13  there is no such thing
   14  this device is locked
  130  cancelled, as by Ctrl-C

Environment:
  WEFT_HOME     the node's folder, as --home
  WEFT_LISTEN   loopback: the node is reached from this machine only
  WEFT_UPNP     off: no router is asked to let your devices in
  WEFT_METERED  yes, no or auto, as --metered of weft up
  WEFT_LOG      what is logged, such as info or weft=debug
  NO_COLOR      no colours";

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Begins a fabric, with this device as its first
    #[command(after_help = "\
Shows 24 recovery words, once, on the terminal: the fabric's root key, which outranks every device \
and is kept nowhere else. Write them down: `weft recover` takes them where a device was lost or \
stolen, or nobody else may say who belongs. Without a terminal and without --words-to \
none are made.

Examples:
  weft init --name laptop --kind laptop
  weft init --words-to 3 3>words.txt")]
    Init(InitArguments),

    /// Runs this device's node, until it is stopped
    #[command(after_help = "\
Environment:
  WEFT_LISTEN   loopback: the node is reached from this machine only
  WEFT_UPNP     off: no router is asked to let your devices in
  WEFT_METERED  yes, no or auto, as --metered

Examples:
  weft up
  weft --home /tmp/second up")]
    Up(UpArguments),

    /// Takes the keys out of the node's memory; until `weft unlock` it does nothing
    #[command(after_help = "\
For keys that are kept under a passphrase. The node ends in good order, and a process without keys \
takes its place.

Examples:
  weft lock
  weft lock --yes")]
    Lock(LockArguments),

    /// Gives a locked node its keys back
    #[command(after_help = "\
Examples:
  weft unlock
  weft unlock --passphrase-from 3 3<passphrase.txt")]
    Unlock(UnlockArguments),

    /// Gives this device another key, without pairing again
    #[command(after_help = "\
For when the key may have been copied: a backup, a disk that was sold, a machine that others had. The \
device keeps its name, its role, its notes and its timers; whoever has the old key is refused by every \
device from then on. Nothing may be under way here.

Examples:
  weft rotate
  weft rotate --yes")]
    Rotate(RotateArguments),

    /// Shows or changes how this device keeps its keys
    #[command(after_help = "\
Examples:
  weft key status
  weft key set passphrase
  weft key set file --passphrase-from 3 3<passphrase.txt")]
    Key {
        #[command(subcommand)]
        action: KeyAction,
    },

    /// Shows this node and how it fares
    #[command(after_help = "\
Examples:
  weft status
  weft status --json")]
    Status,

    /// Checks whether all works, and says what to type where it does not
    #[command(after_help = "\
Looks at this device's files, clock, network, the other devices and why one can't be reached, agents, \
model, rules and record. Without a running node it looks at what lies here. Ends with 12 where there is \
a problem, and with 0 where there are only warnings.

Examples:
  weft doctor
  weft doctor --json")]
    Doctor,

    /// Shows who belongs; renames a device, gives it a role, puts it out, brings it back
    #[command(
        alias = "device",
        after_help = "\
Examples:
  weft devices
  weft device show phone
  weft device rename phone pocket
  weft device role server admin
  weft device revoke phone"
    )]
    Devices {
        #[command(subcommand)]
        action: Option<DeviceAction>,
    },

    /// Shows what was said about who belongs, by whom and when
    #[command(after_help = "\
Examples:
  weft trust log
  weft trust log --limit 10 --json")]
    Trust {
        #[command(subcommand)]
        action: TrustAction,
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
    Timers {
        #[command(subcommand)]
        action: Option<TimerAction>,
    },

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
the ticket then gets in. A code is for one guess: whoever types another one ends the invitation.

Examples:
  weft invite
  weft invite --code
  weft invite --yes --json | ssh server weft join - --name server --kind server --yes")]
    Invite(InviteArguments),

    /// Joins this device to the fabric that invited it
    #[command(after_help = "\
Examples:
  weft join WEFT1:… --name phone --kind phone
  weft join 4711-apple-river-stone --name phone --kind phone
  weft join --image screenshot.png --name phone --kind phone
  weft join - --name server --kind server --yes <ticket.txt")]
    Join(JoinArguments),

    /// Gets back in with the recovery words, or says with them who is out and who stays
    #[command(after_help = "\
On a machine without a device it makes this one an admin of the fabric that the words are of. One \
device of that fabric must run: it is found on the local network, or named with --at. On a machine \
that is a device already, also a suspended one, the root speaks through it.

--lost puts a device out; --since, with a statement out of `weft trust log`, makes all void that it \
said from there on: so a thief who put the others out is undone, and --keep brings them back.

Examples:
  weft recover --at 192.168.1.20:41234
  weft recover --lost phone --since mj5nhbzy --keep laptop --keep server
  weft recover --new-words
  weft recover --at 192.168.1.20:41234 --name server --kind server --yes --words-from 3 3<words.txt")]
    Recover(Box<RecoverArguments>),

    /// Shows what happens, as it happens
    #[command(after_help = "\
Examples:
  weft events
  weft events --json")]
    Events,
}

/// A kind of device.
fn kinds() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(["laptop", "phone", "server"]).try_map(|word| word.parse())
}

//! What can be typed.

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use jiff::civil::DateTime;
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
    5  denied, by a rule, or by your no to a question
    6  a step failed, or no device can do it
    7  pairing: refused, also by your no
    8  pairing: the ticket is expired
    9  pairing: the ticket was already used
   10  pairing: could not reach the other device
   11  uncertain: an effect may have happened and may not
   12  a check found a fault
   13  there is no such thing
   14  this device is locked
  130  cancelled, as by Ctrl-C

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
and is kept nowhere else. Write them down: `weft recover` takes them where a device was lost or \
stolen, or nobody else may say who belongs. Without a terminal and without --words-to \
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

    #[command(flatten)]
    pub(crate) keys: KeyChoice,

    /// Writes the recovery words to this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(u32).range(3..))]
    pub(crate) words_to: Option<u32>,
}

/// How a device that begins keeps its keys.
#[derive(Debug, Args)]
pub(crate) struct KeyChoice {
    /// How this device keeps its keys [default: keychain where there is one, else file]
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) key: Option<KeyArgument>,

    /// Reads the passphrase from this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD")]
    pub(crate) passphrase_from: Option<u32>,
}

/// How keys are kept, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyArgument {
    /// Under a passphrase, which each start asks for
    Passphrase,
    /// Under a key in the system's keychain, which opens when you log in
    Keychain,
    /// In a file that only this user may read; whoever has the disk reads all
    File,
    /// Under the systemd credential `weft` (LoadCredential= in the unit file)
    Credential,
}

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Reads the passphrase from this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD")]
    pub(crate) passphrase_from: Option<u32>,

    /// Begins without keys
    #[arg(long, hide = true)]
    pub(crate) locked: bool,

    /// Begins with the key that comes on standard input
    #[arg(long, hide = true, conflicts_with_all = ["locked", "passphrase_from"])]
    pub(crate) unlocked: bool,
}

/// What `weft rotate` takes.
#[derive(Debug, Args)]
pub(crate) struct RotateArguments {
    /// Does not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LockArguments {
    /// Does not ask, whatever is under way
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UnlockArguments {
    /// Reads the passphrase from this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD")]
    pub(crate) passphrase_from: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyAction {
    /// Shows how the keys are kept
    #[command(after_help = "\
Examples:
  weft key status
  weft key status --json")]
    Status,
    /// Keeps the same keys in another way, or under another passphrase; the node must not run
    #[command(after_help = "\
Examples:
  weft key set passphrase
  weft key set keychain
  weft key set file --passphrase-from 3 3<passphrase.txt")]
    Set(KeySetArguments),
}

#[derive(Debug, Args)]
pub(crate) struct KeySetArguments {
    /// How
    #[arg(value_enum, value_name = "KIND")]
    pub(crate) kind: KeyArgument,

    /// Reads the passphrase until now from this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD")]
    pub(crate) passphrase_from: Option<u32>,

    /// Reads the new passphrase from this open file descriptor; of the same one, its second line
    #[arg(long, value_name = "FD")]
    pub(crate) new_passphrase_from: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArguments {
    /// The ticket or the code; `-`: read from standard input, where no list of processes shows it
    #[arg(required_unless_present = "image", value_name = "TICKET")]
    pub(crate) ticket: Option<String>,

    /// A photo or a screenshot of the ticket's QR code, as PNG or JPEG
    #[arg(long, value_name = "FILE", conflicts_with = "ticket")]
    pub(crate) image: Option<PathBuf>,

    /// With a code: where the inviting device is, such as 192.168.1.20:41234, instead of looking for it
    #[arg(long, value_name = "ADDRESS", conflicts_with = "image")]
    pub(crate) at: Vec<String>,

    /// This device's name [default: the machine's]
    #[arg(long)]
    pub(crate) name: Option<Name>,

    /// This device's kind
    #[arg(long, default_value = "laptop", value_parser = kinds())]
    pub(crate) kind: Kind,

    #[command(flatten)]
    pub(crate) keys: KeyChoice,

    /// Says yes to the four words, unseen
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArguments {
    /// Where a device of the fabric is: HOST:PORT, or an address as `weft status` shows it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) at: Vec<String>,

    /// This device's name [default: the machine's]
    #[arg(long)]
    pub(crate) name: Option<Name>,

    /// This device's kind
    #[arg(long, default_value = "laptop", value_parser = kinds())]
    pub(crate) kind: Kind,

    #[command(flatten)]
    pub(crate) keys: KeyChoice,

    /// Takes a fabric that was begun by a version whose recovery words said nothing in it
    #[arg(long, value_name = "ID")]
    pub(crate) fabric: Option<String>,

    /// Puts a device out: its name or id
    #[arg(long, value_name = "NAME")]
    pub(crate) lost: Vec<String>,

    /// What the lost device said from this statement on does not count
    #[arg(long, value_name = "STATEMENT")]
    pub(crate) since: Option<String>,

    /// Brings back a device that is suspended, or is then
    #[arg(long, value_name = "NAME")]
    pub(crate) keep: Vec<String>,

    /// Makes new words; the old ones are worth nothing then
    #[arg(long)]
    pub(crate) new_words: bool,

    /// Reads the words from this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD")]
    pub(crate) words_from: Option<u32>,

    /// Writes the new words to this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(u32).range(3..))]
    pub(crate) words_to: Option<u32>,

    /// Does not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

impl RecoverArguments {
    /// What of it makes sense on a machine without a device only.
    pub(crate) fn of_a_new_device(&self) -> Option<&'static str> {
        let given = [
            ("--at", !self.at.is_empty()),
            ("--name", self.name.is_some()),
            ("--key", self.keys.key.is_some()),
            ("--fabric", self.fabric.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(what, _)| what)
    }
}

#[derive(Debug, Args)]
pub(crate) struct InviteArguments {
    /// The most that the device may become; an admin may change who belongs
    #[arg(long, default_value = "member", value_parser = roles())]
    pub(crate) role: Role,

    /// Shows a short code to type instead of a ticket: for devices without a camera
    #[arg(long)]
    pub(crate) code: bool,

    /// Says yes to whoever comes with the ticket, unseen; never gives admin
    #[arg(long)]
    pub(crate) yes: bool,

    /// With --yes --json: stays until the invitation ends, and says how, on a second line
    #[arg(long)]
    pub(crate) wait: bool,
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

/// A role, also one that no device can have yet: the answer says so.
fn all_roles() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["admin", "member", "keeper", "guest"]).try_map(|word| word.parse())
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
    /// Shows all that is known of a device: its standing and why, who added it, where it is
    #[command(after_help = "\
Examples:
  weft device show phone
  weft device show mj5nhbzy --json")]
    Show {
        /// Its name or id, or the beginning of its id
        device: String,
    },

    /// Gives a device another name, or the fabric; an admin renames all, a member itself
    #[command(after_help = "\
Examples:
  weft device rename phone pocket
  weft device rename --fabric house")]
    Rename {
        /// Its name or id, or the beginning of its id
        #[arg(required_unless_present = "fabric")]
        device: Option<String>,
        /// Its new name
        #[arg(required_unless_present = "fabric")]
        new: Option<Name>,
        /// Renames the fabric instead
        #[arg(long, value_name = "NEW", conflicts_with_all = ["device", "new"])]
        fabric: Option<Name>,
    },

    /// Gives a device another role; admin only by your yes on the screen
    #[command(after_help = "\
An admin may change who belongs. Nobody becomes one by --yes.

Examples:
  weft device role server admin
  weft device role server member --yes")]
    Role {
        /// Its name or id, or the beginning of its id
        device: String,
        /// The new role
        #[arg(value_parser = all_roles())]
        role: Role,
        /// Does not ask before it takes a role away
        #[arg(long)]
        yes: bool,
    },

    /// Brings back a device that is suspended
    #[command(after_help = "\
A device is suspended where nobody can say whether it belongs: two admins put each other out, or its \
key signed two different things in one place. `weft device show` says which, and `weft trust log` what \
came before.

Examples:
  weft device keep laptop")]
    Keep {
        /// Its name or id, or the beginning of its id
        device: String,
        /// Does not ask
        #[arg(long)]
        yes: bool,
    },

    /// Puts a device out, at once and for good
    #[command(after_help = "\
Examples:
  weft device revoke phone
  weft device revoke mj5nhbzy --yes")]
    Revoke {
        /// Its name or id, or the beginning of its id
        device: String,
        /// Does not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrustAction {
    /// Lists statements, each after those that it rests on, with what became of it
    #[command(after_help = "\
A statement that does not count says so: frozen while its author is suspended, void where its author \
was put out unseen, powerless where its author had no right to it.

Examples:
  weft trust log
  weft trust log --limit 10 --json")]
    Log {
        /// At most so many, the newest
        #[arg(long, default_value_t = 100)]
        limit: usize,
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
        /// Of a key that this device had before weft rotate, or the beginning of it
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
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
            "weft up --passphrase-from 0",
            "weft init --key passphrase --passphrase-from 3",
            "weft join - --key credential --yes",
            "weft lock --yes",
            "weft unlock --passphrase-from 3",
            "weft key status --json",
            "weft key set passphrase --passphrase-from 3 --new-passphrase-from 3",
            "weft key set credential",
            "weft key set keychain",
            "weft status --json",
            "weft invite --yes --json",
            "weft invite --role admin",
            "weft invite --code --yes --json --wait",
            "weft join 4711-apple-river-stone --at 192.168.1.20:41234",
            "weft join --image screenshot.png",
            "weft join WEFT1:ABC --name phone --kind phone --yes --key file",
            "weft join - --name phone --kind phone",
            "weft devices --json",
            "weft device revoke phone --yes",
            "weft devices revoke phone",
            "weft device show phone --json",
            "weft device rename phone pocket",
            "weft device rename --fabric house",
            "weft device role phone admin",
            "weft device role phone member --yes",
            "weft device role phone keeper",
            "weft device keep phone --yes",
            "weft recover --at 192.168.1.20:41234",
            "weft recover --lost phone --since mj5nhbzy --keep laptop --keep server",
            "weft recover --new-words --words-from 3 --words-to 4 --yes",
            "weft recover --at 1.2.3.4:5 --name server --kind server --key credential --yes",
            "weft trust log",
            "weft trust log --limit 5 --json",
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
            "weft init --key pocket",
            "weft key set",
            "weft unlock secret",
            "weft up --locked --unlocked",
            "weft join",
            "weft notes search",
            "weft do --now yesterday x",
            "weft invite --role keeper",
            "weft join",
            "weft join WEFT1:A --image screenshot.png",
            "weft device show",
            "weft device rename phone",
            "weft device rename phone pocket --fabric house",
            "weft device role phone king",
            "weft trust",
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

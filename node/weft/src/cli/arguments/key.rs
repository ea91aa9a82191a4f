//! How keys are kept, taken away and replaced.

use clap::{Args, Subcommand, ValueEnum};

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

/// What `weft rotate` takes.
#[derive(Debug, Args)]
pub(crate) struct RotateArguments {
    /// Does not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

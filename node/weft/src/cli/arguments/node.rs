//! What begins a fabric, and runs a node.

use clap::Args;
use weft_protocol::{device::Kind, statement::Name};

use super::{KeyChoice, kinds};

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

//! What begins a fabric, and runs a node.

use clap::Args;
use weft_protocol::statement::Name;

use super::NewcomerArguments;
use crate::daemon::home::Metered;

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    #[command(flatten)]
    pub(crate) newcomer: NewcomerArguments,

    /// The fabric's name
    #[arg(long, value_name = "NAME", default_value = "home")]
    pub(crate) fabric: Name,

    /// Writes the recovery words to this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(u32).range(3..))]
    pub(crate) words_to: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Reads the passphrase from this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD")]
    pub(crate) passphrase_from: Option<u32>,

    /// Whether the network costs money; auto asks the system [default: what node.toml says, else auto]
    #[arg(long, value_name = "WHETHER", env = "WEFT_METERED")]
    pub(crate) metered: Option<Metered>,

    /// An address under which others reach this node from anywhere, as /dns4/NAME/udp/PORT/quic-v1 or
    /// /ip4/ADDRESS/tcp/PORT; may be given several times. It is kept for later starts until others are
    /// given, or none; a laptop or server then carries connections between the other devices
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) announce: Vec<String>,

    /// Begins without keys
    #[arg(long, hide = true)]
    pub(crate) locked: bool,

    /// Begins with the key that comes on standard input
    #[arg(long, hide = true, conflicts_with_all = ["locked", "passphrase_from"])]
    pub(crate) unlocked: bool,
}

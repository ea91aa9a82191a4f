//! What is done with a device.

use clap::{
    Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use weft_protocol::{device::Role, statement::Name};

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

/// A role, also one that no device can have yet: the answer says so.
fn all_roles() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["admin", "member", "keeper", "guest"]).try_map(|word| word.parse())
}

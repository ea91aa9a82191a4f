//! What brings a device in.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use weft_protocol::device::Role;

use super::NewcomerArguments;

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

    #[command(flatten)]
    pub(crate) newcomer: NewcomerArguments,

    /// Says yes to the four words, unseen
    #[arg(long)]
    pub(crate) yes: bool,
}

/// A role that an invitation can give.
fn roles() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["member", "admin"]).try_map(|word| word.parse())
}

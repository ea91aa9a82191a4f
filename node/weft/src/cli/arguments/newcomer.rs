//! What a machine that becomes a device is to be.

use clap::Args;
use weft_protocol::{device::Kind, statement::Name};

use super::{KeyChoice, kinds};

#[derive(Debug, Args)]
pub(crate) struct NewcomerArguments {
    /// This device's name [default: the machine's]
    #[arg(long)]
    pub(crate) name: Option<Name>,

    /// This device's kind
    #[arg(long, default_value = "laptop", value_parser = kinds())]
    pub(crate) kind: Kind,

    #[command(flatten)]
    pub(crate) keys: KeyChoice,
}

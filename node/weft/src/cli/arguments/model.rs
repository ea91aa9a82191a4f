//! What is done with the language model.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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

//! What is done, and what of it is shown.

use clap::{Args, Subcommand};
use jiff::civil::DateTime;

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

fn local_time(text: &str) -> Result<DateTime, &'static str> {
    text.parse().map_err(|_| "it is no local time such as 2026-03-10T09:00:00")
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

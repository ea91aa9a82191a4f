//! What is shown of notes.

use clap::Subcommand;

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

//! What is shown of statements.

use clap::Subcommand;

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

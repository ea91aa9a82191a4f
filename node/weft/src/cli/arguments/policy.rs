//! What is asked of the rules.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyAction {
    /// Explains what the rules say to each step of a command, and runs nothing
    Check {
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Runs the rules' own tests
    Test,
}

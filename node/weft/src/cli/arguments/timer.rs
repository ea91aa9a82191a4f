//! What is shown of timers.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum TimerAction {
    /// Lists timers that have not fired
    List,
}

//! What is shown of the record.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditAction {
    /// Lists records of this device
    List {
        /// From this position on [default: the newest ones]
        #[arg(long, value_name = "POSITION")]
        from: Option<u64>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u64,
        /// Of a key that this device had before weft rotate, or the beginning of it
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
    },
    /// Checks that no record was changed, removed or moved
    Verify {
        /// Check each record's own signature, not only those of the checkpoints that cover them
        #[arg(long)]
        every_signature: bool,
    },
}

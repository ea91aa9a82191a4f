//! What the recovery words are for.

use clap::Args;

use super::NewcomerArguments;

#[derive(Debug, Args)]
pub(crate) struct RecoverArguments {
    /// Where a device of the fabric is: HOST:PORT, or an address as `weft status` shows it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) at: Vec<String>,

    #[command(flatten)]
    pub(crate) newcomer: NewcomerArguments,

    /// Takes a fabric that was begun by a version whose recovery words said nothing in it
    #[arg(long, value_name = "ID")]
    pub(crate) fabric: Option<String>,

    /// Puts a device out: its name or id
    #[arg(long, value_name = "NAME")]
    pub(crate) lost: Vec<String>,

    /// What the lost device said from this statement on does not count
    #[arg(long, value_name = "STATEMENT")]
    pub(crate) since: Option<String>,

    /// Brings back a device that is suspended, or is then
    #[arg(long, value_name = "NAME")]
    pub(crate) keep: Vec<String>,

    /// Makes new words; the old ones are worth nothing then
    #[arg(long)]
    pub(crate) new_words: bool,

    /// Reads the words from this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD")]
    pub(crate) words_from: Option<u32>,

    /// Writes the new words to this open file descriptor instead of the terminal
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(u32).range(3..))]
    pub(crate) words_to: Option<u32>,

    /// Does not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

impl RecoverArguments {
    /// What of it makes sense on a machine without a device only.
    pub(crate) fn of_a_new_device(&self) -> Option<&'static str> {
        let given = [
            ("--at", !self.at.is_empty()),
            ("--name", self.newcomer.name.is_some()),
            ("--key", self.newcomer.keys.key.is_some()),
            ("--fabric", self.fabric.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(what, _)| what)
    }
}

//! What happened, as a hash for comparing and as lines for reading.

use std::{fmt, io::Write};

use weft_core::{Input, Output};
use weft_protocol::{
    codec,
    row::{Item, Row, Write as RowWrite},
};

/// How much is written down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Detail {
    /// Nothing.
    None,
    /// Commands, faults, steps and what the checkers find.
    Story,
    /// Each input and output too.
    All,
}

/// The trace of one world.
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    detail: Detail,
    out: Box<dyn Write>,
    /// Inputs so far.
    pub(crate) inputs: u64,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("detail", &self.detail).finish_non_exhaustive()
    }
}

impl Trace {
    pub(crate) fn new(detail: Detail, out: Box<dyn Write>) -> Self {
        Self { hasher: blake3::Hasher::new(), detail, out, inputs: 0 }
    }

    /// A hash over all that happened.
    pub(crate) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    /// Tells the story on.
    pub(crate) fn say(&mut self, time: u64, who: &str, what: impl FnOnce() -> String) {
        self.line(Detail::Story, time, who, what);
    }

    fn line(&mut self, detail: Detail, time: u64, who: &str, what: impl FnOnce() -> String) {
        if self.detail < detail {
            return;
        }
        let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
        // A reader that is gone needs no trace; the run goes on for its result.
        drop(writeln!(self.out, "{seconds:>4}.{micros:06} {who:<8} {}", what()));
    }

    /// A node takes something.
    pub(crate) fn input(&mut self, time: u64, who: &str, input: &Input) {
        self.inputs += 1;
        self.begin(time, who);
        if let Input::Frame { stream, bytes } = input {
            self.hasher.update(&stream.0.to_be_bytes()).update(bytes);
            self.line(Detail::All, time, who, || {
                format!("← frame of {} bytes on {}", bytes.len(), stream.0)
            });
            return;
        }
        let text = format!("{input:?}");
        self.hasher.update(text.as_bytes());
        self.line(Detail::All, time, who, || format!("← {}", cut(&text)));
    }

    /// A node does what is due.
    pub(crate) fn timeout(&mut self, time: u64, who: &str, why: &str) {
        self.inputs += 1;
        self.begin(time, who);
        self.hasher.update(why.as_bytes());
        self.line(Detail::All, time, who, || format!("← {why}"));
    }

    fn begin(&mut self, time: u64, who: &str) {
        self.hasher.update(&time.to_be_bytes()).update(who.as_bytes());
    }

    /// A node wants something done.
    pub(crate) fn output(&mut self, time: u64, who: &str, output: &Output) {
        match output {
            Output::Send { stream, bytes } => {
                self.hasher.update(&stream.0.to_be_bytes()).update(bytes);
                self.line(Detail::All, time, who, || {
                    format!("→ frame of {} bytes on {}", bytes.len(), stream.0)
                });
            }
            Output::Persist { ticket, writes, durability } => {
                self.hasher.update(&ticket.0.to_be_bytes());
                for write in writes {
                    match write {
                        RowWrite::Put(row, value) => self.row(row).update(value),
                        RowWrite::Delete(row) => self.row(row),
                    };
                }
                self.line(Detail::All, time, who, || {
                    format!("→ persist {} rows, {durability:?}, as {}", writes.len(), ticket.0)
                });
            }
            Output::Execute { execution, capability, arguments, .. } => {
                self.hasher
                    .update(&execution.0.to_be_bytes())
                    .update(capability.as_str().as_bytes())
                    .update(&codec::encode(arguments));
                self.line(Detail::All, time, who, || format!("→ execute {capability}"));
            }
            Output::Members(_)
            | Output::Remember { .. }
            | Output::Admit { .. }
            | Output::Watch { .. }
            | Output::Relays(_)
            | Output::Disconnect { .. }
            | Output::StopExecution(_)
            | Output::AnswerCall { .. }
            | Output::OpenPairing { .. }
            | Output::SendPairing { .. }
            | Output::ClosePairingLink { .. }
            | Output::ClosePairing { .. }
            | Output::Reply { .. }
            | Output::Event { .. }
            | Output::Log { .. } => {
                let text = format!("{output:?}");
                self.hasher.update(text.as_bytes());
                self.line(Detail::All, time, who, || format!("→ {}", cut(&text)));
            }
        }
    }

    fn row(&mut self, row: &Row) -> &mut blake3::Hasher {
        self.hasher.update(row.table.word().as_bytes()).update(&row.scope);
        match &row.item {
            Item::Named(name) => self.hasher.update(name),
            Item::Numbered(number) => self.hasher.update(&number.to_be_bytes()),
        }
    }
}

/// The beginning of a text that may be long.
fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}

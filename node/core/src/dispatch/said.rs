//! What a step may say while it runs: bounded, since another device says it.

use weft_protocol::run::{INLINE_BYTES_MAX, Progress};

/// The most bytes of text that is shown as it comes: as much as an output may have.
const TEXT_BYTES_MAX: usize = INLINE_BYTES_MAX;
/// The most pieces of it: a model says one or two words at a time.
const TEXT_PIECES_MAX: u32 = 50_000;
/// The most bytes of a step's log, which the journal keeps.
const LOG_BYTES_MAX: usize = 64 << 10;
/// The most lines of it.
const LOG_LINES_MAX: u32 = 1_000;

/// What a step has said so far.
#[derive(Debug, Default)]
pub(super) struct Said {
    text: Amount,
    log: Amount,
    /// Its last line, where nothing else stands before whoever follows.
    last: Option<String>,
    /// Its executor was asked how it stands, and says its last line once more.
    is_asked: bool,
}

#[derive(Debug, Default)]
struct Amount {
    pieces: u32,
    bytes: usize,
    full: bool,
}

impl Amount {
    /// Counts a piece, if it still fits.
    const fn takes(&mut self, bytes: usize, bytes_max: usize, pieces_max: u32) -> bool {
        self.full = self.full || self.pieces >= pieces_max || bytes > bytes_max - self.bytes;
        if !self.full {
            self.pieces += 1;
            self.bytes += bytes;
        }
        !self.full
    }
}

impl Said {
    /// Its executor is asked how it stands.
    pub(super) const fn ask(&mut self) {
        self.is_asked = true;
    }

    /// A line of this device's own takes the place of its last one, or it begins anew.
    pub(super) fn cover(&mut self) {
        self.last = None;
    }

    /// What is to be passed on. What is too much is dropped; the log says so once.
    pub(super) fn take(&mut self, progress: Progress) -> Option<Progress> {
        match progress {
            Progress::Beat => None,
            Progress::Text(text) => self
                .text
                .takes(text.len(), TEXT_BYTES_MAX, TEXT_PIECES_MAX)
                .then_some(Progress::Text(text)),
            Progress::Log(line) => {
                let is_asked = std::mem::take(&mut self.is_asked);
                if is_asked && self.last.as_ref() == Some(&line) {
                    return None;
                }
                self.last = Some(line.clone());
                let was_full = self.log.full;
                if self.log.takes(line.len(), LOG_BYTES_MAX, LOG_LINES_MAX) {
                    Some(Progress::Log(line))
                } else {
                    (!was_full).then(|| Progress::Log("it says more than is kept".into()))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_says_too_much_is_cut_off_once() {
        let mut said = Said::default();
        let line = |bytes: usize| Progress::Log("x".repeat(bytes));
        assert_eq!(said.take(Progress::Beat), None);
        assert_eq!(said.take(line(60 << 10)), Some(line(60 << 10)));
        assert_eq!(
            said.take(line(5 << 10)),
            Some(Progress::Log("it says more than is kept".into()))
        );
        assert_eq!(said.take(line(1)), None);
        assert_eq!(said.take(Progress::Text("a".into())), Some(Progress::Text("a".into())));
    }

    #[test]
    fn a_line_that_is_said_once_more_is_passed_on_only_where_another_took_its_place() {
        let mut said = Said::default();
        let line = || Progress::Log("part 2 of 7".into());
        // An agent may say the same twice.
        assert_eq!([said.take(line()), said.take(line())], [Some(line()), Some(line())]);
        said.ask();
        assert_eq!([said.take(line()), said.take(line())], [None, Some(line())]);
        said.ask();
        said.cover();
        assert_eq!(said.take(line()), Some(line()));
    }

    #[test]
    fn lines_are_counted_too() {
        let mut said = Said::default();
        let passed = (0..5_000).filter(|_| said.take(Progress::Log(String::new())).is_some());
        assert_eq!(passed.count(), LOG_LINES_MAX as usize + 1);
    }
}

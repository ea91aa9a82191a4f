//! The terminal itself, wherever the output goes: what is typed there is not shown, or not cut off by `^C`.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
};

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

/// The terminal that this process belongs to.
const TTY: &str = "/dev/tty";

/// `^C`, as a key.
pub(super) const CANCEL: u8 = 0x03;

/// The terminal, if there is one.
pub(super) fn open() -> Option<File> {
    OpenOptions::new().read(true).write(true).open(TTY).ok()
}

/// A terminal with other modes, which is as it was when this is dropped. `^C` and `^Z` come as keys, since
/// a signal would leave the modes. What was typed ahead stays.
#[derive(Debug)]
struct Modes<'t> {
    tty: &'t File,
    before: Termios,
}

impl<'t> Modes<'t> {
    fn begin(tty: &'t File, change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let before = tcgetattr(tty)?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ISIG | LocalModes::IEXTEN);
        modes.input_modes.insert(InputModes::ICRNL);
        change(&mut modes);
        tcsetattr(tty, OptionalActions::Now, &modes)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Modes<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        tcsetattr(self.tty, OptionalActions::Now, &self.before).ok();
    }
}

/// A terminal that shows nothing of what is typed, and hands each key over at once. It begins before the
/// first question is written: people type ahead.
#[derive(Debug)]
pub(super) struct Silent<'t> {
    _modes: Modes<'t>,
}

impl<'t> Silent<'t> {
    pub(super) fn begin(tty: &'t File) -> io::Result<Self> {
        let modes = Modes::begin(tty, |modes| {
            modes.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON);
            modes.special_codes[SpecialCodeIndex::VMIN] = 1;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        })?;
        Ok(Self { _modes: modes })
    }
}

/// A terminal that shows what is typed, and where [`CANCEL`] ends a line instead of the process.
#[derive(Debug)]
pub(super) struct Uncut<'t> {
    _modes: Modes<'t>,
}

impl<'t> Uncut<'t> {
    pub(super) fn begin(tty: &'t File) -> io::Result<Self> {
        let modes =
            Modes::begin(tty, |modes| modes.special_codes[SpecialCodeIndex::VEOL] = CANCEL)?;
        Ok(Self { _modes: modes })
    }
}

/// How typing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Typed {
    /// With the line's end.
    Line,
    /// By `^C`.
    Cancelled,
    /// By the input's end, or `^D` on an empty line.
    Ended,
}

/// A line that is being typed, with the keys that mend it. Its bytes are wiped, and there is no copy.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    bytes_max: usize,
}

impl Line {
    /// Takes so many bytes and one more, which tells that there were too many.
    pub(super) fn new(bytes_max: usize) -> Self {
        // The capacity is there from the start, so that growing leaves no copy behind.
        Self { bytes: Zeroizing::new(Vec::with_capacity(bytes_max + 1)), bytes_max }
    }

    pub(super) fn read(&mut self, mut from: impl Read) -> io::Result<Typed> {
        let mut byte = Zeroizing::new([0]);
        loop {
            match from.read(&mut *byte) {
                Ok(0) => return Ok(Typed::Ended),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if let Some(typed) = self.take(byte[0]) {
                return Ok(typed);
            }
        }
    }

    fn take(&mut self, key: u8) -> Option<Typed> {
        match key {
            b'\n' | b'\r' => return Some(Typed::Line),
            CANCEL => return Some(Typed::Cancelled),
            0x04 if self.bytes.is_empty() => return Some(Typed::Ended),
            // Backspace takes a whole character.
            0x08 | 0x7f => while self.bytes.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            0x15 => self.bytes.clear(),
            other if other < 0x20 && other != b'\t' => {}
            other => self.push(other),
        }
        None
    }

    /// Takes a byte as it is.
    pub(super) fn push(&mut self, byte: u8) {
        if self.bytes.len() <= self.bytes_max {
            self.bytes.push(byte);
        }
    }

    /// Whether more came than it takes.
    pub(super) fn is_too_long(&self) -> bool {
        self.bytes.len() > self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> (Typed, Vec<u8>) {
        let mut line = Line::new(64);
        let ended = line.read(keys).unwrap();
        (ended, line.bytes.to_vec())
    }

    #[test]
    fn keys_mend_the_line_and_ctrl_c_ends_it() {
        for (keys, ended, expected) in [
            (&b"secret\n"[..], Typed::Line, "secret"),
            (b"secret\r", Typed::Line, "secret"),
            (b"secretx\x7f\n", Typed::Line, "secret"),
            ("straßö\x08\x08\n".as_bytes(), Typed::Line, "stra"),
            (b"wrong\x15right\n", Typed::Line, "right"),
            (b"\x7f\x1b\x01a\tb\x1a\n", Typed::Line, "a\tb"),
            (b"ab\x04c\n", Typed::Line, "abc"),
            (b"half\x03", Typed::Cancelled, "half"),
            (b"\x04", Typed::Ended, ""),
            (b"cut off", Typed::Ended, "cut off"),
        ] {
            let (how, line) = typed(keys);
            assert_eq!((how, str::from_utf8(&line).unwrap()), (ended, expected), "{keys:?}");
        }
        let mut long = Line::new(4);
        long.read(&b"12345678\n"[..]).unwrap();
        assert!(long.is_too_long() && long.bytes.len() == 5);
    }
}

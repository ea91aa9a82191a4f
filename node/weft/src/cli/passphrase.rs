//! Passphrases, as a person types them where nobody sees, or as a script hands them over.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
};

use rustix::io::Errno;
use weft_api::ErrorKind;
use weft_store::key::{Passphrase, passphrase::BYTES_MAX};
use zeroize::Zeroizing;

use super::{
    error::CommandError,
    tty::{self, Line, Silent, Typed},
};

/// Where a passphrase comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The terminal.
    Terminal,
    /// The next line of an open file descriptor.
    Descriptor(u32),
}

impl From<Option<u32>> for Source {
    fn from(descriptor: Option<u32>) -> Self {
        descriptor.map_or(Self::Terminal, Self::Descriptor)
    }
}

/// The passphrase of keys that are there. `None`: there is no terminal to ask at.
pub(super) fn known(source: Source, prompt: &str) -> Result<Option<Passphrase>, CommandError> {
    match source {
        Source::Descriptor(number) => Lines::of(number)?.next().map(Some),
        Source::Terminal => {
            let Some(tty) = tty::open() else { return Ok(None) };
            let _silent = Silent::begin(&tty).map_err(failed)?;
            ask(&tty, prompt).map(Some)
        }
    }
}

/// A new passphrase, which a person types twice.
pub(super) fn new(source: Source) -> Result<Passphrase, CommandError> {
    let passphrase = match source {
        Source::Descriptor(number) => Lines::of(number)?.next()?,
        Source::Terminal => {
            let tty = tty::open().ok_or_else(no_terminal)?;
            let _silent = Silent::begin(&tty).map_err(failed)?;
            ask_twice(&tty)?
        }
    };
    checked(passphrase)
}

/// The passphrase that is there and a new one, which may come as two lines of one descriptor.
pub(super) fn known_and_new(
    old: Source,
    new_one: Source,
) -> Result<(Passphrase, Passphrase), CommandError> {
    if let (Source::Descriptor(number), true) = (old, old == new_one) {
        let mut lines = Lines::of(number)?;
        return Ok((lines.next()?, checked(lines.next()?)?));
    }
    // Silent from the first question to the last: people type ahead.
    let tty = if old == Source::Terminal { tty::open() } else { None };
    let _silent = tty.as_ref().map(Silent::begin).transpose().map_err(failed)?;
    let old = known(old, "The passphrase until now: ")?.ok_or_else(no_terminal)?;
    Ok((old, new(new_one)?))
}

/// What is said where a passphrase is needed and nobody can type it.
pub(super) fn no_terminal() -> CommandError {
    CommandError::new(
        ErrorKind::Usage,
        "a passphrase is needed, and there is no terminal to ask at",
    )
    .hint("hand it over with --passphrase-from FD, as in --passphrase-from 3 3<passphrase.txt")
}

fn checked(passphrase: Passphrase) -> Result<Passphrase, CommandError> {
    match passphrase.check() {
        Ok(()) => Ok(passphrase),
        Err(error) => Err(CommandError::failed(&error).of_kind(ErrorKind::Usage).hint(
            "five or six words that nobody would guess are better than one with signs in it",
        )),
    }
}

fn ask_twice(tty: &File) -> Result<Passphrase, CommandError> {
    let first = checked(ask(tty, "A passphrase for this device's keys: ")?)?;
    let second = ask(tty, "The same once more: ")?;
    if first != second {
        let message = "the two were not the same; nothing was changed";
        return Err(CommandError::new(ErrorKind::Usage, message));
    }
    Ok(first)
}

/// Asks on the terminal itself, which is silent already. Blocks.
fn ask(mut tty: &File, prompt: &str) -> Result<Passphrase, CommandError> {
    write!(tty, "{prompt}").and_then(|()| tty.flush()).map_err(failed)?;
    let mut line = Line::new(BYTES_MAX);
    let typed = line.read(tty).map_err(failed);
    writeln!(tty).map_err(failed)?;
    match typed? {
        Typed::Line => finish(&line),
        Typed::Cancelled | Typed::Ended => {
            Err(CommandError::new(ErrorKind::Cancelled, "no passphrase was given"))
        }
    }
}

fn failed(error: io::Error) -> CommandError {
    CommandError::from(anyhow::Error::new(error)).while_doing("failed to ask for a passphrase")
}

fn finish(line: &Line) -> Result<Passphrase, CommandError> {
    let usage = |message: String| CommandError::new(ErrorKind::Usage, message);
    if line.is_too_long() {
        return Err(usage(format!("a passphrase has at most {BYTES_MAX} bytes")));
    }
    let text = str::from_utf8(&line.bytes).map_err(|_| {
        usage("the passphrase is not UTF-8; this terminal's letters are of another kind".into())
    })?;
    Ok(text.to_owned().into())
}

/// The lines of a descriptor, read byte by byte: what follows them belongs to somebody else.
#[derive(Debug)]
struct Lines {
    number: u32,
    /// `None`: standard input, which needs no opening.
    file: Option<File>,
}

impl Lines {
    fn of(number: u32) -> Result<Self, CommandError> {
        if number == 0 {
            return Ok(Self { number, file: None });
        }
        // Opened by its name: taking a number's descriptor over is not safe.
        let file = File::open(format!("/dev/fd/{number}")).map_err(|error| {
            let message = format!("failed to read from file descriptor {number}: {error}");
            CommandError::new(ErrorKind::Usage, message)
                .hint(format!("open it for reading, as in {number}<passphrase.txt"))
        })?;
        Ok(Self { number, file: Some(file) })
    }

    fn next(&mut self) -> Result<Passphrase, CommandError> {
        let number = self.number;
        let mut line = Line::new(BYTES_MAX);
        let mut byte = Zeroizing::new([0]);
        let mut is_empty = true;
        while self.byte(&mut byte).map_err(|error| {
            let message = format!("failed to read from file descriptor {number}: {error}");
            CommandError::new(ErrorKind::Other, message)
        })? {
            is_empty = false;
            match byte[0] {
                b'\n' => break,
                _ if line.is_too_long() => break,
                other => line.push(other),
            }
        }
        line.bytes.pop_if(|last| *last == b'\r');
        if is_empty {
            let message = format!("no passphrase came from file descriptor {number}");
            return Err(CommandError::new(ErrorKind::Usage, message));
        }
        finish(&line)
    }

    /// `false`: there is none any more.
    fn byte(&mut self, byte: &mut [u8; 1]) -> io::Result<bool> {
        loop {
            let read = match &mut self.file {
                Some(file) => file.read(byte),
                // Past the buffer of the standard library, which nobody wipes.
                None => rustix::io::read(rustix::stdio::stdin(), &mut byte[..])
                    .map_err(|error: Errno| error.into()),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|count| count > 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn what_no_passphrase_can_be_is_refused() {
        let finish = |keys: &[u8]| {
            let mut line = Line::new(BYTES_MAX);
            line.read(keys).unwrap();
            finish(&line)
        };
        let long = [&[b'x'; BYTES_MAX + 10][..], b"\n"].concat();
        assert!(format!("{:?}", finish(&long).unwrap_err()).contains("at most 1024 bytes"));
        assert!(format!("{:?}", finish(b"\xff\xfe\n").unwrap_err()).contains("not UTF-8"));
    }

    #[test]
    fn a_descriptor_gives_line_after_line() {
        let (reader, mut writer) = io::pipe().unwrap();
        let number = u32::try_from(reader.as_raw_fd()).unwrap();
        writer.write_all(b"correct horse\r\nbattery staple\nnot read").unwrap();
        let source = Source::Descriptor(number);
        let (old, new) = known_and_new(source, source).unwrap();
        assert_eq!(old.as_bytes(), b"correct horse");
        assert_eq!(new.as_bytes(), b"battery staple");
        drop(writer);
        assert_eq!(known(source, "").unwrap().unwrap().as_bytes(), b"not read");
        let error = known(source, "").expect_err("nothing is left");
        assert!(format!("{error:?}").contains("no passphrase came"), "{error:?}");
    }

    #[test]
    fn a_new_one_that_is_short_is_refused_and_an_old_one_is_not() {
        for weak in ["\n", "1234567\n"] {
            let (reader, mut writer) = io::pipe().unwrap();
            let source = Source::Descriptor(u32::try_from(reader.as_raw_fd()).unwrap());
            writer.write_all(weak.repeat(2).as_bytes()).unwrap();
            let error = new(source).expect_err("it is short");
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(known(source, "").unwrap().is_some());
        }
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_named() {
        let error = known(Source::Descriptor(999), "").expect_err("it is not open");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
}

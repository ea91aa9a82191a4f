//! The recovery words, as a person types them from paper or as a script hands them over. They are
//! wiped when read, and are in no argument, variable, log or answer.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
};

use weft_api::ErrorKind;
use weft_trust::recovery::{RootSecret, WORD_COUNT, WordsError};
use zeroize::Zeroizing;

use crate::cli::{
    error::CommandError,
    tty::{self, Line, Silent, Typed},
};

/// Words take some two hundred bytes; numbers and spaces between have room.
const INPUT_BYTES_MAX: usize = 4096;

/// So often a person may type them anew.
const TRIES_MAX: usize = 3;

/// Reads them from an open descriptor, or from the terminal.
pub(super) fn read(descriptor: Option<u32>) -> Result<RootSecret, CommandError> {
    if let Some(number) = descriptor {
        return root(&from_descriptor(number)?);
    }
    let Some(tty) = tty::open() else {
        let message = "the recovery words are needed, and there is no terminal to type them at";
        return Err(CommandError::new(ErrorKind::Usage, message)
            .hint("hand them over with --words-from FD, as in --words-from 3 3<words.txt"));
    };
    // Silent from before the first question to after the last answer: people type ahead.
    let _silent = Silent::begin(&tty).map_err(failed)?;
    let mut tries = 0;
    loop {
        tries += 1;
        match root(&from_terminal(&tty)?) {
            Err(error) if error.kind() == ErrorKind::Usage && tries < TRIES_MAX => {
                say(&tty, &format!("{}; type all of them again\n", error.message()))?;
            }
            ended => return ended,
        }
    }
}

fn root(words: &str) -> Result<RootSecret, CommandError> {
    // The paper numbers them.
    let is_number = |it: &&str| it.chars().all(|c| c.is_ascii_digit());
    let plain: Vec<&str> = words.split_whitespace().filter(|it| !is_number(it)).collect();
    let joined = Zeroizing::new(plain.join(" "));
    RootSecret::from_words(&joined)
        .map_err(|error: WordsError| CommandError::failed(&error).of_kind(ErrorKind::Usage))
}

fn from_descriptor(number: u32) -> Result<Zeroizing<String>, CommandError> {
    // Opened by its name: taking a number's descriptor over is not safe.
    let file = if number == 0 { "/dev/stdin".to_owned() } else { format!("/dev/fd/{number}") };
    let mut text = Zeroizing::new(String::with_capacity(INPUT_BYTES_MAX));
    File::open(file)
        .and_then(|file| file.take(INPUT_BYTES_MAX as u64).read_to_string(&mut text))
        .map_err(|error| {
        let message = format!("failed to read from file descriptor {number}: {error}");
        CommandError::new(ErrorKind::Usage, message)
            .hint(format!("open it for reading, as in {number}<words.txt"))
    })?;
    Ok(text)
}

/// Reads lines until there are enough words. The terminal shows none of them.
fn from_terminal(tty: &File) -> Result<Zeroizing<String>, CommandError> {
    say(
        tty,
        &format!(
            "Type the {WORD_COUNT} recovery words, in their order, in as many lines as you like.\n\
             They are not shown.\n"
        ),
    )?;
    let mut text = Zeroizing::new(String::with_capacity(INPUT_BYTES_MAX));
    loop {
        let typed = line(tty, &mut text).map_err(failed)?;
        let count = text.split_whitespace().filter(|it| !it.starts_with(char::is_numeric)).count();
        if typed != Typed::Line {
            return Err(CommandError::new(ErrorKind::Cancelled, "no words were given"));
        }
        say(tty, &format!("{count} of {WORD_COUNT} words\n"))?;
        if count >= WORD_COUNT || text.len() >= INPUT_BYTES_MAX {
            return Ok(text);
        }
    }
}

/// One line, with a space after it. All words are of letters; anything else is in no word of the list.
fn line(tty: &File, text: &mut Zeroizing<String>) -> io::Result<Typed> {
    let mut line = Line::new(INPUT_BYTES_MAX.saturating_sub(text.len()));
    let typed = line.read(tty)?;
    for byte in line.bytes.iter().take(INPUT_BYTES_MAX.saturating_sub(text.len() + 1)) {
        text.push(match byte {
            b'\t' | b' ' => ' ',
            byte if byte.is_ascii_graphic() => char::from(*byte),
            _ => '?',
        });
    }
    text.push(' ');
    Ok(typed)
}

fn say(mut tty: &File, text: &str) -> Result<(), CommandError> {
    tty.write_all(text.as_bytes()).and_then(|()| tty.flush()).map_err(failed)
}

fn failed(error: io::Error) -> CommandError {
    CommandError::from(anyhow::Error::new(error)).while_doing("failed to ask for the words")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn through_a_pipe(text: &str) -> Result<RootSecret, CommandError> {
        let reader = pipe(text);
        read(u32::try_from(reader.as_raw_fd()).ok())
    }

    fn pipe(text: &str) -> io::PipeReader {
        let (reader, mut writer) = io::pipe().expect("a pipe is made");
        writer.write_all(text.as_bytes()).expect("a pipe takes it");
        reader
    }

    #[test]
    fn words_come_from_a_descriptor_with_or_without_the_numbers_of_the_paper() {
        let root = RootSecret::from_entropy([42; 32]);
        let words = root.words();
        assert_eq!(through_a_pipe(&words).unwrap().keys(), root.keys());
        let numbered: Vec<String> =
            words.split(' ').enumerate().map(|(at, it)| format!("{} {it}", at + 1)).collect();
        assert_eq!(through_a_pipe(&numbered.join("\n")).unwrap().keys(), root.keys());
    }

    #[test]
    fn what_is_wrong_with_them_is_named_and_they_are_not() {
        let words = RootSecret::from_entropy([42; 32]).words();
        let mut list: Vec<&str> = words.split(' ').collect();
        list[6] = "weft";
        for (given, expected) in [
            (list.join(" "), "word 7 is not in the list"),
            (words.replace(list[0], ""), "words were given, 24 are needed"),
            (String::new(), "0 words were given"),
        ] {
            let error = through_a_pipe(&given).expect_err("they are wrong");
            assert_eq!(error.kind(), ErrorKind::Usage);
            let said = format!("{error:?}");
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains("weft ") && !said.contains(list[1]), "{said}");
        }
        let error = read(Some(999)).expect_err("it is not open");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
}

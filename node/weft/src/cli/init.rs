//! `weft init`: a fabric begins, and its recovery words are shown once.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::Write as _,
    path::PathBuf,
};

use anyhow::Context as _;
use serde_json::json;
use weft_api::ErrorKind;
use weft_protocol::statement::Name;
use zeroize::Zeroizing;

use super::{
    Session,
    arguments::{InitArguments, NewcomerArguments},
    error::{CommandError, Done, Unshown},
    key,
    terminal::Terminal,
    tty::{self, Line, Typed, Uncut},
};
use crate::daemon::{
    home::{Home, keys as keys_of},
    init::{self, InitRequest},
    newcomer::Newcomer,
    up,
};

/// The longest word has eight letters.
const ANSWER_BYTES_MAX: usize = 64;

/// So often a word may be typed wrongly.
const TRIES_MAX: usize = 3;

/// How many words stand in a line.
const WORDS_A_LINE: usize = 6;

pub(super) fn run(session: &Session, arguments: InitArguments) -> Done {
    up::check_environment()?;
    let terminal = &session.terminal;
    // Opened before anything is made: a root whose words nobody saw would be none.
    let sink = open_sink(arguments.words_to)?;
    // Before a passphrase is asked for.
    let home = Home::new(&session.home);
    home.expect_new()?;
    let device = newcomer(terminal, arguments.newcomer)?;
    let name = device.name.clone();
    let keeping = device.keys.keeping();
    let request = InitRequest { device, fabric: arguments.fabric, with_root: sink.is_some() };
    let report =
        init::run(&home, &request, |words| sink.map_or(Ok(()), |sink| show_words(sink, words)))?;
    let recovery = report.words.is_some();
    if !recovery {
        terminal.say(
            "no recovery: there was no terminal to show the words on; --words-to FD names another \
             place, where it matters that a lost fabric comes back",
        );
    }
    if terminal.is_json() {
        terminal.json(&json!({
            "fabric": report.fabric.to_string(),
            "fabric_name": request.fabric.as_str(),
            "device": report.device.to_string(),
            "name": name.as_str(),
            "keys": keys_of(keeping).word(),
            "recovery": recovery,
        }))?;
    } else {
        terminal.data(&format!("{name} is the first device of the fabric {}", request.fabric))?;
        terminal.note("run weft up, and leave it running; weft invite brings the next device");
    }
    Ok(None)
}

/// What was asked for, with a passphrase where one keeps the keys.
pub(super) fn newcomer(
    terminal: &Terminal,
    asked: NewcomerArguments,
) -> Result<Newcomer, CommandError> {
    let name = name(asked.name)?;
    Ok(Newcomer { name, kind: asked.kind, keys: key::choose(terminal, &asked.keys)? })
}

/// The name that was given, else the machine's, as far as that is a name.
pub(super) fn name(given: Option<Name>) -> Result<Name, CommandError> {
    if let Some(name) = given {
        return Ok(name);
    }
    let system = rustix::system::uname();
    let machine = system.nodename().to_string_lossy();
    let short = machine.split('.').next().unwrap_or_default();
    short.parse().map_err(|_| {
        CommandError::new(ErrorKind::Usage, "this machine has no name that a device could have")
            .hint("give one with --name")
    })
}

/// Where recovery words are shown.
#[derive(Debug)]
pub(super) enum Sink {
    /// To a person.
    Terminal(File),
    /// To whatever holds the descriptor's other end.
    Descriptor(File),
}

/// The descriptor that was named, else the terminal, else nothing.
pub(super) fn open_sink(descriptor: Option<u32>) -> Result<Option<Sink>, CommandError> {
    let Some(descriptor) = descriptor else {
        return Ok(tty::open().map(Sink::Terminal));
    };
    // Opened by its name: taking a number's descriptor over is not safe.
    let path = PathBuf::from(format!("/dev/fd/{descriptor}"));
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => Ok(Some(Sink::Descriptor(file))),
        Err(error) => {
            let message = format!("failed to write to file descriptor {descriptor}: {error}");
            Err(CommandError::new(ErrorKind::Usage, message)
                .hint(format!("open it for writing, as in {descriptor}>words.txt")))
        }
    }
}

pub(super) fn show_words(sink: Sink, words: &str) -> anyhow::Result<()> {
    let failed = "failed to show the recovery words; nothing was made";
    match sink {
        Sink::Terminal(mut tty) => {
            let reader = tty.try_clone().context(failed)?;
            let _uncut = Uncut::begin(&reader).context(failed)?;
            let text = Zeroizing::new(page(words));
            tty.write_all(text.as_bytes()).and_then(|()| tty.flush()).context(failed)?;
            ask_back(&tty, words)
        }
        Sink::Descriptor(mut file) => {
            let text = Zeroizing::new(format!("{words}\n"));
            file.write_all(text.as_bytes()).and_then(|()| file.flush()).context(failed)
        }
    }
}

/// Asks for some of the words as the paper has them. Whoever answers nothing is not asked further.
fn ask_back(mut tty: &File, words: &str) -> anyhow::Result<()> {
    let words: Vec<&str> = words.split_whitespace().collect();
    for at in three_of(words.len())? {
        let mut tries = 0;
        loop {
            write!(tty, "Word {}, as your paper has it (Enter: don't check): ", at + 1)?;
            tty.flush()?;
            let mut line = Line::new(ANSWER_BYTES_MAX);
            let typed = line.read(tty)?;
            let answer = line.bytes.trim_ascii();
            if typed == Typed::Cancelled {
                writeln!(tty)?;
                return Err(Unshown.into());
            }
            if answer.is_empty() {
                writeln!(tty, "The paper was not checked.")?;
                return Ok(());
            }
            if answer.eq_ignore_ascii_case(words[at].as_bytes()) {
                break;
            }
            tries += 1;
            if tries == TRIES_MAX {
                anyhow::bail!("the paper has other words than were shown; nothing was made");
            }
            writeln!(tty, "That is not it. Look above, and mend the paper.")?;
        }
    }
    writeln!(tty, "The paper is right.")?;
    Ok(())
}

/// Three different numbers below `count`, in order.
fn three_of(count: usize) -> anyhow::Result<BTreeSet<usize>> {
    let mut chosen = BTreeSet::new();
    while chosen.len() < 3.min(count) {
        let mut byte = [0];
        getrandom::fill(&mut byte)?;
        chosen.insert(usize::from(byte[0]) % count);
    }
    Ok(chosen)
}

/// The words as a person copies them.
fn page(words: &str) -> String {
    let mut text = String::from(
        "\nWrite these 24 words down, on paper. They are shown this once. With them and one device that \
         is left,\nwhichever it is, you get back in, and a thief out. Whoever has them has everything.\n\n",
    );
    for (at, word) in words.split_whitespace().enumerate() {
        let end = if (at + 1) % WORDS_A_LINE == 0 { "\n" } else { "" };
        text.push_str(&format!("  {:>2} {word:<9}{end}", at + 1));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::AsRawFd as _};

    use super::*;

    #[test]
    fn words_go_to_the_descriptor_that_was_named() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let number = u32::try_from(writer.as_raw_fd()).unwrap();
        let sink = open_sink(Some(number)).unwrap().expect("it is open");
        show_words(sink, "abandon ability").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abandon ability\n");
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_named() {
        let error = open_sink(Some(999)).expect_err("it is not open");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }

    #[test]
    fn three_words_are_asked_back() {
        for count in [1, 3, 24] {
            let chosen = three_of(count).unwrap();
            assert!(chosen.len() == 3.min(count) && chosen.iter().all(|at| *at < count));
        }
    }

    #[test]
    fn words_are_numbered() {
        let words: Vec<_> = (0..24).map(|at| format!("word{at}")).collect();
        let page = page(&words.join(" "));
        assert!(page.contains(" 1 word0") && page.contains("24 word23"), "{page}");
        assert_eq!(page.lines().filter(|line| line.contains("word")).count(), 5, "{page}");
    }
}

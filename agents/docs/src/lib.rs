//! Reads documents: `docs.read` gives the text of a PDF, a Markdown or a plain text file.
//!
//! The agent gets the file's bytes and tells what they are by looking at them; the name only serves
//! to say what was expected. Control characters are dropped, so that a file cannot steer a terminal
//! that shows it.
//!
//! Deliberately not here: pictures of text, which would need recognition, passwords, and layout: a
//! PDF's text comes line by line as its pages draw it.

mod page;
mod pdf;
mod plain;

use weft_sdk::{Agent, Arguments, Error, Node, Value};

/// The most bytes of a file that are read.
const FILE_BYTES_MAX: usize = 32 << 20;

/// The most bytes of text that are given back: what fits into one answer, some 300 pages.
const TEXT_BYTES_MAX: usize = 900 << 10;

/// The agent.
#[derive(Debug)]
pub struct Docs;

impl Agent for Docs {
    fn run(_: &mut impl Node, capability: &str, arguments: &Arguments) -> Result<Value, Error> {
        match capability {
            "docs.read" => {
                let name = arguments.text_if_any("path")?.unwrap_or("the file");
                read(name, arguments.file("path")?).map(Value::String)
            }
            other => Err(Error::unknown(other)),
        }
    }
}

weft_sdk::export!(Docs);

/// The text of a file.
fn read(name: &str, bytes: &[u8]) -> Result<String, Error> {
    if bytes.len() > FILE_BYTES_MAX {
        let (len, max) = (bytes.len() >> 20, FILE_BYTES_MAX >> 20);
        return Err(Error::invalid(format!("{name} has {len} MiB; at most {max} are read")));
    }
    let text = if pdf::is_pdf(bytes) {
        pdf::text(bytes).map_err(|why| Error::invalid(format!("{name} {why}")))?
    } else if name.to_lowercase().ends_with(".pdf") {
        return Err(Error::invalid(format!("{name} is no PDF, although it is called so")));
    } else {
        plain::text(bytes)
            .ok_or_else(|| Error::invalid(format!("{name} is neither a text nor a PDF")))?
    };
    let text = tidy(&text);
    if text.is_empty() {
        return Err(Error::invalid(format!("{name} holds no text")));
    }
    if text.len() > TEXT_BYTES_MAX {
        let (len, max) = (text.len() >> 10, TEXT_BYTES_MAX >> 10);
        return Err(Error::invalid(format!(
            "{name} holds {len} KiB of text; at most {max} are read"
        )));
    }
    Ok(text)
}

/// Drops control characters, blanks at line ends, and empty lines beyond one; takes ligatures apart.
fn tidy(text: &str) -> String {
    let mut tidied = String::with_capacity(text.len());
    let mut empty_lines = 0;
    for line in text.lines() {
        let line = line.trim_end();
        if line.is_empty() {
            empty_lines += 1;
            continue;
        }
        if !tidied.is_empty() {
            tidied.push_str(if empty_lines > 0 { "\n\n" } else { "\n" });
        }
        empty_lines = 0;
        for char in line.chars() {
            match LIGATURES.iter().find(|(ligature, _)| *ligature == char) {
                Some((_, letters)) => tidied.push_str(letters),
                None if char == '\t' || !char.is_control() => tidied.push(char),
                None => {}
            }
        }
    }
    tidied
}

/// Letters that print joins; who searches for a word types them one by one.
const LIGATURES: [(char, &str); 5] =
    [('ﬀ', "ff"), ('ﬁ', "fi"), ('ﬂ', "fl"), ('ﬃ', "ffi"), ('ﬄ', "ffl")];

#[cfg(test)]
mod tests {
    use weft_sdk::{Refusal, fake::Fake, json};

    use super::*;

    fn read(name: &str, bytes: &[u8]) -> Result<String, Error> {
        let file = ("path".to_owned(), bytes.to_vec());
        Fake::default()
            .run_with_files::<Docs>("docs.read", &json!({ "path": name }), [file])
            .map(|output| output.as_str().unwrap().to_owned())
    }

    fn fixture(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/");
        std::fs::read(folder.to_owned() + name).unwrap()
    }

    #[test]
    fn a_real_report_comes_out_whole() {
        let text = read("report.pdf", &fixture("report.pdf")).unwrap();
        let letters = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let original = String::from_utf8(fixture("report.txt")).unwrap();
        assert_eq!(letters(&text), letters(&original));
        assert!(text.contains("\n\nWho belongs\n\n"), "{text}");
    }

    #[test]
    fn what_stands_behind_the_end_does_no_harm() {
        let whole = fixture("letters.pdf");
        let expected = read("letters.pdf", &whole).unwrap();
        for tail in [b"\n\n".as_slice(), &[0; 4_000], b"<!-- added by a server -->\n"] {
            assert_eq!(read("letters.pdf", &[whole.as_slice(), tail].concat()).unwrap(), expected);
        }
    }

    #[test]
    fn letters_of_an_embedded_font_come_out() {
        let text = read("letters.pdf", &fixture("letters.pdf")).unwrap();
        assert_eq!(text, "Straße, naïve façade\nΑθήνα — Київ — “quoted” …\nfirst second third");
    }

    #[test]
    fn texts_are_read_as_they_are() {
        let cases: [(&[u8], &str); 7] = [
            (b"# Title\r\n\r\n\r\n\r\n- one  \r\n- two\r\n", "# Title\n\n- one\n- two"),
            (b"\xef\xbb\xbfwith a mark", "with a mark"),
            (b"\xff\xfeh\0i\0", "hi"),
            (b"\xfe\xff\0h\0i", "hi"),
            ("äöü\tß, eﬀort".as_bytes(), "äöü\tß, effort"),
            (
                b"caf\xe9 in old letters, mostly readable",
                "caf\u{fffd} in old letters, mostly readable",
            ),
            (b"\x1b[31mred\x1b[0m\x07", "[31mred[0m"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read("notes.md", bytes).unwrap(), expected);
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let report = fixture("report.pdf");
        let head = b"%PDF-1.7\nand then nothing of the kind".as_slice();
        let cases: [(&str, &[u8], &str); 10] = [
            ("a.pdf", b"just words", "a.pdf is no PDF, although it is called so"),
            ("a.pdf", head, "a.pdf is a damaged PDF"),
            ("a.pdf", &report[..report.len() / 3], "a.pdf is only a part of a PDF"),
            ("a.pdf", &report[..report.len() / 2], "a.pdf is only a part of a PDF"),
            ("a.pdf", &report[..report.len() - 8], "a.pdf is only a part of a PDF"),
            ("locked.pdf", &fixture("locked.pdf"), "locked.pdf is locked with a password"),
            ("drawing.pdf", &fixture("drawing.pdf"), "drawing.pdf holds no text; it may be a scan"),
            ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a.png is neither a text nor a PDF"),
            ("a.bin", &[0xc3; 400], "a.bin is neither a text nor a PDF"),
            ("a.txt", b" \n\n", "a.txt holds no text"),
        ];
        for (name, bytes, expected) in cases {
            let error = read(name, bytes).unwrap_err();
            assert_eq!(error.refusal, Refusal::Invalid);
            assert!(error.reason.starts_with(expected), "{:?} for {name}", error.reason);
        }
        let missing = Fake::default().run::<Docs>("docs.read", &json!({})).unwrap_err();
        assert_eq!(missing.reason, "path came without the bytes of a file");
    }

    #[test]
    fn damage_anywhere_is_survived() {
        let report = fixture("report.pdf");
        for at in (0..report.len()).step_by(97) {
            let mut damaged = report.clone();
            damaged[at] ^= 0x15;
            // Either outcome will do; what matters is that there is one.
            let outcome = read("report.pdf", &damaged);
            assert!(outcome.is_ok() || outcome.is_err_and(|error| !error.reason.is_empty()));
        }
    }
}

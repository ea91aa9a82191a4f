//! What the demo tells: chapters of beats, as data. `fleet` plays them.

use std::time::Duration;

use self::Beat::{Invite, Say, Type, Until, Up};
use self::Device::{Laptop, Phone, Server};

/// One of the three nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Laptop,
    Phone,
    Server,
}

impl Device {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Laptop => "laptop",
            Self::Phone => "phone",
            Self::Server => "server",
        }
    }
}

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Beat {
    /// A sentence for the reader.
    Say(&'static str),
    /// A command is typed and shown with its output.
    Type(Line),
    /// As `Type`; its JSON holds a ticket, which `{ticket}` stands for from here on.
    Invite(Line),
    /// The node is started, and answers before the next beat.
    Up(Device),
    /// A command is asked again, unseen, until it shows what it must: that fact is told.
    Until(Line, &'static str),
}

/// A command on a device, and what its output must and must not hold. JSON is compared without
/// its white space.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) on: Device,
    /// The words after `weft`; `{ticket}` and `{model}` stand for what the demo knows.
    pub(crate) words: &'static [&'static str],
    /// Words that a script needs and a person would not type: given, not shown.
    pub(crate) unseen: &'static [&'static str],
    pub(crate) shows: &'static [&'static str],
    pub(crate) lacks: &'static [&'static str],
    pub(crate) within: Duration,
}

/// Long for a command on one machine: a node that needs longer hangs.
const COMMAND: Duration = Duration::from_secs(20);

/// A model of 135 million parameters on two busy cores, reading some pages.
const MODEL: Duration = Duration::from_secs(300);

/// A command that has [`COMMAND`] to end with success, whatever it shows.
pub(crate) const fn weft(on: Device, words: &'static [&'static str]) -> Line {
    Line { on, words, unseen: &[], shows: &[], lacks: &[], within: COMMAND }
}

impl Line {
    pub(crate) const fn unseen(self, unseen: &'static [&'static str]) -> Self {
        Self { unseen, ..self }
    }

    pub(crate) const fn shows(self, shows: &'static [&'static str]) -> Self {
        Self { shows, ..self }
    }

    pub(crate) const fn lacks(self, lacks: &'static [&'static str]) -> Self {
        Self { lacks, ..self }
    }

    pub(crate) const fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }
}

/// The whole story, in order.
pub(crate) const CHAPTERS: &[(&str, &[Beat])] = &[
    ("Three devices become one", PAIRING),
    ("A note travels", NOTE),
    ("A heavy step goes to the server", SUMMARY),
    ("Everything is on the record", AUDIT),
];

/// Whether any line needs the model's file: a large download otherwise for nothing.
pub(crate) fn needs_model(chapters: &[(&str, &[Beat])]) -> bool {
    chapters.iter().flat_map(|(_, beats)| beats.iter()).any(|beat| match beat {
        Type(line) | Invite(line) | Until(line, _) => {
            line.words.iter().chain(line.unseen).any(|word| word.contains("{model}"))
        }
        Say(_) | Up(_) => false,
    })
}

const PAIRING: &[Beat] = &[
    Say("The laptop begins a fabric. The phone and the server join it through tickets."),
    Type(weft(Laptop, &["init", "--name", "laptop", "--kind", "laptop", "--key", "file"])),
    Up(Laptop),
    Invite(weft(Laptop, &["invite", "--yes", "--json"])),
    Type(weft(
        Phone,
        &["join", "{ticket}", "--name", "phone", "--kind", "phone", "--yes", "--key", "file"],
    )),
    Up(Phone),
    Invite(weft(Laptop, &["invite", "--yes", "--json"])),
    Type(weft(
        Server,
        &["join", "{ticket}", "--name", "server", "--kind", "server", "--yes", "--key", "file"],
    )),
    Up(Server),
    Until(
        weft(Phone, &["devices", "--json"])
            .shows(&[r#""name":"laptop""#, r#""name":"server""#, r#""state":"here""#])
            .lacks(&[r#""state":"away""#]),
        "the phone sees the laptop and the server, though it only ever spoke to the laptop",
    ),
    Until(
        weft(Laptop, &["devices", "--json"])
            .shows(&[r#""name":"phone""#, r#""name":"server""#, r#""state":"here""#])
            .lacks(&[r#""state":"away""#]),
        "the laptop sees both",
    ),
    Type(weft(Laptop, &["devices"]).shows(&["laptop", "phone", "server"])),
];

const NOTE: &[Beat] = &[
    Type(weft(Laptop, &["do", "note that the plumber comes on friday"])),
    Until(
        weft(Phone, &["notes", "list", "--json"]).shows(&["plumber comes on friday"]),
        "the note is on the phone",
    ),
    Type(weft(Phone, &["notes", "list"]).shows(&["plumber comes on friday"])),
];

const SUMMARY: &[Beat] = &[
    Say("Only the server gets a model."),
    Type(weft(Server, &["model", "get"]).unseen(&["--from", "{model}"]).within(MODEL)),
    Until(
        weft(Laptop, &["do", "--plan", "--json", "summarize tests/fixtures/report.pdf"])
            .shows(&[r#""device":"server""#]),
        "the laptop knows that the server can do it",
    ),
    Type(weft(Laptop, &["do", "--plan", "summarize tests/fixtures/report.pdf"]).shows(&["server"])),
    Type(weft(Laptop, &["do", "summarize tests/fixtures/report.pdf"]).within(MODEL)),
    Say("Where each step ran, and why there:"),
    Type(weft(Laptop, &["run", "show"]).shows(&["server"])),
];

const AUDIT: &[Beat] = &[
    Type(weft(Laptop, &["audit", "verify"])),
    Type(weft(Phone, &["audit", "verify"])),
    Type(weft(Server, &["audit", "verify"])),
];

//! One device: its home, and its node while it is up.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{PATIENCE, Running, Transcript, program, until};

/// A device of a test. Its node's process ends with it.
#[derive(Debug)]
pub struct Device {
    name: String,
    kind: String,
    /// Where things are typed: beside the home.
    folder: PathBuf,
    home: PathBuf,
    node: Option<Running>,
}

impl Device {
    pub(crate) fn new(folder: &Path, name: &str, kind: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            folder: folder.to_owned(),
            home: folder.join(name),
            node: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kind, as `--kind` takes it.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Moves its home to another folder, which may not be there yet.
    pub fn move_to(&mut self, home: PathBuf) {
        assert!(self.node.is_none(), "a node keeps its home");
        self.home = home;
    }

    /// Writes a file beside the home, where its commands find it by this name.
    #[track_caller]
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.folder.join(name);
        fs::write(&path, content)
            .unwrap_or_else(|error| panic!("failed to write {}: {error}", path.display()));
    }

    /// Types `weft` and these words, where there is no terminal, and waits for the end.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Transcript {
        self.start(words).end()
    }

    /// As [`Self::run`], with something on standard input.
    #[track_caller]
    pub fn run_with(&self, words: &[&str], input: &str) -> Transcript {
        let mut running = self.start(words);
        running.type_in(input);
        running.end()
    }

    /// As [`Self::run`], where it ends well and prints JSON; `--json` need not be said.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        self.run(&[&["--json"], words].concat()).expect_code(0).json()
    }

    /// Types `weft` and these words, where there is no terminal.
    #[track_caller]
    pub fn start(&self, words: &[&str]) -> Running {
        // A session of its own has no terminal, whatever the tests were started from.
        let command = match program::system("setsid") {
            Some(setsid) => {
                let mut command = program::hermetic(&setsid, &self.folder);
                command.arg(program::weft());
                command
            }
            None => program::hermetic(program::weft(), &self.folder),
        };
        self.spawn(command, words)
    }

    /// Types `weft` and these words at a terminal: what it shows there comes as standard output, and
    /// what is typed into it is read from there. `None` where this machine has no `script`.
    #[track_caller]
    pub fn at_terminal(&self, words: &[&str]) -> Option<Running> {
        let script = program::system("script")?;
        let mut typed = quoted(&program::weft().to_string_lossy());
        for word in ["--home", &self.home.to_string_lossy()].iter().chain(words) {
            typed.push(' ');
            typed.push_str(&quoted(word));
        }
        let mut command = program::hermetic(&script, &self.folder);
        command.args(["--quiet", "--return", "--command", &typed, "/dev/null"]);
        command.env("TERM", "xterm").env("NO_COLOR", "1");
        Some(Running::start(command, spelled(words)))
    }

    /// As [`Self::start`], with one more variable in the environment.
    #[track_caller]
    pub fn start_where(&self, name: &str, value: &Path, words: &[&str]) -> Running {
        let mut command = program::hermetic(program::weft(), &self.folder);
        command.env(name, value);
        self.spawn(command, words)
    }

    /// `weft` and these words under another program, such as `setpriv`.
    #[track_caller]
    pub fn start_under(
        &self,
        program: &str,
        arguments: &[&str],
        words: &[&str],
    ) -> Option<Running> {
        let mut command = program::hermetic(&program::system(program)?, &self.folder);
        command.args(arguments).arg(program::weft());
        Some(self.spawn(command, words))
    }

    #[track_caller]
    fn spawn(&self, mut command: Command, words: &[&str]) -> Running {
        command.arg("--home").arg(&self.home).args(words);
        Running::start(command, spelled(words))
    }

    /// Starts its node and waits until it answers.
    #[track_caller]
    pub fn up(&mut self) {
        let command = program::hermetic(program::weft(), &self.folder);
        self.have(|this| this.spawn(command, &["up"]));
    }

    /// Starts its node where there is no terminal, with these options, and waits until it is up or waits,
    /// locked.
    #[track_caller]
    pub fn up_with(&mut self, options: &[&str], input: &str) {
        self.have(|this| {
            let mut node = this.start(&[&["up"], options].concat());
            node.type_in(input);
            node.close_input();
            node
        });
    }

    /// Starts its node under another program and waits until it answers. `None` where this machine has not got
    /// that program.
    #[track_caller]
    pub fn up_under(&mut self, program: &str, arguments: &[&str]) -> Option<()> {
        program::system(program)?;
        self.have(|this| {
            this.start_under(program, arguments, &["up"]).expect("the program is there")
        });
        Some(())
    }

    /// Has the node that is started so, and waits until it answers.
    #[track_caller]
    fn have(&mut self, start: impl FnOnce(&Self) -> Running) {
        assert!(self.node.is_none(), "{} is up already", self.name);
        let mut node = start(self);
        until(
            &format!("{} is up", self.name),
            || (self.run(&["status"]).code, node.has_ended(), node.stderr()),
            |(code, has_ended, _)| *code == Some(0) || *has_ended,
        );
        assert!(!node.has_ended(), "{} did not come up:\n{}", self.name, node.stderr());
        self.node = Some(node);
    }

    /// The id of its node's process.
    #[track_caller]
    pub fn node_id(&self) -> u32 {
        self.node.as_ref().expect("it is up").id()
    }

    /// Starts its node where it cannot come up, and gives what it said.
    #[track_caller]
    pub fn up_in_vain(&self) -> Transcript {
        let command = program::hermetic(program::weft(), &self.folder);
        self.spawn(command, &["up"]).end()
    }

    /// Asks its node to end, as a service manager does, and gives what it said.
    #[track_caller]
    pub fn stop(&mut self) -> Transcript {
        let mut node = self.node.take().expect("it is up");
        node.signal(Signal::TERM);
        node.end()
    }

    /// Ends its node at once, as a power cut does. Gives what the node had said.
    #[track_caller]
    pub fn kill(&mut self) -> String {
        let mut node = self.node.take().expect("it is up");
        node.signal(Signal::KILL);
        node.end().stderr
    }

    /// What its node said so far.
    pub fn node_said(&self) -> String {
        self.node.as_ref().map(Running::stderr).unwrap_or_default()
    }

    /// Invites a device, unseen, and gives the ticket.
    #[track_caller]
    pub fn invite(&self) -> String {
        let invited = self.json(&["invite", "--yes"]);
        invited["ticket"].as_str().expect("an invitation has a ticket").to_owned()
    }

    /// Joins with a ticket, unseen.
    #[track_caller]
    pub fn join(&self, ticket: &str) -> Transcript {
        let (name, kind) = (&*self.name, &*self.kind);
        self.run_with(&["join", "-", "--name", name, "--kind", kind, "--yes"], ticket)
    }

    /// Gives a device the role admin, as a person at a terminal does, and waits until it knows. `None`
    /// where this machine has no `script`.
    #[track_caller]
    pub fn make_admin(&self, device: &Self) -> Option<Transcript> {
        let mut asked = self.at_terminal(&["device", "role", device.name(), "admin"])?;
        asked.hears("[y/N]");
        asked.type_in("y\n");
        let said = asked.end().expect_code(0);
        let role = || device.json(&["status"])["role"].clone();
        until(&format!("{} knows its role", device.name), role, |role| role == "admin");
        Some(said)
    }

    /// The state of a device as this one sees it: `here`, `away`, `revoked`; empty where it sees none.
    #[track_caller]
    pub fn sees(&self, name: &str) -> String {
        let devices = self.json(&["devices"]);
        let devices = devices.as_array().expect("devices are a list");
        let found = devices.iter().find(|device| device["name"] == name);
        found.and_then(|device| device["state"].as_str()).unwrap_or_default().to_owned()
    }

    /// Waits until it sees these devices here.
    #[track_caller]
    pub fn until_here(&self, names: &[&str]) {
        for name in names {
            let what = format!("{name} is here, as {} sees it", self.name);
            until(&what, || self.sees(name), |state| state == "here");
        }
    }

    /// The words of its notes, in order of their letters.
    #[track_caller]
    pub fn notes(&self) -> Vec<String> {
        let notes = self.json(&["notes", "list", "--limit", "1000"]);
        let text = |note: &Value| note["text"].as_str().unwrap_or_default().to_owned();
        let mut notes: Vec<_> =
            notes.as_array().expect("notes are a list").iter().map(text).collect();
        notes.sort();
        notes
    }

    /// Waits until these words are among its notes.
    #[track_caller]
    pub fn until_note(&self, text: &str) {
        let what = format!("the note {text:?} is on {}", self.name);
        until(&what, || self.notes(), |notes| notes.iter().any(|note| note == text));
    }

    /// Takes a note, and gives what was said.
    #[track_caller]
    pub fn note(&self, text: &str) -> Transcript {
        self.run(&["do", &format!("note that {text}")]).expect_code(0)
    }

    /// Every event from now on.
    #[track_caller]
    pub fn watch(&self) -> Running {
        let watcher = self.start(&["events", "--json", "-v"]);
        let what = format!("{} tells events", self.name);
        until(&what, || watcher.stderr(), |said| said.contains("listening"));
        watcher
    }

    /// Asserts that its record is as it was written.
    #[track_caller]
    pub fn verify(&self) -> Value {
        let found = self.json(&["audit", "verify"]);
        assert_eq!(found["ok"], true, "{}: {found}", self.name);
        found
    }

    /// How long a summary may take: on two cores that do other things, a model in a debug build.
    pub const MODEL_PATIENCE: Duration = Duration::from_secs(PATIENCE.as_secs() * 5);
}

/// As typed, without the home.
fn spelled(words: &[&str]) -> String {
    let words = words.iter().map(|word| {
        let is_plain = !word.is_empty() && !word.contains(char::is_whitespace);
        if is_plain { (*word).to_owned() } else { format!("{word:?}") }
    });
    std::iter::once("weft".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

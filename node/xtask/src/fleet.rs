//! Three nodes on this machine: their homes, processes, logs, and how a beat of the story is
//! played on them.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::process;
use crate::story::{Beat, Device, Line};
use crate::term;
use crate::workspace::Workspace;

/// How often a question is asked again.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// How long a node has until it answers.
const START: Duration = Duration::from_secs(20);

/// How long a node has to stop by itself.
const STOP: Duration = Duration::from_secs(8);

/// How much of a log a failure shows.
const LOG_TAIL_LINES: usize = 25;

/// The running nodes. Dropping it ends them and removes their homes, unless they are kept.
#[derive(Debug)]
pub(crate) struct Fleet<'a> {
    workspace: &'a Workspace,
    weft: PathBuf,
    model: Option<PathBuf>,
    /// Holds the homes and the logs; only its owner can look in.
    folder: PathBuf,
    nodes: Vec<(Device, Child)>,
    ticket: Option<String>,
    keep: bool,
}

impl<'a> Fleet<'a> {
    /// Makes the folder of homes; starts nothing yet.
    pub(crate) fn new(
        workspace: &'a Workspace,
        weft: PathBuf,
        model: Option<PathBuf>,
    ) -> Result<Self, String> {
        let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // Short: a home holds a socket, whose path may have 107 bytes.
        let folder = std::env::temp_dir().join(format!("weft-demo-{moment}"));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|error| format!("failed to create {}: {error}", folder.display()))?;
        Ok(Self { workspace, weft, model, folder, nodes: Vec::new(), ticket: None, keep: false })
    }

    /// Plays one beat; the error says what was expected, what came, and what the node logged.
    pub(crate) fn play(&mut self, beat: &Beat) -> Result<(), String> {
        match beat {
            Beat::Say(sentence) => {
                term::say(format_args!("\n{sentence}"));
                Ok(())
            }
            Beat::Type(line) => self.type_in(line).map(drop),
            Beat::Invite(line) => {
                let said = self.type_in(line)?;
                let ticket = json_string(&said, "ticket")
                    .ok_or_else(|| self.unexpected(line, "print {\"ticket\": …}", &said))?;
                self.ticket = Some(ticket.to_owned());
                Ok(())
            }
            Beat::Up(device) => self.start(*device),
            Beat::Until(line, fact) => self.until(line, fact),
        }
    }

    /// Leaves the nodes running, and says how to use and stop them.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
        term::say("\nThe three nodes are still running. To use them:");
        for (device, _) in &self.nodes {
            let home = self.home(*device);
            term::say(format_args!(
                "  alias {}='{} --home {}'",
                device.name(),
                process::quoted(&self.weft.to_string_lossy()),
                process::quoted(&home.to_string_lossy()),
            ));
        }
        let ids: Vec<_> = self.nodes.iter().map(|(_, child)| child.id().to_string()).collect();
        term::say("and to stop them and remove their homes:");
        term::say(format_args!(
            "  kill {} && sleep 1 && rm -r {}",
            ids.join(" "),
            process::quoted(&self.folder.to_string_lossy())
        ));
    }

    /// Runs a command as a person would, and returns what a person sees.
    fn type_in(&self, line: &Line) -> Result<String, String> {
        term::say(format_args!("\n{}$ {}", line.on.name(), self.shown(line)));
        let (status, said) = process::watch(&mut self.command(line), line.within)
            .map_err(|error| self.unexpected(line, "end with success", &error))?;
        if !status.success() {
            let wanted = format!("end with success, not with {status}");
            return Err(self.unexpected(line, &wanted, &said));
        }
        match unmet(line, &said) {
            Some(wanted) => Err(self.unexpected(line, &wanted, &said)),
            None => Ok(said),
        }
    }

    fn until(&self, line: &Line, fact: &str) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let answer = process::hear(&mut self.command(line), line.within);
            let (wanted, said) = match answer {
                Ok(answer) if answer.status.success() => match unmet(line, &answer.stdout) {
                    None => {
                        let took = start.elapsed().as_secs_f64();
                        term::say(format_args!("\n({fact}, after {took:.1} s)"));
                        return Ok(());
                    }
                    Some(wanted) => (wanted, answer.said),
                },
                Ok(answer) => ("end with success".into(), answer.said),
                Err(error) => ("end with success".into(), error),
            };
            if start.elapsed() >= line.within {
                let wanted = format!("{wanted} within {} s", line.within.as_secs());
                return Err(self.unexpected(line, &wanted, &said));
            }
            thread::sleep(ASK_EVERY);
        }
    }

    fn start(&mut self, device: Device) -> Result<(), String> {
        term::say(format_args!("\n{}$ weft up &", device.name()));
        let path = self.log(device);
        let log = File::create(&path)
            .map_err(|error| format!("failed to create {}: {error}", path.display()))?;
        let errors = log.try_clone().map_err(|error| format!("failed to share a log: {error}"))?;
        let mut command = self.node(device);
        let mut child = command
            .arg("up")
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(errors))
            .spawn()
            .map_err(|error| format!("failed to start {}: {error}", self.weft.display()))?;
        let deadline = Instant::now() + START;
        let ready = loop {
            if let Ok(Some(status)) = child.try_wait() {
                break Err(format!("the {} ended at once, with {status}", device.name()));
            }
            if process::answers(self.node(device).args(["status", "--json"])) {
                break Ok(());
            }
            if Instant::now() >= deadline {
                let limit = START.as_secs();
                break Err(format!("the {} did not answer within {limit} s", device.name()));
            }
            thread::sleep(ASK_EVERY);
        };
        self.nodes.push((device, child));
        ready.map_err(|error| format!("{error}\n{}", self.log_tail(device)))
    }

    /// `weft` on a device, before its words.
    fn node(&self, device: Device) -> Command {
        let mut command = self.workspace.command(&self.weft);
        command
            .env("WEFT_LISTEN", "loopback")
            .env_remove("WEFT_HOME")
            .arg("--home")
            .arg(self.home(device));
        command
    }

    fn command(&self, line: &Line) -> Command {
        let mut command = self.node(line.on);
        command.args(line.words.iter().chain(line.unseen).map(|word| self.filled(word)));
        command
    }

    /// A word with what the demo knows in place of `{ticket}` and `{model}`.
    fn filled(&self, word: &str) -> String {
        word.replace("{ticket}", self.ticket.as_deref().unwrap_or_default())
            .replace("{model}", &self.model.as_deref().unwrap_or(Path::new("")).to_string_lossy())
    }

    /// A line as typed, a long ticket cut short.
    fn shown(&self, line: &Line) -> String {
        let words = line.words.iter().map(|word| match (*word, &self.ticket) {
            ("{ticket}", Some(ticket)) => shortened(ticket),
            (word, _) => process::quoted(word),
        });
        std::iter::once("weft".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
    }

    fn home(&self, device: Device) -> PathBuf {
        self.folder.join(device.name())
    }

    fn log(&self, device: Device) -> PathBuf {
        self.folder.join(format!("{}.log", device.name()))
    }

    fn unexpected(&self, line: &Line, wanted: &str, said: &str) -> String {
        format!(
            "expected `{}` on the {} to {wanted}\n\nit said:\n{}\n{}",
            self.shown(line),
            line.on.name(),
            indented(said.lines()),
            self.log_tail(line.on),
        )
    }

    fn log_tail(&self, device: Device) -> String {
        let text = fs::read(self.log(device)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("\nthe end of the {}'s log:\n{}", device.name(), indented(tail.iter().copied()))
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // The last to come goes first: the others see it leave.
        for (_, child) in self.nodes.iter_mut().rev() {
            process::stop(child, STOP);
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// What a line was to show and does not, or shows and should not.
fn unmet(line: &Line, said: &str) -> Option<String> {
    let text = if said.trim_start().starts_with(['{', '[']) { compact(said) } else { said.into() };
    let absent = line.shows.iter().find(|part| !text.contains(**part));
    let present = line.lacks.iter().find(|part| text.contains(**part));
    absent
        .map(|part| format!("show `{part}`"))
        .or_else(|| present.map(|part| format!("not show `{part}`")))
}

/// JSON without the white space between its tokens.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    json.chars()
        .filter(|&c| {
            let keep = in_string || !c.is_ascii_whitespace();
            match c {
                '"' if !escaped => in_string = !in_string,
                _ => {}
            }
            escaped = in_string && c == '\\' && !escaped;
            keep
        })
        .collect()
}

/// The value of the first string field of that name, where it holds no escapes.
fn json_string<'t>(json: &'t str, field: &str) -> Option<&'t str> {
    let rest = json.split_once(&format!("\"{field}\""))?.1.trim_start().strip_prefix(':')?;
    let value = rest.trim_start().strip_prefix('"')?.split_once('"')?.0;
    (!value.is_empty() && !value.contains('\\')).then_some(value)
}

fn shortened(ticket: &str) -> String {
    match ticket.char_indices().nth(16) {
        Some((end, _)) => format!("{}…", &ticket[..end]),
        None => ticket.to_owned(),
    }
}

fn indented<'t>(lines: impl Iterator<Item = &'t str>) -> String {
    let lines: Vec<_> = lines.map(|line| format!("  {line}")).collect();
    if lines.is_empty() { "  (nothing)".into() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::story::{self, weft};

    /// A stand-in for the program: knows a home, an `up` that lasts, and says its words back.
    const STAND_IN: &str = r#"#!/bin/sh
[ "$1" = --home ] || exit 64
home=$2
shift 2
case "$1" in
init) mkdir "$home" ;;
up) [ -d "$home" ] || { echo "no home" >&2; exit 1; }; echo "listening $WEFT_LISTEN"; touch "$home/up"; exec sleep 600 ;;
status) [ -e "$home/up" ] ;;
invite) echo '{ "ticket": "weft1abcdefghijklmnopqrstuvwxyz" }' ;;
join) [ "$2" = weft1abcdefghijklmnopqrstuvwxyz ] && mkdir "$home" ;;
count) echo x >> "$home/count"; [ "$(wc -l < "$home/count")" -ge 3 ] && echo '[ { "name": "phone" } ]' || echo '[]' ;;
fail) echo "failed to do it" >&2; exit 4 ;;
*) echo "$@" ;;
esac
"#;

    struct Stage {
        workspace: Workspace,
        folder: PathBuf,
    }

    impl Stage {
        fn set(name: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("weft-xtask-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).expect("temporary folder");
            let program = folder.join("weft");
            fs::write(&program, STAND_IN).expect("stand-in");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("stand-in");
            Self { workspace: Workspace::find().expect("tests run in the workspace"), folder }
        }

        fn fleet(&self) -> Fleet<'_> {
            let homes = self.folder.join("homes");
            fs::create_dir_all(&homes).expect("homes");
            Fleet {
                workspace: &self.workspace,
                weft: self.folder.join("weft"),
                model: Some("/models/small.gguf".into()),
                folder: homes,
                nodes: Vec::new(),
                ticket: None,
                keep: false,
            }
        }
    }

    impl Drop for Stage {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.folder).ok();
        }
    }

    fn play(fleet: &mut Fleet<'_>, beats: &[Beat]) -> Result<(), String> {
        beats.iter().try_for_each(|beat| fleet.play(beat))
    }

    const LAPTOP: Device = Device::Laptop;
    const PHONE: Device = Device::Phone;

    #[test]
    fn a_story_is_played_and_leaves_nothing_behind() {
        let stage = Stage::set("played");
        let mut fleet = stage.fleet();
        let homes = fleet.folder.clone();
        play(
            &mut fleet,
            &[
                Beat::Type(weft(LAPTOP, &["init"])),
                Beat::Up(LAPTOP),
                Beat::Invite(weft(LAPTOP, &["invite"])),
                Beat::Type(weft(PHONE, &["join", "{ticket}"])),
                Beat::Up(PHONE),
                Beat::Until(weft(PHONE, &["count"]).shows(&[r#""name":"phone""#]), "it is there"),
                Beat::Type(weft(LAPTOP, &["model"]).unseen(&["{model}"]).shows(&["/models/small"])),
            ],
        )
        .expect("the story goes well");
        let ids: Vec<_> = fleet.nodes.iter().map(|(_, child)| child.id()).collect();
        assert_eq!(ids.len(), 2);
        let alive = |id: &u32| Path::new(&format!("/proc/{id}")).exists();
        assert!(ids.iter().all(alive));
        drop(fleet);
        assert!(!ids.iter().any(alive));
        assert!(!homes.exists());
    }

    #[test]
    fn a_failure_says_what_was_expected_and_what_came() {
        let stage = Stage::set("failing");
        let mut fleet = stage.fleet();
        play(&mut fleet, &[Beat::Type(weft(LAPTOP, &["init"])), Beat::Up(LAPTOP)]).expect("set up");
        let mut error_of = |line: Line| fleet.play(&Beat::Type(line)).expect_err("it must fail");

        let error = error_of(weft(LAPTOP, &["fail"]));
        assert!(error.contains("`weft fail` on the laptop to end with success"), "{error}");
        assert!(error.contains("failed to do it"), "{error}");
        assert!(error.contains("listening loopback"), "the log's end: {error}");

        let error = error_of(weft(LAPTOP, &["say", "a"]).shows(&["b"]));
        assert!(error.contains("to show `b`"), "{error}");

        let until = Beat::Until(
            weft(LAPTOP, &["say", "a"]).lacks(&["a"]).within(Duration::from_millis(300)),
            "a is gone",
        );
        let error = fleet.play(&until).expect_err("it stays");
        assert!(error.contains("to not show `a` within"), "{error}");
    }

    #[test]
    fn a_node_that_does_not_start_is_shown_with_its_log() {
        let stage = Stage::set("dead");
        let error = stage.fleet().play(&Beat::Up(PHONE)).expect_err("it has no home");
        assert!(error.contains("the phone ended at once"), "{error}");
        assert!(error.contains("no home"), "{error}");
    }

    #[test]
    fn a_ticket_is_shown_short_and_given_whole() {
        let stage = Stage::set("ticket");
        let mut fleet = stage.fleet();
        fleet.ticket = Some("weft1abcdefghijklmnopqrstuvwxyz".into());
        let line = weft(PHONE, &["join", "{ticket}", "--name", "my phone"]);
        assert_eq!(fleet.shown(&line), "weft join weft1abcdefghijk… --name \"my phone\"");
        assert!(
            process::spelled(&fleet.command(&line)).contains("weft1abcdefghijklmnopqrstuvwxyz")
        );
    }

    #[test]
    fn json_is_compared_without_its_white_space() {
        assert_eq!(compact("{ \"a b\" : [ 1,\n 2 ] }"), r#"{"a b":[1,2]}"#);
        assert_eq!(compact(r#"{ "a": "x\" y" , "b": "\\" }"#), r#"{"a":"x\" y","b":"\\"}"#);
    }

    #[test]
    fn a_ticket_is_read_from_json() {
        for (json, expected) in [
            (r#"{"ticket": "weft1abc"}"#, Some("weft1abc")),
            ("{\n  \"words\": 4,\n  \"ticket\" : \"w\"\n}", Some("w")),
            (r#"{"ticket": ""}"#, None),
            (r#"{"ticket": 3}"#, None),
            (r#"{"other": "x"}"#, None),
        ] {
            assert_eq!(json_string(json, "ticket"), expected, "{json}");
        }
    }

    #[test]
    fn the_story_fetches_a_model_only_when_it_is_used() {
        let with: (&str, &[Beat]) =
            ("", &[Beat::Type(weft(LAPTOP, &["model", "get"]).unseen(&["--from", "{model}"]))]);
        let without: (&str, &[Beat]) =
            ("", &[Beat::Type(weft(LAPTOP, &["devices"])), Beat::Up(PHONE)]);
        assert!(story::needs_model(&[without, with]));
        assert!(!story::needs_model(&[without]));
    }
}

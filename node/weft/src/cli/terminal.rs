//! Where things are shown, and where a person is asked.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, IsTerminal, Write as _},
    sync::atomic::{AtomicBool, Ordering},
};

use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde_json::Value;
use weft_api::ErrorKind;

use super::{error::CommandError, tty};

/// As wide as a terminal is at least.
const COLUMNS: usize = 80;

/// So much is shown of what may be a whole text, where it is not known how wide a line may be.
const CELL_CHARS_MAX: usize = 200;
/// So much is shown of it however narrow the terminal is.
const CELL_CHARS_MIN: usize = 20;

/// Whether the cursor stands after a question that nobody has answered yet.
static IS_ASKING: AtomicBool = AtomicBool::new(false);

/// Standard output for what is found, standard error for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    json: bool,
    verbose: bool,
    out_is_terminal: bool,
    error_is_terminal: bool,
    error_can_rewrite: bool,
    out_colour: bool,
    error_colour: bool,
}

/// How a word is set off.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

impl Style {
    const fn code(self) -> u8 {
        match self {
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Red => 31,
        }
    }
}

impl Terminal {
    pub(crate) fn new(json: bool, verbose: u8) -> Self {
        let (out, error) = (io::stdout(), io::stderr());
        Self {
            json,
            verbose: verbose > 0,
            out_is_terminal: out.is_terminal(),
            error_is_terminal: error.is_terminal(),
            error_can_rewrite: error.is_terminal() && !is_dumb(),
            out_colour: is_colourful(&out),
            error_colour: is_colourful(&error),
        }
    }

    /// A terminal that a person looks at, wherever the output of a test goes.
    #[cfg(test)]
    pub(crate) const fn of_a_person() -> Self {
        Self {
            json: false,
            verbose: false,
            out_is_terminal: true,
            error_is_terminal: true,
            error_can_rewrite: true,
            out_colour: false,
            error_colour: false,
        }
    }

    /// Whether JSON was asked for.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether somebody looks at standard output.
    pub(crate) const fn out_is_terminal(&self) -> bool {
        self.out_is_terminal
    }

    /// Whether standard error may be coloured.
    pub(crate) const fn error_is_colourful(&self) -> bool {
        self.error_colour
    }

    /// Whether somebody looks at standard error, or wants it told anyway.
    pub(crate) const fn is_talkative(&self) -> bool {
        self.error_is_terminal || self.verbose
    }

    /// Whether more than the usual was asked for.
    pub(crate) const fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Whether a line on standard error can be replaced by the next.
    pub(crate) const fn can_rewrite(&self) -> bool {
        self.error_can_rewrite
    }

    /// Replaces the line of standard error on which the cursor stands. If that is closed there is nobody
    /// to tell.
    pub(crate) fn rewrite(&self, line: &str) {
        let mut error = io::stderr().lock();
        write!(error, "\r\x1b[K{line}").and_then(|()| error.flush()).ok();
    }

    /// Puts a line on standard output.
    pub(crate) fn data(&self, line: &str) -> Result<(), CommandError> {
        self.stream(&format!("{line}\n"))
    }

    /// Puts text on standard output as it is, at once.
    pub(crate) fn stream(&self, text: &str) -> Result<(), CommandError> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| CommandError::from(anyhow::Error::new(error)))
    }

    /// Puts a value on standard output, on one line.
    pub(crate) fn json(&self, value: &Value) -> Result<(), CommandError> {
        self.data(&value.to_string())
    }

    /// Puts a table on standard output.
    pub(crate) fn table<const N: usize>(
        &self,
        titles: [&str; N],
        rows: &[[String; N]],
    ) -> Result<(), CommandError> {
        let text = table(titles, rows);
        let Some((head, body)) = text.split_once('\n') else { return Ok(()) };
        self.stream(&format!("{}\n{body}", self.styled(Style::Dim, head)))
    }

    /// The same, with the last column cut: to what fits where somebody looks, else to a fixed length.
    pub(crate) fn table_cut<const N: usize>(
        &self,
        titles: [&str; N],
        mut rows: Vec<[String; N]>,
    ) -> Result<(), CommandError> {
        let columns = self.out_is_terminal.then(columns);
        let chars_max =
            columns.map_or(CELL_CHARS_MAX, |columns| room_for_last(titles, &rows, columns));
        for cell in rows.iter_mut().filter_map(|row| row.last_mut()) {
            *cell = cut(cell, chars_max);
        }
        self.table(titles, &rows)
    }

    /// A word as standard output shows it.
    pub(crate) fn styled(&self, style: Style, text: &str) -> String {
        styled(self.out_colour, style, text)
    }

    /// A word as standard error shows it.
    pub(crate) fn styled_message(&self, style: Style, text: &str) -> String {
        styled(self.error_colour, style, text)
    }

    /// Says a line on standard error.
    pub(crate) fn say(&self, text: &str) {
        error_line(text);
    }

    /// Says a line on standard error if somebody looks.
    pub(crate) fn note(&self, text: &str) {
        if self.is_talkative() {
            error_line(text);
        }
    }

    /// Says what went wrong.
    pub(crate) fn error(&self, text: &str) {
        error_line(&format!("{}: {text}", self.styled_message(Style::Red, "error")));
    }
}

fn styled(is_colourful: bool, style: Style, text: &str) -> String {
    if is_colourful { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_owned() }
}

/// Whether a stream takes colours: a terminal, and nothing speaks against it.
pub(crate) fn is_colourful(stream: &impl IsTerminal) -> bool {
    let says_no = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !says_no && !is_dumb()
}

/// Whether the terminal takes letters only.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Says a line on standard error. If that is closed there is nobody to tell.
pub(crate) fn error_line(text: &str) {
    let mut error = io::stderr().lock();
    if IS_ASKING.swap(false, Ordering::Relaxed) && error.is_terminal() {
        writeln!(error).ok();
    }
    writeln!(error, "{text}").ok();
}

/// Whether a person can be asked.
pub(crate) fn can_ask() -> bool {
    tty::open().is_some()
}

/// Asks on the terminal itself; anything but `y` or `yes` is a no, and so is no terminal. Blocks.
pub(crate) fn ask(question: &str) -> bool {
    let Some(mut tty) = tty::open() else { return false };
    let mut answer = String::new();
    IS_ASKING.store(true, Ordering::Relaxed);
    let is_read = write!(tty, "{question} [y/N] ")
        .and_then(|()| tty.flush())
        .and_then(|()| BufReader::new(&tty).read_line(&mut answer));
    // Without a line's end the cursor is where it was.
    IS_ASKING.store(!answer.ends_with('\n'), Ordering::Relaxed);
    is_read.is_ok_and(|_| is_yes(&answer))
}

/// Asks for a yes, which `--yes` would be. `why` is what needs it.
pub(crate) fn confirm(why: &str, question: &str) -> Result<(), CommandError> {
    if !can_ask() {
        let message = format!("{why}, and there is no terminal to ask at");
        return Err(CommandError::new(ErrorKind::Usage, message).hint("say it with --yes"));
    }
    answered(question)
}

/// Asks; a no ends the command.
pub(crate) fn answered(question: &str) -> Result<(), CommandError> {
    if ask(question) { Ok(()) } else { Err(CommandError::said_no()) }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Text from elsewhere as a terminal may show it: it can neither move the cursor nor change colours.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
        .collect()
}

/// What was typed, as far as a message repeats it.
pub(crate) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A field of a node's answer as text; empty where it is absent.
pub(crate) fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            harmless(&other.to_string())
        }
    }
}

/// The beginning of an id in a field, or of another hash: enough to tell it from others.
pub(crate) fn short(value: &Value, field: &str) -> String {
    text(value, field).chars().take(8).collect()
}

/// The items of a list; none where it is no list.
pub(crate) fn items<'v>(value: &'v Value) -> impl Iterator<Item = &'v Value> + use<'v> {
    value.as_array().into_iter().flatten()
}

/// Items of a list as text, with commas between.
pub(crate) fn listed(value: &Value) -> String {
    let words: Vec<_> = items(value).filter_map(Value::as_str).map(harmless).collect();
    words.join(", ")
}

/// A length of time in milliseconds, as short as it can be said: `1.2 ms`, `4.6 s`, `2 min 5 s`.
pub(crate) fn length(millis: f64) -> String {
    let seconds = millis / 1_000.0;
    if seconds < 1.0 {
        format!("{millis:.1} ms")
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        let minutes = (seconds / 60.0).floor();
        format!("{minutes:.0} min {:.0} s", (seconds - minutes * 60.0).floor())
    }
}

/// A time of a node's answer, in local time; empty where there is none.
pub(crate) fn local_time(value: &Value, field: &str) -> String {
    let shown = |zone: TimeZone| {
        let time: Timestamp = value[field].as_str()?.parse().ok()?;
        Some(Zoned::new(time, zone).strftime("%Y-%m-%d %H:%M:%S").to_string())
    };
    shown(TimeZone::system()).unwrap_or_default()
}

/// Breaks text between words: its first line begins at column `used`, the others at `indent`.
pub(crate) fn wrapped(text: &str, used: usize, indent: usize) -> String {
    let (mut lines, mut column) = (String::new(), used);
    for word in text.split(' ') {
        let chars = word.chars().count();
        if column > indent.max(used) && column + 1 + chars > COLUMNS {
            lines.push_str(&format!("\n{:indent$}", ""));
            column = indent;
        } else if !lines.is_empty() {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += chars;
    }
    lines
}

/// How wide the terminal at standard output is.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|it| *it > 0).unwrap_or(COLUMNS)
}

/// The characters that are left of a line for the last column.
fn room_for_last<const N: usize>(titles: [&str; N], rows: &[[String; N]], columns: usize) -> usize {
    let chars = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([titles[at].chars().count()]).max().unwrap_or(0)
    };
    let used: usize = (0..N.saturating_sub(1)).map(|at| chars(at) + 2).sum();
    columns.saturating_sub(used).max(CELL_CHARS_MIN)
}

/// Text with at most so many characters, of which the last says that there is more.
fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().nth(chars_max).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Columns as wide as their widest cell, two spaces apart; the last is as wide as it is.
fn table<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let titles = titles.map(str::to_owned);
    let mut widths = [0; N];
    for row in rows.iter().chain([&titles]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in [&titles].into_iter().chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // Writing to memory does not fail.
            write!(line, "{:width$}  ", one_line(cell)).ok();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn one_line(cell: &str) -> String {
    cell.replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [
            ["laptop", "here", "this device"].map(String::from),
            ["phone", "away", ""].map(String::from),
        ];
        expect![[r"
            NAME    STATE
            laptop  here   this device
            phone   away
        "]]
        .assert_eq(&table(["NAME", "STATE", ""], &rows));
    }

    #[test]
    fn a_text_is_cut_to_what_is_left_of_the_line() {
        let rows = [["mj5nhbzy", &"word ".repeat(360)].map(String::from)];
        let room = |columns| room_for_last(["RUN", "WORDS"], &rows, columns);
        assert_eq!((room(80), room(200), room(15)), (70, 190, CELL_CHARS_MIN));
        for chars_max in [20, 70, CELL_CHARS_MAX] {
            let shown = cut(&rows[0][1], chars_max);
            assert!(shown.chars().count() <= chars_max && shown.ends_with("word…"), "{shown}");
        }
        assert_eq!((cut("übers", 5), cut("übersetzt", 5)), ("übers".into(), "über…".into()));
    }

    #[test]
    fn lines_are_broken_between_words_and_never_without_end() {
        let text = format!("{} b {}", "a".repeat(100), "c".repeat(70));
        let lines = wrapped(&text, 10, 10);
        let widths: Vec<_> = lines.lines().map(|line| line.trim().chars().count()).collect();
        assert_eq!(widths, [100, 1, 70]);
        assert_eq!(wrapped("", 10, 10), "");
    }

    #[test]
    fn lengths_are_said_in_the_unit_that_fits() {
        for (millis, expected) in [
            (0.0, "0.0 ms"),
            (12.34, "12.3 ms"),
            (4_604.3, "4.6 s"),
            (59_940.0, "59.9 s"),
            (120_003.1, "2 min 0 s"),
            (185_000.0, "3 min 5 s"),
        ] {
            assert_eq!(length(millis), expected);
        }
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, expected) in [
            ("y\n", true),
            ("YES\n", true),
            ("", false),
            ("\n", false),
            ("n", false),
            ("yep", false),
        ] {
            assert_eq!(is_yes(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn text_from_elsewhere_cannot_drive_the_terminal() {
        let value = json!({"text": "a\u{1b}[2Jb\nc\u{7}", "number": 4});
        assert_eq!(text(&value, "text"), "a\u{fffd}[2Jb\nc\u{fffd}");
        assert_eq!(text(&value, "number"), "4");
        assert_eq!(text(&value, "nothing"), "");
    }
}

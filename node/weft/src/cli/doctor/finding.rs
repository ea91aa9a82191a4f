//! What a checkup found, and how it looks.

use serde_json::{Value, json};

use crate::cli::terminal::{Style, Terminal, harmless, wrapped};

/// The widest subject that text stands beside.
const ABOUT_CHARS_MAX: usize = 11;
/// Where the subject begins: after the longest level.
const LEVEL_CHARS: usize = 9;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum Level {
    /// It does not work, or keys lie open.
    Problem,
    /// It works, or may work by itself later; better look.
    Warning,
    Ok,
}

impl Level {
    pub(in crate::cli) const fn word(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Ok => "ok",
        }
    }

    const fn style(self) -> Style {
        match self {
            Self::Problem => Style::Red,
            Self::Warning => Style::Yellow,
            Self::Ok => Style::Green,
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Finding {
    pub(in crate::cli) level: Level,
    /// What it is about: a part of the program, or a device's name.
    pub(in crate::cli) about: String,
    /// The id of the device that it is about, where it is about one: its name may be that of a part.
    pub(in crate::cli) device: Option<String>,
    /// What is so.
    pub(in crate::cli) what: String,
    /// Why it matters.
    pub(in crate::cli) why: Option<String>,
    /// What to type or do next, best first.
    pub(in crate::cli) to_do: Vec<String>,
}

impl Finding {
    pub(super) fn new(level: Level, about: &str, what: impl AsRef<str>) -> Self {
        let (about, what) = (one_line(about), one_line(what.as_ref()));
        Self { level, about, device: None, what, why: None, to_do: Vec::new() }
    }

    /// The same, about this device of a node's answer.
    #[must_use]
    pub(super) fn of(mut self, device: &Value) -> Self {
        self.device = device["id"].as_str().map(str::to_owned);
        self
    }

    pub(super) fn ok(about: &str, what: impl AsRef<str>) -> Self {
        Self::new(Level::Ok, about, what)
    }

    pub(super) fn warning(about: &str, what: impl AsRef<str>) -> Self {
        Self::new(Level::Warning, about, what)
    }

    pub(super) fn problem(about: &str, what: impl AsRef<str>) -> Self {
        Self::new(Level::Problem, about, what)
    }

    /// The same, with why it matters.
    #[must_use]
    pub(super) fn why(mut self, why: impl AsRef<str>) -> Self {
        self.why = Some(one_line(why.as_ref()));
        self
    }

    /// The same, with one more thing to do about it.
    #[must_use]
    pub(super) fn advise(mut self, to_do: impl AsRef<str>) -> Self {
        self.to_do.push(one_line(to_do.as_ref()));
        self
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "level": self.level.word(),
            "about": self.about,
            "device": self.device,
            "what": self.what,
            "why": self.why,
            "to_do": self.to_do,
        })
    }

    /// Its lines on a screen; `about_chars` is the width of the subjects' column.
    fn lines(&self, terminal: &Terminal, about_chars: usize) -> String {
        let indent = LEVEL_CHARS + about_chars + 2;
        let level = self.level.word();
        let gap = " ".repeat(LEVEL_CHARS - level.len());
        let about = format!("{:about_chars$}", self.about);
        let used = LEVEL_CHARS + about.chars().count() + 2;
        let mut lines = format!("{}{gap}{about}  ", terminal.styled(self.level.style(), level));
        lines.push_str(&wrapped(&self.what, used, indent));
        if let Some(why) = &self.why {
            let why = wrapped(why, indent, indent);
            lines.push_str(&format!("\n{:indent$}{}", "", terminal.styled(Style::Dim, &why)));
        }
        for to_do in &self.to_do {
            let to_do = wrapped(to_do, indent + 2, indent + 2);
            lines.push_str(&format!("\n{:indent$}→ {}", "", terminal.styled(Style::Bold, &to_do)));
        }
        lines
    }
}

/// All findings as they stand on a screen, what is worst first.
pub(super) fn screen(findings: &[Finding], terminal: &Terminal) -> String {
    let widest = findings.iter().map(|it| it.about.chars().count()).max().unwrap_or(0);
    let about_chars = widest.min(ABOUT_CHARS_MAX);
    let mut text = summary(findings);
    for level in [Level::Problem, Level::Warning, Level::Ok] {
        for (at, finding) in findings.iter().filter(|it| it.level == level).enumerate() {
            text.push('\n');
            // What is to be read stands apart; what is well is a list.
            if level != Level::Ok || at == 0 {
                text.push('\n');
            }
            text.push_str(&finding.lines(terminal, about_chars));
        }
    }
    text
}

/// How many of which kind.
pub(super) fn summary(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|it| it.level == level).count();
    let plural = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{count} {what}s")),
    };
    let bad = [plural(count(Level::Problem), "problem"), plural(count(Level::Warning), "warning")];
    let bad: Vec<_> = bad.into_iter().flatten().collect();
    if bad.is_empty() {
        return "all is well".to_owned();
    }
    match count(Level::Ok) {
        0 => bad.join(", "),
        ok => format!("{}, {ok} ok", bad.join(", ")),
    }
}

/// Text without what could drive a terminal or break a line.
fn one_line(text: &str) -> String {
    harmless(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_shows_what_is_worst_first_in_80_columns() {
        let findings = [
            Finding::ok("store", "12 MiB, encrypted"),
            Finding::warning("keys", "they lie in a file").why(
                "whoever has the disk reads all, and that is a long sentence which has to be broken",
            ),
            Finding::problem("phone", "a\u{1b}[2J\nb").advise("weft up").advise("weft status"),
            Finding::ok("a-very-long-name-of-a-device", "here"),
        ];
        expect_test::expect![[r#"
            1 problem, 1 warning, 2 ok

            problem  phone        a�[2J b
                                  → weft up
                                  → weft status

            warning  keys         they lie in a file
                                  whoever has the disk reads all, and that is a long
                                  sentence which has to be broken

            ok       store        12 MiB, encrypted
            ok       a-very-long-name-of-a-device  here"#]]
        .assert_eq(&screen(&findings, &Terminal::new(false, 0)));
    }

    #[test]
    fn what_is_well_says_so() {
        assert_eq!(summary(&[Finding::ok("store", "")]), "all is well");
        let bad = [Finding::problem("a", ""), Finding::warning("b", ""), Finding::warning("c", "")];
        assert_eq!(summary(&bad), "1 problem, 2 warnings");
    }
}

//! What stood on the screen.

use std::fmt;

use serde_json::Value;

/// What a command said, and how it ended. Displayed without what differs from run to run.
#[derive(Debug, Clone)]
pub struct Transcript {
    /// The command as typed.
    pub said: String,
    /// Data.
    pub stdout: String,
    /// Messages.
    pub stderr: String,
    /// The exit code; `None`: it was ended by a signal.
    pub code: Option<i32>,
}

impl Transcript {
    /// Itself, where the exit code is this one.
    ///
    /// # Panics
    ///
    /// When it is another, with all that was said.
    #[track_caller]
    #[must_use]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}\n{}", self.said, self.stdout, self.stderr);
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("{} said what is not JSON: {error}\n{}\n{}", self.said, self.stdout, self.stderr)
        })
    }
}

/// The command, standard output as it is, each line of standard error after `! `, and the exit code
/// where it is not 0.
impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}", self.said)?;
        for line in self.stdout.lines() {
            writeln!(f, "{}", normal(line))?;
        }
        for line in self.stderr.lines() {
            writeln!(f, "! {}", normal(line))?;
        }
        match self.code {
            Some(0) => Ok(()),
            Some(code) => writeln!(f, "(exit {code})"),
            None => writeln!(f, "(killed)"),
        }
    }
}

/// A line without what differs from run to run: ids, ports, times, durations, folders, tickets.
fn normal(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-:./+".contains(c);
    let mut words: Vec<String> = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_part(c) != is_part(first)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        words.push(if is_part(first) { normal_word(word) } else { word.to_owned() });
        rest = after;
    }
    words.concat()
}

fn normal_word(word: &str) -> String {
    let is_digit = |c: char| c.is_ascii_digit();
    let is_id = |part: &str| {
        part.len() >= 26 && part.chars().all(|c| c.is_ascii_lowercase() || ('2'..='7').contains(&c))
    };
    if let Some(at) = word.find("weft-e2e-") {
        // The random part of the folder has six characters.
        let start = word[..at].rfind("/tmp").unwrap_or(at);
        let after = word[at..].find('/').map_or("", |slash| &word[at + slash..]);
        return format!("{}…{after}", &word[..start]);
    }
    if word.starts_with("WEFT1:") && word.len() > 20 {
        return "WEFT1:…".to_owned();
    }
    if is_id(word) {
        return "<id>".to_owned();
    }
    let shape: String = word.chars().map(|c| if is_digit(c) { '0' } else { c }).collect();
    if shape.starts_with("0000-00-00") {
        return "<date>".to_owned();
    }
    if shape.trim_end_matches('.') == "00:00:00" {
        return format!("<time>{}", if word.ends_with('.') { "." } else { "" });
    }
    if word.starts_with("/ip") {
        let parts = word
            .split('/')
            .map(|part| if !part.is_empty() && part.chars().all(is_digit) { "PORT" } else { part });
        return parts.collect::<Vec<_>>().join("/");
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_left_out() {
        for (line, expected) in [
            ("weft is up in /tmp/weft-e2e-a1B2c3/laptop", "weft is up in …/laptop"),
            ("due 2026-11-22 10:06:06.", "due <date> <time>."),
            ("{\"time\":\"2026-11-22T10:05:49.859Z\"}", "{\"time\":\"<date>\"}"),
            ("at /ip4/127.0.0.1/udp/52175/quic-v1", "at /ip4/127.0.0.1/udp/PORT/quic-v1"),
            ("\"id\":\"bsyzqaxsqupdfuljz2hxiwprnkw2vrmfikunud2iplxqrdeh75za\"", "\"id\":\"<id>\""),
            ("Noted: the plumber comes at 9:30", "Noted: the plumber comes at 9:30"),
            ("ok: 14 records, each as it was", "ok: 14 records, each as it was"),
        ] {
            assert_eq!(normal(line), expected);
        }
    }
}

//! The screen of a person who waits for a run.
//!
//! What the last step writes is shown once, while it comes. A step that tells how far it is works in
//! parts: what it writes from then on is not its answer yet, so that only how far it is shows, on one
//! line of standard error that the next one replaces, and the answer follows at the end.

use serde_json::Value;

use super::{
    error::CommandError,
    terminal::{Terminal, harmless, text},
};

/// The most characters of the line that tells how far a step is, so that it stays one.
const PROGRESS_CHARS_MAX: usize = 70;

/// What stands on the screen of a run so far.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal,
    /// The step whose answer is the run's.
    last_step: Option<String>,
    /// What the last step wrote on standard output.
    streamed: String,
    /// What the step said last of how far it is, and the words that came since.
    part: Option<String>,
    words: usize,
    is_progress_shown: bool,
}

impl Screen {
    pub(super) const fn new(terminal: Terminal, last_step: Option<String>) -> Self {
        Self {
            terminal,
            last_step,
            streamed: String::new(),
            part: None,
            words: 0,
            is_progress_shown: false,
        }
    }

    /// Takes that a step has come so far.
    pub(super) fn progressed(&mut self, event: &Value) -> Result<(), CommandError> {
        let step = text(event, "step");
        if let Some(line) = event["log"].as_str() {
            self.part = Some(format!("{step}  {}", harmless(line).replace('\n', " ")));
            self.words = 0;
            self.show_progress()?;
        }
        let Some(piece) = event["text"].as_str() else { return Ok(()) };
        let is_answer = self.part.is_none() && Some(&step) == self.last_step.as_ref();
        if is_answer && self.terminal.out_is_terminal() && !self.terminal.is_json() {
            // A model likes to begin with an empty line.
            let piece = if self.streamed.is_empty() { piece.trim_start() } else { piece };
            self.clear_progress();
            self.terminal.stream(&harmless(piece))?;
            self.streamed.push_str(piece);
        } else if self.part.is_some() {
            self.words += piece.split_whitespace().count();
            self.show_progress()?;
        }
        Ok(())
    }

    /// Says a line on standard error if somebody looks.
    pub(super) fn note(&mut self, text: &str) -> Result<(), CommandError> {
        if self.terminal.is_talkative() {
            self.say(text)?;
        }
        Ok(())
    }

    /// Says a line on standard error.
    pub(super) fn say(&mut self, text: &str) -> Result<(), CommandError> {
        self.settle()?;
        self.terminal.say(text);
        Ok(())
    }

    /// Leaves the cursor at the beginning of a line.
    pub(super) fn settle(&mut self) -> Result<(), CommandError> {
        self.clear_progress();
        if !self.streamed.is_empty() && !self.streamed.ends_with('\n') {
            self.terminal.stream("\n")?;
            self.streamed.push('\n');
        }
        Ok(())
    }

    /// Prints the run's answer, but for what stands there already.
    pub(super) fn answer(&mut self, answer: &str) -> Result<(), CommandError> {
        let answer = answer.trim_end_matches('\n');
        let rest = remaining(&self.streamed, answer).to_owned();
        self.clear_progress();
        // What goes on where it stopped does so on the same line.
        if rest.len() == answer.len() {
            self.settle()?;
        }
        if rest.is_empty() {
            return self.settle();
        }
        if self.terminal.out_is_terminal() {
            self.terminal.data(&harmless(&rest))
        } else {
            self.terminal.data(&rest)
        }
    }

    fn show_progress(&mut self) -> Result<(), CommandError> {
        let Some(part) = &self.part else { return Ok(()) };
        if !self.terminal.can_rewrite() {
            // Each part once; how many words there are is for those who watch.
            let part = (self.words == 0).then(|| part.clone());
            return part.map_or(Ok(()), |part| self.note(&part));
        }
        let words = match self.words {
            0 => String::new(),
            1 => ": 1 word".to_owned(),
            words => format!(": {words} words"),
        };
        let room = PROGRESS_CHARS_MAX - words.len();
        let line = part.chars().take(room).collect::<String>() + &words;
        if !self.is_progress_shown {
            self.settle()?;
        }
        self.terminal.rewrite(&line);
        self.is_progress_shown = true;
        Ok(())
    }

    fn clear_progress(&mut self) {
        if std::mem::take(&mut self.is_progress_shown) {
            self.terminal.rewrite("");
        }
    }
}

/// What of an answer does not stand there yet. What was written may have more before it, such as what an
/// agent takes off, but must end as the answer does; if it does not, the answer is another.
fn remaining<'a>(streamed: &str, answer: &'a str) -> &'a str {
    let (streamed, whole) = (streamed.trim(), answer.trim());
    if streamed.is_empty() {
        answer
    } else if streamed.ends_with(whole) {
        ""
    } else {
        whole.strip_prefix(streamed).unwrap_or(answer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_printed_twice() {
        for (streamed, answer, expected) in [
            ("", "all of it", "all of it"),
            ("all of it\n", "all of it", ""),
            ("Summary: all of it", "all of it", ""),
            ("all of", "all of it", " it"),
            ("one part", "another answer", "another answer"),
        ] {
            assert_eq!(remaining(streamed, answer), expected, "{streamed:?}, {answer:?}");
        }
    }

    #[test]
    fn what_comes_after_a_step_said_how_far_it_is_is_not_its_answer() {
        let mut screen = Screen::new(Terminal::of_a_person(), Some("2".into()));
        let piece = |text: &str| json!({"step": "2", "text": text, "log": null});
        screen.progressed(&piece("\nan ")).unwrap();
        screen.progressed(&piece("answer")).unwrap();
        assert_eq!(screen.streamed, "an answer");
        let log = json!({"step": "2", "text": null, "log": "part 1 of 3"});
        screen.progressed(&log).unwrap();
        screen.progressed(&piece("one two")).unwrap();
        screen.progressed(&piece(" three")).unwrap();
        assert_eq!((&*screen.streamed, screen.words), ("an answer\n", 3));
        // And what another step writes is not the run's answer.
        let mut screen = Screen::new(Terminal::of_a_person(), Some("3".into()));
        screen.progressed(&piece("an answer")).unwrap();
        assert_eq!(screen.streamed, "");
    }
}

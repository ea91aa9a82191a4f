//! Summarises text with the fabric's model: `text.summarize`.
//!
//! A text that fits into the model's context is summarised as it is. A longer one is split where
//! paragraphs, sentences or words end; each part is summarised, then the summaries as one text, and
//! so on until what is left fits.
//!
//! Deliberately not here: the model, and the choice of the device that has it.

mod part;

use weft_sdk::{Agent, Arguments, Capabilities, Error, Log, Node, Value, json};

/// The most bytes of a part. The default model has a context of 2,048 to 8,192 tokens; at some three
/// bytes a token for text that is not English, a part, its prompt and the answer fit into the least.
const PART_BYTES_MAX: usize = 3_000;

/// The most bytes that are kept of a part's summary, so that every round shrinks what is left.
const SUMMARY_BYTES_MAX: usize = 800;

/// The most parts: some forty pages. More would keep a small model busy for an hour.
const PARTS_MAX: usize = 48;

/// What a small model likes to begin with.
const CUE: &str = "Summary:";

/// The agent.
#[derive(Debug)]
pub struct Text;

impl Agent for Text {
    fn run(node: &mut impl Node, capability: &str, arguments: &Arguments) -> Result<Value, Error> {
        match capability {
            "text.summarize" => summarize(node, arguments.text("text")?).map(Value::String),
            other => Err(Error::unknown(other)),
        }
    }
}

weft_sdk::export!(Text);

fn summarize(node: &mut (impl Capabilities + Log), text: &str) -> Result<String, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::invalid("there is no text to summarize"));
    }
    let mut parts = part::split(text, PART_BYTES_MAX);
    if parts.len() > PARTS_MAX {
        let kib = (PART_BYTES_MAX * PARTS_MAX) >> 10;
        return Err(Error::invalid(format!(
            "the text is too long to summarize: {} KiB, at most about {kib} are taken",
            text.len() >> 10
        )));
    }
    while parts.len() > 1 {
        let mut summaries = String::new();
        for (at, text) in parts.iter().enumerate() {
            node.line(&format!("summarizing part {} of {}", at + 1, parts.len()));
            // A small model has nothing to say about some parts; the others still count.
            let summary = generate(node, &prompt(text))?;
            if let Some(kept) = part::split(&summary, SUMMARY_BYTES_MAX).first() {
                summaries.push_str(kept);
                summaries.push('\n');
            }
        }
        if summaries.is_empty() {
            return Err(nothing());
        }
        parts = part::split(&summaries, PART_BYTES_MAX);
        if parts.len() == 1 {
            node.line("summarizing the summaries");
        }
    }
    let summary = generate(node, &prompt(parts.first().map_or("", String::as_str)))?;
    if summary.is_empty() { Err(nothing()) } else { Ok(summary) }
}

fn nothing() -> Error {
    Error::failed("the model answered with nothing")
}

fn prompt(text: &str) -> String {
    format!(
        "Summarize the text below in at most three short sentences. Answer with the summary only.\n\n\
         {text}"
    )
}

/// What the model says, without [`CUE`]; it may be nothing.
fn generate(node: &mut impl Capabilities, prompt: &str) -> Result<String, Error> {
    let output = node.invoke("llm.generate", json!({ "prompt": prompt }))?;
    let text = output.as_str().or_else(|| output["text"].as_str()).unwrap_or_default().trim();
    Ok(text.strip_prefix(CUE).unwrap_or(text).trim_start().to_owned())
}

#[cfg(test)]
mod tests {
    use weft_sdk::{Refusal, fake::Fake};

    use super::*;

    /// A model that answers with the first sentence of what it is to summarise.
    fn first_sentence(capability: &str, arguments: &Value) -> Result<Value, Error> {
        assert_eq!(capability, "llm.generate");
        let prompt = arguments["prompt"].as_str().unwrap();
        assert!(prompt.len() < PART_BYTES_MAX + 200, "{} bytes", prompt.len());
        let text = prompt.split("\n\n").nth(1).unwrap();
        let end = text.find('.').map_or(text.len(), |at| at + 1);
        Ok(json!({ "text": format!(" {}\n", &text[..end]) }))
    }

    #[test]
    fn a_short_text_is_asked_about_once() {
        let mut node = Fake::answering(first_sentence);
        let text = "Fig trees like sun. They need little water.";
        let summary = node.run::<Text>("text.summarize", &json!({ "text": text })).unwrap();
        assert_eq!(summary, "Fig trees like sun.");
        assert_eq!(node.invoked.len(), 1);
    }

    #[test]
    fn a_long_text_is_summarised_by_parts() {
        let mut node = Fake::answering(first_sentence);
        let text: Vec<String> =
            (0..400).map(|n| format!("Sentence {n} says what it says.")).collect();
        let summary =
            node.run::<Text>("text.summarize", &json!({ "text": text.join(" ") })).unwrap();
        assert_eq!(summary, "Sentence 0 says what it says.");
        let parts = node.invoked.len() - 1;
        assert!(parts >= 4, "{parts} parts");
        let mut lines: Vec<String> =
            (1..=parts).map(|at| format!("summarizing part {at} of {parts}")).collect();
        lines.push("summarizing the summaries".to_owned());
        assert_eq!(node.lines, lines);
        let last = node.invoked[parts].1["prompt"].as_str().unwrap();
        assert!(last.matches("says what it says.").count() == parts, "{last}");
    }

    #[test]
    fn a_model_that_babbles_does_not_keep_it_busy_for_ever() {
        let mut node = Fake::answering(|_, _| Ok(json!("blah ".repeat(10_000))));
        let text = "One more word. ".repeat(9_000);
        node.run::<Text>("text.summarize", &json!({ "text": text })).unwrap();
        assert!(node.invoked.len() < 2 * PARTS_MAX, "{} calls", node.invoked.len());
    }

    #[test]
    fn a_part_about_which_the_model_says_nothing_is_left_out() {
        let text: Vec<String> = (0..400).map(|n| format!("Sentence {n} is one.")).collect();
        let text = json!({ "text": text.join(" ") });
        let mut node = Fake::answering(|capability, arguments| {
            let first = arguments["prompt"].as_str().unwrap().contains("Sentence 0 ");
            if first { Ok(json!("Summary:")) } else { first_sentence(capability, arguments) }
        });
        let summary = node.run::<Text>("text.summarize", &text).unwrap();
        let summary = summary.as_str().unwrap();
        assert!(summary.starts_with("Sentence ") && summary != "Sentence 0 is one.", "{summary}");
        let mut node = Fake::answering(|_, _| Ok(json!("Summary:")));
        let error = node.run::<Text>("text.summarize", &text).unwrap_err();
        assert_eq!(error.reason, "the model answered with nothing");
    }

    #[test]
    fn a_model_that_repeats_the_cue_is_taken_at_its_word() {
        let mut node = Fake::answering(|_, _| Ok(json!("Summary:\nFig trees like sun.")));
        let summary = node.run::<Text>("text.summarize", &json!({ "text": "Long." })).unwrap();
        assert_eq!(summary, "Fig trees like sun.");
        assert!(node.lines.is_empty(), "a text in one part is no news: {:?}", node.lines);
    }

    #[test]
    fn what_cannot_be_summarised_says_why() {
        let cases = [
            (json!({ "text": " \n" }), Refusal::Invalid, "there is no text to summarize"),
            (json!({ "text": "a b. ".repeat(100_000) }), Refusal::Invalid, "the text is too long"),
            (json!({ "text": "Hello." }), Refusal::Failed, "the model answered with nothing"),
        ];
        for (arguments, refusal, reason) in cases {
            let mut node = Fake::answering(|_, _| Ok(json!({ "text": " " })));
            let error = node.run::<Text>("text.summarize", &arguments).unwrap_err();
            assert_eq!(error.refusal, refusal);
            assert!(error.reason.starts_with(reason), "{error}");
        }
        let mut node = Fake::default();
        let error = node.run::<Text>("text.summarize", &json!({ "text": "Hello." })).unwrap_err();
        assert_eq!(error.reason, "nobody has llm.generate");
    }
}

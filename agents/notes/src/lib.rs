//! Keeps notes: `notes.save`, `notes.search`, `notes.list`.
//!
//! A note is a document of kind `note` with one field, `text`. When it was made and changed is the
//! node's to say.
//!
//! Deliberately not here: editing and deleting, which a person does on a screen.

use weft_sdk::{Agent, Arguments, Document, Documents, Error, Map, Node, Value, json};

/// The kind of its documents.
const KIND: &str = "note";

/// Notes that are shown at most: what fits on a screen or two.
const SHOWN_MAX: u32 = 50;

/// The most bytes of one note: longer texts are files.
const NOTE_BYTES_MAX: usize = 256 << 10;

/// Letters of a note's first line in the answer to `notes.save`.
const TITLE_LETTERS_MAX: usize = 60;

/// The agent.
#[derive(Debug)]
pub struct Notes;

impl Agent for Notes {
    fn run(node: &mut impl Node, capability: &str, arguments: &Arguments) -> Result<Value, Error> {
        match capability {
            "notes.save" => save(node, arguments.text("text")?),
            "notes.search" => search(node, arguments.text("query")?),
            "notes.list" => list(node),
            other => Err(Error::unknown(other)),
        }
    }
}

weft_sdk::export!(Notes);

fn save(node: &mut impl Documents, text: &str) -> Result<Value, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::invalid("an empty note says nothing"));
    }
    if text.len() > NOTE_BYTES_MAX {
        let kib = NOTE_BYTES_MAX >> 10;
        return Err(Error::invalid(format!("a note holds at most {kib} KiB")));
    }
    let mut content = Map::new();
    content.insert("text".to_owned(), json!(text));
    let id = node.create(KIND, content)?;
    Ok(json!({ "id": id, "text": format!("Noted: {}", title(text)) }))
}

fn search(node: &mut impl Documents, query: &str) -> Result<Value, Error> {
    let query = query.trim();
    if query.is_empty() {
        return list(node);
    }
    let found = node.list(KIND, query, SHOWN_MAX)?;
    if found.is_empty() {
        return Ok(json!({ "notes": [], "text": format!("No notes about {query}.") }));
    }
    Ok(shown(&found))
}

fn list(node: &mut impl Documents) -> Result<Value, Error> {
    let all = node.list(KIND, "", SHOWN_MAX)?;
    if all.is_empty() {
        return Ok(json!({ "notes": [], "text": "No notes yet." }));
    }
    Ok(shown(&all))
}

/// The notes as data, and numbered for people.
fn shown(notes: &[Document]) -> Value {
    let text_of = |note: &Document| match note.content.get("text") {
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    };
    let numbered: Vec<String> = (1..)
        .zip(notes)
        .map(|(number, note)| format!("{number}. {}", text_of(note).replace('\n', "\n   ")))
        .collect();
    let data: Vec<Value> = notes
        .iter()
        .map(|note| json!({ "id": note.id, "text": text_of(note), "modified": note.modified }))
        .collect();
    json!({ "notes": data, "text": numbered.join("\n") })
}

/// The first line, cut where it is long.
fn title(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line == text && line.chars().count() <= TITLE_LETTERS_MAX {
        return line.to_owned();
    }
    let cut: String = line.chars().take(TITLE_LETTERS_MAX).collect();
    format!("{}…", cut.trim_end())
}

#[cfg(test)]
mod tests {
    use weft_sdk::{Refusal, fake::Fake};

    use super::*;

    #[test]
    fn what_is_saved_is_found() {
        let mut node = Fake::default();
        let saved = node
            .run::<Notes>("notes.save", &json!({ "text": " The plumber comes on Friday\n" }))
            .unwrap();
        assert_eq!(saved["text"], "Noted: The plumber comes on Friday");
        node.run::<Notes>("notes.save", &json!({ "text": "buy descaler\nand filters" })).unwrap();

        let found = node.run::<Notes>("notes.search", &json!({ "query": "plumber" })).unwrap();
        assert_eq!(found["notes"][0]["id"], saved["id"]);
        assert_eq!(found["text"], "1. The plumber comes on Friday");

        let all = node.run::<Notes>("notes.list", &json!({})).unwrap();
        assert_eq!(all["text"], "1. buy descaler\n   and filters\n2. The plumber comes on Friday");
    }

    #[test]
    fn nothing_found_is_said() {
        let mut node = Fake::default();
        let all = node.run::<Notes>("notes.list", &json!({})).unwrap();
        assert_eq!(all["text"], "No notes yet.");
        let found = node.run::<Notes>("notes.search", &json!({ "query": "tiles" })).unwrap();
        assert_eq!(found, json!({ "notes": [], "text": "No notes about tiles." }));
    }

    #[test]
    fn a_note_must_say_something() {
        let mut node = Fake::default();
        for arguments in [json!({ "text": " \n" }), json!({}), json!({ "text": 5 })] {
            let error = node.run::<Notes>("notes.save", &arguments).unwrap_err();
            assert_eq!(error.refusal, Refusal::Invalid, "{arguments}: {error}");
        }
        let long = "x".repeat(NOTE_BYTES_MAX + 1);
        let error = node.run::<Notes>("notes.save", &json!({ "text": long })).unwrap_err();
        assert_eq!(error.reason, "a note holds at most 256 KiB");
        assert!(node.documents.is_empty());
    }

    #[test]
    fn a_long_note_is_cut_in_the_answer_only() {
        let mut node = Fake::default();
        let text = "ä".repeat(200);
        let saved = node.run::<Notes>("notes.save", &json!({ "text": text })).unwrap();
        assert_eq!(saved["text"], format!("Noted: {}…", "ä".repeat(60)));
        let (_, document) = node.documents.values().next().unwrap();
        assert_eq!(document.content["text"], text);
    }

    #[test]
    fn another_capability_is_named() {
        let error = Fake::default().run::<Notes>("notes.burn", &json!({})).unwrap_err();
        assert_eq!(error.to_string(), "this agent has no capability \"notes.burn\"");
    }
}

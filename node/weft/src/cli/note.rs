//! `weft notes`: notes, the newest first.

use serde_json::{Value, json};

use super::{
    Session,
    arguments::NoteAction,
    error::Done,
    node::Node,
    terminal::{items, local_time, text},
};

/// The kind of document that a note is.
const KIND: &str = "note";

/// How many are listed where nobody says.
const LIMIT: usize = 100;

pub(super) async fn run(session: &Session, action: Option<NoteAction>) -> Done {
    let terminal = &session.terminal;
    let is_search = matches!(action, Some(NoteAction::Search { .. }));
    let notes = Node::reach(session).await?.read(request(action)).await?;
    if terminal.is_json() {
        terminal.json(&notes)?;
        return Ok(None);
    }
    let rows: Vec<_> =
        items(&notes).map(|note| [local_time(note, "modified"), text(note, "text")]).collect();
    if rows.is_empty() {
        terminal.note(if is_search { "there is no such note" } else { "there are no notes yet" });
        return Ok(None);
    }
    terminal.table_cut(["CHANGED", "NOTE"], rows)?;
    Ok(None)
}

fn request(action: Option<NoteAction>) -> Value {
    let (query, limit) = match action {
        None => (String::new(), LIMIT),
        Some(NoteAction::List { limit }) => (String::new(), limit),
        Some(NoteAction::Search { words, limit }) => (words.join(" "), limit),
    };
    json!({"ask": "documents", "kind": KIND, "query": query, "limit": limit})
}

#[cfg(test)]
mod tests {
    use weft_api::Request;
    use weft_core::door::Command;

    use super::*;

    #[test]
    fn words_become_a_query() {
        let search = NoteAction::Search { words: vec!["the".into(), "garden".into()], limit: 3 };
        let expected =
            Command::Documents { kind: "note".into(), query: "the garden".into(), limit: 3 };
        assert_eq!(Request::try_from(&request(Some(search))), Ok(Request::Core(expected)));
    }
}

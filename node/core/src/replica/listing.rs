//! Reading: documents as agents and people see them.

use weft_protocol::{
    document::{ChangeHash, DocumentKey, DocumentKind},
    id::{DeviceId, DocumentId},
    row::Rows,
    time::WallTime,
    value::Value,
};

use super::{LoadError, Replica};

/// A document as it is listed.
#[derive(Clone, PartialEq, Debug)]
pub struct Listed {
    /// Which.
    pub id: DocumentId,
    /// A map of its fields.
    pub content: Value,
    /// When its newest change was made, by its author's clock.
    pub modified: WallTime,
    /// The device that made it.
    pub author: Option<DeviceId>,
    /// Whether somebody deleted it while somebody else wrote to it.
    pub revived: bool,
}

impl Replica {
    /// The content of a document; none if there is no such document.
    ///
    /// # Errors
    ///
    /// Its rows are damaged.
    pub fn read(&self, id: &DocumentId, rows: &dyn Rows) -> Result<Option<Value>, LoadError> {
        let key = DocumentKey::first(*id);
        let Some(seen) = self.index.see(&key).filter(|seen| !seen.is_deleted()) else {
            return Ok(None);
        };
        Ok(Some(self.read_content(&key, seen.kind(), rows)?))
    }

    fn read_content(
        &self,
        key: &DocumentKey,
        kind: &DocumentKind,
        rows: &dyn Rows,
    ) -> Result<Value, LoadError> {
        match self.shelf.get(key) {
            Some(loaded) if !self.writing.is_busy(key) => Ok(loaded.document.content()?),
            Some(_) | None => Ok(self.shelf.read(key, kind, rows)?.0.content()?),
        }
    }

    /// Documents of a kind, the newest first. `query` is words that must all stand in the content,
    /// without regard to case. Documents that cannot be read are left out.
    pub fn list(
        &self,
        kind: &DocumentKind,
        query: &str,
        limit: usize,
        rows: &dyn Rows,
    ) -> Vec<Listed> {
        let words: Vec<_> = query.split_whitespace().map(str::to_lowercase).collect();
        let mut entries: Vec<_> = self
            .index
            .iter()
            .filter(|(_, seen)| seen.kind() == kind && !seen.is_deleted())
            .collect();
        entries.sort_by_key(|(key, seen)| (std::cmp::Reverse(seen.modified()), **key));
        entries
            .into_iter()
            .filter_map(|(key, seen)| {
                let content = self.read_content(key, kind, rows).ok()?;
                let text = if words.is_empty() { String::new() } else { text(&content) };
                words.iter().all(|word| text.contains(word)).then(|| {
                    let entry = seen.entry();
                    Listed {
                        id: key.document,
                        content,
                        modified: entry.modified,
                        author: entry.author,
                        revived: entry.state.is_revived(),
                    }
                })
            })
            .take(limit)
            .collect()
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.index.iter().filter(|(_, seen)| !seen.is_deleted()).count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The kind of a document that is there.
    pub fn kind(&self, id: &DocumentId) -> Option<&DocumentKind> {
        let seen = self.index.see(&DocumentKey::first(*id))?;
        (!seen.is_deleted()).then(|| seen.kind())
    }

    /// The newest changes of a document, ordered; none if there is no such document.
    pub fn heads(&self, id: &DocumentId) -> Vec<ChangeHash> {
        self.index
            .see(&DocumentKey::first(*id))
            .map(|seen| seen.heads().to_vec())
            .unwrap_or_default()
    }

    /// Whether a connected peer is known to have what is here of a document, persisted.
    pub fn has_latest(&self, peer: &DeviceId, id: &DocumentId) -> bool {
        let key = DocumentKey::first(*id);
        !self.writing.is_busy(&key)
            && self.sessions.get(peer).is_some_and(|session| session.is_settled(&key))
    }

    /// A hash of all documents' states: equal replicas have equal ones.
    pub fn fingerprint(&self) -> weft_protocol::sync::Fingerprint {
        self.index.total()
    }
}

/// All text in a value, in lower case, a line for each.
fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_lowercase(),
        Value::Int(int) => int.to_string(),
        Value::Null | Value::Bool(_) | Value::Float(_) | Value::Bytes(_) => String::new(),
        Value::List(values) => values.iter().map(text).collect::<Vec<_>>().join("\n"),
        Value::Map(fields) => fields.values().map(text).collect::<Vec<_>>().join("\n"),
    }
}

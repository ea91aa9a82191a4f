//! A node in memory, against which an agent's tests run.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value, json};

use crate::{
    Agent, Arguments, Capabilities, Document, Documents, Due, Error, Log, Refusal, Timer, Timers,
};

/// What answers [`Capabilities::invoke`]: capability and arguments to an output.
pub type Answer = Box<dyn FnMut(&str, &Value) -> Result<Value, Error>>;

/// A node that grants everything, whose time stands still at 2026-03-10T09:00:00.
pub struct Fake {
    /// Documents by id, with their kinds; a larger `modified` is newer.
    pub documents: BTreeMap<String, (String, Document)>,
    /// Timers in the order in which they were set.
    pub timers: Vec<Timer>,
    /// What answers invocations.
    pub answer: Answer,
    /// The invocations so far.
    pub invoked: Vec<(String, Value)>,
    /// The log so far.
    pub lines: Vec<String>,
    ids: u32,
}

impl Default for Fake {
    fn default() -> Self {
        Self::answering(|capability, _| Err(Error::not_found(format!("nobody has {capability}"))))
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake")
            .field("documents", &self.documents)
            .field("timers", &self.timers)
            .field("invoked", &self.invoked)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

impl Fake {
    /// A node whose other agents are `answer`.
    pub fn answering(answer: impl FnMut(&str, &Value) -> Result<Value, Error> + 'static) -> Self {
        Self {
            documents: BTreeMap::new(),
            timers: Vec::new(),
            answer: Box::new(answer),
            invoked: Vec::new(),
            lines: Vec::new(),
            ids: 0,
        }
    }

    /// Runs a capability of `A` with an object of arguments.
    ///
    /// # Errors
    ///
    /// What the agent says.
    pub fn run<A: Agent>(&mut self, capability: &str, arguments: &Value) -> Result<Value, Error> {
        self.run_with_files::<A>(capability, arguments, [])
    }

    /// Runs a capability of `A` with an object of arguments and the bytes of files.
    ///
    /// # Errors
    ///
    /// What the agent says.
    pub fn run_with_files<A: Agent>(
        &mut self,
        capability: &str,
        arguments: &Value,
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<Value, Error> {
        A::run(self, capability, &Arguments::parse(&arguments.to_string(), files)?)
    }

    fn next_id(&mut self) -> u32 {
        self.ids += 1;
        self.ids
    }
}

impl Documents for Fake {
    fn list(&mut self, kind: &str, query: &str, limit: u32) -> Result<Vec<Document>, Error> {
        let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
        let mut found: Vec<Document> = self
            .documents
            .values()
            .filter(|(its, _)| its == kind)
            .map(|(_, document)| document.clone())
            .filter(|document| {
                let content = json!(document.content).to_string().to_lowercase();
                words.iter().all(|word| content.contains(word))
            })
            .collect();
        found.sort_by_key(|document| std::cmp::Reverse(document.modified));
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }

    fn read(&mut self, id: &str) -> Result<Map<String, Value>, Error> {
        let (_, document) = self.documents.get(id).ok_or_else(|| no_document(id))?;
        Ok(document.content.clone())
    }

    fn create(&mut self, kind: &str, content: Map<String, Value>) -> Result<String, Error> {
        let number = self.next_id();
        let id = format!("document-{number}");
        let document = Document { id: id.clone(), content, modified: i64::from(number) };
        self.documents.insert(id.clone(), (kind.to_owned(), document));
        Ok(id)
    }

    fn update(&mut self, id: &str, content: Map<String, Value>) -> Result<(), Error> {
        let number = self.next_id();
        let (_, document) = self.documents.get_mut(id).ok_or_else(|| no_document(id))?;
        document.content.extend(content);
        document.content.retain(|_, value| !value.is_null());
        document.modified = i64::from(number);
        Ok(())
    }

    fn delete(&mut self, id: &str) -> Result<(), Error> {
        self.documents.remove(id).map(|_| ()).ok_or_else(|| no_document(id))
    }
}

impl Timers for Fake {
    fn set(&mut self, due: Due, label: &str) -> Result<(String, String), Error> {
        let due = match due {
            Due::After(millis) => {
                let seconds = 9 * 3_600 + millis / 1_000;
                let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
                format!("2026-03-10T{hours:02}:{minutes:02}:{:02}", seconds % 60)
            }
            Due::At(time) => time,
        };
        let id = format!("timer-{}", self.next_id());
        self.timers.push(Timer {
            id: id.clone(),
            label: label.to_owned(),
            due: due.clone(),
            fires_on: "laptop".to_owned(),
        });
        Ok((id, due))
    }

    fn timers(&mut self) -> Result<Vec<Timer>, Error> {
        Ok(self.timers.clone())
    }

    fn cancel(&mut self, id: &str) -> Result<bool, Error> {
        let before = self.timers.len();
        self.timers.retain(|timer| timer.id != id);
        if self.timers.len() == before {
            return Err(Error::not_found(format!("there is no timer {id}")));
        }
        Ok(true)
    }
}

impl Capabilities for Fake {
    fn invoke(&mut self, capability: &str, arguments: Value) -> Result<Value, Error> {
        let output = (self.answer)(capability, &arguments);
        self.invoked.push((capability.to_owned(), arguments));
        output
    }
}

impl Log for Fake {
    fn line(&mut self, line: &str) {
        self.lines.push(line.to_owned());
    }
}

fn no_document(id: &str) -> Error {
    Error { refusal: Refusal::NotFound, reason: format!("there is no document {id}") }
}

//! The interface `documents`.

use wasmtime::component::{HasSelf, Linker};
use weft_protocol::{host_call::HostCall, id::DocumentId, value::Value};

use super::{
    State,
    bindings::weft::agent::{
        documents::{self, Document, Host},
        types::Error,
    },
    from_json, invalid, misunderstood, to_json,
};

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    documents::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl Host for State {
    fn list(
        &mut self,
        kind: String,
        query: String,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<Document>, Error>> {
        let answer = match self.ask(HostCall::DocumentList { kind, query, limit })? {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error.into())),
        };
        let documents = answer.as_list().and_then(|list| list.iter().map(document).collect());
        Ok(documents.ok_or_else(|| misunderstood("documents.list")))
    }

    fn read(&mut self, id: String) -> wasmtime::Result<Result<String, Error>> {
        let id = match parse(&id) {
            Ok(id) => id,
            Err(error) => return Ok(Err(error)),
        };
        let answer = self.ask(HostCall::DocumentRead { id })?;
        Ok(answer.map(|content| to_json(&content)).map_err(Into::into))
    }

    fn create(&mut self, kind: String, content: String) -> wasmtime::Result<Result<String, Error>> {
        let content = match object(&content) {
            Ok(content) => content,
            Err(error) => return Ok(Err(error)),
        };
        Ok(match self.ask(HostCall::DocumentCreate { kind, content })? {
            Ok(Value::Text(id)) => Ok(id),
            Ok(_) => Err(misunderstood("documents.create")),
            Err(error) => Err(error.into()),
        })
    }

    fn update(&mut self, id: String, content: String) -> wasmtime::Result<Result<(), Error>> {
        let (id, content) = match (parse(&id), object(&content)) {
            (Ok(id), Ok(content)) => (id, content),
            (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
        };
        let answer = self.ask(HostCall::DocumentUpdate { id, content })?;
        Ok(answer.map(drop).map_err(Into::into))
    }

    fn delete(&mut self, id: String) -> wasmtime::Result<Result<(), Error>> {
        let id = match parse(&id) {
            Ok(id) => id,
            Err(error) => return Ok(Err(error)),
        };
        let answer = self.ask(HostCall::DocumentDelete { id })?;
        Ok(answer.map(drop).map_err(Into::into))
    }
}

fn document(value: &Value) -> Option<Document> {
    Some(Document {
        id: value.get("id")?.as_text()?.to_owned(),
        content: to_json(value.get("content")?),
        modified: value.get("modified")?.as_int()?,
    })
}

fn parse(id: &str) -> Result<DocumentId, Error> {
    id.parse().map_err(|error| invalid(format!("failed to {error}")))
}

fn object(json: &str) -> Result<Value, Error> {
    match from_json(json) {
        Ok(content @ Value::Map(_)) => Ok(content),
        Ok(_) => Err(invalid("a document's content must be a JSON object")),
        Err(error) => Err(invalid(format!("a document's content must be JSON: {error}"))),
    }
}

//! The component around an agent: the WIT's types on one side, this crate's on the other.

use std::marker::PhantomData;

use serde_json::{Map, Value};

use crate::{
    Agent, Arguments, Capabilities, Document, Documents, Due, Error, Log, Refusal, Timer, Timers,
};

/// The functions of the WIT as `wit-bindgen` writes them.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::use_self,
    clippy::unwrap_used,
    clippy::allow_attributes_without_reason,
    reason = "written by a generator"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "agent",
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "weft_sdk::bindings",
    });
}

use bindings::weft::agent as wit;

/// An agent as the component that exports it.
#[derive(Debug)]
pub struct Component<A>(PhantomData<A>);

impl<A: Agent> bindings::Guest for Component<A> {
    fn run(
        capability: String,
        arguments: String,
        files: Vec<(String, Vec<u8>)>,
    ) -> Result<String, wit::types::Error> {
        Arguments::parse(&arguments, files)
            .and_then(|arguments| A::run(&mut Imports, &capability, &arguments))
            .map(|output| output.to_string())
            .map_err(Into::into)
    }
}

/// Exports an [`Agent`] as a component.
#[macro_export]
macro_rules! export {
    ($agent:ty) => {
        #[cfg(target_arch = "wasm32")]
        mod exported {
            use super::*;
            type Exported = $crate::Component<$agent>;
            $crate::bindings::export_component!(Exported with_types_in $crate::bindings);
        }
    };
}

/// The node, reached through the component's imports.
struct Imports;

impl Documents for Imports {
    fn list(&mut self, kind: &str, query: &str, limit: u32) -> Result<Vec<Document>, Error> {
        wit::documents::list(kind, query, limit)?
            .into_iter()
            .map(|document| {
                Ok(Document {
                    content: object(&document.content)?,
                    id: document.id,
                    modified: document.modified,
                })
            })
            .collect()
    }

    fn read(&mut self, id: &str) -> Result<Map<String, Value>, Error> {
        object(&wit::documents::read(id)?)
    }

    fn create(&mut self, kind: &str, content: Map<String, Value>) -> Result<String, Error> {
        Ok(wit::documents::create(kind, &Value::Object(content).to_string())?)
    }

    fn update(&mut self, id: &str, content: Map<String, Value>) -> Result<(), Error> {
        Ok(wit::documents::update(id, &Value::Object(content).to_string())?)
    }

    fn delete(&mut self, id: &str) -> Result<(), Error> {
        Ok(wit::documents::delete(id)?)
    }
}

impl Timers for Imports {
    fn set(&mut self, due: Due, label: &str) -> Result<(String, String), Error> {
        let due = match due {
            Due::After(millis) => wit::timers::Due::After(millis),
            Due::At(time) => wit::timers::Due::At(time),
        };
        Ok(wit::timers::set(&due, label)?)
    }

    fn timers(&mut self) -> Result<Vec<Timer>, Error> {
        let timers = wit::timers::list()?;
        Ok(timers
            .into_iter()
            .map(|timer| Timer {
                id: timer.id,
                label: timer.label,
                due: timer.due,
                fires_on: timer.fires_on,
            })
            .collect())
    }

    fn cancel(&mut self, id: &str) -> Result<bool, Error> {
        Ok(wit::timers::cancel(id)?)
    }
}

impl Capabilities for Imports {
    fn invoke(&mut self, capability: &str, arguments: Value) -> Result<Value, Error> {
        let output = wit::capabilities::invoke(capability, &arguments.to_string())?;
        serde_json::from_str(&output)
            .map_err(|error| Error::failed(format!("{capability} gave no JSON: {error}")))
    }
}

impl Log for Imports {
    fn line(&mut self, line: &str) {
        wit::log::line(line);
    }
}

fn object(json: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(json)
        .map_err(|error| Error::failed(format!("the document is no JSON object: {error}")))
}

impl From<wit::types::Error> for Error {
    fn from(error: wit::types::Error) -> Self {
        let refusal = match error.refusal {
            wit::types::Refusal::Denied => Refusal::Denied,
            wit::types::Refusal::NotFound => Refusal::NotFound,
            wit::types::Refusal::Invalid => Refusal::Invalid,
            wit::types::Refusal::Failed => Refusal::Failed,
            wit::types::Refusal::Cancelled => Refusal::Cancelled,
        };
        Self { refusal, reason: error.reason }
    }
}

impl From<Error> for wit::types::Error {
    fn from(error: Error) -> Self {
        let refusal = match error.refusal {
            Refusal::Denied => wit::types::Refusal::Denied,
            Refusal::NotFound => wit::types::Refusal::NotFound,
            Refusal::Invalid => wit::types::Refusal::Invalid,
            Refusal::Failed => wit::types::Refusal::Failed,
            Refusal::Cancelled => wit::types::Refusal::Cancelled,
        };
        Self { refusal, reason: error.reason }
    }
}

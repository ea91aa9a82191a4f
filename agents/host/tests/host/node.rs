//! A node in memory that answers host calls.

use std::collections::BTreeMap;

use tokio::{sync::mpsc, task::JoinHandle};
use weft_host::HostRequest;
use weft_protocol::{
    host_call::{Due, HostCall, HostError, Refusal},
    id::{DocumentId, TimerId},
    value::Value,
};

/// Documents by id, with kind and content; timers with label and due time; the log.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) documents: BTreeMap<DocumentId, (String, BTreeMap<String, Value>)>,
    pub(crate) timers: BTreeMap<TimerId, (String, Value)>,
    pub(crate) lines: Vec<String>,
    pub(crate) invoked: Vec<(String, Value)>,
}

impl Node {
    /// Answers all calls of one run; gives the node back when the run has ended.
    pub(crate) fn serve(mut self) -> (mpsc::Sender<HostRequest>, JoinHandle<Self>) {
        let (calls, mut requests) = mpsc::channel::<HostRequest>(1);
        let serving = tokio::spawn(async move {
            while let Some(HostRequest { call, reply }) = requests.recv().await {
                reply.send(self.answer(call)).ok();
            }
            self
        });
        (calls, serving)
    }

    fn answer(&mut self, call: HostCall) -> Result<Value, HostError> {
        let not_found = || HostError {
            refusal: Refusal::NotFound,
            reason: "there is no such thing".to_owned(),
        };
        match call {
            HostCall::DocumentList { kind, query, limit } => {
                let found = self.documents.iter().rev().filter(|(_, (its, content))| {
                    let content = Value::Map(content.clone()).to_string().to_lowercase();
                    *its == kind && query.split(' ').all(|word| content.contains(word))
                });
                let found = found.take(limit as usize).map(|(id, (_, content))| {
                    Value::map([
                        ("id", Value::from(id.to_string())),
                        ("content", Value::Map(content.clone())),
                        ("modified", Value::Int(1_000)),
                    ])
                });
                Ok(Value::List(found.collect()))
            }
            HostCall::DocumentRead { id } => {
                let (_, content) = self.documents.get(&id).ok_or_else(not_found)?;
                Ok(Value::Map(content.clone()))
            }
            HostCall::DocumentCreate { kind, content } => {
                let Value::Map(content) = content else { return Err(not_found()) };
                let number = u8::try_from(self.documents.len()).unwrap_or(u8::MAX);
                let id = DocumentId::from_bytes([number; 16]);
                self.documents.insert(id, (kind, content));
                Ok(Value::from(id.to_string()))
            }
            HostCall::DocumentUpdate { id, content } => {
                let (_, old) = self.documents.get_mut(&id).ok_or_else(not_found)?;
                if let Value::Map(new) = content {
                    old.extend(new);
                }
                Ok(Value::Null)
            }
            HostCall::DocumentDelete { id } => {
                self.documents.remove(&id).map(|_| Value::Null).ok_or_else(not_found)
            }
            HostCall::TimerSet { due, label } => {
                let due = match due {
                    Due::After(millis) => Value::from(format!("in {millis} ms")),
                    Due::At(time) => Value::from(time),
                };
                let number = u8::try_from(self.timers.len()).unwrap_or(u8::MAX);
                let id = TimerId::from_bytes([number; 16]);
                self.timers.insert(id, (label, due.clone()));
                Ok(Value::map([("id", Value::from(id.to_string())), ("due", due)]))
            }
            HostCall::TimerList => {
                let timers = self.timers.iter().map(|(id, (label, due))| {
                    Value::map([
                        ("id", Value::from(id.to_string())),
                        ("label", Value::from(label.as_str())),
                        ("due", due.clone()),
                        ("fires_on", Value::from("laptop")),
                    ])
                });
                Ok(Value::List(timers.collect()))
            }
            HostCall::TimerCancel { id } => {
                self.timers.remove(&id).map(|_| Value::Bool(true)).ok_or_else(not_found)
            }
            HostCall::Invoke { capability, arguments } => {
                self.invoked.push((capability.to_string(), arguments));
                Ok(Value::from("A house without a head needs rules that are simple."))
            }
            HostCall::Log { line } => {
                self.lines.push(line);
                Ok(Value::Null)
            }
        }
    }
}

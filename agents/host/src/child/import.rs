//! What a component may import: `weft:agent` as granted, and WASI without anything behind it.

mod capabilities;
mod documents;
mod log;
mod timers;
mod wasi;

use std::fmt;

use wasmtime::{
    Engine,
    component::{Component, HasSelf, Linker, ResourceTable},
};
use wasmtime_wasi::WasiCtx;
use weft_protocol::{
    codec,
    host_call::{HOST_CALL_BYTES_MAX, HostCall, HostError, Refusal},
    value::Value,
};

use super::{Escape, agent::Node, memory::MemoryLimit};
use crate::{
    error::Stop,
    grant::Grants,
    message::{FromAgent, ToAgent},
};
use bindings::weft::agent::types;

/// `agents/wit` as wasmtime writes it.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::use_self,
    clippy::unused_async,
    clippy::wildcard_enum_match_arm,
    clippy::unused_trait_names,
    clippy::allow_attributes_without_reason,
    reason = "written by a generator"
)]
pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "agent",
        imports: { default: trappable },
        exports: { default: async },
    });
}

/// What one run holds.
pub(super) struct State {
    node: Node,
    lines: u32,
    pub(super) memory: MemoryLimit,
    wasi: WasiCtx,
    resources: ResourceTable,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn new(grants: Grants, node: Node) -> Self {
        Self {
            node,
            lines: 0,
            memory: MemoryLimit::new(grants.memory_mib),
            wasi: wasi::empty(),
            resources: ResourceTable::new(),
        }
    }

    /// Has the node answer a call; waits for it.
    ///
    /// # Errors
    ///
    /// The node is gone, so the run and its process end.
    fn ask(&self, call: HostCall) -> wasmtime::Result<Result<Value, HostError>> {
        let message = FromAgent::Call(call);
        let bytes = codec::encode(&message);
        if bytes.len() > HOST_CALL_BYTES_MAX {
            let reason = format!("a call of {} bytes is too large", bytes.len());
            return Ok(Err(HostError { refusal: Refusal::Invalid, reason }));
        }
        if let Err(why) = codec::check(&bytes) {
            let reason = format!("the call is not taken: {why}");
            return Ok(Err(HostError { refusal: Refusal::Invalid, reason }));
        }
        drop(bytes);
        self.node.send(&message)?;
        match self.node.receive()? {
            Some(ToAgent::Answer(answer)) => Ok(answer),
            Some(ToAgent::Load(_) | ToAgent::Run { .. }) | None => {
                Err(wasmtime::Error::msg("the node is gone"))
            }
        }
    }
}

/// Links what a component imports and was granted.
///
/// # Errors
///
/// The first import that was not, by name.
pub(super) fn link(
    engine: &Engine,
    component: &Component,
    grants: Grants,
    escape: Option<Escape>,
    linker: &mut Linker<State>,
) -> Result<(), Stop> {
    let mut needs_wasi = false;
    for (name, _) in component.component_type().imports(engine) {
        let interface = name.split('@').next().unwrap_or(name);
        let granted = match interface {
            "weft:agent/types" | "weft:agent/log" => true,
            "weft:agent/documents" => grants.documents,
            "weft:agent/timers" => grants.timers,
            "weft:agent/capabilities" => grants.capabilities,
            "weft:test/escape" => escape.is_some(),
            other => {
                needs_wasi |= wasi::is_linked(other);
                wasi::is_linked(other)
            }
        };
        if !granted {
            return Err(Stop::Import(name.to_owned()));
        }
    }
    add_to_linker(grants, needs_wasi, escape, linker)
        .map_err(|error| Stop::Component(format!("{error:#}")))
}

fn add_to_linker(
    grants: Grants,
    needs_wasi: bool,
    escape: Option<Escape>,
    linker: &mut Linker<State>,
) -> wasmtime::Result<()> {
    types::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    log::add_to_linker(linker)?;
    if grants.documents {
        documents::add_to_linker(linker)?;
    }
    if grants.timers {
        timers::add_to_linker(linker)?;
    }
    if grants.capabilities {
        capabilities::add_to_linker(linker)?;
    }
    if needs_wasi {
        wasi::add_to_linker(linker)?;
    }
    if let Some(Escape(act)) = escape {
        let mut instance = linker.instance("weft:test/escape")?;
        instance.func_wrap("act", move |_, (what,): (String,)| Ok((act(&what),)))?;
    }
    Ok(())
}

impl types::Host for State {}

/// A value as the JSON text that guests read.
pub(super) fn to_json(value: &Value) -> String {
    serde_json::Value::from(value).to_string()
}

/// The value of a JSON text that a guest wrote.
pub(super) fn from_json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str::<serde_json::Value>(text).map(Value::from)
}

fn invalid(reason: impl Into<String>) -> types::Error {
    types::Error { refusal: types::Refusal::Invalid, reason: reason.into() }
}

/// The node answered with something else than the call gives.
fn misunderstood(call: &str) -> types::Error {
    let reason = format!("the node gave no answer to {call} that an agent can read");
    types::Error { refusal: types::Refusal::Failed, reason }
}

/// A text of the node's; of what is none, its JSON.
fn words(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::Text(text)) => text.clone(),
        Some(
            other @ (Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Bytes(_)
            | Value::List(_)
            | Value::Map(_)),
        ) => other.to_string(),
    }
}

impl From<HostError> for types::Error {
    fn from(error: HostError) -> Self {
        let refusal = match error.refusal {
            Refusal::Denied => types::Refusal::Denied,
            Refusal::NotFound => types::Refusal::NotFound,
            Refusal::Invalid => types::Refusal::Invalid,
            Refusal::Failed => types::Refusal::Failed,
            Refusal::Cancelled => types::Refusal::Cancelled,
        };
        Self { refusal, reason: error.reason }
    }
}

impl From<types::Error> for HostError {
    fn from(error: types::Error) -> Self {
        let refusal = match error.refusal {
            types::Refusal::Denied => Refusal::Denied,
            types::Refusal::NotFound => Refusal::NotFound,
            types::Refusal::Invalid => Refusal::Invalid,
            types::Refusal::Failed => Refusal::Failed,
            types::Refusal::Cancelled => Refusal::Cancelled,
        };
        // A reason is a sentence; a guest may write a book.
        let end = error.reason.floor_char_boundary(REASON_BYTES_MAX);
        Self { refusal, reason: error.reason[..end].to_owned() }
    }
}

/// The most bytes that are kept of a guest's reason.
const REASON_BYTES_MAX: usize = 2_000;

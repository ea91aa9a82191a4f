//! Role `agent`: loads one component, walls itself in, serves runs until the node closes the socket.

use std::{io, os::unix::net::UnixStream, sync::Arc};

use minicbor::Encode;
use wasmtime::{
    Engine, Store, Trap,
    component::{Component, Linker},
};
use weft_protocol::{codec, host_call::HostError, value::Value};
use weft_wall::{
    Wall,
    frame::{self, FrameError},
};

use super::{
    Escape,
    import::{self, State, bindings},
    ticker, unwalled,
};
use crate::{
    engine,
    error::Stop,
    grant::Grants,
    message::{FROM_AGENT_BYTES_MAX, FromAgent, OUTPUT_BYTES_MAX, TO_CHILD_BYTES_MAX, ToAgent},
};

pub(super) fn serve(escape: Option<Escape>) -> io::Result<()> {
    let node = Node(Arc::new(weft_wall::socket().map_err(io::Error::other)?));
    let (Some(ToAgent::Load(grants)), Some(code)) = (node.receive()?, node.receive_bytes()?) else {
        return Err(io::Error::other("the node did not say what to load"));
    };
    let engine = engine::engine().map_err(io::Error::other)?;
    let agent = match load(&engine, grants, &code, escape) {
        Ok(agent) => agent,
        Err(stop) => return node.send(&FromAgent::Stopped(stop)),
    };
    drop(code);
    // Guests that wait on WASI's clock need a runtime that turns it; it has no thread of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    ticker::start(&engine)?;
    match weft_wall::enter(Wall::default()) {
        Ok(proof) => node.send(&FromAgent::Ready(proof.to_string()))?,
        Err(error) => return node.send(&FromAgent::Stopped(unwalled(&error)?)),
    }
    while let Some(message) = node.receive()? {
        let ToAgent::Run { capability, arguments, files } = message else {
            return Err(io::Error::other("the node spoke out of turn"));
        };
        let run = agent.run(&engine, grants, &node, &capability, &arguments, files);
        match runtime.block_on(run) {
            Ok(output) => node.send(&FromAgent::Done(output))?,
            Err(stop) => node.send(&FromAgent::Stopped(stop))?,
        }
    }
    Ok(())
}

/// Loads a component and links what was granted.
fn load(
    engine: &Engine,
    grants: Grants,
    code: &[u8],
    escape: Option<Escape>,
) -> Result<Loaded, Stop> {
    let wrong = |error: wasmtime::Error| Stop::Component(format!("{error:#}"));
    // SAFETY: the node compiled this code itself, by the same program, and kept it under its own MAC.
    let component = unsafe { Component::deserialize(engine, code) }.map_err(wrong)?;
    let mut linker = Linker::new(engine);
    import::link(engine, &component, grants, escape, &mut linker)?;
    let instance = linker.instantiate_pre(&component).map_err(wrong)?;
    bindings::AgentPre::new(instance).map(Loaded).map_err(wrong)
}

/// A component, linked once; each run instantiates it anew.
struct Loaded(bindings::AgentPre<State>);

impl Loaded {
    async fn run(
        &self,
        engine: &Engine,
        grants: Grants,
        node: &Node,
        capability: &str,
        arguments: &Value,
        files: Value,
    ) -> Result<Value, Stop> {
        let mut store = Store::new(engine, State::new(grants, node.clone()));
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(u64::from((grants.processor_ms / ticker::TICK_MS).max(1)));
        let outcome = self.call(&mut store, capability, arguments, files).await;
        match outcome {
            Ok(Ok(json)) => output(&json),
            Ok(Err(error)) => Err(Stop::Refused(HostError::from(error))),
            // What follows a refusal of memory is its consequence, whatever it looks like.
            Err(_) if store.data().memory.was_reached => Err(Stop::Memory),
            Err(error) => Err(match error.downcast_ref::<Trap>() {
                Some(Trap::Interrupt) => Stop::Processor,
                Some(trap) => Stop::Trap(trap.to_string()),
                None => Stop::Trap(error.root_cause().to_string()),
            }),
        }
    }

    async fn call(
        &self,
        store: &mut Store<State>,
        capability: &str,
        arguments: &Value,
        files: Value,
    ) -> wasmtime::Result<Result<String, bindings::weft::agent::types::Error>> {
        let agent = self.0.instantiate_async(&mut *store).await?;
        let files: Vec<(String, Vec<u8>)> = match files {
            Value::Map(files) => files
                .into_iter()
                .filter_map(|(name, bytes)| match bytes {
                    Value::Bytes(bytes) => Some((name, bytes)),
                    Value::Null
                    | Value::Bool(_)
                    | Value::Int(_)
                    | Value::Float(_)
                    | Value::Text(_)
                    | Value::List(_)
                    | Value::Map(_) => None,
                })
                .collect(),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Bytes(_)
            | Value::List(_) => Vec::new(),
        };
        agent.call_run(store, capability, &import::to_json(arguments), &files).await
    }
}

/// Reads an agent's output.
fn output(json: &str) -> Result<Value, Stop> {
    if json.len() > OUTPUT_BYTES_MAX {
        let (len, max) = (json.len(), OUTPUT_BYTES_MAX);
        return Err(Stop::Output(format!("of {len} bytes is too large: at most {max} are taken")));
    }
    let value =
        import::from_json(json).map_err(|why| Stop::Output(format!("is no JSON: {why}")))?;
    let message = codec::encode(&FromAgent::Done(value.clone()));
    if message.len() > FROM_AGENT_BYTES_MAX {
        return Err(Stop::Output(format!("of {} bytes is too large", json.len())));
    }
    codec::check(&message).map_err(|why| Stop::Output(format!("is not taken: {why}")))?;
    Ok(value)
}

/// The socket to the node.
#[derive(Clone, Debug)]
pub(super) struct Node(Arc<UnixStream>);

impl Node {
    pub(super) fn send(&self, message: &impl Encode<()>) -> io::Result<()> {
        frame::write(&mut &*self.0, &codec::encode(message), FROM_AGENT_BYTES_MAX).map_err(cause)
    }

    /// The next message; `None` when the node needs this child no more.
    pub(super) fn receive(&self) -> io::Result<Option<ToAgent>> {
        // The node is believed, so its values may be as deep as they are.
        let decode = |bytes: Vec<u8>| minicbor::decode(&bytes).map_err(io::Error::other);
        self.receive_bytes()?.map(decode).transpose()
    }

    fn receive_bytes(&self) -> io::Result<Option<Vec<u8>>> {
        frame::read(&mut &*self.0, TO_CHILD_BYTES_MAX).map_err(cause)
    }
}

/// Keeps the kind of an error: a node that is gone is told from one that is misunderstood.
fn cause(error: FrameError) -> io::Error {
    match error {
        FrameError::Io(error) => error,
        FrameError::TooLong { .. } => io::Error::other(error),
    }
}

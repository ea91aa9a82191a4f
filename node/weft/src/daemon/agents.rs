//! Steps that run here: agents in their sandboxed process, and the model.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::{mpsc, oneshot};
use weft_core::{Input, executor::ExecutionId, registry::Installed};
use weft_host::{AgentError, Host, HostRequest, Task};
use weft_llm::{GenerateEvent, GenerateRequest, Llm, LlmError};
use weft_protocol::{
    host_call::{HostError, Refusal},
    manifest::{AgentKind, CapabilityName},
    run::{Failure, Progress},
    value::Value,
};

/// Host calls of one agent that wait for the node: an agent makes one at a time.
const CALLS_WAITING: usize = 4;
/// Tokens of an answer where the asker doesn't say.
const TOKENS_DEFAULT: u32 = 256;

/// What a running step tells the node's loop.
#[derive(Debug)]
pub(super) enum FromStep {
    /// Something for the core.
    Input(Input),
    /// A host call, with where its answer goes.
    Call(ExecutionId, HostRequest),
}

/// A step to be run.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) execution: ExecutionId,
    pub(super) agent: Box<Installed>,
    pub(super) capability: CapabilityName,
    pub(super) arguments: Value,
    pub(super) deadline: Duration,
}

/// Runs a step to its end. Dropping the future stops it.
pub(super) async fn run(step: Step, host: Host, llm: Llm, out: mpsc::Sender<FromStep>) {
    let execution = step.execution;
    let result = match step.agent.manifest.kind {
        AgentKind::Wasm => run_component(step, &host, &out).await,
        AgentKind::Builtin => run_model(step, &llm, &out).await,
    };
    // A loop that is gone does not want to know.
    drop(out.send(FromStep::Input(Input::Executed { execution, result })).await);
}

async fn run_component(
    step: Step,
    host: &Host,
    out: &mpsc::Sender<FromStep>,
) -> Result<Value, Failure> {
    let (calls, mut requests) = mpsc::channel(CALLS_WAITING);
    let (arguments, files) = split_files(step.arguments);
    let manifest = &step.agent.manifest;
    let calls_granted = manifest.capabilities.iter().any(|it| !it.calls.is_empty());
    let task = Task {
        package: step.agent.digest,
        component: step.agent.component.clone(),
        permissions: manifest.permissions.clone(),
        calls_granted,
        capability: step.capability,
        arguments,
        files,
        deadline: step.deadline,
    };
    let running = host.run(task, calls);
    tokio::pin!(running);
    loop {
        tokio::select! {
            biased;
            Some(request) = requests.recv() => {
                if out.send(FromStep::Call(step.execution, request)).await.is_err() {
                    return Err(cancelled());
                }
            }
            result = &mut running => {
                if let Err(AgentError::Wall { reason }) = &result {
                    // A loop that is gone does not want to know.
                    let input = Input::NoWall { why: format!("failed to {reason}") };
                    drop(out.send(FromStep::Input(input)).await);
                }
                return result.map_err(failure);
            }
        }
    }
}

/// Files among the arguments go to the agent beside them: the argument keeps the file's name.
fn split_files(arguments: Value) -> (Value, BTreeMap<String, Vec<u8>>) {
    let Value::Map(mut map) = arguments else { return (arguments, BTreeMap::new()) };
    let mut files = BTreeMap::new();
    for (argument, value) in &mut map {
        let Value::Map(fields) = value else { continue };
        let (Some(Value::Text(name)), Some(Value::Bytes(_))) =
            (fields.get("name"), fields.get("bytes"))
        else {
            continue;
        };
        let name = Value::Text(name.clone());
        if let Some(Value::Bytes(bytes)) = fields.remove("bytes") {
            files.insert(argument.clone(), bytes);
        }
        *value = name;
    }
    (Value::Map(map), files)
}

async fn run_model(step: Step, llm: &Llm, out: &mpsc::Sender<FromStep>) -> Result<Value, Failure> {
    let invalid = |reason: &str| Failure { refusal: Refusal::Invalid, reason: reason.to_owned() };
    if step.capability.as_str() != "llm.generate" {
        return Err(invalid("the model does not do that"));
    }
    let prompt = step
        .arguments
        .get("prompt")
        .and_then(Value::as_text)
        .ok_or_else(|| invalid("a prompt is missing"))?;
    let max_tokens = step
        .arguments
        .get("max_tokens")
        .and_then(Value::as_int)
        .and_then(|tokens| u32::try_from(tokens).ok())
        .unwrap_or(TOKENS_DEFAULT);
    let request = GenerateRequest { max_tokens, ..GenerateRequest::new(prompt) };
    let mut generation = llm.generate(request).map_err(|error| model_failure(&error))?;
    let mut text = String::new();
    while let Some(event) = generation.next().await {
        match event {
            GenerateEvent::Token(piece) => {
                text.push_str(&piece);
                let execution = step.execution;
                let input = Input::Progressed { execution, progress: Progress::Text(piece) };
                if out.send(FromStep::Input(input)).await.is_err() {
                    return Err(cancelled());
                }
            }
            GenerateEvent::Done(_) => return Ok(Value::Text(text.trim().to_owned())),
            GenerateEvent::Failed(error) => return Err(model_failure(&error)),
        }
    }
    Err(cancelled())
}

fn cancelled() -> Failure {
    Failure { refusal: Refusal::Cancelled, reason: "the node is stopping".to_owned() }
}

fn model_failure(error: &LlmError) -> Failure {
    Failure { refusal: Refusal::Failed, reason: chain(error) }
}

fn failure(error: AgentError) -> Failure {
    if let AgentError::Refused(HostError { refusal, reason }) = error {
        Failure { refusal, reason }
    } else {
        Failure { refusal: Refusal::Failed, reason: chain(&error) }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Where the answer to a call goes.
pub(super) type Answer = oneshot::Sender<Result<Value, HostError>>;

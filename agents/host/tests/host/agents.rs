//! The agents of this repository, as they are committed under `agents/dist`, or as they were built into
//! the folder that `WEFT_DIST` names.

use std::{collections::BTreeMap, fs, path::PathBuf};

use bytes::Bytes;
use weft_host::{AgentError, Host, Task};
use weft_protocol::{
    host_call::{HostError, Refusal},
    manifest::{Manifest, Permissions},
    value::Value,
};

use crate::{
    guest::{host, nothing, task},
    node::Node,
};

fn dist(name: &str) -> PathBuf {
    let built = std::env::var_os("WEFT_DIST").map(PathBuf::from);
    let committed = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dist");
    built.unwrap_or_else(committed).join(name)
}

fn component(name: &str) -> Bytes {
    fs::read(dist(name).with_extension("wasm")).unwrap().into()
}

fn manifest(name: &str) -> Manifest {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("agent.toml");
    Manifest::parse(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A step of an agent, with what its manifest asks for.
fn step(capability: &str, arguments: Value) -> Task {
    let manifest = manifest(capability.split('.').next().unwrap());
    let mut task = task(&component(&manifest.name), manifest.permissions.clone(), capability);
    task.calls_granted = !manifest.capability(&task.capability).unwrap().calls.is_empty();
    task.arguments = arguments;
    task
}

/// Runs a step; gives its output and the node as it is afterwards.
async fn run(host: &Host, node: Node, step: Task) -> (Result<Value, AgentError>, Node) {
    let (calls, serving) = node.serve();
    let outcome = host.run(step, calls).await;
    (outcome, serving.await.unwrap())
}

fn no_arguments() -> Value {
    Value::map::<&str>([])
}

fn text_of(output: &Value) -> &str {
    output.get("text").and_then(Value::as_text).unwrap()
}

#[test]
fn the_components_are_those_of_the_digests() {
    let digests = fs::read_to_string(dist("digests.toml")).unwrap();
    let digests: BTreeMap<String, String> = toml::from_str(&digests).unwrap();
    assert_eq!(digests.len(), 4);
    for (name, digest) in digests {
        assert_eq!(blake3::hash(&component(&name)).to_hex().as_str(), digest, "{name}");
    }
}

#[tokio::test]
async fn notes_are_saved_and_found() {
    let (host, _folder) = host();
    let mut node = Node::default();
    for text in ["The plumber comes on Friday", "Buy descaler"] {
        let save = step("notes.save", Value::map([("text", Value::from(text))]));
        let (saved, after) = run(&host, node, save).await;
        node = after;
        assert_eq!(text_of(&saved.unwrap()), format!("Noted: {text}"));
    }
    let stored: Vec<_> = node.documents.values().map(|(kind, content)| (kind, content)).collect();
    assert_eq!(stored[0].0, "note");
    assert_eq!(stored[0].1["text"], Value::from("The plumber comes on Friday"));

    let search = step("notes.search", Value::map([("query", Value::from("plumber"))]));
    let (found, node) = run(&host, node, search).await;
    let found = found.unwrap();
    assert_eq!(text_of(&found), "1. The plumber comes on Friday");
    let first = &found.get("notes").and_then(Value::as_list).unwrap()[0];
    assert_eq!(first.get("modified"), Some(&Value::Int(1_000)));

    let (all, _) = run(&host, node, step("notes.list", no_arguments())).await;
    assert_eq!(text_of(&all.unwrap()), "1. Buy descaler\n2. The plumber comes on Friday");
    assert_eq!(host.idle_children(), 1, "one child served all runs");
}

#[tokio::test]
async fn timers_are_set_listed_and_cancelled() {
    let (host, _folder) = host();
    let arguments =
        Value::map([("duration", Value::from("PT10M")), ("label", Value::from("bread"))]);
    let (set, node) = run(&host, Node::default(), step("timer.set", arguments)).await;
    assert_eq!(text_of(&set.unwrap()), "Timer \"bread\" set for in 600000 ms.");

    let (all, node) = run(&host, node, step("timer.list", no_arguments())).await;
    assert_eq!(text_of(&all.unwrap()), "1. bread: in 600000 ms, on laptop");

    let label = Value::map([("label", Value::from("BREAD"))]);
    let (gone, node) = run(&host, node, step("timer.cancel", label.clone())).await;
    assert_eq!(text_of(&gone.unwrap()), "Timer \"bread\" cancelled.");
    assert!(node.timers.is_empty());

    let (again, _) = run(&host, node, step("timer.cancel", label)).await;
    let expected = HostError {
        refusal: Refusal::NotFound,
        reason: "there is no timer \"BREAD\"; none is running".to_owned(),
    };
    assert_eq!(again, Err(AgentError::Refused(expected)));
}

#[tokio::test]
async fn a_report_is_read_and_summarised() {
    let (host, _folder) = host();
    let read = |bytes: &[u8]| {
        let mut read = step("docs.read", Value::map([("path", Value::from("report.pdf"))]));
        read.files = BTreeMap::from([("path".to_owned(), bytes.to_vec())]);
        run(&host, Node::default(), read)
    };
    let report = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/report.pdf");
    let text = read(&fs::read(report).unwrap()).await.0.unwrap();
    let text = text.as_text().unwrap();
    assert!(text.starts_with("A house without a head\n\nHow one"), "{text}");
    assert!(text.ends_with("was done in their name."), "{text}");

    let none = read(b"%PDF-1.4 this is none").await.0.unwrap_err().to_string();
    assert!(none.contains("report.pdf is a damaged PDF"), "{none}");

    let summarise = step("text.summarize", Value::map([("text", Value::from(text))]));
    let (summary, node) = run(&host, Node::default(), summarise).await;
    let summary = summary.unwrap();
    assert_eq!(summary.as_text(), Some("A house without a head needs rules that are simple."));
    assert!(node.invoked.len() > 2, "{} parts", node.invoked.len());
    assert!(node.invoked.iter().all(|(capability, _)| capability == "llm.generate"));
    let parts = node.invoked.len() - 1;
    assert_eq!(node.lines[0], format!("summarizing part 1 of {parts}"));
    assert_eq!(node.lines[parts..], ["summarizing the summaries"]);
}

#[tokio::test]
async fn each_imports_what_it_needs_and_nothing_else() {
    let (host, _folder) = host();
    let cases = [
        ("notes.list", Some("weft:agent/documents@0.1.0")),
        ("timer.list", Some("weft:agent/timers@0.1.0")),
        ("text.summarize", Some("weft:agent/capabilities@0.1.0")),
        ("docs.read", None),
    ];
    for (capability, needed) in cases {
        let mut step = step(capability, no_arguments());
        step.permissions = Permissions { memory_mib: 64, ..nothing() };
        step.calls_granted = false;
        match (needed, run(&host, Node::default(), step).await.0) {
            (Some(needed), Err(AgentError::Import { interface })) => assert_eq!(interface, needed),
            // It loads without any grant, and misses its argument.
            (None, Err(AgentError::Refused(error))) => assert_eq!(error.refusal, Refusal::Invalid),
            (_, outcome) => panic!("{capability}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_kind_that_the_manifest_does_not_name_is_refused_before_the_node_hears_of_it() {
    let (host, _folder) = host();
    let mut step = step("notes.save", Value::map([("text", Value::from("sneaky"))]));
    step.permissions.documents_read = vec!["diary".to_owned()];
    step.permissions.documents_write = vec!["diary".to_owned()];
    let (outcome, node) = run(&host, Node::default(), step).await;
    let Err(AgentError::Refused(error)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.refusal, Refusal::Denied);
    assert!(node.documents.is_empty());
}

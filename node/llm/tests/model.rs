//! A real model in a real walled process. `WEFT_TEST_MODEL` names the GGUF file; without it nothing
//! here can run, and says so.

#![cfg(all(feature = "llama", target_os = "linux"))]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};
use weft_llm::{
    End, GenerateEvent, GenerateRequest, Generation, Llm, LlmConfig, LlmError, LlmState, Speeds,
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One test at a time: threads of llama.cpp spin while they wait for each other, so a second model
/// on the same processors makes both slower by far more than half.
static ONE_MODEL: Mutex<()> = Mutex::const_new(());

async fn config() -> Option<(LlmConfig, MutexGuard<'static, ()>)> {
    let Some(path) = std::env::var_os("WEFT_TEST_MODEL") else {
        eprintln!("NOT RUN: WEFT_TEST_MODEL does not name a model");
        return None;
    };
    Some((config_of(PathBuf::from(path)), ONE_MODEL.lock().await))
}

fn config_of(model_path: PathBuf) -> LlmConfig {
    LlmConfig {
        program: Some(PathBuf::from(env!("CARGO_BIN_EXE_weft-llm-child"))),
        context_tokens: 1024,
        threads: 1,
        ..LlmConfig::new(model_path)
    }
}

fn ask(prompt: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest { max_tokens, ..GenerateRequest::new(prompt) }
}

fn pid(llm: &Llm) -> Option<u32> {
    match llm.status().state {
        LlmState::Loaded { pid, .. } => Some(pid),
        LlmState::Absent | LlmState::Idle | LlmState::Loading => None,
    }
}

fn is_there(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

async fn first_token(generation: &mut Generation) -> String {
    match tokio::time::timeout(PATIENCE, generation.next()).await.expect("it answers in time") {
        Some(GenerateEvent::Token(text)) => text,
        other => panic!("a token comes first, not {other:?}"),
    }
}

async fn gone(pid: u32) {
    let end = Instant::now() + PATIENCE;
    while is_there(pid) {
        assert!(Instant::now() < end, "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_streams_from_behind_two_walls_and_is_the_same_again() {
    let Some((config, _turn)) = config().await else { return };
    // Its threads must start behind the wall.
    let llm = Llm::new(LlmConfig { threads: 2, ..config });
    assert_eq!(llm.status().state, LlmState::Idle);
    assert_eq!(llm.status().speeds, Speeds::default());

    let started = Instant::now();
    let mut generation =
        llm.generate(ask("What is the capital of France?", 32)).expect("it takes it");
    let mut pieces = vec![first_token(&mut generation).await];
    let first = started.elapsed();
    let done = loop {
        match generation.next().await.expect("an end comes before the stream ends") {
            GenerateEvent::Token(text) => pieces.push(text),
            GenerateEvent::Done(done) => break done,
            GenerateEvent::Failed(error) => panic!("failed to {error}"),
        }
    };
    assert!(generation.next().await.is_none(), "nothing follows the end");
    let text = pieces.concat();
    assert!(text.contains("Paris"), "{text}");
    assert!(pieces.len() > 3, "it came in pieces: {pieces:?}");
    assert!(done.tokens as usize >= pieces.len() && done.prompt_tokens > 5, "{done:?}");

    let LlmState::Loaded { pid, wall, context_tokens } = llm.status().state else {
        panic!("it is loaded: {:?}", llm.status());
    };
    assert_eq!(context_tokens, 1024);
    for attempt in ["open a file", "make an internet socket", "start a program"] {
        assert!(wall.contains(attempt), "{attempt} is not in: {wall}");
    }
    // The kernel's own word: filter mode, two walls of two filters.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.contains("Seccomp:\t2") && status.contains("Seccomp_filters:\t4"), "{status}");
    assert!(llm.status().speeds.answer.is_some_and(|speed| speed > 0.0));
    eprintln!("first token after {first:?}, {done:?}, {:?}: {text:?}", llm.status());

    let again = llm.generate(ask("What is the capital of France?", 32)).expect("it takes it");
    assert_eq!(again.text().await.expect("it answers").0, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn chance_comes_from_the_seed_alone() {
    let Some((config, _turn)) = config().await else { return };
    let llm = Llm::new(config);
    let tell = |seed| {
        let request = GenerateRequest { seed, temperature: 1.0, ..ask("Tell me a story.", 24) };
        llm.generate(request).expect("it takes it").text()
    };
    let (one, again, other) = (tell(1).await, tell(1).await, tell(2).await);
    let text = |outcome: Result<(String, _), LlmError>| outcome.expect("it answers").0;
    let (one, again, other) = (text(one), text(again), text(other));
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_answer_ends_soon_and_the_next_request_is_served() {
    let Some((config, _turn)) = config().await else { return };
    let llm = Llm::new(config);
    let mut generation = llm.generate(ask("Count from one to one thousand.", 500)).expect("taken");
    first_token(&mut generation).await;
    let cancelled = Instant::now();
    generation.cancel();
    let done = loop {
        match generation.next().await.expect("an end comes") {
            GenerateEvent::Token(_) => {}
            GenerateEvent::Done(done) => break done,
            GenerateEvent::Failed(error) => panic!("failed to {error}"),
        }
    };
    assert_eq!(done.end, End::Cancelled);
    assert!(done.tokens < 400, "{done:?}");
    eprintln!("cancelled within {:?} after {} tokens", cancelled.elapsed(), done.tokens);
    let before = pid(&llm);

    // Dropping one cancels it too; the process stays and answers the next.
    let mut dropped = llm.generate(ask("Count from one to one thousand.", 500)).expect("taken");
    first_token(&mut dropped).await;
    drop(dropped);
    let next = llm.generate(ask("Say yes.", 8)).expect("taken");
    let (_, done) =
        tokio::time::timeout(PATIENCE, next.text()).await.expect("soon").expect("it answers");
    assert!(done.tokens > 0);
    assert_eq!(pid(&llm), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_an_error_and_the_next_request_starts_another() {
    let Some((config, _turn)) = config().await else { return };
    let llm = Llm::new(config);
    let mut generation = llm.generate(ask("Count from one to one thousand.", 500)).expect("taken");
    first_token(&mut generation).await;
    let killed = pid(&llm).expect("it is loaded");
    let status = Command::new("kill").args(["-9", &killed.to_string()]).status();
    assert!(status.expect("kill runs").success());
    let error = loop {
        match generation.next().await.expect("an end comes") {
            GenerateEvent::Token(_) => {}
            GenerateEvent::Done(done) => panic!("a killed process is not done: {done:?}"),
            GenerateEvent::Failed(error) => break error,
        }
    };
    assert!(matches!(&error, LlmError::Died(reason) if reason.contains("signal: 9")), "{error}");
    assert_eq!(llm.status().state, LlmState::Idle);

    let (_, done) =
        llm.generate(ask("Say yes.", 8)).expect("taken").text().await.expect("it answers");
    assert!(done.tokens > 0);
    assert_ne!(pid(&llm), Some(killed));

    // Killed while idle: noticed without a request.
    let idle = pid(&llm).expect("it is loaded");
    let status = Command::new("kill").args(["-9", &idle.to_string()]).status();
    assert!(status.expect("kill runs").success());
    gone(idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_goes_and_comes_back_when_asked() {
    let Some((config, _turn)) = config().await else { return };
    let llm = Llm::new(LlmConfig { idle_after: Duration::from_millis(300), ..config });
    llm.generate(ask("Say yes.", 4)).expect("taken").text().await.expect("it answers");
    let first = pid(&llm).expect("it is loaded");
    gone(first).await;
    assert_eq!(llm.status().state, LlmState::Idle);
    llm.generate(ask("Say yes.", 4)).expect("taken").text().await.expect("it answers");
    assert_ne!(pid(&llm), Some(first));

    let last = pid(&llm).expect("it is loaded");
    llm.unload().await;
    assert!(!is_there(last));
    llm.generate(ask("Say yes.", 4)).expect("taken").text().await.expect("it answers");
    let last = pid(&llm).expect("it is loaded");
    drop(llm);
    gone(last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_longer_than_the_context_says_how_long_it_may_be() {
    let Some((config, _turn)) = config().await else { return };
    let llm = Llm::new(config);
    let text = "The weaver sets the warp before the weft. ".repeat(200);
    let count = llm.count(None, &text).await.expect("it counts");
    assert!(count.tokens > count.context_tokens, "{count:?}");
    let error = llm.generate(ask(&text, 100)).expect("taken").text().await.expect_err("too long");
    let LlmError::TooLong { tokens, max } = error else { panic!("failed to {error}") };
    assert_eq!((tokens, max), (count.tokens, 1024 - 100));

    // What fits by that figure is taken.
    let per_sentence = (count.tokens / 200) as usize;
    let part =
        "The weaver sets the warp before the weft. ".repeat((max as usize - 60) / per_sentence);
    assert!(llm.count(None, &part).await.expect("it counts").tokens <= max);
    llm.generate(ask(&part, 4)).expect("taken").text().await.expect("it fits");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_that_two_prompts_share_is_computed_once_and_changes_nothing() {
    let Some((config, _turn)) = config().await else { return };
    let text = "The weaver sets the warp before the weft. ".repeat(40);
    let request = |question: &str| ask(&format!("{text}\n\n{question}"), 16);
    let llm = Llm::new(config.clone());
    let first = llm.generate(request("What comes first?")).expect("taken").text().await;
    assert_eq!(first.expect("it answers").1.reused_tokens, 0);
    let warm = llm.generate(request("Who weaves?")).expect("taken").text().await;
    let (warm, done) = warm.expect("it answers");
    assert!(done.reused_tokens >= 256, "{done:?}");

    let fresh = Llm::new(config).generate(request("Who weaves?")).expect("taken").text().await;
    let (fresh, done) = fresh.expect("it answers");
    assert_eq!((fresh, done.reused_tokens), (warm, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_of_the_template_in_a_text_are_text() {
    let Some((config, _turn)) = config().await else { return };
    let llm = Llm::new(config);
    // Read as marks these would be one token each; as text they are several.
    let one = llm.count(None, "a").await.expect("it counts").tokens;
    let marked = llm.count(None, "a<|im_end|><|im_start|>").await.expect("it counts").tokens;
    assert!(marked > one + 4, "{one} and {marked}");
    // A text may hold any character, also those that end a text in C.
    llm.count(Some("s\0s"), "p\0p").await.expect("it counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_each_other_and_too_many_are_refused_at_once() {
    let Some((config, _turn)) = config().await else { return };
    let llm = Llm::new(config);
    let mut first = llm.generate(ask("Count from one to one thousand.", 300)).expect("taken");
    first_token(&mut first).await;
    let mut waiting = Vec::new();
    let refused = loop {
        match llm.generate(ask("Say yes.", 2)) {
            Ok(generation) => waiting.push(generation),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LlmError::Busy), "{refused}");
    assert_eq!(llm.status().waiting, waiting.len());
    drop(first);
    for generation in waiting {
        generation.text().await.expect("each is answered in turn");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_model_is_an_error_with_a_reason() {
    let Some((_, _turn)) = config().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in [
        ("empty.gguf", &b""[..]),
        ("text.gguf", b"this is no model at all, but it is long enough to look"),
        ("cut.gguf", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\0\0\0\0"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        let llm = Llm::new(config_of(path));
        let error = llm.generate(ask("hi", 4)).expect("taken").text().await.expect_err(name);
        assert!(matches!(error, LlmError::Start(_) | LlmError::Died(_)), "{name}: {error}");
        eprintln!("{name}: failed to {error}");
        assert_eq!(llm.status().state, LlmState::Idle);
    }
}

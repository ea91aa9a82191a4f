//! The model on this device: any GGUF file, run by llama.cpp in a walled child process.
//!
//! llama.cpp parses strangers' files and can end the process at any assertion, so it never runs in
//! the node. It runs in a child of the same binary behind the second wall (`weft-wall`), which was
//! given one open file and one socket; its memory goes when it has been idle.
//!
//! Deliberately not here: what is asked and why (summaries are an agent's, plans are `intent`'s),
//! splitting text that is longer than the context (the caller does, by [`Llm::count`]), policy,
//! which model is best where, and servers elsewhere.
//!
//! One walk through it:
//!
//! 1. [`get`] brings the file, if the person asks for it; only its SHA-256 decides what it is.
//! 2. [`Llm::new`] starts a task that owns the child. There is no child yet.
//! 3. [`Llm::generate`] queues a request. The task opens the file, starts the child, hands it the
//!    descriptor, and waits until the child has loaded it, closed its wall and proved it
//!    ([`run_child`] is the other side of this).
//! 4. Text streams back as [`GenerateEvent`]s. One request runs at a time; dropping a
//!    [`Generation`] cancels it.
//! 5. A child that dies is an error with its reason; the next request starts a new one. After
//!    [`LlmConfig::idle_after`] without a request it is ended.

#![forbid(unsafe_code)]

mod child;
mod model;
mod wire;

pub mod get;

pub use child::run_child;
pub use model::{
    CHILD_ROLE, GenerateEvent, Generation, Llm, LlmConfig, LlmError, LlmState, LlmStatus, Speeds,
};
pub use wire::{Count, Done, End, GenerateRequest};

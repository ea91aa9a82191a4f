//! Runs agents: WASI components under wasmtime, in walled child processes of this same binary.
//!
//! [`Host`] is the node's side. A [`Task`] is one step: a component, what its manifest was granted,
//! a capability and its arguments. Each call that the component makes out of its sandbox arrives as a
//! [`HostRequest`], which the node decides and answers; the host adds only what needs no policy: what
//! the manifest did not name is refused, and what is too much is cut off.
//!
//! One walk through it:
//!
//! 1. [`Host::run`] looks for an idle child of the component and its grants. Where there is none, it
//!    takes compiled code from its cache, whose file must carry the device's own MAC. What is not
//!    there is compiled in a child of role `compile`, which never runs guest code.
//! 2. A child of role `agent` gets code and grants. It links the interfaces that were granted and
//!    nothing else, so that an import beyond them fails here, by name. Then it enters the second wall
//!    (`weft-wall`), proves it, and says so; the parent asks the kernel whether it is true.
//! 3. A run is a fresh store: memory and table size are limited as they grow, processor time by an
//!    epoch that a timer of the process advances only while it computes.
//! 4. Host calls cross the socket as frames, one at a time, and so does the outcome. A child whose run
//!    ended well waits for the next and ends when nobody needs it; any other is killed.
//!
//! Deliberately not here: policy, quotas of the fabric, labels, and the meaning of any host call,
//! which are the node's; agents that are scripts, native processes or MCP servers.
//!
//! Code that this crate compiles and loads never comes from another device.

mod cache;
mod child;
mod engine;
mod error;
mod grant;
mod host;
mod message;

pub use child::run_child;
#[doc(hidden)]
pub use child::{Escape, run_child_with_escape};
pub use error::AgentError;
pub use host::{Host, HostBounds, HostConfig, HostRequest, Task};

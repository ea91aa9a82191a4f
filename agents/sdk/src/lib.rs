//! For people who write agents in Rust: the contract of `agents/wit` as traits.
//!
//! An agent is a type with the trait [`Agent`], exported with [`export!`] from a `cdylib` that is
//! built for `wasm32-unknown-unknown`. Weft calls [`Agent::run`] with the name of a capability from
//! the agent's manifest and its [`Arguments`]; what it gives back is the step's output. While it runs
//! it may ask the [`Node`] for what the manifest was granted: [`Documents`], [`Timers`],
//! [`Capabilities`], [`Log`]. Calls are monomorphised, so a component imports an interface only if the
//! agent calls it. On other targets the same code runs against [`fake::Fake`], in plain tests.
//!
//! Deliberately not here: clocks, randomness, files, sockets, environment. A component of this kit
//! has none of them. Nor is `weft-protocol`: an agent sees only the WIT.
//!
//! ```
//! use weft_sdk::{Agent, Arguments, Error, Node, Value, json};
//!
//! struct Echo;
//!
//! impl Agent for Echo {
//!     fn run(_: &mut impl Node, capability: &str, arguments: &Arguments) -> Result<Value, Error> {
//!         match capability {
//!             "echo.say" => Ok(json!(arguments.text("text")?)),
//!             other => Err(Error::unknown(other)),
//!         }
//!     }
//! }
//!
//! weft_sdk::export!(Echo);
//! ```

pub use serde_json::{Map, Value, json};

mod argument;
mod component;
mod error;
pub mod fake;
mod node;

pub use argument::Arguments;
#[doc(hidden)]
pub use component::{Component, bindings};
pub use error::{Error, Refusal};
pub use node::{Capabilities, Document, Documents, Due, Log, Node, Timer, Timers};

/// A type whose capabilities a component exports.
pub trait Agent {
    /// Runs a capability.
    ///
    /// The output is any JSON. For people it is a text, or an object whose field `text` is one.
    ///
    /// # Errors
    ///
    /// Why there is no output, in a sentence for people.
    fn run(node: &mut impl Node, capability: &str, arguments: &Arguments) -> Result<Value, Error>;
}

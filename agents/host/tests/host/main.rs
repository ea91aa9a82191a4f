//! Components in walled children, through [`weft_host::Host`].

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agents;
mod bounds;
mod guest;
mod node;
mod sandbox;

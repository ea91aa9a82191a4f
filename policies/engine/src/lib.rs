//! The Rego evaluator behind [`weft_protocol::decision::Policy`].
//!
//! A [`Rules`] is a set of Rego modules and data, compiled once to regorus' virtual machine. A question
//! becomes the input document, the machine runs within bounds of instructions and time, and its
//! answer is believed only if it has the form of a decision. Whatever goes wrong denies.
//!
//! Deliberately not here: what the rules say (`policies/rego`), who signs a bundle of them, and who
//! asks. No type of regorus leaves this crate.

mod evaluator;
mod question;
pub mod suite;

pub use evaluator::{Rules, RulesError};

/// The rules that the program carries, each with its name.
pub const EMBEDDED: &[(&str, &str)] = &[("authz.rego", include_str!("../../rego/authz.rego"))];

/// The tests of the rules that the program carries.
pub const EMBEDDED_TESTS: &[(&str, &str)] =
    &[("authz_test.rego", include_str!("../../rego/authz_test.rego"))];

/// The data that the rules look into, as JSON.
pub const EMBEDDED_DATA: &str = include_str!("../../data/settings.json");

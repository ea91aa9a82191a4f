//! No node panics.

use crate::world::Failures;

/// The checker.
#[derive(Debug)]
pub(crate) struct Panics;

impl Panics {
    /// A node panicked; the message went to stderr.
    pub(crate) fn panicked(&self, name: &str, time: u64, failures: &mut Failures) {
        failures.add("panics", format!("{name} panicked at {time} µs"));
    }
}

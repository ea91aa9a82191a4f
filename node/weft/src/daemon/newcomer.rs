//! Who a machine that becomes a device will be.

use weft_protocol::{device::Kind, statement::Name};
use weft_store::key::Wrapping;

/// What `weft init`, `weft join` and `weft recover` make a device of.
#[derive(Clone, Debug)]
pub(crate) struct Newcomer {
    /// The name that it asks for.
    pub(crate) name: Name,
    /// Its kind.
    pub(crate) kind: Kind,
    /// How it keeps its keys.
    pub(crate) keys: Wrapping,
}

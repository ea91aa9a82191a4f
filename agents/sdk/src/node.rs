//! What an agent may ask of the node.

use serde_json::{Map, Value};

use crate::Error;

/// A document.
#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    /// Which.
    pub id: String,
    /// Its fields.
    pub content: Map<String, Value>,
    /// When it was last changed, in milliseconds since 1970-01-01T00:00:00Z.
    pub modified: i64,
}

/// Documents of the kinds that the manifest names. What a run writes takes effect when it ends well.
pub trait Documents {
    /// Documents of a kind that hold all words of the query without regard to case, the newest first;
    /// at most `limit`.
    ///
    /// # Errors
    ///
    /// The node refuses.
    fn list(&mut self, kind: &str, query: &str, limit: u32) -> Result<Vec<Document>, Error>;

    /// The fields of a document.
    ///
    /// # Errors
    ///
    /// The node refuses, or there is no such document.
    fn read(&mut self, id: &str) -> Result<Map<String, Value>, Error>;

    /// Makes a document and gives its id.
    ///
    /// # Errors
    ///
    /// The node refuses.
    fn create(&mut self, kind: &str, content: Map<String, Value>) -> Result<String, Error>;

    /// Sets fields and leaves the others; null removes one.
    ///
    /// # Errors
    ///
    /// The node refuses, or there is no such document.
    fn update(&mut self, id: &str, content: Map<String, Value>) -> Result<(), Error>;

    /// Deletes a document.
    ///
    /// # Errors
    ///
    /// The node refuses, or there is no such document.
    fn delete(&mut self, id: &str) -> Result<(), Error>;
}

/// When a timer is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Due {
    /// So many milliseconds from now.
    After(u64),
    /// At a local time of the asking device, ISO 8601 without an offset.
    At(String),
}

/// A timer that has not fired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timer {
    /// Which.
    pub id: String,
    /// What it is for; may be empty.
    pub label: String,
    /// When it fires, as a local time.
    pub due: String,
    /// The name of the device that fires it.
    pub fires_on: String,
}

/// Timers, where the manifest says `timers = true`.
pub trait Timers {
    /// Sets a timer that fires once; gives its id and when it is due, as a local time.
    ///
    /// # Errors
    ///
    /// The node refuses, or the time makes no sense.
    fn set(&mut self, due: Due, label: &str) -> Result<(String, String), Error>;

    /// The timers that have not fired.
    ///
    /// # Errors
    ///
    /// The node refuses.
    fn timers(&mut self) -> Result<Vec<Timer>, Error>;

    /// Takes a timer back; gives whether its device has confirmed.
    ///
    /// # Errors
    ///
    /// The node refuses, or there is no such timer.
    fn cancel(&mut self, id: &str) -> Result<bool, Error>;
}

/// Other agents' capabilities, where the manifest names them under `calls`.
pub trait Capabilities {
    /// Runs a capability with an object of arguments; gives its output.
    ///
    /// # Errors
    ///
    /// The node refuses, or the capability gave nothing.
    fn invoke(&mut self, capability: &str, arguments: Value) -> Result<Value, Error>;
}

/// The step's log.
pub trait Log {
    /// Adds a line.
    fn line(&mut self, line: &str);
}

/// All that a node may offer.
pub trait Node: Documents + Timers + Capabilities + Log {}

impl<T: Documents + Timers + Capabilities + Log> Node for T {}

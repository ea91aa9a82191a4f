//! What a capability is run with.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::Error;

/// The arguments of a run by name: JSON values, and bytes where a file was handed over.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Arguments {
    values: Map<String, Value>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Arguments {
    /// Reads the arguments as a component gets them.
    ///
    /// # Errors
    ///
    /// The text is not a JSON object.
    pub fn parse(
        json: &str,
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<Self, Error> {
        let values = serde_json::from_str(json).map_err(|error| {
            Error::invalid(format!("the arguments are no JSON object: {error}"))
        })?;
        Ok(Self { values, files: files.into_iter().collect() })
    }

    /// A text that must be there.
    ///
    /// # Errors
    ///
    /// It is missing or not a text.
    pub fn text(&self, name: &str) -> Result<&str, Error> {
        self.text_if_any(name)?.ok_or_else(|| Error::invalid(format!("{name} is missing")))
    }

    /// A text that may be left out.
    ///
    /// # Errors
    ///
    /// It is something else than a text.
    pub fn text_if_any(&self, name: &str) -> Result<Option<&str>, Error> {
        match self.values.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Error::invalid(format!("{name} must be a text, not {other}"))),
        }
    }

    /// The bytes of a file that must be there.
    ///
    /// # Errors
    ///
    /// It is missing.
    pub fn file(&self, name: &str) -> Result<&[u8], Error> {
        self.files
            .get(name)
            .map(Vec::as_slice)
            .ok_or_else(|| Error::invalid(format!("{name} came without the bytes of a file")))
    }
}

//! What an agent says of itself: `agent.toml`.
//!
//! The manifest is replicated as the text that its author wrote; it is parsed anew by each reader.

use std::{collections::BTreeMap, fmt, str::FromStr};

use minicbor::{Decode, Encode};
use serde::Deserialize;
use thiserror::Error;

use crate::{device::word_enum, id::Digest};

/// The largest manifest that is read, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 64 << 10;

/// Why a text is not a manifest.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ManifestError {
    /// Longer than [`MANIFEST_BYTES_MAX`].
    #[error("read a manifest of {0} bytes: at most {MANIFEST_BYTES_MAX} are taken")]
    TooLong(usize),
    /// Not TOML, or not of the manifest's form.
    #[error("read the manifest: {0}")]
    Toml(String),
    /// A rule of the manifest is broken.
    #[error("read the manifest of {agent}: {why}")]
    Rule {
        /// The agent's name as written.
        agent: String,
        /// What is wrong, as a sentence.
        why: String,
    },
}

word_enum! {
    /// What a step may do to the world if it is carried out again. Ordered from harmless to not.
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    EffectClass, "pure, read-only, idempotent, at-most-once" {
        /// The output follows from the arguments alone.
        0 Pure = "pure",
        /// Reads what may change.
        1 ReadOnly = "read-only",
        /// Writes, and writing twice is writing once.
        2 Idempotent = "idempotent",
        /// Must not happen twice.
        3 AtMostOnce = "at-most-once",
    }
}

/// The name of a capability: the providing noun, a dot, a verb, such as `notes.save`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Deserialize)]
#[cbor(transparent)]
#[serde(try_from = "String")]
pub struct CapabilityName(#[n(0)] String);

impl CapabilityName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The noun before the dot.
    pub fn noun(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for CapabilityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The text is not `noun.verb` in lower case.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("read {0:?} as a capability: expected noun.verb in lower-case letters, digits, hyphens")]
pub struct ParseCapabilityError(String);

impl FromStr for CapabilityName {
    type Err = ParseCapabilityError;

    fn from_str(text: &str) -> Result<Self, ParseCapabilityError> {
        let word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match text.split_once('.') {
            Some((noun, verb)) if word(noun) && word(verb) && text.len() <= 64 => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(ParseCapabilityError(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for CapabilityName {
    type Error = ParseCapabilityError;

    fn try_from(text: String) -> Result<Self, ParseCapabilityError> {
        text.parse()
    }
}

/// How an agent runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentKind {
    /// A WASI component.
    Wasm,
    /// Part of the node.
    Builtin,
}

/// An agent, as its `agent.toml` describes it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// The agent's name: one lower-case word.
    pub name: String,
    /// Its version, for people.
    pub version: String,
    /// How it runs.
    pub kind: AgentKind,
    /// One sentence.
    pub description: String,
    /// What it asks to be granted.
    #[serde(default)]
    pub permissions: Permissions,
    /// What it provides.
    #[serde(default, rename = "capability")]
    pub capabilities: Vec<Capability>,
}

/// What an agent asks to be granted. Nothing else is linked.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Permissions {
    /// Kinds of document that it reads, such as `note`.
    #[serde(default)]
    pub documents_read: Vec<String>,
    /// Kinds of document that it creates, changes and deletes.
    #[serde(default)]
    pub documents_write: Vec<String>,
    /// Whether it sets and cancels timers.
    #[serde(default)]
    pub timers: bool,
    /// Guest memory, in MiB.
    #[serde(default = "memory_default")]
    pub memory_mib: u32,
    /// Guest processor time for one step, in milliseconds.
    #[serde(default = "processor_default")]
    pub processor_ms: u32,
}

impl Default for Permissions {
    /// What a manifest without `[permissions]` asks for: no interface, the usual memory and time.
    fn default() -> Self {
        Self {
            documents_read: Vec::new(),
            documents_write: Vec::new(),
            timers: false,
            memory_mib: memory_default(),
            processor_ms: processor_default(),
        }
    }
}

const fn memory_default() -> u32 {
    64
}

const fn processor_default() -> u32 {
    2_000
}

/// One thing that an agent can do.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Capability {
    /// Its name in the fabric.
    pub name: CapabilityName,
    /// One sentence for people.
    pub description: String,
    /// What carrying it out again would do.
    pub effect: EffectClass,
    /// The arguments, as the JSON Schema of an object.
    #[serde(default)]
    pub arguments: ArgumentSchema,
    /// What it gives back, in a word: the name under which a later step takes it.
    #[serde(default)]
    pub output: Option<String>,
    /// What people say for it. See `weft-intent` for the form.
    #[serde(default)]
    pub phrases: Vec<String>,
    /// Capabilities that it may call while it runs.
    #[serde(default)]
    pub calls: Vec<CapabilityName>,
}

/// JSON Schema (2020-12) of a capability's arguments; the part of it that arguments need.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ArgumentSchema {
    /// The arguments by name.
    #[serde(default)]
    pub properties: BTreeMap<String, Property>,
    /// Which of them must be there.
    #[serde(default)]
    pub required: Vec<String>,
}

/// One argument.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Property {
    /// Its JSON type.
    #[serde(rename = "type")]
    pub json_type: JsonType,
    /// What kind of text it is.
    #[serde(default)]
    pub format: Option<Format>,
    /// One sentence for people.
    #[serde(default)]
    pub description: String,
}

/// A JSON type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JsonType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// Yes or no.
    Boolean,
    /// A list.
    Array,
    /// A map.
    Object,
}

/// A text's format: JSON Schema's own, then ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// ISO 8601, such as `PT10M`.
    Duration,
    /// Local time of the asking device, such as `2026-03-11T08:00:00`.
    DateTime,
    /// `2026-03-11`.
    Date,
    /// A URL.
    Uri,
    /// A path on the asking device. The executor gets the file's bytes, never the path's directory.
    Path,
    /// The name of a device.
    Device,
}

impl Manifest {
    /// Parses and checks a manifest.
    ///
    /// # Errors
    ///
    /// Too long, not TOML of this form, or a broken rule: the name is one word; each required
    /// argument is declared; no capability stands twice; only `builtin` agents name no permission
    /// that is not theirs.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLong(text.len()));
        }
        let manifest: Self =
            toml::from_str(text).map_err(|error| ManifestError::Toml(error.to_string()))?;
        let rule = |why: String| ManifestError::Rule { agent: manifest.name.clone(), why };
        let name = &manifest.name;
        if name.is_empty()
            || name.len() > 32
            || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return Err(rule("the name is not one lower-case word of at most 32 letters".into()));
        }
        for (at, capability) in manifest.capabilities.iter().enumerate() {
            let name = &capability.name;
            if manifest.capabilities[..at].iter().any(|earlier| earlier.name == *name) {
                return Err(rule(format!("{name} stands twice")));
            }
            let schema = &capability.arguments;
            if let Some(missing) =
                schema.required.iter().find(|required| !schema.properties.contains_key(*required))
            {
                return Err(rule(format!("{name} requires {missing:?}, which is not declared")));
            }
        }
        Ok(manifest)
    }

    /// The capability of that name.
    pub fn capability(&self, name: &CapabilityName) -> Option<&Capability> {
        self.capabilities.iter().find(|capability| capability.name == *name)
    }
}

/// An agent's identity: the hash over its manifest's text and its component's bytes.
pub fn package_digest(manifest_text: &str, component: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("weft agent package v1");
    hasher.update(&(manifest_text.len() as u64).to_be_bytes());
    hasher.update(manifest_text.as_bytes()).update(component);
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTES: &str = r#"
        name = "notes"
        version = "0.1.0"
        kind = "wasm"
        description = "Keeps notes."

        [permissions]
        documents-write = ["note"]

        [[capability]]
        name = "notes.save"
        description = "Saves a note."
        effect = "idempotent"
        phrases = ["note {text}"]
        [capability.arguments]
        required = ["text"]
        [capability.arguments.properties]
        text = { type = "string" }
    "#;

    #[test]
    fn reads_a_manifest() {
        let manifest = Manifest::parse(NOTES).unwrap();
        assert_eq!(manifest.capabilities[0].name.noun(), "notes");
        assert_eq!(manifest.capabilities[0].effect, EffectClass::Idempotent);
        assert_eq!(manifest.permissions.memory_mib, 64);
    }

    #[test]
    fn refuses_what_breaks_a_rule() {
        let cases = [
            (NOTES.replace("[\"text\"]", "[\"size\"]"), "which is not declared"),
            (NOTES.replace("name = \"notes\"", "name = \"My Notes\""), "not one lower-case word"),
            (NOTES.replace("notes.save", "save"), "noun.verb"),
            (NOTES.replace("idempotent", "harmless"), "unknown variant"),
            (NOTES.replace("kind", "sort"), "unknown field"),
        ];
        for (text, expected) in cases {
            let error = Manifest::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected:?} is not in {error:?}");
        }
    }
}

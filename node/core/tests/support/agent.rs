//! The agent that every device has, and steps that ask for what it can.

use std::collections::BTreeMap;

use weft_core::registry::Installed;
use weft_protocol::{
    graph::{Argument, Step, StepIndex},
    manifest::{EffectClass, Manifest},
};

const AGENT: &str = r#"
name = "echo"
version = "0.1.0"
kind = "wasm"
description = "Says what it is told."
"#;

/// With these it works on the replica of the device that asks, unless the words name another.
const PERMISSIONS: &str = r#"
[permissions]
documents-read = ["note"]
documents-write = ["note"]
timers = true
"#;

/// What the agent can do: a name, an effect, and the capability that it calls.
const CAPABILITIES: [(&str, EffectClass, Option<&str>); 5] = [
    ("echo.say", EffectClass::ReadOnly, None),
    ("echo.write", EffectClass::Idempotent, None),
    ("echo.once", EffectClass::AtMostOnce, None),
    ("echo.pass", EffectClass::Idempotent, Some("echo.write")),
    ("echo.relay", EffectClass::ReadOnly, Some("echo.say")),
];

/// The agent, which may touch nothing.
pub(super) fn plain() -> Installed {
    installed("")
}

/// The agent, which may read and write notes and set timers.
pub(super) fn with_notes() -> Installed {
    installed(PERMISSIONS)
}

fn installed(permissions: &str) -> Installed {
    let capability = |(name, effect, calls): &(&str, EffectClass, Option<&str>)| {
        format!(
            r#"
[[capability]]
name = "{name}"
description = "Does it."
effect = "{effect}"
calls = {:?}
[capability.arguments]
required = ["text"]
[capability.arguments.properties]
text = {{ type = "string" }}
"#,
            calls.as_slice()
        )
    };
    let capabilities: String = CAPABILITIES.iter().map(capability).collect();
    let text = [AGENT, permissions, &capabilities].concat();
    Installed::new(Manifest::parse(&text).unwrap(), &text, b"component".as_slice(), true)
}

/// The effect of a capability.
pub(crate) fn effect(capability: &str) -> EffectClass {
    let it = CAPABILITIES.iter().find(|(name, ..)| *name == capability);
    it.expect("the agent can do it").1
}

/// A step that says hello.
pub(crate) fn step(
    index: u16,
    capability: &str,
    effect: EffectClass,
    device: Option<&str>,
) -> Step {
    Step {
        index: StepIndex(index),
        capability: capability.parse().unwrap(),
        arguments: BTreeMap::from([("text".into(), Argument::Literal("hello".into()))]),
        device: device.map(str::to_owned),
        after: [].into(),
        effect,
        may_call: vec![],
    }
}

//! An agent.

use serde_json::{Value, json};
use weft_core::door::AgentView;

/// An agent.
pub fn agent(agent: &AgentView) -> Value {
    let names: Value = agent.capabilities.iter().map(|(name, ..)| name.as_str()).collect();
    let details: Value = agent
        .capabilities
        .iter()
        .map(|(name, description, effect, example)| {
            json!({
                "name": name.as_str(),
                "description": description,
                "effect": effect.word(),
                "example": example,
            })
        })
        .collect();
    json!({
        "name": agent.name,
        "version": agent.version,
        "digest": agent.digest.to_string(),
        "description": agent.description,
        "capabilities": names,
        "details": details,
        "devices": agent.devices,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weft_protocol::{id::Digest, manifest::EffectClass};

    use super::*;
    use crate::json::sample::check;

    #[test]
    fn an_agent() {
        let view = AgentView {
            name: "notes".into(),
            version: "0.1.0".into(),
            digest: Digest::from_bytes([5; 32]),
            description: "Keeps notes.".into(),
            capabilities: vec![(
                "notes.save".parse().unwrap(),
                "Saves a note.".into(),
                EffectClass::Idempotent,
                Some("note that …".into()),
            )],
            devices: vec!["laptop".into()],
        };
        check(
            &agent(&view),
            expect![[r#"
            {
              "capabilities": [
                "notes.save"
              ],
              "description": "Keeps notes.",
              "details": [
                {
                  "description": "Saves a note.",
                  "effect": "idempotent",
                  "example": "note that …",
                  "name": "notes.save"
                }
              ],
              "devices": [
                "laptop"
              ],
              "digest": "aucqkbif",
              "name": "notes",
              "version": "0.1.0"
            }"#]],
        );
    }
}

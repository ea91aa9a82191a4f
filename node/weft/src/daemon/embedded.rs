//! The agents that the program carries.

use anyhow::{Context as _, Result};
use weft_core::registry::Installed;
use weft_protocol::manifest::Manifest;

macro_rules! component {
    ($name:literal) => {
        (
            include_str!(concat!("../../../../agents/", $name, "/agent.toml")),
            include_bytes!(concat!("../../../../agents/dist/", $name, ".wasm")).as_slice(),
        )
    };
}

const AGENTS: [(&str, &[u8]); 5] = [
    component!("notes"),
    component!("timer"),
    component!("docs"),
    component!("text"),
    (include_str!("../../../../agents/llm/agent.toml"), &[]),
];

/// All of them, parsed, as they can run where there is a wall or none.
pub(crate) fn agents(has_wall: bool) -> Result<Vec<Installed>> {
    AGENTS
        .iter()
        .map(|(text, component)| {
            let manifest = Manifest::parse(text).context("failed to read an embedded manifest")?;
            let agent = Installed::new(manifest, text, *component, true);
            Ok(if has_wall { agent } else { agent.without_wall() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_manifests_are_right() {
        let agents = agents(true).unwrap();
        assert_eq!(agents.len(), AGENTS.len());
        for agent in agents {
            assert!(!agent.manifest.capabilities.is_empty(), "{}", agent.manifest.name);
        }
    }
}

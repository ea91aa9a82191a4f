//! `weft agents`: what the fabric can do, and what to say for it.

use serde_json::json;

use super::{
    Session,
    error::Done,
    node::Node,
    terminal::{Style, items, listed, text},
};

pub(super) async fn run(session: &Session) -> Done {
    let terminal = &session.terminal;
    let agents = Node::reach(session).await?.read(json!({"ask": "agents"})).await?;
    if terminal.is_json() {
        terminal.json(&agents)?;
        return Ok(None);
    }
    for agent in items(&agents) {
        let name = terminal.styled(Style::Bold, &text(agent, "name"));
        let devices = listed(&agent["devices"]);
        let place = if devices.is_empty() { String::new() } else { format!("  on {devices}") };
        terminal.data(&format!("{name} {}{place}", text(agent, "version")))?;
        terminal.data(&format!("  {}", text(agent, "description")))?;
        for capability in items(&agent["details"]) {
            let (name, about) = (text(capability, "name"), text(capability, "description"));
            terminal.data(&format!("  {name}  {about}"))?;
            if let Some(example) = capability["example"].as_str() {
                let example = format!("weft do {}", super::terminal::harmless(example));
                terminal.data(&format!("      {}", terminal.styled(Style::Dim, &example)))?;
            }
        }
    }
    Ok(None)
}

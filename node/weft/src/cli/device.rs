//! `weft devices`: who belongs, and putting a device out.

use serde_json::{Value, json};
use weft_api::ErrorKind;

use super::{
    Session,
    arguments::DeviceAction,
    error::{CommandError, Done},
    node::Node,
    terminal::{self, Style, Terminal, harmless, items, listed, local_time, text},
};

pub(super) async fn run(session: &Session, action: Option<DeviceAction>) -> Done {
    let terminal = &session.terminal;
    let mut node = Node::reach(session).await?;
    let devices = node.get(json!({"ask": "devices"})).await?;
    match action {
        None if terminal.is_json() => terminal.json(&devices)?,
        None => list(terminal, &devices)?,
        Some(DeviceAction::Revoke { device, yes }) => {
            if !yes {
                confirm(&devices, &device)?;
            }
            let done = node.get(json!({"ask": "revoke", "device": device})).await?;
            if terminal.is_json() {
                terminal.json(&done)?;
            } else {
                terminal.say(&format!(
                    "{device} is put out; devices that are away hear it when they come"
                ));
            }
        }
    }
    Ok(None)
}

fn confirm(devices: &Value, device: &str) -> Result<(), CommandError> {
    if !terminal::can_ask() {
        let message =
            format!("putting {device} out needs a yes, and there is no terminal to ask at");
        return Err(CommandError::new(ErrorKind::Usage, message).hint("say it with --yes"));
    }
    let known = items(devices).find(|it| it["name"] == device || it["id"] == device);
    let which = match known {
        Some(known) if known["this"] == true => format!("{device}, this very device,"),
        Some(known) => format!("{device} ({}, {})", text(known, "kind"), text(known, "role")),
        None => device.to_owned(),
    };
    let question = format!("Put {} out, at once and for good?", harmless(&which));
    if terminal::ask(&question) {
        Ok(())
    } else {
        Err(CommandError::new(ErrorKind::Cancelled, "nothing was changed"))
    }
}

fn list(terminal: &Terminal, devices: &Value) -> Result<(), CommandError> {
    let rows: Vec<_> = items(devices).map(row).collect();
    terminal
        .table(["NAME", "KIND", "ROLE", "STATE", "SINCE", "ROUND TRIP", "MODELS", ""], &rows)?;
    let is_unconfirmed = |device: &&Value| device["confirmed"] == false;
    for device in items(devices).filter(is_unconfirmed) {
        let mark = terminal.styled_message(Style::Yellow, "unconfirmed");
        let name = text(device, "name");
        terminal.note(&format!("{mark}: nobody compared the four words when {name} joined"));
    }
    Ok(())
}

fn row(device: &Value) -> [String; 8] {
    let round_trip = device["round_trip_ms"].as_f64().map(|ms| format!("{ms:.1} ms"));
    [
        text(device, "name"),
        text(device, "kind"),
        text(device, "role"),
        text(device, "state"),
        local_time(device, "since"),
        round_trip.unwrap_or_default(),
        listed(&device["models"]),
        if device["this"] == true { "this device".to_owned() } else { text(device, "address") },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_which_device_this_is() {
        let device = json!({"name": "laptop", "kind": "laptop", "role": "admin", "state": "here",
            "this": true, "round_trip_ms": null, "models": ["a", "b"], "since": null});
        let expected = ["laptop", "laptop", "admin", "here", "", "", "a, b", "this device"];
        assert_eq!(row(&device), expected);
    }
}

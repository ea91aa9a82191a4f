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
                confirm(&known(&devices, &device)?, &device)?;
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

/// The device of that name or id, which can still be put out.
fn known(devices: &Value, device: &str) -> Result<Value, CommandError> {
    let is_it = |it: &&Value| it["name"] == device || it["id"] == device;
    let missing = |why: String| CommandError::new(ErrorKind::NotFound, why);
    match items(devices).find(is_it) {
        Some(it) if it["state"] == "revoked" => {
            Err(missing(format!("{} was put out already", harmless(device))))
        }
        Some(it) => Ok(it.clone()),
        None => {
            let names: Vec<_> = items(devices)
                .filter(|it| it["state"] != "revoked")
                .map(|it| text(it, "name"))
                .collect();
            let (device, names) = (harmless(device), names.join(", "));
            Err(missing(format!("there is no device {device:?}; there are {names}")))
        }
    }
}

fn confirm(known: &Value, device: &str) -> Result<(), CommandError> {
    if !terminal::can_ask() {
        let message =
            format!("putting {device} out needs a yes, and there is no terminal to ask at");
        return Err(CommandError::new(ErrorKind::Usage, message).hint("say it with --yes"));
    }
    let which = if known["this"] == true {
        format!("{device}, this very device,")
    } else {
        format!("{device} ({}, {})", text(known, "kind"), text(known, "role"))
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
    terminal.table(
        ["NAME", "KIND", "ROLE", "STATE", "SINCE", "ROUND TRIP", "ADDRESS", "MODELS"],
        &rows,
    )?;
    let is_unconfirmed =
        |device: &&Value| device["confirmed"] == false && device["state"] != "revoked";
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
        if device["this"] == true {
            "this device".to_owned()
        } else {
            address(&text(device, "address"))
        },
        listed(&device["models"]),
    ]
}

/// A multiaddress as people write addresses: `/ip4/10.0.0.2/udp/4001/quic-v1` is `10.0.0.2:4001 quic`.
/// One of another form stays as it is.
fn address(multiaddress: &str) -> String {
    let parts: Vec<_> = multiaddress.split('/').collect();
    match parts.as_slice() {
        ["", family, host, "udp", port, "quic-v1", ..] => joined(family, host, port, "quic"),
        ["", family, host, "tcp", port, ..] => joined(family, host, port, "tcp"),
        _ => None,
    }
    .unwrap_or_else(|| multiaddress.to_owned())
}

fn joined(family: &str, host: &str, port: &str, transport: &str) -> Option<String> {
    match family {
        "ip4" => Some(format!("{host}:{port} {transport}")),
        "ip6" => Some(format!("[{host}]:{port} {transport}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_which_device_this_is() {
        let device = json!({"name": "laptop", "kind": "laptop", "role": "admin", "state": "here",
            "this": true, "round_trip_ms": null, "models": ["a", "b"], "since": null});
        let expected = ["laptop", "laptop", "admin", "here", "", "", "this device", "a, b"];
        assert_eq!(row(&device), expected);
    }

    #[test]
    fn addresses_are_written_as_people_do() {
        for (multiaddress, expected) in [
            ("/ip4/127.0.0.1/udp/4001/quic-v1", "127.0.0.1:4001 quic"),
            ("/ip4/10.0.0.2/tcp/4001", "10.0.0.2:4001 tcp"),
            ("/ip6/fe80::1/udp/4001/quic-v1", "[fe80::1]:4001 quic"),
            ("/dns4/example.com/tcp/1", "/dns4/example.com/tcp/1"),
            ("", ""),
        ] {
            assert_eq!(address(multiaddress), expected);
        }
    }

    #[test]
    fn only_a_device_that_belongs_can_be_put_out() {
        let devices =
            json!([{"name": "laptop", "state": "here"}, {"name": "old", "state": "revoked"}]);
        assert_eq!(known(&devices, "laptop").unwrap()["name"], "laptop");
        let said = |device: &str| {
            let error = known(&devices, device).expect_err(device);
            assert_eq!(error.kind(), ErrorKind::NotFound);
            format!("{error:?}")
        };
        assert!(said("old").contains("was put out already"), "{}", said("old"));
        assert!(said("nobody").contains("there are laptop"), "{}", said("nobody"));
    }
}

//! `weft devices`: who belongs, all of one device, and what an admin changes of it.

use serde_json::{Value, json};
use weft_api::ErrorKind;
use weft_protocol::device::Role;

use super::{
    Session,
    arguments::DeviceAction,
    doctor::{self, Behind},
    error::{CommandError, Done},
    node::Node,
    terminal::{self, Style, Terminal, harmless, items, listed, local_time, short, text},
};

pub(super) async fn run(session: &Session, action: Option<DeviceAction>) -> Done {
    let terminal = &session.terminal;
    let mut node = Node::reach(session).await?;
    let Some(action) = action else {
        let devices = node.read(json!({"ask": "devices"})).await?;
        if terminal.is_json() {
            terminal.json(&devices)?;
        } else {
            list(terminal, &devices)?;
        }
        return Ok(None);
    };
    let (request, said) = match action {
        DeviceAction::Show { device } => {
            let device = find(&mut node, &device).await?;
            if terminal.is_json() {
                terminal.json(&device)?;
            } else {
                show(terminal, &device)?;
            }
            return Ok(None);
        }
        DeviceAction::Rename { device, new, fabric } => {
            let (device, name) = match (device, new, fabric) {
                (Some(device), Some(name), _) => (Some(device), name),
                (_, _, Some(name)) => (None, name),
                (_, _, None) => unreachable!("without --fabric both names are required"),
            };
            let said = match &device {
                Some(device) => format!("{} is called {name} now", harmless(device)),
                None => format!("the fabric is called {name} now"),
            };
            (json!({"ask": "rename", "device": device, "name": name.as_str()}), said)
        }
        DeviceAction::Role { device, role, yes } => {
            let device = find(&mut node, &device).await?;
            let name = text(&device, "name");
            // What is refused anyway is not asked for.
            let may_change = may_change(&device, role) && is_admin(&mut node).await?;
            let is_grant = role == Role::Admin && may_change;
            if is_grant {
                confirm_admin(terminal, &device, yes)?;
            } else if !yes && may_change {
                let from = text(&device, "role");
                let why = format!("making {name} a {role} needs a yes");
                terminal::confirm(
                    &why,
                    &format!("Make {}, now {from}, a {role}?", titled(&device)),
                )?;
            }
            let request = json!({"ask": "set-role", "device": device["id"], "role": role.word(),
                "confirmed": is_grant});
            (request, format!("{name} is {role} now; devices that are away hear it when they come"))
        }
        DeviceAction::Keep { device, yes } => {
            let device = find(&mut node, &device).await?;
            let name = text(&device, "name");
            if !yes && device["state"] == "suspended" && is_admin(&mut node).await? {
                let why = text(&device["standing"], "why");
                terminal.say(&format!("{name} is suspended: {why}"));
                let question = format!("Bring {} back, with all its rights?", titled(&device));
                terminal::confirm(&format!("bringing {name} back needs a yes"), &question)?;
            }
            (json!({"ask": "keep", "device": device["id"]}), format!("{name} belongs again"))
        }
        DeviceAction::Revoke { device, yes } => {
            let device = find(&mut node, &device).await?;
            let name = text(&device, "name");
            if !yes && device["state"] != "revoked" && is_admin(&mut node).await? {
                let which = if device["this"] == true {
                    format!("{name}, this very device,")
                } else {
                    titled(&device)
                };
                let question = format!("Put {which} out, at once and for good?");
                terminal::confirm(&format!("putting {name} out needs a yes"), &question)?;
            }
            let said = format!("{name} is put out; devices that are away hear it when they come");
            (json!({"ask": "revoke", "device": device["id"]}), said)
        }
    };
    node.acts("weft trust log");
    let done = node.get(request).await?;
    if terminal.is_json() {
        terminal.json(&done)?;
    } else {
        terminal.say(&said);
    }
    Ok(None)
}

/// The device of that name or id, as the node has it.
async fn find(node: &mut Node, device: &str) -> Result<Value, CommandError> {
    node.read(json!({"ask": "device", "device": device})).await
}

/// Whether this device may change who belongs. One that may not says so itself: nobody is asked first.
pub(super) async fn is_admin(node: &mut Node) -> Result<bool, CommandError> {
    Ok(stands_as_admin(&node.read(json!({"ask": "devices"})).await?))
}

fn stands_as_admin(devices: &Value) -> bool {
    items(devices)
        .any(|it| it["this"] == true && it["role"] == Role::Admin.word() && it["state"] == "here")
}

/// Whether there is something to ask a person before this role is given.
fn may_change(device: &Value, role: Role) -> bool {
    role.holds_data()
        && device["role"] != role.word()
        && matches!(device["state"].as_str(), Some("here" | "near" | "away" | "never seen"))
}

/// A device with its kind and role.
fn titled(device: &Value) -> String {
    format!("{} ({}, {})", text(device, "name"), text(device, "kind"), text(device, "role"))
}

/// Asks for the one yes that nothing else stands for.
fn confirm_admin(terminal: &Terminal, device: &Value, yes: bool) -> Result<(), CommandError> {
    let name = text(device, "name");
    if yes {
        let message =
            format!("nobody becomes admin by --yes; leave it out, and {name} is asked for");
        return Err(CommandError::new(ErrorKind::Usage, message));
    }
    if !terminal::can_ask() {
        let message =
            format!("making {name} an admin needs a yes, and there is no terminal to ask at");
        let hint = "no option stands for this yes; run it at a terminal";
        return Err(CommandError::new(ErrorKind::Usage, message).hint(hint));
    }
    let id = short(device, "id");
    terminal.say(&format!("{} {id} is to become admin.", titled(device)));
    terminal.say("An admin may invite, rename and put out every device, and make others admin.");
    terminal::answered(&format!("Give {name} the role admin?"))
}

fn show(terminal: &Terminal, device: &Value) -> Result<(), CommandError> {
    let name = terminal.styled(Style::Bold, &text(device, "name"));
    let (kind, role) = (text(device, "kind"), text(device, "role"));
    terminal.data(&format!("{name}, a {kind} and {role}"))?;
    for (field, value) in facts(device) {
        terminal.data(&format!("{}: {value}", terminal.styled(Style::Dim, field)))?;
    }
    Ok(())
}

/// What there is to say of a device, a line each.
fn facts(device: &Value) -> Vec<(&'static str, String)> {
    let mut facts = vec![("id", text(device, "id"))];
    let mut fact = |name: &'static str, value: String| {
        if !value.is_empty() {
            facts.push((name, value));
        }
    };
    let (state, since) = (text(device, "state"), local_time(device, "since"));
    fact(
        "state",
        match state.as_str() {
            "here" if device["this"] == true => "this device".to_owned(),
            "near" if since.is_empty() => {
                format!("near, connected with {}", listed(&device["via"]))
            }
            "near" => {
                let via = listed(&device["via"]);
                format!("near, connected with {via}; not with this device since {since}")
            }
            "here" if !since.is_empty() => format!("{state} since {since}"),
            "away" if !since.is_empty() => away(device),
            _ => state.clone(),
        },
    );
    let standing = &device["standing"];
    if !standing.is_null() {
        let (at, id) = (local_time(standing, "at"), short(standing, "statement"));
        fact("why", format!("{}, {at} (statement {id})", text(standing, "why")));
        fact("to do", text(standing, "remedy"));
    }
    if state == "never seen" {
        fact("to do", format!("weft device revoke {} if it does not come", text(device, "name")));
    }
    let former: Vec<String> = items(&device["former"])
        .filter_map(Value::as_str)
        .map(|key| key.chars().take(8).collect())
        .collect();
    // What brought its key in is then the statement that replaced the one before.
    let added = if former.is_empty() { "added" } else { "under this key" };
    fact("former keys", former.join(", "));
    let by = text(device, "added_by");
    let (at, id) = (local_time(device, "added_at"), short(device, "added"));
    let statement = format!("{at} (statement {id})");
    fact(
        added,
        match device["confirmed"].as_bool() {
            None if former.is_empty() => format!("began the fabric, {statement}"),
            None => format!("by {by}, which began the fabric, {statement}"),
            Some(true) => format!("by {by}, {statement}; the words were compared"),
            Some(false) => {
                format!("by {by}, {statement}; unconfirmed, nobody compared the four words")
            }
        },
    );
    fact("address", way(device));
    fact("round trip", round_trip(device));
    fact("models", listed(&device["models"]));
    fact("version", text(device, "version"));
    if state != "here" {
        let heard = local_time(device, "last_heard");
        // While it was here that was written seldom, and nobody saw it go.
        let is_early = since.is_empty() && !heard.is_empty();
        fact(
            "last heard",
            if is_early { format!("{heard}, or some minutes later") } else { heard },
        );
    }
    facts
}

/// Since when a device is away, or when it was last heard, where its going was not seen; empty where neither is
/// known.
pub(super) fn absence(device: &Value) -> String {
    match (local_time(device, "since"), local_time(device, "last_heard")) {
        (since, _) if !since.is_empty() => format!("since {since}"),
        (_, heard) if !heard.is_empty() => format!("last heard about {heard}"),
        _ => String::new(),
    }
}

/// The state of a device that is not here, with that.
pub(super) fn away(device: &Value) -> String {
    let state = text(device, "state");
    match absence(device) {
        absence if absence.is_empty() => state,
        absence if absence.starts_with("since") => format!("{state} {absence}"),
        absence => format!("{state}, {absence}"),
    }
}

/// Where a device is reached, and whether through a relay.
fn way(device: &Value) -> String {
    let address = address(&text(device, "address"));
    match device["way"].as_str() {
        Some(way) => format!("{address}, {}", harmless(way)),
        None => address,
    }
}

/// Where a device is, in a table.
fn place(device: &Value) -> String {
    match text(device, "state").as_str() {
        _ if device["this"] == true => "this device".to_owned(),
        "near" => format!("near {}", listed(&device["via"])),
        _ => way(device),
    }
}

fn round_trip(device: &Value) -> String {
    device["round_trip_ms"].as_f64().map(|ms| format!("{ms:.1} ms")).unwrap_or_default()
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
    for Behind { what, to_do, .. } in doctor::behind(devices) {
        let mark = terminal.styled_message(Style::Yellow, "older");
        terminal.say(&format!("{mark}: {what}; {to_do}"));
    }
    for device in items(devices).filter(|device| device["state"] == "suspended") {
        let mark = terminal.styled_message(Style::Yellow, "suspended");
        let (name, standing) = (text(device, "name"), &device["standing"]);
        let (why, remedy) = (text(standing, "why"), text(standing, "remedy"));
        terminal.say(&format!("{mark}: {name}: {why}; {remedy}"));
    }
    Ok(())
}

fn row(device: &Value) -> [String; 8] {
    let standing = &device["standing"];
    [
        text(device, "name"),
        text(device, "kind"),
        text(device, "role"),
        text(device, "state"),
        if standing.is_null() { since(device) } else { local_time(standing, "at") },
        round_trip(device),
        place(device),
        listed(&device["models"]),
    ]
}

/// Since when it is so, in a table.
fn since(device: &Value) -> String {
    match local_time(device, "since") {
        since if since.is_empty() => absence(device),
        since => since,
    }
}

/// A multiaddress as people write addresses: `/ip4/10.0.0.2/udp/4001/quic-v1` is `10.0.0.2:4001 quic`.
/// One of another form stays as it is.
pub(super) fn address(multiaddress: &str) -> String {
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
    fn a_device_says_how_it_is_reached() {
        let device = json!({"address": "/ip4/10.0.0.2/udp/4001/quic-v1", "way": "direct"});
        assert_eq!(way(&device), "10.0.0.2:4001 quic, direct");
        let relay = "/ip4/10.0.0.1/tcp/4001/p2p/12D3KooW/p2p-circuit";
        assert_eq!(way(&json!({"address": relay, "way": "relayed"})), "10.0.0.1:4001 tcp, relayed");
        assert_eq!(way(&json!({"address": null, "way": null})), "");
    }

    #[test]
    fn a_device_that_is_near_says_by_whom() {
        let device = json!({"name": "phone", "state": "near", "via": ["attic", "server"],
            "address": null, "models": []});
        assert_eq!(row(&device)[3..7], ["near", "", "", "near attic, server"]);
        let said = facts(&device).into_iter().find(|(name, _)| *name == "state");
        assert_eq!(said, Some(("state", "near, connected with attic, server".to_owned())));
        assert!(may_change(&json!({"role": "member", "state": "near"}), Role::Admin));
    }

    #[test]
    fn of_a_device_whose_going_nobody_saw_no_more_is_said_than_when_it_was_heard() {
        let (since, heard) = ("2026-03-10T09:20:00Z", "2026-03-10T09:10:00Z");
        let local = |at: &str| local_time(&json!({"at": at}), "at");
        let mut device = json!({"name": "phone", "state": "away", "since": since,
            "last_heard": heard, "models": []});
        let said = |device: &Value| {
            let fact = |wanted: &str| {
                facts(device).into_iter().find(|(name, _)| *name == wanted).map(|(_, value)| value)
            };
            (fact("state").unwrap(), fact("last heard").unwrap_or_default(), row(device)[4].clone())
        };
        let seen = (format!("away since {}", local(since)), local(heard), local(since));
        assert_eq!(said(&device), seen);
        device["since"] = Value::Null;
        let heard = local(heard);
        let unseen = ("away".to_owned(), format!("{heard}, or some minutes later"));
        let about = format!("last heard about {heard}");
        assert_eq!(said(&device), (unseen.0, unseen.1, about.clone()));
        assert_eq!(away(&device), format!("away, {about}"));
        device["last_heard"] = Value::Null;
        assert_eq!(said(&device), ("away".to_owned(), String::new(), String::new()));
    }

    #[test]
    fn a_device_that_is_out_says_why_and_what_to_do() {
        let said = |device: &Value| {
            let lines = facts(device).into_iter().map(|(name, value)| format!("{name}: {value}"));
            lines.collect::<Vec<_>>().join("\n")
        };
        let out = json!({"id": "mj5nhbzy", "state": "suspended", "added_by": "laptop",
            "added": "abcdefghij", "confirmed": false, "models": [],
            "standing": {"why": "server revoked it, and server is revoked itself",
                "remedy": "weft device keep phone", "statement": "qrstuvwxyz"}});
        expect_test::expect![[r"
            id: mj5nhbzy
            state: suspended
            why: server revoked it, and server is revoked itself,  (statement qrstuvwx)
            to do: weft device keep phone
            added: by laptop,  (statement abcdefgh); unconfirmed, nobody compared the four words"]]
        .assert_eq(&said(&out));
        let first = json!({"state": "here", "added_by": "laptop", "added": "abcdefghij",
            "confirmed": null, "models": []});
        let began = "added: began the fabric,  (statement abcdefgh)";
        assert!(said(&first).contains(began), "{}", said(&first));
        let here = json!({"state": "here", "this": true, "models": ["a"], "round_trip_ms": 1.25});
        assert!(said(&here).contains("state: this device\n"), "{}", said(&here));
        assert!(said(&here).contains("round trip: 1.2 ms\nmodels: a"), "{}", said(&here));
        let ghost = json!({"name": "phone", "state": "never seen", "models": []});
        let to_do = "state: never seen\nto do: weft device revoke phone if it does not come";
        assert!(said(&ghost).contains(to_do), "{}", said(&ghost));
    }

    #[test]
    fn only_what_can_be_done_is_asked_for() {
        let fabric = |this: &str, state: &str| {
            json!([{"this": true, "role": this, "state": state}, {"this": false, "role": "admin",
                "state": "here"}])
        };
        assert!(stands_as_admin(&fabric("admin", "here")));
        assert!(!stands_as_admin(&fabric("member", "here")));
        assert!(!stands_as_admin(&fabric("admin", "suspended")));
        let member = json!({"role": "member", "state": "away"});
        assert!(may_change(&member, Role::Admin));
        assert!(!may_change(&member, Role::Member), "it is one already");
        assert!(!may_change(&member, Role::Keeper), "there are none yet");
        assert!(!may_change(&json!({"role": "member", "state": "revoked"}), Role::Admin));
    }
}

//! `weft invite`: an invitation for one more device.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use weft_api::ErrorKind;
use weft_protocol::device::Role;

use super::{
    Session,
    arguments::InviteArguments,
    device,
    error::{CommandError, Done},
    means,
    node::{Node, Said},
    qr,
    terminal::{self, Style, Terminal, items, listed, text},
};

pub(super) async fn run(session: &Session, arguments: &InviteArguments) -> Done {
    let terminal = &session.terminal;
    check(arguments)?;
    let mut node = Node::reach(session).await?;
    if !arguments.yes && !terminal::can_ask() {
        if !device::is_admin(&mut node).await? {
            // The node says who may.
            node.get(request(arguments)).await?;
        }
        let message = "an invitation asks a person, and there is no terminal to ask at";
        return Err(CommandError::new(ErrorKind::Usage, message)
            .hint("say it with --yes: whoever has the ticket then gets in"));
    }
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|error| anyhow::Error::new(error).context("failed to listen for Ctrl-C"))?;
    let mut conversation = node.ask(request(arguments)).await?;
    let mut asking: Option<JoinHandle<bool>> = None;
    loop {
        let event = tokio::select! {
            biased;
            _ = interrupts.recv() => {
                node.get(json!({"ask": "close-invitation"})).await?;
                terminal.note("the invitation is closed");
                return Ok(Some(ErrorKind::Cancelled));
            }
            Some(yes) = answered(&mut asking) => {
                asking = None;
                let role = arguments.role.word();
                node.ask(json!({"ask": "confirm", "yes": yes, "role": role})).await?;
                continue;
            }
            said = node.next(&mut conversation) => match said? {
                Said::Reply(invited) => {
                    show(terminal, &invited, arguments.yes)?;
                    if arguments.yes && terminal.is_json() && !arguments.wait {
                        return Ok(None);
                    }
                    continue;
                }
                Said::Event(event) => event,
            },
        };
        match event["event"].as_str().unwrap_or_default() {
            "invitation-met" if arguments.yes => {
                let means = if arguments.code { "code" } else { "ticket" };
                terminal.note(&format!("{} comes with the {means}", text(&event, "name")));
            }
            "invitation-met" => {
                let question = question(terminal, &event);
                asking = Some(tokio::task::spawn_blocking(move || terminal::ask(&question)));
            }
            "invitation-ended" => return end(terminal, &event),
            _ => {}
        }
    }
}

/// What must hold before anything is opened.
fn check(arguments: &InviteArguments) -> Result<(), CommandError> {
    let usage = |message: &str| CommandError::new(ErrorKind::Usage, message);
    match arguments.role {
        Role::Member => {}
        Role::Admin if arguments.yes => {
            return Err(usage("--yes never makes an admin")
                .hint("leave --yes out and compare the four words, or invite a member"));
        }
        Role::Admin => {}
        Role::Keeper | Role::Guest => {
            return Err(usage("only a member or an admin can be invited"));
        }
    }
    Ok(())
}

fn request(arguments: &InviteArguments) -> Value {
    json!({
        "ask": "invite",
        "role": arguments.role.word(),
        "confirmed_by_itself": arguments.yes,
        "by_code": arguments.code,
    })
}

async fn answered(asking: &mut Option<JoinHandle<bool>>) -> Option<bool> {
    // A question whose asking panicked counts as a no.
    Some(asking.as_mut()?.await.unwrap_or(false))
}

/// The ticket: as a QR code where somebody looks, and as text. Or the code to type.
fn show(terminal: &Terminal, invited: &Value, is_unseen: bool) -> Result<(), CommandError> {
    if terminal.is_json() {
        return terminal.json(invited);
    }
    let means = if invited["code"].is_string() {
        let addresses: BTreeSet<_> =
            items(&invited["addresses"]).filter_map(|it| means::typed(it.as_str()?)).collect();
        terminal.note("On the other device, within two minutes: weft join, and this code:");
        terminal.data(&text(invited, "code"))?;
        let is_here_only = addresses.iter().all(|address| address.ip().is_loopback());
        // The code alone may not do, so this is said to scripts, too.
        terminal.say(if is_here_only {
            "and where this device is:"
        } else {
            "If it is not found there, also say where this device is:"
        });
        for address in addresses {
            terminal.say(&format!("  --at {address}"));
        }
        "code"
    } else {
        let ticket = text(invited, "ticket");
        if let Some(code) = qr::draw(&ticket, terminal.error_is_colourful()) {
            terminal.note(&code);
        }
        terminal.note("On the other device, within two minutes: weft join, and this ticket:");
        terminal.data(&ticket)?;
        "ticket"
    };
    terminal.note(&if is_unseen {
        format!("Waiting. Whoever has the {means} gets in, unseen. Ctrl-C closes the invitation.")
    } else {
        "Waiting. Both devices will show the same four words. Ctrl-C closes the invitation."
            .to_owned()
    });
    Ok(())
}

/// What a person is asked, on a screen that names who, the words and the role.
fn question(terminal: &Terminal, met: &Value) -> String {
    let (name, kind, role) = (text(met, "name"), text(met, "kind"), text(met, "role"));
    let words = listed(&met["words"]).replace(", ", " ");
    let rights = match role.as_str() {
        "admin" => "It will hold all your data, and may add and put out devices.",
        _ => "It will hold all your data.",
    };
    let words = terminal.styled_message(Style::Bold, &words);
    format!(
        "\n{name}, a {kind}, wants to join as {role}. {rights}\n\n    {words}\n\n\
         Does the other device show these four words, and is it yours?"
    )
}

fn end(terminal: &Terminal, ended: &Value) -> Done {
    let outcome = text(ended, "outcome");
    if terminal.is_json() {
        let (name, reason) = (&ended["name"], &ended["reason"]);
        terminal.json(&json!({"outcome": outcome, "name": name, "reason": reason}))?;
    }
    if outcome == "paired" {
        terminal.say(&format!("paired: {} belongs now", text(ended, "name")));
        return Ok(None);
    }
    terminal.error(&format!("the invitation ended: {}", told(&outcome, &text(ended, "reason"))));
    Ok(Some(kind(&outcome)))
}

/// The kind of an outcome that is not `paired`, the same on both sides.
pub(super) fn kind(outcome: &str) -> ErrorKind {
    match outcome {
        "refused" => ErrorKind::Refused,
        "expired" => ErrorKind::Expired,
        "already-used" => ErrorKind::AlreadyUsed,
        "could-not-reach" => ErrorKind::CouldNotReach,
        _ => ErrorKind::Other,
    }
}

/// An outcome that is not `paired` and its reason, as a sentence goes on after a colon.
pub(super) fn told(outcome: &str, reason: &str) -> String {
    let outcome = match outcome {
        "already-used" => "already used",
        "could-not-reach" => "could not reach the other device",
        other => other,
    };
    if reason.is_empty() { outcome.to_owned() } else { format!("{outcome}: {reason}") }
}

#[cfg(test)]
mod tests {
    use weft_api::Request;
    use weft_core::door::Command;

    use super::*;

    #[test]
    fn only_a_person_makes_an_admin() {
        let invite = |role, yes| InviteArguments { role, yes, code: false, wait: false };
        let admin = invite(Role::Admin, true);
        assert_eq!(check(&admin).expect_err("not unseen").kind(), ErrorKind::Usage);
        let keeper = invite(Role::Keeper, true);
        assert_eq!(check(&keeper).expect_err("not yet").kind(), ErrorKind::Usage);
        let member = invite(Role::Member, true);
        assert!(check(&member).is_ok());
        let expected =
            Command::Invite { role: Role::Member, confirmed_by_itself: true, by_code: false };
        assert_eq!(Request::try_from(&request(&member)), Ok(Request::Core(expected)));
    }

    #[test]
    fn the_question_names_who_the_words_and_the_role() {
        let met = json!({"name": "phone", "kind": "phone", "role": "admin",
            "words": ["alpha", "bravo", "cedar", "delta"]});
        let asked = question(&Terminal::new(false, 0), &met);
        for expected in ["phone", "as admin", "alpha bravo cedar delta", "put out devices"] {
            assert!(asked.contains(expected), "{expected:?} is not in {asked}");
        }
    }

    #[test]
    fn each_outcome_has_its_own_exit() {
        let terminal = Terminal::new(false, 0);
        let kind =
            |outcome: &str| end(&terminal, &json!({"outcome": outcome, "name": "x"})).unwrap();
        assert_eq!(kind("paired"), None);
        assert_eq!(kind("refused"), Some(ErrorKind::Refused));
        assert_eq!(kind("expired"), Some(ErrorKind::Expired));
        assert_eq!(kind("already-used"), Some(ErrorKind::AlreadyUsed));
        assert_eq!(kind("could-not-reach"), Some(ErrorKind::CouldNotReach));
        assert_eq!(told("already-used", ""), "already used");
    }
}

//! `weft join`: this device becomes one of a fabric.

use serde_json::json;
use weft_api::{ErrorKind, Keys};
use weft_core::invitation::word;
use weft_protocol::statement::Name;
use weft_trust::pairing::Outcome;

use super::{
    Session,
    arguments::JoinArguments,
    error::{CommandError, Done},
    init, invitation, means,
    terminal::{self, Style, Terminal},
};
use crate::daemon::{
    home::{Home, keys as keys_of},
    join::{self, JoinOutcome, JoinRequest, Met},
    up,
};

pub(super) fn run(session: &Session, arguments: JoinArguments) -> Done {
    up::check_environment()?;
    let terminal = session.terminal;
    if !arguments.yes && !terminal::can_ask() {
        let message = "joining asks a person, and there is no terminal to ask at";
        return Err(CommandError::new(ErrorKind::Usage, message).hint("say it with --yes"));
    }
    let means = means::read(&arguments)?;
    let home = Home::new(&session.home);
    home.expect_new()?;
    // Before the other device is reached: a ticket is good for two minutes.
    let device = init::newcomer(&terminal, arguments.newcomer)?;
    let name = device.name.clone();
    let keeping = keys_of(device.keys.keeping());
    let request = JoinRequest { means, device, unasked: arguments.yes };
    let is_yes = arguments.yes;
    let outcome = join::run(&home, request, move |met: &Met| {
        if is_yes {
            terminal.note(&format!("joins {} through {}", met.fabric, met.name));
            return true;
        }
        terminal::ask(&question(&terminal, met))
    })?;
    end(&terminal, &outcome, &name, keeping)
}

/// What a person is asked, on a screen that names the fabric, who invites, the words and the role.
fn question(terminal: &Terminal, met: &Met) -> String {
    let words = terminal.styled_message(Style::Bold, &met.words.join(" "));
    format!(
        "\n{}, a {}, invites this device into the fabric {} as {}.\n\n    {words}\n\n\
         Does the other device show these four words, and is it yours?",
        met.name, met.kind, met.fabric, met.role
    )
}

fn end(terminal: &Terminal, outcome: &JoinOutcome, asked_for: &Name, keys: Keys) -> Done {
    let (outcome, reason) = match outcome {
        JoinOutcome::Paired { name, fabric, inviter, role } => {
            if terminal.is_json() {
                terminal.json(&json!({
                    "outcome": "paired",
                    "name": name.as_str(),
                    "fabric_name": fabric.as_str(),
                    "inviter": inviter.as_str(),
                    "role": role.word(),
                    "keys": keys.word(),
                }))?;
            } else {
                terminal
                    .data(&format!("paired: this device is a {role} of the fabric {fabric}"))?;
                if name != asked_for {
                    terminal.say(&format!("its name is {name}: there is another {asked_for}"));
                }
                terminal.note("run weft up, and leave it running");
            }
            return Ok(None);
        }
        JoinOutcome::Ended(outcome, reason) => {
            (*outcome, reason.map(|reason| reason.sentence().to_owned()))
        }
        JoinOutcome::Cancelled => {
            if terminal.is_json() {
                terminal.json(&json!({"outcome": "cancelled", "reason": null}))?;
            }
            terminal.say("cancelled: this device did not join");
            return Ok(Some(ErrorKind::Cancelled));
        }
        JoinOutcome::CouldNotReach { reason } => (Outcome::CouldNotReach, Some(reason.clone())),
    };
    let (word, reason) = (word(outcome), reason.unwrap_or_default());
    if terminal.is_json() {
        let reason = Some(&reason).filter(|reason| !reason.is_empty());
        terminal.json(&json!({"outcome": word, "reason": reason}))?;
    }
    terminal.error(&format!("this device did not join: {}", invitation::told(word, &reason)));
    let kind = invitation::kind(word);
    if kind != ErrorKind::Refused {
        terminal.say("hint: weft invite on the other device shows a new one");
    }
    Ok(Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_own_exit() {
        let terminal = Terminal::new(false, 0);
        let name = "phone".parse().unwrap();
        let kind = |outcome: &JoinOutcome| end(&terminal, outcome, &name, Keys::File).unwrap();
        for (outcome, expected) in [
            (Outcome::Refused, ErrorKind::Refused),
            (Outcome::Expired, ErrorKind::Expired),
            (Outcome::AlreadyUsed, ErrorKind::AlreadyUsed),
        ] {
            assert_eq!(kind(&JoinOutcome::Ended(outcome, None)), Some(expected));
        }
        assert_eq!(kind(&JoinOutcome::Cancelled), Some(ErrorKind::Cancelled));
        let away = JoinOutcome::CouldNotReach { reason: "no answer".into() };
        assert_eq!(kind(&away), Some(ErrorKind::CouldNotReach));
    }
}

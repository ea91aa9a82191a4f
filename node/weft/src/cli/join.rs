//! `weft join`: this device becomes one of a fabric.

use std::io::Read as _;

use serde_json::{Value, json};
use weft_api::{ErrorKind, Keys};
use weft_protocol::{
    pairing::Ending,
    statement::Name,
    ticket::{TICKET_CHARS_MAX, Ticket},
};

use super::{
    Session,
    arguments::JoinArguments,
    error::{CommandError, Done},
    init, invitation,
    terminal::{self, Style, Terminal, text},
};
use crate::daemon::{
    home::Home,
    join::{self, JoinOutcome, JoinRequest, Met},
};

/// Stands for standard input.
const STDIN: &str = "-";

/// Room for the white space that mail and terminals put into a ticket.
const INPUT_BYTES_MAX: u64 = 4 * TICKET_CHARS_MAX as u64;

pub(super) fn run(session: &Session, arguments: JoinArguments) -> Done {
    let terminal = session.terminal;
    if !arguments.yes && !terminal::can_ask() {
        let message = "joining asks a person, and there is no terminal to ask at";
        return Err(CommandError::new(ErrorKind::Usage, message).hint("say it with --yes"));
    }
    let name = init::name(arguments.name)?;
    let request = JoinRequest {
        ticket: read_ticket(&arguments.ticket)?,
        name: name.clone(),
        kind: arguments.kind,
        unasked: arguments.yes,
    };
    let is_yes = arguments.yes;
    let outcome = join::run(&Home::new(&session.home), request, move |met: &Met| {
        if is_yes {
            terminal.note(&format!("joins {} through {}", met.fabric, met.name));
            return true;
        }
        terminal::ask(&question(&terminal, met))
    })?;
    end(&terminal, &outcome, &name, arguments.key.into())
}

/// The ticket as given, or from standard input.
fn read_ticket(given: &str) -> Result<Ticket, CommandError> {
    let mut text = given.to_owned();
    if given == STDIN {
        text.clear();
        std::io::stdin()
            .take(INPUT_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| anyhow::Error::new(error).context("failed to read the ticket"))?;
        // `weft invite --json` may stand at the other end of the pipe.
        text = ticket_of(&text)?;
    }
    let text: String = text.split_whitespace().collect();
    text.parse::<Ticket>().map_err(|error| {
        CommandError::failed(&error)
            .of_kind(ErrorKind::Usage)
            .hint("weft invite on a device of the fabric shows one")
    })
}

/// The ticket in what came on standard input: as text, or as `weft invite --json` prints it.
fn ticket_of(input: &str) -> Result<String, CommandError> {
    let usage = |message: String| CommandError::new(ErrorKind::Usage, message);
    if input.trim().is_empty() {
        return Err(usage("no ticket came on standard input".to_owned())
            .hint("weft invite on a device of the fabric shows one"));
    }
    match serde_json::from_str::<Value>(input) {
        Ok(said) if said["error"].is_object() => {
            let why = text(&said["error"], "message");
            Err(usage(format!("no ticket came, as the other device could not invite: {why}")))
        }
        Ok(said) => Ok(said["ticket"].as_str().unwrap_or(input).to_owned()),
        Err(_) => Ok(input.to_owned()),
    }
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
    let (word, kind) = match outcome {
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
        JoinOutcome::Ended(Ending::Refused) => ("refused", ErrorKind::Refused),
        JoinOutcome::Ended(Ending::Expired) => ("expired", ErrorKind::Expired),
        JoinOutcome::Ended(Ending::AlreadyUsed) => ("already-used", ErrorKind::AlreadyUsed),
        JoinOutcome::CouldNotReach { .. } => ("could-not-reach", ErrorKind::CouldNotReach),
    };
    let reason = match outcome {
        JoinOutcome::CouldNotReach { reason } => Some(reason),
        JoinOutcome::Paired { .. } | JoinOutcome::Ended(_) => None,
    };
    if terminal.is_json() {
        terminal.json(&json!({"outcome": word, "reason": reason}))?;
    }
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    terminal.error(&format!("this device did not join: {}{reason}", invitation::told(word)));
    if kind != ErrorKind::Refused {
        terminal.say("hint: weft invite on the other device shows a new ticket");
    }
    Ok(Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ticket_says_so() {
        for given in ["", "hello", "WEFT1:AAAA", "WEFT2:AAAA"] {
            let error = read_ticket(given).expect_err("it is no ticket");
            assert_eq!(error.kind(), ErrorKind::Usage, "{given}");
        }
    }

    #[test]
    fn what_comes_through_a_pipe_instead_of_a_ticket_is_told() {
        assert_eq!(ticket_of("{\"ticket\": \"WEFT1:A\"}\n").unwrap(), "WEFT1:A");
        assert_eq!(ticket_of("WEFT1:A\n").unwrap().trim(), "WEFT1:A");
        for (input, expected) in [
            ("", "no ticket came on standard input"),
            (
                "{\"error\": {\"message\": \"no node is running\"}}",
                "could not invite: no node is running",
            ),
        ] {
            let error = ticket_of(input).expect_err("there is none");
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(format!("{error:?}").contains(expected), "{error:?}");
        }
    }

    #[test]
    fn each_outcome_has_its_own_exit() {
        let terminal = Terminal::new(false, 0);
        let name = "phone".parse().unwrap();
        let kind = |outcome: &JoinOutcome| end(&terminal, outcome, &name, Keys::File).unwrap();
        assert_eq!(kind(&JoinOutcome::Ended(Ending::Refused)), Some(ErrorKind::Refused));
        assert_eq!(kind(&JoinOutcome::Ended(Ending::Expired)), Some(ErrorKind::Expired));
        assert_eq!(kind(&JoinOutcome::Ended(Ending::AlreadyUsed)), Some(ErrorKind::AlreadyUsed));
        let away = JoinOutcome::CouldNotReach { reason: "no answer".into() };
        assert_eq!(kind(&away), Some(ErrorKind::CouldNotReach));
    }
}

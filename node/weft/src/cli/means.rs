//! What a person brings to `weft join`: a ticket, a picture of one, or a code.

use std::{
    io::{self, BufRead as _},
    net::{IpAddr, SocketAddr},
};

use serde_json::Value;
use weft_api::ErrorKind;
use weft_protocol::ticket::{TICKET_CHARS_MAX, Ticket};
use weft_trust::pairing::Code;

use super::{
    arguments::JoinArguments,
    error::CommandError,
    photo,
    terminal::{listed, text},
};
use crate::daemon::join::{self, Means};

/// Stands for standard input.
const STDIN: &str = "-";

/// Room for the white space that mail and terminals put into a ticket.
const INPUT_BYTES_MAX: u64 = 4 * TICKET_CHARS_MAX as u64;

/// What a person sees who has brought nothing that will do.
const HINT: &str = "weft invite on a device of the fabric shows one";

/// Reads what was given.
pub(super) fn read(arguments: &JoinArguments) -> Result<Means, CommandError> {
    if let Some(path) = &arguments.image {
        return photo::ticket(path).map(Means::Ticket).map_err(|error| unread(&error));
    }
    let given = arguments.ticket.as_deref().unwrap_or(STDIN);
    if given != STDIN {
        return means(given, &arguments.at);
    }
    let heard = hear(io::stdin().lock()).map_err(|error| {
        CommandError::from(anyhow::Error::new(error).context("failed to read the ticket"))
    })?;
    let (text, addresses) = said(&heard)?;
    means(&text, if arguments.at.is_empty() { &addresses } else { &arguments.at })
}

/// Why a picture gives no ticket, for a person.
fn unread(error: &photo::PhotoError) -> CommandError {
    let said = CommandError::failed(error).of_kind(ErrorKind::Usage);
    if matches!(error, photo::PhotoError::NoCode) {
        said.hint("take it straight from the front, with the white border around the code")
    } else {
        said
    }
}

/// What comes on standard input, as far as a ticket or a code needs it: who writes there may go on.
fn hear(input: impl io::BufRead) -> io::Result<String> {
    let mut input = input.take(INPUT_BYTES_MAX);
    let mut heard = String::new();
    while input.read_line(&mut heard)? > 0 {
        let is_whole = serde_json::from_str::<Value>(&heard).is_ok_and(|it| it.is_object())
            || heard.parse::<Ticket>().is_ok()
            || heard.parse::<Code>().is_ok();
        if is_whole {
            break;
        }
    }
    Ok(heard)
}

/// The ticket or the code in what came on standard input, and where to go with a code: as text, or
/// as `weft invite --json` prints it.
fn said(input: &str) -> Result<(String, Vec<String>), CommandError> {
    if input.trim().is_empty() {
        return Err(usage("no ticket came on standard input").hint(HINT));
    }
    match serde_json::from_str::<Value>(input) {
        Ok(said) if said["error"].is_object() => {
            let why = text(&said["error"], "message");
            Err(usage(format!("no ticket came, as the other device could not invite: {why}")))
        }
        Ok(said) => {
            let means = said["ticket"].as_str().or_else(|| said["code"].as_str());
            let addresses = listed(&said["addresses"]);
            let addresses = addresses.split(", ").filter(|address| !address.is_empty());
            Ok((means.unwrap_or(input).to_owned(), addresses.map(str::to_owned).collect()))
        }
        Err(_) => Ok((input.to_owned(), Vec::new())),
    }
}

/// A code begins with a digit, and no ticket does.
fn means(given: &str, at: &[String]) -> Result<Means, CommandError> {
    if given.trim_start().starts_with(|first: char| first.is_ascii_digit()) {
        let code = given.parse().map_err(|error| wrong(&error))?;
        let addresses = at.iter().map(|at| addresses(at)).collect::<Result<Vec<_>, _>>()?.concat();
        if addresses.is_empty() && !join::looks_around() {
            return Err(usage(
                "a code alone says not where the other device is, and with \
                              WEFT_LISTEN=loopback nobody looks for it",
            )
            .hint("weft invite --code shows the address for --at"));
        }
        return Ok(Means::Code(code, addresses));
    }
    let ticket: String = given.split_whitespace().collect();
    let ticket = ticket.parse().map_err(|error| wrong(&error))?;
    if at.is_empty() {
        Ok(Means::Ticket(ticket))
    } else {
        Err(usage("a ticket says itself where the other device is").hint("leave --at out"))
    }
}

/// The multiaddrs of what a person typed: an address and a port, at which both transports listen.
fn addresses(at: &str) -> Result<Vec<String>, CommandError> {
    if at.starts_with('/') {
        return Ok(vec![at.to_owned()]);
    }
    let socket: SocketAddr = at.parse().map_err(|_| {
        usage(format!("{at:?} is no address with a port")).hint("such as 192.168.1.20:41234")
    })?;
    let (ip, port) = (socket.ip(), socket.port());
    let family = match ip {
        IpAddr::V4(_) => "ip4",
        IpAddr::V6(_) => "ip6",
    };
    Ok(vec![format!("/{family}/{ip}/udp/{port}/quic-v1"), format!("/{family}/{ip}/tcp/{port}")])
}

/// The same the other way round, for a person to type: none where it is another kind of address.
pub(super) fn typed(multiaddr: &str) -> Option<SocketAddr> {
    let parts: Vec<_> = multiaddr.split('/').collect();
    let ["", "ip4" | "ip6", ip, "udp" | "tcp", port, ..] = parts.as_slice() else { return None };
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

fn usage(message: impl Into<String>) -> CommandError {
    CommandError::new(ErrorKind::Usage, message)
}

fn wrong(error: &dyn std::error::Error) -> CommandError {
    CommandError::failed(error).of_kind(ErrorKind::Usage).hint(HINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_ticket_nor_code_says_so() {
        for given in ["", "hello", "WEFT1:AAAA", "WEFT2:AAAA", "4711", "4711-apple-river"] {
            let error = means(given, &[]).expect_err("it is none");
            assert_eq!(error.kind(), ErrorKind::Usage, "{given}");
        }
    }

    #[test]
    fn a_code_comes_with_where_to_go() {
        let at = ["127.0.0.1:4001".to_owned(), "/ip6/::1/tcp/4002".to_owned()];
        let Ok(Means::Code(code, addresses)) = means("4711 apple river stone", &at) else {
            panic!("it is a code");
        };
        assert_eq!(code.to_string(), "4711-apple-river-stone");
        let expected = ["/ip4/127.0.0.1/udp/4001/quic-v1", "/ip4/127.0.0.1/tcp/4001"];
        assert_eq!(addresses[..2], expected);
        assert_eq!(addresses[2], "/ip6/::1/tcp/4002");
        assert!(means("4711-apple-river-stone", &["nowhere".to_owned()]).is_err());
    }

    #[test]
    fn an_address_is_typed_as_it_is_shown() {
        for (multiaddr, shown) in [
            ("/ip4/127.0.0.1/udp/4001/quic-v1", Some("127.0.0.1:4001")),
            ("/ip6/fd00::1/tcp/4001", Some("[fd00::1]:4001")),
            ("/dns/example/tcp/4001", None),
        ] {
            let typed = typed(multiaddr).map(|it| it.to_string());
            assert_eq!(typed.as_deref(), shown);
            if let Some(typed) = typed {
                assert!(addresses(&typed).unwrap().contains(&multiaddr.to_owned()), "{typed}");
            }
        }
    }

    #[test]
    fn what_comes_through_a_pipe_instead_of_a_ticket_is_told() {
        assert_eq!(said("{\"ticket\": \"WEFT1:A\"}\n").unwrap().0, "WEFT1:A");
        assert_eq!(said("WEFT1:A\n").unwrap().0.trim(), "WEFT1:A");
        let (code, at) =
            said("{\"code\": \"4711-a-b-c\", \"addresses\": [\"/ip4/127.0.0.1/tcp/1\"]}").unwrap();
        assert_eq!((code.as_str(), at), ("4711-a-b-c", vec!["/ip4/127.0.0.1/tcp/1".to_owned()]));
        for (input, expected) in [
            ("", "no ticket came on standard input"),
            (
                "{\"error\": {\"message\": \"no node is running\"}}",
                "could not invite: no node is running",
            ),
        ] {
            let error = said(input).expect_err("there is none");
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(format!("{error:?}").contains(expected), "{error:?}");
        }
    }

    #[test]
    fn who_writes_on_is_not_waited_for() {
        let lines = "{\"ticket\": \"WEFT1:A\"}\n{\"outcome\": \"paired\"}\n";
        assert_eq!(hear(lines.as_bytes()).unwrap(), "{\"ticket\": \"WEFT1:A\"}\n");
        assert_eq!(
            hear("4711\napple river\nstone\nmore\n".as_bytes()).unwrap(),
            "4711\napple river\nstone\n"
        );
        assert_eq!(hear("WEFT1:\n\n".as_bytes()).unwrap(), "WEFT1:\n\n");
    }
}

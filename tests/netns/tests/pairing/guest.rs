//! A device that joins, as a program of its own: an honest one, or one that guesses.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use weft_net::pairing::{PairDialError, PairStream, pair_dial, pair_find};
use weft_protocol::{
    ticket::{Ticket, TicketSecret},
    time::Now,
};
use weft_trust::{
    pairing::{Code, Joiner, JoinerInput, JoinerOutput, Outcome, Reason},
    secret::DeviceSecret,
};

use crate::program::{PATIENCE, PHONE, given, live, receive, seed, send};

/// What it has: a ticket, or a code.
pub(crate) const MEANS: &str = "WEFT_TEST_MEANS";

/// Where the one with the code looks.
pub(crate) const AT: &str = "WEFT_TEST_AT";

/// How many tries it makes.
pub(crate) const TRIES: &str = "WEFT_TEST_TRIES";

/// Where its numbers begin, so that no two programs are the same devices.
pub(crate) const FIRST: &str = "WEFT_TEST_FIRST";

/// How many of its tries run at once: as many as an endpoint takes from one address.
const AT_ONCE: usize = 4;

/// How one try went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Try {
    /// There was no place, or it was not there.
    NotReached,
    /// Another endpoint than the ticket's answered.
    Other,
    /// It was told so.
    Ended(Outcome, Option<Reason>),
    /// It was let in as far as the words.
    Asked,
}

/// Goes through a pairing until it ends, or a person would be asked.
pub(crate) async fn pair(mut joiner: Joiner, mut stream: PairStream) -> Try {
    let now = Now::default();
    joiner.handle_input(JoinerInput::Connected(stream.remote), now);
    loop {
        while let Some(output) = joiner.poll_output() {
            match output {
                JoinerOutput::Send(message) => {
                    if send(&mut stream, &message).await.is_none() {
                        return Try::NotReached;
                    }
                }
                JoinerOutput::Ended(outcome) => {
                    stream.finish().await;
                    return Try::Ended(outcome, joiner.reason());
                }
                JoinerOutput::Ask(_) | JoinerOutput::Store(_) => return Try::Asked,
                JoinerOutput::Dial | JoinerOutput::Close => {}
            }
        }
        let Some(message) = receive(&mut stream).await else { return Try::NotReached };
        joiner.handle_input(JoinerInput::Message(message), now);
    }
}

/// One try with a ticket, under a key of its own.
async fn with_ticket(ticket: Ticket, number: u32) -> Try {
    let own = seed(66, number);
    let addresses: Vec<_> = ticket.addresses.iter().map(ToString::to_string).collect();
    match pair_dial(own, ticket.endpoint, &addresses, PATIENCE).await {
        Ok(stream) => {
            let (name, kind) = PHONE;
            let name = name.parse().expect("it is a name");
            let secret = DeviceSecret::from_seed(&own);
            let now = Now::default();
            pair(Joiner::new(ticket, secret, name, kind, stream.local, own, now), stream).await
        }
        Err(PairDialError::OtherEndpoint) => Try::Other,
        Err(_) => Try::NotReached,
    }
}

/// One try with a code, at addresses.
pub(crate) async fn with_code(code: Code, addresses: &[String], number: u32) -> Try {
    let own = seed(67, number);
    match pair_find(own, |id| code.is_of(id), addresses, PATIENCE).await {
        Ok(stream) => {
            let (name, kind) = PHONE;
            let name = name.parse().expect("it is a name");
            let secret = DeviceSecret::from_seed(&own);
            let now = Now::default();
            let joiner = Joiner::with_code(code, secret, name, kind, stream.local, own, now);
            pair(joiner, stream).await
        }
        Err(PairDialError::OtherEndpoint) => Try::Other,
        Err(_) => Try::NotReached,
    }
}

/// Tries again as long as it finds no place; says how often it found none.
async fn reaching(ticket: Ticket, number: u32) -> (Try, u32) {
    let mut turned_away = 0;
    loop {
        match with_ticket(ticket.clone(), number).await {
            Try::NotReached => turned_away += 1,
            reached @ (Try::Other | Try::Ended(..) | Try::Asked) => return (reached, turned_away),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Says how its tries with a ticket went: `refused other further turned-away`.
async fn count(ticket: Ticket, guesses: bool) -> Result<String> {
    let first: u32 = given(FIRST)?.parse()?;
    let tries: u32 = given(TRIES)?.parse()?;
    let (mut set, mut tried) = (JoinSet::new(), Vec::new());
    for number in first..first + tries {
        if set.len() >= AT_ONCE {
            tried.push(set.join_next().await.context("one is under way")??);
        }
        let mut ticket = ticket.clone();
        if guesses {
            let guess = seed(7, number);
            ticket.secret = TicketSecret::from_bytes(guess[..16].try_into()?);
        }
        set.spawn(reaching(ticket, number));
    }
    tried.extend(set.join_all().await);
    let refused = Try::Ended(Outcome::Refused, Some(Reason::WrongProof));
    let number_of = |what: Try| tried.iter().filter(|(it, _)| *it == what).count();
    let (refused, other) = (number_of(refused), number_of(Try::Other));
    let turned_away: u32 = tried.iter().map(|(_, turned_away)| turned_away).sum();
    Ok(format!("{refused} {other} {} {turned_away}", tried.len() - refused - other))
}

#[test]
#[ignore = "it is the program that another test starts in another place"]
fn guesses() -> Result<()> {
    live(async {
        println!("COUNTED {}", count(given(MEANS)?.parse()?, true).await?);
        Ok(())
    })
}

#[test]
#[ignore = "it is the program that another test starts in another place"]
fn joins_with_a_ticket() -> Result<()> {
    live(async {
        println!("COUNTED {}", count(given(MEANS)?.parse()?, false).await?);
        Ok(())
    })
}

#[test]
#[ignore = "it is the program that another test starts in another place"]
fn joins_with_a_code() -> Result<()> {
    live(async {
        let code = given(MEANS)?.parse()?;
        let tried = with_code(code, &[given(AT)?], given(FIRST)?.parse()?).await;
        println!("TRIED {tried:?}");
        Ok(())
    })
}

//! Somebody in the path: at his address the phone looks for the laptop.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, stdin},
    net::UdpSocket,
    sync::mpsc,
    time::{sleep, timeout},
};
use weft_net::{
    Reach,
    pairing::{PairListener, PairStream, pair_find},
};
use weft_protocol::{
    device::{Kind, Role},
    id::FabricId,
    pairing::PairingMessage,
    ticket::{Ticket, TicketSecret},
    time::Now,
};
use weft_trust::{
    pairing::{Code, ConnectionId, Invitation, Inviter, InviterInput, InviterOutput},
    secret::DeviceSecret,
};

use crate::{
    guest::{Try, with_code},
    program::{PATIENCE, endpoint, given, live, receive, seed, send},
};

/// Where the laptop is.
pub(crate) const LAPTOP: &str = "WEFT_TEST_LAPTOP";

/// Where he writes down what he heard.
pub(crate) const RECORD: &str = "WEFT_TEST_RECORD";

/// How often he says again all that the phone has said.
const REPLAYS: usize = 20;

/// How long after each time.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Carries datagrams between phone and laptop and writes them down, until it is told to end; then
/// says all of the phone's again.
#[test]
#[ignore = "it is the program that another test starts in another place"]
fn relays() -> Result<()> {
    live(async {
        let laptop: SocketAddr = given(LAPTOP)?.parse()?;
        let door = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?);
        println!("AT {}", door.local_addr()?.port());
        let (recorded, mut records) = mpsc::channel::<Vec<u8>>(64);
        let mut towards: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let (mut said, mut heard) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut lines = BufReader::new(stdin()).lines();
        loop {
            tokio::select! {
                _ = lines.next_line() => break,
                Some(bytes) = records.recv() => heard.push(bytes),
                got = door.recv_from(&mut buffer) => {
                    let (len, from) = got?;
                    let own = match towards.get(&from) {
                        Some(own) => own.clone(),
                        None => {
                            let own = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?);
                            own.connect(laptop).await?;
                            tokio::spawn(back(own.clone(), door.clone(), from, recorded.clone()));
                            towards.insert(from, own.clone());
                            own
                        }
                    };
                    said.push(buffer[..len].to_vec());
                    own.send(&buffer[..len]).await?;
                }
            }
        }
        for _ in 0..REPLAYS {
            let again = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            again.connect(laptop).await?;
            for bytes in &said {
                again.send(bytes).await?;
            }
            sleep(PAUSE).await;
        }
        let datagrams = said.len() + heard.len();
        let all = [said.concat(), heard.concat()].concat();
        println!(
            "RELAYED {datagrams} datagrams, {} bytes, the phone's said again {REPLAYS}",
            all.len()
        );
        std::fs::write(given(RECORD)?, all).context("failed to write what was heard")
    })
}

/// The laptop's datagrams to the phone.
async fn back(
    own: Arc<UdpSocket>,
    door: Arc<UdpSocket>,
    phone: SocketAddr,
    recorded: mpsc::Sender<Vec<u8>>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok(len) = own.recv(&mut buffer).await {
        let bytes = buffer[..len].to_vec();
        if door.send_to(&bytes, phone).await.is_err() || recorded.send(bytes).await.is_err() {
            return;
        }
    }
}

/// Listens with a key of his own, until it is told to end; counts who opened a stream.
#[test]
#[ignore = "it is the program that another test starts in another place"]
fn listens() -> Result<()> {
    live(async {
        let mut listener = PairListener::open(seed(99, 0), Reach::Lan).await?;
        println!("AT {}", listener.addresses.join(" "));
        let mut lines = BufReader::new(stdin()).lines();
        let mut talked_to = 0;
        loop {
            tokio::select! {
                _ = lines.next_line() => break,
                came = listener.incoming.recv() => talked_to += usize::from(came.is_some()),
            }
        }
        println!("TALKED {talked_to}");
        Ok(())
    })
}

/// Of each line `NUMBER ADDRESS` makes one try at the code with that number: listens under a key with
/// the same number, and is the laptop to the phone and the phone to the laptop. In turn he carries
/// all messages between the two, and answers both by a guess.
#[test]
#[ignore = "it is the program that another test starts in another place"]
fn plays_both() -> Result<()> {
    live(async {
        let mut lines = BufReader::new(stdin()).lines();
        let mut number = 0;
        while let Some(line) = lines.next_line().await? {
            number += 1;
            let (digits, laptop) = line.split_once(' ').context("NUMBER ADDRESS")?;
            let words = ["apple", "river", "stone", "zebra", "lemon"];
            let word = |at: u32| words[(number / 5u32.pow(at)) as usize % words.len()];
            let guess = format!("{digits}-{}-{}-{}", word(0), word(1), word(2));
            let guess: Code = guess.parse()?;
            let mut twins = (0..).map(|twin| seed(101, twin));
            let own = twins.find(|it| guess.is_of(&endpoint(it))).context("one fits")?;
            let mut listener = PairListener::open(own, Reach::Lan).await?;
            println!("AT {}", listener.addresses[0]);
            let phone = timeout(PATIENCE, listener.incoming.recv()).await?.context("it comes")?;
            let laptop = [laptop.to_owned()];
            let got = if number % 2 == 0 {
                carries(phone, &guess, &laptop, own).await?
            } else {
                let (towards_phone, towards_laptop) = tokio::join!(
                    invites(phone, guess.clone(), own),
                    with_code(guess, &laptop, 1_000_000 + number)
                );
                let in_at_laptop = towards_laptop == Try::Asked;
                format!("by a guess: {} {}", u32::from(towards_phone), u32::from(in_at_laptop))
            };
            println!("GOT {got}");
        }
        Ok(())
    })
}

/// Carries messages between a connection of the phone and one of his own to the laptop; how many got
/// beyond the proofs.
async fn carries(
    mut phone: PairStream,
    code: &Code,
    laptop: &[String],
    own: [u8; 32],
) -> Result<String> {
    let mut laptop = pair_find(own, |id| code.is_of(id), laptop, PATIENCE).await?;
    let mut beyond = 0;
    loop {
        let (is_phones, message) = tokio::select! {
            Some(message) = receive(&mut phone) => (true, message),
            Some(message) = receive(&mut laptop) => (false, message),
            else => break,
        };
        let is_accepted = matches!(message, PairingMessage::Accept { .. });
        beyond += u32::from(is_accepted);
        let is_end = matches!(message, PairingMessage::End { .. });
        let to = if is_phones { &mut laptop } else { &mut phone };
        if send(to, &message).await.is_none() || is_end {
            break;
        }
    }
    tokio::join!(phone.finish(), laptop.finish());
    Ok(format!("by carrying: {beyond} {beyond}"))
}

/// Plays the laptop to the phone, by a guess at the code; whether the phone proved to have the same.
async fn invites(mut phone: PairStream, guess: Code, own: [u8; 32]) -> bool {
    let now = Now::default();
    let ticket = Ticket {
        fabric: FabricId::from_bytes([66; 32]).into(),
        endpoint: phone.local,
        addresses: Vec::new(),
        secret: TicketSecret::from_bytes([0; 16]),
        valid_s: 120,
        role: Role::Member,
    };
    let name = |text: &str| text.parse().expect("it is a name");
    let invitation =
        Invitation { ticket, fabric: name("home"), name: name("laptop"), kind: Kind::Laptop };
    let secret = DeviceSecret::from_seed(&own);
    let mut inviter = Inviter::with_code(invitation, guess, secret, own, now);
    let id = ConnectionId(1);
    inviter.handle_input(InviterInput::Connected(id, phone.remote), now);
    loop {
        while let Some(output) = inviter.poll_output() {
            match output {
                InviterOutput::Send(_, message) => {
                    if send(&mut phone, &message).await.is_none() {
                        return false;
                    }
                }
                InviterOutput::Redeem(_) => inviter.handle_input(InviterInput::Redeemed(true), now),
                InviterOutput::Ask(_) => return true,
                InviterOutput::Ended(_) => {
                    phone.finish().await;
                    return false;
                }
                InviterOutput::Close(_)
                | InviterOutput::Admit(_)
                | InviterOutput::Learned(..)
                | InviterOutput::CloseEndpoint => {}
            }
        }
        let Some(message) = receive(&mut phone).await else { return false };
        inviter.handle_input(InviterInput::Message(id, message), now);
    }
}

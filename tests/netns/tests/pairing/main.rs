//! Pairing on a local network: found by its number alone, and with somebody else about.

mod guest;
mod middleman;
mod program;

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use weft_netns::{Device, Lan, Plug};
use weft_protocol::ticket::{Ticket, TicketAddress, TicketSecret, Transport};
use weft_trust::pairing::{Code, Outcome, Reason};

use crate::{
    guest::{AT, FIRST, MEANS, TRIES, Try},
    middleman::{LAPTOP, RECORD},
    program::Program,
};

/// How many tries come to an open invitation before the next one is made: far fewer than fit into
/// its two minutes.
const TRIES_FOR_INVITATION: u32 = 200;

/// How many invitations are attacked: a thousand tries.
const INVITATIONS: u32 = 5;

/// From how many addresses at once: together they take all the places that an endpoint has.
const THIEVES: u32 = 4;

/// How often the phone dials somebody in the path instead of the laptop.
const TRIES_IN_THE_PATH: u32 = 1_000;

/// How often he tries himself meanwhile, from one address.
const TRIES_OF_HIS: u32 = 200;

/// How often somebody in the path comes between a code: each time burns one.
const CODES: u32 = 20;

/// An inviting laptop and a phone that has no fabric yet.
fn laptop_and_phone(lan: &mut Lan) -> Result<(Device, Device)> {
    let mut laptop = Device::new(lan.plug("laptop", "10.77.0.1/24")?)?;
    let phone = Device::new(lan.plug("phone", "10.77.0.2/24")?)?;
    laptop.init("laptop")?;
    laptop.up()?;
    Ok((laptop, phone))
}

fn join(device: &Device, means: &str) -> Result<String> {
    let named = ["--name", device.name(), "--kind", "phone", "--yes", "--key", "file"];
    device.weft(&[&["join", means][..], &named].concat())
}

fn names(device: &Device) -> Result<Vec<String>> {
    Ok(device.devices()?.into_iter().map(|(name, _)| name).collect())
}

#[test]
fn a_code_finds_the_inviting_device_by_itself() -> Result<()> {
    let Some(mut lan) = Lan::of("a_code_finds_the_inviting_device_by_itself") else {
        return Ok(());
    };
    let (laptop, mut phone) = laptop_and_phone(&mut lan)?;
    // Somebody else on the network invites as well, by a code with another number.
    let mut other = Device::new(lan.plug("other", "10.77.0.3/24")?)?;
    other.init("laptop")?;
    other.up()?;
    other.json(&["invite", "--code", "--yes"])?;

    let invited = laptop.json(&["invite", "--code", "--yes"])?;
    let code = invited["code"].as_str().context("an invitation without a code")?;
    let start = Instant::now();
    join(&phone, code)?;
    eprintln!("  joined by a code alone: after {:.2} s", start.elapsed().as_secs_f64());
    phone.up()?;
    Device::all_meet("both meet", Duration::from_secs(60), &[&laptop, &phone])?;
    ensure!(names(&other)? == ["other"], "the other one was not asked");
    Ok(())
}

#[test]
fn whoever_listens_at_the_address_without_the_key_is_not_talked_to() -> Result<()> {
    let test = "whoever_listens_at_the_address_without_the_key_is_not_talked_to";
    let Some(mut lan) = Lan::of(test) else { return Ok(()) };
    let (laptop, phone) = laptop_and_phone(&mut lan)?;
    let mut thief = Device::new(lan.plug("thief", "10.77.0.66/24")?)?;
    thief.init("laptop")?;
    thief.up()?;
    let (ours, theirs) = (ticket(&laptop)?, ticket(&thief)?);
    let turned = Ticket { addresses: theirs.addresses, ..ours.clone() };
    let refused = join(&phone, &turned.to_string()).expect_err("another one answers there");
    let said = format!("{refused:#}");
    ensure!(said.contains("another one answers at its address"), "{said}");
    ensure!(names(&thief)? == ["thief"]);
    // The invitation is as good as before.
    join(&phone, &ours.to_string())?;
    ensure!(names(&laptop)? == ["laptop", "phone"]);
    Ok(())
}

/// The public part of a ticket.
fn public(ticket: &Ticket) -> Ticket {
    Ticket { secret: TicketSecret::from_bytes([0; 16]), ..ticket.clone() }
}

fn ticket(device: &Device) -> Result<Ticket> {
    let invited = device.json(&["invite", "--yes"])?;
    Ok(invited["ticket"].as_str().context("no ticket")?.parse()?)
}

/// A code, and where the device that shows it is, as a multiaddr and as it is typed.
fn code(device: &Device) -> Result<(Code, String, SocketAddr)> {
    let invited = device.json(&["invite", "--code", "--yes"])?;
    let code = invited["code"].as_str().context("no code")?.parse()?;
    let at = invited["addresses"][0].as_str().context("it is nowhere")?;
    Ok((code, at.to_owned(), socket(&at.parse()?)?))
}

fn socket(address: &TicketAddress) -> Result<SocketAddr> {
    let TicketAddress::Ip4(ip, port, Transport::Quic) = address else {
        anyhow::bail!("not an address of QUIC over IPv4: {address}");
    };
    Ok((*ip, *port).into())
}

/// What a program counted of its tries: refused, another endpoint, further, and no place.
fn counted(program: &mut Program) -> Result<[u32; 4]> {
    let said = program.hear("COUNTED ")?;
    let numbers: Vec<u32> = said.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    numbers.try_into().ok().context("four numbers")
}

fn guessing(place: &Plug, ticket: &Ticket, (first, tries): (u32, u32)) -> Result<Program> {
    let (ticket, first, tries) = (public(ticket).to_string(), first.to_string(), tries.to_string());
    let given = [(MEANS, ticket.as_str()), (FIRST, &first), (TRIES, &tries)];
    Program::start(place, "guest::guesses", &given)
}

#[test]
fn of_a_thousand_guests_with_a_wrong_secret_none_gets_in_and_the_right_one_does() -> Result<()> {
    let test = "of_a_thousand_guests_with_a_wrong_secret_none_gets_in_and_the_right_one_does";
    let Some(mut lan) = Lan::of(test) else { return Ok(()) };
    let (laptop, phone) = laptop_and_phone(&mut lan)?;
    let places = (0..THIEVES)
        .map(|at| lan.plug(&format!("thief{at}"), &format!("10.77.0.{}/24", 60 + at)))
        .collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let mut sum = [0; 4];
    let each = TRIES_FOR_INVITATION / THIEVES;
    let mut first = 0;
    let mut open = None;
    for _ in 0..INVITATIONS {
        let ticket = open.insert(ticket(&laptop)?);
        let mut thieves = Vec::new();
        for place in &places {
            thieves.push(guessing(place, ticket, (first, each))?);
            first += each;
        }
        for mut thief in thieves {
            for (sum, more) in sum.iter_mut().zip(counted(&mut thief)?) {
                *sum += more;
            }
            thief.end()?;
        }
    }
    let [refused, other, further, turned_away] = sum;
    eprintln!(
        "  {first} guests with a guess: {refused} refused at the proof, {further} got further; \
         {turned_away} times one waited for a place; after {:.2} s",
        start.elapsed().as_secs_f64()
    );
    ensure!([refused, other, further] == [INVITATIONS * TRIES_FOR_INVITATION, 0, 0]);
    ensure!(names(&laptop)? == ["laptop"]);

    // The last invitation is open still, and one of them goes on.
    let mut thief = guessing(&places[0], open.as_ref().context("it is open")?, (first, each))?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(thief.runs()?, "the attack goes on");
    let start = Instant::now();
    join(&phone, &open.context("it is open")?.to_string())?;
    let took = start.elapsed().as_secs_f64();
    eprintln!("  the phone joined under attack: after {took:.2} s");
    ensure!(counted(&mut thief)?[2] == 0);
    thief.end()?;
    ensure!(names(&laptop)? == ["laptop", "phone"]);
    Ok(())
}

#[test]
fn who_forwards_every_byte_hears_nothing_and_the_right_two_pair() -> Result<()> {
    let test = "who_forwards_every_byte_hears_nothing_and_the_right_two_pair";
    let Some(mut lan) = Lan::of(test) else { return Ok(()) };
    let (laptop, phone) = laptop_and_phone(&mut lan)?;
    let tablet = Device::new(lan.plug("tablet", "10.77.0.3/24")?)?;
    let place = lan.plug("mallory", "10.77.0.66/24")?;
    let folder = tempfile::tempdir()?;
    let relay = |to: SocketAddr, record: &str| -> Result<(Program, SocketAddr)> {
        let to = to.to_string();
        let given = [(LAPTOP, to.as_str()), (RECORD, record)];
        let mut relay = Program::start(&place, "middleman::relays", &given)?;
        let port: u16 = relay.hear("AT ")?.parse()?;
        Ok((relay, ([10, 77, 0, 66], port).into()))
    };
    let heard_nothing = |mut relay: Program, record: &str, secrets: &[&[u8]]| -> Result<()> {
        relay.say("")?;
        eprintln!("  {} times", relay.hear("RELAYED ")?);
        relay.end()?;
        let heard = fs::read(record)?;
        ensure!(heard.len() > 10_000, "all went through him: {} bytes", heard.len());
        for secret in secrets {
            ensure!(!heard.windows(secret.len()).any(|it| it == *secret), "{secret:?}");
        }
        Ok(())
    };
    let names_of_both: [&[u8]; 2] = [b"laptop", b"phone"];

    let record = folder.path().join("ticket");
    let record = record.to_str().context("a path in UTF-8")?;
    let ours = ticket(&laptop)?;
    let quic = ours.addresses.iter().find_map(|it| socket(it).ok()).context("no QUIC")?;
    let (program, at) = relay(quic, record)?;
    let SocketAddr::V4(via) = at else { unreachable!("it is IPv4") };
    let addresses = vec![TicketAddress::Ip4(*via.ip(), via.port(), Transport::Quic)];
    join(&phone, &Ticket { addresses, ..ours.clone() }.to_string())?;
    ensure!(names(&laptop)? == ["laptop", "phone"], "the honest two are paired");
    heard_nothing(program, record, &[&names_of_both[..], &[ours.secret.expose()]].concat())?;

    let record = folder.path().join("code");
    let record = record.to_str().context("a path in UTF-8")?;
    let (code, _, quic) = code(&laptop)?;
    let (program, at) = relay(quic, record)?;
    let (code, at) = (code.to_string(), at.to_string());
    let named = ["--name", "tablet", "--kind", "phone", "--yes", "--key", "file"];
    tablet.weft(&[&["join", &code, "--at", &at][..], &named].concat())?;
    ensure!(names(&laptop)? == ["laptop", "phone", "tablet"]);
    heard_nothing(program, record, &[&names_of_both[..], &[code.as_bytes()]].concat())?;
    // Nor did it help to say all of it again.
    ensure!(names(&laptop)? == ["laptop", "phone", "tablet"]);
    Ok(())
}

#[test]
fn who_stands_at_the_address_with_a_key_of_his_own_pairs_with_neither_by_a_ticket() -> Result<()> {
    let test = "who_stands_at_the_address_with_a_key_of_his_own_pairs_with_neither_by_a_ticket";
    let Some(mut lan) = Lan::of(test) else { return Ok(()) };
    let (laptop, phone) = laptop_and_phone(&mut lan)?;
    let place = lan.plug("mallory", "10.77.0.66/24")?;
    let mut he = Program::start(&place, "middleman::listens", &[])?;
    let at = he.hear("AT ")?;
    let addresses = at.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let ours = ticket(&laptop)?;
    let turned = Ticket { addresses, ..ours.clone() }.to_string();
    let tries = TRIES_IN_THE_PATH.to_string();
    let given = [(MEANS, turned.as_str()), (FIRST, "1000000"), (TRIES, &tries)];
    let start = Instant::now();
    // Towards the phone he is the laptop, towards the laptop he is the phone.
    let mut phones = Program::start(phone.plug(), "guest::joins_with_a_ticket", &given)?;
    let mut his = guessing(&place, &ours, (0, TRIES_OF_HIS))?;
    let [refused, other, further, _] = counted(&mut phones)?;
    let [his_refused, _, his_further, _] = counted(&mut his)?;
    phones.end()?;
    his.end()?;
    he.say("")?;
    let talked: u32 = he.hear("TALKED ")?.parse()?;
    he.end()?;
    eprintln!(
        "  {TRIES_IN_THE_PATH} times in the path of a ticket: the phone left him {other} times and \
         talked to him {talked} times; the laptop refused him {his_refused} times; {} paired; \
         after {:.2} s",
        further + his_further,
        start.elapsed().as_secs_f64()
    );
    ensure!([refused, other, further, talked] == [0, TRIES_IN_THE_PATH, 0, 0]);
    ensure!([his_refused, his_further] == [TRIES_OF_HIS, 0]);
    ensure!(names(&laptop)? == ["laptop"]);
    join(&phone, &ours.to_string())?;
    ensure!(names(&laptop)? == ["laptop", "phone"]);
    Ok(())
}

#[test]
fn who_stands_between_with_keys_of_his_own_burns_a_code_and_pairs_with_neither() -> Result<()> {
    let test = "who_stands_between_with_keys_of_his_own_burns_a_code_and_pairs_with_neither";
    let Some(mut lan) = Lan::of(test) else { return Ok(()) };
    let (laptop, phone) = laptop_and_phone(&mut lan)?;
    let place = lan.plug("mallory", "10.77.0.66/24")?;
    let mut he = Program::start(&place, "middleman::plays_both", &[])?;
    let start = Instant::now();
    let (mut carried, mut guessed) = (0, 0);
    let wrong = format!("{:?}", Try::Ended(Outcome::Refused, Some(Reason::WrongCode)));
    for number in 0..CODES {
        let (code, at, _) = code(&laptop)?;
        let code = code.to_string();
        he.say(&format!("{} {at}", &code[..4]))?;
        let his = he.hear("AT ")?;
        let number = number.to_string();
        let given = [(MEANS, code.as_str()), (AT, &his), (FIRST, &number)];
        let mut joiner = Program::start(phone.plug(), "guest::joins_with_a_code", &given)?;
        let tried = joiner.hear("TRIED ")?;
        ensure!(tried == wrong, "{tried}");
        joiner.end()?;
        let got = he.hear("GOT by ")?;
        ensure!(got.ends_with(": 0 0"), "{got}");
        carried += u32::from(got.starts_with("carrying"));
        guessed += u32::from(got.starts_with("a guess"));
        // The right one, at the right place, comes too late.
        if number == "0" {
            let given = [(MEANS, code.as_str()), (AT, &at), (FIRST, "1000")];
            let mut late = Program::start(phone.plug(), "guest::joins_with_a_code", &given)?;
            let tried = late.hear("TRIED ")?;
            ensure!(tried == wrong, "{tried}");
            late.end()?;
        }
    }
    he.end()?;
    eprintln!(
        "  {CODES} times between a code: {carried} times all was carried, {guessed} times both were \
         answered by a guess; wrong code on both sides each time, 0 paired; after {:.2} s",
        start.elapsed().as_secs_f64()
    );
    ensure!(carried + guessed == CODES && carried > 0 && guessed > 0);
    ensure!(names(&laptop)? == ["laptop"]);
    let (code, ..) = code(&laptop)?;
    join(&phone, &code.to_string())?;
    ensure!(names(&laptop)? == ["laptop", "phone"]);
    Ok(())
}

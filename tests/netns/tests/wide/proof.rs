//! That the lab's networks are what they are said to be, without any node of ours.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weft_netns::{EXPOSED, Internet, Nat, Plug, Weather};

/// How long a packet within one machine may take.
const ARRIVES: Duration = Duration::from_millis(500);

/// The port of the one behind the router, and of those who watch.
const PORT: u16 = 7_000;

/// Somebody who says from where he was written to.
struct Observer {
    at: SocketAddr,
    socket: UdpSocket,
}

impl Observer {
    fn new(plug: &Plug, address: &str, port: u16) -> Result<Self> {
        let socket = plug.socket(port)?;
        socket.set_read_timeout(Some(ARRIVES))?;
        Ok(Self { at: SocketAddr::new(address.parse()?, port), socket })
    }

    /// Where a packet came from that `from` sent here.
    fn sees(&self, from: &UdpSocket) -> Result<SocketAddr> {
        from.send_to(b"who am I", self.at)?;
        Ok(self.socket.recv_from(&mut [0; 64]).context("nothing arrived")?.1)
    }

    /// Whether what it sends to that address arrives at `whom`.
    fn reaches(&self, address: SocketAddr, whom: &UdpSocket) -> Result<bool> {
        self.socket.send_to(b"here I am", address)?;
        let mut buffer = [0; 64];
        while let Ok((_, from)) = whom.recv_from(&mut buffer) {
            if from == self.at {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[test]
fn each_kind_of_router_translates_and_filters_as_its_name_says() -> Result<()> {
    let test = "each_kind_of_router_translates_and_filters_as_its_name_says";
    let Some(mut internet) = Internet::of(test) else { return Ok(()) };
    let mut home = internet.home("home", Nat::FullCone, "198.51.100.1")?;
    let inside = internet.plug("inside", &home.outlet(), &format!("{EXPOSED}/24"))?;
    let (one, two) = (internet.host("one", "203.0.113.1")?, internet.host("two", "203.0.113.2")?);
    let first = Observer::new(&one, "203.0.113.1", PORT)?;
    let first_elsewhere = Observer::new(&one, "203.0.113.1", PORT + 1)?;
    let second = Observer::new(&two, "203.0.113.2", PORT)?;
    let unasked = Observer::new(&two, "203.0.113.2", PORT + 1)?;
    for nat in [Nat::FullCone, Nat::Restricted, Nat::Symmetric] {
        home.become_a(nat)?;
        let socket = inside.socket(PORT)?;
        socket.set_read_timeout(Some(ARRIVES))?;
        let (seen, seen_by_second) = (first.sees(&socket)?, second.sees(&socket)?);
        let answered = first.reaches(seen, &socket)?;
        let elsewhere = first_elsewhere.reaches(seen, &socket)?;
        let by_stranger = unasked.reaches(seen, &socket)?;
        eprintln!(
            "  {nat:?}: port {PORT} is seen as {} and {}; in gets who was written to: {answered}, \
             the same from another port: {elsewhere}, a stranger: {by_stranger}",
            seen.port(),
            seen_by_second.port()
        );
        ensure!(seen.ip().to_string() == "198.51.100.1" && answered);
        ensure!((seen == seen_by_second) == (nat != Nat::Symmetric), "{nat:?}");
        ensure!((seen.port() == PORT) == (nat != Nat::Symmetric), "{nat:?}");
        ensure!(elsewhere == (nat == Nat::FullCone) && by_stranger == elsewhere, "{nat:?}");
        // Who is forgotten is a stranger, until he is written to again.
        home.forget()?;
        ensure!(first.reaches(seen, &socket)? == (nat == Nat::FullCone), "{nat:?} remembers");
        let seen_anew = first.sees(&socket)?;
        ensure!((seen == seen_anew) == (nat != Nat::Symmetric), "{nat:?}: {seen_anew}");
    }
    Ok(())
}

#[test]
fn a_cable_loses_what_its_weather_says_and_the_counter_counts_the_rest() -> Result<()> {
    const SENT: u64 = 2_000;
    let test = "a_cable_loses_what_its_weather_says_and_the_counter_counts_the_rest";
    let Some(mut internet) = Internet::of(test) else { return Ok(()) };
    let mut home = internet.home("home", Nat::Restricted, "198.51.100.1")?;
    let inside = internet.plug("inside", &home.outlet(), "192.168.1.20/24")?;
    let one = internet.host("one", "203.0.113.1")?;
    let (socket, there) = (inside.socket(PORT)?, one.socket(PORT)?);
    there.set_read_timeout(Some(ARRIVES))?;
    let send = |to: &str, times: u64| -> Result<()> {
        for _ in 0..times {
            socket.send_to(b"one", to)?;
            // A queue of the kernel must not overflow.
            thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    };
    for percent in [0, 5, 20, 40] {
        inside.set_weather(Weather::Loss { percent })?;
        let outside = internet.count(home.outside(), &[("port", "udp dport 7000")])?;
        send("203.0.113.1:7000", SENT)?;
        send("203.0.113.1:7001", 1)?;
        let counted = outside.read()?;
        let lost = 100 - counted.kinds["port"] * 100 / SENT;
        eprintln!("  {percent} % lost: {lost} % were, {} packets besides", counted.rest);
        ensure!(lost.abs_diff(percent.into()) <= 5, "{lost} % were lost, not {percent} %");
        ensure!(percent > 0 || counted.rest == 1 && counted.rest_went_to.contains("7001"));
    }
    // What was lost so is lost without a word, and UDP alone where only UDP is.
    while there.recv_from(&mut [0; 8]).is_ok() {}
    inside.set_weather(Weather::WithoutUdp)?;
    send("203.0.113.1:7000", 10)?;
    ensure!(there.recv_from(&mut [0; 8]).is_err(), "UDP gets through");
    inside.set_weather(Weather::Clear)?;
    send("203.0.113.1:7000", 1)?;
    ensure!(there.recv_from(&mut [0; 8]).is_ok(), "nothing gets through");
    // What is multicast stays at home, where the router hears it.
    let heard = home.count_inside(&[("mdns", "ip daddr 224.0.0.251")])?;
    let outside = internet.count(home.outside(), &[])?;
    send("224.0.0.251:5353", 3)?;
    ensure!(heard.read()?.kinds["mdns"] == 3, "{:?}", heard.read()?);
    inside.set_weather(Weather::WithoutMulticast)?;
    send("224.0.0.251:5353", 3)?;
    ensure!(heard.read()?.kinds["mdns"] == 3, "{:?}", heard.read()?);
    ensure!(outside.read()?.rest == 0, "{:?}", outside.read()?);
    Ok(())
}

#[test]
fn two_homes_with_the_same_addresses_do_not_meet() -> Result<()> {
    let test = "two_homes_with_the_same_addresses_do_not_meet";
    let Some(mut internet) = Internet::of(test) else { return Ok(()) };
    let mut sockets = Vec::new();
    let mut homes = Vec::new();
    for (home, address) in [("home0", "198.51.100.1"), ("home1", "198.51.100.2")] {
        let router = internet.home(home, Nat::Restricted, address)?;
        let plug = internet.plug(&format!("in-{home}"), &router.outlet(), "192.168.1.10/24")?;
        let socket = plug.socket(PORT)?;
        socket.set_read_timeout(Some(ARRIVES))?;
        sockets.push(socket);
        homes.push((router, plug));
    }
    let [one, two] = &sockets[..] else { unreachable!("there are two") };
    // The private address is one's own.
    one.send_to(b"one", "192.168.1.10:7000")?;
    ensure!(two.recv_from(&mut [0; 8]).is_err() && one.recv_from(&mut [0; 8]).is_ok());
    // A hole is made by both at once: the first packet is lost, the answer is not.
    one.send_to(b"one", "198.51.100.2:7000")?;
    ensure!(two.recv_from(&mut [0; 8]).is_err());
    two.send_to(b"two", "198.51.100.1:7000")?;
    let (_, from) = one.recv_from(&mut [0; 8]).context("the hole is closed")?;
    ensure!(from.to_string() == "198.51.100.2:7000", "{from}");
    homes[0].0.become_a(Nat::Symmetric)?;
    one.send_to(b"one", "198.51.100.2:7000")?;
    two.send_to(b"two", "198.51.100.1:7000")?;
    ensure!(one.recv_from(&mut [0; 8]).is_err() && two.recv_from(&mut [0; 8]).is_err());
    Ok(())
}

//! What a fabric says to anybody but itself: nothing.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use weft_netns::{Device, Home, Internet, Nat, SOON};

use crate::lab::{is_soak, must_call};

/// How long it is listened to besides while nobody does anything.
const QUIET: Duration = Duration::from_secs(15);

/// What a device may say to all on its own network, and why.
const TO_ITS_NETWORK: &[(&str, &str)] = &[
    // To be found by the others, and to find them.
    ("mdns", "ip daddr 224.0.0.251 udp dport 5353"),
    // The kernel's own: that it wants to hear what is multicast there (IGMP).
    ("membership", "ip protocol igmp"),
    // To ask the router for a port (UPnP).
    ("upnp", "ip daddr 239.255.255.250 udp dport 1900"),
];

#[test]
fn a_fabric_at_home_says_nothing_to_anybody_outside() -> Result<()> {
    let test = "a_fabric_at_home_says_nothing_to_anybody_outside";
    let Some(mut internet) = Internet::of(test) else { return Ok(()) };
    let mut router = internet.home("home", Nat::FullCone, "198.51.100.1")?;
    let outlet = router.outlet();
    let mut plug = |name, host| internet.plug(name, &outlet, &format!("192.168.1.{host}/24"));
    let plugs = [plug("laptop", 10)?, plug("phone", 11)?, plug("server", 12)?];
    let heard = router.count_inside(TO_ITS_NETWORK)?;
    let outside = internet.count(router.outside(), &[])?;

    let [laptop, phone, server] = plugs;
    let mut home = Home::pair((internet, router), laptop, phone, server)?;
    Device::all_meet("all meet", SOON, &home.all())?;
    home.laptop.note("this stays within the walls")?;
    home.everybody_has("this stays within the walls")?;
    must_call(&home.laptop, "server")?;
    home.phone.kill()?;
    home.phone.up()?;
    Device::all_meet("all meet again", SOON, &home.all())?;
    home.server.plug_mut().readdress("192.168.1.99/24")?;
    home.laptop.note("and this, after a move")?;
    home.everybody_has("and this, after a move")?;
    thread::sleep(if is_soak() { QUIET * 40 } else { QUIET });

    let (heard, outside) = (heard.read()?, outside.read()?);
    eprintln!("  to all at home: {:?}, to the router or beyond: {}", heard.kinds, heard.rest);
    eprintln!("  on the street: {}", outside.rest);
    ensure!(heard.kinds["mdns"] > 0, "the counter hears nothing");
    ensure!(heard.rest == 0, "it spoke to {}", heard.rest_went_to);
    ensure!(outside.rest == 0, "outside it spoke to {}", outside.rest_went_to);
    home.ends_well()
}

//! Networks that lack something: UDP, what is multicast, IPv4.

use anyhow::{Result, ensure};
use weft_netns::{Device, Home, Internet, Lan, Nat, Plug, Router, SOON, Weather};

use crate::lab::{Place, lab, meet, must_call, pass};

/// Three devices in one home, behind its router.
fn at_home(test: &str) -> Result<Option<(Internet, Router, [Plug; 3])>> {
    let Some(mut internet) = Internet::of(test) else { return Ok(None) };
    let router = internet.home("home", Nat::Restricted, "198.51.100.1")?;
    let outlet = router.outlet();
    let mut plug = |name, host| internet.plug(name, &outlet, &format!("192.168.1.{host}/24"));
    let plugs = [plug("laptop", 10)?, plug("phone", 11)?, plug("server", 12)?];
    Ok(Some((internet, router, plugs)))
}

#[test]
fn without_udp_tcp_takes_over() -> Result<()> {
    let test = "without_udp_tcp_takes_over";
    let restricted = Place::Behind(Nat::Restricted);
    let Some(mut home) = lab(test, restricted, restricted)? else { return Ok(()) };
    for device in [&home.laptop, &home.phone] {
        eprintln!("  with UDP: {}", device.address_of("server")?);
    }
    // It goes while they are connected, and they start where there is none.
    home.laptop.plug().set_weather(Weather::WithoutUdp)?;
    meet("UDP is gone: laptop and server meet", &home.laptop, &home.server)?;
    pass("written without UDP", &home.laptop, &home.server)?;
    home.phone.stop()?;
    home.phone.plug().set_weather(Weather::WithoutUdp)?;
    home.phone.up()?;
    meet("a start without UDP: phone and server meet", &home.phone, &home.server)?;
    for device in [&home.laptop, &home.phone] {
        let address = device.address_of("server")?;
        ensure!(address.contains("/tcp/"), "there is no UDP: {address}");
    }
    let (way, _) = meet("laptop and phone meet", &home.laptop, &home.phone)?;
    eprintln!("  laptop and phone without UDP: {way} at first");
    pass("from laptop to phone without UDP", &home.laptop, &home.phone)?;
    must_call(&home.laptop, "phone")?;
    for device in [&home.laptop, &home.phone] {
        device.plug().set_weather(Weather::Clear)?;
    }
    home.phone.stop()?;
    home.phone.up()?;
    meet("UDP is back: phone and server meet", &home.phone, &home.server)?;
    eprintln!("  with UDP again: {}", home.phone.address_of("server")?);
    home.ends_well()
}

#[test]
fn without_multicast_a_ticket_and_remembered_addresses_suffice() -> Result<()> {
    let test = "without_multicast_a_ticket_and_remembered_addresses_suffice";
    let Some((internet, router, plugs)) = at_home(test)? else { return Ok(()) };
    for plug in &plugs {
        plug.set_weather(Weather::WithoutMulticast)?;
    }
    let heard = router.count_inside(&[("multicast", "ip daddr 224.0.0.0/4")])?;
    let [laptop, phone, server] = plugs;
    let mut home = Home::pair((internet, router), laptop, phone, server)?;
    Device::all_meet("all meet after pairing by ticket", SOON, &home.all())?;
    for device in home.all_mut() {
        device.stop()?;
    }
    for device in home.all_mut() {
        device.up()?;
    }
    Device::all_meet("all meet after they started anew", SOON, &home.all())?;
    home.phone.stop()?;
    home.phone.plug_mut().readdress("192.168.1.99/24")?;
    home.phone.plug().set_weather(Weather::WithoutMulticast)?;
    home.phone.up()?;
    Device::all_meet("the phone has another address: all meet", SOON, &home.all())?;
    home.phone.note("nobody heard of me by multicast")?;
    home.everybody_has("nobody heard of me by multicast")?;
    ensure!(heard.read()?.kinds["multicast"] == 0, "something is multicast");
    home.ends_well()
}

#[test]
fn where_there_is_ipv6_alone_a_ticket_leads_to_the_others() -> Result<()> {
    let test = "where_there_is_ipv6_alone_a_ticket_leads_to_the_others";
    let Some(mut lan) = Lan::of_v6(test) else { return Ok(()) };
    let laptop = lan.plug("laptop", "fd77::1/64")?;
    let phone = lan.plug("phone", "fd77::2/64")?;
    let server = lan.plug("server", "fd77::3/64")?;
    let mut home = Home::pair(lan, laptop, phone, server)?;
    Device::all_meet("all meet", SOON, &home.all())?;
    let address = home.laptop.address_of("server")?;
    ensure!(address.starts_with("/ip6/fd77::3/"), "{address}");
    home.laptop.note("there is no IPv4 here")?;
    home.everybody_has("there is no IPv4 here")?;
    must_call(&home.laptop, "phone")?;
    for device in home.all_mut() {
        device.stop()?;
        device.up()?;
    }
    Device::all_meet("all meet after they started anew", SOON, &home.all())?;
    home.phone.plug_mut().readdress("fd77::99/64")?;
    home.phone.note("the phone has another address")?;
    home.everybody_has("the phone has another address")?;
    home.ends_well()
}

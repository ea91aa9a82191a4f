//! A laptop whose router maps ports for it (UPnP), and a phone whose router does nothing for it.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_netns::{Device, EXPOSED, Gateway, Home, Internet, Mapping, Nat, Router, SOON, until};

use crate::lab::{is_soak, meet, meet_by, must_call, pass};

/// The laptop's public address. Those of the lab, which are documentation's (RFC 5737), count as nobody's
/// for whoever maps ports; this is of a network that once was reserved (RFC 3330), and here nothing leads
/// to whoever has it now.
const PUBLIC: &str = "223.255.255.1";

/// The next one.
const PUBLIC_NEXT: &str = "223.255.255.7";

/// How long a way must hold that is said to be the last: each try at a better one is over by then.
const HOLDS: Duration = Duration::from_secs(6);

/// How long a router may go unnoticed that was not there before, or has another address: it is not asked often.
const FOUND: Duration = Duration::from_secs(150);

/// What may never leave a home.
const MULTICAST: &[(&str, &str)] = &[("multicast", "ip daddr 224.0.0.0/4")];

/// The public network, the laptop's router and the phone's.
struct Lab {
    internet: Internet,
    laptops: Router,
    phones: Router,
}

/// Laptop and phone each behind a router, the phone's symmetric; none maps ports yet.
fn lab(test: &str, laptops: Nat) -> Result<Option<Home<Lab>>> {
    if !Gateway::is_here(test) {
        return Ok(None);
    }
    let Some(mut internet) = Internet::of(test) else { return Ok(None) };
    let laptops = internet.home("laptops", laptops, PUBLIC)?;
    let phones = internet.home("phones", Nat::Symmetric, "198.51.100.2")?;
    let laptop = internet.plug("laptop", &laptops.outlet(), &format!("{EXPOSED}/24"))?;
    let phone = internet.plug("phone", &phones.outlet(), &format!("{EXPOSED}/24"))?;
    let server = internet.host("server", "203.0.113.1")?;
    Home::pair(Lab { internet, laptops, phones }, laptop, phone, server).map(Some)
}

/// What its router is to pass on to the laptop: its port, by both transports.
fn wanted(laptop: &Device) -> Result<BTreeSet<Mapping>> {
    let port = laptop.port()?;
    let to = format!("{EXPOSED}:{port}").parse()?;
    Ok(["udp", "tcp"].map(|transport| Mapping { transport, port, to }).into())
}

/// What a device says of how it is reached.
fn reach(device: &Device) -> Result<Value> {
    Ok(device.json(&["status"])?["reach"].take())
}

/// Which public addresses a device says that its router passes on to it.
fn mapped(device: &Device) -> Result<Vec<String>> {
    let reach = reach(device)?;
    let mapped = reach["mapped"].as_array().with_context(|| format!("none in {reach}"))?;
    let mut mapped: Vec<_> = mapped.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    mapped.sort();
    Ok(mapped)
}

/// Waits until the router passes on what the laptop wants, and the laptop says so.
fn is_mapped(laptop: &Device, gateway: &Gateway, public: &str) -> Result<()> {
    let (wanted, port) = (wanted(laptop)?, laptop.port()?);
    let named = [format!("/ip4/{public}/tcp/{port}"), format!("/ip4/{public}/udp/{port}/quic-v1")];
    let rules = until("the router passes on what comes for the laptop", FOUND, || {
        let rules = gateway.mappings()?;
        ensure!(rules == wanted, "it passes on {rules:?}");
        Ok(true)
    });
    rules.with_context(|| gateway.log()).with_context(|| laptop.log_tail())?;
    until("the laptop says so", FOUND, || {
        let mapped = mapped(laptop)?;
        ensure!(mapped == named, "it says {mapped:?}");
        Ok(true)
    })?;
    Ok(())
}

/// They meet directly, at the address that the router passes on.
fn are_direct(what: &str, home: &Home<Lab>, public: &str) -> Result<()> {
    meet_by(what, "direct", &home.laptop, &home.phone)?;
    let port = home.laptop.port()?;
    let mapped = ["udp", "tcp"].map(|it| format!("/ip4/{public}/{it}/{port}"));
    // A connection to where the laptop was may be there still.
    until("the phone reaches the laptop at what its router passes on", SOON, || {
        let at = home.phone.address_of("laptop")?;
        ensure!(mapped.iter().any(|it| at.starts_with(it)), "it reaches it at {at}");
        eprintln!("  the phone reaches the laptop at {at}");
        Ok(home.phone.way_to("laptop")?.as_deref() == Some("direct"))
    })?;
    Ok(())
}

/// They stay relayed, whatever they try.
fn stay_relayed(what: &str, home: &Home<Lab>) -> Result<()> {
    meet(what, &home.laptop, &home.phone)?;
    thread::sleep(HOLDS);
    meet_by(&format!("{what}, and are relayed still"), "relayed", &home.laptop, &home.phone)?;
    Ok(())
}

/// What `weft doctor` says of a device's router.
fn doctor(device: &Device, about: &str) -> Result<String> {
    let said = device.try_weft(&["doctor", "--json"], SOON)?;
    let said: Value = serde_json::from_str(&said.stdout).with_context(|| format!("{said:?}"))?;
    let mut findings = said["findings"].as_array().into_iter().flatten();
    let found = findings.find(|it| it["about"] == about);
    let what = found.and_then(|it| it["what"].as_str());
    what.map(str::to_owned).with_context(|| format!("nothing about {about} in {said}"))
}

/// The laptop stops: what its router passed on, it no longer does.
fn stops(home: &mut Home<Lab>, gateway: &Gateway) -> Result<()> {
    home.laptop.stop()?;
    let rules = gateway.mappings()?;
    ensure!(rules.is_empty(), "the laptop stopped, and its router passes on {rules:?}");
    Ok(())
}

#[test]
fn a_router_that_maps_a_port_lets_the_phone_in_directly() -> Result<()> {
    let test = "a_router_that_maps_a_port_lets_the_phone_in_directly";
    let kinds = [Nat::Symmetric, Nat::Restricted];
    for nat in if is_soak() { &kinds[..] } else { &kinds[..1] } {
        let Some(mut home) = lab(test, *nat)? else { return Ok(()) };
        let outside = home.network.internet.count(home.network.laptops.outside(), MULTICAST)?;
        stay_relayed("no router maps ports: they meet", &home)?;
        ensure!(mapped(&home.laptop)?.is_empty());
        until("the laptop says that no router answers", SOON, || {
            Ok(reach(&home.laptop)?["troubles"].to_string().contains("no router answers"))
        })?;
        eprintln!("  doctor: {}", doctor(&home.laptop, "router")?);

        // It is found although it was not there when it was searched for.
        let gateway = home.network.internet.offer_upnp(&home.network.laptops)?;
        is_mapped(&home.laptop, &gateway, PUBLIC)?;
        are_direct("the laptop's router maps its port: they are direct", &home, PUBLIC)?;
        until("the laptop says at which address it is reached", SOON, || {
            let said = doctor(&home.laptop, "reach")?;
            ensure!(said.contains(PUBLIC) && said.contains("(UPnP)"), "{said}");
            eprintln!("  doctor: {said}");
            Ok(true)
        })?;
        pass("through a mapped port", &home.laptop, &home.phone)?;
        pass("and the other way round", &home.phone, &home.laptop)?;
        must_call(&home.phone, "laptop")?;
        home.phone.stop()?;
        home.phone.up()?;
        are_direct("the phone starts anew: they are direct", &home, PUBLIC)?;

        stops(&mut home, &gateway)?;
        home.laptop.up()?;
        is_mapped(&home.laptop, &gateway, PUBLIC)?;
        are_direct("the laptop starts anew: they are direct", &home, PUBLIC)?;

        // The next start takes over what one left behind that was killed.
        home.laptop.kill()?;
        ensure!(gateway.mappings()? == wanted(&home.laptop)?, "who was killed took it back");
        home.laptop.up()?;
        is_mapped(&home.laptop, &gateway, PUBLIC)?;
        are_direct("the laptop was killed and starts anew: they are direct", &home, PUBLIC)?;

        let outside = outside.read()?;
        ensure!(outside.kinds["multicast"] == 0, "a search for a router left the home");
        home.ends_well()?;
    }
    Ok(())
}

#[test]
fn a_mapped_port_follows_the_public_address_and_is_left_with_the_home() -> Result<()> {
    let test = "a_mapped_port_follows_the_public_address_and_is_left_with_the_home";
    if !Gateway::is_here(test) {
        return Ok(());
    }
    let Some(mut home) = lab(test, Nat::Restricted)? else { return Ok(()) };
    // As where containers run: the router is to pass nothing on to that.
    home.laptop.plug().add_inner("172.17.0.1/16")?;
    let gateway = home.network.internet.offer_upnp(&home.network.laptops)?;
    home.laptop.stop()?;
    home.laptop.up()?;
    is_mapped(&home.laptop, &gateway, PUBLIC)?;
    are_direct("a router maps ports: they are direct", &home, PUBLIC)?;

    // As with many providers, once a day.
    home.network.laptops.outside().readdress(PUBLIC_NEXT)?;
    home.network.laptops.forget()?;
    is_mapped(&home.laptop, &gateway, PUBLIC_NEXT)?;
    are_direct("the public address is another: they are direct", &home, PUBLIC_NEXT)?;

    let (outlet, address) = (home.network.phones.outlet(), "192.168.1.77/24");
    home.laptop.move_to(&outlet, address)?;
    until("the laptop is elsewhere, and names no mapping", SOON, || {
        Ok(mapped(&home.laptop)?.is_empty())
    })?;
    meet_by("at home with the phone: they are direct", "direct", &home.laptop, &home.phone)?;
    let at = home.phone.address_of("laptop")?;
    ensure!(!at.contains(PUBLIC_NEXT), "the phone reaches the laptop at {at}");
    gateway.stop()?;
    home.ends_well()
}

//! Three nodes on a local network that is made for them: how they meet, and meet again.
//!
//! No test asserts on a time: the deadlines only end what hangs, and what was measured is printed.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use weft_netns::{Device, Home, Lan, Plug, SOON, until};

/// A peer that is gone without a word is given up within some 10 s.
const NOTICED: Duration = Duration::from_secs(60);

/// How long a quiet connection takes at most to say that it lives.
const AWAKE: Duration = Duration::from_secs(4);

/// An outage that connections outlive.
const SHORT: Duration = Duration::from_secs(5);

/// Prints how long after `start` something was.
fn print(what: &str, start: Instant, at: Instant) {
    eprintln!("  {what}: after {:.2} s", at.saturating_duration_since(start).as_secs_f64());
}

/// Three devices on it, paired and running, each of which sees the others.
fn paired(mut lan: Lan) -> Result<Home<Lan>> {
    let laptop = lan.plug("laptop", "10.77.0.1/24")?;
    let phone = lan.plug("phone", "10.77.0.2/24")?;
    let server = lan.plug("server", "10.77.0.3/24")?;
    let home = Home::pair(lan, laptop, phone, server)?;
    Device::all_meet("all three see each other after pairing", SOON, &home.all())?;
    Ok(home)
}

/// Takes the phone off the network for a while by `cut`, back by `mend`; on both sides of the
/// gap something is written meanwhile, and the other side must hear of it.
fn interrupt(
    home: &Home<Lan>,
    what: &str,
    cut: impl Fn(&Plug) -> Result<()>,
    mend: impl Fn(&Plug) -> Result<()>,
) -> Result<()> {
    let (mut at_laptop, mut at_phone) = (home.laptop.watch()?, home.phone.watch()?);
    let start = Instant::now();
    cut(home.phone.plug())?;
    home.laptop.note(&format!("from the laptop: {what}"))?;
    home.phone.note(&format!("from the phone: {what}"))?;
    thread::sleep(SHORT.saturating_sub(start.elapsed()));
    at_laptop.drain();
    at_phone.drain();
    let up = Instant::now();
    mend(home.phone.plug())?;
    print(&format!("{what}: the phone hears the others"), up, at_phone.arrival(SOON)?);
    print(&format!("{what}: the laptop hears the phone"), up, at_laptop.arrival(SOON)?);
    home.everybody_has(&format!("from the laptop: {what}"))?;
    home.everybody_has(&format!("from the phone: {what}"))
}

/// Pulls the phone's cable until each side has noticed that the other is gone, and puts it back
/// in; says how both went.
fn part(home: &Home<Lan>, what: &str) -> Result<()> {
    let (mut at_laptop, mut at_phone) = (home.laptop.watch()?, home.phone.watch()?);
    // What an outage before left half awake has spoken by then.
    thread::sleep(AWAKE);
    let cut = Instant::now();
    home.phone.plug().pull()?;
    let noticed = at_laptop.device("away", "phone", NOTICED)?;
    print(&format!("{what}: the laptop notices that the phone is gone"), cut, noticed);
    let noticed = at_phone.device("away", "laptop", NOTICED)?;
    print(&format!("{what}: the phone notices that the laptop is gone"), cut, noticed);
    // A while of dials that lead nowhere.
    thread::sleep(SHORT);
    let up = Instant::now();
    home.phone.plug().put_back()?;
    let here = at_phone.device("here", "laptop", SOON)?;
    print(&format!("{what}: the phone has the laptop again"), up, here);
    let here = at_laptop.device("here", "phone", SOON)?;
    print(&format!("{what}: the laptop has the phone again"), up, here);
    Device::all_meet("all meet again", SOON, &home.all()).map(drop)
}

#[test]
fn devices_whose_addresses_all_changed_while_they_were_off_find_each_other() -> Result<()> {
    let Some(lan) = Lan::of("devices_whose_addresses_all_changed") else { return Ok(()) };
    let mut home = paired(lan)?;
    home.phone.note("the first note was written on the phone")?;
    home.everybody_has("the first note was written on the phone")?;

    for device in home.all_mut() {
        device.stop()?;
    }
    // What each remembers of the others leads nowhere now: not even a route is left.
    let addresses = ["10.78.0.11/24", "10.78.0.12/24", "10.78.0.13/24"];
    for (device, address) in home.all_mut().into_iter().zip(addresses) {
        device.plug_mut().readdress(address)?;
    }
    home.phone.up()?;
    home.server.up()?;
    let two = [&home.phone, &home.server];
    Device::all_meet("phone and server find each other by mDNS", SOON, &two)?;
    home.laptop.up()?;
    Device::all_meet("the laptop finds both by mDNS", SOON, &home.all())?;
    for device in home.all() {
        let devices = device.json(&["devices"])?;
        ensure!(!devices.to_string().contains("10.77.0."), "a stale address is in use: {devices}");
    }
    home.phone.note("we moved house")?;
    home.everybody_has("we moved house")?;
    home.ends_well()
}

#[test]
fn a_note_taken_while_the_cable_was_out_arrives_when_it_is_back() -> Result<()> {
    let Some(lan) = Lan::of("a_note_taken_while_the_cable_was_out") else { return Ok(()) };
    let home = paired(lan)?;

    home.phone.plug().pull()?;
    thread::sleep(Duration::from_secs(3));
    home.phone.note("the cable was out for a moment")?;
    home.phone.plug().put_back()?;
    home.everybody_has("the cable was out for a moment")?;

    home.phone.plug().pull()?;
    until("the laptop notices that the phone is gone", NOTICED, || {
        Ok(!home.laptop.sees("phone")?)
    })?;
    until("the phone notices that it is alone", NOTICED, || {
        Ok(!home.phone.sees("laptop")? && !home.phone.sees("server")?)
    })?;
    home.phone.note("written with nobody there")?;
    home.laptop.note("written while the phone was away")?;
    ensure!(!home.laptop.has_note("written with nobody there")?, "the cable is not out");
    home.phone.plug().put_back()?;
    Device::all_meet("all meet again after the cable is back", SOON, &home.all())?;
    home.everybody_has("written with nobody there")?;
    home.everybody_has("written while the phone was away")?;
    home.ends_well()
}

#[test]
fn a_link_that_was_out_for_a_moment_serves_again_once_it_is_back() -> Result<()> {
    let Some(lan) = Lan::of("a_link_that_was_out_for_a_moment") else { return Ok(()) };
    let home = paired(lan)?;
    for round in 1..=3 {
        interrupt(&home, &format!("cable out, round {round}"), Plug::pull, Plug::put_back)?;
    }
    for round in 1..=2 {
        interrupt(
            &home,
            &format!("interface off, round {round}"),
            Plug::switch_off,
            Plug::switch_on,
        )?;
    }
    home.ends_well()
}

#[test]
fn a_device_that_vanished_is_noticed_and_met_again_over_either_transport() -> Result<()> {
    let Some(lan) = Lan::of("a_device_that_vanished_is_noticed") else { return Ok(()) };
    let mut home = paired(lan)?;
    let ports = home.all().iter().map(|device| device.port()).collect::<Result<Vec<_>>>()?;
    let ways = |home: &Home<Lan>, change: &dyn Fn(&Plug, u16) -> Result<()>| {
        home.all()
            .iter()
            .try_for_each(|device| ports.iter().try_for_each(|&port| change(device.plug(), port)))
    };
    for (forbidden, spoken) in [("tcp", "/quic-v1"), ("udp", "/tcp/")] {
        if let Err(error) = ways(&home, &|plug, port| plug.forbid(forbidden, port)) {
            eprintln!("NOT RUN: without {forbidden}: {error:#}");
            return home.ends_well();
        }
        for device in home.all_mut() {
            device.stop()?;
            device.up()?;
        }
        Device::all_meet(&format!("all meet without {forbidden}"), SOON, &home.all())?;
        let address = home.laptop.address_of("phone")?;
        ensure!(address.contains(spoken), "{forbidden} is not cut off: {address}");
        for round in 1..=2 {
            part(&home, &format!("without {forbidden}, round {round}"))?;
            let cable = format!("without {forbidden}, cable out for a moment, round {round}");
            interrupt(&home, &cable, Plug::pull, Plug::put_back)?;
        }
        ways(&home, &|plug, port| plug.permit(forbidden, port))?;
    }
    home.ends_well()
}

#[test]
fn a_killed_node_is_met_again_as_soon_as_it_is_started_anew() -> Result<()> {
    let Some(lan) = Lan::of("a_killed_node_is_met_again") else { return Ok(()) };
    let mut home = paired(lan)?;
    for round in 1..=3 {
        for killed in 0..3 {
            let name = home.all()[killed].name().to_owned();
            let others = home.all().into_iter().filter(|device| device.name() != name);
            let mut watches = others
                .map(|device| Ok((device.name().to_owned(), device.watch()?)))
                .collect::<Result<Vec<_>>>()?;
            let device = match killed {
                0 => &mut home.laptop,
                1 => &mut home.phone,
                _ => &mut home.server,
            };
            device.kill()?;
            let start = Instant::now();
            device.up()?;
            print(
                &format!("round {round}: the {name} answers its own commands"),
                start,
                Instant::now(),
            );
            for (watcher, watch) in &mut watches {
                // What its predecessor left goes first, though nobody had noticed that it died.
                watch.device("away", &name, SOON)?;
                let here = watch.device("here", &name, SOON)?;
                print(&format!("round {round}: the {watcher} has the {name} again"), start, here);
            }
            Device::all_meet("all see each other", SOON, &home.all())?;
        }
    }
    home.ends_well()
}

#[test]
fn a_killed_node_comes_back_with_what_it_had_acknowledged() -> Result<()> {
    let Some(lan) = Lan::of("a_killed_node_comes_back") else { return Ok(()) };
    let mut home = paired(lan)?;

    home.server.note("acknowledged just before the end")?;
    home.server.kill()?;
    home.laptop.note("written while the server was dead")?;
    home.server.up()?;
    Device::all_meet("all meet again after the restart", SOON, &home.all())?;
    home.everybody_has("acknowledged just before the end")?;
    home.everybody_has("written while the server was dead")?;
    home.server.note("written after the restart")?;
    home.everybody_has("written after the restart")?;

    // The laptop does not notice at once that the phone died; its next start must not wait for it.
    home.phone.kill()?;
    home.phone.up()?;
    home.phone.note("the phone died and rose within a second")?;
    home.everybody_has("the phone died and rose within a second")?;
    home.ends_well()
}

#[test]
fn a_stranger_on_the_network_is_not_served() -> Result<()> {
    let Some(lan) = Lan::of("a_stranger_on_the_network") else { return Ok(()) };
    let mut home = paired(lan)?;
    let before: Vec<_> = home.all().iter().map(|device| device.devices()).collect::<Result<_>>()?;
    home.laptop.note("nobody else may read this")?;
    home.everybody_has("nobody else may read this")?;

    let mut stranger = Device::new(home.network.plug("stranger", "10.77.0.66/24")?)?;
    stranger.init("laptop")?;
    stranger.up()?;
    // Long enough for it to be seen by mDNS and for a few turns of anything that would dial it.
    thread::sleep(Duration::from_secs(8));
    for (host, device) in (1..).zip(home.all()) {
        let port = device.port()?;
        // Noise on both transports, from a machine that can reach every port.
        let noise = format!(
            "for i in 1 2 3 4 5 6; do \
               (exec 3<>/dev/tcp/10.77.0.{host}/{port} && head -c 70000 /dev/urandom >&3) || true; \
               (exec 3<>/dev/udp/10.77.0.{host}/{port} && head -c 1200 /dev/urandom >&3) || true; \
             done 2>/dev/null"
        );
        let mut shell = stranger.plug().command(Path::new("bash"));
        ensure!(shell.args(["-c", &noise]).status()?.success(), "there is no bash to make noise");
    }
    thread::sleep(Duration::from_secs(2));

    let alone = [("stranger".to_owned(), "here".to_owned())];
    ensure!(stranger.devices()? == alone, "the stranger knows {:?}", stranger.devices()?);
    ensure!(!stranger.has_note("nobody else may read this")?, "the stranger has a note");
    let after: Vec<_> = home.all().iter().map(|device| device.devices()).collect::<Result<_>>()?;
    ensure!(before == after, "the lists of devices changed: {before:?} to {after:?}");
    for device in home.all() {
        let status = device.json(&["status"])?;
        ensure!(status["devices_here"] == 2, "not both others are here: {status}");
        ensure!(
            status["warnings"].as_array().is_none_or(|them| {
                them.iter().all(|text| !text.to_string().contains("stranger"))
            }),
            "{status}"
        );
    }
    home.laptop.note("and the fabric goes on")?;
    home.everybody_has("and the fabric goes on")?;
    stranger.stop()?;
    home.ends_well()
}

//! The network changes under a running node: how soon it is back, and what becomes of calls.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use weft_netns::{Device, Home, Keyboard, Nat, SOON, Tally, until};

use crate::lab::{Lab, Place, call, is_soak, lab, meet, must_call, pass};

/// How long a device sleeps: others have given it up long before.
const SLEEP: Duration = Duration::from_secs(40);
const LONG_SLEEP: Duration = Duration::from_secs(600);

/// An outage that is noticed on both sides.
const OUTAGE: Duration = Duration::from_secs(15);

/// How soon after the network is back a device must be: more than the aim of 3 s, since the machine
/// has other things to do.
const BACK: Duration = Duration::from_secs(20);

/// Has a device call another without a pause while something happens.
fn calling<T>(
    from: &Keyboard,
    on: &str,
    happens: impl FnOnce() -> Result<T>,
) -> Result<(T, Tally)> {
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut tally = Tally::default();
            while goes_on.load(Ordering::Relaxed) {
                tally.add(call(from, on)?);
            }
            anyhow::Ok(tally)
        });
        let happened = happens();
        goes_on.store(false, Ordering::Relaxed);
        let tally = caller.join().map_err(|_| anyhow::anyhow!("a caller panicked"))?;
        Ok((happened?, tally?))
    })
}

/// None hung; those that failed say why.
fn check(what: &str, tally: &Tally) -> Result<()> {
    eprintln!("  {what}: {tally}");
    for why in tally.failed() {
        ensure!(why.starts_with("error: "), "{what}: it does not say why: {why:?}");
    }
    ensure!(tally.wrong().is_empty(), "{what}: {:?}", tally.wrong());
    Ok(())
}

/// The laptop's way to the others is changed while it calls the server; how soon it works again.
fn changed(
    home: &mut Home<Lab>,
    what: &str,
    change: impl FnOnce(&mut Device, &mut Lab) -> Result<()>,
) -> Result<()> {
    let Home { laptop, server, network, phone } = home;
    let keyboard = laptop.keyboard().clone();
    let ((), tally) = calling(&keyboard, "server", || {
        thread::sleep(Duration::from_millis(500));
        change(laptop, network)?;
        until(&format!("{what}: a step on the server is done"), SOON, || {
            Ok(call(&keyboard, "server")?.code == Some(0))
        })
        .and_then(|took| {
            ensure!(took < BACK, "{what}: it took {took:?}");
            Ok(())
        })
    })?;
    check(what, &tally)?;
    meet(&format!("{what}: the server has the laptop"), server, laptop)?;
    pass(&format!("after: {what}"), laptop, phone)?;
    pass(&format!("and back after: {what}"), phone, laptop).map(drop)
}

#[test]
fn a_laptop_that_moves_from_network_to_network_is_back_at_once() -> Result<()> {
    let test = "a_laptop_that_moves_from_network_to_network_is_back_at_once";
    let (restricted, symmetric) = (Place::Behind(Nat::Restricted), Place::Behind(Nat::Symmetric));
    let Some(mut home) = lab(test, restricted, symmetric)? else { return Ok(()) };
    changed(&mut home, "from home onto the street", |laptop, lab| {
        let (outlet, address) = lab.place_of_laptop(Place::Street);
        laptop.move_to(&outlet, &address)
    })?;
    changed(&mut home, "another address on the street", |laptop, _| {
        laptop.plug_mut().readdress("203.0.113.77")
    })?;
    changed(&mut home, "into the phone's home", |laptop, lab| {
        laptop.move_to(&lab.phones.outlet(), "192.168.1.20/24")
    })?;
    changed(&mut home, "home again", |laptop, lab| {
        let (outlet, address) = lab.place_of_laptop(restricted);
        laptop.move_to(&outlet, &address)
    })?;
    changed(&mut home, "its interface goes down and up", |laptop, _| {
        laptop.plug().switch_off()?;
        thread::sleep(Duration::from_secs(2));
        laptop.plug().switch_on()
    })?;
    home.ends_well()
}

#[test]
fn a_router_that_forgets_or_gets_another_address_parts_nobody_for_long() -> Result<()> {
    let test = "a_router_that_forgets_or_gets_another_address_parts_nobody_for_long";
    let (restricted, symmetric) = (Place::Behind(Nat::Restricted), Place::Behind(Nat::Symmetric));
    let Some(mut home) = lab(test, symmetric, restricted)? else { return Ok(()) };
    let rounds = if is_soak() { 25 } else { 2 };
    for round in 1..=rounds {
        let what = format!("round {round}, the router forgets, other ports");
        changed(&mut home, &what, |_, lab| lab.laptops.forget())?;
    }
    changed(&mut home, "the router forgets, same ports", |_, lab| {
        lab.laptops.become_a(Nat::Restricted)
    })?;
    for (round, address) in (1..=rounds).zip(["198.51.100.7", "198.51.100.1"].into_iter().cycle()) {
        let what = format!("round {round}, the router has another address");
        changed(&mut home, &what, |_, lab| {
            lab.laptops.outside().readdress(address)?;
            lab.laptops.forget()
        })?;
    }
    home.ends_well()
}

#[test]
fn a_line_that_was_out_for_long_serves_again_once_it_is_back() -> Result<()> {
    let test = "a_line_that_was_out_for_long_serves_again_once_it_is_back";
    let restricted = Place::Behind(Nat::Restricted);
    let Some(mut home) = lab(test, restricted, restricted)? else { return Ok(()) };
    // The laptop's own link stays up all the while: nothing tells it that the line is back.
    home.network.laptops.outside().pull()?;
    until("the laptop notices that it is alone", SOON, || {
        Ok(!home.laptop.sees("server")? && !home.laptop.sees("phone")?)
    })?;
    home.laptop.note("written while the line was out")?;
    thread::sleep(OUTAGE);
    home.network.laptops.outside().put_back()?;
    meet("the laptop has the server again", &home.laptop, &home.server)?;
    meet("the laptop has the phone again", &home.laptop, &home.phone)?;
    home.everybody_has("written while the line was out")?;
    home.ends_well()
}

#[test]
fn a_device_that_slept_is_back_at_once_and_no_call_hangs() -> Result<()> {
    let test = "a_device_that_slept_is_back_at_once_and_no_call_hangs";
    let restricted = Place::Behind(Nat::Restricted);
    let Some(home) = lab(test, restricted, restricted)? else { return Ok(()) };
    meet("laptop and phone meet", &home.laptop, &home.phone)?;
    let sleep = if is_soak() { LONG_SLEEP } else { SLEEP };
    let ((), tally) = calling(home.laptop.keyboard(), "phone", || {
        thread::sleep(Duration::from_secs(1));
        home.phone.pause()?;
        until("the laptop notices that the phone is gone", SOON, || {
            Ok(!home.laptop.sees("phone")?)
        })?;
        // Each of its calls ends at once now; a few are enough.
        Ok(())
    })?;
    check("calls of one that falls asleep", &tally)?;
    let refused = call(home.laptop.keyboard(), "phone")?;
    ensure!(refused.code == Some(6) && refused.stderr.contains("away"), "{refused:?}");
    home.laptop.note("written while the phone slept")?;
    thread::sleep(sleep);
    home.phone.resume()?;
    let awake = Instant::now();
    meet(&format!("after {} s of sleep they meet", sleep.as_secs()), &home.laptop, &home.phone)?;
    ensure!(awake.elapsed() < BACK, "it took {:?}", awake.elapsed());
    home.everybody_has("written while the phone slept")?;
    must_call(&home.laptop, "phone").context("a step after the sleep")?;
    must_call(&home.phone, "server").context("a step after the sleep")?;
    home.ends_well()
}

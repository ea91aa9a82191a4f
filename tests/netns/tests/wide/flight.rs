//! Steps in flight while the way to their device becomes another, or is narrow: they go on where they are.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use weft_netns::{Device, Ended, Home, Nat, SOON, Weather, until};

use crate::lab::{Lab, Place, STEP, call, is_soak, lab, meet};

/// How long a step is in flight at least: longer than it takes to find a direct way.
const FLIGHT: Duration = Duration::from_secs(4);

/// How long a step is begun after it was said, at least: a few round trips and a look into two disks.
const BEGUN: Duration = Duration::from_millis(300);

/// A text and a line on which it takes some 17 s each way: longer than a step may be silent.
const TEXT_BYTES: usize = 100_000;
const NARROW_KBIT: u32 = 48;

/// The agents of a device, which stand still until this is dropped.
struct Held(Vec<Pid>);

impl Held {
    /// Has the device start its agent, which lives for some seconds more, and holds that.
    fn of(device: &Device) -> Result<Self> {
        device.weft(&["do", "list my notes"])?;
        let mut agents = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", device.node_id()?))?.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let ids = children.split_whitespace().filter_map(|id| id.parse().ok());
            agents.extend(ids.filter_map(Pid::from_raw));
        }
        let held = Self(agents);
        ensure!(!held.0.is_empty(), "the {} has no agent", device.name());
        held.all(Signal::STOP)?;
        Ok(held)
    }

    fn all(&self, signal: Signal) -> Result<()> {
        self.0.iter().try_for_each(|agent| Ok(kill_process(*agent, signal)?))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // One that has ended needs nothing.
        self.all(Signal::CONT).ok();
    }
}

/// Has a device call another whose agents are held, lets `happens` happen once the step is in flight, and
/// lets them go when it was so for long enough.
fn in_flight<T>(
    home: &mut Home<Lab>,
    from: &str,
    on: &str,
    held: Held,
    happens: impl FnOnce(&mut Home<Lab>) -> Result<T>,
) -> Result<(T, Ended)> {
    let of = |device: &&Device| device.name() == from;
    let caller = home.all().into_iter().find(of).context("a device of the home")?;
    let keyboard = caller.keyboard().clone();
    let since = Instant::now();
    thread::scope(|scope| {
        let step = scope.spawn(move || call(&keyboard, on));
        thread::sleep(BEGUN);
        let happened = happens(home);
        thread::sleep(FLIGHT.saturating_sub(since.elapsed()));
        drop(held);
        let ended = step.join().map_err(|_| anyhow!("a caller panicked"))??;
        Ok((happened?, ended))
    })
}

/// The step was done, in one try, on that device.
fn went_on(what: &str, owner: &Device, on: &str, ended: &Ended) -> Result<()> {
    eprintln!(
        "  {what}: the step ended with {:?} after {:.2} s",
        ended.code,
        ended.took.as_secs_f64()
    );
    let run = owner.json(&["run", "show"])?;
    ensure!(ended.code == Some(0), "{what}: {ended:?} {run:#}");
    let journal = run["journal"].as_array().context("a run has its journal")?;
    let offers: Vec<_> = journal.iter().filter(|it| it["entry"] == "offered").collect();
    ensure!(offers.len() == 1 && offers[0]["device"] == on, "{what}: {run:#}");
    Ok(())
}

#[test]
fn a_step_goes_on_when_a_direct_way_takes_the_place_of_the_relayed_one() -> Result<()> {
    let test = "a_step_goes_on_when_a_direct_way_takes_the_place_of_the_relayed_one";
    let restricted = Place::Behind(Nat::Restricted);
    let Some(mut home) = lab(test, restricted, restricted)? else { return Ok(()) };
    let mut switched = 0;
    let wanted = if is_soak() { 20 } else { 2 };
    for round in 1..=wanted * 4 {
        home.laptop.stop()?;
        // Where the phone's router lets nobody in from: they meet through the server at first.
        home.network.laptops.outside().readdress(&format!("198.51.100.{}", 10 + round))?;
        home.network.laptops.forget()?;
        let held = Held::of(&home.phone)?;
        home.laptop.up()?;
        until("the laptop has the phone", SOON, || Ok(home.laptop.way_to("phone")?.is_some()))?;
        let (first, ended) = in_flight(&mut home, "laptop", "phone", held, |home| {
            let first = home.laptop.way_to("phone")?;
            until("they are direct", SOON, || {
                Ok(home.laptop.way_to("phone")?.as_deref() == Some("direct"))
            })?;
            Ok(first)
        })?;
        let what = format!("round {round}, at first {}", first.as_deref().unwrap_or("apart"));
        went_on(&what, &home.laptop, "phone", &ended)?;
        switched += usize::from(first.as_deref() == Some("relayed"));
        if switched == wanted {
            break;
        }
    }
    ensure!(switched == wanted, "{switched} steps were in flight over the switch");
    home.ends_well()
}

#[test]
fn a_step_goes_on_when_the_device_that_asks_or_does_it_moves() -> Result<()> {
    let test = "a_step_goes_on_when_the_device_that_asks_or_does_it_moves";
    let restricted = Place::Behind(Nat::Restricted);
    let Some(mut home) = lab(test, restricted, restricted)? else { return Ok(()) };
    let moves = |to: Place| {
        move |home: &mut Home<Lab>| {
            let (outlet, address) = home.network.place_of_laptop(to);
            home.laptop.move_to(&outlet, &address)
        }
    };
    for round in 1..=if is_soak() { 10 } else { 1 } {
        for (from, on, to) in
            [("laptop", "server", Place::Street), ("server", "laptop", restricted)]
        {
            meet("laptop and server meet", &home.laptop, &home.server)?;
            let held = Held::of(if on == "server" { &home.server } else { &home.laptop })?;
            let ((), ended) = in_flight(&mut home, from, on, held, moves(to))?;
            let what = format!("round {round}, the laptop moves, the step is on the {on}");
            let owner = if from == "server" { &home.server } else { &home.laptop };
            went_on(&what, owner, on, &ended)?;
        }
    }
    home.ends_well()
}

#[test]
fn a_step_that_is_long_on_its_way_is_done_where_it_goes() -> Result<()> {
    let test = "a_step_that_is_long_on_its_way_is_done_where_it_goes";
    let Some(home) = lab(test, Place::Street, Place::Street)? else { return Ok(()) };
    meet("laptop and phone meet", &home.laptop, &home.phone)?;
    if let Err(error) = home.phone.plug().set_weather(Weather::Narrow { kbit: NARROW_KBIT }) {
        eprintln!("NOT RUN: {test}: {error:#}");
        return Ok(());
    }
    let line = "a line of a text that is read on the phone\n";
    let text = line.repeat(TEXT_BYTES / line.len());
    home.laptop.write("long.txt", &text)?;
    let ended = home.laptop.try_weft(&["do", "read long.txt on the phone"], STEP * 2)?;
    went_on("a long text there and back", &home.laptop, "phone", &ended)?;
    ensure!(ended.stdout.trim_end() == text.trim_end(), "{} bytes", ended.stdout.len());
    home.phone.plug().set_weather(Weather::Clear)?;
    Device::all_meet("the line is wide: all meet", SOON, &home.all())?;
    home.ends_well()
}

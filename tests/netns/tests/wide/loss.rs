//! Bad lines: packets are lost in both directions of the laptop's cable.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_netns::{Device, Nat, SOON, Tally, Weather, until_quietly};

use crate::lab::{Place, STEP, call, is_soak, lab};

/// Of how many packets in a hundred, and how many steps in a hundred are to be done then: the aim, of
/// which a soak can speak. Of few steps, so many may fail, each with its reason.
const PROFILES: [(u8, f64, usize); 3] = [(5, 99.9, 0), (20, 99.0, 1), (40, 95.0, 1)];

/// How many notes and how many steps on another device.
const COMMANDS: usize = 12;

/// How long a note may be under way.
const UNDER_WAY: Duration = Duration::from_secs(60);

/// A line of the last century.
const NARROW_KBIT: u32 = 64;

#[test]
fn on_a_bad_line_notes_arrive_and_steps_are_done() -> Result<()> {
    let test = "on_a_bad_line_notes_arrive_and_steps_are_done";
    let restricted = Place::Behind(Nat::Restricted);
    let Some(home) = lab(test, restricted, Place::Street)? else { return Ok(()) };
    let times = if is_soak() { COMMANDS * 25 } else { COMMANDS };
    for (percent, aim, may_fail) in PROFILES {
        home.laptop.plug().set_weather(Weather::Loss { percent })?;
        let (mut steps, mut arrived, mut last) = (Tally::default(), 0, Duration::ZERO);
        for number in 0..times {
            steps.add(call(home.laptop.keyboard(), "server")?);
            let note = format!("{number} was written while {percent} were lost");
            home.laptop.note(&note)?;
            // What is late is counted, and looked for once more at the end.
            if let Ok(took) = until_quietly(UNDER_WAY, || home.server.has_note(&note)) {
                arrived += 1;
                last = last.max(took);
            }
        }
        eprintln!("  {percent} % lost, steps on the server: {steps}");
        eprintln!(
            "  {percent} % lost, notes: {arrived} of {times} arrived, the last after {:.2} s",
            last.as_secs_f64()
        );
        ensure!(steps.wrong().is_empty(), "{:?}", steps.wrong());
        // A note is said again until it is heard.
        ensure!(arrived == times, "{percent} %: {arrived} of {times} notes arrived");
        let is_well =
            if is_soak() { steps.percent() >= aim } else { times - steps.done() <= may_fail };
        ensure!(is_well, "{percent} %: {steps}, {:?}", steps.failed());
    }
    home.laptop.plug().set_weather(Weather::Clear)?;
    // Nothing is stuck: each side speaks to each other again as if nothing had been.
    Device::all_meet("the line is good: all meet", SOON, &home.all())?;
    home.laptop.note("the line is good again")?;
    home.everybody_has("the line is good again")?;
    for (percent, ..) in PROFILES {
        home.everybody_has(&format!("{} was written while {percent} were lost", times - 1))?;
    }
    let ended = home.laptop.try_weft(&["do", "list my notes on the phone"], STEP)?;
    ensure!(ended.code == Some(0), "{ended:?}");
    home.ends_well()
}

#[test]
fn on_a_narrow_line_one_is_slow_and_the_others_are_not() -> Result<()> {
    let test = "on_a_narrow_line_one_is_slow_and_the_others_are_not";
    let Some(home) = lab(test, Place::Street, Place::Street)? else { return Ok(()) };
    if let Err(error) = home.phone.plug().set_weather(Weather::Narrow { kbit: NARROW_KBIT }) {
        eprintln!("NOT RUN: {test}: {error:#}");
        return Ok(());
    }
    let times = if is_soak() { COMMANDS * 5 } else { COMMANDS };
    // Something that fills the line for a while: 40 KB are 5 s of it.
    home.laptop.write("long.txt", "a line of a text that is read on the phone\n".repeat(930))?;
    let (mut slow, mut others) = (Tally::default(), Tally::default());
    std::thread::scope(|scope| {
        let filling = scope
            .spawn(|| home.server.keyboard().try_weft(&["do", "read long.txt on the phone"], STEP));
        for _ in 0..times {
            others.add(call(home.laptop.keyboard(), "server")?);
            slow.add(call(home.laptop.keyboard(), "phone")?);
        }
        let filled = filling.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
        ensure!(filled.code == Some(0), "{filled:?}");
        eprintln!("  40 KB to the phone and back: {:.2} s", filled.took.as_secs_f64());
        anyhow::Ok(())
    })?;
    eprintln!("  {NARROW_KBIT} kbit/s to the phone, steps there: {slow}");
    eprintln!("  meanwhile, steps on the server: {others}");
    ensure!(slow.wrong().is_empty() && others.done() == times, "{:?}", others.failed());
    ensure!(slow.done() == times, "{:?}", slow.failed());
    home.phone.plug().set_weather(Weather::Clear)?;
    Device::all_meet("the line is wide: all meet", SOON, &home.all())?;
    home.ends_well()
}

//! A node that stands still for a while, as one that swaps: the others go on, and nothing happens twice.

use std::{
    collections::BTreeMap,
    env,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use weft_netns::{Device, Home, Keyboard, SOON, Tally, until};

use crate::lab::{Lab, Place, STEP, call, is_soak, lab, meet};

/// For how long the server stands still, in turn; the longest only in a soak.
const PAUSES_MS: [u64; 6] = [100, 300, 1_000, 3_000, 10_000, 30_000];

/// How often each of them, in a soak.
const ROUNDS: usize = 16;

/// How long the calls go on before, to compare with.
const BEFORE: Duration = Duration::from_secs(6);

/// A step with an effect: a timer, which is there once or not at all.
fn set_timer(from: &Keyboard, number: usize) -> Result<weft_netns::Ended> {
    let words = format!("set a timer called k{number} for 90 minutes on the server");
    from.try_weft(&["do", &words], STEP)
}

/// How often there is each timer, as a device sees it.
fn timers(device: &Device) -> Result<BTreeMap<String, usize>> {
    let list = device.json(&["timers"])?;
    let mut timers = BTreeMap::new();
    for timer in list.as_array().context("timers are a list")? {
        let label = timer["label"].as_str().context("a timer has its label")?;
        *timers.entry(label.to_owned()).or_default() += 1;
    }
    Ok(timers)
}

/// The seed of the moments, printed so that they can be had again.
fn seed() -> u64 {
    env::var("WEFT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(41)
}

/// Calls the phone until told to end.
fn call_phone(from: &Keyboard, goes_on: &AtomicBool) -> Result<Tally> {
    let mut tally = Tally::default();
    while goes_on.load(Ordering::Relaxed) {
        tally.add(call(from, "phone")?);
    }
    Ok(tally)
}

/// Has the server stand still at moments that follow from the seed.
fn stall(home: &Home<Lab>) -> Result<()> {
    let mut moment = seed();
    eprintln!("  WEFT_SEED={moment}");
    let (longest, rounds) = if is_soak() { (PAUSES_MS.len(), ROUNDS) } else { (5, 1) };
    for pause in PAUSES_MS[..longest].iter().cycle().take(longest * rounds) {
        // Any step of a linear congruence will do: the moments must only differ.
        moment =
            moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_millis(500 + (moment >> 33) % 1_500));
        home.server.pause()?;
        thread::sleep(Duration::from_millis(*pause));
        home.server.resume()?;
    }
    Ok(())
}

#[test]
fn while_the_server_stands_still_the_others_go_on_and_nothing_happens_twice() -> Result<()> {
    let test = "while_the_server_stands_still_the_others_go_on_and_nothing_happens_twice";
    let Some(home) = lab(test, Place::Street, Place::Street)? else { return Ok(()) };
    meet("laptop and phone meet", &home.laptop, &home.phone)?;
    let keyboard = home.laptop.keyboard();

    // The same load before: calls of the phone beside steps on a server that is well.
    let mut timers_set = Vec::new();
    let mut set_timers = |goes_on: &dyn Fn() -> bool| -> Result<Tally> {
        let mut tally = Tally::default();
        while goes_on() {
            let number = timers_set.len();
            let ended = set_timer(keyboard, number)?;
            timers_set.push(ended.code);
            tally.add(ended);
        }
        Ok(tally)
    };
    let measured = |beside: &mut dyn FnMut() -> Result<Tally>| -> Result<(Tally, Tally)> {
        let goes_on = AtomicBool::new(true);
        thread::scope(|scope| {
            let caller = scope.spawn(|| call_phone(keyboard, &goes_on));
            let beside = beside();
            goes_on.store(false, Ordering::Relaxed);
            let called = caller.join().map_err(|_| anyhow!("a caller panicked"))??;
            Ok((called, beside?))
        })
    };
    let start = Instant::now();
    let (before, steps) = measured(&mut || set_timers(&|| start.elapsed() < BEFORE))?;
    eprintln!("  before, calls of the phone: {before}");
    eprintln!("  before, steps on the server: {steps}");

    let stalls = AtomicBool::new(true);
    let (during, steps) = thread::scope(|scope| {
        let staller = scope.spawn(|| {
            let stalled = stall(&home);
            stalls.store(false, Ordering::Relaxed);
            stalled
        });
        let both = measured(&mut || set_timers(&|| stalls.load(Ordering::Relaxed)));
        staller.join().map_err(|_| anyhow!("a staller panicked"))??;
        both
    })?;
    eprintln!("  meanwhile, calls of the phone: {during}");
    eprintln!("  meanwhile, steps on the server: {steps}");
    for why in steps.failed() {
        ensure!(why.starts_with("error: "), "it does not say why: {why:?}");
    }
    ensure!(steps.wrong().is_empty(), "{:?}", steps.wrong());
    let (failed, wrong) = (during.failed(), during.wrong());
    // On a machine that stands still now and then, rules run out of their time: that refuses.
    let is_well = wrong.is_empty() && during.percent() >= 95.0;
    ensure!(is_well, "calls of the phone: {failed:?} {wrong:?}");

    meet("the server is back", &home.laptop, &home.server)?;
    until(
        "both know the same timers",
        SOON,
        || Ok(timers(&home.laptop)? == timers(&home.server)?),
    )?;
    let there = timers(&home.server)?;
    let mut of_failed = 0;
    for (number, code) in timers_set.iter().enumerate() {
        let times = there.get(&format!("k{number}")).copied().unwrap_or_default();
        ensure!(times <= 1, "timer {number} was set {times} times");
        ensure!(*code != Some(0) || times == 1, "timer {number} was said to be set");
        of_failed += usize::from(matches!(code, Some(5 | 6)) && times == 1);
    }
    eprintln!("  {} timers, {} there, none twice", timers_set.len(), there.len());
    ensure!(of_failed == 0, "{of_failed} timers are there that were said to have failed");
    home.ends_well()
}

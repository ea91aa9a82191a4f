//! What passes through a relay, and what becomes of it when the relay restarts.

use std::{env, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};
use weft_netns::{Nat, SOON, until};

use crate::lab::{Place, STEP, is_soak, lab, meet_by, must_call, pass};

/// A text that travels with a step, there and back: each is more than the 128 KiB that a relay
/// carries for strangers.
const TEXT_BYTES: usize = 200_000;
const TEXTS: usize = 4;

/// Notes of one device that the other does not have yet.
const NOTES: usize = 25;

const SYMMETRIC: Place = Place::Behind(Nat::Symmetric);

#[test]
fn a_relay_carries_files_notes_and_a_summary() -> Result<()> {
    let test = "a_relay_carries_files_notes_and_a_summary";
    let Some(home) = lab(test, SYMMETRIC, SYMMETRIC)? else { return Ok(()) };
    meet_by("they are relayed", "relayed", &home.laptop, &home.phone)?;

    let line = "a line of a text that is read on the phone\n";
    let text = line.repeat(TEXT_BYTES / line.len());
    home.laptop.write("text.txt", &text)?;
    let read = |on: &str, way: &str| -> Result<()> {
        let start = Instant::now();
        for _ in 0..TEXTS {
            let words = format!("read text.txt on the {on}");
            let read = home.laptop.try_weft(&["do", &words], STEP)?;
            ensure!(read.code == Some(0), "{read:?}");
            ensure!(read.stdout.trim_end() == text.trim_end(), "{} bytes", read.stdout.len());
        }
        let took = start.elapsed().as_secs_f64();
        eprintln!("  {TEXTS} times {} bytes there and back, {way}: {took:.2} s", text.len());
        Ok(())
    };
    read("server", "direct")?;
    read("phone", "relayed")?;

    let notes = if is_soak() { NOTES * 20 } else { NOTES };
    home.phone.plug().pull()?;
    for number in 0..notes {
        home.laptop.note(&format!("number {number} was taken while the phone was away"))?;
    }
    home.phone.plug().put_back()?;
    until(&format!("{notes} notes are on the phone"), SOON, || {
        let list = home.phone.json(&["notes", "list", "--limit", "1000"])?;
        let texts = list.as_array().into_iter().flatten().filter_map(|note| note["text"].as_str());
        Ok(texts.filter(|text| text.contains(" was taken while")).count() == notes)
    })?;

    meet_by("they are relayed still", "relayed", &home.laptop, &home.phone)?;
    let Some(model) = env::var_os("WEFT_TEST_MODEL").map(PathBuf::from) else {
        eprintln!("NOT RUN: a summary through the relay: WEFT_TEST_MODEL names no model");
        return home.ends_well();
    };
    let model = model.to_str().context("the model's path is text")?;
    home.phone.weft(&["model", "get", "--from", model])?;
    until("the laptop knows of the phone's model", SOON, || {
        let devices = home.laptop.json(&["devices"])?;
        let mut devices = devices.as_array().into_iter().flatten();
        Ok(devices.any(|it| it["name"] == "phone" && it["models"][0].is_string()))
    })?;
    home.laptop.write("plants.md", "# Plants\n\nFig trees like sun. They need little water.\n")?;
    let summary = home.laptop.try_weft(&["do", "summarize plants.md"], STEP * 5)?;
    ensure!(summary.code == Some(0) && !summary.stdout.trim().is_empty(), "{summary:?}");
    eprintln!("  a summary through the relay: {:.2} s", summary.took.as_secs_f64());
    let run = home.laptop.json(&["run", "show"])?.to_string();
    ensure!(run.contains("\"phone\""), "it was made elsewhere: {run}");
    meet_by("they are relayed at the end", "relayed", &home.laptop, &home.phone)?;
    home.ends_well()
}

#[test]
fn a_relay_that_restarts_is_back_for_both() -> Result<()> {
    let test = "a_relay_that_restarts_is_back_for_both";
    let Some(mut home) = lab(test, SYMMETRIC, SYMMETRIC)? else { return Ok(()) };
    meet_by("they are relayed", "relayed", &home.laptop, &home.phone)?;
    for round in 1..=if is_soak() { 20 } else { 2 } {
        let how = if round % 2 == 1 { "stopped" } else { "killed" };
        if how == "stopped" {
            home.server.stop()?;
            for device in [&home.laptop, &home.phone] {
                let what = format!("round {round}: the {} knows that it stopped", device.name());
                until(&what, SOON, || Ok(!device.sees("server")?))?;
            }
        } else {
            home.server.kill()?;
        }
        home.server.up()?;
        for device in [&home.laptop, &home.phone] {
            let what = format!("round {round}, {how}: the {} has the server", device.name());
            meet_by(&what, "direct", device, &home.server)?;
        }
        let what = format!("round {round}, {how}: laptop and phone meet through it");
        meet_by(&what, "relayed", &home.laptop, &home.phone)?;
        pass(&format!("round {round} after the relay {how}"), &home.laptop, &home.phone)?;
        must_call(&home.phone, "laptop")?;
    }
    home.ends_well()
}

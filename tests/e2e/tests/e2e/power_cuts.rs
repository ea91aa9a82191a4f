//! Nodes that die at any moment.

use std::{collections::BTreeMap, env, fs, thread, time::Duration};

use weft_e2e::{Device, Dice, Fabric, Running, fixture, test_model, until, until_within};

/// Another seed for the order of events.
const SEED: &str = "WEFT_E2E_SEED";

const ROUNDS: u64 = 20;

/// The longest wait before a plug is pulled: longer than a note takes on an idle machine.
const MOMENT_MS_MAX: u64 = 250;

#[test]
fn whoever_dies_and_when_what_was_acknowledged_is_everywhere_in_the_end() {
    let seed = env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_310);
    eprintln!("{SEED}={seed}");
    let mut dice = Dice::new(seed);
    let mut fabric = Fabric::pair(["laptop", "phone", "server"]);
    let has_model = test_model().is_some_and(|model| {
        let [laptop, _, server] = &*fabric;
        laptop.write("report.pdf", fs::read(fixture("report.pdf")).expect("the report"));
        server.run(&["model", "get", "--from", &model.to_string_lossy()]).code == Some(0)
    });
    let mut acknowledged = Vec::new();
    let mut summaries: Vec<Running> = Vec::new();
    for round in 0..ROUNDS {
        // Two devices write while a third thing may go on, and one of the three dies.
        let mut writing = Vec::new();
        for at in 0..2 {
            let writer = &fabric[pick(&mut dice)];
            let text = format!("round {round}, {at}, by {}", writer.name());
            writing.push((writer.start(&["do", &format!("note that {text}")]), text));
        }
        if has_model && round % 5 == 0 {
            summaries.push(fabric[0].start(&["do", "summarize report.pdf"]));
        }
        // The moment is the fault: it waits for nothing.
        thread::sleep(Duration::from_millis(dice.below(MOMENT_MS_MAX)));
        let victim = pick(&mut dice);
        let said = fabric[victim].kill();
        assert!(!said.contains("panicked"), "{said}");
        for (running, text) in writing {
            let said = running.end();
            assert!(!said.stderr.contains("panicked"), "{said}");
            if said.code == Some(0) {
                acknowledged.push(text);
            } else {
                assert!(said.stderr.contains("error: "), "it says why: {said}");
            }
        }
        fabric[victim].up();
    }
    for summary in summaries {
        let said = summary.end_within(Device::MODEL_PATIENCE);
        assert!(said.code == Some(0) || said.stderr.contains("error: "), "{said}");
    }
    eprintln!("{} of {} notes acknowledged", acknowledged.len(), 2 * ROUNDS);
    assert!(acknowledged.len() >= 10, "{} acknowledged", acknowledged.len());
    fabric.meet(["laptop", "phone", "server"]);
    let missing = |device: &Device| {
        let notes = device.notes();
        acknowledged.iter().filter(|text| !notes.contains(text)).cloned().collect::<Vec<_>>()
    };
    for device in &*fabric {
        let what = format!("{} has every acknowledged note (seed {seed})", device.name());
        until(&what, || missing(device), Vec::is_empty);
    }
    let [laptop, phone, server] = &*fabric;
    until(
        "all three have the same notes",
        || [laptop, phone, server].map(Device::notes),
        |[one, two, three]| one == two && two == three,
    );
    let mut counts = BTreeMap::new();
    for note in laptop.notes() {
        *counts.entry(note).or_insert(0) += 1;
    }
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    for device in &*fabric {
        device.verify();
        let ended = |runs: &serde_json::Value| {
            runs.as_array().is_some_and(|runs| runs.iter().all(|run| !run["ended"].is_null()))
        };
        until_within(
            Device::MODEL_PATIENCE,
            &format!("no run of {} goes on for ever", device.name()),
            || device.json(&["run", "list"]),
            ended,
        );
    }
}

fn pick(dice: &mut Dice) -> usize {
    usize::try_from(dice.below(3)).expect("one of three")
}

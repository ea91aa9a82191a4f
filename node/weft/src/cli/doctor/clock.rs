//! This device's wall clock beside those of the others.

use serde_json::Value;

use super::{Finding, Level, contact, facts::Facts};
use crate::cli::terminal::{length, local_time, text};

/// Clocks that nobody minds are apart by less.
const APART_MS: i64 = 5_000;
/// With more, what is due comes at another time than was meant.
const FAR_APART_MS: i64 = 60_000;

const WHY: &str = "timers and tickets end early or late, and logs don't fit each other";
const TO_DO: &str = "timedatectl set-ntp true, or date -s, as root";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(answers) = facts.answers() else { return Vec::new() };
    let mut told = Vec::new();
    for (device, contact) in contact::others(answers) {
        if device["state"] == "here"
            && let Some(ahead) = contact["clock_ahead_ms"].as_i64()
        {
            told.push((text(device, "name"), ahead));
        }
    }
    let mut findings = Vec::new();
    findings.extend(set(&answers.checkup["clock_set"]));
    let apart: Vec<_> = told.iter().filter(|(_, ahead)| ahead.abs() > APART_MS).collect();
    match own(&told) {
        Some(ahead) => findings.push(
            Finding::new(
                level(ahead),
                "clock",
                format!("this device's clock is {} the others'", beside(-ahead)),
            )
            .why(WHY)
            .advise(TO_DO),
        ),
        None => {
            for (name, ahead) in apart {
                let what = format!("the clock of {name} is {} this device's", beside(*ahead));
                let finding = Finding::new(level(*ahead), "clock", what).why(WHY);
                let which = format!("on whichever is wrong: {TO_DO}");
                findings.push(finding.advise(which));
            }
        }
    }
    if findings.is_empty() {
        let now = local_time(&answers.checkup, "time");
        let furthest = told.iter().map(|(_, ahead)| ahead.abs()).max();
        findings.push(Finding::ok(
            "clock",
            match furthest {
                None => format!("{now}; no other device is here to compare it with"),
                Some(0..1_000) => format!("{now}, as on the other devices"),
                Some(apart) => format!("{now}, within {} of the others", length_of(apart)),
            },
        ));
    }
    findings
}

/// By how much the others' clocks are ahead, where this device's is the one that is wrong: at least two say
/// so, and agree.
fn own(told: &[(String, i64)]) -> Option<i64> {
    let (least, most) =
        (told.iter().map(|(_, ahead)| *ahead).min()?, told.iter().map(|(_, ahead)| *ahead).max()?);
    let agree = told.len() >= 2 && most - least <= APART_MS;
    let nearest = if least.abs() < most.abs() { least } else { most };
    (agree && nearest.abs() > APART_MS).then_some(nearest)
}

fn level(apart: i64) -> Level {
    if apart.abs() > FAR_APART_MS { Level::Problem } else { Level::Warning }
}

/// `2 min 5 s ahead of`, `9.0 s behind`.
fn beside(ahead: i64) -> String {
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    format!("{} {side}", length_of(ahead))
}

fn length_of(millis: i64) -> String {
    // What is lost beyond 2^52 ms is no matter.
    #[expect(clippy::cast_precision_loss, reason = "shown in minutes")]
    length(millis.unsigned_abs() as f64)
}

/// A clock that was set by much while the node ran.
fn set(set: &Value) -> Option<Finding> {
    let forward = set["forward_ms"].as_i64()?;
    (forward.abs() > FAR_APART_MS).then(|| {
        let way = if forward > 0 { "forward" } else { "back" };
        let (by, at) = (length_of(forward), local_time(set, "at"));
        Finding::warning("clock", format!("this device's clock was set {way} by {by} at {at}"))
            .why("what was recorded before shows other times; timers keep to the clock")
            .advise("if nobody meant it: look whether this machine's battery or time service fails")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::sample;

    /// What is said where phone and server tell these times ahead.
    fn said(phone: Value, server: Value) -> Vec<String> {
        sample::said(check, |facts| {
            let contacts = &mut sample::answers(facts).checkup["devices"];
            contacts[0]["clock_ahead_ms"] = phone;
            contacts[1]["clock_ahead_ms"] = server;
        })
    }

    #[test]
    fn clocks_that_are_apart_are_told_with_whose_it_is() {
        for (phone, server, expected) in [
            (
                json!(9_000),
                json!(40),
                &["warning: the clock of phone is 9.0 s ahead of this device's"][..],
            ),
            (
                json!(-125_000),
                json!(null),
                &["problem: the clock of phone is 2 min 5 s behind this device's"],
            ),
            (
                json!(90_000),
                json!(91_000),
                &["problem: this device's clock is 1 min 30 s behind the others'"],
            ),
            (
                json!(-7_000),
                json!(-9_000),
                &["warning: this device's clock is 7.0 s ahead of the others'"],
            ),
            (
                json!(90_000),
                json!(-90_000),
                &[
                    "problem: the clock of phone is 1 min 30 s ahead of this device's",
                    "problem: the clock of server is 1 min 30 s behind this device's",
                ],
            ),
        ] {
            assert_eq!(said(phone, server), expected);
        }
    }

    #[test]
    fn clocks_that_are_right_are_one_line() {
        let right = said(json!(-80), json!(400));
        assert!(right[0].starts_with("ok: ") && right[0].ends_with(", as on the other devices"));
        let near = said(json!(2_000), json!(400));
        assert!(near[0].ends_with(", within 2.0 s of the others"), "{near:?}");
        let alone = said(json!(null), json!(null));
        assert!(alone[0].ends_with("no other device is here to compare it with"), "{alone:?}");
    }

    #[test]
    fn a_clock_that_was_set_by_much_is_told() {
        for (forward, expected) in [
            (3_000, None),
            (7_200_000, Some("forward by 120 min 0 s")),
            (-61_000, Some("back by 1 min 1 s")),
        ] {
            let said = sample::said(check, |facts| {
                sample::answers(facts).checkup["clock_set"] =
                    json!({"at": "2026-03-10T09:00:00Z", "forward_ms": forward});
            });
            assert_eq!(said[0].starts_with("warning"), expected.is_some(), "{said:?}");
            assert!(expected.is_none_or(|it| said[0].contains(it)), "{said:?}");
        }
    }
}

//! Sets, lists and cancels timers: `timer.set`, `timer.list`, `timer.cancel`.
//!
//! Deliberately not here: keeping and firing them, which is the node's schedule, and the clock: a
//! duration is handed on as a span, a time as the words of the asking device.

mod span;

use weft_sdk::{Agent, Arguments, Due, Error, Node, Timer, Timers, Value, json};

/// The longest span, 366 days: what lies further ahead belongs in a calendar.
const SPAN_MS_MAX: u64 = 366 * 24 * 3_600 * 1_000;

/// The most letters of a label: it is shown on one line.
const LABEL_LETTERS_MAX: usize = 200;

/// The agent.
#[derive(Debug)]
pub struct Timing;

impl Agent for Timing {
    fn run(node: &mut impl Node, capability: &str, arguments: &Arguments) -> Result<Value, Error> {
        match capability {
            "timer.set" => set(node, arguments),
            "timer.list" => list(node),
            "timer.cancel" => cancel(node, arguments.text("label")?),
            other => Err(Error::unknown(other)),
        }
    }
}

weft_sdk::export!(Timing);

fn set(node: &mut impl Timers, arguments: &Arguments) -> Result<Value, Error> {
    let label = arguments.text_if_any("label")?.unwrap_or_default().trim();
    if label.chars().count() > LABEL_LETTERS_MAX {
        return Err(Error::invalid(format!("a label has at most {LABEL_LETTERS_MAX} letters")));
    }
    let due = match (arguments.text_if_any("duration")?, arguments.text_if_any("at")?) {
        (Some(duration), None) => {
            let millis = span::millis(duration).ok_or_else(|| {
                Error::invalid(format!("{duration:?} is no ISO 8601 duration such as PT10M"))
            })?;
            if millis == 0 || millis > SPAN_MS_MAX {
                return Err(Error::invalid(
                    "a timer runs for more than nothing and at most a year",
                ));
            }
            Due::After(millis)
        }
        (None, Some(at)) => Due::At(at.to_owned()),
        (None, None) => return Err(Error::invalid("a timer needs a duration or a time")),
        (Some(_), Some(_)) => {
            return Err(Error::invalid("a timer takes a duration or a time, not both"));
        }
    };
    let (id, due) = node.set(due, label)?;
    let what = if label.is_empty() { "Timer".to_owned() } else { format!("Timer \"{label}\"") };
    Ok(json!({
        "id": id,
        "label": label,
        "due": due,
        "text": format!("{what} set for {}.", for_people(&due)),
    }))
}

fn list(node: &mut impl Timers) -> Result<Value, Error> {
    let mut timers = node.timers()?;
    timers.sort_by(|a, b| a.due.cmp(&b.due).then_with(|| a.id.cmp(&b.id)));
    let text = if timers.is_empty() {
        "No timers are running.".to_owned()
    } else {
        let lines: Vec<String> = (1..)
            .zip(&timers)
            .map(|(number, timer)| format!("{number}. {}", line(timer)))
            .collect();
        lines.join("\n")
    };
    let data: Vec<Value> = timers
        .iter()
        .map(|timer| {
            json!({
                "id": timer.id,
                "label": timer.label,
                "due": timer.due,
                "fires_on": timer.fires_on,
            })
        })
        .collect();
    Ok(json!({ "timers": data, "text": text }))
}

fn cancel(node: &mut impl Timers, label: &str) -> Result<Value, Error> {
    let wanted = label.trim().to_lowercase();
    let timers = node.timers()?;
    let mut matching = timers.iter().filter(|timer| timer.label.trim().to_lowercase() == wanted);
    let Some(timer) = matching.next() else {
        let labels: Vec<String> = timers.iter().map(|timer| format!("{:?}", timer.label)).collect();
        let running = if labels.is_empty() {
            "none is running".to_owned()
        } else {
            format!("running: {}", labels.join(", "))
        };
        return Err(Error::not_found(format!("there is no timer {label:?}; {running}")));
    };
    let others = matching.count();
    if others > 0 {
        let count = others + 1;
        return Err(Error::invalid(format!(
            "there are {count} timers {label:?}; none of them was cancelled"
        )));
    }
    let confirmed = node.cancel(&timer.id)?;
    let text = if confirmed {
        format!("Timer {:?} cancelled.", timer.label)
    } else {
        let device = &timer.fires_on;
        format!("Timer {:?} cancelled, but {device} is away and may still fire it.", timer.label)
    };
    Ok(json!({ "id": timer.id, "confirmed": confirmed, "text": text }))
}

/// A timer on one line.
fn line(timer: &Timer) -> String {
    let label = if timer.label.is_empty() { "timer" } else { &timer.label };
    let due = for_people(&timer.due);
    if timer.fires_on.is_empty() {
        format!("{label}: {due}")
    } else {
        format!("{label}: {due}, on {}", timer.fires_on)
    }
}

/// `2026-03-10T09:20:00` as `2026-03-10 09:20:00`; seconds only where they matter.
fn for_people(due: &str) -> String {
    let spaced = due.replacen('T', " ", 1);
    match spaced.strip_suffix(":00") {
        Some(minutes) if spaced.len() == 19 => minutes.to_owned(),
        _ => spaced,
    }
}

#[cfg(test)]
mod tests {
    use weft_sdk::{Refusal, fake::Fake};

    use super::*;

    fn set(node: &mut Fake, arguments: Value) -> Result<Value, Error> {
        node.run::<Timing>("timer.set", &arguments)
    }

    #[test]
    fn sets_for_a_span_and_for_a_time() {
        let mut node = Fake::default();
        let bread = set(&mut node, json!({ "duration": "PT1H30M", "label": "bread" })).unwrap();
        assert_eq!(bread["text"], "Timer \"bread\" set for 2026-03-10 10:30.");
        let plants = json!({ "at": "2026-03-11T08:00:00", "label": "water the plants" });
        set(&mut node, plants).unwrap();
        let plain = set(&mut node, json!({ "duration": "PT90S" })).unwrap();
        assert_eq!(plain["text"], "Timer set for 2026-03-10 09:01:30.");

        let all = node.run::<Timing>("timer.list", &json!({})).unwrap();
        assert_eq!(
            all["text"],
            "1. timer: 2026-03-10 09:01:30, on laptop\n\
             2. bread: 2026-03-10 10:30, on laptop\n\
             3. water the plants: 2026-03-11 08:00, on laptop"
        );
        assert_eq!(all["timers"][1]["fires_on"], "laptop");
    }

    #[test]
    fn cancels_by_label_whatever_its_case() {
        let mut node = Fake::default();
        set(&mut node, json!({ "duration": "PT10M", "label": "Bread" })).unwrap();
        let gone = node.run::<Timing>("timer.cancel", &json!({ "label": "bread" })).unwrap();
        assert_eq!(gone["text"], "Timer \"Bread\" cancelled.");
        assert!(node.timers.is_empty());
        let all = node.run::<Timing>("timer.list", &json!({})).unwrap();
        assert_eq!(all["text"], "No timers are running.");
    }

    #[test]
    fn does_not_guess_which_timer_is_meant() {
        let mut node = Fake::default();
        let none = node.run::<Timing>("timer.cancel", &json!({ "label": "tea" })).unwrap_err();
        assert_eq!(none.reason, "there is no timer \"tea\"; none is running");
        for _ in 0..2 {
            set(&mut node, json!({ "duration": "PT10M", "label": "bread" })).unwrap();
        }
        let several = node.run::<Timing>("timer.cancel", &json!({ "label": "bread" })).unwrap_err();
        assert_eq!(several.reason, "there are 2 timers \"bread\"; none of them was cancelled");
        let none = node.run::<Timing>("timer.cancel", &json!({ "label": "tea" })).unwrap_err();
        assert_eq!(none.refusal, Refusal::NotFound);
        assert_eq!(none.reason, "there is no timer \"tea\"; running: \"bread\", \"bread\"");
        assert_eq!(node.timers.len(), 2);
    }

    #[test]
    fn refuses_times_that_make_no_sense() {
        let mut node = Fake::default();
        for arguments in [
            json!({}),
            json!({ "duration": "ten minutes" }),
            json!({ "duration": "PT0S" }),
            json!({ "duration": "P400D" }),
            json!({ "duration": "PT99999999999999999999H" }),
            json!({ "duration": "PT1M", "at": "2026-03-11T08:00:00" }),
            json!({ "duration": "PT1M", "label": "x".repeat(201) }),
        ] {
            let error = set(&mut node, arguments.clone()).unwrap_err();
            assert_eq!(error.refusal, Refusal::Invalid, "{arguments}: {error}");
        }
        assert!(node.timers.is_empty());
    }
}

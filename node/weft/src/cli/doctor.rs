//! `weft doctor`: whether all works, and if not, what to type.
//!
//! What is known is gathered first ([`facts`]): this machine's own files, and what the node answers where
//! one runs. Each check is a function from those facts to what it found, in an order that goes from the
//! disk outwards.

mod facts;
mod finding;

mod home;
mod node;
mod fabric;
mod clock;

mod address;
mod interface;
mod firewall;
mod multicast;
mod reach;
mod attempt;
mod contact;

mod agent;
mod version;
mod record;

#[cfg(test)]
mod sample;

use serde_json::{Value, json};
use weft_api::ErrorKind;

use super::{Session, error::Done};

#[cfg(test)]
pub(super) use self::sample::facts as sample;
pub(super) use self::{
    facts::{Answers, Facts},
    finding::{Finding, Level},
    reach::line as reach_line,
    version::{Behind, behind},
};

/// What is looked at.
type Check = fn(&Facts) -> Vec<Finding>;

/// The checks of a device that was put out: what lies here. Nothing gets better by reaching the others.
const CHECKS_OUT: [Check; 3] = [fabric::check, home::check, record::check];

/// The checks, in the order in which they are shown.
const CHECKS: [Check; 13] = [
    home::check,
    node::check,
    fabric::check,
    clock::check,
    address::check,
    interface::check,
    firewall::check,
    multicast::check,
    reach::check,
    contact::check,
    agent::check,
    version::check,
    record::check,
];

pub(super) async fn run(session: &Session) -> Done {
    let terminal = &session.terminal;
    let findings = judge(&Facts::gather(session, true).await);
    if terminal.is_json() {
        terminal.json(&report(&findings))?;
    } else {
        terminal.data(&finding::screen(&findings, terminal))?;
    }
    let has_problem = findings.iter().any(|it| it.level == Level::Problem);
    Ok(has_problem.then_some(ErrorKind::Fault))
}

/// All that was found.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    if facts.home.key.is_none() {
        return home::check(facts);
    }
    let checks = if fabric::is_out(facts) { &CHECKS_OUT[..] } else { &CHECKS };
    checks.iter().flat_map(|check| check(facts)).collect()
}

fn report(findings: &[Finding]) -> Value {
    let count = |level| findings.iter().filter(|it| it.level == level).count();
    json!({
        "ok": count(Level::Problem) == 0,
        "problems": count(Level::Problem),
        "warnings": count(Level::Warning),
        "findings": findings.iter().map(Finding::json).collect::<Vec<_>>(),
    })
}

/// Bytes as a person counts them.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..10_737_418_240 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::Terminal;

    #[test]
    fn a_fabric_of_which_all_is_well() {
        let findings = judge(&sample::facts());
        let shown = finding::screen(&findings, &Terminal::new(false, 0));
        let wide = shown.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{shown}");
        let times = shown.split("2026-").count() - 1;
        assert!(times > 0, "{shown}");
        assert!(findings.iter().all(|it| it.level == Level::Ok), "{shown}");
        let report = report(&findings);
        assert_eq!((&report["ok"], &report["problems"]), (&true.into(), &0.into()));
    }

    #[test]
    fn an_empty_home_says_only_how_to_begin() {
        let mut facts = sample::facts();
        facts.home.key = None;
        sample::stop(&mut facts);
        let findings = judge(&facts);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(report(&findings)["ok"], false);
        assert!(findings[0].to_do[0].starts_with("weft init"));
    }

    #[test]
    fn without_a_node_what_lies_here_is_looked_at_and_that_is_said() {
        let mut facts = sample::facts();
        sample::stop(&mut facts);
        let findings = judge(&facts);
        let about: Vec<_> = findings.iter().map(|it| it.about.as_str()).collect();
        assert_eq!(about, ["home", "store", "keys", "node", "interfaces"]);
        let node = &findings[3];
        assert_eq!(
            (node.level, &*node.to_do[0]),
            (Level::Problem, "weft up, and leave it running")
        );
    }

    #[test]
    fn a_device_that_was_put_out_hears_that_and_nothing_that_cannot_help() {
        let judged = |state: &str| {
            let mut facts = sample::facts();
            facts.machine.firewalls = vec![firewall::Firewall::Ufw];
            let answers = sample::answers(&mut facts);
            answers.status["standing"] = json!({"state": state, "why": "phone revoked it",
                "at": "2026-03-10T09:00:00Z", "remedy": "weft invite on an admin"});
            answers.status["recovery"] = false.into();
            answers.checkup["warnings"] = json!(["a document was set aside"]);
            sample::lose(answers, "phone", "no-answer");
            sample::lose(answers, "server", "no-answer");
            judge(&facts)
        };
        let out = judged("revoked");
        let bad: Vec<_> = out.iter().filter(|it| it.level != Level::Ok).collect();
        assert_eq!(bad.len(), 1, "{bad:?}");
        assert!(bad[0].what.starts_with("this device was put out of home: phone revoked it, 2026"));
        assert_eq!(bad[0].to_do, ["weft invite on an admin"]);
        let about: Vec<_> = out.iter().map(|it| it.about.as_str()).collect();
        assert_eq!(about, ["fabric", "home", "store", "keys", "record"]);
        // One that is suspended comes back when it is reached.
        let suspended = judged("suspended");
        assert!(suspended.iter().any(|it| it.about == "phone"), "{suspended:?}");
    }

    #[test]
    fn sizes_are_said_in_the_unit_that_fits() {
        for (bytes, expected) in
            [(7, "7 bytes"), (81 << 10, "81 KiB"), (500 << 20, "500 MiB"), (120 << 30, "120 GiB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }
}

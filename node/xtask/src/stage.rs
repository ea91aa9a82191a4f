//! Stages: each is run, timed and reported; none hides another.

use std::time::{Duration, Instant};

use crate::Failure;
use crate::term;

/// How a stage ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// Passed, with something that a person should know.
    Noted(String),
    /// Could not be run here, and why. Fails nothing.
    NotRun(String),
    /// Why, in a line; what more there is to tell is told below the table.
    Failed(String),
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::Passed,
            Err(why) => Self::Failed(why),
        }
    }
}

/// One thing to verify.
pub(crate) struct Stage<C> {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Stages listed before it, without which it can't run.
    pub(crate) needs: &'static [&'static str],
    pub(crate) run: fn(&C) -> Outcome,
}

/// A stage that has ended.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

/// The stages named in `only`, with what they need, in the order of the list; all when none is
/// named.
pub(crate) fn choose<'a, C>(
    stages: &'a [Stage<C>],
    only: &[String],
) -> Result<Vec<&'a Stage<C>>, Failure> {
    if let Some(unknown) = only.iter().find(|name| stages.iter().all(|stage| stage.name != *name)) {
        let known: Vec<_> = stages.iter().map(|stage| stage.name).collect();
        return Err(Failure::Usage(format!(
            "there is no stage {unknown:?}; there are: {}",
            known.join(" ")
        )));
    }
    let mut wanted: Vec<&str> = only.iter().map(String::as_str).collect();
    let mut chosen = Vec::new();
    // Backwards, since what is needed comes before what needs it.
    for stage in stages.iter().rev() {
        if only.is_empty() || wanted.contains(&stage.name) {
            wanted.extend(stage.needs);
            chosen.push(stage);
        }
    }
    chosen.reverse();
    Ok(chosen)
}

/// Runs stages one after the other, after those that `reports` already holds. A stage whose need
/// failed is not run.
pub(crate) fn run<C>(stages: &[&Stage<C>], context: &C, reports: &mut Vec<Report>) {
    for stage in stages {
        let failed = |need: &&&str| {
            reports.iter().any(|r| r.name == **need && matches!(r.outcome, Outcome::Failed(_)))
        };
        let report = match stage.needs.iter().find(failed) {
            Some(need) => {
                let outcome = Outcome::NotRun(format!("the stage {need} failed"));
                Report { name: stage.name, outcome, took: Duration::ZERO }
            }
            None => timed(stage.name, || (stage.run)(context)),
        };
        reports.push(report);
    }
}

/// Runs one stage, with its name above and its outcome and time below.
pub(crate) fn timed(name: &'static str, run: impl FnOnce() -> Outcome) -> Report {
    term::say(format_args!("\n=== {name}"));
    let start = Instant::now();
    let outcome = run();
    let report = Report { name, outcome, took: start.elapsed() };
    term::say(row(&report, 0));
    report
}

/// The table of all stages, then what failed; the last line counts what passed and what failed.
pub(crate) fn summary(reports: &[Report]) -> String {
    let width = reports.iter().map(|report| report.name.len()).max().unwrap_or(0);
    let total = reports.iter().map(|report| report.took).sum();
    let mut lines = vec![format!("=== all stages, {}", spelled(total))];
    lines.extend(reports.iter().map(|report| row(report, width)));
    for report in reports {
        if let Outcome::Failed(why) = &report.outcome
            && let Some((_, told)) = why.split_once('\n')
        {
            lines.push(format!("\n=== why {} failed\n{told}", report.name));
        }
    }
    let count = |which: fn(&Outcome) -> bool| reports.iter().filter(|r| which(&r.outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Passed | Outcome::Noted(_)));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    lines.push(format!("\n{passed} passed, {failed} failed"));
    lines.join("\n")
}

/// Whether any stage failed.
pub(crate) fn any_failed(reports: &[Report]) -> bool {
    reports.iter().any(|report| matches!(report.outcome, Outcome::Failed(_)))
}

fn row(report: &Report, width: usize) -> String {
    let Report { name, outcome, took } = report;
    let took = spelled(*took);
    match outcome {
        Outcome::Passed => format!("{name:width$}  passed   {took:>11}"),
        Outcome::Noted(note) => format!("{name:width$}  passed   {took:>11}  ({note})"),
        Outcome::NotRun(why) => format!("{name:width$}  NOT RUN  {took:>11}  ({why})"),
        Outcome::Failed(why) => {
            let why = why.lines().next().unwrap_or_default();
            format!("{name:width$}  FAILED   {took:>11}  ({why})")
        }
    }
}

/// `7.3 s` or `12 min 05 s`.
pub(crate) fn spelled(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: &[Stage<()>] = &[
        Stage { name: "fmt", about: "", needs: &[], run: |()| Outcome::Passed },
        Stage { name: "build", about: "", needs: &[], run: |()| Outcome::Failed("no".into()) },
        Stage { name: "model", about: "", needs: &["build"], run: |()| Outcome::Passed },
        Stage { name: "tests", about: "", needs: &["model", "build"], run: |()| Outcome::Passed },
        Stage { name: "deny", about: "", needs: &[], run: |()| Outcome::NotRun("none".into()) },
    ];

    fn chosen(only: &[&str]) -> Result<Vec<&'static str>, Failure> {
        let only: Vec<String> = only.iter().copied().map(String::from).collect();
        Ok(choose(STAGES, &only)?.iter().map(|stage| stage.name).collect())
    }

    #[test]
    fn what_is_needed_comes_along() {
        assert_eq!(chosen(&["tests"]), Ok(vec!["build", "model", "tests"]));
        assert_eq!(chosen(&["deny", "fmt"]), Ok(vec!["fmt", "deny"]));
        assert_eq!(chosen(&[]).map(|names| names.len()), Ok(STAGES.len()));
        assert_eq!(chosen(&["test"]).map_err(|failure| failure.exit_code()), Err(2));
    }

    #[test]
    fn a_failing_stage_hides_no_other() {
        let mut reports = Vec::new();
        run(&choose(STAGES, &[]).expect("all"), &(), &mut reports);
        let outcomes: Vec<_> = reports.iter().map(|r| (r.name, r.outcome.clone())).collect();
        assert_eq!(
            outcomes,
            [
                ("fmt", Outcome::Passed),
                ("build", Outcome::Failed("no".into())),
                ("model", Outcome::NotRun("the stage build failed".into())),
                ("tests", Outcome::NotRun("the stage build failed".into())),
                ("deny", Outcome::NotRun("none".into())),
            ]
        );
        assert!(any_failed(&reports));
    }

    #[test]
    fn the_table_ends_with_a_plain_count() {
        let report =
            |name, outcome, millis| Report { name, outcome, took: Duration::from_millis(millis) };
        let reports = [
            report("fmt", Outcome::Passed, 1234),
            report("audit", Outcome::Noted("advisories, see above".into()), 800),
            report("tests", Outcome::Failed("2 of 3\nerror: one\nerror: two".into()), 725_400),
            report("netns", Outcome::NotRun("not root".into()), 0),
        ];
        let expected = "\
=== all stages, 12 min 07 s
fmt    passed         1.2 s
audit  passed         0.8 s  (advisories, see above)
tests  FAILED   12 min 05 s  (2 of 3)
netns  NOT RUN        0.0 s  (not root)

=== why tests failed
error: one
error: two

2 passed, 1 failed";
        assert_eq!(summary(&reports), expected);
        assert!(any_failed(&reports) && !any_failed(&reports[..2]));
    }
}

//! `cargo verify`: the list of all that must hold before a change lands.
//!
//! One profile and one set of features: everything is built once, by the stage `build`, for the
//! whole workspace; later stages choose tests by nextest's filters and start the built programs
//! directly, so that no other selection of packages makes cargo build them again.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::arm;
use crate::model;
use crate::process;
use crate::setup::{self, Purpose};
use crate::sink::Sink;
use crate::stage::{self, Outcome, Stage};
use crate::term;
use crate::workspace::Workspace;

/// Simulation seeds of every run, first included, last excluded.
const SEEDS: &str = "0..200";

/// Advisories kept beside the checkout, as data. Where they are not, nothing is fetched.
const ADVISORIES: &str = "../shared/advisory-db";

/// What nextest ends with when its filter matches no test.
const NO_TESTS: i32 = 4;

/// The first run fetches what the other programs need and builds some of it; later ones take seconds.
const INTEROP_LIMIT: Duration = Duration::from_secs(1_800);

/// They wait more than they work, so that more of them run at once than there are cores; the group in
/// `.config/nextest.toml` has the same number.
const NETNS_AT_ONCE: &str = "3";

/// They take some eight minutes on two cores.
const NETNS_LIMIT: Duration = Duration::from_secs(3_600);

/// It reads a thousand small files; longer is a hang.
const AUDIT_LIMIT: Duration = Duration::from_secs(300);

const STAGES: &[Stage<Workspace>] = &[
    Stage { name: "fmt", about: "the code is formatted", needs: &[], run: fmt },
    Stage { name: "deny", about: "licences, origins, layer edges", needs: &[], run: deny },
    Stage { name: "audit", about: "known advisories, reported only", needs: &[], run: audit },
    Stage { name: "clippy", about: "lints, warnings denied", needs: &[], run: clippy },
    Stage { name: "docs", about: "documentation, private items too", needs: &[], run: docs },
    Stage {
        name: "arm",
        about: "the wall, whose system calls differ there, compiles for 64-bit Arm",
        needs: &[],
        run: arm,
    },
    Stage {
        name: "build",
        about: "everything, once, for the stages below",
        needs: &[],
        run: build,
    },
    Stage {
        name: "model",
        about: "the default model, for tests that read it",
        needs: &["build"],
        run: get_model,
    },
    Stage {
        name: "tests",
        about: "unit and integration tests",
        needs: &["build", "model"],
        run: tests,
    },
    Stage {
        name: "doctests",
        about: "examples in the documentation",
        needs: &["build"],
        run: doctests,
    },
    Stage {
        name: "policies",
        about: "the rules' own tests, by the engine that nodes embed",
        needs: &["build"],
        run: policies,
    },
    Stage {
        name: "agents",
        about: "the committed components, rebuilt and compared",
        needs: &["build"],
        run: agents,
    },
    Stage {
        name: "sim",
        about: "the fabric on virtual time, a fixed set of seeds",
        needs: &["build"],
        run: sim,
    },
    Stage {
        name: "e2e",
        about: "transcripts of the real program",
        needs: &["build", "model"],
        run: e2e,
    },
    Stage {
        name: "interop",
        about: "libp2p in other languages against a real node",
        needs: &["build"],
        run: interop,
    },
    Stage {
        name: "netns",
        about: "nodes in network namespaces",
        needs: &["build", "model"],
        run: netns,
    },
    Stage { name: "bench", about: "a smoke run of every benchmark", needs: &["build"], run: bench },
];

/// Names the stages.
pub(crate) fn list() {
    let width = STAGES.iter().map(|stage| stage.name.len()).max().unwrap_or(0);
    for stage in STAGES {
        term::say(format_args!("{:width$}  {}", stage.name, stage.about));
    }
}

/// Sets the machine up and runs the stages; an error without words means that the table said it.
pub(crate) fn run(workspace: &Workspace, yes: bool, only: &[String]) -> Result<(), Failure> {
    let stages = stage::choose(STAGES, only)?;
    let mut missing = None;
    let mut reports = vec![stage::timed("setup", || {
        match setup::prepare(workspace, Purpose::Verify, yes) {
            Ok(notes) if notes.is_empty() => Outcome::Passed,
            // Each stage that misses something says so itself.
            Ok(notes) => Outcome::Noted(notes.join("; ")),
            Err(failure) => {
                let why = failure.message().to_owned();
                missing = Some(failure);
                Outcome::Failed(why)
            }
        }
    })];
    if let Some(failure) = missing {
        return Err(failure);
    }
    stage::run(&stages, workspace, &mut reports);
    term::say(format_args!("\n{}", stage::summary(&reports)));
    if stage::any_failed(&reports) { Err(Failure::Broken(String::new())) } else { Ok(()) }
}

fn fmt(workspace: &Workspace) -> Outcome {
    process::check(workspace.cargo().args(["fmt", "--all", "--check"])).into()
}

fn deny(workspace: &Workspace) -> Outcome {
    let words = ["deny", "--locked", "check", "bans", "licenses", "sources"];
    process::check(workspace.cargo().args(words)).into()
}

fn audit(workspace: &Workspace) -> Outcome {
    if !workspace.root.join(ADVISORIES).is_dir() {
        return Outcome::NotRun(format!("there is no {ADVISORIES}"));
    }
    let words = ["audit", "--db", ADVISORIES, "--no-fetch", "--stale"];
    let mut command = workspace.cargo();
    command.args(words);
    term::say(format_args!("$ {}", process::spelled(&command)));
    match process::watch(&mut command, AUDIT_LIMIT) {
        Ok((status, _)) if status.success() => Outcome::Passed,
        Ok((status, said)) => match vulnerabilities(&said) {
            Some(count) => Outcome::Noted(count.into()),
            None => Outcome::Failed(format!("cargo audit ended with {status}")),
        },
        Err(error) => Outcome::Failed(error),
    }
}

/// What cargo-audit counted. Its exit code alone does not tell findings from a failure to read.
fn vulnerabilities(said: &str) -> Option<&str> {
    said.lines()
        .filter_map(|line| line.trim().strip_prefix("error: ")?.strip_suffix(" found!"))
        .find(|count| count.contains("vulnerabilit"))
}

fn clippy(workspace: &Workspace) -> Outcome {
    let words = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    process::check(workspace.cargo().args(words)).into()
}

fn docs(workspace: &Workspace) -> Outcome {
    let words = ["doc", "--locked", "--no-deps", "--workspace", "--document-private-items"];
    process::check(workspace.cargo().args(words).env("RUSTDOCFLAGS", "-D warnings")).into()
}

/// The crate that has code for each processor, and needs no C compiler; `cargo arm` does the rest.
fn arm(workspace: &Workspace) -> Outcome {
    if !setup::has_target(workspace, arm::TARGET) {
        return Outcome::NotRun(format!("this Rust has no {}", arm::TARGET));
    }
    let words = ["check", "--locked", "--package", "weft-wall", "--all-targets", "--target"];
    process::check(workspace.cargo().args(words).arg(arm::TARGET)).into()
}

fn build(workspace: &Workspace) -> Outcome {
    process::check(workspace.cargo().args(["build", "--locked", "--workspace", "--all-targets"]))
        .into()
}

fn get_model(workspace: &Workspace) -> Outcome {
    match model::get(workspace, &workspace.debug_binary("weft")) {
        Ok(_) => Outcome::Passed,
        Err(why) => Outcome::NotRun(why),
    }
}

fn tests(workspace: &Workspace) -> Outcome {
    nextest(workspace, "not (package(weft-e2e) or package(weft-netns) or package(weft-interop))")
}

fn doctests(workspace: &Workspace) -> Outcome {
    process::check(workspace.cargo().args(["test", "--locked", "--doc", "--workspace"])).into()
}

fn policies(workspace: &Workspace) -> Outcome {
    process::check(built(workspace, "weft").args(["policy", "test"])).into()
}

fn agents(workspace: &Workspace) -> Outcome {
    if !setup::has_wasm_target(workspace) {
        term::say("rebuild: NOT RUN");
        return Outcome::NotRun(
            "there is no wasm target; the tests used the committed ones".into(),
        );
    }
    process::check(built(workspace, "examples/weft-component").args(["build", "--check"])).into()
}

fn sim(workspace: &Workspace) -> Outcome {
    process::check(built(workspace, "weft-sim").args(["--seeds", SEEDS])).into()
}

/// In a network of its own, which nothing may leave.
fn e2e(workspace: &Workspace) -> Outcome {
    let sink = match Sink::make(workspace) {
        Ok(sink) => sink,
        Err(why) => {
            return match nextest(workspace, "package(weft-e2e)") {
                Outcome::Passed => Outcome::Noted(format!("packets were not counted: {why}")),
                outcome @ (Outcome::Noted(_) | Outcome::NotRun(_) | Outcome::Failed(_)) => outcome,
            };
        }
    };
    let mut command = sink.inside(&nextest_command(workspace, "package(weft-e2e)"));
    match followed(&mut command) {
        Outcome::Passed => sink.nothing_came().into(),
        outcome @ (Outcome::Noted(_) | Outcome::NotRun(_) | Outcome::Failed(_)) => outcome,
    }
}

fn interop(workspace: &Workspace) -> Outcome {
    shown(nextest_command(workspace, "package(weft-interop)"), INTEROP_LIMIT)
}

/// Runs tests and shows what they say, also where all is well; notes those that did not run.
fn shown(mut command: Command, limit: Duration) -> Outcome {
    command.args(["--success-output", "immediate"]);
    term::say(format_args!("$ {}", process::spelled(&command)));
    match process::watch(&mut command, limit) {
        Ok((status, said)) if status.success() => {
            let missing = left_out(&said);
            if missing.is_empty() { Outcome::Passed } else { Outcome::Noted(missing.join("; ")) }
        }
        Ok((status, said)) => Outcome::Failed(format!(
            "cargo nextest ended with {status}\n{}",
            process::failing_lines(&said)
        )),
        Err(error) => Outcome::Failed(error),
    }
}

/// What tests said that they did not run, and why.
fn left_out(said: &str) -> Vec<&str> {
    said.lines().map(str::trim).filter(|line| line.starts_with("NOT RUN: ")).collect()
}

fn netns(workspace: &Workspace) -> Outcome {
    let name = format!("weft-verify-{}", std::process::id());
    let namespace =
        |verb: &str| process::answers(workspace.command("ip").args(["netns", verb, name.as_str()]));
    if !namespace("add") {
        return Outcome::NotRun("`ip netns add` does not work here".into());
    }
    if !namespace("del") {
        return Outcome::Failed(format!("failed to delete the namespace {name}"));
    }
    let mut command = nextest_command(workspace, "package(weft-netns)");
    command.args(["--test-threads", NETNS_AT_ONCE]);
    shown(command, NETNS_LIMIT)
}

fn bench(workspace: &Workspace) -> Outcome {
    process::check(built(workspace, "weft-bench").arg("--smoke")).into()
}

/// A program that `build` has built.
fn built(workspace: &Workspace, name: &str) -> Command {
    workspace.command(workspace.debug_binary(name))
}

/// Runs the tests that a filter names, all of them whatever fails.
fn nextest(workspace: &Workspace, filter: &str) -> Outcome {
    followed(&mut nextest_command(workspace, filter))
}

fn followed(command: &mut Command) -> Outcome {
    match process::follow(command) {
        Ok((status, _)) if status.success() => Outcome::Passed,
        Ok((status, _)) if status.code() == Some(NO_TESTS) => {
            Outcome::Failed("no test matches the filter".into())
        }
        Ok((status, told)) => Outcome::Failed(format!("cargo nextest ended with {status}\n{told}")),
        Err(error) => Outcome::Failed(error),
    }
}

/// The tests that a filter names, with the program that was built and the model if it is there.
fn nextest_command(workspace: &Workspace, filter: &str) -> Command {
    let mut command = workspace.cargo();
    command
        .args(["nextest", "run", "--locked", "--workspace", "--no-fail-fast", "-E", filter])
        .env("WEFT_BIN", workspace.debug_binary("weft"));
    if let Some(model) = test_model(workspace) {
        command.env("WEFT_TEST_MODEL", model);
    }
    command
}

/// The file that tests of the model read: theirs to skip, saying so, when it is not set.
fn test_model(workspace: &Workspace) -> Option<PathBuf> {
    Some(model::cached(workspace)).filter(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stage_needs_is_listed_before_it() {
        for (index, stage) in STAGES.iter().enumerate() {
            for need in stage.needs {
                assert!(
                    STAGES[..index].iter().any(|earlier| earlier.name == *need),
                    "{} needs {need}",
                    stage.name
                );
            }
        }
    }

    #[test]
    fn whoever_starts_a_built_program_needs_the_build() {
        for name in ["tests", "policies", "agents", "sim", "e2e", "interop", "netns", "bench"] {
            let chosen = stage::choose(STAGES, &[name.into()]).expect("it is listed");
            assert!(chosen.iter().any(|stage| stage.name == "build"), "{name}");
        }
    }

    #[test]
    fn a_test_that_did_not_run_is_told() {
        let said =
            "    PASS weft-interop\n    NOT RUN: Python: python3 can't be started: no such file\n";
        assert_eq!(left_out(said), ["NOT RUN: Python: python3 can't be started: no such file"]);
    }

    #[test]
    fn findings_are_told_from_a_failure_to_read() {
        let found = "    Scanning Cargo.lock\nerror: 2 vulnerabilities found!\n";
        assert_eq!(vulnerabilities(found), Some("2 vulnerabilities"));
        let one = "error: 1 vulnerability found!\nwarning: 1 allowed warning found\n";
        assert_eq!(vulnerabilities(one), Some("1 vulnerability"));
        assert_eq!(vulnerabilities("error: error loading advisory database: not found!"), None);
    }
}

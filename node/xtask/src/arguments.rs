//! The words of the command line.

use crate::Failure;

/// What `help` prints.
pub(crate) const USAGE: &str = "\
cargo demo [--yes] [--keep]
    Sets this machine up, builds Weft, and shows three devices carrying out a command.
    --keep   leaves the three nodes running and says how to use and stop them

cargo verify [--yes] [--only STAGE[,STAGE]] [--list]
    Sets this machine up and runs everything that must hold before a change lands.
    --only   runs these stages and what they need
    --list   names the stages

cargo arm [--yes] [--program]
    Sets this machine up, builds Weft for 64-bit Arm Linux, and checks that every crate and its
    tests compile for it.
    --program  builds the program only

    --yes    installs missing system packages without asking (as root)

Exit codes: 0 all well, 1 something failed, 2 not understood, 3 this machine lacks a package.";

/// One understood command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    Help,
    Demo {
        yes: bool,
        keep: bool,
    },
    List,
    /// An empty `only` means every stage.
    Verify {
        yes: bool,
        only: Vec<String>,
    },
    Arm {
        yes: bool,
        program_only: bool,
    },
}

pub(crate) fn read(words: &[String]) -> Result<Invocation, Failure> {
    let Some((command, options)) = words.split_first() else {
        return Err(misunderstood("a command is missing"));
    };
    match command.as_str() {
        "demo" => demo(options),
        "verify" => verify(options),
        "arm" => arm(options),
        "help" | "--help" | "-h" => Ok(Invocation::Help),
        other => Err(misunderstood(&format!("there is no command {other:?}"))),
    }
}

fn demo(options: &[String]) -> Result<Invocation, Failure> {
    let (mut yes, mut keep) = (false, false);
    for option in options {
        match option.as_str() {
            "--yes" | "-y" => yes = true,
            "--keep" => keep = true,
            "--help" | "-h" => return Ok(Invocation::Help),
            other => return Err(misunderstood(&format!("demo has no option {other:?}"))),
        }
    }
    Ok(Invocation::Demo { yes, keep })
}

fn verify(options: &[String]) -> Result<Invocation, Failure> {
    let mut yes = false;
    let mut only = Vec::new();
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        match option.as_str() {
            "--yes" | "-y" => yes = true,
            "--list" => return Ok(Invocation::List),
            "--help" | "-h" => return Ok(Invocation::Help),
            "--only" => match rest.next() {
                Some(names) => only.extend(stage_names(names)?),
                None => return Err(misunderstood("--only needs the name of a stage")),
            },
            other => match other.strip_prefix("--only=") {
                Some(names) => only.extend(stage_names(names)?),
                None => return Err(misunderstood(&format!("verify has no option {other:?}"))),
            },
        }
    }
    Ok(Invocation::Verify { yes, only })
}

fn arm(options: &[String]) -> Result<Invocation, Failure> {
    let (mut yes, mut program_only) = (false, false);
    for option in options {
        match option.as_str() {
            "--yes" | "-y" => yes = true,
            "--program" => program_only = true,
            "--help" | "-h" => return Ok(Invocation::Help),
            other => return Err(misunderstood(&format!("arm has no option {other:?}"))),
        }
    }
    Ok(Invocation::Arm { yes, program_only })
}

fn stage_names(list: &str) -> Result<Vec<String>, Failure> {
    let names: Vec<String> =
        list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect();
    if names.is_empty() {
        return Err(misunderstood("--only needs the name of a stage"));
    }
    Ok(names)
}

fn misunderstood(why: &str) -> Failure {
    Failure::Usage(format!("{why}\n\n{USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Invocation, Failure> {
        read(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_form_is_read() {
        for (line, expected) in [
            ("demo", Invocation::Demo { yes: false, keep: false }),
            ("demo --keep --yes", Invocation::Demo { yes: true, keep: true }),
            ("verify", Invocation::Verify { yes: false, only: vec![] }),
            (
                "verify -y --only fmt,deny --only=sim",
                Invocation::Verify {
                    yes: true,
                    only: vec!["fmt".into(), "deny".into(), "sim".into()],
                },
            ),
            ("verify --list", Invocation::List),
            ("arm", Invocation::Arm { yes: false, program_only: false }),
            ("arm --program -y", Invocation::Arm { yes: true, program_only: true }),
            ("verify --help", Invocation::Help),
            ("help", Invocation::Help),
        ] {
            assert_eq!(of(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "",
            "deom",
            "demo --only fmt",
            "demo x",
            "verify --keep",
            "verify --only",
            "verify --only ,",
            "arm --release",
        ] {
            let failure = of(line).expect_err(line);
            assert_eq!(failure.exit_code(), 2, "{line}");
            assert!(failure.message().contains("cargo verify"), "{line} shows the usage");
        }
    }
}

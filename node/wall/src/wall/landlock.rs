//! Landlock: refuses by object what the filter refuses by call. An addition, never the wall itself.

use std::io;
use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use super::{Landlock, WallError};

/// Everything that this version handles; a kernel with less enforces what it has.
const KNOWN: ABI = ABI::V6;

/// Denies all files, ports, abstract sockets and signals to others, but for reading these.
pub(super) fn restrict(files: &[BorrowedFd<'_>], paths: &[&str]) -> Result<Landlock, WallError> {
    let status = rules(files, paths).map_err(|error| WallError::Refused {
        step: "restrict by Landlock",
        source: io::Error::other(error),
    })?;
    Ok(match status {
        RulesetStatus::FullyEnforced => Landlock::Full,
        RulesetStatus::PartiallyEnforced => Landlock::Partial,
        RulesetStatus::NotEnforced => Landlock::Missing,
    })
}

fn rules(files: &[BorrowedFd<'_>], paths: &[&str]) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for file in files {
        ruleset = ruleset.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
    }
    // A path that does not exist here needs no rule.
    for path in paths.iter().filter_map(|path| PathFd::new(path).ok()) {
        ruleset =
            ruleset.add_rule(PathBeneath::new(path, AccessFs::ReadFile | AccessFs::ReadDir))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

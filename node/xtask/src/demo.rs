//! `cargo demo`: from a fresh machine to three devices that carry out a command.

use std::time::Instant;

use crate::Failure;
use crate::fleet::Fleet;
use crate::model;
use crate::process;
use crate::setup::{self, Purpose};
use crate::stage;
use crate::story;
use crate::term;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace, yes: bool, keep: bool) -> Result<(), Failure> {
    let start = Instant::now();
    for note in setup::prepare(workspace, Purpose::Demo, yes)? {
        term::say(format_args!("note: {note}"));
    }
    process::run(workspace.cargo().args(["build", "--locked", "--release", "--package", "weft"]))
        .map_err(Failure::Broken)?;
    let weft = workspace.release_binary("weft");
    let model = story::needs_model(story::CHAPTERS)
        .then(|| model::get(workspace, &weft))
        .transpose()
        .map_err(Failure::Broken)?;
    term::say(format_args!("\nReady after {}.", stage::spelled(start.elapsed())));

    let mut fleet = Fleet::new(workspace, weft, model).map_err(Failure::Broken)?;
    for (title, beats) in story::CHAPTERS {
        term::say(format_args!("\n=== {title}"));
        for beat in *beats {
            fleet.play(beat).map_err(Failure::Broken)?;
        }
    }
    if keep {
        fleet.keep();
    } else {
        term::say(
            "\nThe three nodes are stopped and their homes removed; `--keep` leaves them running.",
        );
    }
    Ok(())
}

//! The node itself: whether it runs, as which program, and what it says is wrong.

use serde_json::Value;

use super::{
    Finding,
    facts::{Facts, NodeFacts},
};
use crate::cli::terminal::{items, text};

/// Why a warning of the node's is repeated.
const SAID: &str = "the node has said so since it began; weft events shows what comes next";

/// This program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    match &facts.node {
        NodeFacts::None => vec![
            Finding::problem("node", "no node is running in this home")
                .why("without it only this machine's own files were looked at")
                .advise("weft up, and leave it running"),
        ],
        NodeFacts::Silent(why) => vec![
            Finding::problem("node", format!("it does not answer: {why}"))
                .why("it may be starting or ending; then a moment later all is well")
                .advise("look again; else stop it (^C where it runs), then weft up"),
        ],
        NodeFacts::Locked => vec![
            Finding::problem("node", "this device is locked")
                .why("it does nothing until it has its keys, and can't be looked into")
                .advise("weft unlock"),
        ],
        NodeFacts::Running(answers) => {
            let mut findings = vec![version(&answers.checkup)];
            findings.extend(
                items(&answers.checkup["warnings"]).filter_map(Value::as_str).filter_map(
                    // The store's own line, or the agents', says it better.
                    |warning| {
                        let shell = &answers.checkup["shell"];
                        let is_said = [
                            ("written to the disk", "store_failure"),
                            ("no wall for it", "wall_failure"),
                        ];
                        let is_said = is_said.into_iter().any(|(words, failure)| {
                            warning.contains(words) && shell[failure].is_string()
                        });
                        (!is_said).then(|| Finding::warning("node", warning).why(SAID))
                    },
                ),
            );
            findings
        }
    }
}

fn version(checkup: &Value) -> Finding {
    let running = text(&checkup["shell"], "version");
    if running.is_empty() {
        return Finding::warning(
            "node",
            "it is another version than this program, which it can't tell all",
        )
        .advise("stop it (^C where it runs), then weft up");
    }
    if running != VERSION {
        return Finding::warning(
            "node",
            format!("it runs as {running}, and this program is {VERSION}"),
        )
        .why("what was updated is used from the next start on")
        .advise("stop it (^C where it runs), then weft up");
    }
    Finding::ok("node", format!("running, version {running}, start {}", text(checkup, "boot")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::sample;

    fn said(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        sample::said(check, change)
    }

    #[test]
    fn a_node_that_does_not_work_is_told() {
        let of = |node: NodeFacts| said(|facts| facts.node = node).join("\n");
        assert_eq!(of(NodeFacts::None), "problem: no node is running in this home");
        assert_eq!(of(NodeFacts::Locked), "problem: this device is locked");
        let silent = of(NodeFacts::Silent("it hung up".into()));
        assert_eq!(silent, "problem: it does not answer: it hung up");
        let older = said(|facts| sample::answers(facts).checkup = Value::Null);
        assert!(older[0].starts_with("warning: it is another version"), "{older:?}");
        let other =
            said(|facts| sample::answers(facts).checkup["shell"]["version"] = "9.9.9".into());
        assert!(other[0].starts_with("warning: it runs as 9.9.9"), "{other:?}");
    }

    #[test]
    fn what_a_node_warns_of_is_repeated_once() {
        let full = "nothing can be written to the disk any more: no space";
        let warned = |failure: Value| {
            said(|facts| {
                let checkup = &mut sample::answers(facts).checkup;
                checkup["warnings"] = json!(["a document was set aside", full]);
                checkup["shell"]["store_failure"] = failure;
            })
        };
        assert_eq!(warned(Value::Null).len(), 3);
        assert_eq!(warned("no space".into())[1..], ["warning: a document was set aside"]);
    }
}

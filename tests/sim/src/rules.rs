//! The real rules, free of the wall clock.

use std::sync::LazyLock;

use weft_engine::Rules;
use weft_protocol::{
    decision::{Decision, Policy, Question},
    id::Digest,
};

/// The engine denies what takes too long on the machine's own clock. The embedded rules need some
/// microseconds, so an answer that says that they failed is a busy machine's, and is asked for again:
/// else a seed would not replay.
const ASKED_MAX: usize = 100;

/// The embedded rules.
#[derive(Debug)]
pub(crate) struct Embedded(Rules);

/// The rules of all nodes: compiling them takes time, and asking leaves nothing behind.
pub(crate) static RULES: LazyLock<Embedded> =
    LazyLock::new(|| Embedded(Rules::embedded().expect("the tests of the rules pass")));

impl Policy for Embedded {
    fn decide(&self, question: &Question) -> Decision {
        let mut decision = self.0.decide(question);
        for _ in 1..ASKED_MAX {
            if !decision.reason.starts_with("the rules failed") {
                break;
            }
            decision = self.0.decide(question);
        }
        decision
    }

    fn digest(&self) -> Digest {
        self.0.digest()
    }
}

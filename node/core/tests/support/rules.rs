//! Rules that say what a test wants them to say.

use weft_protocol::{
    decision::{Decision, Effect, Point, Policy, Question},
    id::Digest,
};

pub(crate) const ALLOW: Rules = Rules::all(Effect::Allow);

/// Rules by the point at which they are asked.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) owner: Effect,
    pub(crate) executor: Effect,
    /// What is denied to a device by its name.
    pub(crate) barred: Option<&'static str>,
}

impl Rules {
    /// They say the same at all points.
    pub(crate) const fn all(effect: Effect) -> Self {
        Self { owner: effect, executor: effect, barred: None }
    }
}

impl Policy for Rules {
    fn decide(&self, question: &Question) -> Decision {
        let effect = match question.point {
            _ if self.barred == Some(&question.owner.name) => Effect::Deny,
            Point::Owner => self.owner,
            Point::Executor | Point::HostCall => self.executor,
        };
        Decision { effect, reason: format!("the rules say {effect}"), obligations: vec![] }
    }

    /// Stays the same when a test changes the rules: by it nobody notices that they moved.
    fn digest(&self) -> Digest {
        Digest::of(b"rules")
    }
}

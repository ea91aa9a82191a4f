//! The task graph: what a command means, step by step, fixed before any content is read.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::{
    device::word_enum,
    manifest::{CapabilityName, EffectClass},
    value::Value,
};

/// The most steps that a graph may have.
pub const STEPS_MAX: usize = 64;

/// A step's number within its graph, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct StepIndex(#[n(0)] pub u16);

/// A step of a run: a number of the graph, and for a capability that an agent called while it ran,
/// the numbers of the calls beneath it: `2`, `2.1`, `2.1.3`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode)]
#[cbor(transparent)]
pub struct StepId(#[n(0)] pub Vec<u16>);

/// One number at least, and one for each call beneath it at most.
impl<'b, C> Decode<'b, C> for StepId {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let position = d.position();
        let numbers = Vec::decode(d, ctx)?;
        if numbers.is_empty() || numbers.len() > CALL_DEPTH_MAX + 1 {
            return Err(minicbor::decode::Error::message("no step's number").at(position));
        }
        Ok(Self(numbers))
    }
}

/// How deep called steps may nest.
pub const CALL_DEPTH_MAX: usize = 4;

impl From<StepIndex> for StepId {
    fn from(index: StepIndex) -> Self {
        Self(vec![index.0])
    }
}

impl StepId {
    /// The step of the graph that this is, or beneath which it was called.
    pub fn root(&self) -> StepIndex {
        StepIndex(self.0.first().copied().unwrap_or(0))
    }

    /// The `n`th call beneath this step; `None` past [`CALL_DEPTH_MAX`].
    pub fn child(&self, n: u16) -> Option<Self> {
        (self.0.len() <= CALL_DEPTH_MAX).then(|| Self([self.0.as_slice(), &[n]].concat()))
    }
}

impl std::fmt::Display for StepId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, number) in self.0.iter().enumerate() {
            write!(f, "{}{number}", if at == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl std::fmt::Display for StepIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

word_enum! {
    /// Where a value came from, as far as rules care. Labels only grow along the graph.
    Label, "private, untrusted" {
        /// From a private document or file.
        0 Private = "private",
        /// From a stranger: a mail, a page, a file of unknown origin.
        1 Untrusted = "untrusted",
    }
}

word_enum! {
    /// How a plan was found.
    Route, "phrases, model, graph, none" {
        /// By the phrases that agents declare, without a model.
        0 Phrases = "phrases",
        /// By a model bound by a grammar.
        1 Model = "model",
        /// Handed in as a graph.
        2 Graph = "graph",
        /// Not found: nothing runs.
        3 None = "none",
    }
}

/// An argument of a step.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum Argument {
    /// Written in the command.
    #[n(0)]
    Literal(#[n(0)] Value),
    /// What an earlier step gives.
    #[n(1)]
    Output(#[n(0)] StepIndex),
    /// A file of the asking device, as said. Opened by the door with the person's own rights.
    #[n(2)]
    Path(#[n(0)] String),
}

/// One step.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Step {
    /// Its number.
    #[n(0)]
    pub index: StepIndex,
    /// What to do.
    #[n(1)]
    pub capability: CapabilityName,
    /// With what.
    #[n(2)]
    #[cbor(with = "crate::codec::text_map")]
    pub arguments: BTreeMap<String, Argument>,
    /// The name of the device that the words bind it to.
    #[n(3)]
    pub device: Option<String>,
    /// Steps that must have ended well before, beside those whose output it takes.
    #[n(4)]
    pub after: BTreeSet<StepIndex>,
    /// What carrying it out again would do, as the manifest says.
    #[n(5)]
    pub effect: EffectClass,
    /// What it may call while it runs.
    #[n(6)]
    pub may_call: Vec<CapabilityName>,
}

impl Step {
    /// The steps that must have ended well before this one starts.
    pub fn dependencies(&self) -> BTreeSet<StepIndex> {
        let outputs = self.arguments.values().filter_map(|argument| match argument {
            Argument::Output(step) => Some(*step),
            Argument::Literal(_) | Argument::Path(_) => None,
        });
        self.after.iter().copied().chain(outputs).collect()
    }
}

/// A command's meaning: how it was found, and its steps.
#[derive(Clone, PartialEq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Plan {
    /// How it was found.
    #[n(0)]
    pub route: Route,
    /// The steps, in order; a step depends only on earlier ones. Empty: nothing runs.
    #[n(1)]
    pub steps: Vec<Step>,
}

/// Why steps are not a graph.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PlanError {
    /// More than [`STEPS_MAX`].
    #[error("check the plan: {0} steps, at most {STEPS_MAX} are taken")]
    TooManySteps(usize),
    /// Steps are numbered 1, 2, 3 and so on.
    #[error("check the plan: step {found} stands where {expected} should")]
    Misnumbered {
        /// The number that should be there.
        expected: StepIndex,
        /// The number that is.
        found: StepIndex,
    },
    /// A step depends on itself or a later one.
    #[error("check the plan: step {step} depends on {on}, which is not before it")]
    NotBefore {
        /// The step.
        step: StepIndex,
        /// What it depends on.
        on: StepIndex,
    },
}

impl Plan {
    /// A plan in which nothing runs.
    pub const fn none() -> Self {
        Self { route: Route::None, steps: Vec::new() }
    }

    /// Makes a plan of steps that are numbered from 1 and depend only on earlier ones.
    ///
    /// # Errors
    ///
    /// Which rule is broken, and where.
    pub fn new(route: Route, steps: Vec<Step>) -> Result<Self, PlanError> {
        if steps.len() > STEPS_MAX {
            return Err(PlanError::TooManySteps(steps.len()));
        }
        for (expected, step) in (1..).map(StepIndex).zip(&steps) {
            if step.index != expected {
                return Err(PlanError::Misnumbered { expected, found: step.index });
            }
            if let Some(on) =
                step.dependencies().into_iter().find(|on| *on >= step.index || on.0 == 0)
            {
                return Err(PlanError::NotBefore { step: step.index, on });
            }
        }
        Ok(Self { route, steps })
    }

    /// The step of that number.
    pub fn step(&self, index: StepIndex) -> Option<&Step> {
        self.steps.get(usize::from(index.0).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn a_plan_comes_back_whatever_its_arguments_are_called() {
        let argument = |text: &str| Argument::Literal(text.into());
        let step = Step {
            index: StepIndex(1),
            capability: "timer.set".parse().unwrap(),
            arguments: [
                ("duration".into(), argument("PT2S")),
                ("label".into(), argument("tea")),
                ("at".into(), Argument::Path("x".into())),
            ]
            .into(),
            device: None,
            after: BTreeSet::new(),
            effect: EffectClass::Idempotent,
            may_call: vec![],
        };
        let plan = Plan::new(Route::Phrases, vec![step]).unwrap();
        assert_eq!(codec::decode(&codec::encode(&plan), usize::MAX), Ok(plan));
    }

    #[test]
    fn a_steps_number_is_bounded() {
        for (numbers, is_step) in
            [(vec![], false), (vec![2, 1], true), (vec![1; 5], true), (vec![1; 6], false)]
        {
            let bytes = codec::encode(&numbers);
            assert_eq!(codec::decode::<StepId>(&bytes, 64).is_ok(), is_step, "{numbers:?}");
        }
    }

    #[test]
    fn a_step_depends_only_on_earlier_ones() {
        let step = |index, on| Step {
            index: StepIndex(index),
            capability: "text.summarize".parse().unwrap(),
            arguments: [("text".into(), Argument::Output(StepIndex(on)))].into(),
            device: None,
            after: BTreeSet::new(),
            effect: EffectClass::Pure,
            may_call: vec![],
        };
        let wrong = Plan::new(Route::Graph, vec![step(1, 1)]);
        assert!(matches!(wrong, Err(PlanError::NotBefore { .. })));
        let misnumbered = Plan::new(Route::Graph, vec![step(2, 1)]);
        assert!(matches!(misnumbered, Err(PlanError::Misnumbered { .. })));
    }
}

//! What words mean on this node: its catalog of phrases, and the devices that words may name.

use weft_api::{ErrorKind, PlanView, Problem, Say};
use weft_core::{Node, door::AgentView};
use weft_intent::{Catalog, Context, DeviceName, Parsed, Unclear};
use weft_protocol::{graph::Plan, manifest::Manifest};

/// The phrases of all agents.
#[derive(Debug)]
pub(super) struct Words(Catalog);

/// What a request with words comes to.
#[derive(Debug)]
pub(super) enum Meaning {
    /// This is to be done.
    Plan(Plan),
    /// Nothing; these are near.
    Nothing {
        /// Why.
        why: Unclear,
        /// The nearest commands.
        nearest: Vec<String>,
    },
}

impl Words {
    /// Reads the phrases of the node's agents. A phrase that makes no sense is logged and left out.
    pub(super) fn new(node: &Node) -> Self {
        let manifests: Vec<Manifest> =
            node.registry().installed().map(|agent| (*agent.manifest).clone()).collect();
        let (catalog, errors) = Catalog::new(&manifests);
        for error in errors {
            tracing::warn!(%error, "a phrase is left out");
        }
        Self(catalog)
    }

    /// The same agents, with a sentence for each capability instead of the pattern that it matches.
    pub(super) fn exemplify(&self, mut agents: Vec<AgentView>) -> Vec<AgentView> {
        for (capability, .., example) in agents.iter_mut().flat_map(|it| &mut it.capabilities) {
            *example = self.0.example(capability).map(str::to_owned);
        }
        agents
    }

    /// Reads words.
    pub(super) fn read(&self, say: &Say, node: &Node) -> Result<Meaning, Problem> {
        let now = say.local_time.parse().map_err(|_| {
            let why = format!("{:?} is no time such as 2026-03-10T09:00:00", say.local_time);
            Problem::new(ErrorKind::Usage, why)
        })?;
        let here = node.membership().subject(&node.me()).map_or_else(String::new, |me| me.name);
        let devices = node
            .membership()
            .subjects()
            .map(|subject| DeviceName { name: subject.name, kind: subject.kind })
            .collect();
        match self.0.parse(&say.words, &Context { now, devices, here }) {
            Parsed::Plan(mut plan) => {
                node.registry().complete(&mut plan).map_err(|capability| {
                    Problem::new(ErrorKind::Failed, format!("no agent here knows {capability}"))
                })?;
                Ok(Meaning::Plan(plan))
            }
            Parsed::Unknown { why, nearest } => Ok(Meaning::Nothing { why, nearest }),
        }
    }
}

impl Meaning {
    /// What is shown where nothing is to run.
    pub(super) fn view(self) -> PlanView {
        let (plan, nearest) = match self {
            Self::Plan(plan) => (plan, Vec::new()),
            Self::Nothing { nearest, .. } => (Plan::none(), nearest),
        };
        PlanView { plan, explanations: Vec::new(), nearest }
    }
}

/// Why words run nothing, with the nearest commands.
pub(super) fn not_understood(why: Unclear, nearest: &[String]) -> Problem {
    let message = match why {
        Unclear::NoMatch => "nothing here understands that",
        Unclear::TwoMeanings => "that could mean two things",
        Unclear::TooManyParts => "that is too many things at once",
        Unclear::TooLong => "that is too long",
    };
    let problem = Problem::new(ErrorKind::NotUnderstood, message);
    if nearest.is_empty() {
        return problem.hint("weft agents shows what can be said");
    }
    problem.hint(format!("nearest: {}", nearest.join(" | ")))
}

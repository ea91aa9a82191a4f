//! Rules, compiled and asked.

use std::{num::NonZeroU32, sync::Mutex, time::Duration};

use regorus::{
    Engine, Rc, Value, languages::rego::compiler::Compiler, rvm::vm::RegoVM,
    utils::limits::ExecutionTimerConfig,
};
use thiserror::Error;
use weft_protocol::{
    decision::{Decision, Effect, Policy, Question},
    id::Digest,
};

use crate::{EMBEDDED, EMBEDDED_DATA, question};

/// The one entry point.
const ENTRY_POINT: &str = "data.weft.authz.decision";
/// Over a hundred times what the embedded rules take, so that only a runaway rule meets it.
const INSTRUCTIONS_MAX: usize = 50_000;
/// A rule that works on something huge for so long denies. A decision takes tens of microseconds, and
/// [`INSTRUCTIONS_MAX`] ends a runaway rule whatever the time; this is by the clock on the wall, which goes
/// on while a busy machine does something else, and no lawful step may be denied for that.
const TIME_MAX: Duration = Duration::from_secs(1);

/// What gives another answer each time, so that a decision could not be reproduced. The time of a
/// question is `input.now`.
const IMPURE: &[&str] = &["http.send", "opa.runtime", "rand.intn", "time.now_ns", "uuid.rfc4122"];

/// Why rules cannot be used.
#[derive(Debug, Error)]
pub enum RulesError {
    /// A module is not Rego.
    #[error("read the rules of {name}: {why}")]
    Module {
        /// The module's name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The data is not a JSON object.
    #[error("read the rules' data: {0}")]
    Data(String),
    /// The modules do not fit together.
    #[error("compile the rules: {0}")]
    Compile(String),
    /// A rule calls what does not follow from the question alone.
    #[error("use the rules: {0} gives another answer each time; the time is input.now")]
    Impure(String),
}

/// Compiled rules.
pub struct Rules {
    machine: Mutex<RegoVM>,
    digest: Digest,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Rules {
    /// The rules that the program carries.
    ///
    /// # Errors
    ///
    /// Never for a program whose tests pass.
    pub fn embedded() -> Result<Self, RulesError> {
        Self::compile(EMBEDDED, EMBEDDED_DATA)
    }

    /// Compiles modules, each with its name, and data as JSON.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn compile(modules: &[(&str, &str)], data: &str) -> Result<Self, RulesError> {
        let wrong = |error: String| RulesError::Compile(error);
        let mut engine = engine(modules, data)?;
        let policy = engine
            .compile_with_entrypoint(&Rc::from(ENTRY_POINT))
            .map_err(|error| wrong(error.to_string()))?;
        let program = Compiler::compile_from_policy(&policy, &[ENTRY_POINT])
            .map_err(|error| wrong(error.to_string()))?;
        let mut called = program.builtin_info_table.iter().map(|called| called.name.as_str());
        if let Some(impure) = called.find(|name| IMPURE.contains(name)) {
            return Err(RulesError::Impure(impure.to_owned()));
        }
        let mut machine = RegoVM::new();
        machine.load_program(program);
        let wrong = |error: String| RulesError::Data(error);
        let document = Value::from_json_str(data).map_err(|error| wrong(error.to_string()))?;
        machine.set_data(document).map_err(|error| wrong(error.to_string()))?;
        machine.set_max_instructions(INSTRUCTIONS_MAX);
        machine.set_execution_timer_config(Some(ExecutionTimerConfig {
            limit: TIME_MAX,
            check_interval: NonZeroU32::MIN.saturating_add(15),
        }));
        Ok(Self { machine: Mutex::new(machine), digest: digest(modules, data) })
    }

    /// Asks the machine, and believes only an answer of the form of a decision.
    fn ask(&self, question: &Question) -> Result<Decision, String> {
        // A panic in the machine leaves it unusable, so that every later question is denied.
        let mut machine =
            self.machine.lock().map_err(|_| "an earlier question broke the rules".to_owned())?;
        machine.set_input(question::input(question));
        let answer = machine
            .execute_entry_point_by_index(0)
            .map_err(|error| format!("the rules failed: {error}"))?;
        decision(&answer).ok_or_else(|| "the rules gave no decision".to_owned())
    }
}

impl Policy for Rules {
    fn decide(&self, question: &Question) -> Decision {
        self.ask(question).unwrap_or_else(Decision::deny)
    }

    fn digest(&self) -> Digest {
        self.digest
    }
}

/// An interpreter with the modules and data loaded.
pub(crate) fn engine(modules: &[(&str, &str)], data: &str) -> Result<Engine, RulesError> {
    let mut engine = Engine::new();
    for (name, text) in modules {
        engine.add_policy((*name).to_owned(), (*text).to_owned()).map_err(|error| {
            RulesError::Module { name: (*name).to_owned(), why: error.to_string() }
        })?;
    }
    let document =
        Value::from_json_str(data).map_err(|error| RulesError::Data(error.to_string()))?;
    engine.add_data(document).map_err(|error| RulesError::Data(error.to_string()))?;
    Ok(engine)
}

fn digest(modules: &[(&str, &str)], data: &str) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("weft policy bundle v1");
    for text in modules.iter().flat_map(|(name, text)| [*name, *text]).chain([data]) {
        hasher.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

fn decision(answer: &Value) -> Option<Decision> {
    let answer = answer.as_object().ok()?;
    let field = |name: &str| answer.get(&Value::from(name));
    let effect: Effect = field("effect")?.as_string().ok()?.parse().ok()?;
    let reason = field("reason")?.as_string().ok()?.to_string();
    let obligations = field("obligations")?
        .as_array()
        .ok()?
        .iter()
        .map(|obligation| Some(obligation.as_string().ok()?.to_string()))
        .collect::<Option<_>>()?;
    Some(Decision { effect, reason, obligations })
}

#[cfg(test)]
mod tests {
    use weft_protocol::{
        decision::{Actor, Point, Subject},
        device::{Kind, Role},
        graph::StepId,
        id::{DeviceId, RunId},
        manifest::EffectClass,
        time::WallTime,
        value::Value as Plain,
    };

    use super::*;

    fn question() -> Question {
        let subject = Subject {
            id: DeviceId::from_bytes([1; 32]),
            name: "laptop".into(),
            kind: Kind::Laptop,
            role: Role::Admin,
        };
        Question {
            point: Point::Owner,
            run: RunId::from_bytes([2; 16]),
            step: StepId(vec![1]),
            capability: "notes.save".parse().unwrap(),
            effect: EffectClass::Idempotent,
            arguments: Plain::map([("text", Plain::from("hello"))]),
            labels: vec![],
            agent: Actor {
                name: "notes".into(),
                digest: Digest::of(b"notes"),
                embedded: true,
                documents_read: vec![],
                documents_write: vec!["note".into()],
                timers: false,
                calls: vec![],
            },
            owner: subject.clone(),
            executor: subject,
            call: None,
            now: WallTime::default(),
        }
    }

    fn decide(rules: &str) -> Decision {
        Rules::compile(&[("rules.rego", rules)], "{}").unwrap().decide(&question())
    }

    #[test]
    fn the_embedded_rules_allow_a_command_of_ones_own() {
        let rules = Rules::embedded().unwrap();
        let decision = rules.decide(&question());
        assert!(decision.allows(), "{decision:?}");
        let guest = Subject { role: Role::Guest, ..question().owner };
        assert!(!rules.decide(&Question { owner: guest, ..question() }).allows());
    }

    #[test]
    fn whatever_goes_wrong_denies() {
        let cases = [
            (
                "package weft.authz\ndecision := {\"effect\": \"deny\"} if input.nothing",
                "no decision",
            ),
            ("package weft.authz\ndecision := true", "no decision"),
            (
                "package weft.authz\ndecision := {\"effect\": \"sure\", \"reason\": \"\", \"obligations\": []}",
                "no decision",
            ),
            (
                "package weft.authz\ndecision := {\"effect\": \"allow\", \"reason\": \"\", \"obligations\": []} if count([1 | some i in numbers.range(1, 300); some j in numbers.range(1, 300); i == j]) > 0",
                "the rules failed",
            ),
        ];
        for (rules, expected) in cases {
            let decision = decide(rules);
            assert_eq!(decision.effect, Effect::Deny, "{rules}");
            assert!(decision.reason.contains(expected), "{rules}: {}", decision.reason);
        }
        assert!(
            Rules::compile(&[("a.rego", "package weft.authz\nthis is no rego")], "{}").is_err()
        );
        assert!(Rules::compile(&[("a.rego", "package weft.authz")], "[]").is_err());
    }

    #[test]
    fn rules_see_no_clock_and_no_dice() {
        for impure in ["time.now_ns()", "rand.intn(\"x\", 2)"] {
            let rules = format!(
                "package weft.authz\ndecision := {{\"effect\": \"allow\", \"reason\": \"\", \"obligations\": []}} if {impure} > 1"
            );
            let error = Rules::compile(&[("a.rego", &rules)], "{}").unwrap_err();
            let name = impure.split('(').next().unwrap();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn the_digest_follows_every_byte() {
        let one = Rules::compile(EMBEDDED, EMBEDDED_DATA).unwrap();
        let other = Rules::compile(EMBEDDED, "{}").unwrap();
        assert_ne!(one.digest(), other.digest());
    }
}

//! The stand-in for the sandbox: plays each agent by capability, with time, failures, and now and then
//! a question that its manifest does not cover.

use weft_core::executor::CallId;
use weft_protocol::{
    host_call::{Due, HostCall, HostError, Refusal},
    id::{DocumentId, TimerId},
    run::{Failure, Progress},
    value::Value,
};

use crate::dice::Dice;

/// The reasons that agents give for ending badly, by which time they have done what they were for.
pub(crate) const ENDS_BADLY: [&str; 2] = ["the agent trapped", "the agent hung"];

/// What an agent does next.
#[derive(Debug)]
pub(crate) enum Act {
    /// Asks for something, and waits for the answer.
    Call(HostCall),
    /// Says something.
    Say(Progress),
    /// Ends.
    End(Result<Value, Failure>),
}

/// An agent that runs.
#[derive(Debug)]
pub(crate) struct Play {
    capability: String,
    arguments: Value,
    stage: u32,
    /// Asks first for what its manifest does not cover.
    nosy: bool,
    /// Ends badly, when it would have ended well.
    fails: bool,
    /// Does not end by itself.
    pub(crate) hangs: bool,
    /// Calls so far.
    pub(crate) calls: u64,
    /// The call that it waits for.
    pub(crate) waits: Option<CallId>,
    /// Whether the answer that it waits for must be a refusal.
    pub(crate) must_be_denied: bool,
}

impl Play {
    /// Starts a capability of an agent.
    pub(crate) fn new(capability: String, arguments: Value, dice: &mut Dice) -> Self {
        Self {
            stage: 0,
            nosy: dice.chance(10),
            fails: dice.chance(if capability == "valve.open" { 20 } else { 5 }),
            hangs: dice.chance(2),
            calls: 0,
            waits: None,
            must_be_denied: false,
            capability,
            arguments,
        }
    }

    /// It will end badly, after it has done what it was started for.
    #[cfg(test)]
    pub(crate) fn fails_at_its_end(&mut self) {
        (self.nosy, self.hangs, self.fails) = (false, false, true);
    }

    /// It will end well.
    #[cfg(test)]
    pub(crate) fn ends_well(&mut self) {
        (self.nosy, self.hangs, self.fails) = (false, false, false);
    }

    /// How long it works before it says something again, in microseconds.
    pub(crate) fn pace(&self, dice: &mut Dice) -> u64 {
        match self.capability.as_str() {
            "llm.generate" => dice.between(20_000, 900_000),
            "valve.open" if dice.chance(30) => dice.between(100_000, 3_000_000),
            _ if dice.chance(5) => dice.between(1_000_000, 6_000_000),
            _ => dice.between(300, 20_000),
        }
    }

    /// Goes on, with the answer to its last call if it made one.
    pub(crate) fn go_on(&mut self, answer: Option<Result<Value, HostError>>) -> Act {
        if self.nosy {
            self.nosy = false;
            self.must_be_denied = true;
            return Act::Call(self.beyond_its_manifest());
        }
        let answer = if self.must_be_denied { None } else { answer };
        self.must_be_denied = false;
        self.stage += 1;
        let answer = match answer.transpose() {
            Ok(answer) => answer,
            Err(HostError { refusal, reason }) => {
                return Act::End(Err(Failure { refusal, reason }));
            }
        };
        match self.act(answer) {
            Act::End(Ok(_)) if self.fails => {
                let reason = ENDS_BADLY[0].to_owned();
                Act::End(Err(Failure { refusal: Refusal::Failed, reason }))
            }
            act @ (Act::Call(_) | Act::Say(_) | Act::End(_)) => act,
        }
    }

    /// Something that no manifest of these agents covers: each lacks what another has.
    fn beyond_its_manifest(&self) -> HostCall {
        match self.capability.as_str() {
            "notes.save" | "notes.list" | "notes.search" => HostCall::TimerList,
            "text.summarize" | "llm.generate" => HostCall::DocumentCreate {
                kind: "note".into(),
                content: Value::map([("text", Value::from("smuggled"))]),
            },
            _ => HostCall::DocumentList { kind: "note".into(), query: String::new(), limit: 10 },
        }
    }

    fn text(&self, name: &str) -> String {
        self.arguments.get(name).and_then(Value::as_text).unwrap_or_default().to_owned()
    }

    fn act(&mut self, answer: Option<Value>) -> Act {
        let done = |value: Value| Act::End(Ok(value));
        match (self.capability.as_str(), self.stage) {
            ("notes.save", 1) => Act::Call(HostCall::DocumentCreate {
                kind: "note".into(),
                content: Value::map([("text", Value::Text(self.text("text")))]),
            }),
            ("notes.list" | "notes.search", 1) => Act::Call(HostCall::DocumentList {
                kind: "note".into(),
                query: self.text("query"),
                limit: 50,
            }),
            ("timer.set", 1) => {
                let due = Due::After(seconds(&self.text("duration")) * 1_000);
                Act::Call(HostCall::TimerSet { due, label: self.text("label") })
            }
            ("timer.list" | "timer.cancel", 1) => Act::Call(HostCall::TimerList),
            ("timer.cancel", 2) => {
                let label = self.text("label");
                let timers = answer.as_ref().and_then(Value::as_list).unwrap_or_default();
                let found = timers.iter().find(|timer| {
                    timer.get("label").and_then(Value::as_text) == Some(label.as_str())
                });
                let id =
                    found.and_then(|timer| timer.get("id")?.as_text()?.parse::<TimerId>().ok());
                match id {
                    Some(id) => Act::Call(HostCall::TimerCancel { id }),
                    None => Act::End(Err(Failure {
                        refusal: Refusal::NotFound,
                        reason: "there is no such timer".into(),
                    })),
                }
            }
            ("text.summarize", 1) => {
                let prompt = format!("Summarize: {}", self.text("text"));
                let capability = "llm.generate".parse().expect("it is a capability's name");
                let arguments = Value::map([("prompt", Value::Text(prompt))]);
                Act::Call(HostCall::Invoke { capability, arguments })
            }
            ("llm.generate", 1..=3) => Act::Say(Progress::Text("word ".into())),
            ("llm.generate", _) => {
                let digest = blake3::hash(self.text("prompt").as_bytes()).to_hex();
                done(Value::Text(format!("gist {}", &digest[..16])))
            }
            ("docs.read", _) => match self.arguments.get("path") {
                Some(Value::Bytes(bytes)) => {
                    done(Value::Text(String::from_utf8_lossy(bytes).into_owned()))
                }
                Some(_) | None => Act::End(Err(Failure {
                    refusal: Refusal::Invalid,
                    reason: "no file was handed over".into(),
                })),
            },
            ("valve.open", 1) => Act::Say(Progress::Log("opening".into())),
            ("ledger.put" | "ledger.drop", 1) => Act::Call(HostCall::DocumentList {
                kind: "ledger".into(),
                query: String::new(),
                limit: 1_000,
            }),
            ("ledger.put", 2) => {
                let content = Value::map([(self.text("field"), Value::Text(self.text("value")))]);
                Act::Call(match oldest(answer.as_ref()) {
                    Some(id) => HostCall::DocumentUpdate { id, content },
                    None => HostCall::DocumentCreate { kind: "ledger".into(), content },
                })
            }
            ("ledger.drop", 2) => match oldest(answer.as_ref()) {
                Some(id) => Act::Call(HostCall::DocumentDelete { id }),
                None => done(Value::Null),
            },
            (_, _) => done(answer.unwrap_or_default()),
        }
    }
}

/// The document with the smallest id, so that devices agree on which they change.
fn oldest(list: Option<&Value>) -> Option<DocumentId> {
    let ids = list?.as_list()?.iter().filter_map(|it| it.get("id")?.as_text()?.parse().ok());
    ids.min()
}

/// The seconds of a duration such as `PT12S` or `PT1M5S`.
fn seconds(duration: &str) -> u64 {
    let mut total = 0;
    let mut number = 0;
    for letter in duration.chars() {
        match letter {
            '0'..='9' => number = number * 10 + u64::from(letter as u8 - b'0'),
            'H' => total += std::mem::take(&mut number) * 3_600,
            'M' => total += std::mem::take(&mut number) * 60,
            'S' => total += std::mem::take(&mut number),
            _ => number = 0,
        }
    }
    total.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds() {
        assert_eq!(seconds("PT12S"), 12);
        assert_eq!(seconds("PT1M5S"), 65);
    }
}

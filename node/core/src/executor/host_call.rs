//! Calls of a running agent: checked against its manifest and the rules, then answered.

use std::time::Duration;

use weft_protocol::{
    decision::{CallSubject, Decision, Effect, Point, Question},
    document::DocumentKind,
    graph::Label,
    host_call::{Due, HostCall, HostError, Refusal},
    id::{DeviceId, DocumentId, TimerId},
    timer::Timer,
    value::Value,
};

use super::{CallId, Execution, ExecutionId, error};
use crate::{
    clock::LocalTime,
    dispatch::{Requester, Task},
    env::Env,
    replica::Edit,
    schedule,
};

/// What a call comes to.
pub(super) enum Answer {
    Now(Value),
    Later(Box<Task>),
    Logged(String),
}

impl Execution {
    /// Answers a call, or says what must be done for the answer.
    pub(super) fn answer(
        &mut self,
        request: HostCall,
        execution: ExecutionId,
        call: CallId,
        env: &mut Env<'_>,
    ) -> Result<Answer, HostError> {
        match request {
            HostCall::DocumentList { kind, query, limit } => {
                self.permit_read(&kind, env)?;
                let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(1_000);
                let entries = env.replica.list(&parse_kind(&kind)?, &query, limit, env.rows);
                self.labels.insert(Label::Private);
                let list = entries.into_iter().map(|entry| {
                    self.reads.add(entry.id.as_bytes());
                    Value::map([
                        ("id", Value::Text(entry.id.to_string())),
                        ("content", entry.content),
                        ("modified", Value::Int(entry.modified.unix_millis())),
                    ])
                });
                Ok(Answer::Now(Value::List(list.collect())))
            }
            HostCall::DocumentRead { id } => {
                let kind = self.kind_of(id, env)?;
                self.permit_read(&kind, env)?;
                let content = env.replica.read(&id, env.rows).map_err(failed)?;
                self.labels.insert(Label::Private);
                self.reads.add(id.as_bytes());
                content.map(Answer::Now).ok_or_else(|| no_document(id))
            }
            HostCall::DocumentCreate { kind, content } => {
                self.permit_write(&kind, env)?;
                require_map(&content)?;
                let id = DocumentId::from_bytes(self.draw_id());
                self.writes.add(id.as_bytes());
                let kind = parse_kind(&kind)?;
                self.edits.push(Edit::Create { id, kind, content });
                Ok(Answer::Now(Value::Text(id.to_string())))
            }
            HostCall::DocumentUpdate { id, content } => {
                let kind = self.kind_of(id, env)?;
                self.permit_write(&kind, env)?;
                require_map(&content)?;
                self.writes.add(id.as_bytes());
                self.edits.push(Edit::Update { id, content });
                Ok(Answer::Now(Value::Null))
            }
            HostCall::DocumentDelete { id } => {
                let kind = self.kind_of(id, env)?;
                self.permit_write(&kind, env)?;
                self.writes.add(id.as_bytes());
                self.edits.push(Edit::Delete { id });
                Ok(Answer::Now(Value::Null))
            }
            HostCall::TimerSet { due, label } => {
                self.permit_timers(env)?;
                self.set_timer(&due, label, env).map(Answer::Now)
            }
            HostCall::TimerList => {
                self.permit_timers(env)?;
                let entries = env.replica.list(&DocumentKind::TIMER, "", 1_000, env.rows);
                self.labels.insert(Label::Private);
                entries.iter().for_each(|entry| self.reads.add(entry.id.as_bytes()));
                let mut timers: Vec<Timer> = entries
                    .iter()
                    .filter_map(|entry| {
                        schedule::timer(TimerId::from_bytes(*entry.id.as_bytes()), &entry.content)
                    })
                    .filter(|timer| timer.due > env.now.wall)
                    .collect();
                timers.sort_by_key(|timer| (timer.due, timer.id));
                let list = timers.into_iter().map(|timer| {
                    let fires_on = env.name(&fires_on(&timer, env));
                    Value::map([
                        ("id", Value::Text(timer.id.to_string())),
                        ("label", Value::Text(timer.label)),
                        ("due", Value::Text(timer.local)),
                        ("due_unix_ms", Value::Int(timer.due.unix_millis())),
                        ("fires_on", Value::Text(fires_on)),
                    ])
                });
                Ok(Answer::Now(Value::List(list.collect())))
            }
            HostCall::TimerCancel { id } => {
                self.permit_timers(env)?;
                let document = schedule::document_id(id);
                let content = env.replica.read(&document, env.rows).map_err(failed)?;
                let timer = content
                    .and_then(|content| schedule::timer(id, &content))
                    .ok_or_else(|| error(Refusal::NotFound, "there is no such timer".into()))?;
                self.writes.add(document.as_bytes());
                self.edits.push(Edit::Delete { id: document });
                let fires_on = fires_on(&timer, env);
                let confirmed =
                    fires_on == env.me || env.neighbour(&fires_on).is_some_and(|it| it.reachable);
                Ok(Answer::Now(Value::Bool(confirmed)))
            }
            HostCall::Invoke { capability, arguments } => {
                if !self.capability.calls.contains(&capability) {
                    let reason = format!(
                        "{} doesn't name {capability} among its calls",
                        self.capability.name
                    );
                    return Err(error(Refusal::Denied, reason));
                }
                self.permit("invoke", capability.as_str(), env)?;
                require_map(&arguments)?;
                self.children += 1;
                let step = self.offer.attempt.step.child(self.children).ok_or_else(|| {
                    error(Refusal::Denied, "agents call each other too deep".into())
                })?;
                let mut callers = self.offer.callers.clone();
                callers.push(self.capability.name.clone());
                let mut above = self.offer.attempt.above.clone();
                above.push(self.offer.attempt.epoch);
                Ok(Answer::Later(Box::new(Task {
                    run: self.offer.attempt.run,
                    step,
                    owner: self.offer.attempt.owner,
                    above,
                    capability,
                    arguments,
                    labels: self.labels.clone(),
                    named: None,
                    only_here: None,
                    requester: Requester::Call { execution, call },
                    callers,
                    ends: self.ends,
                    local_time: self.offer.local_time.clone(),
                    time_zone: self.offer.time_zone.clone(),
                    can_ask: false,
                })))
            }
            HostCall::Log { line } => Ok(Answer::Logged(line.chars().take(2_000).collect())),
        }
    }

    fn set_timer(&mut self, due: &Due, label: String, env: &Env<'_>) -> Result<Value, HostError> {
        let local = LocalTime::new(&self.offer.local_time, &self.offer.time_zone)
            .map_err(|error| invalid(error.to_string()))?;
        let (due, text) = match due {
            Due::After(millis) => {
                let due = env.now.wall + Duration::from_millis(*millis);
                (due, local.text_of(due).map_err(|error| invalid(error.to_string()))?)
            }
            Due::At(text) => {
                (local.instant_of(text).map_err(|error| invalid(error.to_string()))?, text.clone())
            }
        };
        if due <= env.now.wall {
            return Err(invalid(format!("{text} is past")));
        }
        let id = TimerId::from_bytes(self.draw_id());
        let timer = Timer {
            id,
            due,
            local: text.clone(),
            zone: self.offer.time_zone.clone(),
            label,
            fires_on: env.me,
        };
        let document = schedule::document_id(id);
        self.writes.add(document.as_bytes());
        self.edits.push(Edit::Create {
            id: document,
            kind: DocumentKind::TIMER,
            content: schedule::document(&timer),
        });
        Ok(Value::map([
            ("id", Value::Text(id.to_string())),
            ("due", Value::Text(text)),
            ("due_unix_ms", Value::Int(due.unix_millis())),
            ("fires_on", Value::Text(env.name(&env.me))),
        ]))
    }

    /// An id that follows from owner, run and step alone, so that doing the step again writes the same.
    fn draw_id(&mut self) -> [u8; 16] {
        self.drawn += 1;
        let mut hasher = blake3::Hasher::new_derive_key("weft id drawn by a step v1");
        hasher.update(self.offer.attempt.owner.as_bytes());
        hasher.update(self.offer.attempt.run.as_bytes());
        hasher.update(self.offer.attempt.step.to_string().as_bytes());
        hasher.update(&self.drawn.to_be_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        id
    }

    fn kind_of(&self, id: DocumentId, env: &Env<'_>) -> Result<String, HostError> {
        env.replica.kind(&id).map(|kind| kind.as_str().to_owned()).ok_or_else(|| no_document(id))
    }

    fn permit_read(&self, kind: &str, env: &Env<'_>) -> Result<(), HostError> {
        if !self.agent.manifest.permissions.documents_read.iter().any(|granted| granted == kind) {
            return Err(not_granted(&format!("to read documents of kind {kind}")));
        }
        self.permit("documents-read", kind, env)
    }

    fn permit_write(&self, kind: &str, env: &Env<'_>) -> Result<(), HostError> {
        if !self.agent.manifest.permissions.documents_write.iter().any(|granted| granted == kind) {
            return Err(not_granted(&format!("to write documents of kind {kind}")));
        }
        self.permit("documents-write", kind, env)
    }

    fn permit_timers(&self, env: &Env<'_>) -> Result<(), HostError> {
        if !self.agent.manifest.permissions.timers {
            return Err(not_granted("to set timers"));
        }
        self.permit("timers", "", env)
    }

    /// Asks the rules about a call: for the owner, and for the device that asked in its name.
    fn permit(&self, what: &str, target: &str, env: &Env<'_>) -> Result<(), HostError> {
        if self.questions.is_empty() {
            return Err(error(Refusal::Denied, "the step was never decided".into()));
        }
        for question in &self.questions {
            let question = Question {
                point: Point::HostCall,
                labels: self.labels.iter().copied().collect(),
                call: Some(CallSubject { what: what.into(), target: target.into() }),
                now: env.now.wall,
                ..question.clone()
            };
            let Decision { effect, reason, .. } = env.policy.decide(&question);
            match effect {
                Effect::Allow => {}
                Effect::Ask | Effect::Deny => return Err(error(Refusal::Denied, reason)),
            }
        }
        Ok(())
    }
}

fn fires_on(timer: &Timer, env: &Env<'_>) -> DeviceId {
    schedule::fires_on(timer, env.members.state())
}

fn invalid(reason: impl Into<String>) -> HostError {
    error(Refusal::Invalid, reason.into())
}

fn failed(cause: impl std::fmt::Display) -> HostError {
    error(Refusal::Failed, cause.to_string())
}

fn not_granted(what: &str) -> HostError {
    error(Refusal::Denied, format!("the manifest doesn't ask {what}"))
}

fn no_document(id: DocumentId) -> HostError {
    error(Refusal::NotFound, format!("there is no document {id}"))
}

fn parse_kind(kind: &str) -> Result<DocumentKind, HostError> {
    kind.parse().map_err(|_| invalid("that is no kind of document"))
}

fn require_map(value: &Value) -> Result<(), HostError> {
    if let Value::Map(_) = value { Ok(()) } else { Err(invalid("a map of fields is expected")) }
}

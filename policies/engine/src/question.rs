//! A question as the input document of the rules.

use std::collections::BTreeMap;

use regorus::Value;
use weft_protocol::{
    decision::{Actor, CallSubject, Question, Subject},
    value::Value as Plain,
};

/// Builds the input document: words for enums, text for ids, milliseconds for times.
pub(crate) fn input(question: &Question) -> Value {
    object([
        ("point", text(question.point.word())),
        ("run", text(question.run.to_string())),
        ("step", text(question.step.to_string())),
        ("capability", text(question.capability.as_str())),
        ("effect", text(question.effect.word())),
        ("arguments", plain(&question.arguments)),
        ("labels", list(question.labels.iter().map(|label| text(label.word())))),
        ("agent", actor(&question.agent)),
        ("owner", subject(&question.owner)),
        ("executor", subject(&question.executor)),
        ("call", question.call.as_ref().map_or(Value::Null, call)),
        ("now", Value::from(question.now.unix_millis())),
    ])
}

fn subject(subject: &Subject) -> Value {
    object([
        ("id", text(subject.id.to_string())),
        ("name", text(subject.name.as_str())),
        ("kind", text(subject.kind.word())),
        ("role", text(subject.role.word())),
    ])
}

fn actor(actor: &Actor) -> Value {
    let words = |words: &[String]| list(words.iter().map(|word| text(word.as_str())));
    object([
        ("name", text(actor.name.as_str())),
        ("digest", text(actor.digest.to_string())),
        ("embedded", Value::from(actor.embedded)),
        ("documents_read", words(&actor.documents_read)),
        ("documents_write", words(&actor.documents_write)),
        ("timers", Value::from(actor.timers)),
        ("calls", list(actor.calls.iter().map(|call| text(call.as_str())))),
    ])
}

fn call(call: &CallSubject) -> Value {
    object([("what", text(call.what.as_str())), ("target", text(call.target.as_str()))])
}

fn plain(value: &Plain) -> Value {
    match value {
        Plain::Null => Value::Null,
        Plain::Bool(bool) => Value::from(*bool),
        Plain::Int(int) => Value::from(*int),
        Plain::Float(float) => Value::from(*float),
        Plain::Text(plain) => text(plain.as_str()),
        Plain::Bytes(bytes) => text(format!("{} bytes", bytes.len())),
        Plain::List(values) => list(values.iter().map(plain)),
        Plain::Map(map) => Value::from(
            map.iter()
                .map(|(key, value)| (text(key.as_str()), plain(value)))
                .collect::<BTreeMap<_, _>>(),
        ),
    }
}

fn text(text: impl Into<String>) -> Value {
    Value::from(text.into())
}

fn list(values: impl Iterator<Item = Value>) -> Value {
    Value::from(values.collect::<Vec<_>>())
}

fn object<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::from(
        entries.into_iter().map(|(key, value)| (text(key), value)).collect::<BTreeMap<_, _>>(),
    )
}

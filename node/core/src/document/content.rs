//! Content: values into Automerge objects and back.
//!
//! What people write, the field `text`, is an Automerge text, so that two who edit it at once both keep
//! their words. All other texts are names and words of the program: of two the later stands.

use automerge::{
    Automerge, AutomergeError, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue,
    transaction::Transactable,
};
use weft_protocol::value::Value;

/// The field that people write in.
const WRITING: &str = "text";

/// Sets a field of the root map; a null removes it.
pub(super) fn set_field<T: Transactable + ReadDoc>(
    document: &mut T,
    field: &str,
    value: &Value,
) -> Result<(), AutomergeError> {
    if matches!(value, Value::Null) {
        if document.get(ROOT, field)?.is_some() {
            document.delete(ROOT, field)?;
        }
        return Ok(());
    }
    set(document, &ROOT, field.into(), value)
}

/// Makes `prop` of `object` equal to `value` with as few operations as are simple to find.
fn set<T: Transactable + ReadDoc>(
    document: &mut T,
    object: &ObjId,
    prop: Prop,
    value: &Value,
) -> Result<(), AutomergeError> {
    if let Some((there, id)) = document.get(object, prop.clone())? {
        let kind = if let automerge::Value::Object(kind) = there { Some(kind) } else { None };
        match (value, kind) {
            (Value::Map(fields), Some(ObjType::Map)) => {
                let keys: Vec<String> = document.keys(&id).collect();
                for key in keys.into_iter().filter(|key| !fields.contains_key(key)) {
                    document.delete(&id, key)?;
                }
                for (key, value) in fields {
                    set(document, &id, key.as_str().into(), value)?;
                }
                return Ok(());
            }
            (Value::List(values), Some(ObjType::List)) => {
                return set_list(document, &id, values);
            }
            (Value::Text(text), Some(ObjType::Text)) => return set_text(document, &id, text),
            _ if read_prop(document, object, prop.clone())?.as_ref() == Some(value) => {
                return Ok(());
            }
            _ => {}
        }
    }
    match value {
        Value::Map(_) | Value::List(_) => {
            let kind = if matches!(value, Value::Map(_)) { ObjType::Map } else { ObjType::List };
            let id = document.put_object(object, prop, kind)?;
            fill(document, &id, value)
        }
        Value::Text(text) if matches!(&prop, Prop::Map(name) if name == WRITING) => {
            let id = document.put_object(object, prop, ObjType::Text)?;
            document.splice_text(&id, 0, 0, text)
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Bytes(_) => document.put(object, prop, scalar(value)),
    }
}

/// Replaces what lies between the common beginning and the common end.
fn set_list<T: Transactable + ReadDoc>(
    document: &mut T,
    list: &ObjId,
    values: &[Value],
) -> Result<(), AutomergeError> {
    let mut there = Vec::new();
    for index in 0..document.length(list) {
        there.push(read_prop(document, list, index.into())?.unwrap_or_default());
    }
    let before = there.iter().zip(values).take_while(|(a, b)| a == b).count();
    let (old, new) = (&there[before..], &values[before..]);
    let behind = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    for _ in 0..old.len() - behind {
        document.delete(list, before)?;
    }
    for (offset, value) in new[..new.len() - behind].iter().enumerate() {
        insert(document, list, before + offset, value)?;
    }
    Ok(())
}

/// Replaces what lies between the common beginning and the common end. Positions count code points.
fn set_text<T: Transactable + ReadDoc>(
    document: &mut T,
    text: &ObjId,
    words: &str,
) -> Result<(), AutomergeError> {
    let there: Vec<char> = document.text(text)?.chars().collect();
    let words: Vec<char> = words.chars().collect();
    let before = there.iter().zip(&words).take_while(|(a, b)| a == b).count();
    let (old, new) = (&there[before..], &words[before..]);
    let behind = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let gone = old.len() - behind;
    let new: String = new[..new.len() - behind].iter().collect();
    if gone == 0 && new.is_empty() {
        return Ok(());
    }
    document.splice_text(text, before, isize::try_from(gone).unwrap_or(isize::MAX), &new)
}

/// Fills an object that was just made.
fn fill<T: Transactable + ReadDoc>(
    document: &mut T,
    object: &ObjId,
    value: &Value,
) -> Result<(), AutomergeError> {
    if let Value::Map(fields) = value {
        for (key, value) in fields {
            set(document, object, key.as_str().into(), value)?;
        }
    }
    for (index, value) in value.as_list().unwrap_or_default().iter().enumerate() {
        insert(document, object, index, value)?;
    }
    Ok(())
}

fn insert<T: Transactable + ReadDoc>(
    document: &mut T,
    list: &ObjId,
    index: usize,
    value: &Value,
) -> Result<(), AutomergeError> {
    let kind = match value {
        Value::Map(_) => ObjType::Map,
        Value::List(_) => ObjType::List,
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Bytes(_) => return document.insert(list, index, scalar(value)),
    };
    let id = document.insert_object(list, index, kind)?;
    fill(document, &id, value)
}

fn scalar(value: &Value) -> ScalarValue {
    match value {
        Value::Bool(bool) => (*bool).into(),
        Value::Int(int) => ScalarValue::Int(*int),
        Value::Float(float) => ScalarValue::F64(*float),
        Value::Text(text) => text.as_str().into(),
        Value::Bytes(bytes) => ScalarValue::Bytes(bytes.clone()),
        Value::Null | Value::List(_) | Value::Map(_) => ScalarValue::Null,
    }
}

/// The whole content.
pub(super) fn read(document: &Automerge) -> Result<Value, AutomergeError> {
    read_object(document, &ROOT, ObjType::Map)
}

fn read_prop(
    document: &impl ReadDoc,
    object: &ObjId,
    prop: Prop,
) -> Result<Option<Value>, AutomergeError> {
    Ok(match document.get(object, prop)? {
        None => None,
        Some((automerge::Value::Object(kind), id)) => Some(read_object(document, &id, kind)?),
        Some((automerge::Value::Scalar(scalar), _)) => Some(match scalar.as_ref() {
            ScalarValue::Bytes(bytes) => Value::Bytes(bytes.clone()),
            ScalarValue::Str(text) => Value::Text(text.to_string()),
            ScalarValue::Int(int) | ScalarValue::Timestamp(int) => Value::Int(*int),
            ScalarValue::Uint(uint) => {
                i64::try_from(*uint).map_or(Value::Float(*uint as f64), Value::Int)
            }
            ScalarValue::F64(float) if float.is_finite() => Value::Float(*float),
            ScalarValue::F64(_) => Value::Float(0.0),
            ScalarValue::Counter(counter) => Value::Int(counter.into()),
            ScalarValue::Boolean(bool) => Value::Bool(*bool),
            ScalarValue::Unknown { .. } | ScalarValue::Null => Value::Null,
        }),
    })
}

fn read_object(
    document: &impl ReadDoc,
    object: &ObjId,
    kind: ObjType,
) -> Result<Value, AutomergeError> {
    match kind {
        ObjType::Map | ObjType::Table => {
            let keys: Vec<String> = document.keys(object).collect();
            let mut fields = std::collections::BTreeMap::new();
            for key in keys {
                let value = read_prop(document, object, key.as_str().into())?;
                fields.insert(key, value.unwrap_or_default());
            }
            Ok(Value::Map(fields))
        }
        ObjType::List => {
            let mut values = Vec::new();
            for index in 0..document.length(object) {
                values.push(read_prop(document, object, index.into())?.unwrap_or_default());
            }
            Ok(Value::List(values))
        }
        ObjType::Text => document.text(object).map(Value::Text),
    }
}

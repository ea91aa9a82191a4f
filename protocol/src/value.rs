//! What steps take and give: JSON's values, with bytes and whole numbers beside them.

use std::{collections::BTreeMap, fmt};

use minicbor::{Decode, Decoder, Encode, Encoder, data::Type, decode, encode};

use crate::codec::text_map;

/// An argument or a result.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number; always finite.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes, for what is no text.
    Bytes(Vec<u8>),
    /// Values in order.
    List(Vec<Self>),
    /// Values by name.
    Map(BTreeMap<String, Self>),
}

impl Value {
    /// A map of the given entries.
    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The whole number, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(int) = self { Some(*int) } else { None }
    }

    /// The entry of that name, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        if let Self::Map(map) = self { map.get(name) } else { None }
    }

    /// The values in order, if it is a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<bool> for Value {
    fn from(bool: bool) -> Self {
        Self::Bool(bool)
    }
}

/// JSON, in which bytes stand as an array of numbers.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(bool) => write!(f, "{bool}"),
            Self::Int(int) => write!(f, "{int}"),
            Self::Float(float) => f.write_str(&serde_json::json!(float).to_string()),
            Self::Text(text) => f.write_str(&serde_json::json!(text).to_string()),
            Self::Bytes(bytes) => write!(f, "{bytes:?}"),
            Self::List(list) => {
                f.write_str("[")?;
                for (at, value) in list.iter().enumerate() {
                    write!(f, "{}{value}", if at == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("{")?;
                for (at, (key, value)) in map.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{}:{value}", serde_json::json!(key))?;
                }
                f.write_str("}")
            }
        }
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(bool) => Self::Bool(bool),
            serde_json::Value::Number(number) => number.as_i64().map_or_else(
                || Self::Float(number.as_f64().filter(|float| float.is_finite()).unwrap_or(0.0)),
                Self::Int,
            ),
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(list) => {
                Self::List(list.into_iter().map(Into::into).collect())
            }
            serde_json::Value::Object(map) => {
                Self::Map(map.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(bool) => Self::Bool(*bool),
            Value::Int(int) => (*int).into(),
            Value::Float(float) => (*float).into(),
            Value::Text(text) => Self::String(text.clone()),
            Value::Bytes(bytes) => bytes.clone().into(),
            Value::List(list) => Self::Array(list.iter().map(Into::into).collect()),
            Value::Map(map) => {
                Self::Object(map.iter().map(|(key, value)| (key.clone(), value.into())).collect())
            }
        }
    }
}

impl<C> Encode<C> for Value {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        match self {
            Self::Null => e.null()?.ok(),
            Self::Bool(bool) => e.bool(*bool)?.ok(),
            Self::Int(int) => e.i64(*int)?.ok(),
            Self::Float(float) => e.f64(if float.is_finite() { *float } else { 0.0 })?.ok(),
            Self::Text(text) => e.str(text)?.ok(),
            Self::Bytes(bytes) => e.bytes(bytes)?.ok(),
            Self::List(list) => {
                e.array(list.len() as u64)?;
                list.iter().try_for_each(|value| value.encode(e, ctx))
            }
            Self::Map(map) => text_map::encode(map, e, ctx),
        }
    }
}

impl<'b, C> Decode<'b, C> for Value {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let position = d.position();
        match d.datatype()? {
            Type::Null => d.null().map(|()| Self::Null),
            Type::Bool => d.bool().map(Self::Bool),
            Type::F64 => d.f64().map(Self::Float),
            Type::String => Ok(Self::Text(d.str()?.to_owned())),
            Type::Bytes => Ok(Self::Bytes(d.bytes()?.to_owned())),
            Type::Array => Vec::decode(d, ctx).map(Self::List),
            Type::Map => BTreeMap::decode(d, ctx).map(Self::Map),
            Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::I8
            | Type::I16
            | Type::I32
            | Type::I64
            | Type::Int => d.i64().map(Self::Int),
            Type::Undefined
            | Type::F16
            | Type::F32
            | Type::Simple
            | Type::BytesIndef
            | Type::StringIndef
            | Type::ArrayIndef
            | Type::MapIndef
            | Type::Tag
            | Type::Break
            | Type::Unknown(_) => Err(decode::Error::message("not a value").at(position)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e300..1e300).prop_map(Value::Float),
            ".*".prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 32, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::List),
                prop::collection::btree_map(".{0,30}", inner, 0..8).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn round_trips(value in values()) {
            let bytes = codec::encode(&value);
            prop_assert_eq!(codec::decode::<Value>(&bytes, usize::MAX), Ok(value));
        }
    }
}

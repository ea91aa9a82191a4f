//! Deterministic CBOR (RFC 8949, section 4.2.1) with integer keys.
//!
//! One value has one encoding. [`decode`] refuses what [`encode`] would not have written: lengths
//! that are not the shortest, indefinite lengths, keys that repeat or are out of order, tags, depth
//! over [`DEPTH_MAX`], bytes after the end. Unknown integer keys are passed over, so a node reads
//! what a newer one wrote.

use minicbor::{Decode, Encode};
use thiserror::Error;

/// How deep arrays and maps may nest. Signed bytes start anew, since they are opaque to the outer value.
pub const DEPTH_MAX: usize = 16;

/// Why bytes are not a value of this codec.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum DecodeError {
    /// More bytes than the caller takes.
    #[error("read {len} bytes: at most {max} are taken")]
    TooLong {
        /// What came.
        len: usize,
        /// What is taken.
        max: usize,
    },
    /// Not deterministic CBOR.
    #[error("read CBOR at byte {at}: {why}")]
    Malformed {
        /// Offset of the item.
        at: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// CBOR, but not the expected type.
    #[error("read the value: {why}")]
    Unexpected {
        /// What is wrong with it.
        why: String,
    },
}

/// Encodes `value`.
///
/// # Panics
///
/// Never: writing to memory cannot fail, and no type of this crate refuses to encode.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("a Vec takes all bytes")
}

/// Maps with text keys, in the order that the codec wants: shorter keys first.
pub mod text_map {
    use std::collections::BTreeMap;

    use minicbor::{Decode, Decoder, Encode, Encoder};

    /// Encodes the entries by their keys' encoded bytes.
    ///
    /// # Errors
    ///
    /// The writer's own.
    pub fn encode<C, T: Encode<C>, W: minicbor::encode::Write>(
        map: &BTreeMap<String, T>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
        e.map(entries.len() as u64)?;
        entries.into_iter().try_for_each(|(key, value)| {
            e.str(key)?;
            value.encode(e, ctx)
        })
    }

    /// Decodes entries in any order; [`super::check`] has seen to it.
    ///
    /// # Errors
    ///
    /// A key is no text, or a value not what it should be.
    pub fn decode<'b, C, T: Decode<'b, C>>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<BTreeMap<String, T>, minicbor::decode::Error> {
        BTreeMap::decode(d, ctx)
    }
}

/// Decodes a value of at most `max` bytes.
///
/// # Errors
///
/// Too long, not deterministic CBOR, or not a `T`.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { len: bytes.len(), max });
    }
    check(bytes)?;
    minicbor::decode(bytes).map_err(|error| DecodeError::Unexpected { why: error.to_string() })
}

/// Checks that `bytes` are exactly one deterministic item.
///
/// # Errors
///
/// Where and why they are not.
pub fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let end = item(bytes, 0, 0)?;
    if end != bytes.len() {
        return Err(DecodeError::Malformed { at: end, why: "bytes after the end" });
    }
    Ok(())
}

/// Checks the item at `at` and returns the offset behind it.
fn item(bytes: &[u8], at: usize, depth: usize) -> Result<usize, DecodeError> {
    let malformed = |why| DecodeError::Malformed { at, why };
    if depth > DEPTH_MAX {
        return Err(malformed("nested too deep"));
    }
    let first = *bytes.get(at).ok_or_else(|| malformed("cut short"))?;
    let (major, info) = (first >> 5, first & 0x1f);
    if major == 7 {
        return match info {
            20..=22 => Ok(at + 1),
            27 => {
                let end = at + 9;
                let raw = bytes.get(at + 1..end).and_then(|raw| raw.try_into().ok());
                let number = f64::from_be_bytes(raw.ok_or_else(|| malformed("cut short"))?);
                if number.is_finite() { Ok(end) } else { Err(malformed("not a finite number")) }
            }
            _ => Err(malformed("a simple value that is not used")),
        };
    }
    let (argument, head) = argument(bytes, at, info)?;
    let body = at + head;
    let length = usize::try_from(argument).map_err(|_| malformed("too long"));
    match major {
        0 | 1 => Ok(body),
        2 | 3 => {
            let end = body.checked_add(length?).ok_or_else(|| malformed("too long"))?;
            let content = bytes.get(body..end).ok_or_else(|| malformed("cut short"))?;
            if major == 3 && std::str::from_utf8(content).is_err() {
                return Err(malformed("text that is not UTF-8"));
            }
            Ok(end)
        }
        4 => {
            let mut next = body;
            for _ in 0..argument {
                next = item(bytes, next, depth + 1)?;
            }
            Ok(next)
        }
        5 => {
            let mut next = body;
            let mut previous: Option<&[u8]> = None;
            for _ in 0..argument {
                let value = item(bytes, next, depth + 1)?;
                let key = &bytes[next..value];
                if previous.is_some_and(|previous| previous >= key) {
                    return Err(DecodeError::Malformed {
                        at: next,
                        why: "keys repeat or are out of order",
                    });
                }
                previous = Some(key);
                next = item(bytes, value, depth + 1)?;
            }
            Ok(next)
        }
        _ => Err(malformed("a tag")),
    }
}

/// Reads an item's argument and the length of its head.
fn argument(bytes: &[u8], at: usize, info: u8) -> Result<(u64, usize), DecodeError> {
    let malformed = |why| DecodeError::Malformed { at, why };
    let (width, least) = match info {
        0..=23 => return Ok((u64::from(info), 1)),
        24 => (1, 24),
        25 => (2, 0x100),
        26 => (4, 0x1_0000),
        27 => (8, 0x1_0000_0000),
        31 => return Err(malformed("an indefinite length")),
        _ => return Err(malformed("a reserved length")),
    };
    let raw = bytes.get(at + 1..at + 1 + width).ok_or_else(|| malformed("cut short"))?;
    let argument = raw.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    if argument < least {
        return Err(malformed("a length that is not the shortest"));
    }
    Ok((argument, 1 + width))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_it_would_not_write() {
        let cases: [(&[u8], &str); 9] = [
            (&[], "cut short"),
            (&[0x18, 0x17], "a length that is not the shortest"),
            (&[0x9f, 0xff], "an indefinite length"),
            (&[0xa2, 0x01, 0x00, 0x01, 0x00], "keys repeat or are out of order"),
            (&[0xa2, 0x02, 0x00, 0x01, 0x00], "keys repeat or are out of order"),
            (&[0xc0, 0x00], "a tag"),
            (&[0x00, 0x00], "bytes after the end"),
            (&[0x61, 0xff], "text that is not UTF-8"),
            (&[0x5a, 0xff, 0xff, 0xff, 0xff], "cut short"),
        ];
        for (bytes, expected) in cases {
            match check(bytes) {
                Err(DecodeError::Malformed { why, .. }) => assert_eq!(why, expected, "{bytes:x?}"),
                other => panic!("{bytes:x?}: {other:?}"),
            }
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0x00]].concat();
        assert!(check(&nested(DEPTH_MAX)).is_ok());
        assert!(check(&nested(DEPTH_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn survives_arbitrary_bytes(bytes: Vec<u8>) {
            drop(check(&bytes));
        }
    }
}

//! Names of things: public keys and hashes, each its own type.

use std::{fmt, str::FromStr};

use data_encoding::Specification;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use thiserror::Error;

/// Why a text is not an id.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("read {text:?} as {noun}: expected {expected} characters of a-z and 2-7")]
pub struct ParseIdError {
    noun: &'static str,
    text: String,
    expected: usize,
}

fn base32() -> data_encoding::Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("the alphabet has 32 distinct symbols")
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// The length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first eight characters of the text form: enough for a person to tell few apart.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(8);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base32().encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = || ParseIdError {
                    noun: $noun,
                    text: text.chars().take(80).collect(),
                    expected: ($len * 8usize).div_ceil(5),
                };
                let bytes = base32().decode(text.as_bytes()).map_err(|_| error())?;
                Ok(Self(bytes.try_into().map_err(|_| error())?))
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let bytes = d.bytes()?;
                Ok(Self(bytes.try_into().map_err(|_| decode::Error::message($noun))?))
            }
        }
    };
}

id!(
    /// A device: its Ed25519 public key, which is also its libp2p identity and its audit key.
    DeviceId, 32, "a device id"
);
id!(
    /// A fabric: the BLAKE3 hash of its `Genesis` statement.
    FabricId, 32, "a fabric id"
);
id!(
    /// A statement: the BLAKE3 hash of its signed bytes.
    StatementId, 32, "a statement id"
);
id!(
    /// An X25519 public key, to which secrets of the fabric are sealed.
    AgreementKey, 32, "an agreement key"
);
id!(
    /// The throw-away Ed25519 public key of a pairing endpoint, which is its libp2p identity.
    EndpointId, 32, "an endpoint id"
);
id!(
    /// A BLAKE3 hash of something that is not a secret.
    Digest, 32, "a digest"
);
id!(
    /// A document. Singletons derive theirs from the fabric and their name; others are drawn.
    DocumentId, 16, "a document id"
);
id!(
    /// The author of Automerge changes: one start of one device.
    ActorId, 16, "an actor id"
);
id!(
    /// A run: what came of one command.
    RunId, 16, "a run id"
);
id!(
    /// A timer.
    TimerId, 16, "a timer id"
);
id!(
    /// One segment of an audit chain: one start of one device.
    SegmentId, 16, "a segment id"
);

impl Digest {
    /// Hashes `bytes` with BLAKE3.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// One start of one node: a newer one closes the connections of the older.
///
/// The counter is on disk; the random part tells a restored disk from the one it was copied from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(map)]
pub struct BootId {
    /// Starts of this node so far, from 1.
    #[n(0)]
    pub counter: u64,
    /// Drawn at this start.
    #[n(1)]
    pub random: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let id = DeviceId::from_bytes([7; 32]);
        assert_eq!(id.to_string().parse::<DeviceId>().unwrap(), id);
        assert_eq!(id.to_string().len(), 52);
        assert!("nonsense".parse::<DeviceId>().is_err());
    }
}
